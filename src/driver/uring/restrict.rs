//! A ring that permits exactly what Quoit uses: the kernel refuses everything else.
//!
//! What is registered once, at the start, is registered before the ring is enabled, when nothing is
//! restricted yet; so the list names only what is registered later.

use std::io;

use io_uring::{IoUring, Probe};

use crate::driver::opcodes::{OPTIONAL, USED};
use crate::driver::sqe::flag;
use io_uring::register::Restriction;

const FLAGS: u8 = flag::FIXED_FILE | flag::BUFFER_SELECT | flag::ASYNC;

/// What is registered, and its end, while the ring runs.
const CALLS: [u8; 6] = [
    3,  // IORING_UNREGISTER_FILES
    4,  // IORING_REGISTER_EVENTFD
    6,  // IORING_REGISTER_FILES_UPDATE
    21, // IORING_UNREGISTER_RING_FDS
    22, // IORING_REGISTER_PBUF_RING
    23, // IORING_UNREGISTER_PBUF_RING
];

/// Restricts a ring that was opened disabled, for ever, and enables it.
pub(super) fn enable(ring: &IoUring, probe: &Probe) -> io::Result<()> {
    let requests = USED.map(|(opcode, ..)| Restriction::sqe_op(opcode));
    let optional = OPTIONAL.into_iter().filter(|opcode| probe.is_supported(*opcode));
    let calls = CALLS.map(Restriction::register_op);
    let mut list: Vec<Restriction> =
        requests.into_iter().chain(optional.map(Restriction::sqe_op)).chain(calls).collect();
    list.push(Restriction::sqe_flags_allowed(FLAGS));
    ring.submitter().register_restrictions(&mut list)?;
    ring.submitter().register_enable_rings()
}
