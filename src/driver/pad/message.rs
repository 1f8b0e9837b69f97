//! A received message in a provided buffer, laid out as `IORING_OP_RECVMSG` does when it is multishot:
//! for kernels that pick buffers themselves.
//!
//! ```text
//!   four numbers │ the sender's name │ control messages │ the payload
//!   16 bytes     │ as long as the request's msghdr says │ what is left of the buffer
//! ```

use super::provided::Offer;

/// The four numbers in front: `io_uring_recvmsg_out`.
const NUMBERS: usize = 16;

/// How much room a request wants for the name and for the control messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    name: u16,
    control: u16,
}

impl Layout {
    /// What a request for a message asks for. `None` if that fits no buffer.
    pub(crate) fn of(address: u64) -> Option<Layout> {
        // SAFETY: I1, I2: the request points at a message header that stays until its last answer.
        let message = unsafe { *(address as *const libc::msghdr) };
        let name = u16::try_from(message.msg_namelen).ok()?;
        Some(Layout { name, control: u16::try_from(message.msg_controllen).ok()? })
    }

    /// Bytes in front of the payload.
    pub(crate) fn front(self) -> usize {
        NUMBERS + usize::from(self.name) + usize::from(self.control)
    }

    /// Room for the name.
    pub(crate) fn name(self) -> usize {
        usize::from(self.name)
    }

    /// Room for the control messages.
    pub(crate) fn control(self) -> usize {
        usize::from(self.control)
    }

    /// A header that has `recvmsg` fill the first `len` bytes of a buffer, by way of `iovec`. `None`
    /// if they have no room for what is in front.
    pub(crate) fn header(
        self,
        start: *mut u8,
        len: usize,
        iovec: *mut libc::iovec,
    ) -> Option<libc::msghdr> {
        let room = len.checked_sub(self.front())?;
        let name = start.wrapping_add(NUMBERS);
        let control = name.wrapping_add(self.name());
        let payload =
            libc::iovec { iov_base: start.wrapping_add(self.front()).cast(), iov_len: room };
        // SAFETY: the caller's place for the iovec, which only it uses.
        unsafe { iovec.write(payload) };
        let has = |room: usize, place: *mut u8| if room > 0 { place } else { std::ptr::null_mut() };
        Some(libc::msghdr {
            msg_name: has(self.name(), name).cast(),
            msg_namelen: self.name.into(),
            msg_iov: iovec,
            msg_iovlen: 1,
            msg_control: has(self.control(), control).cast(),
            msg_controllen: self.control() as _,
            msg_flags: 0,
        })
    }

    /// Writes the four numbers in front of what was received. Returns the answer's result.
    pub(crate) fn complete(self, start: *mut u8, header: &libc::msghdr, received: usize) -> i32 {
        let numbers = [
            header.msg_namelen,
            header.msg_controllen as u32,
            received as u32,
            header.msg_flags.cast_unsigned(),
        ];
        // SAFETY: the buffer is on offer, so nobody else uses it, and `header` found room for them.
        unsafe { start.cast::<[u32; 4]>().write_unaligned(numbers) };
        (self.front() + received) as i32
    }
}

/// What a step needs while it fills a buffer, at that buffer's end: a kernel that is asked keeps
/// looking at it.
#[repr(C)]
pub(crate) struct Kept {
    header: libc::msghdr,
    iovec: libc::iovec,
}

impl Kept {
    /// Where it is in a buffer, which has room for it.
    pub(crate) fn at(offer: Offer) -> *mut Kept {
        let start = offer.start.as_ptr();
        let end = (start.addr() + offer.len as usize) & !(align_of::<Kept>() - 1);
        start.with_addr(end - size_of::<Kept>()).cast()
    }

    /// Puts one at the end of a buffer that was picked. `None` if there is no room.
    pub(crate) fn put(layout: Layout, offer: Offer) -> Option<()> {
        if (offer.len as usize) < 2 * size_of::<Kept>() {
            return None;
        }
        let (start, kept) = (offer.start.as_ptr(), Kept::at(offer));
        // SAFETY: the place lies in the buffer, and is only named here.
        let iovec = unsafe { &raw mut (*kept).iovec };
        let header = layout.header(start, kept.addr() - start.addr(), iovec)?;
        // SAFETY: the buffer is picked, so nobody else uses it; the place is in it, and aligned.
        unsafe { (&raw mut (*kept).header).write(header) };
        Some(())
    }

    /// The header, after the kernel's answer.
    pub(crate) fn header(offer: Offer) -> libc::msghdr {
        // SAFETY: `put` wrote it there, and the step has ended.
        unsafe { (*Kept::at(offer)).header }
    }
}

/// The family of the address that a message is for, if it names one.
///
/// # Safety
/// The header points at the address, if it points at one.
#[inline]
pub(crate) unsafe fn family_of(header: &libc::msghdr) -> Option<i32> {
    let family = header.msg_name.cast::<libc::sa_family_t>();
    // SAFETY: the caller's promise; an address begins with its family.
    (!family.is_null()).then(|| i32::from(unsafe { family.read_unaligned() }))
}
