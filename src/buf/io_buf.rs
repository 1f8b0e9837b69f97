//! A buffer: memory that an operation owns while a kernel reads or writes it.

use std::ops::RangeBounds;
use std::rc::Rc;
use std::sync::Arc;

use super::slice::Slice;

/// Memory that a kernel may read.
///
/// The names begin with `buf_` so that they never hide a type's own `len` or `as_ptr`.
///
/// # Safety
///
/// An operation takes the value, puts it in its final place, asks for its pointer and length, and
/// then neither moves nor borrows nor drops it until the kernel's last answer. For that time, and
/// for as long as somebody else borrows the value, the implementer promises:
///
///  - **Pointer.** [`buf_ptr`](IoBuf::buf_ptr) is not null. From it on,
///    [`buf_capacity`](IoBuf::buf_capacity) bytes are in one allocation, and the first
///    [`buf_len`](IoBuf::buf_len) of them are initialised and may be read, from any thread. The
///    pointer may lead into the value itself, as that of an array does: it need not survive a move.
///  - **Same answers.** Until the value is moved or something has `&mut` access to it, the three
///    methods give the same answers each time. A move may change the pointer, but not the length or
///    the capacity. `buf_len` is never more than `buf_capacity`.
///  - **Nobody writes.** The initialised bytes change only through `&mut` access to this value: no
///    other handle, thread or callback writes, frees or unmaps them. Others may read them, as with
///    `Arc<[u8]>`.
///  - **Leaks.** If the value is never dropped, its memory stays valid for ever. So a guard is no
///    buffer if its memory is on somebody's stack and only its `Drop` waits for the kernel.
///
/// The methods do not panic and do not start operations.
///
/// # Examples
///
/// What every method that writes asks for:
///
/// ```
/// use quoit::buf::IoBuf;
/// use std::sync::Arc;
///
/// fn bytes_to_write(buf: impl IoBuf) -> usize {
///     buf.buf_len()
/// }
///
/// assert_eq!(bytes_to_write(vec![1, 2, 3]), 3);
/// assert_eq!(bytes_to_write(Arc::<[u8]>::from([1, 2, 3])), 3);
/// assert_eq!(bytes_to_write("ping"), 4);
/// assert_eq!(bytes_to_write(b"ping"), 4);
/// ```
///
/// A buffer of one's own, as files opened for direct I/O need it. It is initialised in full, and
/// stays so:
///
/// ```
/// use quoit::buf::{IoBuf, IoBufMut};
///
/// #[repr(align(4096))]
/// struct Page([u8; 4096]);
///
/// struct AlignedPage(Box<Page>);
///
/// // SAFETY: the Box owns 4096 initialised bytes, and nobody else can reach them.
/// unsafe impl IoBuf for AlignedPage {
///     fn buf_ptr(&self) -> *const u8 {
///         self.0.0.as_ptr()
///     }
///     fn buf_len(&self) -> usize {
///         4096
///     }
/// }
///
/// // SAFETY: as above; the pointer comes from `&mut`, and all bytes stay initialised.
/// unsafe impl IoBufMut for AlignedPage {
///     fn buf_mut_ptr(&mut self) -> *mut u8 {
///         self.0.0.as_mut_ptr()
///     }
///     unsafe fn set_buf_len(&mut self, _len: usize) {}
/// }
///
/// let page = AlignedPage(Box::new(Page([0; 4096])));
/// assert_eq!(page.buf_ptr().addr() % 4096, 0);
/// ```
///
/// It is `unsafe` to implement:
///
/// ```compile_fail,E0200
/// struct Mine(Vec<u8>);
///
/// impl quoit::buf::IoBuf for Mine {
///     fn buf_ptr(&self) -> *const u8 {
///         self.0.as_ptr()
///     }
///     fn buf_len(&self) -> usize {
///         self.0.len()
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be lent to the kernel",
    note = "the kernel may use a buffer after the call's future was dropped, so the operation owns it",
    note = "pass a `Vec<u8>`, a `Box<[u8]>`, an array, an `Arc<[u8]>` or a `&'static [u8]`, by value"
)]
pub unsafe trait IoBuf: 'static {
    /// Where the buffer starts.
    ///
    /// ```
    /// use quoit::buf::IoBuf;
    ///
    /// let vec = vec![1, 2, 3];
    /// assert_eq!(vec.buf_ptr(), vec.as_ptr());
    /// ```
    fn buf_ptr(&self) -> *const u8;

    /// How many bytes are initialised: those which a write sends.
    ///
    /// ```
    /// use quoit::buf::IoBuf;
    ///
    /// assert_eq!(vec![1, 2, 3].buf_len(), 3);
    /// assert_eq!([0; 16].buf_len(), 16);
    /// ```
    fn buf_len(&self) -> usize;

    /// How many bytes a [`slice`](IoBuf::slice) may reach, and a read into the buffer may fill.
    ///
    /// The same as [`buf_len`](IoBuf::buf_len) unless the buffer has room behind its initialised
    /// bytes.
    ///
    /// ```
    /// use quoit::buf::IoBuf;
    ///
    /// assert!(Vec::<u8>::with_capacity(100).buf_capacity() >= 100);
    /// assert_eq!("ping".buf_capacity(), 4);
    /// ```
    fn buf_capacity(&self) -> usize {
        self.buf_len()
    }

    /// A part of this buffer, as a buffer.
    ///
    /// Without an end it reaches to the capacity, as the buffer itself does: a write sends what is
    /// initialised, a read may fill all of it. [`Slice`] says what a read does to the buffer around
    /// it.
    ///
    /// # Panics
    ///
    /// If the range ends past the capacity, starts after its end, or starts past the initialised
    /// bytes: a read could then leave a gap of uninitialised ones.
    ///
    /// ```
    /// use quoit::buf::IoBuf;
    ///
    /// let rest = vec![1, 2, 3].slice(1..);
    /// assert_eq!(*rest, [2, 3]);
    ///
    /// // Read at most 512 bytes, whatever the Vec has reserved.
    /// let room = Vec::<u8>::with_capacity(4096).slice(..512);
    /// assert_eq!(room.buf_capacity(), 512);
    /// ```
    #[track_caller]
    fn slice(self, range: impl RangeBounds<usize>) -> Slice<Self>
    where
        Self: Sized,
    {
        Slice::new(self, range)
    }
}

