//! A lap: the wait for events, and what is done when it is over.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use io_uring::opcode;

use super::Epoll;
use super::descriptors::{Side, fact};
use super::poller::{Event, Sleep};
use super::requests::{Key, Place, Request};
use crate::driver::Wait;
use crate::sys::clock;

/// Events after which the tasks have their turn, while what was received is in the cache. The other
/// events of the same wait have theirs in the next laps.
const BATCH: usize = 32;

impl Epoll {
    /// Waits for events and has their requests tried, until there is an answer or no reason to wait.
    pub(super) fn trade(&mut self, wait: Wait) -> io::Result<()> {
        loop {
            let sleep = self.sleep(wait);
            self.counters.enters += 1;
            let is_full = match self.poller.wait(sleep) {
                Ok(is_full) => is_full,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    self.counters.interrupted += 1;
                    return Ok(());
                }
                Err(error) => {
                    return Err(io::Error::new(error.kind(), format!("epoll_wait: {error}")));
                }
            };
            self.dispatch_some();
            self.fire();
            if !self.answered.is_empty() || self.kicked {
                return Ok(());
            }
            match wait {
                // Others may be behind those, and whoever polls has to see them all.
                Wait::Poll if is_full || !self.hot.is_empty() => {}
                Wait::Poll => return Ok(()),
                Wait::Until(time) if clock::monotonic() >= time => return Ok(()),
                Wait::Until(_) | Wait::Block => {}
            }
            self.go_on();
        }
    }

    /// Takes the next batch of events, and others if that has answered nothing.
    #[inline]
    pub(super) fn dispatch_some(&mut self) {
        loop {
            for _ in 0..BATCH {
                let Some(event) = self.poller.event() else { return };
                self.dispatch(event);
            }
            if !self.answered.is_empty() {
                return;
            }
        }
    }

    #[inline]
    pub(super) fn sleep(&mut self, wait: Wait) -> Sleep {
        if wait == Wait::Poll || !self.answered.is_empty() || !self.hot.is_empty() {
            return Sleep::None;
        }
        match (wait, self.next_time()) {
            (Wait::Until(time), Some(next)) => Sleep::Until(time.min(next)),
            (Wait::Until(time), None) | (_, Some(time)) => Sleep::Until(time),
            (_, None) => Sleep::Forever,
        }
    }

    /// When something is to be done without an event.
    #[inline]
    pub(super) fn next_time(&mut self) -> Option<u64> {
        if self.deadlines.is_empty() && self.unwanted.is_empty() { None } else { self.next_due() }
    }

    #[inline(never)]
    fn next_due(&mut self) -> Option<u64> {
        let due = self.deadlines.first(|key| self.requests.due(key)).map(|(time, _)| time);
        [due, self.unwanted.next()].into_iter().flatten().min()
    }

    /// Has the requests tried for which something has happened.
    #[inline]
    pub(super) fn dispatch(&mut self, Event { fd, bits }: Event) {
        if fd == self.kick.as_raw_fd() {
            // The threads ring the same bell.
            if !self.collect() {
                self.counters.kicks += 1;
                self.kicked = true;
            }
            return;
        }
        if let Some(alarm) = self.alarm.get()
            && alarm.is(fd)
        {
            return alarm.went_off();
        }
        let Some(descriptor) = self.descriptors.entry(fd) else { return };
        let is = |events: i32| bits & events as u32 != 0;
        let ends = is(libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR | libc::EPOLLPRI);
        if ends {
            descriptor.set(fact::ENDING);
        }
        if ends || is(libc::EPOLLIN) {
            descriptor.set(fact::READABLE);
        }
        if is(libc::EPOLLOUT | libc::EPOLLHUP | libc::EPOLLERR) {
            descriptor.set(fact::WRITABLE);
        }
        let polled = descriptor.first(Side::Any).is_some();
        let writes = descriptor.first(Side::Write).is_some();
        self.turn(fd, Side::Read);
        if writes {
            self.turn(fd, Side::Write);
        }
        if polled {
            self.look(fd);
        }
    }

    /// Answers what threads have done; whether there was anything.
    pub(super) fn collect(&mut self) -> bool {
        let mut returned = std::mem::take(&mut self.returned);
        self.blocking.collect(&mut returned);
        let has_returned = !returned.is_empty();
        for (key, result) in returned.drain(..) {
            let key = Key::try_from(key).expect("the keys are those of the table");
            let Request { asked, place, .. } = self.requests.remove(key);
            if place == (Place::Thread { cancelled: true }) {
                self.unwanted.has_ended(key);
                if result == -libc::EINTR {
                    self.answer(&asked, -libc::ECANCELED, 0);
                    continue;
                }
            }
            if asked.opcode == opcode::OpenAt::CODE && result >= 0 {
                self.opened(result, false);
            }
            self.answer(&asked, result, 0);
        }
        self.returned = returned;
        has_returned
    }

    /// Lets the descriptors go on that had to let others have their turn; whether there were any.
    #[inline]
    pub(super) fn go_on(&mut self) -> bool {
        !self.hot.is_empty() && self.go_on_with_some()
    }

    #[inline(never)]
    fn go_on_with_some(&mut self) -> bool {
        let count = self.hot.len();
        for index in 0..count {
            let fd = self.hot[index];
            self.descriptors.known(fd).clear(fact::HOT);
            self.turn(fd, Side::Read);
            self.turn(fd, Side::Write);
        }
        self.hot.drain(..count);
        true
    }

    /// Asks the test hook for an error: then nothing is traded, as if io_uring had said it.
    #[inline]
    pub(super) fn inject(&mut self) -> Option<io::Result<()>> {
        let (errno, _) = self.fault.as_mut()?(0)?;
        self.counters.enters += 1;
        Some(match errno {
            libc::EINTR => {
                self.counters.interrupted += 1;
                Ok(())
            }
            libc::EAGAIN | libc::EBUSY | libc::ENOMEM => {
                self.counters.refused += 1;
                std::thread::sleep(Duration::from_millis(1));
                Ok(())
            }
            errno => Err(io::Error::from_raw_os_error(errno)),
        })
    }

    /// A foreign loop may sleep now: whatever would end a sleep here makes the epoll descriptor
    /// readable. Events do by themselves, as long as they were not taken.
    pub(super) fn set_alarm(&mut self) {
        let time = if self.kicked { Some(0) } else { self.next_time() };
        if let Some(alarm) = self.alarm.get() {
            alarm.set(time);
        }
    }
}
