//! One core's end of the boundary: the table of what is in flight, and the kernel that answers it.

mod drain;

use std::cell::{Cell, RefCell, UnsafeCell};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::task::{Context, Waker};

use io_uring::{opcode, types};

pub(crate) use self::drain::Drained;
use super::in_flight::{Chore, InFlight, OpId, Slot, State, locate};
use super::line::Line;
use super::release::Releases;
use super::{Multishot, Op};
use crate::buf::datagram::Datagrams;
use crate::buf::pool::Pool;
use crate::driver::sqe::FORKED;
use crate::driver::{Call, Counters, Cqe, Driver, Fields, RESERVED, Sqe, Unparker, Wait};
use crate::sys::current::{self, Floor};
use crate::sys::fd::{Home, OwnedFd};
use crate::sys::fork::{Forked, forked};
use crate::sys::guard;

/// A generation that no slot ever has: these are requests of the ring itself.
const OWN: u64 = (u32::MAX as u64) << 32;
/// Cancels have numbers from here on, by the slot of their target.
const CANCELS: u64 = OWN | 1 << 31;
const DEADLINE: u64 = OWN | 2;
const UPDATE: u64 = OWN | 3;

/// Cancels and the like that one lap does at most; the rest follow with the next, without a sleep
/// between.
const CHORES_A_LAP: u32 = 256;

/// Calls that one lap makes at most to have more cancels answered, once that many are in flight.
const CATCH_UP: u32 = 64;

/// How many operations may be in flight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// At this many, operations that start new work wait for admission.
    pub(crate) live: u32,
    /// Keeps deadlines in each wait instead of in one TIMEOUT request.
    pub(crate) deadline_in_wait: bool,
}

/// What one core's ring has counted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) live: u32,
    pub(crate) orphans: u32,
    pub(crate) stray: u64,
    pub(crate) panics: u64,
    pub(crate) driver: Counters,
}

/// The kernel of a core: shared by its ring and by every descriptor that it will close.
struct Kernel {
    driver: UnsafeCell<Box<dyn Driver>>,
    borrowed: Cell<bool>,
    /// Those who wait for a descriptor to become free.
    short_of_fds: RefCell<Vec<Waker>>,
}

impl Kernel {
    /// Borrows the driver for a moment. No user code runs in `f` (I5).
    #[inline]
    fn with<R>(&self, f: impl FnOnce(&mut dyn Driver) -> R) -> R {
        assert!(!self.borrowed.replace(true), "I5: the driver is in use");
        // SAFETY: the flag says that this is the only borrow.
        let result = f(unsafe { &mut **self.driver.get() });
        self.borrowed.set(false);
        result
    }

    fn close(&self, fd: i32) -> io::Result<()> {
        let result = self.with(|driver| driver.call(Call::Close { fd }));
        let waiting = std::mem::take(&mut *self.short_of_fds.borrow_mut());
        waiting.into_iter().for_each(guard::wake);
        result.map(drop)
    }
}

/// One core's operations. It outlives the runtime as an empty husk while handles refer to it.
pub(crate) struct Ring {
    pub(super) table: InFlight,
    kernel: Rc<Kernel>,
    home: Rc<Home>,
    limits: Limits,
    answers: Cell<Vec<Cqe>>,
    /// Requests that may still be done before they are placed, until the next enter.
    attempts: Cell<u32>,
    armed: Cell<Option<u64>>,
    // The kernel copies it when it takes the request, which may be a lap late: hence a fixed place.
    timespec: Box<Cell<types::Timespec>>,
    line: Line,
    stray: Cell<u64>,
    panics: Cell<u64>,
    /// What the kernel picks buffers from, for as long as it may.
    pool: RefCell<Option<Rc<Pool>>>,
    releases: Releases,
}

// SAFETY: no other type of the crate has this number.
unsafe impl Floor for Ring {
    const INDEX: usize = 0;
}

