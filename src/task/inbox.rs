//! The only way in from another thread: a stack of nodes that the core takes whole.
//!
//! Pushing is one compare-and-swap, repeated only when somebody else got in between, and allocates
//! nothing for a task, whose node is a part of it. A queue that is closed refuses exactly: nothing
//! that was accepted is forgotten, and nothing is accepted after the end.

use std::ptr::{self, NonNull};

use crate::driver::Unparker;
use crate::sys::atomic::{Arc, AtomicPtr, Ordering};
use crate::sys::fork::forked;

/// What can be handed to another core: a task that was woken there, or a message.
#[repr(C)]
pub(crate) struct Node {
    next: AtomicPtr<Node>,
    /// A pointer, because what is behind it may be the head of something larger.
    vtable: NonNull<NodeVtable>,
}

/// What becomes of a node when the core takes it, or when the core has ended.
pub(crate) struct NodeVtable {
    /// Consumes the node on its core.
    pub(crate) run: unsafe fn(NonNull<Node>),
    /// Consumes the node without running it.
    pub(crate) discard: unsafe fn(NonNull<Node>),
}

impl Node {
    /// # Safety
    /// `vtable` points at a static, and its functions are for the node that this becomes.
    pub(crate) unsafe fn new(vtable: NonNull<NodeVtable>) -> Self {
        Node { next: AtomicPtr::new(ptr::null_mut()), vtable }
    }

    /// Puts it in front of `next`. Only while whoever calls has the node alone.
    pub(super) fn link(&self, next: Option<NonNull<Node>>) {
        let next = next.map_or(ptr::null_mut(), NonNull::as_ptr);
        self.next.store(next, Ordering::Relaxed);
    }

    pub(crate) fn vtable(&self) -> NonNull<NodeVtable> {
        self.vtable
    }
}

/// What other threads know of a core. It outlives the core for as long as a waker refers to it.
pub(crate) struct Remote {
    /// The core's number, never reused.
    pub(crate) core: u64,
    head: AtomicPtr<Node>,
    unparker: Unparker,
}

/// The head of a closed inbox: an address that no node has.
fn closed() -> *mut Node {
    ptr::without_provenance_mut(usize::MAX)
}

impl Remote {
    pub(crate) fn new(core: u64, unparker: Unparker) -> Arc<Self> {
        Arc::new(Remote { core, head: AtomicPtr::new(ptr::null_mut()), unparker })
    }

    /// Hands `node` over and ends the core's sleep. `false`: the core has ended, the caller keeps it.
    ///
    /// # Safety
    /// `node` is valid until it is consumed, in no inbox, and may be consumed on any thread.
    pub(crate) unsafe fn push(&self, node: NonNull<Node>) -> bool {
        // SAFETY: the caller's promise; one node is a chain.
        unsafe { self.push_chain(node, node) }
    }

    /// Hands over a chain of nodes that are linked from the newest to the oldest.
    ///
    /// # Safety
    /// As for [`push`](Remote::push), for each node.
    pub(super) unsafe fn push_chain(&self, newest: NonNull<Node>, oldest: NonNull<Node>) -> bool {
        if forked() {
            // The core is the parent's, and so is the eventfd that would end its sleep.
            return false;
        }
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            if head == closed() {
                return false;
            }
            // SAFETY: the nodes are ours until the exchange below has published them.
            unsafe { oldest.as_ref() }.next.store(head, Ordering::Relaxed);
            match self.head.compare_exchange_weak(
                head,
                newest.as_ptr(),
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => break,
                Err(current) => head = current,
            }
        }
        self.unparker.unpark();
        true
    }

    /// Has `message` run on the core, in order with what else was sent.
    ///
    /// # Errors
    /// Gives `message` back when the core has ended.
    pub(crate) fn send<F: FnOnce() + Send + 'static>(&self, message: F) -> Result<(), F> {
        // SAFETY: the node was just made, of this message.
        unsafe { self.push_message(Remote::node_of(message)) }
    }

    /// A node that is the head of a message in a box. It stays until `run` or `discard` takes it back.
    pub(super) fn node_of<F: FnOnce() + Send + 'static>(message: F) -> NonNull<Message<F>> {
        // SAFETY: the functions take a node that is the head of a `Message<F>`, which this becomes.
        let node = unsafe { Node::new(NonNull::from(const { &Message::<F>::VTABLE })) };
        NonNull::from(Box::leak(Box::new(Message { node, message })))
    }

    /// # Errors
    /// Gives the message back when the core has ended.
    ///
    /// # Safety
    /// `message` is what `node_of` returned, and in no inbox.
    pub(super) unsafe fn push_message<F>(&self, message: NonNull<Message<F>>) -> Result<(), F>
    where
        F: FnOnce() + Send + 'static,
    {
        // SAFETY: the box is leaked, so the node stays; a message may be consumed anywhere.
        if unsafe { self.push(message.cast()) } {
            return Ok(());
        }
        // SAFETY: it was refused, so this is still the only pointer to the box.
        Err(unsafe { Box::from_raw(message.as_ptr()) }.message)
    }

    /// Whether it is known that nothing is accepted any more.
    pub(super) fn is_closed(&self) -> bool {
        self.head.load(Ordering::Relaxed) == closed()
    }

    /// Whether nothing waits to be taken.
    pub(crate) fn is_empty(&self) -> bool {
        let head = self.head.load(Ordering::Relaxed);
        head.is_null() || head == closed()
    }

    /// Takes all that waits, oldest first.
    pub(crate) fn take(&self) -> Batch {
        if self.is_empty() {
            return Batch(ptr::null_mut());
        }
        Batch::in_order(self.head.swap(ptr::null_mut(), Ordering::Acquire))
    }

    /// Refuses everything from now on; what had been accepted is in the batch.
    pub(crate) fn close(&self) -> Batch {
        let head = self.head.swap(closed(), Ordering::Acquire);
        Batch::in_order(if head == closed() { ptr::null_mut() } else { head })
    }
}

