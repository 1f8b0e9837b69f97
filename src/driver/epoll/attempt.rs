//! One try of a request: the system call that io_uring would make, told not to wait.

use io_uring::opcode;

use super::descriptors::{Descriptor, Side, fact};
use super::file;
use super::requests::{Asked, Request};
use crate::driver::pad::message::family_of;
use crate::driver::pad::provided::{Offer, Provided};
use crate::driver::sqe::flag;
use crate::driver::{Cqe, Fields};

/// What a try has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    /// The last answer: its result and its flags.
    Last(i32, u32),
    /// One answer of several.
    More(i32, u32),
    /// It has to wait for an event.
    Wait,
    /// It may block, so a thread has to do it.
    Block,
    /// It takes several at a time, `Epoll::receive_messages`.
    Several,
}

impl Attempt {
    pub(super) fn error(errno: i32) -> Attempt {
        Attempt::Last(-errno, 0)
    }
}

/// The kernel moves no more bytes at a time (`MAX_RW_COUNT`), and no more fit into a result.
pub(super) const MOST: usize = 0x7fff_f000;

/// A connect that was begun, and goes on by itself.
const CONNECTING: usize = 1;

/// Tries the request once.
///
/// Always a part of its caller: the kernel makes the processor forget where calls return to, so each
/// frame around a system call costs a wrong guess.
#[inline(always)]
pub(super) fn attempt(
    request: &mut Request,
    descriptor: &mut Descriptor,
    provided: &mut [Provided],
) -> Attempt {
    match request.asked.opcode {
        opcode::Recv::CODE if request.asked.flags & flag::BUFFER_SELECT != 0 => {
            receive_into_any(&request.asked, descriptor, provided)
        }
        opcode::Recv::CODE => receive(request, descriptor),
        opcode::RecvMsg::CODE if request.asked.flags & flag::BUFFER_SELECT != 0 => Attempt::Several,
        opcode::RecvMsg::CODE => receive_message(&request.asked, descriptor),
        opcode::Send::CODE => send(request, descriptor),
        opcode::SendMsg::CODE => send_message(request, descriptor),
        opcode::Accept::CODE => accept(&request.asked, descriptor),
        opcode::Connect::CODE => connect(request, descriptor),
        _ => file::attempt(request, descriptor),
    }
}

pub(super) fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

/// The result of a system call, made again as long as a signal interrupts it.
#[inline]
pub(super) fn uninterrupted(call: impl Fn() -> isize) -> Result<usize, i32> {
    loop {
        let result = call();
        if result >= 0 {
            return Ok(result as usize);
        }
        match errno() {
            libc::EINTR => {}
            errno => return Err(errno),
        }
    }
}

/// What an error means to a request that has moved `done` bytes: those count, and the error will come
/// again.
pub(super) fn failed(errno: i32, done: usize) -> Attempt {
    if done > 0 { Attempt::Last(done as i32, 0) } else { Attempt::error(errno) }
}

pub(super) fn would_wait(asked: &Asked, descriptor: &mut Descriptor, side: Side) -> Attempt {
    descriptor.must_wait(side);
    if asked.op_flags as i32 & libc::MSG_DONTWAIT != 0 {
        return Attempt::error(libc::EAGAIN);
    }
    Attempt::Wait
}

/// Receives into memory whose place is known.
///
/// A TCP socket that fills less than there is room for has nothing left, and whatever comes later is
/// an event: the call that only says so is spared. Other sockets end a read at the end of a message,
/// and so does TCP under TLS in the kernel (see `Driver::call`).
#[inline(always)]
fn recv(asked: &Asked, descriptor: &mut Descriptor, start: u64, room: usize) -> Result<usize, i32> {
    let flags = asked.op_flags as i32 & !libc::MSG_WAITALL | libc::MSG_DONTWAIT;
    // SAFETY: I1, I2: the memory is the request's, or a buffer on offer, until the last answer.
    let received = uninterrupted(|| unsafe { libc::recv(asked.fd, start as *mut _, room, flags) })?;
    let takes = flags & (libc::MSG_PEEK | libc::MSG_OOB) == 0;
    if received < room && takes && descriptor.is(fact::TCP) && !descriptor.is(fact::ENDING) {
        descriptor.must_wait(Side::Read);
    }
    Ok(received)
}

