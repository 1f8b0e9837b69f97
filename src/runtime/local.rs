//! What this floor leaves on each core: its seat, its stop, its numbers, and the way in.

use std::cell::{Cell, OnceCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use super::handle::Handle;
use super::per_core::Values;
use super::roll::Roll;
use super::stats::Stats;
use super::stop::Stop;
use crate::buf::pool::Pool;
use crate::op::Ring;
use crate::sys::atomic::Arc;
use crate::sys::current::{self, Checked, Core};
use crate::sys::log::{Log, discard};
use crate::task::{Remote, Scheduler};
use crate::time::Timers;

/// This floor's part of a core.
pub(super) struct Local {
    /// The core's number, never reused.
    pub(super) id: u64,
    /// Its place among those that were started together, and how many these are.
    pub(super) index: usize,
    pub(super) count: usize,
    pub(super) stop: Stop,
    pub(super) remote: Arc<Remote>,
    pub(super) ring: Rc<Ring>,
    pub(super) scheduler: Rc<Scheduler>,
    pub(super) timers: Rc<Timers>,
    pub(super) pool: Option<Rc<Pool>>,
    pub(super) log: Log,
    pub(super) fruitless: Cell<u64>,
    pub(super) panics: Cell<u64>,
    pub(super) caught_panics: Rc<Cell<u64>>,
    /// Those that were started together, and the ways in to them, once they are asked for.
    pub(super) roll: Arc<Roll>,
    pub(super) handles: OnceCell<Box<[Handle]>>,
    pub(super) values: Values,
    /// Sleeps that were known to have a reason when one last seemed to have none.
    pub(super) excused: Cell<u64>,
}

impl Local {
    /// Leaves the part on `core`.
    pub(super) fn install(self: &Rc<Self>, core: &Core) {
        core.install(Rc::new(Checked::new(Rc::clone(self))));
    }

    /// That of the current core.
    pub(super) fn current() -> Option<Rc<Local>> {
        current::with(|part: &Checked| Rc::clone(part.get()))
    }

    /// The ways in to the cores that were started together.
    pub(super) fn handles(&self) -> &[Handle] {
        self.handles.get_or_init(|| self.roll.handles())
    }

    pub(super) fn stats(&self) -> Stats {
        let tally = self.ring.tally();
        Stats {
            live_ops: tally.live,
            orphans: tally.orphans,
            leases: self.pool.as_ref().map_or(0, |pool| pool.leases()),
            tasks: self.scheduler.len(),
            timers: self.timers.len(),
            sqes: tally.driver.sqes,
            cqes: tally.driver.cqes,
            enters: tally.driver.enters,
            overflows: tally.driver.overflows,
            refused_enters: tally.driver.refused,
            interrupted: tally.driver.interrupted,
            remote_wakes: tally.driver.kicks,
            coalesced_sleeps: tally.driver.coalesced,
            windows_off: tally.driver.windows_off,
            windows_on: tally.driver.windows_on,
            spins: tally.driver.spins,
            spins_won: tally.driver.spins_won,
            stray: tally.stray,
            starved: self.pool.as_ref().map_or(0, |pool| pool.starved()),
            heap_receives: self.pool.as_ref().map_or(0, |pool| pool.copied()),
            polls: self.scheduler.polls(),
            stalls: self.scheduler.stalls(),
            fruitless_laps: self.fruitless.get(),
            caught_panics: tally.panics + self.panics.get() + self.caught_panics.get(),
        }
    }

    /// Counts a sleep that brought nothing, unless the kernel said why it ended: a signal, a refusal, or
    /// a kick for what the lap before had already seen.
    #[cold]
    pub(super) fn note_fruitless_lap(&self) {
        let driver = self.ring.tally().driver;
        let excuses = driver.interrupted + driver.refused + driver.kicks;
        if self.excused.replace(excuses) == excuses {
            self.fruitless.set(self.fruitless.get() + 1);
        }
    }

    /// Runs a callback that another thread sent; its panic must not end the loop.
    pub(super) fn call(f: impl FnOnce()) {
        let Err(panic) = catch_unwind(AssertUnwindSafe(f)) else { return };
        if let Some(local) = Local::current() {
            local.panics.set(local.panics.get() + 1);
            let text = crate::task::describe(&*panic);
            local.log.line(&format!("core {}: a callback panicked: {text}", local.index));
        }
        discard(panic);
    }
}
