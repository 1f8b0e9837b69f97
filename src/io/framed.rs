//! Frames out of a stream, and into one.

use std::fmt;
use std::io;

use super::buf_reader::BufReader;
use super::buf_writer::BufWriter;
use super::codec::{Decoder, Encoder};
use super::error::TooLong;
use super::traits::{AsyncRead, AsyncWrite};

/// Cuts a stream into frames.
///
/// A frame that arrives in one piece is handed out where it arrived, without a copy; any other is
/// gathered once. A peer that sends one byte at a time makes the decoder look at no byte twice, and
/// takes no more memory than it sends, up to the decoder's limit and a buffer of 4 KiB.
///
/// Dropping a future of it loses nothing, and when the reader itself is dropped, what it has not
/// handed out goes back to the stream.
///
/// ```
/// use quoit::io::{FramedRead, FramedWrite, codec::Lines};
/// use quoit::net::{TcpListener, TcpStream};
///
/// # quoit::runtime::run(async {
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let address = listener.local_addr()?;
/// quoit::spawn(async move {
///     let (stream, _) = listener.accept().await?;
///     let mut requests = FramedRead::new(&stream, Lines::new(1024));
///     let mut answers = FramedWrite::new(&stream, Lines::new(1024));
///     while let Some(line) = requests.next().await? {
///         answers.send(line).await?;
///     }
///     std::io::Result::Ok(())
/// });
/// let stream = TcpStream::connect(address).await?;
/// stream.write_all("over and\nback\n").await?;
/// let mut lines = FramedRead::new(&stream, Lines::new(1024));
/// assert_eq!(lines.next().await?, Some("over and"));
/// assert_eq!(lines.next().await?, Some("back"));
/// # std::io::Result::Ok(()) }).unwrap().unwrap();
/// ```
pub struct FramedRead<R: AsyncRead, D> {
    reader: BufReader<R>,
    decoder: D,
    /// Bytes at the front that the decoder has seen without an answer.
    seen: usize,
    /// How long the next frame is, if that is known.
    len: Option<usize>,
}

impl<R: AsyncRead, D: Decoder> FramedRead<R, D> {
    /// The frames of `reader`, which may be a reference to a stream.
    pub fn new(reader: R, decoder: D) -> Self {
        FramedRead { reader: BufReader::new(reader), decoder, seen: 0, len: None }
    }

    /// The stream.
    pub fn get_ref(&self) -> &R {
        self.reader.get_ref()
    }

    /// The reader of what follows the last frame, to go on in another way.
    #[must_use]
    pub fn into_reader(self) -> BufReader<R> {
        self.reader
    }

    /// The decoder.
    pub fn decoder_mut(&mut self) -> &mut D {
        &mut self.decoder
    }

    /// The next frame; `None` is the end of the stream. It is seen until the next call.
    ///
    /// # Errors
    /// [`TooLong`] for a frame beyond the decoder's limit, as soon as that is known: then there is no
    /// further frame. `UnexpectedEof` if the stream ends within one. What the decoder makes of the
    /// bytes, and what the stream answers.
    ///
    /// # Panics
    /// If the decoder says that a frame has no byte.
    pub async fn next(&mut self) -> io::Result<Option<D::Frame<'_>>> {
        self.reader.buffered().settle();
        while self.reader.buffered().len() < self.next_len()? {
            if !self.reader.receive().await? {
                return self.last();
            }
        }
        let len = self.len.take().expect("it is known how long the frame is");
        self.seen = 0;
        let frame = self.reader.buffered().take(len);
        self.decoder.decode(frame).map(Some)
    }

    /// How many bytes there must be before it makes sense to look again: those of the next frame, or
    /// one more than there are.
    fn next_len(&mut self) -> io::Result<usize> {
        let limit = self.decoder.limit();
        let buffered = self.reader.buffered();
        while self.len.is_none() {
            let front = buffered.front();
            if front.len() > self.seen {
                let Some(len) = self.decoder.frame_len(front, self.seen)? else {
                    self.seen = front.len();
                    continue;
                };
                assert!(len > 0, "a frame has at least one byte");
                self.len = Some(len);
            } else if front.len() < buffered.len() {
                // The rest lies in a lease. It is looked at together with what came before.
                buffered.gather_all();
            } else {
                // A frame of the limit's length would be known by now, or with the next byte.
                if front.len() >= limit {
                    return Err(TooLong::received(limit));
                }
                return Ok(front.len() + 1);
            }
        }
        match self.len {
            Some(len) if len <= limit => Ok(len),
            _ => Err(TooLong::received(limit)),
        }
    }

    /// The stream has ended, and what is left is no whole frame.
    fn last(&mut self) -> io::Result<Option<D::Frame<'_>>> {
        let buffered = self.reader.buffered();
        if buffered.len() == 0 {
            return Ok(None);
        }
        if self.len.is_some() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.seen = 0;
        let rest = buffered.take(buffered.len());
        self.decoder.decode_last(rest).map(Some)
    }
}

impl<R: AsyncRead + fmt::Debug, D: fmt::Debug> fmt::Debug for FramedRead<R, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FramedRead")
            .field("reader", &self.reader)
            .field("decoder", &self.decoder)
            .finish_non_exhaustive()
    }
}

/// Writes items to a stream as frames.
///
/// [`send`](Self::send) sends a frame at once. [`feed`](Self::feed) gathers several, which
/// [`flush`](Self::flush) sends together. Dropping it, or a future of it that sends, loses what a
/// [`BufWriter`] loses: a frame may have been sent in part, and further calls fail.
pub struct FramedWrite<W, E> {
    writer: BufWriter<W>,
    encoder: E,
}

impl<W: AsyncWrite, E> FramedWrite<W, E> {
    /// Frames for `writer`, which may be a reference to a stream.
    pub fn new(writer: W, encoder: E) -> Self {
        FramedWrite { writer: BufWriter::new(writer), encoder }
    }

    /// The stream.
    pub fn get_ref(&self) -> &W {
        self.writer.get_ref()
    }

    /// The writer, with the frames that were not flushed.
    #[must_use]
    pub fn into_writer(self) -> BufWriter<W> {
        self.writer
    }

    /// Takes an item, and sends only when 8 KiB wait.
    ///
    /// # Errors
    /// What the encoder says of the item, which is then left out; as [`flush`](Self::flush).
    pub async fn feed<T>(&mut self, item: T) -> io::Result<()>
    where
        E: Encoder<T>,
    {
        if self.writer.is_full() {
            self.writer.flush().await?;
        }
        let before = self.writer.held().len();
        let held = self.writer.held_mut();
        let encoded = self.encoder.encode(item, held);
        if encoded.is_err() {
            held.truncate(before);
        }
        encoded
    }

    /// Sends what waits.
    ///
    /// # Errors
    /// What the stream answers, and `BrokenPipe` after a call that was given up or failed.
    pub async fn flush(&mut self) -> io::Result<()> {
        self.writer.flush().await
    }

    /// Sends an item, behind all that waits.
    ///
    /// # Errors
    /// As [`feed`](Self::feed).
    pub async fn send<T>(&mut self, item: T) -> io::Result<()>
    where
        E: Encoder<T>,
    {
        self.feed(item).await?;
        self.flush().await
    }
}

impl<W: fmt::Debug, E: fmt::Debug> fmt::Debug for FramedWrite<W, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FramedWrite")
            .field("writer", &self.writer)
            .field("encoder", &self.encoder)
            .finish_non_exhaustive()
    }
}
