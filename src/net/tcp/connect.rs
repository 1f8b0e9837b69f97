//! Connecting a TCP socket.

use std::io;
use std::net::SocketAddr;

use crate::net::{connect, options};
use crate::op::Submission;
use crate::sys::addr::Address;
use crate::sys::fd::Fd;

/// One attempt; its socket is closed if that fails.
pub(super) type Connect = connect::Connect<(), Address>;

/// A new socket that is to be connected to `address`.
///
/// # Errors
/// What `socket` answers: there may be no descriptor left, or no such family.
pub(super) fn begin(address: SocketAddr) -> io::Result<Submission<Connect>> {
    let fd = options::stream_socket(&address)?;
    options::set(fd.raw(), libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    Ok(with(Fd::new(fd, ()), address))
}

/// A socket that was there already, and is to be connected to `address`.
pub(super) fn with(fd: Fd, address: SocketAddr) -> Submission<Connect> {
    connect::begin(fd, address.into())
}
