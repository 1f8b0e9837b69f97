//! Datagrams: sent into the network one by one, whole, and received so, or lost.
//!
//! Each travels by itself. Between two hosts they stay in order unless a fault has one overtaken; one
//! that is sent into a partition, to a host that is down, or to a full socket is lost.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::faults::Knob;
use super::memory::{self, Received};
use super::net::{MILLISECOND, Moved, Socket};
use super::random::mix;
use super::world::{Event, World};
use crate::driver::Fields;
use crate::sys::addr::Address;
use crate::sys::control::{self, Control};

/// The payload of the largest datagram of IPv4.
const LARGEST: usize = 65_507;
/// The most datagrams that one send may be cut into.
const MOST_SEGMENTS: usize = 64;
/// Bytes that a datagram takes of a receive buffer besides its own, and a receive buffer's size.
const RECORD: usize = 768;
const RECEIVE_BUFFER: i32 = 212_992;

/// A datagram on its way, or in a socket.
#[derive(Debug, Clone)]
pub(super) struct Datagram {
    from: SocketAddr,
    to: SocketAddr,
    /// The type of service.
    tos: u8,
    payload: Vec<u8>,
}

/// What a socket of datagrams has beside what every socket has.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    queue: VecDeque<Datagram>,
    /// Bytes that are taken of the receive buffer.
    used: usize,
}

/// What the control messages of a send say.
#[derive(Debug, Default)]
struct Wishes {
    from: Option<IpAddr>,
    tos: u8,
    segment_size: usize,
}

impl Wishes {
    fn read(bytes: &[u8]) -> Option<Wishes> {
        let mut wishes = Wishes::default();
        for (level, kind, value) in control::messages(bytes) {
            match (level, kind) {
                (libc::IPPROTO_IP, libc::IP_TOS) | (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    wishes.tos = i32::from_ne_bytes(value.try_into().ok()?) as u8;
                }
                (libc::SOL_UDP, libc::UDP_SEGMENT) => {
                    wishes.segment_size = u16::from_ne_bytes(value.try_into().ok()?).into();
                }
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let from: [u8; 4] = value.get(4..8)?.try_into().ok()?;
                    wishes.from = Some(Ipv4Addr::from(from).into());
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let from: [u8; 16] = value.get(..16)?.try_into().ok()?;
                    wishes.from = Some(Ipv6Addr::from(from).into());
                }
                _ => return None,
            }
        }
        wishes.from = wishes.from.filter(|from| !from.is_unspecified());
        Some(wishes)
    }
}

impl Socket {
    pub(super) fn of_datagrams(mut self) -> Self {
        self.mailbox = Some(Mailbox::default());
        for (level, name, value) in [
            (libc::SOL_SOCKET, libc::SO_RCVBUF, RECEIVE_BUFFER),
            (libc::SOL_SOCKET, libc::SO_SNDBUF, RECEIVE_BUFFER),
            (libc::IPPROTO_IP, libc::IP_MULTICAST_TTL, 1),
            (libc::IPPROTO_IP, libc::IP_MULTICAST_LOOP, 1),
            (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, 64),
            (libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS, 1),
            (libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP, 1),
        ] {
            self.options.insert((level, name), value);
        }
        self
    }

    /// Whether a datagram of `from` to `to` is for this socket.
    fn takes(&self, from: SocketAddr, to: SocketAddr) -> bool {
        let is_here = |local: SocketAddr| {
            let all = local.ip().is_unspecified() && local.is_ipv4() == to.is_ipv4();
            local.port() == to.port() && (local.ip() == to.ip() || all)
        };
        let is_peer = self.peer.is_none_or(|peer| peer == from);
        self.mailbox.is_some() && self.local.is_some_and(is_here) && is_peer
    }

    /// The control messages that this socket gets with a datagram.
    fn control_of(&self, datagram: &Datagram) -> Control {
        let mut control = Control::new();
        let wants = |level, name| self.option(level, name) != 0;
        match datagram.to.ip() {
            IpAddr::V4(to) => {
                if wants(libc::IPPROTO_IP, libc::IP_PKTINFO) {
                    let value = [1_u32.to_ne_bytes(), to.octets(), to.octets()];
                    control.push(libc::IPPROTO_IP, libc::IP_PKTINFO, value.as_flattened());
                }
                if wants(libc::IPPROTO_IP, libc::IP_RECVTOS) {
                    control.push(libc::IPPROTO_IP, libc::IP_TOS, &[datagram.tos]);
                }
            }
            IpAddr::V6(to) => {
                if wants(libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO) {
                    let mut value = [0; 20];
                    value[..16].copy_from_slice(&to.octets());
                    value[16..].copy_from_slice(&1_u32.to_ne_bytes());
                    control.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &value);
                }
                if wants(libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS) {
                    let value = &i32::from(datagram.tos).to_ne_bytes();
                    control.push(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, value);
                }
            }
        }
        control
    }
}

