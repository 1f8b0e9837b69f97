//! A send that is a lap's only request: a plain system call, before the sleep.
//!
//! Handed over with the enter that sleeps, its own answer would end that sleep at once, and a second
//! enter would have to begin another: two for each message of a server with one busy connection.
//! The plain call costs less than the first of them. In company it would cost more, so a send is
//! kept here until it is known that nothing follows, and if something has come meanwhile, for which
//! the ring is entered at once, it goes along. What has no room goes to the ring after all.
//!
//! Where the last enter has brought one answer, nothing will follow most likely: then the first send
//! is made before it is pushed, and whoever asked needs neither a slot nor a lap for its answer.

use io_uring::opcode;

use super::Uring;
use crate::driver::{Cqe, Fields, Sqe};

/// What the kernel is asked by a plain send; the ring's own flags are none of it.
const PLAIN: u32 = libc::MSG_NOSIGNAL as u32;

/// Whether a plain call can take the request's place.
#[inline]
fn is_plain(sqe: &Sqe) -> bool {
    let fields = Fields::of(sqe);
    fields.opcode == opcode::Send::CODE && fields.op_flags == PLAIN && fields.ioprio == 0
}

impl Uring {
    /// Keeps `sqe` until more is pushed or the lap ends, if it is one that may be alone; `false` if
    /// it is to be queued.
    #[inline]
    pub(super) fn keep_alone(&mut self, sqe: &Sqe) -> bool {
        if std::mem::take(&mut self.nothing_pushed) {
            return self.keep_first(sqe);
        }
        if self.alone.is_some() {
            self.queue_first();
        }
        false
    }

    #[inline(never)]
    fn keep_first(&mut self, sqe: &Sqe) -> bool {
        let keeps = self.sends_alone && is_plain(sqe);
        if keeps {
            self.alone = Some(sqe.clone());
        }
        keeps
    }

    /// The first request of the lap has company.
    #[inline(never)]
    fn queue_first(&mut self) {
        let first = self.alone.take().expect("it was looked at");
        self.queue_counted(first);
    }

    /// Sends what was alone in this lap. Returns whether it was answered.
    #[inline]
    pub(super) fn send_alone(&mut self, answers: &mut Vec<Cqe>) -> bool {
        self.alone.take().is_some_and(|sqe| self.send_unless_entering(sqe, answers))
    }

    /// If something has come meanwhile, the ring is entered without a sleep: the send goes along.
    fn send_unless_entering(&mut self, sqe: Sqe, answers: &mut Vec<Cqe>) -> bool {
        if self.has_come() {
            self.queue_counted(sqe);
            return false;
        }
        let answer = self.send(&sqe);
        match answer {
            Some(answer) => answers.push(answer),
            None => self.queue_counted(sqe),
        }
        answer.is_some()
    }

    /// Makes the send that comes in answer to all that the last enter brought, if that was one answer.
    /// `None` if it is to be pushed as ever.
    pub(super) fn send_at_once(&mut self, sqe: &Sqe) -> Option<Cqe> {
        let is_first = self.nothing_pushed && self.sends_alone;
        if !is_first || !is_plain(sqe) || self.has_come() {
            return None;
        }
        self.nothing_pushed = false;
        self.send(sqe)
    }

    /// The answer; `None` if it would have to wait, or a plain call cannot make it.
    fn send(&mut self, sqe: &Sqe) -> Option<Cqe> {
        let fields = Fields::of(sqe);
        let (start, flags) = (fields.addr as *const libc::c_void, libc::MSG_DONTWAIT);
        let flags = flags | fields.op_flags.cast_signed();
        // SAFETY: I1 and I2: the memory and the descriptor are the payload's, which keeps both until
        // its answer, or the caller's, who does until this returns; and so is the address, if there is
        // one. A registered descriptor has its own number.
        let sent = unsafe {
            let (to, to_len) = (fields.off as *const libc::sockaddr, fields.file_index);
            libc::sendto(fields.fd, start, fields.len as usize, flags, to, to_len)
        };
        let errno = match sent {
            0.. => 0,
            _ => std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO),
        };
        match errno {
            libc::EAGAIN | libc::EINTR | libc::ENOMEM | libc::ENOBUFS => return None,
            // A filter may permit io_uring and not this call.
            libc::EPERM | libc::EACCES | libc::ENOSYS => {
                self.sends_alone = false;
                return None;
            }
            _ => {}
        }
        let result = if errno == 0 { sent as i32 } else { -errno };
        (self.counters.sqes, self.counters.cqes) = (self.counters.sqes + 1, self.counters.cqes + 1);
        Some(Cqe { user_data: fields.user_data, result, flags: 0 })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use io_uring::types;

