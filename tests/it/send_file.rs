//! Sending files: every byte in its order, nothing waits, and a peer that has gone is an error.

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use quoit::fs::File;
use quoit::net::{TcpListener, TcpStream, UnixStream};
use quoit::runtime::stats;
use quoit::sim::{Faults, Sim, explore};
use quoit::time::{sleep, timeout};

use crate::fs::Scratch;
use crate::loopback::{
    Flag, Oracle, isolated, ledger, pair_of_ours, pattern, poll_once, run, take_pattern, within,
};
use crate::support::{kernel, on_every_driver};

/// A file of the driver's own with the pattern in it.
async fn file_of(scratch: &Scratch, len: usize) -> File {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(true);
    let file = options.open(scratch.path("file")).await.unwrap();
    file.write_all_at(pattern(0, len), 0).await.unwrap();
    file
}

/// Reads to the end.
async fn all_of(peer: &TcpStream) -> Vec<u8> {
    let mut came = Vec::new();
    while let Some(bytes) = peer.recv().await.unwrap() {
        came.extend_from_slice(&bytes);
    }
    came
}

/// Two streams that are connected, with little room on the way.
async fn narrow_pair() -> (TcpStream, TcpStream) {
    let (stream, peer) = pair_of_ours().await;
    stream.set_send_buffer_size(20_000).unwrap();
    peer.set_recv_buffer_size(20_000).unwrap();
    (stream, peer)
}

/// Has `stream` send until it is stuck, and gives up.
async fn is_stuck_with(stream: &TcpStream, file: &File) {
    let mut sending = pin!(stream.send_file(file, ..));
    let flag = Arc::new(Flag::default());
    for _ in 0..10 {
        assert!(poll_once(sending.as_mut(), &flag).is_pending());
        sleep(Duration::from_millis(2)).await;
    }
}

#[test]
fn a_file_comes_whole_between_the_writes_around_it() {
    on_every_driver(async || {
        const LEN: usize = 700_001;
        let scratch = Scratch::new();
        let file = file_of(&scratch, LEN).await;
        let (stream, peer) = narrow_pair().await;
        let sending = async {
            let (head, sent, tail) = quoit::join!(
                stream.write_all("head"),
                stream.send_file(&file, ..),
                stream.write_all("tail"),
            );
            assert_eq!((head.unwrap(), sent.unwrap(), tail.unwrap()), ("head", LEN as u64, "tail"));
            assert_eq!(stream.bytes_sent(), LEN as u64 + 8);
            stream.shutdown(Shutdown::Write).unwrap();
        };
        let ((), came) = quoit::join!(sending, all_of(&peer));
        assert_eq!(came.len(), LEN + 8);
        assert_eq!((&came[..4], &came[LEN + 4..]), (&b"head"[..], &b"tail"[..]));
        assert!(came[4..LEN + 4] == pattern(0, LEN));
    });
}

#[test]
fn a_range_is_what_there_is_of_it() {
    on_every_driver(async || {
        let scratch = Scratch::new();
        let file = file_of(&scratch, 10_000).await;
        let (stream, peer) = pair_of_ours().await;
        assert_eq!(stream.send_file(&file, 5..8).await.unwrap(), 3);
        assert_eq!(stream.send_file(&file, 9_998..).await.unwrap(), 2);
        assert_eq!(stream.send_file(&file, ..=1).await.unwrap(), 2);
        assert_eq!(stream.send_file(&file, 9_990..20_000).await.unwrap(), 10);
        let reversed = std::ops::Range { start: 8, end: 5 };
        for empty in [7..7, reversed, 10_000..10_001, 50_000..60_000] {
            assert_eq!(stream.send_file(&file, empty).await.unwrap(), 0);
        }
        let error = stream.send_file(&file, 1 << 63..).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let expected = [5..8, 9_998..10_000, 0..2, 9_990..10_000];
        let expected =
            expected.map(|range| pattern(range.start, (range.end - range.start) as usize));
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(all_of(&peer).await, expected.concat());
    });
}

#[test]
fn a_file_that_must_not_be_read_is_an_error_and_the_stream_goes_on() {
    on_every_driver(async || {
        let scratch = Scratch::new();
        drop(file_of(&scratch, 100).await);
        let file = File::options().write(true).open(scratch.path("file")).await.unwrap();
        let (stream, peer) = pair_of_ours().await;
        let error = stream.send_file(&file, ..).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
        stream.write_all("on").await.unwrap();
        assert_eq!(peer.read_exact([0; 2]).await.unwrap(), *b"on");
    });
}