impl Ring {
    pub(crate) fn new(core: u64, driver: Box<dyn Driver>, limits: Limits) -> io::Result<Self> {
        let kernel = Rc::new(Kernel {
            driver: UnsafeCell::new(driver),
            borrowed: Cell::new(false),
            short_of_fds: RefCell::default(),
        });
        let closer = Rc::clone(&kernel);
        Ok(Ring {
            // What waits for admission is a part of the load; sends and receives come on top.
            table: InFlight::new(limits.live.saturating_mul(4).clamp(1024, 1 << 24))?,
            kernel,
            home: Rc::new(Home::new(core, move |fd| closer.close(fd))),
            limits,
            answers: Cell::default(),
            attempts: Cell::new(0),
            armed: Cell::new(None),
            timespec: Box::new(Cell::new(types::Timespec::new())),
            line: Line::default(),
            stray: Cell::new(0),
            panics: Cell::new(0),
            pool: RefCell::default(),
            releases: Releases::default(),
        })
    }

    pub(super) fn table(&self) -> &InFlight {
        &self.table
    }

    pub(super) fn releases(&self) -> &Releases {
        &self.releases
    }

    pub(crate) fn now(&self) -> u64 {
        self.kernel.with(|driver| driver.now())
    }

    /// Moves the kernel's clock, if that is its own to move.
    pub(crate) fn advance(&self, time: u64) -> bool {
        self.kernel.with(|driver| driver.advance(time))
    }

