//! What an item of a stream can have wrong with it.

use std::fmt;
use std::io;

/// A line or a frame is longer than it may be. It is the inner error of an [`io::Error`] of the kind
/// `InvalidData`, or `InvalidInput` if it was to be sent.
///
/// ```
/// use quoit::io::codec::{Encoder, LengthDelimited};
/// use quoit::io::TooLong;
///
/// let error = LengthDelimited::u16_be(10).encode("eleven bytes", &mut Vec::new()).unwrap_err();
/// let too_long = error.get_ref().unwrap().downcast_ref::<TooLong>().unwrap();
/// assert_eq!(too_long.limit, 10);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TooLong {
    /// The most bytes that it may have.
    pub limit: usize,
}

impl TooLong {
    pub(super) fn received(limit: usize) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, TooLong { limit })
    }

    pub(super) fn to_send(limit: usize) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidInput, TooLong { limit })
    }
}

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a line or a frame is longer than {} bytes", self.limit)
    }
}

impl std::error::Error for TooLong {}
