//! A key-value server that redis clients talk to, its keys spread over the cores.
//!
//! ```text
//! cargo run --release --example resp [address]      127.0.0.1:6380 unless given
//! redis-cli -p 6380
//! redis-benchmark -p 6380 -t get,set -P 16
//! ```
//!
//! It knows GET, SET (EX, PX), DEL, INCR, INCRBY, MGET, MSET, EXPIRE, TTL, PING, ECHO, INFO and QUIT.
//!
//! Every core has its share of the keys for itself, without a lock. What has arrived from a client is
//! taken apart into actions on single keys. Those that live here are performed where they stand; each
//! other core is asked once for all of its own. Actions on one key keep their order, and replies that
//! of their requests. A request of several keys is no transaction. A connection holds at most one
//! request, and the replies of [`BATCH`] of them.

mod store;
mod wire;

use std::borrow::Cow;
use std::cell::RefCell;
use std::io;
use std::mem::take;
use std::time::Duration;

use quoit::net::{TcpListener, TcpStream};
use quoit::runtime::{self, Core, Gone, Handle, PerCore};
use quoit::task::JoinSet;
use quoit::time::interval;

use store::{Action, Store};
use wire::{Malformed, Parser, Reply, Request};

static STORE: PerCore<RefCell<Store>> = PerCore::new(Default::default);

/// Requests that are served together.
const BATCH: usize = 128;

fn main() -> runtime::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:6380".into());
    runtime::start_per_core(async move |core: Core| serve(&core, &address).await)
}

async fn serve(core: &Core, address: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    if core.index() == 0 {
        println!("resp on {}", listener.local_addr()?);
    }
    let mut clients = JoinSet::new();
    let mut seconds = interval(Duration::from_secs(1));
    loop {
        quoit::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                clients.spawn(async move { converse(&stream).await });
            }
            // A connection that breaks is its client's affair.
            Some(_) = clients.join_next() => {}
            _ = seconds.tick() => STORE.with(|store| store.borrow_mut().expire()),
            () = core.shutdown() => return Ok(()),
        }
    }
}

/// Serves one client, until it leaves or says what no client says.
async fn converse(stream: &TcpStream) -> io::Result<()> {
    let (mut parser, mut batch) = (Parser::default(), Batch::new());
    while let Some(bytes) = stream.recv().await? {
        parser.feed(&bytes);
        drop(bytes);
        loop {
            let then = STORE.with(|store| batch.fill(&mut parser, &mut store.borrow_mut()));
            let replies = batch.finish().await?;
            if !replies.is_empty() {
                batch.reuse(stream.write_all(replies).await?);
            }
            match then {
                Then::ServeMore => {}
                Then::Receive => break,
                Then::Leave => return Ok(()),
            }
        }
    }
    Ok(())
}

/// What follows a batch.
enum Then {
    ServeMore,
    Receive,
    Leave,
}

/// Requests that are served together.
struct Batch {
    cores: Vec<Handle>,
    here: usize,
    /// The replies, but for what is to come from other cores.
    out: Vec<u8>,
    /// What each core is asked.
    shares: Vec<Vec<(Vec<u8>, Action<'static>)>>,
    /// What belongs between the replies, and where, in order.
    missing: Vec<(usize, Missing)>,
}

enum Missing {
    /// The next reply of this core.
    Reply(usize),
    /// Nothing, but this core replies.
    Nothing(usize),
    /// Nothing yet: the next reply of this core is a part of a sum.
    Part(usize),
    /// The sum of this and of the parts before.
    Sum(i64),
    /// What is known of the server.
    Info,
}

impl Batch {
    fn new() -> Self {
        let cores = runtime::cores();
        let shares = cores.iter().map(|_| Vec::new()).collect();
        let (here, out, missing) = (runtime::core().index(), Vec::new(), Vec::new());
        Batch { cores, here, out, shares, missing }
    }

