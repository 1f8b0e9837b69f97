//! A socket that accepts streams.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::SocketAddr;
use std::panic::Location;
use std::path::Path;

use super::listening::{Choices, Listening};
use super::seqpacket::UnixSeqpacketListener;
use super::socket;
use super::stream::UnixStream;
use crate::op;

/// Connections that the kernel keeps for a listener until they are accepted; `somaxconn` may be less.
const BACKLOG: i32 = 4096;

/// Accepts connections of processes on the same machine.
///
/// An address is a path, or a name without a file (abstract: it is gone with its socket, and seen
/// within the network namespace, by all users).
///
/// The file at a path is made by the bind, with the rights that the umask leaves, and stays when the
/// listener is gone: nothing is removed or replaced in silence, so the next bind is refused
/// (`AddrInUse`, and the text says that the file is stale). [`options`](Self::options) has both done.
///
/// Under [`start_per_core`](crate::runtime::start_per_core) each core binds the same address: the
/// first makes the socket, and the others get descriptors of the same one. All have an accept in
/// flight on it, of which the kernel wakes one for a connection; a busy core leaves connections to
/// the others. It is closed when the last core drops its listener.
///
/// ```
/// use quoit::net::{UnixListener, UnixStream};
/// use std::os::linux::net::SocketAddrExt;
/// use std::os::unix::net::SocketAddr;
///
/// # quoit::runtime::run(async {
/// let name = format!("quoit of {}", std::process::id());
/// let address = SocketAddr::from_abstract_name(name)?;
/// let listener = UnixListener::bind_addr(&address).await?;
/// let client = quoit::spawn(UnixStream::connect_addr(address));
/// let (server, _) = listener.accept().await?;
/// client.await.unwrap()?.write_all("hello").await?;
/// assert_eq!(server.read_exact(vec![0; 5]).await?, b"hello");
/// # std::io::Result::Ok(()) }).unwrap().unwrap();
/// ```
pub struct UnixListener(Listening);

impl UnixListener {
    /// Listens at a path.
    ///
    /// # Errors
    /// `AddrInUse` if something is there: the text says whether it is a stale file or somebody who
    /// listens, and how to mend it. `InvalidInput` for a path of more than 107 bytes; what `socket`,
    /// `bind` and `listen` answer.
    ///
    /// # Panics
    /// Outside of a runtime, when it is first polled.
    #[track_caller]
    pub fn bind<P: AsRef<Path>>(
        path: P,
    ) -> impl Future<Output = io::Result<UnixListener>> + use<P> {
        UnixListener::options().bind(path)
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
    ) -> impl Future<Output = io::Result<UnixListener>> + use<> {
        UnixListener::options().bind_addr(address)
    }

    /// Other ways to listen.
    pub fn options() -> UnixListenerOptions {
        UnixListenerOptions::new()
    }

    /// Takes over a listener of the standard library, such as one that was inherited. It must be
    /// used on this core alone; its file is not touched.
    ///
    /// # Errors
    /// What `fcntl` answers.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn from_std(listener: std::os::unix::net::UnixListener) -> io::Result<UnixListener> {
        listener.set_nonblocking(false)?;
        Ok(UnixListener(Listening::inherit(listener.into())))
    }

    /// Waits for a connection, and says from which address; most clients have none.
    ///
    /// Dropping the future loses no connection: the next call gets it. Calls take turns, first come
    /// first served. When the process is out of descriptors it waits until one is free.
    ///
    /// `IORING_OP_ACCEPT`, multishot: kernel 5.19.
    ///
    /// # Errors
    /// What makes the listener useless; it is not worth another try.
    pub async fn accept(&self) -> io::Result<(UnixStream, SocketAddr)> {
        let (connection, peer) = self.0.accept().await?;
        Ok((UnixStream::new(connection), peer))
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
    /// Connections that were not accepted are closed, unless another core listens on. Dropping the
    /// listener does the same without waiting.
    ///
    /// # Errors
    /// What `close` answers; the descriptor is closed all the same.
    pub async fn close(self) -> io::Result<()> {
        self.0.close().await
    }
}

/// How a [`UnixListener`] or a [`UnixSeqpacketListener`] is to listen.
///
/// ```
/// use quoit::net::{UnixListener, UnixStream};
///
/// # quoit::runtime::run(async {
/// let path = std::env::temp_dir().join(format!("quoit-{}.socket", std::process::id()));
/// drop(std::os::unix::net::UnixListener::bind(&path)?); // it leaves its file behind
/// let listener =
///     UnixListener::options().replace_stale(true).remove_on_drop(true).bind(&path).await?;
/// let client = UnixStream::connect(&path).await?;
/// # drop(client);
/// drop(listener);
/// assert!(!path.exists());
/// # std::io::Result::Ok(()) }).unwrap().unwrap();
/// ```
#[derive(Debug, Clone)]
#[must_use = "options do nothing until something is bound with them"]
pub struct UnixListenerOptions(Choices);

