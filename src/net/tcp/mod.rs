//! TCP: listeners and streams.

mod attempts;
mod close;
mod common;
mod connect;
mod cork;
mod detached;
mod listener;
mod socket;
mod stream;

pub use cork::Cork;
pub use detached::Detached;
pub use listener::{Accept, TcpListener};
pub use socket::TcpSocket;
pub use stream::{Tcp, TcpStream};
