//! How a core sleeps where it was told more than to sleep until something comes.
//!
//! Both ways are off by default: to wait for several answers trades latency for CPU time
//! (`coalesce`), to watch the queues before a sleep trades CPU time for latency (`spin`).

use std::io;

use io_uring::opcode;

use super::coalesce::{Coalescing, Lap, MOST_US};
use super::spin::Spin;
use super::{Sizes, Uring};
use crate::driver::caps::{Cap, Caps};
use crate::driver::{Cqe, Fields, Sqe, Wait};
use crate::sys::clock;

/// Looks at the queues between two looks at the clock.
const LOOKS: u32 = 16;

/// The two rules, as far as they are wanted.
pub(super) struct Sleeper {
    coalescing: Option<Coalescing>,
    spin: Option<Spin>,
    /// Sends that are queued: most are answered as they are handed over.
    sends: u32,
}

/// How a moment of watching ended.
enum Watched {
    /// Something has come, or so it seems.
    Came,
    /// Another thread has brought work.
    Unparked,
    /// The time is over.
    InVain,
    /// It was not worth beginning.
    Not,
}

impl Sleeper {
    /// `None` where a sleep simply ends with the first answer.
    pub(super) fn new(sizes: Sizes, caps: Caps) -> Option<Box<Self>> {
        let coalescing = Coalescing::new(sizes.waiting).filter(|_| caps.has(Cap::MinWait));
        let spin = Spin::new(sizes.spin);
        let wanted = coalescing.is_some() || spin.is_some();
        wanted.then(|| Box::new(Sleeper { coalescing, spin, sends: 0 }))
    }

    #[inline]
    pub(super) fn note_push(&mut self, sqe: &Sqe) {
        let opcode = Fields::of(sqe).opcode;
        self.sends += u32::from(matches!(opcode, opcode::Send::CODE | opcode::SendMsg::CODE));
    }

    /// How many answers end this sleep, or the time of [`MOST_US`] if it brings one.
    #[inline]
    pub(super) fn want(&self, wait: Wait) -> Option<u32> {
        let aim = self.coalescing.as_ref()?.aim()?;
        match wait {
            Wait::Poll => None,
            // The kernel looks at a deadline only after the time that it waits for several.
            Wait::Until(time) if time < clock::monotonic() + u64::from(MOST_US) * 1_000 => None,
            Wait::Block | Wait::Until(_) => Some(self.sends + aim),
        }
    }
}

impl Uring {
    /// Takes note of an enter that waited for `want` answers.
    #[inline]
    pub(super) fn note_lap(&mut self, want: Option<u32>, taken: usize, kicks_before: u64) {
        let Some(sleeper) = &mut self.sleeper else { return };
        let own = std::mem::take(&mut sleeper.sends);
        let Some(coalescing) = &mut sleeper.coalescing else { return };
        let (now, answers) = (clock::monotonic(), taken as u32);
        let kicked = self.counters.kicks != kicks_before;
        let lap = Lap { now, answers, own, waited: want.is_some(), kicked };
        coalescing.note(lap, clock::of_this_thread);
        self.counters.coalesced += u64::from(want.is_some());
        [self.counters.windows_off, self.counters.windows_on] = coalescing.windows();
    }

    /// A trade that watches the queues before it sleeps: when all is handed over and nothing came.
    #[cold]
    pub(super) fn trade_spinning(&mut self, wait: Wait, answers: &mut Vec<Cqe>) -> io::Result<()> {
        let (start, before, kicks) = (clock::monotonic(), answers.len(), self.counters.kicks);
        if !self.ring.submission().is_empty() || !self.spill.is_empty() {
            self.hand_over(Wait::Poll, answers)?;
            if answers.len() > before || self.counters.kicks != kicks {
                return Ok(());
            }
        }
        let watched = self.watch(start, wait);
        if let Watched::Came = watched {
            self.hand_over(Wait::Poll, answers)?;
        }
        let brought = answers.len() > before || self.counters.kicks != kicks;
        let sleeps = match watched {
            Watched::Not => true,
            Watched::Unparked => false,
            // The hint was wrong where nothing was brought.
            Watched::Came | Watched::InVain if !brought => self.unparker.announce_again(),
            Watched::Came | Watched::InVain => false,
        };
        if sleeps {
            self.hand_over(wait, answers)?;
        } else {
            self.counters.spins_won += 1;
            // Whoever unparked a core that watches has spared the kick.
            self.counters.kicks += u64::from(!brought);
        }
        let took = clock::monotonic() - start;
        if let Some(spin) = self.sleeper.as_mut().and_then(|sleeper| sleeper.spin.as_mut()) {
            spin.took(took);
        }
        Ok(())
    }

    /// Whether the queues may be watched before this sleep.
    #[inline]
    pub(super) fn may_spin(&self, wait: Wait) -> bool {
        let spins = self.sleeper.as_ref().is_some_and(|sleeper| sleeper.spin.is_some());
        spins && wait != Wait::Poll
    }

    /// Watches memory only: the tail of the answers, the hint that work is deferred, and whether
    /// another thread has brought something. No system call is made.
    fn watch(&mut self, start: u64, wait: Wait) -> Watched {
        let spin = self.sleeper.as_ref().and_then(|sleeper| sleeper.spin.as_ref());
        let mut end = start + spin.map_or(0, Spin::budget);
        if let Wait::Until(time) = wait {
            end = end.min(time);
        }
        if end <= start || !self.unparker.watch() {
            return Watched::Not;
        }
        self.counters.spins += 1;
        let (_, submissions, mut completions) = self.ring.split();
        loop {
            for _ in 0..LOOKS {
                completions.sync();
                if submissions.taskrun() || !completions.is_empty() {
                    return Watched::Came;
                }
                if !self.unparker.is_watching() {
                    return Watched::Unparked;
                }
                std::hint::spin_loop();
            }
            if clock::monotonic() >= end {
                return Watched::InVain;
            }
        }
    }
}
