//! What the invented kernel does to a program: one knob for each, with a probability.

use std::fmt;

use super::random::Random;

/// What can go wrong, or merely otherwise than usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Knob {
    PartialSubmit,
    RefusedEnter,
    SmallQueue,
    EndedMultishot,
    LateCancel,
    Interrupt,
    Shuffle,
    SpuriousWake,
    Scribble,
    Delay,
    LateNotice,
    ShortRead,
    ShortWrite,
    SlowNetwork,
    Partition,
    Reset,
    Vanish,
    Refuse,
    NoBuffers,
    NoMemory,
    NoDescriptors,
    DiskError,
    DiskFull,
    ClockJump,
    Crash,
    LostDatagram,
    ReorderedDatagram,
    DuplicatedDatagram,
    AtOnce,
}

pub(crate) const KNOBS: [(Knob, &str); 29] = [
    (Knob::PartialSubmit, "partial_submits"),
    (Knob::RefusedEnter, "refused_enters"),
    (Knob::SmallQueue, "small_queues"),
    (Knob::EndedMultishot, "ended_multishots"),
    (Knob::LateCancel, "late_cancels"),
    (Knob::Interrupt, "interrupts"),
    (Knob::Shuffle, "shuffle"),
    (Knob::SpuriousWake, "spurious_wakes"),
    (Knob::Scribble, "scribble"),
    (Knob::Delay, "delays"),
    (Knob::LateNotice, "late_notices"),
    (Knob::ShortRead, "short_reads"),
    (Knob::ShortWrite, "short_writes"),
    (Knob::SlowNetwork, "slow_network"),
    (Knob::Partition, "partition"),
    (Knob::Reset, "resets"),
    (Knob::Vanish, "vanishing_peers"),
    (Knob::Refuse, "refused_connects"),
    (Knob::NoBuffers, "no_buffers"),
    (Knob::NoMemory, "no_memory"),
    (Knob::NoDescriptors, "no_descriptors"),
    (Knob::DiskError, "disk_errors"),
    (Knob::DiskFull, "full_disk"),
    (Knob::ClockJump, "clock_jumps"),
    (Knob::Crash, "crashes"),
    (Knob::LostDatagram, "lost_datagrams"),
    (Knob::ReorderedDatagram, "reordered_datagrams"),
    (Knob::DuplicatedDatagram, "duplicated_datagrams"),
    (Knob::AtOnce, "sends_at_once"),
];

const _: () = {
    let mut index = 0;
    while index < KNOBS.len() {
        assert!(KNOBS[index].0 as usize == index);
        index += 1;
    }
};

/// The kernel's liberties and the world's faults, each with its probability from 0 to 1.
///
/// [`default`](Faults::default) takes the **liberties**: what a sound kernel may do at any time and
/// a program never notices, because the runtime deals with it. Faults that a program does notice
/// are added one by one, or all together with [`all`](Faults::all).
///
/// ```
/// use quoit::sim::Faults;
///
/// let faults = Faults::default().partition(0.01).short_reads(0.1).shuffle(0.0);
/// assert!(faults.to_string().contains("partition=0.01"));
/// ```
#[derive(Clone, PartialEq)]
pub struct Faults([f64; KNOBS.len()]);

impl Default for Faults {
    fn default() -> Self {
        Faults::none()
            .partial_submits(0.3)
            .refused_enters(0.03)
            .small_queues(0.5)
            .ended_multishots(0.03)
            .late_cancels(0.5)
            .interrupts(0.02)
            .shuffle(0.5)
            .spurious_wakes(0.05)
            .scribble(0.2)
            .delays(0.1)
            .late_notices(0.5)
            .sends_at_once(0.3)
    }
}

impl Faults {
    /// A kernel that does everything at once, in order, and in full.
    #[must_use]
    pub fn none() -> Self {
        Faults([0.0; KNOBS.len()])
    }

    /// Every liberty and every fault, each often enough to happen in a short run.
    #[must_use]
    pub fn all() -> Self {
        Faults::default()
            .short_reads(0.2)
            .short_writes(0.2)
            .slow_network(0.02)
            .partition(0.005)
            .resets(0.003)
            .vanishing_peers(0.001)
            .refused_connects(0.05)
            .no_buffers(0.02)
            .no_memory(0.01)
            .no_descriptors(0.02)
            .disk_errors(0.01)
            .full_disk(0.01)
            .clock_jumps(0.0005)
            .crashes(0.0005)
            .lost_datagrams(0.02)
            .reordered_datagrams(0.05)
            .duplicated_datagrams(0.02)
    }

