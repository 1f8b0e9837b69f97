//! One core's timers: the wheel, and what is to be done when one is due.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

use super::wheel::{Key, Wheel};
use crate::op;
use crate::sys::current::{self, Floor};

/// What a timer does when it is due.
pub(crate) enum Due {
    /// Wakes whoever sleeps.
    Wake(Waker),
    /// Calls back.
    Call(Box<dyn FnOnce()>),
}

/// The timers of one core.
pub(crate) struct Timers {
    wheel: RefCell<Wheel<Due>>,
    panics: Cell<u64>,
}

// SAFETY: no other type of the crate has this number.
unsafe impl Floor for Timers {
    const INDEX: usize = 2;
}

impl Timers {
    pub(crate) fn new(now: u64) -> Self {
        Timers { wheel: RefCell::new(Wheel::new(now)), panics: Cell::new(0) }
    }

    pub(crate) fn len(&self) -> usize {
        self.wheel.borrow().len()
    }

    /// Panics of callbacks and wakers that were caught.
    pub(crate) fn panics(&self) -> u64 {
        self.panics.get()
    }

    #[inline]
    pub(crate) fn next(&self) -> Option<u64> {
        self.wheel.borrow().next()
    }

    #[inline]
    pub(crate) fn insert(&self, deadline: u64, due: Due) -> Key {
        self.wheel.borrow_mut().insert(deadline, due)
    }

    /// Ends a timer without firing it. False when it has fired or was cancelled before.
    #[inline]
    pub(crate) fn cancel(&self, key: Key) -> bool {
        // The value is dropped after the borrow: it may be a user's closure.
        let cancelled = self.wheel.borrow_mut().cancel(key);
        cancelled.is_some()
    }

    /// Whether the timer is still to fire; if so, `waker` will be woken.
    pub(crate) fn is_pending(&self, key: Key, waker: &Waker) -> bool {
        let mut wheel = self.wheel.borrow_mut();
        let displaced = match wheel.get_mut(key) {
            None => return false,
            Some(Due::Wake(old)) if old.will_wake(waker) => return true,
            Some(due) => std::mem::replace(due, Due::Wake(waker.clone())),
        };
        drop(wheel);
        drop(displaced);
        true
    }

    /// Does what is due at `now`, and says how much that was.
    #[inline]
    pub(crate) fn fire(&self, now: u64) -> usize {
        if self.next().is_none_or(|next| next > now) { 0 } else { self.fire_due(now) }
    }

    fn fire_due(&self, now: u64) -> usize {
        let mut fired = 0;
        loop {
            let due = self.wheel.borrow_mut().pop_due(now);
            let Some((_, due)) = due else { return fired };
            fired += 1;
            // One callback's panic must not keep the others from being called.
            let result = catch_unwind(AssertUnwindSafe(|| match due {
                Due::Wake(waker) => waker.wake(),
                Due::Call(f) => f(),
            }));
            if let Err(panic) = result {
                self.panics.set(self.panics.get() + 1);
                std::mem::forget(panic);
            }
        }
    }

    /// Drops all timers without firing them.
    pub(crate) fn shut_down(&self) {
        let all = self.wheel.borrow_mut().drain();
        for due in all {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(due))) {
                std::mem::forget(panic);
            }
        }
    }
}

/// Calls `f` with the current core's timers.
///
/// # Panics
/// Outside of a runtime.
#[inline]
pub(crate) fn with<R>(what: &str, f: impl FnOnce(&Timers) -> R) -> R {
    current::with(f).unwrap_or_else(|| op::outside(what))
}
