//! An operation in flight, as somebody sees it who has no ticket of it.

use std::task::Waker;

use super::in_flight::State;
use super::ring::Ring;

/// What is known of one operation.
pub(crate) struct Pending<'a> {
    pub(crate) opcode: u8,
    /// Its descriptor. It is not known any more while a cancel is about to be handed over.
    pub(crate) fd: Option<i32>,
    /// The task whose poll submitted it; `u32::MAX` if none did.
    pub(crate) task: u32,
    /// Whoever awaits it now.
    pub(crate) waker: Option<&'a Waker>,
    pub(crate) is_cancelled: bool,
}

impl Ring {
    /// Shows every operation to which the kernel owes an answer. `show` is not user code (I5).
    pub(crate) fn each_pending(&self, mut show: impl FnMut(&Pending<'_>)) {
        for (_, slot) in self.table.all().filter(|(_, slot)| slot.awaits_answers()) {
            slot.peek_waker(|waker| {
                show(&Pending {
                    opcode: slot.opcode(),
                    fd: slot.fd(),
                    task: slot.task.get(),
                    waker,
                    is_cancelled: slot.is_cancelled() || slot.state() == State::Orphaned,
                });
            });
        }
    }
}
