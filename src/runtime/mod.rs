//! Starting loops and talking to them.
//!
//! A **core** is one loop on one thread: an io_uring, its tasks and its timers. It shares nothing
//! with other cores. [`start_per_core`] starts one on every CPU, pinned, and is how servers start;
//! [`run`] starts one on this thread, for programs that need no more.
//!
//! ```no_run
//! use quoit::runtime;
//!
//! async fn serve() -> std::io::Result<()> {
//!     println!("core {} runs", runtime::core().index());
//!     Ok(())
//! }
//!
//! fn main() -> runtime::Result<()> {
//!     runtime::start_per_core(serve)
//! }
//! ```
//!
//! # The end of a core
//!
//! When its main has ended, its tasks are dropped, and with them what they were doing: operations in
//! flight are cancelled. The core then *drains*: it waits until the kernel has answered each of
//! them, because until then the kernel may write into their memory. That takes a moment; a limit can
//! be set with [`Builder::drain_deadline`].
//!
//! # Giving up privileges
//!
//! A process may call `setuid` and its kin after its runtimes were made, to bind a port first, for one.
//! What is begun after the call has the new rights, on every kernel: io_uring takes those of the core's
//! thread when a request is handed over, and no ring has registered others. What was begun before ends
//! with the rights that it began with, and what is open stays open. The C library's functions change
//! all threads of the process, those that block among them; the bare system call changes one alone.

mod builder;
mod call;
mod cancel;
mod care;
mod core;
pub(crate) mod diagnose;
mod dump;
pub(crate) mod entry;
pub(crate) mod error;
mod handle;
mod local;
mod per_core;
mod remote_task;
pub(crate) mod roll;
pub(crate) mod shard;
mod simulated;
mod start;
mod stats;
mod stop;

use std::fmt;
use std::future::Future;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

pub use self::builder::{Builder, Signal};
pub use self::call::{Call, Gone, map_cores};
pub use self::cancel::Cancel;
pub use self::core::{Core, Shutdown};
pub use self::dump::{Dump, OperationDump, TaskDump, TaskState, WaitsFor};
pub use self::entry::{Main, Outcome};
pub use self::error::{Error, ErrorKind, Result};
pub use self::handle::{CoreEnded, Handle};
use self::local::Local;
pub use self::per_core::PerCore;
pub use self::remote_task::RemoteTask;
pub use self::roll::{NoSuchCore, core_at, core_for, cores};
use self::shard::Shard;
pub use self::stats::Stats;
pub use crate::driver::Waiting;
use crate::op::Drained;
use crate::sys::current;
use crate::task::JoinHandle;

/// Runs `future` on one core, on this thread, which is not pinned, and then drains the core.
///
/// # Errors
/// When the core cannot be started. The text says what failed, why, and what mends it.
///
/// # Panics
/// Inside a runtime; and if `future` panics, with its panic.
///
/// ```
/// let sum = quoit::runtime::run(async {
///     let task = quoit::spawn(async { 20 });
///     task.await.unwrap() + 22
/// })?;
/// assert_eq!(sum, 42);
/// # quoit::runtime::Result::Ok(())
/// ```
#[track_caller]
pub fn run<F: Future>(future: F) -> Result<F::Output> {
    Builder::new().run(future)
}

/// Runs `main` once on every core, each on a thread of its own, and returns when all have ended.
///
/// There is one core per CPU on which the process may run, but no more than the CPU quota of its
/// cgroup, and those of different physical cores come first. Each thread is pinned to its CPU; if
/// that fails, it runs unpinned, which the [log](Builder::log) says. `main` is an `async fn()` or an
/// `async fn(Core)`, or an async closure of either form. Each core calls it for itself, so neither
/// its future nor what it makes need be `Send`. It returns `()` or a `Result`, see [`Outcome`].
///
/// - The cores start all or not at all: if one cannot open its ring, none runs `main`.
/// - `Ok` ends its own core and no other. With it end the tasks that the core still has.
/// - The first error or panic of a `main` stops all cores, and is returned with its core's index.
///   A panic in a task is that task's own, and no other's.
/// - `SIGINT`, `SIGTERM` and [`Core::stop`] stop all cores; the result is then `Ok(())`.
///
/// A stop drops mains without a [`Core`] at once. Those that take one see [`Core::shutdown`] end,
/// and have the grace period ([`Builder::grace`], 10 s) to end by themselves; then they are dropped.
/// A second signal skips it. A main that does not return from a poll cannot be stopped.
///
/// The signals are blocked on this thread, and so on all that it makes, and are restored when this
/// returns. Call it before other threads are made: a thread that does not block them
/// receives them in its place, and the process ends. [`Builder::shutdown_on`] chooses the signals.
///
/// # Errors
/// When a core cannot be started (the text says what failed, why, and what mends it), or the first
/// error or panic of a `main`.
///
/// # Panics
/// Inside a runtime.
///
/// ```
/// use quoit::runtime::{self, Core};
///
/// runtime::start_per_core(async |core: Core| {
///     assert!(core.index() < core.count());
/// })?;
///
/// let error = runtime::start_per_core(async || Err::<(), _>("not today")).unwrap_err();
/// assert!(error.to_string().ends_with("failed: not today"));
/// # runtime::Result::Ok(())
/// ```
#[track_caller]
pub fn start_per_core<Form, M: Main<Form> + Send + Sync>(main: M) -> Result<()> {
    Builder::new().start_per_core(main)
}

