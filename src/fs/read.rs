//! Reading at an offset.

use std::io;

use io_uring::{opcode, types};

use super::file::{File, offset_of};
use crate::buf::{BufError, BufResult, Filling, FillingVectored, IoBufMut, IoVectoredMut};
use crate::driver::{Cqe, Sqe};
use crate::op::{Op, Submission};
use crate::sys::fd::Fd;

impl File {
    /// Reads bytes from `offset` on into `buf`, from its first byte, and sets its length to that:
    /// the count in the answer, where 0 is the end of the file.
    ///
    /// It may read less than there is, and never more than 2 GiB. Dropping the future loses the
    /// buffer and nothing else; a stream that is opened as a file (a FIFO, a terminal) has no
    /// offsets, and what a dropped read had taken from it is gone.
    ///
    /// `IORING_OP_READ`, kernel 5.6.
    ///
    /// # Errors
    /// `InvalidInput` if `buf` has no capacity or `offset` is past `i64::MAX`; what `pread`
    /// answers, such as `IsADirectory`. The buffer comes back.
    ///
    /// # Panics
    /// Outside of the runtime that opened the file, when it is first polled.
    ///
    /// ```
    /// # quoit::runtime::run(async {
    /// # let path = std::env::temp_dir().join(format!("quoit-read-at-{}", std::process::id()));
    /// # std::fs::write(&path, "0123456789")?;
    /// let file = quoit::fs::File::open(&path).await?;
    /// let (n, buf) = file.read_at(Vec::with_capacity(100), 7).await?;
    /// assert_eq!((n, &buf[..]), (3, &b"789"[..]));
    /// let (n, _buf) = file.read_at(buf, 10).await?;
    /// assert_eq!(n, 0); // the end
    /// # std::fs::remove_file(path)?;
    /// # std::io::Result::Ok(()) }).unwrap().unwrap();
    /// ```
    pub async fn read_at<B: IoBufMut>(&self, buf: B, offset: u64) -> BufResult<usize, B> {
        let filling = started(buf, offset)?;
        let (filling, read) = step(&self.fd, filling, offset).await;
        match read {
            Ok(count) => Ok((count, filling.finish())),
            Err(error) => Err(failed(filling, error)),
        }
    }

