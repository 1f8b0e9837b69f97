//! Descriptors that this ring has registered, each under its own number.
//!
//! A send on a registered file spares the kernel two atomic counts, 1 % of an echoed message. To
//! register and to unregister is a system call each, so only a descriptor that is used again and
//! again is: a short connection never pays for it. It is the driver's own matter; no operation knows.

use std::os::fd::RawFd;

use io_uring::{IoUring, opcode};

use crate::driver::caps::{Cap, Caps};
use crate::driver::sqe::flag;
use crate::driver::{Fields, Sqe};
use crate::sys::fork;

/// Sends after which a descriptor is registered.
const OFTEN: u8 = 32;
/// The count of a descriptor that is registered.
const REGISTERED: u8 = u8::MAX;
/// Room for so many; descriptors with higher numbers go without.
const MOST: u32 = 65_536;
const FEWEST: u32 = 512;

/// How often each descriptor was used.
pub(super) struct FixedFiles {
    uses: Vec<u8>,
}

impl FixedFiles {
    /// Makes room in the kernel, as much as the limit of descriptors allows; kernel 5.19. Finds,
    /// of `caps`, whether there can be any.
    pub(super) fn new(ring: &IoUring, caps: &mut Caps) -> Self {
        let mut room = if caps.has(Cap::FixedFiles) { MOST } else { 0 };
        while room >= FEWEST && ring.submitter().register_files_sparse(room).is_err() {
            room /= 2;
        }
        caps.set(Cap::FixedFiles, room >= FEWEST);
        FixedFiles { uses: vec![0; if room >= FEWEST { room as usize } else { 0 }] }
    }

    /// Has a send name the registered file, and registers a descriptor that sends often.
    #[inline]
    pub(super) fn apply(&mut self, sqe: &mut Sqe, ring: &IoUring) {
        let fields = Fields::of_mut(sqe);
        if fields.opcode != opcode::Send::CODE {
            return;
        }
        let Some(uses) = self.uses.get_mut(fields.fd as usize) else { return };
        if *uses == REGISTERED {
            fields.flags |= flag::FIXED_FILE;
        } else {
            *uses += 1;
            if *uses == OFTEN {
                *uses = register(ring, fields.fd, fields.fd);
            }
        }
    }

    /// Forgets a descriptor that is about to be closed: a registered file would stay open.
    #[inline]
    pub(super) fn forget(&mut self, fd: RawFd, ring: &IoUring) {
        // In a forked child the ring's number may be another file's by now.
        if let Some(uses) = self.uses.get_mut(fd as usize)
            && std::mem::take(uses) == REGISTERED
            && !fork::forked()
        {
            register(ring, fd, -1);
        }
    }
}

/// Puts `file` into the place of `fd`. Returns the count that the descriptor has then: if the kernel
/// refuses, it is asked again after some more uses.
#[cold]
fn register(ring: &IoUring, fd: RawFd, file: RawFd) -> u8 {
    match ring.submitter().register_files_update(fd as u32, &[file]) {
        Ok(1) => REGISTERED,
        _ => 0,
    }
}
