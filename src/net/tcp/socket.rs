//! A TCP socket that neither listens nor is connected yet, for those who choose its options first.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::listener::{Claim, TcpListener};
use super::stream::TcpStream;
use super::{attempts, connect};
use crate::driver::Call;
use crate::net::options;
use crate::sys::fd::Fd;

/// A TCP socket before it is connected or listens: with an address, a buffer, an option of its own.
///
/// `TCP_NODELAY` is on, and nothing else. [`TcpStream::connect`] and [`TcpListener::bind`] need no
/// socket of yours, try several addresses, and look names up; this one takes one address.
///
/// ```
/// use quoit::net::TcpSocket;
///
/// # quoit::runtime::run(async {
/// let socket = TcpSocket::new_v4()?;
/// socket.set_reuseaddr(true)?;
/// socket.bind("127.0.0.1:0".parse().unwrap())?;
/// let listener = socket.listen(1024)?;
///
/// let socket = TcpSocket::new_v4()?;
/// socket.set_recv_buffer_size(1 << 20)?;
/// socket.bind("127.0.0.2:0".parse().unwrap())?;
/// let client = quoit::spawn(socket.connect(listener.local_addr()?));
/// let (_server, peer) = listener.accept().await?;
/// assert_eq!(peer.ip().to_string(), "127.0.0.2");
/// # client.await.unwrap()?;
/// # std::io::Result::Ok(()) }).unwrap().unwrap();
/// ```
pub struct TcpSocket {
    fd: Fd,
}

