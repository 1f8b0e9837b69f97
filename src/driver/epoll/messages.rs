//! Several datagrams with one system call, both ways.
//!
//! A receive that goes on picks as many buffers as there were datagrams lately, and one more: what it
//! leaves empty says that nothing is left, and the call that would only say so is spared. Sends are
//! kept until the lap ends where several answers are on their way, since more sends follow them then.

use std::mem::MaybeUninit;

use io_uring::opcode;

use super::Epoll;
use super::attempt::{Attempt, uninterrupted, would_wait};
use super::descriptors::{Side, fact};
use super::requests::Asked;
use super::way::TURN;
use crate::driver::Cqe;
use crate::driver::pad::message::{Layout, family_of};
use crate::driver::pad::provided::{Offer, Provided};

/// Datagrams that one call takes along at most.
const MOST: usize = TURN as usize;

/// How many datagrams the next call has room for.
pub(super) struct Room {
    next: u16,
    most: u16,
}

impl Default for Room {
    fn default() -> Self {
        Room { next: 2, most: MOST as u16 }
    }
}

impl Room {
    /// Makes room for one more than came, or for twice as many if that may have been too little.
    fn came(&mut self, count: u16, asked: u16) {
        let next = if count == asked { 2 * count } else { count + 1 };
        self.next = next.clamp(1, self.most);
    }

    /// A filter does not know the call that takes several.
    fn only_one(&mut self) {
        (self.next, self.most) = (1, 1);
    }
}

/// Sends to one descriptor that wait for the end of the lap, and the headers for their call.
#[derive(Default)]
pub(super) struct Outgoing {
    asked: Vec<Asked>,
    headers: Vec<libc::mmsghdr>,
}

impl Outgoing {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.asked.is_empty()
    }

    fn takes(&self, asked: &Asked) -> bool {
        let fits = |first: &Asked| (first.fd, first.op_flags) == (asked.fd, asked.op_flags);
        self.asked.len() < MOST && self.asked.first().is_none_or(fits)
    }
}

impl Epoll {
    /// Receives as many datagrams as there are, but not more than `most`, and answers with each. With
    /// none the request has to wait.
    ///
    /// # Errors
    /// The errno that the request comes to.
    pub(super) fn receive_messages(&mut self, asked: &Asked, most: u32) -> Result<u32, i32> {
        let descriptor = self.descriptors.known(asked.fd);
        let group = Provided::of_group(&mut self.provided, asked.buf_index);
        let group = group.filter(|group| group.offered() > 0);
        let group = group.ok_or(libc::ENOBUFS)?;
        let layout = Layout::of(asked.addr).ok_or(libc::EFAULT)?;

        let count = self.room.next.min(most as u16).min(group.offered());
        let mut iovecs = [const { MaybeUninit::<libc::iovec>::uninit() }; MOST];
        let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; MOST];
        for (index, (header, iovec)) in (0..count).zip(headers.iter_mut().zip(&mut iovecs)) {
            let Offer { start, len, .. } = group.peek_at(index).expect("so many are on offer");
            let msg_hdr = layout.header(start.as_ptr(), len as usize, iovec.as_mut_ptr());
            let msg_hdr = msg_hdr.ok_or(libc::EFAULT)?;
            header.write(libc::mmsghdr { msg_hdr, msg_len: 0 });
        }
        let received = match receive(asked, &mut headers, count) {
            Err(libc::ENOSYS | libc::EPERM) if count > 1 => {
                self.room.only_one();
                receive(asked, &mut headers, 1)
            }
            received => received,
        };
        let received = match received {
            Err(libc::EAGAIN) if would_wait(asked, descriptor, Side::Read) == Attempt::Wait => 0,
            received => received?,
        };
        if received == 0 {
            return Ok(0);
        }
        for header in &headers[..usize::from(received)] {
            // SAFETY: the headers of what was received were written above.
            let header = unsafe { header.assume_init_ref() };
            let Offer { start, bid, .. } = group.peek().expect("so many are on offer");
            group.pick();
            let len = header.msg_len as usize;
            let result = layout.complete(start.as_ptr(), &header.msg_hdr, len);
            let flags = Cqe::picked(bid) | Cqe::MORE;
            self.answered.push(Cqe { user_data: asked.user_data, result, flags });
        }
        self.counters.cqes += u64::from(received);
        if received < count && !descriptor.is(fact::ENDING) {
            descriptor.must_wait(Side::Read);
        }
        self.room.came(received, count);
        Ok(received.into())
    }

    /// Whether the send waits for the end of the lap, because others come with it most likely.
    #[inline]
    pub(super) fn is_kept(&self, asked: &Asked) -> bool {
        self.brought > 1 && is_datagram(asked)
    }

    /// Keeps a send until the lap ends; `false` if it is to be tried now.
    #[inline]
    pub(super) fn keep(&mut self, asked: &Asked) -> bool {
        let is_kept = self.is_kept(asked);
        if is_kept {
            self.keep_in_company(asked);
        }
        is_kept
    }

    #[inline(never)]
    fn keep_in_company(&mut self, asked: &Asked) {
        if !self.outgoing.takes(asked) {
            self.send_kept();
        }
        // SAFETY: I1, I2: the message is the request's until its last answer.
        let msg_hdr = unsafe { *(asked.addr as *const libc::msghdr) };
        self.outgoing.asked.push(*asked);
        self.outgoing.headers.push(libc::mmsghdr { msg_hdr, msg_len: 0 });
    }

    /// Sends what was kept.
    #[inline]
    pub(super) fn send_kept(&mut self) {
        if !self.outgoing.is_empty() {
            self.send_messages();
        }
    }

    #[inline(never)]
    fn send_messages(&mut self) {
        let mut outgoing = std::mem::take(&mut self.outgoing);
        let first = outgoing.asked[0];
        let descriptor = self.descriptors.entry(first.fd);
        let is_clear = descriptor.is_some_and(|descriptor| descriptor.is_clear(Side::Write));
        let together = is_clear && outgoing.asked.len() > 1;
        let sent = if together { send(&first, &mut outgoing.headers) } else { 0 };
        for (asked, header) in outgoing.asked.iter().zip(&outgoing.headers).take(sent) {
            self.answer(asked, header.msg_len.cast_signed(), 0);
        }
        // Each of the others learns by itself what is in its way.
        for &asked in &outgoing.asked[sent..] {
            self.start(asked, Side::Write);
        }
        outgoing.asked.clear();
        outgoing.headers.clear();
        self.outgoing = outgoing;
    }
}

