//! Which kernel a core talks to, and opening it.

use std::fmt;
use std::io;
use std::str::FromStr;

use super::Driver;
use super::caps::Mask;
use super::uring::{EnterFault, Refused, Sizes, Uring};

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
    Epoll,
}

impl DriverKind {
    /// Opens such a kernel with the default sizes, for a driver that wraps another.
    ///
    /// # Errors
    /// What the system answered; [`UnknownCaps`](super::UnknownCaps).
    pub fn open(self) -> io::Result<Box<dyn Driver>> {
        let sizes = Sizes { mask: Mask::of_the_environment()?, ..Sizes::default() };
        self.open_with(sizes, None).map_err(|refused| refused.error)
    }

    pub(crate) fn open_with(
        self,
        sizes: Sizes,
        fault: Option<EnterFault>,
    ) -> Result<Box<dyn Driver>, Refused> {
        match self {
            DriverKind::Auto | DriverKind::Uring => Ok(Box::new(Uring::new(sizes, fault)?)),
            DriverKind::Epoll => {
                let error = io::Error::from(io::ErrorKind::Unsupported);
                Err(Refused { step: "opening the epoll driver", error })
            }
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
