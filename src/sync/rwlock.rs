//! A lock that many hold to read, or one to write.

use std::cell::{Ref, RefCell, RefMut};
use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::panic::Location;

use super::mutex::TryLockError;
use super::permits::Permits;
use super::places::{Noted, Places};

/// How many may read at a time. A reader takes one permit, a writer all of them.
const READERS: usize = (u32::MAX >> 3) as usize;

/// A value that many tasks read at a time, or one writes, also across an `await`.
///
/// It is fair: first come, first served, so a reader that comes after a writer waits for it, and
/// neither starves. Hence a task that reads and waits to read once more may wait for ever: a writer
/// may stand between.
///
/// In all else it is a [`Mutex`](super::Mutex): dropping a future that waits leaves the line, a panic
/// poisons nothing, and debug builds know where it is held.
///
/// ```
/// use quoit::sync::RwLock;
///
/// # quoit::runtime::run(async {
/// let words = RwLock::new(vec!["one"]);
/// {
///     let (first, second) = (words.read().await, words.read().await);
///     assert_eq!(*first, *second);
///     assert!(words.try_write().is_err());
/// }
/// words.write().await.push("two");
/// assert_eq!(words.into_inner(), ["one", "two"]);
/// # }).unwrap();
/// ```
pub struct RwLock<T: ?Sized> {
    permits: Permits,
    places: Places,
    value: RefCell<T>,
}

/// The lock on a [`RwLock`] to read.
///
/// ```
/// use quoit::sync::{RwLock, RwLockReadGuard};
///
/// # quoit::runtime::run(async {
/// let pair = RwLock::new((1, 'a'));
/// let letter: RwLockReadGuard<'_, char> = RwLockReadGuard::map(pair.read().await, |pair| &pair.1);
/// assert_eq!(*letter, 'a');
/// # }).unwrap();
/// ```
// The fields of guards are dropped in their order: the borrow ends before the lock goes to the next.
#[must_use = "it unlocks when it is dropped"]
pub struct RwLockReadGuard<'a, T: ?Sized> {
    value: Ref<'a, T>,
    lock: Locked<'a>,
}

/// The lock on a [`RwLock`] to write.
///
/// ```
/// use quoit::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
///
/// # quoit::runtime::run(async {
/// let number = RwLock::new(1);
/// let mut write: RwLockWriteGuard<'_, i32> = number.write().await;
/// *write += 1;
/// // Nobody writes between this write and this read.
/// let read: RwLockReadGuard<'_, i32> = write.downgrade();
/// assert_eq!(*read, 2);
/// assert!(number.try_read().is_ok());
/// # }).unwrap();
/// ```
#[must_use = "it unlocks when it is dropped"]
pub struct RwLockWriteGuard<'a, T: ?Sized> {
    value: RefMut<'a, T>,
    lock: Locked<'a>,
    of: &'a RwLock<T>,
}

/// The lock to write a part of what a [`RwLock`] holds; made by [`RwLockWriteGuard::map`].
///
/// ```
/// use quoit::sync::{RwLock, RwLockMappedWriteGuard, RwLockWriteGuard};
///
/// # quoit::runtime::run(async {
/// let pair = RwLock::new((1, 'a'));
/// let mut letter: RwLockMappedWriteGuard<'_, char> =
///     RwLockWriteGuard::map(pair.write().await, |pair| &mut pair.1);
/// *letter = 'b';
/// drop(letter);
/// assert_eq!(pair.into_inner(), (1, 'b'));
/// # }).unwrap();
/// ```
#[must_use = "it unlocks when it is dropped"]
pub struct RwLockMappedWriteGuard<'a, T: ?Sized> {
    value: RefMut<'a, T>,
    lock: Locked<'a>,
}

struct Locked<'a> {
    permits: &'a Permits,
    count: usize,
    noted: Noted<'a>,
}

impl<T> RwLock<T> {
    /// An unlocked lock with this value.
    pub const fn new(value: T) -> Self {
        RwLock { permits: Permits::new(READERS), places: Places::new(), value: RefCell::new(value) }
    }

