//! One task: one allocation that holds its header, and its future or its output.
//!
//! The local part (flags, run queue link, joiner) belongs to the task's own thread and is not
//! atomic. Another thread can reach three things: the count of references, the `called` flag, and
//! the node that goes into the inbox. So a local wake costs no atomic operation.
//!
//! ```text
//!              1 schedule              2 run
//!     Idle ─────────────────▶ Queued ─────────▶ (poll) ──▶ Idle, or Queued again
//!                                                  │ 3 complete
//!                                                  ▼
//!                                                Done ──4 release──▶ freed with the last waker
//! ```
//!
//! References: one of the scheduler, from spawn to release, and one of each waker. An entry of the
//! run queue owns none: a task that completes while it is queued is released by the queue. An
//! entry of the inbox owns one. The future is dropped by the owner thread at completion; the last
//! reference, dropped on any thread, frees only memory.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::future::Future;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

use super::inbox::{Node, NodeVtable, Remote};
use super::scheduler::Scheduler;
use crate::sys::atomic::{Arc, AtomicBool, AtomicUsize, Ordering, fence};
use crate::sys::{current, guard};

/// In the run queue.
pub(super) const QUEUED: u8 = 1;
/// The future is gone.
pub(super) const DONE: u8 = 2;
/// Somebody may still ask for the output.
pub(super) const AWAITED: u8 = 4;
/// The future is dropped instead of being polled again.
pub(super) const ABORTED: u8 = 8;
/// The header counts among the holders of its `Remote`.
const HOLDS_REMOTE: u8 = 16;

/// Why a task has no output.
pub(super) enum Failure {
    Aborted,
    Panicked(Box<dyn Any + Send>),
}

enum Stage<F: Future> {
    Running(F),
    Ended(Result<F::Output, Failure>),
    Taken,
}

#[repr(C)]
struct Vtable {
    node: NodeVtable,
    /// Polls once; true when the task has ended.
    poll: unsafe fn(NonNull<Header>, &mut Context<'_>) -> bool,
    /// Drops the future and ends the task as aborted.
    abort: unsafe fn(NonNull<Header>),
    /// Moves the output into a `Option<Result<T, Failure>>`.
    take: unsafe fn(NonNull<Header>, *mut ()),
    /// Drops the future or the output in place.
    clear: unsafe fn(NonNull<Header>),
    free: unsafe fn(NonNull<Header>),
}

#[repr(C)]
pub(super) struct Header {
    node: Node,
    refs: AtomicUsize,
    remote: NonNull<Remote>,
    /// The next in the run queue.
    pub(super) next: Cell<Option<NonNull<Header>>>,
    joiner: Cell<Option<Waker>>,
    pub(super) key: Cell<u32>,
    /// Another thread has put the node into the inbox.
    called: AtomicBool,
    pub(super) flags: Cell<u8>,
}

const _: () = assert!(size_of::<Header>() <= 64 || cfg!(loom));

#[repr(C)]
struct Task<F: Future> {
    header: Header,
    stage: UnsafeCell<Stage<F>>,
}

impl Header {
    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags.get() & flag != 0
    }

    pub(super) fn set(&self, flag: u8) {
        self.flags.set(self.flags.get() | flag);
    }

    pub(super) fn unset(&self, flag: u8) {
        self.flags.set(self.flags.get() & !flag);
    }

    pub(super) fn set_joiner(&self, waker: Option<Waker>) -> Option<Waker> {
        self.joiner.replace(waker)
    }

    fn vtable(&self) -> &'static Vtable {
        // SAFETY: a header's node always has the first field of a `Vtable` (repr(C)), see `new`.
        unsafe { &*std::ptr::from_ref(self.node.vtable()).cast::<Vtable>() }
    }

    fn remote(&self) -> &Remote {
        // SAFETY: the runtime holds the remote until it has released all its tasks, and a header
        // that outlives the release holds it itself.
        unsafe { self.remote.as_ref() }
    }
}

/// Makes a task of `future`, with the scheduler's reference.
pub(super) fn new<F: Future>(future: F, remote: &Arc<Remote>, flags: u8) -> NonNull<Header> {
    let task = Box::new(Task {
        header: Header {
            node: Node::new(&Task::<F>::VTABLE.node),
            refs: AtomicUsize::new(1),
            remote: NonNull::from(&**remote),
            next: Cell::new(None),
            joiner: Cell::new(None),
            key: Cell::new(u32::MAX),
            called: AtomicBool::new(false),
            flags: Cell::new(flags),
        },
        stage: UnsafeCell::new(Stage::Running(future)),
    });
    NonNull::from(Box::leak(task)).cast()
}

