//! The channel that is full at some point.

use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::chan::{Chan, Limit};
use super::{SendError, TryRecvError, TrySendError};
use crate::sync::permits::{Permits, Refusal};

/// Makes a channel for `capacity` messages.
///
/// ```
/// use quoit::sync::mpsc;
///
/// # quoit::runtime::run(async {
/// let (sender, mut receiver) = mpsc::channel(8);
/// quoit::spawn(async move {
///     for number in 0..100 {
///         sender.send(number).await.unwrap(); // waits while 8 are there
///     }
/// });
/// let mut sum = 0;
/// while let Some(number) = receiver.recv().await {
///     sum += number;
/// }
/// assert_eq!(sum, 4_950);
/// # }).unwrap();
/// ```
///
/// # Panics
/// If `capacity` is 0: nothing could ever be sent. Or if it is more than
/// [`Semaphore::MAX_PERMITS`](crate::sync::Semaphore::MAX_PERMITS).
#[must_use]
#[track_caller]
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert!(capacity > 0, "a channel of capacity 0 could never send; give it room for 1 at least");
    assert!(capacity <= Permits::MOST, "a channel has at most Semaphore::MAX_PERMITS places");
    let chan = Rc::new(Chan::new(Places { permits: Permits::new(capacity), capacity }));
    (Sender { chan: Rc::clone(&chan) }, Receiver { chan })
}

/// A permit for each message that has room.
struct Places {
    permits: Permits,
    capacity: usize,
}

impl Limit for Places {
    #[inline]
    fn give_back(&self, count: usize) {
        self.permits.release(count);
    }

    fn close(&self) {
        self.permits.close();
    }

    fn is_unused(&self) -> bool {
        self.permits.available() == self.capacity
    }

    // It is bounded.
    const KEPT: usize = usize::MAX;
}

type Shared<T> = Rc<Chan<T, Places>>;

/// Sends messages to the [`Receiver`]. Clones send to the same.
///
/// ```
/// use quoit::sync::mpsc::{self, Sender};
///
/// # quoit::runtime::run(async {
/// let (sender, mut receiver) = mpsc::channel(1);
/// let other: Sender<&str> = sender.clone();
/// assert!(quoit::join!(sender.send("one"), other.send("two"), async {
///     assert_eq!(receiver.recv().await, Some("one"));
/// }).1.is_ok());
/// # }).unwrap();
/// ```
pub struct Sender<T> {
    chan: Shared<T>,
}

/// Receives what [`Sender`]s send. Dropping it drops what is left in the channel.
///
/// ```
/// use quoit::sync::mpsc::{self, Receiver};
///
/// # quoit::runtime::run(async {
/// let (sender, mut receiver): (_, Receiver<i32>) = mpsc::channel(4);
/// for number in 0..3 {
///     sender.send(number).await.unwrap();
/// }
/// receiver.close(); // no more, but what is there
/// let mut numbers = Vec::new();
/// assert_eq!(receiver.recv_many(&mut numbers, 100).await, 3);
/// assert_eq!(receiver.recv().await, None);
/// # }).unwrap();
/// ```
pub struct Receiver<T> {
    chan: Shared<T>,
}

/// A place in a channel, for one message. Dropping it gives the place to the next.
///
/// ```
/// use quoit::sync::mpsc::{self, Permit};
///
/// # quoit::runtime::run(async {
/// let (sender, mut receiver) = mpsc::channel(1);
/// let place: Permit<'_, i32> = sender.reserve().await.unwrap();
/// place.send(7); // which cannot fail, nor wait
/// assert_eq!(receiver.recv().await, Some(7));
/// # }).unwrap();
/// ```
#[must_use = "its place is given to the next when it is dropped"]
pub struct Permit<'a, T> {
    chan: &'a Chan<T, Places>,
}

