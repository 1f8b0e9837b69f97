//! A slice: a part of a buffer, used as a buffer.

use std::fmt;
use std::ops::{Bound, Deref, DerefMut, Range, RangeBounds};

use super::io_buf::{IoBuf, IoBufMut, initialised, initialised_mut};

/// A part of a buffer, which owns the whole of it. Made by [`IoBuf::slice`].
///
/// As a `[u8]` it is the initialised bytes in its range. A write sends these. A read fills the
/// range from its start, and sets the slice's length to exactly the `n` bytes that came: also where
/// the buffer has a fixed size, as an array has.
///
/// What lies outside the range is never changed and never lost. So after a read of `n` bytes into
/// `vec.slice(begin..end)` the Vec has
///
///  - the length `begin + n`, if it had ended within the range or right behind it;
///  - its old length, if it went on behind the range. Between `begin + n` and `end` are bytes that
///    were there before, or that a failed read left.
///
/// There is no `get_mut` and no `Clone`: a shorter Vec, or the clone of a Vec, which has less
/// capacity, would not reach as far as the slice does.
///
/// ```
/// use quoit::buf::{IoBuf, Slice};
///
/// // 16 bytes to read into, of which none is initialised yet.
/// let room: Slice<Vec<u8>> = Vec::with_capacity(100).slice(..16);
/// assert_eq!(room.buf_capacity(), 16);
/// assert!(room.is_empty());
///
/// // The second half of a message to write.
/// let half = vec![1, 2, 3, 4].slice(2..);
/// assert_eq!(*half, [3, 4]);
///
/// // A slice of a slice.
/// let quarter = half.slice(1..);
/// assert_eq!(*quarter, [4]);
/// assert_eq!(quarter.into_inner().into_inner(), [1, 2, 3, 4]);
/// ```
///
/// ```compile_fail,E0599
/// use quoit::buf::IoBuf;
///
/// let part = vec![1, 2, 3].slice(1..);
/// part.clone(); // no method named `clone`
/// ```
pub struct Slice<B> {
    buf: B,
    /// Where the slice starts in `buf`; everything before is initialised.
    begin: usize,
    /// Where it ends in `buf`; at most the capacity.
    end: usize,
    /// How many bytes it shows; `begin + len` is at most `end` and at most the length of `buf`.
    len: usize,
}

impl<B: IoBuf> Slice<B> {
    #[track_caller]
    pub(super) fn new(buf: B, range: impl RangeBounds<usize>) -> Slice<B> {
        let (len, capacity) = (buf.buf_len(), buf.buf_capacity());
        let begin = match range.start_bound() {
            Bound::Included(begin) => *begin,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => capacity,
        };
        assert!(
            end <= capacity,
            "slice of {begin}..{end} ends past the buffer's capacity of {capacity} bytes; \
             reserve the room first, as Vec::with_capacity does"
        );
        assert!(begin <= end, "slice of {begin}..{end} starts after its end");
        assert!(
            begin <= len,
            "slice of {begin}..{end} starts past the buffer's {len} initialised bytes; \
             fill the buffer up to the start of the slice first"
        );
        Slice { buf, begin, end, len: len.min(end) - begin }
    }
}

impl<B> Slice<B> {
    /// The whole buffer.
    ///
    /// ```
    /// use quoit::buf::IoBuf;
    ///
    /// assert_eq!(vec![1, 2, 3].slice(1..2).into_inner(), [1, 2, 3]);
    /// ```
    pub fn into_inner(self) -> B {
        self.buf
    }

    /// The whole buffer, to look at.
    ///
    /// ```
    /// use quoit::buf::IoBuf;
    ///
    /// assert_eq!(vec![1, 2, 3].slice(1..2).get_ref().len(), 3);
    /// ```
    pub fn get_ref(&self) -> &B {
        &self.buf
    }

    /// Where the slice starts and ends in its buffer, in bytes. Reads and writes do not change it.
    ///
    /// ```
    /// use quoit::buf::IoBuf;
    ///
    /// assert_eq!(Vec::<u8>::with_capacity(8).slice(..8).range(), 0..8);
    /// ```
    pub fn range(&self) -> Range<usize> {
        self.begin..self.end
    }
}

