//! What the kernel knows about an open file.

use std::io;

use super::file::File;
use crate::driver::Call;
use crate::op;
use crate::sys::status::Status;

impl File {
    /// How many bytes the file has: 0 for what has no length, such as a pipe or most of `/proc`.
    ///
    /// It is answered at once, by `fstat`; a network file system may ask its server meanwhile.
    ///
    /// # Errors
    /// What `fstat` answers.
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
    pub async fn len(&self) -> io::Result<u64> {
        let fd = self.fd.raw();
        let ask =
            |status: &mut _| op::with("File::len", |ring| ring.call(Call::Status { fd, status }));
        Ok(Status::read(ask)?.len())
    }
}
