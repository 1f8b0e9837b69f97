//! A pipe in memory: what goes in at one end comes out at the other.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::traits::{AsyncRead, AsyncWrite};
use crate::buf::{
    BufError, BufResult, Filling, IoBuf, IoBufMut, IoVectored, PooledBuf, bytes_of, gather,
};
use crate::sync::turn::{Turn, Turns};
use crate::sys::guard;

/// A pipe between two tasks of one core, in memory: it makes no system call, needs no runtime, and
/// works in the simulator. It holds `capacity` bytes at most; then writes wait.
///
/// It is for tests of what is generic over streams, and for joining such parts to each other. What
/// is written is copied, in pieces of at most 4 KiB. For a pipe of the kernel's, use a socket pair.
///
/// # Panics
/// If `capacity` is 0: nothing could ever go through it.
///
/// ```
/// use quoit::io::{AsyncRead, AsyncWrite, pipe};
///
/// # quoit::runtime::run(async {
/// let (reader, writer) = pipe(1 << 16);
/// writer.write_all("through the pipe").await?;
/// drop(writer);
/// assert_eq!(&*reader.recv().await?.unwrap(), b"through the pipe");
/// assert!(reader.recv().await?.is_none());
/// # std::io::Result::Ok(()) }).unwrap().unwrap();
/// ```
#[must_use]
pub fn pipe(capacity: usize) -> (PipeReader, PipeWriter) {
    assert!(capacity > 0, "a pipe that holds nothing lets nothing through");
    let pipe = Rc::new(Pipe { capacity, ..Pipe::default() });
    (PipeReader(Rc::clone(&pipe)), PipeWriter(pipe))
}

/// The end of a [`pipe`] that bytes come out of. When it is dropped, writes fail with `BrokenPipe`.
pub struct PipeReader(Rc<Pipe>);

/// The end of a [`pipe`] that bytes go into. When it is dropped, the reader reads the end.
pub struct PipeWriter(Rc<Pipe>);

const READING: usize = 0;
const WRITING: usize = 1;

#[derive(Default)]
struct Pipe {
    capacity: usize,
    /// What has not been read, oldest first.
    pieces: RefCell<VecDeque<PooledBuf>>,
    /// How many bytes these are.
    held: Cell<usize>,
    /// Nothing more is written.
    ended: Cell<bool>,
    /// Nobody reads any more.
    broken: Cell<bool>,
    turns: Turns<2>,
    /// Who waits at which end: whoever has its turn.
    waiting: [Cell<Option<Waker>>; 2],
}

/// A turn at one end, until it is dropped.
struct Held<'a>(Turn<'a, 2, ()>);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}

