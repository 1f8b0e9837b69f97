//! Opening a ring: the best flags first, then fewer; the wanted sizes first, then smaller ones.

use std::io;
use std::path::Path;
use std::time::Duration;

use io_uring::{Builder, IoUring};

use super::Sizes;
use crate::driver::caps::{Cap, Caps, since};
use crate::sys::facts::Facts;

/// The step of opening a ring that failed, and with what.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) step: &'static str,
    pub(crate) error: io::Error,
}

impl Refused {
    /// Whether it is io_uring itself that is refused. A want of memory or of descriptors is not:
    /// another driver would only hide it.
    pub(crate) fn is_of_io_uring(&self) -> bool {
        let itself = [libc::ENOSYS, libc::EPERM, libc::EACCES, libc::EINVAL];
        is_about_io_uring(self.step)
            && match self.error.raw_os_error() {
                Some(errno) => itself.contains(&errno),
                None => self.error.kind() == io::ErrorKind::Unsupported,
            }
    }
}

/// Whether a step asks for io_uring, and not for something else that a driver needs.
pub(crate) fn is_about_io_uring(step: &str) -> bool {
    ["io_uring", "IORING"].iter().any(|word| step.contains(word))
}

/// The capabilities that are flags of a ring, the newest first: the rungs of a ladder.
const FLAGS: [Cap; 5] =
    [Cap::NoSqarray, Cap::DeferTaskrun, Cap::SingleIssuer, Cap::CoopTaskrun, Cap::SubmitAll];

/// The smallest submission queue worth having.
const FEWEST: u32 = 16;

/// Opens a ring with what the kernel takes of the flags in `wanted`. Returns what is left of them.
pub(super) fn open(sizes: Sizes, mut wanted: Caps) -> Result<(IoUring, Caps), Refused> {
    let (mut sizes, mut patience) = (sizes, Patience::default());
    // The kernel refuses the one without the other.
    if !wanted.has(Cap::SingleIssuer) {
        wanted.set(Cap::DeferTaskrun, false);
    }
    loop {
        let mut builder = IoUring::builder();
        builder.dontfork().setup_clamp().setup_cqsize(sizes.completions);
        if sizes.mask.restricted {
            builder.setup_r_disabled();
        }
        add_flags(&mut builder, wanted);
        let error = match builder.build(sizes.submissions) {
            Ok(ring) => return Ok((ring, wanted)),
            Err(error) => error,
        };
        match (error.raw_os_error(), FLAGS.iter().find(|flag| wanted.has(**flag))) {
            // An unknown flag: one rung down.
            (Some(libc::EINVAL), Some(newest)) => wanted.set(*newest, false),
            (Some(libc::ENOMEM), _) if patience.waits_for(sizes) => {}
            // Memory is scarce, or may not be locked: halve.
            (Some(libc::ENOMEM), _) if sizes.submissions > FEWEST => {
                sizes.submissions /= 2;
                sizes.completions = (sizes.completions / 2).max(sizes.submissions);
            }
            _ => return Err(Refused { step: "io_uring_setup", error }),
        }
    }
}

fn add_flags(ring: &mut Builder, wanted: Caps) {
    if wanted.has(Cap::SubmitAll) {
        ring.setup_submit_all();
    }
    if wanted.has(Cap::SingleIssuer) {
        ring.setup_single_issuer();
    }
    // Work that is deferred to the enter needs no cooperation.
    if wanted.has(Cap::DeferTaskrun) {
        ring.setup_defer_taskrun().setup_taskrun_flag();
    } else if wanted.has(Cap::CoopTaskrun) {
        ring.setup_coop_taskrun().setup_taskrun_flag();
    }
    if wanted.has(Cap::NoSqarray) {
        ring.setup_no_sqarray();
    }
}

/// The kernel whose flags a ring has, for people.
pub(super) fn rung(caps: Caps) -> &'static str {
    FLAGS.iter().find(|flag| caps.has(**flag)).map_or("5.6", |newest| since(*newest))
}

/// Waiting for the memory of rings that were closed. Where rings count as locked memory, one that was
/// closed counts until the kernel has torn it down, some 30 ms later (measured): a process that is
/// started again would find no room.
#[derive(Default)]
struct Patience {
    waited: Duration,
}

impl Patience {
    const MOST: Duration = Duration::from_millis(127);

    /// Waits a little, twice as long each time, if a ring of these sizes may have its room soon.
    fn waits_for(&mut self, sizes: Sizes) -> bool {
        let needed = u64::from(sizes.submissions) * 64 + u64::from(sizes.completions) * 16;
        let limit = || Facts::read(Path::new("/")).locked_memory_for_rings();
        if self.waited >= Patience::MOST || limit().is_none_or(|limit| limit < needed) {
            return false;
        }
        let more = self.waited + Duration::from_millis(1);
        std::thread::sleep(more);
        self.waited += more;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_has_an_end() {
        let mut patience = Patience { waited: Patience::MOST };
        let sizes = Sizes { submissions: 1, completions: 2, ..Sizes::default() };
        assert!(!patience.waits_for(sizes));
    }
}
