//! How a runtime is to be: the choices, checked, and the verbs that start it.

use std::fmt;
use std::future::Future;
use std::io;
use std::time::Duration;

use super::diagnose::{Failed, why};
use super::entry::Main;
use super::error::{Error, Result};
use super::roll::Roll;
use super::shard::{Seat, Settings, Shard};
use super::{Runtime, start};
use crate::buf::pool;
use crate::driver::caps::{Mask, UnknownCaps};
use crate::driver::kind::Neither;
use crate::driver::sim::Simulated;
use crate::driver::uring::{EnterFault, Refused, Sizes};
use crate::driver::{Driver, DriverKind, Waiting};
use crate::op::Limits;
use crate::sys::atomic::Arc;
use crate::sys::log::Log;
use crate::sys::{cpus, fork};
use crate::task::Policy;
use crate::task::blocking::pool::{Pool, Threads};
use crate::time::nanoseconds;

/// More operations in flight than this find no place in a core's table.
const MOST_OPS: u32 = 1 << 22;

/// A signal that stops the cores; see [`Builder::shutdown_on`].
///
/// ```no_run
/// use quoit::runtime::{Builder, Signal};
///
/// Builder::new().shutdown_on([Signal::TERM]).start_per_core(async || {})?;
/// # quoit::runtime::Result::Ok(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signal(i32);

impl Signal {
    /// `SIGINT`, which Ctrl-C sends.
    pub const INT: Signal = Signal(libc::SIGINT);
    /// `SIGTERM`, which service managers and `kill` send.
    pub const TERM: Signal = Signal(libc::SIGTERM);

    pub(super) fn number(self) -> i32 {
        self.0
    }

    pub(super) fn name(number: i32) -> &'static str {
        match number {
            libc::SIGINT => "SIGINT",
            libc::SIGTERM => "SIGTERM",
            _ => "a signal",
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Signal::name(self.0))
    }
}

/// On which CPUs the cores run.
#[derive(Debug, Clone)]
enum Cpus {
    /// As many as are allowed.
    Allowed,
    Count(usize),
    These(Vec<usize>),
}

/// Which kernel each core talks to.
#[derive(Clone)]
enum Kernel {
    /// What `QUOIT_DRIVER` says, or `Auto`.
    Open,
    Kind(DriverKind),
    Own(Arc<Make>),
}

type Make = dyn Fn(usize) -> io::Result<Box<dyn Driver>> + Send + Sync;

type Faults = Arc<dyn Fn(usize) -> EnterFault + Send + Sync>;

/// How a runtime is to be. Everything has a default, and the last call of a method counts.
///
/// ```
/// use quoit::runtime::Builder;
/// use std::time::Duration;
///
/// let answer = Builder::new()
///     .max_live_ops(10_000)
///     .drain_deadline(Duration::from_secs(10))
///     .log(|line| eprintln!("quoit: {line}"))
///     .run(async { 6 * 7 })?;
/// assert_eq!(answer, 42);
/// # quoit::runtime::Result::Ok(())
/// ```
#[derive(Clone)]
#[must_use = "a Builder does nothing until `run`, `build` or `start_per_core` is called"]
pub struct Builder {
    cpus: Cpus,
    pub(super) pin: bool,
    kernel: Kernel,
    sizes: Sizes,
    limits: Limits,
    drain: Option<Duration>,
    pub(super) grace: Duration,
    pub(super) signals: Vec<Signal>,
    pub(super) log: Log,
    pub(super) thread_name: String,
    threads: Threads,
    /// Made once for all cores of a start.
    blocking: Option<Pool>,
    faults: Option<Faults>,
    caps: Option<String>,
    waiting: Option<Waiting>,
    receive_buffers: u16,
    pub(super) on_panic: Policy,
    pub(super) stall: Option<Duration>,
}

impl Default for Builder {
    fn default() -> Self {
        Builder::new()
    }
}

