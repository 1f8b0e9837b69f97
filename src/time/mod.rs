//! Time: sleeping, deadlines, intervals, callbacks.
//!
//! No timer fires early. How late one fires depends on what else the core does: it looks at its timers
//! once in a lap, which is every 0.1 ms when it is busy with many short tasks.

mod timers;
mod wheel;

mod advance;
mod callback;
mod deadline;
mod instant;
mod interval;
mod join_set;
mod sleep;
mod timeout;

pub use advance::advance;
pub use callback::{TimerHandle, call_at, call_later};
pub use deadline::{TimeoutExt, deadline};
pub use instant::Instant;
pub use interval::{Interval, MissedTickBehavior, interval, interval_at};
pub use sleep::{Sleep, sleep, sleep_until};
pub use timeout::{Deadline, Elapsed, Timeout, timeout, timeout_at};

pub(crate) use instant::nanoseconds;
pub(crate) use timers::{Scheduled, Timers};