/// Whether the request sends a datagram over a network: its sends cannot be parted, and events say
/// when there is room.
fn is_datagram(asked: &Asked) -> bool {
    let goes_on = asked.op_flags.cast_signed() & libc::MSG_WAITALL != 0;
    if asked.opcode != opcode::SendMsg::CODE || goes_on {
        return false;
    }
    // SAFETY: I1, I2: the message, and the address, are the request's until its last answer.
    let family = unsafe { family_of(&*(asked.addr as *const libc::msghdr)) };
    matches!(family, Some(libc::AF_INET | libc::AF_INET6))
}

fn receive(
    asked: &Asked,
    headers: &mut [MaybeUninit<libc::mmsghdr>; MOST],
    count: u16,
) -> Result<u16, i32> {
    let flags = asked.op_flags.cast_signed() | libc::MSG_DONTWAIT;
    let (first, no_timeout) = (headers.as_mut_ptr().cast::<libc::mmsghdr>(), std::ptr::null_mut());
    // SAFETY: I1, I2: so many headers were written, and lead into buffers on offer, which nobody
    // else uses.
    let received = uninterrupted(|| unsafe {
        match count {
            1 => {
                let received = libc::recvmsg(asked.fd, &raw mut (*first).msg_hdr, flags);
                (*first).msg_len = received as u32;
                // An empty one is one too.
                if received < 0 { received } else { 1 }
            }
            _ => libc::recvmmsg(asked.fd, first, count.into(), flags as _, no_timeout) as isize,
        }
    });
    received.map(|received| received as u16)
}

