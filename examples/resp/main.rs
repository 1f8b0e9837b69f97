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
//! taken apart into actions on single keys; each core is asked once for all of its own. Actions on one
//! key keep their order, and replies that of their requests. A request of several keys is no
//! transaction. A connection holds at most one request, and the replies of [`BATCH`] of them.

mod store;
mod wire;

use std::cell::RefCell;
use std::io;
use std::time::Duration;

use quoit::net::{TcpListener, TcpStream};
use quoit::runtime::{self, Core, Gone, Handle, PerCore};
use quoit::task::JoinSet;
use quoit::time::interval;

use store::{Action, Store};
use wire::{Malformed, Parser, Reply};

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
    let (mut parser, cores) = (Parser::default(), runtime::cores());
    let mut out = Vec::new();
    while let Some(bytes) = stream.recv().await? {
        parser.feed(&bytes);
        drop(bytes);
        loop {
            let mut batch = Batch::default();
            let ended = batch.fill(&mut parser);
            let count = batch.answers.len();
            batch.perform(&mut out, &cores).await;
            let over = match ended {
                Ok(quits) => quits,
                Err(Malformed(why)) => {
                    Reply::Error(format!("ERR Protocol error: {why}")).write(&mut out);
                    true
                }
            };
            if !out.is_empty() {
                out = stream.write_all(out).await?;
                out.clear();
                // One large answer is not kept for all the small ones that follow.
                out.shrink_to(64 << 10);
            }
            if over {
                return Ok(());
            }
            if count < BATCH {
                break;
            }
        }
    }
    Ok(())
}

/// How an answer is made of the replies to its actions.
enum Answer {
    Ready(Reply),
    /// The reply to this action.
    One,
    /// All of so many, in an array.
    Each(usize),
    /// The sum of so many.
    Sum(usize),
    /// So many that cannot fail.
    Ok(usize),
    /// What is known of the server.
    Info,
}

/// Requests, taken apart into actions on single keys.
#[derive(Default)]
struct Batch {
    answers: Vec<Answer>,
    actions: Vec<(Vec<u8>, Action)>,
}

