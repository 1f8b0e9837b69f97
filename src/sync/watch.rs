//! The latest value, for all who watch.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::mem;
use std::ops::Deref;
use std::panic::Location;
use std::rc::Rc;

use super::notify::Notify;
use super::places::{Noted, Places};
use super::ref_cell::RefCell;

/// Makes a channel that keeps the latest value only: a configuration, a state, the end of a service.
///
/// Receivers see the latest value at any time, and can wait for it to change; what came in between
/// they do not see.
///
/// ```
/// use quoit::sync::watch;
///
/// # quoit::runtime::run(async {
/// let (sender, mut receiver) = watch::channel("starting");
/// let task = quoit::spawn(async move {
///     receiver.changed().await.unwrap();
///     *receiver.borrow_and_update()
/// });
/// sender.send("ready").unwrap();
/// assert_eq!(task.await.unwrap(), "ready");
/// # }).unwrap();
/// ```
#[must_use]
pub fn channel<T>(init: T) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(init);
    let receiver = sender.subscribe();
    (sender, receiver)
}

struct Shared<T> {
    /// A [`Ref`] has a share of it, so `send` replaces it while somebody looks at the old one. While
    /// nobody does, the allocation is used again.
    value: RefCell<Rc<T>>,
    /// Where it is looked at.
    looks: Places,
    version: Cell<u64>,
    senders: Cell<usize>,
    receivers: Cell<usize>,
    /// The value was sent, or the last sender has gone.
    changed: Notify,
    /// The last receiver has gone.
    deserted: Notify,
}

/// Sends values. Clones send to the same receivers.
///
/// ```
/// use quoit::sync::watch::Sender;
///
/// # quoit::runtime::run(async {
/// let count: Sender<i32> = Sender::new(0);
/// let mut positive = count.subscribe();
/// count.send_modify(|count| *count += 1);
/// assert_eq!(*positive.wait_for(|count| *count > 0).await.unwrap(), 1);
/// # }).unwrap();
/// ```
pub struct Sender<T> {
    shared: Rc<Shared<T>>,
}

/// Sees the latest value. A clone has seen what this one has.
///
/// ```
/// use quoit::sync::watch::{self, Receiver};
///
/// # quoit::runtime::run(async {
/// let (sender, mut receiver): (_, Receiver<i32>) = watch::channel(1);
/// sender.send(2).unwrap();
/// sender.send(3).unwrap();
/// receiver.changed().await.unwrap();
/// assert_eq!(*receiver.borrow(), 3);
/// drop(sender);
/// assert!(receiver.changed().await.is_err());
/// # }).unwrap();
/// ```
pub struct Receiver<T> {
    shared: Rc<Shared<T>>,
    /// The version that it has seen.
    seen: u64,
}

/// A look at the value, which stays as it is for as long as the look lasts.
///
/// Meanwhile others may [`send`](Sender::send) a newer one, but the value cannot be modified in place:
/// [`send_modify`](Sender::send_modify) and its like panic. So do not hold it across an `await`; clone
/// what is needed. In debug builds that panic names both places.
///
/// ```
/// use quoit::sync::watch::{self, Ref};
///
/// let (sender, receiver) = watch::channel(1);
/// let old: Ref<'_, i32> = receiver.borrow();
/// sender.send(2).unwrap();
/// assert_eq!((*old, *receiver.borrow()), (1, 2));
/// ```
pub struct Ref<'a, T> {
    value: Rc<T>,
    has_changed: bool,
    _noted: Noted<'a>,
}

/// There is no receiver; here is the value.
///
/// ```
/// use quoit::sync::watch::{self, error::SendError};
///
/// let (sender, receiver) = watch::channel(1);
/// drop(receiver);
/// assert_eq!(sender.send(2), Err(SendError(2)));
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SendError<T>(pub T);

/// All senders are gone.
///
/// ```
/// use quoit::sync::watch::{self, error::RecvError};
///
/// # quoit::runtime::run(async {
/// let (sender, mut receiver) = watch::channel(1);
/// drop(sender);
/// let error: RecvError = receiver.changed().await.unwrap_err();
/// assert_eq!(error.to_string(), "all senders are gone");
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecvError(());

/// The errors, under tokio's path.
pub mod error {
    pub use super::{RecvError, SendError};
}

