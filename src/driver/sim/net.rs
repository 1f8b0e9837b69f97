//! The network: sockets, and the wires between them.
//!
//! A connection is two sockets. Each has a wire towards it, on which segments travel in order, and
//! an inbox of bytes that have arrived. A partition holds segments up; nothing on a live connection
//! is ever lost or reordered, which the offsets and hashes that travel along show.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::datagrams::Mailbox;
use super::faults::Knob;
use super::opcodes::{ACCEPT, is_multishot};
use super::random::mix;
use super::unix::{Message, Unix};
use super::world::{Event, World};

pub(super) const MICROSECOND: u64 = 1_000;
pub(super) const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

/// A connect is tried again after 1, 2, 4 .. seconds, this often.
const SYN_TRIES: u32 = 7;
/// How long a sender believes in a host that is down.
const GIVE_UP_AFTER: u64 = 30 * SECOND;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Fresh,
    Listening {
        backlog: usize,
    },
    Connecting,
    Connected,
    /// Reset, or refused.
    Dead,
}

/// What travels.
#[derive(Debug)]
pub(super) enum Segment {
    Connected,
    Bytes { from: u64, bytes: Vec<u8> },
    Message(Message),
    End { sent: Flow },
    Reset { errno: i32 },
}

/// How many bytes went one way, and a hash over them in order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Flow {
    count: u64,
    hash: u64,
}

impl Flow {
    fn take(&mut self, bytes: &[u8]) {
        self.count += bytes.len() as u64;
        // One multiplication a byte: the hash does not depend on how the bytes were cut.
        let step = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        self.hash = bytes.iter().fold(self.hash, step);
    }
}

/// A socket.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) host: usize,
    /// What it has beside if it is a Unix socket.
    pub(super) unix: Option<Unix>,
    pub(super) state: State,
    pub(super) local: Option<SocketAddr>,
    pub(super) peer: Option<SocketAddr>,
    pub(super) options: BTreeMap<(i32, i32), i32>,
    pub(super) reset_on_close: bool,
    /// No descriptor stands for it any more.
    closed: bool,
    /// The socket at the other end.
    pub(super) other: Option<u64>,
    /// What travels towards it, with the time of arrival.
    wire: VecDeque<(u64, Segment)>,
    on_the_wire: usize,
    /// What was sent to an end that is no more.
    into_the_void: usize,
    /// How many bytes may be on the way and unread.
    pub(super) room: usize,
    inbox: VecDeque<u8>,
    /// The other end has sent all, and what that was.
    end: Option<Flow>,
    pub(super) error: Option<i32>,
    shut_read: bool,
    shut_write: bool,
    sent: Flow,
    received: Flow,
    /// Connections that wait to be accepted.
    pub(super) waiting: VecDeque<u64>,
    /// Requests that wait for a change here.
    blocked: Vec<(usize, u64)>,
    /// What has arrived at a socket of datagrams, which no other socket has.
    pub(super) mailbox: Option<Mailbox>,
}

impl Socket {
    pub(super) fn new(host: usize, room: usize) -> Self {
        Socket {
            host,
            unix: None,
            state: State::Fresh,
            local: None,
            peer: None,
            options: BTreeMap::new(),
            reset_on_close: false,
            closed: false,
            other: None,
            wire: VecDeque::new(),
            on_the_wire: 0,
            into_the_void: 0,
            room,
            inbox: VecDeque::new(),
            end: None,
            error: None,
            shut_read: false,
            shut_write: false,
            sent: Flow::default(),
            received: Flow::default(),
            waiting: VecDeque::new(),
            blocked: Vec::new(),
            mailbox: None,
        }
    }

    pub(super) fn option(&self, level: i32, name: i32) -> i32 {
        self.options.get(&(level, name)).copied().unwrap_or(0)
    }

