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
//! Behind the header is a place for the future, and then for what became of it: the header says
//! which ([`Holds`]). So a small output is moved as it is, not as a part of a larger enum.
//!
//! References: one of the scheduler, from spawn to release, and one of each waker. An entry of the
//! run queue owns none: a task that completes while it is queued is released by the queue. An
//! entry of the inbox owns one. The future is dropped by the owner thread at completion; the last
//! reference, dropped on any thread, frees only memory.

use std::alloc::Layout;
use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::future::Future;
use std::mem::{ManuallyDrop, needs_drop, offset_of};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

use super::inbox::{Node, NodeVtable, Remote};
use super::join::JoinError;
use super::origin::{Origin, Site};
use super::scheduler::Scheduler;
use super::table::TaskId;
use crate::sys::atomic::{Arc, AtomicBool, AtomicUsize, Life, Ordering};
use crate::sys::blocks::{Blocks, Size, give_back};
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
/// What `joiner` holds is a waker's address, not a name.
const JOINED_BY_A_WAKER: u8 = 32;
/// It has a name, or a lane of its own: wakes and the release take the long way.
pub(super) const SPECIAL: u8 = 64;
/// It was not polled so far.
pub(super) const FRESH: u8 = 128;

/// What is in a task's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    Future,
    Output,
    /// What the task panicked with.
    Panic,
    /// The output was taken, or the task was aborted.
    Nothing,
}

pub(super) type Panic = Box<dyn Any + Send>;

#[repr(C)]
struct Vtable {
    node: NodeVtable,
    /// Where the place begins, in bytes from the header on.
    place: usize,
    /// Polls once; true when the task has ended.
    poll: unsafe fn(NonNull<Header>, &mut Context<'_>) -> bool,
    /// Drops what the place holds; returns what that panicked with.
    clear: unsafe fn(NonNull<Header>) -> Option<Panic>,
    size: Size,
}

#[repr(C)]
pub(super) struct Header {
    node: Node,
    refs: AtomicUsize,
    remote: NonNull<Remote>,
    /// The next in the run queue.
    pub(super) next: Cell<Option<NonNull<Header>>>,
    /// A `Joiner` in eight bytes: a name, or the address of a waker, as the flags say.
    joiner: Cell<u64>,
    pub(super) key: Cell<u32>,
    /// Another thread has put the node into the inbox.
    called: AtomicBool,
    pub(super) flags: Cell<u8>,
    holds: Cell<Holds>,
    /// The ready queue in which it is put.
    pub(super) lane: Cell<u8>,
    pub(super) origin: Origin,
    life: Life,
}

const _: () = assert!(size_of::<Header>() <= 64 || cfg!(loom));

/// Who is told when a task has ended.
pub(super) enum Joiner {
    /// A task of the same core, by its name: there is no count to keep, and nothing to drop.
    Task(TaskId),
    /// Anybody else. In a box: it is rare, and its size would be that of all.
    Somebody(Box<Waker>),
}

impl Joiner {
    /// Drops what is a user's.
    pub(super) fn discard(self) {
        if let Joiner::Somebody(waker) = self {
            guard::discard(Some(*waker));
        }
    }
}

#[repr(C)]
struct Task<F: Future> {
    header: Header,
    place: UnsafeCell<Place<F, F::Output>>,
}

/// Each field begins where the place does (repr(C)).
#[repr(C)]
union Place<F, T> {
    future: ManuallyDrop<F>,
    output: ManuallyDrop<T>,
    panic: ManuallyDrop<Panic>,
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

    /// Gives the task a name.
    pub(super) fn set_name(&self, name: std::sync::Arc<str>) {
        self.origin.set_name(name);
        self.set(SPECIAL);
    }

    /// Decides for a ready queue.
    pub(super) fn set_lane(&self, lane: u8) {
        self.lane.set(lane);
        self.unset(FRESH);
        if lane > 0 {
            self.set(SPECIAL);
        }
    }

    /// Whether a waker is kept.
    #[inline]
    pub(super) fn is_joined_by_a_waker(&self) -> bool {
        self.has(JOINED_BY_A_WAKER)
    }

