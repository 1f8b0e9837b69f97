//! Tasks that panic: what is known of one, and what is done about it.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};

use super::join::describe;
use super::origin::Origin;
use crate::sys::atomic::Arc;
use crate::sys::{current, guard};

/// What becomes of the rest when a task panics; see
/// [`Builder::on_panic`](crate::runtime::Builder::on_panic).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnPanic {
    /// The task ends, and nothing else: its [`JoinHandle`](super::JoinHandle) gives the panic.
    #[default]
    Isolate,
    /// The core ends, as if its main had panicked, and the others of its start are stopped.
    ShutDown,
    /// The process aborts.
    Abort,
}

/// A panic of a task: which task it was, and what it said.
///
/// ```
/// use quoit::runtime::Builder;
/// use quoit::task::{self, OnPanic};
///
/// Builder::new()
///     .on_panic_with(|panic| {
///         assert_eq!(panic.name(), Some("the careless one"));
///         assert_eq!(panic.text(), "oh no");
///         println!("it was spawned at {}", panic.spawned_at());
///         OnPanic::Isolate
///     })
///     .run(async {
///         task::Builder::new().name("the careless one").spawn(async { panic!("oh no") });
///         task::yield_now().await;
///     })?;
/// # quoit::runtime::Result::Ok(())
/// ```
pub struct TaskPanic<'a> {
    core: usize,
    name: Option<Arc<str>>,
    spawned_at: &'static Location<'static>,
    payload: &'a (dyn Any + Send),
}

impl<'a> TaskPanic<'a> {
    pub(super) fn new(origin: &Origin, payload: &'a (dyn Any + Send)) -> Self {
        let core = current::core(|core| core.index).unwrap_or_default();
        TaskPanic { core, name: origin.name(), spawned_at: origin.at(), payload }
    }

    /// The index of the core on which it happened.
    #[must_use]
    pub fn core_index(&self) -> usize {
        self.core
    }

    /// The task's name, if [`Builder`](super::Builder) gave it one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Where the task was spawned.
    #[must_use]
    pub fn spawned_at(&self) -> &'static Location<'static> {
        self.spawned_at
    }

    /// What the task panicked with, if that is a text.
    #[must_use]
    pub fn text(&self) -> String {
        describe(self.payload)
    }

    /// What the task panicked with.
    #[must_use]
    pub fn payload(&self) -> &'a (dyn Any + Send) {
        self.payload
    }
}

/// `core 0: the task "reader", spawned at src/main.rs:7:9, panicked: out of range`
impl fmt::Display for TaskPanic<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let task = Called(self.name.as_deref(), self.spawned_at);
        write!(f, "core {}: {task} panicked: {}", self.core, self.text())
    }
}

impl fmt::Debug for TaskPanic<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskPanic({self})")
    }
}

/// How a sentence calls a task.
pub(crate) struct Called<'a>(pub(crate) Option<&'a str>, pub(crate) &'a Location<'a>);

impl fmt::Display for Called<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(name) => write!(f, "the task {name:?}, spawned at {},", self.1),
            None => write!(f, "the task that was spawned at {}", self.1),
        }
    }
}

type Ask = dyn Fn(&TaskPanic<'_>) -> OnPanic + Send + Sync;

/// What was chosen for all panics, or who chooses for each.
#[derive(Clone)]
pub(crate) enum Policy {
    Always(OnPanic),
    Ask(Arc<Ask>),
}

impl Default for Policy {
    fn default() -> Self {
        Policy::Always(OnPanic::Isolate)
    }
}

impl Policy {
    /// What is done about `panic`. Does not return if that ends the process.
    #[cold]
    pub(super) fn judge(&self, panic: &TaskPanic<'_>) -> OnPanic {
        let verdict = match self {
            Policy::Always(verdict) => *verdict,
            Policy::Ask(ask) => match catch_unwind(AssertUnwindSafe(|| ask(panic))) {
                Ok(verdict) => verdict,
                // Whoever cannot say what is to be done about a panic has chosen nothing.
                Err(second) => {
                    guard::call(|| std::panic::resume_unwind(second));
                    OnPanic::Isolate
                }
            },
        };
        let then = match verdict {
            OnPanic::Isolate => return verdict,
            OnPanic::ShutDown => "its core ends",
            OnPanic::Abort => "the process ends",
        };
        current::core(|core| core.log.line(&format!("{panic}; {then}")));
        if verdict == OnPanic::Abort {
            std::process::abort();
        }
        verdict
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Policy::Always(verdict) => verdict.fmt(f),
            Policy::Ask(_) => f.write_str("a callback"),
        }
    }
}
