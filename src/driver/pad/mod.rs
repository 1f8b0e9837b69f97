//! What fills the gaps of kernels that lack something: shared by all drivers.

pub(crate) mod blocking;
pub(crate) mod message;
pub(crate) mod provided;
pub(crate) mod steps;

use io_uring::opcode;

use super::Fields;

/// What a kernel without `IORING_OP_SEND_ZC` is asked in its place: the same send, with a copy.
pub(crate) fn with_a_copy(send: Fields) -> Fields {
    Fields { opcode: opcode::Send::CODE, ioprio: 0, ..send }
}
