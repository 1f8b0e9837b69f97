//! The boundary: requests go in, answers come out, and whoever stands behind it is a kernel.
//!
//! An operation describes itself once, as a 64-byte [`Sqe`], and gets [`Cqe`]s. It never asks who
//! answers. io_uring is the real kernel; whoever implements [`Driver`] writes another.
//!
//! ```
//! use quoit::driver::{Cqe, Fields};
//!
//! let answer = Cqe { user_data: 7, result: -2, flags: 0 };
//! assert_eq!(answer.result().unwrap_err().kind(), std::io::ErrorKind::NotFound);
//! assert_eq!(std::mem::size_of::<Fields>(), 64);
//! ```

use std::io;
use std::net::IpAddr;
use std::os::fd::{BorrowedFd, RawFd};

pub(crate) mod bind_error;
mod bind_error_unix;
mod call;
pub(crate) mod caps;
mod epoll;
mod eventfd;
pub(crate) mod kind;
pub(crate) mod opcodes;
pub(crate) mod pad;
pub(crate) mod retired;
pub(crate) mod sim;
pub(crate) mod sqe;
pub(crate) mod unpark;
pub(crate) mod uring;
mod waiting;

pub use caps::{Capability, UnknownCaps};
pub use kind::{DriverKind, UnknownDriver};
pub use sqe::{Cqe, Fields, Sqe};
pub use unpark::{Kick, Unparker};
pub use waiting::{UnknownWaiting, Waiting};

/// A kernel takes requests and gives answers.
///
/// io_uring is the real one. An emulated kernel answers the same requests by other means, an
/// invented one answers from a model; no operation knows which one it talks to.
///
/// # Safety
/// The implementor promises that each pushed request gets exactly one last answer (one without
/// `IORING_CQE_F_MORE`), that results are truthful (a wrong one becomes a descriptor or a length
/// elsewhere), and that nothing a request points at is accessed after its last answer.
///
/// What of it can be checked is checked, before any memory is touched. An answer to nothing that is
/// in flight is counted (`stray` in the runtime's `Stats`) and is nothing else. More
/// bytes than were asked for, a buffer that is not on offer, and more answers to an operation of one
/// are refused with a panic. Nobody can check that an operation has ended, that bytes were written
/// or that a descriptor is open.
pub unsafe trait Driver {
    /// Queues a request. It never blocks and never fails: a refusal is an answer too.
    ///
    /// # Safety
    /// Whatever `sqe` points at stays valid, and is not accessed by others, until its last answer
    /// has been taken from [`enter`](Driver::enter). Its `user_data` is below [`RESERVED`].
    unsafe fn push(&mut self, sqe: Sqe);

    /// Does what `sqe` asks for, if that takes no wait, for whoever can use the answer now. `None`:
    /// nothing has been done (a call that was interrupted has done nothing), and the request is to be
    /// pushed.
    ///
    /// At most so many requests between two calls of [`enter`](Driver::enter) as
    /// [`attempts`](Driver::attempts) says come here, or a task that never has to wait would keep all
    /// others from their turn. The default does nothing here.
    ///
    /// # Safety
    /// Whatever `sqe` points at stays valid, and is not accessed by others, until this returns.
    #[inline]
    unsafe fn attempt(&mut self, sqe: Sqe) -> Option<Cqe> {
        let _ = sqe;
        None
    }

    /// How many requests [`attempt`](Driver::attempt) may be asked before the next enter. It is asked
    /// after each.
    #[inline]
    fn attempts(&self) -> u32 {
        0
    }

    /// Hands over what is queued, sleeps as `wait` allows, and appends the answers.
    ///
    /// # Errors
    /// Only what nobody can mend: the runtime then leaks what is in flight and ends the process.
    fn enter(&mut self, wait: Wait, answers: &mut Vec<Cqe>) -> io::Result<()>;

