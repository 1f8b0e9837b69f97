//! Permits that are taken and given back, first come first served: what the locks, the semaphore and the
//! bounded channel are made of.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::line::{Left, Place, Waiters};
use crate::sys::guard;

/// A count of permits, and the line of those who wait for some.
///
/// Permits are given to the first in line as soon as there are as many as it asked for. Nobody takes
/// any past somebody who waits, so whoever asks for many is not starved by those who ask for one.
pub(super) struct Permits(Waiters<Stock, Ask>);

struct Stock {
    available: usize,
    is_closed: bool,
}

struct Ask {
    count: usize,
    is_granted: bool,
}

/// There will be no permits any more.
#[derive(Debug)]
pub(super) struct Closed;

/// Why there are no permits right now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Closed,
    NoPermits,
}

impl Permits {
    pub(super) const MOST: usize = usize::MAX >> 3;

    pub(super) const fn new(available: usize) -> Self {
        Permits(Waiters::new(Stock { available, is_closed: false }))
    }

    #[inline]
    pub(super) fn available(&self) -> usize {
        self.0.with(|stock, _| stock.available)
    }

    #[inline]
    pub(super) fn is_closed(&self) -> bool {
        self.0.with(|stock, _| stock.is_closed)
    }

    /// Takes so many, unless there are too few or somebody waits.
    #[inline]
    pub(super) fn try_acquire(&self, count: usize) -> Result<(), Refusal> {
        self.0.with(|stock, line| stock.take(count, line.is_empty()))
    }

    /// Waits for so many. Dropping the future leaves the line; what it was given goes to the next.
    #[inline]
    pub(super) fn acquire(&self, count: usize) -> Acquire<'_> {
        Acquire { permits: self, count, place: None }
    }

    /// Gives so many back.
    #[inline]
    pub(super) fn release(&self, count: usize) {
        let call = self.0.with(|stock, line| {
            stock.available += count;
            !line.is_empty()
        });
        if call {
            self.serve();
        }
    }

    /// Adds so many to those that there are. False if there would be too many.
    pub(super) fn add(&self, count: usize) -> bool {
        let fits = |stock: &mut Stock| {
            stock.available.checked_add(count).is_some_and(|sum| sum <= Self::MOST)
        };
        let fits = self.0.with(|stock, _| fits(stock));
        if fits {
            self.release(count);
        }
        fits
    }

    /// Takes away up to so many of those that are available, and says how many.
    pub(super) fn forget(&self, most: usize) -> usize {
        self.0.with(|stock, _| {
            let count = most.min(stock.available);
            stock.available -= count;
            count
        })
    }

    /// Refuses all who wait and all who come. What was granted stays granted.
    pub(super) fn close(&self) {
        self.0.with(|stock, line| {
            stock.is_closed = true;
            while !line.is_empty() {
                line.call_first();
            }
        });
        self.0.wake_called();
    }

    /// Gives what there is to those who wait for it, in their order.
    #[cold]
    fn serve(&self) {
        self.0.with(|stock, line| {
            while let Some(ask) = line.first()
                && ask.count <= stock.available
            {
                stock.available -= ask.count;
                ask.is_granted = true;
                line.call_first();
            }
        });
        self.0.wake_called();
    }
}

impl Stock {
    #[inline]
    fn take(&mut self, count: usize, nobody_waits: bool) -> Result<(), Refusal> {
        if self.is_closed {
            return Err(Refusal::Closed);
        }
        if self.available < count || !nobody_waits {
            return Err(Refusal::NoPermits);
        }
        self.available -= count;
        Ok(())
    }
}

/// Waits for permits, which are the caller's to give back.
#[must_use = "futures do nothing unless awaited"]
pub(super) struct Acquire<'a> {
    permits: &'a Permits,
    count: usize,
    place: Option<Place>,
}

impl Acquire<'_> {
    /// Takes the permits, or a place in the line.
    #[cold]
    fn stand(&mut self, context: &Context<'_>) -> Poll<Result<(), Closed>> {
        let mut waker = Some(context.waker().clone());
        // The clone ran code of a user, so this looks once more before it stands in line.
        let result = self.permits.0.with(|stock, line| {
            let result = stock.take(self.count, line.is_empty());
            if result == Err(Refusal::NoPermits)
                && let Some(waker) = waker.take()
            {
                self.place = Some(line.stand(Ask { count: self.count, is_granted: false }, waker));
            }
            result
        });
        guard::discard(waker);
        match result {
            Ok(()) => Poll::Ready(Ok(())),
            Err(Refusal::Closed) => Poll::Ready(Err(Closed)),
            Err(Refusal::NoPermits) => Poll::Pending,
        }
    }

    fn leave(&mut self, place: Place) -> Ask {
        let Left { ask, waker, .. } = self.permits.0.with(|_, line| line.leave(place));
        guard::discard(waker);
        ask
    }
}

impl Future for Acquire<'_> {
    type Output = Result<(), Closed>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        match &this.place {
            None => {
                return match this.permits.try_acquire(this.count) {
                    Ok(()) => Poll::Ready(Ok(())),
                    Err(Refusal::Closed) => Poll::Ready(Err(Closed)),
                    Err(Refusal::NoPermits) => this.stand(context),
                };
            }
            Some(place) => {
                if !this.permits.0.poll_called(place, context.waker()) {
                    return Poll::Pending;
                }
            }
        }
        let place = this.place.take().expect("it was called there");
        let ask = this.leave(place);
        Poll::Ready(if ask.is_granted { Ok(()) } else { Err(Closed) })
    }
}

impl Drop for Acquire<'_> {
    #[inline]
    fn drop(&mut self) {
        let Some(place) = self.place.take() else { return };
        let ask = self.leave(place);
        let given = if ask.is_granted { ask.count } else { 0 };
        // Also when it had been given none: those behind it may ask for less.
        self.permits.release(given);
    }
}
