//! Sending files: from the page cache where that has the bytes, else by reading them.
//!
//! ```text
//!            sendfile ──▶ a part is sent ──▶ ... ──▶ all
//!   (turn) ─▶  │ │  ▲
//!              │ └──┴── poll: the socket was full
//!              ▼
//!            read ──▶ send ──▶ read ──▶ ...       not in memory
//! ```
//!
//! io_uring's own way, `IORING_OP_SPLICE`, always goes to a worker thread.

use std::io;
use std::ops::{Bound, RangeBounds};

use super::State;
use super::send::{self, Writing};
use crate::buf::IoBuf;
use crate::driver::Call;
use crate::fs::File;
use crate::net::options::ring;
use crate::op::event_of;
use crate::sys::fd::Fd;
use crate::sys::overdue::{is_overdue, timed_out, unless_overdue};
use crate::task::consume_budget;

/// One call sends so much at most, some 130 µs of it, and then others have their turn. Smaller ones
/// would ask the same of the kernel more often.
const AT_ONCE: u64 = 1024 * 1024;

/// What is not in memory is read in pieces of this size.
const PIECE: u64 = 128 * 1024;

pub(super) async fn send_file(
    fd: &Fd<State>,
    file: &File,
    range: impl RangeBounds<u64>,
) -> io::Result<u64> {
    let start = match range.start_bound() {
        Bound::Included(&start) => start,
        Bound::Excluded(&before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&last) => last.saturating_add(1),
        Bound::Excluded(&end) => end,
        Bound::Unbounded => u64::MAX,
    };
    // The cache is asked for the whole of a part, and has nothing behind the end of the file.
    let reachable = if end == u64::MAX { file.len().await? } else { end };
    let writing = unless_overdue(Writing::take(fd)).await.ok_or_else(timed_out)?;
    let at = send_cached(fd, &writing, file, start, reachable).await?;
    let at = if at < end { send_read(writing, file, at, end).await? } else { at };
    Ok(at.saturating_sub(start))
}

/// Sends what the page cache has, and says where that ends: at `end`, or before something that has to
/// be read.
async fn send_cached(
    fd: &Fd<State>,
    writing: &Writing,
    file: &File,
    start: u64,
    end: u64,
) -> io::Result<u64> {
    let (mut at, mut had_room) = (start, false);
    while at < end {
        if is_overdue() {
            return Err(timed_out());
        }
        let len = AT_ONCE.min(end - at) as u32;
        let call = Call::SendFile { socket: writing.raw(), file: file.raw(), offset: at, len };
        match ring("a stream", |ring| ring.call(call)) {
            Ok(sent) => {
                writing.add(sent as usize);
                (at, had_room) = (at + sent as u64, false);
                consume_budget().await;
            }
            // It had room, and yet it has none: the kernel is short of memory, and knows when to go on.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && had_room => break,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                event_of(fd, libc::POLLOUT).await?;
                had_room = true;
            }
            Err(error) if error.raw_os_error() == Some(libc::ENODATA) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(at)
}

/// Reads the rest and sends it. What the reads have the kernel read ahead is on its way to the cache,
/// and whoever asked for it there would wait; so it goes on like this to the end.
async fn send_read(writing: Writing, file: &File, start: u64, end: u64) -> io::Result<u64> {
    let (mut writing, mut at, mut piece) = (writing, start, Vec::new());
    while at < end {
        let len = PIECE.min(end - at) as usize;
        piece.clear();
        piece.reserve_exact(len);
        let (count, read) = file.read_at(piece.slice(..len), at).await?;
        if count == 0 {
            break;
        }
        (writing, piece) = send::send_all(writing, read.into_inner()).await?;
        at += count as u64;
    }
    Ok(at)
}
