//! Sockets.

mod accept;
mod addr;
mod connect;
mod options;
mod ports;
mod stream;
mod tcp;
mod udp;

pub use crate::buf::datagram::{Datagram, Ecn};
pub use addr::ToAddresses;
pub use stream::Stream;
pub use tcp::{Cork, Tcp, TcpListener, TcpStream};
pub use udp::{Message, UdpSocket};
