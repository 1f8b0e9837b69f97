//! What `sendmsg` and `recvmsg` point at: the header of a message, whom it is from or for, and the
//! descriptors that go along.

use std::os::fd::OwnedFd;
use std::ptr;

use super::rights::Rights;
use super::unix_addr::UnixAddress;

/// A message's header and what that points at. It stays in its box while a request points at it.
pub(crate) struct Envelope {
    message: libc::msghdr,
    iovec: libc::iovec,
    address: UnixAddress,
    rights: Option<Rights>,
}

/// What came beside the bytes of a message.
#[derive(Debug)]
pub(crate) struct Enclosed {
    pub(crate) from: UnixAddress,
    pub(crate) fds: Vec<OwnedFd>,
    /// Descriptors that had come were lost: the process may not have so many open.
    pub(crate) is_cut: bool,
}

impl Envelope {
    pub(crate) fn new() -> Box<Self> {
        Box::new(Envelope {
            message: libc::msghdr {
                msg_name: ptr::null_mut(),
                msg_namelen: 0,
                msg_iov: ptr::null_mut(),
                msg_iovlen: 1,
                msg_control: ptr::null_mut(),
                msg_controllen: 0,
                msg_flags: 0,
            },
            iovec: libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 },
            address: UnixAddress::empty(),
            rights: None,
        })
    }

    /// Encloses what goes along with the next message.
    pub(crate) fn enclose(&mut self, to: Option<UnixAddress>, fds: Vec<OwnedFd>) {
        self.address = to.unwrap_or(UnixAddress::empty());
        self.message.msg_namelen = self.address.len();
        self.message.msg_controllen = match fds.len() {
            0 => 0,
            _ => self.rights.get_or_insert_with(Rights::new).send(fds) as _,
        };
    }

    /// The message of these bytes, with what is enclosed.
    pub(crate) fn outgoing(&mut self, start: *const u8, len: u32) -> *const libc::msghdr {
        self.point_at(start.cast_mut(), len);
        let has_name = self.message.msg_namelen > 0;
        let name = self.address.as_mut_ptr();
        self.message.msg_name = if has_name { name.cast() } else { ptr::null_mut() };
        &raw const self.message
    }

    /// What was enclosed has been sent, or will not be.
    pub(crate) fn sent(&mut self) {
        if let Some(rights) = &mut self.rights {
            rights.clear();
        }
        (self.message.msg_controllen, self.message.msg_control) = (0, ptr::null_mut());
        self.message.msg_namelen = 0;
    }

    /// The message to be received into `len` bytes, from whomever; descriptors that come along and
    /// are not wanted are closed by the kernel.
    pub(crate) fn incoming(&mut self, start: *mut u8, len: u32, fds: bool) -> *mut libc::msghdr {
        self.message.msg_controllen = 0;
        if fds {
            let rights = self.rights.get_or_insert_with(Rights::new);
            rights.clear();
            self.message.msg_controllen = Rights::room();
        }
        self.point_at(start, len);
        self.address = UnixAddress::empty();
        self.message.msg_name = self.address.as_mut_ptr().cast();
        self.message.msg_namelen = UnixAddress::capacity();
        self.message.msg_flags = 0;
        &raw mut self.message
    }

    fn point_at(&mut self, start: *mut u8, len: u32) {
        self.iovec = libc::iovec { iov_base: start.cast(), iov_len: len as usize };
        self.message.msg_iov = &raw mut self.iovec;
        self.message.msg_control = match &mut self.rights {
            Some(rights) if self.message.msg_controllen > 0 => rights.as_mut_ptr(),
            _ => ptr::null_mut(),
        };
    }

    /// Takes out what a kernel has enclosed in a message that was received.
    pub(crate) fn open(&mut self) -> Enclosed {
        let len = std::mem::take(&mut self.message.msg_controllen);
        let fds = match &mut self.rights {
            Some(rights) if len > 0 => rights.received(len),
            _ => Vec::new(),
        };
        self.address.set_len(self.message.msg_namelen);
        let is_cut = self.message.msg_flags & libc::MSG_CTRUNC != 0;
        Enclosed { from: self.address, fds, is_cut }
    }
}