    /// Whether it is this waker that is kept: to keep it once more would take memory.
    pub(super) fn is_joined_by(&self, waker: &Waker) -> bool {
        if !self.is_joined_by_a_waker() {
            return false;
        }
        let held = std::ptr::with_exposed_provenance::<Waker>(self.joiner.get() as usize);
        // SAFETY: the flag says that this is the address of a box, which is the header's.
        unsafe { (*held).will_wake(waker) }
    }

    /// Has `joiner` told when the task has ended, in the place of whoever was.
    #[inline]
    pub(super) fn set_joiner(&self, joiner: Joiner) {
        if self.is_joined_by_a_waker() {
            self.take_waker().discard();
        }
        match joiner {
            Joiner::Task(id) => self.joiner.set(id.bits()),
            Joiner::Somebody(waker) => {
                self.joiner.set(Box::into_raw(waker).expose_provenance() as u64);
                self.set(JOINED_BY_A_WAKER);
            }
        }
    }

    #[inline]
    pub(super) fn take_joiner(&self) -> Joiner {
        if self.is_joined_by_a_waker() {
            return self.take_waker();
        }
        Joiner::Task(TaskId::of_bits(self.joiner.replace(TaskId::NONE.bits())))
    }

    /// The task of this core that is told when this one has ended, by its place.
    pub(super) fn joined_by(&self) -> Option<u32> {
        let id = TaskId::of_bits(self.joiner.get());
        (!self.is_joined_by_a_waker() && id != TaskId::NONE).then_some(id.key())
    }

    #[cold]
    fn take_waker(&self) -> Joiner {
        self.unset(JOINED_BY_A_WAKER);
        let held = self.joiner.replace(TaskId::NONE.bits());
        let waker = std::ptr::with_exposed_provenance_mut(held as usize);
        // SAFETY: the flag said that this is the address of a box, and now that it is not.
        Joiner::Somebody(unsafe { Box::from_raw(waker) })
    }

    fn vtable(&self) -> &'static Vtable {
        // SAFETY: a header's node points at a whole `Vtable`, whose head is the node's, see `new`.
        unsafe { self.node.vtable().cast::<Vtable>().as_ref() }
    }

    fn remote(&self) -> &Remote {
        // SAFETY: the runtime holds the remote until it has released all its tasks, and a header
        // that outlives the release holds it itself.
        unsafe { self.remote.as_ref() }
    }
}

/// Makes a task of `future`, with the scheduler's reference.
#[inline]
pub(super) fn new<F: Future>(
    future: F,
    remote: &Arc<Remote>,
    flags: u8,
    blocks: &Blocks,
    at: Site,
) -> NonNull<Header> {
    // SAFETY: the functions take a node that is the head of a `Task<F>`, which this becomes.
    let node = unsafe { Node::new(NonNull::from(Task::<F>::VTABLE).cast()) };
    // Not by way of a reference: the count beside the remote has to be in reach.
    let remote = NonNull::new(Arc::as_ptr(remote).cast_mut()).expect("an Arc is somewhere");
    let task = Task {
        header: Header {
            node,
            refs: AtomicUsize::new(1),
            remote,
            next: Cell::new(None),
            joiner: Cell::new(TaskId::NONE.bits()),
            key: Cell::new(u32::MAX),
            called: AtomicBool::new(false),
            flags: Cell::new(flags),
            holds: Cell::new(Holds::Future),
            lane: Cell::new(0),
            origin: Origin::new(at),
            life: Life::new(),
        },
        place: UnsafeCell::new(Place { future: ManuallyDrop::new(future) }),
    };
    let block = blocks.take(const { Size::of(Layout::new::<Task<F>>()) }).cast::<Task<F>>();
    // SAFETY: the block is for this type, and nobody else's.
    unsafe { block.write(task) };
    block.cast()
}

