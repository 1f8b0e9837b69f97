//! A buffer while it is being filled, by the kernel or by a copy.

use std::io;

use super::{IoBufMut, rest_to_fill};
use crate::driver::Cqe;

/// A buffer, and how much of it has been filled from the front.
pub(crate) struct Filling<B> {
    buf: B,
    done: usize,
    /// How much the request that is in flight may fill.
    asked: u32,
}

impl<B: IoBufMut> Filling<B> {
    pub(crate) fn new(buf: B) -> Self {
        Filling { buf, done: 0, asked: 0 }
    }

    /// How many bytes have been filled.
    pub(crate) fn done(&self) -> usize {
        self.done
    }

    /// Whether there is no room left.
    pub(crate) fn is_full(&self) -> bool {
        self.done >= self.buf.buf_capacity()
    }

    /// The room that is left, for a request.
    pub(crate) fn rest(&mut self) -> (*mut u8, u32) {
        let (start, len) = rest_to_fill(&mut self.buf, self.done);
        self.asked = len;
        (start, len)
    }

    /// Counts what the kernel filled in answer to a request for [`rest`](Self::rest).
    pub(crate) fn advance(&mut self, cqe: &Cqe) -> io::Result<usize> {
        let filled = cqe.result()?;
        assert!(filled <= self.asked, "{filled} bytes were filled of {}", self.asked);
        self.asked = 0;
        self.done += filled as usize;
        Ok(filled as usize)
    }

    /// Fills from `bytes` as far as there is room, and says how far that was.
    pub(crate) fn copy(&mut self, bytes: &[u8]) -> usize {
        let (start, len) = rest_to_fill(&mut self.buf, self.done);
        let count = bytes.len().min(len as usize);
        // SAFETY: the buffer has `len` bytes of room at `start`, and nobody else refers to them.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), start, count) };
        self.done += count;
        count
    }

    /// What has been filled.
    pub(crate) fn filled(&mut self) -> &[u8] {
        // SAFETY: `done` bytes were filled: a driver's answers are truthful, and so is `copy`.
        unsafe { std::slice::from_raw_parts(self.buf.buf_mut_ptr(), self.done) }
    }

    /// The buffer, with its length at what was filled.
    pub(crate) fn finish(mut self) -> B {
        // SAFETY: as in `filled`.
        unsafe { self.buf.set_buf_len(self.done) };
        self.buf
    }
}
