//! Deadlines that reach the operations below them.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use super::{Elapsed, Instant, Sleep, sleep_until};
use crate::buf::BufError;
use crate::sys::overdue::{Late, is_overdue, poll_late, timed_out};

/// Awaits `future` until `at`, and then gives its operations the time to come back with their buffers.
///
/// When the deadline has passed, operations below that are in flight are cancelled, and awaited: each comes
/// back to the code that awaits it with what has become of it, mostly the error `TimedOut` and its buffer
/// ([`BufError`]). `recv` and `accept` end with that error too, and lose nothing. Operations that begin
/// later fail at once in the same way, so code that tries for ever never ends. That code can clean up.
/// It is dropped, and the answer is [`Elapsed`], as soon as it waits for anything that is no operation: a
/// sleep, another task, a channel. What is dropped loses nothing, as anywhere.
///
/// [`timeout_at`](super::timeout_at) does not wait for the kernel: it ends at the deadline, and the
/// buffers are gone. This one may end later, by as much as the kernel takes for a cancel, which is
/// a moment with sockets.
///
/// The deadline goes down through `join!`, `select!`, `gather` and every future that polls what it
/// awaits, and not into tasks that are spawned. Of deadlines within each other the first one counts. One in
/// the past lets `future` end if it can without waiting. Before it passes it costs a timer.
///
/// ```
/// use quoit::net::{TcpListener, TcpStream};
/// use quoit::time::{Instant, deadline};
/// use std::io;
/// use std::time::Duration;
///
/// # quoit::runtime::run(async {
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let silent = TcpStream::connect(listener.local_addr()?).await?;
/// let mut spare = Vec::new();
/// let request = async {
///     // Nothing of this function knows of the deadline.
///     match silent.read(Vec::with_capacity(4096)).await {
///         Ok((n, _buf)) => Ok(n),
///         Err(failed) => {
///             spare = failed.buf;
///             Err(failed.error)
///         }
///     }
/// };
/// let outcome = deadline(Instant::now() + Duration::from_millis(5), request).await?;
/// assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::TimedOut);
/// assert_eq!(spare.capacity(), 4096);
/// # io::Result::Ok(()) }).unwrap().unwrap();
/// ```
pub async fn deadline<F: IntoFuture>(at: Instant, future: F) -> Result<F::Output, Elapsed> {
    let (mut future, mut clock) = (pin!(future.into_future()), Clock::new(at));
    poll_fn(|context| {
        if !clock.has_passed(context) {
            return future.as_mut().poll(context).map(Ok);
        }
        match poll_late(|| future.as_mut().poll(context)) {
            Late::Ended(output) => Poll::Ready(Ok(output)),
            Late::Winding => Poll::Pending,
            Late::Stuck => Poll::Ready(Err(Elapsed::new())),
        }
    })
    .await
}

/// A limit for one operation with a buffer, which gives the buffer back.
///
/// It is for the calls of this crate that return a [`BufResult`](crate::buf::BufResult) or a buffer
/// alone, and for functions that are made of them. One that waits for something else, a channel or a
/// sleep, is not ended by the limit: [`time::timeout`](super::timeout) drops whatever it is.
pub trait TimeoutExt<T, B>: Future<Output = Result<T, BufError<B>>> + Sized {
    /// Cancels the operation when `limit` is over, counted from the first poll, and awaits what has
    /// become of it: the error `TimedOut` with the buffer and the count of bytes that had moved, or its
    /// true result if the cancel came too late.
    ///
    /// It may take a little longer than `limit`, as long as the kernel takes to cancel. Nothing is lost:
    /// what a read had got goes to the next one. With `Duration::ZERO` it ends well if it can without a
    /// wait; `Duration::MAX` waits for ever.
    ///
    /// ```
    /// use quoit::net::{TcpListener, TcpStream};
    /// use quoit::time::TimeoutExt;
    /// use std::time::Duration;
    ///
    /// # quoit::runtime::run(async {
    /// # let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// # let stream = TcpStream::connect(listener.local_addr()?).await?;
    /// let buf = Vec::with_capacity(4096);
    /// let failed = stream.read(buf).timeout(Duration::from_millis(5)).await.unwrap_err();
    /// assert_eq!(failed.kind(), std::io::ErrorKind::TimedOut);
    /// assert_eq!(failed.buf.capacity(), 4096);
    /// # std::io::Result::Ok(()) }).unwrap().unwrap();
    /// ```
    fn timeout(self, limit: Duration) -> impl Future<Output = Result<T, BufError<B>>> {
        async move {
            // The clock that a deadline is held against may be behind, and no time is over already.
            let now = if limit.is_zero() { Instant::from_ns(0) } else { Instant::now() };
            within(now + limit, self).await
        }
    }

    /// As [`timeout`](TimeoutExt::timeout), until a point in time.
    fn timeout_at(self, at: Instant) -> impl Future<Output = Result<T, BufError<B>>> {
        within(at, self)
    }
}

impl<T, B, F: Future<Output = Result<T, BufError<B>>>> TimeoutExt<T, B> for F {}

async fn within<T, B>(
    at: Instant,
    operation: impl Future<Output = Result<T, BufError<B>>>,
) -> Result<T, BufError<B>> {
    let (mut operation, mut clock) = (pin!(operation), Clock::new(at));
    poll_fn(|context| {
        if !clock.has_passed(context) {
            return operation.as_mut().poll(context);
        }
        match poll_late(|| operation.as_mut().poll(context)) {
            Late::Ended(result) => Poll::Ready(
                result.map_err(|failed| BufError { error: as_timeout(failed.error), ..failed }),
            ),
            // Whatever it waits for, it alone can give the buffer back.
            Late::Winding | Late::Stuck => Poll::Pending,
        }
    })
    .await
}

/// A cancel that the deadline has brought about.
fn as_timeout(error: io::Error) -> io::Error {
    if error.raw_os_error() == Some(libc::ECANCELED) { timed_out() } else { error }
}

/// Whether it is late, by this deadline or by one around it.
struct Clock {
    sleep: Sleep,
    has_passed: bool,
}

impl Clock {
    fn new(at: Instant) -> Self {
        Clock { sleep: sleep_until(at), has_passed: false }
    }

    fn has_passed(&mut self, context: &mut Context<'_>) -> bool {
        self.has_passed =
            self.has_passed || is_overdue() || Pin::new(&mut self.sleep).poll(context).is_ready();
        self.has_passed
    }
}
