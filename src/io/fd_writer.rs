//! Writing to what has no place for its bytes: pipes, terminals, standard output.
//!
//! A pipe that nobody reads from any more sends `SIGPIPE` to whoever writes, and a write has no flag
//! against it. Rust's programs ignore the signal, but a library may be in another's. So where it is
//! not ignored, the kernel is asked to write on a thread of its own, whom it can do nothing to.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use io_uring::{opcode, types};

use super::descriptor::{self, HERE};
use super::traits::AsyncWrite;
use crate::buf::{BufError, IoBuf, IoVectored, Iovecs, moved, rest_to_write, total_len};
use crate::driver::sqe::flag;
use crate::driver::{Cqe, Fields, Sqe};
use crate::op::{Op, Submission, event_of};
use crate::sync::turn::Turns;
use crate::sys::fd::{self, Fd};
use crate::sys::handlers;
use crate::sys::terminal::Mode;

/// A descriptor that bytes are written to: the end of a pipe, a FIFO, a terminal, a process's input.
///
/// Writing never blocks the core, and the descriptor stays as it is: a terminal is shared with other
/// processes, and so would be its `O_NONBLOCK`. Writers take turns, first come first served, so the
/// bytes of two calls never interleave. Dropping the writer closes the descriptor: whoever reads the
/// pipe reads the end.
///
/// ```
/// # quoit::runtime::run(async {
/// let (reader, writer) = quoit::process::pipe()?;
/// writer.write_all("hello").await?;
/// assert_eq!(&*reader.recv().await?.unwrap(), b"hello");
/// drop(reader);
/// let error = writer.write_all("nobody reads this").await.unwrap_err();
/// assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
/// # std::io::Result::Ok(()) }).unwrap().unwrap();
/// ```
pub struct FdWriter {
    /// None once it was shut down.
    fd: RefCell<Option<Fd<Outbound>>>,
}

/// What a writer keeps, for its handle and for the write in flight.
#[derive(Default)]
struct Outbound {
    turns: Turns<1>,
    ended: Cell<bool>,
    /// Bytes that the kernel has taken, those of abandoned writes included.
    written: Cell<u64>,
}

/// The turn to write, until it is dropped.
struct Writing(Fd<Outbound>);

impl Writing {
    async fn take(fd: Fd<Outbound>) -> Writing {
        fd.turns.turn(0).take().await;
        Writing(fd)
    }

    /// Counts what an answer says was written of `left` bytes.
    fn count(&self, cqe: &Cqe, left: usize) -> io::Result<usize> {
        let written = moved(cqe, left)?;
        self.0.written.set(self.0.written.get() + written as u64);
        Ok(written)
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.turns.turn(0).release();
    }
}

impl FdWriter {
    /// Takes over a descriptor that is open to write. It must be used on this core alone. The end of a
    /// terminal that an emulator has (`/dev/ptmx`) should be `O_NONBLOCK`, or it may block the core.
    ///
    /// # Errors
    /// `Unsupported` in the [simulator](crate::sim); [`Forked`](crate::Forked) in a forked child.
    ///
    /// # Panics
    /// Outside of a runtime.
    ///
    /// ```
    /// # quoit::runtime::run(async {
    /// let (_reader, writer) = std::io::pipe()?;
    /// let writer = quoit::io::FdWriter::from_owned(writer.into())?;
    /// writer.write_all("hello").await?;
    /// assert_eq!(writer.bytes_written(), 5);
    /// # std::io::Result::Ok(()) }).unwrap().unwrap();
    /// ```
    pub fn from_owned(fd: OwnedFd) -> io::Result<FdWriter> {
        Ok(FdWriter::new(descriptor::adopt("FdWriter::from_owned", fd, Mode::Write)?))
    }

    pub(super) fn new(fd: fd::OwnedFd) -> Self {
        FdWriter { fd: RefCell::new(Some(Fd::new(fd, Outbound::default()))) }
    }

    fn share(&self) -> io::Result<Fd<Outbound>> {
        self.fd.borrow().clone().ok_or_else(shut_down)
    }

    /// Writes all of `buf`, and gives it back.
    ///
    /// Dropping the future cancels the rest; a part may have been written:
    /// [`bytes_written`](Self::bytes_written). `IORING_OP_WRITE`, kernel 5.6.
    ///
    /// # Errors
    /// `BrokenPipe` if nobody reads any more, or after [`shutdown`](Self::shutdown), and never a
    /// signal; what `write` answers. `done` says how many bytes had been written.
    pub async fn write_all<B: IoBuf>(&self, mut buf: B) -> Result<B, BufError<B>> {
        let mut done = 0;
        if buf.buf_len() == 0 {
            return Ok(buf);
        }
        let mut writing = match self.begin().await {
            Ok(writing) => writing,
            Err(error) => return Err(BufError { error, buf, done }),
        };
        while done < buf.buf_len() {
            let written;
            (writing, buf, written) = Submission::new(Write { writing, buf, done }).await;
            match goes_on(&writing, written).await {
                Ok(written) => done += written,
                Err(error) => return Err(BufError { error, buf, done }),
            }
        }
        Ok(buf)
    }

