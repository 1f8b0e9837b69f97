//! Values that belong to a task: whoever is called below a scope finds what it was entered with.

use std::any::Any;
use std::fmt;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::pin::{Pin, pin};
use std::ptr;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::sys::current;

/// Declares [`LocalKey`]s: `task_local! { static USER: String; }`, as tokio has it.
///
/// ```
/// quoit::task_local! {
///     /// Whom the request is from.
///     static USER: String;
///     static DEPTH: u32;
/// }
///
/// # quoit::runtime::run(async {
/// let greeting = async { USER.with(|user| format!("hello, {user}")) };
/// assert_eq!(USER.scope("ada".to_owned(), greeting).await, "hello, ada");
/// assert!(DEPTH.try_with(|depth| *depth).is_err());
/// # }).unwrap();
/// ```
#[macro_export]
macro_rules! task_local {
    () => {};
    ($(#[$attribute:meta])* $vis:vis static $name:ident: $type:ty $(; $($rest:tt)*)?) => {
        $(#[$attribute])*
        $vis static $name: $crate::task::LocalKey<$type> = $crate::task::LocalKey::new();
        $($crate::task_local! { $($rest)* })?
    };
}

/// The name of a value that a future is run with; [`task_local!`](crate::task_local) declares some.
///
/// A value belongs to the future that [`scope`](LocalKey::scope) makes, and to all that this awaits.
/// Tasks that are spawned below do not have it: enter a scope in them. It never leaves its core, so it
/// need not be `Send`. A scope costs an allocation, and a step in each poll.
pub struct LocalKey<T: 'static> {
    /// A static without a size would have its address in common with others.
    _address: u8,
    value: PhantomData<fn() -> T>,
}

/// No scope of this key is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccessError(());

impl<T: 'static> LocalKey<T> {
    /// A key without a value.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a key is of use only in a static")]
    pub const fn new() -> Self {
        LocalKey { _address: 0, value: PhantomData }
    }

    /// Runs `future` with `value`: also its destructor.
    ///
    /// # Panics
    /// When it is awaited outside of a runtime.
    pub async fn scope<F: Future>(&'static self, value: T, future: F) -> F::Output {
        let mut place = pin!(Some(future));
        let mut scoped = Scoped { value: self.hold(value), future: place.as_mut() };
        poll_fn(|context| scoped.poll(context)).await
    }

    /// Calls `f` with `value`.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn sync_scope<R>(&'static self, value: T, f: impl FnOnce() -> R) -> R {
        let held = self.hold(value);
        let _entered = Entered::new(&held);
        f()
    }

    /// Calls `f` with the value of the innermost scope.
    ///
    /// # Panics
    /// Outside of a scope of this key.
    #[track_caller]
    pub fn with<R>(&'static self, f: impl FnOnce(&T) -> R) -> R {
        match self.find() {
            Some(value) => f(cast(&*value)),
            None => panic!("LocalKey::with: {}", AccessError(())),
        }
    }

    /// Calls `f` with the value of the innermost scope.
    ///
    /// # Errors
    /// Outside of a scope of this key.
    pub fn try_with<R>(&'static self, f: impl FnOnce(&T) -> R) -> Result<R, AccessError> {
        let value = self.find().ok_or(AccessError(()))?;
        Ok(f(cast(&*value)))
    }

    /// The value of the innermost scope.
    ///
    /// # Panics
    /// Outside of a scope of this key.
    #[must_use]
    #[track_caller]
    pub fn get(&'static self) -> T
    where
        T: Clone,
    {
        self.with(T::clone)
    }

    fn address(&'static self) -> usize {
        ptr::from_ref(self).addr()
    }

    fn hold(&'static self, value: T) -> Held {
        (self.address(), Rc::new(value))
    }

    fn find(&'static self) -> Option<Rc<dyn Any>> {
        let found = current::core(|core| {
            let locals = core.locals.borrow();
            let mut entered = locals.iter().rev();
            entered.find(|(key, _)| *key == self.address()).map(|(_, value)| Rc::clone(value))
        });
        found.flatten()
    }
}

fn cast<T: 'static>(value: &dyn Any) -> &T {
    value.downcast_ref().expect("a key's values are of its type")
}

/// The address of a key, and a value for it.
type Held = (usize, Rc<dyn Any>);

/// A future that is polled, and dropped, in a scope.
struct Scoped<'a, F> {
    value: Held,
    future: Pin<&'a mut Option<F>>,
}

impl<F: Future> Scoped<'_, F> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<F::Output> {
        let _entered = Entered::new(&self.value);
        let future = self.future.as_mut().as_pin_mut();
        future.expect("it is there until this is dropped").poll(context)
    }
}

impl<F> Drop for Scoped<'_, F> {
    fn drop(&mut self) {
        // What outlives its core is dropped without: there is nothing to enter.
        let _entered = current::id().map(|_| Entered::new(&self.value));
        self.future.set(None);
    }
}

/// The scope is entered until this is dropped.
struct Entered {
    /// How many were entered before.
    depth: usize,
}

impl Entered {
    fn new(held: &Held) -> Self {
        let depth = current::core(|core| {
            let mut locals = core.locals.borrow_mut();
            locals.push(held.clone());
            locals.len() - 1
        });
        Entered { depth: depth.unwrap_or_else(|| outside()) }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let left = current::core(|core| core.locals.borrow_mut().split_off(self.depth));
        // Outside of the borrow: the scope may be the value's last owner.
        drop(left);
    }
}

#[cold]
fn outside() -> ! {
    panic!(
        "a scope of a LocalKey was entered outside of a runtime; start one with \
         `quoit::runtime::run`"
    )
}

impl<T: 'static> fmt::Debug for LocalKey<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalKey").finish_non_exhaustive()
    }
}

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no scope of the key is entered; run the future with `LocalKey::scope`")
    }
}

impl std::error::Error for AccessError {}