impl Builder {
    /// The defaults.
    pub fn new() -> Self {
        Builder {
            cpus: Cpus::Allowed,
            pin: true,
            kernel: Kernel::Open,
            sizes: Sizes::default(),
            limits: Limits { live: 65_536, deadline_in_wait: false },
            drain: None,
            grace: Duration::from_secs(10),
            signals: vec![Signal::INT, Signal::TERM],
            log: Log::default(),
            thread_name: "quoit".into(),
            threads: Threads {
                most: 512,
                keep_alive: Duration::from_secs(10),
                name: String::new(),
            },
            blocking: None,
            faults: None,
            caps: None,
            waiting: None,
            receive_buffers: pool::MOST,
            on_panic: Policy::default(),
            stall: None,
        }
    }

    /// How many cores [`start_per_core`](Builder::start_per_core) starts. The default is one per
    /// CPU on which the process may run, but no more than its cgroup's quota, rounded up.
    ///
    /// More than there are CPUs is allowed, for tests: they then share CPUs.
    ///
    /// # Panics
    /// If `count` is 0.
    pub fn cores(mut self, count: usize) -> Self {
        assert!(
            count > 0,
            "cores(0): a runtime needs at least one core; leave the call out for one per CPU"
        );
        self.cpus = Cpus::Count(count);
        self
    }

    /// On which CPUs [`start_per_core`](Builder::start_per_core) starts cores, by their numbers in
    /// the order of the cores; it takes the place of [`cores`](Builder::cores). The start fails if
    /// the process may not run on one of them.
    ///
    /// # Panics
    /// If there is none, or one twice.
    pub fn cpus(mut self, numbers: impl IntoIterator<Item = usize>) -> Self {
        let numbers: Vec<usize> = numbers.into_iter().collect();
        assert!(!numbers.is_empty(), "cpus([]): name at least one CPU, or leave the call out");
        for (index, cpu) in numbers.iter().enumerate() {
            let twice = numbers[..index].contains(cpu);
            assert!(
                !twice,
                "cpus(..) names CPU {cpu} twice; two cores on one CPU only wait for each other"
            );
        }
        self.cpus = Cpus::These(numbers);
        self
    }

    /// Whether [`start_per_core`](Builder::start_per_core) pins each core's thread to its CPU
    /// (yes). A pin that fails is a line in the [`log`](Builder::log), not an error.
    pub fn pin(mut self, pin: bool) -> Self {
        self.pin = pin;
        self
    }

    /// Which kernel the cores talk to. Without this call it is what the environment's `QUOIT_DRIVER`
    /// says (`auto`, `uring` or `epoll`), and without that [`DriverKind::Auto`]: io_uring, or epoll
    /// where the system refuses io_uring itself. That is said once per start, with its cause, in a
    /// line of the [`log`](Builder::log), and [`runtime::driver`](super::driver) tells which it is.
    /// All cores of a start have the same. With [`DriverKind::Uring`] the start fails instead.
    pub fn driver(mut self, kind: DriverKind) -> Self {
        self.kernel = Kernel::Kind(kind);
        self
    }

    /// A kernel of your own: `make` is called once for each core, on its thread, with its index.
    ///
    /// The sizes of the queues are then the driver's own matter.
    pub fn driver_with(
        mut self,
        make: impl Fn(usize) -> io::Result<Box<dyn Driver>> + Send + Sync + 'static,
    ) -> Self {
        self.kernel = Kernel::Own(Arc::new(make));
        self
    }

    /// A kernel whose time passes only while its core has nothing to do: for tests. It is a simulated
    /// one, without faults: sleeps and timeouts take no time on the clock on the wall, and end exactly
    /// when they are due. [`time::advance`](crate::time::advance) moves the clock.
    ///
    /// It has a network of its own, `localhost`, where each thing takes some microseconds. A loop that
    /// [yields](crate::task::yield_now) until a timer is due waits for ever, because it has something
    /// to do.
    ///
    /// ```
    /// use quoit::runtime::Builder;
    /// use quoit::time::{Instant, sleep};
    /// use std::time::Duration;
    ///
    /// Builder::new().paused().run(async {
    ///     let start = Instant::now();
    ///     sleep(Duration::from_secs(86_400)).await; // takes no time
    ///     assert_eq!(start.elapsed(), Duration::from_secs(86_400));
    /// })?;
    /// # quoit::runtime::Result::Ok(())
    /// ```
    pub fn paused(self) -> Self {
        self.driver_with(|_| Ok(Box::new(Simulated::paused())))
    }

