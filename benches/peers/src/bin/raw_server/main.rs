//! The hand-written io_uring loop without a runtime: the practical limit.

use std::io;

use peers::protocol::Mode;
use peers::ring;
use peers::server::Options;

mod connections;
mod datagrams;

const SQ_ENTRIES: u32 = 512;
const CQ_ENTRIES: u32 = 8192;
const BUFFER_GROUP: u16 = 0;
/// Small, because the ring goes through all of them in turn: 2,048 cost 3 % more at 500
/// connections, by cache misses.
const BUFFER_COUNT: u16 = 256;

fn main() -> io::Result<()> {
    let options = Options::from_command_line();
    let mut uring = ring::open(SQ_ENTRIES, CQ_ENTRIES)?;
    match options.mode {
        Mode::Udp => datagrams::serve(&mut uring, options),
        _ => connections::serve(&mut uring, options),
    }
}

/// What a completion answers, and which connection or buffer it is about.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Tag {
    Accept,
    Receive,
    Send,
    Close,
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
