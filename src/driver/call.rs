//! Requests that are answered at once, as plain system calls.

use std::io;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use crate::driver::{Call, bind_error, bind_error_unix};
use crate::sys::addr::Address;
use crate::sys::listeners::Kind;
use crate::sys::sendfile;
use crate::sys::unix_addr::UnixAddress;
use crate::sys::unix_file;

/// Performs `call` on the real kernel.
pub(crate) fn perform(call: Call<'_>) -> io::Result<i32> {
    let result = match call {
        Call::Socket { domain, kind, protocol } => {
            // SAFETY: the call takes no pointers.
            unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) }
        }
        Call::SocketPair { domain, kind, pair } => {
            let place = pair.as_mut_ptr();
            // SAFETY: `pair` is a place for two descriptors.
            unsafe { libc::socketpair(domain, kind | libc::SOCK_CLOEXEC, 0, place) }
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
        Call::Backlog { fd } => {
            let mut asked = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            // SAFETY: `asked` is one entry, and is there during the call.
            unsafe { libc::poll(&raw mut asked, 1, 0) }
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
        Call::SocketFile { address, file } => {
            *file = unix_file::identify(&path(address)?)?;
            0
        }
        Call::RemoveSocketFile { address, file } => {
            let path = path(address)?;
            let removed = match file {
                Some(file) => unix_file::remove(&path, file),
                None => unix_file::remove_stale(&path),
            };
            i32::from(removed?)
        }
        Call::Status { fd, status } => {
            // SAFETY: `status` is a place for the answer.
            unsafe { libc::fstat(fd, status) }
        }
        Call::SendFile { socket, file, offset, len } => {
            return sendfile::send_cached(socket, file, offset, len as usize)
                .map(|sent| sent as i32);
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
    if let Some(address) = UnixAddress::of_bytes(address) {
        return bind_error_unix::explain(&address, answer);
    }
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

fn path(address: &[u8]) -> io::Result<PathBuf> {
    let address = UnixAddress::of_bytes(address);
    let path = address.as_ref().and_then(UnixAddress::path).map(Path::to_path_buf);
    path.ok_or_else(|| io::ErrorKind::InvalidInput.into())
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