impl<F: Future> Task<F> {
    const VTABLE: &'static Vtable = &Vtable {
        node: NodeVtable { run: called, discard: discarded },
        place: offset_of!(Self, place),
        poll: Self::poll,
        clear: Self::clear,
        size: Size::of(Layout::new::<Self>()),
    };

    /// # Safety (of this and all below)
    /// `header` is the head of a live `Task<F>`, and this is its own thread.
    unsafe fn place(header: NonNull<Header>) -> *mut Place<F, F::Output> {
        // SAFETY: by the contract the header is the first field of a `Task<F>` (repr(C)).
        unsafe { header.cast::<Self>().as_ref() }.place.get()
    }

    unsafe fn poll(header: NonNull<Header>, context: &mut Context<'_>) -> bool {
        // SAFETY: `run` says that the future is there. It is on the heap and dropped in place, and
        // nothing else touches it from inside the poll.
        let future = unsafe { Pin::new_unchecked(&mut *(*Self::place(header)).future) };
        let Poll::Ready(output) = future.poll(context) else { return false };
        // SAFETY: the contract, and the future is there.
        unsafe { Self::end(header, output) };
        true
    }

    /// Drops the future in place, and keeps the output instead.
    #[inline]
    unsafe fn end(header: NonNull<Header>, output: F::Output) {
        if needs_drop::<F>() {
            // SAFETY: the contract.
            if let Some(panic) = unsafe { Self::clear(header) } {
                guard::discard(Some(output));
                // SAFETY: the contract; the place is vacant.
                return unsafe { keep_panic(header, panic) };
            }
        }
        // SAFETY: the contract; the place is vacant, or holds a future that needs no drop.
        unsafe { (*Self::place(header)).output = ManuallyDrop::new(output) };
        // SAFETY: the contract.
        unsafe { header.as_ref() }.holds.set(Holds::Output);
    }

    unsafe fn clear(header: NonNull<Header>) -> Option<Panic> {
        // SAFETY: the contract.
        let place = unsafe { &mut *Self::place(header) };
        // To the destructor, which is user code, the place is vacant.
        // SAFETY: the contract.
        let held = unsafe { header.as_ref() }.holds.replace(Holds::Nothing);
        let dropped = catch_unwind(AssertUnwindSafe(|| match held {
            // SAFETY: the header said that this is there, and now that it is not.
            Holds::Future => unsafe { ManuallyDrop::drop(&mut place.future) },
            // SAFETY: as above.
            Holds::Output => unsafe { ManuallyDrop::drop(&mut place.output) },
            // SAFETY: as above.
            Holds::Panic => unsafe { ManuallyDrop::drop(&mut place.panic) },
            Holds::Nothing => {}
        }));
        dropped.err()
    }
}

/// Counts a panic that nobody can be told of.
#[cold]
fn note(panic: Panic) {
    guard::call(|| std::panic::resume_unwind(panic));
}

/// 2 run: polls the task, and lets its panic pass. True when it has ended.
#[inline]
pub(super) fn run(header: NonNull<Header>) -> bool {
    // SAFETY: the scheduler's reference keeps the header alive.
    let task = unsafe { header.as_ref() };
    assert!(task.holds.get() == Holds::Future, "a task runs until it has ended");
    // SAFETY: the vtable's functions take a header; the waker is only borrowed from the scheduler's
    // reference, hence never dropped.
    let waker = ManuallyDrop::new(unsafe { Waker::from_raw(raw_waker(header)) });
    // SAFETY: this is the task's thread, and the place holds the future.
    unsafe { (task.vtable().poll)(header, &mut Context::from_waker(&waker)) }
}

/// Drops the future of a task whose poll has panicked, and keeps that panic instead.
#[cold]
pub(super) fn fail(header: NonNull<Header>, panic: Panic) {
    // SAFETY: the scheduler's reference keeps the header alive, and this is the task's thread.
    let second = unsafe { (header.as_ref().vtable().clear)(header) };
    second.into_iter().for_each(note);
    // SAFETY: as above, and the place is vacant now.
    unsafe { keep_panic(header, panic) };
}

