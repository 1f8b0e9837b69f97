//! Functions that block, run by threads beside the cores.

mod job;
pub(crate) mod pool;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use self::job::Outcome;
use super::{JoinError, Scheduler, call_soon};
use crate::sys::atomic::Arc;
use crate::sys::current;

/// Runs `f`, which may block, on a thread beside the cores, and gives its output.
///
/// A core must not be blocked: everything else on it would wait. What has no asynchronous form (the
/// lookup of a name, a compression, a database's C library) goes here. It is asyncio's
/// `run_in_executor`.
///
/// The cores that were started together share the threads: at most
/// [`Builder::max_blocking_threads`](crate::runtime::Builder::max_blocking_threads) (512). Jobs
/// beyond that wait in a queue, first come first served, whose length only memory limits: whoever
/// may be flooded limits himself. A thread may run on every CPU on which the process may, not only on
/// its core's, blocks all signals, and ends after
/// [`Builder::thread_keep_alive`](crate::runtime::Builder::thread_keep_alive) (10 s) without a job.
///
/// Dropping the [`BlockingTask`] lets the job run, detached. When the last of the cores ends, jobs
/// that have not begun are dropped, and those that run are waited for: until the deadline of
/// [`Runtime::shutdown`](crate::runtime::Runtime::shutdown) or of
/// [`Builder::drain_deadline`](crate::runtime::Builder::drain_deadline), and without one for as long
/// as [`Builder::grace`](crate::runtime::Builder::grace). Whoever blocks for longer is left alone.
///
/// In the [simulator](crate::sim) there are no threads: `f` is run in its place in the ready queue,
/// and must not wait for anything that the simulated cores do.
///
/// # Panics
/// Outside of a runtime.
///
/// ```
/// # quoit::runtime::run(async {
/// let sum = quoit::spawn_blocking(|| (1..=1000_u64).sum::<u64>()).await.unwrap();
/// assert_eq!(sum, 500_500);
/// # }).unwrap();
/// ```
#[track_caller]
pub fn spawn_blocking<F, T>(f: F) -> BlockingTask<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let (owed, outcome) = job::new(f);
    let pool = current::with(|scheduler: &Scheduler| scheduler.pool().cloned());
    match pool {
        Some(Some(pool)) => pool.submit(owed),
        Some(None) => call_soon(move || owed.run()),
        None => panic!(
            "spawn_blocking was called outside of a runtime; start one with `quoit::runtime::run`"
        ),
    }
    BlockingTask(outcome)
}

/// Waits for the output of a function that [`spawn_blocking`] runs.
///
/// It may be awaited on any core and in any runtime, and sent between threads. Dropping it lets the
/// function run on. The output is a [`JoinError`] if the function panicked, was
/// [aborted](BlockingTask::abort), or was not begun before its runtime ended; in a forked child it is
/// one whose source is [`Forked`](crate::Forked).
///
/// ```
/// # quoit::runtime::run(async {
/// let failed = quoit::spawn_blocking(|| -> u32 { panic!("no") }).await;
/// assert!(failed.unwrap_err().is_panic());
/// # }).unwrap();
/// ```
#[must_use = "futures do nothing unless they are awaited; the function runs nevertheless"]
pub struct BlockingTask<T>(Arc<dyn Outcome<T>>);

impl<T> BlockingTask<T> {
    /// Has the function dropped if it has not begun; one that runs cannot be stopped, and its output
    /// can still be awaited.
    pub fn abort(&self) {
        self.0.abort();
    }

    /// Whether there is an outcome.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl<T> Future for BlockingTask<T> {
    type Output = Result<T, JoinError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(context)
    }
}

impl<T> Drop for BlockingTask<T> {
    fn drop(&mut self) {
        self.0.detach();
    }
}

impl<T> fmt::Debug for BlockingTask<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockingTask").finish_non_exhaustive()
    }
}
