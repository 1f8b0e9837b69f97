//! A pipe of the kernel's.

use std::io;

use crate::io::{FdReader, FdWriter};

/// A pipe of the kernel's, for this process and others: what is written comes out at the other end.
///
/// It holds 64 KiB unless the system says otherwise. A child gets an end by a `Stdio` of
/// [`FdReader::into_owned`] or [`FdWriter::into_owned`]. Two tasks of one core are joined faster in
/// memory: [`io::pipe`](crate::io::pipe()).
///
/// # Errors
/// When there is no descriptor left; `Unsupported` in the [simulator](crate::sim);
/// [`Forked`](crate::Forked) in a forked child.
///
/// # Panics
/// Outside of a runtime.
///
/// ```
/// # quoit::runtime::run(async {
/// let (reader, writer) = quoit::process::pipe()?;
/// writer.write_all("through the pipe").await?;
/// drop(writer);
/// assert_eq!(reader.read_to_end(Vec::new()).await?, b"through the pipe");
/// # std::io::Result::Ok(()) }).unwrap().unwrap();
/// ```
pub fn pipe() -> io::Result<(FdReader, FdWriter)> {
    let (reader, writer) = io::pipe()?;
    Ok((FdReader::from_owned(reader.into())?, FdWriter::from_owned(writer.into())?))
}