/// Whether the task has a future that nobody is dropping.
pub(super) fn is_at_rest(header: NonNull<Header>) -> bool {
    // SAFETY: the scheduler's reference keeps the header alive.
    unsafe { header.as_ref() }.holds.get() == Holds::Future
}

/// Drops the future of a task instead of polling it again; it has then ended.
#[cold]
pub(super) fn abort(header: NonNull<Header>) {
    // SAFETY: the scheduler's reference keeps the header alive.
    let task = unsafe { header.as_ref() };
    assert!(task.holds.get() == Holds::Future, "a task is aborted before it has ended");
    // SAFETY: this is the task's thread.
    let panic = unsafe { (task.vtable().clear)(header) };
    if let Some(panic) = panic {
        // SAFETY: the place is vacant now.
        unsafe { keep_panic(header, panic) };
    }
}

/// Where the place of a task begins.
///
/// # Safety
/// The task is alive.
#[inline]
unsafe fn place(header: NonNull<Header>) -> *mut () {
    // SAFETY: the caller says that the task is alive.
    let offset = unsafe { header.as_ref() }.vtable().place;
    // SAFETY: the place is a part of the task's allocation.
    unsafe { header.as_ptr().byte_add(offset) }.cast()
}

/// # Safety
/// The task is alive, this is its own thread, and the place is vacant.
unsafe fn keep_panic(header: NonNull<Header>, panic: Panic) {
    // SAFETY: every place has room for a panic.
    unsafe { place(header).cast::<Panic>().write(panic) };
    // SAFETY: the caller says that the task is alive.
    unsafe { header.as_ref() }.holds.set(Holds::Panic);
}

/// Takes the output of a task that has ended, if it has one; for the rest there is `take_failure`.
///
/// # Safety
/// `T` is the output of the task's future.
#[inline]
pub(super) unsafe fn take_output<T>(header: NonNull<Header>) -> Option<T> {
    // SAFETY: the scheduler's reference keeps the header alive.
    let task = unsafe { header.as_ref() };
    if task.holds.get() != Holds::Output {
        return None;
    }
    task.holds.set(Holds::Nothing);
    // SAFETY: the header said what is there, and now that it is not.
    Some(unsafe { place(header).cast::<T>().read() })
}

/// Takes what a task has that ended without an output.
#[cold]
pub(super) fn take_failure(header: NonNull<Header>) -> JoinError {
    // SAFETY: the scheduler's reference keeps the header alive.
    match unsafe { header.as_ref() }.holds.replace(Holds::Nothing) {
        // SAFETY: the header said what is there, and now that it is not.
        Holds::Panic => JoinError::panicked(unsafe { place(header).cast::<Panic>().read() }),
        Holds::Nothing => JoinError::cancelled(),
        held => unreachable!("a task that failed holds {held:?}"),
    }
}

/// 4 release: drops what is left of the task, and the scheduler's reference.
///
/// # Safety
/// The scheduler forgets the task: it is in no queue and no table of it.
#[inline]
pub(super) unsafe fn release(header: NonNull<Header>, blocks: &Blocks) {
    // SAFETY: the scheduler's reference keeps the header alive until the end of this function.
    let task = unsafe { header.as_ref() };
    if task.holds.get() != Holds::Nothing || task.has(JOINED_BY_A_WAKER | SPECIAL) {
        // SAFETY: the caller's contract.
        return unsafe { release_with_rest(header, blocks) };
    }
    // SAFETY: the caller's contract, and nothing is left.
    unsafe { release_memory(header, blocks) };
}

/// As `release`, with an output that nobody took, whoever would have been told, or a name to drop.
///
/// # Safety
/// As of [`release`].
#[cold]
#[inline(never)]
unsafe fn release_with_rest(header: NonNull<Header>, blocks: &Blocks) {
    // SAFETY: the scheduler's reference keeps the header alive.
    let task = unsafe { header.as_ref() };
    // SAFETY: this is the task's thread.
    let panic = unsafe { (task.vtable().clear)(header) };
    panic.into_iter().for_each(note);
    task.take_joiner().discard();
    task.origin.clear();
    task.unset(SPECIAL);
    // SAFETY: the caller's contract, and nothing is left.
    unsafe { release_memory(header, blocks) };
}

