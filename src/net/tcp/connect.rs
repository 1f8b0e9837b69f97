//! Connecting a socket.

use std::io;
use std::net::SocketAddr;

use io_uring::{opcode, types};

use crate::driver::{Cqe, Sqe};
use crate::net::options;
use crate::op::{Op, Submission};
use crate::sys::addr::Address;
use crate::sys::fd::{Fd, OwnedFd};

/// A socket that is connected to `address`.
pub(super) async fn connect(address: SocketAddr) -> io::Result<OwnedFd> {
    let fd = options::stream_socket(&address)?;
    options::set(fd.raw(), libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    Submission::new(Connect { fd: Fd::new(fd, ()), address: address.into() }).await
}

/// `IORING_OP_CONNECT`, kernel 5.5.
struct Connect {
    fd: Fd,
    address: Address,
}

// SAFETY: I2: the request points at `address`, and `fd` keeps the descriptor open.
unsafe impl Op for Connect {
    type Output = io::Result<OwnedFd>;

    const WAITS_FOR_ADMISSION: bool = true;

    fn prepare(&mut self) -> Sqe {
        let (start, len) = (self.address.as_ptr(), self.address.len());
        opcode::Connect::new(types::Fd(self.fd.raw()), start, len).build()
    }

    fn again(&mut self, _: &Cqe) -> bool {
        // An interrupted connect goes on by itself; asking again would answer EALREADY.
        false
    }

    fn complete(self, cqe: Cqe) -> Self::Output {
        // The socket is dropped, and so closed, with the error.
        cqe.result()?;
        self.fd.into_only().map_err(|_| io::Error::other("the socket is still in use"))
    }

    #[cfg(canary = "drop-cancelled-descriptor")]
    fn abandon(self, cqe: Cqe) {
        std::mem::forget(self.complete(cqe));
    }
}