fn receive(request: &mut Request, descriptor: &mut Descriptor) -> Attempt {
    let asked = &request.asked;
    let len = (asked.len as usize).min(MOST);
    let wants_all = asked.op_flags as i32 & libc::MSG_WAITALL != 0;
    loop {
        let start = asked.addr + request.done as u64;
        match recv(asked, descriptor, start, len - request.done) {
            Ok(received) => {
                request.done += received;
                if !wants_all || received == 0 || request.done == len {
                    return Attempt::Last(request.done as i32, 0);
                }
                if !descriptor.may(Side::Read) {
                    return Attempt::Wait;
                }
            }
            Err(libc::EAGAIN) if request.done > 0 => {
                descriptor.must_wait(Side::Read);
                return Attempt::Wait;
            }
            Err(libc::EAGAIN) => return would_wait(asked, descriptor, Side::Read),
            Err(errno) => return failed(errno, request.done),
        }
    }
}

/// Receives bytes, and what comes with them. A try that fails leaves the message as it is.
fn receive_message(asked: &Asked, descriptor: &mut Descriptor) -> Attempt {
    let flags = asked.op_flags as i32 & !libc::MSG_WAITALL | libc::MSG_DONTWAIT;
    let message = asked.addr as *mut libc::msghdr;
    // SAFETY: I1, I2: the message, and what it points at, is the request's until its last answer.
    match uninterrupted(|| unsafe { libc::recvmsg(asked.fd, message, flags) }) {
        Ok(received) => Attempt::Last(received as i32, 0),
        Err(libc::EAGAIN) if has_ended(asked.fd, descriptor) => Attempt::Last(0, 0),
        Err(libc::EAGAIN) => would_wait(asked, descriptor, Side::Read),
        Err(errno) => Attempt::error(errno),
    }
}

/// Whether a socket for datagrams was shut down: only a call that waits is told that this is the end.
fn has_ended(fd: i32, descriptor: &Descriptor) -> bool {
    let may_have = !descriptor.is(fact::WATCHED) || descriptor.is(fact::ENDING);
    may_have && ready(fd, libc::POLLRDHUP) & libc::POLLRDHUP != 0
}

/// The next buffer that a request may pick, and its group.
#[inline]
fn offered<'a>(asked: &Asked, provided: &'a mut [Provided]) -> Option<(&'a mut Provided, Offer)> {
    let group = Provided::of_group(provided, asked.buf_index)?;
    let offer = group.peek()?;
    Some((group, offer))
}

/// Receives into the next buffer on offer, which is picked only if there are bytes to put into it.
#[inline(always)]
fn receive_into_any(
    asked: &Asked,
    descriptor: &mut Descriptor,
    provided: &mut [Provided],
) -> Attempt {
    let Some((group, offer)) = offered(asked, provided) else {
        return Attempt::error(libc::ENOBUFS);
    };
    let room = if asked.len == 0 { offer.len } else { offer.len.min(asked.len) };
    match recv(asked, descriptor, offer.start.as_ptr() as u64, room as usize) {
        Ok(0) => Attempt::Last(0, 0),
        Ok(received) => {
            group.pick();
            let flags = Cqe::picked(offer.bid);
            if asked.ioprio & flag::RECV_MULTISHOT != 0 {
                return Attempt::More(received as i32, flags);
            }
            Attempt::Last(received as i32, flags)
        }
        Err(libc::EAGAIN) => would_wait(asked, descriptor, Side::Read),
        Err(errno) => Attempt::error(errno),
    }
}

