//! A connection between two cores.

use std::fmt;
use std::io;

use super::stream::TcpStream;
use crate::net::stream::{State, receive, send};
use crate::op::{Parcel, outside};
use crate::sys::fd::Fd;
use crate::sys::fork::{Forked, forked};

/// A connection that no core has: it can be sent to another one, which
/// [attaches](TcpStream::attach) it. Dropping it closes the connection.
///
/// ```
/// use quoit::net::{Detached, TcpListener, TcpStream};
/// use quoit::runtime::Handle;
///
/// /// Lets another core serve the connection.
/// async fn hand_over(stream: TcpStream, core: &Handle) -> std::io::Result<()> {
///     let detached: Detached = stream.detach().await?;
///     let serving = core.spawn_on(async move || {
///         let stream = TcpStream::attach(detached)?;
///         stream.write_all("welcome").await?;
///         std::io::Result::Ok(())
///     })?;
///     serving.await.map_err(std::io::Error::from)?
/// }
///
/// # quoit::runtime::run(async {
/// # let listener = TcpListener::bind("127.0.0.1:0").await?;
/// # let client = quoit::spawn(TcpStream::connect(listener.local_addr()?));
/// # let (stream, _) = listener.accept().await?;
/// hand_over(stream, &Handle::current()).await?;
/// # assert_eq!(client.await.unwrap()?.read_exact(vec![0; 7]).await?, b"welcome");
/// # std::io::Result::Ok(()) }).unwrap().unwrap();
/// ```
pub struct Detached {
    parcel: Parcel,
    /// What had arrived and was not read: it is the first that will be.
    unread: Vec<u8>,
    sent: u64,
}

impl Detached {
    /// Bytes that had arrived and were not read; they go along.
    #[must_use]
    pub fn unread(&self) -> usize {
        self.unread.len()
    }
}

impl TcpStream {
    /// Takes the connection away from this core, to be [attached](Self::attach) on another one.
    ///
    /// It waits until the kernel holds nothing of it any more: the receive in flight is cancelled, and
    /// what it brings is kept; a write that was dropped ends. Options, and what the kernel has
    /// buffered, stay with the connection. No byte is lost or doubled. It no longer counts for its
    /// listener's [limit](crate::net::TcpListener::set_max_connections).
    ///
    /// Dropping the future closes the connection, as dropping the stream does.
    ///
    /// # Errors
    /// What the receive answered if the connection has broken, such as `ConnectionReset`; it is closed
    /// then.
    pub async fn detach(self) -> io::Result<Detached> {
        let fd = self.fd.clone();
        let unread = receive::stop(&fd).await?;
        send::stop(&fd).await;
        let sent = fd.outbound.sent();
        drop(self);
        let fd = fd.alone().await;
        Ok(Detached { parcel: Parcel::pack(fd), unread, sent })
    }

    /// Makes a connection that was [detached](Self::detach) this core's.
    ///
    /// # Errors
    /// In a forked child, and for a connection of another simulated host: it is closed then.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn attach(detached: Detached) -> io::Result<TcpStream> {
        if forked() {
            return Err(Forked.into());
        }
        let Detached { parcel, unread, sent } = detached;
        match parcel.open() {
            Ok(fd) => Ok(TcpStream::resumed(Fd::new(fd, State::resumed(&unread, sent)))),
            Err(_) if crate::sys::current::id().is_none() => outside("TcpStream::attach"),
            Err(_) => Err(io::Error::other("the connection is one of another simulated host")),
        }
    }
}

impl fmt::Debug for Detached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Detached").field("unread", &self.unread()).finish_non_exhaustive()
    }
}
