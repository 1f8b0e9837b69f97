//! A listening socket.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::Location;
use std::path::Path;
use std::task::Poll;

use super::common::{Leading, Member};
use super::stream::TcpStream;
use crate::driver::Call;
use crate::net::accept::{self, State};
use crate::net::ports::{Protocol, Share};
use crate::net::{ToAddresses, names, options};
use crate::op;
use crate::sys::current;
use crate::sys::fd::{Fd, OwnedFd};
use crate::sys::fork::{self, Forked};
use crate::sys::overdue::or_timed_out;
use crate::sys::{inherited, listeners};

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
    /// The cores of a start have one socket.
    Member(Member),
    /// It accepts for all of them.
    Leading(#[expect(dead_code, reason = "it leads until it is dropped")] Leading),
}

/// How the cores that were started together share a listener's connections.
///
/// ```
/// use quoit::net::{Accept, TcpListener};
///
/// # quoit::runtime::run(async {
/// let listener = TcpListener::bind_with("127.0.0.1:0", Accept::Distributed).await?;
/// # std::io::Result::Ok(()) }).unwrap().unwrap();
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Accept {
    /// One socket for each core (`SO_REUSEPORT`): the kernel spreads the connections by a hash of
    /// their addresses, at no cost, and evenly when there are many. A connection stays with its core,
    /// however busy that is, and what waits at a core that ends is lost.
    #[default]
    PerCore,
    /// One socket for all cores: whichever is free first accepts, so no connection waits for a busy
    /// core while another one is idle (one at most, which came while that core was asking). Nothing
    /// makes it even, and all cores take the same lock in the kernel.
    Shared,
    /// One core accepts for all, and hands each connection to the core at which the fewest wait, in
    /// turn where that is equal: even to the last one, also for few connections that live long. A
    /// connection costs a wake of another core more. When that core's listener goes, another takes
    /// its place.
    Distributed,
}