// SAFETY: a part of memory that keeps the promises of `IoBuf` keeps them as well: `begin` and `end`
// are within its capacity and `begin + len` within its length, and neither changes without `&mut
// self`.
unsafe impl<B: IoBuf> IoBuf for Slice<B> {
    fn buf_ptr(&self) -> *const u8 {
        // SAFETY: `begin` is at most the capacity, and so many bytes are in one allocation.
        unsafe { self.buf.buf_ptr().add(self.begin) }
    }

    fn buf_len(&self) -> usize {
        self.len
    }

    fn buf_capacity(&self) -> usize {
        self.end - self.begin
    }
}

// SAFETY: as above; the range is within what `B` lets the kernel write to.
unsafe impl<B: IoBufMut> IoBufMut for Slice<B> {
    fn buf_mut_ptr(&mut self) -> *mut u8 {
        // SAFETY: `begin` is at most the capacity, and so many bytes are in one allocation.
        unsafe { self.buf.buf_mut_ptr().add(self.begin) }
    }

    unsafe fn set_buf_len(&mut self, len: usize) {
        let capacity = self.buf_capacity();
        assert!(len <= capacity, "length {len} of a slice with room for {capacity} bytes");
        // What lies behind the slice stays: then the buffer keeps its length, and only `self.len`
        // tells.
        if self.buf.buf_len() <= self.end {
            // SAFETY: everything before `begin` is initialised, and the caller promises the next
            // `len`.
            unsafe { self.buf.set_buf_len(self.begin + len) };
        }
        self.len = len;
    }
}

impl<B: IoBuf> Deref for Slice<B> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        initialised(self)
    }
}

impl<B: IoBufMut> DerefMut for Slice<B> {
    fn deref_mut(&mut self) -> &mut [u8] {
        initialised_mut(self)
    }
}

