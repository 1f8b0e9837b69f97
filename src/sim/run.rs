//! One run: the loop that turns the cores, in an order that the seed picks.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::machine::{Core, Fate, Machine};
use super::report::{Failure, FailureKind, Report};
use super::{Check, Faults, Scripted, Sim, ledger};
use crate::driver::sim::{Knob, Random, Shared, Told, World};
use crate::runtime::{Builder, Turn};
use crate::signal::SignalKind;
use crate::time::nanoseconds;

/// A program that turns for so long after the last fault without an end spins.
const STEPS_AFTER_FAULTS: u64 = 5_000_000;

/// What ended a run too early.
pub(super) type Fault = (FailureKind, String);

/// A simulation that runs.
pub(super) struct Run {
    seed: u64,
    faults: Faults,
    fault_steps: u64,
    patience: Duration,
    world: Shared,
    builder: Builder,
    machines: Vec<Machine>,
    checks: Vec<Check>,
    last_checks: Vec<Check>,
    /// Picks the next core.
    order: Random,
    start: u64,
    steps: u64,
    calm_since: Option<u64>,
}

impl Run {
    pub(super) fn new(sim: Sim) -> Self {
        let has_client = sim.specs.iter().any(|spec| spec.is_client);
        assert!(has_client, "a simulation ends with its clients; add one");
        let world = Rc::new(RefCell::new(World::new(sim.seed, sim.faults.clone())));
        // All have their names before the first one asks for another.
        let machine = |spec| Machine::new(spec, &world);
        let mut machines: Vec<Machine> = sim.specs.into_iter().map(machine).collect();
        machines.iter_mut().for_each(|machine| machine.start(&world, &sim.builder, sim.seed));
        let start = world.borrow().now();
        let run = Run {
            seed: sim.seed,
            faults: sim.faults,
            fault_steps: sim.steps,
            patience: sim.patience,
            start,
            world,
            builder: sim.builder,
            machines,
            checks: sim.checks,
            last_checks: sim.last_checks,
            order: Random::new(sim.seed).fork(3),
            steps: 0,
            calm_since: None,
        };
        sim.script.into_iter().for_each(|scripted| run.schedule(scripted));
        run
    }

    fn schedule(&self, scripted: Scripted) {
        let host = |name: &str| {
            let found = self.machines.iter().find(|machine| machine.spec.name == name);
            found.unwrap_or_else(|| panic!("there is no host called {name:?}")).host
        };
        let mut world = self.world.borrow_mut();
        match scripted {
            Scripted::Crash { host: name, at, down } => {
                world.schedule_crash(host(&name), self.start + nanoseconds(at), nanoseconds(down));
            }
            Scripted::Signal { host: name, kind, at } => {
                let word = Told::Signal(kind.as_raw_value());
                world.schedule_word(host(&name), self.start + nanoseconds(at), word);
            }
            Scripted::Partition { one, two, at, lasting } => {
                let time = self.start + nanoseconds(at);
                world.schedule_partition(host(&one), host(&two), time, nanoseconds(lasting));
            }
        }
    }

    pub(super) fn run(mut self) -> Result<Report, Failure> {
        let ended = self.until_the_clients_end();
        let ended = ended.and_then(|()| check_all(&mut self.last_checks));
        // The books are closed in any case: also what failed has to be taken down.
        self.world.borrow_mut().calm();
        let closed = ledger::close(&self.world, std::mem::take(&mut self.machines));
        let report = self.report();
        let failed = |(kind, text): Fault| {
            Failure::new(kind, text, &report).under(self.fault_steps, self.faults.clone())
        };
        ended.and(closed).map_err(failed)?;
        Ok(report)
    }

    fn report(&self) -> Report {
        let world = self.world.borrow();
        Report {
            seed: self.seed,
            virtual_time: Duration::from_nanos(world.now() - self.start),
            steps: self.steps,
            trace: world.trace(),
            struck: world.struck(),
        }
    }

    fn until_the_clients_end(&mut self) -> Result<(), Fault> {
        while !self.clients_have_ended() {
            self.limit()?;
            self.disturb();
            match self.pick() {
                Some((machine, core)) => self.turn(machine, core)?,
                None => {
                    ledger::quiescence(&self.world, &self.machines)?;
                    if !self.world.borrow_mut().advance() {
                        return Err(self.stuck("nothing is left that could happen"));
                    }
                }
            }
            self.apply_power();
            self.pass_on_words()?;
        }
        Ok(())
    }

    fn clients_have_ended(&self) -> bool {
        let mut clients = self.machines.iter().filter(|machine| machine.spec.is_client);
        clients.all(Machine::has_ended)
    }

    /// Ends the faults when their steps are over, and the run when the clients do not end then.
    fn limit(&mut self) -> Result<(), Fault> {
        let now = self.world.borrow().now();
        if self.calm_since.is_none() && self.steps >= self.fault_steps {
            self.world.borrow_mut().calm();
            self.calm_since = Some(now);
        }
        let Some(since) = self.calm_since else { return Ok(()) };
        if now > since.saturating_add(nanoseconds(self.patience)) {
            return Err(self.stuck(&format!("{:?} after the last fault", self.patience)));
        }
        if self.steps > self.fault_steps + STEPS_AFTER_FAULTS {
            return Err(self.stuck("after millions of steps"));
        }
        Ok(())
    }

