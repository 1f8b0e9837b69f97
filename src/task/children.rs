//! Futures that are polled inside their parent's task, each only when it was woken itself.
//!
//! Every child has a waker of its own, which notes the child's number and wakes the parent. So a wake
//! costs the same however many children there are. The note is the one thing that another thread can
//! reach, and lies under a lock that no user code runs under.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use crate::sys::guard;
use crate::sys::overdue::is_overdue;

/// Children polled in one poll of the parent, before others get their turn.
const BUDGET: u32 = 128;

/// The children of one parent.
pub(super) struct Children<F: Future> {
    places: Vec<Place<F>>,
    /// Places without a child.
    vacant: Vec<u32>,
    woken: Arc<Woken>,
    /// Places taken from `woken`, to be polled.
    batch: VecDeque<u32>,
    /// How many more may be polled in this poll of the parent.
    budget: u32,
}

/// A place keeps its memory and its waker when its child has ended. A late wake of that child then
/// polls the next one needlessly, which does no harm.
struct Place<F> {
    child: Pin<Box<Option<F>>>,
    waker: Waker,
    /// What the parent calls the child.
    name: usize,
}

impl<F: Future> Children<F> {
    pub(super) fn new() -> Self {
        Children {
            places: Vec::new(),
            vacant: Vec::new(),
            woken: Arc::default(),
            batch: VecDeque::new(),
            budget: 0,
        }
    }

    /// How many have not ended.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.vacant.len()
    }

    /// Adds a child, which is to be polled after those that are ready.
    pub(super) fn add(&mut self, name: usize, child: F) {
        let place = self.vacant.pop().unwrap_or_else(|| {
            let number = u32::try_from(self.places.len()).expect("fewer than 2^32 children");
            let bell = Bell { woken: Arc::clone(&self.woken), place: number };
            let waker = Waker::from(Arc::new(bell));
            self.places.push(Place { child: Box::pin(None), waker, name });
            number
        });
        let Place { child: empty, name: old_name, .. } = &mut self.places[place as usize];
        empty.set(Some(child));
        *old_name = name;
        self.batch.push_back(place);
    }

    /// To be called at the start of each poll of the parent.
    pub(super) fn begin(&mut self) {
        self.budget = BUDGET;
        if is_overdue() {
            // The deadline is for all, also for those whom nobody has woken.
            let all = self.places.len() as u32;
            self.batch.clear();
            self.batch.extend(0..all);
            self.budget += all;
        }
    }

    /// Polls children that were woken until one ends, and returns its name and output.
    pub(super) fn poll_next(&mut self, context: &Context<'_>) -> Poll<(usize, F::Output)> {
        loop {
            let Some(&number) = self.batch.front() else {
                if self.woken.take(&mut self.batch, context.waker()) {
                    continue;
                }
                return Poll::Pending;
            };
            if self.budget == 0 {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.budget -= 1;
            self.batch.pop_front();
            let Place { child: place, waker, name } = &mut self.places[number as usize];
            // A place that is empty was woken late.
            let Some(child) = place.as_mut().as_pin_mut() else { continue };
            if let Poll::Ready(output) = child.poll(&mut Context::from_waker(waker)) {
                let name = *name;
                self.vacant.push(number);
                self.places[number as usize].child.set(None);
                return Poll::Ready((name, output));
            }
        }
    }

    /// Drops all children.
    pub(super) fn clear(&mut self) {
        self.woken.forget_parent();
        self.vacant.clear();
        self.batch.clear();
        self.places.clear();
    }
}

impl<F: Future> Drop for Children<F> {
    fn drop(&mut self) {
        // The children's wakers may live on elsewhere; they wake nobody any more.
        self.woken.forget_parent();
    }
}

/// Which children were woken.
#[derive(Default)]
struct Woken(Mutex<Notes>);

#[derive(Default)]
struct Notes {
    places: VecDeque<u32>,
    /// For each place, whether it is among them.
    noted: Vec<bool>,
    /// Woken by the first child that is noted, and stored again when the parent has seen all notes.
    parent: Option<Waker>,
}

impl Woken {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        // Nothing that may panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a child; the parent is returned if it is to be woken, outside of the lock.
    fn note(&self, place: u32) -> Option<Waker> {
        let mut notes = self.notes();
        let at = place as usize;
        if notes.noted.len() <= at {
            notes.noted.resize(at + 1, false);
        }
        if std::mem::replace(&mut notes.noted[at], true) {
            return None;
        }
        notes.places.push_back(place);
        notes.parent.take()
    }

    /// Moves the notes to the empty `batch`. False: there was none, and `parent` will be woken.
    fn take(&self, batch: &mut VecDeque<u32>, parent: &Waker) -> bool {
        let mut notes = self.notes();
        if notes.places.is_empty() {
            if notes.parent.as_ref().is_some_and(|old| old.will_wake(parent)) {
                return false;
            }
            // Cloning and dropping a waker runs its code, so not under the lock.
            drop(notes);
            let new = parent.clone();
            notes = self.notes();
            if notes.places.is_empty() {
                let displaced = notes.parent.replace(new);
                drop(notes);
                guard::discard(displaced);
                return false;
            }
        }
        let Notes { places, noted, .. } = &mut *notes;
        std::mem::swap(places, batch);
        for &place in &*batch {
            noted[place as usize] = false;
        }
        true
    }

    fn forget_parent(&self) {
        let parent = self.notes().parent.take();
        guard::discard(parent);
    }
}

/// One child's waker.
struct Bell {
    woken: Arc<Woken>,
    place: u32,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(parent) = self.woken.note(self.place) {
            parent.wake();
        }
    }
}