    use super::super::Sizes;
    use super::*;
    use crate::driver::{Driver, Wait};

    static BYTES: [u8; 4096] = [7; 4096];

    /// A ring whose first enter is behind it, and a pair of sockets.
    fn open() -> (Uring, UnixStream, UnixStream) {
        let mut ring = Uring::new(Sizes::default(), None).expect("io_uring is there");
        ring.enter(Wait::Poll, &mut Vec::new()).unwrap();
        let (here, there) = UnixStream::pair().unwrap();
        (ring, here, there)
    }

    fn send(socket: &UnixStream, user_data: u64, flags: i32) -> Sqe {
        let (start, len) = (BYTES.as_ptr(), BYTES.len() as u32);
        let send = opcode::Send::new(types::Fd(socket.as_raw_fd()), start, len).flags(flags);
        send.build().user_data(user_data)
    }

    fn push(ring: &mut Uring, sqe: Sqe) {
        // SAFETY: the bytes live for ever, and the sockets until their sends are answered.
        unsafe { ring.push(sqe) };
    }

    #[test]
    fn a_send_alone_enters_no_ring() {
        let (mut ring, here, mut there) = open();
        let (before, mut answers) = (ring.counters(), Vec::new());
        push(&mut ring, send(&here, 7, libc::MSG_NOSIGNAL));
        ring.enter(Wait::Block, &mut answers).unwrap();
        assert_eq!(answers, [Cqe { user_data: 7, result: 4096, flags: 0 }]);
        let after = ring.counters();
        assert_eq!(after.enters, before.enters);
        assert_eq!([after.sqes - before.sqes, after.cqes - before.cqes], [1, 1]);
        there.read_exact(&mut [0; 4096]).unwrap();
    }

    #[test]
    fn sends_in_company_and_of_another_kind_go_to_the_ring() {
        let (mut ring, here, mut there) = open();
        let quiet = libc::MSG_NOSIGNAL;
        for flags in
            [vec![quiet, quiet], vec![quiet, quiet, quiet], vec![quiet | libc::MSG_WAITALL]]
        {
            let (enters, mut answers) = (ring.counters().enters, Vec::new());
            for (number, flags) in flags.iter().enumerate() {
                push(&mut ring, send(&here, number as u64, *flags));
            }
            while answers.len() < flags.len() {
                ring.enter(Wait::Block, &mut answers).unwrap();
            }
            assert!(ring.counters().enters > enters);
            let numbers: Vec<u64> = answers.iter().map(|cqe| cqe.user_data).collect();
            assert_eq!(numbers, Vec::from_iter(0..flags.len() as u64), "out of order");
            there.read_exact(&mut vec![0; 4096 * flags.len()]).unwrap();
        }
    }

