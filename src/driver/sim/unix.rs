//! Unix sockets: names within a host, connections at once, and messages that stay whole.
//!
//! A stream of bytes is a connection as any other, over the wire from a host to itself, so that the
//! network's faults between hosts do not strike it. Descriptors are not passed.

use std::collections::VecDeque;

use super::faults::Knob;
use super::memory::{self, Received, Shape};
use super::net::{Moved, Segment, Socket, State};
use super::opcodes::SENDMSG;
use super::perform::{Outcome, does_not_wait, failed};
use super::world::World;
use crate::driver::Fields;
use crate::sys::control::Control;
use crate::sys::unix_addr::UnixAddress;

/// As many messages wait for whoever receives them, and no larger ones.
const MOST_MESSAGES: usize = 16;
const LARGEST_MESSAGE: usize = 200 * 1024;

/// What a Unix socket has that others do not.
#[derive(Debug)]
pub(super) struct Unix {
    kind: i32,
    name: UnixAddress,
    peer: UnixAddress,
    /// Whom a datagram socket is connected to.
    target: Option<u64>,
    messages: VecDeque<Message>,
}

/// Bytes that are received together, and who sent them.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) from: UnixAddress,
    pub(super) bytes: Vec<u8>,
}

impl Unix {
    fn new(kind: i32) -> Self {
        let unnamed = || UnixAddress::of_bytes(&(libc::AF_UNIX as u16).to_ne_bytes());
        let unnamed = || unnamed().expect("a family is an address");
        let messages = VecDeque::new();
        Unix { kind, name: unnamed(), peer: unnamed(), target: None, messages }
    }

    pub(super) fn is_named(&self) -> bool {
        !self.name.name().is_empty()
    }

    pub(super) fn push(&mut self, message: Message) {
        self.messages.push_back(message);
    }
}

impl Socket {
    fn unix(&self) -> &Unix {
        self.unix.as_ref().expect("it is a Unix socket")
    }

    fn unix_mut(&mut self) -> &mut Unix {
        self.unix.as_mut().expect("it is a Unix socket")
    }

    /// Whether it keeps the boundaries of what is sent.
    pub(super) fn has_messages(&self) -> bool {
        self.unix.as_ref().is_some_and(|unix| unix.kind != libc::SOCK_STREAM)
    }

    pub(super) fn is_datagram(&self) -> bool {
        self.unix.as_ref().is_some_and(|unix| unix.kind == libc::SOCK_DGRAM)
    }

    /// Whether a receive of a message would have to wait.
    fn has_no_message(&self) -> bool {
        self.unix.as_ref().is_none_or(|unix| unix.messages.is_empty())
    }

    /// The names of this end and, if it is connected, of the other, in the kernel's form.
    pub(super) fn unix_names(&self) -> Option<(&[u8], Option<&[u8]>)> {
        let unix = self.unix.as_ref()?;
        let is_connected = self.state == State::Connected || unix.target.is_some();
        Some((unix.name.as_bytes(), is_connected.then_some(unix.peer.as_bytes())))
    }
}

impl World {
    pub(super) fn new_unix_socket(&mut self, host: usize, kind: i32) -> Result<u64, i32> {
        let kind = kind & !libc::SOCK_CLOEXEC;
        if !matches!(kind, libc::SOCK_STREAM | libc::SOCK_DGRAM | libc::SOCK_SEQPACKET) {
            return Err(libc::ESOCKTNOSUPPORT);
        }
        let id = self.new_socket(host, false);
        self.socket(id).unix = Some(Unix::new(kind));
        Ok(id)
    }

    /// Two sockets that are connected to each other.
    pub(super) fn socket_pair(
        &mut self,
        core: usize,
        kind: i32,
        pair: &mut [i32; 2],
    ) -> Result<i32, i32> {
        let host = self.cores[core].host;
        let ids = [self.new_unix_socket(host, kind)?, self.new_unix_socket(host, kind)?];
        for (end, other) in [(0, 1), (1, 0)] {
            self.pair_up(ids[end], ids[other]);
        }
        let opened = [self.open_descriptor(core, ids[0]), self.open_descriptor(core, ids[1])];
        match opened {
            [Ok(one), Ok(two)] => *pair = [one, two],
            [one, two] => {
                let open = one.iter().chain(&two);
                open.for_each(|fd| self.forget_descriptor(core, *fd));
                ids.iter().for_each(|id| drop(self.sockets.remove(id)));
                return Err(one.and(two).expect_err("one was refused"));
            }
        }
        Ok(0)
    }

