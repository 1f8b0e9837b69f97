//! Waiting for a descriptor that is somebody else's.

use std::fmt;
use std::io;
use std::ops::BitOr;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::rc::Rc;
use std::task::{Poll, Waker};

use io_uring::{opcode, types};

use crate::driver::{Call, Cqe, Sqe};
use crate::op::{Op, Ring, Submission};
use crate::sys::fork::{Forked, forked};
use crate::sys::{current, guard};

/// A descriptor whose reads and writes another library makes, and that this runtime waits for:
/// asyncio's `add_reader` and `add_writer`, tokio's `AsyncFd`.
///
/// It is for what has a protocol of its own behind a descriptor: a C library's socket (libpq, curl),
/// inotify, a timer, a device. What it waits for is what poll(2) answers, at the time of the call: a
/// descriptor that is ready is ready at once, and as long as it stays so. There is nothing to clear.
/// Ready means that a call would not have waited just now; another process may be faster, so the
/// descriptor should be `O_NONBLOCK`, as [`async_io`](Self::async_io) expects.
///
/// Any number of tasks may wait at the same time, for the same or for different events. The same
/// descriptor may be in several `PollFd`s, one of each core, or several of one. A regular file is
/// always ready, as poll(2) has it.
///
/// Dropping it ends the waits, and then drops `T`, which closes the descriptor if it owns it: a
/// number is never given out anew while a request names it. Who lends a descriptor (`BorrowedFd`)
/// keeps it open until the `PollFd` has gone: [`into_inner`](Self::into_inner) waits for that.
///
/// ```
/// use quoit::io::PollFd;
/// use std::io::{Read, Write};
///
/// # quoit::runtime::run(async {
/// let (reader, mut writer) = std::io::pipe()?;
/// let reader = PollFd::new(reader)?;
/// let waits = quoit::spawn(async move {
///     assert!(reader.readable().await?.is_readable());
///     let mut bytes = [0; 5];
///     reader.get_ref().read_exact(&mut bytes)?;
///     std::io::Result::Ok(bytes)
/// });
/// writer.write_all(b"hello")?;
/// assert_eq!(&waits.await.unwrap()?, b"hello");
/// # std::io::Result::Ok(()) }).unwrap().unwrap();
/// ```
pub struct PollFd<T: AsFd + 'static>(Rc<Watched<T>>);

/// What is waited for, shared by the handle and the requests in flight.
struct Watched<T: AsFd> {
    /// Taken by `into_inner`, which ends it.
    source: Option<T>,
    raw: RawFd,
    /// Whose driver knows the number.
    core: u64,
    /// Who waits to be the only one that shares it.
    alone: std::cell::Cell<Option<Waker>>,
}

