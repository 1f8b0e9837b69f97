//! One core's tasks: the table of all, and the queue of those that are ready.

mod chance;

use std::cell::{Cell, OnceCell, UnsafeCell};
use std::future::Future;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::ptr::NonNull;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::blocking::pool::Pool;
use super::inbox::Remote;
use super::join::JoinError;
use super::lanes::{Lanes, List};
use super::origin::Site;
use super::outbox::Outbox;
use super::panics::{OnPanic, Policy, TaskPanic};
use super::raw::{self, ABORTED, AWAITED, DONE, FRESH, Header, Joiner, QUEUED, SPECIAL};
use super::table::{Table, TaskId};
use super::watch::Watch;
use crate::sys::atomic::Arc;
use crate::sys::blocks::Blocks;
use crate::sys::cpus::Mask;
use crate::sys::current::{self, Floor};
use crate::sys::guard;

/// Polls before the first look at the clock; the next looks come after four times as many.
pub(super) const FIRST_LOOK: u32 = 8;

/// How often a task may go on in one poll.
const STEPS_A_POLL: u32 = 128;

/// The tasks of one core, and those of them that are ready.
pub(crate) struct Scheduler {
    /// Those that are ready: all of them, until there are lanes.
    pub(super) ready: List,
    lanes: OnceCell<Box<Lanes>>,
    clock: Rc<dyn Fn() -> u64>,
    /// Those that have not been released; see `table`.
    tasks: UnsafeCell<Table>,
    remote: Arc<Remote>,
    polls: Cell<u64>,
    /// The task whose poll is running.
    running: Cell<Option<NonNull<Header>>>,
    /// What `choose` goes on from.
    chance: Cell<u64>,
    blocks: Rc<Blocks>,
    /// The threads for what blocks; none where it is run in place.
    pool: Option<Pool>,
    outbox: Outbox,
    /// The task of `drive`: its panic is its caller's.
    root: Cell<TaskId>,
    on_panic: Policy,
    /// In which poll a budget was last spent, and how much of it.
    spent: Cell<(u64, u32)>,
    /// Looks at how long each poll takes, where that was asked for.
    watch: Option<Watch>,
}

/// What is done about tasks that fail, or keep their core.
pub(crate) struct Care {
    /// The core's clock, in nanoseconds.
    pub(crate) clock: Rc<dyn Fn() -> u64>,
    pub(crate) on_panic: Policy,
    pub(crate) watch: Option<Watch>,
}

impl Default for Care {
    fn default() -> Self {
        Care { clock: Rc::new(|| 0), on_panic: Policy::default(), watch: None }
    }
}

// SAFETY: no other type of the crate has this number.
unsafe impl Floor for Scheduler {
    const INDEX: usize = 1;
}

impl Scheduler {
    pub(crate) fn new(
        remote: Arc<Remote>,
        pool: Option<Pool>,
        blocks: Rc<Blocks>,
        care: Care,
    ) -> Self {
        Scheduler {
            ready: List::default(),
            lanes: OnceCell::new(),
            clock: care.clock,
            tasks: UnsafeCell::new(Table::new()),
            remote,
            polls: Cell::new(0),
            running: Cell::new(None),
            chance: Cell::new(0),
            blocks,
            pool,
            outbox: Outbox::new(),
            root: Cell::new(TaskId::NONE),
            on_panic: care.on_panic,
            spent: Cell::new((0, 0)),
            watch: care.watch,
        }
    }

    /// The number of its core.
    #[inline]
    pub(super) fn core(&self) -> u64 {
        self.remote.core
    }

    pub(crate) fn remote(&self) -> &Arc<Remote> {
        &self.remote
    }

    pub(super) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    pub(crate) fn pool(&self) -> Option<&Pool> {
        self.pool.as_ref()
    }

    /// Where the process could run when this thread's cores were started. `None` outside of a core.
    pub(crate) fn cpus_of_process() -> Option<Mask> {
        current::with(|scheduler: &Scheduler| scheduler.pool().and_then(Pool::cpus)).flatten()
    }

