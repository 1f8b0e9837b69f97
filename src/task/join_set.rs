//! Tasks whose outcomes are taken as they come.

use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::resume_unwind;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use slab::Slab;

use super::abort::AbortHandle;
use super::join::{JoinError, JoinHandle};
use super::members::{Ended, Member};
use super::spawn;
use crate::sys::current;

/// A set of tasks: their outcomes are taken in the order in which they come.
///
/// Dropping it aborts all tasks that have not ended: each future is dropped at its next turn.
///
/// It keeps what a task has come to until it is asked for. A set that tasks are added to for ever is
/// asked now and then, best in the same `select!`:
///
/// ```
/// use quoit::task::JoinSet;
///
/// # quoit::runtime::run(async {
/// let mut jobs = (0..10).into_iter();
/// let (mut set, mut sum) = (JoinSet::new(), 0);
/// loop {
///     quoit::select! {
///         job = async { jobs.next() } => match job {
///             Some(job) => { set.spawn(async move { job * job }); }
///             None => break,
///         },
///         Some(square) = set.join_next() => sum += square.unwrap(),
///     }
/// }
/// sum += set.join_all().await.iter().sum::<u32>();
/// assert_eq!(sum, 285);
/// # }).unwrap();
/// ```
///
/// To wait for several futures without making tasks of them there are [`join!`](crate::join) and
/// [`gather`](super::gather); tasks that end with their parent are a [`scope`](super::scope).
pub struct JoinSet<T> {
    tasks: Slab<JoinHandle<T>>,
    ended: Rc<Ended>,
}

impl<T> JoinSet<T> {
    /// A set without tasks.
    #[must_use]
    pub fn new() -> Self {
        JoinSet { tasks: Slab::new(), ended: Rc::default() }
    }

    /// How many tasks are in it: those that run, and those whose outcome was not taken.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether no task is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Starts a task on this core, as [`spawn`], as one of the set.
    ///
    /// # Panics
    /// Outside of a runtime.
    #[track_caller]
    pub fn spawn<F>(&mut self, future: F) -> AbortHandle
    where
        F: Future<Output = T> + 'static,
        T: 'static,
    {
        // Not left to `spawn`: a member that is dropped there would tell the set that it has ended.
        assert!(
            current::id().is_some(),
            "JoinSet::spawn was called outside of a runtime; start one with `quoit::runtime::run`"
        );
        let place = self.tasks.vacant_entry();
        let key = u32::try_from(place.key()).expect("a core has fewer than 2^32 tasks");
        place.insert(spawn(Member::new(future, &self.ended, key))).abort_handle()
    }

    /// The outcome of the next task that ends, or of one that has ended; `None` when the set is empty.
    ///
    /// Dropping the future loses no outcome.
    pub async fn join_next(&mut self) -> Option<Result<T, JoinError>> {
        poll_fn(|context| self.poll_join_next(context)).await
    }

    /// The outcome of a task that has ended; `None` when there is none now.
    ///
    /// ```
    /// use quoit::task::{JoinSet, yield_now};
    ///
    /// # quoit::runtime::run(async {
    /// let mut set = JoinSet::new();
    /// set.spawn(async { "done" });
    /// assert!(set.try_join_next().is_none());
    /// yield_now().await;
    /// assert_eq!(set.try_join_next().unwrap().unwrap(), "done");
    /// # }).unwrap();
    /// ```
    pub fn try_join_next(&mut self) -> Option<Result<T, JoinError>> {
        match self.poll_ended(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => Some(outcome),
            Poll::Pending => None,
        }
    }

    /// As [`join_next`](JoinSet::join_next), for futures that are written by hand. Of those that poll it,
    /// the last is woken.
    pub fn poll_join_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<T, JoinError>>> {
        if self.tasks.is_empty() {
            return Poll::Ready(None);
        }
        if let Poll::Ready(outcome) = self.poll_ended(context) {
            return Poll::Ready(Some(outcome));
        }
        self.ended.wait(context.waker());
        Poll::Pending
    }

    fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<Result<T, JoinError>> {
        let Some(key) = self.ended.pop() else { return Poll::Pending };
        let task =
            self.tasks.get_mut(key as usize).expect("a member is in the set until it is taken");
        let Poll::Ready(outcome) = Pin::new(task).poll(context) else {
            // Its future is gone, and whoever was told so asks before the task itself has ended.
            self.ended.unpop(key);
            return Poll::Pending;
        };
        self.tasks.remove(key as usize);
        Poll::Ready(outcome)
    }

    /// Awaits all tasks, and gives their outputs in the order in which they come.
    ///
    /// Dropping the future aborts the tasks that are left.
    ///
    /// # Panics
    /// When a task panicked, with its panic, or was aborted; the others are aborted then.
    /// [`join_all_by`](JoinSet::join_all_by) gives these as values.
    pub async fn join_all(mut self) -> Vec<T> {
        let mut outputs = Vec::with_capacity(self.len());
        while let Some(outcome) = self.join_next().await {
            match outcome.map_err(JoinError::try_into_panic) {
                Ok(output) => outputs.push(output),
                Err(Ok(panic)) => resume_unwind(panic),
                Err(Err(error)) => panic!("a task of a JoinSet has no output: {error}"),
            }
        }
        outputs
    }

    /// Aborts all tasks. Their outcomes are still to be taken.
    pub fn abort_all(&mut self) {
        self.tasks.iter().for_each(|(_, task)| task.abort());
    }

    /// Lets all tasks run on by themselves, and forgets their outcomes.
    pub fn detach_all(&mut self) {
        // They do not know, and will note their ends where nobody looks.
        self.ended = Rc::default();
        self.tasks.clear();
    }

    /// Aborts all tasks, and waits until their futures are gone. What had come is dropped.
    pub async fn shutdown(&mut self) {
        self.abort_all();
        while self.join_next().await.is_some() {}
    }
}

impl<T> Default for JoinSet<T> {
    fn default() -> Self {
        JoinSet::new()
    }
}

impl<T: 'static, F: Future<Output = T> + 'static> Extend<F> for JoinSet<T> {
    fn extend<I: IntoIterator<Item = F>>(&mut self, futures: I) {
        for future in futures {
            self.spawn(future);
        }
    }
}

impl<T: 'static, F: Future<Output = T> + 'static> FromIterator<F> for JoinSet<T> {
    fn from_iter<I: IntoIterator<Item = F>>(futures: I) -> Self {
        let mut set = JoinSet::new();
        set.extend(futures);
        set
    }
}

impl<T> Drop for JoinSet<T> {
    fn drop(&mut self) {
        self.abort_all();
    }
}

impl<T> fmt::Debug for JoinSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinSet").field("len", &self.len()).finish()
    }
}
