//! Requests that are answered at once, and the descriptors of a host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::datagrams;
use super::faults::Knob;
use super::memory;
use super::net::{Socket, State};
use super::world::World;
use crate::driver::Call;
use crate::driver::retired::SIMULATED;
use crate::sys::addr::Address;
use crate::sys::unix_addr::UnixAddress;

/// As many connections wait for a listener, whatever it asks for (`somaxconn`).
const MOST_WAITING: i32 = 128;

type Answer = Result<i32, i32>;

impl World {
    pub(super) fn call(&mut self, core: usize, call: Call<'_>) -> Answer {
        if self.cores[core].dead {
            // The power is gone: what the destructors of its tasks ask for is no longer there.
            return if matches!(call, Call::Close { .. }) { Ok(0) } else { Err(libc::EIO) };
        }
        match call {
            Call::Socket { domain, kind, protocol } => {
                self.open_socket(core, domain, kind, protocol)
            }
            Call::SocketPair { domain: libc::AF_UNIX, kind, pair } => {
                self.socket_pair(core, kind, pair)
            }
            Call::SocketPair { .. } => Err(libc::EOPNOTSUPP),
            Call::SocketFile { address, file } => {
                *file = self.socket_file(core, address)?;
                Ok(0)
            }
            Call::RemoveSocketFile { address, file } => {
                self.remove_socket_file(core, address, file)
            }
            Call::Bind { fd, address } => self.bind(core, fd, address),
            Call::Listen { fd, backlog } => self.listen(core, fd, backlog),
            Call::Backlog { fd } => Ok(i32::from(!self.socket_of(core, fd)?.waiting.is_empty())),
            Call::SetOption { fd, level, name, value } => {
                let socket = self.socket_of(core, fd)?;
                set_option(socket, level, name, value)
            }
            Call::GetOption { fd, level: libc::SOL_SOCKET, name: libc::SO_PEERCRED, value } => {
                let host = self.socket_of(core, fd)?.host;
                Ok(write_credentials(host, value))
            }
            Call::GetOption { fd, level, name, value } => {
                let socket = self.socket_of(core, fd)?;
                let answer = match (level, name) {
                    (libc::SOL_SOCKET, libc::SO_ERROR) => socket.error.take().unwrap_or(0),
                    (libc::IPPROTO_IP, libc::IP_TTL) if socket.option(level, name) == 0 => 64,
                    _ => socket.option(level, name),
                };
                let bytes = answer.to_ne_bytes();
                let len = value.len().min(bytes.len());
                value[..len].copy_from_slice(&bytes[..len]);
                Ok(len as i32)
            }
            Call::LocalAddress { fd, address } => {
                let socket = self.socket_of(core, fd)?;
                if let Some((name, _)) = socket.unix_names() {
                    return Ok(write_bytes(name, address));
                }
                let unbound = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
                Ok(write_address(socket.local.unwrap_or(unbound), address))
            }
            Call::PeerAddress { fd, address } => {
                let socket = self.socket_of(core, fd)?;
                if let Some((_, peer)) = socket.unix_names() {
                    return peer.map(|peer| write_bytes(peer, address)).ok_or(libc::ENOTCONN);
                }
                let is_connected = socket.state == State::Connected || socket.mailbox.is_some();
                let peer = socket.peer.filter(|_| is_connected);
                peer.map(|peer| write_address(peer, address)).ok_or(libc::ENOTCONN)
            }
            Call::Shutdown { fd, how } => {
                let id = self.socket_id(core, fd)?;
                self.shut_down(id, how).map(|()| 0)
            }
            Call::Status { fd, status } => {
                let object = self.object(core, fd).ok_or(libc::EBADF)?;
                let host = self.cores[core].host;
                match self.files.get(&object) {
                    Some(open) => {
                        status.st_mode = libc::S_IFREG | 0o644;
                        status.st_size = self.hosts[host].disk.bytes(open.file).len() as i64;
                    }
                    None => status.st_mode = libc::S_IFSOCK | 0o777,
                }
                Ok(0)
            }
            Call::SendFile { socket, file, offset, len } => {
                let open = self.object(core, file).ok_or(libc::EBADF)?;
                let open = self.files.get(&open).copied().ok_or(libc::EINVAL)?;
                let id = self.socket_id(core, socket)?;
                self.send_file(core, id, open, offset, len as usize)
            }
            Call::Duplicate { fd } => {
                let object = self.object(core, fd).ok_or(libc::EBADF)?;
                self.open_descriptor(core, object)
            }
            Call::Release { fd } => {
                let object = self.object(core, fd).ok_or(libc::EBADF)?;
                self.assert_unused(core, fd, object);
                Ok(0)
            }
            Call::Close { fd } => self.close(core, fd),
        }
    }

    // ---- Descriptors ----

