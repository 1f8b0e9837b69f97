//! A listening socket.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::Location;
use std::path::Path;

use super::stream::TcpStream;
use crate::net::accept::{self, State};
use crate::net::ports::{Protocol, Share};
use crate::net::{ToAddresses, names, options};
use crate::op;
use crate::sys::current;
use crate::sys::fd::{Fd, OwnedFd};
use crate::sys::fork::{self, Forked};
use crate::sys::listeners;

/// Connections that the kernel keeps for a listener until they are accepted; `somaxconn` may be less.
const BACKLOG: i32 = 4096;

/// Accepts TCP connections.
///
/// Under [`start_per_core`](crate::runtime::start_per_core) each core binds the same address and
/// gets a socket of its own (`SO_REUSEPORT`), among which the kernel spreads the connections. A
/// second copy of the program is refused (`AddrInUse`) and cannot take half of them in silence.
///
/// ```
/// use quoit::net::{TcpListener, TcpStream};
///
/// # quoit::runtime::run(async {
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let client = quoit::spawn(TcpStream::connect(listener.local_addr()?));
/// let (server, peer) = listener.accept().await?;
/// assert_eq!(client.await.unwrap()?.local_addr()?, peer);
/// # drop(server);
/// # std::io::Result::Ok(()) }).unwrap().unwrap();
/// ```
pub struct TcpListener {
    fd: Fd<State<Claim>>,
}

/// By what a listener has its address.
pub(super) enum Claim {
    /// By nothing that others know of.
    None,
    /// It is a core's share of one that the cores of a start bind together.
    Share(Share),
}

impl TcpListener {
    pub(super) fn new(fd: OwnedFd, claim: Claim) -> Self {
        TcpListener { fd: Fd::new(fd, State::new(claim)) }
    }

    /// Listens on the first of the addresses that can be bound.
    ///
    /// Port 0 lets the kernel choose, and all cores get the same. `TCP_NODELAY` is switched on, and
    /// accepted connections inherit it.
    ///
    /// # Errors
    /// `AddrInUse` if somebody listens there (the text says which process, if that can be seen);
    /// `PermissionDenied` for a port that is kept for the privileged; `InvalidInput` for what is no
    /// address; what `socket`, `bind` and `listen` answer.
    ///
    /// # Panics
    /// Outside of a runtime, when it is first polled.
    #[track_caller]
    pub fn bind(addresses: impl ToAddresses) -> impl Future<Output = io::Result<TcpListener>> {
        let caller = Location::caller();
        async move {
            if fork::forked() {
                // What is bound is kept under a lock, which a thread of the parent may have held.
                return Err(Forked.into());
            }
            op::assert_inside("TcpListener::bind", caller);
            TcpListener::bind_first(names::resolve(&addresses).await?).await
        }
    }

    async fn bind_first(addresses: Vec<SocketAddr>) -> io::Result<TcpListener> {
        let mut last = io::Error::new(io::ErrorKind::InvalidInput, "there is no address to bind");
        for address in addresses {
            Share::predecessors_left(Protocol::Tcp, address).await;
            match TcpListener::bind_one(address) {
                Ok(listener) => return Ok(listener),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
        let mut is_first = false;
        let (fd, share) = Share::bind(Protocol::Tcp, address, |address, is_ours| {
            is_first = !is_ours;
            // Without SO_REUSEPORT this is refused if anybody else has the address.
            let probe = (!is_ours).then(|| bound(address, false)).transpose()?;
            let address = match &probe {
                Some(probe) => options::local_address(probe)?,
                None => address,
            };
            let fd = bound(address, true)?;
            let backlog = BACKLOG;
            let raw = fd.raw();
            options::ring("listen", |ring| {
                ring.call(crate::driver::Call::Listen { fd: raw, backlog })
            })?;
            Ok((fd, address))
        })?;
        if is_first {
            warn_of_a_short_backlog();
        }
        Ok(TcpListener::new(options::only(fd), Claim::Share(share)))
    }

    /// Waits for a connection, and says who it is from.
    ///
    /// Dropping the future loses no connection: the next call gets it. Calls take turns, first come
    /// first served. When the process is out of descriptors it waits until one is free, without
    /// spinning; a connection that its peer has already given up is passed over.
    ///
    /// `IORING_OP_ACCEPT`, multishot: kernel 5.19.
    ///
    /// # Errors
    /// What makes the listener useless; it is not worth another try.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        loop {
            let stream = TcpStream::new(accept::accept(&self.fd).await?);
            // The peer may be gone already; that is no fault of the listener.
            if let Ok(peer) = stream.peer_addr() {
                return Ok((stream, peer));
            }
        }
    }

    /// The address that is listened on.
    ///
    /// # Errors
    /// What `getsockname` answers.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        options::local_address(&self.fd)
    }

    /// Stops listening, and waits until the address is free.
    ///
    /// Connections that were not accepted are closed. Dropping the listener does the same without
    /// waiting.
    ///
    /// # Errors
    /// What `close` answers; the descriptor is closed all the same.
    pub async fn close(self) -> io::Result<()> {
        self.fd.disarm();
        let fd = self.fd.clone();
        drop(self);
        let fd: OwnedFd = fd.alone().await;
        fd.close()
    }
}

/// Says, once for all cores, that the machine keeps fewer connections than were asked for.
fn warn_of_a_short_backlog() {
    if let Some(longest) = listeners::longest_backlog(Path::new("/"))
        && longest < BACKLOG as u64
    {
        let line = format!(
            "net.core.somaxconn is {longest}: so many connections wait for an accept at most, not \
             {BACKLOG}; in a burst, the others have to try again. `sudo sysctl net.core.somaxconn={BACKLOG}` raises it"
        );
        current::core(|core| core.log.line(&line));
    }
}

/// A socket that is bound, and does not listen yet.
fn bound(address: SocketAddr, shared: bool) -> io::Result<Fd> {
    let fd = options::stream_socket(&address)?;
    options::set(fd.raw(), libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    options::set(fd.raw(), libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    if shared {
        options::set(fd.raw(), libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    }
    options::bind(fd.raw(), address)?;
    Ok(Fd::new(fd, ()))
}

impl AsFd for TcpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.borrow()
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        if let Claim::Share(share) = &self.fd.family {
            share.retire();
        }
        self.fd.disarm();
    }
}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpListener").field("fd", &self.as_fd()).finish()
    }
}
