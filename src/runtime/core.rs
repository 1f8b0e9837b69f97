//! The core that a main runs on, as that main sees it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::dump::Dump;
use super::handle::Handle;
use super::local::Local;
use super::stats::Stats;
use super::stop::{Place, Stage};
use crate::time::Instant;

/// One core of a runtime: its number, and whether it has been asked to stop.
///
/// It is given to a main that takes one, and [`runtime::core`](super::core) gives it anywhere on
/// the core. Clones are cheap; none leaves the core (it is not `Send`; a [`Handle`] is).
///
/// A main that takes a `Core` is not dropped when the runtime is asked to stop: it watches
/// [`shutdown`](Core::shutdown), and ends in its own time, but before [`deadline`](Core::deadline).
///
/// ```no_run
/// use quoit::runtime::{self, Core};
/// use std::time::Duration;
///
/// async fn main_of_a_core(core: Core) {
///     println!("core {} of {}", core.index(), core.count());
///     core.shutdown().await;
///     println!("core {} says goodbye", core.index());
/// }
///
/// fn main() -> runtime::Result<()> {
///     runtime::Builder::new().grace(Duration::from_secs(5)).start_per_core(main_of_a_core)
/// }
/// ```
#[derive(Clone)]
pub struct Core(Rc<Local>);

impl Core {
    pub(super) fn new(local: Rc<Local>) -> Self {
        Core(local)
    }

    /// Its position among the cores that were started together, from 0.
    #[must_use]
    pub fn index(&self) -> usize {
        self.0.index
    }

    /// How many cores were started together.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.count
    }

    /// A number that no other core of this process has, had or will have.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Asks all the cores that were started together to stop, as a signal does: mains that take no
    /// `Core` are dropped, and those that do see [`shutdown`](Self::shutdown) end. It returns at once;
    /// asking again changes nothing.
    ///
    /// It is for what [`start_per_core`](super::start_per_core) has started. Any other core ends with
    /// its future, and nobody hears this. Another thread stops the cores by
    /// `handle.call_soon(|| runtime::core().stop())`.
    ///
    /// ```
    /// use quoit::runtime::{self, Core};
    /// use quoit::time::sleep;
    /// use std::time::Duration;
    ///
    /// runtime::start_per_core(async |core: Core| {
    ///     if core.index() == 0 {
    ///         sleep(Duration::from_millis(5)).await;
    ///         core.stop();
    ///     }
    ///     core.shutdown().await;
    /// })?;
    /// # runtime::Result::Ok(())
    /// ```
    pub fn stop(&self) {
        self.0.roll.ask_to_stop(self.0.index);
    }

    /// Ends when the runtime is asked to stop: by a signal, by [`stop`](Self::stop), or because
    /// another core's main failed.
    ///
    /// It may be awaited any number of times, by any number of tasks, and ends at once when that
    /// has happened already. On a core that [`start_per_core`](super::start_per_core) did not start
    /// it never ends. Dropping it loses nothing.
    pub fn shutdown(&self) -> Shutdown {
        Shutdown { core: self.clone(), stage: Stage::Stopping, place: None }
    }

    /// Ends when the grace period is over.
    pub(super) fn over(&self) -> Shutdown {
        Shutdown { core: self.clone(), stage: Stage::Over, place: None }
    }

    /// Whether the runtime has been asked to stop.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.0.stop.has_reached(Stage::Stopping)
    }

    /// When the grace period ends and this core's main is dropped; `None` until the runtime is
    /// asked to stop. A second signal ends it sooner.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.0.stop.deadline().map(Instant::from_ns)
    }

    /// What this core has and has done.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.stats()
    }

    /// Every task, where it was spawned, and what it waits for; see [`runtime::dump`](super::dump).
    #[must_use]
    pub fn dump(&self) -> Dump {
        self.0.dump()
    }

    /// The way in for other threads.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle::of(&self.0)
    }

    pub(super) fn driver(&self) -> &'static str {
        self.0.ring.driver_name()
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("index", &self.index())
            .field("count", &self.count())
            .field("id", &self.id())
            .finish_non_exhaustive()
    }
}

/// The future of [`Core::shutdown`].
#[derive(Debug)]
#[must_use = "futures do nothing unless they are awaited"]
pub struct Shutdown {
    core: Core,
    stage: Stage,
    place: Option<Place>,
}

impl Future for Shutdown {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.core.0.stop.poll_reached(this.stage, &mut this.place, context)
    }
}

impl Drop for Shutdown {
    fn drop(&mut self) {
        self.core.0.stop.leave(&mut self.place);
    }
}
