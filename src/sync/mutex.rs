//! A lock that may be held across an await.

use std::cell::{RefCell, RefMut};
use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::panic::Location;

use super::permits::{Permits, Refusal};
use super::places::{Noted, Places};

/// A value that one task has at a time, also across an `await`; the others wait, first come first
/// served.
///
/// What is not held across an `await` needs no lock on one core: see [`state`](super::state).
///
/// Dropping a future that waits leaves the line, and a lock that it was given goes to the next. A panic
/// of the holder unlocks and poisons nothing. A guard that is leaked ([`std::mem::forget`]) locks for
/// ever. In debug builds a [`TryLockError`] and the `Debug` text of the lock say where it is held.
///
/// ```
/// use std::rc::Rc;
/// use quoit::sync::Mutex;
/// use quoit::task::yield_now;
///
/// # quoit::runtime::run(async {
/// let log = Rc::new(Mutex::new(Vec::new()));
/// let tasks = (0..2).map(|task| {
///     let log = log.clone();
///     async move {
///         let mut log = log.lock().await;
///         log.push(task);
///         yield_now().await;
///         log.push(task);
///     }
/// });
/// quoit::gather(tasks).await;
/// assert_eq!(*log.lock().await, [0, 0, 1, 1]);
/// # }).unwrap();
/// ```
pub struct Mutex<T: ?Sized> {
    permits: Permits,
    places: Places,
    value: RefCell<T>,
}

/// The lock on a [`Mutex`]; its drop unlocks.
///
/// ```
/// use quoit::sync::{Mutex, MutexGuard};
///
/// # quoit::runtime::run(async {
/// let number = Mutex::new(1);
/// let mut guard: MutexGuard<'_, i32> = number.lock().await;
/// *guard += 1;
/// drop(guard);
/// assert_eq!(number.into_inner(), 2);
/// # }).unwrap();
/// ```
// The fields are dropped in their order: the borrow ends before the lock goes to the next.
#[must_use = "it unlocks when it is dropped"]
pub struct MutexGuard<'a, T: ?Sized> {
    value: RefMut<'a, T>,
    lock: Locked<'a>,
    pub(super) mutex: &'a Mutex<T>,
}

/// The lock on a part of what a [`Mutex`] holds; made by [`MutexGuard::map`].
///
/// ```
/// use quoit::sync::{MappedMutexGuard, Mutex, MutexGuard};
///
/// # quoit::runtime::run(async {
/// let pair = Mutex::new((1, 'a'));
/// let letter: MappedMutexGuard<'_, char> = MutexGuard::map(pair.lock().await, |pair| &mut pair.1);
/// assert_eq!(*letter, 'a');
/// # }).unwrap();
/// ```
#[must_use = "it unlocks when it is dropped"]
pub struct MappedMutexGuard<'a, T: ?Sized> {
    value: RefMut<'a, T>,
    lock: Locked<'a>,
}

struct Locked<'a> {
    permits: &'a Permits,
    _noted: Noted<'a>,
}

/// The lock is held by somebody, or somebody waits for it.
///
/// ```
/// use quoit::sync::{Mutex, TryLockError};
///
/// let mutex = Mutex::new(());
/// let held = mutex.try_lock().unwrap();
/// let error: TryLockError = mutex.try_lock().unwrap_err();
/// assert!(error.to_string().starts_with("the lock is held"), "{error}");
/// # drop(held);
/// ```
#[derive(Clone)]
pub struct TryLockError {
    held_at: Option<&'static Location<'static>>,
}

impl<T> Mutex<T> {
    /// An unlocked mutex with this value.
    pub const fn new(value: T) -> Self {
        Mutex { permits: Permits::new(1), places: Places::new(), value: RefCell::new(value) }
    }

    /// The value.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Waits for the lock.
    ///
    /// A task that holds the lock already and waits for it here waits for ever.
    #[inline]
    #[track_caller]
    pub fn lock(&self) -> impl Future<Output = MutexGuard<'_, T>> {
        let caller = Location::caller();
        async move {
            self.permits.acquire(1).await.expect("the permits of a lock are never closed");
            self.guard(caller)
        }
    }

    /// Takes the lock if nobody has it and nobody waits for it.
    ///
    /// # Errors
    /// When it is held. In debug builds the error says where.
    #[inline]
    #[track_caller]
    pub fn try_lock(&self) -> Result<MutexGuard<'_, T>, TryLockError> {
        let caller = Location::caller();
        match self.permits.try_acquire(1) {
            Ok(()) => Ok(self.guard(caller)),
            Err(Refusal::Closed | Refusal::NoPermits) => Err(TryLockError::new(&self.places)),
        }
    }

    /// The value, which nobody else can lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    #[inline]
    fn guard(&self, caller: &'static Location<'static>) -> MutexGuard<'_, T> {
        let lock = Locked { permits: &self.permits, _noted: self.places.note(caller) };
        MutexGuard { value: self.value.borrow_mut(), lock, mutex: self }
    }
}

impl<'a, T: ?Sized> MutexGuard<'a, T> {
    /// The lock, for a part of the value.
    pub fn map<U: ?Sized>(this: Self, f: impl FnOnce(&mut T) -> &mut U) -> MappedMutexGuard<'a, U> {
        MappedMutexGuard { value: RefMut::map(this.value, f), lock: this.lock }
    }

    /// The mutex that it locks.
    #[must_use]
    pub fn mutex(this: &Self) -> &'a Mutex<T> {
        this.mutex
    }
}

impl<'a, T: ?Sized> MappedMutexGuard<'a, T> {
    /// The lock, for a part of this part.
    pub fn map<U: ?Sized>(this: Self, f: impl FnOnce(&mut T) -> &mut U) -> MappedMutexGuard<'a, U> {
        MappedMutexGuard { value: RefMut::map(this.value, f), lock: this.lock }
    }
}

impl Drop for Locked<'_> {
    #[inline]
    fn drop(&mut self) {
        self.permits.release(1);
    }
}

impl TryLockError {
    pub(super) fn new(places: &Places) -> Self {
        TryLockError { held_at: places.first() }
    }

    /// Where the lock is held; not known in release builds, nor when it was just given to somebody who
    /// has not come for it yet.
    #[must_use]
    pub fn held_at(&self) -> Option<&'static Location<'static>> {
        self.held_at
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: ?Sized> Deref for MappedMutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: ?Sized> DerefMut for MappedMutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Mutex::new(T::default())
    }
}

impl<T> From<T> for Mutex<T> {
    fn from(value: T) -> Self {
        Mutex::new(value)
    }
}

impl fmt::Display for TryLockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.held_at {
            Some(place) => write!(f, "the lock is held: it was taken at {place}"),
            None => f.write_str("the lock is held"),
        }
    }
}

impl fmt::Debug for TryLockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TryLockError({self})")
    }
}

impl std::error::Error for TryLockError {}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("Mutex");
        match self.try_lock() {
            Ok(value) => text.field("value", &&*value),
            Err(_) => text.field("value", &format_args!("<locked{}>", self.places)),
        };
        text.finish()
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for MappedMutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
