//! A value that is made once, by whoever needs it first.

use std::cell;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;

use super::permits::{Permits, Refusal};

/// A cell that is written once, by async code if need be: a connection, a table that is loaded.
///
/// If several need it at once, one makes the value and the others wait. If that one fails, panics or is
/// dropped, the next in line makes it.
///
/// ```
/// use quoit::sync::OnceCell;
///
/// # quoit::runtime::run(async {
/// let table = OnceCell::new();
/// let load = async || table.get_or_init(async || vec![1, 2, 3]).await.len();
/// assert_eq!(quoit::join!(load(), load()), (3, 3));
/// # }).unwrap();
/// ```
pub struct OnceCell<T> {
    value: cell::OnceCell<T>,
    /// The right to make the value; closed when there is one.
    turn: Permits,
}

/// Why a value cannot be set: there is one, or one is being made. It gives the other one back.
///
/// ```
/// use quoit::sync::{OnceCell, SetError};
///
/// let cell = OnceCell::new();
/// cell.set(1).unwrap();
/// assert_eq!(cell.set(2), Err(SetError::AlreadyInitializedError(2)));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetError<T> {
    /// There is a value.
    AlreadyInitializedError(T),
    /// Somebody is making one.
    InitializingError(T),
}

impl<T> OnceCell<T> {
    /// An empty cell.
    #[must_use]
    pub const fn new() -> Self {
        OnceCell { value: cell::OnceCell::new(), turn: Permits::new(1) }
    }

    /// A cell with this value, or an empty one.
    pub fn new_with(value: Option<T>) -> Self {
        value.map_or_else(OnceCell::new, OnceCell::from)
    }

    /// The value, if there is one.
    #[inline]
    pub fn get(&self) -> Option<&T> {
        self.value.get()
    }

    /// The value, if there is one.
    pub fn get_mut(&mut self) -> Option<&mut T> {
        self.value.get_mut()
    }

    /// Whether there is a value.
    pub fn initialized(&self) -> bool {
        self.get().is_some()
    }

    /// Puts the value in.
    ///
    /// # Errors
    /// When there is one, or one is being made.
    pub fn set(&self, value: T) -> Result<(), SetError<T>> {
        match self.turn.try_acquire(1) {
            Ok(()) => {
                self.put(value);
                Ok(())
            }
            Err(Refusal::Closed) => Err(SetError::AlreadyInitializedError(value)),
            Err(Refusal::NoPermits) => Err(SetError::InitializingError(value)),
        }
    }

    /// The value, which `make` makes if there is none.
    ///
    /// Dropping the future drops that of `make`; then the next in line makes the value.
    pub async fn get_or_init<F, M>(&self, make: M) -> &T
    where
        M: FnOnce() -> F,
        F: Future<Output = T>,
    {
        let make = || async move { Ok::<T, Infallible>(make().await) };
        let made = self.get_or_try_init(make).await;
        made.unwrap_or_else(|never| match never {})
    }

    /// The value, which `make` makes if there is none.
    ///
    /// # Errors
    /// The error of `make`. The cell is then empty, and the next in line tries.
    pub async fn get_or_try_init<E, F, M>(&self, make: M) -> Result<&T, E>
    where
        M: FnOnce() -> F,
        F: Future<Output = Result<T, E>>,
    {
        if let Some(value) = self.get() {
            return Ok(value);
        }
        // It is closed when somebody else has made the value.
        if self.turn.acquire(1).await.is_ok() {
            let turn = Turn(&self.turn);
            let value = make().await?;
            std::mem::forget(turn);
            self.put(value);
        }
        Ok(self.get().expect("the turn is closed when there is a value"))
    }

    /// With the turn: who waits finds the value.
    fn put(&self, value: T) {
        assert!(self.value.set(value).is_ok(), "whoever has the turn is the only one");
        self.turn.close();
    }

    /// Takes the value out.
    pub fn take(&mut self) -> Option<T> {
        std::mem::take(self).into_inner()
    }

    /// The value.
    pub fn into_inner(self) -> Option<T> {
        self.value.into_inner()
    }
}

/// Passes the right to make the value on.
struct Turn<'a>(&'a Permits);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.release(1);
    }
}

impl<T> Default for OnceCell<T> {
    fn default() -> Self {
        OnceCell::new()
    }
}

impl<T> From<T> for OnceCell<T> {
    fn from(value: T) -> Self {
        let turn = Permits::new(0);
        turn.close();
        OnceCell { value: cell::OnceCell::from(value), turn }
    }
}

impl<T: Clone> Clone for OnceCell<T> {
    fn clone(&self) -> Self {
        OnceCell::new_with(self.get().cloned())
    }
}

impl<T: fmt::Debug> fmt::Debug for OnceCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnceCell").field("value", &self.get()).finish()
    }
}

impl<T> fmt::Display for SetError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SetError::AlreadyInitializedError(_) => "the cell has a value",
            SetError::InitializingError(_) => "the value of the cell is being made",
        })
    }
}

impl<T: fmt::Debug> std::error::Error for SetError<T> {}