    /// What a descriptor stands for.
    pub(super) fn object(&self, core: usize, fd: i32) -> Option<u64> {
        let index = usize::try_from(fd.checked_sub(SIMULATED)?).ok()?;
        *self.hosts[self.cores[core].host].fds.get(index)?
    }

    /// Opens the lowest free number.
    pub(super) fn open_descriptor(&mut self, core: usize, object: u64) -> Answer {
        if self.chaos.strikes(Knob::NoDescriptors) {
            return Err(libc::EMFILE);
        }
        let fds = &mut self.hosts[self.cores[core].host].fds;
        let index = fds.iter().position(Option::is_none).unwrap_or(fds.len());
        if index == fds.len() {
            fds.push(None);
        }
        fds[index] = Some(object);
        Ok(SIMULATED + index as i32)
    }

    fn close(&mut self, core: usize, fd: i32) -> Answer {
        let Some(object) = self.object(core, fd) else {
            self.violation(format!("descriptor {fd} was closed, and is not open"));
            return Err(libc::EBADF);
        };
        let host = self.cores[core].host;
        self.assert_unused(core, fd, object);
        self.forget_descriptor(core, fd);
        if self.hosts[host].fds.contains(&Some(object)) {
            // It has another number.
            return Ok(0);
        }
        if self.sockets.contains_key(&object) {
            self.close_socket(object);
        }
        self.files.remove(&object);
        Ok(0)
    }

    /// I2: a number that a request names is neither closed nor given away.
    fn assert_unused(&mut self, core: usize, fd: i32, object: u64) {
        let host = self.cores[core].host;
        let names = |request: &super::core::Request| {
            // One that was told of names only its memory.
            request.object == Some(object) && request.fields.fd == fd && !request.told
        };
        let requests = |core: &super::core::Core| {
            core.host == host && core.queue.iter().chain(core.pending.values()).any(names)
        };
        if self.cores.iter().any(requests) {
            self.violation(format!("I2: descriptor {fd} was closed while a request names it"));
        }
    }

    pub(super) fn forget_descriptor(&mut self, core: usize, fd: i32) {
        self.hosts[self.cores[core].host].fds[(fd - SIMULATED) as usize] = None;
    }

    fn socket_id(&self, core: usize, fd: i32) -> Result<u64, i32> {
        let object = self.object(core, fd).ok_or(libc::EBADF)?;
        if self.sockets.contains_key(&object) { Ok(object) } else { Err(libc::ENOTSOCK) }
    }

    fn socket_of(&mut self, core: usize, fd: i32) -> Result<&mut Socket, i32> {
        let id = self.socket_id(core, fd)?;
        Ok(self.sockets.get_mut(&id).expect("it was looked up"))
    }

    // ---- Sockets ----

    fn open_socket(&mut self, core: usize, domain: i32, kind: i32, protocol: i32) -> Answer {
        if domain == libc::AF_UNIX {
            let socket = self.new_unix_socket(self.cores[core].host, kind)?;
            return self.open_new(core, socket);
        }
        let is_internet = matches!(domain, libc::AF_INET | libc::AF_INET6);
        let kind = kind & !libc::SOCK_CLOEXEC;
        let is_ours = match kind {
            libc::SOCK_STREAM => matches!(protocol, 0 | libc::IPPROTO_TCP),
            libc::SOCK_DGRAM => matches!(protocol, 0 | libc::IPPROTO_UDP),
            _ => return Err(libc::ESOCKTNOSUPPORT),
        };
        if !is_internet || !is_ours {
            return Err(libc::EAFNOSUPPORT);
        }
        let socket = self.new_socket(self.cores[core].host, kind == libc::SOCK_DGRAM);
        self.open_new(core, socket)
    }

    fn open_new(&mut self, core: usize, socket: u64) -> Answer {
        let opened = self.open_descriptor(core, socket);
        if opened.is_err() {
            self.sockets.remove(&socket);
        }
        opened
    }

    fn bind(&mut self, core: usize, fd: i32, address: &[u8]) -> Answer {
        let id = self.socket_id(core, fd)?;
        if self.sockets[&id].unix.is_some() {
            let address = UnixAddress::of_bytes(address).ok_or(libc::EINVAL)?;
            return self.bind_unix(id, address);
        }
        let address = memory::parse(address).ok_or(libc::EAFNOSUPPORT)?;
        let (id, host) = (self.socket_id(core, fd)?, self.cores[core].host);
        if self.sockets[&id].local.is_some() {
            return Err(libc::EINVAL);
        }
        let here = self.hosts[host].address;
        let ip = address.ip();
        if !ip.is_loopback() && !ip.is_unspecified() && ip != here {
            return Err(libc::EADDRNOTAVAIL);
        }
        let port = match address.port() {
            0 => self.free_port(host),
            port => port,
        };
        let address = SocketAddr::new(ip, port);
        let socket = &self.sockets[&id];
        let shares = |name| socket.option(libc::SOL_SOCKET, name) != 0;
        let conflicts = |other: &Socket| {
            let theirs = |name| other.option(libc::SOL_SOCKET, name) != 0;
            let is_same = other.host == host
                && other.mailbox.is_some() == socket.mailbox.is_some()
                && other.state != State::Connected
                && other.local.is_some_and(|local| overlaps(local, address));
            let both_share = shares(libc::SO_REUSEPORT) && theirs(libc::SO_REUSEPORT);
            let both_reuse = shares(libc::SO_REUSEADDR) && theirs(libc::SO_REUSEADDR);
            is_same && !both_share && (!both_reuse || other.is_listening())
        };
        if self.sockets.values().any(conflicts) {
            return Err(libc::EADDRINUSE);
        }
        self.sockets.get_mut(&id).expect("it was looked up").local = Some(address);
        Ok(0)
    }

