//! A task on another core: its output, and the place where that is awaited.

use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::sys::atomic::Arc;
use crate::sys::fork::{Forked, forked};
use crate::sys::{current, guard};
use crate::task::{JoinError, describe};

/// Waits for the output of a task that [`Handle::spawn_on`](super::Handle::spawn_on) started.
///
/// It may be awaited on any core and in any runtime, and sent between threads. Dropping it lets
/// the task run on. The output is a [`JoinError`] if the task panicked, or if its core ended first.
///
/// ```
/// use quoit::runtime::Runtime;
///
/// let runtime = Runtime::new()?;
/// let task = runtime.handle().spawn_on(async || quoit::runtime::core().index()).unwrap();
/// assert_eq!(runtime.block_on(task).unwrap(), 0);
///
/// let never_run = runtime.handle().spawn_on(async || ()).unwrap();
/// drop(runtime);
/// assert!(never_run.wait().unwrap_err().is_cancelled());
/// # quoit::runtime::Result::Ok(())
/// ```
#[must_use = "futures do nothing unless they are awaited; the task runs nevertheless"]
pub struct RemoteTask<T>(Arc<Shared<T>>);

/// The other end: whoever has it owes an outcome.
pub(super) struct Promise<T>(Arc<Shared<T>>);

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

enum State<T> {
    Pending(Option<Waker>),
    Ready(Result<T, JoinError>),
    Taken,
}

pub(super) fn pair<T>() -> (Promise<T>, RemoteTask<T>) {
    let state = Mutex::new(State::Pending(None));
    let shared = Arc::new(Shared { state, changed: Condvar::new() });
    (Promise(Arc::clone(&shared)), RemoteTask(shared))
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Promise<T> {
    /// Runs `future`, and answers with what becomes of it. A panic is the answer, and also this task's,
    /// so that the core hears of it ([`Builder::on_panic`](super::Builder::on_panic)).
    pub(super) async fn keep(self, future: impl Future<Output = T>) {
        let mut text = None;
        let outcome = {
            let mut future = pin!(future);
            poll_fn(|context| {
                let poll = || future.as_mut().poll(context);
                match catch_unwind(AssertUnwindSafe(poll)) {
                    Ok(poll) => poll.map(Ok),
                    Err(panic) => {
                        text = Some(describe(&*panic));
                        Poll::Ready(Err(JoinError::panicked(panic)))
                    }
                }
            })
            .await
        };
        // The future is gone: what it held is free when the answer comes.
        self.settle(outcome);
        if let Some(text) = text {
            resume_unwind(Box::new(text));
        }
    }

    pub(super) fn answer(self, output: T) {
        self.settle(Ok(output));
    }

    /// The first outcome counts.
    fn settle(&self, outcome: Result<T, JoinError>) {
        let mut state = self.0.lock();
        if let State::Pending(waker) = &mut *state {
            let waker = waker.take();
            *state = State::Ready(outcome);
            drop(state);
            self.0.changed.notify_all();
            // Wake after the lock is released: a waker may do anything.
            if let Some(waker) = waker {
                guard::wake(waker);
            }
        }
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        // In a forked child a thread of the parent may have held the lock.
        if !forked() {
            self.settle(Err(JoinError::cancelled()));
        }
    }
}

impl<T> RemoteTask<T> {
    /// Blocks this thread until the task has ended.
    ///
    /// # Errors
    /// As when it is awaited.
    ///
    /// # Panics
    /// Inside a runtime, whose core it would block: await it there.
    #[track_caller]
    pub fn wait(self) -> Result<T, JoinError> {
        assert!(
            current::id().is_none(),
            "RemoteTask::wait was called inside a runtime and would block its core; await it there"
        );
        if forked() {
            return Err(JoinError::refused(Forked.into()));
        }
        let mut state = self.0.lock();
        while let State::Pending(_) = &*state {
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        take(&mut state)
    }
}

fn take<T>(state: &mut State<T>) -> Result<T, JoinError> {
    match std::mem::replace(state, State::Taken) {
        State::Ready(outcome) => outcome,
        State::Pending(_) => unreachable!("the state was looked at under the lock"),
        State::Taken => panic!("a RemoteTask was polled after it had completed"),
    }
}

impl<T> Future for RemoteTask<T> {
    type Output = Result<T, JoinError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if forked() {
            return Poll::Ready(Err(JoinError::refused(Forked.into())));
        }
        // Clone before, and drop after, the lock is held: a waker may do anything.
        let mut waker = Some(context.waker().clone());
        let mut state = self.0.lock();
        if let State::Pending(place) = &mut *state {
            std::mem::swap(place, &mut waker);
            drop(state);
            guard::discard(waker);
            return Poll::Pending;
        }
        let outcome = take(&mut state);
        drop(state);
        Poll::Ready(outcome)
    }
}

impl<T> fmt::Debug for RemoteTask<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteTask").finish_non_exhaustive()
    }
}
