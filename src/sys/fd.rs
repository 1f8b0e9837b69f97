//! A descriptor, shared by its handle and by every operation that names it.
//!
//! The kernel's requests name numbers, not files. A number is therefore closed only when the last
//! [`Fd`] that refers to it is gone, and operations in flight hold one: no request can ever reach
//! a file that was opened later under the same number.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::ops::Deref;
use std::os::fd::{BorrowedFd, RawFd};
use std::rc::Rc;
use std::task::{Poll, Waker};

use crate::sys::{current, guard};

/// Where descriptors are opened and closed: a core's kernel, as the floor of descriptors sees it.
pub(crate) struct Home {
    pub(crate) core: u64,
    close: Box<dyn Fn(RawFd) -> io::Result<()>>,
    /// Those who wait to have a descriptor for themselves: few, so not beside each descriptor.
    waiting: Cell<BTreeMap<RawFd, Waker>>,
    /// What descriptors are counted for; its number is one more than the place.
    tallies: RefCell<Vec<Rc<Tally>>>,
}

/// How many descriptors are open of those that are counted together: connections of a listener.
pub(crate) struct Tally {
    open: Cell<usize>,
    closed: Box<dyn Fn()>,
}

impl Tally {
    /// `closed` is called whenever one of them has gone.
    pub(crate) fn new(closed: impl Fn() + 'static) -> Rc<Self> {
        Rc::new(Tally { open: Cell::new(0), closed: Box::new(closed) })
    }

    pub(crate) fn open(&self) -> usize {
        self.open.get()
    }
}

impl Home {
    pub(crate) fn new(core: u64, close: impl Fn(RawFd) -> io::Result<()> + 'static) -> Self {
        Home { core, close: Box::new(close), waiting: Cell::default(), tallies: RefCell::default() }
    }

    /// A number for `tally`, by which descriptors name it. It is free again when nobody else has the
    /// tally and nothing is counted.
    ///
    /// # Errors
    /// When more than 65,535 are in use.
    pub(crate) fn register(&self, tally: &Rc<Tally>) -> io::Result<u16> {
        let mut tallies = self.tallies.borrow_mut();
        let is_free = |tally: &Rc<Tally>| Rc::strong_count(tally) == 1 && tally.open() == 0;
        let place = tallies.iter().position(is_free).unwrap_or(tallies.len());
        let too_many = |_| io::Error::other("more than 65,535 listeners of a core have a limit");
        let number = u16::try_from(place + 1).map_err(too_many)?;
        // The displaced one is nobody else's, so what it does is never asked for again.
        match tallies.get_mut(place) {
            Some(free) => *free = Rc::clone(tally),
            None => tallies.push(Rc::clone(tally)),
        }
        Ok(number)
    }

    fn tally(&self, number: u16) -> Option<Rc<Tally>> {
        let place = usize::from(number).checked_sub(1)?;
        self.tallies.borrow().get(place).cloned()
    }

    /// One descriptor less.
    fn uncount(&self, number: u16) {
        if let Some(tally) = self.tally(number) {
            tally.open.set(tally.open() - 1);
            guard::call(|| (tally.closed)());
        }
    }
}

/// A descriptor that nobody shares yet; dropping it closes the number.
pub(crate) struct OwnedFd {
    raw: RawFd,
    /// Somebody waits to be the only one that shares it. Here, because here is room for it.
    awaited: Cell<bool>,
    /// The number of what it is counted for, or 0. Here for the same reason.
    tally: Cell<u16>,
    home: Rc<Home>,
}

// One for each connection.
const _: () = assert!(size_of::<OwnedFd>() == 16);

impl OwnedFd {
    /// Takes over `raw`, which nobody else may close any more.
    pub(crate) fn new(raw: RawFd, home: Rc<Home>) -> Self {
        assert!(raw >= 0, "{raw} is not a descriptor");
        OwnedFd { raw, awaited: Cell::new(false), tally: Cell::new(0), home }
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.raw
    }

    pub(crate) fn home(&self) -> &Rc<Home> {
        &self.home
    }

    /// Counts it for the tally of this number until it is closed or released.
    pub(crate) fn count_for(&self, number: u16) {
        if let Some(tally) = self.home.tally(number) {
            tally.open.set(tally.open() + 1);
            self.tally.set(number);
        }
    }

    /// Closes now, and says what the kernel said.
    pub(crate) fn close(self) -> io::Result<()> {
        let tally = self.tally.take();
        let (raw, home) = self.into_parts();
        let result = (home.close)(raw);
        home.uncount(tally);
        result
    }

    /// Gives the number out, which stays open.
    pub(crate) fn release(self) -> RawFd {
        let tally = self.tally.take();
        let (raw, home) = self.into_parts();
        home.uncount(tally);
        raw
    }

    /// Gives it out of the runtime: from now on nobody here knows of it.
    pub(crate) fn into_std(self) -> std::os::fd::OwnedFd {
        let (raw, _) = self.into_parts();
        // SAFETY: it is open, and nobody else closes it: that was this value's to do.
        unsafe { std::os::fd::FromRawFd::from_raw_fd(raw) }
    }

