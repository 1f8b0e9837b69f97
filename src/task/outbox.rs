//! What the tasks of a core have for other cores, until they have had their turn.
//!
//! Messages to one core are a chain that goes into its inbox with one exchange and one look at whether
//! it sleeps, and a bell that several values were sent for is rung once. Outside of the tasks' turn
//! everything goes at once, so nothing is ever kept while the core sleeps. So does a bell's first ring
//! of a turn if nobody else is ready: the others may be long in coming.

use std::cell::{Cell, RefCell};
use std::ptr::NonNull;

use super::inbox::{Batch, Node, Remote};
use super::scheduler::Scheduler;
use crate::sys::atomic::Arc;
use crate::sys::bell::Bell;
use crate::sys::{current, guard};

/// What a core has for others.
pub(crate) struct Outbox {
    /// The tasks have their turn: what they send is kept.
    open: Cell<bool>,
    /// How often it was emptied.
    emptied: Cell<u64>,
    chains: RefCell<Vec<Chain>>,
    bells: RefCell<Vec<Arc<Bell>>>,
}

/// The messages for one core.
struct Chain {
    remote: Arc<Remote>,
    newest: NonNull<Node>,
    oldest: NonNull<Node>,
}

/// In which turn of which core a bell was last rung or kept.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Mark {
    core: u64,
    emptied: u64,
    is_kept: bool,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Outbox {
            open: Cell::new(false),
            emptied: Cell::new(0),
            chains: RefCell::default(),
            bells: RefCell::default(),
        }
    }

    /// Keeps what is sent until the guard is dropped.
    pub(super) fn open(&self) -> Open<'_> {
        self.open.set(true);
        Open(self)
    }

    /// Takes over `node`. False: it is to go at once.
    ///
    /// # Safety
    /// As for [`Remote::push`].
    unsafe fn keep(&self, remote: &Arc<Remote>, node: NonNull<Node>) -> bool {
        if !self.open.get() {
            return false;
        }
        let mut chains = self.chains.borrow_mut();
        // Most often it is for the same core as the one before.
        match chains.iter_mut().rfind(|chain| Arc::ptr_eq(&chain.remote, remote)) {
            Some(chain) => {
                // SAFETY: the node is ours until it is pushed.
                unsafe { node.as_ref() }.link(Some(chain.newest));
                chain.newest = node;
            }
            None => {
                let remote = Arc::clone(remote);
                chains.push(Chain { remote, newest: node, oldest: node });
            }
        }
        true
    }

    /// Has the bell rung later, once. False: it is to be rung at once.
    fn keep_bell(&self, scheduler: &Scheduler, bell: &Arc<Bell>, mark: &mut Mark) -> bool {
        if !self.open.get() {
            return false;
        }
        let (core, emptied) = (scheduler.core(), self.emptied.get());
        if (mark.core, mark.emptied) != (core, emptied) {
            *mark = Mark { core, emptied, is_kept: false };
            if scheduler.is_idle() {
                return false;
            }
        }
        if !mark.is_kept {
            mark.is_kept = true;
            self.bells.borrow_mut().push(Arc::clone(bell));
        }
        true
    }

    /// Sends what was kept.
    fn empty(&self) {
        self.emptied.set(self.emptied.get() + 1);
        if !self.chains.borrow().is_empty() {
            // Out of its place first: what a core refuses is dropped, and that may send in its turn.
            let mut chains = self.chains.take();
            chains.drain(..).for_each(Chain::send);
            restore(&self.chains, chains);
        }
        if !self.bells.borrow().is_empty() {
            let mut bells = self.bells.take();
            bells.drain(..).for_each(|bell| bell.ring());
            restore(&self.bells, bells);
        }
    }
}

/// Gives the memory of an emptied list back, unless there is a new one.
fn restore<T>(place: &RefCell<Vec<T>>, emptied: Vec<T>) {
    let mut place = place.borrow_mut();
    if place.capacity() == 0 {
        *place = emptied;
    }
}

impl Chain {
    fn send(self) {
        // SAFETY: the nodes were handed to `keep` for this inbox, each once.
        if unsafe { self.remote.push_chain(self.newest, self.oldest) } {
            return;
        }
        // SAFETY: they were refused, so they are still ours.
        let mut refused = unsafe { Batch::of_chain(self.newest, self.oldest) };
        while let Some(node) = refused.pop() {
            guard::discard(Some(node));
        }
    }
}

