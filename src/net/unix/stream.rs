//! A connection to a process of the same machine.

use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::SocketAddr;
use std::panic::Location;
use std::path::Path;

use super::credentials::{self, UCred};
use super::message::duplicates;
use super::passing::{self, Passing};
use super::socket;
use crate::buf::{BufError, IoBuf, IoBufMut};
use crate::net::connect::connect;
use crate::net::options::ring;
use crate::net::stream::Stream;
use crate::op;
use crate::sys::unix_addr::UnixAddress;

/// A connection to a process of the same machine, which can carry descriptors.
///
/// All methods take `&self`: reading and writing at the same time needs no split and no lock.
/// Readers take turns, and so do writers, first come first served.
///
/// ```
/// use quoit::net::UnixStream;
/// use std::io::Read;
/// use std::os::fd::AsFd;
///
/// # quoit::runtime::run(async {
/// let (here, there) = UnixStream::pair()?;
/// let (mut reader, writer) = std::io::pipe()?;
/// here.send_with_fds("a pipe", &[writer.as_fd()]).await?;
/// drop(writer);
///
/// let (count, buf, mut fds) = there.recv_with_fds(vec![0; 64]).await?;
/// assert_eq!((&buf[..count], fds.len()), (&b"a pipe"[..], 1));
/// drop(fds.pop()); // It was the last end of the pipe to write to.
/// assert_eq!(reader.read(&mut [0; 9])?, 0);
/// # std::io::Result::Ok(()) }).unwrap().unwrap();
/// ```
pub type UnixStream = Stream<Unix>;

/// The family of a [`UnixStream`].
#[derive(Default)]
pub struct Unix(Passing);

impl fmt::Debug for Unix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unix")
    }
}

impl Stream<Unix> {
    /// Connects to who listens at a path.
    ///
    /// It waits while the listener's backlog is full. Dropping the future gives the attempt up and
    /// closes its socket. `IORING_OP_CONNECT`, kernel 5.5.
    ///
    /// # Errors
    /// `ConnectionRefused` if nobody listens there any more, `NotFound` if nobody has; `InvalidInput`
    /// for a path of more than 107 bytes; what `connect` answers.
    ///
    /// # Panics
    /// Outside of a runtime, when it is first polled.
    #[track_caller]
    pub fn connect(path: impl AsRef<Path>) -> impl Future<Output = io::Result<UnixStream>> {
        let (caller, address) = (Location::caller(), socket::at_path(path.as_ref()));
        async move {
            op::assert_inside("UnixStream::connect", caller);
            UnixStream::connect_to(&address?).await
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
    pub fn connect_addr(address: SocketAddr) -> impl Future<Output = io::Result<UnixStream>> {
        let caller = Location::caller();
        async move {
            op::assert_inside("UnixStream::connect_addr", caller);
            UnixStream::connect_to(&address).await
        }
    }

    async fn connect_to(address: &SocketAddr) -> io::Result<UnixStream> {
        let fd = socket::open(libc::SOCK_STREAM)?;
        connect(fd, UnixAddress::from(address)).await.map(UnixStream::new)
    }

    /// Two streams that are connected to each other.
    ///
    /// # Errors
    /// What `socketpair` answers.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn pair() -> io::Result<(UnixStream, UnixStream)> {
        let [one, other] = socket::pair(libc::SOCK_STREAM)?;
        Ok((UnixStream::new(one), UnixStream::new(other)))
    }

    /// Takes over a connection of the standard library. It must be used on this core alone.
    ///
    /// # Errors
    /// What `fcntl` answers.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn from_std(stream: std::os::unix::net::UnixStream) -> io::Result<UnixStream> {
        stream.set_nonblocking(false)?;
        let raw = std::os::fd::IntoRawFd::into_raw_fd(stream);
        Ok(UnixStream::new(ring("UnixStream::from_std", |ring| ring.adopt(raw))))
    }

    /// The address of this end.
    ///
    /// # Errors
    /// What `getsockname` answers.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        socket::local_address(self.fd.raw())
    }

    /// The address of the other end; the standard library's type holds no path of 108 bytes, which
    /// is shown as no name.
    ///
    /// # Errors
    /// `NotConnected` if the other end is gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        socket::peer_address(self.fd.raw())
    }

    /// Who is at the other end (`SO_PEERCRED`).
    ///
    /// # Errors
    /// What `getsockopt` answers.
    pub fn peer_cred(&self) -> io::Result<UCred> {
        UCred::of_peer(self.fd.raw())
    }

    /// A descriptor of the process at the other end, which stays that process's when its number is
    /// another's (`SO_PEERPIDFD`, kernel 6.5).
    ///
    /// # Errors
    /// `Unsupported` on older kernels; `ESRCH` if the process has ended (kernel 6.16 gives one all
    /// the same).
    pub fn peer_pidfd(&self) -> io::Result<OwnedFd> {
        credentials::peer_pidfd(self.fd.raw())
    }

    /// Writes all of `buf`, and sends duplicates of `fds`, at most 253, with its first byte. The
    /// caller may close their own at once.
    ///
    /// It is a write in every other respect: nobody else's bytes come in between, and dropping the
    /// future cancels what has not been sent. The duplicates are closed in either case.
    /// `IORING_OP_SENDMSG` with `SCM_RIGHTS`, kernel 5.3.
    ///
    /// # Errors
    /// `InvalidInput` for an empty `buf`, because descriptors travel with bytes, and for too many
    /// descriptors; `ETOOMANYREFS` if too many of the user's are under way;
    /// what the kernel answers. `done` says how many bytes had been sent: the descriptors were with
    /// the first.
    pub fn send_with_fds<B: IoBuf>(
        &self,
        buf: B,
        fds: &[BorrowedFd<'_>],
    ) -> impl Future<Output = Result<B, BufError<B>>> + use<'_, B> {
        passing::send(&self.fd, &self.family.0, buf, duplicates(fds))
    }

    /// Reads what has arrived into `buf`, as [`read`](Self::read) does, and the descriptors that came
    /// with it, which are closed on exec.
    ///
    /// The kernel ends a read where other descriptors begin. Dropping the future loses neither bytes
    /// nor descriptors: the next call gets both. Bytes that another read takes arrive without their
    /// descriptors, which are closed; that is how the kernel has it too. So `recv`, whose receive
    /// goes on by itself, and this exclude each other on one stream; [`read`](Self::read) does not.
    /// `IORING_OP_RECVMSG`, kernel 5.3.
    ///
    /// # Errors
    /// `InvalidInput` if `buf` has no capacity, or `recv` was called before. If the process may not
    /// have so many descriptors open, those that came are closed, and the error's `done` bytes are in
    /// the buffer. What the kernel answers.
    pub fn recv_with_fds<B: IoBufMut>(
        &self,
        buf: B,
    ) -> impl Future<Output = Result<(usize, B, Vec<OwnedFd>), BufError<B>>> {
        passing::receive(&self.fd, &self.family.0, buf)
    }
}
