//! Ticks at a fixed rate.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::{Instant, Sleep, sleep_until};

/// Later than this, or than a whole period, a tick counts as missed.
const TOLERANCE: Duration = Duration::from_millis(5);

/// Ticks every `period`, for the first time at once.
///
/// # Panics
/// When `period` is zero.
///
/// ```
/// use std::time::Duration;
/// use quoit::time::{Instant, interval};
///
/// # quoit::runtime::run(async {
/// let start = Instant::now();
/// let mut ticks = interval(Duration::from_millis(2));
/// for _ in 0..3 {
///     ticks.tick().await;
/// }
/// assert!(start.elapsed() >= Duration::from_millis(4));
/// # }).unwrap();
/// ```
#[track_caller]
pub fn interval(period: Duration) -> Interval {
    interval_at(Instant::now(), period)
}

/// Ticks every `period`, for the first time at `start`.
///
/// # Panics
/// When `period` is zero.
///
/// ```
/// use std::time::Duration;
/// use quoit::time::{Instant, interval_at};
///
/// # quoit::runtime::run(async {
/// let start = Instant::now() + Duration::from_millis(2);
/// let mut ticks = interval_at(start, Duration::from_millis(2));
/// assert_eq!(ticks.tick().await, start);
/// assert_eq!(ticks.tick().await, start + Duration::from_millis(2));
/// # }).unwrap();
/// ```
#[track_caller]
pub fn interval_at(start: Instant, period: Duration) -> Interval {
    assert!(!period.is_zero(), "an interval needs a period longer than zero");
    Interval { next: sleep_until(start), period, missed: MissedTickBehavior::default() }
}

/// What an [`Interval`] does after a tick that came too late: by more than 5 ms or a whole period,
/// because nobody awaited it or the core was busy.
///
/// ```
/// use std::time::Duration;
/// use quoit::time::{MissedTickBehavior, interval};
///
/// # quoit::runtime::run(async {
/// let mut ticks = interval(Duration::from_millis(10));
/// assert_eq!(ticks.missed_tick_behavior(), MissedTickBehavior::Burst);
/// ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MissedTickBehavior {
    /// Ticks without a pause until it has caught up: no tick is lost.
    #[default]
    Burst,
    /// Ticks a period after the late tick, and goes on from there.
    Delay,
    /// Leaves out what was missed, and goes on at the next multiple of the period.
    Skip,
}

/// Ticks at a fixed rate; made by [`interval`] and [`interval_at`].
///
/// ```
/// use std::time::Duration;
///
/// # quoit::runtime::run(async {
/// let mut ticks = quoit::time::interval(Duration::from_millis(1));
/// ticks.tick().await;
/// ticks.tick().await;
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct Interval {
    next: Sleep,
    period: Duration,
    missed: MissedTickBehavior,
}

impl Interval {
    /// Waits for the next tick, and gives the time for which it was due.
    ///
    /// Dropping the future loses no tick.
    pub async fn tick(&mut self) -> Instant {
        poll_fn(|context| self.poll_tick(context)).await
    }

    /// Like [`tick`](Interval::tick), for a future of one's own.
    pub fn poll_tick(&mut self, context: &mut Context<'_>) -> Poll<Instant> {
        ready!(Pin::new(&mut self.next).poll(context));
        let due = self.next.deadline();
        self.next.reset(self.after(due, Instant::now()));
        Poll::Ready(due)
    }

    /// When the tick comes that follows the one of `due`.
    fn after(&self, due: Instant, now: Instant) -> Instant {
        let late = now.duration_since(due);
        if late <= TOLERANCE.min(self.period) {
            return due + self.period;
        }
        match self.missed {
            MissedTickBehavior::Burst => due + self.period,
            MissedTickBehavior::Delay => now + self.period,
            MissedTickBehavior::Skip => {
                let since = late.as_nanos() % self.period.as_nanos();
                let since = u64::try_from(since).expect("a clock's difference has 64 bits");
                now + (self.period - Duration::from_nanos(since))
            }
        }
    }

    /// Has the next tick come a period from now, and the others after it.
    pub fn reset(&mut self) {
        self.reset_at(Instant::now() + self.period);
    }

    /// Has the next tick come at `deadline`, and the others after it.
    pub fn reset_at(&mut self, deadline: Instant) {
        self.next.reset(deadline);
    }

    /// The time between two ticks.
    #[must_use]
    pub fn period(&self) -> Duration {
        self.period
    }

    /// What happens after a tick that came too late.
    #[must_use]
    pub fn missed_tick_behavior(&self) -> MissedTickBehavior {
        self.missed
    }

    /// Sets what happens after a tick that came too late.
    pub fn set_missed_tick_behavior(&mut self, behavior: MissedTickBehavior) {
        self.missed = behavior;
    }
}
