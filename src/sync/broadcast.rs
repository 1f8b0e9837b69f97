//! Every message to every receiver.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use super::notify::Notify;

/// Makes a channel whose receivers each get every message that is sent after they came.
///
/// It holds the latest `capacity` messages. A send never waits: it takes the place of the oldest, and a
/// receiver that has not got that one is told how many it has missed, and goes on with the oldest that is
/// there.
///
/// Each receiver gets a clone, and the last one the message itself. A message is dropped when all have
/// it. In a steady state nothing is allocated.
///
/// ```
/// use quoit::sync::broadcast;
///
/// # quoit::runtime::run(async {
/// let (sender, mut first) = broadcast::channel(16);
/// let mut second = sender.subscribe();
/// assert_eq!(sender.send("news"), Ok(2));
/// assert_eq!(first.recv().await, Ok("news"));
/// assert_eq!(second.recv().await, Ok("news"));
/// # }).unwrap();
/// ```
///
/// # Panics
/// If `capacity` is 0.
#[must_use]
#[track_caller]
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(capacity);
    let receiver = sender.subscribe();
    (sender, receiver)
}

struct Shared<T> {
    ring: RefCell<Ring<T>>,
    /// A message has come, or the last sender has gone.
    arrived: Notify,
    /// The last receiver has gone.
    deserted: Notify,
}

/// The messages, numbered from 0. No code of a user runs while it is borrowed.
struct Ring<T> {
    /// Message `n` is in slot `n % capacity`.
    slots: Vec<Slot<T>>,
    capacity: usize,
    /// The number of the next message.
    next: u64,
    senders: usize,
    weak_senders: usize,
    receivers: usize,
}

/// The message is shared while it is cloned, for a clone runs code of a user; else the slot alone has
/// it, and the allocation serves the next message.
struct Slot<T> {
    message: Rc<Option<T>>,
    /// How many receivers have not got it.
    awaited_by: usize,
}

enum Taken<T> {
    Own(T),
    ToClone(Rc<Option<T>>),
}

/// Sends to all receivers. Clones send to the same.
///
/// ```
/// use quoit::sync::broadcast::Sender;
///
/// # quoit::runtime::run(async {
/// let sender: Sender<i32> = Sender::new(4);
/// assert!(sender.send(1).is_err()); // nobody is there
/// let mut receiver = sender.subscribe();
/// sender.send(2).unwrap();
/// assert_eq!(receiver.recv().await, Ok(2));
/// # }).unwrap();
/// ```
pub struct Sender<T> {
    shared: Rc<Shared<T>>,
}

/// Gets every message that is sent while it is there.
///
/// ```
/// use quoit::sync::broadcast::{self, Receiver};
/// use quoit::sync::broadcast::error::RecvError;
///
/// # quoit::runtime::run(async {
/// let (sender, mut receiver): (_, Receiver<i32>) = broadcast::channel(2);
/// for number in 1..=5 {
///     sender.send(number).unwrap();
/// }
/// assert_eq!(receiver.recv().await, Err(RecvError::Lagged(3)));
/// assert_eq!(receiver.recv().await, Ok(4));
/// drop(sender);
/// assert_eq!(receiver.recv().await, Ok(5));
/// assert_eq!(receiver.recv().await, Err(RecvError::Closed));
/// # }).unwrap();
/// ```
pub struct Receiver<T> {
    shared: Rc<Shared<T>>,
    /// The number of the message that it gets next.
    next: u64,
}

/// A [`Sender`] that does not keep the channel open; made by [`Sender::downgrade`].
///
/// ```
/// use quoit::sync::broadcast::{self, WeakSender};
///
/// let (sender, receiver) = broadcast::channel::<i32>(1);
/// let weak: WeakSender<i32> = sender.downgrade();
/// drop(sender);
/// assert!(weak.upgrade().is_none());
/// # drop(receiver);
/// ```
pub struct WeakSender<T> {
    shared: Rc<Shared<T>>,
}

/// The errors, under tokio's path.
pub mod error {
    pub use super::{RecvError, SendError, TryRecvError};
}

/// There is no receiver; here is the message.
///
/// ```
/// use quoit::sync::broadcast::{self, error::SendError};
///
/// let (sender, receiver) = broadcast::channel(1);
/// drop(receiver);
/// assert_eq!(sender.send(7), Err(SendError(7)));
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SendError<T>(pub T);

/// Why a receiver got no message.
///
/// ```
/// use quoit::sync::broadcast::error::RecvError;
///
/// assert_eq!(RecvError::Lagged(3).to_string(), "3 messages were missed");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecvError {
    /// All senders are gone, and everything was received.
    Closed,
    /// So many messages are gone. The next call gets the oldest that is there.
    Lagged(u64),
}

