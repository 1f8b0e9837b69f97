//! Sockets.

mod accept;
mod addr;
mod connect;
mod fellows;
mod hand_over;
mod names;
mod options;
mod ports;
mod stream;
mod tcp;
mod udp;
mod unix;

pub use crate::buf::datagram::{Datagram, Ecn};
pub use addr::ToAddresses;
pub use hand_over::HandOver;
pub use names::{LookupError, lookup_host};
pub use stream::Stream;
pub use tcp::{Accept, Cork, Detached, Tcp, TcpListener, TcpSocket, TcpStream};
pub use udp::{Message, UdpSocket};
pub use unix::{
    MessageTruncated, UCred, Unix, UnixDatagram, UnixListener, UnixListenerOptions, UnixSeqpacket,
    UnixSeqpacketListener, UnixStream,
};
