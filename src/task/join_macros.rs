//! A few futures of different kinds, awaited together: `join!` and `try_join!`.
//!
//! They are macros because a function cannot take any number of futures of different types.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Awaits several futures together, and gives their outputs as a tuple in the same order.
///
/// They run inside this task: nothing is allocated or spawned, and they may borrow from it. Whenever
/// the task is woken, all that have not ended are polled, in the order in which they are written; one
/// that has ended is dropped and not polled again. For many futures, or many wakes, use
/// [`gather`](crate::task::gather), which polls only what was woken.
///
/// ```
/// # quoit::runtime::run(async {
/// let (number, text) = quoit::join!(async { 7 }, async { "seven" });
/// assert_eq!((number, text), (7, "seven"));
/// # }).unwrap();
/// ```
#[macro_export]
macro_rules! join {
    // Each step adds a `part` of its own: an identifier that a macro makes is new in each expansion.
    (@ [$($part:ident $future:expr,)*]) => {
        match ($($future,)*) {
            ($($part,)*) => {
                $(
                    let $part = ::std::pin::pin!(::std::option::Option::Some($part));
                    let mut $part = $crate::task::Part::new($part);
                )*
                ::std::future::poll_fn(|context| {
                    let mut all = true;
                    $(all &= $part.poll(context);)*
                    if all { ::std::task::Poll::Ready(()) } else { ::std::task::Poll::Pending }
                })
                .await;
                ($($part.take(),)*)
            }
        }
    };
    (@ [$($parts:tt)*] $next:expr $(, $($rest:tt)*)?) => {
        $crate::join!(@ [$($parts)* part $next,] $($($rest)*)?)
    };
    () => { () };
    ($($futures:tt)+) => { $crate::join!(@ [] $($futures)+) };
}

/// Awaits several futures of `Result`s together until one fails: gives `Ok` of their values as a
/// tuple in the same order, or the first error. In that case it drops the rest.
///
/// It is [`join!`](crate::join) in all else. Of several errors in one poll, the one whose future is
/// written first counts; those after it are not polled. All errors are of one type.
///
/// ```
/// # quoit::runtime::run(async {
/// let parse = async |text: &str| text.parse::<u32>();
/// assert_eq!(quoit::try_join!(parse("1"), parse("2")), Ok((1, 2)));
/// assert!(quoit::try_join!(parse("1"), parse("two")).is_err());
/// # }).unwrap();
/// ```
#[macro_export]
macro_rules! try_join {
    (@ [$($part:ident $future:expr,)*]) => {
        match ($($future,)*) {
            ($($part,)*) => {
                $(
                    let $part = ::std::pin::pin!(::std::option::Option::Some($part));
                    let mut $part = $crate::task::Part::new($part);
                )*
                ::std::future::poll_fn(|context| {
                    let mut all = true;
                    $(
                        match $part.try_poll(context) {
                            ::std::result::Result::Ok(ended) => all &= ended,
                            ::std::result::Result::Err(error) => {
                                return ::std::task::Poll::Ready(::std::result::Result::Err(error));
                            }
                        }
                    )*
                    if all {
                        ::std::task::Poll::Ready(::std::result::Result::Ok(($($part.take_ok(),)*)))
                    } else {
                        ::std::task::Poll::Pending
                    }
                })
                .await
            }
        }
    };
    (@ [$($parts:tt)*] $next:expr $(, $($rest:tt)*)?) => {
        $crate::try_join!(@ [$($parts)* part $next,] $($($rest)*)?)
    };
    ($($futures:tt)+) => { $crate::try_join!(@ [] $($futures)+) };
}

/// One future of a `join!`, and its output once that is there. For the macros only.
#[doc(hidden)]
#[derive(Debug)]
pub struct Part<'a, F: Future> {
    future: Pin<&'a mut Option<F>>,
    output: Option<F::Output>,
}

#[doc(hidden)]
impl<'a, F: Future> Part<'a, F> {
    pub fn new(future: Pin<&'a mut Option<F>>) -> Self {
        Part { future, output: None }
    }

    /// Polls it unless it has ended. True when it has.
    #[inline]
    pub fn poll(&mut self, context: &mut Context<'_>) -> bool {
        let Some(future) = self.future.as_mut().as_pin_mut() else { return true };
        let Poll::Ready(output) = future.poll(context) else { return false };
        self.output = Some(output);
        self.future.set(None);
        true
    }

    pub fn take(&mut self) -> F::Output {
        self.output.take().expect("a join's part is taken once, when it has ended")
    }
}

#[doc(hidden)]
impl<T, E, F: Future<Output = Result<T, E>>> Part<'_, F> {
    /// As `poll`; an error is given at once.
    #[inline]
    pub fn try_poll(&mut self, context: &mut Context<'_>) -> Result<bool, E> {
        if !self.poll(context) {
            return Ok(false);
        }
        match self.output.take() {
            Some(Err(error)) => Err(error),
            value => {
                self.output = value;
                Ok(true)
            }
        }
    }

    pub fn take_ok(&mut self) -> T {
        match self.take() {
            Ok(value) => value,
            Err(_) => unreachable!("a try_join ends with its first error"),
        }
    }
}
