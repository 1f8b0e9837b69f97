//! The scorecard's faults that no test can have of a real kernel at will, in the simulator.
//!
//! The ledger of each is the simulator's own: after every turn the books of the kernel and those of
//! the runtime have to agree, and at the end nothing is in flight, leased, waiting or open.

use std::cell::Cell;
use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;
use std::io;
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use quoit::buf::IoBuf;
use quoit::fs::File;
use quoit::net::{TcpListener, TcpStream};
use quoit::runtime::stats;
use quoit::sim::{Faults, Report, Sim};
use quoit::task::JoinHandle;
use quoit::time::{sleep, timeout};

use super::serve;
use crate::loopback::{Oracle, Random, pattern, scaled};

/// Awaits all, and hands the first error or panic on.
async fn all(tasks: Vec<JoinHandle<io::Result<()>>>) -> io::Result<()> {
    for task in tasks {
        match task.await {
            Ok(result) => result?,
            Err(error) => std::panic::resume_unwind(error.try_into_panic().expect("a panic")),
        }
    }
    Ok(())
}

fn hash_of(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

// ---- S7 ----

/// Has bytes echoed that no other connection sends, and compares the hashes.
async fn echoed(connection: u64, len: usize) -> io::Result<()> {
    let stream = TcpStream::connect("server:7000").await?;
    let bytes = pattern(connection << 32, len);
    let sent = hash_of(&bytes);
    let send = async {
        for piece in bytes.chunks(700) {
            stream.write_all(piece.to_vec()).await?;
        }
        stream.shutdown(Shutdown::Write)
    };
    let receive = async {
        let mut got = Vec::new();
        while let Some(chunk) = stream.recv().await? {
            got.extend_from_slice(&chunk);
        }
        io::Result::Ok(got)
    };
    let (went, got) = quoit::join!(send, receive);
    went?;
    let got = got?;
    assert_eq!((got.len(), hash_of(&got)), (len, sent), "connection {connection}");
    Ok(())
}

/// Many connections at once; what is refused, and how much of a queue is taken then, is up to the
/// seed.
fn echo_under(seed: u64, refused: f64) -> Report {
    let faults = Faults::none().refused_enters(refused).partial_submits(0.2);
    let connections = scaled(256, 16) as u64;
    let main = async move || {
        let echoes = (0..connections).map(|number| quoit::spawn(echoed(number, 20_000)));
        all(echoes.collect()).await
    };
    let sim = Sim::new(seed).host("server", async || serve().await).client("client", main);
    sim.faults(faults).steps(u64::MAX / 2).run().unwrap_or_else(|failure| panic!("{failure}"))
}

#[test]
fn s07_refused_enters_lose_no_byte_in_the_simulator() {
    for seed in 0..scaled(100, 4) as u64 {
        let calm = echo_under(seed, 0.0).virtual_time.as_secs_f64();
        for (refused, least) in [(0.01, 0.7), (0.05, 0.3), (0.2, 0.3)] {
            let report = echo_under(seed, refused);
            assert!(report.times("refused_enters") > 0, "{refused}: {report}");
            let throughput = calm / report.virtual_time.as_secs_f64();
            assert!(throughput >= least, "seed {seed}, {refused} refused: {throughput:.2} is left");
        }
    }
}

// ---- S8 ----

/// Writes a file, reads it again, many times, so that file operations are in flight all the time.
async fn file_work(number: usize) -> io::Result<()> {
    let mut options = File::options();
    let open = options.read(true).write(true).create(true).open(format!("file {number}"));
    let file = open.await?;
    for round in 0..4_u64 {
        let bytes = pattern(round, 300);
        let bytes = file.write_all_at(bytes, round * 300).await?;
        assert_eq!(file.read_exact_at(vec![0; 300], round * 300).await?, bytes);
    }
    file.close().await
}

#[test]
fn s08_an_overflowing_queue_of_answers_loses_none_in_the_simulator() {
    let (connections, files) = (scaled(512, 96), scaled(1_024, 96));
    for seed in 0..scaled(200, 3) as u64 {
        let most = Rc::new(Cell::new(0));
        let overflows = Rc::new(Cell::new(0));
        let (live, over) = (most.clone(), overflows.clone());
        let report = Sim::new(seed)
            .host("server", async || serve().await)
            .client("client", async move || {
                let echoes = (0..connections as u64).map(|it| quoit::spawn(echoed(it, 2_000)));
                let work = (0..files).map(|number| quoit::spawn(file_work(number)));
                let tasks = echoes.chain(work).collect();
                let live = live.clone();
                let watch = quoit::spawn(async move {
                    loop {
                        live.set(live.get().max(stats().live_ops));
                        sleep(Duration::from_micros(50)).await;
                    }
                });
                all(tasks).await?;
                watch.abort();
                over.set(stats().overflows);
                io::Result::Ok(())
            })
            .faults(Faults::none().small_queues(1.0).ended_multishots(0.02).late_cancels(0.5))
            .steps(u64::MAX / 2)
            .run()
            .unwrap_or_else(|failure| panic!("{failure}"));
        assert!(report.virtual_time < Duration::from_secs(10), "{report}");
        assert!(overflows.get() > 0, "no queue has overflowed: {report}");
        let wanted = (connections + files) / 2;
        assert!(most.get() as usize >= wanted, "{} operations at once", most.get());
    }
}

// ---- S9 ----

/// Answers each byte with so many of the pattern, which goes on through all answers.
async fn answer(stream: TcpStream) -> io::Result<()> {
    let mut sent = 0;
    loop {
        let Some(asked) = stream.recv().await? else { return Ok(()) };
        for &len in &asked[..] {
            let bytes = pattern(sent, usize::from(len));
            sent += u64::from(len);
            stream.write_all(bytes).await?;
        }
    }
}

/// Races of a read with a timeout, and how many of them the timeout has won.
#[derive(Default)]
struct Races {
    run: Cell<u32>,
    lost: Cell<u32>,
}

/// Asks for bytes and gives the read about as long as an answer takes: sometimes a little too short.
async fn race(seed: u64, rounds: usize, races: &Races) -> io::Result<()> {
    let stream = TcpStream::connect("server:7000").await?;
    let (mut random, mut oracle, mut asked) = (Random::new(seed), Oracle::default(), 0);
    let mut limit = 1_000_000_u64;
    for _ in 0..rounds {
        let len = 1 + random.below(40) as u8;
        asked += u64::from(len);
        stream.write_all(vec![len]).await?;
        let (mut first, way) = (true, random.below(3));
        while oracle.0 < asked {
            // Within 50 us of where half of the answers come in time.
            let nanos = limit.saturating_sub(50_000) + random.below(100_000) as u64;
            let patience = Duration::from_nanos(nanos);
            let left = (asked - oracle.0) as usize;
            let in_time = match way {
                0 => match timeout(patience, stream.recv()).await {
                    Ok(bytes) => bytes?.map(|bytes| bytes.to_vec()),
                    Err(_) => None,
                },
                1 => match timeout(patience, stream.read(Vec::with_capacity(left))).await {
                    Ok(bytes) => Some(bytes?.1),
                    Err(_) => None,
                },
                _ => {
                    let exact = stream.read_exact(Vec::with_capacity(left).slice(..left));
                    match timeout(patience, exact).await {
                        Ok(bytes) => Some(bytes?.into_inner()),
                        Err(_) => None,
                    }
                }
            };
            if let Some(bytes) = &in_time {
                oracle.take(bytes);
            }
            if std::mem::take(&mut first) {
                races.run.set(races.run.get() + 1);
                races.lost.set(races.lost.get() + u32::from(in_time.is_none()));
                // It follows the median of the answers' times.
                limit = if in_time.is_some() { limit - limit / 50 } else { limit + limit / 50 };
            }
        }
        assert_eq!(oracle.0, asked, "bytes that nobody asked for");
    }
    stream.close().await
}

#[test]
fn s09_a_timeout_that_races_with_the_answer_loses_no_byte_in_the_simulator() {
    let rounds = scaled(1_000, 60);
    for seed in 0..scaled(100, 8) as u64 {
        let races = Rc::new(Races::default());
        let counted = races.clone();
        let report = Sim::new(seed)
            .host("server", async || {
                let listener = TcpListener::bind("0.0.0.0:7000").await?;
                loop {
                    let (stream, _) = listener.accept().await?;
                    quoit::spawn(answer(stream));
                }
                #[expect(unreachable_code, reason = "it says what the main returns")]
                io::Result::Ok(())
            })
            .client("client", async move || race(seed, rounds, &counted).await)
            .faults(Faults::default().short_reads(0.2).no_buffers(0.02).late_cancels(0.8))
            .steps(u64::MAX / 2)
            .run()
            .unwrap_or_else(|failure| panic!("{failure}"));
        let share = f64::from(races.lost.get()) / f64::from(races.run.get());
        assert!((0.2..=0.8).contains(&share), "seed {seed}: {share:.2} timed out; {report}");
    }
}

// ---- S13 ----

/// Writes all at once, through a socket that takes little at a time.
async fn write_whole(stream: u64, len: usize) -> io::Result<()> {
    let connection = TcpStream::connect("server:7000").await?;
    connection.set_send_buffer_size(4_096)?;
    connection.write_all(stream.to_le_bytes().to_vec()).await?;
    let bytes = connection.write_all(pattern(stream << 32, len)).await?;
    assert_eq!((bytes.len(), connection.bytes_sent()), (len, len as u64 + 8));
    connection.shutdown(Shutdown::Write)?;
    // The reader says what it got when it has all.
    let verdict = connection.read_exact(vec![0; 8]).await?;
    assert_eq!(verdict, hash_of(&bytes).to_le_bytes(), "stream {stream}");
    connection.close().await
}

/// Reads to the end in random sizes, with pauses, and answers with the hash.
async fn read_slowly(stream: TcpStream) -> io::Result<()> {
    let head = stream.read_exact(vec![0; 8]).await?;
    let mut random = Random::new(u64::from_le_bytes(head[..].try_into().expect("eight bytes")));
    let mut whole = Vec::new();
    loop {
        let (count, bytes) = stream.read(Vec::with_capacity(random.size(5_000))).await?;
        if count == 0 {
            break;
        }
        whole.extend_from_slice(&bytes);
        if random.below(4) == 0 {
            sleep(Duration::from_micros(random.below(500) as u64)).await;
        }
    }
    stream.write_all(hash_of(&whole).to_le_bytes().to_vec()).await?;
    Ok(())
}

#[test]
fn s13_short_writes_are_no_ends_in_the_simulator() {
    let len = scaled(1 << 20, 20_000);
    for seed in 0..scaled(20, 3) as u64 {
        let report = Sim::new(seed)
            .host("server", async || {
                let listener = TcpListener::bind("0.0.0.0:7000").await?;
                loop {
                    let (stream, _) = listener.accept().await?;
                    quoit::spawn(read_slowly(stream));
                }
                #[expect(unreachable_code, reason = "it says what the main returns")]
                io::Result::Ok(())
            })
            .client("client", async move || {
                all((0..16).map(|stream| quoit::spawn(write_whole(stream, len))).collect()).await
            })
            .faults(Faults::none().short_writes(0.9).short_reads(0.5).partial_submits(0.2))
            .steps(u64::MAX / 2)
            .run()
            .unwrap_or_else(|failure| panic!("{failure}"));
        assert!(report.times("short_writes") > 100, "{report}");
    }
}
