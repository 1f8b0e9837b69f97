//! What a stream of bytes can do, whatever it is made of.

use std::future::Future;
use std::io;
use std::rc::Rc;

use crate::buf::{BufError, BufResult, IoBuf, IoBufMut, IoVectored, PooledBuf};

/// A stream that bytes come from.
///
/// Nothing is boxed, and a call allocates nothing. Who implements it promises what the streams of
/// this crate do: dropping one of the futures loses no byte.
///
/// ```
/// use quoit::io::AsyncRead;
/// use quoit::net::{TcpListener, TcpStream};
///
/// /// How many bytes come before the end.
/// async fn count(stream: impl AsyncRead) -> std::io::Result<usize> {
///     let mut count = 0;
///     while let Some(bytes) = stream.recv().await? {
///         count += bytes.len();
///     }
///     Ok(count)
/// }
///
/// # quoit::runtime::run(async {
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let peer = TcpStream::connect(listener.local_addr()?).await?;
/// let (stream, _) = listener.accept().await?;
/// peer.write_all("seven b").await?;
/// drop(peer);
/// assert_eq!(count(&stream).await?, 7);
/// # std::io::Result::Ok(()) }).unwrap().unwrap();
/// ```
pub trait AsyncRead {
    /// The next bytes that arrive, in a buffer of the core's pool; `None` is the end. It is the
    /// fastest way to receive: nothing is held while nothing comes, and nothing is copied.
    ///
    /// # Errors
    /// What the stream answers, such as `ConnectionReset`.
    fn recv(&self) -> impl Future<Output = io::Result<Option<PooledBuf>>>;

    /// Reads what has arrived into `buf`, from its first byte; 0 is the end. It suits large pieces.
    ///
    /// # Errors
    /// `InvalidInput` if `buf` has no capacity; what the stream answers. The buffer comes back.
    fn read<B: IoBufMut>(&self, buf: B) -> impl Future<Output = BufResult<usize, B>>;

    /// Puts bytes back: the next read gets them before all others.
    ///
    /// For whoever reads this stream alone. A read of somebody else that waits already is not woken,
    /// and gets what comes next.
    fn unread(&self, bytes: PooledBuf);
}

/// A stream that bytes go to.
///
/// Nothing is boxed, and a call allocates nothing, but for what is written from several buffers. The
/// bytes of two calls never interleave.
///
/// ```
/// use quoit::io::AsyncWrite;
/// use quoit::net::{TcpListener, TcpStream};
///
/// async fn greet(stream: impl AsyncWrite) -> std::io::Result<()> {
///     stream.write_all("hello").await?;
///     stream.shutdown().await
/// }
///
/// # quoit::runtime::run(async {
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let peer = TcpStream::connect(listener.local_addr()?).await?;
/// let (stream, _) = listener.accept().await?;
/// greet(&stream).await?;
/// assert_eq!(&*peer.recv().await?.unwrap(), b"hello");
/// assert!(peer.recv().await?.is_none());
/// # std::io::Result::Ok(()) }).unwrap().unwrap();
/// ```
pub trait AsyncWrite {
    /// Writes all of `buf`, and gives it back. A [`PooledBuf`] that was received can be written as
    /// it is, which is the fastest way to send.
    ///
    /// Dropping the future may have sent a part.
    ///
    /// # Errors
    /// What the stream answers, such as `BrokenPipe`; `done` says how many bytes had been taken.
    fn write_all<B: IoBuf>(&self, buf: B) -> impl Future<Output = Result<B, BufError<B>>>;

    /// Writes all of several buffers, one after the other.
    ///
    /// # Errors
    /// As [`write_all`](Self::write_all).
    fn write_all_vectored<V: IoVectored>(
        &self,
        bufs: V,
    ) -> impl Future<Output = Result<V, BufError<V>>>;

    /// Ends what is written: behind the last byte the other side reads the end. What it sends can
    /// still be read.
    ///
    /// # Errors
    /// What the stream answers, such as `NotConnected`.
    fn shutdown(&self) -> impl Future<Output = io::Result<()>>;
}

impl<T: AsyncRead + ?Sized> AsyncRead for &T {
    fn recv(&self) -> impl Future<Output = io::Result<Option<PooledBuf>>> {
        T::recv(self)
    }

    fn read<B: IoBufMut>(&self, buf: B) -> impl Future<Output = BufResult<usize, B>> {
        T::read(self, buf)
    }

    fn unread(&self, bytes: PooledBuf) {
        T::unread(self, bytes);
    }
}

impl<T: AsyncWrite + ?Sized> AsyncWrite for &T {
    fn write_all<B: IoBuf>(&self, buf: B) -> impl Future<Output = Result<B, BufError<B>>> {
        T::write_all(self, buf)
    }

    fn write_all_vectored<V: IoVectored>(
        &self,
        bufs: V,
    ) -> impl Future<Output = Result<V, BufError<V>>> {
        T::write_all_vectored(self, bufs)
    }

    fn shutdown(&self) -> impl Future<Output = io::Result<()>> {
        T::shutdown(self)
    }
}

impl<T: AsyncRead + ?Sized> AsyncRead for Rc<T> {
    fn recv(&self) -> impl Future<Output = io::Result<Option<PooledBuf>>> {
        T::recv(self)
    }

    fn read<B: IoBufMut>(&self, buf: B) -> impl Future<Output = BufResult<usize, B>> {
        T::read(self, buf)
    }

    fn unread(&self, bytes: PooledBuf) {
        T::unread(self, bytes);
    }
}

impl<T: AsyncWrite + ?Sized> AsyncWrite for Rc<T> {
    fn write_all<B: IoBuf>(&self, buf: B) -> impl Future<Output = Result<B, BufError<B>>> {
        T::write_all(self, buf)
    }

    fn write_all_vectored<V: IoVectored>(
        &self,
        bufs: V,
    ) -> impl Future<Output = Result<V, BufError<V>>> {
        T::write_all_vectored(self, bufs)
    }

    fn shutdown(&self) -> impl Future<Output = io::Result<()>> {
        T::shutdown(self)
    }
}
