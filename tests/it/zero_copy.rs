//! Sends without a copy: the kernel reads the caller's buffer until it says that it no longer does.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use quoit::net::{TcpListener, TcpStream};
use quoit::sim::{Faults, Sim};
use quoit::time::sleep;

use crate::loopback::{Random, isolated, lap, ledger, pair_of_ours, pattern, scaled, take_pattern};
use crate::quarantine::{PIECE, QuarantineBuf};
use crate::support::on_every_driver;

/// Polls it so many times with a lap in between, then drops it.
async fn glance<F: Future>(mut future: Pin<&mut F>, polls: usize) -> Option<F::Output> {
    for _ in 0..polls {
        let polled = poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await;
        if let Poll::Ready(output) = polled {
            return Some(output);
        }
        lap().await;
    }
    None
}

#[test]
fn what_is_sent_without_a_copy_arrives_in_order_and_the_buffer_comes_back() {
    on_every_driver(async || {
        let (stream, peer) = pair_of_ours().await;
        stream.set_send_buffer_size(20_000).unwrap();
        let reader = quoit::spawn(take_pattern(peer));
        let (mut random, mut sent) = (Random::new(5), 0);
        for round in 0..12 {
            // It switches itself off, see below.
            stream.set_zero_copy(Some(1));
            assert_eq!(stream.zero_copy(), Some(4096), "the least threshold");
            let bytes = pattern(sent, 2000 + random.size(30_000));
            sent += match round % 3 {
                0 => stream.write(bytes).await.unwrap().0 as u64,
                1 => {
                    let len = bytes.len();
                    let back = stream.write_all(bytes.clone()).await.unwrap();
                    assert_eq!(back, bytes);
                    len as u64
                }
                // Two at once: the second waits, and is sent when the first was.
                _ => {
                    let (head, tail) = bytes.split_at(bytes.len() / 2);
                    let both = quoit::join!(
                        stream.write_all(head.to_vec()),
                        stream.write_all(Rc::<[u8]>::from(tail))
                    );
                    assert_eq!((both.0.unwrap(), &*both.1.unwrap()), (head.to_vec(), tail));
                    bytes.len() as u64
                }
            };
            assert_eq!(stream.bytes_sent(), sent);
        }
        stream.close().await.unwrap();
        assert_eq!(reader.await.unwrap(), sent);
    });
}

#[test]
fn a_path_that_copies_all_the_same_switches_it_off() {
    on_every_driver(async || {
        let (stream, peer) = pair_of_ours().await;
        let reader = quoit::spawn(take_pattern(peer));
        assert_eq!(stream.zero_copy(), None, "it is off unless it is asked for");
        stream.set_zero_copy(Some(10_000));
        stream.write_all(pattern(0, 9_999)).await.unwrap();
        let mut sent = 9_999;
        for _ in 0..4 {
            assert_eq!(stream.zero_copy(), Some(10_000));
            sent += stream.write_all(pattern(sent, 10_000)).await.unwrap().len() as u64;
        }
        assert_eq!(stream.zero_copy(), None);
        sent += stream.write_all(pattern(sent, 50_000)).await.unwrap().len() as u64;
        // Whoever asks again gets it again, or switches it off.
        stream.set_zero_copy(Some(4096));
        assert_eq!(stream.zero_copy(), Some(4096));
        stream.set_zero_copy(None);
        assert_eq!(stream.zero_copy(), None);
        drop(stream);
        assert_eq!(reader.await.unwrap(), sent);
    });
}

/// A program of two machines, between which nothing is copied.
fn between_two(
    seed: u64,
    faults: Faults,
    client: impl AsyncFn(TcpStream) + Clone + 'static,
) -> quoit::sim::Report {
    let sim = Sim::new(seed)
        .faults(faults)
        .host("server", async || {
            let listener = TcpListener::bind("0.0.0.0:7000").await.unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                drop(quoit::spawn(async move {
                    let read = take_pattern(stream).await;
                    assert_eq!(read, 200_000);
                }));
            }
        })
        .client("client", move || {
            let client = client.clone();
            async move { client(TcpStream::connect("server:7000").await.unwrap()).await }
        });
    sim.run().unwrap_or_else(|failure| panic!("{failure}"))
}

#[test]
fn a_path_that_does_not_copy_keeps_it_on() {
    for seed in 0..20 {
        between_two(seed, Faults::default(), async |stream: TcpStream| {
            stream.set_zero_copy(Some(4096));
            for part in 0..20 {
                let bytes = pattern(part * 10_000, 10_000);
                assert_eq!(stream.write_all(bytes.clone()).await.unwrap(), bytes);
            }
            assert_eq!(stream.zero_copy(), Some(4096));
            stream.close().await.unwrap();
        });
    }
}

#[test]
fn the_next_write_waits_for_the_bytes_and_not_for_the_notification() {
    let overtaken = Rc::new(Cell::new(0));
    for seed in 0..20 {
        let overtaken = Rc::clone(&overtaken);
        let faults = Faults::none().late_notices(1.0);
        between_two(seed, faults, async move |stream: TcpStream| {
            stream.set_send_buffer_size(1 << 20).unwrap();
            stream.set_zero_copy(Some(4096));
            let writes = (0..20).map(|part| {
                let (stream, overtaken) = (&stream, &overtaken);
                async move {
                    stream.write_all(pattern(part * 10_000, 10_000)).await.unwrap();
                    let ahead = stream.bytes_sent() / 10_000 - (part + 1);
                    overtaken.set(overtaken.get() + ahead);
                }
            });
            quoit::gather(writes).await;
            assert_eq!(stream.bytes_sent(), 200_000);
            stream.close().await.unwrap();
        });
    }
    assert!(overtaken.get() > 100, "only {} were sent meanwhile", overtaken.get());
}

#[test]
fn a_dropped_send_without_a_copy_keeps_its_buffer_until_the_kernel_is_done_with_it() {
    isolated(|| {
        ledger(async || {
            let rounds = scaled(20_000, 400);
            let (stream, peer) = pair_of_ours().await;
            stream.set_send_buffer_size(8 << 10).unwrap();
            let reader = quoit::spawn(async move {
                let (mut all, mut random) = (Vec::new(), Random::new(3));
                loop {
                    let room = Vec::with_capacity(random.size(6000));
                    let (count, buf) = peer.read(room).await.unwrap();
                    all.extend_from_slice(&buf);
                    if count == 0 {
                        return all;
                    }
                    if random.below(8) == 0 {
                        sleep(Duration::from_micros(100)).await;
                    }
                }
            });
            let mut random = Random::new(4);
            let mut figures = Vec::new();
            for round in 0..rounds {
                stream.set_zero_copy(Some(4096));
                let fill = [round as u8 | 1; PIECE];
                let polls = 1 + random.below(4);
                drop(glance(pin!(stream.write_all(QuarantineBuf::of(&fill))), polls).await);
                // What it has sent is known when the next has ended.
                stream.write_all([0]).await.unwrap();
                figures.push((round as u8 | 1, stream.bytes_sent()));
            }
            drop(stream);
            let all = reader.await.unwrap();
            let mut place = 0;
            for (byte, end) in figures {
                let end = end as usize;
                assert!(end - place <= PIECE + 1 && all[end - 1] == 0);
                assert!(all[place..end - 1].iter().all(|other| *other == byte));
                place = end;
            }
            assert_eq!(place, all.len());
        });
    });
}
