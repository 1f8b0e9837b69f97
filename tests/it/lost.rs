//! I7: nothing is lost. Operations are dropped at every moment, and everything still arrives.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use quoit::net::TcpStream;
use quoit::time::sleep;

use crate::loopback::{
    Flag, Oracle, Random, blackhole, isolated, join, lap, ledger, listen, pair, pair_of_ours,
    pattern, poll_once, scaled, until, within,
};
use crate::quarantine::{PIECE, QuarantineBuf};

/// When an operation is dropped, if it is not done by then.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// Before the kernel has seen it.
    AtOnce,
    /// After so many laps.
    Laps(usize),
    /// When its answer is there, and before the poll that would take it.
    Answered,
    /// Never.
    Done,
}

fn moment(random: &mut Random) -> Moment {
    match random.below(5) {
        0 => Moment::AtOnce,
        1 | 2 => Moment::Laps(1 + random.below(3)),
        3 => Moment::Answered,
        _ => Moment::Done,
    }
}

/// Polls `operation`, and gives it up at `moment` by returning `None`.
async fn try_until<F: Future>(mut operation: Pin<&mut F>, moment: Moment) -> Option<F::Output> {
    let flag = Arc::new(Flag::default());
    if let Poll::Ready(output) = poll_once(operation.as_mut(), &flag) {
        return Some(output);
    }
    match moment {
        Moment::AtOnce => None,
        Moment::Laps(laps) => {
            for _ in 0..laps {
                lap().await;
            }
            None
        }
        Moment::Answered => {
            let start = Instant::now();
            while !flag.is_set() && start.elapsed() < Duration::from_millis(4) {
                lap().await;
            }
            None
        }
        Moment::Done => Some(operation.await),
    }
}

/// A peer that writes the pattern in small pieces at random moments until it is told to stop.
fn writes_now_and_then(
    mut peer: std::net::TcpStream,
    seed: u64,
    len: usize,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let (mut random, mut sent) = (Random::new(seed), 0);
        while sent < len {
            let piece = random.size(3000).min(len - sent);
            peer.write_all(&pattern(sent as u64, piece)).unwrap();
            sent += piece;
            match random.below(4) {
                0 => thread::sleep(Duration::from_micros(random.next() % 150)),
                1 => thread::yield_now(),
                _ => {}
            }
        }
    })
}

/// One read by `way` that may be dropped; true is the end of the stream.
async fn read_or_drop(
    stream: &TcpStream,
    way: usize,
    room: usize,
    moment: Moment,
    oracle: &mut Oracle,
) -> bool {
    let before = oracle.0;
    let answered = match way {
        0 => {
            let answer = try_until(pin!(stream.recv()), moment).await;
            answer.map(|bytes| bytes.unwrap().iter().for_each(|bytes| oracle.take(bytes)))
        }
        1 => {
            let buf = QuarantineBuf::new(room);
            let answer = try_until(pin!(stream.read(buf)), moment).await;
            answer.map(|answer| oracle.take(&answer.unwrap().1))
        }
        2 => {
            let buf = QuarantineBuf::new(room);
            let answer = try_until(pin!(stream.append(buf)), moment).await;
            answer.map(|answer| oracle.take(&answer.unwrap().1))
        }
        3 => {
            let buf = QuarantineBuf::new(room);
            let answer = try_until(pin!(stream.read_exact(buf)), moment).await;
            answer.map(|answer| match answer {
                Ok(buf) => oracle.take(&buf),
                Err(failed) => oracle.take(&failed.buf),
            })
        }
        // More than one piece has to be given back, in order.
        4 => {
            let buf = Vec::with_capacity(room * 10);
            let answer = try_until(pin!(stream.read(buf)), moment).await;
            answer.map(|answer| oracle.take(&answer.unwrap().1))
        }
        _ => {
            let buf = Vec::with_capacity(room * 10);
            let answer = try_until(pin!(stream.read_exact(buf)), moment).await;
            answer.map(|answer| match answer {
                Ok(buf) => oracle.take(&buf),
                Err(failed) => oracle.take(&failed.buf),
            })
        }
    };
    answered.is_some() && oracle.0 == before
}

