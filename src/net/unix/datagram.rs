//! A socket for datagrams.

use std::fmt;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::os::unix::net::SocketAddr;
use std::path::Path;

use super::message::duplicates;
use super::messages::Messages;
use super::socket;
use crate::buf::{BufError, BufResult, IoBuf, IoBufMut};
use crate::net::connect;
use crate::net::options::ring;
use crate::sys::fd;
use crate::sys::unix_addr::UnixAddress;

/// A socket for datagrams between processes of one machine: none is lost or overtaken on its way,
/// and each is received whole.
///
/// All methods take `&self`. Receivers take turns, first come first served, and so do sends to whom
/// the socket is connected; sends to addresses do not wait for each other.
///
/// ```
/// use quoit::net::UnixDatagram;
///
/// # quoit::runtime::run(async {
/// let (here, there) = UnixDatagram::pair()?;
/// here.send("one").await?;
/// here.send("another").await?;
/// let (count, buf) = there.recv(vec![0; 64]).await?;
/// assert_eq!(&buf[..count], b"one");
/// # std::io::Result::Ok(()) }).unwrap().unwrap();
/// ```
pub struct UnixDatagram(Messages);

impl UnixDatagram {
    fn new(fd: fd::OwnedFd) -> Self {
        UnixDatagram(Messages::new(fd))
    }

