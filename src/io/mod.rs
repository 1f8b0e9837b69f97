//! Reading and writing in general: two traits for streams of bytes, and what is built on them.
//!
//! | to | there is |
//! |---|---|
//! | be generic over streams | [`AsyncRead`], [`AsyncWrite`] |
//! | read lines, exact counts, up to a delimiter, into borrowed memory | [`BufReader`] |
//! | gather small writes | [`BufWriter`] |
//! | cut a stream into frames | [`FramedRead`], [`FramedWrite`], and [`codec`] |
//! | pass a stream on | [`copy`], [`copy_bidirectional`] |
//! | join two parts of a program | [`pipe`](pipe()), in memory |
//! | use the standard streams | [`stdin`], [`stdout`], [`stderr`] |
//! | read and write a pipe of the kernel's, a terminal | [`FdReader`], [`FdWriter`] |
//! | wait for a descriptor of somebody else's | [`PollFd`] |
//!
//! All methods of the traits take `&self`, so a stream is read and written at the same time without
//! being split: a reader of `&stream` and a writer of `&stream` are two values.
//!
//! Dropping a future of this module loses no byte that has arrived, unless its documentation says
//! what is lost. What a [`BufReader`] has not consumed goes back to its stream when it is dropped.
//!
//! ```
//! use quoit::io::{BufReader, BufWriter};
//! use quoit::net::{TcpListener, TcpStream};
//!
//! # quoit::runtime::run(async {
//! # let listener = TcpListener::bind("127.0.0.1:0").await?;
//! # let address = listener.local_addr()?;
//! quoit::spawn(async move {
//!     let (stream, _) = listener.accept().await?;
//!     let (mut requests, mut answers) = (BufReader::new(&stream), BufWriter::new(&stream));
//!     while let Some(name) = requests.read_line(1024).await? {
//!         answers.write_all(b"hello, ").await?;
//!         answers.write_all(name.as_bytes()).await?;
//!         answers.write_all(b"\n").await?;
//!         answers.flush().await?;
//!     }
//!     std::io::Result::Ok(())
//! });
//! let stream = TcpStream::connect(address).await?;
//! stream.write_all("Ada\n").await?;
//! assert_eq!(BufReader::new(&stream).read_line(1024).await?, Some("hello, Ada"));
//! # std::io::Result::Ok(()) }).unwrap().unwrap();
//! ```

mod buf_reader;
mod buf_writer;
mod buffered;
pub mod codec;
mod copy;
mod descriptor;
mod error;
mod fd_reader;
mod fd_writer;
mod framed;
mod pipe;
mod poll_fd;
mod standard;
mod traits;

pub use buf_reader::BufReader;
pub use buf_writer::BufWriter;
pub use codec::{Decoder, Encoder};
pub use copy::{CopyError, CopyStep, copy, copy_bidirectional};
pub use error::TooLong;
pub use fd_reader::FdReader;
pub use fd_writer::FdWriter;
pub use framed::{FramedRead, FramedWrite};
pub use pipe::{PipeReader, PipeWriter, pipe};
pub use poll_fd::{Interest, PollFd, Ready};
pub use standard::{stderr, stdin, stdout};
pub use traits::{AsyncRead, AsyncWrite};
