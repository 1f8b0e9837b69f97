//! Ending another thread's sleep: one atomic state, and a kick that is sticky.
//!
//! ```text
//!            announce (sleeper)              unpark (anybody): kick
//!   Running ───────────────────▶ Announced ─────────────────────▶ Running
//!      ▲                           │ │  ▲
//!      ├───────────────────────────┘ │  │ announce_again (sleeper)
//!      │      awake (sleeper)  watch ▼  │
//!      └─────────────────────────── Watching ───────────────────▶ Running
//!                                            unpark (anybody): no kick
//! ```
//!
//! The sleeper announces, then looks once more for work; whoever brings work publishes it, then
//! looks for an announcement. A full fence on either side makes it impossible that both look too
//! early. A sleeper that watches this state by itself needs no kick. The kick stays (it is an
//! eventfd's count), so one that lands before the sleep ends it.

use crate::sys::atomic::{Arc, AtomicU8, Ordering, fence};

const RUNNING: u8 = 0;
const ANNOUNCED: u8 = 1;
const WATCHING: u8 = 2;

/// What ends a sleep once it has begun, or ends it at once when it begins later.
pub trait Kick: Send + Sync {
    /// Ends the sleep. It never blocks; more kicks than sleeps are harmless.
    fn kick(&self);
}

/// Ends a core's sleep from any thread. It never blocks, and does nothing to a core that is awake.
#[derive(Clone)]
pub struct Unparker(Arc<Parking>);

/// The state that a sleeper and those who wake it share.
struct Parking {
    state: AtomicU8,
    kick: Box<dyn Kick>,
}

impl Unparker {
    /// An unparker whose sleeper is awake.
    #[must_use]
    pub fn new(kick: impl Kick + 'static) -> Self {
        Unparker(Arc::new(Parking { state: AtomicU8::new(RUNNING), kick: Box::new(kick) }))
    }

    /// Ends the sleep of the core, if it sleeps or is about to.
    pub fn unpark(&self) {
        // Pairs with the fence in `announce`: either the sleeper sees what was published before
        // this call, or this load sees the announcement.
        fence(Ordering::SeqCst);
        if self.0.state.load(Ordering::Relaxed) != RUNNING
            // Released to a sleeper that watches; a kick brings its own order.
            && self.0.state.swap(RUNNING, Ordering::Release) == ANNOUNCED
        {
            self.0.kick.kick();
        }
    }

    /// Says that a sleep is about to begin; look for work afterwards, and only then sleep.
    pub(crate) fn announce(&self) {
        self.0.state.store(ANNOUNCED, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Says that the announced sleep is put off, and that this state is watched meanwhile. `false`
    /// when none is announced, or no longer: then a kick is there, and ends the sleep.
    pub(crate) fn watch(&self) -> bool {
        self.change(ANNOUNCED, WATCHING)
    }

    /// Whether nobody has unparked a sleeper that watches.
    #[inline]
    pub(crate) fn is_watching(&self) -> bool {
        self.0.state.load(Ordering::Acquire) == WATCHING
    }

    /// Says that the sleep begins after all. `false` when somebody has unparked the watching sleeper,
    /// which then does not sleep.
    pub(crate) fn announce_again(&self) -> bool {
        self.change(WATCHING, ANNOUNCED)
    }

    fn change(&self, from: u8, to: u8) -> bool {
        let state = &self.0.state;
        state.compare_exchange(from, to, Ordering::Acquire, Ordering::Acquire).is_ok()
    }

    /// Says that the sleep is over, or was called off.
    pub(crate) fn awake(&self) {
        self.0.state.store(RUNNING, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Unparker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unparker").finish_non_exhaustive()
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::sys::atomic::model;
    use loom::sync::atomic::AtomicUsize;
    use loom::thread;

    struct Count(Arc<AtomicUsize>);
    impl Kick for Count {
        fn kick(&self) {
            self.0.fetch_add(1, Ordering::Release);
        }
    }

    #[test]
    fn loom_work_published_before_the_unpark_is_seen_or_the_sleep_ends() {
        model(|| {
            let kicks = Arc::new(AtomicUsize::new(0));
            let unparker = Unparker::new(Count(Arc::clone(&kicks)));
            let work = Arc::new(AtomicUsize::new(0));
            let others: Vec<_> = (0..2)
                .map(|_| {
                    let (unparker, work) = (unparker.clone(), Arc::clone(&work));
                    thread::spawn(move || {
                        work.fetch_add(1, Ordering::Relaxed);
                        unparker.unpark();
                    })
                })
                .collect();
            unparker.announce();
            let sleeps = work.load(Ordering::Relaxed) == 0;
            for other in others {
                other.join().unwrap();
            }
            // Had it slept, both wakers would be done by now: the sleep must have been ended.
            assert!(!sleeps || kicks.load(Ordering::Acquire) >= 1);
            unparker.awake();
        });
    }

    #[test]
    fn loom_a_watching_sleeper_sees_the_unpark_or_is_kicked() {
        model(|| {
            let kicks = Arc::new(AtomicUsize::new(0));
            let unparker = Unparker::new(Count(Arc::clone(&kicks)));
            let work = Arc::new(AtomicUsize::new(0));
            let other = {
                let (unparker, work) = (unparker.clone(), Arc::clone(&work));
                thread::spawn(move || {
                    work.fetch_add(1, Ordering::Relaxed);
                    unparker.unpark();
                })
            };
            unparker.announce();
            let mut sleeps = work.load(Ordering::Relaxed) == 0;
            // A watch that cannot begin was kicked; one that ends otherwise than by itself was told.
            if sleeps && unparker.watch() && !(unparker.is_watching() && unparker.announce_again())
            {
                assert_eq!(work.load(Ordering::Relaxed), 1, "it was told of nothing");
                sleeps = false;
            }
            other.join().unwrap();
            assert!(!sleeps || kicks.load(Ordering::Acquire) == 1, "it sleeps for ever");
            unparker.awake();
        });
    }
}
