//! The emulated kernel, request by request.

use std::ffi::CString;
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use io_uring::types::{Fd, FsyncFlags, TimeoutFlags, Timespec};
use io_uring::{opcode, squeue};

use super::way::TURN;
use super::*;
use crate::buf::pool::{GROUP, MOST, Pool, SIZE};

/// The kernel, and the answers that were taken from it.
pub(super) struct Kernel {
    pub(super) driver: Epoll,
    pub(super) answers: Vec<Cqe>,
}

impl Kernel {
    pub(super) fn new() -> Self {
        Kernel { driver: Epoll::new(None).unwrap(), answers: Vec::new() }
    }

    pub(super) fn push(&mut self, request: &squeue::Entry, user_data: u64) {
        // SAFETY: what the tests' requests point at outlives the kernel, or the answer.
        unsafe { self.driver.push(request.clone().user_data(user_data)) };
    }

    pub(super) fn enter(&mut self, wait: Wait) {
        self.driver.enter(wait, &mut self.answers).unwrap();
    }

    /// Takes what there is without a sleep.
    pub(super) fn look(&mut self) -> Vec<Cqe> {
        for _ in 0..3 {
            self.enter(Wait::Poll);
        }
        std::mem::take(&mut self.answers)
    }

    /// Waits for the next answer to `user_data`.
    pub(super) fn answer(&mut self, user_data: u64) -> Cqe {
        loop {
            if let Some(place) = self.answers.iter().position(|cqe| cqe.user_data == user_data) {
                return self.answers.remove(place);
            }
            self.enter(Wait::Block);
        }
    }

    pub(super) fn result(&mut self, user_data: u64) -> i32 {
        let cqe = self.answer(user_data);
        assert!(!cqe.has_more(), "{cqe:?} is not the last");
        cqe.result
    }

    pub(super) fn ask(&mut self, request: &squeue::Entry) -> i32 {
        self.push(request, 999);
        self.result(999)
    }

    pub(super) fn assert_quiet(&mut self) {
        assert_eq!(self.look(), []);
    }
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (one, listener.accept().unwrap().0)
}

fn pipe() -> (PipeReader, PipeWriter) {
    std::io::pipe().unwrap()
}

fn fd(file: &impl AsRawFd) -> Fd {
    Fd(file.as_raw_fd())
}

fn recv(stream: &impl AsRawFd, room: &mut [u8]) -> squeue::Entry {
    opcode::Recv::new(fd(stream), room.as_mut_ptr(), room.len() as u32).build()
}

fn scratch(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("quoit-epoll-{name}-{}", std::process::id()))
}

fn at(seconds: i64, nanoseconds: i64) -> [i64; 2] {
    [seconds, nanoseconds]
}

fn timeout(time: &[i64; 2], flags: TimeoutFlags) -> squeue::Entry {
    opcode::Timeout::new(std::ptr::from_ref(time).cast::<Timespec>()).flags(flags).build()
}

// ---- Sockets ----

#[test]
fn bytes_that_are_there_are_received_at_once_and_others_when_they_come() {
    let (mut kernel, (ours, mut peer)) = (Kernel::new(), pair());
    peer.write_all(b"first").unwrap();
    let mut room = [0; 10];
    while kernel.driver.counters().cqes == 0 {
        kernel.push(&recv(&ours, &mut room), 1);
        kernel.enter(Wait::Block);
    }
    assert_eq!((kernel.result(1), &room[..5]), (5, &b"first"[..]));
    kernel.push(&recv(&ours, &mut room), 2);
    kernel.assert_quiet();
    peer.write_all(b"second").unwrap();
    assert_eq!((kernel.result(2), &room[..6]), (6, &b"second"[..]));
    drop(peer);
    assert_eq!(kernel.ask(&recv(&ours, &mut room)), 0);
    assert_eq!(kernel.ask(&recv(&ours, &mut room)), 0);
}

/// A kernel that has buffers to pick from.
fn with_buffers() -> (Kernel, Rc<Pool>) {
    let mut kernel = Kernel::new();
    let pool = Rc::new(Pool::new(MOST).unwrap());
    // SAFETY: the pool outlives the kernel's use of it.
    unsafe { kernel.driver.register(pool.registration()) }.unwrap();
    (kernel, pool)
}

/// A TCP connection whose one end the driver knows to be one.
fn known_pair(kernel: &mut Kernel) -> (TcpStream, TcpStream) {
    let (ours, peer) = pair();
    kernel.driver.opened(ours.as_raw_fd(), true);
    (ours, peer)
}

