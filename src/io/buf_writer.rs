//! Writing in small pieces that are sent together.

use std::fmt;
use std::io;

use super::traits::AsyncWrite;

/// Bytes that a writer holds back at most, unless it is told otherwise.
const CAPACITY: usize = 8 * 1024;

/// Gathers small writes, and sends them together when there are enough, or by
/// [`flush`](Self::flush).
///
/// The bytes may be borrowed: they are copied. **Dropping the writer loses what was not flushed**, and
/// so does a future of it that is dropped while it sends: nobody knows then how much was sent, so
/// all further calls fail. One that is dropped before it was polled has done nothing.
///
/// ```
/// use quoit::io::BufWriter;
/// use quoit::net::{TcpListener, TcpStream};
///
/// # quoit::runtime::run(async {
/// # let listener = TcpListener::bind("127.0.0.1:0").await?;
/// # let peer = TcpStream::connect(listener.local_addr()?).await?;
/// # let (stream, _) = listener.accept().await?;
/// let mut writer = BufWriter::new(&stream);
/// for number in 1..=3 {
///     writer.write_all(format!("{number} ").as_bytes()).await?;
/// }
/// writer.flush().await?; // One send.
/// assert_eq!(peer.read_exact([0; 6]).await?, *b"1 2 3 ");
/// # std::io::Result::Ok(()) }).unwrap().unwrap();
/// ```
pub struct BufWriter<W> {
    writer: W,
    held: Vec<u8>,
    capacity: usize,
    /// A send was given up, or failed.
    torn: bool,
}

impl<W: AsyncWrite> BufWriter<W> {
    /// A writer to `writer`, which may be a reference to a stream. It holds 8 KiB at most.
    pub fn new(writer: W) -> Self {
        BufWriter::with_capacity(CAPACITY, writer)
    }

    /// As [`new`](Self::new), with the most bytes that it holds.
    pub fn with_capacity(capacity: usize, writer: W) -> Self {
        BufWriter { writer, held: Vec::new(), capacity: capacity.max(1), torn: false }
    }

    /// The stream.
    pub fn get_ref(&self) -> &W {
        &self.writer
    }

    /// The stream, and the bytes that were not flushed.
    #[must_use]
    pub fn into_inner(self) -> (W, Vec<u8>) {
        (self.writer, self.held)
    }

    /// Bytes that wait to be flushed.
    #[must_use]
    pub fn held(&self) -> &[u8] {
        &self.held
    }

    /// Takes all of `bytes`. It sends only when there is no room left.
    ///
    /// # Errors
    /// What the stream answers, and `BrokenPipe` after a call that was given up or failed.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        loop {
            let room = self.capacity.saturating_sub(self.held.len());
            let (now, later) = rest.split_at(rest.len().min(room));
            self.held.extend_from_slice(now);
            rest = later;
            if rest.is_empty() {
                return Ok(());
            }
            self.flush().await?;
        }
    }

    /// Sends what is held.
    ///
    /// # Errors
    /// As [`write_all`](Self::write_all).
    pub async fn flush(&mut self) -> io::Result<()> {
        if self.torn {
            let text = "an earlier write was given up, or failed, and may have sent a part";
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, text));
        }
        if self.held.is_empty() {
            return Ok(());
        }
        self.torn = true;
        let mut sent = self.writer.write_all(std::mem::take(&mut self.held)).await?;
        self.torn = false;
        sent.clear();
        self.held = sent;
        Ok(())
    }

    /// The bytes that are held, for what encodes right behind them.
    pub(super) fn held_mut(&mut self) -> &mut Vec<u8> {
        &mut self.held
    }

    /// Whether so much is held that it should be sent.
    pub(super) fn is_full(&self) -> bool {
        self.held.len() >= self.capacity
    }
}

impl<W: fmt::Debug> fmt::Debug for BufWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufWriter")
            .field("writer", &self.writer)
            .field("held", &self.held.len())
            .finish_non_exhaustive()
    }
}
