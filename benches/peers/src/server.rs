//! What every server does before its loop: its command line, its listener, its `ready`.

use std::io::{self, Write};
use std::mem;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::ops::RangeInclusive;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::protocol::{CHUNK_BYTE, CHUNK_MAX, Mode, READ_SIZE};

/// Enough for every connection of a cell to arrive before the first accept.
const BACKLOG: i32 = 4096;

/// The command line of a server.
#[derive(Clone, Copy)]
pub struct Options {
    pub port: u16,
    pub mode: Mode,
    /// Of the buffer that a connection reads into, where it has one of its own.
    pub read_size: usize,
    /// What a source sends at once.
    pub chunk: &'static [u8],
    /// Whether what the runtime's builder allows is used, or its defaults.
    pub tuned: bool,
}

const USAGE: &str = "\
usage: --port N --mode echo|http|udp|source [--read-size BYTES] [--chunk BYTES] [--tuned yes]";

impl Options {
    /// Ends the process with a message when the command line is wrong.
    pub fn from_command_line() -> Options {
        parse(std::env::args().skip(1)).unwrap_or_else(|message| {
            eprintln!("{message}\n{USAGE}");
            std::process::exit(2);
        })
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let (mut port, mut mode, mut tuned) = (None, None, false);
    let (mut read_size, mut chunk_size) = (READ_SIZE, 0);
    while let Some(option) = args.next() {
        let value = args.next().ok_or_else(|| format!("{option} needs a value"))?;
        match option.as_str() {
            "--port" => port = Some(number(&value, 1..=65535)? as u16),
            "--mode" => {
                mode = Some(Mode::from_name(&value).ok_or_else(|| format!("not a mode: {value}"))?);
            }
            "--read-size" => read_size = number(&value, 1..=READ_SIZE)?,
            "--chunk" => chunk_size = number(&value, 1..=CHUNK_MAX)?,
            "--tuned" => tuned = value == "yes",
            _ => return Err(format!("unknown option {option}")),
        }
    }
    let (port, mode) = (port.ok_or("--port is missing")?, mode.ok_or("--mode is missing")?);
    if mode == Mode::Source && chunk_size == 0 {
        return Err("a source needs --chunk".to_owned());
    }
    Ok(Options { port, mode, read_size, chunk: vec![CHUNK_BYTE; chunk_size].leak(), tuned })
}

fn number(text: &str, allowed: RangeInclusive<usize>) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| allowed.contains(number));
    number.ok_or_else(|| format!("not a number from {allowed:?}: {text}"))
}

/// A datagram socket on 127.0.0.1.
pub fn bind_datagram(port: u16) -> io::Result<UdpSocket> {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, port))
}

/// Ends a server whose runtime has no such thing.
pub fn decline(what: &str) -> ! {
    eprintln!("{what}");
    std::process::exit(1);
}

/// Listens on 127.0.0.1. Accepted connections inherit `TCP_NODELAY` from the listener.
pub fn listen(port: u16) -> io::Result<TcpListener> {
    // SAFETY: the call takes no pointers.
    let fd =
        check(unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the descriptor was opened above and has no other owner.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    enable(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR)?;
    enable(&socket, libc::IPPROTO_TCP, libc::TCP_NODELAY)?;
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes([127, 0, 0, 1]) },
        sin_zero: [0; 8],
    };
    let size = mem::size_of_val(&address) as libc::socklen_t;
    // SAFETY: address is a sockaddr_in of the size given and outlives the call.
    check(unsafe { libc::bind(fd, (&raw const address).cast(), size) })?;
    // SAFETY: the call takes no pointers.
    check(unsafe { libc::listen(fd, BACKLOG) })?;
    Ok(socket.into())
}

fn enable(socket: &OwnedFd, level: i32, option: i32) -> io::Result<()> {
    let on: i32 = 1;
    let size = mem::size_of_val(&on) as libc::socklen_t;
    // SAFETY: the value is an i32 of the size given and outlives the call.
    check(unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const on).cast(), size)
    })?;
    Ok(())
}

/// Tells the load generator that the listener is open.
pub fn announce_ready() -> io::Result<()> {
    let mut stdout = io::stdout();
    writeln!(stdout, "ready")?;
    stdout.flush()
}

/// The result of a system call, or `errno` when it is negative.
pub fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