impl<F: Future> Task<F> {
    const VTABLE: &'static Vtable = &Vtable {
        node: NodeVtable { run: called, discard: discarded },
        poll: Self::poll,
        abort: Self::abort,
        take: Self::take,
        clear: Self::clear,
        free: Self::free,
    };

    /// # Safety (of this and all below)
    /// `header` is the head of a live `Task<F>`, and this is its own thread.
    unsafe fn stage(header: NonNull<Header>) -> *mut Stage<F> {
        // SAFETY: by the contract the header is the first field of a `Task<F>` (repr(C)).
        unsafe { header.cast::<Self>().as_ref() }.stage.get()
    }

    unsafe fn poll(header: NonNull<Header>, context: &mut Context<'_>) -> bool {
        // SAFETY: the contract; only this thread touches the stage, and not from inside the poll.
        let Stage::Running(future) = (unsafe { &mut *Self::stage(header) }) else {
            unreachable!("a task is polled only until it has ended");
        };
        // SAFETY: the task is on the heap and its future is dropped in place.
        let future = unsafe { Pin::new_unchecked(future) };
        let result = match catch_unwind(AssertUnwindSafe(|| future.poll(context))) {
            Ok(Poll::Pending) => return false,
            Ok(Poll::Ready(output)) => Ok(output),
            Err(panic) => Err(Failure::Panicked(panic)),
        };
        // SAFETY: the contract.
        unsafe { Self::end(header, result) };
        true
    }

    unsafe fn abort(header: NonNull<Header>) {
        // SAFETY: the contract.
        unsafe { Self::end(header, Err(Failure::Aborted)) };
    }

    /// Drops the future in place, and keeps the outcome instead.
    unsafe fn end(header: NonNull<Header>, outcome: Result<F::Output, Failure>) {
        // SAFETY: the contract.
        let stage = unsafe { Self::stage(header) };
        // The future's destructor is user code: it may panic, and it may look at its own handle.
        let dropped = catch_unwind(AssertUnwindSafe(|| {
            // SAFETY: only this thread touches the stage; the place is written again below.
            unsafe { std::ptr::drop_in_place(stage) };
        }));
        let outcome = match dropped {
            Ok(()) => outcome,
            Err(panic) => {
                guard::discard(Some(outcome));
                Err(Failure::Panicked(panic))
            }
        };
        // SAFETY: the old stage was dropped in place, whether or not that panicked.
        unsafe { stage.write(Stage::Ended(outcome)) };
    }

    unsafe fn take(header: NonNull<Header>, place: *mut ()) {
        // SAFETY: the contract.
        let stage = unsafe { &mut *Self::stage(header) };
        if let Stage::Ended(outcome) = std::mem::replace(stage, Stage::Taken) {
            // SAFETY: the caller's place is of this type.
            unsafe { *place.cast::<Option<Result<F::Output, Failure>>>() = Some(outcome) };
        }
    }

    unsafe fn clear(header: NonNull<Header>) {
        // SAFETY: the contract.
        let stage = unsafe { Self::stage(header) };
        guard::call(|| {
            // SAFETY: only this thread touches the stage; the place is written again below.
            unsafe { std::ptr::drop_in_place(stage) };
        });
        // SAFETY: the old stage was dropped in place.
        unsafe { stage.write(Stage::Taken) };
    }

    /// # Safety
    /// `header` is the head of a `Task<F>` whose last reference is gone; any thread.
    unsafe fn free(header: NonNull<Header>) {
        // SAFETY: the stage is `Taken` since the release, so this frees memory and nothing else.
        drop(unsafe { Box::from_raw(header.cast::<Self>().as_ptr()) });
    }
}

/// 2 run: polls the task, or drops its future if it was aborted. True when it has ended.
pub(super) fn run(header: NonNull<Header>) -> bool {
    // SAFETY: the scheduler's reference keeps the header alive.
    let task = unsafe { header.as_ref() };
    if task.has(ABORTED) {
        // SAFETY: this is the task's thread, and it has not ended.
        unsafe { (task.vtable().abort)(header) };
        return true;
    }
    // SAFETY: the vtable's functions take a header; the waker is only borrowed from the scheduler's
    // reference, hence never dropped.
    let waker = ManuallyDrop::new(unsafe { Waker::from_raw(raw_waker(header)) });
    // SAFETY: as for `abort`.
    unsafe { (task.vtable().poll)(header, &mut Context::from_waker(&waker)) }
}

/// Takes the outcome of a task that has ended.
///
/// # Safety
/// `T` is the output of the task's future.
pub(super) unsafe fn take<T>(header: NonNull<Header>) -> Option<Result<T, Failure>> {
    let mut outcome: Option<Result<T, Failure>> = None;
    // SAFETY: the scheduler's reference keeps the header alive, and the place has the right type.
    unsafe { (header.as_ref().vtable().take)(header, (&raw mut outcome).cast()) };
    outcome
}

