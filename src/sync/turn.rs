//! Taking turns: one holder at a time, the others in line, first come first served.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::sys::guard;

/// A right that one holder has at a time. It protects nothing by itself.
#[derive(Default)]
pub(crate) struct Turn {
    held: Cell<bool>,
    /// Made when somebody has to wait for the first time, so a turn that nobody contends is small.
    line: Cell<Option<Box<Line>>>,
}

#[derive(Default)]
struct Line {
    next_ticket: u64,
    waiting: VecDeque<(u64, Waker)>,
    /// Who was called forward and has not come yet; the turn is held for them.
    called: Option<u64>,
}

/// A place in the line, kept by whoever waits. `None` before the first wait.
pub(crate) type Ticket = Option<u64>;

impl Turn {
    /// Waits for the turn. Dropping the future leaves the line.
    pub(crate) fn take(&self) -> impl Future<Output = ()> {
        Take { turn: self, ticket: None }
    }

    /// Takes the turn, or a place in the line.
    #[inline]
    pub(crate) fn poll_take(&self, ticket: &mut Ticket, context: &Context<'_>) -> Poll<()> {
        if ticket.is_none() && !self.held.replace(true) {
            return Poll::Ready(());
        }
        // Cloned here, and the old one dropped here: neither runs while the line is out.
        let mut waker = context.waker().clone();
        self.with_line(|line| line.wait(ticket, &mut waker))
    }

    /// Gives the turn to the next in line.
    #[inline]
    pub(crate) fn release(&self) {
        assert!(self.held.get(), "a turn is released by its holder");
        match self.line.take() {
            Some(line) => self.call(line),
            None => self.held.set(false),
        }
    }

    #[cold]
    fn call(&self, mut line: Box<Line>) {
        let next = line.waiting.pop_front();
        line.called = next.as_ref().map(|(number, _)| *number);
        self.line.set(Some(line));
        match next {
            // The turn stays held, for the one that was called.
            Some((_, waker)) => guard::wake(waker),
            None => self.held.set(false),
        }
    }

    /// Leaves the line. Whoever was called and does not come passes the turn on.
    #[inline]
    pub(crate) fn leave(&self, ticket: &mut Ticket) {
        if let Some(number) = ticket.take() {
            self.leave_as(number);
        }
    }

    #[cold]
    fn leave_as(&self, number: u64) {
        let (called, waker) = self.with_line(|line| line.leave(number));
        guard::discard(waker);
        if called {
            self.release();
        }
    }

    /// Takes the line out for a moment; `f` runs nothing of a user.
    fn with_line<R>(&self, f: impl FnOnce(&mut Line) -> R) -> R {
        let mut line = self.line.take().unwrap_or_default();
        let result = f(&mut line);
        self.line.set(Some(line));
        result
    }
}

struct Take<'a> {
    turn: &'a Turn,
    ticket: Ticket,
}

impl Future for Take<'_> {
    type Output = ();

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let turn = self.turn;
        turn.poll_take(&mut self.ticket, context)
    }
}

impl Drop for Take<'_> {
    fn drop(&mut self) {
        self.turn.leave(&mut self.ticket);
    }
}

impl Line {
    /// Comes forward if called, otherwise stands in the line with `waker`.
    fn wait(&mut self, ticket: &mut Ticket, waker: &mut Waker) -> Poll<()> {
        let Some(number) = *ticket else {
            *ticket = Some(self.next_ticket);
            let waker = std::mem::replace(waker, Waker::noop().clone());
            self.waiting.push_back((self.next_ticket, waker));
            self.next_ticket += 1;
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
    fn leave(&mut self, number: u64) -> (bool, Option<Waker>) {
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
        let turn = Turn::default();
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
        let turn = Turn::default();
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
        let turn = Turn::default();
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
