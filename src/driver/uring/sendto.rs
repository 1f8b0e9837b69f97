//! A message with nothing but an address is a plain send to it.
//!
//! For `SENDMSG` the kernel copies a header and a list of one piece, and has memory for both; `SEND`
//! takes the address along since 6.1. It is the driver's own matter; no operation knows.

use io_uring::opcode;

use super::Uring;
use crate::driver::caps::Cap;
use crate::driver::pad::message::family_of;
use crate::driver::{Fields, Sqe};

impl Uring {
    /// Makes a `SEND` of `sqe` where that says the same, and the kernel knows it.
    ///
    /// # Safety
    /// As [`apply`].
    #[inline]
    pub(super) unsafe fn lighten(&self, sqe: &mut Sqe) {
        if self.caps.has(Cap::SendTo) {
            // SAFETY: the caller's promise.
            unsafe { apply(sqe) };
        }
    }
}

/// Makes a `SEND` of a `SENDMSG` to an address of the internet, unless it has more to say.
///
/// # Safety
/// What the request points at is valid, as whoever pushes it has promised.
#[inline]
unsafe fn apply(sqe: &mut Sqe) {
    let fields = Fields::of_mut(sqe);
    if fields.opcode != opcode::SendMsg::CODE {
        return;
    }
    // SAFETY: I2: the request points at its header.
    let header = unsafe { &*(fields.addr as *const libc::msghdr) };
    // SAFETY: I2: the header points at an address, or at none.
    let family = unsafe { family_of(header) };
    let is_inet = matches!(family, Some(libc::AF_INET | libc::AF_INET6));
    if !is_inet || header.msg_controllen != 0 || header.msg_iovlen != 1 {
        return;
    }
    // SAFETY: I2: and at as many pieces as it says.
    let piece = unsafe { *header.msg_iov };
    let (Ok(len), Ok(name_len)) = (u32::try_from(piece.iov_len), u16::try_from(header.msg_namelen))
    else {
        return;
    };
    fields.opcode = opcode::Send::CODE;
    (fields.addr, fields.len) = (piece.iov_base as u64, len);
    (fields.off, fields.file_index) = (header.msg_name as u64, u32::from(name_len));
}

#[cfg(test)]
mod tests {
    use std::mem::zeroed;
    use std::ptr::null_mut;

    use io_uring::types;

    use super::*;

    /// What becomes of a message, after `change` has been made to it.
    fn applied(change: impl FnOnce(&mut libc::msghdr, &mut libc::sockaddr_in)) -> (Fields, bool) {
        // SAFETY: both are plain numbers and pointers, of which null is one.
        let (mut header, mut name) = unsafe { zeroed::<(libc::msghdr, libc::sockaddr_in)>() };
        name.sin_family = libc::AF_INET as libc::sa_family_t;
        let mut bytes = *b"a datagram";
        let mut piece = [libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: 10 }; 2];
        (header.msg_name, header.msg_namelen) = ((&raw mut name).cast(), 16);
        (header.msg_iov, header.msg_iovlen) = (piece.as_mut_ptr(), 1);
        change(&mut header, &mut name);
        let message = opcode::SendMsg::new(types::Fd(3), &raw const header).flags(5);
        let mut sqe = message.build().user_data(7);
        let before = Fields::of(&sqe);
        // SAFETY: all that it points at is here.
        unsafe { apply(&mut sqe) };
        let after = Fields::of(&sqe);
        let send = Fields {
            opcode: opcode::Send::CODE,
            addr: bytes.as_ptr() as u64,
            len: 10,
            off: (&raw const name) as u64,
            file_index: 16,
            ..before
        };
        assert!(after == before || after == send, "{after:?}");
        (after, after == send)
    }

    #[test]
    fn a_message_to_an_address_becomes_a_send() {
        let (fields, is_send) = applied(|_, _| ());
        assert!(is_send, "{fields:?}");
        assert_eq!((fields.fd, fields.op_flags, fields.user_data), (3, 5, 7));
    }

    #[test]
    fn a_message_that_says_more_stays_one() {
        let unix = libc::AF_UNIX as libc::sa_family_t;
        assert!(!applied(|header, _| header.msg_name = null_mut()).1, "to whom it is connected");
        assert!(!applied(|header, _| header.msg_controllen = 24).1, "with more than bytes");
        assert!(!applied(|header, _| header.msg_iovlen = 2).1, "in pieces");
        assert!(!applied(|_, name| name.sin_family = unix).1, "to another kind of address");
    }
}
