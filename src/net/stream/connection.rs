//! A connected stream of bytes, whatever its family: what users call.

use std::fmt;
use std::io;
use std::net::Shutdown;
use std::ops::RangeBounds;
use std::os::fd::{AsFd, BorrowedFd};

use super::{State, receive, send, send_file};
use crate::buf::{
    BufError, BufResult, IoBuf, IoBufMut, IoVectored, IoVectoredMut, PooledBuf, Slice, map_buf,
    tail,
};
use crate::fs::File;
use crate::net::options;
use crate::sys::fd::{Fd, OwnedFd};

/// A connected stream of bytes: a [`TcpStream`](crate::net::TcpStream) or a
/// [`UnixStream`](crate::net::UnixStream), which differ in how they come to be and in their options.
///
/// All methods take `&self`: reading and writing at the same time needs no split and no lock.
/// Readers take turns, and so do writers, first come first served. What serves one family serves
/// the other:
///
/// ```
/// use quoit::net::{Stream, UnixStream};
///
/// async fn echo<F>(stream: Stream<F>) -> std::io::Result<()> {
///     while let Some(chunk) = stream.recv().await? {
///         stream.write_all(chunk).await?;
///     }
///     Ok(())
/// }
///
/// # quoit::runtime::run(async {
/// let (here, there) = UnixStream::pair()?;
/// quoit::spawn(echo(there));
/// here.write_all("hello").await?;
/// assert_eq!(here.read_exact(vec![0; 5]).await?, b"hello");
/// # std::io::Result::Ok(()) }).unwrap().unwrap();
/// ```
pub struct Stream<F> {
    pub(in crate::net) fd: Fd<State>,
    /// What its family keeps beside.
    pub(in crate::net) family: F,
}

impl<F> Stream<F> {
    pub(in crate::net) fn new(fd: OwnedFd) -> Self
    where
        F: Default,
    {
        Stream::resumed(Fd::new(fd, State::default()))
    }

    pub(in crate::net) fn resumed(fd: Fd<State>) -> Self
    where
        F: Default,
    {
        Stream { fd, family: F::default() }
    }

    /// The next bytes that arrive, at most 4 KiB, in a buffer of the core's pool; `None` is the end.
    ///
    /// An idle connection holds no buffer. The first call starts a receive that belongs to the
    /// stream: dropping the future loses nothing, and what arrives meanwhile waits, about 256 KiB
    /// of it, for the next call. Then the receive is stopped, and the peer with it, until somebody
    /// reads.
    ///
    /// `IORING_OP_RECV`, multishot with provided buffers: kernel 6.0. While this stream's leases are an
    /// eighth of the core's buffers, or seven eighths are kept in all, the bytes come in heap memory.
    ///
    /// # Errors
    /// What the kernel answers, such as `ConnectionReset`.
    pub fn recv(&self) -> impl Future<Output = io::Result<Option<PooledBuf>>> {
        receive::receive(&self.fd)
    }

    /// Reads what has arrived into `buf`, from its first byte, and sets its length to that: the
    /// count in the answer, where 0 is the end of the stream.
    ///
    /// Dropping the future loses no bytes, only the buffer: the next read gets them.
    /// `IORING_OP_RECV`, kernel 5.6.
    ///
    /// # Errors
    /// `InvalidInput` if `buf` has no capacity; what the kernel answers. The buffer comes back.
    pub async fn read<B: IoBufMut>(&self, buf: B) -> BufResult<usize, B> {
        receive::read(&self.fd, buf, false).await
    }

    /// As [`read`](Self::read), behind what is in `buf` already.
    ///
    /// # Errors
    /// `InvalidInput` if `buf` has no room left; what the kernel answers.
    pub async fn append<B: IoBufMut>(&self, buf: B) -> BufResult<usize, B> {
        let tail = tail(buf);
        let result = receive::read(&self.fd, tail, false).await;
        match result {
            // An error must not shorten what was there: the slice is left as it was.
            Err(error) => Err(error.map_buf(Slice::into_inner)),
            result => map_buf(result, Slice::into_inner),
        }
    }

