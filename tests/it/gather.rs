//! Writes that wait for each other on one stream: one request sends for several, and each caller
//! gets what became of its own.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use quoit::net::TcpStream;
use quoit::task::{JoinHandle, yield_now};
use quoit::time::{sleep, timeout};

use crate::loopback::{Random, isolated, lap, ledger, pair_of_ours, pattern};
use crate::quarantine::{QuarantineBuf, violations};
use crate::support::on_every_driver;
use crate::support_alloc::allocations;

/// What write `number` sends: its bytes say where they belong.
fn message(number: usize, len: usize) -> Vec<u8> {
    pattern((number as u64) << 32, len)
}

/// How a write ended: how many bytes it says it has sent, and whether that was all it wanted.
#[derive(Debug, Clone, Copy)]
struct End {
    done: usize,
    error: Option<ErrorKind>,
}

/// Writes message `number` in one of six ways; the buffers that come back are those that went in.
async fn write(stream: &TcpStream, number: usize, len: usize) -> End {
    let bytes = message(number, len);
    let half = len / 2;
    let parts = || (bytes[..half].to_vec(), Rc::<[u8]>::from(&bytes[half..]));
    let (result, whole) = match number % 6 {
        0 => {
            let result = stream.write_all(QuarantineBuf::of(&bytes)).await;
            let result = result.map(|buf| (buf.len(), buf));
            (result.map_err(|it| (it.kind(), it.done, it.buf)).map(|(n, b)| (n, b.to_vec())), true)
        }
        1 => {
            let result = stream.write_all(bytes.clone()).await.map(|buf| (buf.len(), buf));
            (result.map_err(|it| (it.kind(), it.done, QuarantineBuf::of(&it.buf))), true)
        }
        2 => {
            let result = stream.write_all_vectored(parts()).await;
            let joined = |(a, b): (Vec<u8>, Rc<[u8]>)| [&a[..], &b[..]].concat();
            let failed = |(kind, done, buf)| (kind, done, QuarantineBuf::of(&joined(buf)));
            let result = result.map(|bufs| (len, joined(bufs)));
            (result.map_err(|it| failed((it.kind(), it.done, it.buf))), true)
        }
        3 => {
            let result = stream.write_vectored(parts()).await;
            let joined = |(a, b): (Vec<u8>, Rc<[u8]>)| [&a[..], &b[..]].concat();
            let failed = |(kind, done, buf)| (kind, done, QuarantineBuf::of(&joined(buf)));
            let result = result.map(|(count, bufs)| (count, joined(bufs)));
            (result.map_err(|it| failed((it.kind(), it.done, it.buf))), false)
        }
        _ => {
            let result = stream.write(QuarantineBuf::of(&bytes)).await;
            let result = result.map(|(count, buf)| (count, buf.to_vec()));
            (result.map_err(|it| (it.kind(), it.done, it.buf)), false)
        }
    };
    match result {
        Ok((done, back)) => {
            assert_eq!(back, bytes, "write {number} got another's buffer");
            assert!(if whole { done == len } else { (1..=len).contains(&done) }, "{done} of {len}");
            End { done, error: None }
        }
        Err((kind, done, back)) => {
            assert_eq!(&back[..], &bytes[..], "write {number} got another's buffer");
            assert!(done < len);
            End { done, error: Some(kind) }
        }
    }
}

/// Polls it so many times with a lap in between, then drops it.
async fn glance<F: Future>(mut future: Pin<&mut F>, polls: usize) -> Option<F::Output> {
    for _ in 0..polls {
        let polled = poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await;
        if let Poll::Ready(output) = polled {
            return Some(output);
        }
        yield_now().await;
    }
    None
}

/// Everything that arrives, at some pace.
fn reads(peer: TcpStream, seed: u64) -> JoinHandle<Vec<u8>> {
    quoit::spawn(async move {
        let (mut all, mut random) = (Vec::new(), Random::new(seed));
        loop {
            let (count, buf) = peer.read(Vec::with_capacity(random.size(9000))).await.unwrap();
            if count == 0 {
                return all;
            }
            all.extend_from_slice(&buf);
        }
    })
}

/// Whether `all` is a prefix of each message, one after the other, where known of that length.
fn check(all: &[u8], writes: &[(usize, Option<usize>)]) {
    let mut places = vec![0];
    for (number, (len, known)) in writes.iter().enumerate() {
        let whole = message(number, *len);
        let mut ends = Vec::new();
        for start in places {
            let same = all[start..].iter().zip(&whole).take_while(|(a, b)| a == b).count();
            match known {
                Some(done) if *done <= same => ends.push(start + done),
                Some(_) => {}
                None => ends.extend(start..=start + same),
            }
        }
        ends.sort_unstable();
        ends.dedup();
        assert!(!ends.is_empty(), "what write {number} sent is not where it belongs");
        places = ends;
    }
    assert!(places.contains(&all.len()), "something is left over");
}