    /// The value.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Waits until nobody writes, nor waits to.
    #[track_caller]
    pub fn read(&self) -> impl Future<Output = RwLockReadGuard<'_, T>> {
        let caller = Location::caller();
        async move {
            self.take(1).await;
            self.read_guard(caller)
        }
    }

    /// Waits until nobody reads or writes.
    #[track_caller]
    pub fn write(&self) -> impl Future<Output = RwLockWriteGuard<'_, T>> {
        let caller = Location::caller();
        async move {
            self.take(READERS).await;
            self.write_guard(caller)
        }
    }

    /// Reads if nobody writes, nor waits for the lock.
    ///
    /// # Errors
    /// When that is not so. In debug builds the error says where the lock is held.
    #[track_caller]
    pub fn try_read(&self) -> Result<RwLockReadGuard<'_, T>, TryLockError> {
        let caller = Location::caller();
        match self.permits.try_acquire(1) {
            Ok(()) => Ok(self.read_guard(caller)),
            Err(_) => Err(TryLockError::new(&self.places)),
        }
    }

    /// Writes if nobody reads or writes.
    ///
    /// # Errors
    /// When somebody does. In debug builds the error says where the lock is held.
    #[track_caller]
    pub fn try_write(&self) -> Result<RwLockWriteGuard<'_, T>, TryLockError> {
        let caller = Location::caller();
        match self.permits.try_acquire(READERS) {
            Ok(()) => Ok(self.write_guard(caller)),
            Err(_) => Err(TryLockError::new(&self.places)),
        }
    }

    /// The value, which nobody else can lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    async fn take(&self, count: usize) {
        self.permits.acquire(count).await.expect("the permits of a lock are never closed");
    }

    fn read_guard(&self, caller: &'static Location<'static>) -> RwLockReadGuard<'_, T> {
        let lock = Locked { permits: &self.permits, count: 1, noted: self.places.note(caller) };
        RwLockReadGuard { value: self.value.borrow(), lock }
    }

    fn write_guard(&self, caller: &'static Location<'static>) -> RwLockWriteGuard<'_, T> {
        let noted = self.places.note(caller);
        let lock = Locked { permits: &self.permits, count: READERS, noted };
        RwLockWriteGuard { value: self.value.borrow_mut(), lock, of: self }
    }
}

impl<'a, T: ?Sized> RwLockReadGuard<'a, T> {
    /// The lock, for a part of the value.
    pub fn map<U: ?Sized>(this: Self, f: impl FnOnce(&T) -> &U) -> RwLockReadGuard<'a, U> {
        RwLockReadGuard { value: Ref::map(this.value, f), lock: this.lock }
    }
}

impl<'a, T: ?Sized> RwLockWriteGuard<'a, T> {
    /// The lock to write, for a part of the value.
    pub fn map<U: ?Sized>(
        this: Self,
        f: impl FnOnce(&mut T) -> &mut U,
    ) -> RwLockMappedWriteGuard<'a, U> {
        RwLockMappedWriteGuard { value: RefMut::map(this.value, f), lock: this.lock }
    }

    /// Makes it a lock to read, at once: nobody writes in between.
    pub fn downgrade(self) -> RwLockReadGuard<'a, T> {
        let RwLockWriteGuard { value, lock, of } = self;
        drop(value);
        let noted = lock.noted.clone();
        let value = of.value.borrow();
        // What is given back now, readers get.
        lock.part_with(READERS - 1);
        RwLockReadGuard { value, lock: Locked { permits: &of.permits, count: 1, noted } }
    }
}

impl<'a, T: ?Sized> RwLockMappedWriteGuard<'a, T> {
    /// The lock to write, for a part of this part.
    pub fn map<U: ?Sized>(
        this: Self,
        f: impl FnOnce(&mut T) -> &mut U,
    ) -> RwLockMappedWriteGuard<'a, U> {
        RwLockMappedWriteGuard { value: RefMut::map(this.value, f), lock: this.lock }
    }
}

impl Locked<'_> {
    /// Gives so many permits back, and leaves the others to somebody else.
    fn part_with(mut self, count: usize) {
        self.count = count;
    }
}

impl Drop for Locked<'_> {
    #[inline]
    fn drop(&mut self) {
        self.permits.release(self.count);
    }
}

impl<T: ?Sized> Deref for RwLockReadGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: ?Sized> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: ?Sized> DerefMut for RwLockWriteGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: ?Sized> Deref for RwLockMappedWriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: ?Sized> DerefMut for RwLockMappedWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: Default> Default for RwLock<T> {
    fn default() -> Self {
        RwLock::new(T::default())
    }
}

impl<T> From<T> for RwLock<T> {
    fn from(value: T) -> Self {
        RwLock::new(value)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("RwLock");
        match self.try_read() {
            Ok(value) => text.field("value", &&*value),
            Err(_) => text.field("value", &format_args!("<locked{}>", self.places)),
        };
        text.finish()
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLockReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLockWriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLockMappedWriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
