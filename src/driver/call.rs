//! Requests that are answered at once, as plain system calls.

use std::io;
use std::os::fd::RawFd;

use crate::driver::{Call, bind_error};
use crate::sys::addr::Address;
use crate::sys::listeners::Kind;

/// Performs `call` on the real kernel.
pub(crate) fn perform(call: Call<'_>) -> io::Result<i32> {
    let result = match call {
        Call::Socket { domain, kind, protocol } => {
            // SAFETY: the call takes no pointers.
            unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) }
        }
        Call::Bind { fd, address } => {
            // SAFETY: `address` is readable for its length.
            let result = unsafe { libc::bind(fd, address.as_ptr().cast(), size(address)) };
            if result < 0 {
                return Err(not_bound(fd, address));
            }
            result
        }
        Call::Listen { fd, backlog } => {
            // SAFETY: the call takes no pointers.
            let result = unsafe { libc::listen(fd, backlog) };
            if result < 0 {
                return Err(not_listening(fd));
            }
            result
        }
        Call::SetOption { fd, level, name, value } => {
            // SAFETY: `value` is readable for its length.
            unsafe { libc::setsockopt(fd, level, name, value.as_ptr().cast(), size(value)) }
        }
        Call::GetOption { fd, level, name, value } => {
            let mut len = size(value);
            let place = value.as_mut_ptr().cast();
            // SAFETY: `value` is writable for `len` bytes.
            let result = unsafe { libc::getsockopt(fd, level, name, place, &raw mut len) };
            if result < 0 { result } else { len as i32 }
        }
        Call::LocalAddress { fd, address } => {
            let mut len = size(address);
            let place = address.as_mut_ptr().cast();
            // SAFETY: `address` is writable for `len` bytes.
            let result = unsafe { libc::getsockname(fd, place, &raw mut len) };
            if result < 0 { result } else { len as i32 }
        }
        Call::PeerAddress { fd, address } => {
            let mut len = size(address);
            let place = address.as_mut_ptr().cast();
            // SAFETY: `address` is writable for `len` bytes.
            let result = unsafe { libc::getpeername(fd, place, &raw mut len) };
            if result < 0 { result } else { len as i32 }
        }
        Call::Shutdown { fd, how } => {
            // SAFETY: the call takes no pointers.
            unsafe { libc::shutdown(fd, how) }
        }
        Call::Status { fd, status } => {
            // SAFETY: `status` is a place for the answer.
            unsafe { libc::fstat(fd, status) }
        }
        Call::Duplicate { fd } => {
            // SAFETY: the call takes no pointers.
            unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) }
        }
        // There is nothing that the system would have to know.
        Call::Release { .. } => 0,
        Call::Close { fd } => {
            // SAFETY: the caller owns the number.
            unsafe { libc::close(fd) }
        }
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cold]
fn not_bound(fd: RawFd, address: &[u8]) -> io::Error {
    let answer = io::Error::last_os_error();
    let mut kind = [0; 4];
    let (level, name, value) = (libc::SOL_SOCKET, libc::SO_TYPE, &mut kind[..]);
    let asked = perform(Call::GetOption { fd, level, name, value });
    let is_of_datagrams = asked.is_ok() && i32::from_ne_bytes(kind) == libc::SOCK_DGRAM;
    let kind = if is_of_datagrams { Kind::Datagrams } else { Kind::Listeners };
    match Address::of_bytes(address) {
        Ok(address) => bind_error::explain("bind", kind, address, answer),
        Err(_) => answer,
    }
}

#[cold]
fn not_listening(fd: RawFd) -> io::Error {
    let answer = io::Error::last_os_error();
    match Address::read(|address| perform(Call::LocalAddress { fd, address })) {
        Ok(address) => bind_error::explain("listen", Kind::Listeners, address, answer),
        Err(_) => answer,
    }
}

fn size(bytes: &[u8]) -> libc::socklen_t {
    bytes.len() as libc::socklen_t
}
