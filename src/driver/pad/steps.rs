//! Requests that a kernel lacks, asked in steps that it has.
//!
//! ```text
//!   RECV, multishot        RECV ─▶ RECV ─▶ ...                          without multishot-recv
//!   RECV, picks a buffer   POLL ─▶ RECV into what is picked here ─▶ ... without pbuf
//!   RECVMSG, likewise      POLL ─▶ RECVMSG into what is picked here ... without either of the two
//!   ACCEPT, multishot      ACCEPT ─▶ ACCEPT ─▶ ...                      without multishot-accept
//!   TIMEOUT, updated       TIMEOUT ─▶ TIMEOUT_REMOVE ─▶ TIMEOUT         without timeout-update
//!   a wait's deadline      TIMEOUT                                      without ext-arg
//!   SEND_ZC                SEND                                         without send-zc
//!   a send, MSG_WAITALL    the send without it                          without send-count
//! ```
//!
//! A request has one step in flight, which carries the request's own `user_data`. So a cancel
//! reaches whatever is in flight; and because it is noted as well, one that finds a step answered
//! already ends the request with that answer. Whoever pushed the request gets answers as of a
//! kernel that knows it: any number that promise more, and exactly one last.

use std::collections::HashMap;
use std::ptr;

use io_uring::{opcode, squeue, types};

use super::message::{Kept, Layout};
use super::provided::{Offer, Provided};
use crate::buf::datagram;
use crate::driver::caps::{Cap, Caps};
use crate::driver::sqe::{flag, timespec};
use crate::driver::{Cqe, Fields, RESERVED, Register, Sqe};

/// The timeout that ends a wait.
const WAITED: u64 = RESERVED + 1;
/// The removal of a timeout, whose own answer says nothing that the timeout's does not say.
const REMOVAL: u64 = RESERVED + 2;

/// The capabilities whose lack is made up for here.
const PADDED: [Cap; 8] = [
    Cap::ExtArg,
    Cap::TimeoutUpdate,
    Cap::MultishotPoll,
    Cap::Pbuf,
    Cap::MultishotAccept,
    Cap::MultishotRecv,
    Cap::SendZc,
    Cap::SendCount,
];

/// The requests that are in flight in steps.
pub(crate) struct Steps {
    caps: Caps,
    last_opcode: u8,
    requests: HashMap<u64, Request>,
    timeouts: HashMap<u64, Timeout>,
    groups: Vec<Group>,
    /// When the timeout that ends a wait fires.
    armed: Option<u64>,
    /// What the kernel is to be asked next, in order.
    asks: Vec<Sqe>,
    /// Answers that are given here.
    ready: Vec<Cqe>,
}

/// One ring of provided buffers.
struct Group {
    provided: Provided,
    /// Picked, and not filled after all.
    returned: Vec<Offer>,
}

/// Small, because there is one for each connection that waits.
struct Request {
    fd: i32,
    /// Flags of the receive or the accept.
    flags: u32,
    step: Step,
    /// How a message is laid out, of a receive of messages.
    layout: Option<Layout>,
    /// Whether it is to be asked again after an answer.
    many: bool,
    /// The next answer is the last.
    cancelled: bool,
}

const _: () = assert!(size_of::<Request>() <= 40);

/// What is in flight for a request.
#[derive(Clone, Copy)]
enum Step {
    Accept,
    /// A receive for which the kernel picks the buffer, of this group.
    Receive(u16),
    /// Waiting for bytes of a receive for which a buffer of this group is picked here.
    Poll(u16),
    /// Receiving those bytes, which are there.
    Fill(u16, Offer),
}

/// A timeout that may be updated.
struct Timeout {
    sqe: Sqe,
    /// The next answer is the last.
    cancelled: bool,
    /// Where the kernel reads when it fires. In a box: it does so when it takes the request.
    place: Box<types::Timespec>,
    /// What it is to become when its removal has ended it, and its flags.
    renewal: Option<(types::Timespec, u32)>,
    /// Who asked for that.
    updates: Vec<u64>,
}

impl Steps {
    /// `None` if the kernel has everything that would be made up for here.
    pub(crate) fn new(caps: Caps, last_opcode: u8) -> Option<Box<Self>> {
        let complete = PADDED.iter().all(|cap| caps.has(*cap)) && last_opcode == u8::MAX;
        (!complete).then(|| {
            Box::new(Steps {
                caps,
                last_opcode,
                requests: HashMap::new(),
                timeouts: HashMap::new(),
                groups: Vec::new(),
                armed: None,
                asks: Vec::new(),
                ready: Vec::new(),
            })
        })
    }