#[test]
fn writes_that_wait_are_sent_in_the_order_of_their_calls_and_each_gets_its_own_result() {
    for (seed, room) in [(1, 4096), (2, 1 << 20)] {
        on_every_driver(async || {
            let (stream, peer) = pair_of_ours().await;
            stream.set_send_buffer_size(room).unwrap();
            let (stream, reader) = (Rc::new(stream), reads(peer, seed));
            let mut random = Random::new(seed);
            let writers: Vec<_> = (0..120)
                .map(|number| {
                    let (stream, len) = (Rc::clone(&stream), random.size(4000));
                    let writer = quoit::spawn(async move { write(&stream, number, len).await });
                    (len, writer)
                })
                .collect();
            let mut writes = Vec::new();
            for (len, writer) in writers {
                let end = writer.await.unwrap();
                assert_eq!(end.error, None);
                writes.push((len, Some(end.done)));
            }
            let sent: usize = writes.iter().map(|(_, done)| done.unwrap()).sum();
            assert_eq!(stream.bytes_sent(), sent as u64);
            drop(stream);
            check(&reader.await.unwrap(), &writes);
        });
    }
    assert_eq!(violations(), 0);
}

#[test]
fn writers_that_are_dropped_anywhere_leave_the_others_whole_and_in_order() {
    let seed = 1;
    on_every_driver(async || {
        let (stream, peer) = pair_of_ours().await;
        stream.set_send_buffer_size(4096).unwrap();
        let (stream, reader) = (Rc::new(stream), reads(peer, seed));
        let mut random = Random::new(seed);
        let mut writes = Vec::new();
        for round in 0..6 {
            let writers: Vec<_> = (0..12)
                .map(|index| {
                    let (stream, len) = (Rc::clone(&stream), random.size(4000));
                    // Some are never polled again, some a few times, some to the end.
                    let polls = [1 + random.below(4), 2 + random.below(30), 1_000_000];
                    let polls = polls[random.below(3)];
                    let number = round * 12 + index;
                    let writer = quoit::spawn(async move {
                        glance(pin!(write(&stream, number, len)), polls).await
                    });
                    (len, writer)
                })
                .collect();
            for (len, writer) in writers {
                let end = writer.await.unwrap();
                assert!(end.is_none_or(|end| end.error.is_none()), "{end:?}");
                writes.push((len, end.map(|end| end.done)));
            }
        }
        stream.write_all(message(writes.len(), 5)).await.unwrap();
        writes.push((5, Some(5)));
        let sent = stream.bytes_sent();
        drop(stream);
        let all = reader.await.unwrap();
        assert_eq!(sent, all.len() as u64);
        check(&all, &writes);
    });
    assert_eq!(violations(), 0);
}

#[test]
fn a_writer_that_is_dropped_to_a_stuck_peer_is_cancelled_and_the_others_go_on() {
    // Who is dropped: the one that leads the request, one in its middle, its last.
    for gone in [0, 2, 4] {
        on_every_driver(async || {
            let mut tries = 0;
            // A slow machine takes its time until nothing moves any more.
            while !one_of_five_is_dropped(gone, Duration::from_millis(10) * (1 + tries)).await {
                tries += 1;
                assert!(tries < 50, "the peer was never stuck");
            }
        });
    }
}

