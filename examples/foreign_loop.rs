//! A hand-written epoll loop with a timer and signals of its own, which also turns a runtime that
//! serves an echo: how to live inside the loop of a toolkit, a game or a database.
//!
//! ```text
//! cargo run --example foreign_loop [address]     127.0.0.1:7000 unless given
//! nc 127.0.0.1 7000                              type a line; Ctrl-C ends either side
//! ```
//!
//! The loop sleeps on all its descriptors at once, and the runtime's is one of them.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use quoit::net::{TcpListener, TcpStream};
use quoit::runtime::{Runtime, Turn};

/// What an event is about.
const RUNTIME: u64 = 0;
const TICK: u64 = 1;
const STOP: u64 = 2;

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:7000".into());
    let (poll, tick, stop) = (new_epoll()?, every_second()?, stop_signals()?);
    let runtime = Runtime::new()?;
    watch(&poll, &runtime, RUNTIME)?;
    watch(&poll, &tick, TICK)?;
    watch(&poll, &stop, STOP)?;
    // It rests until the runtime is turned.
    let server = runtime.spawn(async move { serve(&address).await });
    let mut seconds = 0;
    loop {
        // One lap. After `Idle` all that could bring work makes the descriptor readable.
        let sleep_ms = if runtime.turn() == Turn::Idle { -1 } else { 0 };
        if runtime.is_finished(&server) {
            return runtime.block_on(server).map_err(io::Error::other)?;
        }
        for event in wait(&poll, sleep_ms)? {
            match event {
                // The next lap takes what has come.
                RUNTIME => {}
                TICK => {
                    let mut count = [0; 8];
                    // SAFETY: `count` is eight writable bytes.
                    unsafe { libc::read(tick.as_raw_fd(), count.as_mut_ptr().cast(), 8) };
                    seconds += u64::from_ne_bytes(count);
                    println!("{seconds} s, {} tasks", runtime.stats().tasks);
                }
                // Dropping the runtime ends its tasks and waits for the kernel's last answers.
                _ => return Ok(()),
            }
        }
    }
}

async fn serve(address: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    println!("echo on {}, in a foreign loop", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        drop(quoit::spawn(echo(stream)));
    }
}

async fn echo(stream: TcpStream) -> io::Result<()> {
    while let Some(chunk) = stream.recv().await? {
        stream.write_all(chunk).await?;
    }
    Ok(())
}

// ---- What such a program has anyway ----

fn checked(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Owns a descriptor that a call has just opened.
fn opened(result: i32) -> io::Result<OwnedFd> {
    let fd = checked(result)?;
    // SAFETY: the number is new, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn new_epoll() -> io::Result<OwnedFd> {
    // SAFETY: the call takes no pointers.
    opened(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })
}

fn watch(poll: &OwnedFd, what: &impl AsFd, event: u64) -> io::Result<()> {
    let (poll, fd) = (poll.as_raw_fd(), what.as_fd().as_raw_fd());
    let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: event };
    // SAFETY: the event lives until the call returns.
    checked(unsafe { libc::epoll_ctl(poll, libc::EPOLL_CTL_ADD, fd, &raw mut event) }).map(drop)
}

fn wait(poll: &OwnedFd, timeout_ms: i32) -> io::Result<Vec<u64>> {
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; 8];
    // SAFETY: there is room for eight events.
    let count = unsafe { libc::epoll_wait(poll.as_raw_fd(), events.as_mut_ptr(), 8, timeout_ms) };
    match checked(count) {
        Ok(count) => Ok(events[..count as usize].iter().map(|event| event.u64).collect()),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn every_second() -> io::Result<OwnedFd> {
    // SAFETY: the call takes no pointers.
    let timer = opened(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC) })?;
    let second = libc::timespec { tv_sec: 1, tv_nsec: 0 };
    let times = libc::itimerspec { it_interval: second, it_value: second };
    // SAFETY: the times live until the call returns, and the old ones are not asked for.
    let set = unsafe {
        libc::timerfd_settime(timer.as_raw_fd(), 0, &raw const times, std::ptr::null_mut())
    };
    checked(set).map(|_| timer)
}

/// A descriptor that is readable when the program is asked to stop.
fn stop_signals() -> io::Result<OwnedFd> {
    // SAFETY: `sigemptyset` initializes the set before it is read.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGINT);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        checked(libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()))?;
        opened(libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC))
    }
}