    /// Entries of each core's submission queue (512). The kernel rounds up to a power of two, and
    /// has a maximum of 32,768. More requests than that wait in the process.
    ///
    /// # Panics
    /// If `entries` is 0.
    pub fn sq_entries(mut self, entries: u32) -> Self {
        assert!(entries > 0, "sq_entries(0): the queue of requests needs at least one entry");
        self.sizes.submissions = entries;
        self
    }

    /// Entries of each core's completion queue (8,192), at least as many as of its submission queue.
    /// The kernel rounds up to a power of two. More answers than that wait in the kernel.
    ///
    /// # Panics
    /// If `entries` is 0.
    pub fn cq_entries(mut self, entries: u32) -> Self {
        assert!(entries > 0, "cq_entries(0): the queue of answers needs at least one entry");
        self.sizes.completions = entries;
        self
    }

    /// How many buffers of 4 KiB each core has at most for what its connections receive (4,096). It
    /// begins with 256, and publishes more as they are needed.
    ///
    /// One connection is leased an eighth of them at most (512, or 2 MiB, but always one), and all of
    /// them seven eighths: beyond, what arrives is copied to the heap. Fewer buffers therefore cost time,
    /// never bytes or connections.
    ///
    /// # Panics
    /// If `count` is 0 or above 32,768.
    pub fn receive_buffers(mut self, count: u16) -> Self {
        let most = pool::LARGEST;
        assert!(
            (1..=most).contains(&count),
            "receive_buffers({count}): choose a number from 1 to {most}"
        );
        self.receive_buffers = count;
        self
    }

    /// At how many operations in flight on a core those that start new work (accepts, connects,
    /// file operations) wait for others to end (65,536). Sends, receives and closes never do.
    ///
    /// # Panics
    /// If `count` is 0 or above 4,194,304.
    pub fn max_live_ops(mut self, count: u32) -> Self {
        assert!(
            (1..=MOST_OPS).contains(&count),
            "max_live_ops({count}): choose a number from 1 to {MOST_OPS}"
        );
        self.limits.live = count;
        self
    }

    /// How long the end of a core waits for the last answers of the kernel; what has not answered
    /// by then is left behind, and its memory leaked. The default is to wait for ever, with a line
    /// in the [`log`](Builder::log) each second.
    ///
    /// All operations are cancelled first, so a core seldom waits for more than a moment.
    pub fn drain_deadline(mut self, deadline: Duration) -> Self {
        self.drain = Some(deadline);
        self
    }

    /// How long mains that take a [`Core`](super::Core) may go on after a stop was requested
    /// (10 s); then they are dropped. Without a [`drain_deadline`](Builder::drain_deadline) it is
    /// also how long the last core waits for blocking jobs that run.
    pub fn grace(mut self, period: Duration) -> Self {
        self.grace = period;
        self
    }

    /// Which signals stop the cores of [`start_per_core`](Builder::start_per_core) (both). With
    /// none, the process's own dispositions hold.
    pub fn shutdown_on(mut self, signals: impl IntoIterator<Item = Signal>) -> Self {
        self.signals = signals.into_iter().collect();
        self
    }

    /// Where the runtime's own words go, line by line, from any of its threads: a pin that failed,
    /// a signal, a second error. By default they go nowhere. `hook` must not block; its panics are
    /// caught.
    pub fn log(mut self, hook: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.log = Log::to(hook);
        self
    }

    /// Whether each wait in the kernel carries its deadline (no), instead of one timeout request
    /// that is left alone while it fires no later than needed.
    pub fn deadline_in_wait(mut self, yes: bool) -> Self {
        self.limits.deadline_in_wait = yes;
        self
    }

