//! Unix sockets: streams, datagrams and packets, on every kernel.
//!
//! What asserts that something is closed is isolated: a process that another test starts has all that
//! is open here, until it executes its program.

use std::cell::Cell;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use quoit::net::{
    MessageTruncated, UnixDatagram, UnixListener, UnixSeqpacket, UnixSeqpacketListener, UnixStream,
};
use quoit::runtime::{self, Builder};
use quoit::time::sleep;

use crate::loopback::{Flag, Oracle, Random, lap, pattern, poll_once, scaled, within};
use crate::quarantine::{self, QuarantineBuf};
use crate::support::{Ledger, is_root, isolated, on_every_driver};

static MADE: AtomicUsize = AtomicUsize::new(0);

/// A name that nothing else has.
pub(crate) fn unique() -> String {
    format!("quoit-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed))
}

/// A path where nothing is; what is made there goes with its owner.
pub(crate) struct Place(PathBuf);

impl Place {
    pub(crate) fn new() -> Self {
        Place(std::env::temp_dir().join(unique()))
    }
}

impl AsRef<Path> for Place {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// An abstract name that nothing else has.
fn name() -> SocketAddr {
    SocketAddr::from_abstract_name(unique()).unwrap()
}

/// Nothing may take as long.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    within(Duration::from_secs(10), future).await
}

/// Polls `operation` once, lets so many laps go by, and drops it, whatever has come; `None` as the
/// number of laps awaits it.
async fn drop_after<F: Future>(operation: F, laps: Option<usize>) -> Option<F::Output> {
    let mut operation = pin!(operation);
    let Some(laps) = laps else { return Some(operation.await) };
    if let Poll::Ready(output) = poll_once(operation.as_mut(), &Arc::new(Flag::default())) {
        return Some(output);
    }
    for _ in 0..laps {
        lap().await;
    }
    None
}

fn moment(random: &mut Random) -> Option<usize> {
    random.below(5).checked_sub(1)
}

// ---- Streams ----

#[test]
fn bytes_pass_by_every_way_in_and_out() {
    on_every_driver(async || {
        let (one, other) = UnixStream::pair().unwrap();
        assert_eq!(one.write("ab").await.unwrap().0, 2);
        one.write_all(b"cd".to_vec()).await.unwrap();
        assert_eq!(one.write_vectored(["e", "f"]).await.unwrap().0, 2);
        one.write_all_vectored(vec![vec![b'g'; 1], vec![b'h'; 1]]).await.unwrap();
        assert_eq!(one.bytes_sent(), 8);
        let buf = soon(other.read_exact(vec![0; 2])).await.unwrap();
        assert_eq!(buf, b"ab");
        let mut buf = Vec::with_capacity(2);
        buf.push(b'>');
        assert_eq!(soon(other.append(buf)).await.unwrap(), (1, b">c".to_vec()));
        assert_eq!(soon(other.read(vec![0; 1])).await.unwrap(), (1, b"d".to_vec()));
        let (count, bufs) = soon(other.read_vectored([[0; 1], [0; 1]])).await.unwrap();
        let mut all = bufs.as_flattened()[..count].to_vec();
        one.shutdown(Shutdown::Write).unwrap();
        while let Some(bytes) = soon(other.recv()).await.unwrap() {
            all.extend_from_slice(&bytes);
        }
        assert_eq!(all, b"efgh");
        let failed = one.write("x").await.unwrap_err();
        assert_eq!((failed.kind(), failed.buf), (ErrorKind::BrokenPipe, "x"));
        other.close().await.unwrap();
        one.close().await.unwrap();
    });
}

#[test]
fn much_more_than_a_socket_holds_passes_both_ways_at_once() {
    on_every_driver(async || {
        let (one, other) = UnixStream::pair().unwrap();
        let (one, other) = (Rc::new(one), Rc::new(other));
        const LEN: usize = 600_000;
        let mut ends = Vec::new();
        for (end, start) in [(&one, 0), (&other, 1 << 32)] {
            let (writer, reader) = (Rc::clone(end), Rc::clone(end));
            ends.push(quoit::spawn(async move {
                writer.write_all(pattern(start, LEN)).await.unwrap();
            }));
            ends.push(quoit::spawn(async move {
                let theirs = (1 << 32) - start;
                let mut oracle = Oracle(theirs);
                while oracle.0 < theirs + LEN as u64 {
                    oracle.take(&reader.recv().await.unwrap().unwrap());
                }
            }));
        }
        for end in ends {
            soon(end).await.unwrap();
        }
        assert_eq!((one.bytes_sent(), other.bytes_sent()), (LEN as u64, LEN as u64));
    });
}

#[test]
fn a_peer_that_is_gone_is_an_end_and_then_a_broken_pipe() {
    isolated(|| {
        on_every_driver(async || {
            let (one, other) = UnixStream::pair().unwrap();
            one.write_all("last").await.unwrap();
            one.close().await.unwrap();
            assert_eq!(&soon(other.recv()).await.unwrap().unwrap()[..], b"last");
            assert!(soon(other.recv()).await.unwrap().is_none());
            let failed = other.write_all("x").await.unwrap_err();
            assert_eq!(failed.kind(), ErrorKind::BrokenPipe);
        });
    });
}

#[test]
fn a_dropped_read_of_any_kind_gives_its_bytes_to_the_next() {
    isolated(|| {
        let ledger = Ledger::open();
        on_every_driver(async || {
            let (one, other) = UnixStream::pair().unwrap();
            let len = scaled(4096, 64) * 100;
            let writer = quoit::spawn(async move {
                let (mut random, mut sent) = (Random::new(3), 0);
                while sent < len {
                    let piece = random.size(400).min(len - sent);
                    one.write_all(QuarantineBuf::of(&pattern(sent as u64, piece))).await.unwrap();
                    sent += piece;
                    for _ in 0..random.below(3) {
                        lap().await;
                    }
                }
            });
            let (mut random, mut oracle) = (Random::new(4), Oracle::default());
            while oracle.0 < len as u64 {
                let (moment, left) = (moment(&mut random), len - oracle.0 as usize);
                let room = random.size(300).min(left);
                match random.below(4) {
                    0 => {
                        let received = drop_after(other.recv(), moment).await;
                        received.into_iter().for_each(|it| oracle.take(&it.unwrap().unwrap()));
                    }
                    1 => {
                        let read = other.read(QuarantineBuf::new(room));
                        let read = drop_after(read, moment).await;
                        read.into_iter().for_each(|read| oracle.take(&read.unwrap().1));
                    }
                    2 => {
                        let read = other.append(QuarantineBuf::new(room));
                        let read = drop_after(read, moment).await;
                        read.into_iter().for_each(|read| oracle.take(&read.unwrap().1));
                    }
                    _ => {
                        let read = other.read_exact(QuarantineBuf::new(room));
                        let read = drop_after(read, moment).await;
                        read.into_iter().for_each(|read| oracle.take(&read.unwrap()));
                    }
                }
            }
            soon(writer).await.unwrap();
        });
        ledger.close();
        assert_eq!(quarantine::violations(), 0);
    });
}

#[test]
fn a_stream_of_the_standard_library_can_be_taken_over() {
    crate::loopback::run(async {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let ours = UnixStream::from_std(ours).unwrap();
        io::Write::write_all(&mut &theirs, b"hello").unwrap();
        assert_eq!(ours.read_exact(vec![0; 5]).await.unwrap(), b"hello");
    });
}

// ---- Listeners ----

#[test]
fn connections_are_accepted_at_a_path_and_say_who_they_are_from() {
    isolated(|| {
        on_every_driver(async || {
            let place = Place::new();
            let listener = UnixListener::bind(&place).await.unwrap();
            assert_eq!(listener.local_addr().unwrap().as_pathname(), Some(place.as_ref()));
            let client = quoit::spawn(UnixStream::connect(place.0.clone()));
            let (server, peer) = soon(listener.accept()).await.unwrap();
            let client = soon(client).await.unwrap().unwrap();
            assert!(peer.is_unnamed());
            assert_eq!(client.peer_addr().unwrap().as_pathname(), Some(place.as_ref()));
            assert_eq!(server.local_addr().unwrap().as_pathname(), Some(place.as_ref()));
            assert!(client.local_addr().unwrap().is_unnamed());
            client.write_all("hello").await.unwrap();
            assert_eq!(soon(server.read_exact(vec![0; 5])).await.unwrap(), b"hello");
            listener.close().await.unwrap();
            let refused = UnixStream::connect(&place).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
            let missing = UnixStream::connect(Place::new()).await.unwrap_err();
            assert_eq!(missing.kind(), ErrorKind::NotFound);
        });
    });
}

#[test]
fn an_abstract_name_may_hold_zeros_and_is_free_when_its_listener_is_gone() {
    isolated(|| {
        on_every_driver(async || {
            let zeros = [b"\0a\0\0b\0", unique().as_bytes()].concat();
            for name in [zeros, [unique().as_bytes(), &[b'n'; 120]].concat()[..107].to_vec()] {
                let address = SocketAddr::from_abstract_name(&name).unwrap();
                for _ in 0..3 {
                    let listener = UnixListener::bind_addr(&address).await.unwrap();
                    let client = quoit::spawn(UnixStream::connect_addr(address.clone()));
                    let (server, _) = soon(listener.accept()).await.unwrap();
                    let client = soon(client).await.unwrap().unwrap();
                    assert_eq!(client.peer_addr().unwrap().as_abstract_name(), Some(&name[..]));
                    drop((server, client));
                    // The next bind waits for the descriptor that is about to be closed.
                    drop(listener);
                }
                UnixListener::bind_addr(&address).await.unwrap().close().await.unwrap();
                let refused = UnixStream::connect_addr(address).await;
                assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
            }
        });
    });
}

#[test]
fn a_path_has_at_most_107_bytes() {
    on_every_driver(async || {
        for len in [107, 108, 109, 4000] {
            let start = Place::new();
            let path = start.0.to_str().unwrap();
            let place = Place(format!("{path}{}", "p".repeat(len - path.len())).into());
            let bound = UnixListener::bind(&place).await;
            if len == 107 {
                let listener = bound.unwrap();
                let address = listener.local_addr().unwrap();
                assert_eq!(address.as_pathname(), Some(place.as_ref()));
                assert!(UnixStream::connect(&place).await.is_ok());
                continue;
            }
            let error = bound.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains("107 bytes at most"), "{error}");
            let error = UnixStream::connect(&place).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            let failed = UnixDatagram::unbound().unwrap().send_to("x", &place).await.unwrap_err();
            assert_eq!((failed.kind(), failed.buf), (ErrorKind::InvalidInput, "x"));
        }
        let unnamed = SocketAddr::from_pathname("").unwrap();
        let error = UnixListener::bind_addr(&unnamed).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn a_stale_file_is_not_replaced_in_silence() {
    isolated(|| {
        on_every_driver(async || {
            let place = Place::new();
            let listener = UnixListener::bind(&place).await.unwrap();
            let again = UnixListener::bind(&place).await.unwrap_err();
            assert_eq!(again.kind(), ErrorKind::AddrInUse);
            assert!(again.to_string().contains("this core listens there already"), "{again}");
            listener.close().await.unwrap();
            let stale = UnixListener::bind(&place).await.unwrap_err();
            assert_eq!(stale.kind(), ErrorKind::AddrInUse);
            if runtime::driver() != "simulator" {
                assert!(stale.to_string().contains("replace_stale(true)"), "{stale}");
            }
            let options = UnixListener::options().replace_stale(true);
            let listener = options.bind(&place).await.unwrap();
            // A socket of another kind has it: that is no stale file.
            let taken = options.bind_seqpacket(&place).await.unwrap_err();
            assert_eq!(taken.kind(), ErrorKind::AddrInUse);
            let client = UnixStream::connect(&place).await.unwrap();
            drop((client, listener));
        });
    });
}

#[test]
fn a_file_that_is_removed_on_drop_is_the_one_that_was_made() {
    isolated(|| {
        on_every_driver(async || {
            let place = Place::new();
            let options = UnixListener::options().remove_on_drop(true).replace_stale(true);
            for _ in 0..3 {
                let listener = options.bind(&place).await.unwrap();
                drop(listener);
                // At once, though the socket itself is closed a lap later.
                let missing = UnixStream::connect(&place).await.unwrap_err();
                assert_eq!(missing.kind(), ErrorKind::NotFound);
            }
            let listener = options.bind(&place).await.unwrap();
            listener.close().await.unwrap();
            let datagram = UnixDatagram::bind(&place).unwrap();
            assert!(options.bind(&place).await.is_err(), "somebody has it bound");
            drop(datagram);
        });
    });
}

#[test]
fn the_file_of_somebody_else_is_left_alone() {
    crate::loopback::run(async {
        let place = Place::new();
        let options = UnixListener::options().remove_on_drop(true).replace_stale(true);
        let listener = options.bind(&place).await.unwrap();
        std::fs::remove_file(&place).unwrap();
        let theirs = std::os::unix::net::UnixListener::bind(&place).unwrap();
        drop(listener);
        let there = UnixStream::connect(&place).await.unwrap();
        assert!(theirs.accept().is_ok());
        drop((there, theirs));
        std::fs::remove_file(&place).unwrap();
        std::fs::write(&place, "text").unwrap();
        let error = options.bind(&place).await.unwrap_err();
        assert!(error.to_string().contains("no socket"), "{error}");
        assert_eq!(std::fs::read(&place).unwrap(), b"text");
    });
}

#[test]
fn a_dropped_accept_gives_its_connection_to_the_next() {
    isolated(|| {
        let ledger = Ledger::open();
        on_every_driver(async || {
            let (address, rounds) = (name(), scaled(2048, 64));
            let listener = UnixListener::bind_addr(&address).await.unwrap();
            let clients = quoit::spawn(async move {
                let mut random = Random::new(5);
                for number in 0..rounds as u32 {
                    let client = UnixStream::connect_addr(address.clone()).await.unwrap();
                    client.write_all(number.to_le_bytes()).await.unwrap();
                    for _ in 0..random.below(3) {
                        lap().await;
                    }
                }
            });
            let (mut random, mut next) = (Random::new(6), 0);
            while next < rounds as u32 {
                let moment = moment(&mut random);
                if let Some(accepted) = drop_after(listener.accept(), moment).await {
                    let number = soon(accepted.unwrap().0.read_exact([0; 4])).await.unwrap();
                    assert_eq!(u32::from_le_bytes(number), next, "lost, or out of turn");
                    next += 1;
                }
            }
            soon(clients).await.unwrap();
        });
        ledger.close();
    });
}

#[test]
fn a_full_backlog_has_clients_wait_and_refuses_none() {
    on_every_driver(async || {
        let place = Place::new();
        let listener = UnixListener::options().backlog(1).bind(&place).await.unwrap();
        let done = Rc::new(Cell::new(0));
        let clients: Vec<_> = (0..6)
            .map(|_| {
                let (path, done) = (place.0.clone(), Rc::clone(&done));
                quoit::spawn(async move {
                    let client = UnixStream::connect(path).await.unwrap();
                    done.set(done.get() + 1);
                    assert_eq!(client.read_exact(vec![0; 1]).await.unwrap(), b"x");
                })
            })
            .collect();
        sleep(Duration::from_millis(20)).await;
        assert!(done.get() < 6, "a backlog of 1 held {} connections", done.get());
        {
            // One that waits is given up.
            let given_up = pin!(UnixStream::connect(&place));
            assert!(poll_once(given_up, &Arc::new(Flag::default())).is_pending());
            lap().await;
        }
        // One that was given up may be accepted too.
        let serving = quoit::spawn(async move {
            let mut open = Vec::new();
            loop {
                let (server, _) = listener.accept().await.unwrap();
                if server.write_all("x").await.is_ok() {
                    open.push(server);
                }
            }
        });
        for client in clients {
            soon(client).await.unwrap();
        }
        serving.abort();
    });
}

#[test]
fn a_listener_that_closes_while_clients_connect_ends_each_of_them() {
    isolated(|| {
        let ledger = Ledger::open();
        on_every_driver(async || {
            for round in 0..8 {
                let address = name();
                let options = UnixListener::options().backlog(2);
                let listener = options.bind_addr(&address).await.unwrap();
                let clients: Vec<_> = (0..8)
                    .map(|_| {
                        let address = address.clone();
                        quoit::spawn(async move {
                            let client = UnixStream::connect_addr(address).await?;
                            client.read(vec![0; 1]).await?;
                            io::Result::Ok(())
                        })
                    })
                    .collect();
                for _ in 0..round {
                    lap().await;
                }
                if round % 2 == 0 {
                    drop(soon(listener.accept()).await.unwrap());
                }
                listener.close().await.unwrap();
                for client in clients {
                    // The end, a reset, or a refusal: each learns of it.
                    let ended = soon(client).await.unwrap();
                    let kinds = [ErrorKind::ConnectionReset, ErrorKind::ConnectionRefused];
                    assert!(ended.is_ok() || kinds.contains(&ended.unwrap_err().kind()));
                }
            }
        });
        ledger.close();
    });
}

#[test]
fn every_core_accepts_from_one_socket_and_the_last_one_removes_its_file() {
    isolated(|| {
        for driver in ["uring", "epoll"] {
            let ledger = Ledger::open();
            let place = Place::new();
            let (path, served) = (place.0.clone(), Arc::new(AtomicUsize::new(0)));
            let counts = Arc::clone(&served);
            const CLIENTS: usize = 32;
            let started = Builder::new().driver(driver.parse().unwrap()).cores(2).start_per_core(
                async move || {
                    let options = UnixListener::options().remove_on_drop(true);
                    let listener = options.bind(&path).await?;
                    let (path, is_first) = (path.clone(), runtime::core().index() == 0);
                    let clients = quoit::spawn(async move {
                        for _ in 0..if is_first { CLIENTS } else { 0 } {
                            let client = UnixStream::connect(&path).await?;
                            client.write_all("x").await?;
                            client.read(vec![0; 1]).await?;
                        }
                        io::Result::Ok(())
                    });
                    let serving = async {
                        while counts.load(Ordering::Relaxed) < CLIENTS {
                            let accepted = drop_late(listener.accept()).await;
                            if let Some(accepted) = accepted {
                                let (stream, _) = accepted?;
                                stream.read_exact(vec![0; 1]).await.map_err(io::Error::from)?;
                                counts.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                        io::Result::Ok(())
                    };
                    serving.await?;
                    clients.await.unwrap()
                },
            );
            started.unwrap();
            assert_eq!(served.load(Ordering::Relaxed), CLIENTS);
            assert!(!place.0.exists(), "the last core leaves the file behind");
            ledger.close();
        }
    });
}

/// Awaits `future` for some milliseconds.
async fn drop_late<T>(future: impl Future<Output = T>) -> Option<T> {
    quoit::time::timeout(Duration::from_millis(5), future).await.ok()
}

// ---- Datagrams ----

#[test]
fn datagrams_keep_their_boundaries_and_say_who_sent_them() {
    isolated(|| {
        on_every_driver(async || {
            let (here, there) = (Place::new(), name());
            let one = UnixDatagram::bind(&here).unwrap();
            let other = UnixDatagram::bind_addr(&there).unwrap();
            one.send_to_addr("first", &there).await.unwrap();
            one.send_to_addr("", &there).await.unwrap();
            UnixDatagram::unbound().unwrap().send_to_addr("unnamed", &there).await.unwrap();
            let ((count, from), buf) = soon(other.recv_from(vec![0; 64])).await.unwrap();
            assert_eq!((&buf[..count], from.as_pathname()), (&b"first"[..], Some(here.as_ref())));
            assert_eq!(soon(other.recv(Vec::with_capacity(9))).await.unwrap(), (0, Vec::new()));
            let ((count, from), buf) = soon(other.recv_from(vec![0; 64])).await.unwrap();
            assert!(from.is_unnamed() && &buf[..count] == b"unnamed");
            other.send_to("back", &here).await.unwrap();
            let ((count, from), buf) = soon(one.recv_from(QuarantineBuf::new(64))).await.unwrap();
            assert_eq!((count, &*buf), (4, &b"back"[..]));
            assert_eq!(from.as_abstract_name(), there.as_abstract_name());
            assert_eq!(one.local_addr().unwrap().as_pathname(), Some(here.as_ref()));
            assert_eq!(one.peer_addr().unwrap_err().kind(), ErrorKind::NotConnected);
            one.close().await.unwrap();
            let gone = other.send_to("x", &here).await.unwrap_err();
            assert_eq!((gone.kind(), gone.buf), (ErrorKind::ConnectionRefused, "x"));
            let missing = other.send_to("x", &Place::new()).await.unwrap_err();
            assert_eq!(missing.kind(), ErrorKind::NotFound);
        });
    });
}

#[test]
fn connected_datagrams_need_no_address() {
    isolated(|| {
        on_every_driver(async || {
            let place = Place::new();
            let server = UnixDatagram::bind(&place).unwrap();
            let client = UnixDatagram::unbound().unwrap();
            assert_eq!(client.send("x").await.unwrap_err().kind(), ErrorKind::NotConnected);
            client.connect(&place).await.unwrap();
            assert_eq!(client.peer_addr().unwrap().as_pathname(), Some(place.as_ref()));
            client.send("hello").await.unwrap();
            assert_eq!(&soon(server.recv(vec![0; 9])).await.unwrap().1[..5], b"hello");
            let (one, other) = UnixDatagram::pair().unwrap();
            one.send("one").await.unwrap();
            other.send("other").await.unwrap();
            assert_eq!(soon(one.recv(vec![0; 9])).await.unwrap().0, 5);
            assert_eq!(soon(other.recv(vec![0; 9])).await.unwrap().0, 3);
            other.close().await.unwrap();
            assert_eq!(one.send("x").await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
            one.shutdown(Shutdown::Both).unwrap();
            assert_eq!(soon(one.recv(vec![0; 9])).await.unwrap().0, 0);
        });
    });
}

#[test]
fn a_message_that_is_cut_says_how_long_it_was() {
    on_every_driver(async || {
        let (one, other) = UnixDatagram::pair().unwrap();
        let (packets, there) = UnixSeqpacket::pair().unwrap();
        one.send(pattern(0, 1000)).await.unwrap();
        packets.send(pattern(0, 1000)).await.unwrap();
        let datagram = soon(other.recv(Vec::with_capacity(100))).await.unwrap_err();
        let packet = soon(there.recv(Vec::with_capacity(100))).await.unwrap_err();
        for failed in [datagram, packet] {
            assert_eq!((failed.kind(), failed.done), (ErrorKind::InvalidData, 100));
            assert_eq!(failed.buf, pattern(0, 100));
            let inner = failed.error.get_ref().unwrap().downcast_ref::<MessageTruncated>();
            assert_eq!(inner, Some(&MessageTruncated { len: 1000 }));
        }
        one.send("whole").await.unwrap();
        assert_eq!(soon(other.recv(vec![0; 5])).await.unwrap().0, 5);
        let empty = other.recv(Vec::new()).await.unwrap_err();
        assert_eq!(empty.kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn a_full_queue_has_senders_wait_and_those_to_others_pass() {
    on_every_driver(async || {
        let (full, free) = (name(), name());
        let slow = UnixDatagram::bind_addr(&full).unwrap();
        let quick = UnixDatagram::bind_addr(&free).unwrap();
        let sender = Rc::new(UnixDatagram::unbound().unwrap());
        let sent = Rc::new(Cell::new(0_u32));
        let task = {
            let (sender, sent, full) = (Rc::clone(&sender), Rc::clone(&sent), full.clone());
            quoit::spawn(async move {
                for number in 0..600_u32 {
                    sender.send_to_addr(number.to_le_bytes(), &full).await.unwrap();
                    sent.set(number + 1);
                }
            })
        };
        let mut before = u32::MAX;
        while sent.get() != before {
            before = sent.get();
            sleep(Duration::from_millis(5)).await;
        }
        assert!(before < 600, "the queue has no end");
        soon(sender.send_to_addr("x", &free)).await.unwrap();
        assert_eq!(soon(quick.recv(vec![0; 4])).await.unwrap().0, 1);
        for number in 0..600_u32 {
            let (_, buf) = soon(slow.recv([0; 4])).await.unwrap();
            assert_eq!(u32::from_le_bytes(buf), number);
        }
        soon(task).await.unwrap();
    });
}

#[test]
fn a_connected_sender_waits_for_room_and_sends_every_datagram_whole() {
    on_every_driver(async || {
        let address = name();
        let server = UnixDatagram::bind_addr(&address).unwrap();
        let client = UnixDatagram::unbound().unwrap();
        client.connect_addr(&address).await.unwrap();
        let (one, other) = UnixDatagram::pair().unwrap();
        for (sender, receiver) in [(client, server), (one, other)] {
            let task = quoit::spawn(async move {
                for number in 0..400_u32 {
                    sender.send(number.to_le_bytes().repeat(500)).await.unwrap();
                }
            });
            for number in 0..400_u32 {
                let (count, buf) = soon(receiver.recv(Vec::with_capacity(4000))).await.unwrap();
                assert_eq!((count, buf), (2000, number.to_le_bytes().repeat(500)));
            }
            soon(task).await.unwrap();
        }
    });
}

#[test]
fn a_send_that_waits_for_a_full_queue_can_be_dropped() {
    isolated(|| {
        let ledger = Ledger::open();
        on_every_driver(async || {
            let address = name();
            let slow = UnixDatagram::bind_addr(&address).unwrap();
            let sender = UnixDatagram::unbound().unwrap();
            let mut sent = 0_u32;
            loop {
                let send = sender.send_to_addr(sent.to_le_bytes(), &address);
                match quoit::time::timeout(Duration::from_millis(20), send).await {
                    Ok(result) => result.unwrap(),
                    Err(_) => break,
                };
                sent += 1;
            }
            for number in 0..sent {
                let (_, buf) = soon(slow.recv([0; 4])).await.unwrap();
                assert_eq!(u32::from_le_bytes(buf), number);
            }
        });
        ledger.close();
    });
}

#[test]
fn a_dropped_receive_gives_its_message_to_the_next() {
    isolated(|| {
        let ledger = Ledger::open();
        on_every_driver(async || {
            let rounds = scaled(2048, 64) as u32;
            let (one, other) = UnixDatagram::pair().unwrap();
            let (packets, there) = UnixSeqpacket::pair().unwrap();
            let sender = quoit::spawn(async move {
                let mut random = Random::new(7);
                for number in 0..rounds {
                    let bytes = [number.to_le_bytes(), [7; 4]].concat();
                    one.send(QuarantineBuf::of(&bytes)).await.unwrap();
                    packets.send(QuarantineBuf::of(&bytes)).await.unwrap();
                    for _ in 0..random.below(3) {
                        lap().await;
                    }
                }
            });
            let (mut random, mut next) = (Random::new(8), [0, 0]);
            while next != [rounds, rounds] {
                let (kind, moment) = (random.below(2), moment(&mut random));
                if next[kind] == rounds {
                    continue;
                }
                let buf = QuarantineBuf::new(64);
                let received = match (kind, random.below(3)) {
                    (0, 0) => drop_after(other.recv(buf), moment).await,
                    (0, 1) => {
                        let received = drop_after(other.recv_from(buf), moment).await;
                        received.map(|received| received.map(|((count, _), buf)| (count, buf)))
                    }
                    (0, _) => {
                        let received = drop_after(other.recv_with_fds(buf), moment).await;
                        received.map(|received| received.map(|(count, buf, _)| (count, buf)))
                    }
                    (_, 0) => {
                        let received = drop_after(there.recv_with_fds(buf), moment).await;
                        received.map(|received| received.map(|(count, buf, _)| (count, buf)))
                    }
                    _ => drop_after(there.recv(buf), moment).await,
                };
                if let Some(received) = received {
                    let (count, buf) = received.unwrap();
                    assert_eq!((count, &buf[..4]), (8, &next[kind].to_le_bytes()[..]));
                    next[kind] += 1;
                }
            }
            soon(sender).await.unwrap();
        });
        ledger.close();
        assert_eq!(quarantine::violations(), 0);
    });
}

// ---- Packets ----

#[test]
fn packets_keep_their_boundaries_and_end() {
    isolated(|| {
        on_every_driver(async || {
            let place = Place::new();
            let listener = UnixSeqpacketListener::bind(&place).await.unwrap();
            let client = quoit::spawn(UnixSeqpacket::connect(place.0.clone()));
            let (server, peer) = soon(listener.accept()).await.unwrap();
            let client = soon(client).await.unwrap().unwrap();
            assert!(peer.is_unnamed());
            assert_eq!(client.peer_addr().unwrap().as_pathname(), Some(place.as_ref()));
            for packet in ["one", "three", "x"] {
                client.send(packet).await.unwrap();
            }
            let refused = client.send("").await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidInput);
            client.shutdown(Shutdown::Write).unwrap();
            for packet in ["one", "three", "x", ""] {
                let (count, buf) = soon(server.recv(Vec::with_capacity(9))).await.unwrap();
                assert_eq!((count, &buf[..]), (packet.len(), packet.as_bytes()));
            }
            server.send("back").await.unwrap();
            assert_eq!(soon(client.recv(vec![0; 9])).await.unwrap().0, 4);
            client.close().await.unwrap();
            assert_eq!(server.send("x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
            listener.close().await.unwrap();
            let wrong = UnixStream::connect(&place).await.unwrap_err();
            assert_eq!(wrong.kind(), ErrorKind::ConnectionRefused);
        });
    });
}

#[test]
fn packets_stay_in_order_when_their_senders_wait_at_the_same_time() {
    on_every_driver(async || {
        let (one, other) = UnixSeqpacket::pair().unwrap();
        let one = Rc::new(one);
        let senders: Vec<_> = (0..400_u32)
            .map(|number| {
                let one = Rc::clone(&one);
                quoit::spawn(async move {
                    one.send(number.to_le_bytes().repeat(500)).await.unwrap();
                })
            })
            .collect();
        let mut seen = Vec::new();
        for _ in 0..400 {
            let (count, buf) = soon(other.recv(Vec::with_capacity(2000))).await.unwrap();
            assert_eq!(count, 2000);
            seen.push(u32::from_le_bytes(buf[..4].try_into().unwrap()));
        }
        for sender in senders {
            soon(sender).await.unwrap();
        }
        // The simulator runs tasks in another order; each number comes once in any case.
        if runtime::driver() == "simulator" {
            seen.sort_unstable();
        }
        assert!(seen.into_iter().eq(0..400));
    });
}

// ---- Who is there ----

#[test]
fn the_peer_is_known_by_its_process_and_user() {
    on_every_driver(async || {
        let (one, other) = UnixStream::pair().unwrap();
        let (packets, _there) = UnixSeqpacket::pair().unwrap();
        let credentials = one.peer_cred().unwrap();
        assert_eq!(credentials, other.peer_cred().unwrap());
        assert_eq!(credentials, packets.peer_cred().unwrap());
        if runtime::driver() == "simulator" {
            return;
        }
        assert_eq!(credentials.pid(), Some(std::process::id().cast_signed()));
        assert_eq!(credentials.uid() == 0, is_root());
        // SAFETY: the call takes no pointers.
        assert_eq!(credentials.gid(), unsafe { libc::getegid() });
        match one.peer_pidfd() {
            Ok(process) => {
                let info = format!("/proc/self/fdinfo/{}", process.as_raw_fd());
                let info = std::fs::read_to_string(info).unwrap();
                assert!(info.contains(&format!("Pid:\t{}", std::process::id())), "{info}");
            }
            Err(error) => {
                assert!(crate::support::kernel() < (6, 5), "{error}");
                assert_eq!(error.kind(), ErrorKind::Unsupported);
            }
        }
    });
}
