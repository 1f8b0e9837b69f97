//! Sending and receiving a message with what goes along: addresses and descriptors.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use io_uring::{opcode, types};

use crate::buf::{Filling, IoBuf, IoBufMut, rest_to_write};
use crate::driver::{Cqe, Sqe};
use crate::op::Op;
use crate::sys::envelope::{Enclosed, Envelope};
use crate::sys::rights::MOST_FDS;
use crate::sys::unix_addr::UnixAddress;

/// Where an envelope lies between two messages, so that not each needs a new one.
#[derive(Default)]
pub(super) struct Shelf(Cell<Option<Box<Envelope>>>);

impl Shelf {
    pub(super) fn take(&self) -> Box<Envelope> {
        self.0.take().unwrap_or_else(Envelope::new)
    }

    fn put(&self, envelope: Box<Envelope>) {
        self.0.set(Some(envelope));
    }
}

/// Who sends: it has the turn, where there are turns, and keeps the descriptor open.
pub(super) trait Sender: 'static {
    fn raw(&self) -> RawFd;
    fn shelf(&self) -> &Shelf;
    /// Counts what an answer says was sent of `left` bytes.
    fn count(&self, cqe: &Cqe, left: usize) -> io::Result<usize>;
}

/// Who receives: it has the turn to, and keeps the descriptor open.
pub(super) trait Receiver: 'static {
    /// `MSG_*` that its requests carry.
    const FLAGS: i32;

    fn raw(&self) -> RawFd;
    fn shelf(&self) -> &Shelf;
    /// Keeps what arrived for nobody, for the next receive (I7).
    fn keep(&self, bytes: &[u8], received: Received);
}

/// What a message has brought beside its bytes.
#[derive(Debug)]
pub(super) struct Received {
    /// Bytes of the whole message, those included that found no room.
    pub(super) len: usize,
    pub(super) enclosed: Enclosed,
}

/// Duplicates of `fds`, which the caller may close at once.
pub(super) fn duplicates(fds: &[BorrowedFd<'_>]) -> io::Result<Vec<OwnedFd>> {
    if fds.len() > MOST_FDS {
        let count = fds.len();
        let text = format!("{MOST_FDS} descriptors go with one message at most, not {count}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    fds.iter().map(|fd| fd.as_fd().try_clone_to_owned()).collect()
}

/// Why descriptors that had come are not there.
pub(super) fn descriptors_lost() -> io::Error {
    io::Error::other(
        "descriptors that came with the message were lost: this process may not have more open \
         (RLIMIT_NOFILE, `ulimit -n`), or a receive that was dropped had not asked for them; those \
         that did come were closed",
    )
}

/// `IORING_OP_SENDMSG`, kernel 5.3: a message, and what goes along.
///
/// It does not wait in the kernel: `EAGAIN` is for whoever sends to wait for, and to submit it anew.
/// A kernel that waits for a datagram's receiver begins anew with a message that it has read already,
/// and sends an empty one (measured: io_uring of 6.18).
pub(super) struct SendMessage<S, B> {
    sender: S,
    buf: B,
    done: usize,
    envelope: Box<Envelope>,
}

impl<S: Sender, B: IoBuf> SendMessage<S, B> {
    pub(super) fn new(sender: S, buf: B, to: Option<UnixAddress>, fds: Vec<OwnedFd>) -> Self {
        let mut envelope = sender.shelf().take();
        envelope.enclose(to, fds);
        SendMessage { sender, buf, done: 0, envelope }
    }

    /// Bytes that have been sent.
    pub(super) fn done(&self) -> usize {
        self.done
    }

    pub(super) fn is_done(&self) -> bool {
        self.done == self.buf.buf_len()
    }

    /// Gives the turn and the buffer back; what was enclosed is gone.
    pub(super) fn finish(mut self) -> (S, B) {
        self.envelope.sent();
        self.sender.shelf().put(self.envelope);
        (self.sender, self.buf)
    }
}

// SAFETY: I2: the request points at `envelope`, which is in a box and points at itself and into
// `buf`, and holds the descriptors that are sent; `sender` keeps the socket open.
unsafe impl<S: Sender, B: IoBuf> Op for SendMessage<S, B> {
    type Output = (Self, io::Result<usize>);

    fn prepare(&mut self) -> Sqe {
        let (start, len) = rest_to_write(&self.buf, self.done);
        let message = self.envelope.outgoing(start, len);
        let flags = (libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) as u32;
        opcode::SendMsg::new(types::Fd(self.sender.raw()), message).flags(flags).build()
    }

    fn complete(mut self, cqe: Cqe) -> Self::Output {
        let sent = self.sender.count(&cqe, self.buf.buf_len() - self.done);
        if let Ok(sent) = sent
            && sent > 0
        {
            self.done += sent;
            // It goes with the first byte.
            self.envelope.sent();
        }
        (self, sent)
    }
}

/// `IORING_OP_RECVMSG`, kernel 5.3: a message, and what comes along.
pub(super) struct ReceiveMessage<R, B> {
    receiver: R,
    filling: Filling<B>,
    envelope: Option<Box<Envelope>>,
    /// How many bytes there is room for.
    room: u32,
    fds: bool,
}

impl<R: Receiver, B: IoBufMut> ReceiveMessage<R, B> {
    /// Receives into `filling`; with `fds`, descriptors too.
    pub(super) fn new(receiver: R, filling: Filling<B>, fds: bool) -> Self {
        let envelope = Some(receiver.shelf().take());
        ReceiveMessage { receiver, filling, envelope, room: 0, fds }
    }

    /// Takes what has come out of its places.
    fn take(&mut self, cqe: Cqe) -> io::Result<Received> {
        let mut envelope = self.envelope.take().expect("there is one last answer");
        // The answer to `MSG_TRUNC` is the length of the message, whatever the room.
        let filled = Cqe { result: cqe.result.min(self.room.cast_signed()), ..cqe };
        let filled = self.filling.advance(&filled);
        let enclosed = envelope.open();
        self.receiver.shelf().put(envelope);
        let len = filled?.max(usize::try_from(cqe.result).unwrap_or(0));
        Ok(Received { len, enclosed })
    }
}

// SAFETY: I2: the request points at `envelope`, which is in a box and points at itself and into
// `filling`; `receiver` keeps the socket open.
unsafe impl<R: Receiver, B: IoBufMut> Op for ReceiveMessage<R, B> {
    type Output = (R, Filling<B>, io::Result<Received>);

    fn prepare(&mut self) -> Sqe {
        let (start, len) = self.filling.rest();
        self.room = len;
        let envelope = self.envelope.as_mut().expect("it goes with the last answer");
        let message = envelope.incoming(start, len, self.fds);
        let flags = (R::FLAGS | libc::MSG_CMSG_CLOEXEC) as u32;
        opcode::RecvMsg::new(types::Fd(self.receiver.raw()), message).flags(flags).build()
    }

    fn complete(mut self, cqe: Cqe) -> Self::Output {
        let received = self.take(cqe);
        (self.receiver, self.filling, received)
    }

    fn abandon(mut self, cqe: Cqe) {
        // A receive that failed has brought nothing.
        if let Ok(received) = self.take(cqe) {
            self.receiver.keep(self.filling.filled(), received);
        }
    }
}
