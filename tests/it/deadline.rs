//! Deadlines that reach the operations below them: `time::deadline`, and `timeout` on an operation.

use std::cell::Cell;
use std::future::{Future, pending, ready};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use quoit::buf::{BufError, IoBuf};
use quoit::io::AsyncRead as _;
use quoit::net::{TcpListener, TcpStream, UdpSocket, UnixListener, UnixStream};
use quoit::task::{gather, scope, yield_now};
use quoit::time::{Elapsed, Instant, TimeoutExt, deadline, sleep};
use quoit::{join, select};

use crate::loopback::{
    Oracle, Random, blackhole, isolated, lap, ledger, pair_of_ours, pattern, run, scaled,
};
use crate::quarantine::{QuarantineBuf, violations};
use crate::support::{on_every_driver, patient};
use crate::support_alloc::allocations;

const SOON: Duration = Duration::from_millis(2);
const PAST: Duration = Duration::from_secs(1);

fn soon() -> Instant {
    Instant::now() + SOON
}

/// A stream that takes no more bytes, and its peer, which does not read.
async fn stuck_pair() -> (Rc<TcpStream>, TcpStream) {
    let (stream, peer) = pair_of_ours().await;
    stream.set_send_buffer_size(4096).unwrap();
    while stream.write(vec![9; 1 << 16]).timeout(5 * SOON).await.is_ok() {}
    (Rc::new(stream), peer)
}

fn timed_out<T, B>(result: Result<T, BufError<B>>) -> B {
    let Err(failed) = result else { panic!("there was nothing to bring it to its end") };
    assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
    failed.buf
}

#[test]
fn a_read_with_a_limit_gives_its_buffer_back_and_loses_no_byte() {
    on_every_driver(async || {
        let (server, client) = pair_of_ours().await;
        for armed in [false, true] {
            if armed {
                // From now on the receive belongs to the stream.
                client.write_all(b"x".as_slice()).await.unwrap();
                assert_eq!(&server.recv().await.unwrap().unwrap()[..], b"x");
            }
            let start = Instant::now();
            let buf = timed_out(server.read(QuarantineBuf::new(77)).timeout(SOON).await);
            assert!(start.elapsed() >= SOON && buf.buf_capacity() == 77);
            let room = Vec::with_capacity(9);
            drop(timed_out(server.append(room).timeout(SOON).await));
            drop(timed_out(server.read_vectored((vec![0; 4], vec![0; 4])).timeout(SOON).await));
            // What a read_exact has got is in the buffer that comes back.
            client.write_all(b"ab".as_slice()).await.unwrap();
            let failed = server.read_exact([0; 4]).timeout(5 * SOON).await.unwrap_err();
            assert_eq!((failed.done, &failed.buf[..2]), (2, &b"ab"[..]));
            client.write_all(b"cd".as_slice()).await.unwrap();
            let (count, buf) = server.read(vec![0; 9]).timeout(Duration::MAX).await.unwrap();
            assert_eq!(&buf[..count], b"cd");
        }
    });
    assert_eq!(violations(), 0);
}

#[test]
fn a_write_with_a_limit_gives_its_buffer_back_and_says_how_much_was_sent() {
    on_every_driver(async || {
        let (stream, peer) = stuck_pair().await;
        let before = stream.bytes_sent();
        let bytes: Rc<[u8]> = vec![1; 1 << 18].into();
        let failed = stream.write_all(bytes.clone()).timeout(SOON).await.unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
        assert_eq!(stream.bytes_sent() - before, failed.done as u64);
        drop(failed);
        assert_eq!(Rc::strong_count(&bytes), 1);
        drop(peer);
    });
}

