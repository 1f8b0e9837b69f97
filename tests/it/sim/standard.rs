//! The standard program: a server of two cores and three clients, under everything at once.

use std::cell::Cell;
use std::io;
use std::net::Shutdown;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use quoit::buf::IoBuf;
use quoit::fs::File;
use quoit::net::{TcpListener, TcpStream};
use quoit::sim::{Faults, Sim};
use quoit::task::yield_now;
use quoit::time::{sleep, timeout};

use crate::numbers::{Oracle, Random, pattern};

const PATIENCE: Duration = Duration::from_millis(1_500);

/// What the server has counted, for the check that the program itself does what it should.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) exchanges: Cell<u32>,
    pub(crate) failures: Cell<u32>,
}

pub(crate) fn program(seed: u64, faults: Faults, rounds: usize) -> (Sim, Rc<Tally>) {
    let tally = Rc::new(Tally::default());
    let mut sim = Sim::new(seed)
        .host_with_cores("server", 2, async || serve().await)
        .faults(faults)
        .steps(4_000);
    for (number, name) in ["one", "two", "three"].into_iter().enumerate() {
        let (tally, seed) = (tally.clone(), seed * 3 + number as u64);
        sim = sim.client(name, async move || client(seed, rounds, &tally).await);
    }
    (sim, tally)
}

async fn serve() -> io::Result<()> {
    let listener = loop {
        match TcpListener::bind("0.0.0.0:7000").await {
            Ok(listener) => break listener,
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    };
    loop {
        let (stream, _) = listener.accept().await?;
        quoit::spawn(async move {
            // A connection that breaks is its client's to mend.
            let _ = serve_one(stream).await;
        });
    }
}

/// Echoes in three ways, by the first byte; a log on the disk is written on the side.
async fn serve_one(stream: TcpStream) -> io::Result<()> {
    let way = stream.read_exact(vec![0; 1]).await?[0];
    match way % 3 {
        0 => {
            while let Some(chunk) = stream.recv().await? {
                stream.write_all(chunk).await?;
            }
        }
        1 => {
            let mut buf = Vec::with_capacity(700);
            loop {
                let count;
                (count, buf) = stream.read(buf).await?;
                if count == 0 {
                    break;
                }
                buf = stream.write_all(buf).await?;
            }
        }
        _ => {
            let log = note("connection").await;
            while let Some(chunk) = stream.recv().await? {
                let half = chunk.len() / 2;
                let halves = (chunk[..half].to_vec(), chunk[half..].to_vec());
                stream.write_all_vectored(halves).await?;
            }
            drop(log);
        }
    }
    stream.shutdown(Shutdown::Write)
}

/// Notes a line in a file of the host, which may fail as files do.
async fn note(line: &'static str) -> io::Result<()> {
    let mut options = File::options();
    let file = options.append(true).create(true).open("log").await?;
    file.write_all_at(line, 0).await?;
    file.sync_data().await?;
    let whole = quoit::fs::read("log").await?;
    assert!(whole.is_empty() || !whole.starts_with(&[0xee]));
    file.close().await
}

async fn client(seed: u64, rounds: usize, tally: &Tally) {
    let mut random = Random::new(seed);
    let mut round = 0;
    while round < rounds {
        // Nothing else would wake it if this wake, which comes during the poll, were lost.
        yield_now().await;
        // Through a fault that lasts, the next attempt is made.
        match timeout(PATIENCE, exchange(&mut random)).await {
            Ok(Ok(())) => {
                tally.exchanges.set(tally.exchanges.get() + 1);
                round += 1;
            }
            Ok(Err(_)) | Err(_) => {
                tally.failures.set(tally.failures.get() + 1);
                sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// Sends some bytes and gets them back. What comes is a prefix of what went, whatever happens.
async fn exchange(random: &mut Random) -> io::Result<()> {
    let stream = TcpStream::connect("server:7000").await?;
    let len = random.size(20_000);
    stream.write_all(vec![random.below(256) as u8]).await?;
    let (sending, receiving) = (Random::new(random.next()), random);
    let (sent, got) = quoit::join!(send(&stream, sending, len), receive(&stream, receiving, len));
    sent?;
    got?;
    stream.close().await
}

async fn send(stream: &TcpStream, mut random: Random, len: usize) -> io::Result<()> {
    let mut sent = 0;
    stream.set_zero_copy([None, Some(4096)][random.below(2)]);
    while sent < len {
        let piece = random.size(8_000).min(len - sent);
        let bytes = pattern(sent as u64, piece);
        match random.below(4) {
            0 => sent += stream.write(bytes).await?.0,
            1 => {
                let (head, tail) = bytes.split_at(piece / 2);
                stream.write_all_vectored((head.to_vec(), tail.to_vec())).await?;
                sent += piece;
            }
            2 => {
                // Given up: how much went is known when the next write has ended.
                let before = stream.bytes_sent();
                let dropped = give_up(stream.write_all(bytes), random.below(4)).await;
                if let Some(written) = dropped {
                    written?;
                    sent += piece;
                } else {
                    stream.write_all(Vec::new()).await?;
                    settled(stream).await;
                    sent += (stream.bytes_sent() - before) as usize;
                }
            }
            _ => {
                stream.write_all(bytes).await?;
                sent += piece;
            }
        }
    }
    Ok(())
}

/// Waits until a dropped write is over: a write of one byte would count, so by another way.
async fn settled(stream: &TcpStream) {
    let mut before = stream.bytes_sent();
    for _ in 0..3 {
        sleep(Duration::from_millis(8)).await;
        let after = stream.bytes_sent();
        if after != before {
            before = after;
        }
    }
}

async fn receive(stream: &TcpStream, random: &mut Random, len: usize) -> io::Result<()> {
    let mut oracle = Oracle::default();
    while oracle.0 < len as u64 {
        let before = oracle.0;
        let left = len - before as usize;
        let room = random.size(2_000).min(left);
        let patience = random.below(4);
        match random.below(4) {
            0 => match give_up(stream.recv(), patience).await {
                Some(bytes) => bytes?.iter().for_each(|bytes| oracle.take(bytes)),
                None => continue,
            },
            1 => match give_up(stream.read(Vec::with_capacity(room)), patience).await {
                Some(bytes) => oracle.take(&bytes?.1),
                None => continue,
            },
            2 => {
                let exact = stream.read_exact(Vec::with_capacity(room).slice(..room));
                match give_up(exact, patience).await {
                    Some(bytes) => oracle.take(&bytes?),
                    None => continue,
                }
            }
            _ => {
                let bufs = (vec![0; room], vec![0; room]);
                match give_up(stream.read_vectored(bufs), patience).await {
                    Some(bytes) => {
                        let (_, (head, tail)) = bytes?;
                        oracle.take(&head);
                        oracle.take(&tail);
                    }
                    None => continue,
                }
            }
        }
        if oracle.0 == before {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

/// Awaits `future`, or drops it: at once, after a yield, or after a moment.
async fn give_up<F: Future>(future: F, patience: usize) -> Option<F::Output> {
    let future = pin!(future);
    match patience {
        0 => {
            let soon = pin!(yield_now());
            quoit::task::Before::new(future, soon).await.ok()
        }
        1 => timeout(Duration::from_micros(300), future).await.ok(),
        _ => Some(future.await),
    }
}