impl<T> Shared<T> {
    fn look(&self, caller: &'static Location<'static>, has_changed: bool) -> Ref<'_, T> {
        let value = Rc::clone(&self.value.borrow());
        Ref { value, has_changed, _noted: self.looks.note(caller) }
    }

    fn announce(&self) {
        self.version.set(self.version.get() + 1);
        self.changed.notify_waiters();
    }

    /// Calls `f` with the value, which nobody else looks at.
    #[track_caller]
    fn modify<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        let mut value = self.value.borrow_mut();
        match Rc::get_mut(&mut value) {
            Some(value) => f(value),
            None => panic!(
                "a watched value cannot be modified while somebody looks at it{}; a look must end \
                 before the next `await`",
                self.looks
            ),
        }
    }
}

impl<T> Sender<T> {
    /// A sender with this value, and no receiver yet.
    #[must_use]
    pub fn new(init: T) -> Self {
        let shared = Shared {
            value: RefCell::new(Rc::new(init)),
            looks: Places::new(),
            version: Cell::new(0),
            senders: Cell::new(1),
            receivers: Cell::new(0),
            changed: Notify::new(),
            deserted: Notify::new(),
        };
        Sender { shared: Rc::new(shared) }
    }

    /// Puts a value in the place of the latest, and tells the receivers.
    ///
    /// It allocates only while somebody looks at the old value.
    ///
    /// # Errors
    /// The value, if there is no receiver; it is not stored then.
    ///
    /// # Panics
    /// Within the closure of a [`send_modify`](Sender::send_modify) of the same channel.
    #[track_caller]
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        if self.shared.receivers.get() == 0 {
            return Err(SendError(value));
        }
        let mut value = Some(value);
        let displaced = {
            let mut latest = self.shared.value.borrow_mut();
            match Rc::get_mut(&mut latest) {
                Some(latest) => value.take().map(|value| mem::replace(latest, value)),
                None => {
                    value.take().into_iter().for_each(|value| *latest = Rc::new(value));
                    None
                }
            }
        };
        self.shared.announce();
        drop(displaced);
        Ok(())
    }

    /// Modifies the value in place, and tells the receivers. If `f` panics, they are not told.
    ///
    /// # Panics
    /// While somebody looks at the value; in debug builds the panic says where.
    #[track_caller]
    pub fn send_modify(&self, f: impl FnOnce(&mut T)) {
        self.shared.modify(f);
        self.shared.announce();
    }

    /// Modifies the value in place, and tells the receivers if `f` says that it did. Returns what `f`
    /// does.
    ///
    /// # Panics
    /// While somebody looks at the value; in debug builds the panic says where.
    #[track_caller]
    pub fn send_if_modified(&self, f: impl FnOnce(&mut T) -> bool) -> bool {
        let modified = self.shared.modify(f);
        if modified {
            self.shared.announce();
        }
        modified
    }

    /// Puts a value in the place of the latest, which is returned, and tells the receivers. It does so
    /// also when there are none.
    ///
    /// # Panics
    /// While somebody looks at the value; in debug builds the panic says where.
    #[track_caller]
    pub fn send_replace(&self, value: T) -> T {
        let latest = self.shared.modify(|latest| mem::replace(latest, value));
        self.shared.announce();
        latest
    }

    /// The latest value.
    #[track_caller]
    pub fn borrow(&self) -> Ref<'_, T> {
        self.shared.look(Location::caller(), false)
    }

    /// A receiver that has seen the latest value.
    #[must_use]
    pub fn subscribe(&self) -> Receiver<T> {
        Receiver::of(&self.shared, self.shared.version.get())
    }

    /// Waits until there is no receiver.
    pub async fn closed(&self) {
        while !self.is_closed() {
            self.shared.deserted.notified().await;
        }
    }

    /// Whether there is no receiver.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.receiver_count() == 0
    }

    /// How many receivers there are.
    #[must_use]
    pub fn receiver_count(&self) -> usize {
        self.shared.receivers.get()
    }

    /// How many senders there are.
    #[must_use]
    pub fn sender_count(&self) -> usize {
        self.shared.senders.get()
    }

    /// Whether both send to the same receivers.
    #[must_use]
    pub fn same_channel(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.shared, &other.shared)
    }
}

