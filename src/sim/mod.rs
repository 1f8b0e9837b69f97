//! A simulated network, clock and disk: the same async code, from one seed, again and again.
//!
//! [`Sim`] runs whole programs, hosts and clients, on one thread. Their cores talk to an invented
//! kernel: every latency, order and fault comes out of the seed, so a run can be repeated exactly.
//! The code is that which runs on the real kernel; hosts reach each other by name.
//!
//! ```
//! use quoit::net::{TcpListener, TcpStream};
//! use quoit::sim::{Faults, Sim};
//! use std::io;
//!
//! async fn serve() -> io::Result<()> {
//!     let listener = TcpListener::bind("0.0.0.0:7000").await?;
//!     loop {
//!         let (stream, _) = listener.accept().await?;
//!         quoit::spawn(async move {
//!             while let Some(chunk) = stream.recv().await? {
//!                 stream.write_all(chunk).await?;
//!             }
//!             io::Result::Ok(())
//!         });
//!     }
//! }
//!
//! async fn exchange(server: &str) -> io::Result<()> {
//!     let stream = TcpStream::connect(server).await?;
//!     stream.write_all("hello").await?;
//!     assert_eq!(stream.read_exact(vec![0; 5]).await?, b"hello");
//!     Ok(())
//! }
//!
//! let report = Sim::new(42)
//!     .host("server", async || serve().await)
//!     .client("client", async || exchange("server:7000").await)
//!     .faults(Faults::default().partition(0.01).short_reads(0.1))
//!     .run()?;
//! println!("{report}");
//! # Ok::<(), quoit::sim::Failure>(())
//! ```
//!
//! # What is simulated
//!
//! What goes through Quoit: TCP, UDP, files (each host has a disk of its own, empty at first), timers,
//! signals ([`Sim::signal`]) and [`time::Instant`](crate::time::Instant). **Not** simulated, and
//! therefore different in each run or real, are the standard library's clocks, sockets and files,
//! threads, thread-locals and statics (all hosts share them), and the order of a `HashMap` with its
//! default hasher.
//!
//! A host whose name is `server` is reached as `server:7000`; it is 10.0.0.1 if it was added first,
//! the next is 10.0.0.2. It binds its own address, `0.0.0.0`, or `localhost`.
//!
//! # A failure
//!
//! A run fails when a client returns an error or panics, a host's main does, a
//! [check](Sim::check) says so, a client has not ended 60 virtual seconds after the last fault, or
//! the runtime itself breaks one of its invariants. [`explore`] tries many seeds, and shrinks the
//! first failure: fewer steps with faults, fewer kinds of faults. The text says how to replay it.

mod explore;
mod ledger;
mod machine;
mod report;
mod run;

use std::time::Duration;

pub use self::explore::{Explored, explore};
use self::machine::Spec;
pub use self::report::{Failure, FailureKind, Report};
use self::run::Run;
use crate::driver::Driver;
pub use crate::driver::sim::Faults;
use crate::driver::sim::Simulated;
use crate::runtime::{Builder, Main};
use crate::signal::SignalKind;

/// Faults strike for so many steps, unless [`Sim::steps`] says otherwise.
const STEPS: u64 = 20_000;

/// How long clients may go on after the last fault.
const PATIENCE: Duration = Duration::from_secs(60);

/// A check: `Err` ends the run with its text.
type Check = Box<dyn FnMut() -> Result<(), String>>;

/// Programs in a simulated world, and what is to happen to them.
///
/// See the [module](self) for an example.
#[must_use = "a simulation does nothing until `run` is called"]
pub struct Sim {
    seed: u64,
    faults: Faults,
    steps: u64,
    patience: Duration,
    specs: Vec<Spec>,
    checks: Vec<Check>,
    last_checks: Vec<Check>,
    script: Vec<Scripted>,
    builder: Builder,
}

/// What happens at a time that the user chose.
enum Scripted {
    Crash { host: String, at: Duration, down: Duration },
    Partition { one: String, two: String, at: Duration, lasting: Duration },
    Signal { host: String, kind: SignalKind, at: Duration },
}

impl Sim {
    /// A world without hosts, in which only the liberties of [`Faults::default`] are taken.
    pub fn new(seed: u64) -> Self {
        Sim {
            seed,
            faults: Faults::default(),
            steps: STEPS,
            patience: PATIENCE,
            specs: Vec::new(),
            checks: Vec::new(),
            last_checks: Vec::new(),
            script: Vec::new(),
            builder: Builder::new(),
        }
    }

    /// Adds a host of one core that runs `main`, and is ended when the last client has ended. When
    /// `main` ends before, so does the core, with its tasks and listeners. After a crash it starts
    /// `main` anew.
    pub fn host<Form, M: Main<Form>>(self, name: &str, main: M) -> Self {
        self.host_with_cores(name, 1, main)
    }

    /// Adds a host whose cores each run `main`, as [`start_per_core`](crate::runtime::start_per_core)
    /// would.
    ///
    /// # Panics
    /// If `cores` is 0, or the name is taken.
    pub fn host_with_cores<Form, M: Main<Form>>(self, name: &str, cores: usize, main: M) -> Self {
        assert!(cores > 0, "host_with_cores({name:?}, 0): a host has at least one core");
        self.add(Spec::new(name, cores, false, main))
    }

    /// Adds a client: a host of one core that never crashes. The run ends when every client has.
    pub fn client<Form, M: Main<Form>>(self, name: &str, main: M) -> Self {
        self.add(Spec::new(name, 1, true, main))
    }

