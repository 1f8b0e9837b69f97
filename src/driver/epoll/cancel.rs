//! Requests about requests: cancels, timeouts and their changes.

use std::time::Duration;

use io_uring::opcode;

use super::Epoll;
use super::requests::{Asked, Key, Place, Request};
use crate::driver::sqe::flag;
use crate::sys::clock;

/// A call that does not end when it was interrupted is interrupted again, after ever longer pauses.
const FIRST_PAUSE: u64 = Duration::from_millis(1).as_nanos() as u64;
const LONGEST_PAUSE: u64 = Duration::from_millis(100).as_nanos() as u64;

/// Requests that were cancelled while a thread ran them.
#[derive(Debug, Default)]
pub(super) struct Unwanted {
    keys: Vec<Key>,
    next: u64,
    pause: u64,
}

impl Unwanted {
    fn add(&mut self, key: Key, now: u64) {
        self.keys.push(key);
        self.pause = FIRST_PAUSE;
        self.next = now + self.pause;
    }

    pub(super) fn has_ended(&mut self, key: Key) {
        self.keys.retain(|&other| other != key);
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// When they are to be interrupted again.
    pub(super) fn next(&self) -> Option<u64> {
        (!self.keys.is_empty()).then_some(self.next)
    }
}

impl Epoll {
    /// Ends a request; it gets its last answer now, or when the thread that runs it is done.
    pub(super) fn cancel(&mut self, asked: &Asked) {
        let result = match self.requests.find(asked.addr, |_| true) {
            Some(key) => self.end(key),
            None => -libc::ENOENT,
        };
        self.answer(asked, result, 0);
    }

    fn end(&mut self, key: Key) -> i32 {
        let request = *self.requests.get(key);
        match request.place {
            Place::Queue(side) => {
                self.dequeue(key, side);
            }
            Place::Time => self.remove_timeout(key),
            Place::Thread { .. } if self.blocking.take_back(u64::from(key)) => {
                self.requests.remove(key);
            }
            Place::Thread { cancelled } => {
                let runs = self.blocking.interrupt(u64::from(key));
                if runs && !cancelled {
                    self.requests.get(key).place = Place::Thread { cancelled: true };
                    self.unwanted.add(key, clock::monotonic());
                }
                return -libc::EALREADY;
            }
            Place::Nowhere => unreachable!("{request:?} is in the table and waits for nothing"),
        }
        self.answer_cancelled(&request);
        0
    }

    /// The last answer of what was cancelled; bytes that were moved before count.
    pub(super) fn answer_cancelled(&mut self, request: &Request) {
        let has_moved = request.done > 0 && request.asked.opcode != opcode::Connect::CODE;
        let result = if has_moved { request.done as i32 } else { -libc::ECANCELED };
        self.answer(&request.asked, result, 0);
    }

    pub(super) fn time_out(&mut self, asked: Asked) {
        let is_known = asked.op_flags & !(flag::TIMEOUT_ABS | flag::TIMEOUT_ETIME_SUCCESS) == 0;
        // A count of answers to wait for is not offered.
        let time = (is_known && asked.len == 1 && asked.off == 0)
            .then(|| time_of(asked.addr, asked.op_flags))
            .flatten();
        let Some(time) = time else { return self.answer(&asked, -libc::EINVAL, 0) };
        let mut request = Request::new(Asked { off: time, ..asked });
        request.place = Place::Time;
        let key = self.requests.insert(request);
        self.deadlines.add(time, key);
    }

    /// `IORING_OP_TIMEOUT_REMOVE`: ends a timeout, or moves it.
    pub(super) fn change_timeout(&mut self, asked: &Asked) {
        let found = self.requests.find(asked.addr, |request| request.place == Place::Time);
        let result = match (found, asked.op_flags) {
            (None, _) => -libc::ENOENT,
            (Some(key), 0) => self.end(key),
            (Some(key), flags) if flags & !flag::TIMEOUT_ABS == flag::TIMEOUT_UPDATE => {
                match time_of(asked.off, flags) {
                    Some(time) => {
                        self.requests.get(key).asked.off = time;
                        self.deadlines.removed(|key| self.requests.due(key));
                        self.deadlines.add(time, key);
                        0
                    }
                    None => -libc::EINVAL,
                }
            }
            _ => -libc::EINVAL,
        };
        self.answer(asked, result, 0);
    }

    fn remove_timeout(&mut self, key: Key) {
        self.requests.remove(key);
        self.deadlines.removed(|key| self.requests.due(key));
    }

    /// Does what is due: answers timeouts, and interrupts once more what nobody wants.
    #[inline]
    pub(super) fn fire(&mut self) {
        if let Some(time) = self.next_time()
            && clock::monotonic() >= time
        {
            self.fire_at(clock::monotonic());
        }
    }

    #[inline(never)]
    fn fire_at(&mut self, now: u64) {
        while let Some((time, key)) = self.deadlines.first(|key| self.requests.due(key))
            && time <= now
        {
            let request = *self.requests.get(key);
            self.remove_timeout(key);
            self.answer(&request.asked, -libc::ETIME, 0);
        }
        if self.unwanted.next().is_some_and(|time| time <= now) {
            let unwanted = &mut self.unwanted;
            unwanted.pause = (unwanted.pause * 2).min(LONGEST_PAUSE);
            unwanted.next = now + unwanted.pause;
            for &key in &unwanted.keys {
                self.blocking.interrupt(u64::from(key));
            }
        }
    }
}

/// The time that a timeout names, on the monotonic clock; `None` if it is none.
fn time_of(place: u64, flags: u32) -> Option<u64> {
    // SAFETY: I1, I2: the two numbers are the request's until its last answer.
    let [seconds, nanoseconds] = unsafe { *(place as *const [i64; 2]) };
    let (seconds, nanoseconds) = (u64::try_from(seconds).ok()?, u64::try_from(nanoseconds).ok()?);
    if nanoseconds >= 1_000_000_000 {
        return None;
    }
    let time = seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds);
    let is_absolute = flags & flag::TIMEOUT_ABS != 0;
    Some(if is_absolute { time } else { clock::monotonic().saturating_add(time) })
}