/// Memory that a kernel may write to.
///
/// # Safety
///
/// To what [`IoBuf`] asks for, under the same conditions and for the same time, the implementer
/// adds:
///
///  - **Pointer.** [`buf_mut_ptr`](IoBufMut::buf_mut_ptr) is the address that `buf_ptr` gives, and
///    [`buf_capacity`](IoBuf::buf_capacity) bytes from it on may be written, from any thread,
///    initialised or not. It is made from `&mut self`, never from a shared reference, and asking
///    for it changes nothing.
///  - **Alone.** Nobody else reads or writes these bytes or holds a reference to them.
///  - **Any bytes.** Every content is valid: a `String`, which must be UTF-8, cannot be read into.
///  - **Length.** After [`set_buf_len(len)`](IoBufMut::set_buf_len), `buf_len` is `len`. The
///    exception is memory that is always initialised in full, where `buf_len` always equals
///    `buf_capacity`. The pointer, the capacity and the first `len` bytes stay as they are.
///
/// Safe code must have no way to raise the length over bytes that were never initialised, nor to
/// write uninitialised bytes below it: no safe `&mut [MaybeUninit<u8>]`.
///
/// # Examples
///
/// ```
/// use quoit::buf::IoBufMut;
///
/// // What every method that reads asks for.
/// fn room_to_read(buf: impl IoBufMut) -> usize {
///     buf.buf_capacity()
/// }
///
/// assert!(room_to_read(Vec::with_capacity(4096)) >= 4096);
/// assert_eq!(room_to_read([0; 512]), 512);
/// ```
///
/// Memory that others may be reading, or that must stay text, cannot be read into:
///
/// ```compile_fail,E0277
/// # use quoit::buf::IoBufMut;
/// # fn room_to_read(buf: impl IoBufMut) {}
/// room_to_read(std::sync::Arc::<[u8]>::from([0; 512]));
/// ```
///
/// ```compile_fail,E0277
/// # use quoit::buf::IoBufMut;
/// # fn room_to_read(buf: impl IoBufMut) {}
/// room_to_read(String::with_capacity(512));
/// ```
#[diagnostic::on_unimplemented(
    message = "the kernel cannot write into `{Self}`",
    note = "pass a `Vec<u8>`, a `Box<[u8]>`, an array, or a slice of one of these, by value"
)]
pub unsafe trait IoBufMut: IoBuf {
    /// Where the buffer starts, to write there.
    ///
    /// ```
    /// use quoit::buf::IoBufMut;
    ///
    /// let mut vec = Vec::<u8>::with_capacity(16);
    /// assert_eq!(vec.buf_mut_ptr(), vec.as_mut_ptr());
    /// ```
    fn buf_mut_ptr(&mut self) -> *mut u8;

