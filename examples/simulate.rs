//! A simulation finds a planted bug: an increment that is retried may be done twice.
//!
//! Run it with
//!
//! ```text
//! cargo run --release --example simulate
//! ```
//!
//! It prints the failure that it found and its smallest form. To see only that run again, type the
//! line that it ends with in front of the command: `SIM_SEED=.. SIM_STEPS=.. SIM_FAULTS=..`. Then
//! break the fixed service (make `Service::add` forget what it has seen), and run it once more.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use quoit::net::{TcpListener, TcpStream};
use quoit::sim::{Faults, Sim, explore};
use quoit::time::timeout;

const SEEDS: u64 = 2_000;
const INCREMENTS: u64 = 20;

/// A counter. The first form has the bug: it does what it is told, as often as it is told.
#[derive(Default)]
struct Service {
    counter: u64,
    seen: BTreeSet<u64>,
    remembers: bool,
}

impl Service {
    fn add(&mut self, id: u64) {
        if self.seen.insert(id) || !self.remembers {
            self.counter += 1;
        }
    }
}

/// The server, as it would run on the real kernel: a request is a number, the answer is the count.
async fn serve(service: Rc<RefCell<Service>>) -> io::Result<()> {
    let listener = TcpListener::bind("0.0.0.0:7000").await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let service = service.clone();
        quoit::spawn(async move {
            let id = stream.read_exact([0; 8]).await?;
            service.borrow_mut().add(u64::from_be_bytes(id));
            let count = service.borrow().counter;
            stream.write_all(count.to_be_bytes()).await?;
            io::Result::Ok(())
        });
    }
}

async fn add(id: u64) -> io::Result<()> {
    let stream = TcpStream::connect("server:7000").await?;
    stream.write_all(id.to_be_bytes()).await?;
    stream.read_exact([0; 8]).await?;
    Ok(())
}

/// The client tries each increment until it is acknowledged.
async fn increment(acknowledged: Rc<Cell<u64>>) {
    for id in 0..INCREMENTS {
        while !matches!(timeout(Duration::from_millis(100), add(id)).await, Ok(Ok(()))) {}
        acknowledged.set(acknowledged.get() + 1);
    }
}

fn simulation(seed: u64, remembers: bool) -> Sim {
    let service = Rc::new(RefCell::new(Service { remembers, ..Service::default() }));
    let acknowledged = Rc::new(Cell::new(0));
    let (served, counted) = (service.clone(), acknowledged.clone());
    Sim::new(seed)
        .host("server", async move || serve(served.clone()).await)
        .client("client", async move || increment(counted.clone()).await)
        .faults(Faults::default().partition(0.001).resets(0.001).short_reads(0.1))
        .check_at_end(move || {
            let (done, acknowledged) = (service.borrow().counter, acknowledged.get());
            if done == acknowledged {
                return Ok(());
            }
            Err(format!("{acknowledged} increments were acknowledged, and {done} were done"))
        })
}

fn main() {
    println!("The service that does not remember what it has done:\n");
    match explore(0..SEEDS, |seed| simulation(seed, false)) {
        Ok(explored) => println!("no failure in {explored}"),
        Err(failure) => {
            println!("{failure}\n");
            let again = simulation(failure.seed(), false)
                .faults(failure.faults().clone())
                .steps(failure.steps())
                .run()
                .expect_err("the same seed gives the same run");
            let verdict = if again == failure { "the same" } else { "another run" };
            println!("replayed: trace {:016x} is {verdict}\n", again.trace());
        }
    }
    println!("The service that remembers:\n");
    match explore(0..SEEDS, |seed| simulation(seed, true)) {
        Ok(explored) => println!("no failure in {explored}"),
        Err(failure) => println!("{failure}"),
    }
}