    #[test]
    fn a_send_goes_along_when_something_has_come() {
        let (mut ring, here, mut there) = open();
        let mut answers = Vec::new();
        let poll = opcode::PollAdd::new(types::Fd(here.as_raw_fd()), libc::POLLIN as u32);
        push(&mut ring, poll.build().user_data(1));
        ring.enter(Wait::Poll, &mut answers).unwrap();
        assert_eq!(answers, []);
        there.write_all(b"!").unwrap();
        push(&mut ring, send(&here, 2, libc::MSG_NOSIGNAL));
        assert!(!ring.send_alone(&mut answers), "it was sent by itself");
        assert_eq!((answers.len(), ring.ring.submission().len()), (0, 1));
        ring.enter(Wait::Block, &mut answers).unwrap();
        let mut numbers: Vec<u64> = answers.iter().map(|cqe| cqe.user_data).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [1, 2], "one enter brings both");
        there.read_exact(&mut [0; 4096]).unwrap();
    }

    /// A ring whose last enter has brought `count` answers.
    fn brought(count: usize) -> (Uring, UnixStream, UnixStream) {
        let (mut ring, here, there) = open();
        let mut answers = Vec::new();
        for number in 0..count {
            push(&mut ring, opcode::Nop::new().build().user_data(number as u64));
        }
        ring.enter(Wait::Poll, &mut answers).unwrap();
        assert_eq!(answers.len(), count);
        (ring, here, there)
    }

    /// As the floor above does it: an attempt, if there may be one, and else a push.
    fn perform(ring: &mut Uring, sqe: Sqe) -> Option<Cqe> {
        if ring.attempts() > 0 {
            // SAFETY: the bytes live for ever, and the sockets as long as the ring is used.
            let answer = unsafe { ring.attempt(sqe.clone()) };
            if answer.is_some() {
                return answer;
            }
        }
        push(ring, sqe);
        None
    }

    #[test]
    fn a_send_after_one_answer_is_answered_at_once_and_those_behind_it_are_not() {
        let (mut ring, here, mut there) = brought(1);
        let (enters, quiet) = (ring.counters().enters, libc::MSG_NOSIGNAL);
        let answer = perform(&mut ring, send(&here, 7, quiet));
        assert_eq!(answer, Some(Cqe { user_data: 7, result: 4096, flags: 0 }));
        assert_eq!(perform(&mut ring, send(&here, 8, quiet)), None);
        assert_eq!(ring.counters().enters, enters);
        there.read_exact(&mut [0; 4096]).unwrap();
        let mut answers = Vec::new();
        ring.enter(Wait::Block, &mut answers).unwrap();
        assert_eq!(answers, [Cqe { user_data: 8, result: 4096, flags: 0 }], "one answer each");
        there.read_exact(&mut [0; 4096]).unwrap();
    }

    #[test]
    fn no_other_request_is_answered_at_once() {
        let quiet = libc::MSG_NOSIGNAL;
        for (count, flags) in [(0, quiet), (2, quiet), (1, quiet | libc::MSG_WAITALL)] {
            let (mut ring, here, _there) = brought(count);
            assert_eq!(perform(&mut ring, send(&here, 7, flags)), None, "after {count}");
        }
        let (mut ring, here, there) = brought(1);
        let poll = opcode::PollAdd::new(types::Fd(here.as_raw_fd()), libc::POLLIN as u32);
        push(&mut ring, poll.build().user_data(1));
        let mut answers = Vec::new();
        ring.enter(Wait::Poll, &mut answers).unwrap();
        push(&mut ring, opcode::Nop::new().build().user_data(2));
        ring.enter(Wait::Poll, &mut answers).unwrap();
        assert_eq!(answers.len(), 1);
        (&there).write_all(b"!").unwrap();
        assert_eq!(perform(&mut ring, send(&here, 7, quiet)), None, "something has come");
    }

    #[test]
    fn a_send_without_room_waits_in_the_ring() {
        let (mut ring, here, mut there) = open();
        let mut answers = Vec::new();
        let mut sent = 0;
        while answers.len() == sent {
            push(&mut ring, send(&here, sent as u64, libc::MSG_NOSIGNAL));
            ring.enter(Wait::Poll, &mut answers).unwrap();
            sent += 1;
        }
        assert!(sent > 2, "the socket had room for nothing");
        let bytes = |answers: &[Cqe]| answers.iter().map(|cqe| cqe.result as usize).sum::<usize>();
        there.read_exact(&mut vec![0; bytes(&answers)]).unwrap();
        while answers.len() < sent {
            ring.enter(Wait::Block, &mut answers).unwrap();
        }
        assert!(answers.iter().all(|cqe| cqe.result > 0), "{answers:?}");
        assert_eq!(answers[sent - 1].user_data, sent as u64 - 1);
    }

    #[test]
    fn a_send_alone_to_nobody_is_answered_with_the_error() {
        let (mut ring, here, there) = open();
        drop(there);
        let mut answers = Vec::new();
        push(&mut ring, send(&here, 7, libc::MSG_NOSIGNAL));
        ring.enter(Wait::Block, &mut answers).unwrap();
        assert_eq!(answers, [Cqe::refusal(7, libc::EPIPE)]);
    }
}
