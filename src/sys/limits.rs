//! Limits of the process: read by system call, because at the limit of descriptors no file opens.

/// A limit as it holds now, and how far the process may raise it itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

/// How many descriptors the process may have open.
pub(crate) fn descriptors() -> Option<Limit> {
    read(libc::RLIMIT_NOFILE)
}

/// How many bytes the process may lock into memory.
pub(crate) fn locked_memory() -> Option<Limit> {
    read(libc::RLIMIT_MEMLOCK)
}

/// How many bytes of addresses the process may have mapped, whether or not they are memory.
pub(crate) fn address_space() -> Option<Limit> {
    read(libc::RLIMIT_AS)
}

/// How many processes and threads the user may have.
pub(crate) fn processes() -> Option<Limit> {
    read(libc::RLIMIT_NPROC)
}

fn read(resource: libc::__rlimit_resource_t) -> Option<Limit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a place for the answer.
    let result = unsafe { libc::getrlimit(resource, &raw mut limit) };
    (result == 0).then_some(Limit { soft: limit.rlim_cur, hard: limit.rlim_max })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_soft_limit_is_no_higher_than_the_hard_one() {
        let limit = descriptors().unwrap();
        assert!(limit.soft <= limit.hard && limit.soft > 0);
        assert!(locked_memory().is_some() && processes().is_some());
    }
}
