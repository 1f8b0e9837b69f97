//! A descriptor on its way from one core to another.

use std::os::fd::RawFd;

use super::Ring;
use crate::driver::{Call, close_anywhere, is_simulated_number};
use crate::sys::current;
use crate::sys::fd::OwnedFd;

/// A descriptor that no core has: no request names it, and no driver knows it. It may go to another
/// thread; dropping it anywhere closes the number.
#[derive(Debug)]
pub(crate) struct Parcel {
    raw: RawFd,
    /// The cores among which a simulated number means this: those of its host.
    group: u64,
}

impl Parcel {
    /// Takes `fd` away from the core, which is the current one.
    pub(crate) fn pack(fd: OwnedFd) -> Self {
        let raw = fd.raw();
        // It can only fail where there is nothing to forget.
        let _ = current::with(|ring: &Ring| ring.call(Call::Release { fd: raw }));
        let group = current::core(|core| core.group).unwrap_or(0);
        Parcel { raw: fd.release(), group }
    }

    /// Gives it to the current core; gives it back where there is none that could have it.
    pub(crate) fn open(mut self) -> Result<OwnedFd, Self> {
        match self.adopt() {
            Some(fd) => Ok(fd),
            None => Err(self),
        }
    }

    fn adopt(&mut self) -> Option<OwnedFd> {
        let raw = self.raw;
        let is_known =
            !is_simulated_number(raw) || current::core(|core| core.group) == Some(self.group);
        let fd = if is_known { current::with(|ring: &Ring| ring.adopt(raw)) } else { None };
        if fd.is_some() {
            self.raw = -1;
        }
        fd
    }
}

impl Drop for Parcel {
    fn drop(&mut self) {
        if self.raw >= 0 && self.adopt().is_none() {
            close_anywhere(self.raw);
        }
    }
}
