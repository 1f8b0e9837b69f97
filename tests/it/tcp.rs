//! TCP streams: what goes in comes out, by every way in and out.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown};
use std::os::fd::{AsFd, AsRawFd};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use quoit::buf::{IoBuf, PooledBuf};
use quoit::net::{TcpListener, TcpStream};
use quoit::time::sleep;

use crate::loopback::{
    Flag, Oracle, Random, anonymous, blackhole, descriptors, isolated, join, lap, ledger, listen,
    pair, pair_of_ours, pattern, poll_once, run, scaled, take_pattern, until, within,
};
use crate::support::{PAUSED_READER_LEASES, is_instrumented, on_every_driver};

/// Reads to the end by `way`, with room for `room` bytes, and says how much came.
async fn read_to_end(stream: &TcpStream, way: usize, room: usize) -> u64 {
    let mut oracle = Oracle::default();
    while step(stream, way, room, &mut oracle).await {}
    oracle.0
}

/// Reads once by `way`; false is the end of the stream.
async fn step(stream: &TcpStream, way: usize, room: usize, oracle: &mut Oracle) -> bool {
    let before = oracle.0;
    match way {
        0 => {
            let bytes = stream.recv().await.unwrap();
            bytes.iter().for_each(|bytes| oracle.take(bytes));
        }
        1 => {
            let (count, buf) = stream.read(Vec::with_capacity(room)).await.unwrap();
            assert_eq!(count, buf.len());
            oracle.take(&buf);
        }
        2 => {
            let mut buf = Vec::with_capacity(room + 3);
            buf.extend_from_slice(b"abc");
            let (count, buf) = stream.append(buf).await.unwrap();
            assert_eq!((count + 3, &buf[..3]), (buf.len(), &b"abc"[..]));
            oracle.take(&buf[3..]);
        }
        3 => match stream.read_exact(Vec::with_capacity(room)).await {
            Ok(buf) => {
                assert_eq!(buf.len(), buf.capacity());
                oracle.take(&buf);
            }
            Err(failed) => {
                assert_eq!(failed.kind(), ErrorKind::UnexpectedEof);
                assert_eq!(failed.done, failed.buf.len());
                oracle.take(&failed.buf);
                return false;
            }
        },
        _ => {
            let (count, buf) = stream.read(vec![7; room + 2].slice(1..=room)).await.unwrap();
            oracle.take(&buf);
            let whole = buf.into_inner();
            assert_eq!((whole[0], whole[room + 1], whole.len()), (7, 7, room + 2));
            assert!(count <= room);
        }
    }
    oracle.0 > before
}

const WAYS_TO_READ: usize = 5;

/// A peer that writes `len` bytes of the pattern in pieces of random sizes, and ends.
fn writes(mut peer: std::net::TcpStream, seed: u64, len: usize) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let (mut random, mut sent) = (Random::new(seed), 0);
        while sent < len {
            let piece = random.size(20_000).min(len - sent);
            peer.write_all(&pattern(sent as u64, piece)).unwrap();
            sent += piece;
            if random.below(8) == 0 {
                thread::sleep(Duration::from_micros(random.next() % 200));
            }
        }
    })
}

/// A peer that reads the pattern to the end, and says how much it was.
fn reads(mut peer: std::net::TcpStream) -> thread::JoinHandle<u64> {
    thread::spawn(move || {
        let (mut oracle, mut buf) = (Oracle::default(), vec![0; 30_000]);
        loop {
            match peer.read(&mut buf).unwrap() {
                0 => return oracle.0,
                count => oracle.take(&buf[..count]),
            }
        }
    })
}

#[test]
fn every_way_of_reading_brings_every_byte_in_order() {
    run(async {
        for way in 0..WAYS_TO_READ {
            for room in [1, 100, 4096, 70_000] {
                let (stream, peer) = pair().await;
                let len = (room * 5000).min(1_000_000);
                let writer = writes(peer, room as u64, len);
                assert_eq!(read_to_end(&stream, way, room).await, len as u64, "way {way}");
                join(writer).await;
            }
        }
    });
}

