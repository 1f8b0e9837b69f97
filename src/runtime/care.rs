//! What is done about tasks that fail: choices of the [`Builder`].

use super::builder::Builder;
use crate::sys::atomic::Arc;
use crate::task::{OnPanic, Policy, TaskPanic};

impl Builder {
    /// What becomes of the rest when a task panics ([`OnPanic::Isolate`]: nothing).
    ///
    /// It is about tasks, [`call_soon`](crate::call_soon) included. The panic of a main, or of the
    /// future of [`block_on`](super::Runtime::block_on), goes to whoever runs that. With
    /// [`OnPanic::ShutDown`] a task's panic goes there too: `block_on`, [`run`](Builder::run) and
    /// [`turn`](super::Runtime::turn) panic with it, and [`start_per_core`](Builder::start_per_core)
    /// stops all cores and returns it.
    ///
    /// ```
    /// use quoit::runtime::Builder;
    /// use quoit::task::OnPanic;
    ///
    /// let error = Builder::new()
    ///     .cores(1)
    ///     .on_panic(OnPanic::ShutDown)
    ///     .start_per_core(async || {
    ///         quoit::spawn(async { panic!("the heart of the program") });
    ///         std::future::pending::<()>().await;
    ///     })
    ///     .unwrap_err();
    /// assert!(error.to_string().contains("the heart of the program"));
    /// ```
    pub fn on_panic(mut self, then: OnPanic) -> Self {
        self.on_panic = Policy::Always(then);
        self
    }

    /// Has `choose` called for each task that panics, on its core, between two polls. It says what
    /// becomes of the rest, as [`on_panic`](Builder::on_panic) does for all. If it panics itself, that
    /// counts as [`OnPanic::Isolate`].
    pub fn on_panic_with(
        mut self,
        choose: impl Fn(&TaskPanic<'_>) -> OnPanic + Send + Sync + 'static,
    ) -> Self {
        self.on_panic = Policy::Ask(Arc::new(choose));
        self
    }
}
