//! The end of a channel that receives.

use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll};

use super::SPREE;
use super::TryRecvError;
use super::sender::Hub;
use crate::sys::atomic::Arc;
use crate::sys::bell::Bell;
use crate::sys::fork::forked;
use crate::sys::lane::Consumer;
use crate::task::outbox::{Mark, ring_soon};

/// Messages of one sender in a row, while others have some too.
const IN_A_ROW: u32 = 32;

/// A sender, as the receiver sees it.
pub(super) struct Incoming<T> {
    lane: Consumer<T>,
    /// Where the sender waits for room.
    room: Arc<Bell>,
    told: Mark,
}

impl<T> Incoming<T> {
    pub(super) fn new(lane: Consumer<T>, room: Arc<Bell>) -> Self {
        Incoming { lane, room, told: Mark::default() }
    }
}

impl<T> Drop for Incoming<T> {
    fn drop(&mut self) {
        // The sender looks after this.
        self.lane.end();
        self.room.ring();
    }
}

/// Receives the messages of all [`Sender`](super::Sender)s of its [`channel`](super::channel).
///
/// It can go to another core or thread. Senders that have something take turns.
pub struct Receiver<T> {
    hub: Arc<Hub<T>>,
    lanes: Vec<Incoming<T>>,
    /// Whose turn it is, and for how many messages it has been.
    turn: usize,
    in_a_row: u32,
    spree: u32,
    /// Messages since it last looked for new senders.
    since_met: u32,
}

