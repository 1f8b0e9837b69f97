//! Where a task comes from: the place of its spawn, and its name, if it has one.

use std::cell::Cell;
use std::panic::Location;
use std::ptr::NonNull;
use std::sync::Arc;

/// A source location that lives for ever, as the compiler makes them.
pub(crate) type Site = &'static Location<'static>;

/// One pointer: to the place, or to a box with the place and a name. The box is the rare case, so
/// the header says by a flag that it is there, and whoever releases the task calls `clear`.
pub(super) struct Origin(Cell<NonNull<()>>);

struct Label {
    at: Site,
    name: Arc<str>,
}

/// Set in the pointer to a box: both kinds are of words.
const LABELLED: usize = 1;

const _: () = assert!(align_of::<Location<'static>>() > LABELLED && align_of::<Label>() > LABELLED);

impl Origin {
    #[inline]
    pub(super) fn new(at: Site) -> Self {
        Origin(Cell::new(NonNull::from(at).cast()))
    }

    /// Gives the task a name; `clear` takes it back.
    pub(super) fn set_name(&self, name: Arc<str>) {
        let label = Box::new(Label { at: self.at(), name });
        self.clear();
        let label = NonNull::from(Box::leak(label)).cast::<()>();
        self.0.set(label.map_addr(|address| address | LABELLED));
    }

    fn label(&self) -> Option<NonNull<Label>> {
        let pointer = self.0.get();
        if pointer.addr().get() & LABELLED == 0 {
            return None;
        }
        NonNull::new(pointer.as_ptr().map_addr(|address| address & !LABELLED).cast())
    }

    pub(super) fn at(&self) -> Site {
        match self.label() {
            // SAFETY: the mark says that it is the box that `set_name` made.
            Some(label) => unsafe { label.as_ref() }.at,
            // SAFETY: without the mark it is the place, which lives for ever.
            None => unsafe { self.0.get().cast().as_ref() },
        }
    }

    pub(super) fn name(&self) -> Option<Arc<str>> {
        // SAFETY: as in `at`.
        self.label().map(|label| Arc::clone(&unsafe { label.as_ref() }.name))
    }

    /// Drops the name.
    pub(super) fn clear(&self) {
        let Some(label) = self.label() else { return };
        self.0.set(NonNull::from(self.at()).cast());
        // SAFETY: `set_name` made the box, and nothing points at it any more.
        drop(unsafe { Box::from_raw(label.as_ptr()) });
    }
}
