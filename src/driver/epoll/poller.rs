//! The epoll instance: which descriptors are watched, and the sleep.

use std::cell::Cell;
use std::io;
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::sys::{clock, fork};

/// Events that one wait brings at most; more are there the next time.
const ROOM: usize = 512;

/// What is watched of each descriptor: everything, once and for all, and only its changes.
const INTEREST: i32 =
    libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLPRI | libc::EPOLLET;

/// How long a wait may last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sleep {
    None,
    Forever,
    /// Until this time of the monotonic clock.
    Until(u64),
}

/// Something has happened to a descriptor.
#[derive(Debug, Clone, Copy)]
pub(super) struct Event {
    pub(super) fd: RawFd,
    pub(super) bits: u32,
}

/// An epoll instance.
pub(super) struct Poller {
    // Closed by hand: a forked child must not close a number that the hook has closed already.
    epoll: ManuallyDrop<OwnedFd>,
    events: Vec<libc::epoll_event>,
    /// Which of them the last wait has brought and nobody has taken.
    left: Range<usize>,
    /// Whether the kernel may have `epoll_pwait2` (5.11), whose timeouts are exact.
    has_nanoseconds: bool,
}

impl Poller {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: the call takes no pointers.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call above has just opened the number, and nobody else has it.
        let epoll = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(fd) });
        let events = vec![libc::epoll_event { events: 0, u64: 0 }; ROOM];
        Ok(Poller { epoll, events, left: 0..0, has_nanoseconds: true })
    }

    pub(super) fn as_raw_fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Watches a descriptor from now on. What it is ready for already is an event too.
    ///
    /// # Errors
    /// `PermissionDenied` (`EPERM`) for what is never waited for, such as a regular file.
    pub(super) fn add(&self, fd: RawFd) -> io::Result<()> {
        match self.control(libc::EPOLL_CTL_ADD, fd, INTEREST) {
            // Closed behind the driver's back, and open again under the same number.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.control(libc::EPOLL_CTL_MOD, fd, INTEREST)
            }
            result => result,
        }
    }

    /// Watches a descriptor of the driver's own, which is there to become readable.
    pub(super) fn add_own(&self, fd: RawFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, libc::EPOLLIN | libc::EPOLLET)
    }

    /// Watches a descriptor no longer. The kernel does that by itself only when nobody else has the
    /// same file open, as a forked child or a duplicate.
    pub(super) fn remove(&self, fd: RawFd) {
        // In a forked child the number may be another file's by now. Otherwise it can only fail for
        // a number that somebody else has closed.
        if !fork::forked() {
            let _ = self.control(libc::EPOLL_CTL_DEL, fd, 0);
        }
    }

    fn control(&self, what: i32, fd: RawFd, interest: i32) -> io::Result<()> {
        let mut event = libc::epoll_event { events: interest as u32, u64: fd as u64 };
        // SAFETY: the event lives until the call returns.
        let result = unsafe { libc::epoll_ctl(self.as_raw_fd(), what, fd, &raw mut event) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Sleeps until something happens or the time has come. Returns whether more may have happened
    /// than there is room for.
    ///
    /// # Errors
    /// `Interrupted` by a signal; the others mean that the descriptor is not what it was.
    pub(super) fn wait(&mut self, sleep: Sleep) -> io::Result<bool> {
        assert!(self.left.is_empty(), "events are taken before others are waited for");
        let count = self.sleep(sleep)?;
        self.left = 0..count;
        Ok(count == self.events.len())
    }

    fn sleep(&mut self, sleep: Sleep) -> io::Result<usize> {
        let left = match sleep {
            Sleep::None => return self.wait_ms(0),
            Sleep::Forever => return self.wait_ms(-1),
            Sleep::Until(time) => time.saturating_sub(clock::monotonic()),
        };
        if left == 0 {
            return self.wait_ms(0);
        }
        if self.has_nanoseconds {
            let result = self.wait_ns(left);
            match result.as_ref().map_err(io::Error::raw_os_error) {
                // Old filters answer EPERM for calls that they do not know.
                Err(Some(libc::ENOSYS | libc::EPERM)) => self.has_nanoseconds = false,
                _ => return result,
            }
        }
        // Rounded up, or the last millisecond would be spent in a busy loop.
        self.wait_ms(i32::try_from(left.div_ceil(1_000_000)).unwrap_or(i32::MAX))
    }

    fn wait_ms(&mut self, timeout: i32) -> io::Result<usize> {
        let (start, room) = (self.events.as_mut_ptr(), self.events.len() as i32);
        // SAFETY: the kernel writes at most `room` events to where they fit.
        let result = unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), start, room, timeout) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as usize) }
    }

    fn wait_ns(&mut self, left: u64) -> io::Result<usize> {
        // As the kernel has it, on machines of 32 bits too.
        let left = [(left / 1_000_000_000) as i64, (left % 1_000_000_000) as i64];
        let (start, room) = (self.events.as_mut_ptr(), self.events.len() as i32);
        let no_mask = std::ptr::null::<libc::sigset_t>();
        // By its number: a C library older than the call has no function for it.
        // SAFETY: as above; the time lives until the call returns, and there is no mask.
        let result = unsafe {
            let epoll = self.epoll.as_raw_fd();
            libc::syscall(libc::SYS_epoll_pwait2, epoll, start, room, &raw const left, no_mask, 0)
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as usize) }
    }

    /// The next of the events that the last wait has brought.
    #[inline]
    pub(super) fn event(&mut self) -> Option<Event> {
        let event = self.events[self.left.next()?];
        Some(Event { fd: event.u64 as RawFd, bits: event.events })
    }

    /// Whether the last wait has brought events that nobody has taken.
    #[inline]
    pub(super) fn has_events(&self) -> bool {
        !self.left.is_empty()
    }

    #[cfg(test)]
    pub(super) fn pretend(&mut self, has_nanoseconds: bool) {
        self.has_nanoseconds = has_nanoseconds;
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        if !fork::forked() {
            // SAFETY: this is the only drop, and nothing uses the descriptor afterwards.
            unsafe { ManuallyDrop::drop(&mut self.epoll) };
        }
    }
}