/// 4 release: drops what is left of the task, and the scheduler's reference.
///
/// # Safety
/// The scheduler forgets the task: it is in no queue and no table of it.
pub(super) unsafe fn release(header: NonNull<Header>) {
    // SAFETY: the scheduler's reference keeps the header alive until the end of this function.
    let task = unsafe { header.as_ref() };
    // SAFETY: this is the task's thread.
    unsafe { (task.vtable().clear)(header) };
    guard::discard(task.set_joiner(None));
    if task.refs.load(Ordering::Acquire) == 1 {
        // SAFETY: there is no waker left that could make another.
        unsafe { (task.vtable().free)(header) };
        return;
    }
    // A waker may outlive the runtime, so from now on the header holds the remote itself.
    task.set(HOLDS_REMOTE);
    // SAFETY: the runtime still holds the remote, which came from an `Arc`.
    unsafe { Arc::increment_strong_count(task.remote.as_ptr()) };
    // SAFETY: this is the scheduler's own reference.
    unsafe { drop_reference(header) };
}

/// # Safety
/// The caller owns a reference, and this is it.
unsafe fn drop_reference(header: NonNull<Header>) {
    // SAFETY: the reference that is dropped keeps the header alive until here.
    let task = unsafe { header.as_ref() };
    if task.refs.fetch_sub(1, Ordering::Release) != 1 {
        return;
    }
    fence(Ordering::Acquire);
    // The scheduler has released the task, or its own reference would still be counted.
    assert!(task.has(HOLDS_REMOTE), "a task lost a reference that it never had");
    // SAFETY: the header's own count, which `release` added.
    let remote = unsafe { Arc::from_raw(task.remote.as_ptr()) };
    // SAFETY: that was the last reference.
    unsafe { (task.vtable().free)(header) };
    drop(remote);
}

static WAKER: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, drop_waker);

fn raw_waker(header: NonNull<Header>) -> RawWaker {
    RawWaker::new(header.as_ptr().cast_const().cast(), &WAKER)
}

fn header_of(data: *const ()) -> NonNull<Header> {
    NonNull::new(data.cast_mut().cast()).expect("a waker points at its task")
}

unsafe fn clone(data: *const ()) -> RawWaker {
    let header = header_of(data);
    // SAFETY: the waker that is cloned keeps the header alive.
    let before = unsafe { header.as_ref() }.refs.fetch_add(1, Ordering::Relaxed);
    if before > isize::MAX as usize {
        // Only leaked clones get here; going on would free a task that is in use.
        std::process::abort();
    }
    raw_waker(header)
}

unsafe fn wake(data: *const ()) {
    let header = header_of(data);
    // SAFETY: the waker keeps the header alive, and its reference is used up here.
    unsafe {
        if schedule_here(header) || !call(header) {
            drop_reference(header);
        }
    }
}

unsafe fn wake_by_ref(data: *const ()) {
    let header = header_of(data);
    // SAFETY: the waker keeps the header alive.
    unsafe {
        if !schedule_here(header) {
            Waker::from_raw(clone(data)).wake();
        }
    }
}

unsafe fn drop_waker(data: *const ()) {
    // SAFETY: the waker's reference ends here.
    unsafe { drop_reference(header_of(data)) }
}

/// 1 schedule: true if this is the task's own core, which then has it in its run queue.
///
/// # Safety
/// The caller has a reference.
#[inline]
unsafe fn schedule_here(header: NonNull<Header>) -> bool {
    // SAFETY: the caller's reference.
    let remote = unsafe { header.as_ref() }.remote;
    current::with(|scheduler: &Scheduler| {
        let here = std::ptr::eq(&raw const **scheduler.remote(), remote.as_ptr());
        if here {
            scheduler.schedule(header);
        }
        here
    })
    .unwrap_or(false)
}

/// Wakes a task of another core. True if the inbox took over the caller's reference.
///
/// # Safety
/// The caller has a reference.
unsafe fn call(header: NonNull<Header>) -> bool {
    // SAFETY: the caller's reference.
    let task = unsafe { header.as_ref() };
    // AcqRel: the core that clears the flag sees what happened before this wake.
    if task.called.swap(true, Ordering::AcqRel) {
        return false;
    }
    // SAFETY: the flag says that the node is in no inbox; the reference keeps it valid.
    unsafe { task.remote().push(header.cast()) }
}

/// The inbox's node has arrived on the task's core.
unsafe fn called(node: NonNull<Node>) {
    let header = node.cast::<Header>();
    // SAFETY: the inbox's entry owns a reference. The flag is cleared before the task is polled: a
    // wake that comes later calls again.
    unsafe {
        header.as_ref().called.swap(false, Ordering::AcqRel);
        let here = schedule_here(header);
        debug_assert!(here, "an inbox is emptied on its own core");
        drop_reference(header);
    }
}

/// The inbox was closed with the node in it.
unsafe fn discarded(node: NonNull<Node>) {
    // SAFETY: the inbox's entry owns a reference.
    unsafe { drop_reference(node.cast()) }
}
