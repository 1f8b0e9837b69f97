//! TCP: listeners and streams.

mod connect;
mod listener;
mod ports;
mod stream;

pub use listener::TcpListener;
pub use stream::TcpStream;
