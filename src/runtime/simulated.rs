//! What the simulator does with a core, from outside and between two turns.

use std::future::Future;

use super::Runtime;
use super::core::Core;
use super::entry::Main;
use super::error::BoxError;
use super::start::until_stopped;
use crate::task::JoinHandle;

impl Runtime {
    /// Starts a main, as the core's thread would.
    pub(crate) fn start<Form, M: Main<Form>>(
        &self,
        main: std::rc::Rc<M>,
    ) -> JoinHandle<Result<(), BoxError>> {
        let core = Core::new(self.shard.local().clone());
        self.spawn(async move { until_stopped(&*main, core).await })
    }

    /// Takes the outcome of a task that has ended.
    pub(crate) fn outcome<F: Future>(&self, ended: F) -> F::Output {
        self.shard.block_on(ended)
    }

    /// Asks the core to stop, by this time of its clock.
    pub(crate) fn request_stop(&self, deadline: u64) {
        self.shard.within(|| self.shard.local().stop.request(deadline));
    }

    /// The time is over that it had for that.
    pub(crate) fn end_grace(&self) {
        self.shard.within(|| self.shard.local().stop.end());
    }

    /// Makes laps of so many polls.
    pub(crate) fn set_budget(&self, polls: u32) {
        self.shard.set_budget(polls);
    }

    /// Has what is up to chance come out otherwise.
    pub(crate) fn set_chance(&self, seed: u64) {
        self.shard.scheduler().set_chance(seed);
    }

    /// Has the ready tasks run in another order.
    pub(crate) fn reorder(&self, choose: impl FnMut(usize) -> usize) {
        self.shard.scheduler().reorder(choose);
    }

    /// Wakes a task for nothing.
    pub(crate) fn wake_for_nothing(&self, choose: impl FnOnce(usize) -> usize) {
        self.shard.within(|| self.shard.scheduler().wake_for_nothing(choose));
    }

    /// Whether no task is ready, and no other core has sent anything.
    pub(crate) fn is_quiet(&self) -> bool {
        self.shard.is_quiet()
    }

    /// When the first timer is due, in nanoseconds of the kernel's clock.
    pub(crate) fn next_timer(&self) -> Option<u64> {
        self.shard.next_timer()
    }

    /// Buffers of the pool that are with the kernel, or leased.
    pub(crate) fn published(&self) -> Option<u16> {
        self.shard.local().pool.as_ref().map(|pool| pool.published())
    }
}