    /// Reads from `offset` on until the capacity of `buf` is full.
    ///
    /// How much that is, a [`slice`](crate::buf::IoBuf::slice) says best: a `Vec` may have more
    /// capacity than it was asked for. Otherwise as [`read_at`](File::read_at).
    ///
    /// # Errors
    /// `UnexpectedEof` if the file ends first: `done` bytes are in the buffer. Otherwise as
    /// [`read_at`](File::read_at).
    ///
    /// # Panics
    /// As [`read_at`](File::read_at).
    ///
    /// ```
    /// use quoit::buf::IoBuf;
    ///
    /// # quoit::runtime::run(async {
    /// # let path = std::env::temp_dir().join(format!("quoit-exact-{}", std::process::id()));
    /// # std::fs::write(&path, "0123456789")?;
    /// let file = quoit::fs::File::open(&path).await?;
    /// let part = file.read_exact_at(Vec::with_capacity(100).slice(..4), 2).await?;
    /// assert_eq!(*part, *b"2345");
    ///
    /// let failed = file.read_exact_at([0; 8], 5).await.unwrap_err();
    /// assert_eq!(failed.kind(), std::io::ErrorKind::UnexpectedEof);
    /// assert_eq!(&failed.buf[..failed.done], b"56789");
    /// # std::fs::remove_file(path)?;
    /// # std::io::Result::Ok(()) }).unwrap().unwrap();
    /// ```
    pub async fn read_exact_at<B: IoBufMut>(&self, buf: B, offset: u64) -> Result<B, BufError<B>> {
        let mut filling = started(buf, offset)?;
        loop {
            let read;
            (filling, read) = step(&self.fd, filling, offset).await;
            match read {
                Ok(_) if filling.is_full() => return Ok(filling.finish()),
                Ok(0) => return Err(failed(filling, io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(error) => return Err(failed(filling, error)),
            }
        }
    }

    /// Reads into several buffers, each to its capacity before the next one, as
    /// [`read_at`](File::read_at) does into one. The kernel takes 1024 of them at a time.
    ///
    /// `IORING_OP_READV`, kernel 5.1.
    ///
    /// # Errors
    /// As [`read_at`](File::read_at).
    ///
    /// # Panics
    /// As [`read_at`](File::read_at).
    ///
    /// ```
    /// # quoit::runtime::run(async {
    /// # let path = std::env::temp_dir().join(format!("quoit-readv-{}", std::process::id()));
    /// # std::fs::write(&path, "0123456789")?;
    /// let file = quoit::fs::File::open(&path).await?;
    /// let (n, (head, body)) = file.read_vectored_at(([0; 4], Vec::with_capacity(100)), 0).await?;
    /// assert_eq!((n, &head, &body[..]), (10, b"0123", &b"456789"[..]));
    /// # std::fs::remove_file(path)?;
    /// # std::io::Result::Ok(()) }).unwrap().unwrap();
    /// ```
    pub async fn read_vectored_at<V: IoVectoredMut>(
        &self,
        bufs: V,
        offset: u64,
    ) -> BufResult<usize, V> {
        let mut filling = FillingVectored::new(bufs);
        if let Err(error) = may_read(filling.has_room(), offset) {
            return Err(BufError { error, buf: filling.into_inner(), done: 0 });
        }
        let read = ReadVectored { fd: self.fd.clone(), filling, offset };
        match Submission::new(read).await {
            (filling, Ok(count)) => Ok((count, filling.finish())),
            (filling, Err(error)) => Err(BufError { error, buf: filling.finish(), done: 0 }),
        }
    }
}

/// A read that nothing speaks against. The buffer of one that makes no request stays as it is.
fn started<B: IoBufMut>(buf: B, offset: u64) -> Result<Filling<B>, BufError<B>> {
    match may_read(buf.buf_capacity() > 0, offset) {
        Ok(()) => Ok(Filling::new(buf)),
        Err(error) => Err(BufError { error, buf, done: 0 }),
    }
}

fn may_read(has_room: bool, offset: u64) -> io::Result<()> {
    offset_of(offset, 0)?;
    if has_room {
        return Ok(());
    }
    let text = "a read into a buffer without capacity would look like the end of the file";
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
}

fn failed<B: IoBufMut>(filling: Filling<B>, error: io::Error) -> BufError<B> {
    let done = filling.done();
    BufError { error, buf: filling.finish(), done }
}

/// One read, behind what is filled already. Zero is the end of the file.
async fn step<B: IoBufMut>(
    fd: &Fd,
    filling: Filling<B>,
    offset: u64,
) -> (Filling<B>, io::Result<usize>) {
    match offset_of(offset, filling.done()) {
        Ok(offset) => Submission::new(Read { fd: fd.clone(), filling, offset }).await,
        Err(error) => (filling, Err(error)),
    }
}

/// `IORING_OP_READ`, kernel 5.6.
struct Read<B> {
    fd: Fd,
    filling: Filling<B>,
    offset: u64,
}

// SAFETY: I2: the request points into `filling`, and `fd` keeps the descriptor open.
unsafe impl<B: IoBufMut> Op for Read<B> {
    type Output = (Filling<B>, io::Result<usize>);

    const WAITS_FOR_ADMISSION: bool = true;

    fn prepare(&mut self) -> Sqe {
        let (start, len) = self.filling.rest();
        opcode::Read::new(types::Fd(self.fd.raw()), start, len).offset(self.offset).build()
    }

    fn complete(mut self, cqe: Cqe) -> Self::Output {
        let read = self.filling.advance(&cqe);
        (self.filling, read)
    }
}

/// `IORING_OP_READV`, kernel 5.1: several buffers in one request.
struct ReadVectored<V> {
    fd: Fd,
    filling: FillingVectored<V>,
    offset: u64,
}

// SAFETY: I2: the request points at iovecs in `filling`, and those at buffers in it; the pointers
// are made when this is in its place. `fd` keeps the descriptor open.
unsafe impl<V: IoVectoredMut> Op for ReadVectored<V> {
    type Output = (FillingVectored<V>, io::Result<usize>);

    const WAITS_FOR_ADMISSION: bool = true;

    fn prepare(&mut self) -> Sqe {
        let (start, count) = self.filling.rest();
        opcode::Readv::new(types::Fd(self.fd.raw()), start, count).offset(self.offset).build()
    }

    fn complete(mut self, cqe: Cqe) -> Self::Output {
        let read = self.filling.advance(&cqe);
        (self.filling, read)
    }
}
