//! The real kernel: one io_uring, owned by the thread that made it.
//!
//! A lap is one `io_uring_enter`: it hands over what was pushed, runs the work that completions
//! left behind, and sleeps. The head of the completion queue is published before it. What the
//! kernel leaves over (it runs about twenty pieces of work a call) the next lap's enter runs; a
//! loop on `SQ_TASKRUN` would hang, because an empty enter does not clear that flag.

mod alone;
mod bell;
mod coalesce;
mod enter;
mod fixed;
mod padded;
mod probe;
mod restrict;
mod sendto;
mod setup;
mod sleep;
mod spin;
mod usable;

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use io_uring::{IoUring, Probe, opcode, types};

use super::caps::{Cap, Caps, Mask};
use super::eventfd::EventFd;
use super::pad::steps::Steps;
use super::{Call, Counters, Cqe, Driver, RESERVED, Register, Sqe, Unparker, Wait, Waiting, call};
use crate::sys::atomic::Arc;
use crate::sys::{clock, fork};
use bell::Bell;
use enter::Outcome;
pub(crate) use setup::{Refused, is_about_io_uring};
use sleep::Sleeper;
pub(crate) use usable::is_usable;

/// The answer of the poll that watches the kick.
const KICKED: u64 = RESERVED;

/// After this many laps in a row without a system call, one is made all the same.
const QUIET_LAPS: u32 = 8;

/// An enter runs no more deferred work than about this; if it brought as much, some may be left.
const WORK_A_CALL: usize = 16;

/// A hook that makes enters fail, for tests: it sees how many requests wait, and may answer an
/// errno and how many of them are handed over before it strikes.
pub(crate) type EnterFault = Box<dyn FnMut(u32) -> Option<(i32, u32)>>;

/// io_uring as a [`Driver`].
pub(crate) struct Uring {
    // Closed by hand: a forked child must not close a number that the hook has closed already.
    ring: ManuallyDrop<IoUring>,
    enter: enter::Enter,
    fixed: fixed::FixedFiles,
    probe: Probe,
    mask: Mask,
    caps: Caps,
    /// Asks in steps for what this kernel lacks; most lack nothing.
    steps: Option<Box<Steps>>,
    /// Requests that found the queue full, in order.
    spill: VecDeque<Sqe>,
    /// The lap's only request so far, if it is a send.
    alone: Option<Sqe>,
    sends_alone: bool,
    /// Nothing has been pushed since the last enter, which has left nothing in the queues.
    nothing_pushed: bool,
    /// The last enter has brought one answer.
    brought_one: bool,
    /// Its count is not read while a poll watches it: each ring is an edge.
    kick: Arc<EventFd>,
    unparker: Unparker,
    kick_is_watched: bool,
    /// There once a foreign loop has asked for it.
    bell: OnceCell<Bell>,
    quiet_laps: u32,
    work_may_be_left: bool,
    backoff: Duration,
    /// How this core sleeps, if not simply until something comes.
    sleeper: Option<Box<Sleeper>>,
    counters: Counters,
    listed: Option<fork::Listed>,
}

/// Sizes and choices for one ring.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) submissions: u32,
    pub(crate) completions: u32,
    pub(crate) mask: Mask,
    pub(crate) waiting: Waiting,
    /// For how long the queues are watched before a sleep, at most.
    pub(crate) spin: Duration,
}

impl Default for Sizes {
    fn default() -> Self {
        Sizes {
            submissions: 512,
            completions: 8192,
            mask: Mask::default(),
            waiting: Waiting::default(),
            spin: Duration::ZERO,
        }
    }
}