    /// Writes all of several buffers, as [`write_all`](Self::write_all) does of one.
    ///
    /// `IORING_OP_WRITEV`, kernel 5.1.
    ///
    /// # Errors
    /// As [`write_all`](Self::write_all).
    pub async fn write_all_vectored<V: IoVectored>(&self, mut bufs: V) -> Result<V, BufError<V>> {
        let (mut done, total) = (0, total_len(&bufs));
        if total == 0 {
            return Ok(bufs);
        }
        let mut writing = match self.begin().await {
            Ok(writing) => writing,
            Err(error) => return Err(BufError { error, buf: bufs, done }),
        };
        while done < total {
            let (write, written);
            write = WriteVectored { writing, bufs, done, left: 0, iovecs: Iovecs::new() };
            (writing, bufs, written) = Submission::new(write).await;
            match goes_on(&writing, written).await {
                Ok(written) => done += written,
                Err(error) => return Err(BufError { error, buf: bufs, done }),
            }
        }
        Ok(bufs)
    }

    async fn begin(&self) -> io::Result<Writing> {
        let writing = Writing::take(self.share()?).await;
        if writing.0.ended.get() { Err(shut_down()) } else { Ok(writing) }
    }

    /// Bytes that the kernel has taken, those of dropped writes included; 0 after a
    /// [`shutdown`](Self::shutdown). After a write was dropped, the figure is final when the next write
    /// has ended.
    #[must_use]
    pub fn bytes_written(&self) -> u64 {
        self.fd.borrow().as_ref().map_or(0, |fd| fd.written.get())
    }

    /// Closes the descriptor once the writes that are in line have ended, and says what the kernel
    /// said. Later ones fail with `BrokenPipe`.
    ///
    /// Dropping the future closes it just as surely.
    ///
    /// # Errors
    /// What `close` answers; the descriptor is closed all the same.
    pub async fn shutdown(&self) -> io::Result<()> {
        let Some(fd) = self.fd.take() else { return Ok(()) };
        let writing = Writing::take(fd.clone()).await;
        writing.0.ended.set(true);
        drop(writing);
        fd.alone().await.close()
    }

    /// Gives out the descriptor, to be another process's output. It waits until no write refers to it.
    /// That of a terminal is one of our own, and `O_NONBLOCK`.
    ///
    /// # Errors
    /// `BrokenPipe` after a [`shutdown`](Self::shutdown).
    pub async fn into_owned(self) -> io::Result<OwnedFd> {
        let fd = self.fd.take().ok_or_else(shut_down)?;
        Ok(descriptor::release(fd.alone().await))
    }
}

fn shut_down() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the writer was shut down")
}

/// What a write has come to; a descriptor that somebody has made `O_NONBLOCK` is waited for.
async fn goes_on(writing: &Writing, written: io::Result<usize>) -> io::Result<usize> {
    if descriptor::would_block(&written) {
        return event_of(&writing.0, libc::POLLOUT).await.map(|()| 0);
    }
    match written {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        written => written,
    }
}

impl AsyncWrite for FdWriter {
    fn write_all<B: IoBuf>(&self, buf: B) -> impl Future<Output = Result<B, BufError<B>>> {
        FdWriter::write_all(self, buf)
    }

    fn write_all_vectored<V: IoVectored>(
        &self,
        bufs: V,
    ) -> impl Future<Output = Result<V, BufError<V>>> {
        FdWriter::write_all_vectored(self, bufs)
    }

    fn shutdown(&self) -> impl Future<Output = io::Result<()>> {
        FdWriter::shutdown(self)
    }
}

impl fmt::Debug for FdWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let raw: Option<RawFd> = self.fd.borrow().as_ref().map(|fd| fd.borrow().as_raw_fd());
        f.debug_struct("FdWriter").field("fd", &raw).finish()
    }
}

/// Has a write send no signal.
fn without_signal(mut sqe: Sqe) -> Sqe {
    if !handlers::is_ignored(libc::SIGPIPE) {
        Fields::of_mut(&mut sqe).flags |= flag::ASYNC;
    }
    sqe
}

/// `IORING_OP_WRITE`, kernel 5.6, where the descriptor stands.
struct Write<B> {
    writing: Writing,
    buf: B,
    done: usize,
}

// SAFETY: I2: the request points into `buf`, and `writing` keeps the descriptor open.
unsafe impl<B: IoBuf> Op for Write<B> {
    type Output = (Writing, B, io::Result<usize>);

    fn prepare(&mut self) -> Sqe {
        let (start, len) = rest_to_write(&self.buf, self.done);
        let fd = types::Fd(self.writing.0.raw());
        without_signal(opcode::Write::new(fd, start, len).offset(HERE).build())
    }

    fn complete(self, cqe: Cqe) -> Self::Output {
        let written = self.writing.count(&cqe, self.buf.buf_len() - self.done);
        (self.writing, self.buf, written)
    }
}

/// `IORING_OP_WRITEV`, kernel 5.1: several buffers in one request.
struct WriteVectored<V> {
    writing: Writing,
    bufs: V,
    done: usize,
    /// How much the request that is in flight may write.
    left: usize,
    iovecs: Iovecs,
}

// SAFETY: I2: the request points at `iovecs`, and those into `bufs`; both are here, and the
// pointers are made when this is in its place. `writing` keeps the descriptor open.
unsafe impl<V: IoVectored> Op for WriteVectored<V> {
    type Output = (Writing, V, io::Result<usize>);

    fn prepare(&mut self) -> Sqe {
        self.left = self.iovecs.fill(&self.bufs, self.done);
        let (start, count) = (self.iovecs.as_mut_ptr(), self.iovecs.count() as u32);
        let fd = types::Fd(self.writing.0.raw());
        without_signal(opcode::Writev::new(fd, start, count).offset(HERE).build())
    }

    fn complete(self, cqe: Cqe) -> Self::Output {
        let written = self.writing.count(&cqe, self.left);
        (self.writing, self.bufs, written)
    }
}