#[test]
fn one_that_is_dropped_has_sent_a_part_and_the_next_write_follows_it() {
    on_every_driver(async || {
        let scratch = Scratch::new();
        let file = file_of(&scratch, 2_000_000).await;
        let (stream, peer) = narrow_pair().await;
        is_stuck_with(&stream, &file).await;
        let writing = async {
            stream.write_all("next").await.unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
        };
        let ((), came) = quoit::join!(writing, all_of(&peer));
        let sent = came.len() - 4;
        assert_eq!(stream.bytes_sent(), sent as u64 + 4);
        assert!((1..2_000_000).contains(&sent), "{sent}");
        assert_eq!(&came[sent..], b"next");
        assert!(came[..sent] == pattern(0, sent));
    });
}

#[test]
fn a_deadline_ends_it_and_also_its_wait_for_the_turn() {
    on_every_driver(async || {
        let scratch = Scratch::new();
        let file = file_of(&scratch, 2_000_000).await;
        let (stream, peer) = narrow_pair().await;
        let patience = Duration::from_millis(20);
        let first = timeout(patience, stream.send_file(&file, ..));
        let second = timeout(patience, stream.send_file(&file, ..));
        let (first, second) = quoit::join!(first, second);
        assert!(first.is_err() && second.is_err());
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(take_pattern(&peer).await, stream.bytes_sent());
    });
}

#[test]
fn a_peer_that_does_not_read_keeps_nobody_else_waiting() {
    on_every_driver(async || {
        let scratch = Scratch::new();
        let file = Rc::new(file_of(&scratch, 1_500_000).await);
        let (stream, peer) = narrow_pair().await;
        let shared = Rc::clone(&file);
        let stuck = quoit::spawn(async move { stream.send_file(&shared, ..).await });
        sleep(Duration::from_millis(5)).await;
        assert!(!stuck.is_finished());
        for _ in 0..5 {
            let (stream, peer) = pair_of_ours().await;
            let sending = async {
                assert_eq!(stream.send_file(&file, ..500_000).await.unwrap(), 500_000);
                stream.shutdown(Shutdown::Write).unwrap();
            };
            let ((), came) = quoit::join!(sending, take_pattern(&peer));
            assert_eq!(came, 500_000);
        }
        let came = take_pattern(&peer).await;
        assert_eq!((came, stuck.await.unwrap().unwrap()), (1_500_000, 1_500_000));
    });
}

#[test]
fn a_unix_stream_sends_files_as_well() {
    on_every_driver(async || {
        let scratch = Scratch::new();
        let file = file_of(&scratch, 400_000).await;
        let (here, there) = UnixStream::pair().unwrap();
        let sending = here.send_file(&file, 1..);
        let reading = there.read_exact(vec![0; 399_999]);
        let (sent, came) = quoit::join!(sending, reading);
        assert_eq!(sent.unwrap(), 399_999);
        assert!(came.unwrap() == pattern(1, 399_999));
    });
}

/// Whether the kernel and the file system say what is in memory.
fn tells_what_is_cached(file: BorrowedFd<'_>) -> bool {
    let mut byte = 0_u8;
    let place = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // SAFETY: `place` is one byte that may be written.
    let read = unsafe { libc::preadv2(file.as_raw_fd(), &place, 1, 0, libc::RWF_NOWAIT) };
    read == 1 && kernel() >= (6, 5)
}

#[test]
fn what_is_in_memory_is_sent_without_a_request_and_the_socket_stays_as_it_is() {
    isolated(|| {
        ledger(async || {
            let scratch = Scratch::new();
            let file = file_of(&scratch, 50_000).await;
            if !tells_what_is_cached(file.as_fd()) {
                return println!("nobody says here what is in memory");
            }
            let (stream, peer) = pair_of_ours().await;
            // SAFETY: the call takes no pointers.
            let flags = || unsafe { libc::fcntl(stream.as_fd().as_raw_fd(), libc::F_GETFL) };
            let (before, sqes) = (flags(), stats().sqes);
            assert_eq!(stream.send_file(&file, ..50_000).await.unwrap(), 50_000);
            assert_eq!((flags(), stats().sqes), (before, sqes));
            assert_eq!(before & libc::O_NONBLOCK, 0);
            assert!(peer.read_exact(vec![0; 50_000]).await.unwrap() == pattern(0, 50_000));
        });
    });
}

