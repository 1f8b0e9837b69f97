//! Reading at an offset.

use std::io;

use io_uring::{opcode, types};

use super::file::{File, offset_of};
use crate::buf::{BufError, BufResult, Filling, IoBufMut};
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
}

/// A read that nothing speaks against. The buffer of one that makes no request stays as it is.
fn started<B: IoBufMut>(buf: B, offset: u64) -> Result<Filling<B>, BufError<B>> {
    let text = "a read into a buffer without capacity would look like the end of the file";
    let error = match offset_of(offset, 0) {
        Ok(_) if buf.buf_capacity() > 0 => return Ok(Filling::new(buf)),
        Ok(_) => io::Error::new(io::ErrorKind::InvalidInput, text),
        Err(error) => error,
    };
    Err(BufError { error, buf, done: 0 })
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
