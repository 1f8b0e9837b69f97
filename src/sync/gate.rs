//! A gate: who is inside may finish, nobody else comes in.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::rc::Rc;

use super::notify::Notify;

/// Counts who is inside, and once closed lets nobody in and waits until all have left: Seastar's `gate`.
///
/// It is how a service stops: each request enters, [`close`](Gate::close) waits for those that are
/// running. Clones are the same gate.
///
/// ```
/// use quoit::sync::Gate;
/// use quoit::task::yield_now;
///
/// # quoit::runtime::run(async {
/// let gate = Gate::new();
/// let pass = gate.enter().unwrap();
/// quoit::spawn(async move {
///     yield_now().await; // the request
///     drop(pass);
/// });
/// gate.close().await; // until it has left
/// assert!(gate.enter().is_err());
/// # }).unwrap();
/// ```
#[derive(Clone, Default)]
pub struct Gate(Rc<Shared>);

#[derive(Default)]
struct Shared {
    inside: Cell<usize>,
    is_closed: Cell<bool>,
    all_left: Notify,
}

/// Somebody who is inside of a [`Gate`], and leaves when it is dropped.
///
/// A clone is one more who is inside, also when the gate is closed: it belongs to what is to be
/// finished. One that is leaked ([`std::mem::forget`]) never leaves.
///
/// ```
/// use quoit::sync::{Gate, Pass};
///
/// let gate = Gate::new();
/// let pass: Pass = gate.enter().unwrap();
/// assert_eq!(gate.count(), 1);
/// drop(pass);
/// assert_eq!(gate.count(), 0);
/// ```
#[must_use = "it leaves when it is dropped"]
pub struct Pass(Rc<Shared>);

/// The gate is closed.
///
/// ```
/// use quoit::sync::{Gate, GateClosed};
///
/// let gate = Gate::new();
/// drop(gate.close());
/// let error: GateClosed = gate.enter().unwrap_err();
/// assert_eq!(error.to_string(), "the gate is closed");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateClosed(());

impl Gate {
    /// An open gate, with nobody inside.
    #[must_use]
    pub fn new() -> Self {
        Gate::default()
    }

    /// Goes in.
    ///
    /// # Errors
    /// When the gate is closed.
    pub fn enter(&self) -> Result<Pass, GateClosed> {
        if self.0.is_closed.get() {
            return Err(GateClosed(()));
        }
        Ok(Pass::of(&self.0))
    }

    /// Runs `future` inside: it counts from this call until the future has ended or is dropped.
    ///
    /// # Errors
    /// When the gate is closed; the future is then dropped.
    pub fn run<F: Future>(
        &self,
        future: F,
    ) -> Result<impl Future<Output = F::Output> + use<F>, GateClosed> {
        let pass = self.enter()?;
        Ok(async move {
            let output = future.await;
            drop(pass);
            output
        })
    }

    /// Closes the gate at once; the future waits until all have left.
    ///
    /// Dropping the future loses nothing: the gate stays closed. Any number may wait, also later.
    pub fn close(&self) -> impl Future<Output = ()> + use<> {
        self.0.is_closed.set(true);
        let shared = Rc::clone(&self.0);
        async move {
            while shared.inside.get() > 0 {
                shared.all_left.notified().await;
            }
        }
    }

    /// Whether it is closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.is_closed.get()
    }

    /// How many are inside.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.inside.get()
    }
}

impl Pass {
    fn of(shared: &Rc<Shared>) -> Self {
        shared.inside.set(shared.inside.get() + 1);
        Pass(Rc::clone(shared))
    }
}

impl Clone for Pass {
    fn clone(&self) -> Self {
        Pass::of(&self.0)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let inside = self.0.inside.get() - 1;
        self.0.inside.set(inside);
        if inside == 0 {
            self.0.all_left.notify_waiters();
        }
    }
}

impl fmt::Display for GateClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the gate is closed")
    }
}

impl std::error::Error for GateClosed {}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("Gate");
        text.field("is_closed", &self.is_closed()).field("count", &self.count()).finish()
    }
}

impl fmt::Debug for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pass").field("inside", &self.0.inside.get()).finish()
    }
}
