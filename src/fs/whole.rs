//! Whole files, in one call.

use std::io;
use std::path::Path;

use super::file::File;
use crate::buf::{BufError, IoBuf, Slice, tail};

/// The room for what a file has beyond its length: `/proc` says 0, and files grow.
const ROOM: usize = 512;

/// Reads all of a file, to its end as it is then: also one that grows meanwhile, or one whose
/// length the kernel does not know.
///
/// Dropping the future loses nothing but what was read.
///
/// # Errors
/// As [`File::open`] and [`File::read_at`]; `OutOfMemory` if there is no memory for so much.
///
/// # Panics
/// Outside of a runtime, when it is first polled.
///
/// ```
/// # quoit::runtime::run(async {
/// let limits = quoit::fs::read("/proc/self/limits").await?;
/// assert!(limits.starts_with(b"Limit"));
/// # std::io::Result::Ok(()) }).unwrap().unwrap();
/// ```
pub async fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let file = File::options().read(true).open_for("fs::read", path.as_ref()).await?;
    let len = usize::try_from(file.len().await?).unwrap_or(usize::MAX);
    let mut bytes = Vec::new();
    // One byte more, so that the read that finds the end needs no more memory.
    bytes.try_reserve_exact(len.saturating_add(1).max(ROOM))?;
    loop {
        if bytes.len() == bytes.capacity() {
            bytes.try_reserve(ROOM)?;
        }
        let offset = bytes.len() as u64;
        let (count, part) = file.read_at(tail(bytes), offset).await?;
        bytes = Slice::into_inner(part);
        if count == 0 {
            return Ok(bytes);
        }
    }
}

/// Writes a file: creates it, or replaces all that was in it, and gives `contents` back.
///
/// It is not synced, and not replaced at once: after an error, or when the future is dropped, the
/// file may have been emptied or written in part.
///
/// # Errors
/// As [`File::create`], [`File::write_all_at`] and [`File::close`]; `done` says how many bytes had
/// been written.
///
/// # Panics
/// Outside of a runtime, when it is first polled.
///
/// ```
/// # quoit::runtime::run(async {
/// # let path = std::env::temp_dir().join(format!("quoit-whole-{}", std::process::id()));
/// quoit::fs::write(&path, "all of it").await?;
/// assert_eq!(quoit::fs::read(&path).await?, b"all of it");
/// # std::fs::remove_file(path)?;
/// # std::io::Result::Ok(()) }).unwrap().unwrap();
/// ```
pub async fn write<B: IoBuf>(path: impl AsRef<Path>, contents: B) -> Result<B, BufError<B>> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    let file = match options.open_for("fs::write", path.as_ref()).await {
        Ok(file) => file,
        Err(error) => return Err(BufError { error, buf: contents, done: 0 }),
    };
    let contents = file.write_all_at(contents, 0).await?;
    match file.close().await {
        Ok(()) => Ok(contents),
        Err(error) => {
            let done = contents.buf_len();
            Err(BufError { error, buf: contents, done })
        }
    }
}