/// What the sends have in common: with `MSG_WAITALL` they go on until everything is sent.
#[inline(always)]
fn sent(
    request: &mut Request,
    descriptor: &mut Descriptor,
    len: usize,
    send: impl Fn(usize, i32) -> isize,
) -> Attempt {
    let wanted = request.asked.op_flags as i32;
    let flags = wanted & !libc::MSG_WAITALL | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    loop {
        match uninterrupted(|| send(request.done, flags)) {
            Ok(sent) => {
                request.done += sent;
                let goes_on = wanted & libc::MSG_WAITALL != 0 && sent > 0;
                if !goes_on || request.done >= len {
                    return Attempt::Last(request.done as i32, 0);
                }
            }
            Err(libc::EAGAIN) if request.done > 0 => {
                descriptor.must_wait(Side::Write);
                return Attempt::Wait;
            }
            Err(libc::EAGAIN) => return would_wait(&request.asked, descriptor, Side::Write),
            Err(errno) => return failed(errno, request.done),
        }
    }
}

#[inline(always)]
fn send(request: &mut Request, descriptor: &mut Descriptor) -> Attempt {
    let (fd, start) = (request.asked.fd, request.asked.addr);
    let len = (request.asked.len as usize).min(MOST);
    sent(request, descriptor, len, |done, flags| {
        let rest = (start + done as u64) as *const libc::c_void;
        // SAFETY: I1, I2: the bytes are the request's until its last answer.
        unsafe { libc::send(fd, rest, len - done, flags) }
    })
}

/// Sends what there is room for.
#[inline(always)]
pub(super) fn send_some(fields: &Fields) -> Result<usize, i32> {
    let (start, len) = (fields.addr as *const libc::c_void, fields.len as usize);
    let wanted = fields.op_flags as i32 & !libc::MSG_WAITALL;
    let flags = wanted | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the bytes, or the message, are the caller's until this returns (`Driver::attempt`).
    uninterrupted(|| unsafe {
        match fields.opcode {
            opcode::SendMsg::CODE => libc::sendmsg(fields.fd, start.cast(), flags),
            _ => libc::send(fields.fd, start, len, flags),
        }
    })
}

fn send_message(request: &mut Request, descriptor: &mut Descriptor) -> Attempt {
    let fd = request.asked.fd;
    // SAFETY: I1, I2: the message is the request's until its last answer. This copies it.
    let message = unsafe { *(request.asked.addr as *const libc::msghdr) };
    // SAFETY: I2: the message has so many iovecs.
    let iovecs = unsafe { file::iovecs(message.msg_iov as u64, message.msg_iovlen) };
    let len = file::total(iovecs).min(MOST);
    let attempt = sent(request, descriptor, len, |done, flags| {
        if done == 0 {
            // SAFETY: I1, I2: what the message points at is the request's until its last answer.
            return unsafe { libc::sendmsg(fd, &raw const message, flags) };
        }
        let rest = file::rest(iovecs, done, len - done);
        let mut message = message;
        message.msg_iov = rest.as_ptr().cast_mut();
        message.msg_iovlen = rest.len() as _;
        // What goes along with the first byte has been sent.
        message.msg_control = std::ptr::null_mut();
        message.msg_controllen = 0;
        // SAFETY: as above; the rest lives until the call returns.
        unsafe { libc::sendmsg(fd, &raw const message, flags) }
    });
    let has_to_wait = attempt == Attempt::Wait || attempt == Attempt::error(libc::EAGAIN);
    // SAFETY: I1, I2: the address is the request's until its last answer.
    if has_to_wait && unsafe { family_of(&message) } == Some(libc::AF_UNIX) {
        // The queue of that peer is full, and no event says when it is not. Others' may have room.
        descriptor.set(fact::WRITABLE);
        return if attempt == Attempt::Wait { Attempt::Block } else { attempt };
    }
    attempt
}