impl<T: Send + 'static> Receiver<T> {
    pub(super) fn new(hub: Arc<Hub<T>>) -> Self {
        Receiver { hub, lanes: Vec::new(), turn: 0, in_a_row: 0, spree: 0, since_met: 0 }
    }

    /// The next message; `None` when every sender is gone and all they sent was received.
    ///
    /// Dropping the future loses nothing.
    ///
    /// ```
    /// # quoit::runtime::run(async {
    /// let (mut sender, mut receiver) = quoit::mesh::channel(8);
    /// sender.send(vec![1, 2, 3]).await.unwrap();
    /// drop(sender);
    /// assert_eq!(receiver.recv().await, Some(vec![1, 2, 3]));
    /// assert_eq!(receiver.recv().await, None);
    /// # }).unwrap();
    /// ```
    pub async fn recv(&mut self) -> Option<T> {
        poll_fn(|context| self.poll_recv(context)).await
    }

    /// Waits for a message, then appends what has come, but no more than `limit`, to `messages`. The
    /// number of messages; 0 when every sender is gone, or `limit` is 0.
    ///
    /// Dropping the future loses nothing.
    pub async fn recv_many(&mut self, messages: &mut Vec<T>, limit: usize) -> usize {
        if limit == 0 {
            return 0;
        }
        let Some(first) = self.recv().await else { return 0 };
        let before = messages.len();
        messages.push(first);
        while messages.len() - before < limit
            && let Ok(message) = self.try_recv()
        {
            messages.push(message);
        }
        messages.len() - before
    }

    /// The next message if there is one.
    ///
    /// # Errors
    /// There is none now, or there will never be one.
    #[inline]
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        if self.since_met >= SPREE {
            // Those that it knows may never leave it without a message.
            self.meet();
        }
        if let Some(message) = self.take_in_turn() {
            return Ok(message);
        }
        self.look_round()
    }

    fn poll_recv(&mut self, context: &Context<'_>) -> Poll<Option<T>> {
        if self.spree >= SPREE {
            self.spree = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut next = self.try_recv();
        if next.is_err() {
            self.hub.arrived.wait(context);
            // Once more: it may have come before the bell was watched.
            next = self.try_recv();
        }
        self.spree = if next.is_ok() { self.spree + 1 } else { 0 };
        match next {
            Ok(message) => Poll::Ready(Some(message)),
            Err(TryRecvError::Disconnected) => Poll::Ready(None),
            Err(TryRecvError::Empty) => Poll::Pending,
        }
    }

    /// A message of the sender whose turn it is.
    #[inline]
    fn take_in_turn(&mut self) -> Option<T> {
        if self.in_a_row >= IN_A_ROW && self.lanes.len() > 1 {
            return None;
        }
        let incoming = self.lanes.get_mut(self.turn)?;
        let message = incoming.lane.pop()?;
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.since_met += 1;
        ring_soon(&incoming.room, &mut incoming.told);
        Some(message)
    }

    /// Gives each sender a turn, then looks for new ones.
    fn look_round(&mut self) -> Result<T, TryRecvError> {
        loop {
            for _ in 0..self.lanes.len() {
                self.turn = (self.turn + 1) % self.lanes.len().max(1);
                self.in_a_row = 0;
                if let Some(message) = self.take_in_turn() {
                    return Ok(message);
                }
                if self.lanes[self.turn].lane.is_ended() {
                    drop(self.lanes.remove(self.turn));
                    if self.lanes.is_empty() {
                        break;
                    }
                    // Who followed it is at its place now, and comes next.
                    self.turn = (self.turn + self.lanes.len() - 1) % self.lanes.len();
                }
            }
            // After the ends were seen: who is gone has made its clones before.
            if !self.meet() {
                let nobody = self.lanes.is_empty();
                return Err(if nobody { TryRecvError::Disconnected } else { TryRecvError::Empty });
            }
        }
    }

    /// Takes up new senders. Whether there were any.
    fn meet(&mut self) -> bool {
        self.since_met = 0;
        if forked() {
            // A thread of the parent may have held the lock.
            return false;
        }
        let joined = std::mem::take(self.hub.joined().as_mut().expect("the receiver is here"));
        let met = !joined.is_empty();
        self.lanes.extend(joined);
        met
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        if !forked() {
            // From now on clones find the channel closed. Dropped without the lock: messages are a user's.
            let joined = self.hub.joined().take();
            drop(joined);
        }
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("senders", &self.lanes.len()).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::channel;

    #[test]
    fn one_sender_may_be_received_from_for_ever() {
        let (mut sender, mut receiver) = channel(4);
        (0..4).for_each(|number| sender.try_send(number).unwrap());
        assert_eq!(receiver.try_recv(), Ok(0));
        // As after so many.
        receiver.in_a_row = u32::MAX;
        (1..4).for_each(|number| assert_eq!(receiver.try_recv(), Ok(number)));
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::super::channel;
    use super::*;
    use crate::sys::atomic::{AtomicUsize, Ordering, model};
    use loom::thread;
    use std::task::{Wake, Waker};

    #[derive(Default)]
    struct Wakes(AtomicUsize);
    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Release);
        }
    }

    #[test]
    fn loom_a_receiver_takes_a_message_or_is_woken_for_it() {
        model(|| {
            let (mut sender, mut receiver) = channel(1);
            let wakes = Arc::new(Wakes::default());
            let waker = Waker::from(Arc::clone(&wakes));
            let other = thread::spawn(move || {
                sender.try_send(7).unwrap();
                sender
            });
            let first = receiver.poll_recv(&Context::from_waker(&waker));
            let sender = other.join().unwrap();
            match first {
                Poll::Ready(message) => assert_eq!(message, Some(7)),
                Poll::Pending => {
                    assert_eq!(wakes.0.load(Ordering::Acquire), 1, "it waits for ever");
                    assert_eq!(receiver.try_recv(), Ok(7));
                }
            }
            drop(sender);
            assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
        });
    }

    #[test]
    fn loom_a_sender_finds_room_or_the_end_or_is_woken_for_it() {
        model(|| {
            let (mut sender, mut receiver) = channel(1);
            sender.try_send(1).unwrap();
            let wakes = Arc::new(Wakes::default());
            let waker = Waker::from(Arc::clone(&wakes));
            let other = thread::spawn(move || {
                assert_eq!(receiver.try_recv(), Ok(1));
            });
            let first = sender.poll_ready(&Context::from_waker(&waker));
            other.join().unwrap();
            assert!(first.is_ready() || wakes.0.load(Ordering::Acquire) >= 1, "it waits for ever");
            assert!(sender.is_closed());
        });
    }
}
