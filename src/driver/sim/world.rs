//! The world that all simulated cores share: its clock, its events, its hosts, and its books.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::core::{Core, Request};
use super::datagrams::Datagram;
use super::disk::Disk;
use super::faults::{Chaos, Faults, Knob};
use super::net::Socket;
use super::opcodes;
use super::random::{Random, mix};
use super::signals::Told;
use crate::driver::{Cqe, Fields, Wait};

/// The clock starts a while after zero, and jumps no further than this.
const START: u64 = 1_000_000_000;
const END_OF_JUMPS: u64 = 100 * 365 * 86_400 * 1_000_000_000;

/// What happens at a time of its own.
#[derive(Debug, Clone, Copy)]
pub(super) enum Event {
    /// A request is looked at.
    Attempt { core: usize, request: u64 },
    /// The first segment on the wire towards a socket may be there.
    Arrive { socket: u64 },
    /// A connect's first segment arrives.
    Syn { from: u64, to: SocketAddr, tries: u32 },
    /// A segment found nobody; the sender learns of it.
    Lost { from: u64, errno: i32 },
    /// A datagram arrives at its host.
    Datagram { number: u64 },
    /// The power of a host fails.
    Crash { host: usize, down_ns: u64 },
    /// A host may start again.
    Restart { host: usize },
    /// The process of a host is told something.
    Word { host: usize, word: Told },
    /// Two hosts do not reach each other for a time.
    Partition { pair: (usize, usize), lasting_ns: u64 },
}

/// A machine with one process.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) address: IpAddr,
    /// What each descriptor from [`SIMULATED`](crate::driver::retired::SIMULATED) on stands for.
    pub(super) fds: Vec<Option<u64>>,
    pub(super) up: bool,
    /// Whether it may lose its power: clients may not.
    pub(super) crashes: bool,
    pub(super) disk: Disk,
    pub(super) next_port: u16,
    /// The names of Unix sockets, with the last socket that was bound to each. A path stays when
    /// its socket is closed.
    pub(super) names: BTreeMap<Vec<u8>, u64>,
}

/// An open file.
#[derive(Debug, Clone, Copy)]
pub(super) struct OpenFile {
    pub(super) file: u64,
    pub(super) flags: i32,
}

/// A hash over everything that happens: two runs are the same if it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trace(u64);

impl Trace {
    pub(super) fn value(self) -> u64 {
        self.0
    }

    pub(super) fn note(&mut self, what: u64, one: u64, two: u64) {
        self.0 = mix(self.0.wrapping_add(what << 56) ^ mix(one.wrapping_add(mix(two))));
    }
}

/// Everything that is simulated.
pub(crate) struct World {
    pub(super) now: u64,
    /// Turns take no time.
    paused: bool,
    pub(super) random: Random,
    pub(crate) chaos: Chaos,
    pub(super) events: BTreeMap<(u64, u64), Event>,
    pub(super) serial: u64,
    pub(super) cores: Vec<Core>,
    pub(super) hosts: Vec<Host>,
    pub(super) sockets: BTreeMap<u64, Socket>,
    pub(super) files: BTreeMap<u64, OpenFile>,
    /// Datagrams on their way: who sends each, to which host.
    pub(super) datagrams: BTreeMap<u64, (u64, usize, Datagram)>,
    /// When the last of them arrives from one host at another.
    pub(super) last_datagrams: BTreeMap<(usize, usize), u64>,
    /// Until when two hosts do not reach each other.
    pub(super) partitions: BTreeMap<(usize, usize), u64>,
    pub(super) trace: Trace,
    pub(super) violations: Vec<String>,
    pub(super) crashed: Vec<usize>,
    pub(super) restarted: Vec<usize>,
    pub(super) words: Vec<(usize, Told)>,
}

impl World {
    pub(crate) fn new(seed: u64, faults: Faults) -> Self {
        let random = Random::new(seed);
        World {
            now: START,
            paused: false,
            chaos: Chaos::new(faults, &random.fork(1)),
            random: random.fork(2),
            events: BTreeMap::new(),
            serial: 0,
            cores: Vec::new(),
            hosts: Vec::new(),
            sockets: BTreeMap::new(),
            files: BTreeMap::new(),
            datagrams: BTreeMap::new(),
            last_datagrams: BTreeMap::new(),
            partitions: BTreeMap::new(),
            trace: Trace(seed),
            violations: Vec::new(),
            crashed: Vec::new(),
            restarted: Vec::new(),
            words: Vec::new(),
        }
    }