    /// Answers at once: what the real kernel has plain system calls for that never block.
    ///
    /// # Errors
    /// What the kernel answers.
    fn call(&mut self, call: Call<'_>) -> io::Result<i32>;

    /// Registers a resource with the kernel.
    ///
    /// # Errors
    /// What the kernel answers; `Unsupported` if it has no such thing.
    ///
    /// # Safety
    /// The memory that `resource` names stays valid until it is unregistered or the driver is gone.
    unsafe fn register(&mut self, resource: Register) -> io::Result<()>;

    /// Whether this kernel knows `opcode`.
    fn supports(&self, opcode: u8) -> bool;

    /// What ends another thread's sleep in [`enter`](Driver::enter).
    fn unparker(&self) -> Unparker;

    /// This kernel's clock in nanoseconds.
    fn now(&self) -> u64;

    /// What was counted so far.
    fn counters(&self) -> Counters;

    /// A descriptor that is readable when [`enter`](Driver::enter) would bring something or a kick
    /// has come, for a runtime that lives inside another loop. `None` if there is none.
    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// The address of a host by its name, in a network that this kernel has of its own. The default
    /// is that it has none.
    fn resolve(&self, name: &str) -> Option<IpAddr> {
        let _ = name;
        None
    }

    /// Whether it is a model, whose clock does not tick by itself: then names are those of its own
    /// network, and functions that block run in place, on no thread. The default is that it is not.
    fn is_simulated(&self) -> bool {
        false
    }

    /// Moves the clock ahead to `time`, and does what is due until then. False where the clock is not
    /// the kernel's own to move, which is the default.
    fn advance(&mut self, time: u64) -> bool {
        let _ = time;
        false
    }

    /// Which kernel this is, for people: `io_uring`, `epoll`.
    fn name(&self) -> &'static str;
}

/// What this machine's io_uring can do beyond the least that Quoit needs, less what the environment's
/// `QUOIT_CAPS` takes away. Nothing has to be there: each has its fallback.
///
/// # Errors
/// What the system answered when a ring was opened to look, and [`UnknownCaps`].
pub fn caps() -> io::Result<Vec<Capability>> {
    let sizes = uring::Sizes { mask: caps::Mask::of_the_environment()?, ..Default::default() };
    let ring = uring::Uring::new(sizes, None).map_err(|refused| refused.error)?;
    Ok(ring.caps().list())
}

/// Closes a number that no core has, on a thread that runs none. A simulated one goes with its world.
pub(crate) fn close_anywhere(fd: RawFd) {
    if !is_simulated_number(fd) {
        let _ = call::perform(Call::Close { fd });
    }
}

/// Whether a number is of an invented kernel, and means something else to each of its hosts.
pub(crate) fn is_simulated_number(fd: RawFd) -> bool {
    fd >= retired::SIMULATED
}

/// `user_data` from here on belongs to drivers.
pub const RESERVED: u64 = u64::MAX - 0xff;

/// How long [`Driver::enter`] may sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Not at all: there is other work.
    Poll,
    /// Until an answer comes or somebody unparks.
    Block,
    /// As `Block`, and no longer than to this time of the driver's clock.
    Until(u64),
}

