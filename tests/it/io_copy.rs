//! Passing streams on: every byte, the end of each side, and who failed.

use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use quoit::buf::PooledBuf;
use quoit::io::codec::{LengthDelimited, Lines};
use quoit::io::{CopyError, CopyStep, FramedRead, FramedWrite, copy, copy_bidirectional};
use quoit::net::{TcpListener, TcpStream};
use quoit::sim::{Faults, Sim, explore};
use quoit::task::JoinHandle;
use quoit::time::{sleep, timeout};

use crate::io_script::{Event, Script};
use crate::loopback::{
    Flag, Oracle, Random, anonymous, isolated, join, lap, ledger, pair, pair_of_ours, pattern,
    poll_once, take_pattern, until, within,
};
use crate::support::{is_instrumented, on_every_driver};

type Proxy = JoinHandle<Result<(u64, u64), CopyError>>;

/// A client, a server, and a proxy between them.
async fn proxied() -> (TcpStream, TcpStream, Proxy) {
    let (client, a) = pair_of_ours().await;
    let (b, server) = pair_of_ours().await;
    (client, server, quoit::spawn(async move { copy_bidirectional(&a, &b).await }))
}

/// Sends the pattern in pieces of random sizes, and ends.
async fn send(stream: &TcpStream, seed: u64, len: usize) {
    let (mut random, mut sent) = (Random::new(seed), 0);
    while sent < len {
        let piece = random.size(50_000).min(len - sent);
        stream.write_all(pattern(sent as u64, piece)).await.unwrap();
        sent += piece;
        if random.below(4) == 0 {
            sleep(Duration::from_micros(random.next() % 50)).await;
        }
    }
    stream.shutdown(Shutdown::Write).unwrap();
}

#[test]
fn a_chain_of_proxies_passes_every_byte_on_in_both_directions() {
    on_every_driver(|| async {
        let (client, first) = pair_of_ours().await;
        let (mut end, mut proxies) = (first, Vec::new());
        for _ in 0..3 {
            let (near, far) = pair_of_ours().await;
            let a = std::mem::replace(&mut end, far);
            proxies.push(quoit::spawn(async move { copy_bidirectional(a, near).await }));
        }
        let (up, down) = (60_000, 30_001);
        let server =
            quoit::spawn(async move { quoit::join!(send(&end, 1, down), take_pattern(&end)).1 });
        let ((), came) = quoit::join!(send(&client, 2, up), take_pattern(&client));
        assert_eq!((came, server.await.unwrap()), (down as u64, up as u64));
        for proxy in proxies {
            assert_eq!(proxy.await.unwrap().unwrap(), (up as u64, down as u64));
        }
    });
}

#[test]
fn the_end_of_one_side_is_passed_on_and_the_other_goes_on() {
    on_every_driver(|| async {
        for client_first in [true, false] {
            let (client, server, proxy) = proxied().await;
            let (first, second) = if client_first { (client, server) } else { (server, client) };
            first.write_all("all that I say").await.unwrap();
            first.shutdown(Shutdown::Write).unwrap();
            assert_eq!(second.read_exact([0; 14]).await.unwrap(), *b"all that I say");
            assert!(second.recv().await.unwrap().is_none());
            for _ in 0..3 {
                second.write_all("and I").await.unwrap();
                assert_eq!(first.read_exact([0; 5]).await.unwrap(), *b"and I");
            }
            assert!(!proxy.is_finished());
            second.shutdown(Shutdown::Write).unwrap();
            assert!(first.recv().await.unwrap().is_none());
            let copied = proxy.await.unwrap().unwrap();
            assert_eq!(copied, if client_first { (14, 15) } else { (15, 14) });
        }
    });
}

/// Where a connection is when it is reset.
#[derive(Debug, Clone, Copy)]
enum Moment {
    AtOnce,
    /// Bytes have passed in both directions.
    Between,
    /// The other side has ended what it says.
    AfterTheEnd,
    /// The other side sends, and nobody reads.
    Stuck,
}

