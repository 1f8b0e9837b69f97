//! The rule against models of loads: no kernel, no clock.

use super::*;

/// What a lap costs a core, in nanoseconds: about what was measured.
const PER_ANSWER: u64 = 2_200;
const PER_ENTER: u64 = 400;
const PER_SLEEP: u64 = 3_500;
/// What replies that come at once cost their client together.
const PER_INTERRUPT: u64 = 1_000;

/// A server that echoes, on one core, and those who load it.
struct Model {
    rule: Coalescing,
    load: Load,
    now: u64,
    cpu: u64,
    served: u64,
    waits: u64,
    /// Another thread wakes the core once in so many laps.
    kick_every: u64,
    laps: u64,
}

/// When requests come.
struct Load {
    /// The times of those that are on their way, in order.
    coming: std::collections::VecDeque<u64>,
    /// What a client that is one thread does for each reply, and until when it is busy. What comes
    /// at once interrupts it once.
    pace: u64,
    client_free: u64,
    /// An open loop has a mean time between requests instead.
    every: Option<u64>,
    random: u64,
}

impl Load {
    /// So many connections whose next request follows the reply, by one thread that needs `pace`.
    fn closed(connections: usize, pace: u64) -> Load {
        Load { coming: vec![0; connections].into(), pace, client_free: 0, every: None, random: 7 }
    }

    fn open(every: u64) -> Load {
        Load { coming: [0].into(), pace: 0, client_free: 0, every: Some(every), random: 7 }
    }

    fn next(&self) -> Option<u64> {
        self.coming.front().copied()
    }

    /// Takes the requests that have come, at most so many.
    fn take(&mut self, now: u64, most: usize) -> u64 {
        let mut taken = 0;
        while taken < most as u64
            && let Some(at) = self.coming.pop_front_if(|at| *at <= now)
        {
            taken += 1;
            if let Some(every) = self.every {
                let next = at + self.random_below(2 * every);
                self.coming.push_back(next);
            }
        }
        taken
    }

    fn random_below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % bound
    }

    fn reply(&mut self, now: u64, count: u64) {
        if self.every.is_some() || count == 0 {
            return;
        }
        // The network's time, a little different each time.
        let arrives = now + 6_000 + self.random_below(2_000);
        self.client_free = self.client_free.max(arrives) + PER_INTERRUPT;
        for _ in 0..count {
            self.client_free += self.pace;
            self.coming.push_back(self.client_free);
        }
    }
}

impl Model {
    fn new(waiting: Waiting, load: Load) -> Model {
        let rule = Coalescing::new(waiting).expect("a way that has a rule");
        Model { rule, load, now: 0, cpu: 0, served: 0, waits: 0, kick_every: 0, laps: 0 }
    }

    fn spend(&mut self, ns: u64) {
        self.now += ns;
        self.cpu += ns;
    }

    /// One lap: the replies to `own` requests are handed over, and a sleep brings the next.
    fn lap(&mut self, own: u64, obeys: bool) -> u64 {
        self.spend(PER_ENTER);
        self.load.reply(self.now, own);
        let aim = self.rule.aim().filter(|_| obeys);
        let mut got = self.load.take(self.now, 20);
        let enough = aim.map_or(1, u64::from);
        let answered_at_once = aim.is_none() && own > 0;
        if got < enough && !answered_at_once {
            let give_up = self.now + u64::from(MOST_US) * 1_000;
            while got < enough {
                let next = self.load.next().unwrap_or(u64::MAX);
                // With something in hand the wait ends after its time, without it goes on.
                if aim.is_some() && next > give_up && own + got > 0 {
                    self.now = give_up;
                    break;
                }
                self.now = self.now.max(next);
                got += self.load.take(self.now, (enough - got) as usize);
            }
            self.spend(PER_SLEEP);
        }
        self.waits += u64::from(aim.is_some());
        self.laps += 1;
        let kicked = self.kick_every > 0 && self.laps.is_multiple_of(self.kick_every);
        let (answers, own) = ((own + got) as u32, own as u32);
        let (now, cpu) = (self.now, self.cpu);
        self.rule.note(Lap { now, answers, own, waited: aim.is_some(), kicked }, || cpu);
        got
    }

    /// Serves for so long; the requests a second.
    fn run(&mut self, ns: u64, obeys: bool) -> f64 {
        let (start, end, before) = (self.now, self.now + ns, self.served);
        let mut own = 0;
        while self.now < end {
            let got = self.lap(own, obeys);
            self.spend(PER_ANSWER * got);
            (self.served, own) = (self.served + got, got);
        }
        (self.served - before) as f64 * 1e9 / (self.now - start) as f64
    }

    /// The share of its windows in which it waited.
    fn share(&self) -> f64 {
        let [without, with] = self.rule.windows();
        with as f64 / (without + with).max(1) as f64
    }
}

const SECOND: u64 = 1_000_000_000;

/// What the rule makes of a load: requests a second and CPU a request, against those without it; and
/// the share of windows in which it waited.
fn against_none(waiting: Waiting, load: impl Fn() -> Load, ns: u64) -> (f64, f64, f64) {
    let mut with = Model::new(waiting, load());
    let mut without = Model::new(waiting, load());
    let rate = with.run(ns, true) / without.run(ns, false);
    let cost = |model: &Model| model.cpu as f64 / model.served as f64;
    (rate, cost(&with) / cost(&without), with.share())
}

const BOTH: [Waiting; 2] = [Waiting::Balanced, Waiting::Throughput];

