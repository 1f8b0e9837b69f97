//! The line for admission: who wants to begin new work while there is no room for it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::task::{Context, Waker};

use crate::sys::guard;

/// First come, first called. Whoever is called has to come, which is to be polled, before it is
/// admitted; until then the room is not its own, because a future that is kept and not awaited never
/// comes. So a newcomer meanwhile is polled once more, which is after them.
#[derive(Default)]
pub(super) struct Line {
    /// By ticket, in order.
    waiting: RefCell<VecDeque<(u64, Waker)>>,
    has_waiters: Cell<bool>,
    /// How many were called and did not come yet.
    called: Cell<usize>,
    tickets: Cell<u64>,
}

impl Line {
    #[inline]
    pub(super) fn has_waiters(&self) -> bool {
        self.has_waiters.get()
    }

    pub(super) fn has_called(&self) -> bool {
        self.called.get() > 0
    }

    /// Whether the owner of this ticket, or somebody without one, may go on. If not, it has one
    /// afterwards, and is woken when it is called.
    #[inline]
    pub(super) fn admits(
        &self,
        ticket: &mut Option<u64>,
        context: &Context<'_>,
        has_room: impl Fn() -> bool,
    ) -> bool {
        match *ticket {
            None if !self.has_called() && !self.has_waiters() && has_room() => true,
            None => {
                *ticket = Some(self.join(context, has_room));
                false
            }
            Some(ticket) => self.come(ticket, context, has_room),
        }
    }

    fn join(&self, context: &Context<'_>, has_room: impl Fn() -> bool) -> u64 {
        // Cloning runs the waker's code, so before anything is looked at.
        let waker = context.waker().clone();
        let ticket = self.tickets.replace(self.tickets.get() + 1);
        if !self.has_waiters() && has_room() {
            self.called.update(|called| called + 1);
            guard::wake(waker);
        } else {
            self.waiting.borrow_mut().push_back((ticket, waker));
            self.has_waiters.set(true);
        }
        ticket
    }

    fn come(&self, ticket: u64, context: &Context<'_>, has_room: impl Fn() -> bool) -> bool {
        let waker = context.waker().clone();
        let mut waiting = self.waiting.borrow_mut();
        let (admitted, over) = match waiting.binary_search_by_key(&ticket, |entry| entry.0) {
            Ok(place) => (false, Some(std::mem::replace(&mut waiting[place].1, waker))),
            Err(place) => {
                self.called.update(|called| called - 1);
                if has_room() {
                    (true, Some(waker))
                } else {
                    // What needs no admission has taken the room. The place is kept.
                    waiting.insert(place, (ticket, waker));
                    self.has_waiters.set(true);
                    (false, None)
                }
            }
        };
        // The displaced waker's code may do anything.
        drop(waiting);
        guard::discard(over);
        admitted
    }

    /// Gives up a place. Whether it had been called: then that goes to the next.
    pub(super) fn leave(&self, ticket: u64) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        let left = match waiting.binary_search_by_key(&ticket, |entry| entry.0) {
            Ok(place) => waiting.remove(place),
            Err(_) => None,
        };
        self.has_waiters.set(!waiting.is_empty());
        drop(waiting);
        let was_called = left.is_none();
        if was_called {
            self.called.update(|called| called - 1);
        }
        guard::discard(left.map(|(_, waker)| waker));
        was_called
    }

    /// Calls the first.
    #[cold]
    pub(super) fn call(&self) {
        let mut waiting = self.waiting.borrow_mut();
        let first = waiting.pop_front();
        self.has_waiters.set(!waiting.is_empty());
        drop(waiting);
        if let Some((_, waker)) = first {
            self.called.update(|called| called + 1);
            guard::wake(waker);
        }
    }
}
