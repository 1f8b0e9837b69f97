//! Waiting for a point in time.

use std::fmt;
use std::future::Future;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::Instant;
use super::instant::NEVER;
use super::timers;
use super::wheel::Key;
use crate::sys::current;

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

/// Waits until `deadline`; one that has passed ends at the first poll, or within the lap of it.
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
///
/// ```
/// use quoit::time::{Instant, sleep};
/// use std::time::Duration;
///
/// # quoit::runtime::run(async {
/// let mut nap = sleep(Duration::MAX);
/// nap.reset(Instant::now() + Duration::from_millis(5));
/// (&mut nap).await;
/// assert!(nap.is_elapsed());
/// # }).unwrap();
/// ```
#[must_use = "futures do nothing unless they are awaited"]
pub struct Sleep {
    deadline: u64,
    /// The core and the timer there, from the first poll to the end.
    timer: Option<(NonZeroU64, Key)>,
}

const _: () = assert!(size_of::<Sleep>() == 24);

impl Sleep {
    /// When it ends.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        Instant::from_ns(self.deadline)
    }

    /// Whether its deadline has passed. It may still have to be polled.
    #[must_use]
    pub fn is_elapsed(&self) -> bool {
        Instant::now().ns() >= self.deadline
    }

    /// Waits until `deadline` instead, also when it has ended already.
    ///
    /// Whoever awaits it is not woken by this, and has to poll it again.
    pub fn reset(&mut self, deadline: Instant) {
        self.cancel();
        self.deadline = deadline.ns();
    }

    #[inline]
    fn cancel(&mut self) {
        if let Some((core, key)) = self.timer.take() {
            timers::cancel(core.get(), key);
        }
    }

    /// The first poll: most deadlines are still to come, so this sets the timer.
    #[inline]
    fn start(&mut self, waker: &Waker) -> Poll<()> {
        let passed = timers::with("a sleep", |timers| timers.has_passed(self.deadline));
        if passed {
            return Poll::Ready(());
        }
        if self.deadline == NEVER {
            return Poll::Pending;
        }
        // Cloning runs the waker's code, so before anything is borrowed.
        let waker = waker.clone();
        let key = timers::with("a sleep", |timers| timers.wake_at(self.deadline, waker));
        let core = current::id().expect("the timers are of a core");
        self.timer = NonZeroU64::new(core).map(|core| (core, key));
        Poll::Pending
    }
}

impl Future for Sleep {
    type Output = ();

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some((core, key)) = self.timer else { return self.start(context.waker()) };
        assert!(
            current::id() == Some(core.get()),
            "a sleep of core {core} was polled on another; await it where it was first polled"
        );
        let deadline = self.deadline;
        if timers::with("a sleep", |timers| timers.is_asleep(deadline, key, context.waker())) {
            return Poll::Pending;
        }
        self.timer = None;
        Poll::Ready(())
    }
}

impl Drop for Sleep {
    #[inline]
    fn drop(&mut self) {
        self.cancel();
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = self.deadline().duration_since(Instant::now());
        f.debug_struct("Sleep").field("left", &left).finish_non_exhaustive()
    }
}
