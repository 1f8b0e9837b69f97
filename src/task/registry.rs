//! The cores of this process that are alive, by number: for handles that meet another thread.
//!
//! A handle names its core by number and holds nothing of it, so it is small, and free to go
//! anywhere. Only a handle that is dropped on a foreign thread looks here.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::inbox::Remote;
use super::scheduler::Scheduler;
use crate::sys::atomic::Arc;
use crate::sys::current;
use crate::sys::fork::forked;

static CORES: Mutex<BTreeMap<u64, Arc<Remote>>> = Mutex::new(BTreeMap::new());

fn cores() -> MutexGuard<'static, BTreeMap<u64, Arc<Remote>>> {
    CORES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lists a core until the guard is dropped.
pub(crate) struct Listed(u64);

impl Listed {
    pub(crate) fn new(remote: Arc<Remote>) -> Self {
        let core = remote.core;
        assert!(cores().insert(core, remote).is_none(), "core {core} exists twice");
        Listed(core)
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        if forked() {
            // A thread of the parent may have held the lock.
            return;
        }
        let remote = cores().remove(&self.0);
        // What it still holds is dropped outside of the lock.
        drop(remote);
    }
}

/// The way in to a core, if it is alive.
pub(crate) fn remote(core: u64) -> Option<Arc<Remote>> {
    // In a forked child no core is alive, and the lock may be held by nobody who could release it.
    if forked() { None } else { cores().get(&core).cloned() }
}

/// Runs `f` with the scheduler of `core`: at once when this is that core, soon when it is another,
/// and not at all when it has ended.
pub(super) fn on_core(core: u64, f: impl FnOnce(&Scheduler) + Send + 'static) {
    if current::id() == Some(core) {
        current::with(f);
    } else if let Some(remote) = remote(core) {
        // A core that has ended needs no message: everything of it is gone.
        let _ = remote.send(move || {
            current::with(f);
        });
    }
}