/// Reads a stream with operations of `ways`, most of which are dropped.
fn dropped_reads_lose_nothing(seed: u64, ways: &[usize], rounds: usize) {
    ledger(async || {
        let mut done = 0;
        let mut random = Random::new(seed);
        while done < rounds {
            let (stream, peer) = pair().await;
            let len = 400_000 + random.below(100_000);
            let writer = writes_now_and_then(peer, random.next(), len);
            let mut oracle = Oracle::default();
            loop {
                done += 1;
                let (way, room) = (ways[random.below(ways.len())], random.size(PIECE));
                let moment = moment(&mut random);
                if read_or_drop(&stream, way, room, moment, &mut oracle).await {
                    break;
                }
            }
            assert_eq!(oracle.0, len as u64, "seed {seed}, round {done}");
            join(writer).await;
        }
    });
}

#[test]
fn a_dropped_recv_gives_its_bytes_to_the_next() {
    isolated(|| dropped_reads_lose_nothing(1, &[0], scaled(100_000, 2000)));
}

#[test]
fn a_dropped_read_gives_its_bytes_to_the_next() {
    isolated(|| dropped_reads_lose_nothing(2, &[1, 2, 4], scaled(100_000, 2000)));
}

#[test]
fn a_dropped_read_exact_gives_back_what_it_had_read() {
    isolated(|| dropped_reads_lose_nothing(3, &[3, 5], scaled(100_000, 2000)));
}

#[test]
fn dropped_reads_of_all_kinds_lose_nothing_on_one_stream() {
    isolated(|| dropped_reads_lose_nothing(4, &[0, 1, 2, 3, 4, 5], scaled(100_000, 4_000)));
}

#[test]
fn an_answer_that_nobody_took_is_read_by_every_other_way() {
    isolated(|| {
        ledger(async || {
            for first in 0..4 {
                for second in 0..4 {
                    let (stream, mut peer) = pair().await;
                    let flag = Arc::new(Flag::default());
                    {
                        let reading = async {
                            match first {
                                0 => drop(stream.recv().await),
                                1 => drop(stream.read(QuarantineBuf::new(9)).await),
                                2 => drop(stream.append(QuarantineBuf::new(9)).await),
                                _ => drop(stream.read_exact(QuarantineBuf::new(9)).await),
                            }
                        };
                        let mut reading = pin!(reading);
                        assert!(poll_once(reading.as_mut(), &flag).is_pending());
                        lap().await;
                        peer.write_all(&pattern(0, 9)).unwrap();
                        until(|| flag.is_set()).await;
                    }
                    let mut oracle = Oracle::default();
                    read_or_drop(&stream, second, 9, Moment::Done, &mut oracle).await;
                    assert_eq!(oracle.0, 9, "{first} then {second}");
                }
            }
        });
    });
}

#[test]
fn a_read_exact_that_is_dropped_halfway_gives_its_first_half_back() {
    isolated(|| {
        ledger(async || {
            for (laps, way) in [(0, 0), (1, 0), (3, 1), (0, 2), (3, 3)] {
                let (stream, mut peer) = pair().await;
                let flag = Arc::new(Flag::default());
                {
                    let mut reading = pin!(stream.read_exact(QuarantineBuf::new(10)));
                    assert!(poll_once(reading.as_mut(), &flag).is_pending());
                    peer.write_all(&pattern(0, 4)).unwrap();
                    until(|| flag.is_set()).await;
                    assert!(poll_once(reading.as_mut(), &flag).is_pending());
                    for _ in 0..laps {
                        lap().await;
                    }
                }
                peer.write_all(&pattern(4, 3)).unwrap();
                let mut oracle = Oracle::default();
                while oracle.0 < 7 {
                    let room = 7 - oracle.0 as usize;
                    read_or_drop(&stream, way, room, Moment::Done, &mut oracle).await;
                }
            }
        });
    });
}

