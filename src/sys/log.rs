//! Where the runtime's own words go: a hook, because a library never prints.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::sys::atomic::Arc;

type Hook = dyn Fn(&str) + Send + Sync;

/// A shared hook for lines of text; without one they go nowhere.
#[derive(Clone, Default)]
pub(crate) struct Log(Option<Arc<Hook>>);

impl Log {
    pub(crate) fn to(hook: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Log(Some(Arc::new(hook)))
    }

    pub(crate) fn line(&self, text: &str) {
        let Some(hook) = &self.0 else { return };
        // A hook that panics must not keep a core from draining, or the others from being stopped.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| hook(text))) {
            discard(panic);
        }
    }
}

/// Drops what somebody panicked with, which may panic in its turn.
pub(crate) fn discard(panic: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(again);
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Log(hook)" } else { "Log(none)" })
    }
}
