//! A request's way from its push to where it waits, and to its answer.

use std::io;
use std::os::fd::RawFd;

use io_uring::opcode;

use super::attempt::{self, Attempt, attempt};
use super::descriptors::{Side, fact};
use super::requests::{self, Asked, Key, Place, Request};
use super::{Epoll, LONGEST_AT_ONCE, file};
use crate::driver::sqe::flag;
use crate::driver::{Cqe, Fields};

/// Answers that one descriptor gets in a row, before the others have their turn: 64 KiB of a stream.
pub(super) const TURN: u32 = 16;

impl Epoll {
    /// Makes a short send that does not have to wait, in as few steps as there are. What it leaves is
    /// sent by whoever asked.
    pub(super) fn send_at_once(&mut self, fields: &Fields) -> Option<Cqe> {
        // The length of a message is the number of its pieces.
        let is_send = matches!(fields.opcode, opcode::Send::CODE | opcode::SendMsg::CODE);
        let is_plain = is_send && fields.flags == 0 && fields.ioprio == 0;
        if !is_plain || fields.len > LONGEST_AT_ONCE || !self.outgoing.is_empty() {
            return None;
        }
        if self.is_kept(&Asked::of(fields)) {
            return None;
        }
        let descriptor = self.descriptors.entry(fields.fd)?;
        if !descriptor.is_clear(Side::Write) {
            return None;
        }
        let result = match attempt::send_some(fields) {
            Ok(sent) => sent as i32,
            Err(libc::EAGAIN) => {
                descriptor.must_wait(Side::Write);
                return None;
            }
            Err(errno) => -errno,
        };
        (self.counters.sqes, self.counters.cqes) = (self.counters.sqes + 1, self.counters.cqes + 1);
        Some(Cqe { user_data: fields.user_data, result, flags: 0 })
    }

    /// Tries a request, and if it has to wait, has it wait.
    #[inline(always)]
    pub(super) fn start(&mut self, asked: Asked, side: Side) {
        let Some(descriptor) = self.descriptors.entry(asked.fd) else {
            return self.answer(&asked, -libc::EBADF, 0);
        };
        let mut request = Request::new(asked);
        if descriptor.is_clear(side) {
            match attempt(&mut request, descriptor, &mut self.provided) {
                Attempt::Last(result, flags) => return self.answer(&asked, result, flags),
                Attempt::More(result, flags) => self.answer(&asked, result, flags | Cqe::MORE),
                Attempt::Block => return self.hand_over(request),
                Attempt::Wait | Attempt::Several => {}
            }
        }
        if self.enqueue(request, side) {
            self.turn(asked.fd, side);
        }
    }

    /// Has a request wait for its descriptor; false if it has had its last answer instead.
    pub(super) fn enqueue(&mut self, mut request: Request, side: Side) -> bool {
        let asked = request.asked;
        if let Err(error) = self.watch(asked.fd) {
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            let result = if request.done > 0 { request.done as i32 } else { -errno };
            self.answer(&asked, result, 0);
            return false;
        }
        let is_file = matches!(
            asked.opcode,
            opcode::Read::CODE | opcode::Readv::CODE | opcode::Write::CODE | opcode::Writev::CODE
        );
        if is_file && self.descriptors.known(asked.fd).is(fact::UNWATCHABLE) {
            self.hand_over(request);
            return false;
        }
        request.place = Place::Queue(side);
        let key = self.requests.insert(request);
        self.descriptors.known(asked.fd).queue(side).push(key, &mut self.requests);
        true
    }