    /// Takes over a request; what the kernel is asked for it is in [`asks`](Steps::asks).
    ///
    /// # Safety
    /// As [`Driver::push`](crate::driver::Driver::push).
    pub(crate) unsafe fn push(&mut self, sqe: Sqe) {
        let fields = Fields::of(&sqe);
        let lacks = |cap| !self.caps.has(cap);
        match fields.opcode {
            opcode::Recv::CODE => self.receive(&fields),
            opcode::Send::CODE | opcode::SendMsg::CODE | opcode::SendZc::CODE => {
                self.send(fields);
            }
            opcode::RecvMsg::CODE => self.receive_message(&fields),
            opcode::Accept::CODE
                if fields.ioprio & flag::ACCEPT_MULTISHOT != 0 && lacks(Cap::MultishotAccept) =>
            {
                self.start(&fields, Step::Accept, None, true);
            }
            opcode::Timeout::CODE if lacks(Cap::TimeoutUpdate) => {
                self.timeouts.insert(fields.user_data, Timeout::new(&sqe));
                self.asks.push(sqe);
            }
            opcode::TimeoutRemove::CODE
                if fields.op_flags & flag::TIMEOUT_UPDATE != 0 && lacks(Cap::TimeoutUpdate) =>
            {
                // SAFETY: an update points at its new time, which the caller keeps valid.
                let time = unsafe { *(fields.off as *const types::Timespec) };
                let flags = fields.op_flags & !flag::TIMEOUT_UPDATE;
                self.update(fields.addr, time, flags, fields.user_data);
            }
            opcode::AsyncCancel::CODE | opcode::TimeoutRemove::CODE => {
                if let Some(request) = self.requests.get_mut(&fields.addr) {
                    request.cancelled = true;
                }
                if let Some(timeout) = self.timeouts.get_mut(&fields.addr) {
                    timeout.cancelled = true;
                }
                self.asks.push(sqe);
            }
            opcode::PollAdd::CODE
                if fields.len & flag::POLL_MULTI != 0 && lacks(Cap::MultishotPoll) =>
            {
                self.ready.push(Cqe::refusal(fields.user_data, libc::EINVAL));
            }
            unknown if unknown > self.last_opcode => {
                self.ready.push(Cqe::refusal(fields.user_data, libc::EINVAL));
            }
            _ => self.asks.push(sqe),
        }
    }

    fn send(&mut self, mut fields: Fields) {
        if fields.opcode == opcode::SendZc::CODE && !self.caps.has(Cap::SendZc) {
            fields = super::with_a_copy(fields);
        }
        if !self.caps.has(Cap::SendCount) {
            // Such a kernel forgets what went out before a cancel. What it answers at once, it counts.
            fields.op_flags &= !libc::MSG_WAITALL.cast_unsigned();
        }
        self.asks.push(fields.into_sqe());
    }

    fn receive(&mut self, fields: &Fields) {
        let many = fields.ioprio & flag::RECV_MULTISHOT != 0;
        let picks = fields.flags & flag::BUFFER_SELECT != 0;
        let group = fields.buf_index;
        if picks && !self.caps.has(Cap::Pbuf) {
            self.start(fields, Step::Poll(group), None, many);
        } else if picks && many && !self.caps.has(Cap::MultishotRecv) {
            self.start(fields, Step::Receive(group), None, true);
        } else {
            self.asks.push(fields.into_sqe());
        }
    }

    fn receive_message(&mut self, fields: &Fields) {
        let many = fields.ioprio & flag::RECV_MULTISHOT != 0;
        let picks = fields.flags & flag::BUFFER_SELECT != 0;
        if !picks || self.picks_messages() {
            return self.asks.push(fields.into_sqe());
        }
        match Layout::of(fields.addr) {
            Some(layout) if many => {
                self.start(fields, Step::Poll(fields.buf_index), Some(layout), true);
            }
            // What a buffer would hold after one answer only, nobody asks for.
            _ => self.ready.push(Cqe::refusal(fields.user_data, libc::EINVAL)),
        }
    }

    /// Whether the kernel picks buffers for messages itself.
    fn picks_messages(&self) -> bool {
        self.caps.has(Cap::Pbuf) && self.caps.has(Cap::MultishotRecv)
    }

