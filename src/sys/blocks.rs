//! Memory for what comes and goes by the million, tasks and channels for one value: what one leaves,
//! the next of its size takes.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::Cell;
use std::ptr::NonNull;

use super::current;

/// Sizes are counted in steps of so many bytes, less a word: that is what the usual allocators add.
const STEP: usize = 16;
const WORD: usize = 8;
/// Larger blocks are not kept.
const LARGEST: usize = 512 - WORD;
/// How many sizes there are.
const PLACES: usize = (LARGEST + WORD) / STEP + 1;
/// Bytes kept of one size. None where a tool looks for memory that is used after it was freed.
const KEPT: usize = if cfg!(any(debug_assertions, loom)) { 0 } else { 256 * 1024 };

/// The blocks of one core that are free, by size.
pub(crate) struct Blocks {
    free: [Cell<Option<NonNull<Free>>>; PLACES],
    /// How many more of each size may be kept.
    room: [Cell<u16>; PLACES],
}

/// The head of a block that is free.
struct Free {
    next: Option<NonNull<Free>>,
}

impl Blocks {
    pub(crate) fn new() -> Self {
        let mut size = 0;
        let room = [(); PLACES].map(|()| {
            let blocks = KEPT.checked_div(size).unwrap_or(0);
            size += STEP;
            Cell::new(blocks as u16)
        });
        Blocks { free: [const { Cell::new(None) }; PLACES], room }
    }

    /// A block of this size.
    #[inline(always)]
    pub(crate) fn take(&self, size: Size) -> NonNull<u8> {
        let Some(list) = self.free.get(size.place) else { return fresh(size) };
        let Some(block) = list.get() else { return fresh(size) };
        // SAFETY: what is in the list is a block that nobody uses, and begins with its link.
        list.set(unsafe { block.as_ref() }.next);
        let room = &self.room[size.place];
        room.set(room.get() + 1);
        block.cast()
    }

    /// Takes a block back.
    ///
    /// # Safety
    /// It came from the `take` of any core for this size, and nobody uses it any more.
    #[inline(always)]
    pub(crate) unsafe fn give(&self, block: NonNull<u8>, size: Size) {
        if let Some(room) = self.room.get(size.place)
            && room.get() > 0
        {
            room.set(room.get() - 1);
            let list = &self.free[size.place];
            let block = block.cast::<Free>();
            // SAFETY: the block is the caller's to give, and is large and aligned enough for a link.
            unsafe { block.write(Free { next: list.get() }) };
            list.set(Some(block));
            return;
        }
        // SAFETY: the caller's contract.
        unsafe { give_back(block, size) };
    }
}

/// A block of this size, of this core's if there are some.
#[inline]
pub(crate) fn take(size: Size) -> NonNull<u8> {
    current::core(|core| core.blocks.take(size)).unwrap_or_else(|| fresh(size))
}

/// Takes a block back, for this core if there is one.
///
/// # Safety
/// As of [`Blocks::give`].
#[inline]
pub(crate) unsafe fn give(block: NonNull<u8>, size: Size) {
    // SAFETY: the caller's contract.
    let given = current::core(|core| unsafe { core.blocks.give(block, size) });
    if given.is_none() {
        // SAFETY: as above.
        unsafe { give_back(block, size) };
    }
}

/// What is allocated for a layout, worked out once for each type: in whole steps, so that blocks
/// can be exchanged.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    allocated: Layout,
    /// Which list keeps such blocks; none does if it is not below `PLACES`.
    place: usize,
}

impl Size {
    /// The size of a block for `layout`, which is not empty.
    pub(crate) const fn of(layout: Layout) -> Size {
        let place = (layout.size() + WORD).div_ceil(STEP);
        if place < PLACES && layout.align() <= WORD {
            Size::of_place(place)
        } else {
            Size { allocated: layout, place: PLACES }
        }
    }

    const fn of_place(place: usize) -> Size {
        match Layout::from_size_align(place * STEP - WORD, WORD) {
            Ok(allocated) => Size { allocated, place },
            Err(_) => panic!("so small a size is a layout"),
        }
    }
}

#[cold]
fn fresh(size: Size) -> NonNull<u8> {
    // SAFETY: a `Size` is that of a layout which is not empty.
    let block = unsafe { alloc(size.allocated) };
    NonNull::new(block).unwrap_or_else(|| handle_alloc_error(size.allocated))
}

/// Frees a block on whatever thread.
///
/// # Safety
/// As of [`Blocks::give`].
#[cold]
pub(crate) unsafe fn give_back(block: NonNull<u8>, size: Size) {
    // SAFETY: `fresh` allocated it with this layout.
    unsafe { dealloc(block.as_ptr(), size.allocated) };
}

impl Drop for Blocks {
    fn drop(&mut self) {
        for (place, first) in self.free.iter().enumerate() {
            while let Some(block) = first.get() {
                // SAFETY: what is in the list is a block that nobody uses.
                first.set(unsafe { block.as_ref() }.next);
                // SAFETY: and it came from `fresh`, for a size of this place.
                unsafe { give_back(block.cast(), Size::of_place(place)) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_serves_every_layout_of_its_size() {
        let size = |size, align| Size::of(Layout::from_size_align(size, align).unwrap());
        let (blocks, small) = (Blocks::new(), size(73, 8));
        let first = blocks.take(small);
        // SAFETY: it is 88 bytes long, and given back once.
        unsafe { first.as_ptr().write_bytes(7, 88) };
        // SAFETY: as above.
        unsafe { blocks.give(first, small) };
        let large = size(88, 4);
        let second = blocks.take(large);
        assert!(KEPT == 0 || first == second);
        // SAFETY: as above.
        unsafe { blocks.give(second, large) };
    }

    #[test]
    fn what_is_too_large_or_too_much_goes_back() {
        let blocks = Blocks::new();
        for (size, align, count) in [(4096, 8, 2), (128, 64, 2), (504, 8, 600), (505, 8, 2)] {
            let size = Size::of(Layout::from_size_align(size, align).unwrap());
            let taken: Vec<_> = (0..count).map(|_| blocks.take(size)).collect();
            assert!(taken.iter().all(|block| block.as_ptr().addr() % align == 0));
            // SAFETY: each is given back once.
            taken.into_iter().for_each(|block| unsafe { blocks.give(block, size) });
        }
    }
}
