//! A semaphore: so many at a time.

use std::fmt;
use std::rc::Rc;

use super::permits::{Permits, Refusal};

/// Lets so many in at a time; the others wait, first come first served.
///
/// Whoever asks for several permits is not overtaken by those who ask for one. Dropping a future that
/// waits leaves the line, and a permit that it was given goes to the next.
///
/// It is for the tasks of one core: waiting and waking use no atomics.
///
/// ```
/// use quoit::sync::Semaphore;
///
/// # quoit::runtime::run(async {
/// let semaphore = Semaphore::new(2);
/// let one = semaphore.acquire().await.unwrap();
/// let two = semaphore.acquire().await.unwrap();
/// assert!(semaphore.try_acquire().is_err());
/// drop(one);
/// assert_eq!(semaphore.available_permits(), 1);
/// # drop(two);
/// # }).unwrap();
/// ```
pub struct Semaphore {
    permits: Permits,
}

/// Permits of a [`Semaphore`], given back when it is dropped.
///
/// One that is leaked ([`std::mem::forget`]) keeps its permits, like [`forget`](SemaphorePermit::forget).
///
/// ```
/// use quoit::sync::{Semaphore, SemaphorePermit};
///
/// let semaphore = Semaphore::new(3);
/// let mut permit: SemaphorePermit<'_> = semaphore.try_acquire_many(3).unwrap();
/// let one = permit.split(1).unwrap();
/// drop(permit);
/// assert_eq!((semaphore.available_permits(), one.num_permits()), (2, 1));
/// ```
#[must_use = "the permits are given back when it is dropped"]
pub struct SemaphorePermit<'a> {
    semaphore: &'a Semaphore,
    count: usize,
}

/// As [`SemaphorePermit`], with a share of the semaphore instead of a borrow: a task can own it.
///
/// ```
/// use std::rc::Rc;
/// use quoit::sync::{OwnedSemaphorePermit, Semaphore};
///
/// # quoit::runtime::run(async {
/// let semaphore = Rc::new(Semaphore::new(1));
/// let permit: OwnedSemaphorePermit = semaphore.clone().acquire_owned().await.unwrap();
/// let task = quoit::spawn(async move { drop(permit) });
/// task.await.unwrap();
/// assert_eq!(semaphore.available_permits(), 1);
/// # }).unwrap();
/// ```
#[must_use = "the permits are given back when it is dropped"]
pub struct OwnedSemaphorePermit {
    semaphore: Rc<Semaphore>,
    count: usize,
}

/// The semaphore is closed.
///
/// ```
/// use quoit::sync::{AcquireError, Semaphore};
///
/// # quoit::runtime::run(async {
/// let semaphore = Semaphore::new(1);
/// semaphore.close();
/// let error: AcquireError = semaphore.acquire().await.unwrap_err();
/// assert_eq!(error.to_string(), "the semaphore is closed");
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcquireError(());

/// Why there is no permit at once.
///
/// ```
/// use quoit::sync::{Semaphore, TryAcquireError};
///
/// let semaphore = Semaphore::new(0);
/// assert_eq!(semaphore.try_acquire().unwrap_err(), TryAcquireError::NoPermits);
/// semaphore.close();
/// assert_eq!(semaphore.try_acquire().unwrap_err(), TryAcquireError::Closed);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TryAcquireError {
    /// The semaphore is closed.
    Closed,
    /// There are too few permits, or others wait for them.
    NoPermits,
}

impl Semaphore {
    /// The most permits that a semaphore can have.
    pub const MAX_PERMITS: usize = Permits::MOST;

    /// A semaphore with so many permits.
    ///
    /// # Panics
    /// If they are more than [`MAX_PERMITS`](Semaphore::MAX_PERMITS).
    #[must_use]
    pub const fn new(permits: usize) -> Self {
        assert!(permits <= Self::MAX_PERMITS, "a semaphore has at most MAX_PERMITS permits");
        Semaphore { permits: Permits::new(permits) }
    }

    /// How many permits nobody has. There may be some while somebody waits for more.
    pub fn available_permits(&self) -> usize {
        self.permits.available()
    }

    /// Adds so many permits.
    ///
    /// # Panics
    /// If there would be more than [`MAX_PERMITS`](Semaphore::MAX_PERMITS).
    pub fn add_permits(&self, count: usize) {
        assert!(self.permits.add(count), "a semaphore has at most MAX_PERMITS permits");
    }

    /// Takes up to so many of the available permits away for good, and says how many.
    pub fn forget_permits(&self, count: usize) -> usize {
        self.permits.forget(count)
    }