    /// Adds a machine: the first is 10.0.0.1.
    pub(crate) fn add_host(&mut self, name: &str, crashes: bool) -> usize {
        let number = u8::try_from(self.hosts.len() + 1).expect("at most 255 hosts");
        self.hosts.push(Host {
            name: name.to_owned(),
            address: Ipv4Addr::new(10, 0, 0, number).into(),
            fds: Vec::new(),
            up: true,
            crashes,
            disk: Disk::default(),
            next_port: 32_768,
            names: BTreeMap::new(),
        });
        self.hosts.len() - 1
    }

    /// Adds a core to a machine.
    pub(crate) fn add_core(&mut self, host: usize) -> usize {
        let small = self.chaos.strikes(Knob::SmallQueue);
        let capacity = if small { self.chaos.how(Knob::SmallQueue).between(2, 16) } else { 8192 };
        self.cores.push(Core::new(host, capacity as usize));
        self.cores.len() - 1
    }

    pub(crate) fn resolve(&self, name: &str) -> Option<IpAddr> {
        self.hosts.iter().find(|host| host.name == name).map(|host| host.address)
    }

    pub(super) fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    pub(super) fn violation(&mut self, text: String) {
        self.violations.push(text);
    }

    // ---- Time ----

    pub(crate) fn now(&self) -> u64 {
        self.now
    }

    pub(super) fn at(&mut self, time: u64, event: Event) {
        let serial = self.next_serial();
        self.events.insert((time.max(self.now), serial), event);
    }

    /// Lets a moment pass: a turn of a core takes time, or a program that spins would never end.
    fn spend(&mut self) {
        if !self.paused {
            self.now += self.random.between(200, 2_000);
        }
        self.run_due();
    }

    /// From now on turns take no time: for tests, which would rather know it exactly.
    pub(super) fn pause(&mut self) {
        self.paused = true;
    }

    /// Does what is due.
    pub(super) fn run_due(&mut self) {
        while let Some(entry) = self.events.first_entry() {
            let (time, serial) = *entry.key();
            if time > self.now {
                return;
            }
            let event = entry.remove();
            self.trace.note(1, time, serial);
            self.run(event);
        }
    }

    fn run(&mut self, event: Event) {
        match event {
            Event::Attempt { core, request } => self.attempt(core, request),
            Event::Arrive { socket } => self.arrive(socket),
            Event::Syn { from, to, tries } => self.syn(from, to, tries),
            Event::Lost { from, errno } => self.lost(from, errno),
            Event::Datagram { number } => self.take_in_datagram(number),
            Event::Crash { host, down_ns } => self.crash(host, down_ns),
            Event::Restart { host } => self.restarted.push(host),
            Event::Word { host, word } => self.words.push((host, word)),
            Event::Partition { pair: (one, two), lasting_ns } => {
                self.partition(one, two, lasting_ns);
            }
        }
    }

    /// Goes to the time of the next event, and does what is due then. False: there is none.
    pub(crate) fn advance(&mut self) -> bool {
        let Some((&(time, _), _)) = self.events.first_key_value() else { return false };
        self.now = self.now.max(time);
        self.run_due();
        true
    }

    /// Goes to `time`, unless that has passed, and does what is due on the way, each at its own time.
    pub(super) fn advance_to(&mut self, time: u64) {
        while self.events.first_key_value().is_some_and(|(&(next, _), _)| next <= time) {
            self.advance();
        }
        self.now = self.now.max(time);
        self.trace.note(6, self.now, 0);
    }

    /// Jumps ahead, as a machine does that was suspended.
    pub(crate) fn maybe_jump(&mut self) {
        if self.chaos.strikes(Knob::ClockJump) {
            let jump =
                self.chaos.how(Knob::ClockJump).magnitude(1_000_000, 10 * 365 * 86_400_000_000_000);
            self.now = self.now.max((self.now + jump).min(END_OF_JUMPS));
            self.trace.note(2, self.now, jump);
            self.run_due();
        }
    }

    /// From now on nothing goes wrong any more, and what was apart is together.
    pub(crate) fn calm(&mut self) {
        self.chaos.stop();
        self.partitions.clear();
    }

    // ---- The boundary ----

    /// The number of a request that is about to be pushed; of a cancel, that of its target.
    pub(super) fn number_of(&self, core: usize, fields: &Fields) -> u64 {
        let core = &self.cores[core];
        if fields.opcode != opcodes::CANCEL {
            return core.ledger.pushed + 1;
        }
        let mut there = core.queue.iter().chain(core.pending.values());
        let target = there.find(|it| it.fields.user_data == fields.addr && it.is_operation());
        target.map_or(0, |target| target.number)
    }

    pub(super) fn push(&mut self, core: usize, request: Request) {
        let fields = &request.fields;
        let fd = u64::from(fields.fd.cast_unsigned());
        self.trace.note(3, u64::from(fields.opcode) << 32 | fd, fields.user_data);
        let core = &mut self.cores[core];
        core.ledger.pushed += 1;
        core.queue.push_back(request);
    }