    pub(crate) fn driver_name(&self) -> &'static str {
        self.kernel.with(|driver| driver.name())
    }

    pub(crate) fn is_simulated(&self) -> bool {
        self.kernel.with(|driver| driver.is_simulated())
    }

    /// The address of a host in the kernel's own network.
    pub(crate) fn resolve(&self, name: &str) -> Option<IpAddr> {
        self.kernel.with(|driver| driver.resolve(name))
    }

    pub(crate) fn unparker(&self) -> Unparker {
        self.kernel.with(|driver| driver.unparker())
    }

    pub(crate) fn call(&self, call: Call<'_>) -> io::Result<i32> {
        if forked() {
            return Err(Forked.into());
        }
        self.kernel.with(|driver| driver.call(call))
    }

    /// Registers the buffers that receives pick from.
    pub(crate) fn provide(&self, pool: &Rc<Pool>) -> io::Result<()> {
        // SAFETY: the ring keeps the pool until the driver has been dropped, see `retire`.
        self.kernel.with(|driver| unsafe { driver.register(pool.registration()) })?;
        self.pool.replace(Some(Rc::clone(pool)));
        Ok(())
    }

    /// The buffers for datagrams of `pool`, which is the one that was provided, if there are any.
    pub(crate) fn provide_datagrams(&self, pool: &Pool) -> Option<Rc<Datagrams>> {
        let register = |resource| {
            // SAFETY: they go with their pool, which the ring keeps, see `provide` and `retire`.
            self.kernel.with(|driver| unsafe { driver.register(resource) })
        };
        let refused = |error| {
            let line =
                format!("datagrams are received into the heap, not provided buffers: {error}");
            current::core(|core| core.log.line(&line));
        };
        pool.make_datagrams(register, refused).map(Rc::clone)
    }

    /// A descriptor that this core's kernel has just opened.
    pub(crate) fn adopt(&self, raw: i32) -> OwnedFd {
        OwnedFd::new(raw, Rc::clone(&self.home))
    }

    /// Wakes `waker` when this core closes a descriptor.
    pub(crate) fn wake_on_close(&self, waker: &Waker) {
        // Whoever asks again and again is woken once.
        let known = self.kernel.short_of_fds.borrow().iter().any(|other| other.will_wake(waker));
        if !known {
            // Cloning runs the waker's code, so not under the borrow.
            let waker = waker.clone();
            self.kernel.short_of_fds.borrow_mut().push(waker);
        }
    }

    pub(crate) fn tally(&self) -> Tally {
        Tally {
            live: self.table.live(),
            orphans: self.table.orphans(),
            stray: self.stray.get(),
            panics: self.panics.get(),
            driver: self.kernel.with(|driver| driver.counters()),
        }
    }

    /// Has `op` done now, if that takes no wait. It stays the caller's: whatever its request points
    /// at is used until this returns, and no longer.
    #[inline(always)]
    pub(super) fn attempt<T: Op>(&self, op: &mut T) -> Option<Cqe> {
        let left = self.attempts.get();
        if left == 0 || forked() {
            return None;
        }
        self.attempts.set(left - 1);
        let sqe = op.prepare();
        // SAFETY: I2: `op` owns what the request points at, and stays where it is meanwhile.
        self.kernel.with(|driver| unsafe { driver.attempt(sqe) })
    }

    /// Places `op` in the table and pushes its request. Its answers wake `waker`.
    ///
    /// # Errors
    /// Gives `op` back with its answer, when the table is full, or this is a forked child.
    #[inline(always)]
    pub(super) fn submit<T: Op>(&self, op: T, waker: Waker) -> Result<OpId, (T, Cqe)> {
        if forked() {
            return Err((op, Cqe { user_data: 0, result: FORKED, flags: 0 }));
        }
        let (id, slot) = match self.table.insert(op) {
            Ok(inserted) => inserted,
            Err(op) => return Err((op, Cqe::refusal(0, libc::ENOMEM))),
        };
        let unfinished = Unfinished(self, id);
        // SAFETY: the payload is in its place and nothing else refers to it (I1, I5).
        let sqe = unsafe { (*locate::<T>(slot.place())).prepare() };
        std::mem::forget(unfinished);
        let fields = Fields::of(&sqe);
        slot.asked(fields.opcode, fields.fd);
        let displaced = slot.set_waker(Some(waker));
        assert!(displaced.is_none(), "a new slot keeps no waker");
        self.push(sqe.user_data(id.user_data()));
        Ok(id)
    }

    #[inline]
    fn push(&self, sqe: Sqe) {
        // SAFETY: I1 and I2: the payload owns what the request points at and stays in place; the
        // ring's own requests point at nothing but `timespec`, which lives as long as the ring.
        self.kernel.with(|driver| unsafe { driver.push(sqe) });
    }

    /// Takes a parked item of a multishot operation, or its end, or waits.
    #[inline]
    pub(super) fn poll_many<T: Multishot>(
        &self,
        id: OpId,
        context: &Context<'_>,
    ) -> Option<Result<T::Item, (T, Cqe)>> {
        let slot = self.table.get(id).expect("a ticket's slot lives until it is taken");
        // SAFETY: the ticket's type is that of the payload; `pop` is the crate's own code, runs
        // nothing of a user, and its borrow ends here (I1, I5).
        if let Some(item) = unsafe { (*locate::<T>(slot.place())).pop() } {
            return Some(Ok(item));
        }
        if slot.state() == State::Waiting {
            if !forked() {
                Ring::wait(slot, context);
                return None;
            }
            self.end_in_child(id);
        }
        self.table.take::<T>(id).map(|taken| {
            self.call_next();
            Err(taken)
        })
    }

    /// Takes the payload and the last answer, or waits for it.
    #[inline]
    pub(super) fn take<T: Op>(&self, id: OpId, context: &Context<'_>) -> Option<(T, Cqe)> {
        if let Some(taken) = self.table.take::<T>(id) {
            self.call_next();
            return Some(taken);
        }
        if forked() {
            self.end_in_child(id);
            return self.table.take::<T>(id);
        }
        Ring::wait(self.table.get(id).expect("a ticket's slot lives until it is taken"), context);
        None
    }

    /// No answer will come to a forked child. I1 holds: the kernel writes to the parent's memory, of
    /// which the child has a copy.
    #[cold]
    fn end_in_child(&self, id: OpId) {
        self.finish(id, Cqe { user_data: id.user_data(), result: FORKED, flags: 0 });
    }

    /// Has the task of `context` woken by the next answer.
    #[inline]
    fn wait(slot: &Slot, context: &Context<'_>) {
        if !slot.peek_waker(|waker| waker.is_some_and(|waker| waker.will_wake(context.waker()))) {
            // The clone comes before, and the drop after, the moment in which the slot is touched.
            let waker = context.waker().clone();
            guard::discard(slot.set_waker(Some(waker)));
        }
    }

    /// Gives an operation up: it is cancelled with the next lap, and its answer is abandoned.
    pub(super) fn orphan(&self, id: OpId) {
        match self.table.get(id).map(Slot::state) {
            Some(State::Waiting) => guard::discard(self.table.orphan(id)),
            Some(State::Done) => {
                // To abandon may take memory or wake somebody; whoever drops is spared both.
                self.table.orphan(id);
                if forked() {
                    self.abandon(id, self.table.unclaimed(id));
                }
            }
            None => {}
            Some(state) => unreachable!("a ticket's operation is {state:?}"),
        }
    }

    /// Has an operation cancelled with the next lap, if it has not ended; its answers are still for its
    /// owner.
    pub(super) fn cancel(&self, id: OpId) {
        if self.table.get(id).is_some_and(|slot| slot.state() == State::Waiting) {
            self.table.cancel(id);
        }
    }

    fn abandon(&self, id: OpId, cqe: Cqe) {
        let slot = self.table.get(id).expect("the slot is in use");
        let (vtable, place) = (slot.vtable(), slot.place());
        self.guard(|| {
            // SAFETY: I1, the last answer has come; `free` is called between the move and user code.
            unsafe { (vtable.abandon)(place, cqe, &|| self.table.free(id)) };
        });
        self.call_next();
    }

    /// One lap's trade: hands over, sleeps as told, and delivers what was answered.
    ///
    /// # Errors
    /// What [`Driver::enter`] cannot mend; everything in flight must then be leaked.
    pub(crate) fn turn(&self, wait: Wait, deadline: Option<u64>) -> io::Result<usize> {
        if forked() {
            return Err(Forked.into());
        }
        let abandoned = self.do_chores();
        let wait = match (wait, deadline) {
            _ if abandoned > 0 || self.table.has_chores() => Wait::Poll,
            (Wait::Block, Some(time)) if self.limits.deadline_in_wait => Wait::Until(time),
            (Wait::Block, Some(time)) => {
                self.arm(time);
                Wait::Block
            }
            (wait, _) => wait,
        };
        let mut answered = abandoned + self.trade(wait)?;
        // The kernel answers some twenty cancels a call: without this, a program that drops more
        // than that in each lap would have ever more operations in flight, and descriptors open.
        for _ in 0..CATCH_UP {
            if self.table.orphans() < CHORES_A_LAP {
                break;
            }
            match self.do_chores() + self.trade(Wait::Poll)? {
                0 => break,
                more => answered += more,
            }
        }
        self.releases.look(&self.table);
        Ok(answered)
    }

    /// A lap's trade that does not sleep, but leaves everything as for a sleep until `deadline`.
    ///
    /// # Errors
    /// As [`turn`](Ring::turn).
    pub(crate) fn rest(&self, deadline: Option<u64>) -> io::Result<usize> {
        if let Some(time) = deadline {
            self.arm(time);
        }
        let mut answered = self.turn(Wait::Poll, None)?;
        while self.table.has_chores() {
            answered += self.turn(Wait::Poll, None)?;
        }
        Ok(answered)
    }

    /// The descriptor that is readable when there is something to trade.
    pub(crate) fn readiness(&self) -> Option<BorrowedFd<'_>> {
        let raw = self.kernel.with(|driver| driver.readiness().map(|fd| fd.as_raw_fd()))?;
        // SAFETY: the driver, which has it open, goes no earlier than in `drain`, and for that the
        // runtime, which lends this out, is borrowed mutably.
        Some(unsafe { BorrowedFd::borrow_raw(raw) })
    }

    fn trade(&self, wait: Wait) -> io::Result<usize> {
        let mut answers = self.answers.take();
        #[cfg(canary = "free-on-enter-error")]
        let refused = self.kernel.with(|driver| driver.counters().refused);
        let (result, attempts) = self.kernel.with(|driver| {
            let result = driver.enter(wait, &mut answers);
            (result, driver.attempts())
        });
        self.attempts.set(attempts);
        #[cfg(canary = "free-on-enter-error")]
        if self.kernel.with(|driver| driver.counters().refused) > refused {
            self.end_one_that_waits();
        }
        let answered = answers.len();
        for cqe in answers.drain(..) {
            self.deliver(cqe);
        }
        self.answers.set(answers);
        result.map(|()| answered)
    }

    /// The canary's bug: the kernel will still answer this operation.
    #[cfg(canary = "free-on-enter-error")]
    fn end_one_that_waits(&self) {
        let waits = self.table.all().find(|(_, slot)| slot.state() == State::Waiting);
        if let Some(id) = waits.map(|(id, _)| id) {
            self.finish(id, Cqe::refusal(id.user_data(), libc::EAGAIN));
        }
    }

    /// Cancels and abandons what was left. Returns how many were abandoned: that may have woken
    /// somebody.
    fn do_chores(&self) -> usize {
        let mut abandoned = 0;
        for done in 0..CHORES_A_LAP {
            match self.table.pop_chore() {
                None => break,
                Some(Chore::Cancel(_))
                    if cfg!(canary = "lost-cancel-on-a-full-queue") && done >= 8 => {}
                Some(Chore::Cancel(id)) => {
                    let cancel = opcode::AsyncCancel::new(id.user_data()).build();
                    self.push(cancel.user_data(CANCELS + u64::from(id.index())));
                }
                Some(Chore::Abandon(id)) => {
                    self.abandon(id, self.table.unclaimed(id));
                    abandoned += 1;
                }
            }
        }
        abandoned
    }

    /// Sees to it that a TIMEOUT ends the sleep at `time`; an earlier one is left alone.
    fn arm(&self, time: u64) {
        let request = match self.armed.get() {
            Some(armed) if armed <= time => return,
            Some(_) => {
                let flags = types::TimeoutFlags::ABS;
                opcode::TimeoutUpdate::new(DEADLINE, self.timespec.as_ptr())
                    .flags(flags)
                    .build()
                    .user_data(UPDATE)
            }
            None => opcode::Timeout::new(self.timespec.as_ptr())
                .flags(types::TimeoutFlags::ABS)
                .build()
                .user_data(DEADLINE),
        };
        let clamped = time.min(1 << 62);
        let (sec, nsec) = (clamped / 1_000_000_000, (clamped % 1_000_000_000) as u32);
        self.timespec.set(types::Timespec::new().sec(sec).nsec(nsec));
        self.armed.set(Some(time));
        self.push(request);
    }

    /// A cancel has been answered. One that found nothing came after the end of its target, or while the
    /// kernel was about to try that once more; in the second case it is asked again.
    #[cold]
    fn cancelled(&self, cqe: &Cqe) {
        if cqe.result == -libc::ENOENT {
            self.table.cancel_again((cqe.user_data - CANCELS) as u32);
        }
    }

    #[inline]
    fn deliver(&self, cqe: Cqe) {
        match cqe.user_data {
            UPDATE => return,
            DEADLINE if self.armed.take().is_some() => return,
            CANCELS..RESERVED => return self.cancelled(&cqe),
            _ => {}
        }
        let id = OpId::from_user_data(cqe.user_data);
        let Some(slot) = self.table.get(id).filter(|slot| slot.awaits_answers()) else {
            // I4: an answer to nothing that is in flight. I3 makes it impossible; never touch memory.
            self.stray.set(self.stray.get() + 1);
            return;
        };
        let (vtable, place) = (slot.vtable(), slot.place());
        if cqe.has_more() {
            let waker = slot.set_waker(None);
            self.guard(|| {
                // SAFETY: the payload is in its place and nothing else refers to it (I1, I5).
                if !unsafe { (vtable.more)(place, cqe) } {
                    self.table.cancel(id);
                }
                if let Some(waker) = &waker {
                    waker.wake_by_ref();
                }
            });
            // The same task will most likely wait for the next answer: its waker goes back, unless
            // the operation ended or somebody else waits by now. What is displaced is dropped here.
            let displaced = match self.table.get(id) {
                Some(slot) if slot.peek_waker(|now| now.is_none()) => slot.set_waker(waker),
                _ => waker,
            };
            guard::discard(displaced);
            return;
        }
        if slot.is_cancelled() {
            // It is not asked again, so an interruption ends it as the cancel would have.
            let is_interrupted = cqe.result == -libc::EINTR;
            let ended = Cqe::refusal(cqe.user_data, libc::ECANCELED);
            let cqe = if is_interrupted { ended } else { cqe };
            match slot.state() {
                State::Orphaned => self.abandon(id, cqe),
                _ => self.finish(id, cqe),
            }
            return;
        }
        // SAFETY: as above.
        let again = || unsafe { (vtable.again)(place, &cqe).then(|| (vtable.prepare)(place)) };
        match self.guard(again) {
            Some(Some(sqe)) => {
                self.push(sqe.user_data(id.user_data()));
                let waker = slot.set_waker(None);
                self.guard(|| waker.map(Waker::wake));
            }
            Some(None) => self.finish(id, cqe),
            // The answer cannot be true, or a user's buffer does not say where it is.
            None => self.finish(id, Cqe::refusal(cqe.user_data, libc::EIO)),
        }
    }

    fn finish(&self, id: OpId, cqe: Cqe) {
        let waker = self.table.get(id).expect("the slot is in use").done(cqe);
        if let Some(waker) = waker {
            self.guard(|| waker.wake());
        }
    }

    /// Runs user code that must not keep the other answers of a lap from being delivered.
    #[inline]
    fn guard<R>(&self, f: impl FnOnce() -> R) -> Option<R> {
        match catch_unwind(AssertUnwindSafe(f)) {
            Ok(result) => Some(result),
            Err(panic) => {
                self.panics.set(self.panics.get() + 1);
                guard::drop_payload(panic);
                None
            }
        }
    }

    /// Whether one more operation that starts new work may be submitted now.
    pub(super) fn admits(&self, ticket: &mut Option<u64>, context: &Context<'_>) -> bool {
        self.line.admits(ticket, context, || self.has_room())
    }

    /// Gives up a place in the line for admission.
    pub(super) fn leave_line(&self, ticket: u64) {
        if self.line.leave(ticket) {
            self.call_next();
        }
    }

    /// Calls the next in line for admission forward, if there is room.
    #[inline]
    pub(super) fn call_next(&self) {
        if self.line.has_waiters() && self.has_room() {
            self.line.call();
        }
    }

    /// Before a sleep: calls the next if those who were called do not come. Whether there is one.
    pub(crate) fn calls_on(&self) -> bool {
        let calls = self.line.has_called() && self.line.has_waiters() && self.has_room();
        if calls {
            self.line.call();
        }
        calls
    }

    #[inline]
    fn has_room(&self) -> bool {
        self.table.live() < self.limits.live
    }
}

/// A slot whose request was not pushed because `prepare` panicked: its payload is dropped.
struct Unfinished<'a>(&'a Ring, OpId);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        let Unfinished(ring, id) = self;
        let waker = ring.table.get(*id).expect("the slot is in use").set_waker(None);
        ring.abandon(*id, Cqe::refusal(id.user_data(), libc::ECANCELED));
        guard::discard(waker);
    }
}

/// Calls `f` with the current core's ring.
///
/// # Panics
/// Outside of a runtime; `what` says what was called there.
#[track_caller]
pub(crate) fn with<R>(what: &str, f: impl FnOnce(&Ring) -> R) -> R {
    match current::with(f) {
        Some(output) => output,
        None => super::outside(what),
    }
}