    /// Notes a request, and asks its first step.
    fn start(&mut self, fields: &Fields, step: Step, layout: Option<Layout>, many: bool) {
        let (fd, flags) = (fields.fd, fields.op_flags);
        let request = Request { fd, flags, step, layout, many, cancelled: false };
        self.asks.push(request.ask(fields.user_data));
        let displaced = self.requests.insert(fields.user_data, request);
        assert!(displaced.is_none(), "I3: a request was pushed anew before its last answer");
    }

    /// Has a timeout become another; `update` is told whether it was still in flight.
    fn update(&mut self, target: u64, time: types::Timespec, flags: u32, update: u64) {
        let Some(timeout) = self.timeouts.get_mut(&target) else {
            return self.ready.push(Cqe::refusal(update, libc::ENOENT));
        };
        timeout.updates.push(update);
        if timeout.renewal.replace((time, flags)).is_none() {
            self.asks.push(removal(target));
        }
    }

    /// Sees to it that something is answered at `time` at the latest, if only here.
    pub(crate) fn arm(&mut self, time: u64) {
        if self.armed.is_some_and(|armed| armed <= time) {
            return;
        }
        self.armed = Some(time);
        let time = timespec(time);
        if let Some(timeout) = self.timeouts.get_mut(&WAITED) {
            if timeout.renewal.replace((time, flag::TIMEOUT_ABS)).is_none() {
                self.asks.push(removal(WAITED));
            }
            return;
        }
        let sqe = opcode::Timeout::new(std::ptr::null()).build().user_data(WAITED);
        let mut timeout = Timeout::new(&sqe);
        self.asks.push(timeout.become_new(time, flag::TIMEOUT_ABS));
        self.timeouts.insert(WAITED, timeout);
    }

    /// Turns the kernel's answers, from `first` on, into those of the requests.
    pub(crate) fn translate(&mut self, answers: &mut Vec<Cqe>, first: usize) {
        let mut kept = first;
        for index in first..answers.len() {
            if let Some(cqe) = self.take(answers[index]) {
                answers[kept] = cqe;
                kept += 1;
            }
        }
        answers.truncate(kept);
        answers.append(&mut self.ready);
    }

    fn take(&mut self, cqe: Cqe) -> Option<Cqe> {
        if cqe.user_data == REMOVAL {
            return None;
        }
        let Some(request) = self.requests.get_mut(&cqe.user_data) else {
            return self.timed_out(cqe);
        };
        match request.step {
            Step::Accept if cqe.result < 0 => self.end(cqe),
            // Zero is the end of the stream, and a descriptor.
            Step::Receive(_) if cqe.result <= 0 => self.end(cqe),
            Step::Accept | Step::Receive(_) if request.cancelled => self.end(cqe),
            Step::Accept | Step::Receive(_) => {
                self.asks.push(request.ask(cqe.user_data));
                Some(Cqe { flags: cqe.flags | Cqe::MORE, ..cqe })
            }
            Step::Poll(_) if cqe.result < 0 => self.end(cqe),
            Step::Poll(group) => self.fill(cqe.user_data, group),
            Step::Fill(group, offer) => self.filled(cqe, group, offer),
        }
    }

    /// Bytes have come: picks a buffer for them.
    fn fill(&mut self, user_data: u64, group: u16) -> Option<Cqe> {
        let request = self.requests.get_mut(&user_data).expect("it is in flight");
        if request.cancelled {
            return self.end(Cqe::refusal(user_data, libc::ECANCELED));
        }
        let groups = &mut self.groups;
        let place = groups.iter_mut().find(|known| known.provided.group() == group);
        let Some(offer) = place.and_then(Group::pick) else {
            return self.end(Cqe::refusal(user_data, libc::ENOBUFS));
        };
        request.step = Step::Fill(group, offer);
        if request.layout.is_some_and(|layout| Kept::put(layout, offer).is_none()) {
            return self.filled(Cqe::refusal(user_data, libc::EFAULT), group, offer);
        }
        self.asks.push(request.ask(user_data));
        None
    }

