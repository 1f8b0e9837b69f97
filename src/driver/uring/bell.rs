//! What a foreign loop sleeps on while it is not the driver that sleeps.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use io_uring::IoUring;

use crate::driver::eventfd::EventFd;

/// Readable when there is something to reap, or when it was rung.
pub(super) struct Bell {
    event: EventFd,
    /// An epoll over the event and the ring.
    either: OwnedFd,
}

impl Bell {
    /// A bell that is rung when something has come: the kernel rings the event, if it is registered,
    /// with each answer, deferred work included, and a sleep on the ring ends with an answer.
    ///
    /// Neither is enough. Deferred work did not end a sleep on the ring for years; and since it does,
    /// the event may be rung for the first such work only (seen on 6.12.117: the kernel notes that
    /// it is about to be, and never that it was). Before 5.18 to register it waits until nothing is in
    /// flight, for ever if need be, and there is no deferred work.
    pub(super) fn new(ring: &IoUring, registered: bool) -> io::Result<Self> {
        let event = EventFd::new()?;
        if registered {
            ring.submitter().register_eventfd(event.as_raw_fd())?;
        }
        let either = epoll_over([event.as_raw_fd(), ring.as_raw_fd()])?;
        Ok(Bell { event, either })
    }

    pub(super) fn ring(&self) {
        self.event.ring();
    }

    /// Whether it had been rung.
    pub(super) fn silence(&self) -> bool {
        self.event.silence()
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.either.as_fd()
    }
}

/// An epoll that is readable while one of `fds` is.
fn epoll_over(fds: [i32; 2]) -> io::Result<OwnedFd> {
    // SAFETY: the call takes no pointers.
    let raw = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above has just opened the number, and nobody else has it.
    let epoll = unsafe { OwnedFd::from_raw_fd(raw) };
    for fd in fds {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
        // SAFETY: `event` lives until the call returns.
        if unsafe { libc::epoll_ctl(raw, libc::EPOLL_CTL_ADD, fd, &raw mut event) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(epoll)
}