#[test]
fn writes_in_line_give_up_with_their_buffers_and_the_others_go_on() {
    on_every_driver(async || {
        let (stream, peer) = stuck_pair().await;
        let patient: Vec<_> = (0..2)
            .map(|number| {
                let stream = stream.clone();
                quoit::spawn(
                    async move { stream.write_all(vec![number + 1; 3000]).await.map(drop) },
                )
            })
            .collect();
        lap().await;
        // Small ones are gathered, large ones wait for themselves, and so do several buffers.
        let small = stream.write_all(vec![7; 10]).timeout(SOON);
        let large = stream.write_all(vec![7; 1 << 17]).timeout(SOON);
        let several = stream.write_all_vectored((vec![7; 10], vec![7; 10])).timeout(SOON);
        let much = stream.write_all_vectored((vec![7; 1 << 17], vec![7; 10])).timeout(SOON);
        let (small, large, several, much) = join!(small, large, several, much);
        // The peer's system may take something in the meantime, but not all of it.
        let several = several.map(|(one, two)| [one, two].concat());
        let much = much.map(|(one, two)| [one, two].concat());
        let joined =
            |it: BufError<(Vec<u8>, Vec<u8>)>| it.map_buf(|(one, two)| [one, two].concat());
        let mut sent = 0;
        for result in [small, large, several.map_err(joined), much.map_err(joined)] {
            let (done, buf) = match result {
                Ok(buf) => (buf.len(), buf),
                Err(failed) => {
                    assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
                    assert!(failed.done < failed.buf.len());
                    (failed.done, failed.buf)
                }
            };
            assert!([10, 20, 1 << 17, 10 + (1 << 17)].contains(&buf.len()));
            sent += done;
        }
        assert!(sent < 1 << 18, "nothing was stuck");
        let reader = quoit::spawn(async move {
            let mut all = Vec::new();
            while let Some(bytes) = peer.recv().await.unwrap() {
                all.extend_from_slice(&bytes);
            }
            all
        });
        for writer in patient {
            writer.await.unwrap().unwrap();
        }
        drop(stream);
        let all = reader.await.unwrap();
        for number in [1, 2] {
            assert_eq!(all.iter().filter(|byte| **byte == number).count(), 3000);
        }
        assert_eq!(all.iter().filter(|byte| **byte == 7).count(), sent);
    });
}

#[test]
fn a_read_in_line_gives_up_its_place() {
    on_every_driver(async || {
        let (server, client) = pair_of_ours().await;
        let first = server.read(vec![0; 8]);
        let second = async {
            drop(timed_out(server.read(vec![0; 8]).timeout(SOON).await));
            client.write_all(b"go".as_slice()).await.unwrap();
        };
        assert_eq!(join!(first, second).0.unwrap().0, 2);
    });
}

#[test]
fn datagrams_and_unix_streams_give_their_buffers_back() {
    on_every_driver(async || {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let buf = timed_out(socket.recv_from(vec![0; 33]).timeout(SOON).await);
        assert_eq!(buf.len(), 33);
        socket.send_to(b"late".to_vec(), socket.local_addr().unwrap()).await.unwrap();
        let ((count, _), _) = socket.recv_from(buf).timeout(Duration::MAX).await.unwrap();
        assert_eq!(count, 4);
        let (one, two) = UnixStream::pair().unwrap();
        drop(timed_out(one.read(QuarantineBuf::new(9)).timeout(SOON).await));
        two.write_all(b"x".as_slice()).await.unwrap();
        assert_eq!(one.read(vec![0; 9]).timeout(Duration::MAX).await.unwrap().0, 1);
    });
}

#[test]
fn a_deadline_in_the_past_begins_nothing_and_takes_what_is_there() {
    on_every_driver(async || {
        let (server, client) = pair_of_ours().await;
        let past = Instant::now() - PAST;
        let before = quoit::runtime::stats().sqes;
        let buf = timed_out(server.read(vec![0; 5]).timeout_at(past).await);
        let buf = timed_out(server.read(buf).timeout(Duration::ZERO).await);
        assert_eq!((quoit::runtime::stats().sqes, buf.len()), (before, 5));
        assert_eq!(deadline(past, ready(1)).await, Ok(1));
        assert_eq!(deadline(past, pending::<u32>()).await.ok(), None);
        // Bytes that the stream has need no operation.
        client.write_all(b"abc".as_slice()).await.unwrap();
        assert_eq!(server.read_exact([0; 1]).await.unwrap(), *b"a");
        server.unread(server.recv().await.unwrap().unwrap());
        let (count, _) = server.read(buf).timeout(Duration::ZERO).await.unwrap();
        assert_eq!(count, 2);
    });
}

#[test]
fn a_deadline_reaches_every_operation_below_it() {
    on_every_driver(async || {
        let mut pairs = Vec::new();
        for _ in 0..4 {
            pairs.push(pair_of_ours().await);
        }
        let back = Cell::new(0);
        let read = async |number: usize| {
            let failed = pairs[number].0.read(QuarantineBuf::new(9)).await.unwrap_err();
            assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
            back.set(back.get() + 1);
            // What begins later is refused, and gives its buffer back as well.
            drop(timed_out(pairs[number].0.read(failed.buf).await));
        };
        let all = async {
            select! {
                _ = pending::<()>() => unreachable!(),
                _ = gather([1, 2, 3].map(&read)) => {}
            }
        };
        let both = deadline(soon(), async { join!(all, read(0)) });
        assert!(both.await.is_ok());
        assert_eq!(back.get(), 4);
    });
    assert_eq!(violations(), 0);
}