/// False: the peer's system took something in the meantime, so that nothing was stuck.
async fn one_of_five_is_dropped(gone: usize, patience: Duration) -> bool {
    let (stream, peer) = pair_of_ours().await;
    stream.set_send_buffer_size(4096).unwrap();
    let stream = Rc::new(stream);
    // So much that the request of the others has to wait for the peer. The last of these has the
    // turn until its cancel is answered, so that they stand in line.
    // A socket that has become writable only a little tells nobody, but takes the next write.
    let mut in_vain = 0;
    while in_vain < 2 {
        let written = timeout(patience, stream.write(vec![9; 1 << 16])).await;
        in_vain = if written.is_ok() { 0 } else { in_vain + 1 };
    }
    let ended = Rc::new(RefCell::new(Vec::new()));
    let mut writers: Vec<_> = (0..5)
        .map(|number| {
            let (stream, ended) = (Rc::clone(&stream), Rc::clone(&ended));
            quoit::spawn(async move {
                let buf = vec![number as u8 + 1; 3000];
                let buf = stream.write_all(buf).await.unwrap();
                assert_eq!(buf, vec![number as u8 + 1; 3000]);
                ended.borrow_mut().push(number);
            })
        })
        .collect();
    for _ in 0..5 {
        lap().await;
    }
    let before = stream.bytes_sent();
    writers.remove(gone).abort();
    for _ in 0..5 {
        lap().await;
    }
    if stream.bytes_sent() != before || !ended.borrow().is_empty() {
        writers.iter().for_each(JoinHandle::abort);
        return false;
    }
    let reader = reads(peer, 7);
    for writer in writers {
        writer.await.unwrap();
    }
    let others: Vec<_> = (0..5).filter(|number| *number != gone).collect();
    assert_eq!(*ended.borrow(), others);
    let sent = stream.bytes_sent();
    drop(stream);
    let all = reader.await.unwrap();
    assert_eq!(sent, all.len() as u64);
    let mut rest = &all[all.iter().take_while(|byte| **byte == 9).count()..];
    for number in 0..5 {
        let count = rest.iter().take_while(|byte| **byte == number as u8 + 1).count();
        // The request was cancelled before the peer read, so that a part was sent at most.
        let is_right = if number == gone { count < 3000 } else { count == 3000 };
        assert!(is_right, "{count} bytes of {number} when {gone} was dropped");
        rest = &rest[count..];
    }
    assert!(rest.is_empty());
    true
}

#[test]
fn a_reset_is_the_error_of_each_that_was_not_sent_and_every_byte_is_accounted_for() {
    on_every_driver(async || {
        for round in 0..2 {
            let (stream, peer) = pair_of_ours().await;
            // Less than the writers send: some of it is in line when the reset comes.
            stream.set_send_buffer_size(4096).unwrap();
            peer.set_recv_buffer_size(4096).unwrap();
            peer.set_reset_on_close(true).unwrap();
            let stream = Rc::new(stream);
            let writers: Vec<_> = (0..40)
                .map(|number| {
                    let stream = Rc::clone(&stream);
                    quoit::spawn(async move { write(&stream, number, 4000).await })
                })
                .collect();
            for _ in 0..round {
                drop(peer.read(vec![0; 5000]).await.unwrap());
            }
            drop(peer);
            let mut ends = Vec::new();
            for writer in writers {
                ends.push(writer.await.unwrap());
            }
            let sent: usize = ends.iter().map(|end| end.done).sum();
            assert_eq!(stream.bytes_sent(), sent as u64, "in round {round}");
            let known = [None, Some(ErrorKind::BrokenPipe), Some(ErrorKind::ConnectionReset)];
            assert!(ends.iter().all(|end| known.contains(&end.error)));
            let first = ends.iter().position(|end| end.error.is_some()).expect("a reset is seen");
            assert!(ends[first + 1..].iter().all(|end| end.error.is_some() && end.done == 0));
        }
    });
    assert_eq!(violations(), 0);
}

#[test]
fn waiting_writes_cost_few_requests_and_allocate_nothing() {
    isolated(|| {
        ledger(async || {
            let (stream, peer) = pair_of_ours().await;
            let reader = quoit::spawn(async move {
                let mut buf = Vec::with_capacity(1 << 16);
                let mut count = 1;
                while count > 0 {
                    (count, buf) = peer.read(buf).await.unwrap();
                }
            });
            let (mut allocated, mut requests) = (0, 0);
            let mut bufs = [vec![1; 300], vec![2; 300], vec![3; 300], vec![4; 300]];
            for round in 0..1100 {
                if round == 100 {
                    (allocated, requests) = (allocations(), quoit::runtime::stats().sqes);
                }
                let [a, b, c, d] = bufs;
                let (a, b, c, d) = quoit::join!(
                    stream.write_all(a),
                    stream.write_all(b),
                    stream.write_all(c),
                    stream.write_all(d)
                );
                bufs = [a.unwrap(), b.unwrap(), c.unwrap(), d.unwrap()];
                assert!(bufs.iter().zip(1..).all(|(buf, byte)| buf[0] == byte));
            }
            let requests = quoit::runtime::stats().sqes - requests;
            assert_eq!(allocations() - allocated, 0, "in 1,000 rounds");
            // Two requests send for four; the others are the reader's.
            println!("\n{requests} requests in 1,000 rounds of four writes");
            assert!(requests <= 4_100, "{requests} requests in 1,000 rounds of four writes");
            drop(stream);
            reader.await.unwrap();
            sleep(Duration::from_millis(1)).await;
        });
    });
}