/// # Safety
/// As of [`release`], and the task holds nothing any more.
#[inline(always)]
unsafe fn release_memory(header: NonNull<Header>, blocks: &Blocks) {
    // SAFETY: the scheduler's reference keeps the header alive until the end of this function.
    let task = unsafe { header.as_ref() };
    // Acquire: what other threads did with their references is over.
    if task.refs.load(Ordering::Acquire) != 1 {
        // SAFETY: the caller's contract.
        return unsafe { leave_to_wakers(header) };
    }
    task.life.ends();
    // SAFETY: there is no waker left that could make another; the place is vacant.
    unsafe {
        let (block, size) = end(header);
        blocks.give(block, size);
    }
}

/// A waker may outlive the runtime, so from now on the header holds the remote itself.
///
/// # Safety
/// As of [`release`].
#[cold]
unsafe fn leave_to_wakers(header: NonNull<Header>) {
    // SAFETY: the scheduler's reference keeps the header alive.
    let task = unsafe { header.as_ref() };
    task.set(HOLDS_REMOTE);
    // SAFETY: the runtime still holds the remote, which came from an `Arc`.
    unsafe { Arc::increment_strong_count(task.remote.as_ptr()) };
    // SAFETY: this is the scheduler's own reference.
    unsafe { drop_reference(header) };
}

/// What is left of a task: memory.
///
/// # Safety
/// Nobody refers to the task any more, and its place is vacant.
#[inline]
unsafe fn end(header: NonNull<Header>) -> (NonNull<u8>, Size) {
    // SAFETY: the caller says that this is the last look at the header.
    let size = unsafe { header.as_ref() }.vtable().size;
    // SAFETY: as above. It has something to drop only in a model, which counts allocations.
    unsafe { std::ptr::drop_in_place(header.as_ptr()) };
    (header.cast(), size)
}

/// # Safety
/// The caller owns a reference, and this is it.
unsafe fn drop_reference(header: NonNull<Header>) {
    // SAFETY: the reference that is dropped keeps the header alive until here.
    let task = unsafe { header.as_ref() };
    task.life.used();
    if task.refs.fetch_sub(1, Ordering::Release) != 1 {
        return;
    }
    // It sees what all who had a reference did before. Not a fence: ThreadSanitizer knows none.
    task.refs.load(Ordering::Acquire);
    // The scheduler has released the task, or its own reference would still be counted.
    assert!(task.has(HOLDS_REMOTE), "a task lost a reference that it never had");
    // SAFETY: the header's own count, which `release` added.
    let remote = unsafe { Arc::from_raw(task.remote.as_ptr()) };
    task.life.ends();
    // SAFETY: that was the last reference, and the place is vacant since the release.
    unsafe {
        let (block, size) = end(header);
        give_back(block, size);
    }
    drop(remote);
}

