//! Taking turns: one holder at a time, the others in line, first come first served.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

/// A right that one holder has at a time. It protects nothing by itself.
#[derive(Default)]
pub(crate) struct Turn {
    held: Cell<bool>,
    /// Made when somebody has to wait for the first time, so a turn that nobody contends is small.
    line: RefCell<Option<Box<Line>>>,
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
    /// Takes the turn, or a place in the line.
    #[inline]
    pub(crate) fn poll_take(&self, ticket: &mut Ticket, context: &Context<'_>) -> Poll<()> {
        if ticket.is_none() && !self.held.replace(true) {
            return Poll::Ready(());
        }
        self.wait(ticket, context)
    }

    fn wait(&self, ticket: &mut Ticket, context: &Context<'_>) -> Poll<()> {
        let mut line = self.line.borrow_mut();
        let line = &mut **line.get_or_insert_default();
        let Some(number) = *ticket else {
            *ticket = Some(line.next_ticket);
            line.waiting.push_back((line.next_ticket, context.waker().clone()));
            line.next_ticket += 1;
            return Poll::Pending;
        };
        if line.called == Some(number) {
            line.called = None;
            *ticket = None;
            return Poll::Ready(());
        }
        let place = line.waiting.binary_search_by_key(&number, |entry| entry.0);
        let entry = &mut line.waiting[place.expect("a ticket is in the line or called")];
        entry.1.clone_from(context.waker());
        Poll::Pending
    }

    /// Gives the turn to the next in line.
    #[inline]
    pub(crate) fn release(&self) {
        assert!(self.held.get(), "a turn is released by its holder");
        let mut line = self.line.borrow_mut();
        let next = line.as_mut().and_then(|line| {
            let (number, waker) = line.waiting.pop_front()?;
            line.called = Some(number);
            Some(waker)
        });
        drop(line);
        match next {
            // The turn stays held, for the one that was called.
            Some(waker) => waker.wake(),
            None => self.held.set(false),
        }
    }

    /// Leaves the line. Whoever was called and does not come passes the turn on.
    pub(crate) fn leave(&self, ticket: &mut Ticket) {
        let Some(number) = ticket.take() else { return };
        let mut line = self.line.borrow_mut();
        let entries = line.as_mut().expect("a ticket came from the line");
        let called = entries.called == Some(number);
        let left = if called {
            entries.called = None;
            None
        } else {
            let place = entries.waiting.binary_search_by_key(&number, |entry| entry.0);
            entries.waiting.remove(place.expect("a ticket is in the line or called"))
        };
        drop(line);
        drop(left);
        if called {
            self.release();
        }
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
