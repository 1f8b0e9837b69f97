//! Connecting a socket, whatever its family.

use std::io;

use io_uring::{opcode, types};

use crate::driver::{Cqe, Sqe};
use crate::net::options;
use crate::op::{Op, Submission};
use crate::sys::fd::{Fd, OwnedFd};

/// Connects a socket of which this is the only share, and gives it back. It is closed if that fails,
/// or if the future is dropped.
pub(super) async fn connect<A: AsRef<[u8]> + 'static>(fd: OwnedFd, to: A) -> io::Result<OwnedFd> {
    begin(Fd::new(fd, ()), to).await.map(options::only)
}

/// Connects a socket, and gives it back. Its share is dropped if that fails, or with the ticket.
pub(super) fn begin<S: 'static, A: AsRef<[u8]> + 'static>(
    fd: Fd<S>,
    to: A,
) -> Submission<Connect<S, A>> {
    Submission::new(Connect { fd, to })
}

/// `IORING_OP_CONNECT`, kernel 5.5.
pub(super) struct Connect<S, A> {
    fd: Fd<S>,
    /// An address in the kernel's form.
    to: A,
}

// SAFETY: I2: the request points at the bytes of `to`, and `fd` keeps the descriptor open.
unsafe impl<S: 'static, A: AsRef<[u8]> + 'static> Op for Connect<S, A> {
    type Output = io::Result<Fd<S>>;

    const WAITS_FOR_ADMISSION: bool = true;

    fn prepare(&mut self) -> Sqe {
        let bytes = self.to.as_ref();
        let (start, len) = (bytes.as_ptr().cast(), bytes.len() as libc::socklen_t);
        opcode::Connect::new(types::Fd(self.fd.raw()), start, len).build()
    }

    fn again(&mut self, _: &Cqe) -> bool {
        // An interrupted connect goes on by itself; asking again would answer EALREADY.
        false
    }

    fn complete(self, cqe: Cqe) -> Self::Output {
        cqe.result()?;
        Ok(self.fd)
    }

    #[cfg(canary = "drop-cancelled-descriptor")]
    fn abandon(self, cqe: Cqe) {
        std::mem::forget(self.complete(cqe));
    }
}
