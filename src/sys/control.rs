//! Control messages: what goes along with a message and is none of its bytes.
//!
//! The layout is the kernel's `cmsghdr`: a length, as wide as a pointer, a level and a kind; then the
//! value, filled up to the width of a pointer.

const WORD: usize = size_of::<usize>();
const HEADER: usize = WORD + 8;

/// Bytes that a value of `len` bytes takes in a control buffer.
pub(crate) const fn space(len: usize) -> usize {
    HEADER + len.next_multiple_of(WORD)
}

/// The control messages in `bytes`: level, kind and value.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (i32, i32, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from_ne_bytes(bytes.get(..WORD)?.try_into().ok()?);
        let number = |at: usize| Some(i32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let (level, kind) = (number(WORD)?, number(WORD + 4)?);
        let value = bytes.get(HEADER..len)?;
        bytes = bytes.get(len.next_multiple_of(WORD)..).unwrap_or_default();
        Some((level, kind, value))
    })
}

/// Begins a control message at the start of `place`, whose value will be `len` bytes. Returns the
/// place of the value.
///
/// # Panics
/// If there is no room for it.
pub(crate) fn begin(place: &mut [u8], level: i32, kind: i32, len: usize) -> &mut [u8] {
    let place = &mut place[..space(len)];
    place.fill(0);
    let (header, value) = place.split_at_mut(HEADER);
    header[..WORD].copy_from_slice(&(HEADER + len).to_ne_bytes());
    header[WORD..WORD + 4].copy_from_slice(&level.to_ne_bytes());
    header[WORD + 4..].copy_from_slice(&kind.to_ne_bytes());
    &mut value[..len]
}

/// Room for what can go along with a datagram that is sent: an address of either family, an ECN mark
/// for either, and a segment size.
const ROOM: usize = 2 * space(20) + 2 * space(4) + space(2);

/// Control messages that are being put together, aligned as the kernel wants them.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct Control {
    bytes: [u8; ROOM],
    len: usize,
}

impl Control {
    pub(crate) const fn new() -> Self {
        Control { bytes: [0; ROOM], len: 0 }
    }

    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    /// Adds a message.
    ///
    /// # Panics
    /// If there is no room for it.
    pub(crate) fn push(&mut self, level: i32, kind: i32, value: &[u8]) {
        begin(&mut self.bytes[self.len..], level, kind, value.len()).copy_from_slice(value);
        self.len += space(value.len());
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.bytes.as_mut_ptr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_that_of_the_system() {
        for len in 0..40 {
            // SAFETY: the macro of C does sums.
            assert_eq!(space(len as usize), unsafe { libc::CMSG_SPACE(len) } as usize);
        }
        // SAFETY: as above.
        assert_eq!(HEADER, unsafe { libc::CMSG_LEN(0) } as usize);
    }

    #[test]
    fn what_is_put_together_is_read_again() {
        let mut control = Control::new();
        control.push(1, 2, &[3; 20]);
        control.push(4, 5, &[6]);
        control.push(7, 8, &[]);
        let read: Vec<_> = messages(control.as_bytes()).collect();
        assert_eq!(read, [(1, 2, &[3; 20][..]), (4, 5, &[6]), (7, 8, &[])]);
    }

    #[test]
    fn what_is_cut_off_or_nonsense_ends_the_messages() {
        let mut control = Control::new();
        control.push(1, 2, &[3; 4]);
        let bytes = control.as_bytes();
        assert_eq!(messages(&bytes[..HEADER + 3]).count(), 0);
        assert_eq!(messages(&[0xff; 64]).count(), 0);
        assert_eq!(messages(&[0; 64]).count(), 0);
        assert_eq!(messages(&[]).count(), 0);
    }
}
