//! Queues with shares: work in the foreground and in the background of one core.

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::rc::Rc;
use std::time::Duration;

use super::lanes::{Lane, MOST_SHARES};
use super::{JoinHandle, Scheduler};
use crate::sys::atomic::Arc;
use crate::sys::current;

/// A ready queue with shares of its core's time: a scheduling group, a task queue.
///
/// Every task is in one: those that tasks of a queue spawn are in that queue, and all others, the main
/// included, in the default one, which has 1,000 shares. When several queues have something to do, the
/// core gives them turns of some 50 µs, so that in the long run each has as much time as its shares say:
/// beside the default queue, one with 100 shares has an eleventh. A queue that is alone has all of it,
/// and one that slept does not save up for it. A poll is never cut short: a task of whatever queue that
/// does not end its poll keeps the whole core ([`yield_now`](super::yield_now)).
///
/// What has no task runs when its time has come: functions of [`call_later`](crate::call_later), and
/// what other threads send. What they spawn is in the default queue.
///
/// A core without queues of its own pays nothing for them. A queue stays for as long as its core, which
/// has at most 255: make them once, at the start. A `Queue` is a name; clones name the same.
///
/// ```
/// use quoit::task::Queue;
///
/// # quoit::runtime::run(async {
/// let background = Queue::new("compaction", 50);
/// let task = background.spawn(async {
///     // this one's children are in the background as well
///     quoit::spawn(async { Queue::current().name() }).await.unwrap()
/// });
/// assert_eq!(&*task.await.unwrap(), "compaction");
/// assert_eq!(&*Queue::current().name(), "default");
/// # }).unwrap();
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Queue {
    core: u64,
    number: u8,
}

impl Queue {
    /// Makes a queue on this core.
    ///
    /// # Panics
    /// Outside of a runtime; if `shares` is 0 or above 1,000; and if the core has 255 queues.
    #[must_use]
    #[track_caller]
    pub fn new(name: impl Into<Arc<str>>, shares: u32) -> Queue {
        check(shares);
        Queue::here("Queue::new", |scheduler| scheduler.lanes().add(name.into(), shares))
    }

    /// The queue of the task that calls it; the default one if no task does.
    ///
    /// # Panics
    /// Outside of a runtime.
    #[must_use]
    #[track_caller]
    pub fn current() -> Queue {
        Queue::here("Queue::current", Scheduler::current_lane)
    }

    #[track_caller]
    fn here(what: &str, f: impl FnOnce(&Scheduler) -> u8) -> Queue {
        match current::with(|scheduler: &Scheduler| (scheduler.core(), f(scheduler))) {
            Some((core, number)) => Queue { core, number },
            None => panic!(
                "{what} was called outside of a runtime; start one with `quoit::runtime::run`"
            ),
        }
    }

    /// Starts a task in this queue, as [`spawn`](super::spawn) does in that of its caller.
    ///
    /// # Panics
    /// On another core than the queue's, and outside of a runtime.
    #[track_caller]
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let at = Location::caller();
        let id = self.on_core(|scheduler| scheduler.spawn_in(self.number, future, at));
        JoinHandle::new(self.core, id)
    }

    /// What it is called.
    ///
    /// # Panics
    /// As [`spawn`](Queue::spawn).
    #[must_use]
    #[track_caller]
    pub fn name(&self) -> Arc<str> {
        Arc::clone(&self.lane().name)
    }

    /// Its shares.
    ///
    /// # Panics
    /// As [`spawn`](Queue::spawn).
    #[must_use]
    #[track_caller]
    pub fn shares(&self) -> u32 {
        self.lane().shares()
    }

    /// Gives it other shares, from its next turn on.
    ///
    /// # Panics
    /// As [`spawn`](Queue::spawn); and if `shares` is 0 or above 1,000.
    #[track_caller]
    pub fn set_shares(&self, shares: u32) {
        check(shares);
        self.lane().set_shares(shares);
    }

    /// How long its tasks have run; those of the default queue, since the core has another.
    ///
    /// # Panics
    /// As [`spawn`](Queue::spawn).
    #[must_use]
    #[track_caller]
    pub fn run_time(&self) -> Duration {
        self.lane().ran()
    }

    #[track_caller]
    fn lane(&self) -> Rc<Lane> {
        self.on_core(|scheduler| scheduler.lanes().get(self.number))
    }

    #[track_caller]
    fn on_core<R>(&self, f: impl FnOnce(&Scheduler) -> R) -> R {
        match current::on(self.core, f) {
            Some(output) => output,
            None => panic!(
                "a Queue of core {} was used elsewhere; make one on each core that needs it",
                self.core
            ),
        }
    }
}

#[track_caller]
fn check(shares: u32) {
    assert!(
        (1..=MOST_SHARES).contains(&shares),
        "a queue has from 1 to {MOST_SHARES} shares, not {shares}; the default queue has {MOST_SHARES}"
    );
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("core", &self.core).field("number", &self.number).finish()
    }
}
