//! Channels with many senders and one receiver.
//!
//! Messages arrive in the order in which they were sent. A [`channel`] holds so many at most, and
//! [`send`](Sender::send) waits while it is full: that is backpressure. An [`unbounded_channel`] takes
//! all, at once; it is for what is bounded elsewhere.
//!
//! The receiver gets `None` when all senders are gone, or it was closed, and all that was sent is
//! received. Senders get an error, with their message, when the receiver is gone or closed.
//!
//! Dropping a future loses nothing: a `recv` has taken no message before it is ready. A `send` that is
//! dropped has not sent, and its message is dropped with it; [`reserve`](Sender::reserve) waits for a
//! place without one. Places are given to senders in the order in which they came.
//!
//! They are for the tasks of one core: neither end is `Send`; [`mesh`](crate::mesh) has channels between cores,
//! whose errors are the same. A channel keeps the memory that its queue
//! has needed, an unbounded one up to 4,096 messages, so in a steady state nothing is allocated.

mod bounded;
mod chan;
mod unbounded;

use std::fmt;

pub use bounded::{OwnedPermit, Permit, Receiver, Sender, WeakSender, channel};
pub use unbounded::{UnboundedReceiver, UnboundedSender, WeakUnboundedSender, unbounded_channel};

/// The receiver is gone or closed, perhaps with its core; here is the message.
///
/// ```
/// use quoit::sync::mpsc::{self, error::SendError};
///
/// let (sender, receiver) = mpsc::unbounded_channel();
/// drop(receiver);
/// assert_eq!(sender.send(7), Err(SendError(7)));
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SendError<T>(pub T);

/// Why a message cannot be sent at once; it comes back.
///
/// ```
/// use quoit::sync::mpsc::{self, TrySendError};
///
/// let (sender, receiver) = mpsc::channel(1);
/// sender.try_send(1).unwrap();
/// assert_eq!(sender.try_send(2), Err(TrySendError::Full(2)));
/// drop(receiver);
/// assert_eq!(sender.try_send(3), Err(TrySendError::Closed(3)));
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TrySendError<T> {
    /// The channel is full, or others wait for a place.
    Full(T),
    /// The receiver is gone or closed.
    Closed(T),
}

/// Why there is no message at once.
///
/// ```
/// use quoit::sync::mpsc::{self, TryRecvError};
///
/// let (sender, mut receiver) = mpsc::unbounded_channel::<()>();
/// assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
/// drop(sender);
/// assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TryRecvError {
    /// Nothing is there now.
    Empty,
    /// Nothing is there, and nothing will come.
    Disconnected,
}

/// The errors, under tokio's path.
pub mod error {
    pub use super::{SendError, TryRecvError, TrySendError};
}

impl<T> TrySendError<T> {
    /// The message.
    #[must_use]
    pub fn into_inner(self) -> T {
        match self {
            TrySendError::Full(value) | TrySendError::Closed(value) => value,
        }
    }
}

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendError").finish_non_exhaustive()
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the channel is closed")
    }
}

impl<T> std::error::Error for SendError<T> {}

impl<T> fmt::Debug for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TrySendError::Full(_) => "Full(..)",
            TrySendError::Closed(_) => "Closed(..)",
        })
    }
}

impl<T> fmt::Display for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TrySendError::Full(_) => "the channel is full",
            TrySendError::Closed(_) => "the channel is closed",
        })
    }
}

impl<T> std::error::Error for TrySendError<T> {}

impl fmt::Display for TryRecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TryRecvError::Empty => "the channel is empty",
            TryRecvError::Disconnected => "the channel is empty, and nothing will come",
        })
    }
}

impl std::error::Error for TryRecvError {}