#[test]
fn what_is_not_in_memory_is_read_and_sent() {
    run(async {
        const LEN: usize = 1_000_000;
        let scratch = Scratch::new();
        let file = file_of(&scratch, LEN).await;
        file.sync_all().await.unwrap();
        let evict = |from: i64| {
            let (fd, advice) = (file.as_fd().as_raw_fd(), libc::POSIX_FADV_DONTNEED);
            // SAFETY: the call takes no pointers.
            assert_eq!(unsafe { libc::posix_fadvise(fd, from, 0, advice) }, 0);
        };
        for from in [0, 300 * 1024, 999_000] {
            evict(from);
            // A file system in memory keeps what it has.
            let is_gone = from == 0 && !tells_what_is_cached(file.as_fd());
            let (stream, peer) = pair_of_ours().await;
            let sqes = stats().sqes;
            let sending = async {
                assert_eq!(stream.send_file(&file, ..).await.unwrap(), LEN as u64);
                stream.shutdown(Shutdown::Write).unwrap();
            };
            let ((), came) = quoit::join!(sending, take_pattern(&peer));
            assert_eq!(came, LEN as u64, "{from}");
            let requests = stats().sqes - sqes;
            assert!(!is_gone || requests >= 2 * LEN as u64 / (128 * 1024), "{requests} requests");
        }
    });
}

#[test]
fn what_is_no_regular_file_is_read_to_its_end_or_refused() {
    run(async {
        let (stream, peer) = pair_of_ours().await;
        let file = File::open("/proc/self/cmdline").await.unwrap();
        let sent = stream.send_file(&file, ..).await.unwrap();
        assert_eq!(sent, std::fs::read("/proc/self/cmdline").unwrap().len() as u64);
        let directory = File::open("/proc").await.unwrap();
        let error = stream.send_file(&directory, ..).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::IsADirectory);
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(all_of(&peer).await, std::fs::read("/proc/self/cmdline").unwrap());
    });
}

#[test]
fn a_file_that_shrinks_meanwhile_ends_where_it_ends() {
    run(async {
        let scratch = Scratch::new();
        let file = file_of(&scratch, 2_000_000).await;
        let (stream, peer) = narrow_pair().await;
        let sending = async {
            let sent = stream.send_file(&file, ..2_000_000).await.unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            sent
        };
        let reading = async {
            let mut came = peer.recv().await.unwrap().unwrap().to_vec();
            let path = scratch.path("file");
            std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(1_000_000).unwrap();
            came.extend(all_of(&peer).await);
            came
        };
        let (sent, came) =
            within(Duration::from_secs(20), async { quoit::join!(sending, reading) }).await;
        assert_eq!((sent, came.len()), (1_000_000, 1_000_000));
        assert!(came == pattern(0, 1_000_000));
    });
}

/// Sends a file to whoever connects; a disk or a client that fails is the world's fault.
async fn serve() -> io::Result<()> {
    let mut options = File::options();
    options.read(true).write(true).create(true);
    let file = loop {
        let Ok(file) = options.open("file").await else { continue };
        if file.write_all_at(pattern(0, LEN), 0).await.is_ok() {
            break file;
        }
    };
    let listener = TcpListener::bind("0.0.0.0:7000").await?;
    loop {
        let (stream, _) = listener.accept().await?;
        if stream.send_file(&file, ..).await.is_err() {
            stream.set_reset_on_close(true)?;
        }
    }
}

const LEN: usize = 60_000;

#[test]
fn under_faults_a_part_is_a_part_of_the_file() {
    let whole = Rc::new(Cell::new(0));
    let explored = explore(0..60, |seed| {
        let faults = Faults::none().short_reads(0.2).short_writes(0.3).delays(0.05).shuffle(0.3);
        let faults = faults.late_cancels(0.3).scribble(0.3).interrupts(0.05);
        let faults = if seed % 2 == 0 { faults.resets(0.01).disk_errors(0.05) } else { faults };
        let whole = Rc::clone(&whole);
        Sim::new(seed)
            .host("server", async || serve().await)
            .client("client", async move || {
                for _ in 0..4 {
                    let Ok(stream) = TcpStream::connect("server:7000").await else { continue };
                    let mut oracle = Oracle::default();
                    while let Ok(Some(bytes)) = stream.recv().await {
                        oracle.take(&bytes);
                    }
                    whole.set(whole.get() + u32::from(oracle.0 == LEN as u64));
                    assert!(seed % 2 == 0 || oracle.0 == LEN as u64, "{}", oracle.0);
                }
                io::Result::Ok(())
            })
            .faults(faults)
    });
    println!("{}", explored.unwrap_or_else(|failure| panic!("{failure}")));
    assert!(whole.get() > 120, "only {} came whole", whole.get());
}