impl Batch {
    /// Takes what has arrived, up to [`BATCH`] requests. Whether the client leaves.
    fn fill(&mut self, parser: &mut Parser) -> Result<bool, Malformed> {
        while self.answers.len() < BATCH
            && let Some(strings) = parser.next()?
        {
            let quits = strings[0].eq_ignore_ascii_case(b"quit");
            let answer = self
                .take_apart(strings)
                .unwrap_or_else(|why| Answer::Ready(Reply::Error(format!("ERR {why}"))));
            self.answers.push(answer);
            if quits {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn take_apart(&mut self, mut strings: Vec<Vec<u8>>) -> Result<Answer, String> {
        let mut name = strings.remove(0);
        let args = strings;
        name.make_ascii_uppercase();
        let few = || {
            let name = String::from_utf8_lossy(&name).to_lowercase();
            format!("wrong number of arguments for '{name}' command")
        };
        let mut one = |key: Vec<u8>, action| {
            self.actions.push((key, action));
            Answer::One
        };
        Ok(match (name.as_slice(), args.len()) {
            (b"PING", 0) => Answer::Ready(Reply::Simple("PONG")),
            (b"PING" | b"ECHO", 1) => Answer::Ready(Reply::Bulk(args.into_iter().next())),
            (b"QUIT", 0) => Answer::Ready(Reply::Simple("OK")),
            (b"INFO", _) => Answer::Info,
            (b"GET", 1) => one(only(args), Action::Get),
            (b"TTL", 1) => one(only(args), Action::TimeLeft),
            (b"INCR", 1) => one(only(args), Action::Add(1)),
            (b"INCRBY", 2) => {
                let [key, number] = pair(args);
                one(key, Action::Add(number_of(&number)?))
            }
            (b"EXPIRE", 2) => {
                let [key, seconds] = pair(args);
                let seconds = number_of(&seconds)?;
                // One in the past removes the key at once.
                let lives = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
                one(key, Action::Expire(lives))
            }
            (b"SET", 2 | 4) => {
                let lives = match args.get(2..) {
                    Some([unit, count]) => Some(time_of(unit, count)?),
                    _ => None,
                };
                let [key, value] = pair(args);
                one(key, Action::Set(value, lives))
            }
            (b"DEL", 1..) => {
                let count = args.len();
                self.actions.extend(args.into_iter().map(|key| (key, Action::Delete)));
                Answer::Sum(count)
            }
            (b"MGET", 1..) => {
                let count = args.len();
                self.actions.extend(args.into_iter().map(|key| (key, Action::Get)));
                Answer::Each(count)
            }
            (b"MSET", 2..) if args.len().is_multiple_of(2) => {
                let count = args.len() / 2;
                let mut args = args.into_iter();
                while let (Some(key), Some(value)) = (args.next(), args.next()) {
                    self.actions.push((key, Action::Set(value, None)));
                }
                Answer::Ok(count)
            }
            (
                b"PING" | b"ECHO" | b"QUIT" | b"GET" | b"TTL" | b"INCR" | b"INCRBY" | b"EXPIRE"
                | b"SET" | b"DEL" | b"MGET" | b"MSET",
                _,
            ) => return Err(few()),
            _ => return Err(format!("unknown command '{}'", name.escape_ascii())),
        })
    }

    /// Has every action done where its key lives, and writes the answers.
    async fn perform(self, out: &mut Vec<u8>, cores: &[Handle]) {
        let mut shares: Vec<Vec<_>> = cores.iter().map(|_| Vec::new()).collect();
        let mut replies: Vec<Option<Reply>> = Vec::new();
        for (key, action) in self.actions {
            let core = runtime::core_for(&key).index();
            shares[core].push((replies.len(), key, action));
            replies.push(None);
        }
        let here = runtime::core().index();
        let asked: Vec<_> = (shares.into_iter().enumerate())
            .filter(|(_, share)| !share.is_empty())
            .map(|(core, share)| {
                (core, share.iter().map(|(place, ..)| *place).collect::<Vec<_>>(), share)
            })
            .map(|(core, places, share)| match core == here {
                true => (places, Share::Here(perform_here(share))),
                false => {
                    (places, Share::There(cores[core].call(async move || perform_here(share))))
                }
            })
            .collect();
        for (places, share) in asked {
            let done = match share {
                Share::Here(done) => done,
                Share::There(call) => call.await.unwrap_or_else(|gone| {
                    let gone = Reply::Error(format!("ERR {gone}"));
                    vec![gone; places.len()]
                }),
            };
            for (place, reply) in places.into_iter().zip(done) {
                replies[place] = Some(reply);
            }
        }
        let mut replies = replies.into_iter().flatten();
        for answer in self.answers {
            let reply = match answer {
                Answer::Ready(reply) => reply,
                Answer::One => replies.next().expect("every action has a reply"),
                Answer::Each(count) => Reply::Array(replies.by_ref().take(count).collect()),
                Answer::Sum(count) => sum(replies.by_ref().take(count)),
                Answer::Ok(count) => {
                    let mut failed = replies.by_ref().take(count);
                    let failed = failed.find(|reply| matches!(reply, Reply::Error(_)));
                    failed.unwrap_or(Reply::Simple("OK"))
                }
                Answer::Info => {
                    info().await.unwrap_or_else(|gone| Reply::Error(format!("ERR {gone}")))
                }
            };
            reply.write(out);
        }
    }
}

enum Share<Call> {
    Here(Vec<Reply>),
    There(Call),
}

fn perform_here(share: Vec<(usize, Vec<u8>, Action)>) -> Vec<Reply> {
    STORE.with(|store| {
        let mut store = store.borrow_mut();
        share.into_iter().map(|(_, key, action)| store.perform(key, action)).collect()
    })
}

fn sum(replies: impl Iterator<Item = Reply>) -> Reply {
    let mut sum = 0;
    for reply in replies {
        match reply {
            Reply::Integer(number) => sum += number,
            other => return other,
        }
    }
    Reply::Integer(sum)
}

async fn info() -> Result<Reply, Gone> {
    let keys = runtime::map_cores(async || STORE.with(|store| store.borrow().len())).await?;
    let text = format!(
        "# Server\r\nquoit_version:{}\r\nkernel:{}\r\n# Keyspace\r\ncores:{}\r\nkeys:{}\r\n",
        env!("CARGO_PKG_VERSION"),
        runtime::driver(),
        keys.len(),
        keys.iter().sum::<usize>()
    );
    Ok(Reply::Bulk(Some(text.into_bytes())))
}

fn only(args: Vec<Vec<u8>>) -> Vec<u8> {
    args.into_iter().next().expect("they were counted")
}

fn pair(args: Vec<Vec<u8>>) -> [Vec<u8>; 2] {
    let mut args = args.into_iter();
    [(); 2].map(|()| args.next().expect("they were counted"))
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
