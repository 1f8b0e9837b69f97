//! The standard streams of the process.
//!
//! A terminal knows no write that is told not to wait: io_uring asks it whether there is room, writes
//! on the core's own thread, and there waits for all the rest (measured on 6.18: the core stands still
//! until somebody reads). `O_NONBLOCK` helps, but is shared with every other process that has the
//! terminal. So a terminal is opened once more, and that description is ours alone.

use std::io;

use super::descriptor::duplicate;
use super::fd_reader::{FdReader, Left};
use super::fd_writer::FdWriter;
use crate::sys::terminal::Mode;

/// What was read from standard input and not used by the handle that read it.
static LEFT: Left = Left::new(Vec::new());

/// The standard input of the process, whatever it is: a terminal, a pipe, a file.
///
/// Each handle has a descriptor of its own for it; if several read, each gets some of the bytes. What
/// a handle has read and not used when it is dropped, the others read next; one that waits already is
/// not woken for it. The buffer of `std::io::stdin` is
/// std's alone: who reads there reads ahead of everybody else.
///
/// It never blocks the core, and leaves the descriptor as it is. `IORING_OP_READ`, kernel 5.6.
///
/// # Errors
/// `EBADF` if the process has none; when there is no descriptor left; `Unsupported` in the
/// [simulator](crate::sim).
///
/// # Panics
/// Outside of a runtime.
///
/// ```no_run
/// use quoit::io::BufReader;
///
/// # quoit::runtime::run(async {
/// let mut lines = BufReader::new(quoit::io::stdin()?);
/// while let Some(line) = lines.read_line(4096).await? {
///     println!("{line}");
/// }
/// # std::io::Result::Ok(()) }).unwrap().unwrap();
/// ```
pub fn stdin() -> io::Result<FdReader> {
    duplicate("stdin", libc::STDIN_FILENO, Mode::Read).map(|fd| FdReader::new(fd, Some(&LEFT)))
}

/// The standard output of the process, without a buffer: each call is written as it is.
///
/// It does not block the core, also where the terminal is stopped or nobody reads the pipe, and leaves
/// the descriptor as it is. (On a terminal that the process may not open anew, as after `su`, a write
/// of io_uring's may wait for the terminal to take it.) What std's `println!` has in its buffer is
/// written by std. The writes of two handles may interleave. `IORING_OP_WRITE`, kernel 5.6.
///
/// # Errors
/// As [`stdin`].
///
/// # Panics
/// Outside of a runtime.
///
/// ```
/// # quoit::runtime::run(async {
/// quoit::io::stdout()?.write_all("hello\n").await?;
/// # std::io::Result::Ok(()) }).unwrap().unwrap();
/// ```
pub fn stdout() -> io::Result<FdWriter> {
    duplicate("stdout", libc::STDOUT_FILENO, Mode::Write).map(FdWriter::new)
}

/// The standard error of the process; as [`stdout`].
///
/// # Errors
/// As [`stdin`].
///
/// # Panics
/// Outside of a runtime.
///
/// ```
/// # quoit::runtime::run(async {
/// quoit::io::stderr()?.write_all("it went wrong\n").await?;
/// # std::io::Result::Ok(()) }).unwrap().unwrap();
/// ```
pub fn stderr() -> io::Result<FdWriter> {
    duplicate("stderr", libc::STDERR_FILENO, Mode::Write).map(FdWriter::new)
}
