//! Tasks that end before whoever started them goes on.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use slab::Slab;

use super::join::JoinHandle;
use super::raw::Panic;
use super::registry;
use super::spawn;
use super::table::TaskId;
use crate::sys::guard;

/// Runs `body`, which may start tasks in its scope, and ends when it and all of them have ended.
///
/// The first error, of the body or of a task, is the scope's: what has not ended is then dropped, and
/// nothing of the scope runs any more when this returns. So it is with the first panic, which becomes a
/// panic of whoever awaits the scope. Otherwise the result is that of the body.
///
/// Dropping the future drops the body and every task of the scope at once, and so on with the scopes
/// that these have opened. (A task that drops the scope that it runs in ends at its next turn.) What
/// they had in flight is cancelled, and what arrives for it is not lost.
///
/// The futures are `'static`: a scope that is leaked, with [`std::mem::forget`], lets its tasks run on, and
/// they must not borrow from what is gone then. Give them clones of an [`Rc`]. A task costs one
/// allocation, as any other.
///
/// ```
/// use quoit::task::scope;
/// use std::io;
///
/// async fn fetch(number: u32) -> io::Result<u32> {
///     if number < 100 { Ok(number) } else { Err(io::ErrorKind::NotFound.into()) }
/// }
///
/// # quoit::runtime::run(async {
/// let sum = scope(async |scope| {
///     let (one, two) = (scope.spawn(fetch(1)), scope.spawn(fetch(2)));
///     // Nobody awaits this one, but the scope does.
///     scope.spawn(fetch(3));
///     Ok(one.await? + two.await?)
/// });
/// assert_eq!(sum.await?, 3);
///
/// let failed = scope(async |scope| {
///     scope.spawn(fetch(100));
///     scope.spawn(std::future::pending::<io::Result<()>>());
///     Ok(())
/// });
/// assert_eq!(failed.await.unwrap_err().kind(), io::ErrorKind::NotFound);
/// # io::Result::Ok(()) }).unwrap().unwrap();
/// ```
pub async fn scope<T, E, F>(body: F) -> Result<T, E>
where
    F: AsyncFnOnce(Scope<E>) -> Result<T, E>,
    E: 'static,
{
    // It is dropped last, when the body is gone.
    let owner = Owner(Rc::default());
    let state = &owner.0;
    let outcome = {
        let mut body = pin!(body(Scope { state: Rc::clone(state) }));
        poll_fn(|context| {
            if state.has_failed() {
                return Poll::Ready(None);
            }
            let outcome = body.as_mut().poll(context);
            if outcome.is_pending() {
                state.wait(context.waker());
            }
            outcome.map(Some)
        })
        .await
    };
    let outcome = match outcome {
        Some(Ok(output)) => {
            poll_fn(|context| state.poll_end(context)).await;
            Some(output)
        }
        Some(Err(error)) => {
            state.fail(Failure::Error(error));
            None
        }
        None => None,
    };
    state.end();
    match (state.failure.take(), outcome) {
        (None, Some(output)) => Ok(output),
        (Some(Failure::Error(error)), _) => Err(error),
        (Some(Failure::Panic(panic)), _) => resume_unwind(panic),
        (None, None) => unreachable!("a scope without an output has failed"),
    }
}

/// What a [`scope`] gives to its body, to start tasks with. Clones are for tasks that start others.
pub struct Scope<E> {
    state: Rc<State<E>>,
}

impl<E: 'static> Scope<E> {
    /// Starts a task on this core, which ends before the scope does.
    ///
    /// The handle gives its value. If the task fails, then so does the scope, and whoever awaits the
    /// handle is told that the task was cancelled; the error itself is the scope's. Dropping the handle
    /// changes nothing, and [`abort`](JoinHandle::abort) ends this task alone.
    ///
    /// In a scope that is about to fail, the task is dropped before its first turn.
    ///
    /// # Panics
    /// Outside of a runtime, and when the scope has ended.
    #[track_caller]
    pub fn spawn<F, T>(&self, future: F) -> JoinHandle<T>
    where
        F: Future<Output = Result<T, E>> + 'static,
        T: 'static,
    {
        let state = &self.state;
        assert!(!state.ended.get(), "a task was started in a scope that has ended");
        let key = state.tasks.borrow_mut().insert((0, TaskId::NONE));
        let ticket = Ticket { state: Rc::clone(state), key };
        let task = spawn(Member { future, ticket, is_over: false });
        state.tasks.borrow_mut()[key] = task.name();
        task
    }

    /// How many tasks of the scope have not ended.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.tasks.borrow().len()
    }

    /// Whether all tasks of the scope have ended.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<E> Clone for Scope<E> {
    fn clone(&self) -> Self {
        Scope { state: Rc::clone(&self.state) }
    }
}

