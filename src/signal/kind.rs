//! Which signal.

use std::fmt;
use std::io;

use crate::sys::signals::Interrupt;

/// A signal, by its number.
///
/// ```
/// use quoit::signal::SignalKind;
///
/// assert_eq!(SignalKind::terminate(), SignalKind::from_raw(15));
/// assert_eq!(format!("{:?}", SignalKind::terminate()), "SIGTERM");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SignalKind(i32);

impl SignalKind {
    /// The signal of this number. Whether there is one, [`signal`](crate::signal::signal) says.
    #[must_use]
    pub const fn from_raw(number: i32) -> Self {
        SignalKind(number)
    }

    /// The number.
    #[must_use]
    pub const fn as_raw_value(self) -> i32 {
        self.0
    }

    /// `SIGALRM`: a timer of the system has gone off.
    #[must_use]
    pub const fn alarm() -> Self {
        SignalKind(libc::SIGALRM)
    }

    /// `SIGCHLD`: a child process has ended or stopped. To wait for one,
    /// `quoit::process::Child` needs no signal.
    #[must_use]
    pub const fn child() -> Self {
        SignalKind(libc::SIGCHLD)
    }

    /// `SIGHUP`: the terminal is gone; by custom, to read the configuration again.
    #[must_use]
    pub const fn hangup() -> Self {
        SignalKind(libc::SIGHUP)
    }

    /// `SIGINT`, which Ctrl-C sends.
    #[must_use]
    pub const fn interrupt() -> Self {
        SignalKind(libc::SIGINT)
    }

    /// `SIGIO`: a descriptor is ready, for those who have asked for a signal.
    #[must_use]
    pub const fn io() -> Self {
        SignalKind(libc::SIGIO)
    }

    /// `SIGPIPE`: nobody reads what was written. Writes of this crate send none.
    #[must_use]
    pub const fn pipe() -> Self {
        SignalKind(libc::SIGPIPE)
    }

    /// `SIGQUIT`, which `Ctrl-\` sends.
    #[must_use]
    pub const fn quit() -> Self {
        SignalKind(libc::SIGQUIT)
    }

    /// `SIGTERM`, which service managers and `kill` send.
    #[must_use]
    pub const fn terminate() -> Self {
        SignalKind(libc::SIGTERM)
    }

    /// `SIGUSR1`
    #[must_use]
    pub const fn user_defined1() -> Self {
        SignalKind(libc::SIGUSR1)
    }

    /// `SIGUSR2`
    #[must_use]
    pub const fn user_defined2() -> Self {
        SignalKind(libc::SIGUSR2)
    }

    /// `SIGWINCH`: the terminal has another size.
    #[must_use]
    pub const fn window_change() -> Self {
        SignalKind(libc::SIGWINCH)
    }

    /// Refuses what no stream can be of.
    pub(super) fn check(self) -> io::Result<()> {
        const FORBIDDEN: [i32; 6] =
            [libc::SIGKILL, libc::SIGSTOP, libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL];
        if FORBIDDEN.contains(&self.0) || Interrupt::is_chosen(self.0) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, ForbiddenSignal(self)));
        }
        Ok(())
    }
}

impl fmt::Debug for SignalKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            libc::SIGALRM => "SIGALRM",
            libc::SIGBUS => "SIGBUS",
            libc::SIGCHLD => "SIGCHLD",
            libc::SIGFPE => "SIGFPE",
            libc::SIGHUP => "SIGHUP",
            libc::SIGILL => "SIGILL",
            libc::SIGINT => "SIGINT",
            libc::SIGIO => "SIGIO",
            libc::SIGKILL => "SIGKILL",
            libc::SIGPIPE => "SIGPIPE",
            libc::SIGQUIT => "SIGQUIT",
            libc::SIGSEGV => "SIGSEGV",
            libc::SIGSTOP => "SIGSTOP",
            libc::SIGTERM => "SIGTERM",
            libc::SIGUSR1 => "SIGUSR1",
            libc::SIGUSR2 => "SIGUSR2",
            libc::SIGWINCH => "SIGWINCH",
            number => return write!(f, "signal {number}"),
        };
        f.write_str(name)
    }
}

/// There are no streams of this signal: the inner error of [`signal`](crate::signal::signal).
///
/// `SIGKILL` and `SIGSTOP` reach no process. `SIGSEGV`, `SIGBUS`, `SIGFPE` and `SIGILL` say that the
/// program is broken where it stands, and it cannot go on from there to an `await`. One of the
/// real-time signals interrupts the threads of this crate.
///
/// ```
/// use quoit::signal::{ForbiddenSignal, SignalKind, signal};
///
/// let error = signal(SignalKind::from_raw(9)).unwrap_err();
/// let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<ForbiddenSignal>());
/// assert_eq!(inner.unwrap().kind(), SignalKind::from_raw(9));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForbiddenSignal(SignalKind);

impl ForbiddenSignal {
    /// Which signal it is.
    #[must_use]
    pub fn kind(&self) -> SignalKind {
        self.0
    }
}

impl fmt::Display for ForbiddenSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} cannot be handled by a program that goes on", self.0)
    }
}

impl std::error::Error for ForbiddenSignal {}