/// Accepts one connection. There is no flag that tells the call not to wait, and asking beforehand
/// would be a race with whoever shares the socket, so a listener is switched to `O_NONBLOCK`.
fn accept(asked: &Asked, descriptor: &mut Descriptor) -> Attempt {
    if !descriptor.is(fact::NONBLOCKING) {
        match set_nonblocking(asked.fd, true) {
            Ok(_) => descriptor.set(fact::NONBLOCKING),
            Err(errno) => return Attempt::error(errno),
        }
    }
    let (address, len) = (asked.addr as *mut libc::sockaddr, asked.off as *mut libc::socklen_t);
    let flags = asked.op_flags as i32;
    // SAFETY: I1, I2: the places for the address are the request's, or there are none.
    let accepted =
        uninterrupted(|| unsafe { libc::accept4(asked.fd, address, len, flags) as isize });
    match accepted {
        Ok(fd) if asked.ioprio & flag::ACCEPT_MULTISHOT != 0 => Attempt::More(fd as i32, 0),
        Ok(fd) => Attempt::Last(fd as i32, 0),
        Err(libc::EAGAIN) => {
            descriptor.must_wait(Side::Read);
            let gives_up = asked.ioprio & flag::ACCEPT_DONTWAIT != 0;
            if gives_up { Attempt::error(libc::EAGAIN) } else { Attempt::Wait }
        }
        Err(errno) => Attempt::error(errno),
    }
}

/// Begins to connect, or says what has become of it. The socket is `O_NONBLOCK` only during the
/// call: users may borrow it, and expect it to block, as io_uring leaves it.
fn connect(request: &mut Request, descriptor: &mut Descriptor) -> Attempt {
    let asked = &request.asked;
    if request.done == CONNECTING {
        return connected(asked, descriptor);
    }
    let was_blocking = match set_nonblocking(asked.fd, true) {
        Ok(changed) => changed,
        Err(errno) => return Attempt::error(errno),
    };
    // SAFETY: I1, I2: the address is the request's until its last answer, and so long.
    let result = unsafe { libc::connect(asked.fd, asked.addr as *const _, asked.off as _) };
    let errno = if result < 0 { errno() } else { 0 };
    if was_blocking {
        // It was possible a moment ago.
        let _ = set_nonblocking(asked.fd, false);
    }
    match errno {
        0 => Attempt::Last(0, 0),
        libc::EINPROGRESS => {
            request.done = CONNECTING;
            descriptor.must_wait(Side::Write);
            Attempt::Wait
        }
        // The queue of a local listener is full, and no event says when it is not.
        libc::EAGAIN => Attempt::Block,
        errno => Attempt::error(errno),
    }
}

fn connected(asked: &Asked, descriptor: &mut Descriptor) -> Attempt {
    let (mut error, mut len) = (0_i32, size_of::<i32>() as libc::socklen_t);
    let place = (&raw mut error).cast();
    // SAFETY: `error` is a place for as many bytes as `len` says.
    let result = unsafe {
        libc::getsockopt(asked.fd, libc::SOL_SOCKET, libc::SO_ERROR, place, &raw mut len)
    };
    if result < 0 {
        return Attempt::error(errno());
    }
    if error != 0 {
        return Attempt::error(error);
    }
    // The event may have been about something else.
    let mut peer = [0_u8; 128];
    let mut len = peer.len() as libc::socklen_t;
    // SAFETY: `peer` is a place for as many bytes as `len` says.
    if unsafe { libc::getpeername(asked.fd, peer.as_mut_ptr().cast(), &raw mut len) } == 0 {
        return Attempt::Last(0, 0);
    }
    match errno() {
        libc::ENOTCONN => {
            descriptor.must_wait(Side::Write);
            Attempt::Wait
        }
        errno => Attempt::error(errno),
    }
}

/// Switches `O_NONBLOCK`; whether that changed anything.
fn set_nonblocking(fd: i32, on: bool) -> Result<bool, i32> {
    // SAFETY: the call takes no pointers.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    if flags < 0 {
        return Err(errno());
    }
    let wanted = if on { flags | libc::O_NONBLOCK } else { flags & !libc::O_NONBLOCK };
    if wanted == flags {
        return Ok(false);
    }
    // SAFETY: as above.
    if unsafe { libc::fcntl(fd, libc::F_SETFL, wanted) } < 0 { Err(errno()) } else { Ok(true) }
}

/// Which of the events of a poll are there now.
pub(super) fn ready(fd: i32, events: i16) -> i16 {
    let mut poll = libc::pollfd { fd, events, revents: 0 };
    // SAFETY: one entry, which lives until the call returns.
    let count = unsafe { libc::poll(&raw mut poll, 1, 0) };
    if count > 0 { poll.revents } else { 0 }
}
