//! Opening a file.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use io_uring::{opcode, types};

use super::file::File;
use crate::driver::{Cqe, Sqe};
use crate::op::{self, Op, Ring, Submission};
use crate::sys::current;
use crate::sys::fd::OwnedFd;

/// How to open a file; the words are those of [`std::fs::OpenOptions`].
///
/// Nothing is on in the beginning: say at least one of `read`, `write` and `append`. Descriptors
/// are always closed on `exec` (`O_CLOEXEC`).
///
/// ```
/// use quoit::fs::OpenOptions;
///
/// # quoit::runtime::run(async {
/// # let path = std::env::temp_dir().join(format!("quoit-options-{}", std::process::id()));
/// let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).await?;
/// file.write_all_at("new", 0).await?;
/// assert_eq!(file.read_exact_at(vec![0; 3], 0).await?, b"new");
///
/// let error = OpenOptions::new().write(true).create_new(true).open(&path).await.unwrap_err();
/// assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
/// # std::fs::remove_file(path)?;
/// # std::io::Result::Ok(()) }).unwrap().unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct OpenOptions {
    read: bool,
    write: bool,
    append: bool,
    truncate: bool,
    create: bool,
    create_new: bool,
    mode: u32,
    custom_flags: i32,
}

impl OpenOptions {
    /// Nothing is on, and the mode is `0o666`.
    #[must_use]
    pub fn new() -> Self {
        OpenOptions {
            read: false,
            write: false,
            append: false,
            truncate: false,
            create: false,
            create_new: false,
            mode: 0o666,
            custom_flags: 0,
        }
    }

    /// The file can be read.
    pub fn read(&mut self, on: bool) -> &mut Self {
        self.read = on;
        self
    }

    /// The file can be written.
    pub fn write(&mut self, on: bool) -> &mut Self {
        self.write = on;
        self
    }

    /// What is written goes to the end of the file (`O_APPEND`), **whatever offset the write
    /// names**: that is how Linux has it.
    pub fn append(&mut self, on: bool) -> &mut Self {
        self.append = on;
        self
    }

    /// The file is emptied when it is opened. Needs `write`.
    pub fn truncate(&mut self, on: bool) -> &mut Self {
        self.truncate = on;
        self
    }

    /// The file is created if it does not exist. Needs `write` or `append`.
    pub fn create(&mut self, on: bool) -> &mut Self {
        self.create = on;
        self
    }

    /// The file is created, and must not have existed (`O_EXCL`). `create` and `truncate` then
    /// change nothing. Needs `write` or `append`.
    pub fn create_new(&mut self, on: bool) -> &mut Self {
        self.create_new = on;
        self
    }

    /// The permissions of a file that is created, less those in the process's umask.
    pub fn mode(&mut self, mode: u32) -> &mut Self {
        self.mode = mode;
        self
    }

    /// Flags for `open` besides those of the other methods (`O_DIRECT`, `O_NOFOLLOW`, ...). The
    /// bits of the access mode (`O_ACCMODE`) are ignored.
    pub fn custom_flags(&mut self, flags: i32) -> &mut Self {
        self.custom_flags = flags;
        self
    }

    /// Opens `path`.
    ///
    /// Dropping the future cancels the request. A file that was opened all the same is closed; one
    /// that was created or emptied stays so. What waits for a partner, as a FIFO does, holds one
    /// of the kernel's worker threads and not the core.
    ///
    /// `IORING_OP_OPENAT`, kernel 5.6.
    ///
    /// # Errors
    /// `InvalidInput` for options that contradict each other or grant no access, and for a path
    /// with a zero byte; what `open` answers, such as `NotFound`, `PermissionDenied`,
    /// `AlreadyExists`, or `IsADirectory` for a directory that is to be written.
    ///
    /// # Panics
    /// Outside of a runtime, when it is first polled.
    pub async fn open(&self, path: impl AsRef<Path>) -> io::Result<File> {
        self.open_for("OpenOptions::open", path.as_ref()).await
    }

