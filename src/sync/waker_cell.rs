//! The place of the one who waits, where no more than one can.

use std::cell::Cell;
use std::task::Waker;

use crate::sys::guard;

/// The waker of whoever waits. It is kept between two waits, so that a task that waits again and again
/// for the same thing clones its waker once.
#[derive(Default)]
pub(super) struct WakerCell {
    waker: Cell<Option<Waker>>,
    is_waiting: Cell<bool>,
}

impl WakerCell {
    /// Has `waker` woken by the next `wake`. True when code of a user ran for that, by which the wait
    /// may be over: look again.
    #[inline]
    pub(super) fn wait(&self, waker: &Waker) -> bool {
        let known = self.waker.take();
        if known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            self.waker.set(known);
            self.is_waiting.set(true);
            return false;
        }
        self.wait_anew(known, waker);
        true
    }

    #[cold]
    fn wait_anew(&self, known: Option<Waker>, waker: &Waker) {
        guard::discard(known);
        let newer = waker.clone();
        let displaced = self.waker.replace(Some(newer));
        self.is_waiting.set(true);
        guard::discard(displaced);
    }

    /// Wakes whoever waits, if somebody does.
    #[inline]
    pub(super) fn wake(&self) {
        if !self.is_waiting.replace(false) {
            return;
        }
        let Some(waker) = self.waker.take() else { return };
        guard::call(|| waker.wake_by_ref());
        // Whoever was woken may have waited anew within that call.
        match self.waker.take() {
            None => self.waker.set(Some(waker)),
            newer => {
                self.waker.set(newer);
                guard::discard(Some(waker));
            }
        }
    }

    /// Wakes whoever waits, for the last time.
    #[inline]
    pub(super) fn wake_last(&self) {
        let waker = self.waker.take();
        if self.is_waiting.replace(false) {
            waker.into_iter().for_each(guard::wake);
        } else {
            guard::discard(waker);
        }
    }

    /// Nobody waits any more.
    #[inline]
    pub(super) fn forget(&self) {
        self.is_waiting.set(false);
        guard::discard(self.waker.take());
    }
}
