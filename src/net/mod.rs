//! Sockets.

mod accept;
mod addr;
mod options;
mod ports;
mod stream;
mod tcp;

pub use addr::ToAddresses;
pub use tcp::{Cork, TcpListener, TcpStream};
