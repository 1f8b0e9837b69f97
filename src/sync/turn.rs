//! Taking turns: one holder at a time, the others in line, first come first served.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::Future;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::sys::guard;

/// Several rights that one holder each has at a time. They protect nothing by themselves.
///
/// A connection has two of them, and there are many connections: what is rare, the lines and `R`,
/// lies in one box, which is made when it is needed first.
pub(crate) struct Turns<const N: usize, R = ()> {
    held: [Cell<bool>; N],
    rare: Cell<Option<Box<Rare<N, R>>>>,
}

struct Rare<const N: usize, R> {
    lines: [Line; N],
    rest: R,
}

/// One of the rights.
pub(crate) struct Turn<'a, const N: usize, R> {
    turns: &'a Turns<N, R>,
    which: usize,
}

struct Line {
    next_ticket: Number,
    waiting: VecDeque<(Number, Waker)>,
    /// Who was called forward and has not come yet; the turn is held for them.
    called: Option<Number>,
}

pub(crate) type Number = NonZeroU64;

/// A place in the line, kept by whoever waits. `None` before the first wait.
pub(crate) type Ticket = Option<Number>;

impl<const N: usize, R> Default for Turns<N, R> {
    fn default() -> Self {
        Turns { held: [const { Cell::new(false) }; N], rare: Cell::new(None) }
    }
}

impl<const N: usize, R: Default> Turns<N, R> {
    #[inline]
    pub(crate) fn turn(&self, which: usize) -> Turn<'_, N, R> {
        Turn { turns: self, which }
    }

    /// Calls `f` with what is rare, if it was ever needed. `f` runs nothing of a user.
    #[inline]
    pub(crate) fn if_any<T>(&self, f: impl FnOnce(&mut R) -> Option<T>) -> Option<T> {
        let mut rare = self.rare.take()?;
        let result = f(&mut rare.rest);
        self.rare.set(Some(rare));
        result
    }

    /// Calls `f` with what is rare. `f` runs nothing of a user.
    pub(crate) fn with_rest<T>(&self, f: impl FnOnce(&mut R) -> T) -> T {
        self.with_rare(|rare| f(&mut rare.rest))
    }

    /// Takes the box out for a moment; `f` runs nothing of a user.
    fn with_rare<T>(&self, f: impl FnOnce(&mut Rare<N, R>) -> T) -> T {
        let mut rare = self.rare.take().unwrap_or_else(|| {
            Box::new(Rare { lines: [const { Line::new() }; N], rest: R::default() })
        });
        let result = f(&mut rare);
        self.rare.set(Some(rare));
        result
    }
}

impl<'a, const N: usize, R: Default> Turn<'a, N, R> {
    /// Waits for the turn. Dropping the future leaves the line.
    pub(crate) fn take(self) -> impl Future<Output = ()> + use<'a, N, R> {
        Take { turn: self, ticket: None }
    }

    #[inline]
    fn held(&self) -> &'a Cell<bool> {
        &self.turns.held[self.which]
    }

    /// Takes the turn, or a place in the line.
    #[inline]
    pub(crate) fn poll_take(&self, ticket: &mut Ticket, context: &Context<'_>) -> Poll<()> {
        if ticket.is_none() && !self.held().replace(true) {
            return Poll::Ready(());
        }
        self.poll_line(ticket, context)
    }

    #[cold]
    fn poll_line(&self, ticket: &mut Ticket, context: &Context<'_>) -> Poll<()> {
        // Cloned here, and the old one dropped here: neither runs while the line is out.
        let mut waker = context.waker().clone();
        // The clone ran code of a user, so this looks once more before it stands in line.
        let polled = match ticket.is_none() && !self.held().replace(true) {
            true => Poll::Ready(()),
            false => self.with_line(|line| line.wait(ticket, &mut waker)),
        };
        guard::discard(Some(waker));
        polled
    }

    /// Gives the turn to the next in line.
    #[inline]
    pub(crate) fn release(&self) {
        assert!(self.held().get(), "a turn is released by its holder");
        match self.turns.rare.take() {
            Some(rare) => self.call(rare),
            None => self.held().set(false),
        }
    }

    #[cold]
    fn call(&self, mut rare: Box<Rare<N, R>>) {
        let line = &mut rare.lines[self.which];
        let next = line.waiting.pop_front();
        line.called = next.as_ref().map(|(number, _)| *number);
        self.turns.rare.set(Some(rare));
        match next {
            // The turn stays held, for the one that was called.
            Some((_, waker)) => guard::wake(waker),
            None => self.held().set(false),
        }
    }

    /// Has those leave the front of the line whose part the holder of the turn does: as long as
    /// `take` says so, which may put a waker of its own in the place of theirs. It runs nothing of a
    /// user.
    pub(crate) fn take_along(&self, mut take: impl FnMut(&mut R, Number, &mut Waker) -> bool) {
        self.turns.with_rare(|rare| {
            let waiting = &mut rare.lines[self.which].waiting;
            let mut taken = 0;
            while let Some((number, waker)) = waiting.get_mut(taken)
                && take(&mut rare.rest, *number, waker)
            {
                taken += 1;
            }
            waiting.drain(..taken);
        });
    }

    /// Has somebody who was taken along stand at the front of the line again.
    pub(crate) fn stand_in_front(&self, number: Number, waker: Waker) {
        self.with_line(|line| {
            let is_first = line.waiting.front().is_none_or(|(next, _)| number < *next);
            assert!(is_first && line.called.is_none(), "they stood there before everybody else");
            line.waiting.push_front((number, waker));
        });
    }

    /// Leaves the line. Whoever was called and does not come passes the turn on.
    #[inline]
    pub(crate) fn leave(&self, ticket: &mut Ticket) {
        if let Some(number) = ticket.take() {
            self.leave_as(number);
        }
    }

    #[cold]
    fn leave_as(&self, number: Number) {
        let (called, waker) = self.with_line(|line| line.leave(number));
        guard::discard(waker);
        if called && cfg!(not(canary = "turn-not-passed")) {
            self.release();
        }
    }

    fn with_line<T>(&self, f: impl FnOnce(&mut Line) -> T) -> T {
        self.turns.with_rare(|rare| f(&mut rare.lines[self.which]))
    }
}

