//! Reading what has no place for its bytes: pipes, terminals, standard input.
//!
//! As with a socket, a read belongs to the stream: one is in flight at a time, readers take turns, and
//! what arrives for nobody is unread, for the next one.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use io_uring::{opcode, types};

use super::descriptor::{self, HERE};
use super::traits::AsyncRead;
use crate::buf::pool::{self, heap};
use crate::buf::{BufError, BufResult, Filling, IoBufMut, PooledBuf};
use crate::driver::{Cqe, Sqe};
use crate::op::{Op, Submission, event_of};
use crate::sync::turn::Turns;
use crate::sys::fd::{self, Fd};
use crate::sys::terminal::Mode;

/// Bytes that [`FdReader::read_to_end`] asks for at a time: what a pipe holds.
const PIECE: usize = 64 * 1024;

/// A descriptor that bytes are read from: the end of a pipe, a FIFO, a terminal, what a process says.
///
/// Reading never blocks the core, and the descriptor stays as it is: a terminal is shared with other
/// processes, and so would be its `O_NONBLOCK`. Readers take turns, first come first served. Dropping
/// any of the futures loses no byte. Dropping the reader closes the descriptor, and whoever writes to
/// a pipe then gets `BrokenPipe`.
///
/// ```
/// use quoit::io::BufReader;
///
/// # quoit::runtime::run(async {
/// let (reader, writer) = quoit::process::pipe()?;
/// writer.write_all("one\ntwo\n").await?;
/// drop(writer);
/// let mut lines = BufReader::new(reader);
/// assert_eq!(lines.read_line(80).await?, Some("one"));
/// assert_eq!(lines.read_line(80).await?, Some("two"));
/// assert_eq!(lines.read_line(80).await?, None);
/// # std::io::Result::Ok(()) }).unwrap().unwrap();
/// ```
pub struct FdReader {
    fd: Fd<Inbound>,
}

/// Bytes that readers of a shared stream have read and not used.
pub(super) type Left = Mutex<Vec<u8>>;

/// What a reader keeps, for its handle and for the read in flight.
pub(super) struct Inbound {
    turns: Turns<1>,
    /// What was read for nobody, oldest first.
    unread: RefCell<VecDeque<PooledBuf>>,
    /// What other readers of the same stream have left.
    left: Option<&'static Left>,
}

impl Inbound {
    fn pop(&self) -> Option<PooledBuf> {
        let unread = self.unread.borrow_mut().pop_front();
        if unread.is_some() {
            return unread;
        }
        let left = std::mem::take(&mut *lock(self.left?));
        self.keep(&left);
        self.unread.borrow_mut().pop_front()
    }

    /// Keeps bytes for the next read, after all that is unread.
    fn keep(&self, bytes: &[u8]) {
        let pieces = bytes.chunks(pool::SIZE).map(PooledBuf::copied);
        self.unread.borrow_mut().extend(pieces);
    }

    /// Puts bytes back, before all that is unread.
    fn put_back(&self, bytes: &[u8]) {
        let mut unread = self.unread.borrow_mut();
        bytes.rchunks(pool::SIZE).for_each(|piece| unread.push_front(PooledBuf::copied(piece)));
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        if let Some(left) = self.left {
            let mut left = lock(left);
            self.unread.take().iter().for_each(|bytes| left.extend_from_slice(bytes));
        }
    }
}

fn lock(left: &Left) -> MutexGuard<'_, Vec<u8>> {
    left.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The turn to read, until it is dropped.
struct Reading(Fd<Inbound>);

impl Reading {
    async fn take(fd: &Fd<Inbound>) -> Reading {
        fd.turns.turn(0).take().await;
        Reading(fd.clone())
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.turns.turn(0).release();
    }
}