impl Default for UnixListenerOptions {
    fn default() -> Self {
        UnixListenerOptions::new()
    }
}

impl UnixListenerOptions {
    /// As [`UnixListener::bind`] listens.
    pub fn new() -> Self {
        UnixListenerOptions(Choices {
            backlog: BACKLOG,
            replaces_stale: false,
            removes_on_drop: false,
        })
    }

    /// Whether a file that a dead socket has left at the path is replaced.
    ///
    /// A socket that somebody has bound is never replaced, nor a file that is no socket. Programs
    /// that do this at the same time do not remove each other's sockets: they take turns by a lock
    /// (`flock`) on the directory. The socket of a process that was killed stays bound for some
    /// milliseconds, until the kernel has taken its ring apart: to bind there meanwhile gives
    /// `AddrInUse`.
    pub fn replace_stale(mut self, yes: bool) -> Self {
        self.0.replaces_stale = yes;
        self
    }

    /// Whether the file is removed when the listener is dropped or closed, by the last core that
    /// does so; only if it is still the one that was made, and only inside of the runtime.
    pub fn remove_on_drop(mut self, yes: bool) -> Self {
        self.0.removes_on_drop = yes;
        self
    }

    /// How many connections may wait to be accepted, 4096 unless set; `net.core.somaxconn` may be
    /// less. Clients wait while there is no room.
    pub fn backlog(mut self, connections: u32) -> Self {
        self.0.backlog = i32::try_from(connections).unwrap_or(i32::MAX);
        self
    }

    /// Listens at a path.
    ///
    /// # Errors
    /// As [`UnixListener::bind`]; `ResourceBusy` if a stale file is to be replaced and somebody keeps
    /// the directory locked for more than a second.
    ///
    /// # Panics
    /// Outside of a runtime, when it is first polled.
    #[track_caller]
    pub fn bind<P: AsRef<Path>>(
        &self,
        path: P,
    ) -> impl Future<Output = io::Result<UnixListener>> + use<P> {
        let listening = self.listen(libc::SOCK_STREAM, socket::at_path(path.as_ref()));
        async move { listening.await.map(UnixListener) }
    }

    /// Listens at a path or on an abstract name.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    ///
    /// # Panics
    /// Outside of a runtime, when it is first polled.
    #[track_caller]
    pub fn bind_addr(
        &self,
        address: &SocketAddr,
    ) -> impl Future<Output = io::Result<UnixListener>> + use<> {
        let listening = self.listen(libc::SOCK_STREAM, Ok(address.clone()));
        async move { listening.await.map(UnixListener) }
    }

    /// Listens for packets, at a path.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    ///
    /// # Panics
    /// Outside of a runtime, when it is first polled.
    #[track_caller]
    pub fn bind_seqpacket<P: AsRef<Path>>(
        &self,
        path: P,
    ) -> impl Future<Output = io::Result<UnixSeqpacketListener>> + use<P> {
        let listening = self.listen(libc::SOCK_SEQPACKET, socket::at_path(path.as_ref()));
        async move { listening.await.map(UnixSeqpacketListener) }
    }

    /// Listens for packets, at a path or on an abstract name.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    ///
    /// # Panics
    /// Outside of a runtime, when it is first polled.
    #[track_caller]
    pub fn bind_seqpacket_addr(
        &self,
        address: &SocketAddr,
    ) -> impl Future<Output = io::Result<UnixSeqpacketListener>> + use<> {
        let listening = self.listen(libc::SOCK_SEQPACKET, Ok(address.clone()));
        async move { listening.await.map(UnixSeqpacketListener) }
    }

    #[track_caller]
    fn listen(
        &self,
        kind: i32,
        address: io::Result<SocketAddr>,
    ) -> impl Future<Output = io::Result<Listening>> + use<> {
        let (caller, choices) = (Location::caller(), self.0.clone());
        async move {
            op::assert_inside("a bind of a Unix listener", caller);
            Listening::bind(kind, &address?, &choices).await
        }
    }
}

impl AsFd for UnixListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.borrow()
    }
}

impl fmt::Debug for UnixListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnixListener").field("fd", &self.as_fd()).finish()
    }
}
