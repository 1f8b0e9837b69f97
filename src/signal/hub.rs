//! Where the streams of all cores stand, and the thread that wakes them.
//!
//! ```text
//!   signal ─▶ handler ─counts, rings─▶ thread ─wakes─▶ inbox of each core ─▶ task ─▶ sees the count
//! ```
//!
//! A handler may not wake a task: that needs a lock or memory. So a thread sleeps on the number that
//! the handler changes. It is there while there are streams, and a little longer.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use slab::Slab;

use crate::sys::{current, fork, guard, handlers, signals};
use crate::task::Scheduler;

/// How long the thread waits for another stream: who makes one for each turn of a loop, as with
/// `ctrl_c`, does not make a thread each time.
const PATIENCE: Duration = Duration::from_secs(5);

static HUB: Mutex<Hub> = Mutex::new(Hub { streams: Slab::new(), has_thread: false });

struct Hub {
    streams: Slab<Stream>,
    has_thread: bool,
}

struct Stream {
    signal: i32,
    /// The count that the stream knows of.
    seen: u32,
    waker: Option<Waker>,
}

fn lock() -> MutexGuard<'static, Hub> {
    HUB.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a stream of a signal, which sees it from now on.
pub(super) fn join(signal: i32) -> io::Result<usize> {
    let mut hub = lock();
    handlers::install(signal)?;
    if !hub.has_thread {
        start_thread()?;
        hub.has_thread = true;
    }
    Ok(hub.streams.insert(Stream { signal, seen: handlers::heard(signal), waker: None }))
}

/// Ends a stream.
pub(super) fn leave(key: usize) {
    if fork::forked() {
        // A thread that is not in this process may have held the lock.
        return;
    }
    let mut hub = lock();
    let stream = hub.streams.remove(key);
    let was_last = hub.streams.is_empty();
    drop(hub);
    if was_last {
        handlers::ring();
    }
    guard::discard(stream.waker);
}

/// Whether the signal has come since the stream has last said so; before that, keeps the waker.
pub(super) fn poll(key: usize, context: &Context<'_>) -> Poll<()> {
    // Cloned here, and the old one dropped here: neither runs while the lock is held.
    let waker = context.waker().clone();
    let mut hub = lock();
    let stream = &mut hub.streams[key];
    let heard = handlers::heard(stream.signal);
    if heard != stream.seen {
        stream.seen = heard;
        return Poll::Ready(());
    }
    let displaced = stream.waker.replace(waker);
    drop(hub);
    guard::discard(displaced);
    Poll::Pending
}

/// Brings back what a signal did before its first stream.
pub(super) fn restore(signal: i32) -> io::Result<()> {
    let hub = lock();
    if hub.streams.iter().any(|(_, stream)| stream.signal == signal) {
        let text = "there are streams of this signal";
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
    }
    handlers::restore(signal)
}

fn start_thread() -> io::Result<()> {
    // The core that makes it may be pinned to its CPU.
    let cpus = current::with(|scheduler: &Scheduler| scheduler.pool().and_then(|pool| pool.cpus()));
    let body = move || {
        if let Some(cpus) = cpus.flatten() {
            // Where that fails, it runs where it is.
            let _ = cpus.apply_here();
        }
        listen();
    };
    let thread = thread::Builder::new().name("quoit-signals".into());
    signals::without_signals(|| thread.spawn(body))?.map(drop)
}

/// The life of the thread.
fn listen() {
    let mut was_needed = true;
    loop {
        let rung = handlers::rung();
        let mut hub = lock();
        let is_needed = !hub.streams.is_empty();
        if !is_needed && !was_needed {
            hub.has_thread = false;
            return;
        }
        let is_due = |stream: &&mut Stream| handlers::heard(stream.signal) != stream.seen;
        let due = hub.streams.iter_mut().map(|(_, stream)| stream).filter(is_due);
        let wakers: Vec<Waker> = due.filter_map(|stream| stream.waker.take()).collect();
        drop(hub);
        wakers.into_iter().for_each(guard::wake);
        handlers::sleep(rung, (!is_needed).then_some(PATIENCE));
        // Rung in vain, it waits once more.
        was_needed = is_needed || handlers::rung() != rung;
    }
}