    /// Has one end lead to the other.
    fn pair_up(&mut self, id: u64, other: u64) {
        let peer = self.sockets[&other].unix().name;
        let socket = self.socket(id);
        socket.unix_mut().peer = peer;
        if socket.is_datagram() {
            socket.unix_mut().target = Some(other);
        } else {
            (socket.state, socket.other) = (State::Connected, Some(other));
        }
    }

    // ---- Names ----

    pub(super) fn bind_unix(&mut self, id: u64, address: UnixAddress) -> Result<i32, i32> {
        let socket = &self.sockets[&id];
        let host = socket.host;
        if socket.unix().is_named() {
            return Err(libc::EINVAL);
        }
        let address = match address.name() {
            [] => {
                let name = format!("\0{:05x}", self.next_serial());
                let family = (libc::AF_UNIX as u16).to_ne_bytes();
                UnixAddress::of_bytes(&[&family, name.as_bytes()].concat()).expect("a family")
            }
            _ => address,
        };
        let is_there = self.hosts[host].names.contains_key(address.name());
        // What has no file is gone with its socket.
        if is_there && (address.path().is_some() || self.bound(host, &address).is_some()) {
            return Err(libc::EADDRINUSE);
        }
        self.hosts[host].names.insert(address.name().to_vec(), id);
        self.socket(id).unix_mut().name = address;
        Ok(0)
    }

    pub(super) fn listen_unix(&mut self, id: u64, backlog: usize) -> Result<i32, i32> {
        let socket = self.socket(id);
        if socket.is_datagram() {
            return Err(libc::EOPNOTSUPP);
        }
        let may = matches!(socket.state, State::Fresh | State::Listening { .. });
        if !may || !socket.unix().is_named() {
            return Err(libc::EINVAL);
        }
        socket.state = State::Listening { backlog };
        Ok(0)
    }

    /// The socket that has a name, if it is open.
    fn bound(&self, host: usize, name: &UnixAddress) -> Option<u64> {
        let id = *self.hosts[host].names.get(name.name())?;
        self.sockets.get(&id).is_some_and(|socket| !socket.is_closed()).then_some(id)
    }

    /// Which socket's file a path leads to; here the file is known by the socket that made it.
    pub(super) fn socket_file(&self, core: usize, address: &[u8]) -> Result<(u64, u64), i32> {
        let address = UnixAddress::of_bytes(address).ok_or(libc::EINVAL)?;
        let id = self.hosts[self.cores[core].host].names.get(address.name());
        id.map(|&id| (1, id)).ok_or(libc::ENOENT)
    }

    pub(super) fn remove_socket_file(
        &mut self,
        core: usize,
        address: &[u8],
        file: Option<(u64, u64)>,
    ) -> Result<i32, i32> {
        let host = self.cores[core].host;
        let name = UnixAddress::of_bytes(address).ok_or(libc::EINVAL)?;
        let Ok(found) = self.socket_file(core, address) else { return Ok(0) };
        let may = match file {
            Some(file) => file == found,
            None => self.bound(host, &name).is_none(),
        };
        if may {
            self.hosts[host].names.remove(name.name());
        }
        Ok(may.into())
    }

    // ---- Connecting ----

    pub(super) fn connect_unix(&mut self, id: u64, fields: &Fields) -> Outcome {
        let Some(to) = UnixAddress::of_bytes(&memory::address_bytes(fields)) else {
            return failed(libc::EINVAL);
        };
        let socket = &self.sockets[&id];
        let (host, kind) = (socket.host, socket.unix().kind);
        if !socket.is_datagram() && socket.state != State::Fresh {
            return failed(libc::EISCONN);
        }
        if self.chaos.strikes(Knob::NoMemory) {
            return failed(libc::ENOMEM);
        }
        let target = match self.find_unix(host, &to, kind) {
            Ok(target) => target,
            Err(errno) => return failed(errno),
        };
        if kind == libc::SOCK_DGRAM {
            self.pair_up(id, target);
            return Outcome::Last(0, 0);
        }
        let State::Listening { backlog } = self.sockets[&target].state else {
            return failed(libc::ECONNREFUSED);
        };
        if self.chaos.strikes(Knob::Refuse) {
            return failed(libc::ECONNREFUSED);
        }
        if self.sockets[&target].waiting.len() >= backlog {
            return Outcome::Blocked(target);
        }
        let server = self.new_unix_socket(host, kind).expect("the kind is one");
        self.pair_up(server, id);
        self.pair_up(id, server);
        self.socket(server).unix_mut().name = to;
        self.socket(id).unix_mut().peer = to;
        self.connected(target, server);
        Outcome::Last(0, 0)
    }

