//! How one core learns that it shall stop, and who waits for that.
//!
//! ```text
//!   Running ──1 request──▶ Stopping ──2 end──▶ Over
//!      └───────────────────2 end────────────────▲
//! ```

use std::cell::{Cell, RefCell};
use std::task::{Context, Poll, Waker};

use slab::Slab;

use crate::sys::guard;

/// How far the stop of a core has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Running,
    /// A stop was requested, and the grace period runs.
    Stopping,
    /// The grace period is over.
    Over,
}

/// One core's stage, and those who wait for the next.
#[derive(Debug)]
pub(super) struct Stop {
    stage: Cell<Stage>,
    deadline: Cell<Option<u64>>,
    /// Emptied by each change of the stage, so a key is good for the stage in which it was given.
    waiting: RefCell<Slab<Waker>>,
}

/// Where a waiter stands in the list, and the stage for which that holds.
#[derive(Debug)]
pub(super) struct Place(usize, Stage);

impl Stop {
    pub(super) fn new() -> Self {
        Stop {
            stage: Cell::new(Stage::Running),
            deadline: Cell::new(None),
            waiting: RefCell::default(),
        }
    }

    /// 1 request: the grace period, which ends at `deadline`, begins.
    pub(super) fn request(&self, deadline: u64) {
        if self.stage.get() == Stage::Running {
            self.deadline.set(Some(deadline));
            self.advance(Stage::Stopping);
        }
    }

    /// 2 end: the grace period is over.
    pub(super) fn end(&self) {
        if self.stage.get() < Stage::Over {
            self.advance(Stage::Over);
        }
    }

    fn advance(&self, stage: Stage) {
        self.stage.set(stage);
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        // Wake after the borrow has ended: a waker may do anything.
        waiting.into_iter().for_each(|(_, waker)| guard::wake(waker));
    }

    /// When the grace period ends, in nanoseconds of the core's clock.
    pub(super) fn deadline(&self) -> Option<u64> {
        self.deadline.get()
    }

    pub(super) fn has_reached(&self, stage: Stage) -> bool {
        self.stage.get() >= stage
    }

    /// Ready when `stage` is reached; before that, keeps the waker in the list.
    pub(super) fn poll_reached(
        &self,
        stage: Stage,
        place: &mut Option<Place>,
        context: &Context<'_>,
    ) -> Poll<()> {
        if self.has_reached(stage) {
            *place = None;
            return Poll::Ready(());
        }
        self.leave(place);
        let waker = context.waker().clone();
        *place = Some(Place(self.waiting.borrow_mut().insert(waker), self.stage.get()));
        Poll::Pending
    }

    /// Takes a waiter out of the list.
    pub(super) fn leave(&self, place: &mut Option<Place>) {
        let Some(Place(key, stage)) = place.take() else { return };
        if stage == self.stage.get() {
            let waker = self.waiting.borrow_mut().remove(key);
            guard::discard(Some(waker));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    struct Count(AtomicU32);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn each_stage_wakes_its_waiters_once_and_those_of_the_next_look_again() {
        let (stop, count) = (Stop::new(), Arc::new(Count(AtomicU32::new(0))));
        let waker = Waker::from(Arc::clone(&count));
        let context = Context::from_waker(&waker);
        let (mut first, mut second) = (None, None);
        assert!(stop.poll_reached(Stage::Stopping, &mut first, &context).is_pending());
        assert!(stop.poll_reached(Stage::Over, &mut second, &context).is_pending());
        stop.request(7);
        stop.request(9);
        assert_eq!((count.0.load(Ordering::Relaxed), stop.deadline()), (2, Some(7)));
        assert!(stop.poll_reached(Stage::Stopping, &mut first, &context).is_ready());
        assert!(stop.poll_reached(Stage::Over, &mut second, &context).is_pending());
        stop.end();
        assert!(stop.poll_reached(Stage::Over, &mut second, &context).is_ready());
        assert!(stop.waiting.borrow().is_empty());
    }

    #[test]
    fn a_waiter_that_leaves_is_not_woken_and_takes_nobody_else_along() {
        let (stop, count) = (Stop::new(), Arc::new(Count(AtomicU32::new(0))));
        let waker = Waker::from(Arc::clone(&count));
        let context = Context::from_waker(&waker);
        let (mut first, mut second) = (None, None);
        let _ = stop.poll_reached(Stage::Over, &mut first, &context);
        stop.request(1);
        let _ = stop.poll_reached(Stage::Over, &mut second, &context);
        // Its place was of the stage before, where the second one now stands.
        stop.leave(&mut first);
        stop.end();
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
    }
}
