//! Where the runtime's own words go: a hook, because a library never prints.

use std::fmt;

use crate::sys::atomic::Arc;

/// A shared hook for lines of text; without one they go nowhere.
#[derive(Clone, Default)]
pub(crate) struct Log(Option<Arc<dyn Fn(&str) + Send + Sync>>);

impl Log {
    pub(crate) fn to(hook: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Log(Some(Arc::new(hook)))
    }

    pub(crate) fn line(&self, text: &str) {
        if let Some(hook) = &self.0 {
            hook(text);
        }
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Log(hook)" } else { "Log(none)" })
    }
}