    /// Sets the length, up or down, to exactly `len` initialised bytes.
    ///
    /// In a buffer of fixed size (`Box<[u8]>`, an array) it changes nothing: there the count that a
    /// read returns says how much is valid. A [`Slice`] of such a buffer has a length.
    ///
    /// # Safety
    ///
    /// The first `len` bytes are initialised, and `len` is at most
    /// [`buf_capacity`](IoBuf::buf_capacity).
    ///
    /// ```
    /// use quoit::buf::IoBufMut;
    ///
    /// let mut vec = Vec::<u8>::with_capacity(16);
    /// // SAFETY: the Vec has room for 16 bytes.
    /// unsafe { vec.buf_mut_ptr().write_bytes(b'x', 3) };
    /// // SAFETY: the line above initialised 3 bytes.
    /// unsafe { vec.set_buf_len(3) };
    /// assert_eq!(vec, b"xxx");
    /// ```
    ///
    /// ```compile_fail,E0133
    /// use quoit::buf::IoBufMut;
    ///
    /// Vec::<u8>::with_capacity(16).set_buf_len(16); // call to unsafe method
    /// ```
    unsafe fn set_buf_len(&mut self, len: usize);
}

// SAFETY: the Vec owns its allocation, of which `len` bytes are initialised; a move leaves it in
// place.
unsafe impl IoBuf for Vec<u8> {
    fn buf_ptr(&self) -> *const u8 {
        self.as_ptr()
    }

    fn buf_len(&self) -> usize {
        self.len()
    }

    fn buf_capacity(&self) -> usize {
        self.capacity()
    }
}

// SAFETY: only the Vec reaches its allocation, and all of its capacity may be written to.
unsafe impl IoBufMut for Vec<u8> {
    fn buf_mut_ptr(&mut self) -> *mut u8 {
        self.as_mut_ptr()
    }

    unsafe fn set_buf_len(&mut self, len: usize) {
        let capacity = self.capacity();
        assert!(len <= capacity, "length {len} of a Vec with room for {capacity} bytes");
        // SAFETY: the caller promises that so many bytes are initialised; the capacity was checked.
        unsafe { self.set_len(len) };
    }
}

// SAFETY: the Box owns its bytes, all of them initialised; a move leaves them in place.
unsafe impl IoBuf for Box<[u8]> {
    fn buf_ptr(&self) -> *const u8 {
        self.as_ptr()
    }

    fn buf_len(&self) -> usize {
        self.len()
    }
}

// SAFETY: only the Box reaches its bytes. They are always initialised in full.
unsafe impl IoBufMut for Box<[u8]> {
    fn buf_mut_ptr(&mut self) -> *mut u8 {
        self.as_mut_ptr()
    }

    unsafe fn set_buf_len(&mut self, _len: usize) {}
}

// SAFETY: as for `Box<[u8]>`.
unsafe impl<const N: usize> IoBuf for Box<[u8; N]> {
    fn buf_ptr(&self) -> *const u8 {
        self.as_ptr()
    }

    fn buf_len(&self) -> usize {
        N
    }
}

// SAFETY: as for `Box<[u8]>`.
unsafe impl<const N: usize> IoBufMut for Box<[u8; N]> {
    fn buf_mut_ptr(&mut self) -> *mut u8 {
        self.as_mut_ptr()
    }

    unsafe fn set_buf_len(&mut self, _len: usize) {}
}

// SAFETY: the bytes are the value itself, all of them initialised; it keeps its place in the
// operation.
unsafe impl<const N: usize> IoBuf for [u8; N] {
    fn buf_ptr(&self) -> *const u8 {
        self.as_ptr()
    }

    fn buf_len(&self) -> usize {
        N
    }
}

// SAFETY: as above; who owns the value owns the bytes. They are always initialised in full.
unsafe impl<const N: usize> IoBufMut for [u8; N] {
    fn buf_mut_ptr(&mut self) -> *mut u8 {
        self.as_mut_ptr()
    }

    unsafe fn set_buf_len(&mut self, _len: usize) {}
}

