//! Whether this system lets the process use io_uring: asked before anything relies on it.
//!
//! A filter may permit one of io_uring's three system calls and refuse another. A loop that finds
//! out while operations are in flight can only end the process.

use std::os::fd::AsRawFd;

use io_uring::IoUring;

use super::setup::{self, Refused};
use super::{Sizes, enter, probe};
use crate::driver::caps::Caps;

/// Sizes of a ring that only asks. Small, so that no limit of memory answers in io_uring's place.
fn small() -> Sizes {
    Sizes { submissions: 1, completions: 2, ..Sizes::default() }
}

/// Opens the smallest ring, asks it what it must have, enters it, and closes it.
///
/// Costs about 30 µs.
pub(crate) fn is_usable() -> Result<(), Refused> {
    let (ring, _) = setup::open(small(), Caps::ALL)?;
    probe::opcodes(&ring)?;
    try_to_enter(&ring)
}

/// Enters `ring` once, with nothing to do.
pub(super) fn try_to_enter(ring: &IoUring) -> Result<(), Refused> {
    let step = "io_uring_enter";
    enter::try_out(ring.as_raw_fd()).map_err(|error| Refused { step, error })
}