impl Pipe {
    async fn hold(&self, end: usize) -> Held<'_> {
        self.turns.turn(end).take().await;
        Held(self.turns.turn(end))
    }

    /// Ready when `look` finds something; before that, keeps the waker.
    fn poll<R>(
        &self,
        end: usize,
        context: &Context<'_>,
        look: impl Fn(&Self) -> Option<R>,
    ) -> Poll<R> {
        if let Some(found) = look(self) {
            return Poll::Ready(found);
        }
        // Cloning runs the waker's code, which may be what is waited for.
        let waker = context.waker().clone();
        if let Some(found) = look(self) {
            guard::discard(Some(waker));
            return Poll::Ready(found);
        }
        guard::discard(self.waiting[end].replace(Some(waker)));
        Poll::Pending
    }

    /// Has whoever waits at an end look again.
    fn wake(&self, end: usize) {
        self.waiting[end].take().into_iter().for_each(guard::wake);
    }

    /// The oldest piece, or the end.
    fn poll_pop(&self, context: &Context<'_>) -> Poll<Option<PooledBuf>> {
        self.poll(READING, context, |pipe| {
            let piece = pipe.pieces.borrow_mut().pop_front();
            if let Some(piece) = &piece {
                pipe.held.set(pipe.held.get() - piece.len());
                pipe.wake(WRITING);
            }
            (piece.is_some() || pipe.ended.get()).then_some(piece)
        })
    }

    fn put_back(&self, piece: PooledBuf) {
        if !piece.is_empty() {
            self.held.set(self.held.get() + piece.len());
            self.pieces.borrow_mut().push_front(piece);
            self.wake(READING);
        }
    }

    /// How many bytes there is room for, at least one.
    fn poll_room(&self, context: &Context<'_>) -> Poll<io::Result<usize>> {
        self.poll(WRITING, context, |pipe| {
            if pipe.broken.get() || pipe.ended.get() {
                return Some(Err(io::ErrorKind::BrokenPipe.into()));
            }
            let room = pipe.capacity.saturating_sub(pipe.held.get());
            (room > 0).then_some(Ok(room))
        })
    }

    fn push(&self, bytes: &[u8]) {
        let piece = PooledBuf::copied(bytes);
        self.held.set(self.held.get() + bytes.len());
        self.pieces.borrow_mut().push_back(piece);
        self.wake(READING);
    }

    /// Writes all of `bytes`, and counts what is done.
    async fn write(&self, bytes: &[u8], done: &mut usize) -> io::Result<()> {
        let _turn = self.hold(WRITING).await;
        while *done < bytes.len() {
            let room = poll_fn(|context| self.poll_room(context)).await?;
            let end = bytes.len().min(*done + room.min(PooledBuf::SIZE));
            self.push(&bytes[*done..end]);
            *done = end;
        }
        Ok(())
    }
}

impl AsyncRead for PipeReader {
    async fn recv(&self) -> io::Result<Option<PooledBuf>> {
        let _turn = self.0.hold(READING).await;
        Ok(poll_fn(|context| self.0.poll_pop(context)).await)
    }

    async fn read<B: IoBufMut>(&self, buf: B) -> BufResult<usize, B> {
        if buf.buf_capacity() == 0 {
            let text = "a read into a buffer without capacity would look like the end of the pipe";
            let error = io::Error::new(io::ErrorKind::InvalidInput, text);
            return Err(BufError { error, buf, done: 0 });
        }
        let _turn = self.0.hold(READING).await;
        let piece = poll_fn(|context| self.0.poll_pop(context)).await;
        let mut filling = Filling::new(buf);
        if let Some(mut piece) = piece {
            piece.advance(filling.copy(&piece));
            self.0.put_back(piece);
        }
        Ok((filling.done(), filling.finish()))
    }

    fn unread(&self, bytes: PooledBuf) {
        self.0.put_back(bytes);
    }
}

impl AsyncWrite for PipeWriter {
    async fn write_all<B: IoBuf>(&self, buf: B) -> Result<B, BufError<B>> {
        let mut done = 0;
        match self.0.write(bytes_of(&buf), &mut done).await {
            Ok(()) => Ok(buf),
            Err(error) => Err(BufError { error, buf, done }),
        }
    }

    async fn write_all_vectored<V: IoVectored>(&self, bufs: V) -> Result<V, BufError<V>> {
        let (all, mut done) = (gather(&bufs), 0);
        match self.0.write(&all, &mut done).await {
            Ok(()) => Ok(bufs),
            Err(error) => Err(BufError { error, buf: bufs, done }),
        }
    }

    async fn shutdown(&self) -> io::Result<()> {
        self.0.ended.set(true);
        self.0.wake(READING);
        self.0.wake(WRITING);
        Ok(())
    }
}

impl Drop for PipeReader {
    fn drop(&mut self) {
        self.0.broken.set(true);
        self.0.wake(WRITING);
    }
}

impl Drop for PipeWriter {
    fn drop(&mut self) {
        self.0.ended.set(true);
        self.0.wake(READING);
    }
}

impl fmt::Debug for PipeReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipeReader").field("held", &self.0.held.get()).finish_non_exhaustive()
    }
}

impl fmt::Debug for PipeWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipeWriter").field("held", &self.0.held.get()).finish_non_exhaustive()
    }
}