    /// Hands over what a buffer was filled with; one that was not goes back.
    fn filled(&mut self, cqe: Cqe, group: u16, offer: Offer) -> Option<Cqe> {
        let request = self.requests.get_mut(&cqe.user_data).expect("it is in flight");
        let mut cqe = cqe;
        if let (Some(layout), Ok(received)) = (request.layout, usize::try_from(cqe.result)) {
            // Also an empty datagram fills what is in front.
            let start = offer.start.as_ptr();
            cqe.result = layout.complete(start, &Kept::header(offer), received);
        }
        let spurious = cqe.result == -libc::EAGAIN;
        let goes_on = !request.cancelled && (spurious || cqe.result > 0 && request.many);
        if goes_on {
            request.step = Step::Poll(group);
            self.asks.push(request.ask(cqe.user_data));
        }
        if cqe.result > 0 {
            let more = if goes_on { Cqe::MORE } else { 0 };
            let flags = cqe.flags | Cqe::picked(offer.bid) | more;
            let answer = Cqe { flags, ..cqe };
            return if goes_on { Some(answer) } else { self.end(answer) };
        }
        if let Some(group) = self.groups.iter_mut().find(|known| known.provided.group() == group) {
            group.returned.push(offer);
        }
        match (goes_on, spurious) {
            (true, _) => None,
            (false, true) => self.end(Cqe::refusal(cqe.user_data, libc::ECANCELED)),
            (false, false) => self.end(cqe),
        }
    }

    /// A timeout has fired, or was removed: for good, or to become another.
    fn timed_out(&mut self, cqe: Cqe) -> Option<Cqe> {
        let Some(timeout) = self.timeouts.get_mut(&cqe.user_data) else { return Some(cqe) };
        let renewal = timeout.renewal.take();
        let renewed = renewal.filter(|_| cqe.result == -libc::ECANCELED && !timeout.cancelled);
        let result = if renewed.is_some() { 0 } else { -libc::ENOENT };
        let answer = |user_data| Cqe { user_data, result, flags: 0 };
        self.ready.extend(timeout.updates.drain(..).map(answer));
        if let Some((time, flags)) = renewed {
            self.asks.push(timeout.become_new(time, flags));
            return None;
        }
        self.timeouts.remove(&cqe.user_data);
        if cqe.user_data == WAITED {
            self.armed = None;
            return None;
        }
        Some(cqe)
    }

    /// Forgets a request, whose last answer this is.
    fn end(&mut self, cqe: Cqe) -> Option<Cqe> {
        self.requests.remove(&cqe.user_data);
        Some(cqe)
    }

    /// Whether answers are ready that the kernel does not have to be entered for.
    pub(crate) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// What the kernel is to be asked, in order.
    pub(crate) fn asks(&mut self) -> impl Iterator<Item = Sqe> + '_ {
        self.asks.drain(..)
    }

    /// Takes over a ring of provided buffers; false if the kernel itself has them.
    ///
    /// # Safety
    /// As [`Driver::register`](crate::driver::Driver::register).
    pub(crate) unsafe fn register(&mut self, resource: Register) -> bool {
        let (Register::Buffers { group, .. } | Register::RemoveBuffers { group }) = resource;
        // The same kernel may pick buffers for bytes, and none for messages.
        let kernel_picks = match group {
            datagram::GROUP => self.picks_messages(),
            _ => self.caps.has(Cap::Pbuf),
        };
        if kernel_picks {
            return false;
        }
        match resource {
            Register::RemoveBuffers { group } => {
                self.groups.retain(|known| known.provided.group() != group);
            }
            // SAFETY: the caller keeps the memory valid until the ring of buffers is removed.
            Register::Buffers { .. } => match unsafe { Provided::new(resource) } {
                Some(provided) => self.groups.push(Group { provided, returned: Vec::new() }),
                None => return false,
            },
        }
        true
    }
}

impl Group {
    fn pick(&mut self) -> Option<Offer> {
        self.returned.pop().or_else(|| {
            let offer = self.provided.peek()?;
            self.provided.pick();
            Some(offer)
        })
    }
}

impl Request {
    /// What its step asks of the kernel.
    fn ask(&self, user_data: u64) -> Sqe {
        let fd = types::Fd(self.fd);
        let sqe = match self.step {
            Step::Accept => {
                let accept = opcode::Accept::new(fd, ptr::null_mut(), ptr::null_mut());
                accept.flags(self.flags as i32).build()
            }
            Step::Receive(group) => {
                // The length of the buffer; the first kernels that pick take a zero literally.
                let receive = opcode::Recv::new(fd, ptr::null_mut(), i32::MAX as u32);
                let select = squeue::Flags::BUFFER_SELECT;
                receive.buf_group(group).flags(self.flags as i32).build().flags(select)
            }
            // Bytes, the end, or an error.
            Step::Poll(_) => opcode::PollAdd::new(fd, libc::POLLIN as u32).build(),
            Step::Fill(_, offer) => {
                // Bytes that are not there after all must not be awaited with the buffer held.
                let flags = self.flags as i32 | libc::MSG_DONTWAIT;
                if self.layout.is_some() {
                    let header = Kept::at(offer).cast::<libc::msghdr>();
                    opcode::RecvMsg::new(fd, header).flags(flags as u32).build()
                } else {
                    opcode::Recv::new(fd, offer.start.as_ptr(), offer.len).flags(flags).build()
                }
            }
        };
        sqe.user_data(user_data)
    }
}