// SAFETY: bytes behind a shared reference do not change, and `'static` ones are never freed.
unsafe impl IoBuf for &'static [u8] {
    fn buf_ptr(&self) -> *const u8 {
        self.as_ptr()
    }

    fn buf_len(&self) -> usize {
        self.len()
    }
}

// SAFETY: as for `&'static [u8]`. This is the type of b"a literal".
unsafe impl<const N: usize> IoBuf for &'static [u8; N] {
    fn buf_ptr(&self) -> *const u8 {
        self.as_ptr()
    }

    fn buf_len(&self) -> usize {
        N
    }
}

// SAFETY: as for `&'static [u8]`.
unsafe impl IoBuf for &'static str {
    fn buf_ptr(&self) -> *const u8 {
        self.as_ptr()
    }

    fn buf_len(&self) -> usize {
        self.len()
    }
}

// SAFETY: as for `Vec<u8>`. The room behind the text cannot be read into, so it is no capacity.
unsafe impl IoBuf for String {
    fn buf_ptr(&self) -> *const u8 {
        self.as_ptr()
    }

    fn buf_len(&self) -> usize {
        self.len()
    }
}

// SAFETY: this handle keeps the bytes alive, and nobody has `&mut` access while there is another
// handle: `get_mut` and `try_unwrap` refuse, `make_mut` copies.
unsafe impl IoBuf for Arc<[u8]> {
    fn buf_ptr(&self) -> *const u8 {
        self.as_ptr()
    }

    fn buf_len(&self) -> usize {
        self.len()
    }
}

// SAFETY: as for `Arc<[u8]>`.
unsafe impl IoBuf for Rc<[u8]> {
    fn buf_ptr(&self) -> *const u8 {
        self.as_ptr()
    }

    fn buf_len(&self) -> usize {
        self.len()
    }
}

// SAFETY: as for `Arc<[u8]>`: a Vec behind a shared reference neither changes nor reallocates.
unsafe impl IoBuf for Arc<Vec<u8>> {
    fn buf_ptr(&self) -> *const u8 {
        Vec::as_ptr(self)
    }

    fn buf_len(&self) -> usize {
        self.len()
    }
}

// SAFETY: as for `Arc<Vec<u8>>`.
unsafe impl IoBuf for Rc<Vec<u8>> {
    fn buf_ptr(&self) -> *const u8 {
        Vec::as_ptr(self)
    }

    fn buf_len(&self) -> usize {
        self.len()
    }
}

/// The initialised bytes of a buffer.
pub(crate) fn initialised<B: IoBuf>(buf: &B) -> &[u8] {
    // SAFETY: `IoBuf`: so many bytes are initialised and do not change while `buf` is borrowed.
    unsafe { std::slice::from_raw_parts(buf.buf_ptr(), buf.buf_len()) }
}

/// The initialised bytes of a buffer, to change them.
pub(super) fn initialised_mut<B: IoBufMut>(buf: &mut B) -> &mut [u8] {
    let len = buf.buf_len();
    // SAFETY: `IoBufMut`: so many bytes are initialised, and nobody else reaches them.
    unsafe { std::slice::from_raw_parts_mut(buf.buf_mut_ptr(), len) }
}

/// What is left to write behind the first `done` bytes of `buf`, as an Sqe takes it.
///
/// The pointer holds while `buf` stays in its place, untouched.
pub(crate) fn rest_to_write<B: IoBuf>(buf: &B, done: usize) -> (*const u8, u32) {
    let len = buf.buf_len();
    assert!(done <= len, "{done} bytes written from a buffer of {len}");
    // SAFETY: `done` is at most the length, and so many bytes are in one allocation.
    (unsafe { buf.buf_ptr().add(done) }, sqe_len(len - done))
}

/// What is left to fill behind the first `done` bytes of `buf`, as an Sqe takes it.
///
/// The pointer holds while `buf` stays in its place, untouched.
pub(crate) fn rest_to_fill<B: IoBufMut>(buf: &mut B, done: usize) -> (*mut u8, u32) {
    let capacity = buf.buf_capacity();
    assert!(done <= capacity, "{done} bytes read into a buffer with room for {capacity}");
    // SAFETY: `done` is at most the capacity, and so many bytes are in one allocation.
    (unsafe { buf.buf_mut_ptr().add(done) }, sqe_len(capacity - done))
}

