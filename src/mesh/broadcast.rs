//! One sender and many receivers, each of which gets every message.

use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll};

use super::SendError;
use super::receiver::Receiver;
use super::sender::{Sender, channel};

/// Makes a channel with so many receivers, each with room for `capacity` messages.
///
/// # Panics
/// If `capacity` is 0, or so large that there is no memory for it.
///
/// ```
/// use quoit::{mesh, runtime};
///
/// runtime::run(async {
///     let cores = runtime::cores();
///     let (mut settings, receivers) = mesh::broadcast(4, cores.len());
///     let calls: Vec<_> = cores
///         .iter()
///         .zip(receivers)
///         .map(|(core, mut receiver)| core.call(async move || receiver.recv().await))
///         .collect();
///     settings.send("verbose").await.unwrap();
///     for call in calls {
///         assert_eq!(call.await.unwrap(), Some("verbose"));
///     }
/// })?;
/// # runtime::Result::Ok(())
/// ```
#[must_use]
#[track_caller]
pub fn broadcast<T>(capacity: usize, receivers: usize) -> (Broadcaster<T>, Vec<Receiver<T>>)
where
    T: Clone + Send + 'static,
{
    let (senders, receivers) = (0..receivers).map(|_| channel(capacity)).unzip();
    (Broadcaster { senders }, receivers)
}

/// Sends each message to all receivers of its [`broadcast`].
///
/// None misses a message: where one has no room, all wait. It can go to another core or thread.
pub struct Broadcaster<T> {
    senders: Vec<Sender<T>>,
}

impl<T: Clone + Send + 'static> Broadcaster<T> {
    /// Sends `message` to all receivers that are left; their number. It waits until all have room.
    ///
    /// Dropping the future before it is done drops the message, and has sent it to nobody.
    ///
    /// # Errors
    /// Gives the message back when no receiver is left.
    pub async fn send(&mut self, message: T) -> Result<usize, SendError<T>> {
        poll_fn(|context| self.poll_ready(context)).await;
        let (mut message, mut refused) = (Some(message), None);
        let mut left = self.senders.len();
        // Room stays until it is used, so none is left out now but who has gone.
        self.senders.retain_mut(|sender| {
            left -= 1;
            let copy = if left == 0 { message.take() } else { message.clone() };
            match sender.try_send(copy.expect("the last one takes the message itself")) {
                Ok(()) => true,
                Err(error) => {
                    refused = Some(error.into_inner());
                    false
                }
            }
        });
        match (self.senders.len(), message.or(refused)) {
            (0, Some(message)) => Err(SendError(message)),
            (count, _) => Ok(count),
        }
    }

    /// Waits for the receivers one by one: only one bell rings for a task at a time.
    fn poll_ready(&mut self, context: &Context<'_>) -> Poll<()> {
        let mut at = 0;
        while let Some(sender) = self.senders.get_mut(at) {
            match sender.poll_ready(context) {
                Poll::Ready(Ok(())) => at += 1,
                Poll::Ready(Err(_)) => drop(self.senders.remove(at)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }

    /// How many receivers are left, as far as is known.
    #[must_use]
    pub fn receivers(&self) -> usize {
        self.senders.iter().filter(|sender| !sender.is_closed()).count()
    }
}

impl<T> fmt::Debug for Broadcaster<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broadcaster")
            .field("receivers", &self.senders.len())
            .finish_non_exhaustive()
    }
}
