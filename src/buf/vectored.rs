//! Several buffers, written or filled by one operation, one after the other.

use std::ops::ControlFlow;
use std::ptr;

use libc::iovec;

use super::io_buf::{IoBuf, IoBufMut};

/// Buffers that one write sends, one after the other: a header and its body, without a copy.
///
/// Implemented for `Vec<B>`, `[B; N]`, `Box<[B]>`, and tuples of 2 to 4 different buffers. The
/// kernel takes 1024 buffers (`IOV_MAX`) at a time; an operation that writes all takes the others
/// in the next turn.
///
/// # Safety
///
/// The implementer promises for each buffer what [`IoBuf`] asks for; and that each call of
/// [`visit_bufs`](IoVectored::visit_bufs) visits the same buffers in the same order, until the
/// value is moved or something has `&mut` access to it.
///
/// # Examples
///
/// ```
/// use quoit::buf::{IoBuf, IoVectored};
/// use std::ops::ControlFlow;
///
/// fn lengths(bufs: impl IoVectored) -> Vec<usize> {
///     let mut lengths = Vec::new();
///     let _ = bufs.visit_bufs(|_, len| {
///         lengths.push(len);
///         ControlFlow::Continue(())
///     });
///     lengths
/// }
///
/// assert_eq!(lengths(("HTTP/1.1 200 OK\r\n\r\n", vec![0; 100])), [19, 100]);
/// assert_eq!(lengths([vec![0; 1], vec![0; 2]]), [1, 2]);
/// assert_eq!(lengths(vec![vec![0; 8].slice(..3)]), [3]);
/// ```
///
/// Borrowed buffers are refused here too:
///
/// ```compile_fail,E0597
/// use quoit::buf::IoVectored;
///
/// fn write(bufs: impl IoVectored) {}
///
/// let body = vec![1, 2, 3];
/// write(("header", &body[..])); // `body` does not live long enough
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a list of buffers that can be lent to the kernel",
    note = "pass a `Vec`, an array, a boxed slice or a tuple of owned buffers, by value"
)]
pub unsafe trait IoVectored: 'static {
    /// Shows each buffer in turn, its start and its initialised length in bytes, until `each`
    /// breaks off.
    ///
    /// The pointers hold while the value stays in its place, untouched.
    ///
    /// ```
    /// use quoit::buf::IoVectored;
    /// use std::ops::ControlFlow;
    ///
    /// let mut total = 0;
    /// let _ = ("head", vec![0; 96]).visit_bufs(|_, len| {
    ///     total += len;
    ///     ControlFlow::Continue(())
    /// });
    /// assert_eq!(total, 100);
    /// ```
    fn visit_bufs(&self, each: impl FnMut(*const u8, usize) -> ControlFlow<()>) -> ControlFlow<()>;
}

/// Buffers that one read fills, each to its capacity before the next one.
///
/// # Safety
///
/// The implementer promises for each buffer what [`IoBufMut`] asks for, and further:
///
///  - [`visit_bufs_mut`](IoVectoredMut::visit_bufs_mut) visits the same buffers in the same order
///    as [`visit_bufs`](IoVectored::visit_bufs), at the same addresses, and changes nothing.
///  - A pointer that it showed stays usable while it goes on to the next: it borrows each buffer
///    apart, not all of them each time.
///  - [`set_filled`](IoVectoredMut::set_filled) sets no length past the bytes that its caller
///    promises.
///
/// # Examples
///
/// ```
/// use quoit::buf::IoVectoredMut;
///
/// // What a method asks for that reads into several buffers.
/// fn read(_bufs: impl IoVectoredMut) {}
///
/// read(([0; 16], Vec::with_capacity(4096)));
/// ```
///
/// ```compile_fail,E0277
/// # use quoit::buf::IoVectoredMut;
/// # fn read(_bufs: impl IoVectoredMut) {}
/// read(([0; 16], "a literal cannot be read into"));
/// ```
#[diagnostic::on_unimplemented(
    message = "the kernel cannot write into `{Self}`",
    note = "pass a `Vec`, an array, a boxed slice or a tuple of owned, writable buffers, by value"
)]
pub unsafe trait IoVectoredMut: IoVectored {
    /// Shows each buffer in turn, its start and its capacity in bytes, until `each` breaks off.
    ///
    /// The pointers hold while the value stays in its place, untouched.
    ///
    /// ```
    /// use quoit::buf::IoVectoredMut;
    /// use std::ops::ControlFlow;
    ///
    /// let mut room = 0;
    /// let _ = ([0; 16], [0; 512]).visit_bufs_mut(|_, capacity| {
    ///     room += capacity;
    ///     ControlFlow::Continue(())
    /// });
    /// assert_eq!(room, 528);
    /// ```
    fn visit_bufs_mut(
        &mut self,
        each: impl FnMut(*mut u8, usize) -> ControlFlow<()>,
    ) -> ControlFlow<()>;