    /// Serves what has arrived, up to [`BATCH`] requests.
    fn fill(&mut self, parser: &mut Parser, store: &mut Store) -> Then {
        for _ in 0..BATCH {
            let request = match parser.next() {
                Ok(Some(request)) => request,
                Ok(None) => return Then::Receive,
                Err(Malformed(why)) => {
                    Reply::Error(format!("ERR Protocol error: {why}")).write(&mut self.out);
                    return Then::Leave;
                }
            };
            if let Err(why) = self.serve(request, store) {
                Reply::Error(format!("ERR {why}")).write(&mut self.out);
            }
            if request.string(0).eq_ignore_ascii_case(b"quit") {
                return Then::Leave;
            }
        }
        Then::ServeMore
    }

    fn serve(&mut self, request: Request<'_>, store: &mut Store) -> Result<(), String> {
        let arg = |index| request.string(index);
        let name = request.string(0);
        // Longer than any name that is known.
        let mut upper = [0; 8];
        let upper = &mut upper[..name.len().min(8)];
        upper.copy_from_slice(&name[..upper.len()]);
        upper.make_ascii_uppercase();
        match (&*upper, request.len() - 1) {
            (b"PING", 0) => Reply::Simple("PONG").write(&mut self.out),
            (b"PING" | b"ECHO", 1) => Reply::Bulk(Some(arg(1).into())).write(&mut self.out),
            (b"QUIT", 0) => Reply::Simple("OK").write(&mut self.out),
            (b"INFO", _) => self.miss(Missing::Info),
            (b"GET", 1) => self.one(store, arg(1), Action::Get),
            (b"TTL", 1) => self.one(store, arg(1), Action::TimeLeft),
            (b"INCR", 1) => self.one(store, arg(1), Action::Add(1)),
            (b"INCRBY", 2) => self.one(store, arg(1), Action::Add(number_of(arg(2))?)),
            (b"EXPIRE", 2) => {
                // One in the past removes the key at once.
                let seconds = u64::try_from(number_of(arg(2))?).unwrap_or(0);
                self.one(store, arg(1), Action::Expire(Duration::from_secs(seconds)));
            }
            (b"SET", 2) => self.one(store, arg(1), Action::Set(arg(2).into(), None)),
            (b"SET", 4) => {
                let lives = time_of(arg(3), arg(4))?;
                self.one(store, arg(1), Action::Set(arg(2).into(), Some(lives)));
            }
            (b"DEL", 1..) => self.delete(store, request.strings().skip(1)),
            (b"MGET", count @ 1..) => {
                wire::array(&mut self.out, count);
                for key in request.strings().skip(1) {
                    self.one(store, key, Action::Get);
                }
            }
            (b"MSET", count @ 2..) if count.is_multiple_of(2) => {
                for key in (1..count).step_by(2) {
                    let set = Action::Set(arg(key + 1).into(), None);
                    if let Asked::Of(core) = self.ask(store, arg(key), set) {
                        self.miss(Missing::Nothing(core));
                    }
                }
                Reply::Simple("OK").write(&mut self.out);
            }
            (
                b"PING" | b"ECHO" | b"QUIT" | b"GET" | b"TTL" | b"INCR" | b"INCRBY" | b"EXPIRE"
                | b"SET" | b"DEL" | b"MGET" | b"MSET",
                _,
            ) => {
                let name = String::from_utf8_lossy(name).to_lowercase();
                return Err(format!("wrong number of arguments for '{name}' command"));
            }
            _ => return Err(format!("unknown command '{}'", name.escape_ascii())),
        }
        Ok(())
    }

    /// Performs an action whose reply is that of its request.
    fn one(&mut self, store: &mut Store, key: &[u8], action: Action<'_>) {
        match self.ask(store, key, action) {
            Asked::Here(reply) => reply.write(&mut self.out),
            Asked::Of(core) => self.miss(Missing::Reply(core)),
        }
    }

    fn delete<'a>(&mut self, store: &mut Store, keys: impl Iterator<Item = &'a [u8]>) {
        let (mut sum, missing) = (0, self.missing.len());
        for key in keys {
            match self.ask(store, key, Action::Delete) {
                Asked::Here(reply) => sum += reply.integer(),
                Asked::Of(core) => self.miss(Missing::Part(core)),
            }
        }
        if self.missing.len() == missing {
            Reply::Integer(sum).write(&mut self.out);
        } else {
            self.miss(Missing::Sum(sum));
        }
    }

