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
use std::task::Waker;
use std::thread;
use std::time::Duration;

use crate::sys::signal_streams::Streams;
use crate::sys::{fork, guard, handlers, signals};
use crate::task::Scheduler;

/// How long the thread waits for another stream: who makes one for each turn of a loop, as with
/// `ctrl_c`, does not make a thread each time.
const PATIENCE: Duration = Duration::from_secs(5);

static HUB: Mutex<Hub> = Mutex::new(Hub { streams: Streams::new(), has_thread: false });

struct Hub {
    streams: Streams,
    has_thread: bool,
}

fn lock() -> MutexGuard<'static, Hub> {
    HUB.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a stream of a signal, which sees it from now on.
pub(super) fn join(signal: i32) -> io::Result<usize> {
    let mut hub = lock();
    // First the thread, which ends by itself when it is not needed: without it, the signal is to have
    // its default action still.
    if !hub.has_thread {
        start_thread()?;
        hub.has_thread = true;
    }
    handlers::install(signal)?;
    Ok(hub.streams.join(signal, handlers::heard(signal)))
}

/// Ends a stream.
pub(super) fn leave(key: usize) {
    if fork::forked() {
        // A thread that is not in this process may have held the lock.
        return;
    }
    let mut hub = lock();
    let waker = hub.streams.leave(key);
    let was_last = hub.streams.is_empty();
    drop(hub);
    if was_last {
        handlers::ring();
    }
    guard::discard(Some(waker));
}

/// Whether the signal has come since the stream has last said so; before that, keeps the waker.
pub(super) fn poll(key: usize, waker: Waker) -> bool {
    if fork::forked() {
        // As in `leave`. Nothing will wake it here.
        guard::discard(Some(waker));
        return false;
    }
    let mut hub = lock();
    let (hears, over) = hub.streams.poll(key, waker, handlers::heard);
    drop(hub);
    guard::discard(over);
    hears
}

/// Brings back what a signal did before its first stream.
pub(super) fn restore(signal: i32) -> io::Result<()> {
    let hub = lock();
    hub.streams.refuse_if_any_of(signal)?;
    handlers::restore(signal)
}

fn start_thread() -> io::Result<()> {
    // The core that makes it may be pinned to its CPU.
    let cpus = Scheduler::cpus_of_process();
    let body = move || {
        if let Some(cpus) = cpus {
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
        let wakers = hub.streams.take_due(handlers::heard);
        drop(hub);
        wakers.into_iter().for_each(guard::wake);
        handlers::sleep(rung, (!is_needed).then_some(PATIENCE));
        // Rung in vain, it waits once more.
        was_needed = is_needed || handlers::rung() != rung;
    }
}
