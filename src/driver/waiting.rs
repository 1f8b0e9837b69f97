//! How a core sleeps: what it may trade for what.

use std::fmt;
use std::io;
use std::str::FromStr;

/// What a core that has nothing to do prefers; see
/// [`Builder::waiting`](crate::runtime::Builder::waiting).
///
/// ```
/// use quoit::driver::Waiting;
///
/// assert_eq!("throughput".parse(), Ok(Waiting::Throughput));
/// assert_eq!(Waiting::default(), Waiting::Latency);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Waiting {
    /// A sleep ends with the first answer.
    #[default]
    Latency,
    /// A sleep may wait for several answers, for at most 50 µs, where that saves CPU time and where
    /// more answers come for it: clients that wait for their replies send more because they wait
    /// less. Needs io_uring of kernel 6.12; elsewhere it is as `Latency`.
    ///
    /// The core finds out by trying, a few milliseconds at a time, and goes on trying. While it waits
    /// so, an answer may be taken up to 50 µs later than it came, and so may a wake from another
    /// thread, after which it does not wait for a while. A timer is never late for it.
    Balanced,
    /// As `Balanced`, but it is enough that not fewer answers come. This buys CPU time with latency
    /// where requests come whatever the replies do (an open loop): up to 50 µs for each of them.
    Throughput,
    /// Each sleep waits for several answers, for up to 50 µs, whatever comes of it. For tests.
    #[doc(hidden)]
    Always,
}

impl Waiting {
    /// What the environment's `QUOIT_WAITING` says; `Latency` if it says nothing.
    pub(crate) fn of_the_environment() -> Result<Waiting, UnknownWaiting> {
        match std::env::var_os("QUOIT_WAITING") {
            Some(name) => name.to_string_lossy().parse(),
            None => Ok(Waiting::default()),
        }
    }
}

/// A name that is none of `latency`, `balanced` and `throughput`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownWaiting(String);

impl FromStr for Waiting {
    type Err = UnknownWaiting;

    fn from_str(name: &str) -> Result<Self, UnknownWaiting> {
        match name {
            "latency" => Ok(Waiting::Latency),
            "balanced" => Ok(Waiting::Balanced),
            "throughput" => Ok(Waiting::Throughput),
            "always" => Ok(Waiting::Always),
            other => Err(UnknownWaiting(other.to_owned())),
        }
    }
}

impl fmt::Display for UnknownWaiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no way of waiting: choose latency, balanced or throughput", self.0)
    }
}

impl std::error::Error for UnknownWaiting {}

impl From<UnknownWaiting> for io::Error {
    fn from(unknown: UnknownWaiting) -> Self {
        io::Error::new(io::ErrorKind::InvalidInput, unknown)
    }
}
