//! The cores that accept from one socket, and what they owe each other.
//!
//! The kernel wakes one of the accepts that wait on a socket for each connection, and an accept that
//! is cancelled takes that wake with it: the connection stays in the backlog, and nobody knows. So
//! whoever goes has the others look once more; a new accept begins with what waits.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use crate::sys::atomic::Arc;
use crate::sys::fork::forked;
use crate::sys::guard;

/// The cores of one socket.
#[derive(Default)]
pub(super) struct Fellows(Mutex<Vec<Entry>>);

struct Entry {
    number: u64,
    /// A wake may have been lost.
    looks_again: bool,
    /// Whoever accepts there.
    waker: Option<Waker>,
}

impl Fellows {
    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has all look again but `number`.
    fn alert(&self, number: u64) {
        let mut entries = self.lock();
        let others = entries.iter_mut().filter(|entry| entry.number != number);
        let wakers: Vec<_> = others
            .filter_map(|entry| {
                entry.looks_again = true;
                entry.waker.take()
            })
            .collect();
        drop(entries);
        wakers.into_iter().for_each(guard::wake);
    }
}

/// A core among its fellows, for as long as its descriptor of the socket is open.
pub(super) struct Fellow {
    all: Arc<Fellows>,
    number: u64,
}

impl Fellow {
    /// Joins them, by a number that no other has.
    pub(super) fn join(all: &Arc<Fellows>, number: u64) -> Self {
        all.lock().push(Entry { number, looks_again: false, waker: None });
        let fellow = Fellow { all: Arc::clone(all), number };
        // From now on an accept must not keep the wakes of all connections for itself.
        fellow.all.alert(number);
        fellow
    }

    pub(super) fn is_alone(&self) -> bool {
        self.all.lock().len() == 1
    }

    /// Whether to end the accept that waits and begin anew. If not, the task of `context` is woken
    /// when that changes.
    pub(super) fn looks_again(&self, context: &Context<'_>) -> bool {
        // Cloned before the lock is taken, and dropped after: a waker may do anything.
        let waker = context.waker().clone();
        let mut entries = self.all.lock();
        let mine = entries.iter_mut().find(|entry| entry.number == self.number);
        let mine = mine.expect("a fellow is among them until it is dropped");
        let looks_again = std::mem::take(&mut mine.looks_again);
        let displaced = if looks_again { Some(waker) } else { mine.waker.replace(waker) };
        drop(entries);
        guard::discard(displaced);
        looks_again
    }
}

impl Drop for Fellow {
    fn drop(&mut self) {
        if forked() {
            // A thread of the parent may have held the lock.
            return;
        }
        let mut entries = self.all.lock();
        let place = entries.iter().position(|entry| entry.number == self.number);
        let gone = place.map(|place| entries.swap_remove(place));
        drop(entries);
        guard::discard(gone.and_then(|entry| entry.waker));
        self.all.alert(self.number);
    }
}
