//! Where in the source something is held: known in debug builds, so that a conflict can name both
//! places.

use std::fmt;
use std::panic::Location;

#[cfg(debug_assertions)]
use std::cell::RefCell;

/// The places where a value is borrowed, or a lock is held, now. Nothing in release builds.
#[derive(Default)]
pub(super) struct Places {
    #[cfg(debug_assertions)]
    held: RefCell<Vec<&'static Location<'static>>>,
}

/// One of them, until it is dropped.
pub(super) struct Noted<'a> {
    #[cfg(debug_assertions)]
    places: &'a Places,
    #[cfg(debug_assertions)]
    place: &'static Location<'static>,
    #[cfg(not(debug_assertions))]
    places: std::marker::PhantomData<&'a Places>,
}

#[cfg(debug_assertions)]
impl Places {
    pub(super) const fn new() -> Self {
        Places { held: RefCell::new(Vec::new()) }
    }

    pub(super) fn note(&self, place: &'static Location<'static>) -> Noted<'_> {
        self.held.borrow_mut().push(place);
        Noted { places: self, place }
    }

    /// The first of those that are held.
    pub(super) fn first(&self) -> Option<&'static Location<'static>> {
        self.held.borrow().first().copied()
    }
}

#[cfg(not(debug_assertions))]
impl Places {
    pub(super) const fn new() -> Self {
        Places {}
    }

    #[inline]
    pub(super) fn note(&self, _place: &'static Location<'static>) -> Noted<'_> {
        Noted { places: std::marker::PhantomData }
    }

    pub(super) fn first(&self) -> Option<&'static Location<'static>> {
        None
    }
}

#[cfg(debug_assertions)]
impl Clone for Noted<'_> {
    fn clone(&self) -> Self {
        self.places.note(self.place)
    }
}

#[cfg(not(debug_assertions))]
impl Clone for Noted<'_> {
    #[inline]
    fn clone(&self) -> Self {
        Noted { places: self.places }
    }
}

#[cfg(debug_assertions)]
impl Drop for Noted<'_> {
    fn drop(&mut self) {
        let mut held = self.places.held.borrow_mut();
        let at = held.iter().position(|place| std::ptr::eq(*place, self.place));
        held.swap_remove(at.expect("what was noted is there until it is dropped"));
    }
}

/// ` at src/state.rs:10:5, src/state.rs:12:9`; nothing where the places are not known.
impl fmt::Display for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[cfg(debug_assertions)]
        for (index, place) in self.held.borrow().iter().enumerate() {
            write!(f, "{} {place}", if index == 0 { " at" } else { "," })?;
        }
        let _ = f;
        Ok(())
    }
}