impl<E> fmt::Debug for Scope<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("len", &self.state.tasks.borrow().len()).finish()
    }
}

/// Why a scope has no output.
enum Failure<E> {
    Error(E),
    Panic(Panic),
}

/// What a scope and its tasks share.
struct State<E> {
    /// Those whose futures are there: their core, and their name on it.
    tasks: RefCell<Slab<(u64, TaskId)>>,
    failure: Cell<Option<Failure<E>>>,
    /// Whoever awaits the scope.
    waiting: Cell<Option<Waker>>,
    ended: Cell<bool>,
}

impl<E> Default for State<E> {
    fn default() -> Self {
        State {
            tasks: RefCell::default(),
            failure: Cell::new(None),
            waiting: Cell::new(None),
            ended: Cell::new(false),
        }
    }
}

impl<E> State<E> {
    fn has_failed(&self) -> bool {
        let failure = self.failure.take();
        let has_failed = failure.is_some();
        self.failure.set(failure);
        has_failed
    }

    /// The first failure is the scope's.
    fn fail(&self, failure: Failure<E>) {
        if self.has_failed() {
            return guard::discard(Some(failure));
        }
        self.failure.set(Some(failure));
        self.wake();
    }

    fn wake(&self) {
        self.waiting.take().into_iter().for_each(guard::wake);
    }

    fn wait(&self, waker: &Waker) {
        let old = self.waiting.take();
        let is_same = old.as_ref().is_some_and(|old| old.will_wake(waker));
        let new = if is_same {
            old
        } else {
            guard::discard(old);
            Some(waker.clone())
        };
        guard::discard(self.waiting.replace(new));
    }

    /// Waits until all tasks have ended, or one has failed.
    fn poll_end(&self, context: &Context<'_>) -> Poll<()> {
        if self.tasks.borrow().is_empty() || self.has_failed() {
            return Poll::Ready(());
        }
        self.wait(context.waker());
        Poll::Pending
    }

    /// Drops the futures of all tasks that are left, those that are started meanwhile included.
    fn end(&self) {
        loop {
            // All at once: to look for each from the beginning would be quadratic.
            let left: Vec<_> =
                self.tasks.borrow().iter().map(|(key, (core, id))| (key, *core, *id)).collect();
            if left.is_empty() {
                break;
            }
            for (key, core, id) in left {
                registry::on_core(core, move |scheduler| scheduler.end_now(id));
                // One that could not end here ends at its next turn. The place may be another's by now.
                let mut tasks = self.tasks.borrow_mut();
                if tasks.get(key).is_some_and(|left| left.1 == id) {
                    tasks.remove(key);
                }
            }
        }
        self.ended.set(true);
    }
}

/// The scope itself: when it goes, by whatever way, its tasks go.
struct Owner<E>(Rc<State<E>>);

impl<E> Drop for Owner<E> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The future of a task in a scope.
struct Member<F, E> {
    // It is dropped first: a task that has left the scope has nothing left.
    future: F,
    ticket: Ticket<E>,
    /// It has failed, and is not polled again: the scope drops it.
    is_over: bool,
}

/// The place of a task in its scope, which is left when this is dropped.
struct Ticket<E> {
    state: Rc<State<E>>,
    key: usize,
}

impl<F, T, E> Future for Member<F, E>
where
    F: Future<Output = Result<T, E>>,
{
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        // SAFETY: nothing is moved out of the reference here.
        let this = unsafe { self.get_unchecked_mut() };
        if this.is_over {
            return Poll::Pending;
        }
        // SAFETY: `future` is pinned as `self` is: nothing moves it before it is dropped in place, as
        // `Member` has no destructor, and Unpin is only implemented (by the compiler) if F is Unpin.
        let future = unsafe { Pin::new_unchecked(&mut this.future) };
        let failure = match catch_unwind(AssertUnwindSafe(|| future.poll(context))) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(Ok(output))) => return Poll::Ready(output),
            Ok(Poll::Ready(Err(error))) => Failure::Error(error),
            Err(panic) => Failure::Panic(panic),
        };
        this.is_over = true;
        this.ticket.state.fail(failure);
        Poll::Pending
    }
}

impl<E> Drop for Ticket<E> {
    fn drop(&mut self) {
        if self.state.ended.get() {
            return;
        }
        self.state.tasks.borrow_mut().try_remove(self.key);
        if self.state.tasks.borrow().is_empty() {
            self.state.wake();
        }
    }
}
