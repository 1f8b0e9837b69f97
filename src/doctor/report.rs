//! All that was found, for people and for programs.

use std::fmt;
use std::path::Path;

use super::choice::Choice;
use super::json::Json;
use super::kernel::Kernel;
use super::machine::{Cpus, Limits, Memory, Ports};
use super::offer::Offer;
use super::self_test::SelfTest;
use crate::sys::facts::Facts;

/// What a start would come to here, and why: the kernel and what was reported of its like, the
/// driver that would be chosen, what io_uring offers and what is lost without it, limits, CPUs, ports
/// and memory.
///
/// `Display` is for people, [`to_json`](Report::to_json) for programs. The names of the fields stay;
/// more may come.
///
/// ```
/// use quoit::doctor::Report;
///
/// let json = Report::examine().to_json();
/// assert!(json.starts_with(r#"{"version":""#));
/// ```
#[derive(Debug)]
pub struct Report {
    kernel: Kernel,
    choice: Choice,
    offer: Offer,
    limits: Limits,
    cpus: Cpus,
    ports: Ports,
    memory: Memory,
    self_test: Option<SelfTest>,
}

impl Report {
    /// Looks, without working: it takes some milliseconds, and opens a ring or two for that long.
    ///
    /// What cannot be found out is said in the report.
    #[must_use]
    pub fn examine() -> Report {
        let root = Path::new("/");
        Report {
            kernel: Kernel::read(root),
            choice: Choice::make(),
            offer: Offer::ask(),
            limits: Limits::read(),
            cpus: Cpus::read(root),
            ports: Ports::read(root),
            memory: Memory::of_the_defaults(&Facts::read(root)),
            self_test: None,
        }
    }

    /// Works for a second on the driver that would be chosen, if there is one, and adds the figures:
    /// operations, messages over loopback, and wakes from core to core.
    ///
    /// # Panics
    /// Inside a runtime.
    #[must_use]
    #[track_caller]
    pub fn with_self_test(mut self) -> Report {
        assert!(
            crate::sys::current::id().is_none(),
            "Report::with_self_test was called inside a runtime, and would block it"
        );
        self.self_test = self.can_start().then(SelfTest::run);
        self
    }

    /// Whether a runtime can start on the driver that would be chosen.
    #[must_use]
    pub fn can_start(&self) -> bool {
        self.choice.driver.is_ok()
    }

    /// The report as one JSON object. What is not known is `null`.
    #[must_use]
    pub fn to_json(&self) -> String {
        let object = Json::Object(vec![
            ("version", Json::text(env!("CARGO_PKG_VERSION"))),
            ("can_start", Json::Flag(self.can_start())),
            ("kernel", self.kernel.json()),
            ("driver", self.choice.json()),
            ("io_uring", self.offer.json()),
            ("limits", self.limits.json()),
            ("cpus", self.cpus.json()),
            ("network", self.ports.json()),
            ("memory_of_one_core", self.memory.json()),
            ("self_test", Json::maybe(self.self_test.as_ref(), SelfTest::json)),
        ]);
        object.to_string()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "quoit {}", env!("CARGO_PKG_VERSION"))?;
        let Report { kernel, choice, offer, limits, cpus, ports, memory, self_test } = self;
        write!(f, "{kernel}{choice}{offer}{limits}{cpus}{ports}{memory}")?;
        match self_test {
            Some(self_test) => write!(f, "{self_test}"),
            None => Ok(()),
        }
    }
}
