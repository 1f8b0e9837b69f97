//! The one system call of a lap, and the closed table of what it may answer.

use std::io;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, types};

use super::coalesce::MOST_US;
use super::{EnterFault, Wait, setup};
use crate::driver::caps::{Cap, Caps};
use crate::driver::sqe::timespec;
use crate::sys::clock;

const GETEVENTS: u32 = 1;
const EXT_ARG: u32 = 1 << 3;
const REGISTERED_RING: u32 = 1 << 4;
const ABS_TIMER: u32 = 1 << 5;
const NO_IOWAIT: u32 = 1 << 7;

/// Nanoseconds to a deadline that never comes: a hundred years.
const FAR: u64 = 100 * 365 * 86_400 * 1_000_000_000;

const REGISTER_RING_FDS: u32 = 20;
const UNREGISTER_RING_FDS: u32 = 21;

/// What became of an enter.
pub(crate) enum Outcome {
    /// So many requests were handed over.
    Done { submitted: u32 },
    /// A signal ended it; the next lap computes anew how long to sleep.
    Interrupted,
    /// The kernel lacks memory, or room for answers; the requests stay queued.
    Refused,
}

/// How this ring is entered.
pub(crate) struct Enter {
    fd: i32,
    /// Flags that go with every call.
    always: u32,
    absolute: bool,
    fault: Option<EnterFault>,
    rung: &'static str,
}

impl Enter {
    /// Finds, of `caps`, whether the ring's descriptor can be registered.
    pub(crate) fn new(ring: &IoUring, caps: &mut Caps, fault: Option<EnterFault>) -> Self {
        let no_iowait = if caps.has(Cap::NoIowait) { NO_IOWAIT } else { 0 };
        let mut enter = Enter {
            fd: ring.as_raw_fd(),
            always: GETEVENTS | no_iowait,
            absolute: caps.has(Cap::ExtArgAbs),
            fault,
            rung: setup::rung(*caps),
        };
        let place = caps.has(Cap::RegisteredRingFd).then(|| register(enter.fd)).flatten();
        caps.set(Cap::RegisteredRingFd, place.is_some());
        if let Some(index) = place {
            enter.fd = index;
            enter.always |= REGISTERED_RING;
        }
        enter
    }

    /// Gives the place among the thread's registered rings back, before the ring is closed: what is
    /// registered stays open.
    pub(crate) fn end(&mut self, ring: &IoUring) {
        if self.always & REGISTERED_RING != 0 {
            unregister(ring.as_raw_fd(), self.fd as u32);
            (self.fd, self.always) = (ring.as_raw_fd(), self.always & !REGISTERED_RING);
        }
    }

    #[cfg(test)]
    pub(super) fn is_registered(&self) -> bool {
        self.always & REGISTERED_RING != 0
    }

    /// Hands over `queued` requests and waits as told: for one answer, or for as many as `want` says
    /// until [`MOST_US`] have passed, and from then on for one.
    ///
    /// # Errors
    /// A broken invariant or foul play; the ring must not be used any more.
    pub(crate) fn call(
        &mut self,
        queued: u32,
        wait: Wait,
        want: Option<u32>,
    ) -> io::Result<Outcome> {
        if let Some(outcome) = self.inject(queued) {
            return outcome;
        }
        let outcome = match (wait, want) {
            (Wait::Poll, _) => self.plain(queued, 0),
            (Wait::Block, None) => self.plain(queued, 1),
            // Without a deadline the kernel would end the wait after its first part, empty-handed.
            (Wait::Block, Some(_)) => self.until(queued, clock::monotonic() + FAR, want),
            (Wait::Until(time), _) => self.until(queued, time, want),
        };
        self.judge(outcome)
    }

    fn plain(&self, queued: u32, want: u32) -> io::Result<u32> {
        // SAFETY: no argument is a pointer, and the ring is open as long as `self`.
        unsafe { self.enter(queued, want, 0, std::ptr::null(), 0) }
    }

