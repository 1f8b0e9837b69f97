//! Who listens for signals: the streams of a process, of this one or of one that is simulated.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use slab::Slab;

use super::guard;

/// The streams of a process.
#[derive(Default)]
pub(crate) struct Streams(Slab<Stream>);

struct Stream {
    signal: i32,
    /// The count that the stream knows of.
    seen: u32,
    waker: Option<Waker>,
}

impl Streams {
    pub(crate) const fn new() -> Self {
        Streams(Slab::new())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A stream of a signal that has come so often before.
    pub(crate) fn join(&mut self, signal: i32, heard: u32) -> usize {
        self.0.insert(Stream { signal, seen: heard, waker: None })
    }

    /// Ends a stream. Its waker is the caller's to drop, when it holds no lock.
    pub(crate) fn leave(&mut self, key: usize) -> Option<Waker> {
        self.0.remove(key).waker
    }

    /// Whether the stream's signal has come since this was last the case; before that, keeps the waker.
    /// The waker that is over is the caller's to drop, when it holds no lock.
    pub(crate) fn poll(
        &mut self,
        key: usize,
        waker: Waker,
        heard: impl Fn(i32) -> u32,
    ) -> (bool, Option<Waker>) {
        let stream = &mut self.0[key];
        let now = heard(stream.signal);
        match std::mem::replace(&mut stream.seen, now) == now {
            true => (false, stream.waker.replace(waker)),
            false => (true, Some(waker)),
        }
    }

    /// Takes the wakers of all whose signals have come.
    pub(crate) fn take_due(&mut self, heard: impl Fn(i32) -> u32) -> Vec<Waker> {
        let is_due = |stream: &&mut Stream| heard(stream.signal) != stream.seen;
        let due = self.0.iter_mut().map(|(_, stream)| stream).filter(is_due);
        due.filter_map(|stream| stream.waker.take()).collect()
    }

    /// # Errors
    /// `ResourceBusy` while there are streams of the signal.
    pub(crate) fn refuse_if_any_of(&self, signal: i32) -> io::Result<()> {
        if self.0.iter().any(|(_, stream)| stream.signal == signal) {
            let text = "there are streams of this signal";
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
        }
        Ok(())
    }
}

/// The signals of a simulated process, which gets what its simulation sends.
#[derive(Default)]
pub(crate) struct Invented(Mutex<Known>);

#[derive(Default)]
struct Known {
    streams: Streams,
    /// How often each signal has come that the process has had a stream of.
    heard: BTreeMap<i32, u32>,
}

impl Invented {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a stream.
    ///
    /// # Errors
    /// `InvalidInput` for what is no signal, and for the two that the C library keeps to itself.
    pub(crate) fn join(&self, signal: i32) -> io::Result<usize> {
        if !(1..=64).contains(&signal) || matches!(signal, 32 | 33) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let mut known = self.lock();
        let heard = *known.heard.entry(signal).or_default();
        Ok(known.streams.join(signal, heard))
    }

    /// Ends a stream.
    pub(crate) fn leave(&self, key: usize) {
        let waker = self.lock().streams.leave(key);
        guard::discard(waker);
    }

    /// Whether the signal has come since the stream has last said so; before that, keeps the waker.
    pub(crate) fn poll(&self, key: usize, waker: Waker) -> bool {
        let mut known = self.lock();
        let Known { streams, heard } = &mut *known;
        let (hears, over) = streams.poll(key, waker, |signal| heard[&signal]);
        drop(known);
        guard::discard(over);
        hears
    }

    /// A signal comes. Says whether the process has a handler for it.
    pub(crate) fn raise(&self, signal: i32) -> bool {
        let mut known = self.lock();
        let Known { streams, heard } = &mut *known;
        let Some(count) = heard.get_mut(&signal) else { return false };
        *count = count.wrapping_add(1);
        let due = streams.take_due(|signal| heard[&signal]);
        drop(known);
        due.into_iter().for_each(guard::wake);
        true
    }

    /// Brings back the signal's default action.
    ///
    /// # Errors
    /// `ResourceBusy` while there are streams of it.
    pub(crate) fn restore(&self, signal: i32) -> io::Result<()> {
        let mut known = self.lock();
        known.streams.refuse_if_any_of(signal)?;
        known.heard.remove(&signal);
        Ok(())
    }
}
