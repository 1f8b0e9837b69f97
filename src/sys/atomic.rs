//! The one place that chooses between the atomics of std and those of the model checker.

pub(crate) use std::sync::Arc;

#[cfg(not(loom))]
pub(crate) use std::thread_local;

#[cfg(loom)]
pub(crate) use loom::thread_local as loom_local;

/// As std's: the model checker has threads of its own, and does not know the form with `const`.
#[cfg(loom)]
macro_rules! model_local {
    (static $name:ident: $type:ty = const { $value:expr };) => {
        $crate::sys::atomic::loom_local! { static $name: $type = $value; }
    };
}
#[cfg(loom)]
pub(crate) use model_local as thread_local;

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicUsize, Ordering, fence};

#[cfg(not(loom))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};

#[cfg(loom)]
pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicUsize, Ordering, fence,
};

/// An `Arc` of which the model checker knows that its last holder sees what all others did.
#[cfg(not(loom))]
pub(crate) use std::sync::Arc as Shared;

#[cfg(loom)]
pub(crate) use loom::sync::Arc as Shared;

#[cfg(loom)]
pub(crate) use loom::cell::UnsafeCell;

/// As the model checker's, which sees to it that no two uses overlap.
#[cfg(not(loom))]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    pub(crate) fn new(value: T) -> Self {
        UnsafeCell(std::cell::UnsafeCell::new(value))
    }

    #[inline]
    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

/// What another thread can reach, for as long as it may be reached: the model checker sees to it that
/// the end comes after every use. Otherwise it is nothing.
#[cfg(not(loom))]
pub(crate) struct Life;

#[cfg(not(loom))]
impl Life {
    pub(crate) fn new() -> Self {
        Life
    }

    #[inline]
    pub(crate) fn used(&self) {}

    #[inline]
    pub(crate) fn ends(&self) {}
}

#[cfg(loom)]
pub(crate) struct Life(
    loom::cell::UnsafeCell<()>,
    #[expect(dead_code, reason = "its drop is what counts")] loom::alloc::Track<()>,
);

#[cfg(loom)]
impl Life {
    pub(crate) fn new() -> Self {
        Life(loom::cell::UnsafeCell::new(()), loom::alloc::Track::new(()))
    }

    pub(crate) fn used(&self) {
        self.0.with(|_| ());
    }

    pub(crate) fn ends(&self) {
        self.0.with_mut(|_| ());
    }
}

/// Runs a model in every order of its threads. It fails if there was but one: then no two threads met,
/// and nothing was checked.
#[cfg(all(test, loom))]
#[track_caller]
pub(crate) fn model(body: impl Fn() + Sync + Send + 'static) {
    check(&loom::model::Builder::new(), body);
}

/// As [`model`], with bounds of its own.
#[cfg(all(test, loom))]
#[track_caller]
pub(crate) fn check(builder: &loom::model::Builder, body: impl Fn() + Sync + Send + 'static) {
    // Not of the model: it lives longer, and nobody waits for it.
    let orders = std::sync::Arc::new(plain::AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&orders);
    builder.check(move || {
        count.fetch_add(1, plain::Ordering::Relaxed);
        body();
    });
    assert!(
        orders.load(plain::Ordering::Relaxed) > 1,
        "its threads never meet: there is one order"
    );
}

/// Atomics that no model checks: counters, state that a forked child's only thread reads, and what
/// is shared with the kernel.
pub(crate) mod plain {
    pub(crate) use std::sync::atomic::{
        AtomicBool, AtomicI32, AtomicU16, AtomicU32, AtomicUsize, Ordering,
    };
}
