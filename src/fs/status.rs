//! What the kernel knows about an open file.

use std::io;

use io_uring::{opcode, types};

use super::file::File;
use crate::driver::{Cqe, Sqe};
use crate::op::{Op, Submission};
use crate::sys::fd::Fd;

impl File {
    /// How many bytes the file has: 0 for what has no length, such as a pipe or most of `/proc`.
    ///
    /// Dropping the future loses nothing. `IORING_OP_STATX`, kernel 5.6.
    ///
    /// # Errors
    /// What `statx` answers.
    ///
    /// # Panics
    /// Outside of the runtime that opened the file, when it is first polled.
    ///
    /// ```
    /// # quoit::runtime::run(async {
    /// # let path = std::env::temp_dir().join(format!("quoit-len-{}", std::process::id()));
    /// # std::fs::write(&path, "0123456789")?;
    /// let file = quoit::fs::File::open(&path).await?;
    /// assert_eq!(file.len().await?, 10);
    /// # std::fs::remove_file(path)?;
    /// # std::io::Result::Ok(()) }).unwrap().unwrap();
    /// ```
    #[expect(clippy::len_without_is_empty, reason = "a length of 0 does not mean an empty file")]
    pub async fn len(&self) -> io::Result<u64> {
        Submission::new(Status { fd: self.fd.clone(), answer: [0; WORDS] }).await
    }
}

/// `struct statx` has 256 bytes, and `stx_size` is at byte 40 of it.
const WORDS: usize = 256 / 8;
const SIZE: usize = 40 / 8;

/// `IORING_OP_STATX`, kernel 5.6, of the descriptor itself (`AT_EMPTY_PATH`).
struct Status {
    fd: Fd,
    answer: [u64; WORDS],
}

// SAFETY: I2: the request points at `answer` and at a literal; `fd` keeps the descriptor open.
unsafe impl Op for Status {
    type Output = io::Result<u64>;

    const WAITS_FOR_ADMISSION: bool = true;

    fn prepare(&mut self) -> Sqe {
        let answer = self.answer.as_mut_ptr().cast();
        opcode::Statx::new(types::Fd(self.fd.raw()), c"".as_ptr(), answer)
            .flags(libc::AT_EMPTY_PATH)
            .mask(libc::STATX_SIZE)
            .build()
    }

    fn complete(self, cqe: Cqe) -> Self::Output {
        cqe.result()?;
        Ok(self.answer[SIZE])
    }
}
