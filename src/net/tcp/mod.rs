//! TCP: listeners and streams.

mod accept;
mod connect;
mod listener;
mod ports;
mod receive;
mod send;
mod stream;

pub use listener::TcpListener;
pub use stream::TcpStream;