/// Whether an option is one that this network has nothing for: groups, and datagrams that the kernel
/// puts together.
pub(super) fn is_without_meaning(level: i32, name: i32) -> bool {
    match level {
        libc::SOL_UDP => true,
        libc::IPPROTO_IP => matches!(
            name,
            libc::IP_ADD_MEMBERSHIP | libc::IP_DROP_MEMBERSHIP | libc::IP_MULTICAST_IF
        ),
        libc::IPPROTO_IPV6 => matches!(
            name,
            libc::IPV6_ADD_MEMBERSHIP | libc::IPV6_DROP_MEMBERSHIP | libc::IPV6_MULTICAST_IF
        ),
        _ => false,
    }
}

impl World {
    pub(super) fn is_of_datagrams(&self, id: u64) -> bool {
        self.sockets.get(&id).is_some_and(|socket| socket.mailbox.is_some())
    }

    /// The address that a socket sends from to `to`; it gets a port if it has none.
    fn source(&mut self, id: u64, to: IpAddr) -> SocketAddr {
        let (host, local) = (self.sockets[&id].host, self.sockets[&id].local);
        let here = if to.is_loopback() { to } else { self.hosts[host].address };
        let local = match local {
            Some(local) => local,
            None => {
                let any: IpAddr = match to {
                    IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                    IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
                };
                let local = SocketAddr::new(any, self.free_port(host));
                self.sockets.get_mut(&id).expect("it is there").local = Some(local);
                local
            }
        };
        if local.ip().is_unspecified() { SocketAddr::new(here, local.port()) } else { local }
    }

    /// Gives a socket of datagrams one peer.
    pub(super) fn connect_datagrams(&mut self, id: u64, to: SocketAddr) -> Moved {
        let to = specific(to);
        if self.host_of(self.sockets[&id].host, to.ip()).is_none() {
            return Moved::Failed(libc::ENETUNREACH);
        }
        let from = self.source(id, to.ip());
        let socket = self.sockets.get_mut(&id).expect("it is there");
        (socket.peer, socket.local) = (Some(to), Some(from));
        Moved::Count(0)
    }

    /// Sends what a request says, as one datagram or cut into several.
    pub(super) fn send_datagrams(
        &mut self,
        id: u64,
        fields: &Fields,
        payload: Vec<u8>,
    ) -> Result<usize, i32> {
        let socket = self.sockets.get_mut(&id).expect("it is there");
        if let Some(errno) = socket.error.take() {
            return Err(errno);
        }
        let (name, control) = memory::envelope(fields);
        let named = name.map(|name| memory::parse(&name).ok_or(libc::EAFNOSUPPORT)).transpose()?;
        let to = specific(named.or(socket.peer).ok_or(libc::EDESTADDRREQ)?);
        let wishes = Wishes::read(&control).ok_or(libc::EINVAL)?;
        let host = socket.host;
        let broadcasts = socket.option(libc::SOL_SOCKET, libc::SO_BROADCAST) != 0;
        if to.port() == 0 {
            return Err(libc::EINVAL);
        }
        if to.ip() == Ipv4Addr::BROADCAST && !broadcasts {
            return Err(libc::EACCES);
        }
        let target = self.host_of(host, to.ip()).ok_or(libc::ENETUNREACH)?;
        let len = payload.len();
        let size = if wishes.segment_size == 0 { usize::MAX } else { wishes.segment_size };
        if len > LARGEST {
            return Err(libc::EMSGSIZE);
        }
        if len.div_ceil(size) > MOST_SEGMENTS {
            return Err(libc::EINVAL);
        }
        let mut from = self.source(id, to.ip());
        if let Some(wish) = wishes.from {
            if self.host_of(host, wish) != Some(host) {
                return Err(libc::EINVAL);
            }
            from.set_ip(wish);
        }
        // An empty payload is a datagram as well.
        let first = payload.len().min(size);
        let (first, rest) = payload.split_at(first);
        for piece in std::iter::once(first).chain(rest.chunks(size)) {
            let datagram = Datagram { from, to, tos: wishes.tos, payload: piece.to_vec() };
            self.send_datagram(id, host, target, datagram);
        }
        Ok(len)
    }