#[test]
fn more_than_a_turns_worth_of_gathered_operations_come_back() {
    run(async {
        let (server, _client) = pair_of_ours().await;
        let files = gather((0..300).map(async |_| {
            drop(timed_out(server.read(Vec::with_capacity(9)).await));
        }));
        assert_eq!(deadline(soon(), files).await.unwrap().len(), 300);
    });
}

/// That `operation` is awaited under a deadline, and whoever awaits it can clean up.
async fn assert_ends_late<T>(operation: impl Future<Output = io::Result<T>>) {
    let cleaned = deadline(soon(), async {
        let error = operation.await.err().expect("nothing was to come");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        7
    });
    assert_eq!(cleaned.await, Ok(7));
}

#[test]
fn what_arrives_after_the_deadline_is_for_the_next_call() {
    on_every_driver(async || {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert_ends_late(listener.accept()).await;
        let (client, server) = join!(TcpStream::connect(address), listener.accept());
        let (client, (server, _)) = (client.unwrap(), server.unwrap());
        assert_ends_late(listener.accept()).await;
        let another = TcpStream::connect(address).await.unwrap();
        assert_eq!(listener.accept().await.unwrap().1, another.local_addr().unwrap());

        assert_ends_late(server.recv()).await;
        // The second of them waits for the turn of the first.
        let late = || async { assert_ends_late(server.recv()).await };
        join!(late(), late());
        client.write_all(b"whole".as_slice()).await.unwrap();
        assert_eq!(&server.recv().await.unwrap().unwrap()[..], b"whole");
        assert_ends_late(server.recv()).await;
        drop(client);
        assert!(server.recv().await.unwrap().is_none());

        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        assert_ends_late(socket.recv_datagram()).await;
        socket.send_to(b"datagram".as_slice(), socket.local_addr().unwrap()).await.unwrap();
        assert_eq!(&socket.recv_datagram().await.unwrap()[..], b"datagram");
    });
}

