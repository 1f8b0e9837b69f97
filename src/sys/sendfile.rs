//! Sending a file from the page cache: nothing is copied into the program, and nothing waits.
//!
//! `sendfile` has no flags. It waits for a disk where the pages are not there, for the socket where
//! its descriptor does not say otherwise, and a peer that has gone costs a signal. So the cache is
//! asked first, the socket does not wait during the call, and the signal is taken back.

use std::io;
use std::os::fd::RawFd;

use super::{handlers, signals};

/// `cachestat(2)`, kernel 6.5, which libc does not know. Every architecture has it under this number.
const SYS_CACHESTAT: libc::c_long = 451;

/// Sends `len` bytes of `file` from `offset` on, as far as `socket` takes them now, and says how many
/// that were.
///
/// # Errors
/// `ENODATA` if it might have to wait for a disk: the bytes are not all in memory, the file ends before
/// them, or the kernel does not tell (it is older than 6.5, or the file is neither ours nor ours to
/// write). `EAGAIN` if the socket has no room. Otherwise what `sendfile` answers; never a signal.
pub(crate) fn send_cached(
    socket: RawFd,
    file: RawFd,
    offset: u64,
    len: usize,
) -> io::Result<usize> {
    if len == 0 || !is_cached(file, offset, len as u64) {
        return Err(io::Error::from_raw_os_error(libc::ENODATA));
    }
    let send = || without_waiting(socket, || send(socket, file, offset, len));
    let is_quiet = handlers::is_ignored(libc::SIGPIPE);
    match if is_quiet { send() } else { signals::without_sigpipe(send) } {
        // It was shortened in between.
        Ok(0) => Err(io::Error::from_raw_os_error(libc::ENODATA)),
        result => result,
    }
}

/// Whether the page cache has all of a part of a file, for certain.
fn is_cached(file: RawFd, offset: u64, len: u64) -> bool {
    /// `struct cachestat` of `<linux/mman.h>`.
    #[repr(C)]
    #[derive(Default)]
    struct Cachestat {
        cached: u64,
        others: [u64; 4],
    }
    let (range, mut found) = ([offset, len], Cachestat::default());
    // SAFETY: both structs live until the call returns.
    let result =
        unsafe { libc::syscall(SYS_CACHESTAT, file, range.as_ptr(), &raw mut found, 0_u32) };
    // SAFETY: the call takes no pointers.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64;
    let last = offset.saturating_add(len - 1);
    let pages = last / page - offset / page + 1;
    // A page that is being read counts as well. They come in order, so the last one tells of all.
    result == 0 && found.cached >= pages && is_readable_at_once(file, last)
}

/// Whether the byte at `offset` is read without a wait.
fn is_readable_at_once(file: RawFd, offset: u64) -> bool {
    let mut byte = 0_u8;
    let place = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // SAFETY: `place` is one byte that may be written.
    unsafe { libc::preadv2(file, &raw const place, 1, offset as i64, libc::RWF_NOWAIT) == 1 }
}

/// Runs `f` while calls on `socket`, which wait, do not. The flag is of all who have the socket open:
/// of a connection that is nobody else, and who does would find it for as long as a call takes.
fn without_waiting<R>(socket: RawFd, f: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
    let set = |mut on: i32| {
        // SAFETY: `on` lives until the call returns.
        checked(unsafe { libc::ioctl(socket, libc::FIONBIO, &raw mut on) } as isize)
    };
    set(1)?;
    let result = f();
    let restored = set(0);
    assert!(restored.is_ok(), "what a socket was told once it can be told again");
    result
}

fn send(socket: RawFd, file: RawFd, offset: u64, len: usize) -> io::Result<usize> {
    let mut offset = offset as i64;
    // SAFETY: `offset` lives until the call returns.
    checked(unsafe { libc::sendfile(socket, file, &raw mut offset, len) })
}

fn checked(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