    fn with(mut self, knob: Knob, probability: f64) -> Self {
        let name = KNOBS[knob as usize].1;
        let is_one = (0.0..=1.0).contains(&probability);
        assert!(is_one, "{name}({probability}): a probability lies between 0 and 1");
        self.0[knob as usize] = probability;
        self
    }

    /// Liberty, per enter: only some of the queued requests are taken, perhaps none.
    #[must_use]
    pub fn partial_submits(self, probability: f64) -> Self {
        self.with(Knob::PartialSubmit, probability)
    }

    /// Liberty, per enter: it is refused for the moment (`EINTR`, `EAGAIN`, `EBUSY`).
    #[must_use]
    pub fn refused_enters(self, probability: f64) -> Self {
        self.with(Knob::RefusedEnter, probability)
    }

    /// Liberty, per core: its queue of answers has 2 to 16 entries, and overflows.
    #[must_use]
    pub fn small_queues(self, probability: f64) -> Self {
        self.with(Knob::SmallQueue, probability)
    }

    /// Liberty, per answer: a request of many answers ends, without an error or as if somebody had
    /// cancelled it.
    #[must_use]
    pub fn ended_multishots(self, probability: f64) -> Self {
        self.with(Knob::EndedMultishot, probability)
    }

    /// Liberty, per cancel: it comes late, and its request may have been answered in full by then; or it
    /// does not find its request, though that goes on.
    #[must_use]
    pub fn late_cancels(self, probability: f64) -> Self {
        self.with(Knob::LateCancel, probability)
    }

    /// Liberty, per request: it is answered `EINTR`, or `ECANCELED` though nobody has cancelled it, and
    /// asked once more.
    #[must_use]
    pub fn interrupts(self, probability: f64) -> Self {
        self.with(Knob::Interrupt, probability)
    }

    /// Liberty, per turn of a core: its ready tasks run in another order than they became ready.
    #[must_use]
    pub fn shuffle(self, probability: f64) -> Self {
        self.with(Knob::Shuffle, probability)
    }

    /// Liberty, per turn of a core: one of its tasks is woken for nothing.
    #[must_use]
    pub fn spurious_wakes(self, probability: f64) -> Self {
        self.with(Knob::SpuriousWake, probability)
    }

    /// Liberty, per request: memory that is to be filled holds rubbish until it is.
    #[must_use]
    pub fn scribble(self, probability: f64) -> Self {
        self.with(Knob::Scribble, probability)
    }

    /// Liberty, per request: it is answered up to 5 ms late.
    #[must_use]
    pub fn delays(self, probability: f64) -> Self {
        self.with(Knob::Delay, probability)
    }

    /// Liberty, per send without a copy: its memory is still read for up to 50 ms after the answer.
    #[must_use]
    pub fn late_notices(self, probability: f64) -> Self {
        self.with(Knob::LateNotice, probability)
    }

    /// Liberty, per send: it is made, and answered, before it is handed over, if there is room.
    #[must_use]
    pub fn sends_at_once(self, probability: f64) -> Self {
        self.with(Knob::AtOnce, probability)
    }

    /// Fault, per receive and read: it brings fewer bytes than there are.
    #[must_use]
    pub fn short_reads(self, probability: f64) -> Self {
        self.with(Knob::ShortRead, probability)
    }

    /// Fault, per send and write: it takes fewer bytes than there is room for.
    #[must_use]
    pub fn short_writes(self, probability: f64) -> Self {
        self.with(Knob::ShortWrite, probability)
    }

    /// Fault, per segment between two hosts: it travels up to 100 times longer.
    #[must_use]
    pub fn slow_network(self, probability: f64) -> Self {
        self.with(Knob::SlowNetwork, probability)
    }

    /// Fault, per segment between two hosts: they do not reach each other for 10 ms to 5 s.
    #[must_use]
    pub fn partition(self, probability: f64) -> Self {
        self.with(Knob::Partition, probability)
    }

    /// Fault, per segment between two hosts: the connection is reset at both ends.
    #[must_use]
    pub fn resets(self, probability: f64) -> Self {
        self.with(Knob::Reset, probability)
    }

    /// Fault, per segment between two hosts: the receiving end forgets the connection, and says so
    /// (`ECONNRESET`) only when it is written to.
    #[must_use]
    pub fn vanishing_peers(self, probability: f64) -> Self {
        self.with(Knob::Vanish, probability)
    }

    /// Fault, per connect: it is refused, though somebody listens.
    #[must_use]
    pub fn refused_connects(self, probability: f64) -> Self {
        self.with(Knob::Refuse, probability)
    }

