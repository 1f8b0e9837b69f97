//! An open file.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::path::Path;

use super::open::OpenOptions;
use crate::sys::fd::{Fd, OwnedFd};

/// An open file.
///
/// All methods take `&self` and name an offset: there is no position that calls would share. The
/// kernel runs what is in flight on one file in any order, so a read sees a write for certain only
/// after that write has ended.
///
/// Dropping it closes the descriptor as soon as no operation refers to it, and hides the error that
/// closing may give: see [`close`](File::close).
///
/// ```
/// use quoit::fs::File;
///
/// # quoit::runtime::run(async {
/// # let path = std::env::temp_dir().join(format!("quoit-file-{}", std::process::id()));
/// let file = File::create(&path).await?;
/// file.write_all_at("to be kept", 0).await?;
/// file.sync_data().await?;
/// file.close().await?;
///
/// let file = File::open(&path).await?;
/// let (n, buf) = file.read_at(Vec::with_capacity(4096), 6).await?;
/// assert_eq!((n, &buf[..]), (4, &b"kept"[..]));
/// # std::fs::remove_file(path)?;
/// # std::io::Result::Ok(()) }).unwrap().unwrap();
/// ```
pub struct File {
    pub(super) fd: Fd,
}

impl File {
    pub(super) fn new(fd: OwnedFd) -> Self {
        File { fd: Fd::new(fd, ()) }
    }

    /// The number, for a call that the holder of the file is about to make.
    pub(crate) fn raw(&self) -> RawFd {
        self.fd.raw()
    }

    /// Opens a file to read it.
    ///
    /// As [`OpenOptions::open`], which says what dropping the future does.
    ///
    /// # Errors
    /// As [`OpenOptions::open`].
    ///
    /// # Panics
    /// Outside of a runtime, when it is first polled.
    ///
    /// ```
    /// # quoit::runtime::run(async {
    /// let file = quoit::fs::File::open("/proc/self/comm").await?;
    /// let (n, _name) = file.read_at(Vec::with_capacity(16), 0).await?;
    /// assert!(n > 0);
    /// # std::io::Result::Ok(()) }).unwrap().unwrap();
    /// ```
    pub async fn open(path: impl AsRef<Path>) -> io::Result<File> {
        File::options().read(true).open_for("File::open", path.as_ref()).await
    }

    /// Opens a file to write it: creates it if it does not exist, and empties it if it does.
    ///
    /// As [`OpenOptions::open`], which says what dropping the future does.
    ///
    /// # Errors
    /// As [`OpenOptions::open`].
    ///
    /// # Panics
    /// Outside of a runtime, when it is first polled.
    ///
    /// ```
    /// # quoit::runtime::run(async {
    /// # let path = std::env::temp_dir().join(format!("quoit-create-{}", std::process::id()));
    /// let file = quoit::fs::File::create(&path).await?;
    /// assert_eq!(file.len().await?, 0);
    /// # std::fs::remove_file(path)?;
    /// # std::io::Result::Ok(()) }).unwrap().unwrap();
    /// ```
    pub async fn create(path: impl AsRef<Path>) -> io::Result<File> {
        let mut options = File::options();
        options.write(true).create(true).truncate(true);
        options.open_for("File::create", path.as_ref()).await
    }

    /// How to open a file otherwise: the same as [`OpenOptions::new`].
    #[must_use]
    pub fn options() -> OpenOptions {
        OpenOptions::new()
    }

    /// Closes the file, and says what the kernel said.
    ///
    /// It waits until the kernel has answered the operations whose futures were dropped, then
    /// closes exactly once, by `close`. Dropping the future, or the file, closes just as surely and
    /// keeps the error to itself. A network file system writes back what it holds and may block the
    /// core meanwhile; after [`sync_all`](File::sync_all) there is nothing left to write.
    ///
    /// # Errors
    /// What `close` answers, such as `StorageFull` or `QuotaExceeded` of a network file system; the
    /// descriptor is closed all the same.
    ///
    /// ```
    /// # quoit::runtime::run(async {
    /// let file = quoit::fs::File::open("/proc/self/comm").await?;
    /// file.close().await?;
    /// # std::io::Result::Ok(()) }).unwrap().unwrap();
    /// ```
    pub async fn close(self) -> io::Result<()> {
        self.fd.alone().await.close()
    }
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.borrow()
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("fd", &self.as_fd()).finish()
    }
}

/// The offset of a request: the one that was asked for, and what is done already behind it.
///
/// The kernel's offsets are signed, and -1 means the file's own position: what is no offset must
/// not reach it.
pub(super) fn offset_of(offset: u64, done: usize) -> io::Result<u64> {
    let at = offset.checked_add(done as u64).filter(|&at| i64::try_from(at).is_ok());
    at.ok_or_else(|| {
        let text = format!("the offset {offset} + {done} is past the end of any file (2^63 - 1)");
        io::Error::new(io::ErrorKind::InvalidInput, text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_request_can_mean_the_files_own_position() {
        assert_eq!(offset_of(0, 0).unwrap(), 0);
        assert_eq!(offset_of(i64::MAX as u64, 0).unwrap(), i64::MAX as u64);
        for (offset, done) in [(u64::MAX, 0), (1 << 63, 0), (i64::MAX as u64, 1), (u64::MAX, 1)] {
            let error = offset_of(offset, done).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
    }
}