impl Uring {
    /// Opens a ring, with as many of the wanted flags as this kernel has.
    pub(crate) fn new(sizes: Sizes, fault: Option<EnterFault>) -> Result<Self, Refused> {
        let mask = sizes.mask;
        let (ring, flags) = setup::open(sizes, mask.allowed)?;
        let after = |step| move |error| Refused { step, error };
        let listed = fork::Listed::new(ring.as_raw_fd()).map_err(after("listing the ring"))?;
        let probe = probe::opcodes(&ring)?;
        let mut caps = probe::capabilities(&ring, &probe, flags).and(mask.allowed);
        if caps.has(Cap::IowqMax) {
            // More workers than this have been seen to be started by the thousand.
            let _ = ring.submitter().register_iowq_max_workers(&mut [4, 16]);
        }
        let kick = Arc::new(EventFd::new().map_err(after("eventfd"))?);
        let enter = enter::Enter::new(&ring, &mut caps, fault);
        let fixed = fixed::FixedFiles::new(&ring, &mut caps);
        if mask.restricted {
            restrict::enable(&ring, &probe).map_err(after("IORING_REGISTER_RESTRICTIONS"))?;
        }
        // A ring that is restricted can be entered from here on.
        usable::try_to_enter(&ring)?;
        Ok(Uring {
            ring: ManuallyDrop::new(ring),
            enter,
            fixed,
            probe,
            mask,
            caps,
            steps: Steps::new(caps, mask.last_opcode),
            spill: VecDeque::new(),
            alone: None,
            sends_alone: true,
            nothing_pushed: false,
            brought_one: false,
            unparker: Unparker::new(Arc::clone(&kick)),
            kick,
            kick_is_watched: false,
            bell: OnceCell::new(),
            quiet_laps: 0,
            work_may_be_left: false,
            backoff: Duration::ZERO,
            sleeper: Sleeper::new(sizes, caps),
            counters: Counters::default(),
            listed: Some(listed),
        })
    }

    /// What was found when the ring was opened.
    pub(crate) fn caps(&self) -> Caps {
        self.caps
    }

    #[inline]
    fn queue_counted(&mut self, sqe: Sqe) {
        if let Some(sleeper) = &mut self.sleeper {
            sleeper.note_push(&sqe);
        }
        self.queue(sqe);
    }

    fn queue(&mut self, sqe: Sqe) {
        if !self.spill.is_empty() || !self.fits(&sqe) {
            self.spill.push_back(sqe);
        }
    }

    #[inline]
    fn fits(&mut self, sqe: &Sqe) -> bool {
        // SAFETY: what the entry points at stays valid, as the caller of `Driver::push` promised.
        unsafe { self.ring.submission().push(sqe).is_ok() }
    }

    fn refill(&mut self) {
        while let Some(sqe) = self.spill.pop_front() {
            if !self.fits(&sqe) {
                self.spill.push_front(sqe);
                return;
            }
        }
    }

    /// Watches the kick again if the last watch has ended (its queue may have overflowed).
    fn watch_kick(&mut self) {
        if !self.kick_is_watched {
            let many = self.caps.has(Cap::MultishotPoll);
            let fd = types::Fd(self.kick.as_raw_fd());
            let poll = opcode::PollAdd::new(fd, libc::POLLIN as u32).multi(many);
            self.kick_is_watched = true;
            self.queue(poll.build().user_data(KICKED));
        }
    }

    /// Takes what has been answered, and publishes the head of the queue. Returns how many.
    fn reap(&mut self, answers: &mut Vec<Cqe>) -> usize {
        let mut taken = 0;
        for entry in self.ring.completion() {
            taken += 1;
            let (user_data, result) = (entry.user_data(), entry.result());
            let cqe = Cqe { user_data, result, flags: entry.flags() };
            if user_data == KICKED {
                self.counters.kicks += 1;
                self.kick_is_watched = cqe.has_more();
                if !self.kick_is_watched {
                    // A poll that is asked anew sees a level, not an edge. Later, when it is asked,
                    // would be too late: a kick of the next sleep would be taken with it.
                    self.kick.silence();
                }
            } else {
                answers.push(cqe);
            }
        }
        self.counters.cqes += taken as u64;
        taken
    }