    /// Fault, per receive from the pool: it finds no buffer (`ENOBUFS`).
    #[must_use]
    pub fn no_buffers(self, probability: f64) -> Self {
        self.with(Knob::NoBuffers, probability)
    }

    /// Fault, per accept and connect: there is no memory (`ENOMEM`).
    #[must_use]
    pub fn no_memory(self, probability: f64) -> Self {
        self.with(Knob::NoMemory, probability)
    }

    /// Fault, per accept, socket and open: there is no free descriptor (`EMFILE`).
    #[must_use]
    pub fn no_descriptors(self, probability: f64) -> Self {
        self.with(Knob::NoDescriptors, probability)
    }

    /// Fault, per file operation: `EIO`.
    #[must_use]
    pub fn disk_errors(self, probability: f64) -> Self {
        self.with(Knob::DiskError, probability)
    }

    /// Fault, per write to a file: `ENOSPC`.
    #[must_use]
    pub fn full_disk(self, probability: f64) -> Self {
        self.with(Knob::DiskFull, probability)
    }

    /// Fault, per turn of a core: the clock jumps by 1 ms to 10 years.
    #[must_use]
    pub fn clock_jumps(self, probability: f64) -> Self {
        self.with(Knob::ClockJump, probability)
    }

    /// Fault, per segment between two hosts: the receiving one, unless it is a client, loses its
    /// power, and starts anew after 10 ms to 5 s with what its disk has kept.
    #[must_use]
    pub fn crashes(self, probability: f64) -> Self {
        self.with(Knob::Crash, probability)
    }

    /// Fault, per datagram between two hosts: it is lost.
    #[must_use]
    pub fn lost_datagrams(self, probability: f64) -> Self {
        self.with(Knob::LostDatagram, probability)
    }

    /// Fault, per datagram between two hosts: it comes 1 to 50 ms late, behind those that were sent
    /// after it.
    #[must_use]
    pub fn reordered_datagrams(self, probability: f64) -> Self {
        self.with(Knob::ReorderedDatagram, probability)
    }

    /// Fault, per datagram between two hosts: it comes twice.
    #[must_use]
    pub fn duplicated_datagrams(self, probability: f64) -> Self {
        self.with(Knob::DuplicatedDatagram, probability)
    }

    /// The names of the knobs that are not 0.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        KNOBS.iter().filter(|(knob, _)| self.0[*knob as usize] > 0.0).map(|&(_, name)| name)
    }

    /// The same without one knob.
    pub(crate) fn without(&self, name: &str) -> Faults {
        self.retained(|knob| knob != name)
    }

    /// The same without the knobs for which `keep` is false.
    pub(crate) fn retained(&self, keep: impl Fn(&str) -> bool) -> Faults {
        let mut faults = self.clone();
        for (knob, name) in KNOBS {
            if !keep(name) {
                faults.0[knob as usize] = 0.0;
            }
        }
        faults
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (knob, name) in KNOBS {
            let probability = self.0[knob as usize];
            if probability > 0.0 {
                let gap = if std::mem::take(&mut first) { "" } else { " " };
                write!(f, "{gap}{name}={probability}")?;
            }
        }
        if first { f.write_str("none") } else { Ok(()) }
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faults({self})")
    }
}

/// Decides when something strikes. Each knob draws from a stream of its own, so that switching one
/// off changes as little as possible of the rest.
#[derive(Debug)]
pub(crate) struct Chaos {
    faults: Faults,
    streams: [Random; KNOBS.len()],
    active: bool,
    struck: [u64; KNOBS.len()],
}

impl Chaos {
    pub(crate) fn new(faults: Faults, random: &Random) -> Self {
        let streams = std::array::from_fn(|knob| random.fork(knob as u64));
        Chaos { faults, streams, active: true, struck: [0; KNOBS.len()] }
    }

    pub(crate) fn strikes(&mut self, knob: Knob) -> bool {
        let (index, probability) = (knob as usize, self.faults.0[knob as usize]);
        let strikes = self.active && probability > 0.0 && self.streams[index].chance(probability);
        self.struck[index] += u64::from(strikes);
        strikes
    }

    /// The stream of a knob that has struck, for how it does.
    pub(crate) fn how(&mut self, knob: Knob) -> &mut Random {
        &mut self.streams[knob as usize]
    }

    /// From now on nothing strikes any more.
    pub(crate) fn stop(&mut self) {
        self.active = false;
    }

    /// How often each knob has struck.
    pub(crate) fn struck(&self) -> impl Iterator<Item = (&'static str, u64)> {
        KNOBS.iter().map(|&(knob, name)| (name, self.struck[knob as usize]))
    }
}