    fn send_datagram(&mut self, sender: u64, here: usize, target: usize, datagram: Datagram) {
        let away = here != target;
        if away && self.chaos.strikes(Knob::LostDatagram) {
            return;
        }
        let copies = 1 + usize::from(away && self.chaos.strikes(Knob::DuplicatedDatagram));
        for _ in 0..copies {
            let mut time = self.now + self.latency(here, target, datagram.payload.len());
            if away && self.reachable_at(here, target) > self.now {
                continue;
            }
            if away && self.chaos.strikes(Knob::ReorderedDatagram) {
                let how = self.chaos.how(Knob::ReorderedDatagram);
                time += how.magnitude(MILLISECOND, 50 * MILLISECOND);
            } else {
                let last = self.last_datagrams.entry((here, target)).or_default();
                time = time.max(*last);
                *last = time;
            }
            let number = self.next_serial();
            self.datagrams.insert(number, (sender, target, datagram.clone()));
            self.at(time, Event::Datagram { number });
        }
    }

    /// A datagram has come to its host: a socket takes it in, or nobody does.
    pub(super) fn take_in_datagram(&mut self, number: u64) {
        let (sender, host, datagram) = self.datagrams.remove(&number).expect("it comes once");
        if !self.hosts[host].up {
            return;
        }
        let Some(id) = self.addressee(host, &datagram) else {
            // A connected sender is told.
            let socket = self.sockets.get(&sender).filter(|it| it.peer == Some(datagram.to));
            if let Some(here) = socket.map(|it| it.host) {
                let time = self.now + self.latency(here, host, 0);
                self.at(time, Event::Lost { from: sender, errno: libc::ECONNREFUSED });
            }
            return;
        };
        let socket = self.sockets.get_mut(&id).expect("it was found");
        let room = socket.option(libc::SOL_SOCKET, libc::SO_RCVBUF).max(0) as usize;
        let mailbox = socket.mailbox.as_mut().expect("it was found");
        let needs = datagram.payload.len() + RECORD;
        if mailbox.used + needs <= room || mailbox.used == 0 {
            mailbox.used += needs;
            mailbox.queue.push_back(datagram);
            self.touch(id);
        }
    }

    /// The socket of a host that takes a datagram: one that is connected to its sender rather than
    /// another; among those that share an address, always the same for a sender.
    fn addressee(&self, host: usize, datagram: &Datagram) -> Option<u64> {
        let takes =
            |socket: &Socket| socket.host == host && socket.takes(datagram.from, datagram.to);
        let all = || self.sockets.iter().filter(|(_, socket)| takes(socket));
        let connected = all().find(|(_, socket)| socket.peer.is_some()).map(|(&id, _)| id);
        connected.or_else(|| {
            let mut hash = u64::from(datagram.from.port());
            if let IpAddr::V4(ip) = datagram.from.ip() {
                hash |= u64::from(ip.to_bits()) << 16;
            }
            let count = all().count() as u64;
            let chosen = mix(hash).checked_rem(count)?;
            all().nth(chosen as usize).map(|(&id, _)| id)
        })
    }

    /// Whether a receive would bring something.
    pub(super) fn has_datagram(&self, id: u64) -> bool {
        let socket = &self.sockets[&id];
        let mailbox = socket.mailbox.as_ref();
        socket.error.is_some() || mailbox.is_some_and(|mailbox| !mailbox.queue.is_empty())
    }

    /// Takes the oldest datagram out of a socket.
    pub(super) fn receive_datagram(&mut self, id: u64) -> Result<Option<Received>, i32> {
        let socket = self.sockets.get_mut(&id).expect("it is there");
        if let Some(errno) = socket.error.take() {
            return Err(errno);
        }
        let mailbox = socket.mailbox.as_mut().ok_or(libc::EOPNOTSUPP)?;
        let Some(datagram) = mailbox.queue.pop_front() else { return Ok(None) };
        mailbox.used -= datagram.payload.len() + RECORD;
        let control = socket.control_of(&datagram);
        Ok(Some(Received {
            name: Address::from(datagram.from).as_bytes().to_vec(),
            control,
            payload: datagram.payload,
        }))
    }
}

/// An unspecified address means this machine.
fn specific(to: SocketAddr) -> SocketAddr {
    match to.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, to.port()).into(),
        IpAddr::V6(ip) if ip.is_unspecified() => (Ipv6Addr::LOCALHOST, to.port()).into(),
        _ => to,
    }
}
