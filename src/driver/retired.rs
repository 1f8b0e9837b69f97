//! The kernel of a core that has ended: it closes what outlives it, and nothing else.

use std::io;

use super::{Call, Counters, Cqe, Driver, Register, Sqe, Unparker, Wait, call};
use crate::sys::clock;

/// Simulated descriptors start here, so that no slip can close a real one.
pub(crate) const SIMULATED: i32 = 1 << 30;

/// Stands where a driver was, for the handles that outlive their runtime.
pub(crate) struct Retired {
    pub(crate) unparker: Unparker,
    pub(crate) counters: Counters,
}

// SAFETY: it takes no requests (a push is a bug and panics), so it owes no answers.
unsafe impl Driver for Retired {
    unsafe fn push(&mut self, _: Sqe) {
        unreachable!("a request was pushed to a core that has ended");
    }

    fn enter(&mut self, _: Wait, _: &mut Vec<Cqe>) -> io::Result<()> {
        Ok(())
    }

    fn call(&mut self, call: Call<'_>) -> io::Result<i32> {
        match call {
            Call::Close { fd } | Call::Release { fd } if fd >= SIMULATED => Ok(0),
            call => call::perform(call),
        }
    }

    unsafe fn register(&mut self, _: Register) -> io::Result<()> {
        Ok(())
    }

    fn supports(&self, _: u8) -> bool {
        false
    }

    fn unparker(&self) -> Unparker {
        self.unparker.clone()
    }

    fn now(&self) -> u64 {
        clock::monotonic()
    }

    fn counters(&self) -> Counters {
        self.counters
    }

    fn name(&self) -> &'static str {
        "none"
    }
}
