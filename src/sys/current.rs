//! The core that this thread is running now: the one `thread_local!` of the crate.
//!
//! Each floor keeps what it needs per core (the operations, the tasks, the timers, the runtime) in
//! a struct of its own and leaves it here under its [`Floor`] number, so that floors find their
//! own part without naming each other. The thread's pointer is swapped, never owned: the simulator
//! runs many cores on one thread, and nothing here has a destructor that thread exit could order
//! wrongly.

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::ptr::{self, NonNull};
use std::rc::Rc;

use super::atomic::{Arc, thread_local};
use super::blocks::Blocks;
use super::log::Log;
use super::signal_streams::Invented;

thread_local! {
    static CURRENT: Cell<*const Core> = const { Cell::new(ptr::null()) };
}

const FLOORS: usize = 5;

/// The part of a floor that exists once per core.
///
/// # Safety
/// No two types of the crate have the same `INDEX`: a part is found by its number and cast.
pub(crate) unsafe trait Floor: 'static {
    const INDEX: usize;
}

/// The part of a floor that may hold no `unsafe`: its type is looked at instead of promised.
pub(crate) struct Checked(Box<dyn Any>);

// SAFETY: no other type of the crate has this number.
unsafe impl Floor for Checked {
    const INDEX: usize = 4;
}

impl Checked {
    pub(crate) fn new<T: 'static>(part: T) -> Self {
        Checked(Box::new(part))
    }

    pub(crate) fn get<T: 'static>(&self) -> &T {
        self.0.downcast_ref().expect("one floor alone has a checked part")
    }
}

/// What the floors of one core share: its names, and a place for each floor's part.
pub(crate) struct Core {
    /// Unique in the process and never reused, unlike an index.
    pub(crate) id: u64,
    /// Position among the cores that were started together, from 0.
    pub(crate) index: usize,
    /// How many cores were started together.
    pub(crate) count: usize,
    /// The cores that were started together share this number.
    pub(crate) group: u64,
    /// The key of the task whose poll is running; `u32::MAX` outside of one.
    pub(crate) polled: Cell<u32>,
    /// What is polled now is late, see `overdue`; and how often somebody late had to be awaited.
    pub(crate) overdue: Cell<bool>,
    pub(crate) winding: Cell<u64>,
    /// Panics that were caught where a user's waker was called or a message was run.
    pub(crate) caught_panics: Rc<Cell<u64>>,
    /// The signals of the process, if it is a simulated one.
    pub(crate) signals: Option<Arc<Invented>>,
    /// Where words go that no floor returns to its caller.
    pub(crate) log: Log,
    /// The values of the scopes that are entered, innermost last, each by the address of its key.
    pub(crate) locals: RefCell<Vec<(usize, Rc<dyn Any>)>>,
    /// The memory of what has ended, for what begins.
    pub(crate) blocks: Rc<Blocks>,
    floors: [OnceCell<Part>; FLOORS],
}

struct Part {
    address: NonNull<()>,
    release: unsafe fn(NonNull<()>),
}

impl Drop for Part {
    fn drop(&mut self) {
        // SAFETY: `install` made `address` with `Rc::into_raw` of the type that `release` frees.
        unsafe { (self.release)(self.address) }
    }
}

unsafe fn release<T>(address: NonNull<()>) {
    // SAFETY: the caller passes what `Rc::<T>::into_raw` returned, once.
    drop(unsafe { Rc::from_raw(address.cast::<T>().as_ptr().cast_const()) });
}

impl Core {
    pub(crate) fn new(id: u64, index: usize, count: usize, group: u64) -> Self {
        let floors = [const { OnceCell::new() }; FLOORS];
        let (polled, caught_panics) = (Cell::new(u32::MAX), Rc::default());
        let (overdue, winding) = (Cell::new(false), Cell::new(0));
        let (log, locals) = (Log::default(), RefCell::default());
        Core {
            id,
            index,
            count,
            group,
            polled,
            overdue,
            winding,
            caught_panics,
            signals: None,
            log,
            locals,
            blocks: Rc::new(Blocks::new()),
            floors,
        }
    }