    /// What a core prefers that has nothing to do: to answer as soon as it can, or to spend less CPU
    /// time. Without this call it is what the environment's `QUOIT_WAITING` says (`latency`,
    /// `balanced` or `throughput`), and without that [`Waiting::Latency`].
    ///
    /// [`Waiting::Balanced`] saves up to a quarter of the CPU time of a core that serves many busy
    /// connections and is not saturated, as long as their clients wait for replies and are served
    /// no slower for it. [`Waiting::Throughput`] saves it also at the price of up to 50 µs for each
    /// request. What either does is in [`Stats`](super::Stats): `coalesced_sleeps`, `windows_on`,
    /// `windows_off`. They need io_uring of kernel 6.12; without that they change nothing.
    ///
    /// ```
    /// use quoit::runtime::{Builder, Waiting};
    ///
    /// Builder::new().waiting(Waiting::Balanced).run(async {})?;
    /// # quoit::runtime::Result::Ok(())
    /// ```
    pub fn waiting(mut self, waiting: Waiting) -> Self {
        self.waiting = Some(waiting);
        self
    }

    /// For how long a core with nothing to do watches its queues before it sleeps, at most (not at
    /// all). Whatever comes meanwhile, from the kernel or from another thread, is spared the way
    /// through the scheduler: 5 to 15 µs.
    ///
    /// It costs CPU time, up to 1.7 times as much for each message, and a CPU that has nothing else
    /// to do. A core watches for twice as long as its last waits took, and not at all while these
    /// were longer than `most`; so an idle core sleeps. 50 µs is a good choice, more than a second is
    /// taken as a second. Where there are more cores than CPUs nothing is watched; nor on epoll.
    /// [`Stats`](super::Stats) count what it does: `spins`, `spins_won`.
    ///
    /// ```
    /// use quoit::runtime::Builder;
    /// use std::time::Duration;
    ///
    /// Builder::new().spin(Duration::from_micros(50)).run(async {})?;
    /// # quoit::runtime::Result::Ok(())
    /// ```
    pub fn spin(mut self, most: Duration) -> Self {
        self.sizes.spin = most;
        self
    }

    /// What the threads of [`start_per_core`](Builder::start_per_core) are called (`quoit`), before
    /// `-` and the core's index. The kernel shows the first 15 bytes.
    ///
    /// # Panics
    /// If it contains a zero byte.
    pub fn thread_name(mut self, name: impl Into<String>) -> Self {
        self.thread_name = name.into();
        assert!(!self.thread_name.contains('\0'), "thread_name(..): a name has no zero byte");
        self
    }

    /// How many threads [`spawn_blocking`](crate::spawn_blocking) has at most, for all cores that are
    /// started together (512). Jobs beyond that wait in a queue.
    ///
    /// # Panics
    /// If `count` is 0.
    pub fn max_blocking_threads(mut self, count: usize) -> Self {
        assert!(count > 0, "max_blocking_threads(0): without a thread no blocking job would run");
        self.threads.most = count;
        self
    }

    /// How long a thread of [`spawn_blocking`](crate::spawn_blocking) waits for another job before it
    /// ends (10 s). With `Duration::MAX` it stays for as long as the runtime.
    pub fn thread_keep_alive(mut self, time: Duration) -> Self {
        self.threads.keep_alive = time;
        self
    }

    /// Makes enters fail, for tests: called once for each core, with its index.
    #[doc(hidden)]
    pub fn enter_faults(
        mut self,
        faults: impl Fn(usize) -> Box<dyn FnMut(u32) -> Option<(i32, u32)>> + Send + Sync + 'static,
    ) -> Self {
        self.faults = Some(Arc::new(faults));
        self
    }

    /// Takes capabilities of io_uring away, for tests, as `QUOIT_CAPS` does, which then says nothing:
    /// the name of a kernel (`5.10`, .., `6.12`), or `no-` and a capability, or `restricted`, or
    /// several with commas between, or `none`.
    #[doc(hidden)]
    pub fn caps(mut self, mask: &str) -> Self {
        self.caps = Some(mask.to_owned());
        self
    }

    /// Runs `future` on one core, on this thread, which is not pinned, and then drains the core.
    ///
    /// # Errors
    /// When the core cannot be started.
    ///
    /// # Panics
    /// As [`Runtime::block_on`]; and as [`build`](Builder::build).
    #[track_caller]
    pub fn run<F: Future>(self, future: F) -> Result<F::Output> {
        super::assert_outside("run");
        Ok(self.build()?.block_on(future))
    }

