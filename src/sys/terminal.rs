//! A terminal, opened once more: its flags are shared with other processes, those of a description of
//! our own are not.

use std::fs::OpenOptions;
use std::mem::MaybeUninit;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

/// What it is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Read,
    Write,
}

/// A description of a terminal that does not wait. `None` if it is no terminal, or cannot be opened:
/// it may be another user's.
pub(crate) fn reopen(fd: RawFd, mode: Mode) -> Option<OwnedFd> {
    if !is_terminal(fd) || is_master(fd) {
        return None;
    }
    let mut options = OpenOptions::new();
    options.read(mode == Mode::Read).write(mode == Mode::Write);
    options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    options.open(format!("/proc/self/fd/{fd}")).ok().map(OwnedFd::from)
}

fn is_terminal(fd: RawFd) -> bool {
    // SAFETY: the call takes no pointers.
    unsafe { libc::isatty(fd) == 1 }
}

/// Whether it is the end of an emulator: to open that anew makes another terminal.
fn is_master(fd: RawFd) -> bool {
    let mut number = MaybeUninit::<i32>::uninit();
    // SAFETY: `number` is a place for the answer, which only this end of a terminal gives.
    unsafe { libc::ioctl(fd, libc::TIOCGPTN, number.as_mut_ptr()) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{AsRawFd, FromRawFd};

    #[test]
    fn a_terminal_gets_a_description_of_its_own_and_an_emulators_end_none() {
        let (mut master, mut slave, none) = (-1, -1, std::ptr::null_mut::<libc::c_char>());
        // SAFETY: the two places are filled; names and settings are not asked for.
        let opened = unsafe {
            libc::openpty(&raw mut master, &raw mut slave, none, none.cast(), none.cast())
        };
        assert_eq!(opened, 0);
        // SAFETY: both were just opened.
        let (master, slave) =
            unsafe { (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
        // SAFETY: the call takes no pointers.
        let flags = |fd: &OwnedFd| unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
        let own = reopen(slave.as_raw_fd(), Mode::Write).expect("it is ours to open");
        assert_ne!(flags(&own) & libc::O_NONBLOCK, 0);
        assert_eq!(flags(&slave) & libc::O_NONBLOCK, 0);
        assert!(reopen(master.as_raw_fd(), Mode::Write).is_none());
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(reopen(file.as_raw_fd(), Mode::Read).is_none());
    }
}