#[test]
fn what_has_arrived_before_the_deadline_is_taken_after_it() {
    on_every_driver(async || {
        let (server, client) = pair_of_ours().await;
        assert_ends_late(server.recv()).await;
        client.write_all(b"early".as_slice()).await.unwrap();
        sleep(patient(SOON)).await;
        let taken = deadline(Instant::now() - PAST, async {
            let bytes = server.recv().await.unwrap().unwrap();
            assert_eq!(server.recv().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
            bytes.to_vec()
        });
        assert_eq!(taken.await.unwrap(), b"early");
    });
}

#[test]
fn an_attempt_to_connect_and_an_accept_of_another_kind_end_at_the_deadline() {
    run(async {
        let (_full, _filling, silent) = blackhole();
        assert_ends_late(TcpStream::connect(silent)).await;
        assert_ends_late(TcpStream::connect([silent, silent].as_slice())).await;
        let path = std::env::temp_dir().join(format!("quoit-deadline-{}", std::process::id()));
        let listener = UnixListener::bind(&path).await.unwrap();
        assert_ends_late(listener.accept()).await;
        let client = UnixStream::connect(&path).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        drop(client);
        assert!(server.recv().await.unwrap().is_none());
        std::fs::remove_file(&path).unwrap();
    });
}

#[test]
fn what_is_no_operation_is_dropped_at_the_deadline() {
    on_every_driver(async || {
        let (server, client) = pair_of_ours().await;
        assert!(deadline(soon(), sleep(Duration::MAX)).await.is_err());
        assert!(deadline(soon(), quoit::spawn(pending::<()>())).await.is_err());
        let tasks = scope(async |scope| {
            scope.spawn(pending::<Result<(), ()>>());
            Ok(())
        });
        assert!(deadline(soon(), tasks).await.is_err());
        let cleaned = Cell::new(false);
        let mixed = async {
            drop(timed_out(server.read(vec![0; 9]).await));
            cleaned.set(true);
            sleep(Duration::MAX).await;
        };
        assert!(deadline(soon(), mixed).await.is_err() && cleaned.get());
        client.write_all(b"whole".as_slice()).await.unwrap();
        assert_eq!(server.read_exact([0; 5]).await.unwrap(), *b"whole");
    });
}

#[test]
fn of_deadlines_within_each_other_the_first_counts() {
    run(async {
        let (server, _client) = pair_of_ours().await;
        let far = Instant::now() + PAST * 100;
        let start = Instant::now();
        let inner: Result<_, Elapsed> =
            deadline(far, deadline(soon(), sleep(Duration::MAX))).await.unwrap();
        assert!(inner.is_err());
        let outer = deadline(soon(), async {
            let read = deadline(far, server.read(vec![0; 9])).await.unwrap();
            drop(timed_out(read));
            drop(timed_out(server.read(vec![0; 9]).timeout(Duration::MAX).await));
            assert!(deadline(far, pending::<()>()).await.is_err());
            7
        });
        assert_eq!(outer.await, Ok(7));
        assert!(start.elapsed() < PAST * 10);
        assert_eq!(deadline(Instant::now() + Duration::MAX, yield_now()).await, Ok(()));
    });
}

#[test]
fn a_panic_of_what_is_late_leaves_the_core_on_time() {
    run(async {
        let (server, client) = pair_of_ours().await;
        let late = quoit::spawn(deadline(Instant::now() - PAST, async {
            if true {
                panic!("on purpose")
            }
        }));
        assert!(late.await.unwrap_err().is_panic());
        client.write_all(b"a".as_slice()).await.unwrap();
        assert_eq!(server.read(vec![0; 9]).await.unwrap().0, 1);
    });
}

#[test]
fn limits_near_the_answer_lose_no_byte() {
    isolated(|| {
        ledger(async || {
            let (server, client) = pair_of_ours().await;
            let rounds = scaled(100_000, 3_000);
            let writer = quoit::spawn(async move {
                let (mut random, mut sent) = (Random::new(21), 0);
                for _ in 0..rounds {
                    let len = random.size(300);
                    client.write_all(pattern(sent, len)).await.unwrap();
                    sent += len as u64;
                    sleep(Duration::from_micros(random.next() % 60)).await;
                }
                sent
            });
            let (mut random, mut oracle, mut late) = (Random::new(22), Oracle::default(), 0);
            let mut buf = QuarantineBuf::new(512);
            loop {
                let limit = Duration::from_micros(random.next() % 80);
                match server.read(buf).timeout(limit).await {
                    Ok((0, _)) => break,
                    Ok((_, full)) => {
                        oracle.take(&full);
                        buf = full;
                    }
                    Err(failed) => {
                        assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
                        late += 1;
                        buf = failed.buf;
                    }
                }
            }
            assert_eq!(oracle.0, writer.await.unwrap());
            assert!(late > rounds / 50, "{late} of {rounds}");
        });
    });
}

#[test]
fn a_limit_that_is_not_reached_allocates_nothing() {
    run(async {
        let (server, client) = pair_of_ours().await;
        let mut bufs = (vec![7; 64], Vec::with_capacity(64));
        let mut least = u64::MAX;
        // Far away, so that no time of the wheel's begins meanwhile, which is memory.
        let limit = Duration::from_secs(3600);
        // On a busy machine a table may still grow, once; what each operation took would be in all.
        for _ in 0..4 {
            let before = allocations();
            for _ in 0..200 {
                let sent = client.write_all(bufs.0).timeout(limit).await.unwrap();
                let (count, read) = server.read(bufs.1).timeout(limit).await.unwrap();
                assert_eq!(count, 64);
                bufs = (sent, read);
            }
            least = least.min(allocations() - before);
        }
        assert_eq!(least, 0);
    });
}

#[test]
fn dropping_a_limited_operation_at_any_point_loses_no_byte() {
    run(async {
        for polls in 0..4 {
            let (server, client) = pair_of_ours().await;
            {
                let mut read = pin!(server.read(QuarantineBuf::new(9)).timeout(SOON / 10));
                for _ in 0..polls {
                    let mut polled = false;
                    std::future::poll_fn(|context| {
                        if !std::mem::replace(&mut polled, true) {
                            let _ = read.as_mut().poll(context).map(drop);
                        }
                        std::task::Poll::Ready(())
                    })
                    .await;
                    if polls == 3 {
                        sleep(SOON / 9).await;
                        break;
                    }
                }
            }
            client.write_all(b"all of it".as_slice()).await.unwrap();
            assert_eq!(server.read_exact([0; 9]).await.unwrap(), *b"all of it");
        }
    });
    assert_eq!(violations(), 0);
}