impl TcpListener {
    pub(super) fn new(fd: OwnedFd, claim: Claim) -> Self {
        let fellow = match &claim {
            Claim::Member(member) => member.fellow(),
            _ => None,
        };
        TcpListener { fd: Fd::new(fd, State::among(fellow, claim)) }
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
            TcpListener::bind_first(names::resolve(&addresses).await?, Accept::PerCore).await
        }
    }

    /// As [`bind`](Self::bind), and says how the cores that were started together share the
    /// connections. All of them say the same.
    ///
    /// # Errors
    /// As [`bind`](Self::bind), and `InvalidInput` if another core has said otherwise.
    ///
    /// # Panics
    /// As [`bind`](Self::bind).
    #[track_caller]
    pub fn bind_with(
        addresses: impl ToAddresses,
        accept: Accept,
    ) -> impl Future<Output = io::Result<TcpListener>> {
        let caller = Location::caller();
        async move {
            if fork::forked() {
                return Err(Forked.into());
            }
            op::assert_inside("TcpListener::bind_with", caller);
            TcpListener::bind_first(names::resolve(&addresses).await?, accept).await
        }
    }

    async fn bind_first(addresses: Vec<SocketAddr>, accept: Accept) -> io::Result<TcpListener> {
        let mut last = io::Error::new(io::ErrorKind::InvalidInput, "there is no address to bind");
        for address in addresses {
            predecessors_left(address).await;
            let bound = match accept {
                Accept::PerCore => TcpListener::bind_one(address),
                Accept::Shared => TcpListener::bind_common(address, false),
                Accept::Distributed => TcpListener::bind_common(address, true),
            };
            match bound {
                Ok(listener) => return Ok(listener),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The listeners that this process has inherited under a name: from a service manager that speaks
    /// systemd's protocol (`LISTEN_FDS`), or from a predecessor that [hands
    /// over](crate::net::HandOver). Names are those of `FileDescriptorName=`, or `unknown`.
    ///
    /// There may be several of one name: all of them are returned, and all should be accepted from.
    /// Under [`start_per_core`](crate::runtime::start_per_core) every core calls this and shares each
    /// of them, as [`Accept::Shared`]. A socket that no core has any more is closed, and found no
    /// more. They have the options that they came with.
    ///
    /// # Errors
    /// `NotFound` if there is none of this name; `InvalidData` if the environment does not fit what is
    /// open; `InvalidInput` if one is not a TCP socket that listens; `AddrInUse` if this core has it
    /// already.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn inherited(name: &str) -> io::Result<Vec<TcpListener>> {
        if fork::forked() {
            return Err(Forked.into());
        }
        if current::id().is_none() {
            op::outside("TcpListener::inherited");
        }
        let mut listeners = Vec::new();
        for (index, one) in inherited::all()?.iter_mut().enumerate() {
            if one.name != name {
                continue;
            }
            if let Some((fd, member)) = Member::join_inherited(index, &mut one.fd)? {
                listeners.push(TcpListener::new(fd, Claim::Member(member)));
            }
        }
        if listeners.is_empty() {
            let text = format!("this process has inherited no listener called {name:?}");
            return Err(io::Error::new(io::ErrorKind::NotFound, text));
        }
        Ok(listeners)
    }

    fn bind_common(address: SocketAddr, distributed: bool) -> io::Result<TcpListener> {
        let bind = || {
            let fd = options::only(bound(address, false)?);
            let (raw, backlog) = (fd.raw(), BACKLOG);
            options::ring("listen", |ring| ring.call(Call::Listen { fd: raw, backlog }))?;
            warn_of_a_short_backlog();
            let fd = Fd::new(fd, ());
            let address = options::local_address(&fd)?;
            Ok((options::only(fd), address))
        };
        let (fd, member) = Member::join(address, distributed, bind)?;
        Ok(TcpListener::new(fd, Claim::Member(member)))
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
            options::ring("listen", |ring| ring.call(Call::Listen { fd: raw, backlog }))?;
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
    /// `IORING_OP_ACCEPT`, kernel 5.5; multishot (5.19) where one core accepts without a limit.
    ///
    /// # Errors
    /// What makes the listener useless; it is not worth another try.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        loop {
            let stream = self.accept_stream().await?;
            // The peer may be gone already; that is no fault of the listener.
            if let Ok(peer) = stream.peer_addr() {
                return Ok((stream, peer));
            }
        }
    }

    /// As [`accept`](Self::accept), for who does not ask who it is from: that is a system call of its
    /// own, 2 % of what a short connection costs. [`TcpStream::peer_addr`] has the answer later. A
    /// connection that its peer has already given up is not passed over; its first read says so.
    ///
    /// # Errors
    /// As of [`accept`](Self::accept).
    ///
    /// ```
    /// # use quoit::net::{TcpListener, TcpStream};
    /// # quoit::runtime::run(async {
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// let client = TcpStream::connect(listener.local_addr()?).await?;
    /// let server = listener.accept_stream().await?;
    /// server.write_all("hello").await?;
    /// assert_eq!(&client.read_exact([0; 5]).await?, b"hello");
    /// # std::io::Result::Ok(()) }).unwrap().unwrap();
    /// ```
    pub async fn accept_stream(&self) -> io::Result<TcpStream> {
        let accepted = async {
            match &self.fd.family {
                Claim::Member(member) if member.is_distributed() => member.next(&self.fd).await,
                _ => accept::accept(&self.fd).await,
            }
        };
        Ok(TcpStream::new(or_timed_out(accepted).await?))
    }

    /// Accepts no more while `count` connections of this listener are open on this core; the kernel's
    /// backlog holds the others, until one is closed.
    ///
    /// It counts connections that are accepted from now on, those included that wait for
    /// [`accept`](Self::accept), and is exact when it is set before the first `accept`. It is a
    /// core's own: under [`start_per_core`](crate::runtime::start_per_core) each core has so many.
    /// With [`Accept::Distributed`] some 256 more may have been accepted and wait for a core with
    /// room. Each connection is then accepted by a request of its own.
    ///
    /// # Errors
    /// When 65,535 listeners of the core have a limit already.
    ///
    /// # Panics
    /// If `count` is 0.
    ///
    /// ```
    /// use quoit::net::TcpListener;
    ///
    /// # quoit::runtime::run(async {
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// listener.set_max_connections(10_000)?;
    /// assert_eq!(listener.connections(), 0);
    /// # std::io::Result::Ok(()) }).unwrap().unwrap();
    /// ```
    pub fn set_max_connections(&self, count: usize) -> io::Result<()> {
        assert!(count > 0, "set_max_connections(0): drop the listener to accept nothing");
        match &self.fd.family {
            Claim::Member(member) if member.is_distributed() => {
                self.fd.set_most(self.fd.home(), count, member.limit(count))
            }
            _ => self.fd.set_most(self.fd.home(), count, || ()),
        }
    }

    /// Connections that are open of those that were accepted here since there is a limit. The last one
    /// that waits for [`accept`](Self::accept) may be missing.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.fd.open()
    }

    /// The address that is listened on.
    ///
    /// # Errors
    /// What `getsockname` answers.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        options::local_address(&self.fd)
    }

    /// Stops accepting, and gives out the connections that had been accepted and not taken, and those
    /// that wait in the kernel's backlog at this moment: so none is lost.
    ///
    /// What comes later is for whoever else has the socket: a successor to whom it was [handed
    /// over](crate::net::HandOver), or the cores that share it. If nobody has, it is refused.
    ///
    /// # Errors
    /// What `close` answers.
    pub async fn finish(self) -> io::Result<Vec<(TcpStream, SocketAddr)>> {
        let accepted = match &self.fd.family {
            Claim::Member(member) if member.is_distributed() => member.finish().await,
            _ => accept::stop(&self.fd).await,
        };
        let streams = accepted.into_iter().map(TcpStream::new);
        // A peer that has gone already needs no service.
        let streams = streams.filter_map(|stream| Some((stream.peer_addr().ok()?, stream)));
        let streams = streams.map(|(peer, stream)| (stream, peer)).collect();
        self.close().await?;
        Ok(streams)
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

/// Waits for the sockets of listeners that were dropped here on the same address: each is closed
/// when its accept has been cancelled, a lap later.
async fn predecessors_left(address: SocketAddr) {
    Share::predecessors_left(Protocol::Tcp, address).await;
    poll_fn(|context| {
        let core = current::id().unwrap_or_else(|| op::outside("TcpListener::bind"));
        if !Member::is_leaving(core, address) {
            return Poll::Ready(());
        }
        options::ring("bind", |ring| ring.wake_on_close(context.waker()));
        Poll::Pending
    })
    .await;
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
        match &self.fd.family {
            Claim::Share(share) => share.retire(),
            Claim::Member(member) => member.retire(),
            Claim::None | Claim::Leading(_) => {}
        }
        self.fd.disarm();
    }
}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpListener").field("fd", &self.as_fd()).finish()
    }
}
