//! Waiting, with a lock, for what others do under it.

use std::fmt;

use super::mutex::MutexGuard;
use super::notify::Notify;

/// A condition on what a [`Mutex`](super::Mutex) holds, like std's and asyncio's `Condition`.
///
/// ```
/// use std::rc::Rc;
/// use quoit::sync::{Condvar, Mutex};
///
/// # quoit::runtime::run(async {
/// let pair = Rc::new((Mutex::new(0), Condvar::new()));
/// let other = pair.clone();
/// let task = quoit::spawn(async move {
///     let (count, changed) = &*other;
///     *changed.wait_while(count.lock().await, |count| *count < 3).await
/// });
/// let (count, changed) = &*pair;
/// for _ in 0..3 {
///     *count.lock().await += 1;
///     changed.notify_one();
///     quoit::task::yield_now().await;
/// }
/// assert_eq!(task.await.unwrap(), 3);
/// # }).unwrap();
/// ```
pub struct Condvar {
    notify: Notify,
}

impl Condvar {
    /// A condition that nobody waits for.
    #[must_use]
    pub const fn new() -> Self {
        Condvar { notify: Notify::forgetful() }
    }

    /// Unlocks, waits to be notified, and locks again.
    ///
    /// There are no spurious ends. Dropping the future while it waits loses nothing: a notification
    /// that it was given by [`notify_one`](Condvar::notify_one) goes to the next who waits.
    pub async fn wait<'a, T: ?Sized>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        let mutex = MutexGuard::mutex(&guard);
        let mut notified = std::pin::pin!(self.notify.notified());
        notified.as_mut().enable();
        drop(guard);
        notified.as_mut().await;
        let passes_on = PassesOn(notified.was_single().then_some(&self.notify));
        let guard = mutex.lock().await;
        passes_on.defuse();
        guard
    }

    /// Waits as long as `condition` says so.
    ///
    /// It is looked at before the first wait, and after each notification.
    pub async fn wait_while<'a, T: ?Sized>(
        &self,
        mut guard: MutexGuard<'a, T>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'a, T> {
        while condition(&mut guard) {
            guard = self.wait(guard).await;
        }
        guard
    }

    /// Has who has waited longest go on, if somebody waits.
    pub fn notify_one(&self) {
        self.notify.notify_one();
    }

    /// Has all go on who wait now, one after the other, as they get the lock.
    pub fn notify_all(&self) {
        self.notify.notify_waiters();
    }
}

/// A notification whose receiver has yet to get the lock: dropped before, it goes to the next.
struct PassesOn<'a>(Option<&'a Notify>);

impl PassesOn<'_> {
    fn defuse(mut self) {
        self.0 = None;
    }
}

impl Drop for PassesOn<'_> {
    fn drop(&mut self) {
        if let Some(notify) = self.0 {
            notify.notify_one();
        }
    }
}

impl Default for Condvar {
    fn default() -> Self {
        Condvar::new()
    }
}

impl fmt::Debug for Condvar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condvar").finish_non_exhaustive()
    }
}
