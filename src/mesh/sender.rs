//! The end of a channel that sends.

use std::fmt;
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use super::SPREE;
use super::receiver::{Incoming, Receiver};
use super::{SendError, TrySendError};
use crate::sys::atomic::Arc;
use crate::sys::bell::Bell;
use crate::sys::fork::forked;
use crate::sys::lane::{Producer, lane};
use crate::task::outbox::{Mark, ring_soon};

/// What the ends of a channel share.
pub(super) struct Hub<T> {
    /// Where the receiver waits.
    pub(super) arrived: Arc<Bell>,
    joined: Mutex<Joined<T>>,
}

/// Senders that the receiver has not met yet. `None`: it is gone.
type Joined<T> = Option<Vec<Incoming<T>>>;

impl<T> Hub<T> {
    pub(super) fn joined(&self) -> MutexGuard<'_, Joined<T>> {
        self.joined.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a channel in which each sender has room for `capacity` messages.
///
/// # Panics
/// If `capacity` is 0, or so large that there is no memory for it.
#[must_use]
#[track_caller]
pub fn channel<T: Send + 'static>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert!(capacity > 0, "a channel without room could never be sent through");
    let hub = Hub { arrived: Arc::new(Bell::new()), joined: Mutex::new(Some(Vec::new())) };
    let hub = Arc::new(hub);
    let sender = Sender::join(&hub, capacity);
    (sender, Receiver::new(hub))
}

/// Sends messages to the [`Receiver`] of its [`channel`].
///
/// It can go to another core or thread. Several tasks that send have one each: a clone has a queue of
/// its own, with as much room. The messages of one sender arrive in their order.
pub struct Sender<T> {
    lane: Producer<T>,
    capacity: usize,
    /// Where this waits for room.
    room: Arc<Bell>,
    hub: Arc<Hub<T>>,
    arrived: Arc<Bell>,
    told: Mark,
    spree: u32,
}

impl<T: Send + 'static> Sender<T> {
    fn join(hub: &Arc<Hub<T>>, capacity: usize) -> Self {
        let (producer, consumer) = lane(capacity);
        let room = Arc::new(Bell::new());
        let incoming = Incoming::new(consumer, Arc::clone(&room));
        // In a forked child a thread of the parent may have held the lock. What is refused is dropped
        // after it: its sender finds the channel closed.
        let refused = match forked() {
            true => Some(incoming),
            false => match &mut *hub.joined() {
                Some(joined) => {
                    joined.push(incoming);
                    None
                }
                None => Some(incoming),
            },
        };
        drop(refused);
        Sender {
            lane: producer,
            capacity,
            room,
            hub: Arc::clone(hub),
            arrived: Arc::clone(&hub.arrived),
            told: Mark::default(),
            spree: 0,
        }
    }

    /// Sends `message`, and waits for room before that if there is none.
    ///
    /// Dropping the future before it is done drops the message, and has sent nothing. Whoever wants to
    /// keep the message waits with [`ready`](Sender::ready) and then calls
    /// [`try_send`](Sender::try_send).
    ///
    /// # Errors
    /// Gives the message back when the receiver is gone.
    ///
    /// ```
    /// # quoit::runtime::run(async {
    /// let (mut sender, receiver) = quoit::mesh::channel(1);
    /// sender.send("one").await.unwrap();
    /// drop(receiver);
    /// assert_eq!(sender.send("two").await.unwrap_err().0, "two");
    /// # }).unwrap();
    /// ```
    pub async fn send(&mut self, message: T) -> Result<(), SendError<T>> {
        if self.ready().await.is_err() {
            return Err(SendError(message));
        }
        self.try_send(message).map_err(|error| SendError(error.into_inner()))
    }

    /// Waits until there is room, which nobody else takes. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The receiver is gone.
    pub async fn ready(&mut self) -> Result<(), SendError<()>> {
        poll_fn(|context| self.poll_ready(context)).await
    }

    pub(super) fn poll_ready(&mut self, context: &Context<'_>) -> Poll<Result<(), SendError<()>>> {
        if self.spree >= SPREE {
            self.spree = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(ready) = self.readiness() {
            return Poll::Ready(ready);
        }
        self.spree = 0;
        self.room.wait(context);
        // Once more: it may have come before the bell was watched.
        self.readiness().map_or(Poll::Pending, Poll::Ready)
    }

    fn readiness(&mut self) -> Option<Result<(), SendError<()>>> {
        if self.lane.is_closed() {
            return Some(Err(SendError(())));
        }
        self.lane.has_room().then_some(Ok(()))
    }

    /// Sends `message` if there is room.
    ///
    /// # Errors
    /// Gives the message back when there is none, or when the receiver is gone.
    #[inline]
    pub fn try_send(&mut self, message: T) -> Result<(), TrySendError<T>> {
        if self.lane.is_closed() {
            return Err(TrySendError::Closed(message));
        }
        self.lane.push(message).map_err(TrySendError::Full)?;
        // Only `poll_ready` looks at it, and there may be none.
        self.spree = self.spree.saturating_add(1);
        ring_soon(&self.arrived, &mut self.told);
        Ok(())
    }

    /// Whether the receiver is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.lane.is_closed()
    }

    /// How many messages of this sender may wait to be received.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }
}

impl<T: Send + 'static> Clone for Sender<T> {
    /// A sender of its own, for another core or task.
    fn clone(&self) -> Self {
        Sender::join(&self.hub, self.capacity)
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        // The receiver looks after this: a sender that is asleep in it would not be the last to go.
        self.lane.end();
        self.arrived.ring();
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn whoever_never_waits_may_send_for_ever() {
        let (mut sender, mut receiver) = channel(4);
        // As after so many.
        sender.spree = u32::MAX;
        (0..4).for_each(|number| sender.try_send(number).unwrap());
        (0..4).for_each(|number| assert_eq!(receiver.try_recv(), Ok(number)));
    }
}
