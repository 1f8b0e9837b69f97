//! When a sleep is to wait for several answers: a rule that tests itself, on against off.
//!
//! A sleep that ends with the first answer costs the most CPU where answers come one by one at short
//! intervals. To wait for more of them, for [`MOST_US`] at most, saves a quarter of that, and where
//! it is misapplied costs as much. No look at a single sleep tells the two apart. So time is cut into
//! windows, and now and then one is spent in the other state:
//!
//! ```text
//!      gap windows              one                one
//!   ┌▶ Steady (as it is) ──▶ Trial (the other) ──▶ Check (as it is) ─┐
//!   └──────────── what they say is added up, until it is clear ──────┘
//! ```
//!
//! To wait wins when answers came as fast and each cost less CPU ([`CHEAPER`]). That is
//! `Throughput`. In an open loop, where requests come whatever the replies do, it makes each of them
//! wait. `Balanced` demands that more answers came than without, and more than by chance: only
//! clients that wait for their replies can send more, and they do when on the whole they wait less.
//!
//! All of it is arithmetic on what it is told: no clock is read and no kernel asked here.

use crate::driver::Waiting;

/// How long a sleep may wait for further answers, in microseconds.
pub(super) const MOST_US: u32 = 50;

/// A window is at least this long, and has at least so many laps.
const WINDOW_NS: u64 = 2_000_000;
const WINDOW_LAPS: u32 = 16;
/// A series that brought nothing is followed by one of windows so many times as long, and so is the
/// first that `Balanced` believes: in short windows, to serve what had piled up looks as if more had
/// come, and what a core does is seen in what comes only after its clients have been through all
/// that they have in hand.
const LONGER_WINDOW: u32 = 4;
const LONGEST_WINDOW: u32 = 16;
/// A lap as long as this was idle, or busy with something else: its window says nothing.
const PAUSE_NS: u64 = 1_000_000;

/// Answers per second with waiting, at least this share of those without, for `Throughput`.
const AS_FAST: f64 = 0.98;
/// The same for `Balanced`.
const FASTER: f64 = 1.03;
/// Below this share nothing more needs to be known.
const FAR_TOO_SLOW: f64 = 0.9;
/// CPU time per answer with waiting, at most this share of that without.
const CHEAPER: f64 = 0.94;
/// A core as busy as this hardly sleeps: there is nothing to gain.
const BUSY: f64 = 0.96;

/// Trials that are added up before the first verdict, and before the last.
const FEWEST_TRIALS: u32 = 8;
const MOST_TRIALS: u32 = 32;
/// By how many standard deviations more answers are more than by chance.
const SURE: f64 = 4.0;

/// Windows between two series of trials, from the first to the second; half of the first between two
/// trials of a series, so that a rule that is still finding out is in the other state for a seventh
/// of the time.
const SHORTEST_GAP: u32 = 8;
const LONGEST_GAP: u32 = 2048;
/// Windows without a trial after a wake from another thread: such a wake does not end the sleep.
const GAP_AFTER_KICK: u32 = 64;

/// So many waits in a row that brought fewer answers than this end the waiting at once.
const POOR_WAITS: u32 = 4;
const POOR: u32 = 4;

/// How many further answers are waited for.
const FIRST_AIM: u32 = 16;
const MOST_AIM: u32 = 256;

/// One lap, as the rule sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lap {
    /// When it ended, in nanoseconds of any clock that does not go back.
    pub(super) now: u64,
    /// Answers that it brought.
    pub(super) answers: u32,
    /// Those of them that needed no waiting: the answers of its own sends.
    pub(super) own: u32,
    /// Whether it waited for several.
    pub(super) waited: bool,
    /// Whether another thread ended its sleep, or meant to.
    pub(super) kicked: bool,
}

/// The rule's state.
#[derive(Debug)]
pub(super) struct Coalescing {
    prefers: Waiting,
    /// Whether a sleep waits outside of trials.
    on: bool,
    phase: Phase,
    /// Windows from one series of trials to the next.
    gap: u32,
    /// How many times the least a window is long.
    scale: u32,
    series: Series,
    aim: u32,
    poor: u32,
    window: Option<Window>,
    last_lap: u64,
    /// Windows that ended, without and with waiting.
    windows: [u64; 2],
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// As it is, for so many windows more.
    Steady { left: u32 },
    /// In the other state, after a window that was measured.
    Trial { before: Measure },
    /// As it is again.
    Check { before: Measure, trial: Measure },
}

