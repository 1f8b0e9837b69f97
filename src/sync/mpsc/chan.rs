//! What both kinds of channel are: a queue, its receiver, and how many send.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::task::{Context, Poll, ready};

use super::TryRecvError;
use crate::sync::notify::Notify;
use crate::sync::waker_cell::WakerCell;

/// What bounds a channel.
pub(super) trait Limit {
    /// So many messages were received: there is room for others.
    fn give_back(&self, count: usize);
    /// Nobody gets room any more.
    fn close(&self);
    /// Whether nobody has room and has not used it yet, and no message is there.
    fn is_unused(&self) -> bool;
    /// How much memory the queue may keep, in messages.
    const KEPT: usize;
}

/// One channel. No code of a user runs while the queue is borrowed.
pub(super) struct Chan<T, L: Limit> {
    pub(super) limit: L,
    queue: RefCell<VecDeque<T>>,
    receiver: WakerCell,
    senders: Cell<usize>,
    weak: Cell<usize>,
    state: Cell<Receiving>,
    closed: Notify,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Receiving {
    Open,
    Closed,
    Gone,
}

impl<T, L: Limit> Chan<T, L> {
    pub(super) fn new(limit: L) -> Self {
        Chan {
            limit,
            queue: RefCell::default(),
            receiver: WakerCell::default(),
            senders: Cell::new(1),
            weak: Cell::new(0),
            state: Cell::new(Receiving::Open),
            closed: Notify::new(),
        }
    }

    // ---- Sending ----

    /// Appends a message, for which there is room.
    #[inline]
    pub(super) fn push(&self, value: T) {
        if self.state.get() == Receiving::Gone {
            // Somebody had reserved the place. The message is dropped here, in the sender's code.
            return;
        }
        self.queue.borrow_mut().push_back(value);
        self.receiver.wake();
    }

    /// Somebody with room for `count` messages sends fewer. It may be what the receiver waited for.
    pub(super) fn unused(&self, count: usize) {
        self.limit.give_back(count);
        self.look_again();
    }

    /// Has the receiver of a closed channel look whether that was all.
    #[inline]
    pub(super) fn look_again(&self) {
        if self.is_closed() {
            self.receiver.wake();
        }
    }

    #[inline]
    pub(super) fn is_closed(&self) -> bool {
        self.state.get() != Receiving::Open
    }

    pub(super) async fn closed(&self) {
        let closed = self.closed.notified();
        if !self.is_closed() {
            closed.await;
        }
    }

    pub(super) fn senders(&self) -> usize {
        self.senders.get()
    }

    pub(super) fn add_sender(&self) {
        self.senders.set(self.senders.get() + 1);
    }

    pub(super) fn remove_sender(&self) {
        let senders = self.senders.get() - 1;
        self.senders.set(senders);
        if senders == 0 {
            self.receiver.wake();
        }
    }

    pub(super) fn weak(&self) -> &Cell<usize> {
        &self.weak
    }

    // ---- Receiving ----

    #[inline]
    pub(super) fn poll_recv(&self, context: &Context<'_>) -> Poll<Option<T>> {
        self.poll(context, || self.pop())
    }

    /// Appends up to `most` messages to `place`, and says how many; 0 is the end.
    pub(super) fn poll_recv_many(
        &self,
        context: &Context<'_>,
        place: &mut Vec<T>,
        most: usize,
    ) -> Poll<usize> {
        if most == 0 {
            return Poll::Ready(0);
        }
        let moved = ready!(self.poll(context, || self.pop_many(place, most)));
        Poll::Ready(moved.unwrap_or(0))
    }

    #[inline]
    fn poll<R>(
        &self,
        context: &Context<'_>,
        mut take: impl FnMut() -> Result<R, TryRecvError>,
    ) -> Poll<Option<R>> {
        let mut outcome = take();
        if matches!(outcome, Err(TryRecvError::Empty)) {
            // To wait may run code of a user, which may send.
            if !self.receiver.wait(context.waker()) {
                return Poll::Pending;
            }
            outcome = take();
        }
        match outcome {
            Ok(taken) => Poll::Ready(Some(taken)),
            Err(TryRecvError::Disconnected) => Poll::Ready(None),
            Err(TryRecvError::Empty) => Poll::Pending,
        }
    }

    #[inline]
    pub(super) fn pop(&self) -> Result<T, TryRecvError> {
        let popped = self.queue.borrow_mut().pop_front();
        match popped {
            Some(value) => {
                self.received(1);
                Ok(value)
            }
            None => Err(self.why_empty()),
        }
    }

    fn pop_many(&self, place: &mut Vec<T>, most: usize) -> Result<usize, TryRecvError> {
        let count = {
            let mut queue = self.queue.borrow_mut();
            let count = queue.len().min(most);
            place.extend(queue.drain(..count));
            count
        };
        if count == 0 {
            return Err(self.why_empty());
        }
        self.received(count);
        Ok(count)
    }

    #[inline]
    fn received(&self, count: usize) {
        if L::KEPT < usize::MAX {
            self.shrink();
        }
        self.limit.give_back(count);
    }

    /// Gives back what a burst has needed, once it is over.
    #[inline]
    fn shrink(&self) {
        let mut queue = self.queue.borrow_mut();
        if queue.is_empty() && queue.capacity() > L::KEPT {
            *queue = VecDeque::new();
        }
    }

    fn why_empty(&self) -> TryRecvError {
        let is_over = self.senders.get() == 0 || self.is_closed() && self.limit.is_unused();
        if is_over { TryRecvError::Disconnected } else { TryRecvError::Empty }
    }

    pub(super) fn len(&self) -> usize {
        self.queue.borrow().len()
    }

    /// Nothing more is accepted; what was sent is still to be received.
    pub(super) fn close(&self) {
        if self.state.get() == Receiving::Open {
            self.state.set(Receiving::Closed);
            self.limit.close();
            self.closed.notify_waiters();
        }
    }

    /// The receiver is dropped.
    pub(super) fn abandon(&self) {
        self.close();
        self.state.set(Receiving::Gone);
        self.receiver.forget();
        // Messages are a user's, whose drop may run any code: not while the queue is borrowed.
        let left = self.queue.take();
        drop(left);
    }
}