    /// Makes a runtime of one core, on this thread, which is not pinned.
    ///
    /// # Errors
    /// When the core cannot be started.
    ///
    /// # Panics
    /// If [`cores`](Builder::cores) or [`cpus`](Builder::cpus) asked for more than one.
    #[track_caller]
    pub fn build(self) -> Result<Runtime> {
        let one = match &self.cpus {
            Cpus::Allowed => true,
            Cpus::Count(count) => *count == 1,
            Cpus::These(numbers) => numbers.len() == 1,
        };
        assert!(one, "build and run make one core, on this thread; call start_per_core for more");
        let seat = Seat { index: 0, roll: Roll::new(1, None) };
        Ok(Runtime::of(self.open(seat)?))
    }

    /// Runs `main` once on every core, each on a thread of its own; see
    /// [`runtime::start_per_core`](super::start_per_core).
    ///
    /// # Errors
    /// When a core cannot be started, or the first error or panic of a main.
    ///
    /// # Panics
    /// Inside a runtime.
    #[track_caller]
    pub fn start_per_core<Form, M: Main<Form> + Send + Sync>(self, main: M) -> Result<()> {
        super::assert_outside("start_per_core");
        start::start_per_core(self, main)
    }

    fn blocking_pool(&self) -> Pool {
        let name = format!("{}-blocking", self.thread_name);
        self.blocking.clone().unwrap_or_else(|| Pool::new(Threads { name, ..self.threads.clone() }))
    }

    /// Has all cores of this start share the threads for what blocks. Called before they are pinned.
    pub(super) fn settle_blocking(&mut self) {
        self.blocking = Some(self.blocking_pool());
    }

    /// Settles which kernel all cores of this start talk to.
    pub(super) fn settle_kernel(&mut self) -> Result<()> {
        let failed = |error: Neither| explain(None, error);
        let wanted = match &self.kernel {
            Kernel::Own(_) => return Ok(()),
            // It opens nothing; `open` says why.
            _ if fork::forked() => return Ok(()),
            Kernel::Kind(kind) => *kind,
            Kernel::Open => DriverKind::of_the_environment()
                .map_err(|wanted| failed(Neither { wanted, other: None }))?,
        };
        let choice = wanted.settle().map_err(failed)?;
        self.say(choice.refused);
        self.kernel = Kernel::Kind(choice.kind);
        Ok(())
    }

    /// Says why it is not io_uring.
    fn say(&self, refused: Option<Refused>) {
        if let Some(refused) = refused {
            self.log.line(&format!("epoll is used instead of io_uring: {}", why(refused)));
        }
    }

    /// Until when the cores have to have stopped that a signal stops `now`; `None` if it does not.
    pub(crate) fn stop_by(&self, signal: i32, now: u64) -> Option<u64> {
        let stops = self.signals.iter().any(|it| it.number() == signal);
        stops.then(|| self.end_of_grace(now))
    }

    /// When the grace period of a stop ends that is asked for `now`.
    pub(crate) fn end_of_grace(&self, now: u64) -> u64 {
        now.saturating_add(nanoseconds(self.grace))
    }

    /// Makes a core on a driver that is there already, in a seat among others: for the simulator,
    /// whose cores share a thread.
    pub(crate) fn build_on(self, driver: Box<dyn Driver>, seat: Seat) -> Result<Runtime> {
        Ok(Runtime::of(self.shard(driver, seat)?))
    }

    fn shard(&self, driver: Box<dyn Driver>, seat: Seat) -> Result<Shard> {
        let settings = Settings {
            limits: self.limits,
            drain: self.drain,
            grace: self.grace,
            blocking: self.blocking_pool(),
            log: self.log.clone(),
            receive_buffers: self.receive_buffers,
            on_panic: self.on_panic.clone(),
            stall: self.stall,
        };
        let core = Some(seat.index);
        Shard::new(driver, seat, settings).map_err(|error| {
            let step = "mapping the table of operations";
            Failed { core, step, error }.explain()
        })
    }