    /// A socket at a path. The file stays when the socket is gone, and has to be removed before the
    /// next bind.
    ///
    /// # Errors
    /// `AddrInUse` if something is there: the text says what. `InvalidInput` for a path of more than
    /// 107 bytes; what `socket` and `bind` answer.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn bind(path: impl AsRef<Path>) -> io::Result<UnixDatagram> {
        UnixDatagram::bind_addr(&socket::at_path(path.as_ref())?)
    }

    /// A socket at a path or with an abstract name; an unnamed address has the kernel choose a name.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn bind_addr(address: &SocketAddr) -> io::Result<UnixDatagram> {
        let fd = socket::open(libc::SOCK_DGRAM)?;
        socket::bind(fd.raw(), &address.into())?;
        Ok(UnixDatagram::new(fd))
    }

    /// A socket without a name, to which nobody can send unless they are [a pair](Self::pair).
    ///
    /// # Errors
    /// What `socket` answers.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn unbound() -> io::Result<UnixDatagram> {
        socket::open(libc::SOCK_DGRAM).map(UnixDatagram::new)
    }

    /// Two sockets that are connected to each other.
    ///
    /// # Errors
    /// What `socketpair` answers.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn pair() -> io::Result<(UnixDatagram, UnixDatagram)> {
        let [one, other] = socket::pair(libc::SOCK_DGRAM)?;
        Ok((UnixDatagram::new(one), UnixDatagram::new(other)))
    }

    /// Takes over a socket of the standard library. It must be used on this core alone.
    ///
    /// # Errors
    /// What `fcntl` answers.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn from_std(socket: std::os::unix::net::UnixDatagram) -> io::Result<UnixDatagram> {
        socket.set_nonblocking(false)?;
        let raw = socket.into_raw_fd();
        Ok(UnixDatagram::new(ring("UnixDatagram::from_std", |ring| ring.adopt(raw))))
    }

    /// Has `send` send to that path, and nobody else send to this socket. It may be called again.
    ///
    /// `IORING_OP_CONNECT`, kernel 5.5.
    ///
    /// # Errors
    /// `NotFound` or `ConnectionRefused` if nobody has a socket there; `InvalidInput` for a path of
    /// more than 107 bytes; what `connect` answers.
    pub async fn connect(&self, path: impl AsRef<Path>) -> io::Result<()> {
        self.connect_addr(&socket::at_path(path.as_ref())?).await
    }

    /// As [`connect`](Self::connect), to a path or an abstract name.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_addr(&self, address: &SocketAddr) -> io::Result<()> {
        connect::begin(self.0.fd.clone(), UnixAddress::from(address)).await.map(drop)
    }

    /// Sends `buf` as one datagram to whom the socket is connected, waiting while their queue is
    /// full.
    ///
    /// Dropping the future cancels the send: the datagram is sent whole or not at all.
    /// `IORING_OP_SENDMSG`, kernel 5.3.
    ///
    /// # Errors
    /// `NotConnected`; `ConnectionRefused` if the other socket is gone; `EMSGSIZE` for more than the
    /// send buffer holds. The buffer comes back.
    pub async fn send<B: IoBuf>(&self, buf: B) -> Result<B, BufError<B>> {
        self.0.send(buf, None, Ok(Vec::new())).await
    }

    /// Sends `buf` as one datagram to who has bound the path. While their queue is full it is tried
    /// again after 0.5 to 16 ms, because no kernel tells when there is room; [`connect`](Self::connect)
    /// and [`send`](Self::send) do better.
    ///
    /// # Errors
    /// As [`send`](Self::send); `NotFound` if nobody has a socket there, and `InvalidInput` for a path
    /// of more than 107 bytes.
    pub async fn send_to<B: IoBuf>(
        &self,
        buf: B,
        path: impl AsRef<Path>,
    ) -> Result<B, BufError<B>> {
        match socket::at_path(path.as_ref()) {
            Ok(address) => self.send_to_addr(buf, &address).await,
            Err(error) => Err(BufError { error, buf, done: 0 }),
        }
    }

    /// As [`send_to`](Self::send_to), to a path or an abstract name, such as the one that
    /// [`recv_from`](Self::recv_from) says.
    ///
    /// # Errors
    /// As [`send_to`](Self::send_to); `InvalidInput` for an address without a name.
    pub async fn send_to_addr<B: IoBuf>(
        &self,
        buf: B,
        address: &SocketAddr,
    ) -> Result<B, BufError<B>> {
        if address.is_unnamed() {
            let text = "nothing can be sent to an address without a name";
            let error = io::Error::new(io::ErrorKind::InvalidInput, text);
            return Err(BufError { error, buf, done: 0 });
        }
        self.0.send(buf, Some(address.into()), Ok(Vec::new())).await
    }

    /// Sends `buf` as one datagram, which may be empty, and duplicates of `fds`, at most 253, to whom
    /// the socket is connected. The caller may close their own at once.
    ///
    /// # Errors
    /// As [`send`](Self::send); `InvalidInput` for too many descriptors, `ETOOMANYREFS` if too many of
    /// the user's are under way.
    pub fn send_with_fds<B: IoBuf>(
        &self,
        buf: B,
        fds: &[BorrowedFd<'_>],
    ) -> impl Future<Output = Result<B, BufError<B>>> + use<'_, B> {
        self.0.send(buf, None, duplicates(fds))
    }

    /// Receives one datagram into `buf`, from its first byte, and sets its length to that.
    ///
    /// Dropping the future loses no datagram: the next call gets it. Descriptors that came along are
    /// closed by the kernel, also if it is dropped. `IORING_OP_RECVMSG`, kernel 5.3.
    ///
    /// # Errors
    /// `InvalidData` with [`MessageTruncated`](crate::net::MessageTruncated) if `buf` was too small: the
    /// first `done` bytes are in it, and the rest is lost. `InvalidInput` if it has no capacity; what
    /// the kernel answers.
    pub async fn recv<B: IoBufMut>(&self, buf: B) -> BufResult<usize, B> {
        self.0.receive(buf, false).await.map(|(count, buf, _)| (count, buf))
    }

    /// As [`recv`](Self::recv), and says who has sent the datagram: unnamed is who is not bound.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub async fn recv_from<B: IoBufMut>(&self, buf: B) -> BufResult<(usize, SocketAddr), B> {
        let received = self.0.receive(buf, false).await;
        received.map(|(count, buf, beside)| ((count, beside.from.to_std()), buf))
    }

    /// As [`recv`](Self::recv), with the descriptors that came along, which are closed on exec.
    ///
    /// Dropping the future loses neither the datagram nor its descriptors.
    ///
    /// # Errors
    /// As [`recv`](Self::recv); if the process may not have so many descriptors open, those that came
    /// are closed, and the datagram is in the buffer of the error.
    pub async fn recv_with_fds<B: IoBufMut>(
        &self,
        buf: B,
    ) -> Result<(usize, B, Vec<OwnedFd>), BufError<B>> {
        self.0.receive(buf, true).await.map(|(count, buf, beside)| (count, buf, beside.fds))
    }

    /// Ends one direction or both, at once and for all who use the socket.
    ///
    /// # Errors
    /// What `shutdown` answers.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.0.shutdown(how)
    }

    /// Closes the socket once no operation refers to it, and says what the kernel said.
    ///
    /// # Errors
    /// What `close` answers; the descriptor is closed all the same.
    pub async fn close(self) -> io::Result<()> {
        self.0.close().await
    }

    /// The address of this socket.
    ///
    /// # Errors
    /// What `getsockname` answers.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        socket::local_address(self.0.fd.raw())
    }

    /// The address that the socket is connected to.
    ///
    /// # Errors
    /// `NotConnected`; what `getpeername` answers.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        socket::peer_address(self.0.fd.raw())
    }
}

impl AsFd for UnixDatagram {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.borrow()
    }
}

impl fmt::Debug for UnixDatagram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnixDatagram").field("fd", &self.as_fd()).finish()
    }
}
