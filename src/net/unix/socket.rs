//! Making a Unix socket, and its names.

use std::io;
use std::os::fd::RawFd;
use std::os::unix::net::SocketAddr;
use std::path::Path;

use crate::driver::Call;
use crate::net::options::ring;
use crate::sys::fd::OwnedFd;
use crate::sys::unix_addr::UnixAddress;

/// The longest path that a Unix socket can have, in bytes; a zero follows it.
const LONGEST_PATH: usize = 107;

/// A new socket of the kind `SOCK_*`.
pub(super) fn open(kind: i32) -> io::Result<OwnedFd> {
    ring("a Unix socket", |ring| {
        let call = Call::Socket { domain: libc::AF_UNIX, kind, protocol: 0 };
        Ok(ring.adopt(ring.call(call)?))
    })
}

/// Two new sockets that are connected to each other.
pub(super) fn pair(kind: i32) -> io::Result<[OwnedFd; 2]> {
    ring("a pair of Unix sockets", |ring| {
        let mut pair = [-1; 2];
        ring.call(Call::SocketPair { domain: libc::AF_UNIX, kind, pair: &mut pair })?;
        Ok(pair.map(|raw| ring.adopt(raw)))
    })
}

pub(super) fn bind(fd: RawFd, address: &UnixAddress) -> io::Result<()> {
    let address = address.as_bytes();
    ring("bind", |ring| ring.call(Call::Bind { fd, address })).map(drop)
}

/// The address that a path stands for.
pub(super) fn at_path(path: &Path) -> io::Result<SocketAddr> {
    let len = path.as_os_str().len();
    let text = match len {
        0 => "an empty path is no address".into(),
        1..=LONGEST_PATH => return SocketAddr::from_pathname(path),
        _ => format!(
            "the path of a Unix socket has {LONGEST_PATH} bytes at most, and this one has {len}: {}",
            path.display()
        ),
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
}

pub(super) fn local_address(fd: RawFd) -> io::Result<SocketAddr> {
    let read =
        |address: &mut [u8]| ring("a socket", |it| it.call(Call::LocalAddress { fd, address }));
    UnixAddress::read(read).map(UnixAddress::to_std)
}

pub(super) fn peer_address(fd: RawFd) -> io::Result<SocketAddr> {
    let read =
        |address: &mut [u8]| ring("a socket", |it| it.call(Call::PeerAddress { fd, address }));
    UnixAddress::read(read).map(UnixAddress::to_std)
}