#[test]
fn a_multishot_receive_picks_buffers_until_the_end_of_the_stream() {
    let (mut kernel, pool) = with_buffers();
    let (ours, mut peer) = known_pair(&mut kernel);
    kernel.push(&opcode::RecvMulti::new(fd(&ours), GROUP).build(), 1);
    kernel.assert_quiet();
    for round in 0..5_u8 {
        peer.write_all(&[round; 100]).unwrap();
        let cqe = kernel.answer(1);
        assert_eq!((cqe.result, cqe.has_more(), cqe.flags & 1), (100, true, 1));
        let lease = pool.account().lease(cqe.buffer().unwrap(), 100);
        assert_eq!(*lease, [round; 100]);
    }
    // More than a turn's worth, and the end right behind it.
    let bytes: Vec<u8> = (0..40 * SIZE).map(|at| (at / 100) as u8).collect();
    let copy = bytes.clone();
    let writer = thread::spawn(move || {
        peer.write_all(&copy).unwrap();
        drop(peer);
    });
    let mut got = Vec::new();
    loop {
        let cqe = kernel.answer(1);
        if !cqe.has_more() {
            assert_eq!(cqe, Cqe { user_data: 1, result: 0, flags: 0 });
            break;
        }
        got.extend_from_slice(&pool.account().lease(cqe.buffer().unwrap(), cqe.result as usize));
    }
    writer.join().unwrap();
    assert!(got == bytes);
    kernel.assert_quiet();
    // SAFETY: it names memory only to end its use.
    unsafe { kernel.driver.register(pool.removal()) }.unwrap();
}

#[test]
fn a_receive_without_a_buffer_ends_with_enobufs_and_loses_no_byte() {
    let mut kernel = Kernel::new();
    let (ours, mut peer) = known_pair(&mut kernel);
    peer.write_all(b"kept").unwrap();
    assert_eq!(kernel.ask(&opcode::RecvMulti::new(fd(&ours), 5).build()), -libc::ENOBUFS);
    let mut room = [0; 10];
    kernel.push(&recv(&ours, &mut room), 1);
    assert_eq!((kernel.result(1), &room[..4]), (4, &b"kept"[..]));
}

#[test]
fn bytes_that_were_only_looked_at_are_still_there() {
    let mut kernel = Kernel::new();
    let (ours, mut peer) = known_pair(&mut kernel);
    let mut room = [0; 10];
    let peek = recv(&ours, &mut room);
    kernel.push(&peek, 1);
    kernel.assert_quiet();
    peer.write_all(b"first").unwrap();
    assert_eq!(kernel.result(1), 5);
    peer.write_all(b"bytes").unwrap();
    for flags in [libc::MSG_PEEK, libc::MSG_PEEK, 0] {
        let len = room.len() as u32;
        let recv = opcode::Recv::new(fd(&ours), room.as_mut_ptr(), len).flags(flags).build();
        assert_eq!((kernel.ask(&recv), &room[..5]), (5, &b"bytes"[..]));
    }
}

#[test]
fn urgent_bytes_do_not_hide_those_behind_them() {
    let (mut kernel, pool) = with_buffers();
    let (ours, mut peer) = known_pair(&mut kernel);
    kernel.push(&opcode::RecvMulti::new(fd(&ours), GROUP).build(), 1);
    peer.write_all(b"before").unwrap();
    // SAFETY: one byte that is there.
    let sent = unsafe { libc::send(peer.as_raw_fd(), b"!".as_ptr().cast(), 1, libc::MSG_OOB) };
    assert_eq!(sent, 1);
    peer.write_all(b"after").unwrap();
    let mut got = Vec::new();
    while got.len() < 11 {
        let cqe = kernel.answer(1);
        got.extend_from_slice(&pool.account().lease(cqe.buffer().unwrap(), cqe.result as usize));
    }
    assert_eq!(got, b"beforeafter");
}

