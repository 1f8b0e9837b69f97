//! One cell measured: all servers run at once and are loaded in turn, round after round.

use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::cell::{Cell, Exchange, Traffic};
use crate::child::{Server, Times};
use crate::churn::Destination;
use crate::client::{Blame, Client, Slice};
use crate::histogram::Histogram;
use crate::open_loop::Schedule;
use crate::syscalls::SyscallCounter;

/// The CPU of the servers; the load generator runs on another.
pub const SERVER_CPU: usize = 0;
pub const CLIENT_CPU: usize = 1;

/// How a server is called in the tables, and the command that starts it.
#[derive(Clone, Debug)]
pub struct Contender {
    pub name: String,
    pub command: Vec<String>,
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Rounds for each set of processes; in a round every server is loaded once.
    pub rounds: usize,
    /// How often all processes are started afresh.
    pub repeats: usize,
    pub slice: Duration,
}

/// All that was measured of one contender in one cell.
#[derive(Default)]
pub struct Record {
    /// One per round, in the same order for all contenders.
    pub samples: Vec<Sample>,
    pub latency: Histogram,
    /// Rounds of an open loop whose latencies say something of the machine's other work only: the
    /// client or the server was kept from running.
    pub spoiled: usize,
    syscalls: Syscalls,
}

#[derive(Default)]
struct Syscalls {
    count: u64,
    messages: u64,
}

impl Record {
    /// None where system calls cannot be counted.
    pub fn syscalls_per_message(&self) -> Option<f64> {
        let Syscalls { count, messages } = self.syscalls;
        (messages > 0).then(|| count as f64 / messages as f64)
    }
}

#[derive(Clone, Copy)]
pub struct Sample {
    pub cpu_ns_per_message: f64,
    pub messages_per_second: f64,
    /// The share of the slice in which the server ran.
    pub busy: f64,
    /// The share in which it was ready and something else ran on its CPU.
    pub disturbed: f64,
}

/// For how long an open loop's client may do nothing, and what share of a slice its server may be
/// kept from running.
const STALL_MAX: Duration = Duration::from_micros(500);
const KEPT_WAITING_MAX: f64 = 0.02;

/// Loads of all servers, one after the other, by which their capacity is found.
const CAPACITY_LOADS: usize = 3;

/// What was measured of a contender, or why it could not be.
pub type Outcome = Result<Record, String>;

/// Measures the cell; one outcome for each contender. One that fails is left out from then on, unless
/// it is the base.
pub fn measure(
    cell: &Cell,
    contenders: &[Contender],
    effort: Effort,
    client: &mut Client,
) -> io::Result<Vec<Outcome>> {
    let exchange = cell.exchange();
    let mut outcomes: Vec<Outcome> = contenders.iter().map(|_| Ok(Record::default())).collect();
    let mut order = Order::new(contenders.len());
    let mut done = 0;
    while done < effort.repeats {
        let mut lanes = Vec::new();
        let result =
            open_all(&mut lanes, contenders, &outcomes, cell, exchange, &mut order, client)
                .and_then(|()| settle_rate(&mut lanes, effort, client))
                .and_then(|()| load_in_turn(&lanes, effort, &mut order, client, &mut outcomes));
        // The connections end before their servers do, whatever has happened.
        let disconnected = client.disconnect();
        lanes.iter_mut().for_each(|lane| lane.server.kill());
        let Err(error) = result.and(disconnected) else {
            done += 1;
            continue;
        };
        let blame = error.get_ref().and_then(|inner| inner.downcast_ref::<Blame>());
        let blamed = blame.and_then(|blame| {
            let index = contenders.iter().position(|one| one.name == blame.server)?;
            Some((index, blame.message.clone())).filter(|_| index > 0)
        });
        let Some((index, message)) = blamed else {
            return Err(error);
        };
        let lane = lanes.iter().find(|lane| lane.index == index);
        outcomes[index] = Err(lane.map_or(message.clone(), |lane| {
            lane.server.explain(&io::Error::other(message)).to_string()
        }));
        // The same rounds for all.
        for record in outcomes.iter_mut().flatten() {
            record.samples.truncate(done * effort.rounds);
        }
    }
    Ok(outcomes)
}

