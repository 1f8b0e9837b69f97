//! The language between operations and kernels: a 64-byte request, a 16-byte answer.

use std::io;

use io_uring::types;

use crate::sys::fork::Forked;

/// A request: io_uring's submission queue entry.
pub type Sqe = io_uring::squeue::Entry;

/// The fields of an [`Sqe`] as the kernel reads them, for kernels that are not the real one.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fields {
    /// What to do (`IORING_OP_*`).
    pub opcode: u8,
    /// `IOSQE_*` bits.
    pub flags: u8,
    /// Priority, or the operation's own flags.
    pub ioprio: u16,
    /// The descriptor that the operation is about.
    pub fd: i32,
    /// Offset, or a second address.
    pub off: u64,
    /// Where the bytes are.
    pub addr: u64,
    /// How many bytes or entries.
    pub len: u32,
    /// Flags that depend on the opcode.
    pub op_flags: u32,
    /// Comes back in the answer.
    pub user_data: u64,
    /// A registered buffer, or the group that a buffer is picked from.
    pub buf_index: u16,
    /// Credentials; never used here.
    pub personality: u16,
    /// A direct descriptor, or a total limit.
    pub file_index: u32,
    /// A third address.
    pub addr3: u64,
    /// Unused.
    pub pad: u64,
}

const _: () = {
    assert!(size_of::<Sqe>() == 64 && size_of::<Fields>() == 64);
    assert!(align_of::<Sqe>() == align_of::<Fields>());
    assert!(std::mem::offset_of!(Fields, addr) == 16);
    assert!(std::mem::offset_of!(Fields, user_data) == 32);
    assert!(std::mem::offset_of!(Fields, addr3) == 48);
};

impl Fields {
    /// Reads a request.
    #[must_use]
    pub fn of(sqe: &Sqe) -> Fields {
        // SAFETY: both are the kernel's 64-byte entry, plain numbers in which every bit is valid.
        unsafe { std::mem::transmute_copy(sqe) }
    }

    /// The fields of a request, in place.
    pub(crate) fn of_mut(sqe: &mut Sqe) -> &mut Fields {
        // SAFETY: both are the same 64 bytes of plain numbers, with the same alignment.
        unsafe { &mut *std::ptr::from_mut(sqe).cast() }
    }

    /// Makes a request of the fields.
    #[must_use]
    pub fn into_sqe(self) -> Sqe {
        // SAFETY: as in `of`; nothing is promised about the fields until the entry is pushed.
        unsafe { std::mem::transmute(self) }
    }
}

/// Bits in the fields of a request, by the kernel's names.
pub(crate) mod flag {
    /// `IOSQE_FIXED_FILE`, in `flags`.
    pub(crate) const FIXED_FILE: u8 = 1;
    /// `IOSQE_ASYNC`, in `flags`.
    pub(crate) const ASYNC: u8 = 1 << 4;
    /// `IOSQE_BUFFER_SELECT`, in `flags`.
    pub(crate) const BUFFER_SELECT: u8 = 1 << 5;
    /// `IORING_RECVSEND_POLL_FIRST`, in `ioprio`.
    pub(crate) const POLL_FIRST: u16 = 1;
    /// `IORING_RECV_MULTISHOT`, in `ioprio`.
    pub(crate) const RECV_MULTISHOT: u16 = 1 << 1;
    /// `IORING_ACCEPT_MULTISHOT`, in `ioprio`.
    pub(crate) const ACCEPT_MULTISHOT: u16 = 1;
    /// `IORING_ACCEPT_DONTWAIT`, in `ioprio`.
    pub(crate) const ACCEPT_DONTWAIT: u16 = 1 << 1;
    /// `IORING_POLL_ADD_MULTI`, in `len`.
    pub(crate) const POLL_MULTI: u32 = 1;
    /// `IORING_POLL_ADD_LEVEL`, in `len`.
    pub(crate) const POLL_LEVEL: u32 = 1 << 3;
    /// `IORING_TIMEOUT_ABS`, in `op_flags`.
    pub(crate) const TIMEOUT_ABS: u32 = 1;
    /// `IORING_TIMEOUT_UPDATE`, in `op_flags`.
    pub(crate) const TIMEOUT_UPDATE: u32 = 1 << 1;
    /// `IORING_TIMEOUT_ETIME_SUCCESS`, in `op_flags`, which only concerns links.
    pub(crate) const TIMEOUT_ETIME_SUCCESS: u32 = 1 << 5;
}

