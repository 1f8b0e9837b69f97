//! A future and a limit, of which the first to end is the answer.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A future that another one may cut short: it gives the output of `F`, or that of `L` as the error.
///
/// `F` is polled first, so an output that is there wins. What is cut short stays where it is until
/// this is dropped.
///
/// ```
/// use std::future::{pending, ready};
/// use quoit::task::Before;
///
/// # quoit::runtime::run(async {
/// assert_eq!(Before::new(ready("done"), ready("too late")).await, Ok("done"));
/// assert_eq!(Before::new(pending::<u8>(), ready("too late")).await, Err("too late"));
/// # }).unwrap();
/// ```
#[must_use = "futures do nothing unless they are awaited"]
pub struct Before<F, L> {
    future: F,
    limit: L,
}

impl<F: Future, L: Future + Unpin> Before<F, L> {
    /// Joins a future and its limit.
    pub fn new(future: F, limit: L) -> Self {
        Before { future, limit }
    }

    /// The future that may be cut short.
    pub fn get_ref(&self) -> &F {
        &self.future
    }

    /// The future that may be cut short, if nothing pins it any more.
    pub fn into_inner(self) -> F {
        self.future
    }

    fn project(self: Pin<&mut Self>) -> (Pin<&mut F>, Pin<&mut L>) {
        // SAFETY: nothing is moved out of the reference here.
        let this = unsafe { self.get_unchecked_mut() };
        // SAFETY: `future` is pinned as `self` is: nothing moves it before it is dropped in place, as
        // there is no destructor, and Unpin is only implemented (by the compiler) if F is Unpin.
        let future = unsafe { Pin::new_unchecked(&mut this.future) };
        (future, Pin::new(&mut this.limit))
    }
}

impl<F: Future, L: Future + Unpin> Future for Before<F, L> {
    type Output = Result<F::Output, L::Output>;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (future, limit) = self.project();
        if let Poll::Ready(output) = future.poll(context) {
            return Poll::Ready(Ok(output));
        }
        limit.poll(context).map(Err)
    }
}

impl<F, L: fmt::Debug> fmt::Debug for Before<F, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Before").field("limit", &self.limit).finish_non_exhaustive()
    }
}