/// Why a receiver gets no message at once.
///
/// ```
/// use quoit::sync::broadcast::{self, error::TryRecvError};
///
/// let (sender, mut receiver) = broadcast::channel::<i32>(1);
/// assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
/// drop(sender);
/// assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TryRecvError {
    /// Nothing is there now.
    Empty,
    /// All senders are gone, and everything was received.
    Closed,
    /// So many messages are gone. The next call gets the oldest that is there.
    Lagged(u64),
}

impl<T> Shared<T> {
    fn with<R>(&self, f: impl FnOnce(&mut Ring<T>) -> R) -> R {
        f(&mut self.ring.borrow_mut())
    }
}

impl<T> Ring<T> {
    /// Adds a message, and returns the one that it displaces.
    fn push(&mut self, message: T) -> Option<T> {
        let at = (self.next % self.capacity as u64) as usize;
        self.next += 1;
        let awaited_by = self.receivers;
        let Some(slot) = self.slots.get_mut(at) else {
            self.slots.push(Slot { message: Rc::new(Some(message)), awaited_by });
            return None;
        };
        slot.awaited_by = awaited_by;
        match Rc::get_mut(&mut slot.message) {
            Some(place) => place.replace(message),
            // It is being cloned, by what has come to send.
            None => {
                slot.message = Rc::new(Some(message));
                None
            }
        }
    }

    /// The number of the oldest message that is there, if any is.
    fn oldest(&self) -> u64 {
        self.next.saturating_sub(self.capacity as u64)
    }

    /// Takes the message that a receiver gets next.
    fn take(&mut self, next: &mut u64) -> Result<Taken<T>, TryRecvError> {
        let missed = self.oldest().saturating_sub(*next);
        if missed > 0 {
            *next += missed;
            return Err(TryRecvError::Lagged(missed));
        }
        if *next == self.next {
            return Err(if self.senders == 0 { TryRecvError::Closed } else { TryRecvError::Empty });
        }
        let number = *next;
        *next += 1;
        match self.leave(number) {
            Some(message) => Ok(Taken::Own(message)),
            None => Ok(Taken::ToClone(Rc::clone(&self.slot(number).message))),
        }
    }

    /// One receiver less awaits this message, which is returned to the last.
    fn leave(&mut self, number: u64) -> Option<T> {
        let slot = self.slot(number);
        slot.awaited_by -= 1;
        if slot.awaited_by > 0 {
            return None;
        }
        // If it is being cloned, it stays until another takes its place.
        Rc::get_mut(&mut slot.message).and_then(Option::take)
    }

    fn slot(&mut self, number: u64) -> &mut Slot<T> {
        let at = (number % self.capacity as u64) as usize;
        &mut self.slots[at]
    }
}

impl<T> Sender<T> {
    /// A sender of a channel for `capacity` messages, without a receiver yet.
    ///
    /// # Panics
    /// If `capacity` is 0.
    #[must_use]
    #[track_caller]
    pub fn new(capacity: usize) -> Self {
        assert!(
            capacity > 0,
            "a channel of capacity 0 holds no message; give it room for 1 at least"
        );
        let ring = Ring {
            slots: Vec::new(),
            capacity,
            next: 0,
            senders: 1,
            weak_senders: 0,
            receivers: 0,
        };
        let (arrived, deserted) = (Notify::new(), Notify::new());
        Sender { shared: Rc::new(Shared { ring: RefCell::new(ring), arrived, deserted }) }
    }

    /// Sends to all receivers, at once, and says how many they are.
    ///
    /// # Errors
    /// The message, if there is no receiver.
    pub fn send(&self, message: T) -> Result<usize, SendError<T>> {
        let receivers = self.receiver_count();
        if receivers == 0 {
            return Err(SendError(message));
        }
        let displaced = self.shared.with(|ring| ring.push(message));
        self.shared.arrived.notify_waiters();
        drop(displaced);
        Ok(receivers)
    }

    /// A receiver of what is sent from now on.
    #[must_use]
    pub fn subscribe(&self) -> Receiver<T> {
        let next = self.shared.with(|ring| {
            ring.receivers += 1;
            ring.next
        });
        Receiver { shared: Rc::clone(&self.shared), next }
    }

    /// Waits until there is no receiver.
    pub async fn closed(&self) {
        while self.receiver_count() > 0 {
            self.shared.deserted.notified().await;
        }
    }

    /// How many receivers there are.
    #[must_use]
    pub fn receiver_count(&self) -> usize {
        self.shared.with(|ring| ring.receivers)
    }

    /// How many messages some receiver has not got yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.with(|ring| {
            (ring.oldest()..ring.next).filter(|number| ring.slot(*number).awaited_by > 0).count()
        })
    }

    /// Whether all receivers have got everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether both send to the same receivers.
    #[must_use]
    pub fn same_channel(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.shared, &other.shared)
    }

    /// A sender that does not keep the channel open.
    #[must_use]
    pub fn downgrade(&self) -> WeakSender<T> {
        WeakSender::of(&self.shared)
    }

    /// How many senders there are.
    #[must_use]
    pub fn strong_count(&self) -> usize {
        self.shared.with(|ring| ring.senders)
    }

    /// How many weak senders there are.
    #[must_use]
    pub fn weak_count(&self) -> usize {
        self.shared.with(|ring| ring.weak_senders)
    }
}

