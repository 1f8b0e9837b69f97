//! What is done about tasks that fail, or keep their core: choices of the [`Builder`].

use std::time::Duration;

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

    /// For how long a poll may keep its core from everything else, without a line in the
    /// [`log`](Builder::log) (any time). The line names the task, where it was spawned, and how long
    /// the poll took. It is the debug mode of asyncio, whose `slow_callback_duration` is 100 ms.
    ///
    /// Functions of [`call_later`](crate::call_later), and what other threads send, are looked at too.
    /// A poll that does not even end is told of while it runs, when ten times `threshold` has passed:
    /// by a thread that watches all cores of the process that have a threshold.
    /// [`Stats::stalls`](super::Stats::stalls) counts, and a [`dump`](super::dump) says since when each
    /// task waits.
    ///
    /// It costs a look at the clock and two locks for each poll; without it, nothing is
    /// looked at. In the simulator a poll takes no time.
    ///
    /// # Panics
    /// If `threshold` is zero.
    ///
    /// ```
    /// use quoit::runtime::Builder;
    /// use std::time::Duration;
    ///
    /// Builder::new()
    ///     .stall_threshold(Duration::from_millis(1))
    ///     .log(|line| eprintln!("{line}")) // .. the task that was spawned at src/main.rs:8:9 kept ..
    ///     .run(async {
    ///         let rude = quoit::spawn(async { std::thread::sleep(Duration::from_millis(5)) });
    ///         rude.await.unwrap();
    ///         assert_eq!(quoit::runtime::stats().stalls, 1);
    ///     })?;
    /// # quoit::runtime::Result::Ok(())
    /// ```
    pub fn stall_threshold(mut self, threshold: Duration) -> Self {
        assert!(
            !threshold.is_zero(),
            "stall_threshold(0): every poll takes some time; leave the call out to have none watched"
        );
        self.stall = Some(threshold);
        self
    }
}