    /// Performs an action if its key lives here, and keeps it for its core if not.
    fn ask<'s>(&mut self, store: &'s mut Store, key: &[u8], action: Action<'_>) -> Asked<'s> {
        let core = runtime::core_for(key).index();
        if core == self.here {
            return Asked::Here(store.perform(key, action));
        }
        self.shares[core].push((key.to_vec(), action.into_owned()));
        Asked::Of(core)
    }

    fn miss(&mut self, what: Missing) {
        self.missing.push((self.out.len(), what));
    }

    /// Has the other cores perform their shares, and returns the replies.
    ///
    /// # Errors
    /// A core has ended, and its keys with it.
    async fn finish(&mut self) -> io::Result<Vec<u8>> {
        let here = take(&mut self.out);
        if self.missing.is_empty() {
            return Ok(here);
        }
        let shares = self.shares.iter_mut().map(take);
        let calls = shares.zip(&self.cores).map(|(share, core)| {
            (!share.is_empty()).then(|| core.call(async move || perform_all(share)))
        });
        let mut replies = Vec::new();
        for call in calls.collect::<Vec<_>>() {
            let done = match call {
                Some(call) => call.await.map_err(io::Error::other)?,
                None => Vec::new(),
            };
            replies.push(done.into_iter());
        }
        let mut next = |core: usize| replies[core].next().expect("each action has a reply");
        let (mut out, mut written, mut sum) = (Vec::new(), 0, 0);
        for (at, what) in self.missing.drain(..) {
            out.extend_from_slice(&here[written..at]);
            written = at;
            match what {
                Missing::Reply(core) => next(core).write(&mut out),
                Missing::Nothing(core) => drop(next(core)),
                Missing::Part(core) => sum += next(core).integer(),
                Missing::Sum(part) => Reply::Integer(part + take(&mut sum)).write(&mut out),
                Missing::Info => info().await.map_err(io::Error::other)?.write(&mut out),
            }
        }
        out.extend_from_slice(&here[written..]);
        Ok(out)
    }

    /// Takes back the memory of replies that were sent, but for that of a large one.
    fn reuse(&mut self, mut sent: Vec<u8>) {
        sent.clear();
        sent.shrink_to(64 << 10);
        self.out = sent;
    }
}

/// Where an action was, or is to be, performed.
enum Asked<'s> {
    Here(Reply<'s>),
    Of(usize),
}

fn perform_all(share: Vec<(Vec<u8>, Action<'static>)>) -> Vec<Reply<'static>> {
    STORE.with(|store| {
        let mut store = store.borrow_mut();
        let replies =
            share.into_iter().map(|(key, action)| store.perform(&key, action).into_owned());
        replies.collect()
    })
}

async fn info() -> Result<Reply<'static>, Gone> {
    let keys = runtime::map_cores(async || STORE.with(|store| store.borrow().len())).await?;
    let text = format!(
        "# Server\r\nquoit_version:{}\r\nkernel:{}\r\n# Keyspace\r\ncores:{}\r\nkeys:{}\r\n",
        env!("CARGO_PKG_VERSION"),
        runtime::driver(),
        keys.len(),
        keys.iter().sum::<usize>()
    );
    Ok(Reply::Bulk(Some(Cow::Owned(text.into_bytes()))))
}

fn number_of(text: &[u8]) -> Result<i64, String> {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| "value is not an integer or out of range".into())
}

fn time_of(unit: &[u8], count: &[u8]) -> Result<Duration, String> {
    let count = u64::try_from(number_of(count)?).ok().filter(|count| *count > 0);
    let count = count.ok_or("invalid expire time in 'set' command")?;
    match unit.to_ascii_uppercase().as_slice() {
        b"EX" => Ok(Duration::from_secs(count)),
        b"PX" => Ok(Duration::from_millis(count)),
        _ => Err("syntax error".into()),
    }
}