struct Take<'a, const N: usize, R: Default> {
    turn: Turn<'a, N, R>,
    ticket: Ticket,
}

impl<const N: usize, R: Default> Future for Take<'_, N, R> {
    type Output = ();

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.turn.poll_take(&mut this.ticket, context)
    }
}

impl<const N: usize, R: Default> Drop for Take<'_, N, R> {
    fn drop(&mut self) {
        self.turn.leave(&mut self.ticket);
    }
}

impl Line {
    const fn new() -> Self {
        Line { next_ticket: Number::MIN, waiting: VecDeque::new(), called: None }
    }

    /// Comes forward if called, otherwise stands in the line with `waker`.
    fn wait(&mut self, ticket: &mut Ticket, waker: &mut Waker) -> Poll<()> {
        let Some(number) = *ticket else {
            *ticket = Some(self.next_ticket);
            let waker = std::mem::replace(waker, Waker::noop().clone());
            self.waiting.push_back((self.next_ticket, waker));
            self.next_ticket = self.next_ticket.saturating_add(1);
            return Poll::Pending;
        };
        if self.called == Some(number) {
            self.called = None;
            *ticket = None;
            return Poll::Ready(());
        }
        let place = self.waiting.binary_search_by_key(&number, |entry| entry.0);
        let place = place.expect("a ticket is in the line or called");
        std::mem::swap(&mut self.waiting[place].1, waker);
        Poll::Pending
    }

    /// Whether that one was called, and the waker to drop.
    fn leave(&mut self, number: Number) -> (bool, Option<Waker>) {
        if self.called == Some(number) {
            self.called = None;
            return (true, None);
        }
        let place = self.waiting.binary_search_by_key(&number, |entry| entry.0);
        let entry = self.waiting.remove(place.expect("a ticket is in the line or called"));
        (false, entry.map(|(_, waker)| waker))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    #[test]
    fn a_turn_goes_to_whoever_came_first() {
        let turns = Turns::<2>::default();
        let turn = turns.turn(1);
        let (mut first, mut second, mut third) = (None, None, None);
        assert!(turn.poll_take(&mut first, &context()).is_ready());
        assert!(turn.poll_take(&mut second, &context()).is_pending());
        assert!(turn.poll_take(&mut third, &context()).is_pending());
        turn.release();
        assert!(turn.poll_take(&mut third, &context()).is_pending());
        assert!(turn.poll_take(&mut second, &context()).is_ready());
        turn.release();
        assert!(turn.poll_take(&mut third, &context()).is_ready());
        turn.release();
        assert!(turn.poll_take(&mut first, &context()).is_ready());
    }

    #[test]
    fn whoever_leaves_when_called_passes_the_turn_on() {
        let turns = Turns::<2>::default();
        let turn = turns.turn(1);
        let (mut first, mut second, mut third) = (None, None, None);
        assert!(turn.poll_take(&mut first, &context()).is_ready());
        assert!(turn.poll_take(&mut second, &context()).is_pending());
        assert!(turn.poll_take(&mut third, &context()).is_pending());
        turn.release();
        turn.leave(&mut second);
        assert!(turn.poll_take(&mut third, &context()).is_ready());
        turn.release();
    }

    #[test]
    fn a_newcomer_does_not_overtake_the_one_that_was_called() {
        let turns = Turns::<2>::default();
        let turn = turns.turn(1);
        let (mut first, mut second, mut newcomer) = (None, None, None);
        assert!(turn.poll_take(&mut first, &context()).is_ready());
        assert!(turn.poll_take(&mut second, &context()).is_pending());
        turn.release();
        assert!(turn.poll_take(&mut newcomer, &context()).is_pending());
        assert!(turn.poll_take(&mut second, &context()).is_ready());
        turn.leave(&mut newcomer);
        turn.release();
    }
}
