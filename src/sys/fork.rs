//! What happens to a runtime in a forked child: its rings are closed, and it refuses to be used.
//!
//! A child that keeps a ring's descriptor keeps the parent's operations alive, and the kernel goes
//! on writing into memory that the parent has freed (measured). So every ring's descriptor is
//! listed here, and an atfork hook closes them in the child. The maps are not inherited either.

use std::io;
use std::os::fd::RawFd;
use std::sync::Once;

use crate::sys::atomic::plain::{AtomicBool, AtomicI32, Ordering};

/// The inner error of every I/O call in a forked child: the runtime belongs to the parent.
///
/// `fork` followed by `exec` is supported; a child that goes on without `exec` starts a runtime of
/// its own in a fresh process image instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forked;

impl std::fmt::Display for Forked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("this process was forked from one that runs quoit; the runtime stayed there")
    }
}

impl std::error::Error for Forked {}

impl From<Forked> for io::Error {
    fn from(forked: Forked) -> Self {
        io::Error::other(forked)
    }
}

const RINGS: usize = 1024;
const EMPTY: i32 = -1;

static OPEN: [AtomicI32; RINGS] = [const { AtomicI32::new(EMPTY) }; RINGS];
static CHILD: AtomicBool = AtomicBool::new(false);
static HOOK: Once = Once::new();

/// Whether this process is the child of a fork that happened while a ring was open.
#[inline]
pub(crate) fn forked() -> bool {
    CHILD.load(Ordering::Relaxed)
}

/// Lists a ring's descriptor until the guard is dropped: before the descriptor is closed, because a
/// fork on another thread in between would close whatever has got the number by then.
pub(crate) struct Listed(usize);

impl Listed {
    /// # Errors
    /// When more than 1,024 descriptors are listed.
    pub(crate) fn new(fd: RawFd) -> io::Result<Self> {
        HOOK.call_once(|| {
            // SAFETY: `in_child` only calls what is safe after a fork: close and atomic stores.
            let result = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
            assert_eq!(result, 0, "pthread_atfork is out of memory");
        });
        let place = OPEN.iter().position(|entry| {
            entry.compare_exchange(EMPTY, fd, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        });
        place.map(Listed).ok_or_else(|| io::Error::other("more than 1,024 rings in one process"))
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        OPEN[self.0].store(EMPTY, Ordering::Release);
    }
}

unsafe extern "C" fn in_child() {
    for entry in &OPEN {
        let fd = entry.swap(EMPTY, Ordering::Relaxed);
        if fd != EMPTY {
            CHILD.store(true, Ordering::Relaxed);
            // SAFETY: the child owns its copy of the descriptor, and nothing else closes it: the
            // drivers of a forked child never touch their descriptors again.
            unsafe { libc::close(fd) };
        }
    }
}