/// A request that is answered at once.
#[derive(Debug)]
#[non_exhaustive]
pub enum Call<'a> {
    /// `socket(2)`, close-on-exec.
    Socket {
        /// `AF_*`
        domain: i32,
        /// `SOCK_*`
        kind: i32,
        /// `IPPROTO_*`
        protocol: i32,
    },
    /// `socketpair(2)`, close-on-exec.
    SocketPair {
        /// `AF_*`
        domain: i32,
        /// `SOCK_*`
        kind: i32,
        /// Where the two descriptors go.
        pair: &'a mut [RawFd; 2],
    },
    /// `bind(2)`
    Bind {
        /// The socket.
        fd: RawFd,
        /// The address in the kernel's form.
        address: &'a [u8],
    },
    /// `listen(2)`
    Listen {
        /// The socket.
        fd: RawFd,
        /// How many connections may wait to be accepted.
        backlog: i32,
    },
    /// `poll(2)` without waiting: answers 1 if a connection waits to be accepted, else 0.
    Backlog {
        /// The socket.
        fd: RawFd,
    },
    /// `setsockopt(2)`
    SetOption {
        /// The socket.
        fd: RawFd,
        /// `SOL_*`, `IPPROTO_*`
        level: i32,
        /// `SO_*`, `TCP_*`
        name: i32,
        /// The value's bytes.
        value: &'a [u8],
    },
    /// `getsockopt(2)`; answers how many bytes were written.
    GetOption {
        /// The socket.
        fd: RawFd,
        /// `SOL_*`, `IPPROTO_*`
        level: i32,
        /// `SO_*`, `TCP_*`
        name: i32,
        /// Where the value goes.
        value: &'a mut [u8],
    },
    /// `getsockname(2)`; answers the length of the address.
    LocalAddress {
        /// The socket.
        fd: RawFd,
        /// Where the address goes, in the kernel's form.
        address: &'a mut [u8],
    },
    /// `getpeername(2)`; answers the length of the address.
    PeerAddress {
        /// The socket.
        fd: RawFd,
        /// Where the address goes, in the kernel's form.
        address: &'a mut [u8],
    },
    /// `shutdown(2)`
    Shutdown {
        /// The socket.
        fd: RawFd,
        /// `SHUT_*`
        how: i32,
    },
    /// Which file the path of a Unix socket leads to (`lstat(2)`).
    SocketFile {
        /// The address in the kernel's form.
        address: &'a [u8],
        /// Where its device and inode go.
        file: &'a mut (u64, u64),
    },
    /// Removes the file of a Unix socket; answers 1 if it did and 0 if it may not. `EAGAIN` while
    /// somebody else is about to.
    RemoveSocketFile {
        /// The address in the kernel's form.
        address: &'a [u8],
        /// Only if it is this one; or, if none is named, only if no socket is bound to it any more.
        file: Option<(u64, u64)>,
    },
    /// `fstat(2)`
    Status {
        /// The file.
        fd: RawFd,
        /// Where the answer goes.
        status: &'a mut libc::stat,
    },
    /// `sendfile(2)` of what is in memory; answers how many bytes were sent. It waits for nothing:
    /// `EAGAIN` if the socket has no room, `ENODATA` if the bytes are not known to be in memory or the
    /// file ends before them.
    SendFile {
        /// A connected stream.
        socket: RawFd,
        /// An open file.
        file: RawFd,
        /// From where in the file.
        offset: u64,
        /// How many bytes at most.
        len: u32,
    },
    /// `fcntl(2)`, `F_DUPFD_CLOEXEC`: another number for the same file. A core's driver may be asked
    /// for a number that another core of the process has open.
    Duplicate {
        /// The file.
        fd: RawFd,
    },
    /// The number goes on to another core, or out of the runtime: the driver forgets what it has noted
    /// of it, and leaves it open.
    Release {
        /// The number, which no request names any more.
        fd: RawFd,
    },
    /// `close(2)`
    Close {
        /// The number, which is free afterwards whatever the answer.
        fd: RawFd,
    },
}

/// A resource to register.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Register {
    /// A ring of provided buffers.
    Buffers {
        /// The ring's entries, page-aligned.
        ring: *mut libc::c_void,
        /// How many entries, a power of two.
        entries: u16,
        /// The group that requests name.
        group: u16,
    },
    /// Ends a ring of provided buffers.
    RemoveBuffers {
        /// The group.
        group: u16,
    },
}

/// What a driver counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Entries into the kernel.
    pub enters: u64,
    /// Requests handed over.
    pub sqes: u64,
    /// Answers taken.
    pub cqes: u64,
    /// Times that answers waited in the kernel because their queue was full.
    pub overflows: u64,
    /// Enters that the kernel refused for the moment (`EAGAIN`, `EBUSY`, `ENOMEM`).
    pub refused: u64,
    /// Sleeps that a signal ended.
    pub interrupted: u64,
    /// Sleeps that another thread ended.
    pub kicks: u64,
    /// Sleeps that waited for several answers.
    pub coalesced: u64,
    /// Windows of the rule that tests itself in which a sleep ended with the first answer.
    pub windows_off: u64,
    /// Windows of that rule in which a sleep waited for several.
    pub windows_on: u64,
    /// Times that the queues were watched for a moment before a sleep.
    pub spins: u64,
    /// Those of them that made the sleep unnecessary.
    pub spins_won: u64,
}
