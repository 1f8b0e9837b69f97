//! What a core has and has done, in numbers.

/// Counters and levels of one core; see [`Runtime::stats`](super::Runtime::stats).
///
/// Levels say what is there now, counters what has happened since the core started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Level: operations in flight, orphans included.
    pub live_ops: u32,
    /// Level: operations whose future was dropped, and whose last answer is still to come.
    pub orphans: u32,
    /// Level: provided buffers that are leased out.
    pub leases: u32,
    /// Level: tasks that have not ended, or whose output may still be asked for.
    pub tasks: usize,
    /// Level: timers that have not fired.
    pub timers: usize,
    /// Requests handed to the kernel.
    pub sqes: u64,
    /// Answers taken from the kernel.
    pub cqes: u64,
    /// Calls of `io_uring_enter`.
    pub enters: u64,
    /// Laps that found answers waiting because the queue of answers had been full.
    pub overflows: u64,
    /// Enters that the kernel refused for the moment (`EAGAIN`, `EBUSY`, `ENOMEM`).
    pub refused_enters: u64,
    /// Sleeps that a signal interrupted.
    pub interrupted: u64,
    /// Sleeps that another thread ended.
    pub remote_wakes: u64,
    /// Sleeps that waited for several answers ([`Builder::waiting`](super::Builder::waiting)).
    pub coalesced_sleeps: u64,
    /// Windows of at least 2 ms in which a sleep ended with the first answer, under the same.
    pub windows_off: u64,
    /// Windows in which a sleep waited for several.
    pub windows_on: u64,
    /// Times that the core watched its queues before a sleep
    /// ([`Builder::spin`](super::Builder::spin)).
    pub spins: u64,
    /// Those of them in which something came, so that it did not sleep.
    pub spins_won: u64,
    /// Answers that named nothing in flight: always 0, or there is a bug.
    pub stray: u64,
    /// Receives that found no provided buffer.
    pub starved: u64,
    /// Receives that brought their bytes to the heap, because most of the buffers were leased.
    pub heap_receives: u64,
    /// Polls of tasks.
    pub polls: u64,
    /// Polls and callbacks that took longer than
    /// [`Builder::stall_threshold`](super::Builder::stall_threshold).
    pub stalls: u64,
    /// Sleeps that ended for no reason: more than a few mean that there is a bug.
    pub fruitless_laps: u64,
    /// Panics of destructors, wakers and callbacks that were caught (those of tasks are in their
    /// `JoinError`).
    pub caught_panics: u64,
}
