//! Futures that must end by a point in time.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::{Instant, Sleep, sleep_until};
use crate::task::Before;

/// Awaits `future` for at most `duration`, counted from this call.
///
/// The future is polled first, so an output that is there wins, even when the time is up; with
/// `Duration::ZERO` it is polled once. `Duration::MAX` waits for ever. The future is dropped with the
/// timeout; whether that loses anything is for the future to say.
///
/// ```
/// use std::time::Duration;
/// use quoit::time::{sleep, timeout};
///
/// # quoit::runtime::run(async {
/// let quick = timeout(Duration::from_secs(5), async { 7 }).await;
/// assert_eq!(quick, Ok(7));
/// let slow = timeout(Duration::from_millis(5), sleep(Duration::MAX)).await;
/// assert!(slow.is_err());
/// # }).unwrap();
/// ```
pub fn timeout<F>(duration: Duration, future: F) -> Timeout<F::IntoFuture>
where
    F: IntoFuture,
{
    timeout_at(Instant::now() + duration, future)
}

/// Awaits `future` until `deadline` at most. It is [`timeout`] in all else.
///
/// ```
/// use std::time::Duration;
/// use quoit::time::{Instant, sleep, timeout_at};
///
/// # quoit::runtime::run(async {
/// let deadline = Instant::now() + Duration::from_millis(5);
/// // Both together get 5 ms.
/// assert!(timeout_at(deadline, sleep(Duration::MAX)).await.is_err());
/// assert!(timeout_at(deadline, sleep(Duration::MAX)).await.is_err());
/// # }).unwrap();
/// ```
pub fn timeout_at<F>(deadline: Instant, future: F) -> Timeout<F::IntoFuture>
where
    F: IntoFuture,
{
    Before::new(future.into_future(), Deadline(sleep_until(deadline)))
}

/// The future of [`timeout`] and [`timeout_at`].
///
/// ```
/// use quoit::time::{Deadline, Timeout, timeout};
/// use std::future::{Ready, ready};
/// use std::time::Duration;
///
/// # quoit::runtime::run(async {
/// let answer: Timeout<Ready<u8>> = timeout(Duration::from_secs(1), ready(1));
/// assert_eq!(answer.into_inner().await, 1);
/// # }).unwrap();
/// ```
pub type Timeout<F> = Before<F, Deadline>;

/// A sleep that ends as [`Elapsed`]: the limit of a [`Timeout`].
///
/// ```
/// use quoit::time::{Deadline, Elapsed, sleep};
/// use std::time::Duration;
///
/// # quoit::runtime::run(async {
/// let elapsed: Elapsed = Deadline::from(sleep(Duration::from_millis(1))).await;
/// # }).unwrap();
/// ```
#[derive(Debug)]
#[must_use = "futures do nothing unless they are awaited"]
pub struct Deadline(Sleep);

impl From<Sleep> for Deadline {
    fn from(sleep: Sleep) -> Self {
        Deadline(sleep)
    }
}

impl Future for Deadline {
    type Output = Elapsed;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Elapsed> {
        Pin::new(&mut self.0).poll(context).map(|()| Elapsed(()))
    }
}

/// The error of a [`timeout`]: its time was up. As an [`io::Error`] it is `TimedOut`.
///
/// ```
/// use std::io;
/// use std::time::Duration;
/// use quoit::time::{sleep, timeout};
///
/// async fn work() -> io::Result<()> {
///     timeout(Duration::from_millis(1), sleep(Duration::MAX)).await?;
///     Ok(())
/// }
/// # quoit::runtime::run(async {
/// assert_eq!(work().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed(());

impl Elapsed {
    pub(super) fn new() -> Self {
        Elapsed(())
    }
}

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the deadline has passed")
    }
}

impl std::error::Error for Elapsed {}

impl From<Elapsed> for io::Error {
    fn from(elapsed: Elapsed) -> io::Error {
        io::Error::new(io::ErrorKind::TimedOut, elapsed)
    }
}
