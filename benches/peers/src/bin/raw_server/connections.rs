//! Connections: multishot accept and receive, direct descriptors, one enter per batch.
//!
//! One send is in flight per connection; what arrives meanwhile is collected for the next. What a
//! connection that does not read makes it collect is not bounded.
//!
//! Two things that measure no better are not done: an echo from the buffer that the kernel received
//! into, and sends without a completion (`MSG_DONTWAIT | MSG_WAITALL` with `SKIP_SUCCESS`, which have
//! succeeded when the enter returns and says nothing). The latter saves the second enter of a message
//! at one connection, 1 % there, and costs 2 to 3 % at 50 and 500.

use std::io;
use std::os::fd::AsRawFd;

use io_uring::types::{Fd, Fixed};
use io_uring::{IoUring, cqueue, opcode};
use peers::protocol::{Mode, READ_SIZE, Responder};
use peers::ring::{BufferRing, Ring};
use peers::server::{Options, announce_ready, listen};

use crate::{BUFFER_COUNT, BUFFER_GROUP, Tag, failure, from_user_data, user_data};

const CONNECTIONS_MAX: u32 = 16384;

pub fn serve(uring: &mut IoUring, options: Options) -> io::Result<()> {
    let ring = Ring::new(uring)?;
    ring.submitter().register_files_sparse(CONNECTIONS_MAX)?;
    let buffers = BufferRing::new(ring.submitter(), BUFFER_GROUP, BUFFER_COUNT, READ_SIZE)?;
    let listener = listen(options.port)?;
    let mut server = Server {
        ring,
        buffers,
        listener: Fd(listener.as_raw_fd()),
        connections: Vec::new(),
        options,
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
    options: Options,
}

#[derive(Default)]
struct Connection {
    responder: Responder,
    /// The bytes of the send in flight, of which `sent` have gone out, unless that is a chunk.
    sending: Vec<u8>,
    sends_chunk: bool,
    sent: usize,
    /// The answers collected for the next send.
    next: Vec<u8>,
    /// The chunks that are still to be sent by a source.
    asked: usize,
    send_in_flight: bool,
    receive_armed: bool,
    closing: bool,
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
            self.connections.push(Connection::default());
        }
        self.connections[index] = Connection::default();
        self.arm_receive(index)
    }

    #[inline]
    fn received(&mut self, index: usize, completion: &cqueue::Entry) -> io::Result<()> {
        let result = completion.result();
        let connection = &mut self.connections[index];
        if let Some(id) = cqueue::buffer_select(completion.flags()) {
            let input = self.buffers.bytes(id, result.max(0) as usize);
            match self.options.mode {
                Mode::Http => connection.responder.respond(input, &mut connection.next),
                Mode::Source => connection.asked += input.len(),
                Mode::Echo | Mode::Udp => connection.next.extend_from_slice(input),
            }
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
        if connection.sent == connection.bytes(&self.options).len() {
            connection.sending.clear();
            connection.sent = 0;
            connection.sends_chunk = connection.asked > 0;
            if connection.sends_chunk {
                connection.asked -= 1;
            } else if connection.next.is_empty() {
                return Ok(());
            } else {
                std::mem::swap(&mut connection.sending, &mut connection.next);
            }
        }
        connection.send_in_flight = true;
        let rest = &connection.bytes(&self.options)[connection.sent..];
        // A send that waits until all has gone out spares the loop the laps in between.
        let entry = opcode::Send::new(Fixed(index as u32), rest.as_ptr(), rest.len() as u32)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build()
            .user_data(user_data(Tag::Send, index));
        // SAFETY: the bytes are neither changed nor dropped while send_in_flight is set, and do not
        // move with the connection.
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
    /// What is being sent, or was.
    fn bytes<'a>(&'a self, options: &Options) -> &'a [u8] {
        if self.sends_chunk { options.chunk } else { &self.sending }
    }
}