/// The task that `waker` wakes, if it is one of the core of `remote`. It may have ended.
#[inline]
pub(super) fn task_of(waker: &Waker, remote: &Remote) -> Option<NonNull<Header>> {
    if !std::ptr::eq(waker.vtable(), &raw const WAKER) {
        return None;
    }
    let header = header_of(waker.data());
    // SAFETY: the waker keeps the header alive.
    let home = unsafe { header.as_ref() }.remote;
    std::ptr::eq(home.as_ptr(), remote).then_some(header)
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
    let task = unsafe { header.as_ref() };
    task.life.used();
    let before = task.refs.fetch_add(1, Ordering::Relaxed);
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
    task.life.used();
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
        header.as_ref().life.used();
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

#[cfg(all(test, loom))]
mod loom_tests {
    use std::future::poll_fn;
    use std::panic::Location;
    use std::rc::Rc;

    use loom::thread;

    use super::*;
    use crate::driver::{Kick, Unparker};
    use crate::sys::atomic::check;
    use crate::sys::current::Core;
    use crate::task::scheduler::Care;
    use crate::task::table::TaskId;

    struct NoSleeper;
    impl Kick for NoSleeper {
        fn kick(&self) {}
    }

    /// A core, and a task on it that waits for `opened`.
    struct Bench {
        core: Core,
        scheduler: Rc<Scheduler>,
        remote: Arc<Remote>,
        opened: Arc<AtomicBool>,
        waker: Rc<Cell<Option<Waker>>>,
    }

    impl Bench {
        fn new() -> Self {
            let remote = Remote::new(1, Unparker::new(NoSleeper));
            let core = Core::new(1, 0, 1, 1);
            let (blocks, care) = (Rc::clone(&core.blocks), Care::default());
            let scheduler = Rc::new(Scheduler::new(Arc::clone(&remote), None, blocks, care));
            core.install(Rc::clone(&scheduler));
            let opened = Arc::new(AtomicBool::new(false));
            Bench { core, scheduler, remote, opened, waker: Rc::default() }
        }

        /// The task, which has been polled once, and its waker.
        fn waiting_task(&self) -> (TaskId, Waker) {
            let (opened, place) = (Arc::clone(&self.opened), Rc::clone(&self.waker));
            let future = poll_fn(move |context| {
                // Relaxed: what makes it visible is the wake.
                if opened.load(Ordering::Relaxed) {
                    return Poll::Ready(7);
                }
                place.set(Some(context.waker().clone()));
                Poll::Pending
            });
            let id = self.scheduler.spawn(future, Location::caller());
            self.run();
            (id, self.waker.take().expect("the task was polled"))
        }

        fn run(&self) {
            self.scheduler.run(8, || false);
        }

        /// Nothing but the test may hold the remote when all wakers are gone.
        fn end(self) {
            drop(self.waker.take());
            let Bench { core, scheduler, remote, .. } = self;
            drop((core, scheduler));
            assert_eq!(Arc::strong_count(&remote), 1);
        }
    }

    fn model(body: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound.get_or_insert(3);
        check(&builder, body);
    }

    #[test]
    fn loom_a_wake_from_another_thread_is_never_lost() {
        model(|| {
            let bench = Bench::new();
            let entered = current::enter(&bench.core);
            let (id, waker) = bench.waiting_task();
            let opened = Arc::clone(&bench.opened);
            let other = thread::spawn(move || {
                // The first wake may be in flight still when the second comes.
                waker.wake_by_ref();
                opened.store(true, Ordering::Relaxed);
                waker.wake();
            });
            // The checker looks for other orders behind what was written, so the other goes first.
            thread::yield_now();
            bench.run();
            other.join().unwrap();
            bench.run();
            assert!(bench.scheduler.is_finished(id));
            bench.scheduler.detach(id);
            bench.scheduler.shut_down();
            drop(entered);
            bench.end();
        });
    }

    #[test]
    fn loom_a_task_that_ends_while_it_is_woken_is_freed_once() {
        model(|| {
            let bench = Bench::new();
            let entered = current::enter(&bench.core);
            let (id, waker) = bench.waiting_task();
            let second = waker.clone();
            let others =
                [thread::spawn(move || waker.wake()), thread::spawn(move || drop(second.clone()))];
            bench.scheduler.abort(id);
            bench.scheduler.detach(id);
            bench.run();
            bench.scheduler.shut_down();
            assert_eq!(bench.scheduler.len(), 0);
            drop(entered);
            others.into_iter().for_each(|other| other.join().unwrap());
            bench.end();
        });
    }

    #[test]
    fn loom_a_wake_while_the_core_ends_is_refused_or_discarded() {
        model(|| {
            let bench = Bench::new();
            let entered = current::enter(&bench.core);
            let (_, waker) = bench.waiting_task();
            let other = thread::spawn(move || {
                waker.wake_by_ref();
                waker.wake();
            });
            bench.scheduler.shut_down();
            assert_eq!(bench.scheduler.len(), 0);
            drop(entered);
            other.join().unwrap();
            bench.end();
        });
    }
}
