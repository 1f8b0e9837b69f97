//! The control message of descriptors that travel with bytes (`SCM_RIGHTS`), sent and received.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::control;

/// The kernel passes no more descriptors with one message (`SCM_MAX_FD`).
pub(crate) const MOST_FDS: usize = 253;

const NUMBER: usize = size_of::<i32>();

/// Room for all descriptors of a message, and for what the kernel adds if somebody asked it to:
/// credentials, a process, a label.
const ROOM: usize = control::space(MOST_FDS * NUMBER) + 512;

/// Aligned as the kernel wants it.
#[repr(C, align(8))]
struct Memory([u8; ROOM]);

/// Memory for control messages, and the descriptors in it while they are being sent.
pub(crate) struct Rights {
    memory: Box<Memory>,
    sending: Vec<OwnedFd>,
}

impl Rights {
    pub(crate) fn new() -> Self {
        Rights { memory: Box::new(Memory([0; ROOM])), sending: Vec::new() }
    }

    /// Holds `fds`, at most [`MOST_FDS`], until it is [cleared](Self::clear). Returns how many bytes
    /// tell of them.
    pub(crate) fn send(&mut self, fds: Vec<OwnedFd>) -> usize {
        assert!(fds.len() <= MOST_FDS, "{} descriptors do not fit", fds.len());
        let (level, kind, len) = (libc::SOL_SOCKET, libc::SCM_RIGHTS, fds.len() * NUMBER);
        let value = control::begin(&mut self.memory.0, level, kind, len);
        for (place, fd) in value.chunks_exact_mut(NUMBER).zip(&fds) {
            place.copy_from_slice(&fd.as_raw_fd().to_ne_bytes());
        }
        self.sending = fds;
        control::space(len)
    }

    /// Forgets what is in it: the descriptors that were sent are closed, and none is to be received
    /// but what a kernel writes from here on.
    pub(crate) fn clear(&mut self) {
        self.sending.clear();
        // A message of no length is the end.
        self.memory.0[..size_of::<usize>()].fill(0);
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut libc::c_void {
        self.memory.0.as_mut_ptr().cast()
    }

    pub(crate) fn room() -> usize {
        ROOM
    }

    /// Takes the descriptors out of the `len` bytes that a kernel has written since it was cleared;
    /// none if it has written nothing.
    pub(crate) fn received(&mut self, len: usize) -> Vec<OwnedFd> {
        let mut fds = Vec::new();
        if !self.sending.is_empty() {
            return fds;
        }
        for (level, kind, value) in control::messages(&self.memory.0[..len.min(ROOM)]) {
            if (level, kind) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
                fds.extend(value.chunks_exact(NUMBER).map(|number| {
                    let number = i32::from_ne_bytes(number.try_into().expect("4 bytes"));
                    // SAFETY: the memory was cleared, so a kernel has written this, and a driver is
                    // truthful: it is open, and, being taken once, nobody else's.
                    unsafe { OwnedFd::from_raw_fd(number) }
                }));
            }
        }
        self.clear();
        fds
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    fn null() -> OwnedFd {
        File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn what_is_sent_is_what_is_received() {
        for count in [0, 1, 2, 3, MOST_FDS] {
            let fds: Vec<OwnedFd> = (0..count).map(|_| null()).collect();
            let numbers: Vec<i32> = fds.iter().map(AsRawFd::as_raw_fd).collect();
            let mut rights = Rights::new();
            let len = rights.send(fds);
            // The memory now says what a kernel would: these numbers. Nobody else may have them.
            std::mem::take(&mut rights.sending).into_iter().for_each(std::mem::forget);
            let received = rights.received(len);
            assert_eq!(received.iter().map(AsRawFd::as_raw_fd).collect::<Vec<_>>(), numbers);
            assert!(rights.received(len).is_empty(), "they are taken once");
        }
    }

    #[test]
    fn messages_of_other_kinds_are_passed_over() {
        let mut rights = Rights::new();
        let len = rights.send(vec![null()]);
        std::mem::take(&mut rights.sending).into_iter().for_each(std::mem::forget);
        let message = rights.memory.0[..len].to_vec();
        // Credentials come first.
        let (level, kind) = (libc::SOL_SOCKET, libc::SCM_CREDENTIALS);
        control::begin(&mut rights.memory.0, level, kind, 12).fill(1);
        let first = control::space(12);
        rights.memory.0[first..first + len].copy_from_slice(&message);
        assert_eq!(rights.received(first + len).len(), 1);
        rights.memory.0[..8].fill(0xff);
        assert!(rights.received(first + len).is_empty(), "it claims more than is there");
    }
}