/// While it is there, what is sent is kept.
pub(super) struct Open<'a>(&'a Outbox);

impl Open<'_> {
    /// Sends what was kept so far.
    #[inline]
    pub(super) fn send(&self) {
        self.0.empty();
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.set(false);
        self.0.empty();
    }
}

impl Remote {
    /// As [`send`](Remote::send); what a task sends goes when the tasks of its core have had their turn.
    ///
    /// # Errors
    /// Gives `message` back when the core is known to have ended. If that turns out later, the
    /// message is dropped.
    pub(crate) fn send_soon<F>(self: &Arc<Self>, message: F) -> Result<(), F>
    where
        F: FnOnce() + Send + 'static,
    {
        if self.is_closed() {
            return Err(message);
        }
        let node = Remote::node_of(message);
        // SAFETY: the node was just made, of a message that any thread may run or drop.
        let keep = |scheduler: &Scheduler| unsafe { scheduler.outbox().keep(self, node.cast()) };
        if current::with(keep) == Some(true) {
            return Ok(());
        }
        // SAFETY: as above, and it was not kept.
        unsafe { self.push_message(node) }
    }
}

/// Rings `bell` when the tasks of this core have had their turn, once for all of `mark` meanwhile; at
/// once outside of a turn, and the first time if nobody else is ready.
#[inline]
pub(crate) fn ring_soon(bell: &Arc<Bell>, mark: &mut Mark) {
    let keep = |scheduler: &Scheduler| scheduler.outbox().keep_bell(scheduler, bell, mark);
    if current::with(keep) != Some(true) {
        bell.ring();
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::driver::{Kick, Unparker};
    use crate::sys::atomic::{AtomicUsize, Ordering, model};
    use loom::thread;

    struct Count(Arc<AtomicUsize>);
    impl Kick for Count {
        fn kick(&self) {
            self.0.fetch_add(1, Ordering::Release);
        }
    }

    /// A chain of two messages, which have to run in their order.
    fn chain(remote: &Arc<Remote>, ran: &Arc<AtomicUsize>) -> Chain {
        let message = |number| {
            let ran = Arc::clone(ran);
            Remote::node_of(move || assert_eq!(ran.fetch_add(1, Ordering::Relaxed), number))
        };
        let (oldest, newest) = (message(0).cast::<Node>(), message(1).cast::<Node>());
        // SAFETY: nobody else has the node yet.
        unsafe { newest.as_ref() }.link(Some(oldest));
        Chain { remote: Arc::clone(remote), newest, oldest }
    }

    fn run(mut batch: Batch) {
        while let Some(taken) = batch.pop() {
            taken.run();
        }
    }

    #[test]
    fn loom_a_chain_runs_whole_and_in_order_or_is_dropped_whole() {
        model(|| {
            let kicks = Arc::new(AtomicUsize::new(0));
            let remote = Remote::new(1, Unparker::new(Count(kicks)));
            let ran = Arc::new(AtomicUsize::new(0));
            let sender = {
                let (remote, ran) = (Arc::clone(&remote), Arc::clone(&ran));
                thread::spawn(move || chain(&remote, &ran).send())
            };
            let other = {
                let remote = Arc::clone(&remote);
                thread::spawn(move || drop(remote.send(|| ())))
            };
            run(remote.take());
            run(remote.close());
            sender.join().unwrap();
            other.join().unwrap();
            assert!([0, 2].contains(&ran.load(Ordering::Relaxed)));
            assert_eq!(Arc::strong_count(&ran), 1, "a message is left");
        });
    }

    #[test]
    fn loom_a_sleeper_is_kicked_for_a_chain_that_it_did_not_see() {
        model(|| {
            let kicks = Arc::new(AtomicUsize::new(0));
            let unparker = Unparker::new(Count(Arc::clone(&kicks)));
            let remote = Remote::new(1, unparker.clone());
            let ran = Arc::new(AtomicUsize::new(0));
            let sender = {
                let (remote, ran) = (Arc::clone(&remote), Arc::clone(&ran));
                thread::spawn(move || chain(&remote, &ran).send())
            };
            unparker.announce();
            let sleeps = remote.is_empty();
            sender.join().unwrap();
            assert!(!sleeps || kicks.load(Ordering::Acquire) == 1);
            unparker.awake();
            run(remote.close());
            assert_eq!(ran.load(Ordering::Relaxed), 2);
        });
    }
}
