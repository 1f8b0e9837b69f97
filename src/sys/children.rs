//! Child processes: the descriptor of one, and the end of those that nobody waits for any more.
//!
//! Whoever has a child has to reap it, or its entry stays in the table of processes for as long as
//! this process lives. A child whose owner has gone is left to a thread, which sleeps until one of
//! them has ended, and ends with the last.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::process::Child;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use super::atomic::Arc;
use super::{fork, signals};

/// Ends that one wait brings at most.
const ROOM: usize = 64;

static ORPHANS: Mutex<Option<Orphans>> = Mutex::new(None);

/// Those that run, by their descriptors.
struct Orphans {
    epoll: Arc<OwnedFd>,
    children: HashMap<RawFd, (OwnedFd, Child)>,
}

fn lock() -> MutexGuard<'static, Option<Orphans>> {
    ORPHANS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A descriptor of the child, which becomes readable when it ends (`pidfd_open`, kernel 5.3).
///
/// # Errors
/// What the system answers: it may not know the call, or have no descriptor left.
pub(crate) fn pidfd(child: &Child) -> io::Result<OwnedFd> {
    // SAFETY: the call takes no pointers. The number is the child's, because it was not reaped.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id() as libc::pid_t, 0) };
    owned(fd as i32)
}

fn owned(fd: i32) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call before has just opened the number, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sees to it that a child leaves nothing behind when it ends.
pub(crate) fn reap(mut child: Child) {
    // In a forked child it is the parent's.
    if fork::forked() || !matches!(child.try_wait(), Ok(None)) {
        return;
    }
    let refused = match pidfd(&child) {
        Ok(fd) => adopt(fd, child).err(),
        Err(_) => Some(child),
    };
    if let Some(mut child) = refused {
        // A thread of its own needs no descriptor. If there is not even that, nobody can do better.
        let _ = start_thread(move || drop(child.wait()));
    }
}

/// Leaves a child to the thread; gives it back where that cannot be.
fn adopt(fd: OwnedFd, child: Child) -> Result<(), Child> {
    let mut orphans = lock();
    let made = match orphans.take() {
        Some(orphans) => Ok(orphans),
        None => Orphans::new(),
    };
    let Ok(made) = made else { return Err(child) };
    let made = orphans.insert(made);
    let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: fd.as_raw_fd() as u64 };
    let (epoll, raw) = (made.epoll.as_raw_fd(), fd.as_raw_fd());
    // SAFETY: both are open, and the event lives until the call returns.
    if unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, raw, &raw mut event) } < 0 {
        return Err(child);
    }
    made.children.insert(raw, (fd, child));
    Ok(())
}

fn start_thread(life: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = thread::Builder::new().name("quoit-reaper".into());
    signals::without_signals(|| thread.spawn(life))?.map(drop)
}

impl Orphans {
    /// None yet, and the thread, which waits for the first.
    fn new() -> io::Result<Orphans> {
        // SAFETY: the call takes no pointers.
        let epoll = Arc::new(owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?);
        let shared = Arc::clone(&epoll);
        start_thread(move || while reap_some(&shared) {})?;
        Ok(Orphans { epoll, children: HashMap::new() })
    }
}

/// Sleeps until some have ended, and reaps them; false if these were the last.
fn reap_some(epoll: &OwnedFd) -> bool {
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; ROOM];
    // SAFETY: the kernel writes at most `ROOM` events to where they fit.
    let count =
        unsafe { libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), ROOM as i32, -1) };
    let mut guard = lock();
    let Some(orphans) = guard.as_mut() else { return false };
    for event in &events[..usize::try_from(count).unwrap_or(0)] {
        let raw = event.u64 as RawFd;
        let ended = orphans.children.get_mut(&raw).is_some_and(|(_, child)| {
            // An error means that somebody else has reaped it.
            !matches!(child.try_wait(), Ok(None))
        });
        if ended {
            orphans.children.remove(&raw);
        }
    }
    if orphans.children.is_empty() {
        *guard = None;
        return false;
    }
    true
}