#[test]
fn a_reset_of_either_side_at_any_point_ends_the_copy_and_says_where() {
    isolated(|| {
        ledger(async || {
            for moment in [Moment::AtOnce, Moment::Between, Moment::AfterTheEnd, Moment::Stuck] {
                for resets_a in [true, false] {
                    let (client, server, proxy) = proxied().await;
                    let (gone, left) = if resets_a { (client, server) } else { (server, client) };
                    gone.set_reset_on_close(true).unwrap();
                    match moment {
                        Moment::AtOnce => {}
                        Moment::Between => {
                            gone.write_all("there").await.unwrap();
                            left.read_exact([0; 5]).await.unwrap();
                            left.write_all("back").await.unwrap();
                            gone.read_exact([0; 4]).await.unwrap();
                        }
                        Moment::AfterTheEnd => {
                            left.shutdown(Shutdown::Write).unwrap();
                            assert!(gone.recv().await.unwrap().is_none());
                        }
                        Moment::Stuck => {
                            let mut sending = pin!(left.write_all(vec![0; 30_000_000]));
                            let flag = Arc::new(Flag::default());
                            for _ in 0..50 {
                                assert!(poll_once(sending.as_mut(), &flag).is_pending());
                                lap().await;
                            }
                        }
                    }
                    drop(gone);
                    let failed = within(Duration::from_secs(5), proxy).await.unwrap().unwrap_err();
                    let expected = match resets_a {
                        true => [CopyStep::ReadA, CopyStep::WriteA],
                        false => [CopyStep::ReadB, CopyStep::WriteB],
                    };
                    let at = format!("{moment:?}, {resets_a}: {failed}");
                    assert!(expected.contains(&failed.step), "{at}");
                    let kinds = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
                    assert!(kinds.contains(&failed.error.kind()), "{at}");
                    if let Moment::Between = moment {
                        assert_eq!(failed.copied, if resets_a { (5, 4) } else { (4, 5) }, "{at}");
                    }
                    assert!(failed.to_string().contains("stream: "), "{at}");
                    let kind = failed.error.kind();
                    assert_eq!(std::io::Error::from(failed).kind(), kind);
                }
            }
        });
    });
}

#[test]
fn what_came_before_an_error_of_the_reader_has_been_sent() {
    on_every_driver(|| async {
        let (stream, peer) = pair_of_ours().await;
        let script = Script::default();
        for place in 0..5 {
            let bytes = pattern(place * PooledBuf::SIZE as u64, PooledBuf::SIZE);
            script.then(Event::Bytes(PooledBuf::copied(&bytes)));
        }
        script.then(Event::Error(ErrorKind::ConnectionReset));
        let copying = async move {
            let error = copy(&script, &stream).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        };
        let ((), came) = quoit::join!(copying, take_pattern(&peer));
        assert_eq!(came, 5 * PooledBuf::SIZE as u64);
    });
}

#[test]
fn a_copy_that_was_dropped_while_it_waited_has_lost_nothing() {
    on_every_driver(|| async {
        let (source, from) = pair_of_ours().await;
        let (into, target) = pair_of_ours().await;
        let (source, mut oracle) = (Rc::new(source), Oracle::default());
        let writer = Rc::clone(&source);
        let writing =
            quoit::spawn(async move { writer.write_all(pattern(0, 10_000)).await.unwrap() });
        {
            let mut copying = pin!(copy(&from, &into));
            while oracle.0 < 10_000 {
                let mut more = pin!(target.recv());
                let bytes = std::future::poll_fn(|context| {
                    assert!(copying.as_mut().poll(context).is_pending());
                    more.as_mut().poll(context)
                });
                oracle.take(&bytes.await.unwrap().unwrap());
            }
            // It waits for more, which comes when it is gone.
            assert!(poll_once(copying, &Arc::new(Flag::default())).is_pending());
            lap().await;
        }
        writing.await.unwrap();
        let rest = async move {
            source.write_all(pattern(10_000, 5000)).await.unwrap();
            drop(source);
        };
        let copying = async move { copy(&from, into).await.unwrap() };
        let reading = async {
            while let Some(bytes) = target.recv().await.unwrap() {
                oracle.take(&bytes);
            }
        };
        let ((), copied, ()) = quoit::join!(rest, copying, reading);
        assert_eq!((copied, oracle.0), (5000, 15_000));
    });
}

#[test]
fn a_copy_to_somebody_who_does_not_read_holds_little_and_then_passes_all_on() {
    isolated(|| {
        ledger(async || {
            const LEN: usize = 6 << 20;
            let (from, mut source) = pair().await;
            let (into, mut target) = pair().await;
            from.set_recv_buffer_size(1 << 16).unwrap();
            into.set_send_buffer_size(1 << 16).unwrap();
            let bytes = pattern(0, LEN);
            let proxy = quoit::spawn(async move { copy_bidirectional(from, into).await });
            let writer = thread::spawn(move || {
                source.write_all(&bytes).unwrap();
                source.shutdown(Shutdown::Write).unwrap();
                let mut nothing = Vec::new();
                source.read_to_end(&mut nothing).unwrap();
                assert!(nothing.is_empty());
            });
            let before = anonymous();
            let mut grown = 0;
            for _ in 0..15 {
                sleep(Duration::from_millis(10)).await;
                // What is being sent, and what the stream keeps for its next reader.
                let leases = quoit::runtime::stats().leases;
                assert!(leases <= 32 + 256, "{leases} leases wait");
                grown = anonymous().saturating_sub(before);
            }
            assert!(!writer.is_finished(), "the writer was not stopped");
            // A sanitizer keeps what was freed, and notes of its own.
            assert!(is_instrumented() || grown < 4 << 20, "it took {grown} bytes");
            let reader = thread::spawn(move || {
                let (mut oracle, mut buf) = (Oracle::default(), vec![0; 100_000]);
                loop {
                    match target.read(&mut buf).unwrap() {
                        0 => return oracle.0,
                        count => oracle.take(&buf[..count]),
                    }
                }
            });
            assert_eq!(join(reader).await, LEN as u64);
            join(writer).await;
            assert_eq!(proxy.await.unwrap().unwrap(), (LEN as u64, 0));
        });
    });
}

