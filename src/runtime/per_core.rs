//! A value that every core has for itself.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};

use super::local::Local;
use crate::sys::atomic::plain::{AtomicU32, Ordering};
use crate::sys::guard;

static NEXT: Mutex<u32> = Mutex::new(1);

/// A value that every core has for itself: it is made where and when it is first asked for, and needs
/// neither be `Send` nor `Sync`.
///
/// It is dropped when its core ends, on that core: after the tasks, and while operations can still be
/// cancelled, so it may hold sockets and files. What a destructor asks for then is still there, but for
/// values that have been dropped already. In a simulation each simulated core has its own.
///
/// ```
/// use quoit::runtime::{self, PerCore};
/// use std::cell::Cell;
///
/// static HITS: PerCore<Cell<u64>> = PerCore::new(|| Cell::new(0));
///
/// runtime::start_per_core(async || {
///     HITS.with(|hits| hits.set(hits.get() + 1));
///     assert_eq!(HITS.with(Cell::get), 1); // whatever other cores do
/// })?;
/// # runtime::Result::Ok(())
/// ```
pub struct PerCore<T: 'static> {
    make: fn() -> T,
    /// Its place among the values of a core, from 1 on; 0 until it is first asked for.
    number: AtomicU32,
}

impl<T: 'static> PerCore<T> {
    /// For a static. `make` is called at the first use on each core.
    #[must_use]
    pub const fn new(make: fn() -> T) -> Self {
        PerCore { make, number: AtomicU32::new(0) }
    }

    /// Calls `f` with this core's value.
    ///
    /// # Panics
    /// Outside of a runtime; while the value is being made; and while the core ends, once the value
    /// has been dropped.
    #[track_caller]
    pub fn with<R>(&'static self, f: impl FnOnce(&T) -> R) -> R {
        let Some(local) = Local::current() else {
            panic!(
                "PerCore::with was called outside of a runtime; start one with \
                 `quoit::runtime::start_per_core`"
            )
        };
        f(&self.value(&local))
    }

    #[track_caller]
    fn value(&'static self, local: &Local) -> Rc<T> {
        let number = self.number();
        let value = local.values.get(number).unwrap_or_else(|| {
            // The place is taken while the value is being made, and empty again if that panics.
            let making = local.values.make(number);
            let value: Rc<dyn Any> = Rc::new((self.make)());
            making.made(&value);
            value
        });
        value.downcast().expect("the number is this static's alone")
    }

    fn number(&'static self) -> usize {
        // Relaxed: the number is all there is to see.
        let mut number = self.number.load(Ordering::Relaxed);
        if number == 0 {
            let mut next = NEXT.lock().unwrap_or_else(PoisonError::into_inner);
            number = self.number.load(Ordering::Relaxed);
            if number == 0 {
                number = *next;
                *next += 1;
                self.number.store(number, Ordering::Relaxed);
            }
        }
        number as usize - 1
    }
}

impl<T> fmt::Debug for PerCore<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerCore").finish_non_exhaustive()
    }
}

#[derive(Default)]
enum Place {
    #[default]
    Empty,
    Making,
    Made(Rc<dyn Any>),
}

/// The values of one core, by the numbers of their statics.
#[derive(Default)]
pub(super) struct Values {
    places: RefCell<Vec<Place>>,
    ending: Cell<bool>,
}

impl Values {
    #[inline]
    fn get(&self, number: usize) -> Option<Rc<dyn Any>> {
        match self.places.borrow().get(number) {
            Some(Place::Made(value)) => Some(Rc::clone(value)),
            _ => None,
        }
    }

    #[track_caller]
    fn make(&self, number: usize) -> Making<'_> {
        let mut places = self.places.borrow_mut();
        if places.len() <= number {
            places.resize_with(number + 1, Place::default);
        }
        if let Place::Making = places[number] {
            panic!("the value of a PerCore was asked for while it was being made");
        }
        assert!(!self.ending.get(), "the value of a PerCore was asked for while its core ends");
        places[number] = Place::Making;
        Making(self, number)
    }

    /// Drops them all; those that are asked for meanwhile are not made anew.
    pub(super) fn shut_down(&self) {
        self.ending.set(true);
        let count = self.places.borrow().len();
        for number in (0..count).rev() {
            // Out of its place first: a destructor may do anything.
            let value = std::mem::take(&mut self.places.borrow_mut()[number]);
            guard::discard(Some(value));
        }
    }
}

/// A place whose value is being made.
struct Making<'a>(&'a Values, usize);

impl Making<'_> {
    fn made(self, value: &Rc<dyn Any>) {
        self.0.places.borrow_mut()[self.1] = Place::Made(Rc::clone(value));
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        let place = &mut self.0.places.borrow_mut()[self.1];
        if let Place::Making = place {
            *place = Place::Empty;
        }
    }
}
