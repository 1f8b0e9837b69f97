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
mod lap;
mod messages;
mod poller;
mod requests;
#[cfg(test)]
mod tests;
mod way;

use std::cell::OnceCell;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use io_uring::opcode;

use super::eventfd::EventFd;
use super::opcodes::USED;
use super::pad::blocking::Blocking;
use super::pad::provided::Provided;
use super::pad::with_a_copy;
use super::sqe::flag;
use super::uring::{EnterFault, Refused};
use super::{Call, Counters, Cqe, Driver, Fields, Register, Sqe, Unparker, Wait, call};
use crate::sys::atomic::Arc;
use crate::sys::{clock, fork};
use cancel::Unwanted;
use deadlines::Deadlines;
use descriptors::{Descriptors, Side, fact};
use messages::{Outgoing, Room};
use poller::{Alarm, Poller};
use requests::{Asked, Request, Requests};

/// Laps in a row that leave epoll out because what was pushed was answered at once.
const QUIET_LAPS: u32 = 8;

/// Sends that are made at once in one lap.
const AT_ONCE: u32 = 32;

/// Bytes that are sent at once: what is longer takes its turn.
const LONGEST_AT_ONCE: u32 = 16 * 1024;

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
    /// How many the last enter has brought.
    brought: usize,
    room: Room,
    outgoing: Outgoing,
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
            brought: 0,
            room: Room::default(),
            outgoing: Outgoing::default(),
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

    /// A request that no descriptor's readiness has a part in, or not in this way.
    #[inline(never)]
    fn push_rare(&mut self, asked: Asked) {
        match asked.opcode {
            opcode::PollAdd::CODE => self.poll(asked),
            opcode::OpenAt::CODE | opcode::Fsync::CODE => self.hand_over(Request::new(asked)),
            opcode::Timeout::CODE => self.time_out(asked),
            opcode::TimeoutRemove::CODE => self.change_timeout(&asked),
            opcode::AsyncCancel::CODE => {
                self.send_kept();
                self.cancel(&asked);
            }
            opcode::Nop::CODE => self.answer(&asked, 0, 0),
            _ => self.answer(&asked, -libc::EOPNOTSUPP, 0),
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
        let mut fields = Fields::of(&sqe);
        if fields.opcode == opcode::SendZc::CODE {
            fields = with_a_copy(fields);
        }
        let asked = Asked::of(&fields);
        if !is_understood(&fields) {
            return self.answer(&asked, -libc::EINVAL, 0);
        }
        let side = match asked.opcode {
            opcode::Recv::CODE | opcode::RecvMsg::CODE | opcode::Accept::CODE => Side::Read,
            opcode::Read::CODE | opcode::Readv::CODE => Side::Read,
            opcode::SendMsg::CODE if self.keep(&asked) => return,
            opcode::Send::CODE | opcode::SendMsg::CODE | opcode::Connect::CODE => Side::Write,
            opcode::Write::CODE | opcode::Writev::CODE => Side::Write,
            _ => return self.push_rare(asked),
        };
        if side == Side::Write {
            self.send_kept();
        }
        self.start(asked, side);
    }

    unsafe fn attempt(&mut self, sqe: Sqe) -> Option<Cqe> {
        self.send_at_once(&Fields::of(&sqe))
    }

    #[inline]
    fn attempts(&self) -> u32 {
        AT_ONCE
    }

    fn enter(&mut self, wait: Wait, answers: &mut Vec<Cqe>) -> io::Result<()> {
        self.kicked = false;
        if let Some(outcome) = self.inject() {
            return outcome;
        }
        self.send_kept();
        let goes_on = self.go_on();
        if self.poller.has_events() {
            self.dispatch_some();
            self.fire();
        // What was answered when it was pushed needs no event, and the events have their turn soon.
        } else if self.answered.is_empty() || goes_on || self.quiet_laps == QUIET_LAPS {
            self.quiet_laps = 0;
            self.trade(wait)?;
        } else {
            self.quiet_laps += 1;
        }
        if wait == Wait::Poll && self.answered.is_empty() {
            self.set_alarm();
        }
        self.brought = self.answered.len();
        answers.append(&mut self.answered);
        Ok(())
    }

    fn call(&mut self, call: Call<'_>) -> io::Result<i32> {
        self.send_kept();
        match call {
            Call::Close { fd } => self.forget(fd),
            // Somebody else may wait for the same number: then it is known a little longer.
            Call::Release { fd } if self.descriptors.is_awaited(fd) => {}
            Call::Release { fd } => self.forget(fd),
            // A record of TLS ends a read, and is no sign that there is not another.
            Call::SetOption { fd, level: libc::IPPROTO_TCP, name: libc::TCP_ULP, .. } => {
                if let Some(descriptor) = self.descriptors.entry(fd) {
                    descriptor.clear(fact::TCP);
                }
            }
            Call::SocketPair { domain, kind, pair } => {
                call::perform(Call::SocketPair { domain, kind, pair: &mut *pair })?;
                pair.iter().for_each(|fd| self.opened(*fd, false));
                return Ok(0);
            }
            Call::Duplicate { fd } => {
                let is_tcp = self.descriptors.entry(fd).is_some_and(|it| it.is(fact::TCP));
                let fd = call::perform(call)?;
                self.opened(fd, is_tcp);
                return Ok(fd);
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
        opcode == opcode::Nop::CODE || USED.iter().any(|(used, ..)| *used == opcode)
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
    let selects = fields.flags & flag::BUFFER_SELECT != 0;
    // ASYNC and POLL_FIRST are hints, which mean nothing here, but that a write sends no signal.
    if fields.flags & !(flag::ASYNC | flag::BUFFER_SELECT) != 0 {
        // Links, drains, registered files: to ignore them would be to answer falsely.
        return false;
    }
    let has_only = |known: u16| fields.ioprio & !known == 0;
    match fields.opcode {
        // A message that is picked a buffer for is laid out in it only if more may follow.
        opcode::RecvMsg::CODE if selects => {
            has_only(flag::POLL_FIRST | flag::RECV_MULTISHOT)
                && fields.ioprio & flag::RECV_MULTISHOT != 0
        }
        opcode::RecvMsg::CODE => has_only(flag::POLL_FIRST),
        opcode::Recv::CODE => {
            has_only(flag::POLL_FIRST | flag::RECV_MULTISHOT)
                && (selects || fields.ioprio & flag::RECV_MULTISHOT == 0)
        }
        _ if selects => false,
        opcode::Send::CODE | opcode::SendMsg::CODE => has_only(flag::POLL_FIRST),
        opcode::Accept::CODE => has_only(0b111) && fields.file_index == 0,
        opcode::OpenAt::CODE => has_only(0) && fields.file_index == 0,
        opcode::PollAdd::CODE => fields.len & !(flag::POLL_MULTI | flag::POLL_LEVEL) == 0,
        opcode::AsyncCancel::CODE => fields.op_flags == 0,
        _ => has_only(0),
    }
}