/// A window that goes on.
#[derive(Debug, Clone, Copy)]
struct Window {
    start: u64,
    cpu: u64,
    laps: u32,
    answers: u64,
}

/// What windows brought and cost.
#[derive(Debug, Clone, Copy, Default)]
struct Measure {
    wall: f64,
    cpu: f64,
    answers: f64,
}

impl Measure {
    fn and(self, other: Measure) -> Measure {
        Measure {
            wall: self.wall + other.wall,
            cpu: self.cpu + other.cpu,
            answers: self.answers + other.answers,
        }
    }

    fn rate(self) -> f64 {
        self.answers / self.wall
    }

    fn cost(self) -> f64 {
        self.cpu / self.answers.max(1.0)
    }

    fn is_busy(self) -> bool {
        self.cpu > BUSY * self.wall
    }
}

/// What the trials since the last verdict have said.
#[derive(Debug, Clone, Copy, Default)]
struct Series {
    trials: u32,
    with: Measure,
    without: Measure,
}

impl Series {
    fn is_cheaper(&self) -> bool {
        self.with.cost() <= CHEAPER * self.without.cost()
    }

    /// Whether to wait from now on, as far as it is clear.
    fn verdict(&self, prefers: Waiting, on: bool) -> Option<bool> {
        let Series { trials, with, without } = *self;
        let ratio = with.rate() / without.rate();
        // Of a ratio of two counts of independent events.
        let deviation = (1.0 / with.answers.max(1.0) + 1.0 / without.answers.max(1.0)).sqrt();
        if ratio < FAR_TOO_SLOW - deviation || trials > 1 && !self.is_cheaper() {
            return Some(false);
        }
        if trials < FEWEST_TRIALS {
            return None;
        }
        // At first less is enough to go on with: a ratio of few answers says little.
        let is_promising = trials < MOST_TRIALS / 2;
        let gains = ratio >= if !on && is_promising { (1.0 + FASTER) / 2.0 } else { FASTER };
        match prefers {
            Waiting::Balanced if on || !gains => Some(gains),
            Waiting::Balanced if ratio >= FASTER.max(1.0 + SURE * deviation) => Some(true),
            Waiting::Balanced => (trials >= MOST_TRIALS).then_some(false),
            _ => Some(ratio >= AS_FAST - deviation),
        }
    }
}

impl Coalescing {
    /// A rule for this way of waiting, if it needs one.
    pub(super) fn new(prefers: Waiting) -> Option<Self> {
        (prefers != Waiting::Latency).then_some(Coalescing {
            prefers,
            on: prefers == Waiting::Always,
            phase: Phase::Steady { left: SHORTEST_GAP },
            gap: SHORTEST_GAP,
            scale: 1,
            series: Series::default(),
            aim: FIRST_AIM,
            poor: 0,
            window: None,
            last_lap: 0,
            windows: [0; 2],
        })
    }

    /// For how many answers the next sleep waits, beside those of its own sends.
    #[inline]
    pub(super) fn aim(&self) -> Option<u32> {
        self.is_on().then_some(self.aim)
    }

    /// Windows that were spent without waiting for several answers, and with it.
    pub(super) fn windows(&self) -> [u64; 2] {
        self.windows
    }

    fn is_on(&self) -> bool {
        self.on != matches!(self.phase, Phase::Trial { .. })
    }

