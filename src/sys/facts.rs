//! What this machine and process say about themselves, where that can explain a refusal.
//!
//! Files are read below a root, which is `/` outside tests; what cannot be read is not known.

use std::fs;
use std::path::Path;

use super::limits::{self, Limit};

/// What is known about this machine and process, as far as it can be read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    /// `kernel.io_uring_disabled`: 0 nobody is refused, 1 the unprivileged, 2 everybody.
    pub(crate) disabled: Option<u32>,
    /// `kernel.io_uring_group`: whose members are not refused by 1.
    pub(crate) group: Option<i64>,
    /// Whether a seccomp filter is in force for this thread.
    pub(crate) filtered: bool,
    pub(crate) release: Option<String>,
    pub(crate) files: Option<(u64, u64)>,
    pub(crate) descriptors: Option<Limit>,
    pub(crate) locked_memory: Option<Limit>,
    pub(crate) address_space: Option<Limit>,
    /// Whether this thread may lock memory whatever the limit.
    pub(crate) may_lock: bool,
}

impl Facts {
    /// Reads what can be read.
    pub(crate) fn read(root: &Path) -> Self {
        let text = |path: &str| fs::read_to_string(root.join(path)).ok();
        let setting = |path: &str| text(path)?.trim().parse::<i64>().ok();
        // The thread's own status: filters are per thread.
        let status = text("proc/thread-self/status").or_else(|| text("proc/self/status"));
        let may_lock = status.as_deref().and_then(effective_capabilities).is_some_and(|bits| {
            const CAP_IPC_LOCK: u64 = 1 << 14;
            bits & CAP_IPC_LOCK != 0
        });
        Facts {
            may_lock,
            disabled: setting("proc/sys/kernel/io_uring_disabled")
                .and_then(|value| u32::try_from(value).ok()),
            group: setting("proc/sys/kernel/io_uring_group"),
            filtered: status.is_some_and(|status| seccomp_mode(&status) == Some(2)),
            release: text("proc/sys/kernel/osrelease").map(|text| text.trim().to_owned()),
            files: text("proc/sys/fs/file-nr").and_then(|text| file_numbers(&text)),
            descriptors: limits::descriptors(),
            locked_memory: limits::locked_memory(),
            address_space: limits::address_space(),
        }
    }

    /// The numbers at the beginning of the kernel's release: `(6, 1)`.
    pub(crate) fn version(&self) -> Option<(u32, u32)> {
        let mut numbers = self.release.as_deref()?.split(|c: char| !c.is_ascii_digit());
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }

    /// The limit of locked memory, if rings count as such: up to 5.11 and again from 6.14 on
    /// (measured on 6.18; https://github.com/axboe/liburing/issues/1408), for all processes of a user
    /// together. In between they are memory of the cgroup.
    pub(crate) fn locked_memory_for_rings(&self) -> Option<u64> {
        let counts = self.version().is_none_or(|version| !((5, 12)..(6, 14)).contains(&version));
        let soft = self.locked_memory?.soft;
        (counts && !self.may_lock && soft != libc::RLIM_INFINITY).then_some(soft)
    }
}

/// The bits in `CapEff: 00000000000004c0` of a status file.
pub(crate) fn effective_capabilities(status: &str) -> Option<u64> {
    let bits = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(bits.trim(), 16).ok()
}

/// The mode in `Seccomp: 2` of a status file: 0 none, 1 strict, 2 filter.
fn seccomp_mode(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("Seccomp:"))?.trim().parse().ok()
}

/// How many files the machine has open, and may have: `OPEN UNUSED MOST`.
fn file_numbers(text: &str) -> Option<(u64, u64)> {
    let mut numbers = text.split_whitespace().map(str::parse::<u64>);
    Some((numbers.next()?.ok()?, numbers.nth(1)?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_be_read() {
        let facts = Facts::read(Path::new("/"));
        assert!(facts.version().is_some_and(|version| version > (5, 0)), "{facts:?}");
        assert!(facts.files.is_some() && facts.descriptors.is_some(), "{facts:?}");
    }
}