/// Starts the servers in any order, because the first may get the better memory.
fn open_all<'a>(
    lanes: &mut Vec<Lane<'a>>,
    contenders: &'a [Contender],
    outcomes: &[Outcome],
    cell: &'a Cell,
    exchange: Exchange,
    order: &mut Order,
    client: &mut Client,
) -> io::Result<()> {
    for &index in order.shuffled().iter().filter(|index| outcomes[**index].is_ok()) {
        let lane = Lane::open(index, &contenders[index], cell, exchange, client)?;
        lanes.push(lane);
    }
    Ok(())
}

/// For an open loop: all servers get the same requests a second, that share of what the slowest of
/// them serves in a closed loop.
fn settle_rate(lanes: &mut [Lane], effort: Effort, client: &mut Client) -> io::Result<()> {
    let Some(percent) = lanes.first().and_then(|lane| lane.cell.open_percent) else {
        return Ok(());
    };
    let mut capacity = f64::INFINITY;
    for lane in &*lanes {
        let mut best = 0.0_f64;
        for _ in 0..CAPACITY_LOADS {
            let latency = &mut Histogram::default();
            let slice = lane.load_closed(client, effort.slice, latency)?;
            best = best.max(slice.messages as f64 / slice.elapsed.as_secs_f64());
        }
        capacity = capacity.min(best);
    }
    lanes.iter_mut().for_each(|lane| lane.rate = capacity * f64::from(percent) / 100.0);
    Ok(())
}

fn load_in_turn(
    lanes: &[Lane],
    effort: Effort,
    order: &mut Order,
    client: &mut Client,
    outcomes: &mut [Outcome],
) -> io::Result<()> {
    for lane in lanes {
        lane.load(client, effort.slice, 0, &mut Histogram::default())?;
    }
    for round in 0..effort.rounds {
        for &index in order.shuffled() {
            let lane = lanes.iter().find(|lane| lane.index == index);
            if let (Some(lane), Ok(record)) = (lane, &mut outcomes[index]) {
                lane.sample(client, effort.slice, round as u64, record)?;
            }
        }
    }
    for lane in lanes {
        if let Ok(record) = &mut outcomes[lane.index] {
            lane.count_syscalls(client, effort.slice, &mut record.syscalls)?;
        }
    }
    Ok(())
}

/// A running server with the connections to it.
struct Lane<'a> {
    index: usize,
    name: &'a str,
    server: Server,
    route: Route,
    cell: &'a Cell,
    exchange: Exchange,
    /// Requests a second of an open loop.
    rate: f64,
}

/// How a lane's client reaches its server.
enum Route {
    Connections(Range<usize>),
    /// Each exchange makes its own connection.
    Anew(Destination),
}

