//! A ring whose kernel lacks something: requests go through [`Steps`], and answers come from them.
//!
//! All of it is out of the way of a ring whose kernel lacks nothing.

use std::io;

use super::Uring;
use crate::driver::caps::Cap;
use crate::driver::pad::steps::Steps;
use crate::driver::{Cqe, Sqe, Wait};
use crate::sys::clock;

impl Uring {
    /// Queues a request in the steps that this kernel has for it.
    ///
    /// # Safety
    /// As [`Driver::push`](crate::driver::Driver::push).
    #[cold]
    pub(super) unsafe fn push_in_steps(&mut self, sqe: Sqe) {
        // SAFETY: the caller's promise.
        self.with_steps(|steps| unsafe { steps.push(sqe) });
    }

    /// As `trade`; a sleep goes on while nothing but steps was answered.
    #[cold]
    pub(super) fn trade_in_steps(&mut self, wait: Wait, answers: &mut Vec<Cqe>) -> io::Result<()> {
        let first = answers.len();
        loop {
            let wait = self.wait_in_steps(wait);
            let before = self.counters;
            let result = self.trade(wait, answers);
            self.with_steps(|steps| steps.translate(answers, first));
            let ended = self.counters;
            let only_steps = ended.cqes > before.cqes
                && answers.len() == first
                && ended.kicks == before.kicks
                && ended.interrupted == before.interrupted
                && ended.refused == before.refused;
            if result.is_err() || wait == Wait::Poll || !only_steps {
                return result;
            }
        }
    }

    /// How to wait: not at all with answers in hand, and with a request for a deadline that cannot
    /// be part of a wait.
    fn wait_in_steps(&mut self, wait: Wait) -> Wait {
        let is_ready = self.with_steps(|steps| steps.is_ready());
        match wait {
            _ if is_ready => Wait::Poll,
            Wait::Until(time) if time <= clock::monotonic() => Wait::Poll,
            Wait::Until(time) if !self.caps.has(Cap::ExtArg) => {
                self.with_steps(|steps| steps.arm(time));
                Wait::Block
            }
            wait => wait,
        }
    }

    /// Calls `f` with the steps, and queues what is to be asked next.
    fn with_steps<R>(&mut self, f: impl FnOnce(&mut Steps) -> R) -> R {
        let mut steps = self.steps.take().expect("the kernel lacks something");
        let result = f(&mut steps);
        for sqe in steps.asks() {
            self.queue(sqe);
        }
        self.steps = Some(steps);
        result
    }
}
