//! A kernel that refuses for the moment, and one that has no room for its answers.

use std::future::Future;
use std::io::Write;
use std::pin::Pin;
use std::sync::mpsc;
use std::task::Poll;
use std::time::{Duration, Instant};

use quoit::fs::File;
use quoit::net::TcpStream;
use quoit::runtime::{self, Builder, Stats};

use super::assert_fruitful;
use crate::loopback::{Random, listen, pattern, scaled};
use crate::quarantine::violations;
use crate::support::{Watch, isolated, ledger, on_io_uring, patient};

const ERRNOS: [i32; 4] = [libc::EAGAIN, libc::EBUSY, libc::EINTR, libc::ENOMEM];

/// Answers an errno, and how many requests are handed over before it.
type Fault = Box<dyn FnMut(u32) -> Option<(i32, u32)>>;

/// Makes `percent` of the enters fail, in half of the cases after some requests were handed over.
fn faults(percent: usize) -> impl Fn(usize) -> Fault {
    move |core| {
        let mut random = Random::new((percent + core) as u64);
        Box::new(move |queued| {
            if random.below(100) >= percent {
                return None;
            }
            let first = random.below(queued as usize + 1) * random.below(2);
            Some((ERRNOS[random.below(4)], first as u32))
        })
    }
}

/// What an echo came to.
pub(super) struct Load {
    pub(super) messages: u64,
    pub(super) slowest: Vec<Duration>,
}

async fn echo(stream: TcpStream) {
    while let Some(chunk) = stream.recv().await.unwrap() {
        stream.write_all(chunk).await.unwrap();
    }
}

/// Sends random sizes of a pattern and compares what comes back, until `end`.
async fn client(number: usize, stream: TcpStream, end: Instant) -> (u64, Vec<Duration>) {
    let mut random = Random::new(number as u64);
    let (mut place, mut times) = (0, Vec::new());
    while Instant::now() < end || times.is_empty() {
        let start = Instant::now();
        let sent = pattern(place, random.size(2048));
        let sent = stream.write_all(sent).await.unwrap();
        let back = vec![0; sent.len()].into_boxed_slice();
        let back = stream.read_exact(back).await.unwrap();
        assert!(*back == *sent, "connection {number}: other bytes came back at {place}");
        place += sent.len() as u64;
        times.push(start.elapsed());
    }
    (times.len() as u64, times)
}

/// Echoes on `connections` for `duration`; no connection may fail or get another's bytes.
pub(super) async fn load(connections: usize, duration: Duration) -> Load {
    let (listener, address) = listen().await;
    let server = quoit::spawn(async move {
        let mut echoes = Vec::new();
        for _ in 0..connections {
            echoes.push(quoit::spawn(echo(listener.accept().await.unwrap().0)));
        }
        for echo in echoes {
            echo.await.unwrap();
        }
    });
    let end = Instant::now() + duration;
    let clients: Vec<_> = (0..connections)
        .map(|number| {
            quoit::spawn(async move {
                client(number, TcpStream::connect(address).await.unwrap(), end).await
            })
        })
        .collect();
    let mut load = Load { messages: 0, slowest: Vec::new() };
    for client in clients {
        let (messages, mut times) = client.await.unwrap();
        load.messages += messages;
        load.slowest.append(&mut times);
    }
    server.await.unwrap();
    load
}

#[test]
fn s07_a_kernel_that_refuses_enters_loses_and_doubles_no_byte() {
    isolated(|| {
        let duration = Duration::from_millis(scaled(15_000, 700) as u64);
        let mut undisturbed = 0;
        for percent in [0, 1, 5, 20] {
            let watch = Watch::over(format!("with {percent} % of the enters refused"));
            let builder = Builder::new().enter_faults(faults(percent));
            let (load, stats) = ledger(builder, async || {
                let load = load(256, duration).await;
                (load, runtime::stats())
            });
            let failed = stats.refused_enters + stats.interrupted;
            if percent == 0 {
                undisturbed = load.messages;
            } else {
                // What was handed over in part is no error, so fewer are counted than were planted.
                let share = failed as f64 / stats.enters as f64;
                assert!(share > percent as f64 / 400.0, "the faults did not come: {stats:#?}");
            }
            assert_fruitful(&stats, 3);
            println!(
                "\nS7 {percent:2} % refused: {} messages ({:.0} % of undisturbed), {failed} of {} enters",
                load.messages,
                load.messages as f64 * 100.0 / undisturbed as f64,
                stats.enters
            );
            watch.ends();
        }
    });
}