/// What `#[quoit::main]` and `#[quoit::test]` call: [`Builder::run`], with a panic where that fails.
#[doc(hidden)]
#[track_caller]
pub fn run_or_panic<F: Future>(builder: Builder, future: F) -> F::Output {
    builder.run(future).unwrap_or_else(|error| panic!("the runtime could not be started: {error}"))
}

/// The current core.
///
/// # Panics
/// Outside of a runtime.
///
/// ```
/// # quoit::runtime::run(async {
/// assert_eq!(quoit::runtime::core().index(), 0);
/// # }).unwrap();
/// ```
#[must_use]
#[track_caller]
pub fn core() -> Core {
    here("core")
}

/// What the current core has and has done.
///
/// # Panics
/// Outside of a runtime.
///
/// ```
/// # quoit::runtime::run(async {
/// assert_eq!(quoit::runtime::stats().stray, 0);
/// # }).unwrap();
/// ```
#[must_use]
#[track_caller]
pub fn stats() -> Stats {
    here("stats").stats()
}

/// Every task of the current core, where it was spawned, and what it waits for.
///
/// It is for people who wonder what a program does, and looks at everything. [`Handle::dump`] asks another
/// core, and [`Runtime::dump`] one that rests.
///
/// # Panics
/// Outside of a runtime.
///
/// ```
/// use quoit::runtime::{self, WaitsFor};
/// use quoit::{task, time};
/// use std::time::Duration;
///
/// # runtime::run(async {
/// let nap = time::sleep(Duration::from_secs(60));
/// task::Builder::new().name("dreamer").spawn(nap);
/// task::yield_now().await;
///
/// let dump = runtime::dump();
/// println!("{dump}"); // .. 1: the task "dreamer", spawned at src/main.rs:7:38, waits
/// let dreamer = dump.tasks.iter().find(|task| task.name.as_deref() == Some("dreamer")).unwrap();
/// assert!(matches!(dreamer.waits_for[..], [WaitsFor::Timer(_)]));
/// # }).unwrap();
/// ```
#[must_use]
#[track_caller]
pub fn dump() -> Dump {
    here("dump").dump()
}

/// Which kernel the current core talks to: `io_uring`, `epoll`, or what a driver of one's own says.
///
/// # Panics
/// Outside of a runtime.
///
/// ```
/// # quoit::runtime::run(async {
/// println!("running on {}", quoit::runtime::driver());
/// # }).unwrap();
/// ```
#[must_use]
#[track_caller]
pub fn driver() -> &'static str {
    here("driver").driver()
}

#[track_caller]
fn here(what: &str) -> Core {
    match Local::current() {
        Some(local) => Core::new(local),
        None => panic!(
            "runtime::{what} was called outside of a runtime; start one with `quoit::runtime::run` \
             or `quoit::runtime::start_per_core`"
        ),
    }
}

#[track_caller]
fn assert_outside(what: &str) {
    assert!(
        current::id().is_none(),
        "runtime::{what} was called inside a runtime, and would block it; await the future there, \
         or spawn it"
    );
}

/// One core on this thread, for as long as it is kept: for programs that enter and leave it.
///
/// It does not leave the thread (it is not `Send`). Between two calls of
/// [`block_on`](Runtime::block_on) its tasks rest. Dropping it shuts it down.
///
/// ```
/// use quoit::runtime::Runtime;
/// use std::time::Duration;
///
/// let mut runtime = Runtime::new()?;
/// let task = runtime.block_on(async { quoit::spawn(async { "kept" }) });
/// assert_eq!(runtime.block_on(task).unwrap(), "kept");
/// assert_eq!(runtime.shutdown(Duration::from_secs(5)), 0);
/// # quoit::runtime::Result::Ok(())
/// ```
pub struct Runtime {
    shard: Shard,
}

