//! Making what was written last.

use std::io;

use io_uring::{opcode, types};

use super::file::File;
use crate::driver::{Cqe, Sqe};
use crate::op::{Op, Submission};
use crate::sys::fd::Fd;

impl File {
    /// Waits until the file's data and metadata are on the storage (`fsync`).
    ///
    /// It covers the writes that had ended when it was called. That a new file can be found after a
    /// power loss needs a sync of its directory too. Dropping the future undoes nothing: the sync
    /// may go on.
    ///
    /// `IORING_OP_FSYNC`, kernel 5.1.
    ///
    /// # Errors
    /// What `fsync` answers. After an error nobody knows which of the data are on the storage, and
    /// another sync that succeeds does not mean that they are.
    ///
    /// # Panics
    /// Outside of the runtime that opened the file, when it is first polled.
    ///
    /// ```
    /// # quoit::runtime::run(async {
    /// # let path = std::env::temp_dir().join(format!("quoit-sync-all-{}", std::process::id()));
    /// let file = quoit::fs::File::create(&path).await?;
    /// file.write_all_at("to last", 0).await?;
    /// file.sync_all().await?;
    /// # std::fs::remove_file(path)?;
    /// # std::io::Result::Ok(()) }).unwrap().unwrap();
    /// ```
    pub async fn sync_all(&self) -> io::Result<()> {
        let flags = types::FsyncFlags::empty();
        Submission::new(Sync { fd: self.fd.clone(), flags }).await
    }

    /// As [`sync_all`](File::sync_all), without metadata that is not needed to read the data
    /// (`fdatasync`).
    ///
    /// # Errors
    /// As [`sync_all`](File::sync_all).
    ///
    /// # Panics
    /// As [`sync_all`](File::sync_all).
    ///
    /// ```
    /// # quoit::runtime::run(async {
    /// # let path = std::env::temp_dir().join(format!("quoit-sync-data-{}", std::process::id()));
    /// let file = quoit::fs::File::create(&path).await?;
    /// file.write_all_at("to last", 0).await?;
    /// file.sync_data().await?;
    /// # std::fs::remove_file(path)?;
    /// # std::io::Result::Ok(()) }).unwrap().unwrap();
    /// ```
    pub async fn sync_data(&self) -> io::Result<()> {
        let flags = types::FsyncFlags::DATASYNC;
        Submission::new(Sync { fd: self.fd.clone(), flags }).await
    }
}

/// `IORING_OP_FSYNC`, kernel 5.1.
struct Sync {
    fd: Fd,
    flags: types::FsyncFlags,
}

// SAFETY: I2: the request points at nothing, and `fd` keeps the descriptor open.
unsafe impl Op for Sync {
    type Output = io::Result<()>;

    const WAITS_FOR_ADMISSION: bool = true;

    fn prepare(&mut self) -> Sqe {
        opcode::Fsync::new(types::Fd(self.fd.raw())).flags(self.flags).build()
    }

    fn complete(self, cqe: Cqe) -> Self::Output {
        cqe.result().map(drop)
    }
}