    /// Who waits, and for what.
    fn stuck(&self, when: &str) -> Fault {
        let mut text = format!("a client is stuck: {when}");
        let world = self.world.borrow();
        for machine in &self.machines {
            let state = match (machine.cores.is_empty(), machine.has_ended()) {
                (true, _) => "is down",
                (false, true) => "has ended",
                (false, false) => "waits",
            };
            text.push_str(&format!("\n    {} {state}", machine.spec.name));
            for core in &machine.cores {
                let stats = core.runtime.stats();
                let waits = world.waits_of(core.number).join(", ");
                let (index, tasks, timers) = (core.number, stats.tasks, stats.timers);
                text.push_str(&format!(
                    "\n      core {index}: {tasks} tasks, {timers} timers, requests: {waits}"
                ));
            }
        }
        (FailureKind::Stuck, text)
    }

    /// Does to the cores what a kernel cannot: wakes tasks for nothing, and moves the clock.
    fn disturb(&mut self) {
        let mut world = self.world.borrow_mut();
        world.maybe_jump();
        if !world.chaos.strikes(Knob::SpuriousWake) {
            return;
        }
        let random = world.chaos.how(Knob::SpuriousWake);
        let machine = random.index(self.machines.len());
        let cores = &mut self.machines[machine].cores;
        if !cores.is_empty() {
            let index = random.index(cores.len());
            let core = &mut cores[index];
            let choice = random.next() as usize;
            drop(world);
            if core.is_over() {
                return;
            }
            core.runtime.wake_for_nothing(|count| choice % count);
            core.idle = false;
        }
    }

    /// One of the cores that have something to do.
    fn pick(&mut self) -> Option<(usize, usize)> {
        let world = self.world.borrow();
        let is_due = |core: &Core| !core.idle || world.has_work(core.number);
        let ready = |core: &Core| !core.is_over() && is_due(core);
        let mut found = None;
        let mut count = 0;
        for (machine, it) in self.machines.iter().enumerate() {
            for core in it.cores.iter().enumerate().filter(|(_, core)| ready(core)) {
                count += 1;
                // Each of those that are ready is as likely as the others.
                if self.order.below(count) == 0 {
                    found = Some((machine, core.0));
                }
            }
        }
        found
    }

    fn turn(&mut self, machine: usize, core: usize) -> Result<(), Fault> {
        self.steps += 1;
        let it = &mut self.machines[machine];
        let (name, is_client) = (&it.spec.name, it.spec.is_client);
        let core = &mut it.cores[core];
        let shuffle = {
            let mut world = self.world.borrow_mut();
            let strikes = world.chaos.strikes(Knob::Shuffle);
            strikes.then(|| world.chaos.how(Knob::Shuffle).next())
        };
        match shuffle {
            Some(seed) => {
                let mut random = Random::new(seed);
                core.runtime.set_budget(random.between(1, 8) as u32);
                core.runtime.reorder(|count| random.index(count));
            }
            None => core.runtime.set_budget(128),
        }
        core.idle = core.runtime.turn() == Turn::Idle;
        ledger::audit(&self.world, core)?;
        let ended = core.ended();
        ended.map_err(|text| match is_client {
            true => (FailureKind::Client, format!("client `{name}` {text}")),
            false => (FailureKind::Host, format!("the main of host `{name}` {text}")),
        })?;
        if core.is_over() {
            ledger::end(core, name)?;
        }
        check_all(&mut self.checks)
    }

    /// Ends what runs on hosts that have lost their power, and starts those that have it again.
    fn apply_power(&mut self) {
        let (crashed, restarted) = {
            let mut world = self.world.borrow_mut();
            (world.take_crashed(), world.take_restarted())
        };
        for host in crashed {
            self.machines[host].cores.clear();
        }
        for host in restarted {
            self.machines[host].start(&self.world, &self.builder, self.seed);
        }
    }

    /// Tells processes what they are told.
    fn pass_on_words(&mut self) -> Result<(), Fault> {
        let (now, words) = {
            let mut world = self.world.borrow_mut();
            (world.now(), world.take_words())
        };
        for machine in &mut self.machines {
            if let Some(time) = machine.take_request(now, &self.builder) {
                self.world.borrow_mut().schedule_word(machine.host, time, Told::GraceIsOver);
            }
        }
        for (host, word) in words {
            let machine = &mut self.machines[host];
            let Told::Signal(signal) = word else {
                machine.end_grace(now);
                continue;
            };
            match machine.take_signal(signal, now, &self.builder) {
                Fate::GoesOn => {}
                Fate::StopsBy(time) => {
                    self.world.borrow_mut().schedule_word(host, time, Told::GraceIsOver);
                }
                Fate::Ends => self.end_process(host, SignalKind::from_raw(signal))?,
            }
        }
        Ok(())
    }

    /// A signal ends the process of a host, which stays without one.
    fn end_process(&mut self, host: usize, by: SignalKind) -> Result<(), Fault> {
        let machine = &mut self.machines[host];
        let name = &machine.spec.name;
        if machine.spec.is_client {
            let text = format!("client `{name}` was ended by {by:?}, which it does not handle");
            return Err((FailureKind::Client, text));
        }
        for mut core in machine.cores.drain(..).filter(|core| !core.is_over()) {
            ledger::end(&mut core, name)?;
        }
        Ok(())
    }
}

fn check_all(checks: &mut [Check]) -> Result<(), Fault> {
    checks.iter_mut().try_for_each(|check| check().map_err(|text| (FailureKind::Check, text)))
}