    /// Opens one core on this thread.
    pub(super) fn open(&self, seat: Seat) -> Result<Shard> {
        let core = Some(seat.index);
        let failed = |step| move |error| Failed { core, step, error }.explain();
        if fork::forked() {
            return Err(failed("opening a ring in a forked child")(fork::Forked.into()));
        }
        if self.sizes.completions < self.sizes.submissions {
            let Sizes { submissions, completions, .. } = self.sizes;
            let text = format!("cq_entries({completions}) is less than sq_entries({submissions})");
            let error = io::Error::new(io::ErrorKind::InvalidInput, text);
            return Err(failed("choosing the sizes of the rings")(error));
        }
        let driver = self.open_driver(seat.index).map_err(|error| explain(core, error))?;
        self.shard(driver, seat)
    }

    fn open_driver(&self, index: usize) -> std::result::Result<Box<dyn Driver>, Neither> {
        let only = |wanted| Neither { wanted, other: None };
        let kind = match &self.kernel {
            Kernel::Own(make) => {
                let step = "opening a driver of the program's own";
                return make(index).map_err(|error| only(Refused { step, error }));
            }
            Kernel::Kind(kind) => *kind,
            Kernel::Open => DriverKind::of_the_environment().map_err(only)?,
        };
        let mask = match &self.caps {
            Some(mask) => mask.parse(),
            None => Mask::of_the_environment(),
        };
        let unknown = |unknown: UnknownCaps| {
            let step = "reading which capabilities to do without";
            only(Refused { step, error: unknown.into() })
        };
        let waiting = self.waiting.map_or_else(Waiting::of_the_environment, Ok);
        let waiting = waiting.map_err(|unknown| {
            only(Refused { step: "reading QUOIT_WAITING", error: unknown.into() })
        })?;
        let sizes = Sizes { mask: mask.map_err(unknown)?, waiting, ..self.sizes };
        let fault = self.faults.as_ref().map(|faults| faults(index));
        let choice = kind.open_with(sizes, fault)?;
        self.say(choice.refused);
        Ok(choice.found)
    }

    /// Leaves the watching out where `cores` share CPUs: each would keep another from running.
    pub(super) fn settle_spin(&mut self, cores: usize) {
        let share = || cpus::choose(None).is_ok_and(|cpus| cores > cpus.len());
        if !self.sizes.spin.is_zero() && share() {
            self.log.line(&format!("{cores} cores share fewer CPUs, so none of them spins"));
            self.sizes.spin = Duration::ZERO;
        }
    }

    /// The CPU of each core.
    pub(super) fn choose_cpus(&self) -> Result<Vec<usize>> {
        let failed = |step| move |error| Failed { core: None, step, error }.explain();
        let numbers = match &self.cpus {
            Cpus::Allowed => return cpus::choose(None).map_err(failed("sched_getaffinity")),
            Cpus::Count(count) => {
                return cpus::choose(Some(*count)).map_err(failed("sched_getaffinity"));
            }
            Cpus::These(numbers) => numbers,
        };
        let allowed = cpus::allowed().map_err(failed("sched_getaffinity"))?;
        match numbers.iter().find(|cpu| !allowed.contains(cpu)) {
            None => Ok(numbers.clone()),
            Some(cpu) => {
                let text = format!(
                    "the process may not run on CPU {cpu}, only on {allowed:?}; change `cpus(..)`, or \
                     the mask (taskset, docker run --cpuset-cpus, AllowedCPUs= of a systemd unit)"
                );
                let error = io::Error::new(io::ErrorKind::InvalidInput, text);
                Err(failed("choosing CPUs")(error))
            }
        }
    }
}

/// Why no kernel would do.
fn explain(core: Option<usize>, Neither { wanted, other }: Neither) -> Error {
    let Refused { step, error } = wanted;
    let failed = Failed { core, step, error };
    match other {
        Some(other) => failed.explain_both(other),
        None => failed.explain(),
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("cpus", &self.cpus)
            .field("pin", &self.pin)
            .field("sizes", &self.sizes)
            .field("limits", &self.limits)
            .field("drain_deadline", &self.drain)
            .field("grace", &self.grace)
            .field("shutdown_on", &self.signals)
            .field("thread_name", &self.thread_name)
            .field("max_blocking_threads", &self.threads.most)
            .field("thread_keep_alive", &self.threads.keep_alive)
            .field("on_panic", &self.on_panic)
            .field("stall_threshold", &self.stall)
            .finish_non_exhaustive()
    }
}
