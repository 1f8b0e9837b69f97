//! Many seeds, and the smallest form of the first failure.

use std::fmt;
use std::time::Duration;

use super::report::{Failure, Report};
use super::run::Run;
use super::{Faults, Sim};

/// Other seeds that are tried before a knob counts as needed.
const SEEDS_A_KNOB: u64 = 15;

/// What [`explore`] has seen when nothing failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explored {
    /// How many seeds were run.
    pub seeds: u64,
    /// How many turns their cores took, all together.
    pub steps: u64,
    /// How much virtual time passed in them, all together.
    pub virtual_time: Duration,
    /// How often each liberty and fault struck, by name.
    pub struck: Vec<(&'static str, u64)>,
}

impl Explored {
    fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.steps += report.steps;
        self.virtual_time = self.virtual_time.saturating_add(report.virtual_time);
        for &(name, times) in &report.struck {
            match self.struck.iter_mut().find(|(knob, _)| *knob == name) {
                Some((_, sum)) => *sum += times,
                None => self.struck.push((name, times)),
            }
        }
    }
}

impl fmt::Display for Explored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Explored { seeds, steps, virtual_time, struck } = self;
        write!(f, "{seeds} seeds, {steps} steps, {virtual_time:.1?} of virtual time;")?;
        struck.iter().try_for_each(|(name, times)| write!(f, " {name}={times}"))
    }
}

/// Runs the simulation that `make` makes of each seed, and shrinks the first that fails.
///
/// `make` is called anew for every run, so that runs share nothing; shrinking calls it many times
/// with this and other seeds. With `SIM_SEED` in the environment only that seed is run, under the limits of
/// `SIM_STEPS` and `SIM_FAULTS`, and nothing is shrunk.
///
/// # Errors
/// The smallest form of the first failure: the fewest kinds of faults, for the fewest steps. Its seed
/// need not be that of the first.
///
/// # Panics
/// As [`Sim::run`].
///
/// ```
/// use quoit::sim::{Sim, explore};
///
/// let explored = explore(0..20, |seed| Sim::new(seed).client("client", async || ()))?;
/// assert_eq!(explored.seeds, 20);
/// # Ok::<(), quoit::sim::Failure>(())
/// ```
pub fn explore(
    seeds: impl IntoIterator<Item = u64>,
    make: impl Fn(u64) -> Sim,
) -> Result<Explored, Failure> {
    let mut explored = Explored::default();
    if let Some(seed) = number_of("SIM_SEED") {
        explored.add(&make(seed).run()?);
        return Ok(explored);
    }
    for seed in seeds {
        match make(seed).run() {
            Ok(report) => explored.add(&report),
            Err(failure) => return Err(shrink(&make, failure)),
        }
    }
    Ok(explored)
}

/// Takes away what a failure does not need, for as long as one of the same kind is left.
fn shrink(make: &impl Fn(u64) -> Sim, mut smallest: Failure) -> Failure {
    let kind = smallest.kind();
    let again = |seed: u64, steps: u64, faults: &Faults| {
        let mut sim = make(seed);
        (sim.steps, sim.faults) = (steps, faults.clone());
        Run::new(sim).run().err().filter(|failure| failure.kind() == kind)
    };
    let names: Vec<_> = smallest.faults().names().collect();
    for name in names {
        // Without the knob other moments come; it may take another seed to meet the same one.
        let (seed, steps) = (smallest.seed(), smallest.steps());
        let faults = smallest.faults().without(name);
        let mut seeds = std::iter::once(seed).chain((1..=SEEDS_A_KNOB).map(|more| seed ^ more));
        if let Some(failure) = seeds.find_map(|seed| again(seed, steps, &faults)) {
            smallest = failure;
        }
    }
    while smallest.steps() > 0
        && let Some(failure) = again(smallest.seed(), smallest.steps() / 2, smallest.faults())
    {
        smallest = failure;
    }
    smallest
}

impl Sim {
    /// Applies what the environment says about this very seed.
    pub(super) fn limited_by_environment(mut self) -> Sim {
        if number_of("SIM_SEED") != Some(self.seed) {
            return self;
        }
        if let Some(steps) = number_of("SIM_STEPS") {
            self.steps = steps;
        }
        if let Ok(names) = std::env::var("SIM_FAULTS") {
            self.faults = self.faults.retained(|knob| names.split(',').any(|name| name == knob));
        }
        self
    }
}

fn number_of(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text}: that is no number")))
}
