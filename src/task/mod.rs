//! Tasks: runnable futures of one core, and the only way in from other threads.

mod abort;
mod before;
pub(crate) mod blocking;
mod builder;
mod callback;
mod children;
mod gather;
mod inbox;
mod join;
mod join_macros;
mod join_set;
mod lanes;
mod local;
mod members;
mod origin;
pub(crate) mod outbox;
mod panics;
mod queue;
mod raw;
pub(crate) mod registry;
mod scheduler;
mod scope;
mod select;
mod table;
mod view;
mod watch;
mod watchdog;
mod yielding;

pub use abort::{AbortHandle, AbortOnDrop};
pub use before::Before;
pub use blocking::{BlockingTask, spawn_blocking};
pub use builder::Builder;
pub use callback::call_soon;
pub use gather::{Gather, TryGather, gather, gather_limit, try_gather, try_gather_limit};
pub use join::{JoinError, JoinHandle};
#[doc(hidden)]
pub use join_macros::Part;
pub use join_set::JoinSet;
pub use local::{AccessError, LocalKey};
pub use panics::{OnPanic, TaskPanic};
pub use queue::Queue;
pub use scope::{Scope, scope};
#[doc(hidden)]
pub use select::{Selected, Start};
pub use yielding::{ConsumeBudget, YieldNow, consume_budget, yield_now};

use std::panic::Location;

use crate::sys::current;
pub(crate) use inbox::Remote;
pub(crate) use join::describe;
pub(crate) use origin::Site;
pub(crate) use panics::{Called, Policy};
pub(crate) use scheduler::{Care, Scheduler};
pub(crate) use view::Phase;
pub(crate) use watch::Watch;
pub(crate) use watchdog::Pulse;

/// Starts a task on this core. It runs until it ends, whether or not its handle is kept.
///
/// The future need not be `Send`: tasks never move to another core. A panic ends the task and
/// nothing else; the [`JoinHandle`] then gives a [`JoinError`].
///
/// # Panics
/// Outside of a runtime.
///
/// ```
/// # quoit::runtime::run(async {
/// let task = quoit::spawn(async { "done" });
/// assert_eq!(task.await.unwrap(), "done");
/// # }).unwrap();
/// ```
#[inline]
#[track_caller]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    spawn_at(future, Location::caller())
}

/// Starts a task that is known by another place than that of this call.
#[inline]
#[track_caller]
pub(crate) fn spawn_at<F>(future: F, at: Site) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    match current::with(|scheduler: &Scheduler| (scheduler.core(), scheduler.spawn(future, at))) {
        Some((core, id)) => JoinHandle::new(core, id),
        None => {
            panic!("spawn was called outside of a runtime; start one with `quoit::runtime::run`")
        }
    }
}