impl<'a> Lane<'a> {
    fn open(
        index: usize,
        contender: &'a Contender,
        cell: &'a Cell,
        exchange: Exchange,
        client: &mut Client,
    ) -> io::Result<Lane<'a>> {
        let name = contender.name.as_str();
        let server = Server::start(&contender.command, &cell.arguments(), SERVER_CPU)
            .map_err(|error| of_server(name, error))?;
        let route = match cell.traffic {
            Traffic::Churn => Route::Anew(Destination::new(name, server.address)),
            _ => Route::Connections(client.connect(name, server.address, cell)?),
        };
        Ok(Lane { index, name, server, route, cell, exchange, rate: 0.0 })
    }

    /// Loads the server as the cell says. The rounds of an open loop have their own times of
    /// requests, the same ones for all servers.
    fn load(
        &self,
        client: &mut Client,
        length: Duration,
        round: u64,
        latency: &mut Histogram,
    ) -> io::Result<Slice> {
        let (Some(_), Route::Connections(range)) = (self.cell.open_percent, &self.route) else {
            return self.load_closed(client, length, latency);
        };
        // A client that never sleeps leaves the machine's other work its share here, where it does
        // not disturb; else the kernel would take it in the middle of a slice.
        std::thread::sleep(length / 8);
        let seed = (round + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let schedule = Schedule::new(self.rate, Instant::now(), seed);
        client.run_open(range.clone(), schedule, self.exchange, length, latency)
    }

    fn load_closed(
        &self,
        client: &mut Client,
        length: Duration,
        latency: &mut Histogram,
    ) -> io::Result<Slice> {
        let (cell, exchange) = (self.cell, self.exchange);
        match &self.route {
            Route::Anew(to) => client.run_churn(to, cell, exchange, length, latency),
            Route::Connections(range) => match cell.traffic {
                Traffic::Stream { .. } => {
                    client.run_stream(range.clone(), exchange, length, latency)
                }
                _ => client.run(range.clone(), cell, exchange, length, latency),
            },
        }
    }

    /// Adds one sample to the record.
    fn sample(
        &self,
        client: &mut Client,
        length: Duration,
        round: u64,
        record: &mut Record,
    ) -> io::Result<()> {
        let mut latency = Histogram::default();
        let before = self.times()?;
        let slice = self.load(client, length, round, &mut latency)?;
        let after = self.times()?;
        let cpu_ns = (after.running_ns - before.running_ns) as f64;
        let waiting_ns = (after.waiting_ns - before.waiting_ns) as f64;
        let elapsed = slice.elapsed.as_secs_f64();
        let disturbed = waiting_ns / 1e9 / elapsed;
        record.samples.push(Sample {
            cpu_ns_per_message: cpu_ns / slice.messages as f64,
            messages_per_second: slice.messages as f64 / elapsed,
            busy: cpu_ns / 1e9 / elapsed,
            disturbed,
        });
        let is_open = self.cell.open_percent.is_some();
        if is_open && (slice.stalled > STALL_MAX || disturbed > KEPT_WAITING_MAX) {
            record.spoiled += 1;
        } else {
            record.latency.add(&latency);
        }
        Ok(())
    }

    /// In a slice of its own, because the tracepoint slows every call down a little.
    fn count_syscalls(
        &self,
        client: &mut Client,
        length: Duration,
        syscalls: &mut Syscalls,
    ) -> io::Result<()> {
        let Ok(mut counter) = SyscallCounter::attach(&self.server) else {
            return Ok(());
        };
        let slice = self.load(client, length, 0, &mut Histogram::default())?;
        // The last calls are those with which the server goes to sleep.
        self.times()?;
        syscalls.count += counter.read()?;
        syscalls.messages += slice.messages;
        Ok(())
    }

    fn times(&self) -> io::Result<Times> {
        self.server.times_when_idle().map_err(|error| of_server(self.name, error))
    }
}

fn of_server(name: &str, error: io::Error) -> io::Error {
    Blame::error(name, &error.to_string())
}

/// The order of the servers, another one each time.
struct Order {
    indexes: Vec<usize>,
    state: u64,
}

impl Order {
    fn new(count: usize) -> Order {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or(Duration::from_secs(1));
        Order { indexes: (0..count).collect(), state: now.as_nanos() as u64 | 1 }
    }

    fn shuffled(&mut self) -> &[usize] {
        for last in (1..self.indexes.len()).rev() {
            let other = self.random_below(last + 1);
            self.indexes.swap(last, other);
        }
        &self.indexes
    }

    /// By xorshift64*, whose high bits are good.
    fn random_below(&mut self, limit: usize) -> usize {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let value = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        ((value * limit as u64) >> 32) as usize
    }
}

/// About how long measuring one cell takes.
pub fn estimate(effort: Effort, contender_count: usize) -> Duration {
    // Each set of processes is also loaded to warm it up, and to count its system calls.
    let slices = effort.repeats * (effort.rounds + 2);
    let overhead = Duration::from_millis(4);
    (effort.slice + overhead) * (slices * contender_count) as u32
        + Duration::from_millis(50) * effort.repeats as u32
}
