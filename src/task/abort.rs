//! Ending a task without its handle, or with it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::join::{JoinError, JoinHandle};
use super::registry;
use super::table::TaskId;
use crate::sys::current;

/// Ends a task. It does not keep the task's output, and there may be many for one task.
///
/// It may be used and dropped on any thread.
///
/// ```
/// # quoit::runtime::run(async {
/// let task = quoit::spawn(std::future::pending::<()>());
/// let abort = task.abort_handle();
/// quoit::call_soon(move || abort.abort());
/// assert!(task.await.unwrap_err().is_cancelled());
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct AbortHandle {
    core: u64,
    id: TaskId,
}

impl AbortHandle {
    pub(super) fn new(core: u64, id: TaskId) -> Self {
        AbortHandle { core, id }
    }

    /// As [`JoinHandle::abort`].
    pub fn abort(&self) {
        let id = self.id;
        registry::on_core(self.core, move |scheduler| scheduler.abort(id));
    }

    /// Whether the task has ended.
    ///
    /// # Panics
    /// On another core than the task's own.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        let finished =
            current::on(self.core, |scheduler: &super::Scheduler| scheduler.is_finished(self.id));
        finished.unwrap_or_else(|| {
            panic!("an AbortHandle of core {} was asked on another, which cannot know", self.core)
        })
    }
}

impl fmt::Debug for AbortHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AbortHandle").field("core", &self.core).field("task", &self.id).finish()
    }
}

/// A [`JoinHandle`] that ends its task when it is dropped, where the handle itself would detach it.
///
/// ```
/// use quoit::task::AbortOnDrop;
/// use std::cell::Cell;
/// use std::rc::Rc;
///
/// # quoit::runtime::run(async {
/// let alive = Rc::new(());
/// let held = Rc::clone(&alive);
/// let task = AbortOnDrop::new(quoit::spawn(async move {
///     let _held = held;
///     std::future::pending::<()>().await
/// }));
/// drop(task);
/// quoit::task::yield_now().await;
/// assert_eq!(Rc::strong_count(&alive), 1);
/// # }).unwrap();
/// ```
#[derive(Debug)]
#[must_use = "the task is aborted when this is dropped"]
pub struct AbortOnDrop<T> {
    task: Option<JoinHandle<T>>,
}

impl<T> AbortOnDrop<T> {
    /// From now on the task ends with this.
    pub fn new(task: JoinHandle<T>) -> Self {
        AbortOnDrop { task: Some(task) }
    }

    /// Ends the task now; awaiting this then says so.
    pub fn abort(&self) {
        self.handle().abort();
    }

    /// Whether the task has ended.
    ///
    /// # Panics
    /// On another core than the task's own.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.handle().is_finished()
    }

    /// Gives the handle back, whose drop ends nothing.
    pub fn detach(mut self) -> JoinHandle<T> {
        self.task.take().expect("it is there until the drop")
    }

    fn handle(&self) -> &JoinHandle<T> {
        self.task.as_ref().expect("it is there until the drop")
    }
}

impl<T> From<JoinHandle<T>> for AbortOnDrop<T> {
    fn from(task: JoinHandle<T>) -> Self {
        AbortOnDrop::new(task)
    }
}

impl<T> Future for AbortOnDrop<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let task = self.task.as_mut().expect("it is there until the drop");
        Pin::new(task).poll(context)
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}
