//! An emulated kernel: readiness, and threads for the calls that block.
//!
//! A request is tried as soon as it is pushed, by the plain system call, told not to wait. If it
//! would have to, it joins the queue of its descriptor, which epoll watches from then on, both
//! directions and only changes, until it is closed: a connection costs one `epoll_ctl`, a message
//! none. What epoll has no events for (files) a thread does; see [`pad::blocking`](super::pad).
//!
//! ```text
//!            ┌─ tried ──────────────────────────────────────────────┐
//!   push ────┤            event                                      ├──▶ answer
//!            ├─ queue of its descriptor ─▶ tried again ──────────────┤
//!            ├─ a time ──────────────────▶ it has come ──────────────┤
//!            └─ a thread ────────────────▶ the call has returned ────┘
//! ```
//!
//! Descriptors stay as they are (blocking ones, as io_uring has them, and users may borrow them),
//! with one exception: a socket that accepts is switched to `O_NONBLOCK`, see [`attempt`].

mod attempt;
mod cancel;
mod deadlines;
mod descriptors;
mod file;
mod poller;
mod requests;
#[cfg(test)]
mod tests;

use std::cell::OnceCell;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use io_uring::opcode;

use super::eventfd::EventFd;
use super::pad::blocking::Blocking;
use super::pad::provided::Provided;
use super::uring::{EnterFault, Refused};
use super::{Call, Counters, Cqe, Driver, Fields, Register, Sqe, Unparker, Wait, call};
use crate::sys::atomic::Arc;
use crate::sys::{clock, fork};
use attempt::{Attempt, BUFFER_SELECT, RECV_MULTISHOT, attempt};
use cancel::Unwanted;
use deadlines::Deadlines;
use descriptors::{Descriptors, Side, fact};
use poller::{Alarm, Event, Poller, Sleep};
use requests::{Asked, Key, Place, Request, Requests};

/// `IORING_CQE_F_MORE`
const MORE: u32 = 1 << 1;
/// `IOSQE_ASYNC`, a hint that means nothing here.
const ASYNC: u8 = 1 << 4;
/// `IORING_RECVSEND_POLL_FIRST`, likewise.
const POLL_FIRST: u16 = 1;
/// `IORING_POLL_ADD_MULTI`, and `IORING_POLL_ADD_LEVEL`
const POLL_MULTI: u32 = 1;
const POLL_LEVEL: u32 = 1 << 3;

/// Answers that one descriptor gets in a row, before the others have their turn: 64 KiB of a stream.
const TURN: u32 = 16;

/// Laps in a row that leave epoll out because what was pushed was answered at once.
const QUIET_LAPS: u32 = 8;

/// Readiness and threads as a [`Driver`].
pub(crate) struct Epoll {
    // Goes first: a fork in the meantime must not close a number that is somebody else's by then.
    _listed: fork::Listed,
    poller: Poller,
    requests: Requests,
    descriptors: Descriptors,
    deadlines: Deadlines,
    blocking: Blocking<file::Call>,
    /// Calls of threads that have returned: kept for its memory.
    returned: Vec<(u64, i32)>,
    unwanted: Unwanted,
    provided: Vec<Provided>,
    /// Answers that the next enter brings.
    answered: Vec<Cqe>,
    /// Descriptors that had their turn and have more.
    hot: Vec<RawFd>,
    quiet_laps: u32,
    kick: Arc<EventFd>,
    unparker: Unparker,
    /// Set before the sleep of a foreign loop, once one has asked for the descriptor to sleep on.
    alarm: OnceCell<Alarm>,
    fault: Option<EnterFault>,
    /// A kick has come with the last enter, and the foreign loop must not sleep over it.
    kicked: bool,
    counters: Counters,
}