    /// Whether an enter could bring anything: only a hint, which is why it cannot be relied on for ever.
    fn nothing_to_trade(&mut self) -> bool {
        self.ring.submission().is_empty() && !self.has_come()
    }

    /// Whether there is something to take, or to be worked for: a hint as well.
    fn has_come(&mut self) -> bool {
        let queue = self.ring.submission();
        let came = queue.taskrun() || queue.cq_overflow();
        drop(queue);
        came || self.work_may_be_left || !self.ring.completion().is_empty()
    }

    /// Hands over, sleeps as told, and reaps.
    fn trade(&mut self, wait: Wait, answers: &mut Vec<Cqe>) -> io::Result<()> {
        self.watch_kick();
        // With an answer in hand there is no reason to sleep.
        let wait = if self.send_alone(answers) { Wait::Poll } else { wait };
        if wait == Wait::Poll && self.quiet_laps < QUIET_LAPS && self.nothing_to_trade() {
            self.quiet_laps += 1;
            return Ok(());
        }
        self.quiet_laps = 0;
        if self.may_spin(wait) {
            return self.trade_spinning(wait, answers);
        }
        self.hand_over(wait, answers)
    }

    fn hand_over(&mut self, wait: Wait, answers: &mut Vec<Cqe>) -> io::Result<()> {
        let (before, kicks) = (answers.len(), self.counters.kicks);
        loop {
            self.refill();
            let (queued, overflowed) = {
                let queue = self.ring.submission();
                (queue.len(), queue.cq_overflow())
            };
            self.counters.overflows += u64::from(overflowed);
            // What overflowed is taken first, what spilled is handed over first, and with answers
            // or a kick in hand there is no reason to sleep.
            let in_hand = answers.len() > before || self.counters.kicks != kicks;
            let hurry = overflowed || !self.spill.is_empty() || in_hand;
            let wait = if hurry { Wait::Poll } else { wait };
            let want = self.sleeper.as_ref().and_then(|sleeper| sleeper.want(wait));
            self.counters.enters += 1;
            let outcome = self.enter.call(queued as u32, wait, want)?;
            if let Outcome::Done { submitted } = outcome {
                self.counters.sqes += u64::from(submitted);
            }
            let taken = self.reap(answers);
            self.work_may_be_left = taken >= WORK_A_CALL;
            self.note_lap(want, taken, kicks);
            match outcome {
                Outcome::Done { .. } if self.spill.is_empty() => {
                    self.backoff = Duration::ZERO;
                    return Ok(());
                }
                Outcome::Done { .. } => {}
                Outcome::Interrupted => {
                    self.counters.interrupted += 1;
                    return Ok(());
                }
                Outcome::Refused => {
                    self.counters.refused += 1;
                    if taken == 0 {
                        self.back_off();
                    }
                    return Ok(());
                }
            }
        }
    }

    /// A foreign loop sleeps on the bell until the kernel rings it: for what waits here, because an
    /// enter was refused or the kick's watch has ended, the kernel would not.
    #[cold]
    fn ring_for_what_is_left(&mut self) {
        let Some(bell) = self.bell.get() else { return };
        let queued = !self.spill.is_empty() || !self.ring.submission().is_empty();
        if queued || !self.kick_is_watched || self.work_may_be_left {
            bell.ring();
        }
    }

    /// Waits a little after the kernel refused for want of memory and had nothing to answer.
    fn back_off(&mut self) {
        self.backoff =
            (self.backoff * 2).clamp(Duration::from_millis(1), Duration::from_millis(100));
        std::thread::sleep(self.backoff);
    }
}

