//! Buffers: memory that a kernel may use while an operation owns it.
//!
//! io_uring reads and writes memory after the call that asked for it has returned, and also after
//! the future of that call was dropped. So a method takes its buffer by value, the operation owns
//! it until the kernel's last answer, and the caller gets it back with the result, also with an
//! error ([`BufError`]). Borrowed memory cannot be a buffer.
//!
//! | type | write from it ([`IoBuf`]) | read into it ([`IoBufMut`]) |
//! |---|---|---|
//! | `Vec<u8>` | its length | its capacity |
//! | `Box<[u8]>`, `[u8; N]`, `Box<[u8; N]>` | all of it | all of it; the length stays, the count says what is new |
//! | `Arc<[u8]>`, `Rc<[u8]>`, `Arc<Vec<u8>>`, `Rc<Vec<u8>>` | all of it | no: others may be reading |
//! | `&'static [u8]`, `&'static [u8; N]`, `&'static str`, `String` | all of it | no |
//! | [`Slice`] of any of these | what is initialised in its range | its range |
//! | `Vec<B>`, `[B; N]`, `Box<[B]>`, tuples | one after the other ([`IoVectored`]) | likewise ([`IoVectoredMut`]) |
//!
//! A read fills a buffer from its first byte and sets its length to the bytes that came. To keep
//! what is already there, read into a [`slice`](IoBuf::slice).
//!
//! ```
//! use quoit::buf::IoBuf;
//!
//! let message = vec![1, 2, 3, 4];
//! let rest = message.slice(1..); // What a method may be given instead of the whole Vec.
//! assert_eq!(*rest, [2, 3, 4]);
//! assert_eq!(rest.into_inner(), [1, 2, 3, 4]);
//! ```
//!
//! A borrow does not compile, because it could end before the kernel is done:
//!
//! ```compile_fail,E0597
//! use quoit::buf::IoBuf;
//!
//! fn write(buf: impl IoBuf) {}
//!
//! let message = vec![1, 2, 3];
//! write(&message[..]); // `message` does not live long enough
//! ```

use std::io;

use crate::driver::Cqe;

mod any;
mod buffers;
pub(crate) mod datagram;
mod error;
mod filling;
mod io_buf;
mod place;
pub(crate) mod pool;
mod slice;
mod vectored;

pub use error::{BufError, BufResult};
pub use io_buf::{IoBuf, IoBufMut};
pub use pool::PooledBuf;
pub use slice::Slice;
pub use vectored::{IoVectored, IoVectoredMut};

pub(crate) use any::{AnyBufs, Single};
pub(crate) use error::map_buf;
pub(crate) use filling::{Filling, FillingVectored};
pub(crate) use io_buf::{initialised as bytes_of, rest_to_fill, rest_to_write};
pub(crate) use slice::tail;
pub(crate) use vectored::{Iovecs, gather, scatter, total_len};

/// How many bytes an answer says were moved, of those that its request asked for.
#[inline]
pub(crate) fn moved(cqe: &Cqe, asked: usize) -> io::Result<usize> {
    let moved = cqe.result()? as usize;
    let is_true = moved <= asked || cfg!(canary = "believed-count");
    assert!(is_true, "{moved} bytes were moved of {asked}");
    Ok(moved)
}
