//! Calling what is somebody else's: its panic stays its own.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

use super::current;

/// Wakes. Whoever does so has other things to do than to fail with the waker.
#[inline]
pub(crate) fn wake(waker: Waker) {
    call(|| waker.wake());
}

/// Drops what is a user's. A panic in it must not end whoever came to drop it, who may be unwinding.
#[inline]
pub(crate) fn discard<T>(value: Option<T>) {
    if let Some(value) = value {
        call(|| drop(value));
    }
}

/// Calls `f`, and counts a panic in it on this core.
#[inline]
pub(crate) fn call(f: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(f)) {
        caught(panic);
    }
}

#[cold]
fn caught(panic: Box<dyn Any + Send>) {
    current::core(|core| core.caught_panics.set(core.caught_panics.get() + 1));
    drop_payload(panic);
}

/// Drops what somebody panicked with, which may panic in its turn.
pub(crate) fn drop_payload(panic: Box<dyn Any + Send>) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(second);
    }
}