    /// Sets the lengths after a read of `filled` bytes: each buffer's to exactly the bytes that it
    /// got, which is 0 for those that the read did not reach. Buffers of fixed size keep theirs.
    ///
    /// # Safety
    ///
    /// The first `filled` bytes of the buffers' room, taken in order, are initialised, and there is
    /// room for so many.
    ///
    /// ```
    /// use quoit::buf::{IoBuf, IoVectoredMut};
    ///
    /// let mut bufs = [vec![1; 4].slice(..4), vec![2; 4].slice(..4)];
    /// // SAFETY: all 8 bytes are initialised.
    /// unsafe { bufs.set_filled(6) };
    /// assert_eq!(bufs.map(|buf| buf.len()), [4, 2]);
    /// ```
    unsafe fn set_filled(&mut self, filled: usize);
}

fn visit_all<B: IoBuf>(
    bufs: &[B],
    mut each: impl FnMut(*const u8, usize) -> ControlFlow<()>,
) -> ControlFlow<()> {
    bufs.iter().try_for_each(|buf| each(buf.buf_ptr(), buf.buf_len()))
}

fn visit_all_mut<B: IoBufMut>(
    bufs: &mut [B],
    mut each: impl FnMut(*mut u8, usize) -> ControlFlow<()>,
) -> ControlFlow<()> {
    bufs.iter_mut().try_for_each(|buf| {
        let capacity = buf.buf_capacity();
        each(buf.buf_mut_ptr(), capacity)
    })
}

/// # Safety
///
/// As for [`IoVectoredMut::set_filled`].
unsafe fn set_all_filled<B: IoBufMut>(bufs: &mut [B], mut filled: usize) {
    for buf in bufs {
        // SAFETY: the caller's promise, for the buffers from here on.
        filled -= unsafe { set_next_filled(buf, filled) };
    }
}

/// Sets the length of the next buffer, and returns how many of the `filled` bytes it holds.
///
/// # Safety
///
/// The first `filled` bytes of its room are initialised, or all of it if it has less.
unsafe fn set_next_filled<B: IoBufMut>(buf: &mut B, filled: usize) -> usize {
    let len = filled.min(buf.buf_capacity());
    // SAFETY: the caller's promise; `len` is at most the capacity.
    unsafe { buf.set_buf_len(len) };
    len
}

// SAFETY: each buffer keeps the promises of `IoBuf`, and a Vec keeps their order and place.
unsafe impl<B: IoBuf> IoVectored for Vec<B> {
    fn visit_bufs(&self, each: impl FnMut(*const u8, usize) -> ControlFlow<()>) -> ControlFlow<()> {
        visit_all(self, each)
    }
}

// SAFETY: as above; `iter_mut` borrows each buffer apart.
unsafe impl<B: IoBufMut> IoVectoredMut for Vec<B> {
    fn visit_bufs_mut(
        &mut self,
        each: impl FnMut(*mut u8, usize) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        visit_all_mut(self, each)
    }

    unsafe fn set_filled(&mut self, filled: usize) {
        // SAFETY: the caller's promise.
        unsafe { set_all_filled(self, filled) }
    }
}