    /// Reads until the capacity of `buf` is full.
    ///
    /// Dropping the future loses nothing: bytes that it had read go back to the stream.
    ///
    /// # Errors
    /// `UnexpectedEof` if the stream ends first: `done` bytes are in the buffer. `InvalidInput` if
    /// `buf` has no capacity; what the kernel answers.
    pub async fn read_exact<B: IoBufMut>(&self, buf: B) -> Result<B, BufError<B>> {
        receive::read(&self.fd, buf, true).await.map(|(_, buf)| buf)
    }

    /// Reads what has arrived, at most 4 KiB, into several buffers, one after the other, and sets
    /// their lengths: the count in the answer, where 0 is the end of the stream.
    ///
    /// It receives as [`recv`](Self::recv) does, and copies. Dropping the future loses no bytes.
    ///
    /// # Errors
    /// `InvalidInput` if the buffers have no capacity; what the kernel answers.
    pub async fn read_vectored<V: IoVectoredMut>(&self, bufs: V) -> BufResult<usize, V> {
        receive::read_vectored(&self.fd, bufs).await
    }

    /// Writes from `buf` as much as the socket takes at once, and says how much that was.
    ///
    /// Dropping the future cancels the send, which may have sent a part by then: see
    /// [`bytes_sent`](Self::bytes_sent). `IORING_OP_SEND`, kernel 5.6.
    ///
    /// # Errors
    /// What the kernel answers, such as `BrokenPipe`; never a signal. The buffer comes back.
    pub fn write<B: IoBuf>(&self, buf: B) -> impl Future<Output = BufResult<usize, B>> {
        send::write::<false, B>(&self.fd, buf)
    }

    /// Writes all of `buf`, and gives it back.
    ///
    /// Nobody else's bytes come in between. Dropping the future cancels the rest.
    ///
    /// Calls that wait for another's write are sent in their order, and small ones, up to 64 KiB
    /// together, with one request (`IORING_OP_SENDMSG`, kernel 5.3). Each gets its own result: an
    /// error is that of the first that was not sent, and the others try by themselves.
    ///
    /// # Errors
    /// As [`write`](Self::write); `done` says how many bytes had been sent.
    pub fn write_all<B: IoBuf>(&self, buf: B) -> impl Future<Output = Result<B, BufError<B>>> {
        send::write_all(&self.fd, buf)
    }

