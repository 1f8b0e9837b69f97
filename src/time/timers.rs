//! One core's timers: the wheel, and what is to be done when one is due.

use std::cell::{Cell, RefCell};
use std::task::Waker;

use slab::Slab;

use super::wheel::{Key, Wheel};
use crate::op;
use crate::sys::current::{self, Floor};
use crate::sys::guard;
use crate::task::registry;

/// Timers between two looks at the clock.
const FIRED_A_LOOK: usize = 64;
/// Nanoseconds after which the rest of what is due waits for the next lap.
const LATE_NS: u64 = 100_000;
/// A deadline that is nearer than this to the lap's clock is compared with a fresh one.
const NEAR_NS: u64 = 10_000_000;

/// What a timer does when it is due. It has the size of a waker: the callbacks lie beside the wheel.
enum Due {
    /// Wakes whoever sleeps.
    Wake(Waker),
    /// Calls back; `None` is in entries of the wheel that are not in use.
    Call(Option<u32>),
}

const _: () = assert!(size_of::<Due>() == size_of::<Waker>());

impl Default for Due {
    fn default() -> Self {
        Due::Call(None)
    }
}

/// What a timer will do.
pub(crate) enum Scheduled<'a> {
    Wake(&'a Waker),
    Call,
}

type Callback = Box<dyn FnOnce()>;

/// The timers of one core.
pub(crate) struct Timers {
    wheel: RefCell<Wheel<Due>>,
    callbacks: RefCell<Slab<Callback>>,
    /// All that was due until then has fired.
    fired_until: Cell<u64>,
    /// The earliest time for new callbacks: while a pass fires, just after it, and else 0.
    earliest: Cell<u64>,
    closed: Cell<bool>,
}

// SAFETY: no other type of the crate has this number.
unsafe impl Floor for Timers {
    const INDEX: usize = 2;
}

