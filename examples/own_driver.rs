//! A driver of one's own: it stands between the runtime and the real kernel, counts what is asked,
//! and holds back what is received, to see what an application makes of a slow peer.
//!
//! ```text
//! cargo run --example own_driver [ms]       how late bytes arrive; 100 unless given
//! cargo run --example own_driver 10         in time for the client, which waits for 50 ms
//! QUOIT_DRIVER=epoll cargo run --example own_driver     the same around another kernel
//! ```

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use io_uring::opcode;
use quoit::driver::{
    Call, Counters, Cqe, Driver, DriverKind, Fields, Register, Sqe, Unparker, Wait,
};
use quoit::net::{TcpListener, TcpStream};
use quoit::runtime::{self, Builder};
use quoit::time::timeout;

/// How often each opcode was asked for.
type Counts = Arc<Mutex<BTreeMap<u8, u64>>>;

/// Another driver, whose receives are answered late.
struct Late {
    within: Box<dyn Driver>,
    delay_ns: u64,
    counts: Counts,
    /// The receives in flight, by the `user_data` that comes back in their answers.
    receives: HashSet<u64>,
    /// Answers that are held back, each with the time when it is due; the first is due first.
    held: VecDeque<(u64, Cqe)>,
}

// SAFETY: each answer of the driver within is passed on once, as it was.
unsafe impl Driver for Late {
    unsafe fn push(&mut self, sqe: Sqe) {
        let Fields { opcode, user_data, .. } = Fields::of(&sqe);
        *self.counts.lock().unwrap().entry(opcode).or_default() += 1;
        if opcode == opcode::Recv::CODE {
            self.receives.insert(user_data);
        }
        // SAFETY: the caller's promise is passed on.
        unsafe { self.within.push(sqe) };
    }

    fn enter(&mut self, wait: Wait, answers: &mut Vec<Cqe>) -> io::Result<()> {
        let wait = match (wait, self.held.front()) {
            (Wait::Block, Some((due, _))) => Wait::Until(*due),
            (Wait::Until(time), Some((due, _))) => Wait::Until(time.min(*due)),
            (wait, _) => wait,
        };
        let mut fresh = Vec::new();
        self.within.enter(wait, &mut fresh)?;
        let now = self.within.now();
        for cqe in fresh {
            if !self.receives.contains(&cqe.user_data) {
                answers.push(cqe);
                continue;
            }
            if !cqe.has_more() {
                self.receives.remove(&cqe.user_data);
            }
            self.held.push_back((now + self.delay_ns, cqe));
        }
        while let Some((_, cqe)) = self.held.pop_front_if(|(due, _)| *due <= now) {
            answers.push(cqe);
        }
        Ok(())
    }

    fn call(&mut self, call: Call<'_>) -> io::Result<i32> {
        self.within.call(call)
    }

    unsafe fn register(&mut self, resource: Register) -> io::Result<()> {
        // SAFETY: the caller's promise is passed on.
        unsafe { self.within.register(resource) }
    }

    fn supports(&self, opcode: u8) -> bool {
        self.within.supports(opcode)
    }

    fn unparker(&self) -> Unparker {
        self.within.unparker()
    }

    fn now(&self) -> u64 {
        self.within.now()
    }

    fn counters(&self) -> Counters {
        self.within.counters()
    }

    fn name(&self) -> &'static str {
        "late"
    }
}

fn main() -> runtime::Result<()> {
    let ms = std::env::args().nth(1).map_or(100, |text| text.parse().expect("milliseconds"));
    let kind = std::env::var("QUOIT_DRIVER").map_or(DriverKind::Auto, |name| name.parse().unwrap());
    let counts = Counts::default();
    let shared = Arc::clone(&counts);
    let make = move |_core| {
        let (within, counts) = (kind.open()?, Arc::clone(&shared));
        let (receives, held) = (HashSet::new(), VecDeque::new());
        let late = Late { within, delay_ns: ms * 1_000_000, counts, receives, held };
        Ok(Box::new(late) as Box<dyn Driver>)
    };
    Builder::new().driver_with(make).run(ask_and_answer())??;
    let name = |code: &u8| match *code {
        opcode::Recv::CODE => "receives",
        opcode::Send::CODE => "sends",
        opcode::Accept::CODE => "accepts",
        opcode::Connect::CODE => "connects",
        _ => "others",
    };
    for (code, count) in counts.lock().unwrap().iter() {
        println!("opcode {code:2}: {count} {}", name(code));
    }
    Ok(())
}

/// A client that waits for an answer for no longer than 50 ms.
async fn ask_and_answer() -> io::Result<()> {
    println!("running on the driver `{}`", runtime::driver());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let client = TcpStream::connect(listener.local_addr()?).await?;
    let (server, _) = listener.accept().await?;
    server.write_all("an answer").await?;
    match timeout(Duration::from_millis(50), client.recv()).await {
        Ok(chunk) => println!("in time: {} bytes", chunk?.map_or(0, |chunk| chunk.len())),
        Err(elapsed) => println!("too late: {elapsed}"),
    }
    // What was late is not lost.
    drop(server);
    while let Some(chunk) = client.recv().await? {
        println!("after all: {} bytes", chunk.len());
    }
    Ok(())
}