/// An answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cqe {
    /// What the request carried: it names one life of one slot.
    pub user_data: u64,
    /// A count or a descriptor; below zero, an errno.
    pub result: i32,
    /// `IORING_CQE_F_*` bits.
    pub flags: u32,
}

/// Answers of a forked child, which no kernel gives: see [`Forked`].
pub(crate) const FORKED: i32 = i32::MIN;

impl Cqe {
    const BUFFER: u32 = 1;
    const BUFFER_SHIFT: u32 = 16;
    /// `IORING_CQE_F_MORE`
    pub(crate) const MORE: u32 = 2;

    /// `IORING_CQE_F_NOTIF`
    pub(crate) const NOTIFICATION: u32 = 8;
    /// `IORING_NOTIF_USAGE_ZC_COPIED`, the result of a notification.
    pub(crate) const COPIED: i32 = i32::MIN;

    /// Whether it says that the memory of a send without a copy is no longer read.
    pub(crate) fn is_notification(&self) -> bool {
        self.flags & Cqe::NOTIFICATION != 0
    }

    /// Of a notification: whether the bytes were copied all the same.
    pub(crate) fn was_copied(&self) -> bool {
        self.is_notification() && self.result == Cqe::COPIED
    }

    /// The flags that hand over a provided buffer.
    #[inline]
    pub(crate) fn picked(bid: u16) -> u32 {
        Cqe::BUFFER | u32::from(bid) << Cqe::BUFFER_SHIFT
    }

    /// The answer to a request that a driver refused.
    #[must_use]
    pub fn refusal(user_data: u64, errno: i32) -> Cqe {
        Cqe { user_data, result: -errno, flags: 0 }
    }

    /// Whether more answers to the same request will follow.
    #[inline]
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.flags & Cqe::MORE != 0
    }

    /// The provided buffer that this answer hands over.
    #[inline]
    #[must_use]
    pub fn buffer(&self) -> Option<u16> {
        (self.flags & Cqe::BUFFER != 0).then_some((self.flags >> Cqe::BUFFER_SHIFT) as u16)
    }

    /// The result as Rust has it.
    ///
    /// # Errors
    /// The errno that the kernel answered, or [`Forked`].
    #[inline]
    pub fn result(&self) -> io::Result<u32> {
        match u32::try_from(self.result) {
            Ok(result) => Ok(result),
            Err(_) if self.result == FORKED && !self.is_notification() => Err(Forked.into()),
            Err(_) => Err(io::Error::from_raw_os_error(-self.result)),
        }
    }
}

/// Nanoseconds as the kernel takes them; it would accept nonsense, and a loop would spin on it.
pub(crate) fn timespec(ns: u64) -> types::Timespec {
    let ns = ns.min(1 << 62);
    types::Timespec::new().sec(ns / 1_000_000_000).nsec((ns % 1_000_000_000) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use io_uring::opcode;

    #[test]
    fn the_view_sees_what_the_builder_wrote() {
        let memory = 0x1000 as *mut u8;
        let sqe = opcode::Read::new(types::Fd(7), memory, 99).offset(5).build().user_data(42);
        let fields = Fields::of(&sqe);
        assert_eq!((fields.opcode, fields.fd, fields.len), (opcode::Read::CODE, 7, 99));
        assert_eq!((fields.off, fields.addr, fields.user_data), (5, 0x1000, 42));
        assert_eq!(Fields::of(&fields.into_sqe()), fields);
    }
}
