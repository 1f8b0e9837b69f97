//! Why a runtime did not start, or how it ended.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt;
use std::io;

use crate::task::JoinError;

/// What starting and running a runtime returns.
pub type Result<T> = std::result::Result<T, Error>;

/// A boxed error that may be sent to another thread.
pub(crate) type BoxError = Box<dyn StdError + Send + Sync>;

/// Which kind of [`Error`] it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A core could not be started; none has run anything. The text says why, and what mends it.
    Start,
    /// The main of a core returned an error.
    Main,
    /// The main of a core panicked, or a destructor at the end of a core.
    Panic,
}

/// Why a runtime did not start, or how it ended.
///
/// `Debug` prints the same sentence as `Display`, so a program whose `main` returns it ends with
/// text that can be read. An [`io::Error`] converts into it and it into an `io::Error`, so `?`
/// works in both directions.
///
/// ```
/// use std::io;
///
/// fn main() -> quoit::runtime::Result<()> {
///     quoit::runtime::run(async {
///         // ... the program ...
///         io::Result::Ok(())
///     })??;
///     Ok(())
/// }
/// ```
pub struct Error(Box<Parts>);

struct Parts {
    kind: ErrorKind,
    core: Option<usize>,
    text: String,
    source: Option<BoxError>,
}

impl Error {
    fn new(kind: ErrorKind, core: Option<usize>, text: String, source: Option<BoxError>) -> Self {
        Error(Box::new(Parts { kind, core, text, source }))
    }

    pub(super) fn start(core: Option<usize>, text: String, source: io::Error) -> Self {
        Error::new(ErrorKind::Start, core, text, Some(source.into()))
    }

    pub(super) fn main(core: usize, source: BoxError) -> Self {
        let text = format!("the main of core {core} failed: {source}");
        Error::new(ErrorKind::Main, Some(core), text, Some(source))
    }

    pub(super) fn panic(core: usize, panic: Box<dyn Any + Send>) -> Self {
        Error::panic_of(&format!("the main of core {core}"), core, panic)
    }

    /// A panic of the runtime's own code on a core, or of a destructor that it ran.
    pub(super) fn panic_outside(core: usize, panic: Box<dyn Any + Send>) -> Self {
        Error::panic_of(&format!("core {core}, outside of its main,"), core, panic)
    }

    fn panic_of(who: &str, core: usize, panic: Box<dyn Any + Send>) -> Self {
        let text = format!("{who} panicked: {}", crate::task::describe(&*panic));
        let source = JoinError::panicked(panic);
        Error::new(ErrorKind::Panic, Some(core), text, Some(source.into()))
    }

    /// Whether it did not start, or how it ended.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The index of the core, from 0, if it was one core's error.
    #[must_use]
    pub fn core(&self) -> Option<usize> {
        self.0.core
    }

    /// The error that a main returned, or that the system gave at the start (an [`io::Error`]), as
    /// it was: for `downcast`.
    ///
    /// # Errors
    /// Gives the error back if it has no source.
    pub fn try_into_source(
        mut self,
    ) -> std::result::Result<Box<dyn StdError + Send + Sync>, Error> {
        self.0.source.take().ok_or(self)
    }

    /// What the main panicked with, for [`std::panic::resume_unwind`].
    ///
    /// # Errors
    /// Gives the error back if no main panicked.
    pub fn try_into_panic(mut self) -> std::result::Result<Box<dyn Any + Send>, Error> {
        match self.0.source.take().map(<dyn StdError + Send + Sync>::downcast::<JoinError>) {
            Some(Ok(error)) if self.0.kind == ErrorKind::Panic => {
                error.try_into_panic().map_err(|error| self.with_source(error.into()))
            }
            Some(Ok(error)) => Err(self.with_source(error)),
            Some(Err(source)) => Err(self.with_source(source)),
            None => Err(self),
        }
    }

    fn with_source(mut self, source: BoxError) -> Self {
        self.0.source = Some(source);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// An error of the program's own I/O, of no core in particular.
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Error::new(ErrorKind::Main, None, error.to_string(), Some(error.into()))
    }
}

/// Keeps the kind of an `io::Error` within; everything else is [`io::ErrorKind::Other`].
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let source = error.0.source.as_deref();
        let kind =
            source.and_then(|source| source.downcast_ref::<io::Error>()).map(io::Error::kind);
        io::Error::new(kind.unwrap_or(io::ErrorKind::Other), error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_reads_like_display() {
        let error = Error::main(3, "no such user".into());
        assert_eq!(format!("{error:?}"), "the main of core 3 failed: no such user");
        assert_eq!((error.kind(), error.core()), (ErrorKind::Main, Some(3)));
    }

    #[test]
    fn an_io_error_keeps_its_kind_there_and_back() {
        let error = Error::from(io::Error::new(io::ErrorKind::AddrInUse, "taken"));
        assert_eq!(error.to_string(), "taken");
        let source = error.source().unwrap().downcast_ref::<io::Error>().unwrap();
        assert_eq!(source.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_panic_can_be_taken_out_and_nothing_else_is() {
        let panic = Error::panic(1, Box::new("boom"));
        assert_eq!(panic.to_string(), "the main of core 1 panicked: boom");
        assert_eq!(*panic.try_into_panic().unwrap().downcast_ref::<&str>().unwrap(), "boom");
        let error = Error::main(1, "text".into()).try_into_panic().unwrap_err();
        assert_eq!(error.try_into_source().unwrap().to_string(), "text");
    }

    #[test]
    fn errors_travel_between_threads() {
        fn check<T: Send + Sync + 'static>() {}
        check::<Error>();
    }
}
