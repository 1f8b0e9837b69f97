//! Descriptors that travel with messages.

use std::fs::File;
use std::io::{ErrorKind, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use quoit::net::{UnixDatagram, UnixSeqpacket, UnixStream};

use crate::loopback::{
    Flag, Random, descriptors, lap, leave_descriptors, poll_once, scaled, set_descriptor_limit,
    until, within,
};
use crate::quarantine::{self, QuarantineBuf};
use crate::support::{Ledger, isolated, on_every_driver};

async fn soon<T>(future: impl Future<Output = T>) -> T {
    within(Duration::from_secs(10), future).await
}

/// The end of a pipe that is to be passed, and the one that tells when all copies of it are closed.
fn pipe() -> (OwnedFd, PipeReader) {
    let (reader, writer) = std::io::pipe().unwrap();
    (writer.into(), reader)
}

/// Whether a descriptor is the other end of that pipe, and the last.
fn is_last_end_of(mut reader: PipeReader, end: OwnedFd) -> bool {
    let mut end = File::from(end);
    std::io::Write::write_all(&mut end, b"x").unwrap();
    drop(end);
    let mut all = Vec::new();
    reader.read_to_end(&mut all).unwrap();
    all == b"x"
}

/// Whether all copies of the other end are closed.
fn is_closed(reader: &PipeReader) -> bool {
    let mut poll =
        libc::pollfd { fd: std::os::fd::AsRawFd::as_raw_fd(reader), events: 0, revents: 0 };
    // SAFETY: one entry, which lives until the call returns.
    assert!(unsafe { libc::poll(&raw mut poll, 1, 0) } >= 0);
    poll.revents & libc::POLLHUP != 0
}

fn is_closed_on_exec(fd: &OwnedFd) -> bool {
    let fd = std::os::fd::AsRawFd::as_raw_fd(fd);
    // SAFETY: the call takes no pointers.
    unsafe { libc::fcntl(fd, libc::F_GETFD) & libc::FD_CLOEXEC != 0 }
}

#[test]
fn a_descriptor_arrives_with_its_message_on_each_kind_of_socket() {
    isolated(|| {
        let ledger = Ledger::open();
        on_every_driver(async || {
            let (stream, there) = UnixStream::pair().unwrap();
            let (end, reader) = pipe();
            stream.send_with_fds("stream", &[end.as_fd()]).await.unwrap();
            drop(end);
            let (count, buf, mut fds) = soon(there.recv_with_fds(vec![0; 9])).await.unwrap();
            assert_eq!((&buf[..count], fds.len()), (&b"stream"[..], 1));
            assert!(is_closed_on_exec(&fds[0]));
            assert!(is_last_end_of(reader, fds.remove(0)));

            let (datagrams, there) = UnixDatagram::pair().unwrap();
            let (end, reader) = pipe();
            datagrams.send_with_fds("", &[end.as_fd()]).await.unwrap();
            drop(end);
            let (count, _, mut fds) = soon(there.recv_with_fds(vec![0; 9])).await.unwrap();
            assert_eq!((count, fds.len()), (0, 1));
            assert!(is_last_end_of(reader, fds.remove(0)));

            let (packets, there) = UnixSeqpacket::pair().unwrap();
            let (end, reader) = pipe();
            packets.send_with_fds("packet", &[end.as_fd(), end.as_fd()]).await.unwrap();
            drop(end);
            let (_, buf, mut fds) = soon(there.recv_with_fds(vec![0; 6])).await.unwrap();
            assert_eq!((&buf[..], fds.len()), (&b"packet"[..], 2));
            drop(fds.pop());
            assert!(is_last_end_of(reader, fds.remove(0)));
        });
        ledger.close();
    });
}

#[test]
fn as_many_as_the_kernel_passes_arrive_and_more_are_refused() {
    isolated(|| {
        let ledger = Ledger::open();
        on_every_driver(async || {
            let (one, other) = UnixStream::pair().unwrap();
            let null = File::open("/dev/null").unwrap();
            let fds: Vec<BorrowedFd<'_>> = (0..254).map(|_| null.as_fd()).collect();
            let refused = one.send_with_fds("x", &fds).await.unwrap_err();
            assert_eq!((refused.kind(), refused.buf), (ErrorKind::InvalidInput, "x"));
            let refused = one.send_with_fds("", &fds[..1]).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidInput);
            for count in [253, 0, 2] {
                one.send_with_fds("xyz", &fds[..count]).await.unwrap();
                let (len, _, fds) = soon(other.recv_with_fds(vec![0; 9])).await.unwrap();
                assert_eq!((len, fds.len()), (3, count));
            }
            assert_eq!(one.bytes_sent(), 9);
        });
        ledger.close();
    });
}

