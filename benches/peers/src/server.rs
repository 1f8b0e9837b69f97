//! What every server does before its loop: its command line, its listener, its `ready`.

use std::io::{self, Write};
use std::mem;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::protocol::Mode;

/// Enough for every connection of a cell to arrive before the first accept.
const BACKLOG: i32 = 4096;

/// The command line of a server: `--port N --mode echo|http`.
pub struct Options {
    pub port: u16,
    pub mode: Mode,
}

impl Options {
    /// Ends the process with a message when the command line is wrong.
    pub fn from_command_line() -> Options {
        parse(std::env::args().skip(1)).unwrap_or_else(|message| {
            eprintln!("{message}\nusage: --port N --mode echo|http");
            std::process::exit(2);
        })
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut port = None;
    let mut mode = None;
    while let Some(option) = args.next() {
        let value = args.next().ok_or_else(|| format!("{option} needs a value"))?;
        match option.as_str() {
            "--port" => port = Some(value.parse().map_err(|_| format!("not a port: {value}"))?),
            "--mode" => {
                mode = Some(Mode::from_name(&value).ok_or_else(|| format!("not a mode: {value}"))?);
            }
            _ => return Err(format!("unknown option {option}")),
        }
    }
    Ok(Options { port: port.ok_or("--port is missing")?, mode: mode.ok_or("--mode is missing")? })
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
