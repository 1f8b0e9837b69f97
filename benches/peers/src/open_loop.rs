//! An open loop: requests come when they come, whatever the replies do.
//!
//! A closed loop measures a server that its clients spare: while it is slow they send nothing, and
//! what would have waited is never counted (coordinated omission). Here each request has a time at
//! which it is to be sent, and its latency runs from then, also while it waits for a free connection.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::cell::Exchange;
use crate::client::{Client, DRAIN_WITHIN, Slice};
use crate::histogram::Histogram;

/// The times at which requests are to be sent: by chance, independent of each other (Poisson).
pub struct Schedule {
    mean_ns: f64,
    next: Instant,
    state: u64,
}

impl Schedule {
    /// So many a second from `start` on; the same `seed` gives the same times.
    pub fn new(per_second: f64, start: Instant, seed: u64) -> Schedule {
        let mut schedule = Schedule { mean_ns: 1e9 / per_second, next: start, state: seed | 1 };
        schedule.advance();
        schedule
    }

    fn advance(&mut self) {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let bits = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11;
        let share = (bits as f64 + 0.5) / (1u64 << 53) as f64;
        self.next += Duration::from_nanos((-share.ln() * self.mean_ns) as u64);
    }

    /// The time of the next request, if it has come.
    fn due(&mut self, now: Instant) -> Option<Instant> {
        let due = self.next;
        (due <= now).then(|| {
            self.advance();
            due
        })
    }
}

impl Client<'_> {
    /// Sends requests over the connections as `schedule` says for `length`, each over one that has
    /// none in flight, then waits for the replies that are still on their way.
    ///
    /// It never sleeps: what a sleep would add to the latency is the client's.
    pub fn run_open(
        &mut self,
        connections: Range<usize>,
        mut schedule: Schedule,
        exchange: Exchange,
        length: Duration,
        latency: &mut Histogram,
    ) -> io::Result<Slice> {
        let (first, count) = (connections.start, connections.len());
        let mut free: VecDeque<usize> = connections.collect();
        let mut late: VecDeque<Instant> = VecDeque::new();
        let start = Instant::now();
        let end = start + length;
        let (mut now, mut messages, mut stalled) = (start, 0, Duration::ZERO);
        while now < end || free.len() < count || !late.is_empty() {
            if now > end + DRAIN_WITHIN {
                let missing = count - free.len();
                return Err(self.failure(first, &format!("{missing} replies never came")));
            }
            while let Some(due) = schedule.due(now).filter(|due| *due < end) {
                late.push_back(due);
            }
            while !late.is_empty()
                && let Some(index) = free.pop_front()
            {
                let due = late.pop_front().expect("it is not empty");
                self.request(index, exchange, due)?;
            }
            self.buffers.publish();
            self.ring.poll()?;
            let before = std::mem::replace(&mut now, Instant::now());
            stalled = stalled.max(now - before);
            while let Some(completion) = self.ring.next_completion() {
                if let Some(index) = self.reply_ended_by(&completion, exchange)? {
                    messages += 1;
                    latency.record((now - self.sent_at(index)).as_nanos() as u64);
                    free.push_back(index);
                }
            }
        }
        Ok(Slice { messages, elapsed: now - start, stalled })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_keeps_its_rate_and_spreads_its_requests() {
        let start = Instant::now();
        let mut schedule = Schedule::new(10_000.0, start, 7);
        let end = start + Duration::from_secs(10);
        let times: Vec<Instant> = std::iter::from_fn(|| schedule.due(end)).collect();
        // The deviation of a count is its root.
        assert!((99_000..=101_000).contains(&times.len()), "{}", times.len());
        let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
        let short = gaps.filter(|gap| *gap < Duration::from_micros(100)).count();
        let share = short as f64 / times.len() as f64;
        assert!((0.62..0.645).contains(&share), "{share} are shorter than the mean, not 1 - 1/e");
    }

    #[test]
    fn nothing_is_due_before_its_time() {
        let start = Instant::now();
        let mut schedule = Schedule::new(1000.0, start, 1);
        assert_eq!(schedule.due(start), None);
        let first = schedule.next;
        assert_eq!(schedule.due(first), Some(first));
        assert!(schedule.next >= first);
    }
}
