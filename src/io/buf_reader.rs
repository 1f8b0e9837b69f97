//! Reading without a buffer of one's own: lines, exact counts, and whatever has arrived.

use std::fmt;
use std::io;

use super::buffered::Buffered;
use super::error::TooLong;
use super::traits::AsyncRead;

/// Reads a stream through the buffers that its bytes arrive in.
///
/// Memory that a call fills may be borrowed: nothing of it reaches the kernel, which fills buffers
/// of the core's pool. An item that lies in one of them is handed out there, without a copy; one
/// that is spread over several is gathered once. While nothing is there an idle reader holds no
/// buffer.
///
/// **Dropping a future of this type loses nothing**: what it has not consumed stays for the next
/// call. When the reader itself is dropped, its unread bytes go back to the stream, so a reader of
/// `&stream` may be made for one request and dropped after it.
///
/// ```
/// use quoit::io::BufReader;
/// use quoit::net::{TcpListener, TcpStream};
///
/// # quoit::runtime::run(async {
/// # let listener = TcpListener::bind("127.0.0.1:0").await?;
/// # let peer = TcpStream::connect(listener.local_addr()?).await?;
/// # let (stream, _) = listener.accept().await?;
/// peer.write_all("size 5\r\nbytes and more").await?;
/// let mut reader = BufReader::new(&stream);
/// assert_eq!(reader.read_line(80).await?, Some("size 5"));
/// let mut body = [0; 5];
/// reader.read_exact(&mut body).await?;
/// assert_eq!(&body, b"bytes");
/// drop(reader);
/// assert_eq!(stream.read_exact([0; 9]).await?, *b" and more");
/// # std::io::Result::Ok(()) }).unwrap().unwrap();
/// ```
pub struct BufReader<R: AsyncRead> {
    /// Taken only by `into_inner`, which ends the reader.
    reader: Option<R>,
    buffered: Buffered,
}

impl<R: AsyncRead> BufReader<R> {
    /// A reader of `reader`, which may be a reference to a stream.
    pub fn new(reader: R) -> Self {
        BufReader { reader: Some(reader), buffered: Buffered::default() }
    }

    /// The stream.
    pub fn get_ref(&self) -> &R {
        self.reader.as_ref().expect("`into_inner` has ended the reader")
    }

    /// The stream, which its unread bytes have gone back to.
    #[must_use]
    pub fn into_inner(mut self) -> R {
        self.give_back();
        self.reader.take().expect("`into_inner` has ended the reader")
    }

    fn give_back(&mut self) {
        if let Some(reader) = &self.reader {
            self.buffered.drain(|bytes| reader.unread(bytes));
        }
    }

    /// Bytes that have been consumed since the reader was made.
    #[must_use]
    pub fn consumed(&self) -> u64 {
        self.buffered.consumed()
    }