    fn add(mut self, spec: Spec) -> Self {
        let name = &spec.name;
        let is_taken = self.specs.iter().any(|other| other.name == *name);
        assert!(!is_taken, "there are two hosts called {name:?}");
        self.specs.push(spec);
        self
    }

    /// What may go wrong.
    pub fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// For how many steps, turns of a core, faults strike (20,000). After them the world is calm,
    /// and clients have to end.
    pub fn steps(mut self, steps: u64) -> Self {
        self.steps = steps;
        self
    }

    /// How much virtual time clients have to end after the last fault (60 s).
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Has the power of a host fail `at` a time after the start, and come back `down` later. What
    /// was not synced to its disk may be lost; its connections are, without a word to their peers.
    pub fn crash(mut self, host: &str, at: Duration, down: Duration) -> Self {
        self.script.push(Scripted::Crash { host: host.to_owned(), at, down });
        self
    }

    /// Keeps two hosts apart, from `at` on and for `lasting`. Nothing that is sent meanwhile is
    /// lost: it arrives afterwards.
    pub fn partition(mut self, one: &str, two: &str, at: Duration, lasting: Duration) -> Self {
        let (one, two) = (one.to_owned(), two.to_owned());
        self.script.push(Scripted::Partition { one, two, at, lasting });
        self
    }

    /// Sends a signal to the process of a host, or client, `at` a time after the start.
    ///
    /// Its [streams](crate::signal) hear it, and those of
    /// [`Builder::shutdown_on`](Builder::shutdown_on) stop its cores, as they stop those of
    /// [`start_per_core`](crate::runtime::start_per_core): a second one skips the grace period. One
    /// that nobody hears does what it does by default. Mostly that ends the process: its descriptors
    /// are closed, and its host stays without one; a client's end is a failure.
    ///
    /// # Panics
    /// For what is no signal, or stops and continues processes, which is not simulated.
    ///
    /// ```
    /// use quoit::signal::{SignalKind, signal};
    /// use quoit::sim::Sim;
    /// use quoit::time::Instant;
    /// use std::time::Duration;
    ///
    /// Sim::new(1)
    ///     .client("daemon", async || {
    ///         let start = Instant::now();
    ///         signal(SignalKind::hangup())?.recv().await; // read the configuration again
    ///         assert!(start.elapsed() >= Duration::from_secs(3));
    ///         std::io::Result::Ok(())
    ///     })
    ///     .signal("daemon", SignalKind::hangup(), Duration::from_secs(4))
    ///     .run()?;
    /// # Ok::<(), quoit::sim::Failure>(())
    /// ```
    #[track_caller]
    pub fn signal(mut self, host: &str, kind: SignalKind, at: Duration) -> Self {
        const STOPS: [i32; 5] =
            [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU, libc::SIGCONT];
        let number = kind.as_raw_value();
        let is_one = (1..=64).contains(&number) && !STOPS.contains(&number);
        assert!(is_one, "Sim::signal({kind:?}): that is not simulated");
        self.script.push(Scripted::Signal { host: host.to_owned(), kind, at });
        self
    }

    /// Adds an invariant: `check` is called after every step, and its error ends the run.
    pub fn check(mut self, check: impl FnMut() -> Result<(), String> + 'static) -> Self {
        self.checks.push(Box::new(check));
        self
    }

    /// Adds an invariant of the end: `check` is called when the last client has ended well.
    pub fn check_at_end(mut self, check: impl FnMut() -> Result<(), String> + 'static) -> Self {
        self.last_checks.push(Box::new(check));
        self
    }

    /// How the runtimes of all hosts are, such as [`max_live_ops`](Builder::max_live_ops). What the
    /// builder says of drivers and CPUs does not matter here.
    pub fn builder(mut self, builder: Builder) -> Self {
        self.builder = builder;
        self
    }

    /// Runs until the last client has ended.
    ///
    /// If the environment's `SIM_SEED` is this seed, `SIM_STEPS` and `SIM_FAULTS` (names of knobs,
    /// with commas) limit the faults as they did when a failure was shrunk.
    ///
    /// # Errors
    /// What failed, with the seed and how to replay it.
    ///
    /// # Panics
    /// Inside a runtime; without a client; and when a script names a host that is not there.
    #[track_caller]
    pub fn run(self) -> Result<Report, Failure> {
        Run::new(self.limited_by_environment()).run()
    }
}

impl std::fmt::Debug for Sim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.specs.iter().map(|spec| &spec.name).collect();
        f.debug_struct("Sim")
            .field("seed", &self.seed)
            .field("faults", &self.faults)
            .field("steps", &self.steps)
            .field("hosts", &names)
            .finish_non_exhaustive()
    }
}

/// The simulated kernel of one core that is alone in its world, for
/// [`Builder::driver_with`](crate::runtime::Builder::driver_with): what runs on it runs in virtual
/// time, with `localhost` for a network.
///
/// ```
/// use quoit::sim::{self, Faults};
/// use quoit::time::{Instant, sleep};
/// use std::time::Duration;
///
/// quoit::runtime::Builder::new()
///     .driver_with(|_| Ok(sim::driver(7, Faults::default())))
///     .run(async {
///         let start = Instant::now();
///         sleep(Duration::from_secs(86_400)).await; // takes no time
///         assert!(start.elapsed() >= Duration::from_secs(86_400));
///     })?;
/// # quoit::runtime::Result::Ok(())
/// ```
#[must_use]
pub fn driver(seed: u64, faults: Faults) -> Box<dyn Driver> {
    Box::new(Simulated::alone(seed, faults))
}
