//! Options, addresses and the other things that a socket answers at once.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::RawFd;
use std::time::Duration;

use crate::driver::Call;
use crate::op::{self, Ring};
use crate::sys::addr::Address;
use crate::sys::fd::{Fd, OwnedFd};

/// A new stream socket for addresses of the family of `address`.
pub(super) fn stream_socket(address: &SocketAddr) -> io::Result<OwnedFd> {
    stream_socket_of(if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 })
}

/// A new stream socket for addresses of the family `domain`.
pub(super) fn stream_socket_of(domain: i32) -> io::Result<OwnedFd> {
    ring("a socket", |ring| {
        let call = Call::Socket { domain, kind: libc::SOCK_STREAM, protocol: libc::IPPROTO_TCP };
        Ok(ring.adopt(ring.call(call)?))
    })
}

/// A new socket of datagrams for addresses of the family of `address`.
pub(super) fn datagram_socket(address: &SocketAddr) -> io::Result<OwnedFd> {
    let domain = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    ring("a socket", |ring| {
        let call = Call::Socket { domain, kind: libc::SOCK_DGRAM, protocol: libc::IPPROTO_UDP };
        Ok(ring.adopt(ring.call(call)?))
    })
}

pub(super) fn ring<R>(what: &str, f: impl FnOnce(&Ring) -> R) -> R {
    op::with(what, f)
}

pub(super) fn bind(fd: RawFd, address: SocketAddr) -> io::Result<()> {
    let address = Address::from(address);
    ring("bind", |ring| ring.call(Call::Bind { fd, address: address.as_bytes() })).map(drop)
}

pub(super) fn set(fd: RawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    set_bytes(fd, level, name, &value.to_ne_bytes())
}

pub(super) fn set_bytes(fd: RawFd, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    ring("a socket option", |ring| ring.call(Call::SetOption { fd, level, name, value })).map(drop)
}

/// A size or a count, as the kernel takes it.
pub(super) fn clamp(value: usize) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

pub(super) fn get(fd: RawFd, level: i32, name: i32) -> io::Result<i32> {
    let mut value = [0; 4];
    let call = Call::GetOption { fd, level, name, value: &mut value };
    ring("a socket option", |ring| ring.call(call))?;
    Ok(i32::from_ne_bytes(value))
}

/// Probes an idle connection after `idle`, whole seconds; `None` switches it off.
pub(super) fn set_keepalive(fd: RawFd, idle: Option<Duration>) -> io::Result<()> {
    if let Some(idle) = idle {
        let seconds = clamp(usize::try_from(idle.as_secs()).unwrap_or(usize::MAX)).max(1);
        set(fd, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, seconds)?;
    }
    set(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, idle.is_some().into())
}

/// Hops that packets may take. A socket of IPv6 has two numbers, one for its peers of IPv4.
pub(super) fn hops(fd: RawFd, is_ipv6: bool) -> io::Result<u32> {
    Ok(match is_ipv6 {
        true => get(fd, libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS)?,
        false => get(fd, libc::IPPROTO_IP, libc::IP_TTL)?,
    } as u32)
}

pub(super) fn set_hops(fd: RawFd, is_ipv6: bool, hops: u32) -> io::Result<()> {
    let hops = clamp(hops as usize);
    if is_ipv6 {
        if hops == 0 {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        set(fd, libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, hops)?;
    }
    set(fd, libc::IPPROTO_IP, libc::IP_TTL, hops)
}

/// The descriptor of a socket that is used by nobody else yet.
pub(super) fn only(fd: Fd) -> OwnedFd {
    match fd.into_only() {
        Ok(fd) => fd,
        Err(_) => unreachable!("nobody else has the new socket"),
    }
}

pub(super) fn local_address<S>(fd: &Fd<S>) -> io::Result<SocketAddr> {
    let fd = fd.raw();
    Address::read(|address| ring("a socket", |ring| ring.call(Call::LocalAddress { fd, address })))
}

pub(super) fn peer_address<S>(fd: &Fd<S>) -> io::Result<SocketAddr> {
    let fd = fd.raw();
    Address::read(|address| ring("a socket", |ring| ring.call(Call::PeerAddress { fd, address })))
}

pub(super) fn shutdown<S>(fd: &Fd<S>, how: Shutdown) -> io::Result<()> {
    let how = match how {
        Shutdown::Read => libc::SHUT_RD,
        Shutdown::Write => libc::SHUT_WR,
        Shutdown::Both => libc::SHUT_RDWR,
    };
    let fd = fd.raw();
    ring("a socket", |ring| ring.call(Call::Shutdown { fd, how })).map(drop)
}
