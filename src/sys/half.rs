//! A value that two share on one thread. It goes with the second of them.
//!
//! One flag does what `Rc` needs two counts for, and the memory comes from the core's
//! [`blocks`]: a channel for one value costs less than half of what it did.

use std::alloc::Layout;
use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::{self, NonNull};

use super::blocks::{self, Size};

/// One of the two who share a `T`.
pub(crate) struct Half<T> {
    shared: NonNull<Shared<T>>,
    /// It may be the one that drops the value.
    value: PhantomData<T>,
}

struct Shared<T> {
    value: T,
    /// One of the two is gone.
    is_single: Cell<bool>,
}

// The value stays where it is when a half moves.
impl<T> Unpin for Half<T> {}

impl<T> Half<T> {
    const SIZE: Size = Size::of(Layout::new::<Shared<T>>());

    /// Both halves of `value`.
    #[inline]
    pub(crate) fn pair(value: T) -> (Half<T>, Half<T>) {
        let shared = blocks::take(Self::SIZE).cast::<Shared<T>>();
        // SAFETY: the block is for this type, and nobody else's.
        unsafe { shared.write(Shared { value, is_single: Cell::new(false) }) };
        (Half { shared, value: PhantomData }, Half { shared, value: PhantomData })
    }

    #[inline]
    fn shared(&self) -> &Shared<T> {
        // SAFETY: only the second half that is dropped ends it, and this one is there.
        unsafe { self.shared.as_ref() }
    }
}

impl<T> Deref for Half<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.shared().value
    }
}

impl<T> Drop for Half<T> {
    #[inline]
    fn drop(&mut self) {
        if !self.shared().is_single.replace(true) {
            return;
        }
        // Also when the destructor of the value panics.
        let _memory = Memory(self.shared);
        // SAFETY: the other half is gone, and this one is going: nobody refers to it any more.
        unsafe { ptr::drop_in_place(self.shared.as_ptr()) };
    }
}

/// What is left when the value is gone.
struct Memory<T>(NonNull<Shared<T>>);

impl<T> Drop for Memory<T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: `pair` took it for this size, and both halves are gone.
        unsafe { blocks::give(self.0.cast(), Half::<T>::SIZE) };
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::rc::Rc;

    use super::*;
    use crate::sys::current::{self, Core};

    #[test]
    fn the_value_goes_with_the_second_half() {
        for second_first in [false, true] {
            let value = Rc::new(7);
            let (first, second) = Half::pair(Rc::clone(&value));
            assert_eq!((**first, Rc::strong_count(&second)), (7, 2));
            let left = if second_first {
                drop(second);
                first
            } else {
                drop(first);
                second
            };
            assert_eq!((**left, Rc::strong_count(&value)), (7, 2));
            drop(left);
            assert_eq!(Rc::strong_count(&value), 1);
        }
    }

    #[test]
    fn halves_outlive_the_core_that_made_them() {
        let core = Core::new(1, 0, 1, 1);
        let entered = current::enter(&core);
        let (inside, outside) = (Half::pair([1_u64; 9]), Half::pair([2_u64; 9]));
        drop(inside);
        let again = Half::pair([3_u64; 9]);
        drop(entered);
        drop(core);
        assert_eq!((*outside.0, *again.1), ([2; 9], [3; 9]));
        drop((outside, again));
        let (first, second) = Half::pair([4_u64; 9]);
        let core = Core::new(2, 0, 1, 1);
        let _entered = current::enter(&core);
        drop(first);
        assert_eq!(*second, [4; 9]);
    }

    #[test]
    fn a_destructor_that_panics_leaks_nothing() {
        struct Panics(#[expect(dead_code, reason = "a leak checker looks for it")] Box<u8>);
        impl Drop for Panics {
            fn drop(&mut self) {
                panic!("on purpose");
            }
        }
        let (first, second) = Half::pair(Panics(Box::new(1)));
        drop(first);
        assert!(catch_unwind(AssertUnwindSafe(|| drop(second))).is_err());
    }

    #[test]
    fn a_large_or_aligned_value_has_room() {
        #[repr(align(64))]
        struct Wide([u8; 100]);
        let (first, second) = Half::pair(Wide([5; 100]));
        assert_eq!(ptr::from_ref(&*second).addr() % 64, 0);
        drop(first);
        assert_eq!(second.0, [5; 100]);
        let (first, second) = Half::pair([6_u8; 4096]);
        drop(second);
        assert_eq!(*first, [6; 4096]);
    }
}