    fn find_unix(&self, host: usize, name: &UnixAddress, kind: i32) -> Result<u64, i32> {
        match self.bound(host, name) {
            Some(id) if self.sockets[&id].unix().kind != kind => Err(libc::EPROTOTYPE),
            Some(id) => Ok(id),
            // The file of a socket that is no more.
            None if name.path().is_none() => Err(libc::ECONNREFUSED),
            None if self.hosts[host].names.contains_key(name.name()) => Err(libc::ECONNREFUSED),
            None => Err(libc::ENOENT),
        }
    }

    // ---- Messages ----

    pub(super) fn send_unix_message(&mut self, id: u64, fields: &Fields) -> Outcome {
        let shape = if fields.opcode == SENDMSG { Shape::Message } else { Shape::Plain };
        let (name, _) = memory::envelope(fields);
        let to = name.and_then(|name| UnixAddress::of_bytes(&name));
        let socket = self.socket(id);
        let (host, kind, from) = (socket.host, socket.unix().kind, socket.unix().name);
        if let Some(errno) = socket.error.take() {
            return failed(errno);
        }
        if socket.is_shut_for_writing() {
            return failed(libc::EPIPE);
        }
        let target = match (to, kind) {
            (Some(to), libc::SOCK_DGRAM) => self.find_unix(host, &to, kind),
            (None, libc::SOCK_DGRAM) => self.connected_datagram(id),
            _ => self.connected_packets(id),
        };
        let target = match target {
            Ok(target) => target,
            Err(errno) => return failed(errno),
        };
        let regions = memory::regions(fields, shape);
        let count = memory::total(&regions);
        if count > LARGEST_MESSAGE {
            return failed(libc::EMSGSIZE);
        }
        if self.is_full_of_messages(target) {
            return match does_not_wait(fields) {
                true => failed(libc::EAGAIN),
                false => Outcome::Blocked(target),
            };
        }
        let bytes = memory::gather(&regions, 0, count);
        self.send_segment(host, target, Segment::Message(Message { from, bytes }));
        Outcome::Last(count as i32, 0)
    }

    fn is_full_of_messages(&self, id: u64) -> bool {
        let socket = &self.sockets[&id];
        socket.segments() + socket.unix().messages.len() >= MOST_MESSAGES
    }

    /// A poll for room to send to whom the socket is connected.
    pub(super) fn poll_writable(&mut self, id: u64) -> Outcome {
        let ready = Outcome::Last(libc::POLLOUT.into(), 0);
        let socket = &self.sockets[&id];
        let target = match socket.is_datagram() {
            _ if socket.error.is_some() => return ready,
            true => self.connected_datagram(id),
            false if socket.has_messages() => self.connected_packets(id),
            false => {
                let has_room = !matches!(self.room_to_send(id), Moved::NotYet);
                return if has_room { ready } else { Outcome::Blocked(id) };
            }
        };
        match target {
            Ok(target) if self.is_full_of_messages(target) => Outcome::Blocked(target),
            // An error is told to who sends.
            Ok(_) | Err(_) => ready,
        }
    }

    fn connected_datagram(&self, id: u64) -> Result<u64, i32> {
        let target = self.sockets[&id].unix().target.ok_or(libc::ENOTCONN)?;
        let is_open = self.sockets.get(&target).is_some_and(|socket| !socket.is_closed());
        is_open.then_some(target).ok_or(libc::ECONNREFUSED)
    }

    fn connected_packets(&self, id: u64) -> Result<u64, i32> {
        let socket = &self.sockets[&id];
        if socket.state != State::Connected {
            return Err(libc::ENOTCONN);
        }
        let other =
            socket.other.filter(|other| self.sockets.get(other).is_some_and(|it| !it.is_closed()));
        other.ok_or(libc::EPIPE)
    }

    /// `recvmsg`: bytes of a stream, or one message, of which what finds no room is lost.
    pub(super) fn receive_unix_message(&mut self, id: u64, fields: &Fields) -> Outcome {
        let control = Control::new();
        let socket = self.socket(id);
        if !socket.has_messages() || socket.has_no_message() && !socket.is_datagram() {
            let room = memory::total(&memory::regions(fields, Shape::Message));
            let mut payload = Vec::new();
            return match self.receive(id, room, &mut payload) {
                Moved::Count(_) => {
                    let received = Received { name: Vec::new(), control, payload };
                    Outcome::Last(memory::fill_message(fields, &received), 0)
                }
                Moved::Failed(errno) => failed(errno),
                Moved::NotYet => Outcome::Blocked(id),
            };
        }
        let Some(message) = socket.unix_mut().messages.pop_front() else {
            return if socket.is_shut_for_reading() {
                Outcome::Last(0, 0)
            } else {
                Outcome::Blocked(id)
            };
        };
        let name = message.from.as_bytes().to_vec();
        let received = Received { name, control, payload: message.bytes };
        self.touch(id);
        Outcome::Last(memory::fill_message(fields, &received), 0)
    }
}