#[test]
fn a_dropped_accept_gives_its_connection_to_the_next() {
    isolated(|| {
        ledger(async || {
            let (listener, address) = listen().await;
            let rounds = scaled(20_000, 1000);
            let connects = thread::spawn(move || {
                let mut random = Random::new(5);
                for number in 0..rounds as u32 {
                    let mut peer = std::net::TcpStream::connect(address).unwrap();
                    peer.write_all(&number.to_le_bytes()).unwrap();
                    if random.below(2) == 0 {
                        thread::sleep(Duration::from_micros(random.next() % 100));
                    }
                }
            });
            let (mut random, mut next) = (Random::new(6), 0);
            while next < rounds as u32 {
                let moment = moment(&mut random);
                let Some(accepted) = try_until(pin!(listener.accept()), moment).await else {
                    continue;
                };
                let (stream, _) = accepted.unwrap();
                let number = stream.read_exact([0; 4]).await.unwrap();
                assert_eq!(u32::from_le_bytes(number), next, "one was lost, or came out of turn");
                next += 1;
            }
            join(connects).await;
        });
    });
}

/// What write number `number` sends: its bytes say where they belong.
fn message(number: usize, len: usize) -> Vec<u8> {
    pattern((number as u64) << 32, len)
}

#[test]
fn a_dropped_write_was_sent_in_part_and_never_mixes_with_the_next() {
    isolated(|| {
        ledger(async || {
            let rounds = scaled(10_000, 200);
            let (stream, mut peer) = pair().await;
            stream.set_send_buffer_size(64 << 10).unwrap();
            let reader = thread::spawn(move || {
                let (mut all, mut buf, mut random) = (Vec::new(), vec![0; 60_000], Random::new(9));
                loop {
                    let room = random.size(60_000);
                    match peer.read(&mut buf[..room]).unwrap() {
                        0 => return all,
                        count => all.extend_from_slice(&buf[..count]),
                    }
                    if random.below(4) == 0 {
                        thread::sleep(Duration::from_micros(random.next() % 300));
                    }
                }
            });
            let mut random = Random::new(7);
            // What each write may have sent, and what it has, where that is known.
            let mut runs = Vec::new();
            for number in 0..rounds {
                let len = random.size(40_000);
                let bytes = message(number, len);
                let before = stream.bytes_sent();
                let moment = moment(&mut random);
                let all = random.below(3) > 0;
                let sent = match random.below(2) {
                    0 if all => try_until(pin!(stream.write_all(bytes)), moment).await.map(|_| len),
                    0 => {
                        let sent = try_until(pin!(stream.write(bytes)), moment).await;
                        sent.map(|sent| sent.unwrap().0)
                    }
                    _ => {
                        let rest = bytes[len / 2..].to_vec();
                        let bufs = (bytes[..len / 2].to_vec(), rest);
                        if all {
                            let write = pin!(stream.write_all_vectored(bufs));
                            try_until(write, moment).await.map(|_| len)
                        } else {
                            let sent = try_until(pin!(stream.write_vectored(bufs)), moment).await;
                            sent.map(|sent| sent.unwrap().0)
                        }
                    }
                };
                assert!(stream.bytes_sent() >= before);
                // After a write that ended, the figure is final.
                runs.push((len, sent.map(|_| stream.bytes_sent() as usize)));
            }
            // The figure is final when the next write has ended.
            stream.write_all("end").await.unwrap();
            let figure = stream.bytes_sent();
            stream.shutdown(Shutdown::Write).unwrap();
            let all = join(reader).await;
            assert_eq!(figure, all.len() as u64, "bytes_sent says something else");
            check_runs(&all, &runs);
        });
    });
}

/// Whether `all` is a prefix of each write's message, one after the other. Where a write that was
/// not dropped ended is known.
fn check_runs(all: &[u8], runs: &[(usize, Option<usize>)]) {
    let mut places = vec![0];
    for (number, (len, known)) in runs.iter().enumerate() {
        let whole = message(number, *len);
        let mut ends = Vec::new();
        // A dropped write may have ended anywhere; keep every reading that is possible.
        for start in places {
            let same = all[start..].iter().zip(&whole).take_while(|(a, b)| a == b).count();
            match known {
                Some(end) if (start..=start + same).contains(end) => ends.push(*end),
                Some(_) => {}
                None => ends.extend(start..=start + same),
            }
        }
        ends.sort_unstable();
        ends.dedup();
        assert!(!ends.is_empty(), "what write {number} sent is no prefix of its bytes");
        places = ends;
    }
    assert!(places.iter().any(|place| &all[*place..] == b"end"), "something is left over");
}

