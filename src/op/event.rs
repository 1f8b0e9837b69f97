//! Waiting for what poll(2) answers of a descriptor of ours.

use std::io;

use io_uring::{opcode, types};

use super::{Op, Submission};
use crate::driver::{Cqe, Sqe};
use crate::sys::fd::Fd;

/// Waits until one of `events` (`POLLIN`, `POLLOUT`) is there, or an error.
///
/// # Errors
/// What the kernel answers.
pub(crate) async fn event_of<S: 'static>(fd: &Fd<S>, events: i16) -> io::Result<()> {
    Submission::new(Event { fd: fd.clone(), events }).await
}

/// `IORING_OP_POLL_ADD`, one-shot, kernel 5.1.
struct Event<S> {
    fd: Fd<S>,
    events: i16,
}

// SAFETY: I2: the request points at nothing, and `fd` keeps the descriptor open.
unsafe impl<S: 'static> Op for Event<S> {
    type Output = io::Result<()>;

    fn prepare(&mut self) -> Sqe {
        let events = u32::from(self.events.cast_unsigned());
        opcode::PollAdd::new(types::Fd(self.fd.raw()), events).build()
    }

    fn complete(self, cqe: Cqe) -> io::Result<()> {
        cqe.result().map(drop)
    }
}
