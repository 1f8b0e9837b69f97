//! Which kernel a core talks to, and opening it.

use std::fmt;
use std::io;
use std::str::FromStr;

use super::caps::Mask;
use super::epoll::Epoll;
use super::uring::{self, EnterFault, Refused, Sizes, Uring};
use super::{Driver, Waiting};

/// A kernel that a runtime can be told to use.
///
/// ```
/// use quoit::driver::DriverKind;
///
/// assert_eq!("epoll".parse(), Ok(DriverKind::Epoll));
/// let driver = DriverKind::Uring.open()?;
/// assert_eq!(driver.name(), "io_uring");
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DriverKind {
    /// io_uring; epoll where the system refuses io_uring itself (`ENOSYS`, `EPERM`, `EINVAL`).
    #[default]
    Auto,
    /// io_uring, or an error.
    Uring,
    /// Readiness, and threads for the calls that block: the same operations without io_uring.
    ///
    /// A listening socket that is accepted from becomes `O_NONBLOCK`, which whoever borrows it sees.
    /// Files are opened, written and synced, and read as far as they are not in the page cache, by up
    /// to 16 threads a core, which end after some seconds without work. To cancel a call in which a
    /// thread is stuck, the last real-time signal without a handler gets one that does nothing.
    Epoll,
}

impl DriverKind {
    /// Opens such a kernel with the default sizes, for a driver that wraps another.
    ///
    /// # Errors
    /// What the system answered; [`UnknownCaps`](super::UnknownCaps).
    pub fn open(self) -> io::Result<Box<dyn Driver>> {
        let waiting = Waiting::of_the_environment()?;
        let sizes = Sizes { mask: Mask::of_the_environment()?, waiting, ..Sizes::default() };
        let opened = self.open_with(sizes, None);
        opened.map(|choice| choice.found).map_err(|neither| neither.wanted.error)
    }

    /// What the environment's `QUOIT_DRIVER` says; `Auto` if it says nothing.
    pub(crate) fn of_the_environment() -> Result<DriverKind, Refused> {
        let Some(name) = std::env::var_os("QUOIT_DRIVER") else { return Ok(DriverKind::Auto) };
        name.to_string_lossy().parse().map_err(|unknown| {
            let error = io::Error::new(io::ErrorKind::InvalidInput, unknown);
            Refused { step: "reading QUOIT_DRIVER", error }
        })
    }

    /// Settles on one kind, so that all cores of a start have the same: what `Auto` comes to here.
    pub(crate) fn settle(self) -> Result<Choice<()>, Neither> {
        match self {
            DriverKind::Auto => Choice::between(uring::is_usable(), || open_epoll(None).map(drop)),
            kind => Ok(Choice { kind, found: (), refused: None }),
        }
    }

    pub(crate) fn open_with(
        self,
        sizes: Sizes,
        fault: Option<EnterFault>,
    ) -> Result<Choice<Box<dyn Driver>>, Neither> {
        let uring = |fault| Ok(Box::new(Uring::new(sizes, fault)?) as Box<dyn Driver>);
        let opened = match self {
            DriverKind::Auto => return Choice::between(uring(fault), || open_epoll(None)),
            DriverKind::Uring => uring(fault),
            DriverKind::Epoll => open_epoll(fault),
        };
        let only = |wanted| Neither { wanted, other: None };
        opened.map(|found| Choice { kind: self, found, refused: None }).map_err(only)
    }
}

fn open_epoll(fault: Option<EnterFault>) -> Result<Box<dyn Driver>, Refused> {
    Ok(Box::new(Epoll::new(fault)?))
}

/// What a choice of a kernel has come to.
#[derive(Debug)]
pub(crate) struct Choice<T> {
    pub(crate) kind: DriverKind,
    /// The driver, if one was to be opened.
    pub(crate) found: T,
    /// Why it is not io_uring, where that was wanted.
    pub(crate) refused: Option<Refused>,
}

/// No kernel will do.
#[derive(Debug)]
pub(crate) struct Neither {
    pub(crate) wanted: Refused,
    /// Why epoll cannot take its place, if it was asked to.
    pub(crate) other: Option<Refused>,
}

impl<T> Choice<T> {
    fn between(
        uring: Result<T, Refused>,
        epoll: impl FnOnce() -> Result<T, Refused>,
    ) -> Result<Self, Neither> {
        let wanted = match uring {
            Ok(found) => return Ok(Choice { kind: DriverKind::Uring, found, refused: None }),
            Err(refused) if refused.is_of_io_uring() => refused,
            Err(wanted) => return Err(Neither { wanted, other: None }),
        };
        match epoll() {
            Ok(found) => Ok(Choice { kind: DriverKind::Epoll, found, refused: Some(wanted) }),
            Err(other) => Err(Neither { wanted, other: Some(other) }),
        }
    }
}

/// A name that is none of `auto`, `uring`, `epoll`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownDriver(String);

impl FromStr for DriverKind {
    type Err = UnknownDriver;

    fn from_str(name: &str) -> Result<Self, UnknownDriver> {
        match name {
            "auto" => Ok(DriverKind::Auto),
            "uring" | "io_uring" => Ok(DriverKind::Uring),
            "epoll" => Ok(DriverKind::Epoll),
            other => Err(UnknownDriver(other.to_owned())),
        }
    }
}

impl fmt::Display for UnknownDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no driver: choose auto, uring or epoll", self.0)
    }
}

impl std::error::Error for UnknownDriver {}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(step: &'static str, errno: i32) -> Refused {
        Refused { step, error: io::Error::from_raw_os_error(errno) }
    }

    #[test]
    fn io_uring_is_taken_where_it_can_be_used() {
        let choice = Choice::between(Ok(()), || unreachable!("epoll is not asked"));
        let choice = choice.unwrap();
        assert!(choice.kind == DriverKind::Uring && choice.refused.is_none());
    }

    #[test]
    fn epoll_takes_its_place_where_io_uring_itself_is_refused() {
        for errno in [libc::ENOSYS, libc::EPERM, libc::EACCES, libc::EINVAL] {
            for step in ["io_uring_setup", "IORING_REGISTER_PROBE", "io_uring_enter"] {
                let choice = Choice::between(Err(refused(step, errno)), || Ok(())).unwrap();
                assert_eq!(choice.kind, DriverKind::Epoll);
                assert_eq!(choice.refused.unwrap().step, step);
            }
        }
    }

    #[test]
    fn a_want_of_memory_or_descriptors_is_no_reason_to_change_the_kernel() {
        let steps = [("io_uring_setup", libc::ENOMEM), ("io_uring_setup", libc::EMFILE)];
        for (step, errno) in steps.into_iter().chain([("eventfd", libc::EPERM)]) {
            let neither = Choice::between(Err(refused(step, errno)), || Ok(())).unwrap_err();
            assert!(neither.wanted.step == step && neither.other.is_none());
        }
    }

    #[test]
    fn both_refusals_are_kept_when_no_kernel_will_do() {
        let epoll = || Err(refused("epoll_create1", libc::EMFILE));
        let uring: Result<(), _> = Err(refused("io_uring_setup", libc::EPERM));
        let neither = Choice::between(uring, epoll).unwrap_err();
        assert_eq!(
            (neither.wanted.step, neither.other.unwrap().step),
            ("io_uring_setup", "epoll_create1")
        );
    }

    #[test]
    fn whoever_names_a_kernel_gets_that_one() {
        for kind in [DriverKind::Uring, DriverKind::Epoll] {
            assert_eq!(kind.settle().unwrap().kind, kind);
        }
    }
}