#[test]
fn a_send_that_waits_for_all_goes_on_until_all_is_sent() {
    let (mut kernel, (ours, mut peer)) = (Kernel::new(), pair());
    let bytes: Vec<u8> = (0..20_000_000).map(|at| (at / 1000) as u8).collect();
    let (start, len) = (bytes.as_ptr(), bytes.len() as u32);
    let send = || opcode::Send::new(fd(&ours), start, len);
    let short = kernel.ask(&send().build());
    assert!(short > 0 && (short as usize) < bytes.len(), "{short}");
    kernel.push(&send().flags(libc::MSG_WAITALL).build(), 1);
    kernel.assert_quiet();
    let total = short as usize + bytes.len();
    let reader = thread::spawn(move || {
        let mut all = vec![0; total];
        peer.read_exact(&mut all).unwrap();
        (peer, all)
    });
    assert_eq!(kernel.result(1) as usize, bytes.len());
    let (peer, all) = reader.join().unwrap();
    assert!(all[..short as usize] == bytes[..short as usize] && all[short as usize..] == bytes);
    drop(peer);
    // A dead peer is an error and no signal.
    let _ = kernel.ask(&opcode::Send::new(fd(&ours), start, 10).build());
    let dead = kernel.ask(&opcode::Send::new(fd(&ours), start, 10).build());
    assert!([-libc::EPIPE, -libc::ECONNRESET].contains(&dead), "{dead}");
}

#[test]
fn a_message_of_many_pieces_is_sent_to_its_end() {
    let (mut kernel, (ours, mut peer)) = (Kernel::new(), pair());
    let bytes: Vec<u8> = (0..6_000_000).map(|at| (at / 999) as u8).collect();
    let mut pieces: Vec<libc::iovec> = bytes
        .chunks(9_999)
        .map(|chunk| libc::iovec {
            iov_base: chunk.as_ptr().cast_mut().cast(),
            iov_len: chunk.len(),
        })
        .collect();
    // SAFETY: zeros are an empty message.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (pieces.as_mut_ptr(), pieces.len() as _);
    let flags = (libc::MSG_WAITALL | libc::MSG_NOSIGNAL) as u32;
    kernel.push(&opcode::SendMsg::new(fd(&ours), &raw const message).flags(flags).build(), 1);
    kernel.assert_quiet();
    let len = bytes.len();
    let reader = thread::spawn(move || {
        let mut all = vec![0; len];
        peer.read_exact(&mut all).unwrap();
        all
    });
    assert_eq!(kernel.result(1) as usize, len);
    assert!(reader.join().unwrap() == bytes);
}

#[test]
fn connections_are_accepted_until_the_accept_is_cancelled() {
    let mut kernel = Kernel::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let accept = opcode::AcceptMulti::new(fd(&listener)).flags(libc::SOCK_CLOEXEC).build();
    kernel.push(&accept, 1);
    kernel.assert_quiet();
    let _clients: Vec<_> = (0..50).map(|_| TcpStream::connect(address).unwrap()).collect();
    for _ in 0..50 {
        let cqe = kernel.answer(1);
        assert!(cqe.has_more() && cqe.result >= 0, "{cqe:?}");
        // SAFETY: the call takes no pointers.
        assert_eq!(unsafe { libc::fcntl(cqe.result, libc::F_GETFD) }, libc::FD_CLOEXEC);
        kernel.driver.call(Call::Close { fd: cqe.result }).unwrap();
    }
    assert_eq!(kernel.ask(&opcode::AsyncCancel::new(1).build()), 0);
    assert_eq!(kernel.result(1), -libc::ECANCELED);
    assert_eq!(kernel.ask(&opcode::AsyncCancel::new(1).build()), -libc::ENOENT);
}

#[test]
fn a_socket_connects_and_stays_a_blocking_one() {
    let mut kernel = Kernel::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut connect = |address: std::net::SocketAddr| {
        let (domain, kind) = (libc::AF_INET, libc::SOCK_STREAM);
        let fd = kernel.driver.call(Call::Socket { domain, kind, protocol: 0 }).unwrap();
        let address = socket2::SockAddr::from(address);
        let result = kernel
            .ask(&opcode::Connect::new(Fd(fd), address.as_ptr().cast(), address.len()).build());
        // SAFETY: the call takes no pointers.
        let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
        assert_eq!(flags & libc::O_NONBLOCK, 0);
        kernel.driver.call(Call::Close { fd }).unwrap();
        result
    };
    let address = listener.local_addr().unwrap();
    assert_eq!(connect(address), 0);
    drop(listener);
    assert_eq!(connect(address), -libc::ECONNREFUSED);
}