    /// Waits for a permit.
    ///
    /// # Errors
    /// When the semaphore is closed, before or meanwhile.
    pub async fn acquire(&self) -> Result<SemaphorePermit<'_>, AcquireError> {
        self.acquire_many(1).await
    }

    /// Waits for so many permits, which it takes together.
    ///
    /// # Errors
    /// As [`acquire`](Semaphore::acquire).
    pub async fn acquire_many(&self, count: u32) -> Result<SemaphorePermit<'_>, AcquireError> {
        let count = count as usize;
        self.permits.acquire(count).await.map_err(|_| AcquireError(()))?;
        Ok(SemaphorePermit { semaphore: self, count })
    }

    /// Takes a permit if there is one and nobody waits.
    ///
    /// # Errors
    /// Why there is none.
    pub fn try_acquire(&self) -> Result<SemaphorePermit<'_>, TryAcquireError> {
        self.try_acquire_many(1)
    }

    /// Takes so many permits if there are so many and nobody waits.
    ///
    /// # Errors
    /// Why there are none.
    pub fn try_acquire_many(&self, count: u32) -> Result<SemaphorePermit<'_>, TryAcquireError> {
        let count = count as usize;
        self.permits.try_acquire(count)?;
        Ok(SemaphorePermit { semaphore: self, count })
    }

    /// As [`acquire`](Semaphore::acquire), for a task to own.
    ///
    /// # Errors
    /// When the semaphore is closed.
    pub async fn acquire_owned(self: Rc<Self>) -> Result<OwnedSemaphorePermit, AcquireError> {
        self.acquire_many_owned(1).await
    }

    /// As [`acquire_many`](Semaphore::acquire_many), for a task to own.
    ///
    /// # Errors
    /// When the semaphore is closed.
    pub async fn acquire_many_owned(
        self: Rc<Self>,
        count: u32,
    ) -> Result<OwnedSemaphorePermit, AcquireError> {
        let count = count as usize;
        self.permits.acquire(count).await.map_err(|_| AcquireError(()))?;
        Ok(OwnedSemaphorePermit { semaphore: self, count })
    }

    /// As [`try_acquire`](Semaphore::try_acquire), for a task to own.
    ///
    /// # Errors
    /// Why there is none.
    pub fn try_acquire_owned(self: Rc<Self>) -> Result<OwnedSemaphorePermit, TryAcquireError> {
        self.try_acquire_many_owned(1)
    }

    /// As [`try_acquire_many`](Semaphore::try_acquire_many), for a task to own.
    ///
    /// # Errors
    /// Why there are none.
    pub fn try_acquire_many_owned(
        self: Rc<Self>,
        count: u32,
    ) -> Result<OwnedSemaphorePermit, TryAcquireError> {
        let count = count as usize;
        self.permits.try_acquire(count)?;
        Ok(OwnedSemaphorePermit { semaphore: self, count })
    }

    /// Gives no permit any more: all who wait and all who come get an error.
    pub fn close(&self) {
        self.permits.close();
    }

    /// Whether it is closed.
    pub fn is_closed(&self) -> bool {
        self.permits.is_closed()
    }
}

impl<'a> SemaphorePermit<'a> {
    /// Keeps the permits for good.
    pub fn forget(mut self) {
        self.count = 0;
    }

    /// How many permits these are.
    #[must_use]
    pub fn num_permits(&self) -> usize {
        self.count
    }

    /// Adds the permits of another.
    ///
    /// # Panics
    /// If it is of another semaphore.
    pub fn merge(&mut self, mut other: Self) {
        assert!(std::ptr::eq(self.semaphore, other.semaphore), "permits of another semaphore");
        self.count += std::mem::take(&mut other.count);
    }

    /// Parts with so many of the permits; `None` if these are not so many.
    pub fn split(&mut self, count: usize) -> Option<SemaphorePermit<'a>> {
        self.count = self.count.checked_sub(count)?;
        Some(SemaphorePermit { semaphore: self.semaphore, count })
    }
}

impl OwnedSemaphorePermit {
    /// Keeps the permits for good.
    pub fn forget(mut self) {
        self.count = 0;
    }

    /// How many permits these are.
    #[must_use]
    pub fn num_permits(&self) -> usize {
        self.count
    }

    /// Adds the permits of another.
    ///
    /// # Panics
    /// If it is of another semaphore.
    pub fn merge(&mut self, mut other: Self) {
        assert!(Rc::ptr_eq(&self.semaphore, &other.semaphore), "permits of another semaphore");
        self.count += std::mem::take(&mut other.count);
    }

    /// Parts with so many of the permits; `None` if these are not so many.
    pub fn split(&mut self, count: usize) -> Option<OwnedSemaphorePermit> {
        self.count = self.count.checked_sub(count)?;
        Some(OwnedSemaphorePermit { semaphore: Rc::clone(&self.semaphore), count })
    }

    /// The semaphore that they are of.
    #[must_use]
    pub fn semaphore(&self) -> &Rc<Semaphore> {
        &self.semaphore
    }
}

impl Drop for SemaphorePermit<'_> {
    #[inline]
    fn drop(&mut self) {
        self.semaphore.permits.release(self.count);
    }
}

impl Drop for OwnedSemaphorePermit {
    #[inline]
    fn drop(&mut self) {
        self.semaphore.permits.release(self.count);
    }
}

impl From<Refusal> for TryAcquireError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Closed => TryAcquireError::Closed,
            Refusal::NoPermits => TryAcquireError::NoPermits,
        }
    }
}

impl fmt::Display for AcquireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the semaphore is closed")
    }
}

impl std::error::Error for AcquireError {}

impl fmt::Display for TryAcquireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TryAcquireError::Closed => "the semaphore is closed",
            TryAcquireError::NoPermits => "the semaphore has no permits to give",
        })
    }
}

impl std::error::Error for TryAcquireError {}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let available = self.available_permits();
        f.debug_struct("Semaphore").field("available_permits", &available).finish()
    }
}

impl fmt::Debug for SemaphorePermit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SemaphorePermit").field("count", &self.count).finish()
    }
}

impl fmt::Debug for OwnedSemaphorePermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedSemaphorePermit").field("count", &self.count).finish()
    }
}
