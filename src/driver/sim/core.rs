//! One core's queues in the invented kernel: requests on their way in, answers on their way out.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::{opcodes, perform};
use crate::driver::pad::provided::Provided;
use crate::driver::{Counters, Cqe, Fields, Kick, Unparker};
use crate::sys::atomic::Arc;

/// A request, from its push to its last answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    pub(super) fields: Fields,
    /// The socket or open file that its descriptor named when it was pushed.
    pub(super) object: Option<u64>,
    /// What its memory held then, if the kernel reads it.
    pub(super) fingerprint: u64,
    /// How many its core had pushed by then. Of a cancel: the number of the request that it names,
    /// or 0 when that has been answered.
    pub(super) number: u64,
    /// Bytes that were sent of it so far.
    pub(super) done: usize,
    /// It was answered, but for the notification that its memory is no longer read.
    pub(super) told: bool,
    /// When it is looked at next.
    pub(super) attempt: Option<u64>,
    /// When a timeout ends, and until when a cancel tarries.
    pub(super) deadline: u64,
}

impl Request {
    /// A request as it was just asked, of which nothing is done.
    pub(super) fn new(fields: Fields, object: Option<u64>, number: u64) -> Self {
        let fingerprint = perform::fingerprint(&fields);
        let (done, told, attempt, deadline) = (0, false, None, 0);
        Request { fields, object, fingerprint, number, done, told, attempt, deadline }
    }

    /// Whether it is an operation's, and not one of the ring's own.
    pub(super) fn is_operation(&self) -> bool {
        !opcodes::is_of_the_ring(self.fields.opcode)
    }
}

/// The kernel's side of one core.
pub(super) struct Core {
    pub(super) host: usize,
    /// Pushed, and not taken yet.
    pub(super) queue: VecDeque<Request>,
    /// Taken, and not answered for the last time yet, by serial number.
    pub(super) pending: BTreeMap<u64, Request>,
    pub(super) answers: VecDeque<Cqe>,
    pub(super) overflow: VecDeque<Cqe>,
    pub(super) capacity: usize,
    pub(super) provided: Vec<Provided>,
    /// Buffers that were picked by answers that have not been taken.
    pub(super) picked: u32,
    pub(super) bell: Arc<Bell>,
    pub(super) unparker: Unparker,
    pub(super) counters: Counters,
    /// Its host has lost its power: everything is answered, and nothing happens any more.
    pub(super) dead: bool,
    pub(super) ledger: Ledger,
}

/// What a core asked for and got, for the invariant of conservation (I3).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ledger {
    pub(super) pushed: u64,
    /// Last answers that were handed over.
    pub(super) ended: u64,
}

impl Core {
    pub(super) fn new(host: usize, capacity: usize) -> Self {
        let bell = Arc::new(Bell::default());
        Core {
            host,
            queue: VecDeque::new(),
            pending: BTreeMap::new(),
            answers: VecDeque::new(),
            overflow: VecDeque::new(),
            capacity,
            provided: Vec::new(),
            picked: 0,
            unparker: Unparker::new(Arc::clone(&bell)),
            bell,
            counters: Counters::default(),
            dead: false,
            ledger: Ledger::default(),
        }
    }

    /// The buffers of a group.
    pub(super) fn provided(&mut self, group: u16) -> Option<&mut Provided> {
        Provided::of_group(&mut self.provided, group)
    }

    /// Whether an enter would bring or take something.
    pub(super) fn has_work(&self) -> bool {
        !self.answers.is_empty() || !self.queue.is_empty() || self.bell.rings()
    }

    /// Queues an answer. False: there was no room, and it waits where nothing may follow it.
    pub(super) fn post(&mut self, cqe: Cqe) -> bool {
        self.picked += u32::from(cqe.buffer().is_some());
        let fits = self.overflow.is_empty() && self.answers.len() < self.capacity;
        match fits {
            true => self.answers.push_back(cqe),
            false => self.overflow.push_back(cqe),
        }
        fits
    }

    /// Whether the next answer finds room.
    pub(super) fn has_room(&self) -> bool {
        self.overflow.is_empty() && self.answers.len() < self.capacity
    }

    /// Hands over what is queued; what had overflowed takes its place.
    pub(super) fn reap(&mut self, answers: &mut Vec<Cqe>) {
        self.counters.overflows += u64::from(!self.overflow.is_empty());
        self.counters.cqes += self.answers.len() as u64;
        for cqe in self.answers.drain(..) {
            self.ledger.ended += u64::from(!cqe.has_more());
            self.picked -= u32::from(cqe.buffer().is_some());
            answers.push(cqe);
        }
        let count = self.overflow.len().min(self.capacity);
        self.answers.extend(self.overflow.drain(..count));
    }

    /// Requests of operations that are still owed a last answer that was taken.
    pub(super) fn live(&self) -> usize {
        let waiting = self.queue.iter().chain(self.pending.values());
        let ended = self.answers.iter().chain(&self.overflow);
        let is_operation = |cqe: &&Cqe| !cqe.has_more() && cqe.user_data >> 32 != OWN;
        waiting.filter(|request| request.is_operation()).count()
            + ended.filter(is_operation).count()
    }

    /// All requests, those of the ring included, that are owed a last answer that was taken.
    pub(super) fn owed(&self) -> u64 {
        let last = self.answers.iter().chain(&self.overflow).filter(|cqe| !cqe.has_more());
        (self.queue.len() + self.pending.len() + last.count()) as u64
    }
}

/// The generation that requests of the ring itself carry.
const OWN: u64 = u32::MAX as u64;

/// Ends a core's sleep. On one thread it is a flag; a core that is driven by itself sleeps on it.
#[derive(Default)]
pub(super) struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    fn lock(&self) -> MutexGuard<'_, bool> {
        self.rung.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn rings(&self) -> bool {
        *self.lock()
    }

    pub(super) fn silence(&self) -> bool {
        std::mem::take(&mut *self.lock())
    }

    /// Sleeps for real: nothing in the world can happen any more, so only another thread can help.
    pub(super) fn wait(&self) {
        let mut rung = self.lock();
        while !*rung {
            rung = self.changed.wait(rung).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Kick for Arc<Bell> {
    fn kick(&self) {
        *self.lock() = true;
        self.changed.notify_all();
    }
}