impl FdReader {
    /// Takes over a descriptor that is open to read. It must be used on this core alone. The end of a
    /// terminal that an emulator has (`/dev/ptmx`) should be `O_NONBLOCK`.
    ///
    /// # Errors
    /// `Unsupported` in the [simulator](crate::sim); [`Forked`](crate::Forked) in a forked child.
    ///
    /// # Panics
    /// Outside of a runtime.
    ///
    /// ```
    /// # quoit::runtime::run(async {
    /// let (reader, writer) = std::io::pipe()?;
    /// let reader = quoit::io::FdReader::from_owned(reader.into())?;
    /// drop(writer);
    /// assert!(reader.recv().await?.is_none());
    /// # std::io::Result::Ok(()) }).unwrap().unwrap();
    /// ```
    pub fn from_owned(fd: OwnedFd) -> io::Result<FdReader> {
        let fd = descriptor::adopt("FdReader::from_owned", fd, Mode::Read)?;
        Ok(FdReader::new(fd, None))
    }

    pub(super) fn new(fd: fd::OwnedFd, left: Option<&'static Left>) -> Self {
        let state = Inbound { turns: Turns::default(), unread: RefCell::default(), left };
        FdReader { fd: Fd::new(fd, state) }
    }

    /// The next bytes, at most 4 KiB of them; `None` is the end.
    ///
    /// Dropping the future loses nothing: what the kernel still delivers is there for the next call.
    /// `IORING_OP_READ`, kernel 5.6.
    ///
    /// # Errors
    /// What `read` answers.
    pub async fn recv(&self) -> io::Result<Option<PooledBuf>> {
        let reading = Reading::take(&self.fd).await;
        if let Some(bytes) = reading.0.pop() {
            return Ok(Some(bytes));
        }
        let (_reading, filling, read) = once(reading, Filling::new(heap())).await;
        Ok((read? > 0).then(|| PooledBuf::from_heap(filling.finish())))
    }

    /// Reads what is there into `buf`, from its first byte, and sets its length to that: the count in
    /// the answer, where 0 is the end.
    ///
    /// Dropping the future loses no bytes, only the buffer. `IORING_OP_READ`, kernel 5.6.
    ///
    /// # Errors
    /// `InvalidInput` if `buf` has no capacity; what `read` answers. The buffer comes back.
    pub async fn read<B: IoBufMut>(&self, buf: B) -> BufResult<usize, B> {
        if buf.buf_capacity() == 0 {
            let text = "a read into a buffer without capacity would look like the end";
            let error = io::Error::new(io::ErrorKind::InvalidInput, text);
            return Err(BufError { error, buf, done: 0 });
        }
        let reading = Reading::take(&self.fd).await;
        let mut filling = Filling::new(buf);
        if let Some(mut bytes) = reading.0.pop() {
            let copied = filling.copy(&bytes);
            bytes.advance(copied);
            reading.0.put_back(&bytes);
            return Ok((copied, filling.finish()));
        }
        match once(reading, filling).await {
            (_reading, filling, Ok(count)) => Ok((count, filling.finish())),
            (_reading, filling, Err(error)) => {
                Err(BufError { error, buf: filling.give_up(), done: 0 })
            }
        }
    }

    /// Reads to the end, behind what is in `buf`, which grows as needed: nothing bounds it.
    ///
    /// Dropping the future loses no bytes, only the buffer: what was read is read again.
    ///
    /// # Errors
    /// What `read` answers; `done` bytes have been added to the buffer, which comes back.
    ///
    /// ```
    /// # quoit::runtime::run(async {
    /// let (reader, writer) = quoit::process::pipe()?;
    /// writer.write_all("all of it").await?;
    /// drop(writer);
    /// assert_eq!(reader.read_to_end(Vec::new()).await?, b"all of it");
    /// # std::io::Result::Ok(()) }).unwrap().unwrap();
    /// ```
    pub async fn read_to_end(&self, buf: Vec<u8>) -> Result<Vec<u8>, BufError<Vec<u8>>> {
        let mut reading = Reading::take(&self.fd).await;
        let mut whole = Whole { fd: &self.fd, start: buf.len(), buf };
        while let Some(bytes) = reading.0.pop() {
            whole.buf.extend_from_slice(&bytes);
        }
        let mut piece = Vec::with_capacity(PIECE);
        loop {
            let (filling, read);
            (reading, filling, read) = once(reading, Filling::new(piece)).await;
            match read {
                Ok(0) => return Ok(std::mem::take(&mut whole.buf)),
                Ok(_) => piece = filling.finish(),
                Err(error) => {
                    let done = whole.buf.len() - whole.start;
                    return Err(BufError { error, buf: std::mem::take(&mut whole.buf), done });
                }
            }
            whole.buf.extend_from_slice(&piece);
        }
    }

