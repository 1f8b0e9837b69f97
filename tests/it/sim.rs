//! The simulator: the same seed gives the same world, and every fault is survived or reported.

mod standard;

use std::io;

use quoit::net::{TcpListener, TcpStream};
use quoit::sim::{Faults, Sim};

async fn serve() -> io::Result<()> {
    let listener = TcpListener::bind("0.0.0.0:7000").await?;
    loop {
        let (stream, _) = listener.accept().await?;
        quoit::spawn(echo(stream));
    }
}

async fn echo(stream: TcpStream) -> io::Result<()> {
    while let Some(chunk) = stream.recv().await? {
        stream.write_all(chunk).await?;
    }
    Ok(())
}

async fn exchange(server: &str) -> io::Result<()> {
    let stream = TcpStream::connect(server).await?;
    for round in 0..20_u8 {
        let sent = vec![round; 1 + usize::from(round) * 100];
        let sent = stream.write_all(sent).await?;
        let got = stream.read_exact(Vec::with_capacity(sent.len())).await?;
        assert_eq!(got[..sent.len()], sent[..]);
    }
    Ok(())
}

#[test]
fn the_same_seed_gives_the_same_world() {
    let run = |seed| {
        Sim::new(seed)
            .host_with_cores("server", 2, async || serve().await)
            .client("one", async || exchange("server:7000").await)
            .client("two", async || exchange("server:7000").await)
            .faults(Faults::default().partition(0.01).short_reads(0.1))
            .run()
            .unwrap()
    };
    for seed in 0..20 {
        let report = run(seed);
        println!("{report} {:?}", report.struck);
        assert_eq!(report, run(seed));
    }
}

/// How many seeds a test runs: `QUOIT_SEEDS`, or a slice that every run affords.
fn seeds(slice: u64) -> std::ops::Range<u64> {
    let count = std::env::var("QUOIT_SEEDS").ok();
    0..count.map_or(slice, |text| text.parse().expect("QUOIT_SEEDS is a number"))
}

#[test]
fn the_standard_program_survives_every_fault() {
    let start = std::time::Instant::now();
    let explored =
        quoit::sim::explore(seeds(100), |seed| standard::program(seed, Faults::all(), 8).0);
    let explored = explored.unwrap();
    let rate = explored.seeds as f64 / start.elapsed().as_secs_f64() * 60.0;
    println!("{explored}\n{rate:.0} seeds a minute");
}
