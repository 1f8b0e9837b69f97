//! Passing a stream on, in one direction or in both.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::traits::{AsyncRead, AsyncWrite};
use crate::buf::PooledBuf;
use crate::buf::pool;

/// Leases that are sent together at most: 128 KiB.
const TOGETHER: usize = 32;

/// Passes on all that comes from `reader` to `writer`, until the end, and says how many bytes that
/// were. It does not end the writer.
///
/// What is received is sent from where it was received. Large pieces that have arrived are sent
/// together, 128 KiB at most, and while they are sent the reader takes no more than a stream does
/// by itself.
///
/// **Dropping the future loses** the bytes that it was sending, up to 128 KiB, of which a part may
/// have been sent; what it has not begun to send stays with the reader.
///
/// # Errors
/// What either stream answers. What was received before a reader's error has been sent.
///
/// ```
/// use quoit::net::{TcpListener, TcpStream};
///
/// # quoit::runtime::run(async {
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let address = listener.local_addr()?;
/// let echo = quoit::spawn(async move {
///     let (stream, _) = listener.accept().await?;
///     quoit::io::copy(&stream, &stream).await
/// });
/// let stream = TcpStream::connect(address).await?;
/// stream.write_all("there and back").await?;
/// stream.shutdown(std::net::Shutdown::Write)?;
/// assert_eq!(echo.await.unwrap()?, 14);
/// # std::io::Result::Ok(()) }).unwrap().unwrap();
/// ```
pub async fn copy<R: AsyncRead, W: AsyncWrite>(reader: R, writer: W) -> io::Result<u64> {
    let mut copied = 0;
    match pass_on(&reader, &writer, &mut copied).await {
        Ok(()) => Ok(copied),
        Err((_, error)) => Err(error),
    }
}

/// Which side of one direction failed.
enum Side {
    Read,
    Write,
}

/// What a reader has come to after the bytes that it has brought.
enum After {
    More,
    End,
    Failed(io::Error),
}

/// Passes bytes on until the end. `copied` counts those that were sent.
async fn pass_on<R: AsyncRead, W: AsyncWrite>(
    reader: &R,
    writer: &W,
    copied: &mut u64,
) -> Result<(), (Side, io::Error)> {
    let mut batch = Vec::new();
    loop {
        let Some(first) = reader.recv().await.map_err(|error| (Side::Read, error))? else {
            return Ok(());
        };
        // Only a buffer that is full has others behind it.
        let after = if first.len() == pool::SIZE {
            batch.push(first);
            let after = take_arrived(reader, &mut batch);
            let count: usize = batch.iter().map(|bytes| bytes.len()).sum();
            let sent = writer.write_all_vectored(batch).await;
            batch = sent.map_err(|failed| {
                *copied += failed.done as u64;
                (Side::Write, failed.error)
            })?;
            batch.clear();
            *copied += count as u64;
            after
        } else {
            let count = first.len();
            drop(writer.write_all(first).await.map_err(|failed| {
                *copied += failed.done as u64;
                (Side::Write, failed.error)
            })?);
            *copied += count as u64;
            After::More
        };
        match after {
            After::More => {}
            After::End => return Ok(()),
            After::Failed(error) => return Err((Side::Read, error)),
        }
    }
}

/// Takes what else has arrived, without a wait.
fn take_arrived<R: AsyncRead>(reader: &R, batch: &mut Vec<PooledBuf>) -> After {
    // Whoever waits for more asks again; this is only a look.
    let mut context = Context::from_waker(Waker::noop());
    while batch.len() < TOGETHER {
        match pin!(reader.recv()).poll(&mut context) {
            Poll::Ready(Ok(Some(bytes))) => batch.push(bytes),
            Poll::Ready(Ok(None)) => return After::End,
            Poll::Ready(Err(error)) => return After::Failed(error),
            Poll::Pending => break,
        }
    }
    After::More
}