// SAFETY: as for `Vec<B>`.
unsafe impl<B: IoBuf> IoVectored for Box<[B]> {
    fn visit_bufs(&self, each: impl FnMut(*const u8, usize) -> ControlFlow<()>) -> ControlFlow<()> {
        visit_all(self, each)
    }
}

// SAFETY: as for `Vec<B>`.
unsafe impl<B: IoBufMut> IoVectoredMut for Box<[B]> {
    fn visit_bufs_mut(
        &mut self,
        each: impl FnMut(*mut u8, usize) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        visit_all_mut(self, each)
    }

    unsafe fn set_filled(&mut self, filled: usize) {
        // SAFETY: the caller's promise.
        unsafe { set_all_filled(self, filled) }
    }
}

// SAFETY: as for `Vec<B>`; the array keeps its place in the operation.
unsafe impl<B: IoBuf, const N: usize> IoVectored for [B; N] {
    fn visit_bufs(&self, each: impl FnMut(*const u8, usize) -> ControlFlow<()>) -> ControlFlow<()> {
        visit_all(self, each)
    }
}

// SAFETY: as for `Vec<B>`; the array keeps its place in the operation.
unsafe impl<B: IoBufMut, const N: usize> IoVectoredMut for [B; N] {
    fn visit_bufs_mut(
        &mut self,
        each: impl FnMut(*mut u8, usize) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        visit_all_mut(self, each)
    }

    unsafe fn set_filled(&mut self, filled: usize) {
        // SAFETY: the caller's promise.
        unsafe { set_all_filled(self, filled) }
    }
}

// A macro, because no trait or function can range over the lengths of a tuple.
macro_rules! tuple_of_buffers {
    ($($buf:ident . $index:tt),+) => {
        // SAFETY: each buffer keeps the promises of `IoBuf`, and keeps its place in the tuple.
        unsafe impl<$($buf: IoBuf),+> IoVectored for ($($buf,)+) {
            fn visit_bufs(
                &self,
                mut each: impl FnMut(*const u8, usize) -> ControlFlow<()>,
            ) -> ControlFlow<()> {
                $(each(self.$index.buf_ptr(), self.$index.buf_len())?;)+
                ControlFlow::Continue(())
            }
        }

        // SAFETY: as above; each field is borrowed apart.
        unsafe impl<$($buf: IoBufMut),+> IoVectoredMut for ($($buf,)+) {
            fn visit_bufs_mut(
                &mut self,
                mut each: impl FnMut(*mut u8, usize) -> ControlFlow<()>,
            ) -> ControlFlow<()> {
                $(
                    let capacity = self.$index.buf_capacity();
                    each(self.$index.buf_mut_ptr(), capacity)?;
                )+
                ControlFlow::Continue(())
            }

            unsafe fn set_filled(&mut self, filled: usize) {
                let mut left = filled;
                $(
                    // SAFETY: the caller's promise, for the buffers from here on.
                    left -= unsafe { set_next_filled(&mut self.$index, left) };
                )+
                let _ = left;
            }
        }
    };
}

tuple_of_buffers!(A.0, B.1);
tuple_of_buffers!(A.0, B.1, C.2);
tuple_of_buffers!(A.0, B.1, C.2, D.3);

/// How many bytes the buffers hold together.
pub(crate) fn total_len<V: IoVectored>(bufs: &V) -> usize {
    let mut total = 0usize;
    let _ = bufs.visit_bufs(|_, len| {
        // The same `Arc` many times can be more than the address space.
        total = total.saturating_add(len);
        ControlFlow::Continue(())
    });
    total
}

/// A copy of all bytes of the buffers, one after the other.
pub(crate) fn gather<V: IoVectored>(bufs: &V) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(total_len(bufs));
    let _ = bufs.visit_bufs(|start, len| {
        // SAFETY: `IoBuf`: so many bytes are initialised there, and `bufs` is borrowed.
        bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(start, len) });
        ControlFlow::Continue(())
    });
    bytes
}

