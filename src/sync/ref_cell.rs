//! A cell that is borrowed at run time, and names both places when two borrows meet.

use std::cell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::Location;

use super::places::{Noted, Places};

/// State that tasks of one core share: [`std::cell::RefCell`], with a panic that says who is in the way.
///
/// On one core two borrows meet only when one of them was held across an `await` (or while code ran
/// that borrows again). The panic of the second is no help: it is the first that has to go. So in debug
/// builds each borrow notes where it was taken, and the panic names both places. In release builds
/// nothing is noted, and the panic names its own place only.
///
/// How to share state without that, [`state`](super::state) shows. What has to stay locked across an
/// `await` belongs in a [`Mutex`](super::Mutex).
///
/// ```
/// use quoit::sync::RefCell;
///
/// let hits = RefCell::new(0);
/// *hits.borrow_mut() += 1;
/// assert_eq!(*hits.borrow(), 1);
///
/// let held = hits.borrow();
/// let error = hits.try_borrow_mut().unwrap_err().to_string();
/// // in a debug build: already borrowed, since it was borrowed at src/main.rs:7:17; ..
/// assert!(error.starts_with("already borrowed"));
/// # drop(held);
/// ```
#[derive(Default)]
pub struct RefCell<T: ?Sized> {
    places: Places,
    value: cell::RefCell<T>,
}

/// A shared borrow of a [`RefCell`].
///
/// ```
/// use quoit::sync::{Ref, RefCell};
///
/// let pair = RefCell::new((1, "one"));
/// let word: Ref<'_, &str> = Ref::map(pair.borrow(), |pair| &pair.1);
/// assert_eq!(*word, "one");
/// ```
pub struct Ref<'a, T: ?Sized> {
    value: cell::Ref<'a, T>,
    noted: Noted<'a>,
}

/// The only borrow of a [`RefCell`].
///
/// ```
/// use quoit::sync::{RefCell, RefMut};
///
/// let pair = RefCell::new((1, "one"));
/// let mut number: RefMut<'_, i32> = RefMut::map(pair.borrow_mut(), |pair| &mut pair.0);
/// *number = 2;
/// drop(number);
/// assert_eq!(pair.into_inner(), (2, "one"));
/// ```
pub struct RefMut<'a, T: ?Sized> {
    value: cell::RefMut<'a, T>,
    noted: Noted<'a>,
}

/// Why a [`RefCell`] cannot be borrowed: it is borrowed already, and in debug builds, where.
///
/// ```
/// use quoit::sync::{BorrowError, RefCell};
///
/// let cell = RefCell::new(7);
/// let held = cell.borrow_mut();
/// let error: BorrowError = cell.try_borrow().unwrap_err();
/// if let Some(place) = error.held_at() {
///     println!("it is borrowed since {place}");
/// }
/// # drop(held);
/// ```
#[derive(Clone)]
pub struct BorrowError {
    held_at: Option<&'static Location<'static>>,
}

impl<T> RefCell<T> {
    /// A cell with this value.
    pub const fn new(value: T) -> Self {
        RefCell { places: Places::new(), value: cell::RefCell::new(value) }
    }

    /// The value.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }

    /// Puts another value in the place of this one, which is returned.
    ///
    /// # Panics
    /// While the value is borrowed.
    #[track_caller]
    pub fn replace(&self, value: T) -> T {
        std::mem::replace(&mut *self.borrow_mut(), value)
    }

    /// Takes the value, and leaves the default.
    ///
    /// # Panics
    /// While the value is borrowed.
    #[track_caller]
    pub fn take(&self) -> T
    where
        T: Default,
    {
        self.replace(T::default())
    }
}

impl<T: ?Sized> RefCell<T> {
    /// Borrows the value; others may do so too.
    ///
    /// # Panics
    /// While it is borrowed mutably. In debug builds the panic names both places.
    #[inline]
    #[track_caller]
    pub fn borrow(&self) -> Ref<'_, T> {
        self.try_borrow().unwrap_or_else(|error| refuse(&error))
    }

    /// Borrows the value; nobody else can meanwhile.
    ///
    /// # Panics
    /// While it is borrowed. In debug builds the panic names both places.
    #[inline]
    #[track_caller]
    pub fn borrow_mut(&self) -> RefMut<'_, T> {
        self.try_borrow_mut().unwrap_or_else(|error| refuse(&error))
    }

    /// As [`borrow`](RefCell::borrow), with an error instead of the panic.
    #[inline]
    #[track_caller]
    pub fn try_borrow(&self) -> Result<Ref<'_, T>, BorrowError> {
        let caller = Location::caller();
        match self.value.try_borrow() {
            Ok(value) => Ok(Ref { value, noted: self.places.note(caller) }),
            Err(_) => Err(BorrowError { held_at: self.places.first() }),
        }
    }

    /// As [`borrow_mut`](RefCell::borrow_mut), with an error instead of the panic.
    #[inline]
    #[track_caller]
    pub fn try_borrow_mut(&self) -> Result<RefMut<'_, T>, BorrowError> {
        let caller = Location::caller();
        match self.value.try_borrow_mut() {
            Ok(value) => Ok(RefMut { value, noted: self.places.note(caller) }),
            Err(_) => Err(BorrowError { held_at: self.places.first() }),
        }
    }

    /// The value, which nobody else can borrow.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

#[cold]
#[track_caller]
fn refuse(error: &BorrowError) -> ! {
    panic!("{error}; a borrow must end before the next `await`")
}

impl<'a, T: ?Sized> Ref<'a, T> {
    /// A borrow of a part of it.
    pub fn map<U: ?Sized>(this: Self, f: impl FnOnce(&T) -> &U) -> Ref<'a, U> {
        Ref { value: cell::Ref::map(this.value, f), noted: this.noted }
    }

    /// One more borrow of the same.
    #[expect(clippy::should_implement_trait, reason = "as in std: it would hide T's own `clone`")]
    pub fn clone(this: &Self) -> Self {
        Ref { value: cell::Ref::clone(&this.value), noted: this.noted.clone() }
    }
}

impl<'a, T: ?Sized> RefMut<'a, T> {
    /// A borrow of a part of it.
    pub fn map<U: ?Sized>(this: Self, f: impl FnOnce(&mut T) -> &mut U) -> RefMut<'a, U> {
        RefMut { value: cell::RefMut::map(this.value, f), noted: this.noted }
    }
}

impl BorrowError {
    /// Where the value is borrowed that is in the way; not known in release builds.
    #[must_use]
    pub fn held_at(&self) -> Option<&'static Location<'static>> {
        self.held_at
    }
}

impl<T: ?Sized> Deref for Ref<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: ?Sized> Deref for RefMut<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: ?Sized> DerefMut for RefMut<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T> From<T> for RefCell<T> {
    fn from(value: T) -> Self {
        RefCell::new(value)
    }
}

impl fmt::Display for BorrowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.held_at {
            Some(place) => write!(f, "already borrowed, since it was borrowed at {place}"),
            None => f.write_str("already borrowed; a debug build says where"),
        }
    }
}

impl fmt::Debug for BorrowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BorrowError({self})")
    }
}

impl std::error::Error for BorrowError {}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RefCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("RefCell");
        match self.value.try_borrow() {
            Ok(value) => text.field("value", &&*value),
            Err(_) => text.field("value", &format_args!("<borrowed{}>", self.places)),
        };
        text.finish()
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Ref<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RefMut<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
