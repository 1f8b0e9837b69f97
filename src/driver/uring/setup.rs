//! Opening a ring: the best flags first, then fewer; the wanted sizes first, then smaller ones.

use std::io;

use io_uring::{Builder, IoUring};

use super::Sizes;

/// The step of opening a ring that failed, and with what.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) step: &'static str,
    pub(crate) error: io::Error,
}

/// What the ring was opened with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) rung: &'static str,
}

/// Adds the flags of a rung to a builder.
type Flags = fn(&mut Builder);

/// From the newest kernel's flags to the oldest's, each named after the kernel that has them.
const LADDER: [(&str, Flags); 5] = [
    ("6.6", |ring| {
        ring.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
        ring.setup_submit_all().setup_no_sqarray();
    }),
    ("6.1", |ring| {
        ring.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
        ring.setup_submit_all();
    }),
    ("6.0", |ring| {
        ring.setup_single_issuer().setup_coop_taskrun().setup_taskrun_flag();
        ring.setup_submit_all();
    }),
    ("5.19", |ring| {
        ring.setup_coop_taskrun().setup_taskrun_flag().setup_submit_all();
    }),
    ("5.6", |_| ()),
];

/// The smallest submission queue worth having.
const FEWEST: u32 = 16;

pub(crate) fn open(sizes: Sizes) -> Result<(IoUring, Setup), Refused> {
    let mut rungs = LADDER.iter();
    let mut rung = rungs.next().expect("the ladder has rungs");
    let mut sizes = sizes;
    loop {
        let mut builder = IoUring::builder();
        builder.dontfork().setup_clamp().setup_cqsize(sizes.completions);
        (rung.1)(&mut builder);
        let error = match builder.build(sizes.submissions) {
            Ok(ring) => return Ok((ring, Setup { rung: rung.0 })),
            Err(error) => error,
        };
        match (error.raw_os_error(), rungs.clone().next()) {
            // An unknown flag: one rung down.
            (Some(libc::EINVAL), Some(next)) => {
                rung = next;
                rungs.next();
            }
            // Locked memory is limited on old kernels: halve.
            (Some(libc::ENOMEM), _) if sizes.submissions > FEWEST => {
                sizes.submissions /= 2;
                sizes.completions = (sizes.completions / 2).max(sizes.submissions);
            }
            _ => return Err(Refused { step: "io_uring_setup", error }),
        }
    }
}
