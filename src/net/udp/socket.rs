//! A socket of datagrams.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd};
use std::panic::Location;

use super::receive::{self, Inbound};
use super::send::{self, Outbound};
use super::{Message, State};
use crate::buf::{BufResult, IoBuf, IoBufMut};
use crate::net::ports::{Protocol, Share};
use crate::net::{Datagram, ToAddresses, connect, names, options};
use crate::op;
use crate::sys::addr::Address;
use crate::sys::fd::{Fd, OwnedFd};
use crate::sys::fork::{self, Forked};

/// Sends and receives datagrams by UDP.
///
/// Under [`start_per_core`](crate::runtime::start_per_core) each core binds the same address and gets
/// a socket of its own (`SO_REUSEPORT`), among which the kernel spreads the senders: all datagrams of
/// one come to the same core. A second copy of the program is refused (`AddrInUse`) and cannot take
/// half of them in silence. Port 0 is another matter: each socket gets a port that is its alone, so
/// that answers to what it sends come back to it.
///
/// All methods take `&self`: sending and receiving at the same time needs no split and no lock.
/// Receivers take turns, first come first served.
///
/// # Nothing is cut, nothing is lost
///
/// [`recv_datagram`](Self::recv_datagram) brings a datagram whole, whatever its size. A call that was
/// given a buffer fails with `EMSGSIZE` when a datagram is larger: it is never cut in silence.
/// Dropping a receive loses no datagram that has arrived, and moves no boundary. What UDP itself loses
/// is lost: on the way, and when the socket's [buffer](Self::set_recv_buffer_size) is full.
///
/// # The order of sends
///
/// A datagram is sent whole or not at all, and several calls may be in flight at a time. They are sent
/// in the order in which they were polled first, as long as the socket's buffer has room; what has to
/// wait for room may be overtaken. A call that is awaited before the next is made is never overtaken.
///
/// ```
/// use quoit::net::UdpSocket;
///
/// # quoit::runtime::run(async {
/// let server = UdpSocket::bind("127.0.0.1:0").await?;
/// let client = UdpSocket::bind("127.0.0.1:0").await?;
/// client.connect(server.local_addr()?).await?;
/// client.send("hello").await?;
///
/// let datagram = server.recv_datagram().await?; // a lease on a buffer of the core
/// let from = datagram.from();
/// server.send_to(datagram, from).await?; // sent as it is, without a copy
///
/// let (count, buf) = client.recv(vec![0; 100]).await?;
/// assert_eq!(&buf[..count], b"hello");
/// # std::io::Result::Ok(()) }).unwrap().unwrap();
/// ```
pub struct UdpSocket {
    pub(super) fd: Fd<State>,
}

impl UdpSocket {
    /// Binds the first of the addresses that can be bound.
    ///
    /// # Errors
    /// `AddrInUse` if somebody has the port; `PermissionDenied` for a port that is kept for the
    /// privileged; `InvalidInput` for what is no address; what `socket` and `bind` answer.
    ///
    /// # Panics
    /// Outside of a runtime, when it is first polled.
    #[track_caller]
    pub fn bind(addresses: impl ToAddresses) -> impl Future<Output = io::Result<UdpSocket>> {
        let caller = Location::caller();
        async move {
            if fork::forked() {
                // What is bound is kept under a lock, which a thread of the parent may have held.
                return Err(Forked.into());
            }
            op::assert_inside("UdpSocket::bind", caller);
            UdpSocket::bind_first(names::resolve(&addresses).await?).await
        }
    }