// SAFETY: the kernel gives each request exactly one last answer, which `reap` passes on unchanged;
// a request that does not fit is kept, in order, until it does.
unsafe impl Driver for Uring {
    #[inline]
    unsafe fn push(&mut self, mut sqe: Sqe) {
        // SAFETY: the caller's promise.
        unsafe { self.lighten(&mut sqe) };
        self.fixed.apply(&mut sqe, &self.ring);
        if self.steps.is_some() {
            // SAFETY: the caller's promise.
            return unsafe { self.push_in_steps(sqe) };
        }
        if !self.keep_alone(&sqe) {
            self.queue_counted(sqe);
        }
    }

    unsafe fn attempt(&mut self, mut sqe: Sqe) -> Option<Cqe> {
        // SAFETY: the caller's promise.
        unsafe { self.lighten(&mut sqe) };
        self.send_at_once(&sqe)
    }

    #[inline]
    fn attempts(&self) -> u32 {
        u32::from(self.brought_one && self.nothing_pushed && self.steps.is_none())
    }

    fn enter(&mut self, wait: Wait, answers: &mut Vec<Cqe>) -> io::Result<()> {
        if self.bell.get().is_some_and(Bell::silence) {
            // Nobody rings again for what this was for, so that a hint is not enough to leave it.
            self.quiet_laps = QUIET_LAPS;
        }
        let before = answers.len();
        let result = match self.steps {
            None => self.trade(wait, answers),
            Some(_) => self.trade_in_steps(wait, answers),
        };
        if self.bell.get().is_some() {
            self.ring_for_what_is_left();
        }
        self.nothing_pushed = self.ring.submission().is_empty() && self.spill.is_empty();
        self.brought_one = answers.len() == before + 1;
        result
    }

    fn call(&mut self, call: Call<'_>) -> io::Result<i32> {
        if let Call::Close { fd } | Call::Release { fd } = call {
            self.fixed.forget(fd, &self.ring);
        }
        call::perform(call)
    }

    unsafe fn register(&mut self, resource: Register) -> io::Result<()> {
        if let Some(steps) = &mut self.steps
            // SAFETY: the caller's promise.
            && unsafe { steps.register(resource) }
        {
            return Ok(());
        }
        let submitter = self.ring.submitter();
        match resource {
            // SAFETY: the caller keeps the memory valid until it is unregistered or the ring is gone.
            Register::Buffers { ring, entries, group } => unsafe {
                submitter.register_buf_ring_with_flags(ring as u64, entries, group, 0)
            },
            Register::RemoveBuffers { group } => submitter.unregister_buf_ring(group),
        }
    }

    fn supports(&self, opcode: u8) -> bool {
        opcode <= self.mask.last_opcode && self.probe.is_supported(opcode)
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
        if self.bell.get().is_none() {
            // 5.18 brought both; deferred work came later, so that an older kernel has none.
            let is_old = !self.caps.has(Cap::SubmitAll) && !self.caps.has(Cap::DeferTaskrun);
            let bell = Bell::new(&self.ring, !is_old).ok()?;
            // What came before the bell was there has not rung it.
            bell.ring();
            let _ = self.bell.set(bell);
        }
        self.bell.get().map(AsFd::as_fd)
    }

