//! One core's loop: everything that a core has, and the lap that turns it.

use std::cell::{Cell, OnceCell};
use std::future::Future;
use std::io;
use std::os::fd::BorrowedFd;
use std::panic::Location;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Turn;
use super::handle::Handle;
use super::local::Local;
use super::per_core::Values;
use super::roll::Roll;
use super::stop::Stop;
use crate::buf::pool::Pool;
use crate::driver::{Driver, Unparker, Wait};
use crate::op::{Drained, Limits, Ring};
use crate::sys::atomic::Arc;
use crate::sys::current::{self, Core};
use crate::sys::fork;
use crate::sys::log::Log;
use crate::task::blocking::pool as blocking;
use crate::task::{self, Care, JoinHandle, Policy, Pulse, Remote, Scheduler, Watch, registry};
use crate::time::{Timers, nanoseconds};

/// Polls in one lap, before the kernel is entered again.
const BUDGET: u32 = 128;
/// Nanoseconds in one lap, likewise.
const LATE_NS: u64 = 100_000;

static NEXT_NUMBER: Mutex<u64> = Mutex::new(1);

/// A number that no other core of this process has or will have.
pub(crate) fn next_number() -> u64 {
    let mut next = NEXT_NUMBER.lock().unwrap_or_else(PoisonError::into_inner);
    *next += 1;
    *next - 1
}

/// Where a core stands among those that were started together.
#[derive(Clone)]
pub(crate) struct Seat {
    pub(crate) index: usize,
    pub(crate) roll: Arc<Roll>,
}

/// What a core needs to know about itself.
pub(super) struct Settings {
    pub(super) limits: Limits,
    pub(super) drain: Option<Duration>,
    /// How long jobs that block may go on after the last core, where `drain` says nothing.
    pub(super) grace: Duration,
    pub(super) blocking: blocking::Pool,
    pub(super) log: Log,
    pub(super) receive_buffers: u16,
    pub(super) on_panic: Policy,
    pub(super) stall: Option<Duration>,
}

/// Registers the core's pool of buffers; without it (before kernel 5.19), receives use the heap.
fn provide_buffers(ring: &Ring, settings: &Settings) -> Option<Rc<Pool>> {
    let pool = match Pool::new(settings.receive_buffers) {
        Ok(pool) => Rc::new(pool),
        Err(error) => {
            settings.log.line(&format!("no memory for provided buffers: {error}"));
            return None;
        }
    };
    match ring.provide(&pool) {
        Ok(()) => Some(pool),
        Err(error) => {
            settings.log.line(&format!("receives use the heap, not provided buffers: {error}"));
            None
        }
    }
}

/// What is done about tasks that fail, or keep the core.
fn care(settings: &Settings, core: &Core, ring: &Rc<Ring>) -> io::Result<Care> {
    let on_panic = settings.on_panic.clone();
    let ring_clock = Rc::clone(ring);
    let clock: Rc<dyn Fn() -> u64> = Rc::new(move || ring_clock.now());
    let Some(threshold) = settings.stall else {
        return Ok(Care { clock, on_panic, watch: None });
    };
    let simulated = ring.is_simulated();
    let (log, cpus) = (settings.log.clone(), settings.blocking.cpus());
    let pulse = (!simulated).then(|| Pulse::start(core.index, threshold, log, cpus)).transpose()?;
    let watch = Watch::new(nanoseconds(threshold), Rc::clone(&clock), pulse);
    Ok(Care { clock, on_panic, watch: Some(watch) })
}

/// Everything of one core. It lives and dies on its thread.
pub(crate) struct Shard {
    core: Core,
    ring: Rc<Ring>,
    scheduler: Rc<Scheduler>,
    timers: Rc<Timers>,
    remote: Arc<Remote>,
    unparker: Unparker,
    drain: Option<Duration>,
    grace: Duration,
    blocking: blocking::Pool,
    /// When the kernel was last left: the start of the lap.
    lap: Cell<u64>,
    /// Polls in one lap; the simulator makes laps short.
    budget: Cell<u32>,
    local: Rc<Local>,
    listed: Option<registry::Listed>,
}

