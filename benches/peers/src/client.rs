//! The client side of the load generator: connections to all servers of a cell on one ring.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use io_uring::squeue::Flags;
use io_uring::types::Fd;
use io_uring::{cqueue, opcode};

use crate::cell::{Cell, Exchange, Traffic};
use crate::histogram::Histogram;
use crate::protocol::Mode;
use crate::ring::{BufferRing, Ring};

const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How long after the end of a slice the last reply may come.
pub(crate) const DRAIN_WITHIN: Duration = Duration::from_secs(5);
pub(crate) const WAIT: Duration = Duration::from_secs(1);

/// Connections at once that are opened and closed on the ring.
pub(crate) const DIRECT_MAX: usize = 64;

const BUFFER_GROUP: u16 = 0;
const BUFFER_COUNT: u16 = 256;
const BUFFER_SIZE: usize = 4096;

pub(crate) const SEND_TAG: u64 = 1 << 63;
const CANCEL_TAG: u64 = u64::MAX;

/// Lives as long as its ring, because the kernel may write to the buffers until then.
pub struct Client<'a> {
    pub(crate) ring: Ring<'a>,
    pub(crate) buffers: BufferRing,
    pub(crate) connections: Vec<Connection>,
    /// Which connections lead to which server, for error messages.
    servers: Vec<(Range<usize>, String)>,
    /// For receives that name their buffer.
    pub(crate) scratch: Vec<Vec<u8>>,
}

pub(crate) struct Connection {
    pub(crate) socket: OwnedFd,
    /// How much of the reply has come.
    pub(crate) received: usize,
    pub(crate) sent_at: Instant,
    pub(crate) receive_armed: bool,
}

/// What one slice brought.
pub struct Slice {
    pub messages: u64,
    pub elapsed: Duration,
    /// The longest time for which the client itself did nothing; known of an open loop only.
    pub stalled: Duration,
}

impl<'a> Client<'a> {
    pub fn new(ring: Ring<'a>) -> io::Result<Client<'a>> {
        let buffers = BufferRing::new(ring.submitter(), BUFFER_GROUP, BUFFER_COUNT, BUFFER_SIZE)?;
        ring.submitter().register_files_sparse(DIRECT_MAX as u32)?;
        let (connections, servers, scratch) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Client { ring, buffers, connections, servers, scratch })
    }

    /// Opens the connections of the cell to the server called `name`; the range stands for them in
    /// [`Client::run`].
    pub fn connect(
        &mut self,
        name: &str,
        address: SocketAddr,
        cell: &Cell,
    ) -> io::Result<Range<usize>> {
        let (first, count) = (self.connections.len(), cell.connections);
        self.servers.push((first..first + count, name.to_owned()));
        for index in first..first + count {
            let socket = match cell.mode {
                Mode::Udp => datagram_socket(address),
                _ => stream_socket(address),
            }
            .map_err(|error| self.failure(index, &format!("connect: {error}")))?;
            let (sent_at, receive_armed) = (Instant::now(), false);
            self.connections.push(Connection { socket, received: 0, sent_at, receive_armed });
            if cell.traffic == Traffic::Exchange {
                self.arm_receive(index)?;
            }
        }
        self.ring.submit()?;
        Ok(first..first + count)
    }

    /// Keeps one exchange in flight on each of the connections for `length`, then waits for
    /// the replies that are still on their way.
    pub fn run(
        &mut self,
        connections: Range<usize>,
        cell: &Cell,
        exchange: Exchange,
        length: Duration,
        latency: &mut Histogram,
    ) -> io::Result<Slice> {
        let first = connections.start;
        let start = Instant::now();
        let end = start + length;
        let mut in_flight = connections.len();
        let mut exchanges = 0;
        for index in connections {
            self.request(index, exchange, start)?;
        }
        let mut now = start;
        while in_flight > 0 {
            self.buffers.publish();
            self.ring.turn_within(WAIT)?;
            now = Instant::now();
            if now > end + DRAIN_WITHIN {
                return Err(self.failure(first, &format!("{in_flight} replies never came")));
            }
            while let Some(completion) = self.ring.next_completion() {
                let Some(index) = self.reply_ended_by(&completion, exchange)? else {
                    continue;
                };
                exchanges += 1;
                latency.record((now - self.connections[index].sent_at).as_nanos() as u64);
                if now >= end {
                    in_flight -= 1;
                } else if cell.pace.is_zero() {
                    self.request(index, exchange, now)?;
                } else {
                    // A slow client works on one reply after the other, and each next request
                    // leaves before it looks at the next reply.
                    let sent_at = work_for(cell.pace);
                    self.request(index, exchange, sent_at)?;
                    self.ring.submit()?;
                }
            }
        }
        let messages = exchanges * cell.depth as u64;
        Ok(Slice { messages, elapsed: now - start, stalled: Duration::ZERO })
    }

