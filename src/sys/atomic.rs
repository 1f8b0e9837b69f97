//! The one place that chooses between the atomics of std and those of the model checker.

pub(crate) use std::sync::Arc;

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicUsize, Ordering, fence};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicUsize, Ordering, fence,
};

/// Atomics that no model checks: counters, state that a forked child's only thread reads, and what
/// is shared with the kernel.
pub(crate) mod plain {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU16, Ordering};
}