impl Epoll {
    pub(crate) fn new(fault: Option<EnterFault>) -> Result<Self, Refused> {
        let after = |step| move |error| Refused { step, error };
        let poller = Poller::new().map_err(after("epoll_create1"))?;
        let listed = fork::Listed::new(poller.as_raw_fd());
        let listed = listed.map_err(after("listing the epoll descriptor"))?;
        let kick = Arc::new(EventFd::new().map_err(after("eventfd"))?);
        poller.add_own(kick.as_raw_fd()).map_err(after("epoll_ctl"))?;
        let rings = Arc::clone(&kick);
        Ok(Epoll {
            _listed: listed,
            poller,
            requests: Requests::default(),
            descriptors: Descriptors::default(),
            deadlines: Deadlines::default(),
            blocking: Blocking::new(move || rings.ring()),
            returned: Vec::new(),
            unwanted: Unwanted::default(),
            provided: Vec::new(),
            answered: Vec::new(),
            hot: Vec::new(),
            quiet_laps: 0,
            unparker: Unparker::new(Arc::clone(&kick)),
            kick,
            alarm: OnceCell::new(),
            fault,
            kicked: false,
            counters: Counters::default(),
        })
    }

    // ---- A request's way ----

    /// Tries a request, and if it has to wait, has it wait.
    #[inline]
    fn start(&mut self, asked: Asked, side: Side) {
        let Some(descriptor) = self.descriptors.entry(asked.fd) else {
            return self.answer(&asked, -libc::EBADF, 0);
        };
        let mut request = Request::new(asked);
        if descriptor.first(side).is_none() && descriptor.may(side) {
            match attempt(&mut request, descriptor, &mut self.provided) {
                Attempt::Last(result, flags) => return self.answer(&asked, result, flags),
                Attempt::More(result, flags) => self.answer(&asked, result, flags | MORE),
                Attempt::Block => return self.hand_over(request),
                Attempt::Wait => {}
            }
        }
        if self.enqueue(request, side) {
            self.turn(asked.fd, side);
        }
    }

    /// Has a request wait for its descriptor; false if it has had its last answer instead.
    fn enqueue(&mut self, mut request: Request, side: Side) -> bool {
        let asked = request.asked;
        if let Err(error) = self.watch(asked.fd) {
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            let result = if request.done > 0 { request.done as i32 } else { -errno };
            self.answer(&asked, result, 0);
            return false;
        }
        let is_file = matches!(
            asked.opcode,
            opcode::Read::CODE | opcode::Readv::CODE | opcode::Write::CODE | opcode::Writev::CODE
        );
        if is_file && self.descriptors.known(asked.fd).is(fact::UNWATCHABLE) {
            self.hand_over(request);
            return false;
        }
        request.place = Place::Queue(side);
        let key = self.requests.insert(request);
        self.descriptors.known(asked.fd).queue(side).push(key, &mut self.requests);
        true
    }

