//! A buffer while it is being filled, by the kernel or by a copy.

use std::io;

use std::ops::ControlFlow;

use super::{IoBufMut, IoVectoredMut, Iovecs, moved, rest_to_fill};
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
        let filled = moved(cqe, self.asked as usize)?;
        self.asked = 0;
        self.done += filled;
        Ok(filled)
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

    /// The buffer after a failure: as [`finish`](Self::finish) if something was filled, and as it came
    /// if nothing was.
    pub(crate) fn give_up(self) -> B {
        if self.done > 0 { self.finish() } else { self.buf }
    }

    /// The buffer, with its length at what was filled.
    pub(crate) fn finish(mut self) -> B {
        // SAFETY: as in `filled`.
        unsafe { self.buf.set_buf_len(self.done) };
        self.buf
    }
}

/// Several buffers, and how much of them has been filled, one after the other.
pub(crate) struct FillingVectored<V> {
    bufs: V,
    done: usize,
    /// How much the request that is in flight may fill.
    asked: usize,
    iovecs: Iovecs,
}

impl<V: IoVectoredMut> FillingVectored<V> {
    pub(crate) fn new(bufs: V) -> Self {
        FillingVectored { bufs, done: 0, asked: 0, iovecs: Iovecs::new() }
    }

    /// Whether there is any room at all.
    pub(crate) fn has_room(&mut self) -> bool {
        let each = |_, capacity| match capacity {
            0 => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        };
        self.bufs.visit_bufs_mut(each).is_break()
    }

    /// The room that is left, for a request: where its iovecs are, and how many.
    pub(crate) fn rest(&mut self) -> (*const libc::iovec, u32) {
        self.asked = self.iovecs.fill_mut(&mut self.bufs, self.done);
        (self.iovecs.as_mut_ptr(), self.iovecs.count() as u32)
    }

    /// Counts what the kernel filled in answer to a request for [`rest`](Self::rest).
    pub(crate) fn advance(&mut self, cqe: &Cqe) -> io::Result<usize> {
        let filled = moved(cqe, self.asked)?;
        self.asked = 0;
        self.done += filled;
        Ok(filled)
    }

    /// The buffers as they were, for a read that makes no request.
    pub(crate) fn into_inner(self) -> V {
        self.bufs
    }

    /// The buffers, with their lengths at what was filled.
    pub(crate) fn finish(mut self) -> V {
        // SAFETY: `done` bytes were filled: a driver's answers are truthful.
        unsafe { self.bufs.set_filled(self.done) };
        self.bufs
    }
}