/// Copies `bytes` into `bufs` as far as there is room in the first 1024 of them, sets their lengths,
/// and says how far that was.
pub(crate) fn scatter<V: IoVectoredMut>(bufs: &mut V, bytes: &[u8]) -> usize {
    let mut iovecs = Iovecs::new();
    iovecs.fill_mut(bufs, 0);
    let mut rest = bytes;
    for place in iovecs.as_slice() {
        let (now, later) = rest.split_at(rest.len().min(place.iov_len));
        // SAFETY: the buffers have `iov_len` bytes of room there, and `bufs` has not been touched.
        unsafe { ptr::copy_nonoverlapping(now.as_ptr(), place.iov_base.cast(), now.len()) };
        rest = later;
    }
    let copied = bytes.len() - rest.len();
    // SAFETY: so many bytes were written, one buffer after the other.
    unsafe { bufs.set_filled(copied) };
    copied
}

/// The most buffers that the kernel takes at a time (`UIO_MAXIOV`).
pub(crate) const IOV_MAX: usize = 1024;

/// So many buffers need no allocation: a header and a body do not.
const FEW: usize = 4;

const EMPTY: iovec = iovec { iov_base: ptr::null_mut(), iov_len: 0 };

/// The iovecs of an operation, a field of its payload.
///
/// Filled in the operation's `prepare`, when the payload is where it will stay: they point into the
/// buffers, and those may lie in the payload itself.
pub(crate) struct Iovecs {
    few: [iovec; FEW],
    /// All of them, if they are more than `few` can hold; otherwise empty.
    many: Vec<iovec>,
    count: usize,
}

impl Iovecs {
    pub(crate) const fn new() -> Iovecs {
        Iovecs { few: [EMPTY; FEW], many: Vec::new(), count: 0 }
    }

    /// Points at what is left to write of `bufs` behind their first `done` bytes, 1024 buffers at
    /// most, and returns how many bytes that are. 0 means that everything is done.
    ///
    /// They hold while `bufs` stays in its place, untouched.
    pub(crate) fn fill<V: IoVectored>(&mut self, bufs: &V, done: usize) -> usize {
        let mut rest = self.restart(done);
        let _ = bufs.visit_bufs(|start, len| rest.point_at(start.cast_mut(), len));
        rest.finish()
    }

    /// As [`fill`](Iovecs::fill) of several lists, of each behind what is done of it.
    pub(crate) fn fill_each<'a, V: IoVectored>(
        &mut self,
        lists: impl Iterator<Item = (&'a V, usize)>,
    ) -> usize {
        let mut rest = self.restart(0);
        for (bufs, done) in lists {
            rest.skip = done;
            if bufs.visit_bufs(|start, len| rest.point_at(start.cast_mut(), len)).is_break() {
                break;
            }
            assert!(rest.skip == 0, "{} more bytes done than the buffers hold", rest.skip);
        }
        rest.finish()
    }

    /// Points at what is left to fill of `bufs` behind their first `done` bytes, 1024 buffers at
    /// most, and returns how many bytes that are. 0 means that there is no room.
    ///
    /// They hold while `bufs` stays in its place, untouched.
    pub(crate) fn fill_mut<V: IoVectoredMut>(&mut self, bufs: &mut V, done: usize) -> usize {
        let mut rest = self.restart(done);
        let _ = bufs.visit_bufs_mut(|start, capacity| rest.point_at(start, capacity));
        rest.finish()
    }

    /// Where the iovecs are. The pointer holds while `self` stays in its place, untouched.
    pub(crate) fn as_mut_ptr(&mut self) -> *mut iovec {
        if self.many.is_empty() { self.few.as_mut_ptr() } else { self.many.as_mut_ptr() }
    }

    fn as_slice(&self) -> &[iovec] {
        if self.many.is_empty() { &self.few[..self.count] } else { &self.many }
    }

