//! The hand-written edge-triggered epoll loop.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use peers::protocol::{Mode, Responder};
use peers::server::{Options, announce_ready, check, listen};

mod datagrams;

const EVENTS_PER_WAIT: usize = 1024;

fn main() -> io::Result<()> {
    let options = Options::from_command_line();
    if options.mode == Mode::Udp {
        return datagrams::serve(options);
    }
    let listener = listen(options.port)?;
    listener.set_nonblocking(true)?;
    let epoll = Epoll::new()?;
    epoll.add(listener.as_raw_fd(), libc::EPOLLIN)?;
    announce_ready()?;
    serve(&epoll, &listener, options)
}

fn serve(epoll: &Epoll, listener: &TcpListener, options: Options) -> io::Result<()> {
    // Indexed by descriptor: the kernel keeps those small and dense.
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut input = vec![0; options.read_size];
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_PER_WAIT];
    loop {
        let count = epoll.wait(&mut events)?;
        for event in &events[..count] {
            let fd = event.u64 as usize;
            if fd == listener.as_raw_fd() as usize {
                accept_all(epoll, listener, options, &mut connections)?;
                continue;
            }
            let slot = &mut connections[fd];
            let Some(connection) = slot else { continue };
            match connection.advance(&mut input) {
                Ok(State::Open) => {}
                Ok(State::Closed) => *slot = None,
                Err(error) => {
                    eprintln!("epoll_server: {error}");
                    *slot = None;
                }
            }
        }
    }
}

fn accept_all(
    epoll: &Epoll,
    listener: &TcpListener,
    options: Options,
    connections: &mut Vec<Option<Connection>>,
) -> io::Result<()> {
    while let Some((stream, _)) = unless_blocked(listener.accept())? {
        stream.set_nonblocking(true)?;
        let fd = stream.as_raw_fd();
        epoll.add(fd, libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP)?;
        let index = fd as usize;
        if index >= connections.len() {
            connections.resize_with(index + 1, || None);
        }
        connections[index] = Some(Connection::new(stream, options));
    }
    Ok(())
}

struct Connection {
    stream: TcpStream,
    options: Options,
    responder: Responder,
    output: Vec<u8>,
    written: usize,
    /// The chunks that are still to be sent by a source, and how much of the first has been.
    asked: usize,
    chunk_written: usize,
}

enum State {
    Open,
    Closed,
}

impl Connection {
    fn new(stream: TcpStream, options: Options) -> Connection {
        Connection {
            stream,
            options,
            responder: Responder::default(),
            output: Vec::new(),
            written: 0,
            asked: 0,
            chunk_written: 0,
        }
    }

    /// Reads, answers and writes until one of the two directions would block.
    fn advance(&mut self, input: &mut [u8]) -> io::Result<State> {
        while self.flush()? {
            let Some(length) = unless_blocked(self.stream.read(input))? else {
                return Ok(State::Open);
            };
            if length == 0 {
                return Ok(State::Closed);
            }
            match self.options.mode {
                Mode::Http => self.responder.respond(&input[..length], &mut self.output),
                Mode::Source => self.asked += length,
                Mode::Echo | Mode::Udp => {
                    let written = unless_blocked(self.stream.write(&input[..length]))?;
                    self.output.extend_from_slice(&input[written.unwrap_or(0)..length]);
                }
            }
            // A read that leaves room in the buffer has drained the socket, and the edge of
            // whatever comes later will be reported: no second read to see it block.
            if length < input.len() {
                self.flush()?;
                return Ok(State::Open);
            }
        }
        Ok(State::Open)
    }

    /// Writes what is pending; true when nothing is left.
    fn flush(&mut self) -> io::Result<bool> {
        while self.written < self.output.len() {
            match unless_blocked(self.stream.write(&self.output[self.written..]))? {
                Some(count) => self.written += count,
                None => return Ok(false),
            }
        }
        self.output.clear();
        self.written = 0;
        while self.asked > 0 {
            match unless_blocked(self.stream.write(&self.options.chunk[self.chunk_written..]))? {
                Some(count) => self.chunk_written += count,
                None => return Ok(false),
            }
            if self.chunk_written == self.options.chunk.len() {
                self.chunk_written = 0;
                self.asked -= 1;
            }
        }
        Ok(true)
    }
}

fn unless_blocked<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

struct Epoll(OwnedFd);

impl Epoll {
    fn new() -> io::Result<Epoll> {
        // SAFETY: the call takes no pointers.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the descriptor was opened above and has no other owner.
        Ok(Epoll(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Watches `fd` edge-triggered; its events carry the descriptor.
    fn add(&self, fd: RawFd, interest: i32) -> io::Result<()> {
        let events = (interest | libc::EPOLLET) as u32;
        let mut event = libc::epoll_event { events, u64: fd as u64 };
        // SAFETY: the event outlives the call.
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event) })?;
        Ok(())
    }

    fn wait(&self, events: &mut [libc::epoll_event]) -> io::Result<usize> {
        let (start, capacity) = (events.as_mut_ptr(), events.len() as i32);
        // SAFETY: the kernel writes at most capacity events to the slice.
        match check(unsafe { libc::epoll_wait(self.0.as_raw_fd(), start, capacity, -1) }) {
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(0),
            result => Ok(result? as usize),
        }
    }
}