/// The length field of an Sqe, clamped to the most that Linux moves in one call (`MAX_RW_COUNT`).
///
/// `len as u32` would make 4 GiB a 0, and its answer a false end of file. The kernel would cut the
/// rest off anyway: so a longer request is a short read or write, which every caller of one
/// expects.
pub(crate) fn sqe_len(len: usize) -> u32 {
    const MAX_RW_COUNT: usize = 0x7fff_f000;
    len.min(MAX_RW_COUNT) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_buffer_shows_its_bytes() {
        fn check(buf: impl IoBuf) {
            assert_eq!(initialised(&buf), b"abc");
            assert!(buf.buf_capacity() >= 3);
            let moved = Box::new(buf);
            assert_eq!(initialised(&*moved), b"abc");
        }
        const BYTES: &[u8] = b"abc";
        check(BYTES.to_vec());
        check(BYTES.to_vec().into_boxed_slice());
        check(Box::new(*b"abc"));
        check(*b"abc");
        check(BYTES);
        check(b"abc");
        check("abc");
        check(String::from("abc"));
        check(Arc::<[u8]>::from(BYTES));
        check(Rc::<[u8]>::from(BYTES));
        check(Arc::new(BYTES.to_vec()));
        check(Rc::new(BYTES.to_vec()));
    }

    #[test]
    fn empty_buffers_have_a_pointer_that_is_not_null() {
        assert!(!Vec::<u8>::new().buf_ptr().is_null());
        assert!(!Vec::<u8>::new().buf_mut_ptr().is_null());
        assert!(!Box::<[u8]>::default().buf_ptr().is_null());
        assert!(!<[u8; 0]>::buf_ptr(&[]).is_null());
        assert!(initialised(&String::new()).is_empty());
    }

    #[test]
    fn the_length_of_a_vec_goes_up_and_down() {
        let mut vec = b"abcdef".to_vec();
        // SAFETY: 6 bytes are initialised.
        unsafe { vec.set_buf_len(2) };
        assert_eq!(vec, b"ab");
        // SAFETY: 6 bytes are still initialised.
        unsafe { vec.set_buf_len(6) };
        assert_eq!(vec, b"abcdef");
    }

    #[test]
    fn a_buffer_of_fixed_size_keeps_its_length() {
        fn check(mut buf: impl IoBufMut) {
            // SAFETY: the byte is initialised.
            unsafe { buf.set_buf_len(1) };
            assert_eq!((buf.buf_len(), buf.buf_capacity()), (4, 4));
            initialised_mut(&mut buf)[3] = 7;
            assert_eq!(initialised(&buf), [0, 0, 0, 7]);
        }
        check([0; 4]);
        check(Box::new([0; 4]));
        check(vec![0; 4].into_boxed_slice());
    }

    #[test]
    #[should_panic(expected = "length 17 of a Vec with room for 16 bytes")]
    fn a_length_past_the_capacity_of_a_vec_is_caught() {
        let mut vec = Vec::with_capacity(16);
        assert_eq!(vec.capacity(), 16);
        // SAFETY: it panics before it does anything.
        unsafe { vec.set_buf_len(17) };
    }

    #[test]
    fn the_rest_of_a_buffer_starts_behind_what_is_done() {
        let mut vec = Vec::with_capacity(16);
        vec.extend_from_slice(b"abcd");
        let (start, capacity) = (vec.as_mut_ptr(), vec.capacity());
        assert_eq!(rest_to_write(&vec, 1), (start.wrapping_add(1).cast_const(), 3));
        assert_eq!(rest_to_write(&vec, 4).1, 0);
        assert_eq!(rest_to_fill(&mut vec, 1), (start.wrapping_add(1), capacity as u32 - 1));
        assert_eq!(rest_to_fill(&mut vec, capacity).1, 0);
    }

    #[test]
    #[should_panic(expected = "5 bytes written from a buffer of 4")]
    fn a_count_past_the_buffer_is_caught() {
        rest_to_write(b"abcd", 5);
    }

    #[test]
    fn no_length_wraps_around_in_an_sqe() {
        assert_eq!(sqe_len(0), 0);
        assert_eq!(sqe_len(4096), 4096);
        assert_eq!(sqe_len(0x7fff_f000), 0x7fff_f000);
        assert_eq!(sqe_len(0x7fff_f001), 0x7fff_f000);
        assert_eq!(sqe_len(1 << 32), 0x7fff_f000);
        assert_eq!(sqe_len(usize::MAX), 0x7fff_f000);
    }
}