impl TcpSocket {
    /// A socket for IPv4.
    ///
    /// # Errors
    /// What `socket` answers.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn new_v4() -> io::Result<TcpSocket> {
        TcpSocket::new(libc::AF_INET)
    }

    /// A socket for IPv6.
    ///
    /// # Errors
    /// What `socket` answers.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn new_v6() -> io::Result<TcpSocket> {
        TcpSocket::new(libc::AF_INET6)
    }

    fn new(domain: i32) -> io::Result<TcpSocket> {
        let fd = Fd::new(options::stream_socket_of(domain)?, ());
        let socket = TcpSocket { fd };
        socket.set_nodelay(true)?;
        Ok(socket)
    }

    /// Whether an address may be bound that closed connections still hold (`SO_REUSEADDR`).
    ///
    /// # Errors
    /// What `setsockopt` answers.
    pub fn set_reuseaddr(&self, on: bool) -> io::Result<()> {
        self.set(libc::SOL_SOCKET, libc::SO_REUSEADDR, on.into())
    }

    /// Whether it is so.
    ///
    /// # Errors
    /// What `getsockopt` answers.
    pub fn reuseaddr(&self) -> io::Result<bool> {
        Ok(self.get(libc::SOL_SOCKET, libc::SO_REUSEADDR)? != 0)
    }

    /// Whether other sockets with this option may have the same address (`SO_REUSEPORT`): those of
    /// another copy of the program as well, in silence.
    ///
    /// # Errors
    /// What `setsockopt` answers.
    pub fn set_reuseport(&self, on: bool) -> io::Result<()> {
        self.set(libc::SOL_SOCKET, libc::SO_REUSEPORT, on.into())
    }

    /// Whether it is so.
    ///
    /// # Errors
    /// What `getsockopt` answers.
    pub fn reuseport(&self) -> io::Result<bool> {
        Ok(self.get(libc::SOL_SOCKET, libc::SO_REUSEPORT)? != 0)
    }

    /// Asks for so many bytes of send buffer (`SO_SNDBUF`; the kernel doubles it).
    ///
    /// # Errors
    /// What `setsockopt` answers.
    pub fn set_send_buffer_size(&self, bytes: usize) -> io::Result<()> {
        self.set(libc::SOL_SOCKET, libc::SO_SNDBUF, options::clamp(bytes))
    }

    /// The size of the send buffer in bytes.
    ///
    /// # Errors
    /// What `getsockopt` answers.
    pub fn send_buffer_size(&self) -> io::Result<usize> {
        Ok(self.get(libc::SOL_SOCKET, libc::SO_SNDBUF)?.max(0) as usize)
    }

    /// Asks for so many bytes of receive buffer (`SO_RCVBUF`; the kernel doubles it). Set before the
    /// connection is there, it also bounds the window that is agreed on.
    ///
    /// # Errors
    /// What `setsockopt` answers.
    pub fn set_recv_buffer_size(&self, bytes: usize) -> io::Result<()> {
        self.set(libc::SOL_SOCKET, libc::SO_RCVBUF, options::clamp(bytes))
    }

    /// The size of the receive buffer in bytes.
    ///
    /// # Errors
    /// What `getsockopt` answers.
    pub fn recv_buffer_size(&self) -> io::Result<usize> {
        Ok(self.get(libc::SOL_SOCKET, libc::SO_RCVBUF)?.max(0) as usize)
    }

    /// Probes an idle connection after `idle`, whole seconds (`SO_KEEPALIVE`); `None` switches it
    /// off. Accepted connections inherit it.
    ///
    /// # Errors
    /// What `setsockopt` answers.
    pub fn set_keepalive(&self, idle: Option<Duration>) -> io::Result<()> {
        options::set_keepalive(self.fd.raw(), idle)
    }

    /// Switches `TCP_NODELAY`, which is on. Accepted connections inherit it.
    ///
    /// # Errors
    /// What `setsockopt` answers.
    pub fn set_nodelay(&self, on: bool) -> io::Result<()> {
        self.set(libc::IPPROTO_TCP, libc::TCP_NODELAY, on.into())
    }

    /// Whether small writes are sent at once.
    ///
    /// # Errors
    /// What `getsockopt` answers.
    pub fn nodelay(&self) -> io::Result<bool> {
        Ok(self.get(libc::IPPROTO_TCP, libc::TCP_NODELAY)? != 0)
    }

    /// Gives this end its address; with port 0 the kernel chooses one.
    ///
    /// # Errors
    /// `AddrInUse` if somebody has it (the text says who, if that can be seen); what `bind` answers.
    pub fn bind(&self, address: SocketAddr) -> io::Result<()> {
        options::bind(self.fd.raw(), address)
    }

    /// The address of this end.
    ///
    /// # Errors
    /// What `getsockname` answers.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        options::local_address(&self.fd)
    }

    /// Connects to `address`.
    ///
    /// Dropping the future gives the attempt up and closes the socket. `IORING_OP_CONNECT`, kernel
    /// 5.5.
    ///
    /// # Errors
    /// What `connect` answers; the text names the address.
    pub async fn connect(self, address: SocketAddr) -> io::Result<TcpStream> {
        let connected = connect::with(self.fd, address).await;
        connected
            .map(|fd| TcpStream::new(options::only(fd)))
            .map_err(|error| attempts::explain(address, error))
    }

    /// Listens; so many connections may wait for an accept, but no more than `somaxconn`.
    ///
    /// It is this core's alone: cores that share an address by
    /// [`set_reuseport`](TcpSocket::set_reuseport) do so on their own account.
    ///
    /// # Errors
    /// What `listen` answers.
    pub fn listen(self, backlog: u32) -> io::Result<TcpListener> {
        let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
        let fd = self.fd.raw();
        options::ring("listen", |ring| ring.call(Call::Listen { fd, backlog }))?;
        Ok(TcpListener::new(options::only(self.fd), Claim::None))
    }

    fn get(&self, level: i32, name: i32) -> io::Result<i32> {
        options::get(self.fd.raw(), level, name)
    }

    fn set(&self, level: i32, name: i32, value: i32) -> io::Result<()> {
        options::set(self.fd.raw(), level, name, value)
    }
}

impl AsFd for TcpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.borrow()
    }
}

impl fmt::Debug for TcpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpSocket").field("fd", &self.as_fd()).finish()
    }
}
