//! The error of a call that took a buffer: it gives the buffer back.

use std::error::Error;
use std::{fmt, io};

/// What a call returns that took a buffer: its result and the buffer, or the error and the buffer.
///
/// ```
/// use quoit::buf::{BufResult, IoBuf};
///
/// fn checksum<B: IoBuf + AsRef<[u8]>>(buf: B) -> BufResult<u8, B> {
///     let sum = buf.as_ref().iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
///     Ok((sum, buf))
/// }
///
/// let (sum, buf) = checksum(vec![1, 2, 3]).unwrap();
/// assert_eq!((sum, buf), (6, vec![1, 2, 3]));
/// ```
pub type BufResult<T, B> = Result<(T, B), BufError<B>>;

/// An [`io::Error`] with the buffer of the call that failed.
///
/// It displays as the `io::Error` inside and converts into it, so `?` works in a function that
/// returns [`io::Result`]; that conversion drops the buffer and the count.
///
/// ```
/// use quoit::buf::{BufError, BufResult};
/// use std::io;
///
/// fn read(buf: Vec<u8>) -> BufResult<usize, Vec<u8>> {
///     Err(BufError { error: io::ErrorKind::ConnectionReset.into(), buf, done: 0 })
/// }
///
/// fn serve() -> io::Result<usize> {
///     let (n, _buf) = read(Vec::with_capacity(4096))?;
///     Ok(n)
/// }
///
/// assert_eq!(serve().unwrap_err().kind(), io::ErrorKind::ConnectionReset);
///
/// // Or keep the buffer and try again with it.
/// let failed = read(Vec::with_capacity(4096)).unwrap_err();
/// assert_eq!(failed.into_buf().capacity(), 4096);
/// ```
pub struct BufError<B> {
    /// What went wrong.
    pub error: io::Error,
    /// The buffer that the call took.
    pub buf: B,
    /// How many bytes had moved before the error: the first `done` bytes of what was asked for.
    pub done: usize,
}

impl<B> BufError<B> {
    /// The kind of the error inside.
    ///
    /// ```
    /// use quoit::buf::BufError;
    /// use std::io::ErrorKind;
    ///
    /// let failed = BufError { error: ErrorKind::TimedOut.into(), buf: vec![0], done: 0 };
    /// assert_eq!(failed.kind(), ErrorKind::TimedOut);
    /// ```
    pub fn kind(&self) -> io::ErrorKind {
        self.error.kind()
    }

    /// The buffer; the error and the count are dropped.
    ///
    /// ```
    /// use quoit::buf::BufError;
    ///
    /// let failed = BufError { error: std::io::ErrorKind::TimedOut.into(), buf: "ping", done: 0 };
    /// assert_eq!(failed.into_buf(), "ping");
    /// ```
    pub fn into_buf(self) -> B {
        self.buf
    }

    /// The same error with another buffer: for a call that wraps or slices the buffer it was given.
    ///
    /// ```
    /// use quoit::buf::{BufError, IoBuf, Slice};
    ///
    /// let part = vec![1, 2, 3].slice(1..);
    /// let failed = BufError { error: std::io::ErrorKind::TimedOut.into(), buf: part, done: 1 };
    /// let failed = failed.map_buf(Slice::into_inner);
    /// assert_eq!((failed.buf, failed.done), (vec![1, 2, 3], 1));
    /// ```
    pub fn map_buf<C>(self, f: impl FnOnce(B) -> C) -> BufError<C> {
        BufError { error: self.error, buf: f(self.buf), done: self.done }
    }
}

impl<B> fmt::Display for BufError<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<B> fmt::Debug for BufError<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufError")
            .field("error", &self.error)
            .field("done", &self.done)
            .finish_non_exhaustive()
    }
}

impl<B> Error for BufError<B> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        // Displaying `self` already says what `error` says, so the chain goes on behind it.
        self.error.source()
    }
}

impl<B> From<BufError<B>> for io::Error {
    fn from(failed: BufError<B>) -> io::Error {
        failed.error
    }
}

/// Applies `f` to the buffer of a result, whichever way the call ended.
pub(crate) fn map_buf<T, B, C>(result: BufResult<T, B>, f: impl FnOnce(B) -> C) -> BufResult<T, C> {
    match result {
        Ok((value, buf)) => Ok((value, f(buf))),
        Err(failed) => Err(failed.map_buf(f)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Opaque;

    fn failed() -> BufError<Opaque> {
        BufError { error: io::Error::other("the disk is gone"), buf: Opaque, done: 7 }
    }

    #[test]
    fn it_displays_as_the_error_inside_and_debugs_without_the_buffer() {
        assert_eq!(failed().to_string(), "the disk is gone");
        let debug = format!("{:?}", failed());
        assert!(debug.contains("the disk is gone") && debug.contains("done: 7"), "{debug}");
    }

    #[test]
    fn question_mark_converts_it_for_io_and_for_boxed_errors() {
        fn plain() -> io::Result<()> {
            Err(failed())?
        }
        fn boxed() -> Result<(), Box<dyn Error>> {
            Err(failed())?
        }
        assert_eq!(plain().unwrap_err().to_string(), "the disk is gone");
        assert_eq!(boxed().unwrap_err().to_string(), "the disk is gone");
    }

    #[test]
    fn the_chain_does_not_name_the_same_error_twice() {
        assert!(failed().source().is_none());
    }

    #[test]
    fn map_buf_reaches_the_buffer_on_both_ways_out() {
        let ok = map_buf(Ok((3, vec![1u8])), |buf| buf.len());
        assert!(matches!(ok, Ok((3, 1))));
        let err = map_buf::<(), _, _>(Err(failed()), |Opaque| "back");
        assert!(matches!(err, Err(BufError { buf: "back", done: 7, .. })));
    }
}