    fn wait(&self, waker: Waker) {
        self.awaited.set(true);
        let mut waiting = self.home.waiting.take();
        let displaced = waiting.insert(self.raw, waker);
        self.home.waiting.set(waiting);
        guard::discard(displaced);
    }

    #[cold]
    fn end_wait(&self) -> Option<Waker> {
        self.awaited.set(false);
        let mut waiting = self.home.waiting.take();
        let waker = waiting.remove(&self.raw);
        self.home.waiting.set(waiting);
        waker
    }

    fn into_parts(mut self) -> (RawFd, Rc<Home>) {
        let home = Rc::clone(&self.home);
        (std::mem::replace(&mut self.raw, -1), home)
    }
}

impl Drop for OwnedFd {
    fn drop(&mut self) {
        if self.raw >= 0 {
            if self.awaited.get() {
                guard::discard(self.end_wait());
            }
            // A handle that is dropped has nobody left to tell; `close` is there for those who ask.
            let _ = (self.home.close)(self.raw);
            if self.tally.get() > 0 {
                self.home.uncount(self.tally.take());
            }
        }
    }
}

/// A shared descriptor, and beside it the state that its noun keeps for it (`S`).
pub(crate) struct Fd<S = ()>(Rc<Shared<S>>);

struct Shared<S> {
    // The state goes first: it may still name the number when it is dropped.
    state: S,
    fd: OwnedFd,
}

impl<S> Fd<S> {
    pub(crate) fn new(fd: OwnedFd, state: S) -> Self {
        Fd(Rc::new(Shared { state, fd }))
    }

    /// The number, for a request that is about to be pushed by the holder of this share.
    ///
    /// # Panics
    /// On another core than the descriptor's own: its number may mean nothing there.
    #[inline]
    pub(crate) fn raw(&self) -> RawFd {
        let here = current::id();
        if here != Some(self.home().core) {
            wrong_core(self.home().core, here);
        }
        self.0.fd.raw()
    }

    pub(crate) fn home(&self) -> &Rc<Home> {
        self.0.fd.home()
    }

    pub(crate) fn borrow(&self) -> BorrowedFd<'_> {
        // SAFETY: the number is open for as long as there is a share, and this borrows one.
        unsafe { BorrowedFd::borrow_raw(self.0.fd.raw()) }
    }

    /// Whether this is the only share: then no operation refers to the descriptor.
    pub(crate) fn is_only_share(&self) -> bool {
        Rc::strong_count(&self.0) == 1
    }

    /// Waits until this is the only share, then gives out the descriptor itself.
    ///
    /// It does not cancel: whoever calls it has seen to it that the operations end.
    pub(crate) async fn alone(self) -> OwnedFd {
        std::future::poll_fn(|context| {
            // Cloning runs the waker's code, which may drop the last of the others.
            let waker = context.waker().clone();
            if self.is_only_share() {
                guard::discard(Some(waker));
                return Poll::Ready(());
            }
            self.0.fd.wait(waker);
            Poll::Pending
        })
        .await;
        match self.into_only() {
            Ok(fd) => fd,
            Err(_) => unreachable!("a share appeared between the check and the take"),
        }
    }

    /// The descriptor, if this is the only share of it.
    pub(crate) fn into_only(self) -> Result<OwnedFd, Self> {
        // `Fd` has a destructor, so its one field is moved out by hand.
        let fd = std::mem::ManuallyDrop::new(self);
        // SAFETY: `fd` is never used again, nor dropped: this is a move.
        let shared = unsafe { std::ptr::read(&raw const fd.0) };
        match Rc::try_unwrap(shared) {
            Ok(shared) => Ok(shared.fd),
            Err(shared) => Err(Fd(shared)),
        }
    }
}

#[cold]
fn wrong_core(home: u64, here: Option<u64>) -> ! {
    match here {
        Some(here) => panic!(
            "a handle of core {home} was used on core {here}: I/O handles stay on the core that \
             opened them"
        ),
        None => panic!(
            "a handle of core {home} was used outside of its runtime; poll it inside \
             `Runtime::block_on`"
        ),
    }
}

impl<S> Clone for Fd<S> {
    #[inline]
    fn clone(&self) -> Self {
        Fd(Rc::clone(&self.0))
    }
}

impl<S> Deref for Fd<S> {
    type Target = S;

    #[inline]
    fn deref(&self) -> &S {
        &self.0.state
    }
}

impl<S> Drop for Fd<S> {
    #[inline]
    fn drop(&mut self) {
        // Two shares: this one, and the one that `alone` waits with.
        if Rc::strong_count(&self.0) == 2 && self.0.fd.awaited.get() {
            // The share goes only after this call; the wake is a request to look again later.
            self.0.fd.end_wait().into_iter().for_each(guard::wake);
        }
    }
}