impl<T: AsFd + 'static> PollFd<T> {
    /// Takes a descriptor to wait for.
    ///
    /// # Errors
    /// `Unsupported` in the [simulator](crate::sim), which has no foreign descriptors;
    /// [`Forked`] in a forked child.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn new(source: T) -> io::Result<Self> {
        if forked() {
            return Err(Forked.into());
        }
        if crate::op::with("PollFd::new", Ring::is_simulated) {
            let text = "a simulated core has no descriptors of the machine's";
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        let core = current::id().unwrap_or_default();
        let raw = source.as_fd().as_raw_fd();
        Ok(PollFd(Rc::new(Watched { source: Some(source), raw, core, alone: Default::default() })))
    }

    /// Waits until a read would not wait: there are bytes, the end, or an error to be read.
    ///
    /// # Errors
    /// As [`poll_fd`](Self::poll_fd).
    pub fn readable(&self) -> impl Future<Output = io::Result<Ready>> + use<T> {
        self.poll_fd(Interest::READABLE)
    }

    /// Waits until a write would not wait: there is room, or nobody reads any more.
    ///
    /// # Errors
    /// As [`poll_fd`](Self::poll_fd).
    pub fn writable(&self) -> impl Future<Output = io::Result<Ready>> + use<T> {
        self.poll_fd(Interest::WRITABLE)
    }

    /// Waits until one of several events is there, and says which are. An error and the end of the
    /// other side are always among them.
    ///
    /// Dropping the future loses nothing: it takes nothing from the descriptor. What it waits for is
    /// asked anew each time (`IORING_OP_POLL_ADD`, one-shot, kernel 5.1).
    ///
    /// # Errors
    /// What the kernel answers, such as `EBADF` for a number that somebody has closed.
    ///
    /// # Panics
    /// On another core than its own, when it is first polled.
    ///
    /// ```
    /// use quoit::io::{Interest, PollFd};
    ///
    /// # quoit::runtime::run(async {
    /// let (here, there) = std::os::unix::net::UnixStream::pair()?;
    /// let here = PollFd::new(here)?;
    /// let ready = here.poll_fd(Interest::READABLE | Interest::WRITABLE).await?;
    /// assert!(ready.is_writable() && !ready.is_readable());
    /// drop(there);
    /// assert!(here.readable().await?.is_closed());
    /// # std::io::Result::Ok(()) }).unwrap().unwrap();
    /// ```
    pub fn poll_fd(&self, interest: Interest) -> impl Future<Output = io::Result<Ready>> + use<T> {
        Submission::new(PollAdd { watched: Rc::clone(&self.0), interest })
    }

    /// Calls `f` until it does not answer `WouldBlock`, and waits for `interest` in between. The
    /// descriptor must be `O_NONBLOCK`, or `f` blocks the core.
    ///
    /// # Errors
    /// What `f` answers, and as [`poll_fd`](Self::poll_fd).
    ///
    /// ```
    /// use quoit::io::{Interest, PollFd};
    /// use std::io::Read;
    /// use std::os::unix::net::UnixStream;
    ///
    /// # quoit::runtime::run(async {
    /// let (here, there) = UnixStream::pair()?;
    /// here.set_nonblocking(true)?;
    /// let here = PollFd::new(here)?;
    /// quoit::call_soon(move || drop(there));
    /// let count = here.async_io(Interest::READABLE, |mut it| it.read(&mut [0; 9])).await?;
    /// assert_eq!(count, 0);
    /// # std::io::Result::Ok(()) }).unwrap().unwrap();
    /// ```
    pub async fn async_io<R>(
        &self,
        interest: Interest,
        mut f: impl FnMut(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        loop {
            match f(self.get_ref()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.poll_fd(interest).await?;
                }
                result => return result,
            }
        }
    }

    /// What it waits for.
    pub fn get_ref(&self) -> &T {
        self.0.source.as_ref().expect("only `into_inner` takes it, and ends this")
    }

    /// Gives back what it waits for, once no request names it any more: those whose futures were
    /// dropped are ended, and those that are still awaited are waited for.
    ///
    /// ```
    /// # quoit::runtime::run(async {
    /// let (here, _there) = std::os::unix::net::UnixStream::pair()?;
    /// let here = quoit::io::PollFd::new(here)?;
    /// drop(here.readable());
    /// let here: std::os::unix::net::UnixStream = here.into_inner().await;
    /// # std::io::Result::Ok(()) }).unwrap().unwrap();
    /// ```
    pub async fn into_inner(self) -> T {
        let mut shared = Some(Rc::clone(&self.0));
        // From here on the requests are the others.
        drop(self);
        std::future::poll_fn(|context| {
            let mine = shared.take().expect("it is taken when this ends");
            // Cloning runs the waker's code, which may drop the last of the others.
            let waker = context.waker().clone();
            match Rc::try_unwrap(mine) {
                Ok(mut watched) => {
                    guard::discard(Some(waker));
                    let source = watched.source.take();
                    watched.release();
                    Poll::Ready(source.expect("only this takes it"))
                }
                Err(mine) => {
                    guard::discard(mine.alone.replace(Some(waker)));
                    shared = Some(mine);
                    Poll::Pending
                }
            }
        })
        .await
    }
}

