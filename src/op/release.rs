//! Waiting until the kernel has let go of what a task had in flight.
//!
//! Whoever gives an operation up, by a drop, is noted in its slot. So after the end of a task its
//! operations are those that were given up in its name. What it shared with others (a write in one
//! request with theirs) was cancelled, and is awaited as well.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use slab::Slab;

use super::Ring;
use super::in_flight::{InFlight, OpId, State};
use crate::sys::{current, guard};

/// Those who wait, each for some operations.
#[derive(Default)]
pub(super) struct Releases {
    waiting: RefCell<Slab<Waiting>>,
    /// So that a lap for which nobody waits costs one look.
    any: Cell<bool>,
}

struct Waiting {
    left: Vec<OpId>,
    waker: Option<Waker>,
}

impl Releases {
    /// After a lap: wakes those whose operations are all over.
    #[inline]
    pub(super) fn look(&self, table: &InFlight) {
        if self.any.get() {
            self.look_at_each(table);
        }
    }

    #[cold]
    fn look_at_each(&self, table: &InFlight) {
        let mut wakers = Vec::new();
        for (_, waiting) in &mut *self.waiting.borrow_mut() {
            waiting.left.retain(|id| table.is_held(*id));
            if waiting.left.is_empty() {
                wakers.extend(waiting.waker.take());
            }
        }
        // Wake after the borrow has ended: a waker may do anything.
        wakers.into_iter().for_each(guard::wake);
    }

    fn remove(&self, place: usize) -> Waiting {
        let mut waiting = self.waiting.borrow_mut();
        let removed = waiting.remove(place);
        self.any.set(!waiting.is_empty());
        removed
    }
}

impl InFlight {
    /// Whether memory of that operation is still the kernel's, or about to be given back.
    fn is_held(&self, id: OpId) -> bool {
        self.get(id).is_some_and(|slot| slot.state() != State::Done)
    }

    /// What was given up in the name of the task `key`, and what was cancelled for others.
    fn given_up(&self, key: u32) -> Vec<OpId> {
        let of_task = self.all().filter(|(_, slot)| match slot.state() {
            State::Orphaned | State::Unclaimed => slot.task.get() == key,
            State::Waiting => slot.is_cancelled(),
            State::Done | State::Free => false,
        });
        of_task.map(|(id, _)| id).collect()
    }
}

/// Ends when the kernel holds nothing any more of what a task had in flight that has ended.
///
/// It looks at the whole table once. The key must not be another task's meanwhile.
pub(crate) struct Release {
    key: u32,
    place: Option<(Rc<Ring>, usize)>,
}

impl Release {
    pub(crate) fn of(key: u32) -> Self {
        Release { key, place: None }
    }

    /// The first poll.
    fn start(&mut self, context: &Context<'_>) -> Poll<()> {
        let Some(ring) = current::share::<Ring>() else { return Poll::Ready(()) };
        let left = ring.table().given_up(self.key);
        if left.is_empty() {
            return Poll::Ready(());
        }
        let waker = Some(context.waker().clone());
        let releases = ring.releases();
        let place = releases.waiting.borrow_mut().insert(Waiting { left, waker });
        releases.any.set(true);
        self.place = Some((ring, place));
        Poll::Pending
    }
}

impl Future for Release {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some((ring, place)) = &self.place else { return self.start(context) };
        let releases = ring.releases();
        if releases.waiting.borrow()[*place].left.is_empty() {
            drop(releases.remove(*place));
            self.place = None;
            return Poll::Ready(());
        }
        let waker = Some(context.waker().clone());
        let displaced = std::mem::replace(&mut releases.waiting.borrow_mut()[*place].waker, waker);
        guard::discard(displaced);
        Poll::Pending
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        if let Some((ring, place)) = self.place.take() {
            let waiting = ring.releases().remove(place);
            guard::discard(waiting.waker);
        }
    }
}