    /// Has epoll watch a descriptor, if it does not yet.
    fn watch(&mut self, fd: RawFd) -> io::Result<()> {
        let descriptor = self.descriptors.known(fd);
        if descriptor.is(fact::WATCHED | fact::UNWATCHABLE) {
            return Ok(());
        }
        match self.poller.add(fd) {
            Ok(()) => descriptor.set(fact::WATCHED),
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                descriptor.set(fact::UNWATCHABLE);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Has a thread do what may block.
    fn hand_over(&mut self, mut request: Request) {
        request.place = Place::Thread { cancelled: false };
        let key = self.requests.insert(request);
        let submitted = self.blocking.submit(u64::from(key), file::Call::new(&request));
        if let Err(error) = submitted {
            self.requests.remove(key);
            self.answer(&request.asked, -error.raw_os_error().unwrap_or(libc::EAGAIN), 0);
        }
    }

    /// Lets the requests of one side of a descriptor try, as long as that may succeed and it is fair.
    #[inline]
    fn turn(&mut self, fd: RawFd, side: Side) {
        for _ in 0..TURN {
            let descriptor = self.descriptors.known(fd);
            let Some(key) = descriptor.first(side) else { return };
            if !descriptor.may(side) {
                return;
            }
            let request = self.requests.get(key);
            let asked = request.asked;
            match attempt(request, descriptor, &mut self.provided) {
                Attempt::More(result, flags) => self.answer(&asked, result, flags | MORE),
                Attempt::Last(result, flags) => {
                    self.dequeue(key, side);
                    self.answer(&asked, result, flags);
                }
                Attempt::Block => {
                    let request = self.dequeue(key, side);
                    self.hand_over(request);
                }
                Attempt::Wait => return,
            }
        }
        let descriptor = self.descriptors.known(fd);
        if !descriptor.is(fact::HOT) {
            descriptor.set(fact::HOT);
            self.hot.push(fd);
        }
    }

    fn dequeue(&mut self, key: Key, side: Side) -> Request {
        let fd = self.requests.get(key).asked.fd;
        self.descriptors.known(fd).queue(side).remove(key, &mut self.requests);
        self.requests.remove(key)
    }

    #[inline]
    fn answer(&mut self, asked: &Asked, result: i32, flags: u32) {
        self.counters.cqes += 1;
        if asked.opcode == opcode::Accept::CODE && result >= 0 {
            let is_tcp = self.descriptors.known(asked.fd).is(fact::TCP);
            self.opened(result, is_tcp);
        }
        self.answered.push(Cqe { user_data: asked.user_data, result, flags });
    }

    /// A number has been given out: what was known of it, if anything, is about another file.
    fn opened(&mut self, fd: RawFd, is_tcp: bool) {
        self.forget(fd);
        if is_tcp && let Some(descriptor) = self.descriptors.entry(fd) {
            descriptor.set(fact::TCP);
        }
    }

    /// A number is about to be free, or was freed by somebody else.
    fn forget(&mut self, fd: RawFd) {
        let Some(mut descriptor) = self.descriptors.forget(fd) else { return };
        if descriptor.is(fact::WATCHED) {
            self.poller.remove(fd);
        }
        // Whoever has requests in flight keeps the descriptor open; if not, they end here.
        for side in [Side::Read, Side::Write, Side::Any] {
            while let Some(key) = descriptor.first(side) {
                descriptor.queue(side).remove(key, &mut self.requests);
                let request = self.requests.remove(key);
                self.answer_cancelled(&request);
            }
        }
    }

    // ---- Polls ----

    fn poll(&mut self, asked: Asked) {
        if self.descriptors.entry(asked.fd).is_none() {
            return self.answer(&asked, -libc::EBADF, 0);
        }
        // Watched first, or what happens after the look would be lost.
        if self.enqueue(Request::new(asked), Side::Any) {
            self.look(asked.fd);
        }
    }

    /// Answers the polls of a descriptor whose events are there.
    fn look(&mut self, fd: RawFd) {
        let mut next = self.descriptors.known(fd).first(Side::Any);
        while let Some(key) = next {
            let Request { asked, next: after, .. } = *self.requests.get(key);
            next = (after != requests::NONE).then_some(after);
            let ready = attempt::ready(fd, asked.op_flags as i16);
            if ready == 0 {
                continue;
            }
            let ready = i32::from(ready.cast_unsigned());
            if asked.len & POLL_MULTI != 0 {
                self.answer(&asked, ready, MORE);
            } else {
                self.dequeue(key, Side::Any);
                self.answer(&asked, ready, 0);
            }
        }
    }

    // ---- A lap ----

    /// Waits for events and has their requests tried, until there is an answer or no reason to wait.
    fn trade(&mut self, wait: Wait) -> io::Result<()> {
        loop {
            let sleep = self.sleep(wait);
            self.counters.enters += 1;
            let count = match self.poller.wait(sleep) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    self.counters.interrupted += 1;
                    return Ok(());
                }
                Err(error) => {
                    return Err(io::Error::new(error.kind(), format!("epoll_wait: {error}")));
                }
            };
            for index in 0..count {
                self.dispatch(self.poller.event(index));
            }
            self.fire();
            if !self.answered.is_empty() || self.kicked {
                return Ok(());
            }
            match wait {
                // Others may be behind those, and whoever polls has to see them all.
                Wait::Poll if self.poller.is_full(count) || !self.hot.is_empty() => {}
                Wait::Poll => return Ok(()),
                Wait::Until(time) if clock::monotonic() >= time => return Ok(()),
                Wait::Until(_) | Wait::Block => {}
            }
            self.go_on();
        }
    }

