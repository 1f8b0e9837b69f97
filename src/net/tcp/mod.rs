//! TCP: listeners and streams.

mod close;
mod cork;
mod listener;
mod stream;

pub use cork::Cork;
pub use listener::TcpListener;
pub use stream::{Tcp, TcpStream};
