//! Whether what is polled now is late: a deadline around it has passed.
//!
//! Nothing is noted for a deadline before it passes. From then on the future below it is polled while its
//! core says so, and whoever is polled then looks: an operation in flight has itself cancelled and awaits
//! its last answer, one that would begin is refused, and what waits for its turn gives up.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::Poll;

use super::current;

/// How a future was found that is late.
pub(crate) enum Late<T> {
    Ended(T),
    /// It awaits the last answer of an operation that was cancelled.
    Winding,
    /// It waits for something else.
    Stuck,
}

/// Whether what is polled now is late.
#[inline]
pub(crate) fn is_overdue() -> bool {
    current::core(|core| core.overdue.get()).unwrap_or(false)
}

/// What is polled now is late and has to be awaited.
pub(crate) fn await_end() {
    current::core(|core| core.winding.set(core.winding.get() + 1));
}

/// Polls something that is late.
pub(crate) fn poll_late<T>(poll: impl FnOnce() -> Poll<T>) -> Late<T> {
    let reset = Reset(current::core(|core| core.overdue.replace(true)).unwrap_or(false));
    let before = current::core(|core| core.winding.get());
    let polled = poll();
    drop(reset);
    match polled {
        Poll::Ready(output) => Late::Ended(output),
        Poll::Pending if current::core(|core| core.winding.get()) != before => Late::Winding,
        Poll::Pending => Late::Stuck,
    }
}

/// Says what was said before, also after a panic.
struct Reset(bool);

impl Drop for Reset {
    fn drop(&mut self) {
        current::core(|core| core.overdue.set(self.0));
    }
}

/// Awaits `future`, or gives it up when it is late and has not ended.
pub(crate) async fn unless_overdue<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if is_overdue() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// Awaits an operation that loses nothing when it is dropped, or says that it is late.
pub(crate) async fn or_timed_out<T>(future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    unless_overdue(future).await.unwrap_or_else(|| Err(timed_out()))
}

/// The error of what was given up.
pub(crate) fn timed_out() -> io::Error {
    io::Error::from_raw_os_error(libc::ETIMEDOUT)
}
