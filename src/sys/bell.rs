//! One place where somebody waits until another thread rings.
//!
//! Who waits leaves a waker, then looks once more for what it waits for; who rings has published that
//! before. A full fence on either side makes it impossible that both look too early. A ring that
//! nobody waits for is a fence and a load.

use std::sync::PoisonError;
use std::task::{Context, Waker};

use super::atomic::{AtomicBool, Mutex, MutexGuard, Ordering, fence};
use super::fork::forked;
use super::guard;

/// Where one task at a time waits; anybody may ring.
///
/// If it says that somebody waits, and has no waker, then that waker is being woken.
#[repr(align(128))]
pub(crate) struct Bell {
    waiting: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Bell {
    pub(crate) fn new() -> Self {
        Bell { waiting: AtomicBool::new(false), waker: Mutex::new(None) }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Waker>> {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the task of `context` woken by the next ring. Look once more for what it waits for
    /// afterwards, and only then wait.
    pub(crate) fn wait(&self, context: &Context<'_>) {
        if forked() {
            // Nobody rings in a child, and a thread of the parent may have held the lock.
            return;
        }
        let mut waker = None;
        let mut place = self.lock();
        if !place.as_ref().is_some_and(|kept| kept.will_wake(context.waker())) {
            drop(place);
            // Cloned and dropped without the lock: a waker may do anything.
            waker = Some(context.waker().clone());
            place = self.lock();
            std::mem::swap(&mut *place, &mut waker);
        }
        self.waiting.store(true, Ordering::Relaxed);
        drop(place);
        // Pairs with the fence in `ring`.
        fence(Ordering::SeqCst);
        guard::discard(waker);
    }

    /// Wakes whoever waits for what was published before this call.
    pub(crate) fn ring(&self) {
        fence(Ordering::SeqCst);
        if !self.waiting.load(Ordering::Relaxed) || forked() {
            return;
        }
        if self.waiting.swap(false, Ordering::Relaxed) {
            let waker = self.lock().take();
            waker.into_iter().for_each(guard::wake);
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::sys::atomic::{AtomicUsize, model};
    use loom::thread;
    use std::sync::Arc;
    use std::task::Wake;

    #[derive(Default)]
    struct Wakes(AtomicUsize);
    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Release);
        }
    }

    #[test]
    fn loom_what_was_published_before_a_ring_is_seen_or_the_waiter_is_woken() {
        model(|| {
            let (bell, work) = (Arc::new(Bell::new()), Arc::new(AtomicUsize::new(0)));
            let others: Vec<_> = (0..2)
                .map(|_| {
                    let (bell, work) = (Arc::clone(&bell), Arc::clone(&work));
                    thread::spawn(move || {
                        work.fetch_add(1, Ordering::Relaxed);
                        bell.ring();
                    })
                })
                .collect();
            let wakes = Arc::new(Wakes::default());
            let waker = Waker::from(Arc::clone(&wakes));
            let context = Context::from_waker(&waker);
            bell.wait(&context);
            let mut seen = work.load(Ordering::Relaxed);
            if seen == 1 && wakes.0.load(Ordering::Acquire) == 1 {
                // It was woken for the first, and waits for the second.
                bell.wait(&context);
                seen = work.load(Ordering::Relaxed);
                others.into_iter().for_each(|other| other.join().unwrap());
                assert!(seen == 2 || wakes.0.load(Ordering::Acquire) == 2, "it waits for ever");
                return;
            }
            others.into_iter().for_each(|other| other.join().unwrap());
            assert!(seen == 2 || wakes.0.load(Ordering::Acquire) >= 1, "it waits for ever");
        });
    }
}