    /// Has epoll watch a descriptor, if it does not yet.
    pub(super) fn watch(&mut self, fd: RawFd) -> io::Result<()> {
        let descriptor = self.descriptors.known(fd);
        if descriptor.is(fact::WATCHED | fact::UNWATCHABLE) {
            return Ok(());
        }
        match self.poller.add(fd) {
            Ok(()) => descriptor.set(fact::WATCHED),
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                descriptor.set(fact::UNWATCHABLE);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Has a thread do what may block.
    pub(super) fn hand_over(&mut self, mut request: Request) {
        request.place = Place::Thread { cancelled: false };
        let key = self.requests.insert(request);
        let submitted = self.blocking.submit(u64::from(key), file::Call::new(&request));
        if let Err(error) = submitted {
            self.requests.remove(key);
            self.answer(&request.asked, -error.raw_os_error().unwrap_or(libc::EAGAIN), 0);
        }
    }

    /// Lets the requests of one side of a descriptor try, as long as that may succeed and it is fair.
    #[inline]
    pub(super) fn turn(&mut self, fd: RawFd, side: Side) {
        let mut left = TURN;
        while left > 0 {
            let descriptor = self.descriptors.known(fd);
            let Some(key) = descriptor.first(side) else { return };
            if !descriptor.may(side) {
                return;
            }
            let request = self.requests.get(key);
            let asked = request.asked;
            left -= 1;
            match attempt(request, descriptor, &mut self.provided) {
                Attempt::More(result, flags) => self.answer(&asked, result, flags | Cqe::MORE),
                Attempt::Last(result, flags) => {
                    self.dequeue(key, side);
                    self.answer(&asked, result, flags);
                }
                Attempt::Block => {
                    let request = self.dequeue(key, side);
                    self.hand_over(request);
                }
                Attempt::Wait => return,
                Attempt::Several => match self.receive_messages(&asked, left + 1) {
                    Ok(0) => return,
                    Ok(received) => left -= received - 1,
                    Err(errno) => {
                        self.dequeue(key, side);
                        self.answer(&asked, -errno, 0);
                    }
                },
            }
        }
        let descriptor = self.descriptors.known(fd);
        if !descriptor.is(fact::HOT) {
            descriptor.set(fact::HOT);
            self.hot.push(fd);
        }
    }

    pub(super) fn dequeue(&mut self, key: Key, side: Side) -> Request {
        let fd = self.requests.get(key).asked.fd;
        self.descriptors.known(fd).queue(side).remove(key, &mut self.requests);
        self.requests.remove(key)
    }

    #[inline]
    pub(super) fn answer(&mut self, asked: &Asked, result: i32, flags: u32) {
        self.counters.cqes += 1;
        if asked.opcode == opcode::Accept::CODE && result >= 0 {
            let is_tcp = self.descriptors.known(asked.fd).is(fact::TCP);
            self.opened(result, is_tcp);
        }
        self.answered.push(Cqe { user_data: asked.user_data, result, flags });
    }

    /// A number has been given out: what was known of it, if anything, is about another file.
    pub(super) fn opened(&mut self, fd: RawFd, is_tcp: bool) {
        self.forget(fd);
        if is_tcp && let Some(descriptor) = self.descriptors.entry(fd) {
            descriptor.set(fact::TCP);
        }
    }

    /// A number is about to be free, or was freed by somebody else.
    pub(super) fn forget(&mut self, fd: RawFd) {
        let Some(mut descriptor) = self.descriptors.forget(fd) else { return };
        if descriptor.is(fact::WATCHED) {
            self.poller.remove(fd);
        }
        // Whoever has requests in flight keeps the descriptor open; if not, they end here.
        for side in [Side::Read, Side::Write, Side::Any] {
            while let Some(key) = descriptor.first(side) {
                descriptor.queue(side).remove(key, &mut self.requests);
                let request = self.requests.remove(key);
                self.answer_cancelled(&request);
            }
        }
    }

    pub(super) fn poll(&mut self, asked: Asked) {
        if self.descriptors.entry(asked.fd).is_none() {
            return self.answer(&asked, -libc::EBADF, 0);
        }
        // Watched first, or what happens after the look would be lost.
        if self.enqueue(Request::new(asked), Side::Any) {
            self.look(asked.fd);
        }
    }

    /// Answers the polls of a descriptor whose events are there.
    pub(super) fn look(&mut self, fd: RawFd) {
        let mut next = self.descriptors.known(fd).first(Side::Any);
        while let Some(key) = next {
            let Request { asked, next: after, .. } = *self.requests.get(key);
            next = (after != requests::NONE).then_some(after);
            let ready = attempt::ready(fd, asked.op_flags as i16);
            if ready == 0 {
                continue;
            }
            let ready = i32::from(ready.cast_unsigned());
            if asked.len & flag::POLL_MULTI != 0 {
                self.answer(&asked, ready, Cqe::MORE);
            } else {
                self.dequeue(key, Side::Any);
                self.answer(&asked, ready, 0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use io_uring::types::Fd;

    use super::*;
    use crate::driver::{Driver, Sqe, Wait};

    static BYTES: [u8; 64 * 1024] = [7; 64 * 1024];

    fn send(socket: &UnixStream, len: u32, flags: i32) -> Sqe {
        let send = opcode::Send::new(Fd(socket.as_raw_fd()), BYTES.as_ptr(), len).flags(flags);
        send.build().user_data(7)
    }

    fn attempt(kernel: &mut Epoll, sqe: Sqe) -> Option<i32> {
        // SAFETY: the bytes live for ever.
        unsafe { kernel.attempt(sqe) }.map(|cqe| cqe.result)
    }

    #[test]
    fn a_short_send_is_made_at_once_and_leaves_nothing() {
        let mut kernel = Epoll::new(None).unwrap();
        let (here, mut there) = UnixStream::pair().unwrap();
        assert_eq!(attempt(&mut kernel, send(&here, 5, libc::MSG_NOSIGNAL)), Some(5));
        there.read_exact(&mut [0; 5]).unwrap();
        let mut answers = Vec::new();
        kernel.enter(Wait::Poll, &mut answers).unwrap();
        assert_eq!(answers, []);
        assert_eq!((kernel.counters().sqes, kernel.counters().cqes), (1, 1));
        drop(there);
        assert_eq!(attempt(&mut kernel, send(&here, 5, 0)), Some(-libc::EPIPE));
    }

    #[test]
    fn what_has_to_wait_or_is_long_is_not_asked_at_once() {
        let mut kernel = Epoll::new(None).unwrap();
        let (here, mut there) = UnixStream::pair().unwrap();
        assert_eq!(attempt(&mut kernel, send(&here, BYTES.len() as u32, 0)), None, "it is long");
        let mut sent = 0;
        while let Some(count) = attempt(&mut kernel, send(&here, 10_000, libc::MSG_WAITALL)) {
            sent += count as usize;
        }
        // SAFETY: the bytes live for ever.
        unsafe { kernel.push(send(&here, 10_000, libc::MSG_WAITALL)) };
        assert_eq!(attempt(&mut kernel, send(&here, 1, 0)), None, "another is before it");
        let mut answers = Vec::new();
        while answers.is_empty() {
            there.read_exact(&mut vec![0; sent.min(10_000)]).unwrap();
            sent -= sent.min(10_000);
            kernel.enter(Wait::Poll, &mut answers).unwrap();
        }
        assert_eq!((answers.len(), answers[0].result), (1, 10_000));
        there.read_exact(&mut vec![0; sent + 10_000]).unwrap();
        assert!(there.set_nonblocking(true).is_ok() && there.read(&mut [0]).is_err());
    }
}
