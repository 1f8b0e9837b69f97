//! A connection.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::Location;
use std::time::Duration;

use crate::buf::{
    BufError, BufResult, IoBuf, IoBufMut, IoVectored, IoVectoredMut, PooledBuf, Slice, map_buf,
    tail,
};
use crate::net::ToAddresses;
use crate::net::options::{self, clamp};
use crate::net::connect::connect;
use crate::net::stream::{State, receive, send};
use crate::op;
use crate::sys::addr::Address;
use crate::sys::fd::{Fd, OwnedFd};

/// A TCP connection.
///
/// All methods take `&self`: reading and writing at the same time needs no split and no lock.
/// Readers take turns, and so do writers, first come first served.
///
/// ```
/// use quoit::net::{TcpListener, TcpStream};
///
/// # quoit::runtime::run(async {
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let address = listener.local_addr()?;
/// quoit::spawn(async move {
///     let (stream, _) = listener.accept().await?;
///     while let Some(chunk) = stream.recv().await? {
///         stream.write_all(chunk).await?;
///     }
///     std::io::Result::Ok(())
/// });
/// let stream = TcpStream::connect(address).await?;
/// stream.write_all("hello").await?;
/// let answer = stream.read_exact(vec![0; 5]).await?;
/// assert_eq!(answer, b"hello");
/// # std::io::Result::Ok(()) }).unwrap().unwrap();
/// ```
pub struct TcpStream {
    pub(super) fd: Fd<State>,
}

impl TcpStream {
    pub(super) fn new(fd: OwnedFd) -> Self {
        TcpStream { fd: Fd::new(fd, State::default()) }
    }

    /// Connects to the first of the addresses that answers, with `TCP_NODELAY` on.
    ///
    /// Dropping the future gives the attempt up and closes its socket. `IORING_OP_CONNECT`, kernel
    /// 5.5.
    ///
    /// # Errors
    /// `InvalidInput` for what is no address; otherwise what the last attempt came to.
    ///
    /// # Panics
    /// Outside of a runtime, when it is first polled.
    #[track_caller]
    pub fn connect(addresses: impl ToAddresses) -> impl Future<Output = io::Result<TcpStream>> {
        let caller = Location::caller();
        async move {
            op::assert_inside("TcpStream::connect", caller);
            TcpStream::connect_first(addresses.to_addresses()?).await
        }
    }

