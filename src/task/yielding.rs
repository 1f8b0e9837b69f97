//! Letting others run first.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::scheduler::Scheduler;
use crate::sys::current;

/// Lets every other task that is ready run before this one goes on.
///
/// ```
/// # quoit::runtime::run(async {
/// let other = quoit::spawn(async { println!("first") });
/// quoit::task::yield_now().await;
/// assert!(other.is_finished());
/// # }).unwrap();
/// ```
pub fn yield_now() -> YieldNow {
    YieldNow { yielded: false }
}

/// The future of [`yield_now`].
#[derive(Debug)]
#[must_use = "futures do nothing unless they are awaited"]
pub struct YieldNow {
    yielded: bool,
}

impl Future for YieldNow {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.yielded {
            return Poll::Ready(());
        }
        self.yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Lets others run first if this task has gone on for long: at most 128 of these end at once in one
/// poll, and the next [yields](yield_now).
///
/// A core polls its tasks in laps: 128 polls, or 100 µs, and it looks after its kernel and its timers.
/// So a task that is ready in every poll keeps nobody waiting, but one that never ends a poll does. What
/// comes from the kernel ends a poll by itself, because its answers come between two laps. A loop that
/// awaits nothing, or what other threads may always have ready, needs this.
///
/// Dropping it loses nothing.
///
/// # Panics
/// When it is awaited outside of a runtime.
///
/// ```
/// # quoit::runtime::run(async {
/// let other = quoit::spawn(async { "was not kept waiting" });
/// while !other.is_finished() {
///     // some work, and then:
///     quoit::task::consume_budget().await;
/// }
/// # }).unwrap();
/// ```
pub fn consume_budget() -> ConsumeBudget {
    ConsumeBudget { yielded: false }
}

/// The future of [`consume_budget`].
#[derive(Debug)]
#[must_use = "futures do nothing unless they are awaited"]
pub struct ConsumeBudget {
    yielded: bool,
}

impl Future for ConsumeBudget {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let spent = current::with(Scheduler::spend_budget).unwrap_or_else(|| {
            panic!(
                "consume_budget was awaited outside of a runtime; start one with \
                 `quoit::runtime::run`"
            )
        });
        if spent || self.yielded {
            return Poll::Ready(());
        }
        self.yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}
