//! What the kernel knows about an open file.

use std::io;

/// The answer of `fstat`.
pub(crate) struct Status(libc::stat);

impl Status {
    /// Lets `fill` write the answer.
    pub(crate) fn read(
        fill: impl FnOnce(&mut libc::stat) -> io::Result<i32>,
    ) -> io::Result<Status> {
        // SAFETY: it is plain numbers, for which zeros are valid.
        let mut status = unsafe { std::mem::zeroed() };
        fill(&mut status)?;
        Ok(Status(status))
    }

    /// Bytes in the file.
    pub(crate) fn len(&self) -> u64 {
        u64::try_from(self.0.st_size).unwrap_or(0)
    }
}