    pub(super) fn enter(&mut self, core: usize, wait: Wait, answers: &mut Vec<Cqe>) -> Sleep {
        self.cores[core].counters.enters += 1;
        self.spend();
        if self.chaos.strikes(Knob::RefusedEnter) {
            let counters = &mut self.cores[core].counters;
            match self.chaos.how(Knob::RefusedEnter).below(3) {
                0 => counters.interrupted += 1,
                _ => counters.refused += 1,
            }
            self.take_some(core);
            return Sleep::Over;
        }
        match self.chaos.strikes(Knob::PartialSubmit) {
            true => self.take_some(core),
            false => self.take(core, usize::MAX),
        }
        if self.cores[core].bell.silence() {
            self.cores[core].counters.kicks += 1;
            self.cores[core].reap(answers);
            return Sleep::Over;
        }
        loop {
            self.cores[core].reap(answers);
            let next = self.events.first_key_value().map(|(&(time, _), _)| time);
            match wait {
                _ if !answers.is_empty() => return Sleep::Over,
                Wait::Poll => return Sleep::Over,
                _ if !self.cores[core].queue.is_empty() => self.take(core, usize::MAX),
                Wait::Until(time) if next.is_none_or(|next| next > time) => {
                    self.now = self.now.max(time);
                    return Sleep::Over;
                }
                Wait::Block if next.is_none() => return Sleep::ForReal,
                Wait::Block | Wait::Until(_) => drop(self.advance()),
            }
        }
    }

    /// Takes a random prefix of what is queued.
    fn take_some(&mut self, core: usize) {
        let queued = self.cores[core].queue.len() as u64;
        let count = self.random.below(queued + 1);
        self.take(core, count as usize);
    }

    /// Takes requests: from now on they happen, each when its time has come.
    fn take(&mut self, core: usize, count: usize) {
        for _ in 0..count.min(self.cores[core].queue.len()) {
            let request = self.cores[core].queue.pop_front().expect("it was counted");
            self.cores[core].counters.sqes += 1;
            let serial = self.next_serial();
            self.cores[core].pending.insert(serial, request);
            if let Some(errno) = self.refusal(core, &request) {
                self.answer(core, serial, -errno, 0);
                continue;
            }
            self.begin(core, serial, request);
        }
    }

    /// Why a request cannot even begin.
    pub(super) fn refusal(&mut self, core: usize, request: &Request) -> Option<i32> {
        let fields = &request.fields;
        if self.cores[core].dead {
            return Some(libc::ECANCELED);
        }
        if !opcodes::is_modelled(fields) {
            return Some(libc::EOPNOTSUPP);
        }
        if !opcodes::names_a_descriptor(fields.opcode) {
            return None;
        }
        let now = self.object(core, fields.fd);
        if now != request.object {
            self.violation(format!(
                "I2: a {} of descriptor {} reached another file than it was pushed for",
                opcodes::name(fields.opcode).unwrap_or("request"),
                fields.fd
            ));
        }
        now.is_none().then_some(libc::EBADF)
    }

    /// Has a request looked at, at some later time.
    pub(super) fn schedule(&mut self, core: usize, serial: u64, time: u64) {
        let Some(request) = self.cores[core].pending.get_mut(&serial) else { return };
        if request.attempt.is_some_and(|attempt| attempt <= time) {
            return;
        }
        request.attempt = Some(time);
        self.at(time, Event::Attempt { core, request: serial });
    }

    /// Gives a request its last answer.
    pub(super) fn answer(&mut self, core: usize, serial: u64, result: i32, flags: u32) {
        let request = self.cores[core].pending.remove(&serial).expect("one last answer each");
        let user_data = request.fields.user_data;
        self.trace.note(4, user_data, u64::from(result.cast_unsigned()) << 32 | u64::from(flags));
        self.cores[core].post(Cqe { user_data, result, flags });
    }

    /// Gives a request one answer of many; without room for more, or for no reason, it is the last.
    pub(super) fn answer_more(
        &mut self,
        core: usize,
        serial: u64,
        result: i32,
        flags: u32,
    ) -> bool {
        if !self.cores[core].has_room() || self.chaos.strikes(Knob::EndedMultishot) {
            self.answer(core, serial, result, flags);
            return false;
        }
        let user_data = self.cores[core].pending[&serial].fields.user_data;
        let flags = flags | Cqe::MORE;
        self.trace.note(5, user_data, u64::from(result.cast_unsigned()) << 32 | u64::from(flags));
        self.cores[core].post(Cqe { user_data, result, flags });
        true
    }
}

/// How an enter ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sleep {
    Over,
    /// Nothing will ever happen in this world: only another thread can end this sleep.
    ForReal,
}
