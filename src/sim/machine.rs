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
        Machine { spec, host, cores: Vec::new() }
    }

    /// Starts its cores, anew after a crash.
    pub(super) fn start(&mut self, world: &Shared, builder: &Builder, seed: u64) {
        let roll = Roll::new(self.spec.cores);
        for index in 0..self.spec.cores {
            let number = world.borrow_mut().add_core(self.host);
            let seat = Seat { index, roll: Arc::clone(&roll) };
            let driver = Box::new(Simulated::new(world, number));
            let runtime = builder.clone().build_on(driver, seat).expect("memory for a core");
            runtime.set_chance(Random::new(seed).fork(number as u64).next());
            let main = Some((self.spec.start)(&runtime));
            self.cores.push(Core { number, runtime, main, idle: false });
        }
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
