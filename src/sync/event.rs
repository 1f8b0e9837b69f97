//! A flag that tasks wait for.

use std::cell::Cell;
use std::fmt;

use super::notify::Notify;

/// A flag that is set and cleared by hand, like asyncio's `Event`: all who wait go on when it is set.
///
/// ```
/// use std::rc::Rc;
/// use quoit::sync::Event;
///
/// # quoit::runtime::run(async {
/// let ready = Rc::new(Event::new());
/// let seen = ready.clone();
/// let task = quoit::spawn(async move { seen.wait().await });
/// ready.set();
/// task.await.unwrap();
/// assert!(ready.is_set());
/// # }).unwrap();
/// ```
#[derive(Default)]
pub struct Event {
    is_set: Cell<bool>,
    notify: Notify,
}

impl Event {
    /// An event that is not set.
    #[must_use]
    pub const fn new() -> Self {
        Event { is_set: Cell::new(false), notify: Notify::new() }
    }

    /// Sets it: all who wait go on, and nobody waits until it is cleared.
    pub fn set(&self) {
        if !self.is_set.replace(true) {
            self.notify.notify_waiters();
        }
    }

    /// Clears it: who comes from now on waits.
    pub fn clear(&self) {
        self.is_set.set(false);
    }

    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        self.is_set.get()
    }

    /// Waits until it is set. Whoever waited when it was goes on, even if it is cleared at once.
    ///
    /// Dropping the future loses nothing.
    pub async fn wait(&self) {
        let set = self.notify.notified();
        if !self.is_set.get() {
            set.await;
        }
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event").field("is_set", &self.is_set()).finish_non_exhaustive()
    }
}
