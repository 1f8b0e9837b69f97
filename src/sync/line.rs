//! A line of waiters: first come, first called, and whoever leaves takes nobody else's place along.
//!
//! ```text
//!           1 stand              2 call              3 next_to_wake
//!   nobody ────────▶ waiting ──────────────▶ called ───────────────▶ woken
//!      ▲                │                      │                       │
//!      └────────────────┴──────────────────────┴───────────────────────┘
//!                                   4 leave
//! ```
//!
//! To call somebody is to change the state: what they were given is theirs from then on, and a waiter
//! that is dropped gives it back when it leaves. To wake them is to run code of a user, so it comes
//! after, one at a time, when the cell that holds the line is no longer borrowed; what that code does
//! to the line, it does to a whole one.
//!
//! The waiters lie in a slab and name each other by number. A future that waits keeps the number of
//! its own, and its drop makes the place free again. One that is forgotten instead keeps its place, and
//! what it is given there, for as long as the line lives: that may starve others, and is sound. The
//! slab grows to the most that ever waited together, and then nothing is allocated any more.

use std::cell::RefCell;
use std::task::Waker;

use slab::Slab;

use crate::sys::guard;

/// No waiter: the end of a chain.
const NONE: usize = usize::MAX;

/// A state `S`, and the line of those who wait for it to change; each has asked for an `A`.
pub(super) struct Waiters<S, A>(RefCell<(S, Line<A>)>);

/// The line itself, as long as its cell is borrowed. It runs no code of a user.
pub(super) struct Line<A> {
    waiters: Slab<Waiter<A>>,
    waiting: Chain,
    /// Those whose wakers have not been called yet.
    called: Chain,
}

struct Waiter<A> {
    ask: A,
    waker: Option<Waker>,
    stage: Stage,
    previous: usize,
    next: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Waiting,
    Called,
    Woken,
}

/// A doubly linked list through the waiters.
struct Chain {
    first: usize,
    last: usize,
}

/// A place in the line, owned by the one future that waits there.
#[must_use]
pub(super) struct Place(usize);

/// What somebody leaves behind, to be dropped when the line is not borrowed any more.
pub(super) struct Left<A> {
    pub(super) ask: A,
    pub(super) waker: Option<Waker>,
}

impl<S, A> Waiters<S, A> {
    pub(super) const fn new(state: S) -> Self {
        Waiters(RefCell::new((state, Line::new())))
    }

    /// Calls `f` with the state and the line. `f` runs nothing of a user.
    #[inline]
    pub(super) fn with<R>(&self, f: impl FnOnce(&mut S, &mut Line<A>) -> R) -> R {
        let (state, line) = &mut *self.0.borrow_mut();
        f(state, line)
    }

    /// Wakes all who were called.
    pub(super) fn wake_called(&self) {
        loop {
            let next = self.with(|_, line| line.next_to_wake());
            let Some(waker) = next else { return };
            guard::wake(waker);
        }
    }

    /// Whether the one at `place` was called; if not, `waker` is woken when it is.
    pub(super) fn poll_called(&self, place: &Place, waker: &Waker) -> bool {
        let (called, same) =
            self.with(|_, line| (line.was_called(place), line.will_wake(place, waker)));
        if called || same {
            return called;
        }
        // To clone a waker and to drop one runs code of a user, which may call this one forward.
        let newer = waker.clone();
        let displaced = self.with(|_, line| line.waiters[place.0].waker.replace(newer));
        guard::discard(displaced);
        self.with(|_, line| line.was_called(place))
    }
}

impl<A> Line<A> {
    const fn new() -> Self {
        Line { waiters: Slab::new(), waiting: Chain::EMPTY, called: Chain::EMPTY }
    }

    /// Whether nobody waits to be called.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.first == NONE
    }

    /// 1 stand: at the end of the line.
    pub(super) fn stand(&mut self, ask: A, waker: Waker) -> Place {
        let waiter =
            Waiter { ask, waker: Some(waker), stage: Stage::Waiting, previous: NONE, next: NONE };
        let number = self.waiters.insert(waiter);
        self.waiting.append(&mut self.waiters, number);
        Place(number)
    }

    /// What the first of those who wait has asked for.
    pub(super) fn first(&mut self) -> Option<&mut A> {
        self.waiters.get_mut(self.waiting.first).map(|waiter| &mut waiter.ask)
    }

    /// What the last of those who wait has asked for.
    pub(super) fn last(&mut self) -> Option<&mut A> {
        self.waiters.get_mut(self.waiting.last).map(|waiter| &mut waiter.ask)
    }

    /// 2 call: the first of those who wait.
    pub(super) fn call_first(&mut self) {
        self.call(self.waiting.first);
    }

    /// 2 call: the last of those who wait.
    pub(super) fn call_last(&mut self) {
        self.call(self.waiting.last);
    }

    fn call(&mut self, number: usize) {
        assert_eq!(self.waiters[number].stage, Stage::Waiting, "who waits is called, and once");
        self.waiting.remove(&mut self.waiters, number);
        self.waiters[number].stage = Stage::Called;
        self.called.append(&mut self.waiters, number);
    }

    /// 3 next_to_wake: the waker of the next who was called. It was called, whether it is woken or not.
    fn next_to_wake(&mut self) -> Option<Waker> {
        let number = self.called.first;
        let waiter = self.waiters.get_mut(number)?;
        waiter.stage = Stage::Woken;
        let waker = waiter.waker.take();
        self.called.remove(&mut self.waiters, number);
        assert!(waker.is_some(), "who is called has a waker until it is woken");
        waker
    }

    /// 4 leave: the place is free from now on.
    pub(super) fn leave(&mut self, place: Place) -> Left<A> {
        let Place(number) = place;
        match self.waiters[number].stage {
            Stage::Waiting => self.waiting.remove(&mut self.waiters, number),
            Stage::Called => self.called.remove(&mut self.waiters, number),
            Stage::Woken => {}
        }
        let Waiter { ask, waker, .. } = self.waiters.remove(number);
        Left { ask, waker }
    }

    pub(super) fn was_called(&self, place: &Place) -> bool {
        self.waiters[place.0].stage != Stage::Waiting
    }

    fn will_wake(&self, place: &Place, waker: &Waker) -> bool {
        self.waiters[place.0].waker.as_ref().is_some_and(|known| known.will_wake(waker))
    }
}

impl Chain {
    const EMPTY: Chain = Chain { first: NONE, last: NONE };

    fn append<A>(&mut self, waiters: &mut Slab<Waiter<A>>, number: usize) {
        let last = std::mem::replace(&mut self.last, number);
        (waiters[number].previous, waiters[number].next) = (last, NONE);
        match waiters.get_mut(last) {
            Some(last) => last.next = number,
            None => self.first = number,
        }
    }

    fn remove<A>(&mut self, waiters: &mut Slab<Waiter<A>>, number: usize) {
        let (previous, next) = (waiters[number].previous, waiters[number].next);
        match waiters.get_mut(previous) {
            Some(previous) => previous.next = next,
            None => self.first = next,
        }
        match waiters.get_mut(next) {
            Some(next) => next.previous = previous,
            None => self.last = previous,
        }
    }
}