#[test]
fn a_full_backlog_of_a_local_listener_is_waited_for() {
    let mut kernel = Kernel::new();
    let path = scratch("local");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    // SAFETY: the call takes no pointers.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let address = socket2::SockAddr::unix(&path).unwrap();
    let mut waits = Vec::new();
    for number in 0..4 {
        let (domain, kind) = (libc::AF_UNIX, libc::SOCK_STREAM);
        let fd = kernel.driver.call(Call::Socket { domain, kind, protocol: 0 }).unwrap();
        let connect = opcode::Connect::new(Fd(fd), address.as_ptr().cast(), address.len()).build();
        kernel.push(&connect, number);
        waits.push(fd);
    }
    let others = [listener.accept().unwrap(), listener.accept().unwrap()];
    let _more = [listener.accept().unwrap(), listener.accept().unwrap()];
    for (number, fd) in waits.into_iter().enumerate() {
        assert_eq!(kernel.result(number as u64), 0);
        kernel.driver.call(Call::Close { fd }).unwrap();
    }
    drop(others);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_number_that_is_used_again_gets_the_events_of_its_new_file() {
    let mut kernel = Kernel::new();
    for round in 0..3 {
        let (ours, mut peer) = known_pair(&mut kernel);
        // Somebody else has the same file open, so the kernel would go on to report its events.
        let _twin = ours.try_clone().unwrap();
        let ours = std::os::fd::IntoRawFd::into_raw_fd(ours);
        let mut room = [0; 10];
        kernel.push(&recv(&ours, &mut room), round);
        kernel.assert_quiet();
        peer.write_all(b"ping").unwrap();
        assert_eq!(kernel.result(round), 4);
        kernel.driver.call(Call::Close { fd: ours }).unwrap();
        peer.write_all(b"pong").unwrap();
        kernel.assert_quiet();
    }
}

#[test]
fn a_steady_echo_costs_a_receive_and_a_send_and_nothing_else() {
    let (mut kernel, pool) = with_buffers();
    let (ours, mut peer) = known_pair(&mut kernel);
    kernel.push(&opcode::RecvMulti::new(fd(&ours), GROUP).build(), 1);
    // The first event after a descriptor is watched says that it is writable.
    kernel.assert_quiet();
    let before = kernel.driver.counters();
    for _ in 0..100 {
        peer.write_all(b"echo").unwrap();
        let cqe = kernel.answer(1);
        let lease = pool.account().lease(cqe.buffer().unwrap(), cqe.result as usize);
        let sent = kernel.ask(&opcode::Send::new(fd(&ours), lease.as_ptr(), 4).build());
        assert_eq!(sent, 4);
        peer.read_exact(&mut [0; 4]).unwrap();
    }
    let after = kernel.driver.counters();
    assert_eq!((after.enters - before.enters, after.cqes - before.cqes), (100, 200));
}

// ---- Streams and files ----

#[test]
fn a_pipe_is_read_and_written_whatever_the_offset() {
    let (mut kernel, (reads, mut writes)) = (Kernel::new(), pipe());
    let mut room = [0; 10];
    for (number, offset) in [(1, 0), (2, u64::MAX), (3, 77)] {
        let read = opcode::Read::new(fd(&reads), room.as_mut_ptr(), 10).offset(offset).build();
        kernel.push(&read, number);
        kernel.assert_quiet();
        writes.write_all(b"through").unwrap();
        assert_eq!((kernel.result(number), &room[..7]), (7, &b"through"[..]));
    }
    let bytes = vec![7; 1_000_000];
    let write = opcode::Write::new(fd(&writes), bytes.as_ptr(), 1_000_000).offset(5).build();
    let written = kernel.ask(&write);
    assert!(written > 0 && written < 1_000_000, "{written}");
    kernel.push(&write, 4);
    kernel.assert_quiet();
    let mut drained = vec![0; written as usize];
    (&reads).read_exact(&mut drained).unwrap();
    assert!(kernel.result(4) > 0);
    drop(writes);
    kernel.driver.forget(reads.as_raw_fd());
}

#[test]
fn a_file_is_opened_written_synced_and_read() {
    let mut kernel = Kernel::new();
    let path = scratch("file");
    let name = CString::new(path.as_os_str().as_bytes()).unwrap();
    let open = opcode::OpenAt::new(Fd(libc::AT_FDCWD), name.as_ptr())
        .flags(libc::O_RDWR | libc::O_CREAT | libc::O_CLOEXEC)
        .mode(0o600)
        .build();
    let fd = kernel.ask(&open);
    assert!(fd >= 0, "{fd}");
    let bytes: Vec<u8> = (0..1_000_000).map(|at| (at / 777) as u8).collect();
    let len = bytes.len();
    let write = opcode::Write::new(Fd(fd), bytes.as_ptr(), len as u32).offset(10).build();
    assert_eq!(kernel.ask(&write) as usize, len);
    for flags in [FsyncFlags::empty(), FsyncFlags::DATASYNC] {
        assert_eq!(kernel.ask(&opcode::Fsync::new(Fd(fd)).flags(flags).build()), 0);
    }
    let mut room = vec![0; 2_000_000];
    let read = opcode::Read::new(Fd(fd), room.as_mut_ptr(), 2_000_000).offset(10).build();
    assert_eq!(kernel.ask(&read) as usize, len);
    assert!(room[..len] == bytes);
    // Several pieces, of which the first is done at once and the rest by a thread, or all at once.
    let mut pieces: Vec<libc::iovec> = room
        .chunks_mut(100_000)
        .map(|chunk| libc::iovec { iov_base: chunk.as_mut_ptr().cast(), iov_len: chunk.len() })
        .collect();
    let count = pieces.len() as u32;
    let read = opcode::Readv::new(Fd(fd), pieces.as_mut_ptr().cast(), count).offset(11).build();
    assert_eq!(kernel.ask(&read) as usize, len - 1);
    assert!(room[..len - 1] == bytes[1..]);
    assert_eq!(
        kernel.ask(&opcode::Read::new(Fd(fd), room.as_mut_ptr(), 9).offset(1 << 40).build()),
        0
    );
    kernel.driver.call(Call::Close { fd }).unwrap();
    std::fs::remove_file(path).unwrap();
    assert_eq!(
        kernel.ask(&opcode::OpenAt::new(Fd(libc::AT_FDCWD), c"/no/where".as_ptr()).build()),
        -libc::ENOENT
    );
}

#[test]
fn a_stream_that_cannot_be_told_not_to_wait_is_read_by_a_thread_when_it_is_ready() {
    let (mut kernel, (reads, mut writes)) = (Kernel::new(), pipe());
    // As on kernels before 6.4.
    kernel.driver.descriptors.entry(reads.as_raw_fd()).unwrap().set(fact::READS_WAIT);
    let mut room = [0; 10];
    for number in 0..3 {
        kernel.push(&opcode::Read::new(fd(&reads), room.as_mut_ptr(), 10).build(), number);
        kernel.assert_quiet();
        writes.write_all(b"late").unwrap();
        assert_eq!(kernel.result(number), 4);
    }
}

#[test]
fn more_reads_than_a_turn_are_all_handed_over_before_the_sleep() {
    let (mut kernel, (reads, mut writes)) = (Kernel::new(), pipe());
    kernel.driver.descriptors.entry(reads.as_raw_fd()).unwrap().set(fact::READS_WAIT);
    let count = u64::from(3 * TURN);
    let mut room = vec![0; count as usize];
    for (number, place) in room.iter_mut().enumerate() {
        let read = opcode::Read::new(fd(&reads), place, 1).build();
        kernel.push(&read, number as u64);
    }
    kernel.assert_quiet();
    writes.write_all(&vec![1; count as usize]).unwrap();
    for number in 0..count {
        assert_eq!(kernel.result(number), 1);
    }
    assert!(room.iter().all(|&byte| byte == 1));
}

#[test]
fn an_open_that_waits_for_its_partner_ends_when_it_is_cancelled() {
    let mut kernel = Kernel::new();
    let path = scratch("fifo");
    let name = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: the name ends with a zero byte.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    let open = opcode::OpenAt::new(Fd(libc::AT_FDCWD), name.as_ptr()).flags(libc::O_RDONLY).build();
    // More than there are threads: some wait in the line, where they are taken back.
    for number in 0..40 {
        kernel.push(&open, number);
    }
    for round in 0..2 {
        kernel.assert_quiet();
        thread::sleep(Duration::from_millis(5 * round));
    }
    for number in 0..40 {
        let cancelled = kernel.ask(&opcode::AsyncCancel::new(number).build());
        assert!([0, -libc::EALREADY].contains(&cancelled), "{cancelled}");
    }
    for number in 0..40 {
        assert_eq!(kernel.result(number), -libc::ECANCELED);
    }
    // A partner, and the open ends well.
    kernel.push(&open, 50);
    let writer = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let opened = kernel.result(50);
    assert!(opened >= 0, "{opened}");
    kernel.driver.call(Call::Close { fd: opened }).unwrap();
    drop(writer);
    std::fs::remove_file(path).unwrap();
}

// ---- Polls, times, cancels ----

#[test]
fn a_poll_answers_once_and_a_multishot_one_for_each_event() {
    let (mut kernel, (mut reads, mut writes)) = (Kernel::new(), pipe());
    let poll = opcode::PollAdd::new(fd(&reads), libc::POLLIN as u32);
    kernel.push(&poll.build(), 1);
    kernel.push(&opcode::PollAdd::new(fd(&reads), libc::POLLIN as u32).multi(true).build(), 2);
    kernel.assert_quiet();
    writes.write_all(b"x").unwrap();
    assert_eq!(kernel.result(1), i32::from(libc::POLLIN));
    assert!(kernel.answer(2).has_more());
    reads.read_exact(&mut [0]).unwrap();
    kernel.assert_quiet();
    writes.write_all(b"y").unwrap();
    let cqe = kernel.answer(2);
    assert!(cqe.has_more() && cqe.result == i32::from(libc::POLLIN));
    kernel.push(&opcode::AsyncCancel::new(2).build(), 3);
    assert_eq!((kernel.result(2), kernel.result(3)), (-libc::ECANCELED, 0));
    let file = File::open("/proc/self/comm").unwrap();
    assert_ne!(kernel.ask(&opcode::PollAdd::new(fd(&file), libc::POLLIN as u32).build()), 0);
}

#[test]
fn a_timeout_fires_at_its_time_and_never_before() {
    let mut kernel = Kernel::new();
    let start = Instant::now();
    let time = at(0, 3_000_000);
    assert_eq!(kernel.ask(&timeout(&time, TimeoutFlags::empty())), -libc::ETIME);
    assert!(start.elapsed() >= Duration::from_millis(3));
    let due = kernel.driver.now() + 2_000_000;
    let time = at((due / 1_000_000_000) as i64, (due % 1_000_000_000) as i64);
    assert_eq!(kernel.ask(&timeout(&time, TimeoutFlags::ABS)), -libc::ETIME);
    assert!(kernel.driver.now() >= due);
    for wrong in [at(-1, 0), at(0, -1), at(0, 1_000_000_000)] {
        assert_eq!(kernel.ask(&timeout(&wrong, TimeoutFlags::ABS)), -libc::EINVAL);
    }
}

#[test]
fn a_timeout_is_moved_and_removed() {
    let mut kernel = Kernel::new();
    let (late, soon) = (at(3600, 0), at(0, 1_000_000));
    kernel.push(&timeout(&late, TimeoutFlags::empty()), 1);
    let place = std::ptr::from_ref(&soon).cast::<Timespec>();
    assert_eq!(kernel.ask(&opcode::TimeoutUpdate::new(1, place).build()), 0);
    assert_eq!(kernel.result(1), -libc::ETIME);
    assert_eq!(kernel.ask(&opcode::TimeoutUpdate::new(1, place).build()), -libc::ENOENT);
    kernel.push(&timeout(&late, TimeoutFlags::empty()), 2);
    assert_eq!(kernel.ask(&opcode::TimeoutRemove::new(2).build()), 0);
    assert_eq!(kernel.result(2), -libc::ECANCELED);
    assert_eq!(kernel.ask(&opcode::TimeoutRemove::new(2).build()), -libc::ENOENT);
}

#[test]
fn a_cancelled_send_says_how_much_it_had_sent() {
    let (mut kernel, (ours, _peer)) = (Kernel::new(), pair());
    let bytes = vec![0; 20_000_000];
    let send = opcode::Send::new(fd(&ours), bytes.as_ptr(), bytes.len() as u32);
    kernel.push(&send.flags(libc::MSG_WAITALL).build(), 1);
    kernel.push(&opcode::Send::new(fd(&ours), bytes.as_ptr(), 10).build(), 2);
    kernel.assert_quiet();
    assert_eq!(kernel.ask(&opcode::AsyncCancel::new(2).build()), 0);
    assert_eq!(kernel.result(2), -libc::ECANCELED);
    assert_eq!(kernel.ask(&opcode::AsyncCancel::new(1).build()), 0);
    let sent = kernel.result(1);
    assert!(sent > 0 && sent < 20_000_000, "{sent}");
}

#[test]
fn what_this_kernel_does_not_know_is_an_answer_too() {
    let mut kernel = Kernel::new();
    let nothing = opcode::Nop::new().build();
    assert_eq!(kernel.ask(&nothing), 0);
    let strange = opcode::Splice::new(Fd(0), -1, Fd(1), -1, 1).build();
    assert!(!kernel.driver.supports(opcode::Splice::CODE));
    assert_eq!(kernel.ask(&strange), -libc::EOPNOTSUPP);
    let linked = nothing.clone().flags(squeue::Flags::IO_LINK);
    assert_eq!(kernel.ask(&linked), -libc::EINVAL);
    let mut room = [0; 1];
    for fd in [-1, i32::MAX, 1_000_000] {
        assert_eq!(kernel.ask(&recv(&fd, &mut room)), -libc::EBADF);
    }
    let file = File::open("/dev/null").unwrap();
    assert_eq!(kernel.ask(&recv(&file, &mut room)), -libc::ENOTSOCK);
    assert!(kernel.driver.supports(opcode::Recv::CODE));
}

// ---- The sleep ----

#[test]
fn an_unpark_from_another_thread_ends_the_sleep() {
    let mut kernel = Kernel::new();
    let unparker = kernel.driver.unparker();
    unparker.announce();
    let other = thread::spawn(move || unparker.unpark());
    kernel.enter(Wait::Block);
    other.join().unwrap();
    assert_eq!((kernel.answers.len(), kernel.driver.counters().kicks), (0, 1));
}

#[test]
fn a_wait_with_a_deadline_ends_at_it() {
    let mut kernel = Kernel::new();
    for has_nanoseconds in [true, false] {
        kernel.driver.poller.pretend(has_nanoseconds);
        let until = kernel.driver.now() + 1_500_000;
        kernel.enter(Wait::Until(until));
        assert!(kernel.driver.now() >= until);
    }
    assert_eq!(kernel.driver.counters().enters, 2);
}

/// Whether the descriptor that a foreign loop sleeps on is readable within `ms`.
fn is_readable(driver: &Epoll, ms: i32) -> bool {
    let fd = driver.readiness().unwrap().as_raw_fd();
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, which lives until the call returns.
    unsafe { libc::poll(&raw mut poll, 1, ms) == 1 }
}

#[test]
fn whatever_ends_a_sleep_makes_the_descriptor_readable() {
    let (mut kernel, (ours, mut peer)) = (Kernel::new(), pair());
    assert!(is_readable(&kernel.driver, 0), "nobody has looked yet");
    let mut room = [0; 10];
    kernel.push(&recv(&ours, &mut room), 1);
    kernel.assert_quiet();
    assert!(!is_readable(&kernel.driver, 0));
    peer.write_all(b"x").unwrap();
    assert!(is_readable(&kernel.driver, 1000));
    assert_eq!(kernel.look().len(), 1);
    assert!(!is_readable(&kernel.driver, 0));

    let soon = at(0, 2_000_000);
    kernel.push(&timeout(&soon, TimeoutFlags::empty()), 2);
    kernel.assert_quiet();
    assert!(is_readable(&kernel.driver, 1000));
    assert_eq!(kernel.look()[0].result, -libc::ETIME);
    assert!(!is_readable(&kernel.driver, 0));

    // A kick that an enter takes while the foreign loop is about to sleep.
    kernel.driver.kick.ring();
    kernel.enter(Wait::Poll);
    assert!(is_readable(&kernel.driver, 1000));
    kernel.enter(Wait::Poll);
    assert!(!is_readable(&kernel.driver, 0));

    let null = File::open("/dev/null").unwrap();
    kernel.push(&opcode::Fsync::new(fd(&null)).build(), 3);
    assert!(is_readable(&kernel.driver, 1000));
    assert_eq!(kernel.look()[0].result, -libc::EINVAL);
}

#[test]
fn a_driver_that_is_dropped_with_requests_in_flight_leaves_their_memory_alone() {
    let (mut kernel, (ours, mut peer)) = (Kernel::new(), pair());
    let mut room = [0; 10];
    kernel.push(&recv(&ours, &mut room), 1);
    kernel.assert_quiet();
    drop(kernel);
    peer.write_all(b"x").unwrap();
    assert_eq!((&ours).read(&mut [0; 10]).unwrap(), 1);
    assert_eq!(room, [0; 10]);
}
