//! The ticket of an operation with many answers.

use std::cell::Cell;
use std::marker::PhantomData;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::in_flight::OpId;
use super::{Op, Ring, outside};
use crate::sys::current;

/// An operation whose answers are parked in its payload until somebody takes them.
pub(crate) trait Multishot: Op {
    /// What one answer brings.
    type Item;

    /// Takes the oldest parked item.
    fn pop(&mut self) -> Option<Self::Item>;
}

/// The owner of a multishot operation: a stream that only its `poll_next` borrows.
///
/// What has arrived is in the payload, so a caller that stops asking loses nothing. Dropping the
/// owner cancels the operation, and what is parked or still to come goes to [`Op::abandon`].
pub(crate) struct Answers<T: Multishot> {
    ring: Rc<Ring>,
    id: OpId,
    op: PhantomData<fn() -> T>,
}

/// What a multishot operation has for its owner.
pub(crate) enum Next<T: Multishot> {
    /// One more item.
    Item(T::Item),
    /// It has ended, and its payload is gone: the owner drops this ticket, or starts another.
    End(T::Output),
}

impl<T: Multishot> Answers<T> {
    /// Submits `op`.
    ///
    /// # Errors
    /// What the operation comes to when the table has no room for it, or this is a forked child.
    pub(crate) fn start(op: T, context: &mut Context<'_>) -> Result<Self, T::Output> {
        let ring = current::share::<Ring>().unwrap_or_else(|| outside("an operation"));
        match ring.submit(op, context.waker().clone()) {
            Ok(id) => Ok(Answers { ring, id, op: PhantomData }),
            Err((op, cqe)) => Err(op.complete(cqe)),
        }
    }

    /// Asks for the end, which comes after all that the operation still brings.
    pub(crate) fn cancel(&self) {
        self.ring.cancel(self.id);
    }

    /// Takes what is parked, oldest first, then the end. Until the end the ticket goes to `place`,
    /// also when the waker that is cloned for the wait panics.
    #[inline]
    pub(crate) fn poll_in(
        self,
        place: &Cell<Option<Self>>,
        context: &mut Context<'_>,
    ) -> Poll<Next<T>> {
        let home = Homing { place, answers: Some(self) };
        let Some(Answers { ring, id, .. }) = &home.answers else {
            unreachable!("the ticket has just been put there")
        };
        match ring.poll_many::<T>(*id, context) {
            None => Poll::Pending,
            Some(Ok(item)) => Poll::Ready(Next::Item(item)),
            Some(Err((op, cqe))) => {
                home.end();
                Poll::Ready(Next::End(op.complete(cqe)))
            }
        }
    }
}

/// Brings a ticket to its place when it is dropped.
struct Homing<'a, T: Multishot> {
    place: &'a Cell<Option<Answers<T>>>,
    answers: Option<Answers<T>>,
}

impl<T: Multishot> Homing<'_, T> {
    /// The operation has ended, and its ticket with it.
    fn end(mut self) {
        self.answers = None;
    }
}

impl<T: Multishot> Drop for Homing<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if let Some(answers) = self.answers.take() {
            // It was emptied for this poll. To look whether there is something to drop would wait for
            // the store that emptied it.
            let emptied = self.place.replace(Some(answers));
            debug_assert!(emptied.is_none(), "a ticket has one place");
            std::mem::forget(emptied);
        }
    }
}

impl<T: Multishot> Drop for Answers<T> {
    fn drop(&mut self) {
        // After the end the name means nothing any more (I4), and this does nothing.
        self.ring.orphan(self.id);
    }
}