    /// Closes all connections.
    pub fn disconnect(&mut self) -> io::Result<()> {
        for index in 0..self.connections.len() {
            let cancel = opcode::AsyncCancel::new(index as u64).build().user_data(CANCEL_TAG);
            // SAFETY: the entry has no pointers.
            unsafe { self.ring.push(&cancel)? };
        }
        // Where there was nothing to cancel, the answer says so; none may be left for the next cell.
        let mut cancels = self.connections.len();
        let deadline = Instant::now() + DRAIN_WITHIN;
        while cancels > 0 || self.connections.iter().any(|connection| connection.receive_armed) {
            if Instant::now() > deadline {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "connections do not end"));
            }
            self.buffers.publish();
            self.ring.turn_within(WAIT)?;
            while let Some(completion) = self.ring.next_completion() {
                self.recycle(&completion);
                match completion.user_data() {
                    CANCEL_TAG => cancels -= 1,
                    data if data & SEND_TAG == 0 && !cqueue::more(completion.flags()) => {
                        if let Some(connection) = self.connections.get_mut(data as usize) {
                            connection.receive_armed = false;
                        }
                    }
                    _ => {}
                }
            }
        }
        self.connections.clear();
        self.servers.clear();
        Ok(())
    }

    /// When the request was sent, or was to be sent, whose reply came last.
    pub(crate) fn sent_at(&self, index: usize) -> Instant {
        self.connections[index].sent_at
    }

    #[inline]
    pub(crate) fn request(
        &mut self,
        index: usize,
        exchange: Exchange,
        now: Instant,
    ) -> io::Result<()> {
        let connection = &mut self.connections[index];
        connection.sent_at = now;
        connection.received = 0;
        let fd = Fd(connection.socket.as_raw_fd());
        let (start, length) = (exchange.request.as_ptr(), exchange.request.len() as u32);
        // Only a send that fails has a completion: the reply says that it has succeeded.
        let entry = opcode::Send::new(fd, start, length)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build()
            .flags(Flags::SKIP_SUCCESS)
            .user_data(SEND_TAG | index as u64);
        // SAFETY: the request is never freed.
        unsafe { self.ring.push(&entry) }
    }

    /// Takes the bytes of a completion; the connection, when its reply is now whole.
    #[inline]
    pub(crate) fn reply_ended_by(
        &mut self,
        completion: &cqueue::Entry,
        exchange: Exchange,
    ) -> io::Result<Option<usize>> {
        let result = completion.result();
        let index = (completion.user_data() & !SEND_TAG) as usize;
        if completion.user_data() & SEND_TAG != 0 {
            return Err(self.failure(index, &format!("send: {}", error_of(result))));
        }
        if !cqueue::more(completion.flags()) {
            self.connections[index].receive_armed = false;
            if result == 0 {
                return Err(self.failure(index, "closed a connection"));
            }
            if result < 0 && result != -libc::ENOBUFS {
                return Err(self.failure(index, &format!("receive: {}", error_of(result))));
            }
            self.arm_receive(index)?;
        }
        let Some(id) = cqueue::buffer_select(completion.flags()) else {
            return Ok(None);
        };
        let bytes = self.buffers.bytes(id, result.max(0) as usize);
        let connection = &mut self.connections[index];
        let received = connection.received + bytes.len();
        let as_expected = exchange.reply.get(connection.received..received) == Some(bytes);
        connection.received = received;
        self.buffers.recycle(id);
        if !as_expected {
            return Err(self.failure(index, "sent a wrong reply"));
        }
        Ok((received == exchange.reply.len()).then_some(index))
    }

    /// As many buffers of at least `size` bytes as `count`, which live as long as the client.
    pub(crate) fn prepare_scratch(&mut self, count: usize, size: usize) {
        if self.scratch.first().is_none_or(|buffer| buffer.len() < size) {
            self.scratch.clear();
        }
        self.scratch.resize_with(self.scratch.len().max(count), || vec![0; size]);
    }

    /// The error that names the server of a connection, which is not always the one that is
    /// being loaded.
    pub(crate) fn failure(&self, index: usize, message: &str) -> io::Error {
        let owner = self.servers.iter().find(|(connections, _)| connections.contains(&index));
        let name = owner.map_or("unknown server", |(_, name)| name);
        Blame::error(name, message)
    }

    fn recycle(&mut self, completion: &cqueue::Entry) {
        if let Some(id) = cqueue::buffer_select(completion.flags()) {
            self.buffers.recycle(id);
        }
    }

    fn arm_receive(&mut self, index: usize) -> io::Result<()> {
        let connection = &mut self.connections[index];
        connection.receive_armed = true;
        let fd = Fd(connection.socket.as_raw_fd());
        let entry = opcode::RecvMulti::new(fd, BUFFER_GROUP).build().user_data(index as u64);
        // SAFETY: the entry has no pointers; the buffers live as long as the ring.
        unsafe { self.ring.push(&entry) }
    }
}

/// An error that a server is to blame for.
#[derive(Debug)]
pub struct Blame {
    pub server: String,
    pub message: String,
}

impl Blame {
    pub fn error(server: &str, message: &str) -> io::Error {
        io::Error::other(Blame { server: server.to_owned(), message: message.to_owned() })
    }
}

impl fmt::Display for Blame {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{}: {}", self.server, self.message)
    }
}

impl Error for Blame {}

fn stream_socket(address: SocketAddr) -> io::Result<OwnedFd> {
    let stream = TcpStream::connect_timeout(&address, CONNECT_WITHIN)?;
    stream.set_nodelay(true)?;
    Ok(stream.into())
}

fn datagram_socket(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(address)?;
    Ok(socket.into())
}

/// Keeps the CPU busy; the time at which the work ends.
fn work_for(pace: Duration) -> Instant {
    let end = Instant::now() + pace;
    loop {
        let now = Instant::now();
        if now >= end {
            return now;
        }
        std::hint::spin_loop();
    }
}

pub(crate) fn error_of(result: i32) -> io::Error {
    io::Error::from_raw_os_error(-result)
}