    /// Leaves a floor's part here, for as long as the core lives.
    pub(crate) fn install<T: Floor>(&self, part: Rc<T>) {
        let address = NonNull::new(Rc::into_raw(part).cast_mut()).expect("an Rc is somewhere");
        let part = Part { address: address.cast(), release: release::<T> };
        assert!(self.floors[T::INDEX].set(part).is_ok(), "a floor was installed twice");
    }

    /// Where a floor's part is: what `Rc::into_raw` returned, so the count beside it is in reach.
    #[inline]
    fn address<T: Floor>(&self) -> Option<*const T> {
        self.floors[T::INDEX].get().map(|part| part.address.as_ptr().cast_const().cast())
    }

    #[inline]
    fn part<T: Floor>(&self) -> Option<&T> {
        // SAFETY: `T::INDEX` is T's alone (Floor), and the part lives as long as `self`.
        self.address::<T>().map(|part| unsafe { &*part })
    }
}

/// Makes `core` the thread's current core until the guard is dropped.
pub(crate) fn enter(core: &Core) -> Entered<'_> {
    let previous = CURRENT.with(|current| current.replace(ptr::from_ref(core)));
    Entered { previous, core }
}

/// Restores what was current before. It must be dropped on the thread that made it, so it is `!Send`.
pub(crate) struct Entered<'core> {
    previous: *const Core,
    core: &'core Core,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let left = CURRENT.with(|current| current.replace(self.previous));
        assert!(ptr::eq(left, self.core), "cores were left in another order than entered");
    }
}

/// Calls `f` with the current core, if there is one.
#[inline]
pub(crate) fn core<R>(f: impl FnOnce(&Core) -> R) -> Option<R> {
    let core = CURRENT.with(Cell::get);
    // SAFETY: a non-null pointer was set by `enter`, whose guard borrows the core until it resets it.
    unsafe { core.as_ref() }.map(f)
}

/// Calls `f` with the current core's part of floor `T`, if there is one.
#[inline]
pub(crate) fn with<T: Floor, R>(f: impl FnOnce(&T) -> R) -> Option<R> {
    core(|core| core.part::<T>().map(f)).flatten()
}

/// Calls `f` with the part of floor `T` of the core that has this number, if it is the current one.
#[inline]
pub(crate) fn on<T: Floor, R>(id: u64, f: impl FnOnce(&T) -> R) -> Option<R> {
    core(|core| if core.id == id { core.part::<T>().map(f) } else { None }).flatten()
}

/// A share of the current core's part of floor `T`.
#[inline]
pub(crate) fn share<T: Floor>() -> Option<Rc<T>> {
    let address = core(Core::address::<T>).flatten()?;
    // SAFETY: the address came from `Rc::into_raw`, and not through a reference, which would not
    // reach the count; the core still holds a share.
    unsafe { Rc::increment_strong_count(address) };
    // SAFETY: the count that was just added belongs to this value.
    Some(unsafe { Rc::from_raw(address) })
}

/// The current core's id, or `None` outside of a runtime.
#[inline]
pub(crate) fn id() -> Option<u64> {
    core(|core| core.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Number(u32);
    // SAFETY: the tests of this file install nothing else under this number.
    unsafe impl Floor for Number {
        const INDEX: usize = 3;
    }

    #[test]
    fn entering_nests_and_restores() {
        let (outer, inner) = (Core::new(1, 0, 1, 1), Core::new(2, 0, 1, 1));
        outer.install(Rc::new(Number(7)));
        assert_eq!(id(), None);
        let first = enter(&outer);
        {
            let _second = enter(&inner);
            assert_eq!(id(), Some(2));
            assert!(with(|_: &Number| ()).is_none());
        }
        assert_eq!(with(|number: &Number| number.0), Some(7));
        drop(first);
        assert_eq!(id(), None);
    }

    #[test]
    fn a_part_is_freed_with_the_last_of_its_holders() {
        let core = Core::new(1, 0, 1, 1);
        let part = Rc::new(Number(1));
        let watch = Rc::downgrade(&part);
        core.install(part);
        let entered = enter(&core);
        let shared = share::<Number>();
        drop(entered);
        drop(core);
        assert!(watch.upgrade().is_some());
        drop(shared);
        assert!(watch.upgrade().is_none());
    }
}
