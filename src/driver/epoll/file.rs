//! Reading and writing by `IORING_OP_READ` and its kin, and the calls that only threads make.
//!
//! What can be had without waiting is had at once (`RWF_NOWAIT`): what is in the page cache, what a
//! pipe holds or has room for. The rest of a file is a thread's; the rest of a stream is waited for.

use std::borrow::Cow;

use io_uring::opcode;

use super::attempt::{Attempt, MOST, errno, failed, ready};
use super::descriptors::{Descriptor, Side, fact};
use super::requests::{Asked, Request};
use crate::driver::pad::blocking::Job;
use crate::driver::sqe::flag;
use crate::sys::signals;

/// More bytes of a file than this are copied by a thread: the core has other tasks.
const AT_ONCE: usize = 256 * 1024;

/// `IORING_FSYNC_DATASYNC`
const DATASYNC: u32 = 1;

/// The file's own position, and what a stream has instead of offsets.
const HERE: i64 = -1;

fn side(opcode: u8) -> Side {
    match opcode {
        opcode::Read::CODE | opcode::Readv::CODE => Side::Read,
        _ => Side::Write,
    }
}

/// Tries to read or write without waiting.
pub(super) fn attempt(request: &mut Request, descriptor: &mut Descriptor) -> Attempt {
    let asked = request.asked;
    if let Err(errno) = learn(asked.fd, descriptor) {
        return Attempt::error(errno);
    }
    let side = side(asked.opcode);
    let waits = if side == Side::Read { fact::READS_WAIT } else { fact::WRITES_WAIT };
    let is_file = descriptor.is(fact::FILE);
    let limit = if is_file { AT_ONCE } else { MOST };
    if is_file && side == Side::Write {
        // It may have to wait for the storage (O_SYNC) even if it was told not to wait for memory.
        return Attempt::Block;
    }
    loop {
        if descriptor.is(waits) {
            return by_a_thread(asked.fd, descriptor, side);
        }
        let offset = offset(&asked, descriptor.is(fact::UNSEEKABLE));
        let try_once = || transfer(&asked, offset, request.done, limit, libc::RWF_NOWAIT);
        // Whoever asks for a thread of the kernel's wants no SIGPIPE, and gets none here either.
        let is_quiet = side == Side::Write && asked.flags & flag::ASYNC != 0;
        let moved = if is_quiet { signals::without_sigpipe(try_once) } else { try_once() };
        match moved {
            Ok(0) => return Attempt::Last(request.done as i32, 0),
            Ok(count) => {
                request.done += count;
                if !is_file || request.done == len(&asked) {
                    return Attempt::Last(request.done as i32, 0);
                }
                if request.done >= AT_ONCE {
                    return Attempt::Block;
                }
                // Short: the end of the file, or of what is in the cache.
            }
            Err(libc::EINTR) => {}
            Err(libc::ESPIPE) if !descriptor.is(fact::UNSEEKABLE) => {
                descriptor.set(fact::UNSEEKABLE);
            }
            Err(libc::EAGAIN) if is_file => return Attempt::Block,
            Err(libc::EAGAIN) => {
                descriptor.must_wait(side);
                return Attempt::Wait;
            }
            Err(libc::EOPNOTSUPP) => descriptor.set(waits),
            Err(errno) => return failed(errno, request.done),
        }
    }
}

/// What cannot be told not to wait is a thread's, but of a stream only when it is ready: how long it
/// would wait otherwise, nobody knows, and there are not many threads.
fn by_a_thread(fd: i32, descriptor: &mut Descriptor, side: Side) -> Attempt {
    if descriptor.is(fact::FILE | fact::UNWATCHABLE) {
        return Attempt::Block;
    }
    let event = if side == Side::Read { libc::POLLIN } else { libc::POLLOUT };
    // Asked only once it is watched, or an event in between would be lost.
    if descriptor.is(fact::WATCHED) && ready(fd, event) != 0 {
        return Attempt::Block;
    }
    descriptor.must_wait(side);
    Attempt::Wait
}