    /// Writes from several buffers, as [`write`](Self::write) does from one.
    ///
    /// `IORING_OP_SENDMSG`, kernel 5.3.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn write_vectored<V: IoVectored>(&self, bufs: V) -> BufResult<usize, V> {
        send::write_vectored(&self.fd, bufs, false).await
    }

    /// Writes all of several buffers, as [`write_all`](Self::write_all) does of one.
    ///
    /// # Errors
    /// As [`write_all`](Self::write_all).
    pub async fn write_all_vectored<V: IoVectored>(&self, bufs: V) -> Result<V, BufError<V>> {
        send::write_vectored(&self.fd, bufs, true).await.map(|(_, bufs)| bufs)
    }

    /// Sends a part of a file, asyncio's `loop.sendfile`, and says how many bytes that were: fewer than
    /// were asked for if the file ends before.
    ///
    /// What the page cache has is sent by `sendfile(2)`, which copies nothing: a MiB takes half of the
    /// CPU time that it takes to send it from memory. The rest is read in pieces of 128 KiB and sent,
    /// so that no core waits for a disk; so is everything where the kernel does not say what the cache
    /// has, which are kernels before 6.5, and files that the process neither owns nor may write.
    ///
    /// It is a write: nobody else's bytes come in between, and it waits for those before it. Dropping
    /// the future ends it where it is, see [`bytes_sent`](Self::bytes_sent). A head in front of it
    /// should be written first, and not be held back by a [cork](crate::net::TcpStream::cork): then the
    /// kernel puts the pages into segments of their own.
    ///
    /// # Errors
    /// As [`write`](Self::write), of the socket; as [`File::read_at`], of the file.
    ///
    /// # Panics
    /// Outside of the runtime that both belong to, when it is first polled.
    ///
    /// ```
    /// use quoit::fs::File;
    /// use quoit::net::UnixStream;
    ///
    /// # quoit::runtime::run(async {
    /// # let path = std::env::temp_dir().join(format!("quoit-sendfile-{}", std::process::id()));
    /// # std::fs::write(&path, "0123456789")?;
    /// let file = File::open(&path).await?;
    /// let (here, there) = UnixStream::pair()?;
    /// assert_eq!(here.send_file(&file, 2..5).await?, 3);
    /// assert_eq!(here.send_file(&file, 8..).await?, 2);
    /// assert_eq!(there.read_exact([0; 5]).await?, *b"23489");
    /// # std::fs::remove_file(path)?;
    /// # std::io::Result::Ok(()) }).unwrap().unwrap();
    /// ```
    pub async fn send_file(&self, file: &File, range: impl RangeBounds<u64>) -> io::Result<u64> {
        send_file::send_file(&self.fd, file, range).await
    }

    /// Bytes that the kernel has taken on this connection, those of dropped writes included.
    ///
    /// After a write was dropped, the figure is final when the next write has ended.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        self.fd.outbound.sent()
    }

    /// Ends one direction or both, at once and for all who use the connection.
    ///
    /// After [`Shutdown::Write`] the peer reads what was written, and then the end; it can still
    /// send. After [`Shutdown::Read`] reads here find the end once they have taken what had arrived;
    /// the peer is not told. A write that waits fails with `BrokenPipe`.
    ///
    /// # Errors
    /// `NotConnected`; what `shutdown` answers.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        options::shutdown(&self.fd, how)
    }

    /// Closes the connection, and says what the kernel said.
    ///
    /// What was written is still sent, and then the peer reads the end. If bytes had arrived that
    /// nobody has read, the kernel resets the connection instead, and the peer may lose what it has
    /// not read yet: [`TcpStream::linger`](crate::net::TcpStream::linger) avoids that.
    ///
    /// It waits until no operation refers to the connection: those that were dropped are cancelled,
    /// and the number is not free before their last answer. Dropping the stream does the same
    /// without waiting, and so does dropping this future.
    ///
    /// # Errors
    /// What `close` answers; the descriptor is closed all the same.
    pub async fn close(self) -> io::Result<()> {
        self.fd.inbound.disarm();
        let fd = self.fd.clone();
        drop(self);
        fd.alone().await.close()
    }

    /// Asks for so many bytes of send buffer (`SO_SNDBUF`; the kernel doubles it).
    ///
    /// # Errors
    /// What `setsockopt` answers.
    pub fn set_send_buffer_size(&self, bytes: usize) -> io::Result<()> {
        self.set(libc::SOL_SOCKET, libc::SO_SNDBUF, options::clamp(bytes))
    }

    /// Asks for so many bytes of receive buffer (`SO_RCVBUF`; the kernel doubles it).
    ///
    /// # Errors
    /// What `setsockopt` answers.
    pub fn set_recv_buffer_size(&self, bytes: usize) -> io::Result<()> {
        self.set(libc::SOL_SOCKET, libc::SO_RCVBUF, options::clamp(bytes))
    }

    /// Takes what went wrong on the connection since it was last asked (`SO_ERROR`).
    ///
    /// # Errors
    /// What `getsockopt` answers.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        let errno = self.get(libc::SOL_SOCKET, libc::SO_ERROR)?;
        Ok((errno != 0).then(|| io::Error::from_raw_os_error(errno)))
    }

    pub(in crate::net) fn get(&self, level: i32, name: i32) -> io::Result<i32> {
        options::get(self.fd.raw(), level, name)
    }

    pub(in crate::net) fn set(&self, level: i32, name: i32, value: i32) -> io::Result<()> {
        options::set(self.fd.raw(), level, name, value)
    }
}

impl<F> AsFd for Stream<F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.borrow()
    }
}

impl<F> Drop for Stream<F> {
    #[inline]
    fn drop(&mut self) {
        self.fd.inbound.disarm();
    }
}

impl<F> fmt::Debug for Stream<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("fd", &self.as_fd()).finish()
    }
}
