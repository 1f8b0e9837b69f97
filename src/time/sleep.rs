//! Waiting for a point in time.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::Instant;
use super::timers::{self, Due, Timers};
use super::wheel::Key;
use crate::sys::current;
use crate::task::registry;

/// Waits for `duration`, counted from this call.
///
/// It never ends early, and usually within 0.1 ms after its time. Dropping it cancels it.
/// `Duration::MAX` waits for ever.
///
/// ```
/// use std::time::{Duration, Instant};
///
/// # quoit::runtime::run(async {
/// let start = Instant::now();
/// quoit::time::sleep(Duration::from_millis(5)).await;
/// assert!(start.elapsed() >= Duration::from_millis(5));
/// # }).unwrap();
/// ```
pub fn sleep(duration: Duration) -> Sleep {
    sleep_until(Instant::now() + duration)
}

/// Waits until `deadline`; one that has passed ends at the first poll.
///
/// ```
/// use quoit::time::{Instant, sleep_until};
/// use std::time::Duration;
///
/// # quoit::runtime::run(async {
/// let deadline = Instant::now() + Duration::from_millis(5);
/// sleep_until(deadline).await;
/// assert!(Instant::now() >= deadline);
/// # }).unwrap();
/// ```
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { deadline: deadline.ns(), timer: None }
}

/// The future of [`sleep`] and [`sleep_until`].
///
/// It may be sent to another thread and dropped there, but is awaited on one core.
#[derive(Debug)]
#[must_use = "futures do nothing unless they are awaited"]
pub struct Sleep {
    deadline: u64,
    /// The core and the timer there, from the first poll to the end.
    timer: Option<(u64, Key)>,
}

impl Sleep {
    /// When it ends.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        Instant::from_ns(self.deadline)
    }

    /// Whether it has ended. It is only known once it was polled.
    #[must_use]
    pub fn is_elapsed(&self) -> bool {
        Instant::now().ns() >= self.deadline
    }

    /// Waits until `deadline` instead.
    pub fn reset(&mut self, deadline: Instant) {
        self.cancel();
        self.deadline = deadline.ns();
    }

    fn cancel(&mut self) {
        let Some((core, key)) = self.timer.take() else { return };
        if current::id() == Some(core) {
            timers::with("a sleep", |timers| timers.cancel(key));
        } else if let Some(remote) = registry::remote(core) {
            // A core that has ended has dropped its timers.
            let _ = remote.send(move || {
                current::with(|timers: &Timers| timers.cancel(key));
            });
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some((core, key)) = self.timer else {
            if Instant::now().ns() >= self.deadline {
                return Poll::Ready(());
            }
            let due = Due::Wake(context.waker().clone());
            let key = timers::with("a sleep", |timers| timers.insert(self.deadline, due));
            let core = current::id().expect("the timers are of a core");
            self.timer = Some((core, key));
            return Poll::Pending;
        };
        assert!(
            current::id() == Some(core),
            "a sleep of core {core} was polled on another; await it where it was first polled"
        );
        if timers::with("a sleep", |timers| timers.is_pending(key, context.waker())) {
            return Poll::Pending;
        }
        self.timer = None;
        Poll::Ready(())
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.cancel();
    }
}
