//! One function that blocks: it waits for a thread, runs there, and leaves its outcome.
//!
//! ```text
//!             run                  settle              poll
//!   Waiting ──────▶ Running ─────────────────▶ Ended ─────▶ Taken
//!      │                                         ▲
//!      └─────────────────────────────────────────┘
//!        end: aborted, refused, or its pool closed
//! ```
//!
//! One allocation holds the function, its outcome and whoever waits for that.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::task::{Context, Poll, Waker};

use crate::sys::atomic::{Arc, Mutex, MutexGuard};
use crate::sys::fork::{Forked, forked};
use crate::sys::guard;
use crate::task::JoinError;

struct Job<F, T>(Mutex<State<F, T>>);

struct State<F, T> {
    stage: Stage<F, T>,
    waker: Option<Waker>,
}

enum Stage<F, T> {
    Waiting(F),
    Running,
    Ended(Result<T, JoinError>),
    Taken,
}

/// A job to the thread that runs it.
trait Run: Send + Sync {
    fn run(&self);
    /// Ends it if it has not begun.
    fn end(&self, why: JoinError);
}

/// A job to whoever wants its output.
pub(super) trait Outcome<T>: Send + Sync {
    fn poll(&self, context: &mut Context<'_>) -> Poll<Result<T, JoinError>>;
    /// Ends it if it has not begun.
    fn abort(&self);
    fn is_finished(&self) -> bool;
    /// Nobody waits any more.
    fn detach(&self);
}

/// A job that somebody has to run. Dropping it cancels one that has not begun.
pub(super) struct Owed(Arc<dyn Run>);

impl Owed {
    pub(super) fn run(&self) {
        self.0.run();
    }

    pub(super) fn refuse(&self, error: io::Error) {
        self.0.end(JoinError::refused(error));
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        if !forked() {
            self.0.end(JoinError::cancelled());
        }
    }
}

pub(super) fn new<F, T>(f: F) -> (Owed, Arc<dyn Outcome<T>>)
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let state = State { stage: Stage::Waiting(f), waker: None };
    let job = Arc::new(Job(Mutex::new(state)));
    (Owed(Arc::clone(&job) as Arc<dyn Run>), job)
}

impl<F, T> Job<F, T> {
    fn lock(&self) -> MutexGuard<'_, State<F, T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F, T> Run for Job<F, T>
where
    F: FnOnce() -> T + Send,
    T: Send,
{
    fn run(&self) {
        let mut state = self.lock();
        let f = match std::mem::replace(&mut state.stage, Stage::Running) {
            Stage::Waiting(f) => f,
            // It was aborted.
            stage => {
                state.stage = stage;
                return;
            }
        };
        drop(state);
        let outcome = catch_unwind(AssertUnwindSafe(f)).map_err(JoinError::panicked);
        let mut state = self.lock();
        state.stage = Stage::Ended(outcome);
        let waker = state.waker.take();
        // Wake after the lock is released: a waker may do anything.
        drop(state);
        waker.into_iter().for_each(guard::wake);
    }

    fn end(&self, why: JoinError) {
        let mut state = self.lock();
        if !matches!(state.stage, Stage::Waiting(_)) {
            return;
        }
        let stage = std::mem::replace(&mut state.stage, Stage::Ended(Err(why)));
        let waker = state.waker.take();
        drop(state);
        guard::discard(Some(stage));
        waker.into_iter().for_each(guard::wake);
    }
}

impl<F, T> Outcome<T> for Job<F, T>
where
    F: FnOnce() -> T + Send,
    T: Send,
{
    fn poll(&self, context: &mut Context<'_>) -> Poll<Result<T, JoinError>> {
        if forked() {
            // Its thread is not in this process, and may have held the lock.
            return Poll::Ready(Err(JoinError::refused(Forked.into())));
        }
        // Clone before, and drop after, the lock is held: a waker may do anything.
        let mut waker = Some(context.waker().clone());
        let mut state = self.lock();
        let stage = match &state.stage {
            Stage::Waiting(_) | Stage::Running => {
                std::mem::swap(&mut state.waker, &mut waker);
                drop(state);
                guard::discard(waker);
                return Poll::Pending;
            }
            Stage::Ended(_) | Stage::Taken => std::mem::replace(&mut state.stage, Stage::Taken),
        };
        drop(state);
        match stage {
            Stage::Ended(outcome) => Poll::Ready(outcome),
            _ => panic!("a BlockingTask was polled after it had completed"),
        }
    }

    fn abort(&self) {
        if !forked() {
            self.end(JoinError::cancelled());
        }
    }

    fn is_finished(&self) -> bool {
        forked() || matches!(self.lock().stage, Stage::Ended(_) | Stage::Taken)
    }

    fn detach(&self) {
        if !forked() {
            let waker = self.lock().waker.take();
            guard::discard(waker);
        }
    }
}
