//! The hand-written io_uring loop without a runtime: the practical limit.
//!
//! One enter per batch; multishot accept and receive; one send in flight per connection, what
//! arrives meanwhile is collected for the next. What a connection that does not read makes it
//! collect is not bounded.

use std::io;
use std::os::fd::AsRawFd;

use io_uring::types::{Fd, Fixed};
use io_uring::{cqueue, opcode};
use peers::protocol::{Mode, READ_SIZE, Responder};
use peers::ring::{self, BufferRing, Ring};
use peers::server::{Options, announce_ready, listen};

const SQ_ENTRIES: u32 = 512;
const CQ_ENTRIES: u32 = 8192;
const BUFFER_GROUP: u16 = 0;
/// Small, because the ring goes through all of them in turn: 2,048 cost 3 % more at 500
/// connections, by cache misses.
const BUFFER_COUNT: u16 = 256;
const CONNECTIONS_MAX: u32 = 4096;

fn main() -> io::Result<()> {
    let options = Options::from_command_line();
    let mut uring = ring::open(SQ_ENTRIES, CQ_ENTRIES)?;
    let ring = Ring::new(&mut uring)?;
    ring.submitter().register_files_sparse(CONNECTIONS_MAX)?;
    let buffers = BufferRing::new(ring.submitter(), BUFFER_GROUP, BUFFER_COUNT, READ_SIZE)?;
    let listener = listen(options.port)?;
    let mut server = Server {
        ring,
        buffers,
        listener: Fd(listener.as_raw_fd()),
        connections: Vec::new(),
        mode: options.mode,
    };
    announce_ready()?;
    server.serve()
}

struct Server<'a> {
    ring: Ring<'a>,
    buffers: BufferRing,
    listener: Fd,
    /// Indexed by direct descriptor. A slot is used again only after the last completion of the
    /// connection before, because the descriptor is closed only then.
    connections: Vec<Connection>,
    mode: Mode,
}

struct Connection {
    responder: Responder,
    /// The bytes of the send in flight, of which `sent` have gone out.
    sending: Vec<u8>,
    sent: usize,
    /// The answers collected for the next send.
    next: Vec<u8>,
    send_in_flight: bool,
    receive_armed: bool,
    closing: bool,
}

#[derive(Clone, Copy)]
#[repr(u8)]
enum Tag {
    Accept,
    Receive,
    Send,
    Close,
}

impl Server<'_> {
    fn serve(&mut self) -> io::Result<()> {
        self.arm_accept()?;
        loop {
            self.buffers.publish();
            self.ring.turn()?;
            while let Some(completion) = self.ring.next_completion() {
                self.dispatch(&completion)?;
            }
        }
    }

    #[inline]
    fn dispatch(&mut self, completion: &cqueue::Entry) -> io::Result<()> {
        let (tag, index) = from_user_data(completion.user_data());
        match tag {
            Tag::Receive => self.received(index, completion),
            Tag::Send => self.sent(index, completion.result()),
            Tag::Accept => self.accepted(completion),
            Tag::Close => Ok(()),
        }
    }

    fn accepted(&mut self, completion: &cqueue::Entry) -> io::Result<()> {
        if !cqueue::more(completion.flags()) {
            self.arm_accept()?;
        }
        if completion.result() < 0 {
            eprintln!("raw_server: accept: {}", failure(completion.result()));
            return Ok(());
        }
        let index = completion.result() as usize;
        while index >= self.connections.len() {
            self.connections.push(Connection::new(self.mode));
        }
        self.connections[index] = Connection::new(self.mode);
        self.arm_receive(index)
    }

    fn received(&mut self, index: usize, completion: &cqueue::Entry) -> io::Result<()> {
        let result = completion.result();
        let connection = &mut self.connections[index];
        if let Some(id) = cqueue::buffer_select(completion.flags()) {
            let input = self.buffers.bytes(id, result.max(0) as usize);
            connection.responder.respond(input, &mut connection.next);
            self.buffers.recycle(id);
        }
        if !cqueue::more(completion.flags()) {
            connection.receive_armed = false;
            if result > 0 || result == -libc::ENOBUFS {
                self.arm_receive(index)?;
            } else {
                connection.closing = true;
            }
        }
        self.advance(index)
    }

    fn sent(&mut self, index: usize, result: i32) -> io::Result<()> {
        let connection = &mut self.connections[index];
        connection.send_in_flight = false;
        if result < 0 {
            connection.closing = true;
        } else {
            connection.sent += result as usize;
        }
        self.advance(index)
    }

    /// Starts the send that is due, or closes the connection when nothing is in flight.
    #[inline]
    fn advance(&mut self, index: usize) -> io::Result<()> {
        let connection = &mut self.connections[index];
        if connection.send_in_flight {
            return Ok(());
        }
        if connection.closing {
            return if connection.receive_armed { Ok(()) } else { self.close(index) };
        }
        if connection.sent == connection.sending.len() {
            connection.sending.clear();
            connection.sent = 0;
            if connection.next.is_empty() {
                return Ok(());
            }
            std::mem::swap(&mut connection.sending, &mut connection.next);
        }
        connection.send_in_flight = true;
        let rest = &connection.sending[connection.sent..];
        let entry = opcode::Send::new(Fixed(index as u32), rest.as_ptr(), rest.len() as u32)
            .flags(libc::MSG_NOSIGNAL)
            .build()
            .user_data(user_data(Tag::Send, index));
        // SAFETY: sending is neither changed nor dropped while send_in_flight is set, and the
        // bytes do not move with the connection.
        unsafe { self.ring.push(&entry) }
    }

    fn arm_accept(&mut self) -> io::Result<()> {
        let entry = opcode::AcceptMulti::new(self.listener)
            .allocate_file_index(true)
            .build()
            .user_data(user_data(Tag::Accept, 0));
        // SAFETY: the entry has no pointers.
        unsafe { self.ring.push(&entry) }
    }

    fn arm_receive(&mut self, index: usize) -> io::Result<()> {
        self.connections[index].receive_armed = true;
        let entry = opcode::RecvMulti::new(Fixed(index as u32), BUFFER_GROUP)
            .build()
            .user_data(user_data(Tag::Receive, index));
        // SAFETY: the entry has no pointers; its buffers live as long as the server.
        unsafe { self.ring.push(&entry) }
    }

    fn close(&mut self, index: usize) -> io::Result<()> {
        let entry =
            opcode::Close::new(Fixed(index as u32)).build().user_data(user_data(Tag::Close, index));
        // SAFETY: the entry has no pointers.
        unsafe { self.ring.push(&entry) }
    }
}

impl Connection {
    fn new(mode: Mode) -> Connection {
        Connection {
            responder: Responder::new(mode),
            sending: Vec::new(),
            sent: 0,
            next: Vec::new(),
            send_in_flight: false,
            receive_armed: false,
            closing: false,
        }
    }
}

fn user_data(tag: Tag, index: usize) -> u64 {
    (tag as u64) << 56 | index as u64
}

fn from_user_data(user_data: u64) -> (Tag, usize) {
    let tag = match user_data >> 56 {
        0 => Tag::Accept,
        1 => Tag::Receive,
        2 => Tag::Send,
        3 => Tag::Close,
        other => unreachable!("a completion with tag {other}"),
    };
    (tag, (user_data & 0xffff_ffff) as usize)
}

fn failure(result: i32) -> io::Error {
    io::Error::from_raw_os_error(-result)
}
