//! What a short connection costs its server: connect, one request, close.
//!
//! `cargo bench --bench churn [ROUNDS]` compares the multishot accept with one request for each
//! connection (what a listener with a limit does), and the modes in which cores share a listener with
//! each other, on one core. The figure is the CPU time of the server's thread; each round loads all in
//! turn, and ratios are taken within a round. The multishot one runs twice, as a control.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use quoit::net::{Accept, TcpListener, TcpStream};
use quoit::runtime;

/// Connections that are open at a time, and batches of them in a slice.
const WIDTH: usize = 32;
const BATCHES: usize = 12;

const NAMES: [&str; 5] = ["multishot", "multishot again", "one each", "shared", "distributed"];

fn main() {
    // `cargo bench` says `--bench`, `cargo test` nothing.
    let number = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    let rounds: usize = number.unwrap_or(if cfg!(debug_assertions) { 2 } else { 60 });
    let (orders, taken) = mpsc::channel();
    let client = thread::spawn(move || load(&taken));
    pin(0);
    let costs = runtime::run(measure(rounds, orders)).unwrap();
    client.join().unwrap();
    println!("{:16} {:>10} {:>8} {:>8} {:>8}", "accept", "ns", "x first", "p25", "p75");
    for (name, own) in NAMES.iter().zip(&costs) {
        let ratios = own.iter().zip(&costs[0]).map(|(own, first)| own / first);
        let ratios = sorted(ratios.collect());
        let at = |share: f64| ratios[(share * (ratios.len() - 1) as f64) as usize];
        let nanoseconds = sorted(own.clone())[own.len() / 2];
        let (middle, low, high) = (at(0.5), at(0.25), at(0.75));
        println!("{name:16} {nanoseconds:10.0} {middle:8.3} {low:8.3} {high:8.3}");
    }
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// Nanoseconds of CPU per connection: for each way to accept, those of each round.
async fn measure(rounds: usize, orders: Sender<SocketAddr>) -> Vec<Vec<f64>> {
    let mut listeners = Vec::new();
    for name in NAMES {
        let mode = match name {
            "shared" => Accept::Shared,
            "distributed" => Accept::Distributed,
            _ => Accept::PerCore,
        };
        let listener = TcpListener::bind_with((Ipv4Addr::LOCALHOST, 0), mode).await.unwrap();
        if name == "one each" {
            listener.set_max_connections(1_000_000).unwrap();
        }
        listeners.push(listener);
    }
    let mut costs = vec![Vec::new(); NAMES.len()];
    for round in 0..=rounds {
        for (listener, costs) in listeners.iter().zip(&mut costs) {
            orders.send(listener.local_addr().unwrap()).unwrap();
            let start = cpu_time();
            serve(listener).await;
            let cost = (cpu_time() - start) as f64 / (WIDTH * BATCHES) as f64;
            // The first round warms up.
            if round > 0 {
                costs.push(cost);
            }
        }
    }
    costs
}

async fn serve(listener: &TcpListener) {
    for _ in 0..BATCHES {
        let mut tasks = Vec::with_capacity(WIDTH);
        for _ in 0..WIDTH {
            let (stream, _) = listener.accept().await.unwrap();
            tasks.push(quoit::spawn(answer(stream)));
        }
        for task in tasks {
            task.await.unwrap();
        }
    }
}

async fn answer(stream: TcpStream) {
    while let Some(chunk) = stream.recv().await.unwrap() {
        stream.write_all(chunk).await.unwrap();
    }
}

/// The clients: a batch of connections at a time.
fn load(orders: &Receiver<SocketAddr>) {
    pin(1);
    while let Ok(address) = orders.recv() {
        for _ in 0..BATCHES {
            let connect = |_| std::net::TcpStream::connect(address).unwrap();
            let mut streams: Vec<_> = (0..WIDTH).map(connect).collect();
            streams.iter_mut().for_each(|stream| stream.write_all(b"x").unwrap());
            streams.iter_mut().for_each(|stream| stream.read_exact(&mut [0]).unwrap());
        }
    }
}

/// Keeps this thread on a CPU; without it the figures are only less steady.
fn pin(cpu: usize) {
    core_affinity::set_for_current(core_affinity::CoreId { id: cpu });
}

/// Nanoseconds that this thread has run.
fn cpu_time() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a place for the answer.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