impl<T: Clone> Receiver<T> {
    /// Waits for the next message.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// If messages were missed, or there will be none.
    pub async fn recv(&mut self) -> Result<T, RecvError> {
        loop {
            match self.try_recv() {
                Ok(message) => return Ok(message),
                Err(TryRecvError::Closed) => return Err(RecvError::Closed),
                Err(TryRecvError::Lagged(missed)) => return Err(RecvError::Lagged(missed)),
                Err(TryRecvError::Empty) => self.shared.arrived.notified().await,
            }
        }
    }

    /// Takes the next message if there is one.
    ///
    /// # Errors
    /// Why there is none.
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        let next = &mut self.next;
        let taken = self.shared.with(|ring| ring.take(next))?;
        Ok(match taken {
            Taken::Own(message) => message,
            Taken::ToClone(message) => {
                Option::clone(&message).expect("a message is there until all have it")
            }
        })
    }
}

impl<T> Receiver<T> {
    /// A receiver of what is sent from now on.
    #[must_use]
    pub fn resubscribe(&self) -> Self {
        let next = self.shared.with(|ring| {
            ring.receivers += 1;
            ring.next
        });
        Receiver { shared: Rc::clone(&self.shared), next }
    }

    /// How many messages it has not got, those that it has missed included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.with(|ring| ring.next - self.next) as usize
    }

    /// Whether it has got everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether all senders are gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.with(|ring| ring.senders == 0)
    }

    /// Whether both receive from the same senders.
    #[must_use]
    pub fn same_channel(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.shared, &other.shared)
    }

    /// How many senders there are.
    #[must_use]
    pub fn sender_strong_count(&self) -> usize {
        self.shared.with(|ring| ring.senders)
    }

    /// How many weak senders there are.
    #[must_use]
    pub fn sender_weak_count(&self) -> usize {
        self.shared.with(|ring| ring.weak_senders)
    }
}

impl<T> WeakSender<T> {
    fn of(shared: &Rc<Shared<T>>) -> Self {
        shared.with(|ring| ring.weak_senders += 1);
        WeakSender { shared: Rc::clone(shared) }
    }

    /// A sender, if there still is another.
    #[must_use]
    pub fn upgrade(&self) -> Option<Sender<T>> {
        let is_open = self.shared.with(|ring| {
            let is_open = ring.senders > 0;
            ring.senders += usize::from(is_open);
            is_open
        });
        is_open.then(|| Sender { shared: Rc::clone(&self.shared) })
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.shared.with(|ring| ring.senders += 1);
        Sender { shared: Rc::clone(&self.shared) }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let left = self.shared.with(|ring| {
            ring.senders -= 1;
            ring.senders
        });
        if left == 0 {
            self.shared.arrived.notify_waiters();
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let (end, left) = self.shared.with(|ring| {
            ring.receivers -= 1;
            (ring.next, ring.receivers)
        });
        if left == 0 {
            self.shared.deserted.notify_waiters();
        }
        // One at a time: dropping a message runs code of a user, which may send.
        while self.next < end {
            let message = self.shared.with(|ring| {
                let number = self.next.max(ring.oldest());
                self.next = number + 1;
                if number < end { ring.leave(number) } else { None }
            });
            drop(message);
        }
    }
}

impl<T> Clone for WeakSender<T> {
    fn clone(&self) -> Self {
        WeakSender::of(&self.shared)
    }
}

impl<T> Drop for WeakSender<T> {
    fn drop(&mut self) {
        self.shared.with(|ring| ring.weak_senders -= 1);
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let receivers = self.receiver_count();
        f.debug_struct("broadcast::Sender").field("receiver_count", &receivers).finish()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("broadcast::Receiver").field("len", &self.len()).finish()
    }
}

impl<T> fmt::Debug for WeakSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("broadcast::WeakSender").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendError").finish_non_exhaustive()
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the channel has no receiver")
    }
}

impl<T> std::error::Error for SendError<T> {}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecvError::Closed => f.write_str("the channel is closed"),
            RecvError::Lagged(missed) => write!(f, "{missed} messages were missed"),
        }
    }
}

impl std::error::Error for RecvError {}

impl fmt::Display for TryRecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TryRecvError::Empty => f.write_str("the channel is empty"),
            TryRecvError::Closed => RecvError::Closed.fmt(f),
            TryRecvError::Lagged(missed) => RecvError::Lagged(*missed).fmt(f),
        }
    }
}

impl std::error::Error for TryRecvError {}