/// Makes the epoll descriptor readable at a time: for a loop around this one, which sleeps on it.
pub(super) struct Alarm {
    timer: OwnedFd,
    armed: Cell<Option<u64>>,
}

impl Alarm {
    pub(super) fn new(poller: &Poller) -> io::Result<Self> {
        let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
        // SAFETY: the call takes no pointers.
        let fd = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call above has just opened the number, and nobody else has it.
        let timer = unsafe { OwnedFd::from_raw_fd(fd) };
        poller.add_own(fd)?;
        Ok(Alarm { timer, armed: Cell::new(None) })
    }

    pub(super) fn is(&self, fd: RawFd) -> bool {
        self.timer.as_raw_fd() == fd
    }

    /// It has gone off, and is set again only when it is told to.
    pub(super) fn went_off(&self) {
        self.armed.set(None);
    }

    /// Goes off at `time`, or not at all.
    pub(super) fn set(&self, time: Option<u64>) {
        if self.armed.replace(time) == time {
            return;
        }
        let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // All zeros would disarm it.
        let it_value = time.map_or(zero, |time| timespec(time.max(1)));
        let setting = libc::itimerspec { it_interval: zero, it_value };
        let (fd, flags) = (self.timer.as_raw_fd(), libc::TFD_TIMER_ABSTIME);
        // SAFETY: the setting lives until the call returns, and the old one is not asked for.
        let result =
            unsafe { libc::timerfd_settime(fd, flags, &raw const setting, std::ptr::null_mut()) };
        assert_eq!(result, 0, "a timer that is open can be set");
    }
}

/// Nanoseconds as the kernel takes them.
fn timespec(ns: u64) -> libc::timespec {
    let ns = ns.min(1 << 62);
    libc::timespec {
        tv_sec: (ns / 1_000_000_000) as libc::time_t,
        tv_nsec: (ns % 1_000_000_000) as libc::c_long,
    }
}