    fn name(&self) -> &'static str {
        "io_uring"
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        // In a forked child the hook has closed the number, and the maps were not inherited.
        if !fork::forked() {
            drop(self.listed.take());
            // A ring is torn down after its close has returned; what it had registered is not to
            // stay open until then.
            let _ = self.ring.submitter().unregister_files();
            self.enter.end(&self.ring);
            // SAFETY: this is the only drop, and nothing uses the ring afterwards.
            unsafe { ManuallyDrop::drop(&mut self.ring) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> Uring {
        open_under("none")
    }

    fn open_under(mask: &str) -> Uring {
        Uring::new(sizes(8, 32, mask), None).expect("io_uring is there")
    }

    fn sizes(submissions: u32, completions: u32, mask: &str) -> Sizes {
        let mask = mask.parse().unwrap();
        Sizes { submissions, completions, mask, ..Sizes::default() }
    }

    fn nop(user_data: u64) -> Sqe {
        opcode::Nop::new().build().user_data(user_data)
    }

    #[test]
    fn a_lap_completes_a_nop() {
        let (mut ring, mut answers) = (open(), Vec::new());
        // SAFETY: a nop points at nothing.
        unsafe { ring.push(nop(7)) };
        ring.enter(Wait::Block, &mut answers).unwrap();
        assert_eq!(answers, [Cqe { user_data: 7, result: 0, flags: 0 }]);
        assert_eq!(ring.counters().enters, 1);
    }

    #[test]
    fn more_requests_than_the_queue_holds_are_all_answered_in_order() {
        let (mut ring, mut answers) = (open(), Vec::new());
        for number in 0..100 {
            // SAFETY: a nop points at nothing.
            unsafe { ring.push(nop(number)) };
        }
        while answers.len() < 100 {
            ring.enter(Wait::Block, &mut answers).unwrap();
        }
        assert!(answers.iter().map(|cqe| cqe.user_data).eq(0..100));
        assert!(ring.spill.is_empty());
    }

    #[test]
    fn a_full_answer_queue_overflows_and_loses_nothing() {
        let (mut ring, mut answers) = (Uring::new(sizes(2, 2, "none"), None).unwrap(), Vec::new());
        for number in 0..64 {
            // SAFETY: a nop points at nothing.
            unsafe { ring.push(nop(number)) };
        }
        while answers.len() < 64 {
            ring.enter(Wait::Block, &mut answers).unwrap();
        }
        answers.sort_by_key(|cqe| cqe.user_data);
        assert!(answers.iter().map(|cqe| cqe.user_data).eq(0..64));
    }

    #[test]
    fn an_unpark_from_another_thread_ends_the_sleep() {
        let (mut ring, mut answers) = (open(), Vec::new());
        let unparker = ring.unparker();
        unparker.announce();
        let other = std::thread::spawn(move || unparker.unpark());
        ring.enter(Wait::Block, &mut answers).unwrap();
        other.join().unwrap();
        assert!(answers.is_empty());
        assert_eq!(ring.counters().kicks, 1);
    }

    #[test]
    fn a_kick_that_comes_while_requests_are_handed_over_in_parts_ends_the_sleep() {
        let (mut ring, mut answers) = (Uring::new(sizes(2, 64, "none"), None).unwrap(), Vec::new());
        ring.enter(Wait::Poll, &mut answers).unwrap();
        let never = EventFd::new().unwrap();
        for number in 0..4 {
            let fd = types::Fd(never.as_raw_fd());
            let poll = opcode::PollAdd::new(fd, libc::POLLIN as u32).build();
            // SAFETY: a poll points at nothing.
            unsafe { ring.push(poll.user_data(number)) };
        }
        let (unparker, start) = (ring.unparker(), ring.now());
        unparker.announce();
        unparker.unpark();
        ring.enter(Wait::Until(start + 5_000_000_000), &mut answers).unwrap();
        assert!(ring.now() - start < 4_000_000_000, "the sleep went on");
        assert_eq!(ring.counters().kicks, 1);
    }

    #[test]
    fn a_ring_that_ends_gives_its_place_among_the_registered_back() {
        for round in 0..40 {
            assert!(open().enter.is_registered(), "the ring of round {round}");
        }
    }

    #[test]
    fn a_wait_with_a_deadline_ends_at_it() {
        for mask in ["none", "no-ext-arg-abs", "no-ext-arg"] {
            let (mut ring, mut answers) = (open_under(mask), Vec::new());
            // The second is earlier than the first, which is still to come.
            for wait in [20_000_000, 2_000_000, 4_000_000] {
                let start = ring.now();
                let far = ring.now() + 3_600_000_000_000;
                ring.kick.ring();
                ring.enter(Wait::Until(far), &mut answers).unwrap();
                ring.enter(Wait::Until(start + wait), &mut answers).unwrap();
                let late = ring.now().checked_sub(start + wait).expect("it ended early");
                assert!(late < 1_000_000_000, "it ended {late} ns late under {mask}");
            }
            assert!(answers.is_empty(), "{answers:?} under {mask}");
        }
    }

    #[test]
    fn what_a_refused_enter_left_behind_makes_the_descriptor_readable() {
        let mut refuse = true;
        let fault: EnterFault =
            Box::new(move |_| std::mem::take(&mut refuse).then_some((libc::EAGAIN, 0)));
        let (mut ring, mut answers) =
            (Uring::new(sizes(8, 32, "none"), Some(fault)).unwrap(), Vec::new());
        let fd = ring.readiness().unwrap().as_raw_fd();
        // SAFETY: a nop points at nothing.
        unsafe { ring.push(nop(7)) };
        for expected in [true, true, false] {
            ring.enter(Wait::Poll, &mut answers).unwrap();
            let mut ours = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            // SAFETY: the array of one lives until the call returns.
            let readable = unsafe { libc::poll(&raw mut ours, 1, 0) } == 1;
            // The second enter hands over the nop, whose answer rings after the silence.
            assert_eq!(readable, expected);
        }
        assert_eq!(answers.len(), 1);
    }

    #[test]
    fn a_mask_takes_away_what_it_names_and_nothing_else() {
        let present = |mask: &str| {
            let list = open_under(mask).caps().list();
            let names = list.iter().filter(|capability| capability.present);
            names.map(|capability| capability.name).collect::<Vec<_>>()
        };
        let all = present("none");
        assert_eq!(present("5.10"), [""; 0]);
        for capability in &all {
            let mut left = all.clone();
            left.retain(|other| {
                // The one cannot be had without the other.
                let implied = (*capability, *other) == ("single-issuer", "defer-taskrun");
                other != capability && !implied
            });
            assert_eq!(present(&format!("no-{capability}")), left);
        }
        assert_eq!(present("restricted"), all);
    }

    #[test]
    fn a_restricted_ring_refuses_what_quoit_does_not_use() {
        let (mut ring, mut answers) = (open_under("restricted"), Vec::new());
        // SAFETY: a nop points at nothing.
        unsafe { ring.push(nop(7)) };
        ring.enter(Wait::Block, &mut answers).unwrap();
        assert_eq!(answers, [Cqe::refusal(7, libc::EACCES)]);
        assert!(ring.ring.submitter().register_eventfd_async(0).is_err());
    }

    #[test]
    fn a_kick_ends_each_sleep_where_polls_are_asked_anew() {
        let (mut ring, mut answers) = (open_under("5.10"), Vec::new());
        for round in 1..=3 {
            let (unparker, before) = (ring.unparker(), ring.now());
            unparker.announce();
            unparker.unpark();
            ring.enter(Wait::Until(before + 5_000_000_000), &mut answers).unwrap();
            assert!(ring.now() - before < 4_000_000_000, "a kick was lost");
            assert_eq!(ring.counters().kicks, round);
        }
    }

    #[test]
    fn a_refused_enter_keeps_every_request() {
        let mut left = 5;
        let fault: EnterFault = Box::new(move |_| {
            left -= 1;
            let errno = [libc::EAGAIN, libc::EBUSY, libc::EINTR, libc::ENOMEM][left as usize % 4];
            (left > 0).then_some((errno, 1))
        });
        let sizes = sizes(8, 32, "none");
        let (mut ring, mut answers) = (Uring::new(sizes, Some(fault)).unwrap(), Vec::new());
        for number in 0..20 {
            // SAFETY: a nop points at nothing.
            unsafe { ring.push(nop(number)) };
        }
        while answers.len() < 20 {
            ring.enter(Wait::Block, &mut answers).unwrap();
        }
        assert!(answers.iter().map(|cqe| cqe.user_data).eq(0..20));
    }
}