/// Passes on all that comes from `a` to `b`, and from `b` to `a`, until both have ended, and says how
/// many bytes that were: to `b`, and to `a`.
///
/// The end of one side is passed on as such, by [`AsyncWrite::shutdown`], and the other direction goes
/// on. An error ends both directions; the streams are left open, for whoever owns them to close.
///
/// It holds at most 128 KiB in each direction, beside what the streams hold by themselves.
/// **Dropping the future loses** what [`copy`] loses, in each direction.
///
/// # Errors
/// What either stream answers, and which it was.
///
/// ```
/// use quoit::net::{TcpListener, TcpStream};
/// use std::net::Shutdown::Write;
///
/// # quoit::runtime::run(async {
/// let (front, back) = (TcpListener::bind("127.0.0.1:0").await?, TcpListener::bind("127.0.0.1:0").await?);
/// let (proxy, upstream) = (front.local_addr()?, back.local_addr()?);
/// let task = quoit::spawn(async move {
///     let (client, _) = front.accept().await?;
///     let server = TcpStream::connect(upstream).await?;
///     std::io::Result::Ok(quoit::io::copy_bidirectional(&client, &server).await?)
/// });
/// let client = TcpStream::connect(proxy).await?;
/// let (server, _) = back.accept().await?;
/// client.write_all("question").await?;
/// client.shutdown(Write)?;
/// assert_eq!(server.read_exact([0; 8]).await?, *b"question");
/// assert!(server.recv().await?.is_none());
/// server.write_all("answer").await?;
/// drop(server);
/// assert_eq!(client.read_exact([0; 6]).await?, *b"answer");
/// assert_eq!(task.await.unwrap()?, (8, 6));
/// # std::io::Result::Ok(()) }).unwrap().unwrap();
/// ```
pub async fn copy_bidirectional<A, B>(a: A, b: B) -> Result<(u64, u64), CopyError>
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let mut copied = (0, 0);
    let there = one_way(&a, &b, &mut copied.0, CopyStep::ReadA, CopyStep::WriteB);
    let back = one_way(&b, &a, &mut copied.1, CopyStep::ReadB, CopyStep::WriteA);
    let result = crate::try_join!(there, back);
    match result {
        Ok(((), ())) => Ok(copied),
        Err((step, error)) => Err(CopyError { error, step, copied }),
    }
}

/// One direction, its end included. An error says which step it was of.
async fn one_way<R: AsyncRead, W: AsyncWrite>(
    reader: &R,
    writer: &W,
    copied: &mut u64,
    read: CopyStep,
    write: CopyStep,
) -> Result<(), (CopyStep, io::Error)> {
    pass_on(reader, writer, copied).await.map_err(|(side, error)| match side {
        Side::Read => (read, error),
        Side::Write => (write, error),
    })?;
    match writer.shutdown().await {
        // It is gone already: whoever reads from it learns how.
        Err(error) if error.kind() != io::ErrorKind::NotConnected => Err((write, error)),
        _ => Ok(()),
    }
}

/// What was being done when a [`copy_bidirectional`] of `a` and `b` failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CopyStep {
    /// Reading from `a`, to pass it on to `b`.
    ReadA,
    /// Writing to `b` what came from `a`.
    WriteB,
    /// Reading from `b`, to pass it on to `a`.
    ReadB,
    /// Writing to `a` what came from `b`.
    WriteA,
}

/// Why a [`copy_bidirectional`] ended early. It displays as its error, and becomes it by `?`.
#[derive(Debug)]
#[non_exhaustive]
pub struct CopyError {
    /// What the stream answered.
    pub error: io::Error,
    /// Which stream, and which direction.
    pub step: CopyStep,
    /// How many bytes had been sent by then, to `b` and to `a`. Of a send that the error of the other
    /// direction has ended, nothing is counted.
    pub copied: (u64, u64),
}

impl fmt::Display for CopyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = match self.step {
            CopyStep::ReadA => "reading from the first stream",
            CopyStep::WriteB => "writing to the second stream",
            CopyStep::ReadB => "reading from the second stream",
            CopyStep::WriteA => "writing to the first stream",
        };
        write!(f, "{step}: {}", self.error)
    }
}

impl std::error::Error for CopyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl From<CopyError> for io::Error {
    fn from(failed: CopyError) -> io::Error {
        failed.error
    }
}
