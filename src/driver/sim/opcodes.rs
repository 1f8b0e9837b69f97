//! What the invented kernel knows of each opcode.

use io_uring::opcode;

use super::memory::Shape;
use crate::driver::Fields;
use crate::driver::sqe::flag;

pub(super) const NOP: u8 = opcode::Nop::CODE;
pub(super) const POLL: u8 = opcode::PollAdd::CODE;
pub(super) const READV: u8 = opcode::Readv::CODE;
pub(super) const WRITEV: u8 = opcode::Writev::CODE;
pub(super) const FSYNC: u8 = opcode::Fsync::CODE;
pub(super) const RECVMSG: u8 = opcode::RecvMsg::CODE;
pub(super) const SENDMSG: u8 = opcode::SendMsg::CODE;
pub(super) const TIMEOUT: u8 = opcode::Timeout::CODE;
pub(super) const TIMEOUT_REMOVE: u8 = opcode::TimeoutUpdate::CODE;
pub(super) const ACCEPT: u8 = opcode::AcceptMulti::CODE;
pub(super) const CANCEL: u8 = opcode::AsyncCancel::CODE;
pub(super) const CONNECT: u8 = opcode::Connect::CODE;
pub(super) const OPENAT: u8 = opcode::OpenAt::CODE;
pub(super) const READ: u8 = opcode::Read::CODE;
pub(super) const WRITE: u8 = opcode::Write::CODE;
pub(super) const SEND: u8 = opcode::Send::CODE;
pub(super) const SEND_ZC: u8 = opcode::SendZc::CODE;
pub(super) const RECV: u8 = opcode::Recv::CODE;

/// `IORING_SEND_ZC_REPORT_USAGE`, in `ioprio`.
const REPORT_USAGE: u16 = 1 << 3;

/// The opcodes that are known, with their names.
const KNOWN: [(u8, &str); 18] = [
    (NOP, "nop"),
    (POLL, "poll"),
    (READV, "readv"),
    (WRITEV, "writev"),
    (FSYNC, "fsync"),
    (SENDMSG, "sendmsg"),
    (RECVMSG, "recvmsg"),
    (TIMEOUT, "timeout"),
    (TIMEOUT_REMOVE, "timeout update"),
    (ACCEPT, "accept"),
    (CANCEL, "cancel"),
    (CONNECT, "connect"),
    (OPENAT, "open"),
    (READ, "read"),
    (WRITE, "write"),
    (SEND, "send"),
    (SEND_ZC, "send without a copy"),
    (RECV, "receive"),
];

pub(super) fn name(opcode: u8) -> Option<&'static str> {
    KNOWN.iter().find(|(known, _)| *known == opcode).map(|&(_, name)| name)
}

/// Whether every flag of a request is one that is modelled; what is not is answered, not ignored.
pub(super) fn is_modelled(fields: &Fields) -> bool {
    let (flags, ioprio, message) = match fields.opcode {
        RECV | RECVMSG if picks_buffers(fields) => {
            (flag::BUFFER_SELECT, flag::RECV_MULTISHOT | flag::POLL_FIRST, 0)
        }
        ACCEPT => (0, flag::ACCEPT_MULTISHOT, libc::SOCK_CLOEXEC),
        SEND => (0, 0, libc::MSG_NOSIGNAL | libc::MSG_WAITALL),
        SEND_ZC => (0, REPORT_USAGE, libc::MSG_NOSIGNAL | libc::MSG_WAITALL),
        SENDMSG => (0, 0, libc::MSG_NOSIGNAL | libc::MSG_WAITALL | libc::MSG_DONTWAIT),
        POLL => (0, 0, i32::from(libc::POLLOUT)),
        RECVMSG => (0, 0, libc::MSG_CMSG_CLOEXEC | libc::MSG_TRUNC),
        RECV => (0, 0, 0),
        _ => return name(fields.opcode).is_some() && fields.flags == 0,
    };
    fields.flags & !flags == 0
        && fields.ioprio & !ioprio == 0
        && fields.op_flags & !message.cast_unsigned() == 0
}

/// Whether a receive picks a provided buffer.
pub(super) fn picks_buffers(fields: &Fields) -> bool {
    matches!(fields.opcode, RECV | RECVMSG) && fields.flags & flag::BUFFER_SELECT != 0
}

/// Whether it goes on until it is stopped.
pub(super) fn is_multishot(fields: &Fields) -> bool {
    matches!(fields.opcode, RECV | RECVMSG) && fields.ioprio & flag::RECV_MULTISHOT != 0
        || fields.opcode == ACCEPT && fields.ioprio & flag::ACCEPT_MULTISHOT != 0
}

/// Whether it names a descriptor.
pub(super) fn names_a_descriptor(opcode: u8) -> bool {
    !matches!(opcode, NOP | TIMEOUT | TIMEOUT_REMOVE | CANCEL | OPENAT)
}

/// Whether only the ring itself asks for it.
pub(super) fn is_of_the_ring(opcode: u8) -> bool {
    matches!(opcode, TIMEOUT | TIMEOUT_REMOVE | CANCEL)
}

/// Whether it may be answered `EINTR`. An interrupted connect would go on by itself.
pub(super) fn is_interruptible(opcode: u8) -> bool {
    !is_of_the_ring(opcode) && !matches!(opcode, NOP | CONNECT)
}

/// Whether it is about files, which take longer.
pub(super) fn is_of_files(opcode: u8) -> bool {
    matches!(opcode, OPENAT | READ | WRITE | READV | WRITEV | FSYNC)
}

/// The memory that the kernel fills.
pub(super) fn filled(fields: &Fields) -> Option<Shape> {
    match fields.opcode {
        READ => Some(Shape::Plain),
        RECV if !picks_buffers(fields) => Some(Shape::Plain),
        RECVMSG if !picks_buffers(fields) => Some(Shape::Message),
        READV => Some(Shape::Iovecs),
        _ => None,
    }
}

/// The memory that the kernel reads.
pub(super) fn sent(fields: &Fields) -> Option<Shape> {
    match fields.opcode {
        SEND | SEND_ZC | WRITE => Some(Shape::Plain),
        WRITEV => Some(Shape::Iovecs),
        SENDMSG => Some(Shape::Message),
        _ => None,
    }
}