    /// Whether a receive would have to wait, if it is connected.
    pub(super) fn has_nothing_to_read(&self) -> bool {
        let is_open = self.end.is_none() && self.error.is_none() && !self.shut_read;
        self.inbox.is_empty() && is_open
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(super) fn is_shut_for_reading(&self) -> bool {
        self.shut_read
    }

    pub(super) fn is_shut_for_writing(&self) -> bool {
        self.shut_write
    }

    /// How many segments are on their way to it.
    pub(super) fn segments(&self) -> usize {
        self.wire.len()
    }

    pub(super) fn is_listening(&self) -> bool {
        matches!(self.state, State::Listening { .. })
    }
}

/// What a transfer comes to: a count, an errno, or nothing yet.
pub(super) enum Moved {
    Count(usize),
    Failed(i32),
    NotYet,
}

impl World {
    pub(super) fn new_socket(&mut self, host: usize, of_datagrams: bool) -> u64 {
        let id = self.next_serial();
        let room = self.random.magnitude(512, 256 * 1024) as usize;
        let socket = Socket::new(host, room);
        self.sockets.insert(id, if of_datagrams { socket.of_datagrams() } else { socket });
        id
    }

    pub(super) fn socket(&mut self, id: u64) -> &mut Socket {
        self.sockets.get_mut(&id).expect("a socket that is referred to")
    }

    /// Has `request` looked at when something changes at the socket.
    pub(super) fn block(&mut self, id: u64, request: (usize, u64)) {
        // A multishot accept never leaves its place at the head of the line.
        let keeps_its_place = self.is_accept(request)
            && is_multishot(&self.cores[request.0].pending[&request.1].fields);
        let blocked = &mut self.socket(id).blocked;
        if !blocked.contains(&request) {
            let place = if keeps_its_place { 0 } else { blocked.len() };
            blocked.insert(place, request);
        }
    }

    /// Something changed at the socket. Of that no accept hears: see [`connected`](Self::connected).
    pub(super) fn touch(&mut self, id: u64) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        let listens = socket.is_listening();
        let (stay, go) = std::mem::take(&mut socket.blocked)
            .into_iter()
            .partition(|&waiter| listens && self.is_accept(waiter));
        self.socket(id).blocked = stay;
        self.look_at(go);
    }

    /// A connection waits to be accepted. As on the real kernel, one of the accepts hears of it, the
    /// first in line; if it is cancelled before it has come to look, nobody has heard.
    pub(super) fn connected(&mut self, listener: u64, connection: u64) {
        self.socket(listener).waiting.push_back(connection);
        self.touch(listener);
        let blocked = &mut self.socket(listener).blocked;
        if !blocked.is_empty() {
            let first = blocked.remove(0);
            self.look_at(vec![first]);
        }
    }

    fn is_accept(&self, (core, request): (usize, u64)) -> bool {
        let request = self.cores[core].pending.get(&request);
        request.is_some_and(|request| request.fields.opcode == ACCEPT)
    }

    fn look_at(&mut self, requests: Vec<(usize, u64)>) {
        for (core, request) in requests {
            let time = self.now + self.random.between(50, 5_000);
            self.schedule(core, request, time);
        }
    }

    // ---- Who reaches whom ----

    pub(super) fn reachable_at(&self, one: usize, two: usize) -> u64 {
        self.partitions.get(&(one.min(two), one.max(two))).copied().unwrap_or(0)
    }

    pub(super) fn partition(&mut self, one: usize, two: usize, lasting_ns: u64) {
        let until = self.now.saturating_add(lasting_ns);
        self.partitions.insert((one.min(two), one.max(two)), until);
    }

    /// How long a segment of `len` bytes travels.
    pub(super) fn latency(&mut self, one: usize, two: usize, len: usize) -> u64 {
        let bandwidth = len as u64 * 8;
        if one == two {
            return self.random.between(5, 50) * MICROSECOND + bandwidth;
        }
        // Each pair of hosts has its own distance, and each segment some luck.
        let distance = 100 + mix((one.min(two) as u64) << 32 | one.max(two) as u64) % 900;
        let mut latency = (distance + self.random.below(distance / 2)) * MICROSECOND;
        if self.chaos.strikes(Knob::SlowNetwork) {
            latency *= self.chaos.how(Knob::SlowNetwork).between(2, 100);
        }
        if self.chaos.strikes(Knob::Partition) {
            let lasting = self.chaos.how(Knob::Partition).magnitude(10 * MILLISECOND, 5 * SECOND);
            self.partition(one, two, lasting);
        }
        latency + bandwidth
    }