    fn sleep(&mut self, wait: Wait) -> Sleep {
        let until = match wait {
            Wait::Poll => return Sleep::None,
            _ if !self.answered.is_empty() || !self.hot.is_empty() => return Sleep::None,
            Wait::Block => None,
            Wait::Until(time) => Some(time),
        };
        let times = [until, self.next_time()];
        times.into_iter().flatten().min().map_or(Sleep::Forever, Sleep::Until)
    }

    /// When something is to be done without an event.
    fn next_time(&mut self) -> Option<u64> {
        let due = self.deadlines.first(|key| self.requests.due(key)).map(|(time, _)| time);
        [due, self.unwanted.next()].into_iter().flatten().min()
    }

    /// Has the requests tried for which something has happened.
    #[inline]
    fn dispatch(&mut self, Event { fd, bits }: Event) {
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
    fn collect(&mut self) -> bool {
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
    fn go_on(&mut self) -> bool {
        let count = self.hot.len();
        for index in 0..count {
            let fd = self.hot[index];
            self.descriptors.known(fd).clear(fact::HOT);
            self.turn(fd, Side::Read);
            self.turn(fd, Side::Write);
        }
        self.hot.drain(..count);
        count > 0
    }

    /// Asks the test hook for an error: then nothing is traded, as if io_uring had said it.
    #[inline]
    fn inject(&mut self) -> Option<io::Result<()>> {
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
    fn set_alarm(&mut self) {
        let time = if self.kicked { Some(0) } else { self.next_time() };
        if let Some(alarm) = self.alarm.get() {
            alarm.set(time);
        }
    }
}

// SAFETY: a request is in exactly one place, `Place`, until the function that takes it out of there
// answers it for the last time; results are those of the system calls; a request that is in none is
// not used again, and a thread that runs one is waited for.
unsafe impl Driver for Epoll {
    #[inline]
    unsafe fn push(&mut self, sqe: Sqe) {
        self.counters.sqes += 1;
        let fields = Fields::of(&sqe);
        let asked = Asked::of(&fields);
        if !is_understood(&fields) {
            return self.answer(&asked, -libc::EINVAL, 0);
        }
        match asked.opcode {
            opcode::Recv::CODE | opcode::Accept::CODE => self.start(asked, Side::Read),
            opcode::Read::CODE | opcode::Readv::CODE => self.start(asked, Side::Read),
            opcode::Send::CODE | opcode::SendMsg::CODE => self.start(asked, Side::Write),
            opcode::Write::CODE | opcode::Writev::CODE => self.start(asked, Side::Write),
            opcode::Connect::CODE => self.start(asked, Side::Write),
            opcode::PollAdd::CODE => self.poll(asked),
            opcode::OpenAt::CODE | opcode::Fsync::CODE => self.hand_over(Request::new(asked)),
            opcode::Timeout::CODE => self.time_out(asked),
            opcode::TimeoutRemove::CODE => self.change_timeout(&asked),
            opcode::AsyncCancel::CODE => self.cancel(&asked),
            opcode::Nop::CODE => self.answer(&asked, 0, 0),
            _ => self.answer(&asked, -libc::EOPNOTSUPP, 0),
        }
    }

    fn enter(&mut self, wait: Wait, answers: &mut Vec<Cqe>) -> io::Result<()> {
        self.kicked = false;
        if let Some(outcome) = self.inject() {
            return outcome;
        }
        let goes_on = self.go_on();
        // What was answered when it was pushed needs no event, and the events have their turn soon.
        if self.answered.is_empty() || goes_on || self.quiet_laps == QUIET_LAPS {
            self.quiet_laps = 0;
            self.trade(wait)?;
        } else {
            self.quiet_laps += 1;
        }
        if wait == Wait::Poll && self.answered.is_empty() {
            self.set_alarm();
        }
        answers.append(&mut self.answered);
        Ok(())
    }

    fn call(&mut self, call: Call<'_>) -> io::Result<i32> {
        match call {
            Call::Close { fd } => self.forget(fd),
            // A record of TLS ends a read, and is no sign that there is not another.
            Call::SetOption { fd, level: libc::IPPROTO_TCP, name: libc::TCP_ULP, .. } => {
                if let Some(descriptor) = self.descriptors.entry(fd) {
                    descriptor.clear(fact::TCP);
                }
            }
            Call::Socket { domain, kind, protocol } => {
                let fd = call::perform(call)?;
                let is_stream = kind & 0xf == libc::SOCK_STREAM;
                let is_inet = matches!(domain, libc::AF_INET | libc::AF_INET6);
                let is_tcp = matches!(protocol, 0 | libc::IPPROTO_TCP);
                self.opened(fd, is_stream && is_inet && is_tcp);
                return Ok(fd);
            }
            _ => {}
        }
        call::perform(call)
    }

    unsafe fn register(&mut self, resource: Register) -> io::Result<()> {
        let errno = match resource {
            Register::Buffers { group, .. } => {
                let is_known = self.provided.iter().any(|provided| provided.group() == group);
                // SAFETY: the caller keeps the memory valid until it is removed or the driver is gone.
                match unsafe { Provided::new(resource) } {
                    _ if is_known => libc::EEXIST,
                    Some(provided) => {
                        self.provided.push(provided);
                        return Ok(());
                    }
                    None => libc::EINVAL,
                }
            }
            Register::RemoveBuffers { group } => {
                let count = self.provided.len();
                self.provided.retain(|provided| provided.group() != group);
                if self.provided.len() < count {
                    return Ok(());
                }
                libc::ENOENT
            }
        };
        Err(io::Error::from_raw_os_error(errno))
    }

    fn supports(&self, opcode: u8) -> bool {
        matches!(
            opcode,
            opcode::Nop::CODE
                | opcode::Recv::CODE
                | opcode::Send::CODE
                | opcode::SendMsg::CODE
                | opcode::Accept::CODE
                | opcode::Connect::CODE
                | opcode::PollAdd::CODE
                | opcode::Read::CODE
                | opcode::Readv::CODE
                | opcode::Write::CODE
                | opcode::Writev::CODE
                | opcode::OpenAt::CODE
                | opcode::Fsync::CODE
                | opcode::Timeout::CODE
                | opcode::TimeoutRemove::CODE
                | opcode::AsyncCancel::CODE
        )
    }

    fn unparker(&self) -> Unparker {
        self.unparker.clone()
    }

    fn now(&self) -> u64 {
        clock::monotonic()
    }

    fn counters(&self) -> Counters {
        self.counters
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        if self.alarm.get().is_none() {
            let alarm = Alarm::new(&self.poller).ok()?;
            // What is due, or was answered, before the alarm was there has not set it.
            alarm.set(Some(0));
            let _ = self.alarm.set(alarm);
        }
        Some(self.poller.as_fd())
    }

    fn name(&self) -> &'static str {
        "epoll"
    }
}

/// Whether a request asks for nothing but what this kernel does.
#[inline]
fn is_understood(fields: &Fields) -> bool {
    let selects = fields.flags & BUFFER_SELECT != 0;
    if fields.flags & !(ASYNC | BUFFER_SELECT) != 0 {
        // Links, drains, registered files: to ignore them would be to answer falsely.
        return false;
    }
    let has_only = |known: u16| fields.ioprio & !known == 0;
    match fields.opcode {
        opcode::Recv::CODE => {
            has_only(POLL_FIRST | RECV_MULTISHOT)
                && (selects || fields.ioprio & RECV_MULTISHOT == 0)
        }
        _ if selects => false,
        opcode::Send::CODE | opcode::SendMsg::CODE => has_only(POLL_FIRST),
        opcode::Accept::CODE => has_only(0b111) && fields.file_index == 0,
        opcode::OpenAt::CODE => has_only(0) && fields.file_index == 0,
        opcode::PollAdd::CODE => fields.len & !(POLL_MULTI | POLL_LEVEL) == 0,
        opcode::AsyncCancel::CODE => fields.op_flags == 0,
        _ => has_only(0),
    }
}
