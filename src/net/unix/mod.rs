//! Unix sockets: streams, datagrams and packets between processes of one machine.

mod credentials;
mod datagram;
mod listener;
mod listening;
mod message;
mod messages;
mod passing;
mod seqpacket;
mod share;
mod socket;
mod stream;

pub use credentials::UCred;
pub use datagram::UnixDatagram;
pub use listener::{UnixListener, UnixListenerOptions};
pub use messages::MessageTruncated;
pub use seqpacket::{UnixSeqpacket, UnixSeqpacketListener};
pub use stream::{Unix, UnixStream};
