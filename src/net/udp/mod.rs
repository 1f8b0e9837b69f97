//! UDP: sockets of datagrams.

mod message;
mod options;
mod receive;
mod send;
mod socket;

pub use message::Message;
pub use socket::UdpSocket;

use self::receive::Inbound;
use self::send::Outbound;
use super::ports::Share;

/// What a socket keeps, for its handle and for the operations in flight.
struct State {
    /// Its part of an address that the cores share.
    share: Option<Share>,
    is_ipv6: bool,
    inbound: Inbound,
    outbound: Outbound,
}