#[test]
fn a_copy_that_is_dropped_while_it_sends_gives_every_lease_home() {
    on_every_driver(|| async {
        for laps in 0..4 {
            let (client, server, proxy) = proxied().await;
            let sending = async {
                // The other end may be gone before all is sent.
                let _ = client.write_all(vec![7; 3_000_000]).await;
            };
            {
                let mut sending = pin!(sending);
                for _ in 0..laps {
                    // The sockets on the way may take all of it.
                    if poll_once(sending.as_mut(), &Arc::new(Flag::default())).is_ready() {
                        break;
                    }
                    lap().await;
                }
                proxy.abort();
                assert!(proxy.await.is_err());
            }
            drop((client, server));
            until(|| {
                let stats = quoit::runtime::stats();
                stats.leases == 0 && stats.orphans == 0
            })
            .await;
        }
    });
}

// ---- Under faults, in the simulator ----

/// Answers each number with as many bytes of the pattern, from the number's place on.
async fn answers(stream: TcpStream) -> io::Result<()> {
    let mut numbers = FramedRead::new(&stream, Lines::new(20));
    let mut frames = FramedWrite::new(&stream, LengthDelimited::u32_be(1 << 16));
    while let Some(number) = numbers.next().await? {
        let number: u64 = number.parse().expect("it is what the client has sent");
        frames.send(pattern(number, number as usize)).await?;
    }
    Ok(())
}

async fn serve() -> io::Result<()> {
    let listener = TcpListener::bind("0.0.0.0:7000").await?;
    loop {
        let (stream, _) = listener.accept().await?;
        drop(quoit::spawn(answers(stream)));
    }
}

async fn pass_on() -> io::Result<()> {
    let listener = TcpListener::bind("0.0.0.0:7000").await?;
    loop {
        let (client, _) = listener.accept().await?;
        drop(quoit::spawn(async move {
            let server = TcpStream::connect("server:7000").await?;
            copy_bidirectional(&client, &server).await.map_err(io::Error::from)
        }));
    }
}

/// Asks, and is impatient: what is dropped while it waits is asked for again.
async fn ask(seed: u64, answered: &Cell<u64>) -> io::Result<()> {
    let mut random = Random::new(seed);
    let stream = TcpStream::connect("proxy:7000").await?;
    let mut numbers = FramedWrite::new(&stream, Lines::new(20));
    let mut frames = FramedRead::new(&stream, LengthDelimited::u32_be(1 << 16));
    for _ in 0..8 {
        let number = random.size(20_000) as u64;
        numbers.send(number.to_string()).await?;
        loop {
            let patience = Duration::from_micros(random.next() % 400);
            let Ok(frame) = timeout(patience, frames.next()).await else { continue };
            match frame? {
                Some(frame) => assert!(frame == pattern(number, number as usize)),
                None => return Ok(()),
            }
            answered.set(answered.get() + 1);
            break;
        }
    }
    Ok(())
}

#[test]
fn what_comes_through_a_proxy_is_right_under_faults() {
    let answered = Rc::new(Cell::new(0));
    let explored = explore(0..40, |seed| {
        let faults = Faults::none().short_reads(0.2).short_writes(0.2).delays(0.05).shuffle(0.3);
        let faults = faults.ended_multishots(0.1).no_buffers(0.05).late_cancels(0.3).scribble(0.3);
        let faults = faults.interrupts(0.05).spurious_wakes(0.1).partial_submits(0.2);
        let faults = if seed % 2 == 0 { faults.resets(0.002) } else { faults };
        let answered = Rc::clone(&answered);
        Sim::new(seed)
            .host("server", async || serve().await)
            .host("proxy", async || pass_on().await)
            .client("client", async move || {
                // That a connection fails is the world's fault; that it lies would be ours.
                let before = answered.get();
                let result = ask(seed, &answered).await;
                assert!(seed % 2 == 0 || result.is_ok() && answered.get() == before + 8);
                io::Result::Ok(())
            })
            .faults(faults)
    });
    println!("{}", explored.unwrap_or_else(|failure| panic!("{failure}")));
    assert!(answered.get() >= 20 * 8, "only {} were answered", answered.get());
}
