//! Buffers whose type is forgotten for a while, so that those of several callers lie in one list.

use std::any::TypeId;
use std::marker::PhantomData;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ops::ControlFlow;

use super::{IoBuf, IoVectored};

/// Buffers up to this size are kept in place; larger ones in a box.
const INLINE: usize = 32;

/// A list of buffers of any type. It allocates nothing for a `Vec`, or for a slice of an array.
pub(crate) struct AnyBufs {
    place: MaybeUninit<[u64; INLINE / 8]>,
    kind: &'static Kind,
}

/// What can be done with buffers whose type is forgotten.
struct Kind {
    id: fn() -> TypeId,
    visit: unsafe fn(*const (), Each<'_>) -> ControlFlow<()>,
    drop: unsafe fn(*const ()),
}

type Each<'a> = &'a mut dyn FnMut(*const u8, usize) -> ControlFlow<()>;

struct Of<V>(PhantomData<V>);

impl<V: IoVectored> Of<V> {
    const KIND: Kind = Kind {
        id: TypeId::of::<V>,
        // SAFETY: (both) the place holds a V, see `AnyBufs::new`, for as long as the list lives.
        visit: |place, each| unsafe { (*locate::<V>(place)).visit_bufs(each) },
        // SAFETY: as above; the list is not used again.
        drop: |place| drop(unsafe { unload::<V>(place) }),
    };
}

const fn fits<V>() -> bool {
    size_of::<V>() <= INLINE && align_of::<V>() <= 8
}

/// Where the buffers are: in the place, or behind a box in it.
fn locate<V>(place: *const ()) -> *const V {
    // SAFETY: for such a V the place holds the pointer that `AnyBufs::new` wrote.
    if fits::<V>() { place.cast() } else { unsafe { place.cast::<*mut V>().read() } }
}

/// # Safety
/// The place holds a `V`, and is not used again.
unsafe fn unload<V>(place: *const ()) -> V {
    if fits::<V>() {
        // SAFETY: the caller hands the place over; this is its move.
        unsafe { place.cast::<V>().read() }
    } else {
        // SAFETY: `AnyBufs::new` made the pointer of a box.
        *unsafe { Box::from_raw(locate::<V>(place).cast_mut()) }
    }
}

impl AnyBufs {
    pub(crate) fn new<V: IoVectored>(bufs: V) -> Self {
        let mut place = MaybeUninit::uninit();
        let start: *mut [u64; INLINE / 8] = place.as_mut_ptr();
        if fits::<V>() {
            // SAFETY: the place is large and aligned enough.
            unsafe { start.cast::<V>().write(bufs) };
        } else {
            // SAFETY: a pointer fits the place.
            unsafe { start.cast::<*mut V>().write(Box::into_raw(Box::new(bufs))) };
        }
        AnyBufs { place, kind: &Of::<V>::KIND }
    }

    /// The buffers as what they were.
    ///
    /// # Panics
    /// If they were something else.
    pub(crate) fn into<V: IoVectored>(self) -> V {
        assert_eq!((self.kind.id)(), TypeId::of::<V>(), "these are another caller's buffers");
        let this = ManuallyDrop::new(self);
        // SAFETY: it is a V, as the assertion says, and `this` is not used again.
        unsafe { unload::<V>(this.place.as_ptr().cast()) }
    }
}

// SAFETY: the buffers keep the promise: they are moved only with this list, or not at all.
unsafe impl IoVectored for AnyBufs {
    fn visit_bufs(
        &self,
        mut each: impl FnMut(*const u8, usize) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        // SAFETY: the place holds what the kind is of.
        unsafe { (self.kind.visit)(self.place.as_ptr().cast(), &mut each) }
    }
}

impl Drop for AnyBufs {
    fn drop(&mut self) {
        // SAFETY: the place holds what the kind is of; `into` keeps this from running.
        unsafe { (self.kind.drop)(self.place.as_ptr().cast()) };
    }
}

/// One buffer as a list.
pub(crate) struct Single<B>(pub(crate) B);

// SAFETY: the buffer keeps the promises of `IoBuf`, and its place in this.
unsafe impl<B: IoBuf> IoVectored for Single<B> {
    fn visit_bufs(
        &self,
        mut each: impl FnMut(*const u8, usize) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        each(self.0.buf_ptr(), self.0.buf_len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::total_len;
    use std::rc::Rc;

    #[test]
    fn what_goes_in_comes_out_and_is_dropped_once() {
        let shared: Rc<[u8]> = Rc::from(&b"shared"[..]);
        let small = AnyBufs::new(Single(Rc::clone(&shared)));
        let large = AnyBufs::new((Rc::clone(&shared), [7_u8; 100], "tail"));
        assert_eq!((total_len(&small), total_len(&large)), (6, 110));
        assert_eq!(Rc::strong_count(&shared), 3);
        let Single(back) = small.into::<Single<Rc<[u8]>>>();
        assert_eq!(&*back, b"shared");
        drop((back, large));
        assert_eq!(Rc::strong_count(&shared), 1);
    }

    #[test]
    fn bytes_that_lie_in_the_list_itself_are_shown_where_it_is() {
        let list = Box::new(AnyBufs::new(Single([3_u8; 16])));
        let moved = Box::new(*list);
        let mut seen = Vec::new();
        let _ = moved.visit_bufs(|start, len| {
            // SAFETY: the bytes are there while the list is in its place.
            seen.extend_from_slice(unsafe { std::slice::from_raw_parts(start, len) });
            ControlFlow::Continue(())
        });
        assert_eq!(seen, [3; 16]);
    }

    #[test]
    #[should_panic(expected = "another caller's")]
    fn nobody_gets_buffers_of_another_type() {
        AnyBufs::new(Single(vec![1_u8])).into::<Single<String>>();
    }
}
