//! Writing at an offset.

use std::io;

use io_uring::{opcode, types};

use super::file::{File, offset_of};
use crate::buf::{BufError, BufResult, IoBuf, IoVectored, Iovecs, moved, rest_to_write, total_len};
use crate::driver::{Cqe, Sqe};
use crate::op::{Op, Submission};
use crate::sys::fd::Fd;

impl File {
    /// Writes bytes of `buf` from `offset` on, and says how many.
    ///
    /// It may write less than there is, and never more than 2 GiB. Past the end of the file it
    /// leaves a hole of zeros before them. A file that was opened with `append` ignores `offset`.
    /// Dropping the future cancels the request, of which any part, or all, may have been written.
    ///
    /// `IORING_OP_WRITE`, kernel 5.6. An empty `buf` makes no request.
    ///
    /// # Errors
    /// `InvalidInput` if `offset` is past `i64::MAX`; what `pwrite` answers, such as `StorageFull`.
    /// The buffer comes back.
    ///
    /// # Panics
    /// Outside of the runtime that opened the file, when it is first polled.
    ///
    /// ```
    /// # quoit::runtime::run(async {
    /// # let path = std::env::temp_dir().join(format!("quoit-write-at-{}", std::process::id()));
    /// let file = quoit::fs::File::create(&path).await?;
    /// let (n, _buf) = file.write_at(b"bytes", 3).await?;
    /// assert_eq!(n, 5);
    /// assert_eq!(std::fs::read(&path)?, b"\0\0\0bytes");
    /// # std::fs::remove_file(path)?;
    /// # std::io::Result::Ok(()) }).unwrap().unwrap();
    /// ```
    pub async fn write_at<B: IoBuf>(&self, buf: B, offset: u64) -> BufResult<usize, B> {
        write(&self.fd, buf, offset, false).await
    }

    /// Writes all of `buf` from `offset` on, and gives it back.
    ///
    /// Otherwise as [`write_at`](File::write_at).
    ///
    /// # Errors
    /// As [`write_at`](File::write_at), and `WriteZero` if the kernel takes no more; `done` says
    /// how many bytes had been written.
    ///
    /// # Panics
    /// As [`write_at`](File::write_at).
    ///
    /// ```
    /// # quoit::runtime::run(async {
    /// # let path = std::env::temp_dir().join(format!("quoit-write-all-{}", std::process::id()));
    /// let file = quoit::fs::File::create(&path).await?;
    /// let block = file.write_all_at(vec![7; 4096], 0).await?;
    /// file.write_all_at(block, 4096).await?;
    /// assert_eq!(file.len().await?, 8192);
    /// # std::fs::remove_file(path)?;
    /// # std::io::Result::Ok(()) }).unwrap().unwrap();
    /// ```
    pub async fn write_all_at<B: IoBuf>(&self, buf: B, offset: u64) -> Result<B, BufError<B>> {
        write(&self.fd, buf, offset, true).await.map(|(_, buf)| buf)
    }

    /// Writes from several buffers, one after the other, as [`write_at`](File::write_at) does from
    /// one. The kernel takes 1024 of them at a time.
    ///
    /// `IORING_OP_WRITEV`, kernel 5.1.
    ///
    /// # Errors
    /// As [`write_at`](File::write_at).
    ///
    /// # Panics
    /// As [`write_at`](File::write_at).
    ///
    /// ```
    /// # quoit::runtime::run(async {
    /// # let path = std::env::temp_dir().join(format!("quoit-writev-{}", std::process::id()));
    /// let file = quoit::fs::File::create(&path).await?;
    /// let (n, _bufs) = file.write_vectored_at(("head", vec![b'-'; 4]), 0).await?;
    /// assert_eq!((n, std::fs::read(&path)?), (8, b"head----".to_vec()));
    /// # std::fs::remove_file(path)?;
    /// # std::io::Result::Ok(()) }).unwrap().unwrap();
    /// ```
    pub async fn write_vectored_at<V: IoVectored>(
        &self,
        bufs: V,
        offset: u64,
    ) -> BufResult<usize, V> {
        write_vectored(&self.fd, bufs, offset, false).await
    }

