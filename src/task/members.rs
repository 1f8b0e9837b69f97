//! Tasks that belong together: each says when its future is gone, whichever way that went.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::sys::guard;

/// Which members have ended, in that order, and who waits for the next.
#[derive(Default)]
pub(super) struct Ended {
    keys: RefCell<VecDeque<u32>>,
    waiting: Cell<Option<Waker>>,
}

impl Ended {
    /// The member that has ended first of those that were not asked for.
    pub(super) fn pop(&self) -> Option<u32> {
        self.keys.borrow_mut().pop_front()
    }

    /// Puts one back in front.
    pub(super) fn unpop(&self, key: u32) {
        self.keys.borrow_mut().push_front(key);
    }

    /// Has `waker` woken by the next member that ends.
    pub(super) fn wait(&self, waker: &Waker) {
        let old = self.waiting.take();
        if let Some(old) = old {
            if old.will_wake(waker) {
                return self.waiting.set(Some(old));
            }
            guard::discard(Some(old));
        }
        let new = waker.clone();
        guard::discard(self.waiting.replace(Some(new)));
    }

    fn push(&self, key: u32) {
        self.keys.borrow_mut().push_back(key);
        self.waiting.take().into_iter().for_each(guard::wake);
    }
}

/// The future of a member. It is one allocation with its task, as any other.
pub(super) struct Member<F> {
    // It is dropped first: what has ended has nothing left.
    future: F,
    _ticket: Ticket,
}

/// Notes the end when it is dropped: with the output, by an abort, after a panic.
struct Ticket {
    ended: Rc<Ended>,
    key: u32,
}

impl<F> Member<F> {
    pub(super) fn new(future: F, ended: &Rc<Ended>, key: u32) -> Self {
        Member { future, _ticket: Ticket { ended: Rc::clone(ended), key } }
    }
}

impl<F: Future> Future for Member<F> {
    type Output = F::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: `future` is pinned as `self` is: nothing moves it before it is dropped in place, as
        // `Member` has no destructor, and Unpin is only implemented (by the compiler) if F is Unpin.
        unsafe { self.map_unchecked_mut(|this| &mut this.future) }.poll(context)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.ended.push(self.key);
    }
}