#[test]
fn it_waits_where_a_slower_client_has_many_connections() {
    for (waiting, connections) in [(BOTH[0], 50), (BOTH[0], 500), (BOTH[1], 50), (BOTH[1], 500)] {
        let (rate, cost, share) =
            against_none(waiting, || Load::closed(connections, 6_500), 2 * SECOND);
        assert!(share > 0.4, "{waiting:?}, {connections}: in {share:.3} of the windows");
        assert!(cost < 0.9, "{waiting:?}, {connections}: {cost:.3} of the CPU");
        assert!(rate > 1.01, "{waiting:?}, {connections}: {rate:.3} of the requests");
    }
}

#[test]
fn it_does_not_wait_where_every_client_waits_for_its_reply() {
    for (waiting, connections) in BOTH.into_iter().flat_map(|w| [1, 4, 12].map(|n| (w, n))) {
        let (rate, cost, share) =
            against_none(waiting, || Load::closed(connections, 500), SECOND / 2);
        let text = format!("{waiting:?}, {connections}: {rate:.3}, {cost:.3}, {share:.3}");
        assert!(share < 0.08 && rate > 0.97 && cost < 1.02, "{text}");
    }
}

#[test]
fn it_leaves_a_core_alone_that_hardly_sleeps() {
    for (waiting, connections) in BOTH.into_iter().flat_map(|w| [50, 2_000].map(|n| (w, n))) {
        let (rate, cost, share) =
            against_none(waiting, || Load::closed(connections, 100), SECOND / 4);
        let text = format!("{waiting:?}, {connections}: {rate:.4}, {cost:.4}, {share:.3}");
        assert!(share < 0.01 && rate > 0.999 && cost < 1.001, "{text}");
    }
}

#[test]
fn only_throughput_waits_in_an_open_loop() {
    for every in [8_000, 14_000] {
        let mut model = Model::new(Waiting::Balanced, Load::open(every));
        for _ in 0..10 {
            model.run(SECOND / 10, true);
            assert!(!model.rule.on, "one in {every} ns");
        }
        assert!(model.share() < 0.25, "one in {every} ns: in {:.3} of the windows", model.share());
    }
    let (_, cost, share) = against_none(Waiting::Throughput, || Load::open(8_000), SECOND);
    assert!(share > 0.7 && cost < 0.9, "waited in {share:.3} of the windows, {cost:.3} CPU");
    let (_, cost, share) = against_none(Waiting::Throughput, || Load::open(40_000), SECOND / 2);
    assert!(share < 0.05 && cost < 1.01, "waited in {share:.3} of the windows, {cost:.3} CPU");
}

/// A model that waits: of 50 connections to a slower client.
fn that_waits() -> Model {
    let mut model = Model::new(Waiting::Balanced, Load::closed(50, 6_500));
    model.run(SECOND, true);
    assert!(model.rule.on, "it never began");
    model
}

#[test]
fn it_stops_within_a_few_waits_when_the_load_goes() {
    let mut model = that_waits();
    model.load.coming.truncate(1);
    let waits = model.waits;
    model.run(SECOND / 100, true);
    assert!(!model.rule.is_on());
    assert!(model.waits - waits <= u64::from(POOR_WAITS) + 2, "{}", model.waits - waits);
}

#[test]
fn it_stops_when_a_closed_loop_becomes_an_open_one() {
    let mut model = that_waits();
    let start = model.now;
    model.load = Load { coming: [start].into(), ..Load::open(10_000) };
    model.run(SECOND, true);
    assert!(!model.rule.on, "it still waits after a second");
}

#[test]
fn it_does_not_wait_while_other_threads_wake_the_core() {
    let mut model = that_waits();
    model.kick_every = 2_000;
    model.run(SECOND / 10, true);
    let waits = model.waits;
    model.run(SECOND, true);
    assert_eq!(model.waits, waits, "it waited, and a wake from another thread with it");
    model.kick_every = 0;
    model.run(2 * SECOND, true);
    assert!(model.rule.on, "it never began again");
}

#[test]
fn it_tries_ever_less_what_fails() {
    for waiting in BOTH {
        let mut model = Model::new(waiting, Load::closed(8, 500));
        model.run(SECOND, true);
        let waits = model.waits;
        model.run(SECOND, true);
        let windows: u64 = model.rule.windows().iter().sum();
        assert!(windows > 100, "{windows} windows");
        assert!(model.waits - waits < 100, "{} waits in a second", model.waits - waits);
    }
}

#[test]
fn a_pause_is_part_of_no_window() {
    let mut rule = Coalescing::new(Waiting::Throughput).unwrap();
    let mut now = 0;
    for lap in 0..10_000_u64 {
        // Fifteen laps and a pause: no window is ever whole.
        now += if lap % 16 == 15 { 2 * PAUSE_NS } else { 100_000 };
        rule.note(Lap { now, answers: 5, own: 0, waited: false, kicked: false }, || now / 2);
    }
    assert_eq!(rule.windows(), [0, 0]);
}

#[test]
fn what_waits_always_learns_nothing() {
    assert!(Coalescing::new(Waiting::Latency).is_none());
    let mut rule = Coalescing::new(Waiting::Always).unwrap();
    for now in 0..100 {
        let kicked = now % 2 == 0;
        rule.note(Lap { now, answers: 0, own: 0, waited: true, kicked }, || now);
        assert_eq!(rule.aim(), Some(FIRST_AIM));
    }
}

#[test]
fn the_same_load_gives_the_same_decisions() {
    let decisions = || {
        let mut model = Model::new(Waiting::Balanced, Load::closed(50, 6_500));
        model.run(SECOND / 4, true);
        (model.waits, model.served, model.rule.windows())
    };
    assert_eq!(decisions(), decisions());
}
