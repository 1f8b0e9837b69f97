//! The end of a core's operations.

use std::time::Duration;

use super::Ring;
use crate::driver::retired::Retired;
use crate::driver::{Driver, Wait};
use crate::op::in_flight::{OpId, Slot, State};
use crate::sys::fork::forked;

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drained {
    Empty,
    /// So many operations did not end in time; their memory was leaked.
    Leaked(u32),
}

impl Ring {
    /// I6: ends everything in flight, waits for the last answers, and closes the ring.
    ///
    /// `tick` is called about once a second with the number that is still in flight; `false` ends
    /// the patience, and what is left is leaked.
    pub(crate) fn drain(&self, mut tick: impl FnMut(u32, Duration) -> bool) -> Drained {
        let live: Vec<OpId> = self.table.all().map(|(id, _)| id).collect();
        for id in live {
            match self.table.get(id).map(Slot::state) {
                Some(State::Waiting | State::Done) => self.orphan(id),
                Some(State::Orphaned | State::Unclaimed | State::Free) | None => {}
            }
        }
        let start = self.now();
        let mut patient = !forked() && !cfg!(canary = "ring-closed-before-drain");
        while self.table.live() > 0 && patient {
            let now = self.now();
            patient = tick(self.table.live(), Duration::from_nanos(now.saturating_sub(start)));
            let wait = if patient { Wait::Until(now + 100_000_000) } else { Wait::Poll };
            if self.turn(wait, None).is_err() {
                break;
            }
        }
        self.retire()
    }

    fn retire(&self) -> Drained {
        let (unparker, counters) =
            self.kernel.with(|driver| (driver.unparker(), driver.counters()));
        let retired: Box<dyn Driver> = Box::new(Retired { unparker, counters });
        assert!(!self.kernel.borrowed.get(), "I5: the driver is in use");
        // SAFETY: the assertion above: nothing borrows the driver, and this is its own thread.
        let driver = std::mem::replace(unsafe { &mut *self.kernel.driver.get() }, retired);
        let left = self.table.live();
        let pool = self.pool.take();
        if left == 0 {
            let mut driver = driver;
            if let Some(pool) = &pool {
                let datagrams = pool.datagrams().map(|datagrams| datagrams.removal());
                for removal in datagrams.into_iter().chain([pool.removal()]) {
                    // SAFETY: it names memory only to end its use.
                    let _ = unsafe { driver.register(removal) };
                }
            }
            drop(driver);
            drop(pool);
            return Drained::Empty;
        }
        // I6: the kernel may write at any time, so neither the ring nor the memory is given back.
        std::mem::forget(driver);
        std::mem::forget(pool);
        self.table.leak();
        Drained::Leaked(left)
    }
}