#[test]
fn ways_of_reading_mix_on_one_stream() {
    run(async {
        for seed in 0..20 {
            let (stream, peer) = pair().await;
            let len = 300_000;
            let writer = writes(peer, seed, len);
            let (mut random, mut oracle) = (Random::new(seed), Oracle::default());
            while oracle.0 < len as u64 {
                let (way, room) = (random.below(WAYS_TO_READ), random.size(8000));
                step(&stream, way, room, &mut oracle).await;
            }
            assert!(stream.recv().await.unwrap().is_none());
            join(writer).await;
        }
    });
}

#[test]
fn every_way_of_writing_sends_every_byte_in_order() {
    run(async {
        for seed in 0..10 {
            let (stream, peer) = pair().await;
            let reader = reads(peer);
            let (mut random, mut sent) = (Random::new(seed), 0);
            for round in 0..200 {
                let bytes = pattern(sent, random.size(50_000));
                match round % 4 {
                    0 => {
                        let (count, bytes) = stream.write(bytes).await.unwrap();
                        assert!(count > 0 && count <= bytes.len());
                        sent += count as u64;
                    }
                    1 => sent += stream.write_all(bytes).await.unwrap().len() as u64,
                    2 => {
                        let (head, body) = bytes.split_at(bytes.len() / 3);
                        let bufs = (head.to_vec(), Vec::new(), Rc::<[u8]>::from(body));
                        let (count, _) = stream.write_vectored(bufs).await.unwrap();
                        assert!(count > 0 && count <= bytes.len());
                        sent += count as u64;
                    }
                    _ => {
                        let bufs: Vec<Vec<u8>> = bytes.chunks(7000).map(<[u8]>::to_vec).collect();
                        let back = stream.write_all_vectored(bufs.clone()).await.unwrap();
                        assert_eq!(back, bufs);
                        sent += bytes.len() as u64;
                    }
                }
                assert_eq!(stream.bytes_sent(), sent);
            }
            drop(stream);
            assert_eq!(join(reader).await, sent);
        }
    });
}

#[test]
fn more_buffers_than_the_kernel_takes_at_a_time_are_all_sent() {
    run(async {
        let (stream, peer) = pair().await;
        let reader = reads(peer);
        // 1024 empty ones in front would make a naive answer 0.
        let bytes = pattern(0, 3000);
        let mut bufs = vec![Vec::new(); 1500];
        bufs.extend(bytes.iter().flat_map(|byte| [vec![*byte], Vec::new()]));
        stream.write_all_vectored(bufs).await.unwrap();
        let (count, _) = stream.write_vectored(vec![Vec::<u8>::new(); 2000]).await.unwrap();
        assert_eq!(count, 0);
        drop(stream);
        assert_eq!(join(reader).await, 3000);
    });
}

#[test]
fn a_vectored_write_larger_than_the_socket_goes_on_where_it_stopped() {
    run(async {
        let (stream, peer) = pair().await;
        stream.set_send_buffer_size(4096).unwrap();
        let reader = reads(peer);
        let len = 3_000_000;
        let bytes = pattern(0, len);
        let bufs: Vec<Vec<u8>> = bytes.chunks(1111).map(<[u8]>::to_vec).collect();
        stream.write_all_vectored(bufs).await.unwrap();
        drop(stream);
        assert_eq!(join(reader).await, len as u64);
    });
}

#[test]
fn nothing_to_write_is_no_error() {
    run(async {
        let (stream, _peer) = pair().await;
        assert_eq!(stream.write("").await.unwrap().0, 0);
        assert_eq!(stream.write_all(Vec::new()).await.unwrap(), b"");
        assert_eq!(stream.write_vectored((Vec::new(), "")).await.unwrap().0, 0);
        assert_eq!(stream.bytes_sent(), 0);
    });
}

#[test]
fn a_read_without_room_is_refused_and_gives_the_buffer_back() {
    run(async {
        let (stream, _peer) = pair().await;
        let failed = stream.read(Vec::new()).await.unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::InvalidInput);
        let failed = stream.read_exact([0; 0]).await.unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::InvalidInput);
        let full = Box::<[u8]>::from(*b"full").into_vec();
        let failed = stream.append(full).await.unwrap_err();
        assert_eq!((failed.kind(), failed.buf), (ErrorKind::InvalidInput, b"full".to_vec()));
    });
}

#[test]
fn received_bytes_are_consumed_in_part_and_the_rest_is_written() {
    run(async {
        let (stream, mut peer) = pair().await;
        peer.write_all(b"GET hello").unwrap();
        let mut bytes = stream.recv().await.unwrap().unwrap();
        bytes.advance(4);
        bytes[0] = b'j';
        stream.write_all(bytes).await.unwrap();
        let mut answer = [0; 5];
        peer.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"jello");
    });
}