impl Shard {
    pub(super) fn new(driver: Box<dyn Driver>, seat: Seat, settings: Settings) -> io::Result<Self> {
        let mut core = Core::new(next_number(), seat.index, seat.roll.count, seat.roll.group);
        core.log = settings.log.clone();
        let ring = Rc::new(Ring::new(core.id, driver, settings.limits)?);
        core.signals = ring.is_simulated().then(|| Arc::clone(&seat.roll.signals));
        let unparker = ring.unparker();
        let remote = Remote::new(core.id, unparker.clone());
        let blocking = settings.blocking.clone();
        let threads = (!ring.is_simulated()).then(|| blocking.clone());
        let care = care(&settings, &core, &ring)?;
        let blocks = Rc::clone(&core.blocks);
        let scheduler = Rc::new(Scheduler::new(Arc::clone(&remote), threads, blocks, care));
        let timers = Rc::new(Timers::new(ring.now()));
        core.install(Rc::clone(&ring));
        core.install(Rc::clone(&scheduler));
        core.install(Rc::clone(&timers));
        let pool = provide_buffers(&ring, &settings);
        if let Some(pool) = &pool {
            core.install(Rc::clone(pool));
        }
        let local = Rc::new(Local {
            id: core.id,
            index: core.index,
            count: core.count,
            stop: Stop::new(),
            remote: Arc::clone(&remote),
            ring: Rc::clone(&ring),
            scheduler: Rc::clone(&scheduler),
            timers: Rc::clone(&timers),
            pool,
            log: settings.log,
            fruitless: Cell::new(0),
            panics: Cell::new(0),
            caught_panics: Rc::clone(&core.caught_panics),
            excused: Cell::new(0),
            handles: OnceCell::new(),
            values: Values::default(),
            roll: seat.roll,
        });
        local.install(&core);
        let listed = Some(registry::Listed::new(Arc::clone(&remote)));
        local.roll.enter(Handle::of(&local));
        blocking.join();
        let (drain, grace) = (settings.drain, settings.grace);
        let lap = Cell::new(ring.now());
        let budget = Cell::new(BUDGET);
        Ok(Shard {
            core,
            ring,
            scheduler,
            timers,
            remote,
            unparker,
            drain,
            grace,
            blocking,
            lap,
            budget,
            local,
            listed,
        })
    }

    pub(super) fn local(&self) -> &Rc<Local> {
        &self.local
    }