impl<T> Receiver<T> {
    fn of(shared: &Rc<Shared<T>>, seen: u64) -> Self {
        shared.receivers.set(shared.receivers.get() + 1);
        Receiver { shared: Rc::clone(shared), seen }
    }

    /// The latest value, which counts as seen or not as it did before.
    #[track_caller]
    pub fn borrow(&self) -> Ref<'_, T> {
        self.shared.look(Location::caller(), self.is_behind())
    }

    /// The latest value, which now counts as seen.
    #[track_caller]
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let has_changed = self.is_behind();
        self.mark_unchanged();
        self.shared.look(Location::caller(), has_changed)
    }

    fn is_behind(&self) -> bool {
        self.seen != self.shared.version.get()
    }

    /// Whether the latest value was not seen yet.
    ///
    /// # Errors
    /// If it was seen, and all senders are gone.
    pub fn has_changed(&self) -> Result<bool, RecvError> {
        match self.is_behind() {
            true => Ok(true),
            false if self.shared.senders.get() == 0 => Err(RecvError(())),
            false => Ok(false),
        }
    }

    /// The latest value counts as not seen.
    pub fn mark_changed(&mut self) {
        self.seen = self.shared.version.get().wrapping_sub(1);
    }

    /// The latest value counts as seen.
    pub fn mark_unchanged(&mut self) {
        self.seen = self.shared.version.get();
    }

    /// Waits for a value that was not seen, which then counts as seen.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// If all senders are gone, and the latest value was seen.
    pub async fn changed(&mut self) -> Result<(), RecvError> {
        while !self.has_changed()? {
            self.shared.changed.notified().await;
        }
        self.mark_unchanged();
        Ok(())
    }

    /// Waits until the value is as `is_right` wants it; it may be so at once. The value counts as seen.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// If all senders are gone, and the latest value is not right.
    #[track_caller]
    pub fn wait_for(
        &mut self,
        mut is_right: impl FnMut(&T) -> bool,
    ) -> impl Future<Output = Result<Ref<'_, T>, RecvError>> {
        let caller = Location::caller();
        async move {
            loop {
                let is_over = self.shared.senders.get() == 0;
                let has_changed = self.is_behind();
                self.mark_unchanged();
                // The very value that was right is returned, whatever `is_right` sends.
                let value = Rc::clone(&self.shared.value.borrow());
                let is_right = {
                    let _noted = self.shared.looks.note(caller);
                    is_right(&value)
                };
                if is_right {
                    let _noted = self.shared.looks.note(caller);
                    return Ok(Ref { value, has_changed, _noted });
                }
                drop(value);
                if is_over {
                    return Err(RecvError(()));
                }
                if !self.is_behind() && self.shared.senders.get() > 0 {
                    self.shared.changed.notified().await;
                }
            }
        }
    }

    /// Whether both receive from the same senders.
    #[must_use]
    pub fn same_channel(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.shared, &other.shared)
    }
}

impl<T> Ref<'_, T> {
    /// Whether the value was not seen before.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.has_changed
    }
}

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.shared.senders.set(self.shared.senders.get() + 1);
        Sender { shared: Rc::clone(&self.shared) }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let left = self.shared.senders.get() - 1;
        self.shared.senders.set(left);
        if left == 0 {
            self.shared.changed.notify_waiters();
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Receiver::of(&self.shared, self.seen)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let left = self.shared.receivers.get() - 1;
        self.shared.receivers.set(left);
        if left == 0 {
            self.shared.deserted.notify_waiters();
        }
    }
}

impl<T: Default> Default for Sender<T> {
    fn default() -> Self {
        Sender::new(T::default())
    }
}

impl<T: fmt::Debug> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("watch::Sender").field("value", &self.borrow()).finish_non_exhaustive()
    }
}

impl<T: fmt::Debug> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("watch::Receiver").field("value", &self.borrow()).finish_non_exhaustive()
    }
}

impl<T: fmt::Debug> fmt::Debug for Ref<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendError").finish_non_exhaustive()
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the channel has no receiver")
    }
}

impl<T> std::error::Error for SendError<T> {}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("all senders are gone")
    }
}

impl std::error::Error for RecvError {}
