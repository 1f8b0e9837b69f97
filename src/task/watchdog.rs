//! One thread for the whole process, which looks for polls that do not return.
//!
//! It is there as long as a core with a threshold is, and sees what that core cannot tell itself.

use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use super::watch::Running;
use crate::sys::atomic::Arc;
use crate::sys::cpus::Mask;
use crate::sys::log::Log;
use crate::sys::{clock, signals};

/// A poll is told of when it has run for so many thresholds, and has not ended.
const THRESHOLDS: u32 = 10;

/// How often the watchdog looks, at most and at least.
const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(1);

/// The poll of one core, as the watchdog sees it.
pub(crate) struct Pulse {
    core: usize,
    limit: Duration,
    log: Log,
    running: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    poll: Option<Running>,
    told: bool,
}

/// The pulses that are looked at.
struct Watched {
    pulses: Vec<Weak<Pulse>>,
    has_thread: bool,
}

static WATCHED: Mutex<Watched> = Mutex::new(Watched { pulses: Vec::new(), has_thread: false });
static CHANGED: Condvar = Condvar::new();

fn watched() -> MutexGuard<'static, Watched> {
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pulse {
    /// Has the polls of a core watched, by a thread on the CPUs of the process.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(crate) fn start(
        core: usize,
        threshold: Duration,
        log: Log,
        cpus: Option<Mask>,
    ) -> io::Result<Arc<Pulse>> {
        let limit = threshold.saturating_mul(THRESHOLDS);
        let pulse = Arc::new(Pulse { core, limit, log, running: Mutex::default() });
        let mut watched = watched();
        watched.pulses.push(Arc::downgrade(&pulse));
        if !watched.has_thread {
            let thread = thread::Builder::new().name("quoit-watchdog".into());
            // Signals are for the program's other threads, which expect them.
            signals::without_signals(|| thread.spawn(move || watch(cpus)))??;
            watched.has_thread = true;
        }
        drop(watched);
        CHANGED.notify_one();
        Ok(pulse)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Nothing that may panic runs under the lock.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin(&self, poll: Running) {
        *self.seen() = Seen { poll: Some(poll), told: false };
    }

    pub(super) fn end(&self) {
        // What a name's last owner frees is freed outside of the lock.
        let _ended = std::mem::take(&mut *self.seen());
    }

    /// Says so, once, if a poll has not returned for long.
    fn look(&self) {
        let mut seen = self.seen();
        let Some(poll) = seen.poll.clone().filter(|_| !seen.told) else { return };
        let ran = Duration::from_nanos(clock::monotonic().saturating_sub(poll.since));
        if ran < self.limit {
            return;
        }
        seen.told = true;
        drop(seen);
        let text = format!("core {}: {} runs since {ran:?}", self.core, poll.called());
        self.log.line(&format!("{text}, and nothing else does; the core does not come back"));
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        CHANGED.notify_one();
    }
}

/// The life of the thread.
fn watch(cpus: Option<Mask>) {
    if let Some(cpus) = cpus {
        // Some CPU may be gone by now; then it stays where the core is.
        let _ = cpus.apply_here();
    }
    let mut watched = watched();
    loop {
        watched.pulses.retain(|pulse| pulse.strong_count() > 0);
        if watched.pulses.is_empty() {
            watched.has_thread = false;
            return;
        }
        let pulses: Vec<Arc<Pulse>> = watched.pulses.iter().filter_map(Weak::upgrade).collect();
        drop(watched);
        pulses.iter().for_each(|pulse| pulse.look());
        let limit = pulses.iter().map(|pulse| pulse.limit).min().unwrap_or(LONGEST);
        // The last of a pulse, if it is here, says so to whoever waits, which is not this thread yet.
        drop(pulses);
        let pause = (limit / THRESHOLDS).clamp(SHORTEST, LONGEST);
        let waited = CHANGED.wait_timeout(self::watched(), pause);
        watched = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
}