    /// How many there are; at most [`IOV_MAX`].
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    fn restart(&mut self, done: usize) -> Rest<'_> {
        self.many.clear();
        self.count = 0;
        Rest { iovecs: self, skip: done, bytes: 0 }
    }

    fn push(&mut self, next: iovec) {
        if self.count < FEW {
            self.few[self.count] = next;
        } else {
            if self.many.is_empty() {
                self.many.extend_from_slice(&self.few);
            }
            self.many.push(next);
        }
        self.count += 1;
    }
}

/// A walk over the buffers that leaves out what is done.
struct Rest<'a> {
    iovecs: &'a mut Iovecs,
    /// Bytes still to leave out.
    skip: usize,
    /// Bytes pointed at.
    bytes: usize,
}

impl Rest<'_> {
    fn point_at(&mut self, start: *mut u8, len: usize) -> ControlFlow<()> {
        let skipped = self.skip.min(len);
        self.skip -= skipped;
        let len = len - skipped;
        // Never an empty one: 1024 of them in front would make the answer 0, a false end of file.
        if len == 0 {
            return ControlFlow::Continue(());
        }
        if self.iovecs.count == IOV_MAX {
            return ControlFlow::Break(());
        }
        // SAFETY: `skipped` bytes from `start` on are within the buffer that was shown.
        let start = unsafe { start.add(skipped) };
        self.iovecs.push(iovec { iov_base: start.cast(), iov_len: len });
        self.bytes = self.bytes.saturating_add(len);
        ControlFlow::Continue(())
    }

    fn finish(self) -> usize {
        assert!(self.skip == 0, "{} more bytes done than the buffers hold", self.skip);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a kernel finds behind the iovecs.
    fn gather(iovecs: &mut Iovecs) -> Vec<u8> {
        let (start, count) = (iovecs.as_mut_ptr(), iovecs.count());
        let mut bytes = Vec::new();
        for index in 0..count {
            // SAFETY: there are `count` of them.
            let iovec = unsafe { *start.add(index) };
            assert_ne!(iovec.iov_len, 0);
            // SAFETY: they were filled from buffers that have not moved since.
            bytes.extend_from_slice(unsafe {
                std::slice::from_raw_parts(iovec.iov_base.cast::<u8>(), iovec.iov_len)
            });
        }
        bytes
    }

    /// Fills the buffers with `bytes`, at most `step` in a turn, as short reads do.
    fn scatter(bufs: &mut impl IoVectoredMut, bytes: &[u8], step: usize) {
        let mut iovecs = Iovecs::new();
        let mut done = 0;
        while done < bytes.len() {
            assert!(iovecs.fill_mut(bufs, done) >= bytes.len() - done);
            let mut turn = step.min(bytes.len() - done);
            for index in 0..iovecs.count() {
                // SAFETY: there are `count` of them.
                let iovec = unsafe { *iovecs.as_mut_ptr().add(index) };
                let n = turn.min(iovec.iov_len);
                let source = bytes[done..done + n].as_ptr();
                // SAFETY: `n` is at most the room behind the iovec, and `bytes` is other memory.
                unsafe { iovec.iov_base.cast::<u8>().copy_from_nonoverlapping(source, n) };
                done += n;
                turn -= n;
            }
            assert_eq!(turn, 0);
        }
        // SAFETY: the loop initialised so many bytes, in order.
        unsafe { bufs.set_filled(done) };
    }

    fn room(capacity: usize) -> super::super::Slice<Vec<u8>> {
        Vec::with_capacity(capacity).slice(..capacity)
    }

    #[test]
    fn a_write_can_go_on_at_every_byte() {
        fn check(bufs: impl IoVectored) {
            assert_eq!(total_len(&bufs), 10);
            let mut iovecs = Iovecs::new();
            for done in 0..=10 {
                assert_eq!(iovecs.fill(&bufs, done), 10 - done);
                assert_eq!(gather(&mut iovecs), b"0123456789"[done..]);
            }
        }
        check(("01", b"23456789".to_vec()));
        check(("0123", b"456".to_vec(), *b"789"));
        check((String::from("0"), "", b"12345678", Box::new(*b"9")));
        check([*b"01234", *b"56789"]);
        check(vec!["", "012", "", "", "3456", "7", "89", ""]);
        check(vec!["0", "1", "2", "3", "4", "5", "6789"].into_boxed_slice());
    }

    #[test]
    fn a_read_fills_one_buffer_after_the_other_however_short_its_turns() {
        for step in [1, 2, 3, 100] {
            let mut bufs = (room(4), [0; 2], room(3), room(5));
            scatter(&mut bufs, b"abcdefgh", step);
            assert_eq!(*bufs.0, *b"abcd");
            assert_eq!(bufs.1, *b"ef");
            assert_eq!(*bufs.2, *b"gh");
            assert_eq!(*bufs.3, *b"");
        }
    }

    #[test]
    fn buffers_that_a_read_did_not_reach_are_empty_afterwards() {
        fn check<V: IoVectoredMut>(mut bufs: V) -> V {
            scatter(&mut bufs, b"abc", 100);
            bufs
        }
        let full = || vec![b'x'; 2].slice(..2);
        assert_eq!(
            check([full(), full(), full()]).map(|buf| buf.to_vec()),
            [&b"ab"[..], b"c", b""]
        );
        assert_eq!(*check(vec![full(), full(), full()])[2], *b"");
        assert_eq!(*check(vec![full(), full()].into_boxed_slice())[1], *b"c");
        assert_eq!(check((vec![0; 3], [b'y'; 2])), (b"abc".to_vec(), *b"yy"));
    }

    #[test]
    fn the_kernel_never_gets_more_than_iov_max_and_never_an_empty_one() {
        let bufs: Vec<&'static str> = ["", "a"].repeat(3000);
        let mut iovecs = Iovecs::new();
        assert_eq!(iovecs.fill(&bufs, 0), IOV_MAX);
        assert_eq!(iovecs.count(), IOV_MAX);
        assert_eq!(gather(&mut iovecs), vec![b'a'; IOV_MAX]);
        assert_eq!(iovecs.fill(&bufs, 2048), 3000 - 2048);
        assert_eq!(iovecs.fill(&bufs, 2998), 2);
        assert_eq!(gather(&mut iovecs), b"aa");
    }

    #[test]
    fn empty_lists_have_nothing_to_point_at() {
        let mut iovecs = Iovecs::new();
        assert_eq!(iovecs.fill(&Vec::<Vec<u8>>::new(), 0), 0);
        assert_eq!(iovecs.fill_mut(&mut [[0u8; 0]; 3], 0), 0);
        assert_eq!(iovecs.count(), 0);
        assert!(!iovecs.as_mut_ptr().is_null());
    }

    #[test]
    fn a_total_past_the_address_space_does_not_wrap_around() {
        struct Endless;
        // SAFETY: nothing reads behind this pointer; the test only adds the lengths.
        unsafe impl IoVectored for Endless {
            fn visit_bufs(
                &self,
                mut each: impl FnMut(*const u8, usize) -> ControlFlow<()>,
            ) -> ControlFlow<()> {
                each(ptr::dangling(), usize::MAX)?;
                each(ptr::dangling(), usize::MAX)
            }
        }
        assert_eq!(total_len(&Endless), usize::MAX);
        assert_eq!(Iovecs::new().fill(&Endless, 0), usize::MAX);
    }

    #[test]
    #[should_panic(expected = "1 more bytes done than the buffers hold")]
    fn a_count_past_the_buffers_is_caught() {
        Iovecs::new().fill(&("ab", "cd"), 5);
    }

    #[test]
    fn inline_buffers_are_pointed_at_where_they_lie() {
        let bufs = Box::new(([1u8; 4], [2u8; 4]));
        let mut iovecs = Iovecs::new();
        iovecs.fill(&*bufs, 0);
        assert_eq!(iovecs.few[0].iov_base.cast_const().cast(), bufs.0.as_ptr());
        assert_eq!(iovecs.few[1].iov_base.cast_const().cast(), bufs.1.as_ptr());
    }
}