    /// Sends a segment to a socket, behind all that travels there.
    pub(super) fn send_segment(&mut self, from_host: usize, to: u64, segment: Segment) {
        let to_host = self.socket(to).host;
        let len = if let Segment::Bytes { bytes, .. } = &segment { bytes.len() } else { 0 };
        let latency = self.latency(from_host, to_host, len);
        let now = self.now;
        let socket = self.socket(to);
        let last = socket.wire.back().map_or(0, |(time, _)| *time);
        let time = (now + latency).max(last);
        socket.on_the_wire += len;
        socket.wire.push_back((time, segment));
        self.at(time, Event::Arrive { socket: to });
    }

    /// Takes in what has arrived at a socket.
    pub(super) fn arrive(&mut self, id: u64) {
        let now = self.now;
        while let Some(socket) = self.sockets.get_mut(&id) {
            let Some((time, _)) = socket.wire.front() else { return };
            if *time > now {
                return;
            }
            let (host, from) = (socket.host, socket.peer.map(|peer| peer.ip()));
            let from = from.and_then(|ip| self.host_of(host, ip)).unwrap_or(host);
            let healed = self.reachable_at(host, from);
            if healed > now && host != from {
                let later = healed + self.random.below(200 * MILLISECOND);
                self.socket(id).wire.front_mut().expect("it was there").0 = later;
                return self.at(later, Event::Arrive { socket: id });
            }
            let (_, segment) = self.socket(id).wire.pop_front().expect("it was there");
            if host != from && self.strike_connection(id) {
                return;
            }
            self.take_in(id, segment);
        }
    }

    /// Lets the faults of a connection strike at one end of it.
    fn strike_connection(&mut self, id: u64) -> bool {
        let host = self.socket(id).host;
        if self.hosts[host].crashes && self.chaos.strikes(Knob::Crash) {
            let down = self.chaos.how(Knob::Crash).magnitude(10 * MILLISECOND, 5 * SECOND);
            self.crash(host, down);
            return true;
        }
        if self.chaos.strikes(Knob::Reset) {
            let other = self.other_of(id);
            if let Some(other) = other {
                self.send_segment(host, other, Segment::Reset { errno: libc::ECONNRESET });
            }
            self.reset(id, libc::ECONNRESET);
            return true;
        }
        if self.socket(id).state == State::Connected && self.chaos.strikes(Knob::Vanish) {
            let other = self.socket(id).other.take();
            if let Some(other) = other.and_then(|other| self.sockets.get_mut(&other)) {
                other.other = None;
            }
            self.reset(id, libc::ECONNRESET);
            return true;
        }
        false
    }

    fn take_in(&mut self, id: u64, segment: Segment) {
        let socket = self.socket(id);
        if let Segment::Bytes { bytes, .. } = &segment {
            socket.on_the_wire -= bytes.len();
        }
        match segment {
            // It was on its way when the connection was reset here; the sender will hear of that.
            _ if socket.state == State::Dead => return,
            // Nobody reads this any more: the sender is told.
            Segment::Bytes { .. } if socket.closed => {
                let (host, other) = (socket.host, socket.other);
                self.discard(id);
                if let Some(other) = other.filter(|other| self.sockets.contains_key(other)) {
                    self.send_segment(host, other, Segment::Reset { errno: libc::ECONNRESET });
                }
                return;
            }
            Segment::Connected if socket.state == State::Connecting => {
                socket.state = State::Connected;
            }
            Segment::Connected => {}
            Segment::Message(_) if socket.closed => return,
            Segment::Message(message) => match &mut socket.unix {
                Some(unix) => unix.push(message),
                None => self.violation("a message reached a socket of another family".into()),
            },
            Segment::Bytes { from, bytes } => {
                let have = socket.received.count + socket.inbox.len() as u64;
                socket.inbox.extend(&bytes);
                if from != have {
                    self.violation(format!("a stream has {have} bytes, and gets byte {from}"));
                }
            }
            Segment::End { sent } => socket.end = Some(sent),
            Segment::Reset { errno } => self.reset(id, errno),
        }
        self.touch(id);
    }

