//! Who is at the other end.

use std::io;
use std::os::fd::RawFd;

use crate::driver::Call;
use crate::net::options::{self, ring};

/// Which process is at the other end of a Unix socket, and whose it is, as the kernel noted when it
/// connected, listened, or made the pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UCred {
    pid: i32,
    uid: u32,
    gid: u32,
}

impl UCred {
    /// The process; none if it is in a namespace that this one does not see. Its number may be
    /// another's by now if it has ended: a pidfd does not have that problem.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        (self.pid > 0).then_some(self.pid)
    }

    /// The effective user.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// The effective group.
    #[must_use]
    pub fn gid(&self) -> u32 {
        self.gid
    }

    /// `SO_PEERCRED`
    pub(super) fn of_peer(fd: RawFd) -> io::Result<UCred> {
        let mut value = [0; 12];
        let (level, name) = (libc::SOL_SOCKET, libc::SO_PEERCRED);
        let call = Call::GetOption { fd, level, name, value: &mut value };
        ring("peer_cred", |ring| ring.call(call))?;
        let [pid, uid, gid] = [0, 4, 8]
            .map(|at| u32::from_ne_bytes([value[at], value[at + 1], value[at + 2], value[at + 3]]));
        Ok(UCred { pid: pid.cast_signed(), uid, gid })
    }
}

/// `SO_PEERPIDFD`, which libc does not name yet.
const SO_PEERPIDFD: i32 = 77;

/// A descriptor of the process at the other end.
pub(super) fn peer_pidfd(fd: RawFd) -> io::Result<std::os::fd::OwnedFd> {
    let answer = options::get(fd, libc::SOL_SOCKET, SO_PEERPIDFD);
    let raw = answer.map_err(|error| match error.raw_os_error() {
        Some(libc::ENOPROTOOPT) => {
            let text = "this kernel tells no pidfd of a peer (SO_PEERPIDFD came with 6.5)";
            io::Error::new(io::ErrorKind::Unsupported, text)
        }
        _ => error,
    })?;
    Ok(ring("peer_pidfd", |ring| ring.adopt(raw)).into_std())
}
