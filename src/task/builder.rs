//! Spawning with more to say than the future.

use std::future::Future;
use std::panic::Location;

use super::{JoinHandle, Queue, spawn_at};
use crate::sys::atomic::Arc;
use crate::sys::current;
use crate::task::Scheduler;

/// Spawns tasks that have a name, or a queue of their own.
///
/// The name is shown wherever the runtime speaks of the task: when it panics
/// ([`TaskPanic`](super::TaskPanic)), when it keeps its core from other tasks
/// ([`stall_threshold`](crate::runtime::Builder::stall_threshold)), and when the core is asked what it
/// does ([`dump`](crate::runtime::dump)). Every task is known by the place where it was spawned, which
/// costs nothing; a name costs two allocations.
///
/// ```
/// use quoit::task;
///
/// # quoit::runtime::run(async {
/// let reader = task::Builder::new().name("reader").spawn(async { 6 * 7 });
/// assert_eq!(reader.await.unwrap(), 42);
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "a Builder does nothing until `spawn` is called"]
pub struct Builder {
    name: Option<Arc<str>>,
    queue: Option<Queue>,
}

impl Builder {
    /// Without a name, as [`spawn`](super::spawn) does it.
    pub fn new() -> Self {
        Builder::default()
    }

    /// What the task is called. Several tasks may have the same name.
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// In which queue it is, instead of that of the task that spawns it.
    ///
    /// ```
    /// use quoit::task::{self, Queue};
    ///
    /// # quoit::runtime::run(async {
    /// let background = Queue::new("background", 100);
    /// task::Builder::new().name("sweeper").queue(&background).spawn(async {}).await.unwrap();
    /// # }).unwrap();
    /// ```
    pub fn queue(mut self, queue: &Queue) -> Self {
        self.queue = Some(queue.clone());
        self
    }

    /// Starts a task on this core, as [`spawn`](super::spawn) does.
    ///
    /// # Panics
    /// Outside of a runtime; on another core than that of its queue.
    #[track_caller]
    pub fn spawn<F>(self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let task = match self.queue {
            None => spawn_at(future, Location::caller()),
            Some(queue) => queue.spawn(future),
        };
        if let Some(name) = self.name {
            current::with(|scheduler: &Scheduler| scheduler.set_name(task.id(), name));
        }
        task
    }
}
