//! Finding out what the kernel can do: once, when the ring is opened.
//!
//! Opcodes and features are asked for. A flag of the ring was tried by opening it. What can be
//! registered is tried, or asked with an address that leads nowhere: a kernel that knows the call
//! fails to read there (`EFAULT`), another does not know the call (`EINVAL`). What is none of
//! these, a flag of a request, came with an opcode or a feature of the same kernel, which
//! distributions bring to older kernels together with it.

use std::io;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, Probe, opcode};

use super::setup::Refused;
use crate::driver::caps::{Cap, Caps};
use crate::driver::opcodes::USED;

const REGISTER_IOWQ_MAX_WORKERS: u32 = 19;
const REGISTER_PBUF_RING: u32 = 22;
const REGISTER_SYNC_CANCEL: u32 = 24;

/// Asks for the opcodes.
///
/// # Errors
/// A kernel before 5.6 cannot be asked; one that lacks what is needed is named with what it lacks.
pub(super) fn opcodes(ring: &IoUring) -> Result<Probe, Refused> {
    let mut probe = Probe::new();
    let step = "IORING_REGISTER_PROBE";
    ring.submitter().register_probe(&mut probe).map_err(|error| Refused { step, error })?;
    match missing(|opcode| probe.is_supported(opcode)) {
        None => Ok(probe),
        Some(name) => {
            let text = format!("the kernel has no {name}, which Quoit needs; use 5.6 or newer");
            let error = io::Error::new(io::ErrorKind::Unsupported, text);
            Err(Refused { step: "looking for what io_uring must have", error })
        }
    }
}

fn missing(supports: impl Fn(u8) -> bool) -> Option<&'static str> {
    USED.iter().find(|(opcode, ..)| !supports(*opcode)).map(|(_, name, _)| *name)
}

/// Finds the capabilities of a ring that was opened with the flags in `found`, except those that
/// registering something in earnest finds.
pub(super) fn capabilities(ring: &IoUring, probe: &Probe, mut found: Caps) -> Caps {
    let params = ring.params();
    let mut set = |cap, present| found.set(cap, present);
    set(Cap::ExtArg, params.is_feature_ext_arg());
    set(Cap::CqeSkip, params.is_feature_skip_cqe_on_success());
    set(Cap::MinWait, params.is_feature_min_timeout());
    set(Cap::NoIowait, params.is_feature_no_iowait());
    set(Cap::MsgRing, probe.is_supported(opcode::MsgRingData::CODE));
    set(Cap::SendZc, probe.is_supported(opcode::SendZc::CODE));
    set(Cap::IowqMax, knows(ring, REGISTER_IOWQ_MAX_WORKERS, 2));
    set(Cap::Pbuf, knows(ring, REGISTER_PBUF_RING, 1));
    set(Cap::SyncCancel, knows(ring, REGISTER_SYNC_CANCEL, 1));
    // 5.11 brought the update of timeouts and the argument of waits.
    set(Cap::TimeoutUpdate, params.is_feature_ext_arg());
    // 5.13 brought polls that go on, and tags of resources.
    set(Cap::MultishotPoll, params.is_feature_resource_tagging());
    // 5.19 brought accepts that go on, cancels of all, and sockets.
    set(Cap::MultishotAccept, probe.is_supported(opcode::Socket::CODE));
    set(Cap::CancelAny, probe.is_supported(opcode::Socket::CODE));
    // 6.0 brought receives that go on, and sends without a copy.
    set(Cap::MultishotRecv, probe.is_supported(opcode::SendZc::CODE));
    // 6.1 brought sends to an address and counts of cancelled sends, with messages not copied.
    set(Cap::SendTo, probe.is_supported(opcode::SendMsgZc::CODE));
    set(Cap::SendCount, probe.is_supported(opcode::SendMsgZc::CODE));
    // 6.12 brought deadlines by the clock, and waits for more than one answer.
    set(Cap::ExtArgAbs, params.is_feature_min_timeout());
    found
}

/// Whether the kernel has a call of `io_uring_register`, without its doing anything.
fn knows(ring: &IoUring, call: u32, count: u32) -> bool {
    let nowhere = std::ptr::without_provenance::<libc::c_void>(1);
    // SAFETY: the first page is never mapped, so the kernel reads nothing and changes nothing.
    let result = unsafe {
        libc::syscall(libc::SYS_io_uring_register, ring.as_raw_fd(), call, nowhere, count)
    };
    result < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_and_missing_is_named() {
        assert_eq!(missing(|_| true), None);
        assert_eq!(missing(|opcode| opcode != opcode::Recv::CODE), Some("IORING_OP_RECV"));
    }

    #[test]
    fn a_call_that_no_kernel_has_is_not_known() {
        let ring = IoUring::new(2).unwrap();
        assert!(!knows(&ring, 10_000, 1));
        assert!(knows(&ring, REGISTER_IOWQ_MAX_WORKERS, 2), "this kernel is older than 5.15");
    }
}
