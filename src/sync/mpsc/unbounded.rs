//! The channel that is never full.

use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::chan::{Chan, Limit};
use super::{SendError, TryRecvError};

/// Makes a channel that takes whatever is sent. It is to be bounded elsewhere: a receiver that lags
/// costs memory.
///
/// ```
/// use quoit::sync::mpsc;
///
/// # quoit::runtime::run(async {
/// let (sender, mut receiver) = mpsc::unbounded_channel();
/// sender.send(7).unwrap();
/// drop(sender);
/// assert_eq!(receiver.recv().await, Some(7));
/// assert_eq!(receiver.recv().await, None);
/// # }).unwrap();
/// ```
#[must_use]
pub fn unbounded_channel<T>() -> (UnboundedSender<T>, UnboundedReceiver<T>) {
    let chan = Rc::new(Chan::new(Unlimited));
    (UnboundedSender { chan: Rc::clone(&chan) }, UnboundedReceiver { chan })
}

struct Unlimited;

impl Limit for Unlimited {
    #[inline]
    fn give_back(&self, _count: usize) {}

    fn close(&self) {}

    fn is_unused(&self) -> bool {
        true
    }

    const KEPT: usize = 4096;
}

type Shared<T> = Rc<Chan<T, Unlimited>>;

/// Sends messages to the [`UnboundedReceiver`]. Clones send to the same.
///
/// ```
/// use quoit::sync::mpsc::{self, UnboundedSender};
///
/// let (sender, mut receiver) = mpsc::unbounded_channel();
/// let other: UnboundedSender<i32> = sender.clone();
/// other.send(7).unwrap();
/// assert_eq!(receiver.try_recv(), Ok(7));
/// ```
pub struct UnboundedSender<T> {
    chan: Shared<T>,
}

/// Receives what [`UnboundedSender`]s send. Dropping it drops what is left in the channel.
///
/// ```
/// use quoit::sync::mpsc::{self, UnboundedReceiver};
///
/// let (sender, receiver): (_, UnboundedReceiver<i32>) = mpsc::unbounded_channel();
/// sender.send(7).unwrap();
/// assert_eq!(receiver.len(), 1);
/// drop(receiver);
/// assert!(sender.send(8).is_err());
/// ```
pub struct UnboundedReceiver<T> {
    chan: Shared<T>,
}

/// An [`UnboundedSender`] that does not keep the channel open; made by
/// [`UnboundedSender::downgrade`].
///
/// ```
/// use quoit::sync::mpsc::{self, WeakUnboundedSender};
///
/// let (sender, receiver) = mpsc::unbounded_channel::<i32>();
/// let weak: WeakUnboundedSender<i32> = sender.downgrade();
/// drop(sender);
/// assert!(weak.upgrade().is_none());
/// # drop(receiver);
/// ```
pub struct WeakUnboundedSender<T> {
    chan: Shared<T>,
}

impl<T> UnboundedSender<T> {
    /// Sends, at once.
    ///
    /// # Errors
    /// The message, if the receiver is gone or closed.
    #[inline]
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        if self.chan.is_closed() {
            return Err(SendError(value));
        }
        self.chan.push(value);
        Ok(())
    }

    /// Waits until the receiver is gone or closed.
    pub async fn closed(&self) {
        self.chan.closed().await;
    }

    /// Whether the receiver is gone or closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.chan.is_closed()
    }

    /// Whether both send to the same receiver.
    #[must_use]
    pub fn same_channel(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.chan, &other.chan)
    }

    /// A sender that does not keep the channel open.
    #[must_use]
    pub fn downgrade(&self) -> WeakUnboundedSender<T> {
        WeakUnboundedSender::of(&self.chan)
    }

    /// How many senders there are.
    #[must_use]
    pub fn strong_count(&self) -> usize {
        self.chan.senders()
    }

    /// How many weak senders there are.
    #[must_use]
    pub fn weak_count(&self) -> usize {
        self.chan.weak().get()
    }
}

impl<T> UnboundedReceiver<T> {
    /// Waits for the next message; `None` when there will be none.
    ///
    /// Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<T> {
        poll_fn(|context| self.chan.poll_recv(context)).await
    }

    /// Waits for messages, appends up to `limit` of them to `buffer`, and says how many: 0 when there
    /// will be none, or `limit` is 0.
    ///
    /// Dropping the future loses nothing.
    pub async fn recv_many(&mut self, buffer: &mut Vec<T>, limit: usize) -> usize {
        poll_fn(|context| self.chan.poll_recv_many(context, buffer, limit)).await
    }

    /// Takes the next message if there is one.
    ///
    /// # Errors
    /// Why there is none.
    #[inline]
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        self.chan.pop()
    }

    /// As [`recv`](UnboundedReceiver::recv), for use in a `poll`.
    #[inline]
    pub fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.chan.poll_recv(context)
    }

    /// As [`recv_many`](UnboundedReceiver::recv_many), for use in a `poll`.
    pub fn poll_recv_many(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut Vec<T>,
        limit: usize,
    ) -> Poll<usize> {
        self.chan.poll_recv_many(context, buffer, limit)
    }

    /// Accepts no more. What was sent is still to be received, and then `None`.
    pub fn close(&mut self) {
        self.chan.close();
    }

    /// Whether it is closed, or all senders are gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.chan.is_closed() || self.chan.senders() == 0
    }

    /// Whether no message is there now.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many messages are there now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.chan.len()
    }

    /// How many senders there are.
    #[must_use]
    pub fn sender_strong_count(&self) -> usize {
        self.chan.senders()
    }

    /// How many weak senders there are.
    #[must_use]
    pub fn sender_weak_count(&self) -> usize {
        self.chan.weak().get()
    }
}

impl<T> WeakUnboundedSender<T> {
    fn of(chan: &Shared<T>) -> Self {
        chan.weak().set(chan.weak().get() + 1);
        WeakUnboundedSender { chan: Rc::clone(chan) }
    }

    /// A sender, if there still is another.
    #[must_use]
    pub fn upgrade(&self) -> Option<UnboundedSender<T>> {
        (self.chan.senders() > 0).then(|| {
            self.chan.add_sender();
            UnboundedSender { chan: Rc::clone(&self.chan) }
        })
    }
}

impl<T> Clone for UnboundedSender<T> {
    fn clone(&self) -> Self {
        self.chan.add_sender();
        UnboundedSender { chan: Rc::clone(&self.chan) }
    }
}

impl<T> Drop for UnboundedSender<T> {
    fn drop(&mut self) {
        self.chan.remove_sender();
    }
}

impl<T> Drop for UnboundedReceiver<T> {
    fn drop(&mut self) {
        self.chan.abandon();
    }
}

impl<T> Clone for WeakUnboundedSender<T> {
    fn clone(&self) -> Self {
        WeakUnboundedSender::of(&self.chan)
    }
}

impl<T> Drop for WeakUnboundedSender<T> {
    fn drop(&mut self) {
        self.chan.weak().set(self.chan.weak().get() - 1);
    }
}

impl<T> fmt::Debug for UnboundedSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("mpsc::UnboundedSender").field("is_closed", &self.is_closed()).finish()
    }
}

impl<T> fmt::Debug for UnboundedReceiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("mpsc::UnboundedReceiver");
        text.field("len", &self.len()).field("is_closed", &self.is_closed()).finish()
    }
}

impl<T> fmt::Debug for WeakUnboundedSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("mpsc::WeakUnboundedSender").finish_non_exhaustive()
    }
}