/// Finds out, once, whether a descriptor is a stream.
fn learn(fd: i32, descriptor: &mut Descriptor) -> Result<(), i32> {
    if descriptor.is(fact::KNOWN) {
        return Ok(());
    }
    let mut status = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `status` is a place for the answer.
    if unsafe { libc::fstat(fd, status.as_mut_ptr()) } < 0 {
        return Err(errno());
    }
    // SAFETY: the call has filled it.
    let kind = unsafe { status.assume_init() }.st_mode & libc::S_IFMT;
    descriptor.set(fact::KNOWN);
    if matches!(kind, libc::S_IFREG | libc::S_IFBLK | libc::S_IFDIR) {
        descriptor.set(fact::FILE);
    }
    Ok(())
}

/// Where the request reads or writes, less what is done already.
fn offset(asked: &Asked, is_unseekable: bool) -> i64 {
    if is_unseekable { HERE } else { asked.off as i64 }
}

/// How many bytes the request is about.
fn len(asked: &Asked) -> usize {
    match asked.opcode {
        opcode::Read::CODE | opcode::Write::CODE => (asked.len as usize).min(MOST),
        _ => {
            // SAFETY: I1, I2: the iovecs are the request's until its last answer, and so many.
            let iovecs = unsafe { iovecs(asked.addr, asked.len as usize) };
            total(iovecs).min(MOST)
        }
    }
}

pub(super) fn total(iovecs: &[libc::iovec]) -> usize {
    iovecs.iter().fold(0, |total: usize, iovec| total.saturating_add(iovec.iov_len))
}

/// Reads or writes behind what is `done`, at most `limit` bytes.
fn transfer(
    asked: &Asked,
    offset: i64,
    done: usize,
    limit: usize,
    flags: i32,
) -> Result<usize, i32> {
    let one = libc::iovec { iov_base: asked.addr as *mut _, iov_len: asked.len as usize };
    let is_one = matches!(asked.opcode, opcode::Read::CODE | opcode::Write::CODE);
    let whole = match is_one {
        true => std::slice::from_ref(&one),
        // SAFETY: I1, I2: the iovecs are the request's until its last answer, and so many.
        false => unsafe { iovecs(asked.addr, asked.len as usize) },
    };
    let rest = rest(whole, done, limit);
    let offset = if offset == HERE { HERE } else { offset + done as i64 };
    let (fd, start, count) = (asked.fd, rest.as_ptr(), rest.len() as i32);
    let flags = flags | asked.op_flags as i32;
    // SAFETY: I1, I2: the bytes are the request's until its last answer.
    let result = unsafe {
        match side(asked.opcode) {
            Side::Read => libc::preadv2(fd, start, count, offset, flags),
            _ => libc::pwritev2(fd, start, count, offset, flags),
        }
    };
    if result < 0 { Err(errno()) } else { Ok(result as usize) }
}

/// The iovecs of a request.
///
/// # Safety
/// There are `count` of them at `start`, for as long as the result is used.
pub(super) unsafe fn iovecs<'a>(start: u64, count: usize) -> &'a [libc::iovec] {
    if count == 0 {
        return &[];
    }
    // SAFETY: the caller vouches for it.
    unsafe { std::slice::from_raw_parts(start as *const libc::iovec, count) }
}

/// What is left behind the first `done` bytes, at most `limit` of it.
pub(super) fn rest(
    iovecs: &[libc::iovec],
    mut done: usize,
    mut limit: usize,
) -> Cow<'_, [libc::iovec]> {
    if done == 0 && total(iovecs) <= limit {
        return Cow::Borrowed(iovecs);
    }
    let mut rest = Vec::with_capacity(iovecs.len());
    for iovec in iovecs {
        let skipped = done.min(iovec.iov_len);
        done -= skipped;
        let iov_len = limit.min(iovec.iov_len - skipped);
        limit -= iov_len;
        if iov_len > 0 {
            // SAFETY: what is skipped is a part of the buffer.
            let iov_base = unsafe { iovec.iov_base.cast::<u8>().add(skipped) }.cast();
            rest.push(libc::iovec { iov_base, iov_len });
        }
    }
    Cow::Owned(rest)
}

