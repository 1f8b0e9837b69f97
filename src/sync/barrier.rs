//! A meeting point.

use std::cell::Cell;
use std::fmt;

use super::notify::Notify;

/// Where tasks wait for each other until so many have come; then all go on, and it can be used again.
///
/// Dropping a future that waits takes its place back: the others wait for one more. tokio's counts it
/// all the same.
///
/// ```
/// use quoit::sync::Barrier;
///
/// # quoit::runtime::run(async {
/// let barrier = Barrier::new(3);
/// let all = quoit::gather((0..3).map(|_| barrier.wait())).await;
/// assert_eq!(all.iter().filter(|one| one.is_leader()).count(), 1);
/// # }).unwrap();
/// ```
pub struct Barrier {
    count: usize,
    arrived: Cell<usize>,
    /// How often it has opened.
    round: Cell<u64>,
    opened: Notify,
}

/// What [`Barrier::wait`] comes to.
///
/// ```
/// use quoit::sync::{Barrier, BarrierWaitResult};
///
/// # quoit::runtime::run(async {
/// let alone: BarrierWaitResult = Barrier::new(1).wait().await;
/// assert!(alone.is_leader());
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BarrierWaitResult(bool);

impl Barrier {
    /// A barrier for so many tasks. One for none is one for one: nobody waits there.
    #[must_use]
    pub const fn new(count: usize) -> Self {
        let (arrived, round) = (Cell::new(0), Cell::new(0));
        Barrier { count, arrived, round, opened: Notify::new() }
    }

    /// Waits until so many wait, counted from the first poll. One of them, the last, is the leader.
    pub async fn wait(&self) -> BarrierWaitResult {
        let opened = self.opened.notified();
        let arrived = self.arrived.get() + 1;
        if arrived >= self.count {
            self.arrived.set(0);
            self.round.set(self.round.get() + 1);
            self.opened.notify_waiters();
            return BarrierWaitResult(true);
        }
        self.arrived.set(arrived);
        let _arrival = Arrival { barrier: self, round: self.round.get() };
        opened.await;
        BarrierWaitResult(false)
    }
}

impl BarrierWaitResult {
    /// Whether this is the leader: it is one of each round.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.0
    }
}

/// Somebody who waits, and leaves unless the barrier has opened.
struct Arrival<'a> {
    barrier: &'a Barrier,
    round: u64,
}

impl Drop for Arrival<'_> {
    fn drop(&mut self) {
        if self.barrier.round.get() == self.round {
            self.barrier.arrived.set(self.barrier.arrived.get() - 1);
        }
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("Barrier");
        text.field("count", &self.count).field("arrived", &self.arrived.get());
        text.finish_non_exhaustive()
    }
}
