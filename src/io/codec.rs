//! Where frames end, and how they are written.
//!
//! A codec of one's own is a few lines: it says how long the next frame is as soon as it can tell.
//!
//! ```
//! use quoit::io::codec::{Decoder, Encoder};
//! use std::io;
//!
//! /// Text up to a zero byte.
//! struct ZeroTerminated;
//!
//! impl Decoder for ZeroTerminated {
//!     type Frame<'a> = &'a [u8];
//!
//!     fn frame_len(&mut self, bytes: &[u8], seen: usize) -> io::Result<Option<usize>> {
//!         Ok(bytes[seen..].iter().position(|&byte| byte == 0).map(|at| seen + at + 1))
//!     }
//!
//!     fn decode<'a>(&mut self, frame: &'a [u8]) -> io::Result<&'a [u8]> {
//!         Ok(&frame[..frame.len() - 1])
//!     }
//!
//!     fn limit(&self) -> usize {
//!         1024
//!     }
//! }
//!
//! impl Encoder<&[u8]> for ZeroTerminated {
//!     fn encode(&mut self, item: &[u8], bytes: &mut Vec<u8>) -> io::Result<()> {
//!         bytes.extend_from_slice(item);
//!         bytes.push(0);
//!         Ok(())
//!     }
//! }
//! ```

use std::io;

use super::buf_reader::text;
use super::error::TooLong;

/// Says where a frame ends, and what it means.
pub trait Decoder {
    /// What a frame is to its reader. It may point at the frame's bytes.
    type Frame<'a>;

    /// How many bytes the frame at the start of `bytes` has, header and all, also when not all of
    /// them are there; `None` if these bytes do not tell. `seen` of them have been shown before, by
    /// a call that answered `None`.
    ///
    /// `bytes` has at least one, and so has a frame.
    ///
    /// # Errors
    /// Whatever is wrong with the bytes: the stream then has no further frame.
    fn frame_len(&mut self, bytes: &[u8], seen: usize) -> io::Result<Option<usize>>;

    /// Makes the frame of exactly its bytes.
    ///
    /// # Errors
    /// Whatever is wrong with this frame; the next one is not harmed by it.
    fn decode<'a>(&mut self, frame: &'a [u8]) -> io::Result<Self::Frame<'a>>;

    /// Makes a frame of what is left when the stream ends. Unless it is implemented there is none.
    ///
    /// # Errors
    /// `UnexpectedEof` if the bytes are no whole frame.
    fn decode_last<'a>(&mut self, rest: &'a [u8]) -> io::Result<Self::Frame<'a>> {
        let _ = rest;
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    /// The most bytes that a frame may have, header and all. A longer one is an error before memory
    /// is taken for it.
    fn limit(&self) -> usize;
}

/// Writes items as frames.
pub trait Encoder<T> {
    /// Appends the frame of `item` to `bytes`, or leaves them as they are.
    ///
    /// # Errors
    /// `InvalidInput` if there is no such frame.
    fn encode(&mut self, item: T, bytes: &mut Vec<u8>) -> io::Result<()>;
}

/// Lines of UTF-8 text. They end with `\n`, received ones also with `\r\n`, and the last one before
/// the end of the stream needs no end.
#[derive(Debug, Clone, Copy)]
pub struct Lines {
    limit: usize,
}

impl Lines {
    /// Lines of at most `limit` bytes before their `\n`.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Lines { limit }
    }
}

impl Decoder for Lines {
    type Frame<'a> = &'a str;

    fn frame_len(&mut self, bytes: &[u8], seen: usize) -> io::Result<Option<usize>> {
        Ok(bytes[seen..].iter().position(|&byte| byte == b'\n').map(|at| seen + at + 1))
    }

    fn decode<'a>(&mut self, frame: &'a [u8]) -> io::Result<&'a str> {
        text(frame)
    }

    fn decode_last<'a>(&mut self, rest: &'a [u8]) -> io::Result<&'a str> {
        text(rest)
    }

    fn limit(&self) -> usize {
        self.limit.saturating_add(1)
    }
}