/// As [`Permit`], with the sender in it.
///
/// ```
/// use quoit::sync::mpsc::{self, OwnedPermit};
///
/// # quoit::runtime::run(async {
/// let (sender, mut receiver) = mpsc::channel(1);
/// let place: OwnedPermit<i32> = sender.reserve_owned().await.unwrap();
/// let sender = place.send(7);
/// assert_eq!(receiver.recv().await, Some(7));
/// # drop(sender);
/// # }).unwrap();
/// ```
#[must_use = "its place is given to the next when it is dropped"]
pub struct OwnedPermit<T> {
    /// None once it was used.
    sender: Option<Sender<T>>,
}

/// A [`Sender`] that does not keep the channel open; made by [`Sender::downgrade`].
///
/// ```
/// use quoit::sync::mpsc::{self, WeakSender};
///
/// let (sender, receiver) = mpsc::channel::<i32>(1);
/// let weak: WeakSender<i32> = sender.downgrade();
/// assert!(weak.upgrade().is_some());
/// drop(sender);
/// assert!(weak.upgrade().is_none());
/// # drop(receiver);
/// ```
pub struct WeakSender<T> {
    chan: Shared<T>,
}

impl<T> Sender<T> {
    /// Waits for a place, and sends.
    ///
    /// Dropping the future sends nothing, and drops the message; see [`reserve`](Sender::reserve).
    ///
    /// # Errors
    /// The message, if the receiver is gone or closed, before or meanwhile.
    pub async fn send(&self, value: T) -> Result<(), SendError<T>> {
        let place = match self.chan.limit.permits.try_acquire(1) {
            Err(Refusal::NoPermits) => self.take_place().await.is_ok(),
            place => place.is_ok(),
        };
        if !place {
            return Err(SendError(value));
        }
        self.chan.push(value);
        Ok(())
    }

    /// Sends if there is a place, and nobody waits for it.
    ///
    /// # Errors
    /// The message, and why it was not sent.
    #[inline]
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        match self.try_reserve() {
            Ok(place) => {
                place.send(value);
                Ok(())
            }
            Err(TrySendError::Full(())) => Err(TrySendError::Full(value)),
            Err(TrySendError::Closed(())) => Err(TrySendError::Closed(value)),
        }
    }

    /// Waits for a place.
    ///
    /// Dropping the future loses nothing: the place goes to the next.
    ///
    /// # Errors
    /// If the receiver is gone or closed, before or meanwhile.
    pub async fn reserve(&self) -> Result<Permit<'_, T>, SendError<()>> {
        self.take_place().await?;
        Ok(Permit { chan: &self.chan })
    }

    /// As [`reserve`](Sender::reserve), with the sender in it.
    ///
    /// # Errors
    /// If the receiver is gone or closed, before or meanwhile.
    pub async fn reserve_owned(self) -> Result<OwnedPermit<T>, SendError<()>> {
        self.take_place().await?;
        Ok(OwnedPermit { sender: Some(self) })
    }

    /// Takes a place if there is one, and nobody waits for it.
    ///
    /// # Errors
    /// Why there is none.
    #[inline]
    pub fn try_reserve(&self) -> Result<Permit<'_, T>, TrySendError<()>> {
        match self.chan.limit.permits.try_acquire(1) {
            Ok(()) => Ok(Permit { chan: &self.chan }),
            Err(Refusal::NoPermits) => Err(TrySendError::Full(())),
            Err(Refusal::Closed) => Err(TrySendError::Closed(())),
        }
    }

    /// As [`try_reserve`](Sender::try_reserve), with the sender in it.
    ///
    /// # Errors
    /// The sender, and why there is no place.
    pub fn try_reserve_owned(self) -> Result<OwnedPermit<T>, TrySendError<Self>> {
        match self.chan.limit.permits.try_acquire(1) {
            Ok(()) => Ok(OwnedPermit { sender: Some(self) }),
            Err(Refusal::NoPermits) => Err(TrySendError::Full(self)),
            Err(Refusal::Closed) => Err(TrySendError::Closed(self)),
        }
    }

    async fn take_place(&self) -> Result<(), SendError<()>> {
        // Who waited, was given the last place of a closed channel, and is dropped: the receiver may
        // wait for what it would have sent.
        let _at_the_end = LookAgain(&self.chan);
        self.chan.limit.permits.acquire(1).await.map_err(|_| SendError(()))
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

    /// How many places are free now.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.chan.limit.permits.available()
    }

    /// How many messages the channel was made for.
    #[must_use]
    pub fn max_capacity(&self) -> usize {
        self.chan.limit.capacity
    }

    /// Whether both send to the same receiver.
    #[must_use]
    pub fn same_channel(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.chan, &other.chan)
    }

    /// A sender that does not keep the channel open.
    #[must_use]
    pub fn downgrade(&self) -> WeakSender<T> {
        WeakSender::of(&self.chan)
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

struct LookAgain<'a, T>(&'a Chan<T, Places>);