    /// The connection is gone at this end. What has arrived can still be read.
    fn reset(&mut self, id: u64, errno: i32) {
        let socket = self.socket(id);
        if socket.state != State::Dead {
            socket.state = State::Dead;
            socket.error = Some(errno);
        }
        socket.wire.clear();
        socket.on_the_wire = 0;
        if socket.closed {
            self.discard(id);
        } else {
            self.touch(id);
        }
    }

    /// What was sent to nobody comes back as an error; a socket of datagrams stays as good as it was.
    pub(super) fn lost(&mut self, from: u64, errno: i32) {
        match self.sockets.get_mut(&from) {
            Some(socket) if socket.mailbox.is_some() => {
                socket.error = Some(errno);
                self.touch(from);
            }
            Some(_) => self.reset(from, errno),
            None => {}
        }
    }

    // ---- Connecting ----

    /// The host that an address means when it is used on `here`.
    pub(super) fn host_of(&self, here: usize, ip: IpAddr) -> Option<usize> {
        if ip.is_loopback() || ip.is_unspecified() {
            return Some(here);
        }
        self.hosts.iter().position(|host| host.address == ip)
    }

    pub(super) fn connect(&mut self, id: u64, to: SocketAddr) -> Moved {
        let socket = self.socket(id);
        match socket.state {
            State::Fresh => {}
            State::Connecting => return Moved::NotYet,
            State::Connected => return Moved::Count(0),
            State::Dead | State::Listening { .. } => {
                return Moved::Failed(socket.error.take().unwrap_or(libc::ECONNREFUSED));
            }
        }
        let host = socket.host;
        if self.chaos.strikes(Knob::NoMemory) {
            return Moved::Failed(libc::ENOMEM);
        }
        let Some(target) = self.host_of(host, to.ip()) else {
            return Moved::Failed(libc::ENETUNREACH);
        };
        let to = match to.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, to.port()).into(),
            IpAddr::V6(ip) if ip.is_unspecified() => (Ipv6Addr::LOCALHOST, to.port()).into(),
            _ => to,
        };
        let from = if to.ip().is_loopback() { to.ip() } else { self.hosts[host].address };
        if self.socket(id).local.is_none() {
            let port = self.free_port(host);
            self.socket(id).local = Some((from, port).into());
        }
        let socket = self.socket(id);
        (socket.state, socket.peer) = (State::Connecting, Some(to));
        let time = self.now + self.latency(host, target, 0);
        self.at(time, Event::Syn { from: id, to, tries: 0 });
        Moved::NotYet
    }

    pub(super) fn free_port(&mut self, host: usize) -> u16 {
        loop {
            let port = self.hosts[host].next_port;
            self.hosts[host].next_port = if port == 60_999 { 32_768 } else { port + 1 };
            let mut sockets = self.sockets.values().filter(|socket| socket.host == host);
            if sockets.all(|socket| socket.local.is_none_or(|local| local.port() != port)) {
                return port;
            }
        }
    }

    pub(super) fn syn(&mut self, from: u64, to: SocketAddr, tries: u32) {
        let Some(client) = self.sockets.get(&from) else { return };
        if client.state != State::Connecting || client.closed {
            return;
        }
        let (here, address) = (client.host, client.local.expect("it has a port"));
        let target = self.host_of(here, to.ip()).expect("it was looked up before");
        let away = here != target && self.reachable_at(here, target) > self.now;
        let listener = match away || !self.hosts[target].up {
            true => None,
            false => match self.find_listener(target, to) {
                Some(listener) if !self.chaos.strikes(Knob::Refuse) => Some(listener),
                _ => return self.refuse(from, here, target),
            },
        };
        let listener = listener.filter(|listener| {
            let listener = &self.sockets[listener];
            matches!(listener.state, State::Listening { backlog } if listener.waiting.len() < backlog)
        });
        let Some(listener) = listener else {
            // Nobody answers, so it is sent again.
            if tries == SYN_TRIES {
                return self.reset(from, libc::ETIMEDOUT);
            }
            let time = self.now + (SECOND << tries);
            return self.at(time, Event::Syn { from, to, tries: tries + 1 });
        };
        let server = self.new_socket(target, false);
        let nodelay = (libc::IPPROTO_TCP, libc::TCP_NODELAY);
        let inherited = self.sockets[&listener].option(nodelay.0, nodelay.1);
        let socket = self.socket(server);
        (socket.state, socket.other) = (State::Connected, Some(from));
        (socket.local, socket.peer) = (Some(to), Some(address));
        socket.options.insert(nodelay, inherited);
        self.socket(from).other = Some(server);
        self.send_segment(target, from, Segment::Connected);
        self.connected(listener, server);
    }

    fn refuse(&mut self, from: u64, here: usize, target: usize) {
        let time = self.now + self.latency(here, target, 0);
        self.at(time, Event::Lost { from, errno: libc::ECONNREFUSED });
    }

    /// One of the sockets that listen on an address.
    fn find_listener(&mut self, host: usize, to: SocketAddr) -> Option<u64> {
        let listens = |socket: &Socket| {
            let local = socket.local.filter(|_| socket.host == host && socket.is_listening());
            local.is_some_and(|local| {
                local.port() == to.port()
                    && (local.ip() == to.ip()
                        || local.ip().is_unspecified() && local.is_ipv4() == to.is_ipv4())
            })
        };
        let found = self.sockets.iter().filter(|(_, socket)| listens(socket));
        let found: Vec<u64> = found.map(|(&id, _)| id).collect();
        (!found.is_empty()).then(|| found[self.random.index(found.len())])
    }

    // ---- Moving bytes ----

    /// Takes at most `most` bytes out of the inbox.
    pub(super) fn receive(&mut self, id: u64, most: usize, bytes: &mut Vec<u8>) -> Moved {
        let socket = self.socket(id);
        let there = socket.inbox.len().min(most);
        if there == 0 {
            if let Some(errno) = socket.error.take() {
                return Moved::Failed(errno);
            }
            return match (socket.end, socket.state) {
                (Some(sent), _) => {
                    let received = socket.received;
                    if sent != received {
                        let text = format!("a stream ended after {received:?} of {sent:?}");
                        self.violation(text);
                    }
                    Moved::Count(0)
                }
                _ if socket.shut_read => Moved::Count(0),
                (None, State::Dead) => Moved::Count(0),
                (None, State::Connected) => Moved::NotYet,
                (None, _) => Moved::Failed(libc::ENOTCONN),
            };
        }
        let mut count = there;
        if count > 1 && self.chaos.strikes(Knob::ShortRead) {
            count = self.chaos.how(Knob::ShortRead).between(1, count as u64 - 1) as usize;
        }
        let socket = self.socket(id);
        bytes.extend(socket.inbox.drain(..count));
        socket.received.take(bytes);
        if let Some(other) = socket.other {
            self.touch(other);
        }
        Moved::Count(count)
    }

    /// How many bytes may be sent now.
    pub(super) fn room_to_send(&mut self, id: u64) -> Moved {
        let socket = self.socket(id);
        if let Some(errno) = socket.error.take() {
            return Moved::Failed(errno);
        }
        if socket.shut_write || socket.state != State::Connected {
            return Moved::Failed(libc::EPIPE);
        }
        let (room, void) = (socket.room, socket.into_the_void);
        let (is_unix, other) = (socket.unix.is_some(), socket.other);
        let is_open = |id: &u64| self.sockets.get(id).is_some_and(|other| !other.closed);
        if is_unix && !other.as_ref().is_some_and(is_open) {
            return Moved::Failed(libc::EPIPE);
        }
        let socket = &self.sockets[&id];
        let used = match socket.other.and_then(|other| self.sockets.get(&other)) {
            Some(other) => other.on_the_wire + other.inbox.len(),
            None => void,
        };
        if used >= room { Moved::NotYet } else { Moved::Count(room - used) }
    }

    pub(super) fn transmit(&mut self, id: u64, bytes: Vec<u8>) {
        let socket = self.socket(id);
        let (host, from, peer) = (socket.host, socket.sent.count, socket.peer);
        socket.sent.take(&bytes);
        match self.other_of(id) {
            Some(other) => self.send_segment(host, other, Segment::Bytes { from, bytes }),
            None => {
                self.socket(id).into_the_void += bytes.len();
                let target = peer.and_then(|peer| self.host_of(host, peer.ip())).unwrap_or(host);
                let latency = 2 * self.latency(host, target, bytes.len());
                let (errno, time) = match self.hosts[target].up {
                    true => (libc::ECONNRESET, self.now + latency),
                    false => (libc::ETIMEDOUT, self.now + GIVE_UP_AFTER),
                };
                self.at(time, Event::Lost { from: id, errno });
            }
        }
    }

    fn other_of(&self, id: u64) -> Option<u64> {
        self.sockets.get(&id)?.other.filter(|other| self.sockets.contains_key(other))
    }

    /// Ends one direction or both.
    pub(super) fn shut_down(&mut self, id: u64, how: i32) -> Result<(), i32> {
        let socket = self.socket(id);
        if socket.is_listening() && how != libc::SHUT_WR {
            socket.state = State::Fresh;
            let waiting = std::mem::take(&mut socket.waiting);
            waiting.into_iter().for_each(|id| self.abort(id));
            self.touch(id);
            return Ok(());
        }
        if socket.state != State::Connected && !socket.is_datagram() {
            return Err(libc::ENOTCONN);
        }
        socket.shut_read |= how != libc::SHUT_WR;
        if how != libc::SHUT_RD && !socket.shut_write {
            self.send_end(id);
        }
        self.touch(id);
        Ok(())
    }

    fn send_end(&mut self, id: u64) {
        let socket = self.socket(id);
        socket.shut_write = true;
        let (host, sent) = (socket.host, socket.sent);
        if let Some(other) = self.other_of(id) {
            self.send_segment(host, other, Segment::End { sent });
        }
    }

    /// The last descriptor of a socket is gone.
    pub(super) fn close_socket(&mut self, id: u64) {
        let socket = self.socket(id);
        if socket.unix.is_some() {
            // Others may wait for room in it.
            self.touch(id);
        }
        let socket = self.socket(id);
        socket.blocked.clear();
        for connection in std::mem::take(&mut socket.waiting) {
            self.abort(connection);
        }
        let socket = self.socket(id);
        let unread = !socket.inbox.is_empty();
        match socket.state {
            State::Connected if unread || socket.reset_on_close => self.abort(id),
            State::Connected => {
                socket.closed = true;
                if !socket.shut_write {
                    self.send_end(id);
                }
                self.bury(id);
            }
            // Whoever has accepted a connect that is given up is told.
            State::Connecting => self.abort(id),
            _ => self.discard(id),
        }
    }

    /// Closes with a reset.
    fn abort(&mut self, id: u64) {
        let host = self.socket(id).host;
        if let Some(other) = self.other_of(id) {
            self.send_segment(host, other, Segment::Reset { errno: libc::ECONNRESET });
        }
        self.discard(id);
    }

    /// Forgets a connection that is closed at both ends, once its wires are empty.
    fn bury(&mut self, id: u64) {
        let Some(other) = self.other_of(id) else { return self.discard(id) };
        if self.sockets[&other].closed {
            self.discard(id);
            self.discard(other);
        }
    }

    /// Forgets a socket.
    fn discard(&mut self, id: u64) {
        let Some(socket) = self.sockets.remove(&id) else { return };
        let Some(id) = socket.other else { return };
        match self.sockets.get_mut(&id) {
            Some(other) if other.closed => drop(self.sockets.remove(&id)),
            Some(other) => other.other = None,
            None => {}
        }
    }

    /// A host is gone, and says nothing to anybody.
    pub(super) fn forget_sockets(&mut self, host: usize) {
        let gone: Vec<u64> = self
            .sockets
            .iter()
            .filter(|(_, socket)| socket.host == host)
            .map(|(&id, _)| id)
            .collect();
        gone.into_iter().for_each(|id| self.discard(id));
    }
}
