//! A host of a simulation: its cores, and the mains that they run.

use std::rc::Rc;

use crate::driver::sim::{Random, Shared, Simulated};
use crate::runtime::Main;
use crate::runtime::error::BoxError;
use crate::runtime::roll::Roll;
use crate::runtime::shard::Seat;
use crate::runtime::{Builder, Runtime};
use crate::sys::atomic::Arc;
use crate::task::{JoinHandle, describe};

/// Signals whose default action is none. Rust's runtime has `SIGPIPE` ignored.
const DO_NOTHING: [i32; 4] = [libc::SIGCHLD, libc::SIGURG, libc::SIGWINCH, libc::SIGPIPE];

type Outcome = Result<(), BoxError>;
type Start = dyn Fn(&Runtime) -> JoinHandle<Outcome>;

/// What a host is to run.
pub(super) struct Spec {
    pub(super) name: String,
    cores: usize,
    pub(super) is_client: bool,
    start: Rc<Start>,
}

impl Spec {
    pub(super) fn new<Form, M: Main<Form>>(
        name: &str,
        cores: usize,
        is_client: bool,
        main: M,
    ) -> Self {
        let main = Rc::new(main);
        let start = move |runtime: &Runtime| runtime.start(Rc::clone(&main));
        Spec { name: name.to_owned(), cores, is_client, start: Rc::new(start) }
    }
}

/// A host that runs, or waits for its power to come back.
pub(super) struct Machine {
    pub(super) spec: Spec,
    pub(super) host: usize,
    pub(super) cores: Vec<Core>,
    roll: Arc<Roll>,
    /// When the time is over that it was given to stop in.
    stops_by: Option<u64>,
}

/// What becomes of a process by what it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    GoesOn,
    /// It has until then to stop.
    StopsBy(u64),
    /// The signal ends it.
    Ends,
}

/// One of its cores.
pub(super) struct Core {
    /// The world's number for it.
    pub(super) number: usize,
    pub(super) runtime: Runtime,
    main: Option<JoinHandle<Outcome>>,
    /// Its last turn found nothing to do.
    pub(super) idle: bool,
}

impl Machine {
    pub(super) fn new(spec: Spec, world: &Shared) -> Self {
        let host = world.borrow_mut().add_host(&spec.name, !spec.is_client);
        let (roll, cores) = (Roll::new(spec.cores, None), Vec::new());
        Machine { spec, host, cores, roll, stops_by: None }
    }

    /// Starts its cores, anew after a crash.
    pub(super) fn start(&mut self, world: &Shared, builder: &Builder, seed: u64) {
        self.roll = Roll::new(self.spec.cores, None);
        self.stops_by = None;
        for index in 0..self.spec.cores {
            let number = world.borrow_mut().add_core(self.host);
            let seat = Seat { index, roll: Arc::clone(&self.roll) };
            let driver = Box::new(Simulated::new(world, number));
            let runtime = builder.clone().build_on(driver, seat).expect("memory for a core");
            runtime.set_chance(Random::new(seed).fork(number as u64).next());
            let main = Some((self.spec.start)(&runtime));
            self.cores.push(Core { number, runtime, main, idle: false });
        }
    }

    /// A signal comes to the process, as the supervisor of [`start_per_core`] or its streams take it,
    /// or nobody.
    ///
    /// [`start_per_core`]: crate::runtime::start_per_core
    pub(super) fn take_signal(&mut self, signal: i32, now: u64, builder: &Builder) -> Fate {
        if !self.runs() {
            return Fate::GoesOn;
        }
        let is_heard = self.roll.signals.raise(signal);
        match builder.stop_by(signal, now) {
            None if is_heard || DO_NOTHING.contains(&signal) => Fate::GoesOn,
            None => Fate::Ends,
            Some(time) if self.stops_by.is_none() => {
                self.request_stop(time);
                Fate::StopsBy(time)
            }
            Some(_) => {
                self.tell_cores(Runtime::end_grace);
                Fate::GoesOn
            }
        }
    }

    /// Begins the stop that one of its cores has asked for, which ends at the time that is returned.
    pub(super) fn take_request(&mut self, now: u64, builder: &Builder) -> Option<u64> {
        let is_asked = self.stops_by.is_none() && self.roll.asked_to_stop().is_some();
        let time = is_asked.then(|| builder.end_of_grace(now))?;
        self.request_stop(time);
        Some(time)
    }

    fn request_stop(&mut self, time: u64) {
        self.stops_by = Some(time);
        self.tell_cores(|runtime| runtime.request_stop(time));
    }

    /// The time is over that some start of the process was given.
    pub(super) fn end_grace(&mut self, now: u64) {
        if self.stops_by.is_some_and(|time| time <= now) {
            self.tell_cores(Runtime::end_grace);
        }
    }

    fn tell_cores(&mut self, tell: impl Fn(&Runtime)) {
        for core in self.cores.iter_mut().filter(|core| !core.is_over()) {
            tell(&core.runtime);
            core.idle = false;
        }
    }

    /// Whether there is a process.
    fn runs(&self) -> bool {
        self.cores.iter().any(|core| !core.is_over())
    }

    /// Whether every main has ended.
    pub(super) fn has_ended(&self) -> bool {
        !self.cores.is_empty() && self.cores.iter().all(Core::is_over)
    }
}

impl Core {
    /// Whether its main has ended, and with it all that ran here.
    pub(super) fn is_over(&self) -> bool {
        self.main.is_none()
    }

    /// If its main has ended now: how. Errors are texts.
    pub(super) fn ended(&mut self) -> Result<(), String> {
        if self.main.as_ref().is_none_or(|main| !self.runtime.is_finished(main)) {
            return Ok(());
        }
        let main = self.main.take().expect("it was looked at");
        match self.runtime.outcome(main) {
            Ok(outcome) => outcome.map_err(|error| format!("failed: {error}")),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => Err(format!("panicked: {}", describe(&*panic))),
                Err(_) => Err("was cancelled".to_owned()),
            },
        }
    }
}