impl<T> Drop for LookAgain<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.0.look_again();
    }
}

impl<T> Permit<'_, T> {
    /// Sends, at once. If the receiver is gone by now, the message is dropped.
    #[inline]
    pub fn send(self, value: T) {
        let chan = self.chan;
        std::mem::forget(self);
        chan.push(value);
    }
}

impl<T> OwnedPermit<T> {
    /// Sends, at once, and gives the sender back. If the receiver is gone by now, the message is
    /// dropped.
    pub fn send(mut self, value: T) -> Sender<T> {
        let sender = self.sender.take().expect("it is used once");
        sender.chan.push(value);
        sender
    }

    /// Gives the place to the next, and the sender back.
    #[must_use]
    pub fn release(mut self) -> Sender<T> {
        let sender = self.sender.take().expect("it is used once");
        sender.chan.unused(1);
        sender
    }
}

impl<T> Drop for Permit<'_, T> {
    fn drop(&mut self) {
        self.chan.unused(1);
    }
}

impl<T> Drop for OwnedPermit<T> {
    fn drop(&mut self) {
        if let Some(sender) = &self.sender {
            sender.chan.unused(1);
        }
    }
}

impl<T> Receiver<T> {
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

    /// As [`recv`](Receiver::recv), for use in a `poll`.
    #[inline]
    pub fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.chan.poll_recv(context)
    }

    /// As [`recv_many`](Receiver::recv_many), for use in a `poll`.
    pub fn poll_recv_many(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut Vec<T>,
        limit: usize,
    ) -> Poll<usize> {
        self.chan.poll_recv_many(context, buffer, limit)
    }

    /// Accepts no more. What was sent, or has a [`Permit`], is still to be received, and then `None`.
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

    /// How many places are free now.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.chan.limit.permits.available()
    }

    /// How many messages the channel was made for.
    #[must_use]
    pub fn max_capacity(&self) -> usize {
        self.chan.limit.capacity
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

impl<T> WeakSender<T> {
    fn of(chan: &Shared<T>) -> Self {
        chan.weak().set(chan.weak().get() + 1);
        WeakSender { chan: Rc::clone(chan) }
    }

    /// A sender, if there still is another.
    #[must_use]
    pub fn upgrade(&self) -> Option<Sender<T>> {
        (self.chan.senders() > 0).then(|| {
            self.chan.add_sender();
            Sender { chan: Rc::clone(&self.chan) }
        })
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.chan.add_sender();
        Sender { chan: Rc::clone(&self.chan) }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.chan.remove_sender();
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.chan.abandon();
    }
}

impl<T> Clone for WeakSender<T> {
    fn clone(&self) -> Self {
        WeakSender::of(&self.chan)
    }
}

impl<T> Drop for WeakSender<T> {
    fn drop(&mut self) {
        self.chan.weak().set(self.chan.weak().get() - 1);
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("mpsc::Sender").field("capacity", &self.capacity()).finish()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("mpsc::Receiver");
        text.field("len", &self.len()).field("is_closed", &self.is_closed()).finish()
    }
}

impl<T> fmt::Debug for Permit<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("mpsc::Permit").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for OwnedPermit<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("mpsc::OwnedPermit").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for WeakSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("mpsc::WeakSender").finish_non_exhaustive()
    }
}