type Receive = Pin<Box<dyn Future<Output = ()>>>;

const PARTS: usize = 8;
const PART: usize = 100;

/// Takes what eight messages hold, in as many leases as it comes.
async fn receive_many(number: usize, stream: TcpStream) {
    let mut all = Vec::new();
    while all.len() < PARTS * PART {
        all.extend_from_slice(&stream.recv().await.unwrap().expect("the peer goes on"));
    }
    assert!(all == pattern(number as u64, PARTS * PART), "stream {number} has other bytes");
}

/// The same with one operation after the other.
async fn receive_one(number: usize, stream: TcpStream) {
    let buf = vec![0; PARTS * PART].into_boxed_slice();
    let all = stream.read_exact(buf).await.unwrap();
    assert!(*all == pattern(number as u64, PARTS * PART), "stream {number} has other bytes");
}

async fn read_file(number: usize, file: std::rc::Rc<File>) {
    let buf = vec![0; 512].into_boxed_slice();
    let part = file.read_exact_at(buf, number as u64 * 512).await.unwrap();
    assert!(*part == pattern(number as u64 * 512, 512), "part {number} of the file is another");
}

/// 4,096 operations at once, 512 of them multishot receives. Returns the statistics of their end.
async fn crowd(path: &std::path::Path) -> Stats {
    let (listener, address) = listen().await;
    let mut peers = Vec::new();
    let mut all: Vec<Receive> = Vec::new();
    for number in 0..2048 {
        peers.push(std::net::TcpStream::connect(address).unwrap());
        let (stream, _) = listener.accept().await.unwrap();
        match number {
            0..512 => all.push(Box::pin(receive_many(number, stream))),
            _ => all.push(Box::pin(receive_one(number, stream))),
        }
    }
    drop(listener);
    let file = std::rc::Rc::new(File::open(path).await.unwrap());
    all.extend((0..2048).map(|part| Box::pin(read_file(part, file.clone())) as Receive));
    drop(file);
    let (go, gone) = mpsc::channel();
    let sender = std::thread::spawn(move || {
        gone.recv().unwrap();
        for part in 0..PARTS {
            for (number, peer) in peers.iter_mut().enumerate() {
                let place = number + part * PART;
                peer.write_all(&pattern(place as u64, PART)).unwrap();
            }
        }
        peers
    });
    std::future::poll_fn(|context| {
        for receive in &mut all {
            assert!(receive.as_mut().poll(context).is_pending());
        }
        Poll::Ready(())
    })
    .await;
    assert!(runtime::stats().live_ops >= 4096, "{:#?}", runtime::stats());
    go.send(()).unwrap();
    quoit::gather(all).await;
    drop(sender.join().unwrap());
    runtime::stats()
}

#[test]
fn s08_a_queue_of_sixteen_answers_serves_four_thousand_operations() {
    isolated(|| {
        crate::loopback::set_descriptor_limit(6000);
        let path = std::env::temp_dir().join(format!("quoit-s08-{}", std::process::id()));
        std::fs::write(&path, pattern(0, 2048 * 512)).unwrap();
        for (requests, answers) in [(16, 16), (4, 16), (1, 2)] {
            let watch = Watch::over(format!("with {answers} entries for answers"));
            let start = Instant::now();
            let builder = on_io_uring().sq_entries(requests).cq_entries(answers);
            let stats = ledger(builder, async || crowd(&path).await);
            assert!(
                start.elapsed() <= patient(Duration::from_secs(10)),
                "it took {:?}",
                start.elapsed()
            );
            assert!(stats.overflows > 0, "nothing overflowed: {stats:#?}");
            assert_fruitful(&stats, 3);
            assert_eq!(violations(), 0);
            println!(
                "\nS8 {answers} answers: {:?}, {} overflows",
                start.elapsed(),
                stats.overflows
            );
            watch.ends();
        }
        std::fs::remove_file(path).unwrap();
    });
}