    async fn bind_first(addresses: Vec<SocketAddr>) -> io::Result<UdpSocket> {
        let mut last = io::Error::new(io::ErrorKind::InvalidInput, "there is no address to bind");
        for address in addresses {
            if address.port() != 0 {
                Share::predecessors_left(Protocol::Udp, address).await;
            }
            match UdpSocket::bind_one(address) {
                Ok(socket) => return Ok(socket),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn bind_one(address: SocketAddr) -> io::Result<UdpSocket> {
        if address.port() == 0 {
            let fd = options::datagram_socket(&address)?;
            options::bind(fd.raw(), address)?;
            return Ok(UdpSocket::new(fd, address.is_ipv6(), None));
        }
        let (fd, share) = Share::bind(Protocol::Udp, address, |address, is_ours| {
            let fd = options::datagram_socket(&address)?;
            let share = || options::set(fd.raw(), libc::SOL_SOCKET, libc::SO_REUSEPORT, 1);
            // The first bind goes without the flag: it is refused if anybody else has the address.
            if is_ours {
                share()?;
            }
            options::bind(fd.raw(), address)?;
            if !is_ours {
                share()?;
            }
            Ok((fd, address))
        })?;
        Ok(UdpSocket::new(fd, address.is_ipv6(), Some(share)))
    }

    fn new(fd: OwnedFd, is_ipv6: bool, share: Option<Share>) -> Self {
        let (inbound, outbound) = (Inbound::default(), Outbound::default());
        UdpSocket { fd: Fd::new(fd, State { share, is_ipv6, inbound, outbound }) }
    }

    /// Gives the socket one peer, the first of the addresses that it can have: [`send`](Self::send)
    /// goes there, and nothing is received from anybody else.
    ///
    /// It sends nothing. Datagrams of others that had arrived before are still received.
    /// `IORING_OP_CONNECT`, kernel 5.5.
    ///
    /// # Errors
    /// `InvalidInput` for what is no address; those of a lookup; `NetworkUnreachable`; otherwise what the last attempt
    /// came to.
    pub async fn connect(&self, addresses: impl ToAddresses) -> io::Result<()> {
        let mut last = io::Error::new(io::ErrorKind::InvalidInput, "there is no address");
        for address in names::resolve(&addresses).await? {
            match connect::begin(self.fd.clone(), Address::from(address)).await {
                Ok(_) => return Ok(()),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The next datagram, whole, and what came with it: a lease on a buffer of the core.
    ///
    /// An idle socket holds no buffer. The first call starts a receive that belongs to the socket:
    /// dropping the future loses nothing, and what arrives meanwhile waits for the next call, up to 64
    /// datagrams here and more in the kernel.
    ///
    /// `IORING_OP_RECVMSG`, multishot with provided buffers: kernel 6.0. When the core has no buffer
    /// left, a receive into heap memory.
    ///
    /// # Errors
    /// What the kernel answers. `ConnectionRefused` of a connected socket says that nobody was there
    /// for what was sent before; the socket is as good as it was.
    pub fn recv_datagram(&self) -> impl Future<Output = io::Result<Datagram>> {
        receive::receive(&self.fd)
    }

    /// Receives a datagram into `buf`, from its first byte, and sets its length to that: the count in
    /// the answer, which is 0 for an empty datagram, and who sent it.
    ///
    /// It receives as [`recv_datagram`](Self::recv_datagram) does, and copies. Dropping the future
    /// loses no datagram, only the buffer.
    ///
    /// # Errors
    /// `EMSGSIZE` if the datagram is larger than the buffer: `done` bytes of it are there, the rest is
    /// lost. As [`recv_datagram`](Self::recv_datagram). The buffer comes back.
    pub fn recv_from<B: IoBufMut>(
        &self,
        buf: B,
    ) -> impl Future<Output = BufResult<(usize, SocketAddr), B>> {
        receive::receive_into(&self.fd, buf)
    }

    /// As [`recv_from`](Self::recv_from), without saying who sent it: for a connected socket.
    ///
    /// # Errors
    /// As [`recv_from`](Self::recv_from).
    pub async fn recv<B: IoBufMut>(&self, buf: B) -> BufResult<usize, B> {
        let ((count, _), buf) = receive::receive_into(&self.fd, buf).await?;
        Ok((count, buf))
    }

    /// As [`recv_from`](Self::recv_from), and the next receive gets the same datagram again, whole.
    ///
    /// # Errors
    /// As [`recv_from`](Self::recv_from); nothing is lost if the datagram is larger than the buffer.
    pub fn peek_from<B: IoBufMut>(
        &self,
        buf: B,
    ) -> impl Future<Output = BufResult<(usize, SocketAddr), B>> {
        receive::peek_into(&self.fd, buf)
    }

    /// Sends `buf` as one datagram to this address. The count is its length.
    ///
    /// Dropping the future may cancel the send; the datagram is then sent whole or not at all.
    /// `IORING_OP_SENDMSG`, kernel 5.3.
    ///
    /// # Errors
    /// `EMSGSIZE` for more than 65,507 bytes (65,527 by IPv6); `NetworkUnreachable`;
    /// `PermissionDenied` for a broadcast that was not [permitted](Self::set_broadcast); what the
    /// kernel answers. The buffer comes back.
    pub fn send_to<B: IoBuf>(
        &self,
        buf: B,
        to: impl Into<SocketAddr>,
    ) -> impl Future<Output = BufResult<usize, B>> {
        send::send_message(&self.fd, buf, Message::to(to))
    }

    /// Sends `buf` as one datagram to the peer of a connected socket.
    ///
    /// As [`send_to`](Self::send_to). `IORING_OP_SEND`, kernel 5.6.
    ///
    /// # Errors
    /// As [`send_to`](Self::send_to); `EDESTADDRREQ` if the socket is not connected;
    /// `ConnectionRefused` if nobody was there for what was sent before. Then nothing was sent, and the
    /// socket is as good as it was.
    pub fn send<B: IoBuf>(&self, buf: B) -> impl Future<Output = BufResult<usize, B>> {
        send::send(&self.fd, buf)
    }

    /// Sends `buf` as a message says: to whom, from where, marked, cut into datagrams.
    ///
    /// As [`send_to`](Self::send_to). `IORING_OP_SENDMSG`, kernel 5.3.
    ///
    /// # Errors
    /// As [`send_to`](Self::send_to). `InvalidInput` for an address or an interface that it cannot be
    /// sent from, for more segments than the kernel makes, and for segments that do not fit into a
    /// packet of the route.
    pub fn send_msg<B: IoBuf>(
        &self,
        buf: B,
        message: Message,
    ) -> impl Future<Output = BufResult<usize, B>> {
        send::send_message(&self.fd, buf, message)
    }

    /// The address of the socket.
    ///
    /// # Errors
    /// What `getsockname` answers.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        options::local_address(&self.fd)
    }

    /// The address of the peer.
    ///
    /// # Errors
    /// `NotConnected` if there is none.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        options::peer_address(&self.fd)
    }

    /// Closes the socket, and waits until its address is free.
    ///
    /// Datagrams that were not received are lost. It waits until no operation refers to the socket.
    /// Dropping the socket does the same without waiting.
    ///
    /// # Errors
    /// What `close` answers; the descriptor is closed all the same.
    pub async fn close(self) -> io::Result<()> {
        self.fd.inbound.disarm();
        let fd = self.fd.clone();
        drop(self);
        fd.alone().await.close()
    }

    /// Takes over a socket of the standard library. It must be used on this core alone.
    ///
    /// # Errors
    /// What `getsockname` and `fcntl` answer.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn from_std(socket: std::net::UdpSocket) -> io::Result<UdpSocket> {
        let is_ipv6 = socket.local_addr()?.is_ipv6();
        socket.set_nonblocking(false)?;
        let raw = socket.into_raw_fd();
        let fd = options::ring("UdpSocket::from_std", |ring| ring.adopt(raw));
        Ok(UdpSocket::new(fd, is_ipv6, None))
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.borrow()
    }
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        if let Some(share) = &self.fd.share {
            share.retire();
        }
        self.fd.inbound.disarm();
    }
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpSocket").field("fd", &self.as_fd()).finish()
    }
}
