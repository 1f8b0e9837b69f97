//! What a run comes to.

use std::fmt;
use std::time::Duration;

use super::Faults;

/// A run that went well.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The seed it came out of.
    pub seed: u64,
    /// How much time passed in the world.
    pub virtual_time: Duration,
    /// How many turns its cores took.
    pub steps: u64,
    /// A hash over every request, answer and event: equal for equal runs.
    pub trace: u64,
    /// How often each liberty and fault struck, by name.
    pub struck: Vec<(&'static str, u64)>,
}

impl Report {
    /// How often the knob of this name struck.
    #[must_use]
    pub fn times(&self, name: &str) -> u64 {
        self.struck.iter().find(|(knob, _)| *knob == name).map_or(0, |&(_, times)| times)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { seed, virtual_time, steps, trace, .. } = self;
        write!(
            f,
            "seed {seed}: {steps} steps, {virtual_time:.3?} of virtual time, trace {trace:016x}"
        )
    }
}

/// Which kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureKind {
    /// A client returned an error or panicked.
    Client,
    /// The main of a host returned an error or panicked.
    Host,
    /// A check said so.
    Check,
    /// A client did not end.
    Stuck,
    /// The runtime broke one of its invariants: a bug in Quoit.
    Runtime,
}

/// A run that failed: what failed, and how to see it again.
///
/// `Debug` prints the same text as `Display`.
#[derive(Clone, PartialEq)]
pub struct Failure(Box<Parts>);

#[derive(Clone, PartialEq)]
struct Parts {
    kind: FailureKind,
    text: String,
    seed: u64,
    at_step: u64,
    virtual_time: Duration,
    trace: u64,
    steps: u64,
    faults: Faults,
}

impl Failure {
    pub(super) fn new(kind: FailureKind, text: String, report: &Report) -> Self {
        Failure(Box::new(Parts {
            kind,
            text,
            seed: report.seed,
            at_step: report.steps,
            virtual_time: report.virtual_time,
            trace: report.trace,
            steps: 0,
            faults: Faults::none(),
        }))
    }

    /// Notes under which faults it came about.
    pub(super) fn under(mut self, steps: u64, faults: Faults) -> Self {
        self.0.steps = steps.min(self.0.at_step);
        self.0.faults = faults;
        self
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> FailureKind {
        self.0.kind
    }

    /// What failed.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// The seed it came out of.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    /// For how many steps faults struck.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.0.steps
    }

    /// What may have gone wrong: after shrinking, only what is needed for this failure.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.0.faults
    }

    /// The hash over the run: equal when it is replayed.
    #[must_use]
    pub fn trace(&self) -> u64 {
        self.0.trace
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parts { text, seed, at_step, virtual_time, steps, faults, .. } = &*self.0;
        writeln!(f, "{text}")?;
        writeln!(f, "  in step {at_step}, after {virtual_time:.3?} of virtual time")?;
        writeln!(f, "  with {faults} for {steps} steps")?;
        let names: Vec<_> = faults.names().collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(",") };
        write!(f, "  to replay: SIM_SEED={seed} SIM_STEPS={steps} SIM_FAULTS={names}")
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Failure {}
