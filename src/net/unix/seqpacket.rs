//! Connections that keep the boundaries of what is sent.

use std::fmt;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::SocketAddr;
use std::panic::Location;
use std::path::Path;

use super::credentials::UCred;
use super::listener::UnixListenerOptions;
use super::listening::Listening;
use super::message::duplicates;
use super::messages::Messages;
use super::socket;
use crate::buf::{BufError, BufResult, IoBuf, IoBufMut};
use crate::net::connect::connect;
use crate::net::options::ring;
use crate::op;
use crate::sys::fd;
use crate::sys::unix_addr::UnixAddress;

/// Accepts connections for packets. It listens as a [`UnixListener`](crate::net::UnixListener) does.
pub struct UnixSeqpacketListener(pub(super) Listening);

impl UnixSeqpacketListener {
    /// Listens at a path.
    ///
    /// # Errors
    /// As [`UnixListener::bind`](crate::net::UnixListener::bind).
    ///
    /// # Panics
    /// Outside of a runtime, when it is first polled.
    #[track_caller]
    pub fn bind<P: AsRef<Path>>(
        path: P,
    ) -> impl Future<Output = io::Result<UnixSeqpacketListener>> + use<P> {
        UnixListenerOptions::new().bind_seqpacket(path)
    }

    /// Listens at a path or on an abstract name.
    ///
    /// # Errors
    /// As [`bind`](Self::bind); `InvalidInput` for an address without a name.
    ///
    /// # Panics
    /// Outside of a runtime, when it is first polled.
    #[track_caller]
    pub fn bind_addr(
        address: &SocketAddr,
    ) -> impl Future<Output = io::Result<UnixSeqpacketListener>> + use<> {
        UnixListenerOptions::new().bind_seqpacket_addr(address)
    }

    /// Waits for a connection, and says from which address; most clients have none.
    ///
    /// Dropping the future loses no connection. `IORING_OP_ACCEPT`, multishot: kernel 5.19.
    ///
    /// # Errors
    /// What makes the listener useless; it is not worth another try.
    pub async fn accept(&self) -> io::Result<(UnixSeqpacket, SocketAddr)> {
        let (connection, peer) = self.0.accept().await?;
        Ok((UnixSeqpacket::new(connection), peer))
    }

    /// The address that is listened on.
    ///
    /// # Errors
    /// What `getsockname` answers.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        socket::local_address(self.0.fd.raw())
    }

    /// Stops listening, and waits until this core's descriptor is closed.
    ///
    /// # Errors
    /// What `close` answers; the descriptor is closed all the same.
    pub async fn close(self) -> io::Result<()> {
        self.0.close().await
    }
}

/// A connection to a process of the same machine that keeps the boundaries of what is sent: each
/// packet is received by itself, in order.
///
/// All methods take `&self`. Receivers take turns, and so do senders, first come first served.
///
/// ```
/// use quoit::net::UnixSeqpacket;
///
/// # quoit::runtime::run(async {
/// let (here, there) = UnixSeqpacket::pair()?;
/// here.send("one").await?;
/// here.send("another").await?;
/// drop(here);
/// let (count, buf) = there.recv(vec![0; 64]).await?;
/// assert_eq!(&buf[..count], b"one");
/// let (count, buf) = there.recv(buf).await?;
/// assert_eq!(&buf[..count], b"another");
/// assert_eq!(there.recv(buf).await?.0, 0); // The end.
/// # std::io::Result::Ok(()) }).unwrap().unwrap();
/// ```
pub struct UnixSeqpacket(Messages);

impl UnixSeqpacket {
    fn new(fd: fd::OwnedFd) -> Self {
        UnixSeqpacket(Messages::new(fd))
    }

    /// Connects to who listens at a path.
    ///
    /// It waits while the listener's backlog is full. Dropping the future gives the attempt up and
    /// closes its socket. `IORING_OP_CONNECT`, kernel 5.5.
    ///
    /// # Errors
    /// As [`UnixStream::connect`](crate::net::UnixStream::connect); `EPROTOTYPE` if who listens there
    /// accepts streams.
    ///
    /// # Panics
    /// Outside of a runtime, when it is first polled.
    #[track_caller]
    pub fn connect(path: impl AsRef<Path>) -> impl Future<Output = io::Result<UnixSeqpacket>> {
        let (caller, address) = (Location::caller(), socket::at_path(path.as_ref()));
        async move {
            op::assert_inside("UnixSeqpacket::connect", caller);
            UnixSeqpacket::connect_to(&address?).await
        }
    }

    /// Connects to who listens at a path or on an abstract name.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    ///
    /// # Panics
    /// Outside of a runtime, when it is first polled.
    #[track_caller]
    pub fn connect_addr(address: SocketAddr) -> impl Future<Output = io::Result<UnixSeqpacket>> {
        let caller = Location::caller();
        async move {
            op::assert_inside("UnixSeqpacket::connect_addr", caller);
            UnixSeqpacket::connect_to(&address).await
        }
    }

    async fn connect_to(address: &SocketAddr) -> io::Result<UnixSeqpacket> {
        let fd = socket::open(libc::SOCK_SEQPACKET)?;
        connect(fd, UnixAddress::from(address)).await.map(UnixSeqpacket::new)
    }

