//! A connection.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::panic::Location;
use std::time::Duration;

use super::attempts;
use crate::net::stream::Stream;
use crate::net::{ToAddresses, names, options};
use crate::op;
use crate::time::{Instant, timeout_at};

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
pub type TcpStream = Stream<Tcp>;

/// The family of a [`TcpStream`].
#[derive(Debug, Default)]
pub struct Tcp(());

impl Stream<Tcp> {
    /// Connects to the first of the addresses that answers, with `TCP_NODELAY` on. A name is looked up
    /// ([`lookup_host`](crate::net::lookup_host)).
    ///
    /// The families take turns. The next address is tried beside the others after 250 ms, or at once
    /// when one has failed, and the first to answer wins (happy eyeballs, RFC 8305).
    ///
    /// Dropping the future gives the attempts up and closes their sockets. `IORING_OP_CONNECT`, kernel
    /// 5.5.
    ///
    /// # Errors
    /// `InvalidInput` for what is no address; those of a lookup; otherwise what the most telling
    /// attempt came to, with its address in the text.
    ///
    /// # Panics
    /// Outside of a runtime, when it is first polled.
    #[track_caller]
    pub fn connect(addresses: impl ToAddresses) -> impl Future<Output = io::Result<TcpStream>> {
        let caller = Location::caller();
        async move {
            op::assert_inside("TcpStream::connect", caller);
            let addresses = names::resolve(&addresses).await?;
            attempts::connect_any(addresses).await.map(TcpStream::new)
        }
    }

    /// As [`connect`](Self::connect), for at most `limit`, the lookup of a name included.
    ///
    /// `Duration::MAX` is no limit; with `Duration::ZERO` no connection is ever there in time.
    ///
    /// # Errors
    /// `TimedOut` when the limit has passed; the text says which address has not answered.
    ///
    /// # Panics
    /// As [`connect`](Self::connect).
    ///
    /// ```
    /// use quoit::net::{TcpListener, TcpStream};
    /// use std::time::Duration;
    ///
    /// # quoit::runtime::run(async {
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// let address = listener.local_addr()?;
    /// let stream = TcpStream::connect_timeout(address, Duration::from_secs(5)).await?;
    /// # std::io::Result::Ok(()) }).unwrap().unwrap();
    /// ```
    #[track_caller]
    pub fn connect_timeout(
        addresses: impl ToAddresses,
        limit: Duration,
    ) -> impl Future<Output = io::Result<TcpStream>> {
        let caller = Location::caller();
        async move {
            op::assert_inside("TcpStream::connect_timeout", caller);
            let deadline = Instant::now() + limit;
            let late = |what: &dyn fmt::Display| {
                let text = format!("connecting to {what} took longer than {limit:?}");
                io::Error::new(io::ErrorKind::TimedOut, text)
            };
            let addresses = match timeout_at(deadline, names::resolve(&addresses)).await {
                Ok(addresses) => addresses?,
                Err(_) => {
                    let name = addresses.host().map_or("", |(host, _)| host);
                    return Err(late(&format_args!("{name:?} (its lookup)")));
                }
            };
            // For the text of an error: the attempts consume the rest.
            let Some(&first) = addresses.first() else {
                return attempts::connect_any(addresses).await.map(TcpStream::new);
            };
            match timeout_at(deadline, attempts::connect_any(addresses)).await {
                Ok(connected) => connected.map(TcpStream::new),
                Err(_) => Err(late(&first)),
            }
        }
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

    /// Hops that packets may take (`IP_TTL`, `IPV6_UNICAST_HOPS`).
    ///
    /// # Errors
    /// What `getsockopt` answers.
    pub fn ttl(&self) -> io::Result<u32> {
        options::hops(self.fd.raw(), self.is_ipv6()?)
    }

    /// Sets how many hops packets may take.
    ///
    /// # Errors
    /// `InvalidInput` beyond 1 to 255; what `setsockopt` answers.
    pub fn set_ttl(&self, hops: u32) -> io::Result<()> {
        options::set_hops(self.fd.raw(), self.is_ipv6()?, hops)
    }

    fn is_ipv6(&self) -> io::Result<bool> {
        Ok(self.local_addr()?.is_ipv6())
    }

    /// Probes an idle connection after `idle`, whole seconds (`SO_KEEPALIVE`); `None` switches it
    /// off.
    ///
    /// # Errors
    /// What `setsockopt` answers.
    pub fn set_keepalive(&self, idle: Option<Duration>) -> io::Result<()> {
        options::set_keepalive(self.fd.raw(), idle)
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