#[test]
fn a_long_write_sends_its_descriptors_once_and_with_its_first_byte() {
    on_every_driver(async || {
        let (one, other) = UnixStream::pair().unwrap();
        let (end, reader) = pipe();
        const LEN: usize = 1_000_000;
        let writer = quoit::spawn(async move {
            one.send_with_fds(vec![7; LEN], &[end.as_fd()]).await.unwrap();
            assert_eq!(one.bytes_sent(), LEN as u64);
        });
        let (mut count, buf, mut fds) = soon(other.recv_with_fds(vec![0; 5])).await.unwrap();
        assert_eq!((&buf[..count], fds.len()), (&[7; 5][..], 1));
        let mut buf = vec![0; 70_000];
        while count < LEN {
            let (more, fds);
            (more, buf, fds) = soon(other.recv_with_fds(buf)).await.unwrap();
            assert!(fds.is_empty() && more > 0);
            count += more;
        }
        soon(writer).await.unwrap();
        assert!(is_last_end_of(reader, fds.remove(0)));
    });
}

#[test]
fn bytes_that_a_plain_read_takes_come_without_their_descriptors() {
    isolated(|| {
        let ledger = Ledger::open();
        on_every_driver(async || {
            let (one, other) = UnixStream::pair().unwrap();
            for way in 0..3 {
                let (end, reader) = pipe();
                one.send_with_fds("plain", &[end.as_fd()]).await.unwrap();
                drop(end);
                match way {
                    0 => assert_eq!(soon(other.read(vec![0; 9])).await.unwrap().0, 5),
                    1 => drop(soon(other.read_exact(vec![0; 5])).await.unwrap()),
                    _ => assert_eq!(&soon(other.recv()).await.unwrap().unwrap()[..], b"plain"),
                }
                until(|| is_closed(&reader)).await;
            }
            let (datagrams, there) = UnixDatagram::pair().unwrap();
            let (end, reader) = pipe();
            datagrams.send_with_fds("plain", &[end.as_fd()]).await.unwrap();
            drop(end);
            assert_eq!(soon(there.recv(vec![0; 9])).await.unwrap().0, 5);
            until(|| is_closed(&reader)).await;
            // From here on, descriptors would be lost to the receive that `recv` has started.
            let refused = other.recv_with_fds(vec![0; 9]).await.unwrap_err();
            assert_eq!((refused.kind(), refused.buf.len()), (ErrorKind::InvalidInput, 9));
        });
        ledger.close();
    });
}

#[test]
fn what_is_not_received_is_closed_with_its_stream() {
    isolated(|| {
        let ledger = Ledger::open();
        on_every_driver(async || {
            for laps in 0..4 {
                let (one, other) = UnixStream::pair().unwrap();
                let (end, reader) = pipe();
                {
                    let receive = pin!(other.recv_with_fds(QuarantineBuf::new(64)));
                    let flag = Arc::new(Flag::default());
                    assert!(poll_once(receive, &flag).is_pending());
                    one.send_with_fds("x", &[end.as_fd()]).await.unwrap();
                    drop(end);
                    for _ in 0..laps {
                        lap().await;
                    }
                }
                lap().await;
                drop((one, other));
                until(|| is_closed(&reader)).await;
            }
        });
        ledger.close();
        assert_eq!(quarantine::violations(), 0);
    });
}

#[test]
fn a_dropped_receive_gives_its_bytes_and_descriptors_to_the_next() {
    isolated(|| {
        let ledger = Ledger::open();
        on_every_driver(async || {
            let rounds = scaled(1024, 64) as u32;
            let (one, other) = UnixStream::pair().unwrap();
            let sender = quoit::spawn(async move {
                let mut random = Random::new(1);
                for number in 0..rounds {
                    let null = File::open("/dev/null").unwrap();
                    let fds = vec![null.as_fd(); number as usize % 4];
                    one.send_with_fds(number.to_le_bytes(), &fds).await.unwrap();
                    for _ in 0..random.below(3) {
                        lap().await;
                    }
                }
            });
            let (mut random, mut bytes, mut fds) = (Random::new(2), Vec::new(), Vec::new());
            while bytes.len() < 4 * rounds as usize {
                let mut receive = pin!(other.recv_with_fds(QuarantineBuf::new(4)));
                let flag = Arc::new(Flag::default());
                let received = match poll_once(receive.as_mut(), &flag) {
                    std::task::Poll::Ready(received) => received,
                    _ if random.below(3) == 0 => soon(receive).await,
                    _ => {
                        for _ in 0..random.below(4) {
                            lap().await;
                        }
                        continue;
                    }
                };
                let (_, buf, came) = received.unwrap();
                fds.push((bytes.len(), came.len()));
                bytes.extend_from_slice(&buf);
            }
            soon(sender).await.unwrap();
            let numbers = bytes.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap()));
            assert!(numbers.eq(0..rounds));
            // Each came with the first byte of its message, and nothing came with others.
            let with_fds = |number: u32| (number as usize * 4, number as usize % 4);
            let expected = (0..rounds).map(with_fds).filter(|(_, count)| *count > 0);
            assert!(fds.into_iter().filter(|(_, count)| *count > 0).eq(expected));
        });
        ledger.close();
        assert_eq!(quarantine::violations(), 0);
    });
}

