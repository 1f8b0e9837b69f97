//! Functions that are called at a point in time.

use std::time::Duration;

use super::wheel::Key;
use super::{Instant, timers};
use crate::sys::current;
use crate::task::registry;

/// Calls `f` on this core after `delay`, counted from this call.
///
/// It is asyncio's `call_later`: callbacks are called in the order of their times, and those of one
/// time in the order in which they were made. They are called between the turns of the tasks; one
/// that takes long keeps the core from everything else. A panic in one is caught, and disturbs nothing
/// else. When the runtime ends, those that are left are dropped and not called; those with
/// `Duration::MAX` wait for that.
///
/// # Panics
/// Outside of a runtime.
///
/// ```
/// use std::time::Duration;
///
/// # quoit::runtime::run(async {
/// let goodbye = quoit::time::call_later(Duration::from_secs(3), || println!("3 s later"));
/// goodbye.cancel();
/// # }).unwrap();
/// ```
#[track_caller]
pub fn call_later<F: FnOnce() + 'static>(delay: Duration, f: F) -> TimerHandle {
    call_at(Instant::now() + delay, f)
}

/// Calls `f` on this core at `when`, or in this lap of the loop when that has passed.
///
/// It is [`call_later`] in all else.
///
/// # Panics
/// Outside of a runtime.
///
/// ```
/// use std::cell::RefCell;
/// use std::rc::Rc;
/// use std::time::Duration;
/// use quoit::time::{Instant, call_at, sleep_until};
///
/// # quoit::runtime::run(async {
/// let order = Rc::new(RefCell::new(Vec::new()));
/// let start = Instant::now();
/// for ms in [3, 1, 2] {
///     let order = order.clone();
///     call_at(start + Duration::from_millis(ms), move || order.borrow_mut().push(ms));
/// }
/// sleep_until(start + Duration::from_millis(4)).await;
/// assert_eq!(*order.borrow(), [1, 2, 3]);
/// # }).unwrap();
/// ```
#[track_caller]
pub fn call_at<F: FnOnce() + 'static>(when: Instant, f: F) -> TimerHandle {
    let f = Box::new(f);
    let key = timers::with("call_at", |timers| timers.call_at(when.ns(), f));
    let core = current::id().expect("the timers are of a core");
    TimerHandle { core, key, when }
}

/// One call of [`call_later`] or [`call_at`] that is to come, or has been.
///
/// Dropping it cancels nothing, as in asyncio. It can be sent to another thread.
///
/// ```
/// use std::time::Duration;
///
/// # quoit::runtime::run(async {
/// let call = quoit::time::call_later(Duration::from_secs(60), || ());
/// assert!(call.is_pending());
/// call.cancel();
/// assert!(!call.is_pending());
/// # }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct TimerHandle {
    core: u64,
    key: Key,
    when: Instant,
}

impl TimerHandle {
    /// Drops the function without calling it, or does nothing if it was called or cancelled before.
    ///
    /// On the core of the callback that happens at once. On another core or thread, it is asked of that
    /// core, which may call the function first. When that runtime has ended, there is nothing to do.
    pub fn cancel(&self) {
        timers::cancel(self.core, self.key);
    }

    /// When the function is called, or would have been.
    #[must_use]
    pub fn when(&self) -> Instant {
        self.when
    }

    /// Whether the function is still to be called: not called or cancelled so far.
    ///
    /// # Panics
    /// On another core than its own, unless that has ended: nobody can tell from there.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        if current::id() == Some(self.core) {
            return timers::with("a TimerHandle", |timers| timers.is_pending(self.key));
        }
        assert!(
            registry::remote(self.core).is_none(),
            "TimerHandle::is_pending was called off core {}; ask on the core that made the call",
            self.core
        );
        false
    }
}
