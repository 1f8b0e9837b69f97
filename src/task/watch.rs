//! Polls that take too long: which task's it was, where that was spawned, and for how long it ran.
//!
//! A core without a threshold has no watch, and reads no clock for it. One that has, reads it after
//! each poll. What never returns is seen by the [watchdog](super::watchdog).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use super::origin::Site;
use super::panics::Called;
use super::watchdog::Pulse;
use crate::sys::atomic::Arc;
use crate::sys::current;

/// Looks at how long each poll takes.
pub(crate) struct Watch {
    threshold_ns: u64,
    clock: Rc<dyn Fn() -> u64>,
    running: RefCell<Option<Running>>,
    /// When each task was last polled, by its key.
    polled: RefCell<Vec<u64>>,
    stalls: Cell<u64>,
    /// What the watchdog sees; nothing in a simulation, whose time stands still in a poll.
    pulse: Option<Arc<Pulse>>,
}

/// A poll that runs.
#[derive(Clone)]
pub(super) struct Running {
    pub(super) at: Site,
    pub(super) name: Option<Arc<str>>,
    /// When it began, on the core's clock.
    pub(super) since: u64,
}

impl Running {
    pub(super) fn called(&self) -> Called<'_> {
        Called(self.name.as_deref(), self.at)
    }
}

impl Watch {
    pub(crate) fn new(
        threshold_ns: u64,
        clock: Rc<dyn Fn() -> u64>,
        pulse: Option<Arc<Pulse>>,
    ) -> Self {
        Watch {
            threshold_ns,
            clock,
            running: RefCell::default(),
            polled: RefCell::default(),
            stalls: Cell::new(0),
            pulse,
        }
    }

    pub(super) fn now(&self) -> u64 {
        (self.clock)()
    }

    pub(crate) fn stalls(&self) -> u64 {
        self.stalls.get()
    }

    /// A poll begins.
    pub(super) fn begin(&self, key: u32, at: Site, name: Option<Arc<str>>, now: u64) {
        let key = key as usize;
        let mut polled = self.polled.borrow_mut();
        if polled.len() <= key {
            polled.resize(key + 1, 0);
        }
        polled[key] = now;
        drop(polled);
        let running = Running { at, name, since: now };
        if let Some(pulse) = &self.pulse {
            pulse.begin(running.clone());
        }
        self.running.replace(Some(running));
    }

    /// The poll that runs, if one does, has ended; also by a panic. Returns the time.
    pub(super) fn end(&self) -> u64 {
        let now = self.now();
        // Whoever hears of it may do anything, so the borrow ends first.
        let Some(running) = self.running.take() else { return now };
        if let Some(pulse) = &self.pulse {
            pulse.end();
        }
        if self.is_long(running.since, now) {
            self.tell(&running.called(), running.since, now);
        }
        now
    }

    /// Calls `f`, which is no poll, and looks at how long it takes.
    pub(crate) fn over<R>(&self, what: &str, f: impl FnOnce() -> R) -> R {
        let since = self.now();
        let result = f();
        let now = self.now();
        if self.is_long(since, now) {
            self.tell(&what, since, now);
        }
        result
    }

    /// When the task with this key was last polled.
    pub(super) fn polled_at(&self, key: u32) -> Option<u64> {
        self.polled.borrow().get(key as usize).copied().filter(|time| *time > 0)
    }

    fn is_long(&self, since: u64, now: u64) -> bool {
        now.saturating_sub(since) > self.threshold_ns
    }

    #[cold]
    fn tell(&self, who: &dyn std::fmt::Display, since: u64, now: u64) {
        self.stalls.set(self.stalls.get() + 1);
        let took = Duration::from_nanos(now - since);
        let threshold = Duration::from_nanos(self.threshold_ns);
        current::core(|core| {
            core.log.line(&format!(
                "core {}: {who} kept its core for {took:?}, longer than {threshold:?}",
                core.index
            ));
        });
    }
}