impl<T: AsFd> Watched<T> {
    /// The driver forgets the number before somebody else may get it.
    fn release(&self) {
        current::on(self.core, |ring: &Ring| {
            // It can only fail where there is nothing to forget.
            let _ = ring.call(Call::Release { fd: self.raw });
        });
    }
}

impl<T: AsFd> Drop for Watched<T> {
    fn drop(&mut self) {
        if self.source.is_some() {
            self.release();
            // It is a user's, and whoever drops it here may be the ring.
            guard::discard(self.source.take());
        }
    }
}

impl<T: AsFd + fmt::Debug> fmt::Debug for PollFd<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PollFd").field(self.get_ref()).finish()
    }
}

/// `IORING_OP_POLL_ADD`, one-shot, kernel 5.1.
struct PollAdd<T: AsFd> {
    watched: Rc<Watched<T>>,
    interest: Interest,
}

// SAFETY: I2: the request points at nothing, and `watched` keeps the descriptor open, or borrows it
// from somebody who does.
unsafe impl<T: AsFd + 'static> Op for PollAdd<T> {
    type Output = io::Result<Ready>;

    fn prepare(&mut self) -> Sqe {
        let Watched { raw, core, .. } = *self.watched;
        assert!(
            current::id() == Some(core),
            "a `PollFd` of core {core} was used on another one: it stays where it was made"
        );
        opcode::PollAdd::new(types::Fd(raw), u32::from(self.interest.0)).build()
    }

    fn complete(self, cqe: Cqe) -> io::Result<Ready> {
        cqe.result().map(|events| Ready(events as u16))
    }
}

impl<T: AsFd> Drop for PollAdd<T> {
    fn drop(&mut self) {
        // Two shares: this one, and the one that `into_inner` waits with.
        if Rc::strong_count(&self.watched) == 2 {
            self.watched.alone.take().into_iter().for_each(guard::wake);
        }
    }
}

/// Events that are waited for; they are combined with `|`.
///
/// ```
/// use quoit::io::Interest;
///
/// let both = Interest::READABLE | Interest::WRITABLE;
/// assert_ne!(both, Interest::READABLE);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Interest(u16);

impl Interest {
    /// There is something to read, or the other side has ended what it writes.
    pub const READABLE: Interest = Interest((libc::POLLIN | libc::POLLRDHUP) as u16);
    /// There is room to write.
    pub const WRITABLE: Interest = Interest(libc::POLLOUT as u16);
    /// There is something out of the ordinary: urgent bytes of TCP, an event of a device or of sysfs.
    pub const PRIORITY: Interest = Interest(libc::POLLPRI as u16);
}

impl BitOr for Interest {
    type Output = Interest;

    fn bitor(self, other: Interest) -> Interest {
        Interest(self.0 | other.0)
    }
}

/// Which events are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ready(u16);

impl Ready {
    fn has(self, events: i16) -> bool {
        self.0 & events as u16 != 0
    }

    /// A read would not wait.
    #[must_use]
    pub fn is_readable(self) -> bool {
        self.has(libc::POLLIN | libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR)
    }

    /// A write would not wait.
    #[must_use]
    pub fn is_writable(self) -> bool {
        self.has(libc::POLLOUT | libc::POLLERR)
    }

    /// There is something out of the ordinary (`POLLPRI`).
    #[must_use]
    pub fn is_priority(self) -> bool {
        self.has(libc::POLLPRI)
    }

    /// The other side has gone, or writes nothing any more (`POLLHUP`, `POLLRDHUP`).
    #[must_use]
    pub fn is_closed(self) -> bool {
        self.has(libc::POLLHUP | libc::POLLRDHUP)
    }

    /// There is an error (`POLLERR`): of a pipe that nobody reads from, or of a socket.
    #[must_use]
    pub fn is_error(self) -> bool {
        self.has(libc::POLLERR)
    }
}