    /// Writes all of several buffers, as [`write_all_at`](File::write_all_at) does of one.
    ///
    /// # Errors
    /// As [`write_all_at`](File::write_all_at).
    ///
    /// # Panics
    /// As [`write_at`](File::write_at).
    ///
    /// ```
    /// # quoit::runtime::run(async {
    /// # let path = std::env::temp_dir().join(format!("quoit-writev-all-{}", std::process::id()));
    /// let file = quoit::fs::File::create(&path).await?;
    /// let lines = vec![vec![b'x'; 3]; 2000];
    /// file.write_all_vectored_at(lines, 0).await?;
    /// assert_eq!(file.len().await?, 6000);
    /// # std::fs::remove_file(path)?;
    /// # std::io::Result::Ok(()) }).unwrap().unwrap();
    /// ```
    pub async fn write_all_vectored_at<V: IoVectored>(
        &self,
        bufs: V,
        offset: u64,
    ) -> Result<V, BufError<V>> {
        write_vectored(&self.fd, bufs, offset, true).await.map(|(_, bufs)| bufs)
    }
}

/// Writes from `buf`: what one request takes, or, if `all`, everything.
async fn write<B: IoBuf>(fd: &Fd, mut buf: B, offset: u64, all: bool) -> BufResult<usize, B> {
    let mut done = 0;
    loop {
        let at = match offset_of(offset, done) {
            Ok(at) => at,
            Err(error) => return Err(BufError { error, buf, done }),
        };
        if done >= buf.buf_len() {
            return Ok((done, buf));
        }
        let written;
        (buf, written) = Submission::new(Write { fd: fd.clone(), buf, done, offset: at }).await;
        match written {
            Ok(0) => {
                let error = io::ErrorKind::WriteZero.into();
                return Err(BufError { error, buf, done });
            }
            Ok(written) => done += written,
            Err(error) => return Err(BufError { error, buf, done }),
        }
        if !all {
            return Ok((done, buf));
        }
    }
}

/// Writes from several buffers, one after the other, as [`write`] does from one.
async fn write_vectored<V: IoVectored>(
    fd: &Fd,
    mut bufs: V,
    offset: u64,
    all: bool,
) -> BufResult<usize, V> {
    let total = total_len(&bufs);
    let mut done = 0;
    loop {
        let at = match offset_of(offset, done) {
            Ok(at) => at,
            Err(error) => return Err(BufError { error, buf: bufs, done }),
        };
        if done >= total {
            return Ok((done, bufs));
        }
        let (fd, iovecs) = (fd.clone(), Iovecs::new());
        let write = WriteVectored { fd, bufs, done, offset: at, left: 0, iovecs };
        let written;
        (bufs, written) = Submission::new(write).await;
        match written {
            Ok(0) => {
                let error = io::ErrorKind::WriteZero.into();
                return Err(BufError { error, buf: bufs, done });
            }
            Ok(written) => done += written,
            Err(error) => return Err(BufError { error, buf: bufs, done }),
        }
        if !all {
            return Ok((done, bufs));
        }
    }
}

/// `IORING_OP_WRITE`, kernel 5.6.
struct Write<B> {
    fd: Fd,
    buf: B,
    done: usize,
    offset: u64,
}

// SAFETY: I2: the request points into `buf`, and `fd` keeps the descriptor open.
unsafe impl<B: IoBuf> Op for Write<B> {
    type Output = (B, io::Result<usize>);

    const WAITS_FOR_ADMISSION: bool = true;

    fn prepare(&mut self) -> Sqe {
        let (start, len) = rest_to_write(&self.buf, self.done);
        opcode::Write::new(types::Fd(self.fd.raw()), start, len).offset(self.offset).build()
    }

    fn complete(self, cqe: Cqe) -> Self::Output {
        let written = moved(&cqe, self.buf.buf_len() - self.done);
        (self.buf, written)
    }
}

/// `IORING_OP_WRITEV`, kernel 5.1: several buffers in one request.
struct WriteVectored<V> {
    fd: Fd,
    bufs: V,
    done: usize,
    offset: u64,
    /// How much the request that is in flight may write.
    left: usize,
    iovecs: Iovecs,
}

// SAFETY: I2: the request points at `iovecs`, and those into `bufs`; both are here, and the
// pointers are made when this is in its place. `fd` keeps the descriptor open.
unsafe impl<V: IoVectored> Op for WriteVectored<V> {
    type Output = (V, io::Result<usize>);

    const WAITS_FOR_ADMISSION: bool = true;

    fn prepare(&mut self) -> Sqe {
        self.left = self.iovecs.fill(&self.bufs, self.done);
        let (start, count) = (self.iovecs.as_mut_ptr(), self.iovecs.count() as u32);
        opcode::Writev::new(types::Fd(self.fd.raw()), start, count).offset(self.offset).build()
    }

    fn complete(self, cqe: Cqe) -> Self::Output {
        (self.bufs, moved(&cqe, self.left))
    }
}