/// Nodes that were taken; those that are not run are discarded.
pub(crate) struct Batch(*mut Node);

impl Batch {
    /// The stack is newest first; this turns it round.
    fn in_order(mut head: *mut Node) -> Batch {
        let mut first = ptr::null_mut();
        while let Some(node) = NonNull::new(head) {
            // SAFETY: the nodes were taken with one swap, so this thread alone has them.
            let next = unsafe { node.as_ref() }.next.load(Ordering::Relaxed);
            // SAFETY: as above.
            unsafe { node.as_ref() }.next.store(first, Ordering::Relaxed);
            first = head;
            head = next;
        }
        Batch(first)
    }

    /// Nodes that no inbox took, linked from the newest to the oldest.
    ///
    /// # Safety
    /// The caller has them alone, and they are valid until they are consumed.
    pub(super) unsafe fn of_chain(newest: NonNull<Node>, oldest: NonNull<Node>) -> Batch {
        // SAFETY: the caller's promise.
        unsafe { oldest.as_ref() }.link(None);
        Batch::in_order(newest.as_ptr())
    }

    /// Takes the oldest.
    pub(crate) fn pop(&mut self) -> Option<Taken> {
        let node = NonNull::new(self.0)?;
        // SAFETY: the batch has the node alone, and it is valid until it is consumed.
        self.0 = unsafe { node.as_ref() }.next.load(Ordering::Relaxed);
        Some(Taken(node))
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}

/// One node that was taken.
pub(crate) struct Taken(NonNull<Node>);

impl Taken {
    /// Runs it on this core.
    pub(crate) fn run(self) {
        let node = std::mem::ManuallyDrop::new(self).0;
        // SAFETY: the node is valid, and this consumes it; its vtable is a static.
        unsafe { (node.as_ref().vtable.as_ref().run)(node) }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        // SAFETY: the node is valid, and this consumes it; its vtable is a static.
        unsafe { (self.0.as_ref().vtable.as_ref().discard)(self.0) }
    }
}

#[repr(C)]
pub(super) struct Message<F> {
    node: Node,
    message: F,
}

impl<F: FnOnce() + Send + 'static> Message<F> {
    const VTABLE: NodeVtable = NodeVtable {
        // SAFETY: (both) `send` leaked the box that this node is the head of.
        run: |node| unsafe { (Box::from_raw(node.cast::<Self>().as_ptr()).message)() },
        // SAFETY: as above.
        discard: |node| drop(unsafe { Box::from_raw(node.cast::<Self>().as_ptr()) }),
    };
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::driver::Kick;
    use crate::sys::atomic::model;
    use loom::sync::atomic::AtomicUsize;
    use loom::thread;

    struct Count(Arc<AtomicUsize>);
    impl Kick for Count {
        fn kick(&self) {
            self.0.fetch_add(1, Ordering::Release);
        }
    }

    #[test]
    fn loom_nothing_accepted_is_lost_and_nothing_is_accepted_after_the_end() {
        model(|| {
            let kicks = Arc::new(AtomicUsize::new(0));
            let remote = Remote::new(1, Unparker::new(Count(Arc::clone(&kicks))));
            let ran = Arc::new(AtomicUsize::new(0));
            let senders: Vec<_> = (0..2)
                .map(|_| {
                    let (remote, ran) = (Arc::clone(&remote), Arc::clone(&ran));
                    thread::spawn(move || {
                        let message = move || {
                            ran.fetch_add(1, Ordering::Relaxed);
                        };
                        remote.send(message).is_ok()
                    })
                })
                .collect();
            let mut batch = remote.take();
            while let Some(taken) = batch.pop() {
                taken.run();
            }
            let mut batch = remote.close();
            while let Some(taken) = batch.pop() {
                taken.run();
            }
            let accepted: usize =
                senders.into_iter().map(|sender| usize::from(sender.join().unwrap())).sum();
            assert_eq!(ran.load(Ordering::Relaxed), accepted);
        });
    }

    #[test]
    fn loom_a_sleeper_is_kicked_for_what_it_did_not_see() {
        model(|| {
            let kicks = Arc::new(AtomicUsize::new(0));
            let unparker = Unparker::new(Count(Arc::clone(&kicks)));
            let remote = Remote::new(1, unparker.clone());
            let sender = {
                let remote = Arc::clone(&remote);
                thread::spawn(move || assert!(remote.send(|| ()).is_ok()))
            };
            unparker.announce();
            let sleeps = remote.is_empty();
            sender.join().unwrap();
            assert!(!sleeps || kicks.load(Ordering::Acquire) == 1);
            unparker.awake();
            drop(remote.close());
        });
    }
}