    /// Opens `path` for a method that is called `what`.
    pub(super) async fn open_for(&self, what: &str, path: &Path) -> io::Result<File> {
        let ring = current::share::<Ring>().unwrap_or_else(|| op::outside(what));
        let flags = self.access()? | self.creation()? | libc::O_CLOEXEC;
        let flags = flags | (self.custom_flags & !libc::O_ACCMODE);
        let path = CString::new(path.as_os_str().as_bytes())
            .map_err(|_| invalid("a path with a zero byte in it names no file"))?;
        let fd = Submission::new(Open { path, flags, mode: self.mode, ring }).await?;
        Ok(File::new(fd))
    }

    fn access(&self) -> io::Result<i32> {
        match (self.read, self.write, self.append) {
            (true, false, false) => Ok(libc::O_RDONLY),
            (false, true, false) => Ok(libc::O_WRONLY),
            (true, true, false) => Ok(libc::O_RDWR),
            (false, _, true) => Ok(libc::O_WRONLY | libc::O_APPEND),
            (true, _, true) => Ok(libc::O_RDWR | libc::O_APPEND),
            (false, false, false) => Err(invalid(
                "a file was opened neither to read nor to write; call `read`, `write` or `append` \
                 of its options",
            )),
        }
    }

    fn creation(&self) -> io::Result<i32> {
        let wants_any = self.truncate || self.create || self.create_new;
        match (self.write, self.append) {
            (false, false) if wants_any => {
                return Err(invalid(
                    "a file that cannot be written was to be created or truncated; call `write` \
                     or `append` of its options",
                ));
            }
            (_, true) if self.truncate && !self.create_new => {
                return Err(invalid("a file was to be truncated and appended to; choose one"));
            }
            _ => {}
        }
        Ok(match (self.create, self.truncate, self.create_new) {
            (false, false, false) => 0,
            (true, false, false) => libc::O_CREAT,
            (false, true, false) => libc::O_TRUNC,
            (true, true, false) => libc::O_CREAT | libc::O_TRUNC,
            (_, _, true) => libc::O_CREAT | libc::O_EXCL,
        })
    }
}

impl Default for OpenOptions {
    fn default() -> Self {
        OpenOptions::new()
    }
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// `IORING_OP_OPENAT`, kernel 5.6.
struct Open {
    path: CString,
    flags: i32,
    mode: u32,
    /// Whose kernel opens it, and will close it.
    ring: Rc<Ring>,
}

// SAFETY: I2: the request points into the heap memory of `path`; it names no descriptor.
unsafe impl Op for Open {
    type Output = io::Result<OwnedFd>;

    const WAITS_FOR_ADMISSION: bool = true;

    fn prepare(&mut self) -> Sqe {
        opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), self.path.as_ptr())
            .flags(self.flags)
            .mode(self.mode)
            .build()
    }

    fn complete(self, cqe: Cqe) -> Self::Output {
        // Whoever drops the answer, because nobody awaits it any more, closes the file.
        Ok(self.ring.adopt(cqe.result()? as i32))
    }

    #[cfg(canary = "drop-cancelled-descriptor")]
    fn abandon(self, cqe: Cqe) {
        std::mem::forget(self.complete(cqe));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_the_flags_that_std_makes_of_them() {
        let flags = |options: &OpenOptions| Some(options.access().ok()? | options.creation().ok()?);
        let new = OpenOptions::new;
        assert_eq!(flags(&new()), None);
        assert_eq!(flags(new().read(true)), Some(libc::O_RDONLY));
        assert_eq!(flags(new().read(true).write(true)), Some(libc::O_RDWR));
        assert_eq!(flags(new().append(true)), Some(libc::O_WRONLY | libc::O_APPEND));
        assert_eq!(flags(new().read(true).create(true)), None);
        assert_eq!(flags(new().append(true).truncate(true)), None);
        let created = libc::O_WRONLY | libc::O_CREAT;
        assert_eq!(flags(new().write(true).create(true)), Some(created));
        assert_eq!(
            flags(new().write(true).create(true).truncate(true)),
            Some(created | libc::O_TRUNC)
        );
        assert_eq!(
            flags(new().append(true).truncate(true).create_new(true)),
            Some(created | libc::O_EXCL | libc::O_APPEND)
        );
    }
}
