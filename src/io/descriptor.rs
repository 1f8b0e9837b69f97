//! What readers and writers of descriptors have in common.

use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};

use crate::driver::Call;
use crate::op::{self, Ring};
use crate::sys::fd;
use crate::sys::fork::{Forked, forked};
use crate::sys::terminal::{self, Mode};

/// The offset that stands for the descriptor's own position, and for none where there is none.
pub(super) const HERE: u64 = u64::MAX;

/// Makes a descriptor of the machine's this core's; a terminal by a description of its own, see
/// [`terminal`].
pub(super) fn adopt(what: &str, fd: OwnedFd, mode: Mode) -> io::Result<fd::OwnedFd> {
    op::with(what, |ring| {
        is_supported(ring)?;
        let own = terminal::reopen(fd.as_raw_fd(), mode).unwrap_or(fd);
        Ok(ring.adopt(own.into_raw_fd()))
    })
}

/// Another number of this core's for what is open under a number that is not ours.
pub(super) fn duplicate(what: &str, raw: i32, mode: Mode) -> io::Result<fd::OwnedFd> {
    op::with(what, |ring| {
        is_supported(ring)?;
        match terminal::reopen(raw, mode) {
            Some(own) => Ok(ring.adopt(own.into_raw_fd())),
            None => Ok(ring.adopt(ring.call(Call::Duplicate { fd: raw })?)),
        }
    })
}

fn is_supported(ring: &Ring) -> io::Result<()> {
    if forked() {
        return Err(Forked.into());
    }
    if ring.is_simulated() {
        let text = "a simulated core has no descriptors of the machine's";
        return Err(io::Error::new(io::ErrorKind::Unsupported, text));
    }
    Ok(())
}

/// Takes a descriptor away from this core.
pub(super) fn release(fd: fd::OwnedFd) -> OwnedFd {
    // It can only fail where there is nothing to forget.
    let _ = op::with("a descriptor", |ring| ring.call(Call::Release { fd: fd.raw() }));
    fd.into_std()
}

/// Whether somebody has made the descriptor `O_NONBLOCK`, and there is nothing to do now.
pub(super) fn would_block(result: &io::Result<usize>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}
