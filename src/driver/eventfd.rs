//! An eventfd: what ends the sleep of a thread that watches descriptors.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::Kick;
use crate::sys::atomic::Arc;

/// A count that is readable while it is not zero. Each ring is an edge for whoever watches it.
pub(crate) struct EventFd(OwnedFd);

impl EventFd {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: the call takes no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call above has just opened the number, and nobody else has it.
        Ok(EventFd(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    pub(crate) fn ring(&self) {
        let one = 1_u64.to_ne_bytes();
        // EAGAIN would mean that the count is full: then it has been rung often enough.
        // SAFETY: `one` is eight readable bytes, and the descriptor is open while `self` is.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Takes the count, so that the descriptor is not readable until it is rung again. Whether it had
    /// been.
    pub(crate) fn silence(&self) -> bool {
        let mut count = [0; 8];
        // SAFETY: `count` is eight writable bytes.
        let read =
            unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
        read > 0
    }
}

impl Kick for Arc<EventFd> {
    fn kick(&self) {
        self.ring();
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