    fn listen(&mut self, core: usize, fd: i32, backlog: i32) -> Answer {
        let (id, host) = (self.socket_id(core, fd)?, self.cores[core].host);
        let socket = &self.sockets[&id];
        if socket.unix.is_some() {
            let backlog = backlog.clamp(0, MOST_WAITING) as usize + 1;
            return self.listen_unix(id, backlog);
        }
        if socket.mailbox.is_some() {
            return Err(libc::EOPNOTSUPP);
        }
        if !matches!(socket.state, State::Fresh | State::Listening { .. }) {
            return Err(libc::EINVAL);
        }
        let local = match socket.local {
            Some(local) => local,
            None => (Ipv4Addr::UNSPECIFIED, self.free_port(host)).into(),
        };
        let shares = self.sockets[&id].option(libc::SOL_SOCKET, libc::SO_REUSEPORT) != 0;
        let conflicts = |(&other, socket): (&u64, &Socket)| {
            let shared = shares && socket.option(libc::SOL_SOCKET, libc::SO_REUSEPORT) != 0;
            let overlaps = socket.local.is_some_and(|theirs| overlaps(theirs, local));
            other != id && socket.host == host && socket.is_listening() && overlaps && !shared
        };
        if self.sockets.iter().any(conflicts) {
            return Err(libc::EADDRINUSE);
        }
        let socket = self.sockets.get_mut(&id).expect("it was looked up");
        socket.local = Some(local);
        let backlog = backlog.clamp(0, MOST_WAITING) as usize + 1;
        socket.state = State::Listening { backlog };
        Ok(0)
    }
}

fn overlaps(one: SocketAddr, two: SocketAddr) -> bool {
    let any = |ip: IpAddr| ip.is_unspecified();
    let same_family = one.is_ipv4() == two.is_ipv4();
    let dual = |ip: IpAddr| ip == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let ips = match same_family {
        true => one.ip() == two.ip() || any(one.ip()) || any(two.ip()),
        false => dual(one.ip()) && any(two.ip()) || dual(two.ip()) && any(one.ip()),
    };
    one.port() == two.port() && ips
}

fn set_option(socket: &mut Socket, level: i32, name: i32, value: &[u8]) -> Answer {
    let word = |at: usize| {
        let bytes = value.get(at..at + 4)?;
        Some(i32::from_ne_bytes(bytes.try_into().ok()?))
    };
    let mut first = word(0).ok_or(libc::EINVAL)?;
    match (level, name) {
        _ if socket.mailbox.is_some() && datagrams::is_without_meaning(level, name) => {
            return Err(libc::ENOPROTOOPT);
        }
        (libc::SOL_SOCKET, libc::SO_LINGER) => {
            socket.reset_on_close = first != 0 && word(4) == Some(0);
        }
        (libc::IPPROTO_IP, libc::IP_TTL) if !(1..=255).contains(&first) => {
            return Err(libc::EINVAL);
        }
        // The real kernel keeps its own records there as well.
        (libc::SOL_SOCKET, libc::SO_SNDBUF | libc::SO_RCVBUF) => {
            if name == libc::SO_SNDBUF {
                socket.room = first.max(1) as usize;
            }
            first = first.saturating_mul(2);
        }
        _ => {}
    }
    socket.options.insert((level, name), first);
    Ok(0)
}

/// Each host is a process of its own, and of the same user.
fn write_credentials(host: usize, place: &mut [u8]) -> i32 {
    let numbers = [host as u32 + 1, 1000, 1000].map(u32::to_ne_bytes);
    write_bytes(numbers.as_flattened(), place)
}

fn write_address(from: SocketAddr, place: &mut [u8]) -> i32 {
    write_bytes(Address::from(from).as_bytes(), place)
}

fn write_bytes(bytes: &[u8], place: &mut [u8]) -> i32 {
    let len = bytes.len().min(place.len());
    place[..len].copy_from_slice(&bytes[..len]);
    bytes.len() as i32
}