    /// Runs the loop until `future` is done. It is an entry of the ready queue like every task.
    #[track_caller]
    pub(super) fn block_on<F: Future>(&self, future: F) -> F::Output {
        assert!(
            current::id().is_none(),
            "block_on was called inside a runtime; await the future there, or spawn it"
        );
        assert!(
            self.listed.is_some(),
            "block_on was called on a runtime that has been shut down; make a new one"
        );
        assert!(!fork::forked(), "block_on was called in a forked child: {}", fork::Forked);
        let _entered = current::enter(&self.core);
        self.begin();
        let outcome = self.scheduler.drive(
            future,
            || self.run(),
            || {
                if let Err(error) = self.trade() {
                    self.die(&error);
                }
            },
        );
        match outcome {
            Ok(output) => output,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => unreachable!("nobody can abort the future of block_on"),
            },
        }
    }

    /// Begins the first lap after a time in which nobody has turned the loop.
    fn begin(&self) {
        let now = self.ring.now();
        self.lap.set(now);
        self.timers.look(now);
    }

    /// The first half of a lap: run what can run.
    fn run(&self) {
        let start = self.lap.get();
        self.scheduler.run(self.budget.get(), || self.ring.now() - start > LATE_NS);
    }

    /// The second half of a lap: trade with the kernel, fire what is due.
    fn trade(&self) -> io::Result<()> {
        let wait = self.wait();
        let answered = self.ring.turn(wait, self.timers.next())?;
        self.unparker.awake();
        let now = self.ring.now();
        self.lap.set(now);
        let fired = self.fire(now);
        if wait == Wait::Block && answered + fired == 0 && self.remote.is_empty() {
            self.local.note_fruitless_lap();
        }
        Ok(())
    }

    fn fire(&self, now: u64) -> usize {
        self.scheduler.watched("what was due at a time", || self.timers.fire(now))
    }

    /// One lap without a sleep, for a loop around this one. After `Idle` the core is parked: its
    /// requests are handed over, and whatever brings work makes the driver's descriptor readable.
    pub(super) fn turn(&self) -> Turn {
        assert!(current::id().is_none(), "turn was called inside a runtime");
        assert!(self.listed.is_some(), "turn was called on a runtime that has been shut down");
        assert!(!fork::forked(), "turn was called in a forked child: {}", fork::Forked);
        let _entered = current::enter(&self.core);
        self.unparker.awake();
        self.begin();
        let polls = self.scheduler.polls();
        self.run();
        let ran = self.scheduler.polls() != polls;
        let wait = self.wait();
        let answered = match wait {
            Wait::Poll => self.ring.turn(wait, None),
            _ => self.ring.rest(self.timers.next()),
        };
        let answered = answered.unwrap_or_else(|error| self.die(&error));
        let fired = self.fire(self.ring.now());
        // Whoever turns looks at what a task has done before it sleeps, so a turn that ran one is
        // never the last before a sleep.
        if ran || answered + fired > 0 || wait == Wait::Poll || !self.scheduler.is_idle() {
            self.unparker.awake();
            return Turn::More;
        }
        Turn::Idle
    }

    pub(super) fn readiness(&self) -> Option<BorrowedFd<'_>> {
        self.ring.readiness()
    }

    /// Calls `f` as the core's own code, between two laps.
    pub(super) fn within<R>(&self, f: impl FnOnce() -> R) -> R {
        let _entered = current::enter(&self.core);
        f()
    }

    /// What the simulator may touch between two turns.
    pub(super) fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// How many polls a lap has.
    pub(super) fn set_budget(&self, polls: u32) {
        self.budget.set(polls);
    }

    /// Whether no task is ready, and no other core has sent anything.
    pub(super) fn is_quiet(&self) -> bool {
        self.scheduler.is_idle() && self.remote.is_empty()
    }

    /// When the first timer is due.
    pub(super) fn next_timer(&self) -> Option<u64> {
        self.timers.next()
    }

    /// Starts a task from outside of the loop.
    #[track_caller]
    pub(super) fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        assert!(self.listed.is_some(), "spawn was called on a runtime that has been shut down");
        let at = Location::caller();
        self.within(|| task::spawn_at(future, at))
    }

    /// How long this lap may sleep: not at all while anything is ready, here or in the inbox.
    fn wait(&self) -> Wait {
        if !self.scheduler.is_idle() || self.ring.calls_on() {
            return Wait::Poll;
        }
        self.unparker.announce();
        if self.remote.is_empty() { Wait::Block } else { Wait::Poll }
    }

    /// Ends everything: tasks first, then what they had in flight, then the ring.
    pub(super) fn shut_down(&mut self, patience: Option<Duration>) -> Drained {
        let Some(listed) = self.listed.take() else { return Drained::Empty };
        let _entered = current::enter(&self.core);
        self.scheduler.shut_down();
        self.timers.shut_down();
        self.local.values.shut_down();
        let log = self.local.log.clone();
        let start = Instant::now();
        let mut warned = 0;
        let drained = self.ring.drain(|left, waited| {
            if waited.as_secs() > warned {
                warned = waited.as_secs();
                log.line(&format!("shutdown waits for {left} operations since {warned} s"));
            }
            patience.is_none_or(|patience| waited < patience)
        });
        if let Drained::Leaked(left) = drained {
            log.line(&format!("shutdown left {left} operations behind; their memory is leaked"));
        }
        let rest = patience.map_or(self.grace, |patience| patience.saturating_sub(start.elapsed()));
        let busy = self.blocking.leave(rest, |left, seconds| {
            log.line(&format!("shutdown waits for {left} blocking jobs since {seconds} s"));
        });
        if busy > 0 {
            log.line(&format!("shutdown left {busy} blocking jobs to themselves"));
        }
        drop(listed);
        drained
    }

    /// The loop cannot go on: the kernel refused in a way that nobody can mend.
    fn die(&self, error: &io::Error) -> ! {
        if fork::forked() {
            panic!("block_on was called in a forked child: {error}");
        }
        self.local.log.line(&format!("core {}: {error}; the process ends", self.core.index));
        // Operations in flight own memory that the kernel may still write to.
        std::process::abort();
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        self.shut_down(self.drain);
    }
}
