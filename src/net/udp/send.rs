//! Sending: as many sends in flight per socket as there are calls.
//!
//! A datagram is sent whole or not at all, so that two sends cannot interleave, and nothing has to
//! wait for its turn.

use std::cell::Cell;
use std::io;

use io_uring::{opcode, types};

use super::{Message, State};
use crate::buf::{BufError, BufResult, IoBuf, moved, rest_to_write};
use crate::driver::{Cqe, Sqe};
use crate::op::{Op, Submission};
use crate::sys::addr::Address;
use crate::sys::control::Control;
use crate::sys::fd::Fd;

/// Envelopes that a socket keeps for its next sends: one for each that is in flight at a time.
const KEPT_AT_MOST: usize = 16;

/// The sending half of a socket's state.
#[derive(Default)]
pub(super) struct Outbound {
    #[expect(clippy::vec_box, reason = "a request points into one, so it must not move")]
    kept: Cell<Vec<Box<Envelope>>>,
}

impl Outbound {
    fn take(&self) -> Box<Envelope> {
        let mut kept = self.kept.take();
        let envelope = kept.pop();
        self.kept.set(kept);
        envelope.unwrap_or_else(Envelope::new)
    }

    fn put_back(&self, envelope: Box<Envelope>) {
        let mut kept = self.kept.take();
        if kept.len() < KEPT_AT_MOST {
            kept.push(envelope);
        }
        self.kept.set(kept);
    }
}

/// What the kernel reads of a message besides its payload.
struct Envelope {
    header: libc::msghdr,
    iovec: libc::iovec,
    to: Option<Address>,
    control: Control,
}

impl Envelope {
    fn new() -> Box<Self> {
        let (nothing, iovec) = (std::ptr::null_mut(), std::ptr::null_mut());
        let header = libc::msghdr {
            msg_name: nothing,
            msg_namelen: 0,
            msg_iov: iovec,
            msg_iovlen: 1,
            msg_control: nothing,
            msg_controllen: 0,
            msg_flags: 0,
        };
        let iovec = libc::iovec { iov_base: nothing, iov_len: 0 };
        Box::new(Envelope { header, iovec, to: None, control: Control::new() })
    }

    /// The header of a message with this payload, which holds while the envelope stays in its box.
    fn seal(&mut self, start: *const u8, len: usize) -> *const libc::msghdr {
        self.iovec = libc::iovec { iov_base: start.cast_mut().cast(), iov_len: len };
        self.header.msg_iov = &raw mut self.iovec;
        let (name, len) = match &self.to {
            Some(to) => {
                let bytes = to.as_bytes();
                (bytes.as_ptr().cast_mut().cast(), bytes.len() as libc::socklen_t)
            }
            None => (std::ptr::null_mut(), 0),
        };
        (self.header.msg_name, self.header.msg_namelen) = (name, len);
        let control = self.control.as_bytes().len();
        self.header.msg_control = match control {
            0 => std::ptr::null_mut(),
            _ => self.control.as_mut_ptr().cast(),
        };
        self.header.msg_controllen = control as _;
        &raw const self.header
    }
}

/// Sends `buf` to the peer of a connected socket.
pub(super) async fn send<B: IoBuf>(fd: &Fd<State>, buf: B) -> BufResult<usize, B> {
    let (buf, sent) = Submission::new(Send { fd: fd.clone(), buf }).await;
    give_back(buf, sent)
}

/// Sends `buf` as `message` says.
pub(super) async fn send_message<B: IoBuf>(
    fd: &Fd<State>,
    buf: B,
    message: Message,
) -> BufResult<usize, B> {
    if message.is_plain() && message.destination().is_none() {
        return send(fd, buf).await;
    }
    let mut envelope = fd.outbound.take();
    envelope.to = message.destination().map(Address::from);
    message.write(fd.is_ipv6, &mut envelope.control);
    let (buf, sent) = Submission::new(SendMessage { fd: fd.clone(), buf, envelope }).await;
    give_back(buf, sent)
}

fn give_back<B>(buf: B, sent: io::Result<usize>) -> BufResult<usize, B> {
    match sent {
        Ok(sent) => Ok((sent, buf)),
        Err(error) => Err(BufError { error, buf, done: 0 }),
    }
}

/// `IORING_OP_SEND`, kernel 5.6.
struct Send<B> {
    fd: Fd<State>,
    buf: B,
}

// SAFETY: I2: the request points into `buf`, and `fd` keeps the descriptor open.
unsafe impl<B: IoBuf> Op for Send<B> {
    type Output = (B, io::Result<usize>);

    const AT_ONCE: bool = true;

    fn prepare(&mut self) -> Sqe {
        let (start, len) = rest_to_write(&self.buf, 0);
        opcode::Send::new(types::Fd(self.fd.raw()), start, len).flags(libc::MSG_NOSIGNAL).build()
    }

    fn complete(self, cqe: Cqe) -> Self::Output {
        let sent = moved(&cqe, self.buf.buf_len());
        (self.buf, sent)
    }
}

/// `IORING_OP_SENDMSG`, kernel 5.3.
struct SendMessage<B> {
    fd: Fd<State>,
    buf: B,
    envelope: Box<Envelope>,
}

// SAFETY: I2: the request points into `envelope`, and that into itself and `buf`; the pointers are
// made when this is in its place. `fd` keeps the descriptor open.
unsafe impl<B: IoBuf> Op for SendMessage<B> {
    type Output = (B, io::Result<usize>);

    const AT_ONCE: bool = true;

    fn prepare(&mut self) -> Sqe {
        let (start, len) = rest_to_write(&self.buf, 0);
        let header = self.envelope.seal(start, len as usize);
        opcode::SendMsg::new(types::Fd(self.fd.raw()), header)
            .flags(libc::MSG_NOSIGNAL as u32)
            .build()
    }

    fn complete(self, cqe: Cqe) -> Self::Output {
        let sent = moved(&cqe, self.buf.buf_len());
        self.fd.outbound.put_back(self.envelope);
        (self.buf, sent)
    }
}