    /// Closes the descriptor, and says what the kernel said. It waits until no read refers to it.
    ///
    /// # Errors
    /// What `close` answers; the descriptor is closed all the same.
    pub async fn close(self) -> io::Result<()> {
        let fd = self.fd.clone();
        drop(self);
        fd.alone().await.close()
    }

    /// Gives out the descriptor, to be another process's input. It waits until no read refers to it.
    /// That of a terminal is one of our own, and `O_NONBLOCK`.
    ///
    /// # Errors
    /// `InvalidData` if bytes were read and put back: whoever gets the descriptor would not have them.
    pub async fn into_owned(self) -> io::Result<OwnedFd> {
        // A read that was dropped has the turn until it has given back what it got.
        drop(Reading::take(&self.fd).await);
        if !self.fd.unread.borrow().is_empty() {
            let text = "bytes were read that are not in the descriptor any more";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let fd = self.fd.clone();
        drop(self);
        Ok(descriptor::release(fd.alone().await))
    }
}

impl AsyncRead for FdReader {
    fn recv(&self) -> impl Future<Output = io::Result<Option<PooledBuf>>> {
        FdReader::recv(self)
    }

    fn read<B: IoBufMut>(&self, buf: B) -> impl Future<Output = BufResult<usize, B>> {
        FdReader::read(self, buf)
    }

    fn unread(&self, bytes: PooledBuf) {
        // An empty one would look like bytes to whoever reads.
        if !bytes.is_empty() {
            self.fd.unread.borrow_mut().push_front(bytes);
        }
    }
}

impl AsFd for FdReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.borrow()
    }
}

impl fmt::Debug for FdReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FdReader").field("fd", &self.as_fd()).finish()
    }
}

/// What a read to the end has so far; it is given back if it goes no further.
struct Whole<'a> {
    fd: &'a Fd<Inbound>,
    start: usize,
    buf: Vec<u8>,
}

impl Drop for Whole<'_> {
    fn drop(&mut self) {
        // Empty after the end. What a read in flight still brings is kept behind it.
        self.fd.put_back(self.buf.get(self.start..).unwrap_or_default());
    }
}

/// One read; zero is the end. A descriptor that somebody has made `O_NONBLOCK` is waited for.
async fn once<B: IoBufMut>(
    mut reading: Reading,
    mut filling: Filling<B>,
) -> (Reading, Filling<B>, io::Result<usize>) {
    loop {
        let read;
        (reading, filling, read) = Submission::new(Read { reading, filling }).await;
        if !descriptor::would_block(&read) {
            return (reading, filling, read);
        }
        if let Err(error) = event_of(&reading.0, libc::POLLIN).await {
            return (reading, filling, Err(error));
        }
    }
}

/// `IORING_OP_READ`, kernel 5.6, where the descriptor stands.
struct Read<B> {
    reading: Reading,
    filling: Filling<B>,
}

// SAFETY: I2: the request points into `filling`, and `reading` keeps the descriptor open.
unsafe impl<B: IoBufMut> Op for Read<B> {
    type Output = (Reading, Filling<B>, io::Result<usize>);

    fn prepare(&mut self) -> Sqe {
        let (start, len) = self.filling.rest();
        opcode::Read::new(types::Fd(self.reading.0.raw()), start, len).offset(HERE).build()
    }

    fn complete(mut self, cqe: Cqe) -> Self::Output {
        let read = self.filling.advance(&cqe);
        (self.reading, self.filling, read)
    }

    fn abandon(mut self, cqe: Cqe) {
        // The turn goes on afterwards.
        let _ = self.filling.advance(&cqe);
        self.reading.0.keep(self.filling.filled());
    }
}
