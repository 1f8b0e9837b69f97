//! The machine's monotonic clock, and the thread's own, in nanoseconds.

/// Nanoseconds of `CLOCK_MONOTONIC`: it does not count time in suspend, and never goes back.
#[inline]
pub(crate) fn monotonic() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// Nanoseconds for which the calling thread has run. Costs a system call.
pub(crate) fn of_this_thread() -> u64 {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

#[inline]
fn read(clock: libc::clockid_t) -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid place for the answer.
    let result = unsafe { libc::clock_gettime(clock, &raw mut now) };
    // Both clocks always exist.
    assert_eq!(result, 0, "clock {clock} cannot be read");
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}
