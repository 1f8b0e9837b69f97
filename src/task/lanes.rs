//! Ready queues beside the first, each with shares of its core's time.
//!
//! The scheduler's own list is lane 0, and all there is until a lane is made; nothing is paid for the
//! others before that. Then the lanes take turns: the next is the one that has run least, measured in
//! time by shares. A lane that had nothing to do does not save up time: it goes on where the others are.
//!
//! A task in a lane is marked SPECIAL, so that a wake takes the long way and finds its lane. While a
//! lane has its turn, the scheduler's own list is put aside, and what gets into it instead is sorted
//! after each poll: what was spawned (FRESH) belongs to the lane, what was only woken does not.

use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
use std::rc::Rc;
use std::time::Duration;

use super::raw::{FRESH, Header};
use super::scheduler::{FIRST_LOOK, Scheduler};
use crate::sys::atomic::Arc;

/// How many lanes a core may have; a task names its own with a byte.
const MOST: usize = 256;
/// A turn of a lane ends with the first poll after so many nanoseconds.
const TURN_NS: u64 = 50_000;
/// What a poll counts for at least: in a simulation it takes no time.
const POLL_NS: u64 = 50;
/// The shares of lane 0, and the most that one may have.
pub(super) const MOST_SHARES: u32 = 1000;

/// One ready queue.
pub(super) struct Lane {
    pub(super) name: Arc<str>,
    pub(super) list: List,
    shares: Cell<u32>,
    /// How long it has run.
    ran: Cell<u64>,
    /// The same, by its shares: the lane in which this is least is next. In 64 bits it would wrap
    /// around when a lane of one share has run for 213 days.
    share_time: Cell<u128>,
    /// It had something to do when a turn was last given.
    was_ready: Cell<bool>,
}

impl Lane {
    fn new(name: Arc<str>, shares: u32) -> Self {
        Lane {
            name,
            list: List::default(),
            shares: Cell::new(shares),
            ran: Cell::new(0),
            share_time: Cell::new(0),
            was_ready: Cell::new(false),
        }
    }

    pub(super) fn shares(&self) -> u32 {
        self.shares.get()
    }

    pub(super) fn set_shares(&self, shares: u32) {
        self.shares.set(shares);
    }

    pub(super) fn ran(&self) -> Duration {
        Duration::from_nanos(self.ran.get())
    }

    /// Counts a turn.
    pub(super) fn charge(&self, took: u64, polls: u64) {
        let took = took.max(polls * POLL_NS);
        self.ran.set(self.ran.get() + took);
        let weighed = took.saturating_mul(u64::from(MOST_SHARES)) / u64::from(self.shares.get());
        self.share_time.set(self.share_time.get() + u128::from(weighed));
    }
}

/// The lanes of a core.
pub(super) struct Lanes {
    all: RefCell<Vec<Rc<Lane>>>,
    /// The one that has its turn.
    pub(super) current: Cell<u8>,
    /// How far the lane was that had the last turn.
    reached: Cell<u128>,
    clock: Rc<dyn Fn() -> u64>,
}

impl Lanes {
    pub(super) fn new(clock: Rc<dyn Fn() -> u64>) -> Self {
        let first = Rc::new(Lane::new("default".into(), MOST_SHARES));
        let all = RefCell::new(vec![first]);
        Lanes { all, current: Cell::new(0), reached: Cell::new(0), clock }
    }

    pub(super) fn now(&self) -> u64 {
        (self.clock)()
    }

    /// Adds a lane.
    pub(super) fn add(&self, name: Arc<str>, shares: u32) -> u8 {
        let mut all = self.all.borrow_mut();
        let number = all.len();
        assert!(
            number < MOST,
            "a core has at most {} queues; make them once, at the start",
            MOST - 1
        );
        all.push(Rc::new(Lane::new(name, shares)));
        number as u8
    }

    pub(super) fn get(&self, number: u8) -> Rc<Lane> {
        Rc::clone(&self.all.borrow()[usize::from(number)])
    }

    /// Whether nothing is ready in all lanes but the first.
    pub(super) fn are_idle(&self) -> bool {
        self.all.borrow().iter().all(|lane| lane.list.is_empty())
    }

    /// Moves all that is queued to `list`.
    pub(super) fn empty_into(&self, list: &List) {
        self.all.borrow().iter().for_each(|lane| list.extend(&lane.list));
    }

    /// Whose turn it is, if any lane has something to do. `first` says whether the first has.
    pub(super) fn next(&self, first: bool) -> Option<(u8, Rc<Lane>)> {
        let all = self.all.borrow();
        let mut found: Option<(u8, &Rc<Lane>)> = None;
        for (number, lane) in all.iter().enumerate() {
            let is_ready = if number == 0 { first } else { !lane.list.is_empty() };
            let was_ready = lane.was_ready.replace(is_ready);
            if !is_ready {
                continue;
            }
            if !was_ready {
                // It has slept. What it did not use then is not saved up.
                lane.share_time.set(lane.share_time.get().max(self.reached.get()));
            }
            if found.is_none_or(|(_, best)| lane.share_time.get() < best.share_time.get()) {
                found = Some((number as u8, lane));
            }
        }
        let (number, lane) = found?;
        self.reached.set(self.reached.get().max(lane.share_time.get()));
        Some((number, Rc::clone(lane)))
    }
}

