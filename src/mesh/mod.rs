//! Channels from core to core: what goes through them moves, and nothing is shared.
//!
//! A [`channel`] has one [`Receiver`] and a [`Sender`] for each core, or task, that sends. Each sender
//! has a queue of its own to the receiver, with room for so many messages: no two cores ever write to
//! the same memory. Where that is full, [`Sender::send`] waits.
//!
//! To have another core *do* something is [`Handle::call`](crate::runtime::Handle::call); a channel is
//! for a stream of messages to a task that waits for them.
//!
//! ```
//! use quoit::{mesh, runtime};
//!
//! runtime::run(async {
//!     let (mut sender, mut receiver) = mesh::channel(64);
//!     let core = runtime::core_for("the sum");
//!     let sum = core.call(async move || {
//!         let mut sum = 0;
//!         while let Some(number) = receiver.recv().await {
//!             sum += number;
//!         }
//!         sum
//!     });
//!     for number in 1..=10 {
//!         sender.send(number).await.unwrap();
//!     }
//!     drop(sender);
//!     assert_eq!(sum.await.unwrap(), 55);
//! })?;
//! # runtime::Result::Ok(())
//! ```
//!
//! # When a message arrives
//!
//! A receiver that looks sees a message at once. One that sleeps is woken when the tasks of the
//! sender's core have had their turn, once for all that was sent by then; likewise a sender that waits
//! for room. Outside of a runtime, where [`Sender::try_send`] and [`Receiver::try_recv`] work as well,
//! it is woken at once.
//!
//! # What can be sent
//!
//! All that is `Send`: numbers, a `Vec`, a [`Detached`](crate::net::Detached) connection. A buffer that
//! is leased from a core's pool ([`PooledBuf`](crate::buf::PooledBuf)) is not, for it has to go home: copy
//! it out, with `to_vec()`.
//!
//! # When an end goes
//!
//! A core that ends drops its tasks, and with them their ends of channels. The other end notices: a
//! sender gets its message back in a [`SendError`], a receiver gets what was sent before, and then
//! `None`. Messages that nobody has received when the receiver goes are dropped.

mod broadcast;
mod receiver;
mod sender;

pub use self::broadcast::{Broadcaster, broadcast};
pub use self::receiver::Receiver;
pub use self::sender::{Sender, channel};
pub use crate::sync::mpsc::{SendError, TryRecvError, TrySendError};

/// Messages that a task sends or receives without a pause; then others have their turn.
const SPREE: u32 = 256;