    fn until(&self, queued: u32, time: u64, want: Option<u32>) -> io::Result<u32> {
        // A time already past would still cost a timer's trip.
        let left = time.saturating_sub(clock::monotonic());
        if left == 0 {
            return self.plain(queued, 0);
        }
        let ns = if self.absolute { time } else { left };
        let timespec = timespec(ns);
        let least_us = if want.is_some() { MOST_US } else { 0 };
        let argument = types::SubmitArgs::new().timespec(&timespec).min_wait_usec(least_us);
        let flags = EXT_ARG | if self.absolute { ABS_TIMER } else { 0 };
        // SAFETY: the argument and the timespec in it live until the call returns.
        unsafe {
            self.enter(
                queued,
                want.unwrap_or(1),
                flags,
                (&raw const argument).cast(),
                size_of_val(&argument),
            )
        }
    }

    /// # Safety
    /// `argument` is what `flags` say it is.
    unsafe fn enter(
        &self,
        queued: u32,
        want: u32,
        flags: u32,
        argument: *const libc::c_void,
        size: usize,
    ) -> io::Result<u32> {
        // SAFETY: the caller vouches for the argument; the requests' memory is the pusher's.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.fd,
                queued,
                want,
                flags | self.always,
                argument,
                size,
            )
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as u32) }
    }

    fn judge(&self, outcome: io::Result<u32>) -> io::Result<Outcome> {
        let error = match outcome {
            Ok(submitted) => return Ok(Outcome::Done { submitted }),
            Err(error) => error,
        };
        match error.raw_os_error() {
            Some(libc::ETIME) => Ok(Outcome::Done { submitted: 0 }),
            Some(libc::EINTR) => Ok(Outcome::Interrupted),
            Some(libc::EAGAIN | libc::EBUSY | libc::ENOMEM) => Ok(Outcome::Refused),
            // An answer is lost for good, and nobody knows any more who owns which memory.
            Some(libc::EBADR) => std::process::abort(),
            _ => {
                let text = format!("io_uring_enter (flags of {}): {error}", self.rung);
                Err(io::Error::new(error.kind(), text))
            }
        }
    }

    /// Asks the test hook for an error, and hands over as many requests as it says first.
    #[inline]
    fn inject(&mut self, queued: u32) -> Option<io::Result<Outcome>> {
        let (errno, first) = self.fault.as_mut()?(queued)?;
        if first > 0 && queued > 0 {
            let submitted = match self.plain(first.min(queued), 0) {
                Ok(submitted) => submitted,
                Err(error) => return Some(self.judge(Err(error))),
            };
            // The kernel reports what it took, and the error only when it took nothing.
            return Some(Ok(Outcome::Done { submitted }));
        }
        Some(self.judge(Err(io::Error::from_raw_os_error(errno))))
    }
}

/// Enters the ring `fd` with nothing to do.
///
/// # Errors
/// When the system does not permit it.
pub(super) fn try_out(fd: i32) -> io::Result<()> {
    // SAFETY: with nothing to submit and nothing to wait for, the kernel reads no memory.
    let result = unsafe { libc::syscall(libc::SYS_io_uring_enter, fd, 0, 0, 0, 0, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The kernel's `io_uring_rsrc_update`.
#[repr(C)]
struct Update {
    offset: u32,
    reserved: u32,
    data: u64,
}

/// Registers the ring's descriptor with this thread, which saves a look-up on every enter. A thread
/// has sixteen places.
fn register(fd: i32) -> Option<i32> {
    let mut update = Update { offset: u32::MAX, reserved: 0, data: fd as u64 };
    // SAFETY: the kernel reads and writes one `Update`, which lives until the call returns.
    let result = unsafe {
        libc::syscall(libc::SYS_io_uring_register, fd, REGISTER_RING_FDS, &raw mut update, 1)
    };
    (result == 1).then_some(update.offset as i32)
}

/// Ends what `register` began. A failure leaves the place taken until the thread ends.
fn unregister(fd: i32, index: u32) {
    let mut update = Update { offset: index, reserved: 0, data: 0 };
    // SAFETY: the kernel reads one `Update`, which lives until the call returns.
    unsafe {
        libc::syscall(libc::SYS_io_uring_register, fd, UNREGISTER_RING_FDS, &raw mut update, 1)
    };
}