    /// Takes note of a lap. `cpu` reads the thread's CPU time in nanoseconds; it is called once a
    /// window.
    #[inline]
    pub(super) fn note(&mut self, lap: Lap, cpu: impl FnOnce() -> u64) {
        if self.prefers == Waiting::Always {
            return;
        }
        let paused = lap.now.saturating_sub(self.last_lap) > PAUSE_NS;
        self.last_lap = lap.now;
        if lap.kicked {
            return self.step_back(GAP_AFTER_KICK);
        }
        if lap.waited && !self.learn(lap.answers.saturating_sub(lap.own)) {
            return self.step_back(self.gap);
        }
        if paused {
            return self.begin_anew();
        }
        let Some(window) = &mut self.window else {
            self.window = Some(Window { start: lap.now, cpu: cpu(), laps: 0, answers: 0 });
            return;
        };
        window.laps += 1;
        window.answers += u64::from(lap.answers.saturating_sub(lap.own));
        let (wall, is_over) = (lap.now - window.start, window.laps >= WINDOW_LAPS);
        if is_over && wall >= WINDOW_NS * u64::from(self.scale) {
            let (window, cpu) = (*window, cpu());
            self.window = Some(Window { start: lap.now, cpu, laps: 0, answers: 0 });
            self.windows[usize::from(self.is_on())] += 1;
            let cpu = cpu.saturating_sub(window.cpu) as f64;
            let answers = window.answers as f64;
            self.end_window(Measure { wall: wall as f64, cpu, answers });
        }
    }

    /// Aims higher after a wait that brought what it aimed at, and lower after another. `false` when
    /// too many in a row brought next to nothing.
    fn learn(&mut self, got: u32) -> bool {
        self.aim = match got >= self.aim {
            true => (self.aim + self.aim / 4 + 1).min(MOST_AIM),
            false => self.aim.min(got + got / 2).max(POOR),
        };
        self.poor = if got < POOR { self.poor + 1 } else { 0 };
        self.poor < POOR_WAITS
    }

    /// Ends all waiting for now, and for at least so many windows.
    fn step_back(&mut self, windows: u32) {
        if self.is_on() {
            self.gap = (self.gap * 2).min(LONGEST_GAP);
        }
        let left = match self.phase {
            Phase::Steady { left } => left,
            Phase::Trial { .. } | Phase::Check { .. } => 0,
        };
        (self.on, self.poor, self.aim) = (false, 0, FIRST_AIM);
        (self.series, self.window) = (Series::default(), None);
        self.phase = Phase::Steady { left: left.max(windows).max(self.gap) };
    }

    /// Forgets the window, and the trial that it was to be a part of.
    fn begin_anew(&mut self) {
        self.window = None;
        if !matches!(self.phase, Phase::Steady { .. }) {
            self.phase = Phase::Steady { left: 1 };
        }
    }

    fn end_window(&mut self, measure: Measure) {
        self.poor = 0;
        self.phase = match self.phase {
            Phase::Steady { .. } if self.on && measure.is_busy() => return self.step_back(1),
            Phase::Steady { left: left @ 1.. } => Phase::Steady { left: left - 1 },
            Phase::Steady { .. } if measure.is_busy() => Phase::Steady { left: self.gap },
            Phase::Steady { .. } => Phase::Trial { before: measure },
            Phase::Trial { before } => Phase::Check { before, trial: measure },
            Phase::Check { before, trial } => {
                let left = self.judge(before.and(measure), trial);
                Phase::Steady { left }
            }
        };
    }

    /// Adds a trial to the series, and draws the consequence if it is clear. Returns for how many
    /// windows all stays as it is then.
    fn judge(&mut self, base: Measure, trial: Measure) -> u32 {
        let (with, without) = if self.on { (base, trial) } else { (trial, base) };
        let series = &mut self.series;
        series.trials += 1;
        (series.with, series.without) = (series.with.and(with), series.without.and(without));
        let Some(waits) = series.verdict(self.prefers, self.on) else {
            return SHORTEST_GAP / 2;
        };
        let is_cheaper = self.series.is_cheaper();
        self.series = Series::default();
        if waits && !self.on && self.prefers == Waiting::Balanced && self.scale == 1 {
            self.scale = LONGER_WINDOW;
            return 0;
        }
        if waits {
            self.gap = SHORTEST_GAP;
        } else {
            self.gap = (self.gap * 2).min(LONGEST_GAP);
            let longer = self.scale * LONGER_WINDOW;
            self.scale = if longer > LONGEST_WINDOW || !is_cheaper { 1 } else { longer };
        }
        self.on = waits;
        self.gap
    }
}

#[cfg(test)]
mod tests;