impl Timeout {
    fn new(sqe: &Sqe) -> Self {
        Timeout {
            sqe: sqe.clone(),
            cancelled: false,
            place: Box::default(),
            renewal: None,
            updates: Vec::new(),
        }
    }

    /// What asks for the timeout anew.
    fn become_new(&mut self, time: types::Timespec, flags: u32) -> Sqe {
        *self.place = time;
        let fields = Fields::of_mut(&mut self.sqe);
        (fields.addr, fields.op_flags) = (&raw const *self.place as u64, flags);
        self.sqe.clone()
    }
}

fn removal(target: u64) -> Sqe {
    opcode::TimeoutRemove::new(target).build().user_data(REMOVAL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::pool::{GROUP, MOST, Pool};
    use std::rc::Rc;

    const ID: u64 = 7;
    const FD: types::Fd = types::Fd(5);

    /// Steps over a kernel that lacks everything, and what a test plays that kernel with.
    struct Old {
        steps: Box<Steps>,
        pool: Rc<Pool>,
    }

    impl Old {
        fn new(mask: &str) -> Self {
            let mask: crate::driver::caps::Mask = mask.parse().unwrap();
            let mut steps = Steps::new(mask.allowed, mask.last_opcode).unwrap();
            let pool = Rc::new(Pool::new(MOST).unwrap());
            // SAFETY: the pool lives to the end of the test.
            unsafe { steps.register(pool.registration()) };
            Old { steps, pool }
        }

        /// The opcodes that the kernel is asked for `sqe`, and the answers that are given here.
        fn push(&mut self, sqe: Sqe) -> (Vec<Fields>, Vec<Cqe>) {
            // SAFETY: no kernel looks at what it points at, but at times that outlive the test.
            unsafe { self.steps.push(sqe) };
            let mut answers = Vec::new();
            self.steps.translate(&mut answers, 0);
            (self.asked(), answers)
        }

        fn asked(&mut self) -> Vec<Fields> {
            self.steps.asks().map(|sqe| Fields::of(&sqe)).collect()
        }

        /// What the kernel's answer leads to.
        fn answer(&mut self, user_data: u64, result: i32) -> (Vec<Fields>, Vec<Cqe>) {
            let mut answers = vec![Cqe { user_data, result, flags: 0 }];
            self.steps.translate(&mut answers, 0);
            (self.asked(), answers)
        }

        fn is_done(&self) -> bool {
            self.steps.requests.is_empty() && self.steps.timeouts.is_empty()
        }
    }

    fn receive_many() -> Sqe {
        opcode::RecvMulti::new(FD, GROUP).build().user_data(ID)
    }

    fn opcodes(asked: &[Fields]) -> Vec<u8> {
        asked.iter().map(|fields| fields.opcode).collect()
    }

    fn cancel() -> Sqe {
        opcode::AsyncCancel::new(ID).build().user_data(9)
    }

    #[track_caller]
    fn is_last(answers: &[Cqe], result: i32) {
        assert_eq!(answers.len(), 1, "{answers:?}");
        assert_eq!((answers[0].user_data, answers[0].result), (ID, result));
        assert!(!answers[0].has_more());
    }

    const POLL: u8 = opcode::PollAdd::CODE;
    const RECV: u8 = opcode::Recv::CODE;

    #[test]
    fn a_receive_holds_a_buffer_only_while_it_fills_it() {
        let mut old = Old::new("5.10");
        let (asked, answers) = old.push(receive_many());
        assert_eq!((opcodes(&asked), answers.len()), (vec![POLL], 0));
        let (asked, answers) = old.answer(ID, i32::from(libc::POLLIN));
        assert_eq!((opcodes(&asked), answers.len()), (vec![RECV], 0));
        assert_eq!((asked[0].flags & flag::BUFFER_SELECT, asked[0].len), (0, 4096));
        assert_eq!(asked[0].op_flags, libc::MSG_DONTWAIT as u32);
        let (asked, answers) = old.answer(ID, 100);
        assert_eq!(opcodes(&asked), [POLL]);
        assert_eq!((answers[0].buffer(), answers[0].result), (Some(0), 100));
        assert!(answers[0].has_more());
        // What was not there after all: the buffer is the next receive's.
        old.answer(ID, i32::from(libc::POLLIN));
        assert_eq!(opcodes(&old.answer(ID, -libc::EAGAIN).0), [POLL]);
        old.answer(ID, i32::from(libc::POLLIN));
        let (_, answers) = old.answer(ID, 1);
        assert_eq!(answers[0].buffer(), Some(1));
        old.answer(ID, i32::from(libc::POLLIN));
        let (asked, answers) = old.answer(ID, 0);
        assert!(asked.is_empty() && old.is_done());
        is_last(&answers, 0);
        assert_eq!(answers[0].buffer(), None);
    }

    /// Rings of buffers for datagrams, of which `Old` has none yet.
    fn receive_messages(old: &mut Old) -> Sqe {
        let steps = &mut old.steps;
        let register = |resource| {
            // SAFETY: the pool lives to the end of the test.
            assert!(unsafe { steps.register(resource) }, "the kernel picks no buffers for these");
            Ok(())
        };
        let shape = old.pool.make_datagrams(register, drop).unwrap().shape();
        opcode::RecvMsgMulti::new(FD, shape, datagram::GROUP).build().user_data(ID)
    }

    const RECVMSG: u8 = opcode::RecvMsg::CODE;

    #[test]
    fn a_message_is_received_into_a_picked_buffer_as_the_kernel_would_lay_it_out() {
        for mask in ["5.10", "5.19", "no-pbuf", "no-multishot-recv"] {
            let mut old = Old::new(mask);
            let sqe = receive_messages(&mut old);
            let (asked, answers) = old.push(sqe);
            assert_eq!((opcodes(&asked), answers.len()), (vec![POLL], 0), "{mask}");
            let (asked, _) = old.answer(ID, i32::from(libc::POLLIN));
            assert_eq!((opcodes(&asked), asked[0].flags), (vec![RECVMSG], 0));
            assert_eq!(asked[0].op_flags, libc::MSG_DONTWAIT as u32);
            // SAFETY: it points into the buffer that was picked, where this plays the kernel.
            let header = unsafe { &mut *(asked[0].addr as *mut libc::msghdr) };
            header.msg_controllen = 0;
            header.msg_flags = libc::MSG_EOR;
            let from = std::net::SocketAddr::from(([127, 0, 0, 1], 7));
            let from = crate::sys::addr::Address::from(from);
            // SAFETY: as above; the name has room for an address.
            unsafe {
                let name = header.msg_name.cast::<u8>();
                name.copy_from_nonoverlapping(from.as_bytes().as_ptr(), from.as_bytes().len());
                (*header.msg_iov).iov_base.cast::<[u8; 5]>().write(*b"hello");
            }
            header.msg_namelen = from.as_bytes().len() as libc::socklen_t;
            let (asked, answers) = old.answer(ID, 5);
            assert_eq!((opcodes(&asked), answers[0].has_more()), (vec![POLL], true));
            let datagrams = old.pool.datagrams().unwrap();
            let bid = answers[0].buffer().unwrap();
            let datagram = datagrams.lease(bid, answers[0].result).unwrap();
            assert_eq!(
                (&*datagram, datagram.from()),
                (&b"hello"[..], "127.0.0.1:7".parse().unwrap())
            );
            // An empty one is one as well, and no end.
            old.answer(ID, i32::from(libc::POLLIN));
            let (asked, answers) = old.answer(ID, 0);
            assert_eq!((opcodes(&asked), answers[0].has_more()), (vec![POLL], true));
            let datagrams = old.pool.datagrams().unwrap();
            let bid = answers[0].buffer().unwrap();
            assert!(datagrams.lease(bid, answers[0].result).unwrap().is_empty());
            // An error ends it, and its buffer is the next one's.
            old.answer(ID, i32::from(libc::POLLIN));
            let (asked, answers) = old.answer(ID, -libc::ECONNREFUSED);
            assert!(asked.is_empty() && old.is_done());
            is_last(&answers, -libc::ECONNREFUSED);
            assert_eq!(answers[0].buffer(), None);
        }
    }

    #[test]
    fn a_receive_without_a_buffer_left_is_told_so() {
        let mut old = Old::new("no-pbuf");
        for _ in 0..256 {
            old.push(receive_many());
            old.answer(ID, i32::from(libc::POLLIN));
            old.push(cancel());
            let (_, answers) = old.answer(ID, 1);
            is_last(&answers, 1);
        }
        old.push(receive_many());
        let (asked, answers) = old.answer(ID, i32::from(libc::POLLIN));
        is_last(&answers, -libc::ENOBUFS);
        assert!(asked.is_empty() && old.is_done());
        assert!(old.pool.grow());
        old.push(receive_many());
        assert_eq!(opcodes(&old.answer(ID, i32::from(libc::POLLIN)).0), [RECV]);
    }

    #[test]
    fn a_cancel_ends_a_receive_at_each_of_its_steps() {
        // What the kernel answers to the step that a cancel meets, and what the request comes to.
        for (steps_before, answered, result) in [
            (0, -libc::ECANCELED, -libc::ECANCELED),
            // The step was answered before the cancel came: it finds nothing in flight.
            (0, i32::from(libc::POLLIN), -libc::ECANCELED),
            (1, -libc::ECANCELED, -libc::ECANCELED),
            (1, -libc::EAGAIN, -libc::ECANCELED),
            (1, 50, 50),
            (1, 0, 0),
            (1, -libc::ECONNRESET, -libc::ECONNRESET),
        ] {
            let mut old = Old::new("5.15");
            old.push(receive_many());
            for _ in 0..steps_before {
                old.answer(ID, i32::from(libc::POLLIN));
            }
            let (asked, _) = old.push(cancel());
            assert_eq!(opcodes(&asked), [opcode::AsyncCancel::CODE]);
            let (asked, answers) = old.answer(ID, answered);
            is_last(&answers, result);
            assert!(asked.is_empty() && old.is_done());
            assert_eq!(answers[0].buffer().is_some(), answered == 50);
            assert_eq!(old.answer(9, -libc::ENOENT).1.len(), 1, "the cancel's own answer");
        }
    }

    #[test]
    fn accepts_and_receives_are_asked_again_until_they_fail_or_are_cancelled() {
        let accept = || opcode::AcceptMulti::new(FD).flags(libc::SOCK_CLOEXEC).build();
        for (sqe, one, end) in [
            (accept().user_data(ID), 0, -libc::EMFILE),
            (receive_many(), 10, 0),
            (receive_many(), 10, -libc::ENOBUFS),
        ] {
            let mut old = Old::new("no-multishot-accept,no-multishot-recv");
            let (asked, _) = old.push(sqe.clone());
            assert_eq!((asked[0].opcode, asked[0].ioprio), (Fields::of(&sqe).opcode, 0));
            assert_eq!(asked[0].op_flags, Fields::of(&sqe).op_flags);
            let (again, answers) = old.answer(ID, one);
            assert_eq!((again, answers[0].has_more()), (asked, true));
            let (asked, answers) = old.answer(ID, end);
            is_last(&answers, end);
            assert!(asked.is_empty() && old.is_done());
            old.push(sqe);
            old.push(cancel());
            let (asked, answers) = old.answer(ID, one);
            is_last(&answers, one);
            assert!(asked.is_empty() && old.is_done());
        }
    }

    #[test]
    fn a_timeout_is_updated_by_a_removal_and_each_request_gets_one_answer() {
        const UPDATE: u64 = 8;
        let time = types::Timespec::new().sec(3);
        let timeout = opcode::Timeout::new(&raw const time).flags(types::TimeoutFlags::ABS);
        let timeout = timeout.build().user_data(ID);
        let update = opcode::TimeoutUpdate::new(ID, &raw const time);
        let update = update.flags(types::TimeoutFlags::ABS).build().user_data(UPDATE);
        let refused = |answers: Vec<Cqe>| {
            assert_eq!(answers, [Cqe::refusal(UPDATE, libc::ENOENT)], "there is no such timeout");
        };

        let mut old = Old::new("no-timeout-update");
        refused(old.push(update.clone()).1);
        old.push(timeout.clone());
        let (asked, answers) = old.push(update.clone());
        assert_eq!(opcodes(&asked), [opcode::TimeoutRemove::CODE]);
        assert_eq!((asked[0].op_flags, asked[0].addr, answers.len()), (0, ID, 0));
        // One more before the first is through: there is nothing more to remove.
        assert!(old.push(update.clone()).0.is_empty());
        assert!(old.answer(REMOVAL, 0).1.is_empty());
        let (asked, answers) = old.answer(ID, -libc::ECANCELED);
        assert_eq!(opcodes(&asked), [opcode::Timeout::CODE]);
        assert_eq!(
            (asked[0].user_data, asked[0].op_flags, asked[0].len),
            (ID, flag::TIMEOUT_ABS, 1)
        );
        // SAFETY: it points to the place that the timeout keeps: seconds, then nanoseconds.
        assert_eq!(unsafe { *(asked[0].addr as *const [i64; 2]) }, [3, 0]);
        assert!(answers.iter().all(|cqe| (cqe.user_data, cqe.result) == (UPDATE, 0)));
        assert_eq!(answers.len(), 2);

        // It fires before the removal finds it.
        old.push(update.clone());
        let (asked, answers) = old.answer(ID, -libc::ETIME);
        assert!(asked.is_empty() && old.answer(REMOVAL, -libc::ENOENT).1.is_empty());
        let expected = [Cqe::refusal(ID, libc::ETIME), Cqe::refusal(UPDATE, libc::ENOENT)];
        assert_eq!(answers, expected);
        assert!(old.is_done());
        refused(old.push(update.clone()).1);

        // It is removed for good before it has become another.
        old.push(timeout);
        old.push(update);
        let removal = opcode::TimeoutRemove::new(ID).build().user_data(9);
        assert_eq!(opcodes(&old.push(removal).0), [opcode::TimeoutRemove::CODE]);
        let (asked, answers) = old.answer(ID, -libc::ECANCELED);
        let expected = [Cqe::refusal(ID, libc::ECANCELED), Cqe::refusal(UPDATE, libc::ENOENT)];
        assert_eq!((asked.len(), answers), (0, expected.to_vec()));
        assert!(old.is_done());
    }

    #[test]
    fn a_send_without_a_copy_is_asked_as_one_with_a_copy() {
        let bytes = [7; 10];
        let send = |flags| {
            let send = opcode::SendZc::new(FD, bytes.as_ptr(), 10).flags(libc::MSG_NOSIGNAL);
            send.zc_flags(flags).build().user_data(ID)
        };
        let (asked, answers) = Old::new("no-send-zc").push(send(8));
        assert_eq!((opcodes(&asked), answers.len()), (vec![opcode::Send::CODE], 0));
        assert_eq!((asked[0].ioprio, asked[0].op_flags), (0, libc::MSG_NOSIGNAL as u32));
        assert_eq!((asked[0].addr, asked[0].len), (bytes.as_ptr() as u64, 10));
        let (asked, _) = Old::new("no-pbuf").push(send(8));
        assert_eq!(asked, [Fields::of(&send(8))]);
    }

    #[test]
    fn a_send_that_a_cancel_would_leave_uncounted_does_not_go_on_by_itself() {
        let bytes = [7; 10];
        let all = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        let send = opcode::Send::new(FD, bytes.as_ptr(), 10).flags(all).build().user_data(ID);
        let zero_copy = opcode::SendZc::new(FD, bytes.as_ptr(), 10).flags(all);
        for sqe in [send.clone(), zero_copy.build().user_data(ID)] {
            let expected =
                Fields { op_flags: libc::MSG_NOSIGNAL.cast_unsigned(), ..Fields::of(&sqe) };
            assert_eq!(Old::new("no-send-count").push(sqe).0, [expected]);
        }
        assert_eq!(Old::new("no-pbuf").push(send.clone()).0, [Fields::of(&send)]);
    }

    #[test]
    fn what_the_kernel_does_not_know_is_refused_as_it_would() {
        let mut old = Old::new("5.10");
        let socket = opcode::Socket::new(libc::AF_INET, libc::SOCK_STREAM, 0).build();
        let polls = opcode::PollAdd::new(FD, libc::POLLIN as u32).multi(true).build();
        for sqe in [socket, polls] {
            let (asked, answers) = old.push(sqe.user_data(ID));
            assert!(asked.is_empty() && old.is_done());
            is_last(&answers, -libc::EINVAL);
        }
        assert!(Steps::new(Caps::ALL, u8::MAX).is_none(), "a kernel that lacks nothing");
    }
}