impl<T: AsRef<str>> Encoder<T> for Lines {
    fn encode(&mut self, line: T, bytes: &mut Vec<u8>) -> io::Result<()> {
        let line = line.as_ref();
        if line.len() > self.limit {
            return Err(TooLong::to_send(self.limit));
        }
        if line.contains('\n') {
            let text = "a line with an end in its middle would be two";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        bytes.extend_from_slice(line.as_bytes());
        bytes.push(b'\n');
        Ok(())
    }
}

/// Frames behind a number that says how many bytes they have.
///
/// ```
/// use quoit::io::{FramedRead, FramedWrite, codec::LengthDelimited};
/// use quoit::net::{TcpListener, TcpStream};
///
/// # quoit::runtime::run(async {
/// # let listener = TcpListener::bind("127.0.0.1:0").await?;
/// # let peer = TcpStream::connect(listener.local_addr()?).await?;
/// # let (stream, _) = listener.accept().await?;
/// let codec = LengthDelimited::u32_be(1 << 20);
/// FramedWrite::new(&peer, codec).send("one frame").await?;
/// let mut frames = FramedRead::new(&stream, codec);
/// assert_eq!(frames.next().await?, Some(&b"one frame"[..]));
/// # std::io::Result::Ok(()) }).unwrap().unwrap();
/// ```
#[derive(Debug, Clone, Copy)]
pub struct LengthDelimited {
    width: usize,
    is_big_endian: bool,
    limit: usize,
}

impl LengthDelimited {
    fn new(width: usize, is_big_endian: bool, limit: usize) -> Self {
        let most = usize::try_from((1_u64 << (8 * width)) - 1).unwrap_or(usize::MAX);
        LengthDelimited { width, is_big_endian, limit: limit.min(most) }
    }

    /// The number is one byte.
    #[must_use]
    pub fn u8(limit: usize) -> Self {
        LengthDelimited::new(1, true, limit)
    }

    /// The number is two bytes, the high one first. Frames have at most `limit` bytes behind it.
    #[must_use]
    pub fn u16_be(limit: usize) -> Self {
        LengthDelimited::new(2, true, limit)
    }

    /// The number is two bytes, the low one first.
    #[must_use]
    pub fn u16_le(limit: usize) -> Self {
        LengthDelimited::new(2, false, limit)
    }

    /// The number is four bytes, the highest one first.
    #[must_use]
    pub fn u32_be(limit: usize) -> Self {
        LengthDelimited::new(4, true, limit)
    }

    /// The number is four bytes, the lowest one first.
    #[must_use]
    pub fn u32_le(limit: usize) -> Self {
        LengthDelimited::new(4, false, limit)
    }

    fn number(&self, header: &[u8]) -> usize {
        let high_first = |sum: usize, &byte: &u8| sum << 8 | usize::from(byte);
        match self.is_big_endian {
            true => header.iter().fold(0, high_first),
            false => header.iter().rev().fold(0, high_first),
        }
    }
}

impl Decoder for LengthDelimited {
    type Frame<'a> = &'a [u8];

    fn frame_len(&mut self, bytes: &[u8], _seen: usize) -> io::Result<Option<usize>> {
        let Some(header) = bytes.get(..self.width) else { return Ok(None) };
        let len = self.number(header);
        if len > self.limit {
            return Err(TooLong::received(self.limit));
        }
        Ok(Some(self.width + len))
    }

    fn decode<'a>(&mut self, frame: &'a [u8]) -> io::Result<&'a [u8]> {
        Ok(&frame[self.width..])
    }

    fn limit(&self) -> usize {
        self.width.saturating_add(self.limit)
    }
}

impl<T: AsRef<[u8]>> Encoder<T> for LengthDelimited {
    fn encode(&mut self, item: T, bytes: &mut Vec<u8>) -> io::Result<()> {
        let item = item.as_ref();
        if item.len() > self.limit {
            return Err(TooLong::to_send(self.limit));
        }
        let number = (item.len() as u64).to_le_bytes();
        let header = &number[..self.width];
        match self.is_big_endian {
            true => bytes.extend(header.iter().rev()),
            false => bytes.extend_from_slice(header),
        }
        bytes.extend_from_slice(item);
        Ok(())
    }
}

/// Bytes as they arrive, in pieces of any size.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bytes;

impl Decoder for Bytes {
    type Frame<'a> = &'a [u8];

    fn frame_len(&mut self, bytes: &[u8], _seen: usize) -> io::Result<Option<usize>> {
        Ok(Some(bytes.len()))
    }

    fn decode<'a>(&mut self, frame: &'a [u8]) -> io::Result<&'a [u8]> {
        Ok(frame)
    }

    fn limit(&self) -> usize {
        usize::MAX
    }
}

impl<T: AsRef<[u8]>> Encoder<T> for Bytes {
    fn encode(&mut self, item: T, bytes: &mut Vec<u8>) -> io::Result<()> {
        bytes.extend_from_slice(item.as_ref());
        Ok(())
    }
}