    /// Borrows the table for a moment.
    ///
    /// # Safety
    /// `f` borrows it no second time: it runs no code of the user.
    #[inline]
    unsafe fn table<R>(&self, f: impl FnOnce(&mut Table) -> R) -> R {
        // SAFETY: the scheduler stays on its thread, and by the contract no two borrows overlap.
        f(unsafe { &mut *self.tasks.get() })
    }

    /// How many tasks have not been released.
    pub(crate) fn len(&self) -> usize {
        // SAFETY: a look.
        unsafe { self.table(|tasks| tasks.len()) }
    }

    pub(crate) fn polls(&self) -> u64 {
        self.polls.get()
    }

    /// Whether the poll that runs may go on once more.
    pub(super) fn spend_budget(&self) -> bool {
        // Polls have numbers, so nothing has to be done when one begins.
        let (poll, spent) = self.spent.get();
        let spent = if poll == self.polls.get() { spent } else { 0 };
        self.spent.set((self.polls.get(), spent + 1));
        spent < STEPS_A_POLL
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.ready.is_empty() && self.lanes.get().is_none_or(|lanes| lanes.are_idle())
    }

    /// Adds a task, spawned at `at`, and makes it ready.
    #[inline]
    pub(crate) fn spawn<F: Future + 'static>(&self, future: F, at: Site) -> TaskId {
        // SAFETY: a 'static future may live as long as it likes.
        unsafe { self.spawn_unbounded(future, at) }
    }

    /// Gives a task that has just been spawned a name.
    pub(super) fn set_name(&self, id: TaskId, name: Arc<str>) {
        let header = self.find(id).expect("the task has just been spawned");
        // SAFETY: the scheduler's reference.
        unsafe { header.as_ref() }.set_name(name);
    }

    /// Runs laps until `future`, a task like the others, has ended.
    ///
    /// A lap is `run`, which polls tasks, then `trade`, which is left out when that was the last.
    #[track_caller]
    pub(crate) fn drive<F: Future>(
        &self,
        future: F,
        mut run: impl FnMut(),
        mut trade: impl FnMut(),
    ) -> Result<F::Output, JoinError> {
        // SAFETY: `Root` ends the task when this function is left, also by a panic, and no other
        // code has the guard: what the future borrows outlives this call.
        let root = Root(self, unsafe { self.spawn_unbounded(future, Location::caller()) });
        self.root.set(root.1);
        loop {
            run();
            if self.is_finished(root.1) {
                // SAFETY: this is the type of the future that was spawned above.
                return unsafe { self.outcome(self.find(root.1).expect("nobody else takes it")) };
            }
            trade();
        }
    }

    /// Adds a task that the caller ends before its borrows do.
    ///
    /// # Safety
    /// The caller sees to it that the task has ended, and its output is taken or dropped, while
    /// everything that the future borrows is still valid.
    #[inline]
    unsafe fn spawn_unbounded<F: Future>(&self, future: F, at: Site) -> TaskId {
        let (header, id) = self.insert(future, at);
        self.ready.append(header);
        id
    }

    /// Adds a task to a lane.
    pub(super) fn spawn_in<F: Future + 'static>(&self, lane: u8, future: F, at: Site) -> TaskId {
        let (header, id) = self.insert(future, at);
        // SAFETY: the task has just been made.
        unsafe { header.as_ref() }.set_lane(lane);
        self.append_special(header);
        id
    }

    /// Makes a task, which is in no list so far.
    #[inline]
    fn insert<F: Future>(&self, future: F, at: Site) -> (NonNull<Header>, TaskId) {
        let flags = AWAITED | QUEUED | FRESH;
        let header = raw::new(future, &self.remote, flags, &self.blocks, at);
        // SAFETY: an entry is plain data.
        let id = unsafe { self.table(|tasks| tasks.insert(header)) };
        // SAFETY: the task has just been made.
        unsafe { header.as_ref() }.key.set(id.key());
        (header, id)
    }

    /// 1 schedule: appends to the run queue what is not in it.
    #[inline]
    pub(super) fn schedule(&self, header: NonNull<Header>) {
        // SAFETY: whoever calls has a reference.
        let task = unsafe { header.as_ref() };
        if task.has(QUEUED | DONE | SPECIAL) {
            if !task.has(QUEUED | DONE) {
                schedule_special(header);
            }
            return;
        }
        task.set(QUEUED);
        task.next.set(None);
        self.ready.append(header);
    }

    /// Puts a task into its own lane.
    #[cold]
    fn append_special(&self, header: NonNull<Header>) {
        // SAFETY: whoever calls has a reference.
        let lane = unsafe { header.as_ref() }.lane.get();
        match self.lanes.get() {
            Some(lanes) if lane > 0 => lanes.get(lane).list.append(header),
            _ => self.ready.append(header),
        }
    }

    /// The lanes; there are some from now on.
    pub(super) fn lanes(&self) -> &Lanes {
        self.lanes.get_or_init(|| Box::new(Lanes::new(Rc::clone(&self.clock))))
    }

    /// The lane whose turn it is.
    pub(super) fn current_lane(&self) -> u8 {
        self.lanes.get().map_or(0, |lanes| lanes.current.get())
    }

    /// Takes what other threads sent, then runs what is ready until nothing is, or the budget is
    /// spent: so many polls, or when `late` says so. What tasks sent meanwhile is on its way then.
    pub(crate) fn run(&self, budget: u32, mut late: impl FnMut() -> bool) {
        let outbox = self.outbox.open();
        let mut batch = self.remote.take();
        while let Some(taken) = batch.pop() {
            // A message may drop what is a user's: an output, a callback, a waker.
            self.watched("what another thread sent", || guard::call(|| taken.run()));
        }
        if let Some(lanes) = self.lanes.get() {
            return self.run_lanes(lanes, budget, late);
        }
        let (polls, mut look) = (self.polls.get(), FIRST_LOOK.min(budget));
        while self.run_until(polls + u64::from(look)) && look < budget && !late() {
            outbox.send();
            look = (look * 4).min(budget);
        }
    }

    /// As `run_until`, for the rare callers.
    #[inline(never)]
    pub(super) fn run_some(&self, polls: u64) -> bool {
        self.run_until(polls)
    }

    /// Runs what is ready until so many polls were made. False when nothing is ready any more.
    #[inline(always)]
    fn run_until(&self, polls: u64) -> bool {
        while !self.ready.is_empty() && self.polls.get() < polls {
            // One boundary for many polls: each would pass its result through memory.
            let ran = catch_unwind(AssertUnwindSafe(|| {
                current::core(|core| match &self.watch {
                    None => self.run_many(polls, &core.polled),
                    Some(watch) => self.run_watched(polls, &core.polled, watch),
                })
            }));
            if let (Some(watch), Err(_)) = (&self.watch, &ran) {
                watch.end();
            }
            let failed = ran.err().map(|panic| match self.running.take() {
                // What it had in flight is given up in its own name.
                Some(header) => (header, self.fail(header, panic)),
                None => resume_unwind(panic),
            });
            current::core(|core| core.polled.set(u32::MAX));
            if let Some((header, passed_on)) = failed {
                self.complete(header);
                if let Some(panic) = passed_on {
                    resume_unwind(panic);
                }
            }
        }
        !self.ready.is_empty()
    }

    /// Ends the future of a task whose poll has panicked, and does with the panic what was chosen:
    /// it is what the task has come to, or is returned to be passed on.
    #[cold]
    fn fail(&self, header: NonNull<Header>, panic: raw::Panic) -> Option<raw::Panic> {
        // SAFETY: the scheduler's reference.
        let task = unsafe { header.as_ref() };
        let is_root = task.key.get() == self.root.get().key();
        let verdict = match is_root {
            true => OnPanic::Isolate,
            false => self.on_panic.judge(&TaskPanic::new(&task.origin, &*panic)),
        };
        if let OnPanic::Isolate = verdict {
            raw::fail(header, panic);
            return None;
        }
        raw::abort(header);
        Some(panic)
    }

    /// The panic of a poll passes, and leaves its task in `running`.
    ///
    /// This and what a poll comes to is one function, or each poll would pay for calls: that there are
    /// rare callers beside the loop must not change that.
    #[inline(always)]
    fn run_many(&self, end: u64, polled: &Cell<u32>) {
        while self.polls.get() < end {
            let Some(header) = self.ready.pop() else { return };
            self.polls.set(self.polls.get() + 1);
            // SAFETY: a queued task is alive.
            let task = unsafe { header.as_ref() };
            polled.set(task.key.get());
            let flags = task.flags.get() & !(QUEUED | FRESH);
            #[cfg(not(canary = "wake-before-clear"))]
            task.flags.set(flags);
            if flags & (DONE | ABORTED) != 0 {
                self.run_last(header);
                continue;
            }
            self.running.set(Some(header));
            let has_ended = raw::run(header);
            // Whatever panics from here on is not that task's.
            self.running.set(None);
            #[cfg(canary = "wake-before-clear")]
            task.unset(QUEUED);
            if has_ended {
                self.complete(header);
            }
        }
    }

    /// As `run_many`, with a look at the clock after each poll.
    #[cold]
    fn run_watched(&self, end: u64, polled: &Cell<u32>, watch: &Watch) {
        let mut now = watch.now();
        while let Some(header) = self.ready.first()
            && self.polls.get() < end
        {
            // SAFETY: a queued task is alive.
            let task = unsafe { header.as_ref() };
            watch.begin(task.key.get(), task.origin.at(), task.origin.name(), now);
            self.run_many(self.polls.get() + 1, polled);
            now = watch.end();
        }
    }

    /// Calls `f`, which is no poll, and has it looked at how long that takes.
    #[inline]
    pub(crate) fn watched<R>(&self, what: &str, f: impl FnOnce() -> R) -> R {
        match &self.watch {
            None => f(),
            Some(watch) => watch.over(what, f),
        }
    }

    /// Polls that took longer than they should.
    pub(crate) fn stalls(&self) -> u64 {
        self.watch.as_ref().map_or(0, Watch::stalls)
    }

    /// The turn of a task that is not polled any more.
    #[cold]
    fn run_last(&self, header: NonNull<Header>) {
        // SAFETY: a queued task is alive.
        let task = unsafe { header.as_ref() };
        if !task.has(DONE) {
            raw::abort(header);
            self.complete(header);
        } else if !task.has(AWAITED) {
            // It completed while it was queued. If it is in the table still, because its output may
            // be asked for, `forget` releases it; if not, it was left to the queue.
            // SAFETY: it is out of the table, and now out of the queue.
            unsafe { raw::release(header, &self.blocks) };
        }
    }

    /// 3 complete: tells whoever awaits it.
    #[inline(always)]
    fn complete(&self, header: NonNull<Header>) {
        // SAFETY: the scheduler's reference.
        let task = unsafe { header.as_ref() };
        task.set(DONE);
        if task.has(AWAITED) {
            self.tell(task.take_joiner());
        } else {
            self.forget(header);
        }
    }

    #[inline(always)]
    fn tell(&self, joiner: Joiner) {
        match joiner {
            Joiner::Task(id) => {
                if let Some(header) = self.find(id) {
                    self.schedule(header);
                }
            }
            Joiner::Somebody(waker) => guard::wake(*waker),
        }
    }

    /// The task of this core that `waker` wakes.
    #[inline]
    fn woken_by(&self, waker: &Waker) -> Option<TaskId> {
        let header = raw::task_of(waker, &self.remote)?;
        // SAFETY: the waker keeps the header alive.
        let key = unsafe { header.as_ref() }.key.get();
        // SAFETY: a look.
        unsafe { self.table(|tasks| tasks.name(key, header)) }
    }

    /// The first task at or behind the place `from`, with that place.
    pub(super) fn next_task(&self, from: usize) -> Option<(usize, TaskId, NonNull<Header>)> {
        // SAFETY: a look.
        unsafe {
            self.table(|tasks| {
                let (place, header) = tasks.next(from)?;
                let id = tasks.name(place as u32, header)?;
                Some((place, id, header))
            })
        }
    }

    /// Whether `header` is what is at `key`.
    pub(super) fn is_at(&self, key: u32, header: NonNull<Header>) -> bool {
        // SAFETY: a look.
        unsafe { self.table(|tasks| tasks.name(key, header)) }.is_some()
    }

    /// When the task at `key` was last polled, where that is looked at.
    pub(super) fn polled_at(&self, key: u32) -> Option<u64> {
        self.watch.as_ref()?.polled_at(key)
    }

    /// Removes a task that has ended from the table, and releases it unless the queue will.
    #[inline]
    fn forget(&self, header: NonNull<Header>) {
        // SAFETY: the scheduler's reference.
        let task = unsafe { header.as_ref() };
        assert!(task.has(DONE), "only a task that has ended is forgotten");
        // SAFETY: an entry is plain data.
        unsafe { self.table(|tasks| tasks.remove(task.key.get())) };
        // This is how the queue knows that it is out of the table.
        task.unset(AWAITED);
        if !task.has(QUEUED) {
            // SAFETY: it is in neither the table nor the queue.
            unsafe { raw::release(header, &self.blocks) };
        }
    }

    #[inline]
    fn find(&self, id: TaskId) -> Option<NonNull<Header>> {
        // SAFETY: a look.
        unsafe { self.table(|tasks| tasks.get(id)) }
    }

    /// Takes the outcome of a task, or has `context` woken when there is one.
    ///
    /// # Safety
    /// `T` is the output of the task's future.
    #[inline]
    pub(super) unsafe fn join<T>(
        &self,
        id: TaskId,
        context: &Context<'_>,
    ) -> Poll<Result<T, JoinError>> {
        let header = self.find(id).expect("a JoinHandle was polled after it had completed");
        // SAFETY: the scheduler's reference.
        if !unsafe { header.as_ref() }.has(DONE) {
            self.wait_for(header, context);
            return Poll::Pending;
        }
        // SAFETY: the caller names the type.
        Poll::Ready(unsafe { self.outcome(header) })
    }

    /// Waits for the end of a task, whose outcome is left where it is.
    pub(super) fn poll_finished(&self, id: TaskId, context: &Context<'_>) -> Poll<()> {
        let header = self.find(id).filter(|_| !self.is_finished(id));
        match header {
            Some(header) => {
                self.wait_for(header, context);
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
    }

    /// Has `context` woken when the task has ended.
    #[inline]
    fn wait_for(&self, header: NonNull<Header>, context: &Context<'_>) {
        // SAFETY: the scheduler's reference.
        let task = unsafe { header.as_ref() };
        match self.woken_by(context.waker()) {
            Some(id) if !task.is_joined_by_a_waker() => task.set_joiner(Joiner::Task(id)),
            id => self.wait_by_waker(task, id, context.waker()),
        }
    }

    /// As `wait_for`, where a waker is kept, or will be.
    #[cold]
    #[inline(never)]
    fn wait_by_waker(&self, task: &Header, id: Option<TaskId>, waker: &Waker) {
        if task.is_joined_by(waker) {
            return;
        }
        let somebody = || Joiner::Somebody(Box::new(waker.clone()));
        task.set_joiner(id.map_or_else(somebody, Joiner::Task));
        if task.has(DONE) {
            // A waker that was cloned or displaced has ended it, with its scope.
            self.tell(task.take_joiner());
        }
    }

    /// Takes the outcome of a task that has ended.
    ///
    /// # Safety
    /// `T` is the output of the task's future.
    #[inline]
    unsafe fn outcome<T>(&self, header: NonNull<Header>) -> Result<T, JoinError> {
        // SAFETY: the caller names the type.
        let output = unsafe { raw::take_output::<T>(header) };
        // Each arm moves what it has, and no `Result` goes through memory.
        match output {
            Some(output) => {
                self.forget(header);
                Ok(output)
            }
            None => Err(self.failure(header)),
        }
    }

    /// Takes what a task has that ended without an output.
    #[cold]
    fn failure(&self, header: NonNull<Header>) -> JoinError {
        let failure = raw::take_failure(header);
        self.forget(header);
        failure
    }

    /// Nobody will ask for the outcome.
    pub(super) fn detach(&self, id: TaskId) {
        let Some(header) = self.find(id) else { return };
        // SAFETY: the scheduler's reference.
        let task = unsafe { header.as_ref() };
        task.unset(AWAITED);
        let joiner = task.take_joiner();
        if task.has(DONE) {
            self.forget(header);
        }
        joiner.discard();
    }

    /// Has the task's future dropped at its next turn.
    pub(super) fn abort(&self, id: TaskId) {
        let Some(header) = self.find(id) else { return };
        // SAFETY: the scheduler's reference.
        unsafe { header.as_ref() }.set(ABORTED);
        self.schedule(header);
    }

    /// Ends a task here and now. One whose future is in use, because it is its poll or its drop that
    /// has come to this, ends at its next turn.
    pub(super) fn end_now(&self, id: TaskId) {
        let Some(header) = self.find(id).filter(|_| !self.is_finished(id)) else { return };
        if self.running.get() == Some(header) || !raw::is_at_rest(header) {
            return self.abort(id);
        }
        // What it had in flight is given up in its own name.
        let polled = current::core(|core| core.polled.replace(id.key()));
        raw::abort(header);
        current::core(|core| core.polled.set(polled.unwrap_or(u32::MAX)));
        self.complete(header);
    }

    pub(super) fn is_finished(&self, id: TaskId) -> bool {
        // SAFETY: the scheduler's reference.
        self.find(id).is_none_or(|header| unsafe { header.as_ref() }.has(DONE))
    }

    /// Ends a task here and now, whatever its state: its future or its output is dropped.
    fn remove(&self, id: TaskId) {
        let Some(header) = self.find(id) else { return };
        self.end(header);
        self.detach(id);
    }

    fn end(&self, header: NonNull<Header>) {
        // SAFETY: the scheduler's reference.
        let task = unsafe { header.as_ref() };
        if !task.has(DONE) {
            raw::abort(header);
            task.set(DONE);
            self.tell(task.take_joiner());
        }
    }

    /// Ends all tasks, those included that appear while others end, and refuses messages.
    pub(crate) fn shut_down(&self) {
        // A message that comes too late is dropped, as if its sender had met a closed inbox.
        let mut batch = self.remote.close();
        while let Some(taken) = batch.pop() {
            guard::discard(Some(taken));
        }
        // A search from the beginning for each would be quadratic.
        let mut place = 0;
        while self.len() > 0 {
            // SAFETY: a look.
            let found = unsafe { self.table(|tasks| tasks.next(place)) };
            let Some((at, header)) = found else {
                place = 0;
                continue;
            };
            place = at;
            self.end(header);
            // SAFETY: the scheduler's reference.
            unsafe { header.as_ref() }.unset(AWAITED);
            self.forget(header);
        }
        if let Some(lanes) = self.lanes.get() {
            lanes.empty_into(&self.ready);
        }
        while let Some(header) = self.ready.pop() {
            // SAFETY: the table is empty, so what is queued has ended and was left to the queue.
            unsafe { raw::release(header, &self.blocks) };
        }
    }
}

/// Makes a task ready that is in a lane of its own, or has a name. Of its scheduler, which is the
/// current one, it is not told: the usual way would have to keep that at hand.
#[cold]
fn schedule_special(header: NonNull<Header>) {
    // SAFETY: whoever calls has a reference.
    let task = unsafe { header.as_ref() };
    task.set(QUEUED);
    task.next.set(None);
    let appended = current::with(|scheduler: &Scheduler| scheduler.append_special(header));
    assert!(appended.is_some(), "a task is scheduled on its own core");
}

/// Ends the task of `drive` when that is left.
struct Root<'a>(&'a Scheduler, TaskId);

impl Drop for Root<'_> {
    fn drop(&mut self) {
        self.0.root.set(TaskId::NONE);
        self.0.remove(self.1);
    }
}