#[test]
fn descriptors_keep_their_place_among_writes_that_are_gathered() {
    /// More than any socket holds: whoever writes it keeps the turn, and the others stand in line.
    const STUCK: usize = 4 << 20;
    isolated(|| {
        let ledger = Ledger::open();
        on_every_driver(async || {
            let (one, other) = UnixStream::pair().unwrap();
            let (one, (end, reader)) = (Rc::new(one), pipe());
            let stream = one.clone();
            let mut ends = vec![quoit::spawn(async move {
                stream.write_all(vec![b'.'; STUCK]).await.unwrap();
            })];
            lap().await;
            let mut end = Some(end);
            for letter in b'a'..=b'g' {
                let stream = one.clone();
                let end = end.take_if(|_| letter == b'd');
                ends.push(quoit::spawn(async move {
                    match end {
                        Some(end) => drop(stream.send_with_fds([letter; 3], &[end.as_fd()]).await),
                        None => drop(stream.write_all([letter; 3]).await),
                    }
                }));
            }
            lap().await;
            let (mut bytes, mut came, mut buf) = (Vec::new(), Vec::new(), vec![0; 64 * 1024]);
            while bytes.len() < STUCK + 7 * 3 {
                let (count, back, fds) = soon(other.recv_with_fds(buf)).await.unwrap();
                bytes.extend_from_slice(&back[..count]);
                came.extend(fds.into_iter().map(|fd| (bytes.len(), fd)));
                buf = back;
            }
            assert!(bytes[..STUCK].iter().all(|byte| *byte == b'.'));
            assert_eq!(bytes[STUCK..].escape_ascii().to_string(), "aaabbbcccdddeeefffggg");
            // A read ends with what has descriptors along.
            let (at, fd) = came.pop().unwrap();
            assert_eq!((at, came.len()), (STUCK + 4 * 3, 0));
            for end in ends {
                soon(end).await.unwrap();
            }
            assert!(is_last_end_of(reader, fd));
        });
        ledger.close();
    });
}

#[test]
fn descriptors_of_a_dropped_receive_do_not_come_with_the_bytes_of_others() {
    isolated(|| {
        let ledger = Ledger::open();
        on_every_driver(async || {
            let (one, other) = UnixStream::pair().unwrap();
            let (end, reader) = pipe();
            let flag = Arc::new(Flag::default());
            {
                let receive = pin!(other.recv_with_fds(vec![0; 64]));
                assert!(poll_once(receive, &flag).is_pending());
                lap().await;
                one.send_with_fds("first", &[end.as_fd()]).await.unwrap();
                drop(end);
                until(|| flag.is_set()).await;
            }
            assert_eq!(soon(other.read(vec![0; 64])).await.unwrap().0, 5);
            one.write_all("second").await.unwrap();
            let (count, _, fds) = soon(other.recv_with_fds(vec![0; 64])).await.unwrap();
            assert_eq!((count, fds.len()), (6, 0));
            assert!(is_closed(&reader));
        });
        ledger.close();
    });
}

#[test]
fn a_process_without_room_for_descriptors_is_told_and_keeps_the_bytes() {
    isolated(|| {
        on_every_driver(async || {
            let (stream, there) = UnixStream::pair().unwrap();
            let (datagrams, end) = UnixDatagram::pair().unwrap();
            let null = File::open("/dev/null").unwrap();
            let fds = [null.as_fd(); 3];
            stream.send_with_fds("bytes", &fds).await.unwrap();
            datagrams.send_with_fds("bytes", &fds).await.unwrap();
            let open = descriptors();
            leave_descriptors(1);
            let cut = soon(there.recv_with_fds(vec![0; 9])).await.unwrap_err();
            let also_cut = soon(end.recv_with_fds(vec![0; 9])).await.unwrap_err();
            set_descriptor_limit(1024);
            for failed in [cut, also_cut] {
                assert_eq!((failed.done, &failed.buf[..5]), (5, &b"bytes"[..]));
                assert!(failed.to_string().contains("RLIMIT_NOFILE"), "{failed}");
            }
            assert_eq!(descriptors(), open, "those that came are closed");
        });
    });
}

#[test]
fn messages_in_a_steady_state_allocate_nothing() {
    // One byte and one answer, again and again: the envelopes are used anew.
    crate::loopback::run(async {
        let (one, other) = UnixSeqpacket::pair().unwrap();
        let mut buf = Some(vec![0; 16]);
        let mut ping = async || {
            let sent = one.send(buf.take().unwrap()).await.unwrap();
            buf = Some(other.recv(sent).await.unwrap().1);
        };
        for _ in 0..8 {
            ping().await;
        }
        let before = crate::support_alloc::allocations();
        for _ in 0..100 {
            ping().await;
        }
        assert_eq!(crate::support_alloc::allocations(), before);
    });
}