impl Timers {
    pub(crate) fn new(now: u64) -> Self {
        Timers {
            wheel: RefCell::new(Wheel::new(now)),
            callbacks: RefCell::default(),
            fired_until: Cell::new(now),
            earliest: Cell::new(0),
            closed: Cell::new(false),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.wheel.borrow().len()
    }

    #[inline]
    pub(crate) fn next(&self) -> Option<u64> {
        self.wheel.borrow().next()
    }

    /// Whether `deadline` has passed, as far as that can be told without reading the clock; a timer
    /// for one that this overlooks fires at the end of the lap.
    #[inline]
    pub(super) fn has_passed(&self, deadline: u64) -> bool {
        let ahead = deadline.saturating_sub(self.fired_until.get());
        ahead == 0 || ahead < NEAR_NS && op::now() >= deadline
    }

    /// Wakes `waker` at `deadline`.
    #[inline]
    pub(super) fn wake_at(&self, deadline: u64, waker: Waker) -> Key {
        self.wheel.borrow_mut().insert(deadline, Due::Wake(waker))
    }

    /// Calls `f` at `deadline`, or never if the core ends before.
    ///
    /// What a callback adds is left for the next lap, even if it is due: one that renews itself in
    /// the past would have no last call.
    pub(super) fn call_at(&self, deadline: u64, f: Callback) -> Key {
        if self.closed.get() {
            return Key::NOTHING;
        }
        let callback = self.callbacks.borrow_mut().insert(f);
        let callback = u32::try_from(callback).expect("fewer than 2^32 callbacks");
        let deadline = deadline.max(self.earliest.get());
        self.wheel.borrow_mut().insert(deadline, Due::Call(Some(callback)))
    }

    /// Ends a timer without firing it, or does nothing when it has fired or was cancelled before.
    #[inline]
    fn cancel(&self, key: Key) {
        // What is cancelled is dropped after the borrow: it may be the user's.
        let due = self.wheel.borrow_mut().cancel(key);
        match due {
            Some(Due::Call(callback)) => drop(self.take(callback)),
            waker => guard::discard(waker),
        }
    }

    fn take(&self, callback: Option<u32>) -> Callback {
        let key = callback.expect("a timer that is in use has something to do");
        self.callbacks.borrow_mut().remove(key as usize)
    }

    /// Shows every timer, the earliest first. `show` is not user code.
    pub(crate) fn each(&self, mut show: impl FnMut(u64, Scheduled<'_>)) {
        let wheel = self.wheel.borrow();
        let mut all: Vec<_> = wheel.each().collect();
        all.sort_by_key(|(deadline, _)| *deadline);
        for (deadline, due) in all {
            match due {
                Due::Wake(waker) => show(deadline, Scheduled::Wake(waker)),
                Due::Call(_) => show(deadline, Scheduled::Call),
            }
        }
    }

    /// Whether a callback is still to be called.
    pub(super) fn is_pending(&self, key: Key) -> bool {
        self.wheel.borrow().contains(key)
    }

    /// Whether the timer of `deadline` is still to fire; if so, `waker` will be woken.
    #[inline]
    pub(super) fn is_asleep(&self, deadline: u64, key: Key, waker: &Waker) -> bool {
        if deadline <= self.fired_until.get() {
            return false;
        }
        let mut wheel = self.wheel.borrow_mut();
        let displaced = match wheel.get_mut(key) {
            None => return false,
            Some(Due::Wake(old)) if old.will_wake(waker) => return true,
            Some(_) => {
                // Cloning runs the waker's code, so not under the borrow.
                drop(wheel);
                let new = Due::Wake(waker.clone());
                self.wheel.borrow_mut().get_mut(key).map(|due| std::mem::replace(due, new))
            }
        };
        let was_there = displaced.is_some();
        guard::discard(displaced);
        was_there
    }

    /// Does what is due at `now`, and says how much that was.
    #[inline]
    pub(crate) fn fire(&self, now: u64) -> usize {
        #[cfg(canary = "early-timer")]
        let now = now + 1024;
        if self.look(now) { 0 } else { self.fire_due(now) }
    }

    /// Takes note that it is `now`, if nothing is due by then; whether that is so.
    #[inline]
    pub(crate) fn look(&self, now: u64) -> bool {
        let nothing_is_due = self.next().is_none_or(|next| next > now);
        if nothing_is_due {
            self.fired_until.set(now);
        }
        nothing_is_due
    }

    fn fire_due(&self, now: u64) -> usize {
        self.earliest.set(now.saturating_add(1));
        let fired = self.pass(now);
        self.earliest.set(0);
        fired
    }

    /// Fires until nothing is due, or much time has passed: a million timers at once must not keep
    /// the core from its kernel and its tasks.
    fn pass(&self, now: u64) -> usize {
        let mut fired = 0;
        loop {
            let due = self.wheel.borrow_mut().pop_due(now);
            let Some((_, due)) = due else {
                self.fired_until.set(now);
                return fired;
            };
            // One callback's panic must not keep the others from being called.
            guard::call(|| match due {
                Due::Wake(waker) => waker.wake(),
                Due::Call(callback) => self.take(callback)(),
            });
            fired += 1;
            if fired % FIRED_A_LOOK == 0 && op::now() > now + LATE_NS {
                return fired;
            }
        }
    }

    /// Drops all timers without firing them, and every callback from now on.
    pub(crate) fn shut_down(&self) {
        self.closed.set(true);
        let all = self.wheel.borrow_mut().drain();
        for due in all {
            guard::call(|| match due {
                Due::Wake(waker) => drop(waker),
                Due::Call(callback) => drop(self.take(callback)),
            });
        }
    }
}

/// Calls `f` with the current core's timers.
///
/// # Panics
/// Outside of a runtime.
#[inline]
#[track_caller]
pub(super) fn with<R>(what: &str, f: impl FnOnce(&Timers) -> R) -> R {
    match current::with(f) {
        Some(output) => output,
        None => op::outside(what),
    }
}

/// Ends a timer of `core` without firing it: at once when this is that core, soon when it is another.
#[inline]
pub(super) fn cancel(core: u64, key: Key) {
    if current::id() == Some(core) {
        current::with(|timers: &Timers| timers.cancel(key));
    } else {
        cancel_elsewhere(core, key);
    }
}

#[cold]
fn cancel_elsewhere(core: u64, key: Key) {
    if let Some(remote) = registry::remote(core) {
        // A core that has ended has dropped its timers.
        let _ = remote.send(move || {
            current::with(|timers: &Timers| timers.cancel(key));
        });
    }
}