    /// Two ends of a connection.
    ///
    /// # Errors
    /// What `socketpair` answers.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn pair() -> io::Result<(UnixSeqpacket, UnixSeqpacket)> {
        let [one, other] = socket::pair(libc::SOCK_SEQPACKET)?;
        Ok((UnixSeqpacket::new(one), UnixSeqpacket::new(other)))
    }

    /// Takes over a connected socket of type `SOCK_SEQPACKET`, which the standard library has no type
    /// for. It must block, and be used on this core alone.
    ///
    /// # Panics
    /// Outside of a runtime.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> UnixSeqpacket {
        let raw = std::os::fd::IntoRawFd::into_raw_fd(fd);
        UnixSeqpacket::new(ring("UnixSeqpacket::from_fd", |ring| ring.adopt(raw)))
    }

    /// Sends `buf` as one packet, waiting while the other end's queue is full.
    ///
    /// Dropping the future cancels the send: the packet is sent whole or not at all.
    /// `IORING_OP_SENDMSG`, kernel 5.3.
    ///
    /// # Errors
    /// `InvalidInput` for an empty packet, which would look like the end; `BrokenPipe` if the other
    /// end is gone, never a signal; `EMSGSIZE` for more than the send buffer holds. The buffer comes
    /// back.
    pub async fn send<B: IoBuf>(&self, buf: B) -> Result<B, BufError<B>> {
        self.send_packet(buf, Ok(Vec::new())).await
    }

    /// As [`send`](Self::send), with duplicates of `fds`, at most 253. The caller may close their own
    /// at once.
    ///
    /// # Errors
    /// As [`send`](Self::send); `InvalidInput` for too many descriptors, `ETOOMANYREFS` if too many of
    /// the user's are under way.
    pub fn send_with_fds<B: IoBuf>(
        &self,
        buf: B,
        fds: &[BorrowedFd<'_>],
    ) -> impl Future<Output = Result<B, BufError<B>>> + use<'_, B> {
        self.send_packet(buf, duplicates(fds))
    }

    async fn send_packet<B: IoBuf>(
        &self,
        buf: B,
        fds: io::Result<Vec<OwnedFd>>,
    ) -> Result<B, BufError<B>> {
        if buf.buf_len() == 0 {
            let text = "an empty packet would look like the end of the connection";
            let error = io::Error::new(io::ErrorKind::InvalidInput, text);
            return Err(BufError { error, buf, done: 0 });
        }
        self.0.send(buf, None, fds).await
    }

    /// Receives one packet into `buf`, from its first byte, and sets its length to that: the count in
    /// the answer, where 0 is the end, or an empty packet of a foreign program, which the kernel does
    /// not tell apart.
    ///
    /// Dropping the future loses no packet: the next call gets it. Descriptors that came along are
    /// closed by the kernel, also if it is dropped. `IORING_OP_RECVMSG`, kernel 5.3.
    ///
    /// # Errors
    /// `InvalidData` with [`MessageTruncated`](crate::net::MessageTruncated) if `buf` was too small: the
    /// first `done` bytes are in it, and the rest is lost. `InvalidInput` if it has no capacity; what
    /// the kernel answers.
    pub async fn recv<B: IoBufMut>(&self, buf: B) -> BufResult<usize, B> {
        self.0.receive(buf, false).await.map(|(count, buf, _)| (count, buf))
    }

    /// As [`recv`](Self::recv), with the descriptors that came along, which are closed on exec.
    ///
    /// Dropping the future loses neither the packet nor its descriptors.
    ///
    /// # Errors
    /// As [`recv`](Self::recv); if the process may not have so many descriptors open, those that came
    /// are closed, and the packet is in the buffer of the error.
    pub async fn recv_with_fds<B: IoBufMut>(
        &self,
        buf: B,
    ) -> Result<(usize, B, Vec<OwnedFd>), BufError<B>> {
        self.0.receive(buf, true).await.map(|(count, buf, beside)| (count, buf, beside.fds))
    }

    /// Ends one direction or both, at once and for all who use the connection.
    ///
    /// # Errors
    /// `NotConnected`; what `shutdown` answers.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.0.shutdown(how)
    }

    /// Closes the connection once no operation refers to it, and says what the kernel said.
    ///
    /// # Errors
    /// What `close` answers; the descriptor is closed all the same.
    pub async fn close(self) -> io::Result<()> {
        self.0.close().await
    }

    /// Who is at the other end (`SO_PEERCRED`).
    ///
    /// # Errors
    /// What `getsockopt` answers.
    pub fn peer_cred(&self) -> io::Result<UCred> {
        UCred::of_peer(self.0.fd.raw())
    }

    /// The address of this end.
    ///
    /// # Errors
    /// What `getsockname` answers.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        socket::local_address(self.0.fd.raw())
    }

    /// The address of the other end.
    ///
    /// # Errors
    /// `NotConnected` if the other end is gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        socket::peer_address(self.0.fd.raw())
    }
}

impl AsFd for UnixSeqpacketListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.borrow()
    }
}

impl fmt::Debug for UnixSeqpacketListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnixSeqpacketListener").field("fd", &self.as_fd()).finish()
    }
}

impl AsFd for UnixSeqpacket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.borrow()
    }
}

impl fmt::Debug for UnixSeqpacket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnixSeqpacket").field("fd", &self.as_fd()).finish()
    }
}