    /// Receives once more; false is the end of the stream.
    async fn more(&mut self) -> io::Result<bool> {
        // What waits holds its bytes, and not the buffer that they came in.
        self.buffered.gather_all();
        match self.get_ref().recv().await? {
            Some(lease) => {
                self.buffered.push(lease);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// As `more`, until there are `count` bytes; false if the stream ends first.
    async fn at_least(&mut self, count: usize) -> io::Result<bool> {
        while self.buffered.len() < count {
            if !self.more().await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What is there, or what comes next if nothing is; nothing is the end of the stream. It stays
    /// until it is [consumed](Self::consume).
    ///
    /// # Errors
    /// What the stream answers.
    pub async fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.buffered.settle();
        self.at_least(1).await?;
        Ok(self.buffered.front())
    }

    /// Consumes bytes that were seen by [`fill_buf`](Self::fill_buf) or [`peek`](Self::peek).
    ///
    /// # Panics
    /// If there are fewer.
    pub fn consume(&mut self, count: usize) {
        self.buffered.settle();
        self.buffered.consume(count);
    }

    /// At least the next `count` bytes, or, where the stream ends before, what there is. They are
    /// not consumed. All of them are held meanwhile, so `count` bounds the memory.
    ///
    /// # Errors
    /// What the stream answers.
    pub async fn peek(&mut self, count: usize) -> io::Result<&[u8]> {
        self.buffered.settle();
        self.at_least(count).await?;
        self.buffered.gather(count.min(self.buffered.len()));
        Ok(self.buffered.front())
    }

    /// Reads what has arrived into `buf`, and says how much; 0 is the end of the stream, unless
    /// `buf` is empty.
    ///
    /// # Errors
    /// What the stream answers.
    pub async fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.buffered.settle();
        if !buf.is_empty() {
            self.at_least(1).await?;
        }
        let count = self.buffered.copy_to(buf);
        self.buffered.consume(count);
        Ok(count)
    }

    /// Fills `buf`.
    ///
    /// If the future is dropped, or the stream ends first, nothing is consumed.
    ///
    /// # Errors
    /// `UnexpectedEof` if the stream ends first; what the stream answers.
    pub async fn read_exact(&mut self, buf: &mut [u8]) -> io::Result<()> {
        self.buffered.settle();
        let mut partial = Partial { reader: self, buf, done: 0 };
        loop {
            partial.step();
            if partial.done == partial.buf.len() {
                partial.done = 0;
                return Ok(());
            }
            if !partial.reader.more().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// The bytes up to the first `delimiter`, and with it; where the stream ends before, what there
    /// is, which is nothing at the end. They are consumed, and seen until the next call.
    ///
    /// # Errors
    /// [`TooLong`] if more than `limit` bytes come before the delimiter: then nothing is consumed.
    /// What the stream answers.
    pub async fn read_until(&mut self, delimiter: u8, limit: usize) -> io::Result<&[u8]> {
        self.buffered.settle();
        let len = loop {
            let found = self.buffered.find(delimiter);
            let len = found.unwrap_or(self.buffered.len());
            if len - usize::from(found.is_some()) > limit {
                return Err(TooLong::received(limit));
            }
            if found.is_some() || !self.more().await? {
                break len;
            }
        };
        Ok(self.buffered.take(len))
    }

    /// The next line, without its end (`\n` or `\r\n`); `None` is the end of the stream. The last
    /// line needs no end. It is consumed, and seen until the next call.
    ///
    /// # Errors
    /// [`TooLong`] if more than `limit` bytes come before the `\n`: then nothing is consumed.
    /// `InvalidData` around a [`Utf8Error`](std::str::Utf8Error) if it is not UTF-8: the line is
    /// consumed. What the stream answers.
    ///
    /// ```
    /// # use quoit::{io::BufReader, net::{TcpListener, TcpStream}};
    /// # quoit::runtime::run(async {
    /// # let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// # let peer = TcpStream::connect(listener.local_addr()?).await?;
    /// # let (stream, _) = listener.accept().await?;
    /// # peer.write_all("one\ntwo\r\n\nlast").await?;
    /// # drop(peer);
    /// let (mut reader, mut lines) = (BufReader::new(stream), Vec::new());
    /// while let Some(line) = reader.read_line(8192).await? {
    ///     lines.push(line.to_owned());
    /// }
    /// assert_eq!(lines, ["one", "two", "", "last"]);
    /// # std::io::Result::Ok(()) }).unwrap().unwrap();
    /// ```
    pub async fn read_line(&mut self, limit: usize) -> io::Result<Option<&str>> {
        let line = self.read_until(b'\n', limit).await?;
        if line.is_empty() { Ok(None) } else { text(line).map(Some) }
    }

    /// Consumes `count` bytes, or, where the stream ends before, what there is, and says how many.
    ///
    /// It holds none of them. If the future is dropped, what it had skipped stays skipped:
    /// [`consumed`](Self::consumed) tells.
    ///
    /// # Errors
    /// What the stream answers.
    pub async fn skip(&mut self, count: u64) -> io::Result<u64> {
        self.buffered.settle();
        let mut left = count;
        loop {
            let now = (self.buffered.len() as u64).min(left);
            self.buffered.consume(now as usize);
            left -= now;
            if left == 0 || !self.more().await? {
                return Ok(count - left);
            }
        }
    }

    /// What is there at the front, whether handed out or not; for what cuts frames.
    pub(super) fn buffered(&mut self) -> &mut Buffered {
        &mut self.buffered
    }

    /// Receives once more, and says whether there was any.
    pub(super) async fn receive(&mut self) -> io::Result<bool> {
        self.more().await
    }
}

/// A line without its end, as text.
pub(super) fn text(line: &[u8]) -> io::Result<&str> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    str::from_utf8(line).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

impl<R: AsyncRead> Drop for BufReader<R> {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl<R: AsyncRead + fmt::Debug> fmt::Debug for BufReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufReader")
            .field("reader", &self.reader)
            .field("buffered", &self.buffered.len())
            .finish_non_exhaustive()
    }
}

/// A `read_exact` that has come so far; what it has is put back if it goes no further.
struct Partial<'a, R: AsyncRead> {
    reader: &'a mut BufReader<R>,
    buf: &'a mut [u8],
    done: usize,
}

impl<R: AsyncRead> Partial<'_, R> {
    /// Takes what is there.
    fn step(&mut self) {
        let count = self.reader.buffered.copy_to(&mut self.buf[self.done..]);
        self.reader.buffered.consume(count);
        self.done += count;
    }
}

impl<R: AsyncRead> Drop for Partial<'_, R> {
    fn drop(&mut self) {
        self.reader.buffered.put_back(&self.buf[..self.done]);
    }
}
