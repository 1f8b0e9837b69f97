//! The requests that Quoit makes: what a kernel must know, and what a restricted ring permits.

use io_uring::opcode;

/// Each with the kernel's name for it, and the first kernel that has it.
pub(crate) const USED: [(u8, &str, &str); 16] = [
    (opcode::PollAdd::CODE, "IORING_OP_POLL_ADD", "5.1"),
    (opcode::Readv::CODE, "IORING_OP_READV", "5.1"),
    (opcode::Writev::CODE, "IORING_OP_WRITEV", "5.1"),
    (opcode::Fsync::CODE, "IORING_OP_FSYNC", "5.1"),
    (opcode::SendMsg::CODE, "IORING_OP_SENDMSG", "5.3"),
    (opcode::RecvMsg::CODE, "IORING_OP_RECVMSG", "5.3"),
    (opcode::Timeout::CODE, "IORING_OP_TIMEOUT", "5.4"),
    (opcode::TimeoutRemove::CODE, "IORING_OP_TIMEOUT_REMOVE", "5.5"),
    (opcode::Accept::CODE, "IORING_OP_ACCEPT", "5.5"),
    (opcode::AsyncCancel::CODE, "IORING_OP_ASYNC_CANCEL", "5.5"),
    (opcode::Connect::CODE, "IORING_OP_CONNECT", "5.5"),
    (opcode::OpenAt::CODE, "IORING_OP_OPENAT", "5.6"),
    (opcode::Read::CODE, "IORING_OP_READ", "5.6"),
    (opcode::Recv::CODE, "IORING_OP_RECV", "5.6"),
    (opcode::Send::CODE, "IORING_OP_SEND", "5.6"),
    (opcode::Write::CODE, "IORING_OP_WRITE", "5.6"),
];

/// The kernel's name for a request of ours.
pub(crate) fn name(code: u8) -> &'static str {
    match USED.iter().find(|(used, ..)| *used == code) {
        Some((_, name, _)) => name,
        None if code == opcode::SendZc::CODE => "IORING_OP_SEND_ZC",
        None => "an operation",
    }
}

/// Those that a kernel may lack: they are made up for. A restricted ring permits them too.
pub(crate) const OPTIONAL: [u8; 1] = [opcode::SendZc::CODE];
