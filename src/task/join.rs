//! Waiting for a task, or ending it: the handle that `spawn` returns.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::abort::AbortHandle;
use super::registry;
use super::scheduler::Scheduler;
use super::table::TaskId;
use crate::sys::current;

/// Waits for a task's output. Dropping it lets the task run on, detached.
///
/// It can be sent to another thread (if the output can), where it may be dropped or used to
/// [`abort`](JoinHandle::abort), but is awaited on the task's own core.
///
/// ```
/// # quoit::runtime::run(async {
/// let task = quoit::spawn(async { 6 * 7 });
/// assert_eq!(task.await.unwrap(), 42);
/// # }).unwrap();
/// ```
pub struct JoinHandle<T> {
    core: u64,
    id: TaskId,
    taken: bool,
    output: PhantomData<T>,
}

// The output is not in the handle, so nothing in it is pinned.
impl<T> Unpin for JoinHandle<T> {}

impl<T> JoinHandle<T> {
    pub(crate) fn new(core: u64, id: TaskId) -> Self {
        JoinHandle { core, id, taken: false, output: PhantomData }
    }

    pub(super) fn id(&self) -> TaskId {
        self.id
    }

    /// Ends the task: its future is dropped at its next turn, and awaiting it gives a
    /// [`JoinError`] that [`is_cancelled`](JoinError::is_cancelled). A task that has already ended
    /// keeps its output.
    pub fn abort(&self) {
        let id = self.id;
        registry::on_core(self.core, move |scheduler| scheduler.abort(id));
    }

    /// What ends the task without this handle.
    #[must_use]
    pub fn abort_handle(&self) -> AbortHandle {
        AbortHandle::new(self.core, self.id)
    }

    /// Whether the task has ended.
    ///
    /// # Panics
    /// On another core than the task's own.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.here(|scheduler| scheduler.is_finished(self.id))
    }

    /// The task's core, and its name there.
    pub(super) fn name(&self) -> (u64, TaskId) {
        (self.core, self.id)
    }

    /// What operations note of the task: nobody else has it before the outcome is taken.
    pub(crate) fn key(&self) -> u32 {
        self.id.key()
    }

    /// Waits for the end of the task, and leaves its outcome where it is.
    pub(crate) fn poll_finished(&self, context: &Context<'_>) -> Poll<()> {
        self.here(|scheduler| scheduler.poll_finished(self.id, context))
    }

    #[inline]
    fn here<R>(&self, f: impl FnOnce(&Scheduler) -> R) -> R {
        current::on(self.core, f).unwrap_or_else(|| self.is_not_here())
    }

    #[cold]
    fn is_not_here(&self) -> ! {
        panic!(
            "a JoinHandle of core {} was used on {}; await it on the core that spawned the task",
            self.core,
            current::id().map_or("no core".into(), |core| format!("core {core}")),
        );
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: the handle was made with the type of the task's output.
        let outcome = self.here(|scheduler| unsafe { scheduler.join::<T>(self.id, context) });
        self.taken = outcome.is_ready();
        outcome
    }
}

impl<T> Drop for JoinHandle<T> {
    #[inline]
    fn drop(&mut self) {
        if !self.taken {
            detach(self.core, self.id);
        }
    }
}

/// Nobody will ask for the outcome. On its own, so that a handle that was awaited costs a look.
#[inline(never)]
fn detach(core: u64, id: TaskId) {
    registry::on_core(core, move |scheduler| scheduler.detach(id));
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").field("core", &self.core).field("task", &self.id).finish()
    }
}

/// Why a task has no output: it was aborted, it panicked, or it could not be started.
///
/// As an [`io::Error`] it is one of the kind `Other`, or the system's own where that refused.
pub struct JoinError {
    failure: Failure,
}

enum Failure {
    Panicked(Panic),
    /// It was not run to its end: because it was aborted, or for this reason.
    Cancelled(Option<Box<io::Error>>),
}

// Every join moves one, or room for it.
const _: () = assert!(size_of::<JoinError>() == 16);

struct Panic(Box<dyn Any + Send>);

// SAFETY: through a shared reference only its type is looked at, and the text of a `&str` or a
// `String`, which are `Sync`.
unsafe impl Sync for Panic {}

impl JoinError {
    pub(crate) fn cancelled() -> Self {
        JoinError { failure: Failure::Cancelled(None) }
    }

    pub(crate) fn panicked(panic: Box<dyn Any + Send>) -> Self {
        JoinError { failure: Failure::Panicked(Panic(panic)) }
    }

    /// It was never begun, because the system did not let it.
    pub(crate) fn refused(error: io::Error) -> Self {
        JoinError { failure: Failure::Cancelled(Some(Box::new(error))) }
    }

    /// Whether the task was aborted, its runtime was shut down, or it could not be started.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        matches!(self.failure, Failure::Cancelled(_))
    }

    /// Whether the task panicked.
    #[must_use]
    pub fn is_panic(&self) -> bool {
        matches!(self.failure, Failure::Panicked(_))
    }

    /// What the task panicked with, for [`std::panic::resume_unwind`].
    ///
    /// # Errors
    /// Gives the error back if the task did not panic.
    pub fn try_into_panic(self) -> Result<Box<dyn Any + Send>, JoinError> {
        match self.failure {
            Failure::Panicked(Panic(panic)) => Ok(panic),
            failure => Err(JoinError { failure }),
        }
    }
}

/// The text of a panic, if it has one.
pub(crate) fn describe(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without a text".into())
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.failure {
            Failure::Panicked(Panic(panic)) => {
                write!(f, "the task panicked: {}", describe(&**panic))
            }
            Failure::Cancelled(None) => f.write_str("the task was aborted"),
            Failure::Cancelled(Some(error)) => write!(f, "the task could not be started: {error}"),
        }
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.failure {
            Failure::Panicked(Panic(panic)) => {
                f.debug_tuple("JoinError::Panic").field(&describe(&**panic)).finish()
            }
            Failure::Cancelled(None) => f.write_str("JoinError::Cancelled"),
            Failure::Cancelled(Some(error)) => {
                f.debug_tuple("JoinError::Refused").field(error).finish()
            }
        }
    }
}

impl std::error::Error for JoinError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.failure {
            Failure::Cancelled(Some(error)) => Some(&**error),
            _ => None,
        }
    }
}

impl From<JoinError> for io::Error {
    fn from(error: JoinError) -> Self {
        match error.failure {
            Failure::Cancelled(Some(error)) => *error,
            _ => io::Error::other(error),
        }
    }
}
