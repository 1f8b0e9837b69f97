//! Sends without a copy: the kernel reads the caller's memory until the peer has acknowledged it.
//!
//! Such a send is answered twice. The first answer says how much was sent, and with it the turn to
//! write passes on; the second, the notification, says that the memory is no longer read. Only then
//! is the buffer given back. A path that copies all the same (loopback does, and so does a card that
//! cannot gather) makes this dearer than a plain send, so a stream that meets one switches it off.

use std::cell::Cell;
use std::io;
use std::rc::Rc;

use io_uring::{opcode, types};

use super::State;
use super::send::{Send, Writing, flags};
use crate::buf::{BufError, BufResult, IoBuf, rest_to_write};
use crate::driver::{Cqe, Sqe};
use crate::op::{Multishot, Op, was_not_begun};

/// A threshold is at least this: to pin a page costs as much as to copy it.
pub(in crate::net) const LEAST: usize = 4096;

/// So many sends in a row that were copied all the same show that the path copies; a few may be so
/// by chance.
const ENOUGH: u8 = 4;

/// `IORING_SEND_ZC_REPORT_USAGE`, kernel 6.2: the notification says whether there was a copy.
const REPORT_USAGE: u16 = 1 << 3;

/// What a stream was told about sends without a copy, and what it has learnt.
pub(super) struct ZeroCopy {
    threshold: usize,
    copied_in_a_row: Cell<u8>,
}

impl ZeroCopy {
    fn is_on(&self) -> bool {
        self.copied_in_a_row.get() < ENOUGH
    }

    fn note(&self, was_copied: bool) {
        let copied = self.copied_in_a_row.get();
        if self.is_on() {
            self.copied_in_a_row.set(if was_copied { copied + 1 } else { 0 });
        }
    }
}

impl State {
    /// Switches sends without a copy: from so many bytes on, or off.
    pub(in crate::net) fn set_zero_copy(&self, threshold: Option<usize>) {
        let zero_copy = threshold.map(|threshold| {
            let threshold = threshold.max(LEAST);
            Rc::new(ZeroCopy { threshold, copied_in_a_row: Cell::new(0) })
        });
        self.turns.with_rest(|rare| rare.zero_copy = zero_copy);
    }

    /// From how many bytes on a send is not copied.
    pub(in crate::net) fn zero_copy(&self) -> Option<usize> {
        self.uncopied(usize::MAX).map(|zero_copy| zero_copy.threshold)
    }

    /// There if a send of `len` bytes is not to be copied.
    pub(super) fn uncopied(&self, len: usize) -> Option<Rc<ZeroCopy>> {
        let zero_copy = self.turns.if_any(|rare| rare.zero_copy.clone());
        zero_copy.filter(|zero_copy| len >= zero_copy.threshold && zero_copy.is_on())
    }
}

/// `IORING_OP_SEND_ZC`, kernel 6.0.
pub(super) struct SendUncopied<B> {
    /// Until the first answer.
    writing: Option<Writing>,
    zero_copy: Rc<ZeroCopy>,
    buf: B,
    done: usize,
    all: bool,
    /// The kernel has refused: it is asked for a plain send.
    copies: bool,
    /// How much the request that is in flight may send, and whether that is all.
    asked: (u32, bool),
    /// The first of two answers.
    sent: Option<io::Result<usize>>,
}

impl<B: IoBuf> SendUncopied<B> {
    pub(super) fn new(writing: Writing, zero_copy: Rc<ZeroCopy>, buf: B, all: bool) -> Self {
        let (writing, asked) = (Some(writing), (0, false));
        SendUncopied { writing, zero_copy, buf, done: 0, all, copies: false, asked, sent: None }
    }

    fn count(&self, cqe: &Cqe) -> io::Result<usize> {
        let writing = self.writing.as_ref().expect("the turn is held until the first answer");
        writing.count(cqe, self.asked.0 as usize)
    }
}

// SAFETY: I2: the request points into `buf`, which stays until the last answer, the notification;
// `writing` keeps the descriptor open until the first, after which the request names it no more.
unsafe impl<B: IoBuf> Op for SendUncopied<B> {
    /// `Ok` with what sends the rest.
    type Output = Result<Send<B>, BufResult<usize, B>>;

    fn prepare(&mut self) -> Sqe {
        let (start, len) = rest_to_write(&self.buf, self.done);
        self.asked = (len, self.done + len as usize == self.buf.buf_len());
        let writing = self.writing.as_ref().expect("the turn is held until the first answer");
        let (fd, flags) = (types::Fd(writing.raw()), flags(self.all, len as usize));
        if self.copies {
            return opcode::Send::new(fd, start, len).flags(flags).build();
        }
        opcode::SendZc::new(fd, start, len).flags(flags).zc_flags(REPORT_USAGE).build()
    }

    fn more(&mut self, cqe: Cqe) -> bool {
        let sent = self.count(&cqe);
        let is_over = match &sent {
            Ok(sent) if *sent > 0 => !self.all || self.asked == (*sent as u32, true),
            _ => false,
        };
        self.sent = Some(sent);
        if is_over {
            self.writing = None;
        }
        true
    }

    fn again(&mut self, cqe: &Cqe) -> bool {
        let errno = match &self.sent {
            Some(Ok(_)) => None,
            Some(Err(error)) => error.raw_os_error(),
            None => cqe.result().err().and_then(|error| error.raw_os_error()),
        };
        match errno {
            Some(errno) if was_not_begun(errno) => {}
            // A socket that cannot, a kernel that does not say whether it copies, memory that may
            // not be pinned: none of it keeps the bytes from being sent.
            Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ENOMEM | libc::ENOBUFS)
                if !self.copies =>
            {
                self.copies = true;
                self.zero_copy.note(true);
            }
            _ => return false,
        }
        self.sent = None;
        true
    }

    fn complete(mut self, cqe: Cqe) -> Self::Output {
        let sent = match self.sent.take() {
            Some(sent) => {
                if cqe.is_notification() {
                    self.zero_copy.note(cqe.was_copied());
                }
                sent
            }
            None => {
                // One answer is that of a plain send: the kernel has no other.
                self.zero_copy.note(cqe.result >= 0);
                self.count(&cqe)
            }
        };
        let error = match sent {
            Ok(0) => io::ErrorKind::WriteZero.into(),
            Ok(sent) => {
                self.done += sent;
                return match self.writing {
                    Some(writing) if self.all && self.done < self.buf.buf_len() => {
                        Ok(Send::new(writing, self.buf, self.done, true))
                    }
                    _ => Err(Ok((self.done, self.buf))),
                };
            }
            Err(error) => error,
        };
        Err(Err(BufError { error, buf: self.buf, done: self.done }))
    }
}

impl<B: IoBuf> Multishot for SendUncopied<B> {
    type Item = std::convert::Infallible;

    fn pop(&mut self) -> Option<Self::Item> {
        None
    }
}