impl Runtime {
    /// A runtime with the defaults; [`Builder::build`] has the choices.
    ///
    /// # Errors
    /// When the core cannot be started. The text says what failed, why, and what mends it.
    pub fn new() -> Result<Self> {
        Builder::new().build()
    }

    fn of(shard: Shard) -> Self {
        Runtime { shard }
    }

    /// Runs the loop until `future` is done, and returns its output.
    ///
    /// Tasks that were spawned and have not ended by then rest until the next call.
    ///
    /// # Panics
    /// Inside a runtime, after [`shutdown`](Runtime::shutdown), and in a forked child; and if
    /// `future` panics, with its panic. After the latter the runtime can be used again.
    #[track_caller]
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.shard.block_on(future)
    }

    /// [`block_on`](Runtime::block_on), by the name that `asyncio` has for it.
    ///
    /// # Panics
    /// As [`block_on`](Runtime::block_on).
    #[track_caller]
    pub fn run_until_complete<F: Future>(&self, future: F) -> F::Output {
        self.block_on(future)
    }

    /// Ends the core: drops its tasks and timers, cancels what is in flight, and waits for the last
    /// answers, for no longer than `deadline`. Returns how many operations had not been answered by
    /// then (0 unless a device hangs): they are left behind, and their memory is leaked.
    ///
    /// A second call does nothing, and returns 0. Handles that outlive the core can be dropped;
    /// wakers and [`Handle`]s do nothing.
    pub fn shutdown(&mut self, deadline: Duration) -> u32 {
        match self.shard.shut_down(Some(deadline)) {
            Drained::Empty => 0,
            Drained::Leaked(left) => left,
        }
    }

    /// Starts a task, which rests until the loop is turned.
    ///
    /// # Panics
    /// After [`shutdown`](Runtime::shutdown).
    #[track_caller]
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        self.shard.spawn(future)
    }

    /// One lap that does not sleep, for a program that has a loop of its own: runs what is ready,
    /// trades with the kernel, fires what is due.
    ///
    /// After [`Turn::Idle`] the core is parked: its requests are with the kernel, and its
    /// descriptor ([`AsFd`]) becomes readable when one is answered, a timer is due, or another
    /// thread wakes a task. The foreign loop waits for that, then calls this again.
    ///
    /// # Panics
    /// Inside a runtime, after [`shutdown`](Runtime::shutdown), and in a forked child.
    ///
    /// ```
    /// use quoit::runtime::{Runtime, Turn};
    /// use std::os::fd::{AsFd, AsRawFd};
    /// use std::time::Duration;
    ///
    /// let runtime = Runtime::new()?;
    /// let task = runtime.spawn(quoit::time::sleep(Duration::from_millis(5)));
    /// while !runtime.is_finished(&task) {
    ///     if runtime.turn() == Turn::Idle {
    ///         // A real loop waits here for its own descriptors as well.
    ///         let fd = runtime.as_fd().as_raw_fd();
    ///         let mut ours = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    ///         unsafe { libc::poll(&raw mut ours, 1, -1) };
    ///     }
    /// }
    /// # quoit::runtime::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn turn(&self) -> Turn {
        self.shard.turn()
    }

    /// Whether a task of this runtime has ended, asked from outside of the loop.
    ///
    /// # Panics
    /// If the task is another core's.
    #[must_use]
    pub fn is_finished<T>(&self, task: &JoinHandle<T>) -> bool {
        self.shard.within(|| task.is_finished())
    }

    /// What the core has and has done.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shard.local().stats()
    }

    /// Every task, where it was spawned, and what it waits for; see [`runtime::dump`](dump).
    #[must_use]
    pub fn dump(&self) -> Dump {
        self.shard.local().dump()
    }

    /// The way in for other threads.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle::of(self.shard.local())
    }
}

/// The descriptor to wait for after [`Turn::Idle`].
///
/// # Panics
/// After [`Runtime::shutdown`], and with a driver that has none ([`Driver::readiness`]).
///
/// [`Driver::readiness`]: crate::driver::Driver::readiness
impl AsFd for Runtime {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shard.readiness().expect("this driver has no descriptor to wait for")
    }
}

/// What a [turn](Runtime::turn) left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "only after `Idle` may the surrounding loop sleep"]
pub enum Turn {
    /// There is more to do at once: turn again.
    More,
    /// Nothing is ready: wait until the descriptor is readable, then turn again.
    Idle,
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("core", &self.shard.local().id).finish_non_exhaustive()
    }
}
