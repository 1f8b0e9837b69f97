//! The file of a Unix socket: whether somebody has it bound, who that is, and its removal.
//!
//! The file stays when its socket is closed. Nothing about it says so; but whoever connects a
//! datagram socket to it learns whether somebody is there, and nobody there learns of that: a socket
//! of another type refuses the type, and one of the same type is not told.

use std::fs::{self, File, TryLockError};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixDatagram;
use std::path::{self, Path};

use super::listeners::{Process, find_process};

/// Bytes of the table of sockets that are read at most.
const MOST_BYTES: u64 = 1 << 20;

/// A file, whatever its path: its device and its inode.
pub(crate) type FileId = (u64, u64);

/// What is at a path where a socket is to be bound.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    /// A socket that somebody has bound.
    Bound,
    /// The file of a socket that is no more.
    Stale(FileId),
    NoSocket,
}

/// Looks at what is at `path`.
pub(crate) fn look(path: &Path) -> io::Result<Found> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(error),
    };
    if !metadata.file_type().is_socket() {
        return Ok(Found::NoSocket);
    }
    let probe = UnixDatagram::unbound()?;
    probe.set_nonblocking(true)?;
    match probe.connect(path).map_err(|error| error.raw_os_error().unwrap_or(0)) {
        Err(libc::ECONNREFUSED) => Ok(Found::Stale((metadata.dev(), metadata.ino()))),
        Err(libc::ENOENT) => Ok(Found::Nothing),
        // It may be somebody's of whom this process must not know.
        Ok(()) | Err(_) => Ok(Found::Bound),
    }
}

/// Which file a socket's path leads to.
pub(crate) fn identify(path: &Path) -> io::Result<FileId> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Removes the file at `path` if no socket has it any more; whether it did.
///
/// Who does so at the same time waits for each other, by a lock on the directory: otherwise one would
/// remove what the other has just bound.
///
/// # Errors
/// `WouldBlock` while somebody else has the lock; what the system answers.
pub(crate) fn remove_stale(path: &Path) -> io::Result<bool> {
    let _locked = lock_directory(path)?;
    match look(path)? {
        Found::Stale(file) => unlink(path, file),
        Found::Nothing | Found::Bound | Found::NoSocket => Ok(false),
    }
}

/// Removes the file at `path` if it is still `file`; whether it did.
///
/// # Errors
/// What the system answers.
pub(crate) fn remove(path: &Path, file: FileId) -> io::Result<bool> {
    // Held by others for a moment only, and this one cannot wait: see above what it is good for.
    let _locked = lock_directory(path);
    unlink(path, file)
}

fn unlink(path: &Path, file: FileId) -> io::Result<bool> {
    match identify(path) {
        Ok(found) if found == file => {}
        Ok(_) => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    fs::remove_file(path).map(|()| true)
}

fn lock_directory(path: &Path) -> io::Result<File> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = File::open(directory.unwrap_or(Path::new(".")))?;
    match directory.try_lock() {
        Ok(()) => Ok(directory),
        Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The process that has a socket bound to `name`, as a kernel writes it: a path, or an abstract name
/// after a zero. None if it may not be seen, or has the path under another name.
pub(crate) fn owner(name: &[u8], root: &Path) -> Option<Process> {
    let table = File::open(root.join("proc/net/unix")).ok()?;
    // Paths need not be UTF-8.
    let mut lines = BufReader::new(table.take(MOST_BYTES)).split(b'\n').map_while(Result::ok);
    let shown: Vec<u8> = match name {
        [0, ..] => name.iter().map(|&byte| if byte == 0 { b'@' } else { byte }).collect(),
        path => path.to_vec(),
    };
    let absolute = path::absolute(std::ffi::OsStr::from_bytes(&shown)).unwrap_or_default();
    let inode = lines.find_map(|line| {
        let (inode, path) = parse(&line)?;
        (path == shown || path == absolute.as_os_str().as_bytes()).then_some(inode)
    })?;
    find_process(inode, root)
}

/// Reads a line of /proc/net/unix: `NUMBER: COUNT PROTOCOL FLAGS TYPE STATE INODE PATH`; none if the
/// socket is a connection, which has the name of its listener.
fn parse(line: &[u8]) -> Option<(u64, &[u8])> {
    const UNCONNECTED: &str = "01";
    let mut rest = line;
    let mut fields = [""; 7];
    for field in &mut fields {
        rest = rest.trim_ascii_start();
        let end = rest.iter().position(|byte| *byte == b' ')?;
        *field = str::from_utf8(&rest[..end]).ok()?;
        rest = &rest[end..];
    }
    (fields[5] == UNCONNECTED).then_some(())?;
    Some((fields[6].parse().ok()?, &rest[1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fake_root::FakeRoot;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_socket_that_is_bound_is_told_from_one_that_is_stale() {
        let root = FakeRoot::new();
        let path = root.join("socket");
        assert_eq!(look(&path).unwrap(), Found::Nothing);
        let listener = UnixListener::bind(&path).unwrap();
        assert_eq!(look(&path).unwrap(), Found::Bound);
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err(), "nobody there learns of the look");
        drop(listener);
        assert_eq!(look(&path).unwrap(), Found::Stale(identify(&path).unwrap()));
        assert!(remove_stale(&path).unwrap());
        assert_eq!(look(&path).unwrap(), Found::Nothing);
        let datagram = UnixDatagram::bind(&path).unwrap();
        assert_eq!(look(&path).unwrap(), Found::Bound);
        assert!(!remove_stale(&path).unwrap());
        drop(datagram);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "text").unwrap();
        assert_eq!(look(&path).unwrap(), Found::NoSocket);
        assert!(!remove_stale(&path).unwrap());
    }

    #[test]
    fn only_the_very_file_is_removed_and_nothing_while_another_removes() {
        let root = FakeRoot::new();
        let path = root.join("socket");
        drop(UnixListener::bind(&path).unwrap());
        let (device, inode) = identify(&path).unwrap();
        assert!(!remove(&path, (device, inode + 1)).unwrap());
        let locked = lock_directory(&path).unwrap();
        assert_eq!(remove_stale(&path).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(locked);
        assert!(remove(&path, (device, inode)).unwrap());
        assert!(!remove(&path, (device, inode)).unwrap());
    }

    #[test]
    fn the_owner_of_a_name_is_found() {
        let root = FakeRoot::new()
            .with_link("proc/self", "10")
            .with("proc/20/comm", "server\n")
            .with_link("proc/20/fd/3", "socket:[7]")
            .with(
                "proc/net/unix",
                "Num       RefCount Protocol Flags    Type St Inode Path\n\
                 0000000000000000: 00000002 00000000 00000000 0002 01    5\n\
                 0000000000000000: 00000003 00000000 00000000 0001 03    6 /run/a socket\n\
                 0000000000000000: 00000002 00000000 00010000 0001 01    7 /run/a socket\n\
                 0000000000000000: 00000002 00000000 00010000 0001 01    7 @a@b\n",
            );
        assert_eq!(owner(b"/run/a socket", &root).unwrap().name, "server");
        assert_eq!(owner(b"\0a\0b", &root).unwrap().id, 20);
        assert_eq!(owner(b"/run/a", &root), None);
    }
}