impl<B: IoBuf> AsRef<[u8]> for Slice<B> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl<B> fmt::Debug for Slice<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slice")
            .field("range", &self.range())
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// The room behind the initialised bytes of `buf`: a read into it appends. Empty if there is no
/// room.
pub(crate) fn tail<B: IoBufMut>(buf: B) -> Slice<B> {
    let len = buf.buf_len();
    Slice::new(buf, len..)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes `bytes` as a kernel would and sets the length as an operation does.
    fn read(buf: &mut impl IoBufMut, bytes: &[u8]) {
        assert!(bytes.len() <= buf.buf_capacity());
        // SAFETY: the capacity was checked, and `bytes` is other memory.
        unsafe { buf.buf_mut_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        // SAFETY: the line above initialised these bytes.
        unsafe { buf.set_buf_len(bytes.len()) };
    }

    fn with_room(bytes: &[u8], capacity: usize) -> Vec<u8> {
        let mut vec = Vec::with_capacity(capacity);
        vec.extend_from_slice(bytes);
        vec
    }

    #[test]
    fn a_read_sets_the_length_of_the_vec_to_the_begin_plus_the_count() {
        let mut slice = with_room(b"abcd", 100).slice(2..10);
        read(&mut slice, b"xyz");
        assert_eq!(*slice, *b"xyz");
        assert_eq!(slice.into_inner(), b"abxyz");
    }

    #[test]
    fn a_short_read_shortens_a_vec_that_ends_with_the_slice() {
        let mut slice = b"abcdef".to_vec().slice(1..6);
        read(&mut slice, b"x");
        assert_eq!(slice.into_inner(), b"ax");
    }

    #[test]
    fn a_read_of_nothing_leaves_what_is_before_the_slice() {
        let mut slice = with_room(b"abcd", 10).slice(3..10);
        read(&mut slice, b"");
        assert!(slice.is_empty());
        assert_eq!(slice.into_inner(), b"abc");
    }

    #[test]
    fn bytes_behind_the_slice_stay_and_the_slice_shows_only_what_was_read() {
        let mut slice = b"abcdef".to_vec().slice(1..4);
        read(&mut slice, b"x");
        assert_eq!(*slice, *b"x");
        assert_eq!(slice.into_inner(), b"axcdef");
    }

    #[test]
    fn a_slice_can_be_read_into_again_to_its_full_length() {
        let mut slice = Vec::with_capacity(8).slice(..4);
        for bytes in [&b"abcd"[..], b"", b"ef", b"ghij"] {
            read(&mut slice, bytes);
            assert_eq!(slice.buf_capacity(), 4);
            assert_eq!(*slice, *bytes);
            assert_eq!(slice.get_ref(), bytes);
        }
    }

    #[test]
    fn a_slice_gives_a_length_to_a_buffer_of_fixed_size() {
        let mut slice = [0; 8].slice(2..6);
        assert_eq!(slice.len(), 4);
        read(&mut slice, b"ab");
        assert_eq!(*slice, *b"ab");
        assert_eq!(slice.into_inner(), *b"\0\0ab\0\0\0\0");
    }

    #[test]
    fn nested_slices_add_their_begins() {
        let mut slice = with_room(b"abcd", 20).slice(1..10).slice(2..5);
        assert_eq!(slice.buf_capacity(), 3);
        assert_eq!(*slice, *b"d");
        read(&mut slice, b"xy");
        let outer = slice.into_inner();
        assert_eq!(*outer, *b"bcxy");
        assert_eq!(outer.into_inner(), b"abcxy");
    }

    #[test]
    fn a_nested_slice_loses_nothing_that_is_behind_it() {
        let mut slice = b"abcdefgh".to_vec().slice(1..7).slice(1..3);
        read(&mut slice, b"x");
        let outer = slice.into_inner();
        assert_eq!(*outer, *b"bxdefg");
        assert_eq!(outer.into_inner(), b"abxdefgh");
    }

    #[test]
    fn a_read_into_the_tail_appends() {
        let mut end = tail(with_room(b"ab", 5));
        assert_eq!(end.range().start, 2);
        read(&mut end, b"cd");
        assert_eq!(end.into_inner(), b"abcd");
    }

    #[test]
    fn the_tail_of_a_full_buffer_has_no_room() {
        assert_eq!(tail([0; 8]).buf_capacity(), 0);
        assert_eq!(tail(vec![0; 8].into_boxed_slice()).buf_capacity(), 0);
    }

    #[test]
    fn the_tail_of_a_slice_is_within_the_slice() {
        let mut slice = [0; 8].slice(1..5);
        read(&mut slice, b"a");
        let mut end = tail(slice);
        assert_eq!(end.buf_capacity(), 3);
        read(&mut end, b"bc");
        assert_eq!(*end.into_inner(), *b"abc");
    }

    #[test]
    fn a_slice_can_be_changed_in_place() {
        let mut slice = b"abcd".to_vec().slice(1..3);
        slice.make_ascii_uppercase();
        assert_eq!(slice.into_inner(), b"aBCd");
    }

    #[test]
    fn the_range_may_have_any_form() {
        let vec = || b"abcd".to_vec();
        assert_eq!(*vec().slice(1..=2), *b"bc");
        assert_eq!(*vec().slice(..=0), *b"a");
        assert_eq!(*vec().slice((Bound::Excluded(0), Bound::Unbounded)), *b"bcd");
        assert_eq!(*vec().slice(4..4), *b"");
        assert_eq!(*vec().slice(..), *b"abcd");
    }

    #[test]
    #[should_panic(expected = "ends past the buffer's capacity of 4 bytes")]
    fn a_slice_past_the_capacity_panics() {
        let _ = b"abcd".slice(..5);
    }

    #[test]
    #[should_panic(expected = "ends past the buffer's capacity")]
    fn the_largest_range_does_not_wrap_around() {
        let _ = b"abcd".slice(..=usize::MAX);
    }

    #[test]
    #[should_panic(expected = "starts past the buffer's 4 initialised bytes")]
    fn a_slice_that_starts_in_uninitialised_memory_panics() {
        let _ = with_room(b"abcd", 10).slice(5..);
    }

    #[test]
    #[should_panic(expected = "starts after its end")]
    #[expect(clippy::reversed_empty_ranges, reason = "it is what the test is about")]
    fn a_slice_that_starts_after_its_end_panics() {
        let _ = b"abcd".slice(3..2);
    }

    #[test]
    #[should_panic(expected = "room for 2 bytes")]
    fn a_count_past_the_slice_is_caught() {
        let mut slice = b"abcd".to_vec().slice(..2);
        // SAFETY: it panics before it does anything.
        unsafe { slice.set_buf_len(3) };
    }
}
