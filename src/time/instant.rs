//! A point in time, of the clock that the current core's kernel has.

use std::fmt;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::time::Duration;

use crate::op;

/// A point in time on the monotonic clock.
///
/// It is like [`std::time::Instant`], except that under a simulated kernel it is that kernel's
/// time. It has nanoseconds, does not go back, and does not count while the machine is suspended.
/// Sums beyond its range, 584 years, stay at the end of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The time now, read afresh from the core's clock.
    #[must_use]
    pub fn now() -> Instant {
        Instant(op::now())
    }

    pub(crate) fn from_ns(ns: u64) -> Instant {
        Instant(ns)
    }

    pub(crate) fn ns(self) -> u64 {
        self.0
    }

    /// How long ago this was; zero if it is still to come.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        Instant::now().duration_since(*self)
    }

    /// The time from `earlier` to this; zero if `earlier` is later.
    #[must_use]
    pub fn duration_since(&self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// The end of the clock's range, 584 years on: what is to happen then never happens.
pub(super) const NEVER: u64 = u64::MAX;

/// A duration as the clock counts; the longest that it can hold stands for all longer ones.
pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_add(nanoseconds(duration)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;

    fn sub(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_sub(nanoseconds(duration)))
    }
}

impl SubAssign<Duration> for Instant {
    fn sub_assign(&mut self, duration: Duration) {
        *self = *self - duration;
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Instant) -> Duration {
        self.duration_since(earlier)
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Instant({:?})", Duration::from_nanos(self.0))
    }
}