/// A request that a thread carries out, from where it stands.
pub(super) struct Call {
    asked: Asked,
    done: usize,
}

impl Call {
    /// The request's memory must stay valid until the call has ended or was taken back.
    pub(super) fn new(request: &Request) -> Self {
        Call { asked: request.asked, done: request.done }
    }

    fn carry_out(&self) -> Result<usize, i32> {
        let Call { asked, done } = self;
        let (fd, start) = (asked.fd, asked.addr);
        let result = match asked.opcode {
            opcode::OpenAt::CODE => {
                let (path, flags) = (start as *const libc::c_char, asked.op_flags as i32);
                // SAFETY: I1, I2: the path is the request's until its last answer.
                unsafe { libc::openat(fd, path, flags, asked.len) as isize }
            }
            opcode::Fsync::CODE if asked.op_flags & DATASYNC != 0 => {
                // SAFETY: the call takes no pointers.
                unsafe { libc::fdatasync(fd) as isize }
            }
            opcode::Fsync::CODE => {
                // SAFETY: the call takes no pointers.
                unsafe { libc::fsync(fd) as isize }
            }
            opcode::SendMsg::CODE => {
                let flags = asked.op_flags as i32 | libc::MSG_NOSIGNAL;
                // SAFETY: I1, I2: the message is the request's until its last answer.
                unsafe { libc::sendmsg(fd, start as *const libc::msghdr, flags) }
            }
            opcode::Connect::CODE => {
                // SAFETY: I1, I2: the address is the request's until its last answer.
                unsafe { libc::connect(fd, start as *const _, asked.off as _) as isize }
            }
            _ => {
                let offset = offset(asked, false);
                let result = match transfer(asked, offset, *done, MOST - done, 0) {
                    Err(libc::ESPIPE) => transfer(asked, HERE, *done, MOST - done, 0),
                    result => result,
                };
                return match result {
                    Ok(count) => Ok(done + count),
                    Err(_) if *done > 0 => Ok(*done),
                    Err(errno) => Err(errno),
                };
            }
        };
        if result < 0 { Err(errno()) } else { Ok(result as usize) }
    }
}

impl Job for Call {
    type Output = i32;

    fn run(&self) -> i32 {
        match self.carry_out() {
            Ok(result) => result as i32,
            Err(errno) => -errno,
        }
    }

    fn was_interrupted(output: &i32) -> bool {
        *output == -libc::EINTR
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_begins_where_the_done_ends() {
        let bytes = [0_u8; 10];
        let at = |at: usize, iov_len| libc::iovec {
            iov_base: bytes[at..].as_ptr().cast_mut().cast(),
            iov_len,
        };
        let iovecs = [at(0, 3), at(3, 0), at(3, 4), at(7, 3)];
        let places = |done, limit| -> Vec<(usize, usize)> {
            let start = bytes.as_ptr() as usize;
            let rest = rest(&iovecs, done, limit);
            rest.iter().map(|iovec| (iovec.iov_base as usize - start, iovec.iov_len)).collect()
        };
        assert_eq!(places(0, 10), [(0, 3), (3, 0), (3, 4), (7, 3)]);
        assert_eq!(places(2, 10), [(2, 1), (3, 4), (7, 3)]);
        assert_eq!(places(3, 5), [(3, 4), (7, 1)]);
        assert_eq!(places(0, 2), [(0, 2)]);
        assert_eq!(places(10, 10), []);
    }
}