impl Scheduler {
    /// Gives the lanes their turns, until nothing is ready, or the budget is spent.
    #[cold]
    pub(super) fn run_lanes(&self, lanes: &Lanes, budget: u32, mut late: impl FnMut() -> bool) {
        let end = self.polls() + u64::from(budget);
        while self.polls() < end && !late() {
            let Some((number, lane)) = lanes.next(!self.ready.is_empty()) else { return };
            let (start, polls) = (lanes.now(), self.polls());
            // The others come before long, and are spared most looks at the clock.
            while self.polls() < end && lanes.now() - start <= TURN_NS {
                let more = match number {
                    0 => self.run_some(end.min(self.polls() + u64::from(FIRST_LOOK))),
                    _ => self.run_one_of(lanes, number, &lane),
                };
                if !more {
                    break;
                }
            }
            lane.charge(lanes.now() - start, self.polls() - polls);
        }
    }

    /// Polls one task of a lane. False when nothing is ready there any more.
    fn run_one_of(&self, lanes: &Lanes, number: u8, lane: &Lane) -> bool {
        let Some(header) = lane.list.pop() else { return false };
        let others = self.ready.take();
        // SAFETY: a queued task is alive.
        unsafe { header.as_ref() }.next.set(None);
        self.ready.append(header);
        let turn = LaneTurn { scheduler: self, lanes, number, lane, others };
        lanes.current.set(number);
        self.run_some(self.polls() + 1);
        drop(turn);
        !lane.list.is_empty()
    }
}

/// A lane has its turn until this is dropped, also by a panic.
struct LaneTurn<'a> {
    scheduler: &'a Scheduler,
    lanes: &'a Lanes,
    number: u8,
    lane: &'a Lane,
    /// What was ready in lane 0.
    others: List,
}

impl Drop for LaneTurn<'_> {
    fn drop(&mut self) {
        let ready = &self.scheduler.ready;
        ready.sort(self.number, self.lane, &self.others);
        ready.extend(&self.others);
        self.lanes.current.set(0);
    }
}

/// Tasks in a row, linked through their headers.
#[derive(Default)]
pub(super) struct List {
    first: Cell<Option<NonNull<Header>>>,
    last: Cell<Option<NonNull<Header>>>,
}

impl List {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.first.get().is_none()
    }

    #[inline]
    pub(super) fn first(&self) -> Option<NonNull<Header>> {
        self.first.get()
    }

    /// Adds a task whose link is free.
    #[inline]
    pub(super) fn append(&self, header: NonNull<Header>) {
        match self.last.replace(Some(header)) {
            // SAFETY: what is queued is alive: the scheduler's reference, or see `pop`.
            Some(last) => unsafe { last.as_ref() }.next.set(Some(header)),
            None => self.first.set(Some(header)),
        }
    }

    /// Takes the first; the caller clears QUEUED.
    #[inline]
    pub(super) fn pop(&self) -> Option<NonNull<Header>> {
        let header = self.first.get()?;
        // SAFETY: as in `append`.
        let task = unsafe { header.as_ref() };
        self.first.set(task.next.get());
        if task.next.get().is_none() {
            self.last.set(None);
        }
        Some(header)
    }

    /// Takes all.
    pub(super) fn take(&self) -> List {
        List { first: Cell::new(self.first.take()), last: Cell::new(self.last.take()) }
    }

    /// Moves all of `other` to the end of this one.
    pub(super) fn extend(&self, other: &List) {
        let Some(first) = other.first.take() else { return };
        match self.last.replace(other.last.take()) {
            // SAFETY: as in `append`.
            Some(last) => unsafe { last.as_ref() }.next.set(Some(first)),
            None => self.first.set(Some(first)),
        }
    }

    /// Moves what is here to `lane`, if it is fresh, and else to `others`.
    pub(super) fn sort(&self, number: u8, lane: &Lane, others: &List) {
        while let Some(header) = self.pop() {
            // SAFETY: as in `append`.
            let task = unsafe { header.as_ref() };
            task.next.set(None);
            if task.has(FRESH) {
                task.set_lane(number);
                lane.list.append(header);
            } else {
                others.append(header);
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_queue_of_one_share_that_has_run_for_a_year_takes_its_turns_as_before() {
        let lanes = Lanes::new(Rc::new(|| 0));
        let (first, second) = (lanes.get(0), lanes.get(lanes.add("background".into(), 1)));
        // Something is ready in it; that is all that is looked at.
        second.list.append(NonNull::dangling());
        let turn = |is_ready| lanes.next(is_ready).expect("one of them is ready").0;
        assert_eq!(turn(false), 1);
        let half_a_year = 182 * 24 * 3600 * 1_000_000_000;
        (0..2).for_each(|_| second.charge(half_a_year, 1));
        assert_eq!(turn(false), 1);
        assert_eq!(turn(true), 0, "whoever has slept comes next");
        first.charge(10 * TURN_NS, 1);
        assert_eq!(turn(true), 1, "and goes on where the other is");
        second.charge(TURN_NS, 1);
        assert_eq!(turn(true), 0);
    }
}