    async fn connect_first(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
        let mut last = io::Error::new(io::ErrorKind::InvalidInput, "there is no address");
        for address in addresses {
            match TcpStream::connect_one(address).await {
                Ok(fd) => return Ok(TcpStream::new(fd)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn connect_one(address: SocketAddr) -> io::Result<OwnedFd> {
        let fd = options::stream_socket(&address)?;
        options::set(fd.raw(), libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
        connect(fd, Address::from(address)).await
    }

    /// The next bytes that arrive, at most 4 KiB, in a buffer of the core's pool; `None` is the end.
    ///
    /// An idle connection holds no buffer. The first call starts a receive that belongs to the
    /// stream: dropping the future loses nothing, and what arrives meanwhile waits, about 256 KiB
    /// of it, for the next call. Then the receive is stopped, and the peer with it, until somebody
    /// reads.
    ///
    /// `IORING_OP_RECV`, multishot with provided buffers: kernel 6.0. While the core's buffers are
    /// short, because most are kept, the bytes come in heap memory.
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
        send::write(&self.fd, buf, false)
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

    /// Has writes of one buffer of `threshold` bytes or more sent without a copy; `None` switches it
    /// off, as it is to begin with. Less than 4 KiB counts as 4 KiB.
    ///
    /// The kernel then reads the buffer itself until the peer has acknowledged its bytes, so the
    /// buffer comes back a round trip later; the next write does not wait for that. It pays for
    /// large buffers on a card that can gather. Where the kernel copies all the same, as it does on
    /// loopback, it is dearer than a plain send: after four such sends in a row the stream switches
    /// it off by itself, see [`zero_copy`](Self::zero_copy).
    ///
    /// Closing does not wait for buffers that are still read, but the end of the runtime does.
    ///
    /// `IORING_OP_SEND_ZC`, with its report of copies kernel 6.2; before, and on epoll, every write
    /// is copied. What several callers have waiting is gathered with a copy, see
    /// [`write_all`](Self::write_all).
    ///
    /// ```
    /// # use quoit::net::{TcpListener, TcpStream};
    /// # quoit::runtime::run(async {
    /// # let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// # let stream = TcpStream::connect(listener.local_addr()?).await?;
    /// stream.set_zero_copy(Some(64 * 1024));
    /// stream.write_all(vec![0; 100_000]).await?;
    /// # std::io::Result::Ok(()) }).unwrap().unwrap();
    /// ```
    pub fn set_zero_copy(&self, threshold: Option<usize>) {
        self.fd.set_zero_copy(threshold);
    }

    /// From how many bytes on a write is sent without a copy; `None` if none is, because nobody
    /// asked for it or because the path has turned out to copy.
    #[must_use]
    pub fn zero_copy(&self) -> Option<usize> {
        self.fd.zero_copy()
    }

    /// Bytes that the kernel has taken on this connection, those of dropped writes included.
    ///
    /// After a write was dropped, the figure is final when the next write has ended.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        self.fd.outbound.sent()
    }

    /// The address of this end.
    ///
    /// # Errors
    /// What `getsockname` answers.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        options::local_address(&self.fd)
    }

    /// The address of the other end.
    ///
    /// # Errors
    /// `NotConnected` if the other end is gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        options::peer_address(&self.fd)
    }

    /// Whether small writes are sent at once (`TCP_NODELAY`). It is on unless it is switched off.
    ///
    /// # Errors
    /// What `getsockopt` answers.
    pub fn nodelay(&self) -> io::Result<bool> {
        Ok(self.get(libc::IPPROTO_TCP, libc::TCP_NODELAY)? != 0)
    }

    /// Switches `TCP_NODELAY`.
    ///
    /// # Errors
    /// What `setsockopt` answers.
    pub fn set_nodelay(&self, on: bool) -> io::Result<()> {
        self.set(libc::IPPROTO_TCP, libc::TCP_NODELAY, on.into())
    }

    /// Hops that packets may take (`IP_TTL`).
    ///
    /// # Errors
    /// What `getsockopt` answers.
    pub fn ttl(&self) -> io::Result<u32> {
        Ok(self.get(libc::IPPROTO_IP, libc::IP_TTL)? as u32)
    }

    /// Sets how many hops packets may take.
    ///
    /// # Errors
    /// `InvalidInput` beyond 1 to 255; what `setsockopt` answers.
    pub fn set_ttl(&self, hops: u32) -> io::Result<()> {
        self.set(libc::IPPROTO_IP, libc::IP_TTL, clamp(hops as usize))
    }

    /// Probes an idle connection after `idle`, whole seconds (`SO_KEEPALIVE`); `None` switches it
    /// off.
    ///
    /// # Errors
    /// What `setsockopt` answers.
    pub fn set_keepalive(&self, idle: Option<Duration>) -> io::Result<()> {
        if let Some(idle) = idle {
            let seconds = clamp(usize::try_from(idle.as_secs()).unwrap_or(usize::MAX)).max(1);
            self.set(libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, seconds)?;
        }
        self.set(libc::SOL_SOCKET, libc::SO_KEEPALIVE, idle.is_some().into())
    }

    /// Asks for so many bytes of send buffer (`SO_SNDBUF`; the kernel doubles it).
    ///
    /// # Errors
    /// What `setsockopt` answers.
    pub fn set_send_buffer_size(&self, bytes: usize) -> io::Result<()> {
        self.set(libc::SOL_SOCKET, libc::SO_SNDBUF, clamp(bytes))
    }

    /// Asks for so many bytes of receive buffer (`SO_RCVBUF`; the kernel doubles it).
    ///
    /// # Errors
    /// What `setsockopt` answers.
    pub fn set_recv_buffer_size(&self, bytes: usize) -> io::Result<()> {
        self.set(libc::SOL_SOCKET, libc::SO_RCVBUF, clamp(bytes))
    }

    /// Whether closing resets the connection instead of ending it in order (`SO_LINGER` of 0), as
    /// [`reset`](Self::reset) does. It holds for a drop as well.
    ///
    /// # Errors
    /// What `setsockopt` answers.
    pub fn set_reset_on_close(&self, on: bool) -> io::Result<()> {
        let value = [i32::from(on).to_ne_bytes(), 0_i32.to_ne_bytes()].concat();
        let (fd, level, name) = (self.fd.raw(), libc::SOL_SOCKET, libc::SO_LINGER);
        let call = crate::driver::Call::SetOption { fd, level, name, value: &value };
        options::ring("a socket option", |ring| ring.call(call)).map(drop)
    }

    /// Takes what went wrong on the connection since it was last asked (`SO_ERROR`).
    ///
    /// # Errors
    /// What `getsockopt` answers.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        let errno = self.get(libc::SOL_SOCKET, libc::SO_ERROR)?;
        Ok((errno != 0).then(|| io::Error::from_raw_os_error(errno)))
    }

    pub(super) fn get(&self, level: i32, name: i32) -> io::Result<i32> {
        options::get(self.fd.raw(), level, name)
    }

    pub(super) fn set(&self, level: i32, name: i32, value: i32) -> io::Result<()> {
        options::set(self.fd.raw(), level, name, value)
    }

    /// Takes over a connection of the standard library. It must be used on this core alone.
    ///
    /// # Errors
    /// What `fcntl` answers.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn from_std(stream: std::net::TcpStream) -> io::Result<TcpStream> {
        stream.set_nonblocking(false)?;
        let raw = std::os::fd::IntoRawFd::into_raw_fd(stream);
        Ok(TcpStream::new(options::ring("TcpStream::from_std", |ring| ring.adopt(raw))))
    }
}

impl AsFd for TcpStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.borrow()
    }
}

impl Drop for TcpStream {
    #[inline]
    fn drop(&mut self) {
        self.fd.inbound.disarm();
    }
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpStream").field("fd", &self.as_fd()).finish()
    }
}
