//! Connecting: a socket of datagrams gets one peer.

use std::io;
use std::net::SocketAddr;

use io_uring::{opcode, types};

use super::State;
use crate::driver::{Cqe, Sqe};
use crate::op::{Op, Submission};
use crate::sys::addr::Address;
use crate::sys::fd::Fd;

pub(super) async fn connect(fd: &Fd<State>, address: SocketAddr) -> io::Result<()> {
    Submission::new(Connect { fd: fd.clone(), address: address.into() }).await
}

/// `IORING_OP_CONNECT`, kernel 5.5. It sends nothing, and does not wait.
struct Connect {
    fd: Fd<State>,
    address: Address,
}

// SAFETY: I2: the request points at `address`, and `fd` keeps the descriptor open.
unsafe impl Op for Connect {
    type Output = io::Result<()>;

    fn prepare(&mut self) -> Sqe {
        let bytes = self.address.as_bytes();
        let (start, len) = (bytes.as_ptr().cast(), bytes.len() as libc::socklen_t);
        opcode::Connect::new(types::Fd(self.fd.raw()), start, len).build()
    }

    fn complete(self, cqe: Cqe) -> Self::Output {
        cqe.result().map(drop)
    }
}