#[test]
fn the_end_of_the_stream_stays_the_end_by_every_way_of_reading() {
    run(async {
        for first in 0..WAYS_TO_READ {
            let (stream, mut peer) = pair().await;
            peer.write_all(&pattern(0, 10)).unwrap();
            drop(peer);
            assert_eq!(read_to_end(&stream, first, 4).await, 10);
            for way in 0..WAYS_TO_READ {
                assert_eq!(read_to_end(&stream, way, 4).await, 0);
            }
        }
    });
}

#[test]
fn bytes_that_came_before_a_reset_are_read_before_its_error() {
    run(async {
        let (server, client) = pair_of_ours().await;
        assert!(poll_once(pin!(server.recv()), &Arc::new(Flag::default())).is_pending());
        client.write_all("last words").await.unwrap();
        // The receive has taken the bytes from the socket when the reset comes.
        sleep(Duration::from_millis(5)).await;
        client.set_reset_on_close(true).unwrap();
        client.close().await.unwrap();
        sleep(Duration::from_millis(5)).await;
        assert_eq!(&*server.recv().await.unwrap().unwrap(), b"last words");
        assert_eq!(server.recv().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_reset_is_an_error_of_every_way_of_reading_and_then_of_writing() {
    run(async {
        for way in 0..4 {
            let (server, client) = pair_of_ours().await;
            client.set_reset_on_close(true).unwrap();
            let reader = async {
                let error = match way {
                    0 => server.recv().await.map(drop).unwrap_err(),
                    1 => server.read(vec![0; 9]).await.map(drop).unwrap_err().into(),
                    2 => server.append(Vec::with_capacity(9)).await.map(drop).unwrap_err().into(),
                    _ => server.read_exact(vec![0; 9]).await.map(drop).unwrap_err().into(),
                };
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            };
            let mut reader = pin!(reader);
            assert!(poll_once(reader.as_mut(), &Arc::new(Flag::default())).is_pending());
            client.close().await.unwrap();
            reader.await;
            let failed = server.write_all(vec![1; 5]).await.unwrap_err();
            assert_eq!((failed.kind(), failed.done), (ErrorKind::BrokenPipe, 0));
            assert_eq!(failed.buf, [1; 5]);
            assert_eq!(server.bytes_sent(), 0);
        }
    });
}

#[test]
fn a_failed_write_says_how_much_had_been_sent() {
    run(async {
        let (server, client) = pair_of_ours().await;
        let killer = quoit::spawn(async move {
            client.set_reset_on_close(true).unwrap();
            client.read_exact(vec![0; 100_000]).await.unwrap();
            client.close().await.unwrap();
        });
        let failed = server.write_all(vec![5; 50_000_000]).await.unwrap_err();
        assert!(failed.done >= 100_000 && failed.done < 50_000_000, "{}", failed.done);
        assert_eq!(failed.done as u64, server.bytes_sent());
        assert_eq!(failed.buf.len(), 50_000_000);
        killer.await.unwrap();
    });
}

#[test]
fn after_a_half_close_the_other_direction_goes_on() {
    run(async {
        let (stream, mut peer) = pair().await;
        peer.shutdown(Shutdown::Write).unwrap();
        assert!(stream.recv().await.unwrap().is_none());
        stream.write_all("still here").await.unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(stream.write("no").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        let mut text = String::new();
        peer.read_to_string(&mut text).unwrap();
        assert_eq!(text, "still here");
    });
}

#[test]
fn shutting_reads_down_ends_a_read_that_waits() {
    run(async {
        let (stream, _peer) = pair().await;
        let mut waiting = pin!(stream.recv());
        assert!(poll_once(waiting.as_mut(), &Arc::new(Flag::default())).is_pending());
        lap().await;
        stream.shutdown(Shutdown::Read).unwrap();
        assert!(waiting.await.unwrap().is_none());
    });
}

#[test]
fn options_and_addresses_are_those_of_the_socket() {
    run(async {
        let (stream, peer) = pair().await;
        assert_eq!(stream.local_addr().unwrap(), peer.peer_addr().unwrap());
        assert_eq!(stream.peer_addr().unwrap(), peer.local_addr().unwrap());
        assert!(stream.nodelay().unwrap());
        stream.set_nodelay(false).unwrap();
        assert!(!stream.nodelay().unwrap());
        stream.set_ttl(17).unwrap();
        assert_eq!(stream.ttl().unwrap(), 17);
        assert_eq!(stream.set_ttl(256).unwrap_err().kind(), ErrorKind::InvalidInput);
        stream.set_keepalive(Some(Duration::from_millis(1))).unwrap();
        stream.set_keepalive(None).unwrap();
        stream.set_recv_buffer_size(usize::MAX).unwrap();
        assert!(stream.take_error().unwrap().is_none());
        let (ours, _) = pair_of_ours().await;
        assert!(ours.nodelay().unwrap());
    });
}

#[test]
fn a_stream_of_the_standard_library_can_be_taken_over() {
    run(async {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_nonblocking(true).unwrap();
        let client = TcpStream::from_std(client).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let mut waiting = pin!(client.read(vec![0; 5]));
        assert!(poll_once(waiting.as_mut(), &Arc::new(Flag::default())).is_pending());
        lap().await;
        server.write_all(b"hello").unwrap();
        assert_eq!(waiting.await.unwrap().1, b"hello");
    });
}

#[test]
fn streams_work_over_version_6() {
    run(async {
        let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        assert!(address.is_ipv6());
        let client = quoit::spawn(TcpStream::connect(address));
        let (server, peer) = listener.accept().await.unwrap();
        let client = client.await.unwrap().unwrap();
        assert_eq!(client.local_addr().unwrap(), peer);
        client.write_all("six").await.unwrap();
        assert_eq!(server.read_exact([0; 3]).await.unwrap(), *b"six");
        client.set_ttl(17).unwrap();
        assert_eq!(client.ttl().unwrap(), 17);
        let (mut hops, mut size) = (0, size_of::<i32>() as libc::socklen_t);
        // SAFETY: the answer has room for the number that the option is.
        let failed = unsafe {
            let (level, name) = (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS);
            let fd = client.as_fd().as_raw_fd();
            libc::getsockopt(fd, level, name, (&raw mut hops).cast(), &raw mut size)
        };
        assert_eq!((failed, hops), (0, 17));
        for hops in [0, 256] {
            assert_eq!(client.set_ttl(hops).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
    });
}

#[test]
fn connecting_to_nobody_is_refused() {
    isolated(|| {
        ledger(async || {
            let (listener, address) = listen().await;
            listener.close().await.unwrap();
            let error = TcpStream::connect(address).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            let error = TcpStream::connect("nonsense").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            // The second address is tried when the first refuses.
            let (_listener, good) = listen().await;
            TcpStream::connect(&[address, good][..]).await.unwrap();
        });
    });
}

#[test]
fn a_connect_that_is_dropped_on_its_way_closes_its_socket() {
    isolated(|| {
        ledger(async || {
            let (_blackhole, _filling, address) = blackhole();
            let before = descriptors().len();
            for polls in 0..20 {
                let mut connecting = Box::pin(TcpStream::connect(address));
                let flag = Arc::new(Flag::default());
                assert!(poll_once(connecting.as_mut(), &flag).is_pending());
                for _ in 0..polls % 3 {
                    lap().await;
                }
                assert!(poll_once(connecting.as_mut(), &flag).is_pending());
                assert_eq!(descriptors().len(), before + 1);
                drop(connecting);
                until(|| descriptors().len() == before).await;
            }
        });
    });
}

#[test]
fn close_waits_for_an_operation_that_was_dropped() {
    isolated(|| {
        ledger(async || {
            for way in 0..5 {
                for laps in 0..3 {
                    let before = descriptors();
                    let (stream, mut peer) = pair().await;
                    let flag = Arc::new(Flag::default());
                    {
                        let operation = async {
                            match way {
                                0 => drop(stream.recv().await),
                                1 => drop(stream.read(vec![0; 9]).await),
                                2 => drop(stream.read_exact(vec![0; 9]).await),
                                3 => drop(stream.write_all(vec![0; 50_000_000]).await),
                                _ => {
                                    drop(stream.write_all_vectored([vec![0; 50_000_000]]).await);
                                }
                            }
                        };
                        let mut operation = pin!(operation);
                        assert!(poll_once(operation.as_mut(), &flag).is_pending());
                        for _ in 0..laps {
                            lap().await;
                        }
                    }
                    within(Duration::from_secs(2), stream.close()).await.unwrap();
                    // Closed is closed: the peer sees the end after what was sent.
                    let _ = peer.read_to_end(&mut Vec::new());
                    drop(peer);
                    until(|| descriptors() == before).await;
                }
            }
        });
    });
}

#[test]
fn one_stream_is_read_and_written_by_two_tasks_at_once() {
    run(async {
        let (ours, theirs) = pair_of_ours().await;
        let (ours, theirs) = (Rc::new(ours), Rc::new(theirs));
        let len = 3_000_000;
        let mut tasks = Vec::new();
        for stream in [&ours, &theirs] {
            let (reader, writer) = (Rc::clone(stream), Rc::clone(stream));
            tasks.push(quoit::spawn(async move { read_to_end(&reader, 0, 0).await }));
            tasks.push(quoit::spawn(async move {
                let sent = writer.write_all(pattern(0, len)).await.unwrap().len() as u64;
                writer.shutdown(Shutdown::Write).unwrap();
                sent
            }));
        }
        for task in tasks {
            assert_eq!(task.await.unwrap(), len as u64);
        }
    });
}

#[test]
fn readers_of_one_stream_are_served_in_the_order_of_their_calls() {
    run(async {
        let (stream, mut peer) = pair().await;
        let stream = Rc::new(stream);
        let readers: Vec<_> = (0..10)
            .map(|reader| {
                let stream = Rc::clone(&stream);
                quoit::spawn(async move {
                    if reader % 2 == 0 {
                        stream.read_exact([0; 4]).await.unwrap()
                    } else {
                        let bytes = stream.read([0; 4]).await.unwrap().1;
                        assert_ne!(bytes[3], 0, "four bytes are sent at once");
                        bytes
                    }
                })
            })
            .collect();
        lap().await;
        for number in 0..10_u8 {
            peer.write_all(&[number, 1, 2, 3]).unwrap();
            lap().await;
        }
        for (number, reader) in readers.into_iter().enumerate() {
            assert_eq!(reader.await.unwrap(), [number as u8, 1, 2, 3]);
        }
    });
}

#[test]
fn concurrent_writes_never_interleave_and_keep_their_order() {
    run(async {
        let (stream, mut peer) = pair().await;
        stream.set_send_buffer_size(8192).unwrap();
        let stream = Rc::new(stream);
        let len = 200_000;
        for writer in 0..8_u8 {
            let stream = Rc::clone(&stream);
            drop(quoit::spawn(async move {
                if writer % 2 == 0 {
                    stream.write_all(vec![writer; len]).await.unwrap();
                } else {
                    let bufs: Vec<_> = (0..len / 100).map(|_| vec![writer; 100]).collect();
                    stream.write_all_vectored(bufs).await.unwrap();
                }
            }));
        }
        let reader = thread::spawn(move || {
            let mut all = vec![0; 8 * len];
            peer.read_exact(&mut all).unwrap();
            all
        });
        let all = join(reader).await;
        for (writer, bytes) in all.chunks(len).enumerate() {
            assert!(bytes.iter().all(|byte| *byte == writer as u8), "writer {writer}");
        }
    });
}

#[test]
fn a_reader_that_pauses_stops_the_receive_and_then_gets_every_byte() {
    isolated(|| {
        ledger(async || {
            let (stream, peer) = pair().await;
            let len = scaled(64 << 20, 16 << 20);
            // `recv` starts a receive that goes on when its future is gone.
            assert!(poll_once(pin!(stream.recv()), &Arc::new(Flag::default())).is_pending());
            lap().await;
            // Made beforehand: a sanitizer keeps what was freed, and would count it here.
            let bytes = pattern(0, len);
            let before = anonymous();
            let writer = writes_in_large_pieces(peer, bytes);
            let most = PAUSED_READER_LEASES.get();
            for _ in 0..30 {
                sleep(Duration::from_millis(10)).await;
                let leases = quoit::runtime::stats().leases as usize;
                assert!(leases <= most, "{leases} leases wait for a reader that does not read");
            }
            assert!(!writer.is_finished(), "the peer was not stopped");
            let grown = anonymous().saturating_sub(before);
            let most = if is_instrumented() { 8 << 20 } else { 4 << 20 };
            assert!(grown < most, "it took {grown} bytes for nobody");
            assert_eq!(read_to_end(&stream, 0, 0).await, len as u64);
            join(writer).await;
        });
    });
}

/// As `writes`, with less work of its own.
fn writes_in_large_pieces(mut peer: std::net::TcpStream, bytes: Vec<u8>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for piece in bytes.chunks(1 << 16) {
            peer.write_all(piece).unwrap();
        }
    })
}

#[test]
fn when_every_lease_is_held_receives_use_the_heap_and_lose_nothing() {
    isolated(|| {
        ledger(async || {
            let len = 24 << 20;
            let mut held: Vec<PooledBuf> = Vec::new();
            // One connection is leased an eighth at most.
            for connection in 0..8 {
                let (stream, peer) = pair().await;
                let bytes = pattern(connection * (len / 8) as u64, len / 8);
                let writer = writes_in_large_pieces(peer, bytes);
                while let Some(bytes) = stream.recv().await.unwrap() {
                    held.push(bytes);
                }
                join(writer).await;
            }
            let leases = held.iter().filter(|bytes| bytes.is_lease()).count();
            assert_eq!(leases, 3584, "the pool grew to its end, and kept an eighth");
            let stats = quoit::runtime::stats();
            assert_eq!(stats.heap_receives as usize, held.len() - leases);
            assert!(held.len() > 4096 && stats.starved > 0);
            // Others are served as well, while these hold everything.
            for way in 0..WAYS_TO_READ {
                let (other, peer) = pair().await;
                let writer = writes(peer, way as u64, 100_000);
                assert_eq!(read_to_end(&other, way, 5000).await, 100_000);
                join(writer).await;
            }
            let mut oracle = Oracle::default();
            held.iter().for_each(|bytes| oracle.take(bytes));
            assert_eq!(oracle.0, len as u64);
            drop(held);
            // And when they are home, they are leased again.
            let (other, mut peer) = pair().await;
            let mut leased = false;
            for _ in 0..3 {
                peer.write_all(b"again").unwrap();
                leased |= other.recv().await.unwrap().unwrap().is_lease();
            }
            assert!(leased);
        });
    });
}

#[test]
fn a_lease_may_outlive_its_stream_and_its_runtime() {
    let bytes = run(async {
        let (stream, mut peer) = pair().await;
        peer.write_all(b"outlives").unwrap();
        stream.recv().await.unwrap().unwrap()
    });
    assert_eq!(&*bytes, b"outlives");
}

#[test]
fn a_write_that_goes_out_in_part_at_once_goes_on() {
    on_every_driver(async || {
        for room in [4096, 16 << 10, 64 << 10] {
            let (stream, peer) = pair_of_ours().await;
            stream.set_send_buffer_size(room).unwrap();
            let mut sent = 0;
            // The one answer of a lap is that of the clock, and the write is all that follows.
            let writer = async {
                for _ in 0..600 {
                    sleep(Duration::from_micros(10)).await;
                    let bytes = pattern(sent, 15_000);
                    sent += 15_000;
                    stream.write_all(bytes).await.unwrap();
                }
                stream.shutdown(Shutdown::Write).unwrap();
            };
            let reader = async {
                // Until then the socket fills up.
                sleep(Duration::from_millis(20)).await;
                take_pattern(&peer).await
            };
            let ((), received) = quoit::join!(writer, reader);
            assert_eq!(received, 600 * 15_000);
        }
    });
}

#[test]
fn a_writer_that_never_has_to_wait_leaves_the_others_their_turns() {
    const WRITES: usize = 2_000;
    on_every_driver(async || {
        let (ours, peer) = pair_of_ours().await;
        let writes = quoit::spawn(async move {
            for _ in 0..WRITES {
                ours.write_all("x").await.unwrap();
            }
        });
        let reads = quoit::spawn(async move {
            let mut bytes = Vec::new();
            while let Some(more) = peer.recv().await.unwrap() {
                bytes.extend_from_slice(&more);
            }
            bytes
        });
        let mut turns = 0;
        while !writes.is_finished() {
            quoit::task::yield_now().await;
            turns += 1;
        }
        // 32 are made at once in a lap, and then one more is handed over.
        assert!(turns >= WRITES / 33, "{turns} turns during {WRITES} writes");
        writes.await.unwrap();
        assert_eq!(reads.await.unwrap(), [b'x'; WRITES]);
    });
}