#[test]
fn a_dropped_write_to_a_stuck_peer_lets_the_next_one_wait_and_not_for_ever() {
    isolated(|| {
        ledger(async || {
            let (stream, mut peer) = pair().await;
            let flag = Arc::new(Flag::default());
            {
                let mut stuck = pin!(stream.write_all(vec![1; 100_000_000]));
                assert!(poll_once(stuck.as_mut(), &flag).is_pending());
                sleep(Duration::from_millis(20)).await;
                assert!(poll_once(stuck.as_mut(), &flag).is_pending());
            }
            let mut next = pin!(stream.write_all(vec![2; 10]));
            assert!(poll_once(next.as_mut(), &flag).is_pending());
            // Its last answer says what was sent.
            within(Duration::from_secs(5), async {
                while stream.bytes_sent() == 0 {
                    sleep(Duration::from_millis(1)).await;
                }
            })
            .await;
            sleep(Duration::from_millis(5)).await;
            let taken = stream.bytes_sent();
            assert!(taken < 100_000_000);
            let reader = thread::spawn(move || {
                let mut all = Vec::new();
                peer.read_to_end(&mut all).unwrap();
                all
            });
            within(Duration::from_secs(5), next).await.unwrap();
            assert_eq!(stream.bytes_sent(), taken + 10);
            stream.shutdown(Shutdown::Write).unwrap();
            let all = join(reader).await;
            let ones = all.iter().take_while(|byte| **byte == 1).count() as u64;
            assert_eq!((ones, &all[ones as usize..]), (taken, &[2; 10][..]));
        });
    });
}

#[test]
fn operations_that_are_dropped_in_every_lap_do_not_pile_up() {
    isolated(|| {
        ledger(async || {
            let (_listener, _filling, address) = blackhole();
            for _ in 0..scaled(2000, 100) {
                for _ in 0..128 {
                    let flag = Arc::new(Flag::default());
                    assert!(poll_once(pin!(TcpStream::connect(address)), &flag).is_pending());
                }
                lap().await;
                let live = quoit::runtime::stats().live_ops;
                assert!(live < 1000, "{live} operations are in flight for nobody");
            }
        });
    });
}

#[test]
fn a_reader_in_line_that_is_dropped_does_not_stop_those_behind() {
    isolated(|| {
        ledger(async || {
            let (ours, theirs) = pair_of_ours().await;
            let mut random = Random::new(11);
            for round in 0..scaled(10_000, 500) as u64 {
                let flags: Vec<_> = (0..4).map(|_| Arc::new(Flag::default())).collect();
                let mut readers: Vec<_> =
                    (0..4).map(|_| Some(Box::pin(ours.read(QuarantineBuf::new(8))))).collect();
                for (reader, flag) in readers.iter_mut().flatten().zip(&flags) {
                    assert!(poll_once(reader.as_mut(), flag).is_pending());
                }
                let survivor = random.below(4);
                let sent_first = random.below(2) == 0;
                if sent_first {
                    theirs.write_all(round.to_le_bytes()).await.unwrap();
                }
                for _ in 0..random.below(3) {
                    lap().await;
                }
                for dropped in (0..4).filter(|it| *it != survivor) {
                    readers[dropped] = None;
                    if random.below(3) == 0 {
                        lap().await;
                    }
                }
                if !sent_first {
                    theirs.write_all(round.to_le_bytes()).await.unwrap();
                }
                let reader = readers[survivor].take().unwrap();
                let (count, buf) = within(Duration::from_secs(5), reader).await.unwrap();
                assert_eq!((count, &*buf), (8, &round.to_le_bytes()[..]), "round {round}");
            }
        });
    });
}
