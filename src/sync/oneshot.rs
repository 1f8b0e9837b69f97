//! One value, from one task to another.

use std::cell::Cell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use super::waker_cell::WakerCell;
use crate::sys::half::Half;

/// Makes a channel for one value: an answer, the end of something.
///
/// ```
/// use quoit::sync::oneshot;
///
/// # quoit::runtime::run(async {
/// let (sender, receiver) = oneshot::channel();
/// quoit::spawn(async move { sender.send(6 * 7) });
/// assert_eq!(receiver.await, Ok(42));
/// # }).unwrap();
/// ```
#[inline]
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = Half::pair(Shared {
        value: Cell::new(None),
        receiver: WakerCell::default(),
        sender: WakerCell::default(),
        state: Cell::new(0),
    });
    (Sender { shared: sender }, Receiver { shared: Some(receiver) })
}

struct Shared<T> {
    value: Cell<Option<T>>,
    receiver: WakerCell,
    sender: WakerCell,
    state: Cell<u8>,
}

/// The sender has sent, or was dropped.
const SENDER_GONE: u8 = 1 << 0;
/// Nothing can be sent any more.
const CLOSED: u8 = 1 << 1;
/// There was a wait: a place of a waker may be in use. Most channels end without.
const WAITED: u8 = 1 << 2;

/// Sends the one value. Dropping it instead tells the [`Receiver`].
///
/// ```
/// use quoit::sync::oneshot::{self, Sender};
///
/// let (sender, receiver): (Sender<i32>, _) = oneshot::channel();
/// drop(receiver);
/// assert_eq!(sender.send(7), Err(7)); // it comes back
/// ```
pub struct Sender<T> {
    shared: Half<Shared<T>>,
}

/// Waits for the one value: it is a future. Dropping it instead tells the [`Sender`], and drops a value
/// that was sent already; a future that only borrows it (`&mut receiver`) loses nothing when dropped.
///
/// ```
/// use quoit::sync::oneshot::{self, Receiver};
///
/// # quoit::runtime::run(async {
/// let (sender, mut receiver): (_, Receiver<i32>) = oneshot::channel();
/// assert!(receiver.try_recv().is_err());
/// drop(sender);
/// assert!(receiver.await.is_err());
/// # }).unwrap();
/// ```
#[must_use = "it waits only when it is awaited"]
pub struct Receiver<T> {
    /// None once the outcome was taken.
    shared: Option<Half<Shared<T>>>,
}

/// The sender was dropped without sending.
///
/// ```
/// use quoit::sync::oneshot::{self, RecvError};
///
/// # quoit::runtime::run(async {
/// let (sender, receiver) = oneshot::channel::<()>();
/// drop(sender);
/// let error: RecvError = receiver.await.unwrap_err();
/// assert_eq!(error.to_string(), "the sender was dropped without sending");
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecvError(());

/// Why there is no value at once.
///
/// ```
/// use quoit::sync::oneshot::{self, TryRecvError};
///
/// let (sender, mut receiver) = oneshot::channel::<()>();
/// assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
/// drop(sender);
/// assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TryRecvError {
    /// Nothing was sent yet.
    Empty,
    /// Nothing was sent, and nothing will be; or it was received before.
    Closed,
}

impl<T> Sender<T> {
    /// Sends the value, at once.
    ///
    /// # Errors
    /// The value, if the receiver is gone or closed.
    #[inline]
    pub fn send(self, value: T) -> Result<(), T> {
        if self.is_closed() {
            return Err(value);
        }
        self.shared.value.set(Some(value));
        // The drop of `self` wakes the receiver.
        Ok(())
    }

    /// Waits until the receiver is gone or closed: what was asked for is not wanted any more.
    pub async fn closed(&mut self) {
        poll_fn(|context| self.poll_closed(context)).await;
    }

    /// As [`closed`](Sender::closed), for use in a `poll`.
    pub fn poll_closed(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let shared = &*self.shared;
        shared.set(WAITED);
        if shared.has(CLOSED) || shared.sender.wait(context.waker()) && shared.has(CLOSED) {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Whether the receiver is gone or closed.
    #[must_use]
    #[inline]
    pub fn is_closed(&self) -> bool {
        self.shared.has(CLOSED)
    }
}

impl<T> Receiver<T> {
    /// Takes the value if there is one.
    ///
    /// # Errors
    /// Why there is none.
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        let shared = self.shared.as_ref().ok_or(TryRecvError::Closed)?;
        let outcome = shared.outcome().ok_or(TryRecvError::Empty)?;
        self.shared = None;
        outcome.map_err(|RecvError(())| TryRecvError::Closed)
    }

    /// Nothing can be sent any more; what was sent is still to be received.
    pub fn close(&mut self) {
        if let Some(shared) = &self.shared {
            shared.close();
        }
    }

    /// Whether there is no value to receive.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Some(shared) = &self.shared else { return true };
        let value = shared.value.take();
        let is_empty = value.is_none();
        shared.value.set(value);
        is_empty
    }

    /// Whether the outcome was taken: then it is not to be awaited again.
    #[must_use]
    pub fn is_terminated(&self) -> bool {
        self.shared.is_none()
    }
}

impl<T> Shared<T> {
    #[inline]
    fn has(&self, flags: u8) -> bool {
        self.state.get() & flags != 0
    }

    #[inline]
    fn set(&self, flags: u8) {
        self.state.set(self.state.get() | flags);
    }

    /// What it has come to, if it has.
    #[inline]
    fn outcome(&self) -> Option<Result<T, RecvError>> {
        match self.value.take() {
            Some(value) => Some(Ok(value)),
            None if self.has(SENDER_GONE | CLOSED) => Some(Err(RecvError(()))),
            None => None,
        }
    }

    fn close(&self) {
        if !self.has(CLOSED) {
            self.set(CLOSED);
            self.sender.wake_last();
        }
    }

    /// Waits for the outcome, unless there is one by then: to wait may run code of a user.
    #[cold]
    fn wait(&self, context: &Context<'_>) -> Option<Result<T, RecvError>> {
        self.set(WAITED);
        if self.receiver.wait(context.waker()) { self.outcome() } else { None }
    }
}

impl<T> Future for Receiver<T> {
    type Output = Result<T, RecvError>;

    /// # Panics
    /// When the outcome was taken before.
    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let shared = self.shared.as_ref().expect("a oneshot::Receiver was polled after its end");
        let outcome = shared.outcome().or_else(|| shared.wait(context));
        match outcome {
            Some(outcome) => {
                self.shared = None;
                Poll::Ready(outcome)
            }
            None => Poll::Pending,
        }
    }
}

impl<T> Drop for Sender<T> {
    #[inline]
    fn drop(&mut self) {
        self.shared.set(SENDER_GONE);
        if self.shared.has(WAITED) {
            self.shared.sender.forget();
            self.shared.receiver.wake_last();
        }
    }
}

impl<T> Drop for Receiver<T> {
    #[inline]
    fn drop(&mut self) {
        // Whoever has taken the outcome has left already.
        if let Some(shared) = self.shared.take() {
            shared.close();
            shared.receiver.forget();
            drop(shared.value.take());
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("oneshot::Sender").field("is_closed", &self.is_closed()).finish()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("oneshot::Receiver").field("is_empty", &self.is_empty()).finish()
    }
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the sender was dropped without sending")
    }
}

impl std::error::Error for RecvError {}

impl fmt::Display for TryRecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TryRecvError::Empty => "nothing was sent yet",
            TryRecvError::Closed => "nothing will be sent any more",
        })
    }
}

impl std::error::Error for TryRecvError {}
