//! Time: sleeping, deadlines, intervals, callbacks.

mod timers;
#[cfg_attr(not(test), expect(dead_code, reason = "a wheel has verbs that only its tests use"))]
mod wheel;

mod instant;
mod sleep;

pub use instant::Instant;
pub use sleep::{Sleep, sleep, sleep_until};

pub(crate) use timers::Timers;