/// How many of the messages were sent, from the first on.
fn send(first: &Asked, headers: &mut [libc::mmsghdr]) -> usize {
    let flags = first.op_flags.cast_signed() | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let (start, count) = (headers.as_mut_ptr(), headers.len() as u32);
    // SAFETY: I1, I2: what the headers point at is their requests' until the last answers.
    let sent =
        uninterrupted(|| unsafe { libc::sendmmsg(first.fd, start, count, flags as _) as isize });
    // The error, if it was none that goes by, comes again for the request that it is about.
    sent.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::{AsRawFd, IntoRawFd};
    use std::rc::Rc;

    use io_uring::squeue;
    use io_uring::types::Fd;

    use super::super::tests::Kernel;
    use super::*;
    use crate::buf::datagram::{Datagram, Datagrams, GROUP};
    use crate::buf::pool::{self, Pool};
    use crate::driver::{Call, Driver, Wait};
    use crate::sys::addr::Address;

    static BYTES: [u8; 70_000] = [7; 70_000];
    const QUIET: u32 = libc::MSG_NOSIGNAL.cast_unsigned();

    fn socket() -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    }

    /// A message, and what it points at.
    struct Message {
        header: libc::msghdr,
        iovec: libc::iovec,
        to: Address,
    }

    impl Message {
        /// The first `len` of the bytes.
        fn new(len: usize, to: &UdpSocket) -> Box<Message> {
            let iovec = libc::iovec { iov_base: BYTES.as_ptr().cast_mut().cast(), iov_len: len };
            let to = Address::from(to.local_addr().unwrap());
            // SAFETY: all-zero bytes are a valid header.
            let header = unsafe { std::mem::zeroed() };
            let mut message = Box::new(Message { header, iovec, to });
            message.header.msg_name = message.to.as_bytes().as_ptr().cast_mut().cast();
            message.header.msg_namelen = message.to.as_bytes().len() as _;
            message.header.msg_iov = &raw mut message.iovec;
            message.header.msg_iovlen = 1;
            message
        }

        fn send(&self, from: &UdpSocket) -> squeue::Entry {
            opcode::SendMsg::new(Fd(from.as_raw_fd()), &raw const self.header).flags(QUIET).build()
        }
    }

    /// A kernel whose last enter has brought two answers.
    fn in_company() -> Kernel {
        let mut kernel = Kernel::new();
        for user_data in [100, 101] {
            kernel.push(&opcode::Nop::new().build(), user_data);
        }
        kernel.enter(Wait::Poll);
        assert_eq!(std::mem::take(&mut kernel.answers).len(), 2);
        kernel
    }

    fn received(socket: &UdpSocket) -> Vec<usize> {
        let mut room = vec![0; BYTES.len()];
        std::iter::from_fn(|| socket.recv(&mut room).ok()).collect()
    }

    fn results(kernel: &mut Kernel) -> Vec<(u64, i32)> {
        kernel.look().iter().map(|cqe| (cqe.user_data, cqe.result)).collect()
    }

    #[test]
    fn sends_in_company_wait_for_the_end_of_the_lap_and_keep_their_order() {
        let (mut kernel, from, to) = (in_company(), socket(), socket());
        let messages: Vec<_> = (1..=40).map(|len| Message::new(len, &to)).collect();
        for (message, user_data) in messages.iter().zip(1..) {
            kernel.push(&message.send(&from), user_data);
        }
        assert_eq!(received(&to).len(), 2 * MOST, "a third batch is kept");
        assert_eq!(results(&mut kernel), (1..=40).map(|n| (n, n as i32)).collect::<Vec<_>>());
        assert_eq!(received(&to), (2 * MOST + 1..=40).collect::<Vec<_>>());
    }

    #[test]
    fn a_send_is_tried_at_once_alone_and_not_in_company() {
        let (from, to) = (socket(), socket());
        let message = Message::new(3, &to);
        for (mut kernel, expected) in [(Kernel::new(), Some(3)), (in_company(), None)] {
            // SAFETY: the message outlives the attempt.
            let answer = unsafe { kernel.driver.attempt(message.send(&from)) };
            assert_eq!(answer.map(|cqe| cqe.result), expected);
        }
        let mut kernel = Kernel::new();
        kernel.push(&message.send(&from), 1);
        assert_eq!(received(&to), [3, 3]);
        assert_eq!(kernel.result(1), 3);
    }

    /// Asks for something, and what is received by then.
    type Ask<'a> = (&'a dyn Fn(&mut Kernel), &'a [usize]);

    #[test]
    fn what_is_asked_behind_kept_sends_comes_behind_them() {
        let (from, to, other) = (socket(), socket(), socket());
        from.connect(to.local_addr().unwrap()).unwrap();
        let (message, elsewhere) = (Message::new(3, &to), Message::new(4, &other));
        let send = opcode::Send::new(Fd(from.as_raw_fd()), BYTES.as_ptr(), 5).build();
        let cancel = opcode::AsyncCancel::new(1).build();
        let behind: [Ask<'_>; 4] = [
            (&|kernel| kernel.push(&send, 2), &[3, 5]),
            (&|kernel| kernel.push(&elsewhere.send(&other), 2), &[3]),
            (&|kernel| assert_eq!(kernel.ask(&cancel), -libc::ENOENT), &[3]),
            (
                &|kernel| {
                    let fd = from.try_clone().unwrap().into_raw_fd();
                    kernel.driver.call(Call::Close { fd }).unwrap();
                },
                &[3],
            ),
        ];
        for (number, (ask, expected)) in behind.into_iter().enumerate() {
            let mut kernel = in_company();
            kernel.push(&message.send(&from), 1);
            assert!(received(&to).is_empty(), "{number}");
            // SAFETY: the bytes live for ever.
            assert_eq!(unsafe { kernel.driver.attempt(send.clone()) }, None, "{number}");
            ask(&mut kernel);
            assert_eq!(received(&to), expected, "{number}");
            assert_eq!(kernel.result(1), 3);
        }
    }

    #[test]
    fn a_send_that_fails_is_the_only_one() {
        let (mut kernel, from, to) = (in_company(), socket(), socket());
        let messages = [1, BYTES.len(), 2, BYTES.len()].map(|len| Message::new(len, &to));
        for (message, user_data) in messages.iter().zip(1..) {
            kernel.push(&message.send(&from), user_data);
        }
        let too_long = -libc::EMSGSIZE;
        assert_eq!(results(&mut kernel), [(1, 1), (2, too_long), (3, 2), (4, too_long)]);
        assert_eq!(received(&to), [1, 2]);
    }

    /// Has the kernel receive datagrams of `lens`, and says what came.
    fn receive_all(kernel: &mut Kernel, datagrams: &Rc<Datagrams>, lens: &[usize]) {
        let (from, to) = (socket(), socket());
        let from_address = from.local_addr().unwrap();
        let receive = opcode::RecvMsgMulti::new(Fd(to.as_raw_fd()), datagrams.shape(), GROUP);
        kernel.push(&receive.build(), 1);
        kernel.assert_quiet();
        for lens in [lens, &lens[..1], lens] {
            for &len in lens {
                from.send_to(&BYTES[..len], to.local_addr().unwrap()).unwrap();
            }
            let leases = lens.iter().map(|_| {
                let cqe = kernel.answer(1);
                assert!(cqe.has_more());
                datagrams.lease(cqe.buffer().unwrap(), cqe.result).unwrap()
            });
            let got: Vec<Datagram> = leases.collect();
            assert!(got.iter().all(|it| it.from() == from_address && **it == BYTES[..it.len()]));
            assert_eq!(got.iter().map(|it| it.len()).collect::<Vec<_>>(), lens);
            kernel.assert_quiet();
        }
        assert_eq!(kernel.ask(&opcode::AsyncCancel::new(1).build()), 0);
        assert_eq!(kernel.result(1), -libc::ECANCELED);
        kernel.driver.forget(to.as_raw_fd());
    }

    #[test]
    fn datagrams_are_received_in_their_order_one_or_many_with_a_call() {
        let mut kernel = Kernel::new();
        let pool = Pool::new(pool::MOST).unwrap();
        // SAFETY: the pool outlives the kernel's use of it.
        let register = |resource| unsafe { kernel.driver.register(resource) };
        let datagrams = pool.make_datagrams(register, |error| panic!("{error}")).unwrap();
        let many: Vec<usize> = (0..50).map(|number| number * 31 % 17 * 40).collect();
        assert!(many.contains(&0), "an empty one is one too");
        receive_all(&mut kernel, datagrams, &many);
        assert!(kernel.driver.room.next > 1);
        kernel.driver.room.only_one();
        receive_all(&mut kernel, datagrams, &many);
        assert_eq!(kernel.driver.room.next, 1);
        // SAFETY: it names memory only to end its use.
        unsafe { kernel.driver.register(datagrams.removal()) }.unwrap();
    }

    #[test]
    fn there_is_room_for_one_more_than_came_lately() {
        let mut room = Room::default();
        let nexts = [(2, 2), (4, 4), (8, 8), (16, 16), (0, 16), (1, 1), (1, 2), (3, 16)];
        let nexts = nexts.map(|(came, asked)| {
            room.came(came, asked);
            room.next
        });
        assert_eq!(nexts, [4, 8, 16, 16, 1, 2, 2, 4]);
    }
}
