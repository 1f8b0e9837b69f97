//! Receiving: the operations, and the state of a socket that makes losing datagrams impossible.
//!
//! The receive belongs to the socket, not to the call that waits for it. What it brings waits in its
//! payload until somebody takes it; what was looked at and put back goes to `unread`. Readers take
//! turns, first come first served. All of them receive in the same way: a call that was given a buffer
//! copies, which costs less than a request of its own for each datagram.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};

use io_uring::{opcode, types};

use super::State;
use crate::buf::datagram::{Blank, Datagrams, GROUP};
use crate::buf::pool::Pool;
use crate::buf::{BufError, BufResult, Filling, IoBufMut};
use crate::driver::{Cqe, Sqe};
use crate::net::{Datagram, options};
use crate::op::{Answers, Multishot, Next, Op, Submission};
use crate::sync::turn::Turns;
use crate::sys::current;
use crate::sys::fd::Fd;
use crate::sys::overdue::or_timed_out;

/// Datagrams that may wait for a reader; then the receive is stopped until they were taken, and more
/// wait in the kernel, which drops what finds no room there.
const PARKED_AT_MOST: usize = 64;

/// The receiving half of a socket's state.
#[derive(Default)]
pub(super) struct Inbound {
    /// Whose turn it is to receive, and what arrived for nobody, oldest first.
    turns: Turns<1, VecDeque<Datagram>>,
    /// The multishot receive, from the first receive on.
    armed: Cell<Option<Answers<ReceiveMany>>>,
}

impl Inbound {
    /// Ends the receive that belongs to the socket, whose handle is gone.
    pub(super) fn disarm(&self) {
        drop(self.armed.take());
    }
}

/// The turn to receive. Whoever holds it may touch `armed` and submit a receive.
struct Reading(Fd<State>);

impl Reading {
    async fn take(fd: &Fd<State>) -> Reading {
        fd.inbound.turns.turn(0).take().await;
        Reading(fd.clone())
    }

    /// Takes what has arrived, or starts the receive that belongs to the socket and waits for it.
    fn poll_next(&self, context: &mut Context<'_>) -> Poll<Ended> {
        let inbound = &self.0.inbound;
        if let Some(datagram) = inbound.turns.if_any(VecDeque::pop_front) {
            return Poll::Ready(Ended::Datagram(datagram));
        }
        let answers = match inbound.armed.take() {
            Some(answers) => answers,
            None => match self.start(context) {
                Ok(answers) => answers,
                Err(ended) => return Poll::Ready(ended),
            },
        };
        match answers.poll_in(&inbound.armed, context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Next::Item(datagram)) => Poll::Ready(Ended::Datagram(datagram)),
            Poll::Ready(Next::End(ended)) => Poll::Ready(ended),
        }
    }

    /// Starts the multishot receive.
    #[cold]
    fn start(&self, context: &mut Context<'_>) -> Result<Answers<ReceiveMany>, Ended> {
        let pool = current::share::<Pool>().ok_or(Ended::Starved)?;
        let datagrams = options::ring("a receive", |ring| ring.provide_datagrams(&pool));
        let datagrams = datagrams.ok_or(Ended::Starved)?;
        let parked = VecDeque::new();
        Answers::start(ReceiveMany { fd: self.0.clone(), datagrams, parked }, context)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.inbound.turns.turn(0).release();
    }
}

/// The next datagram. Dropping the future loses none: they wait in the socket.
pub(super) async fn receive(fd: &Fd<State>) -> io::Result<Datagram> {
    or_timed_out(next(fd)).await
}

async fn next(fd: &Fd<State>) -> io::Result<Datagram> {
    let reading = Reading::take(fd).await;
    loop {
        match poll_fn(|context| reading.poll_next(context)).await {
            Ended::Datagram(datagram) => return Ok(datagram),
            Ended::Error(error) => return Err(error),
            Ended::Stopped => {}
            Ended::Starved => break,
        }
    }
    Submission::new(ReceiveOne { reading, blank: Blank::new() }).await
}

/// The next datagram in `buf`, and who sent it.
pub(super) async fn receive_into<B: IoBufMut>(
    fd: &Fd<State>,
    buf: B,
) -> BufResult<(usize, SocketAddr), B> {
    match receive(fd).await {
        Ok(datagram) => copy(&datagram, buf),
        Err(error) => Err(BufError { error, buf, done: 0 }),
    }
}

/// As [`receive_into`]; the next receive gets the same datagram again.
pub(super) async fn peek_into<B: IoBufMut>(
    fd: &Fd<State>,
    buf: B,
) -> BufResult<(usize, SocketAddr), B> {
    match receive(fd).await {
        Ok(datagram) => {
            let result = copy(&datagram, buf);
            // Nobody else has run since it was taken, so it is still the next.
            fd.inbound.turns.with_rest(|unread| unread.push_front(datagram));
            result
        }
        Err(error) => Err(BufError { error, buf, done: 0 }),
    }
}

fn copy<B: IoBufMut>(datagram: &Datagram, buf: B) -> BufResult<(usize, SocketAddr), B> {
    let mut filling = Filling::new(buf);
    let done = filling.copy(datagram);
    let buf = filling.finish();
    if done < datagram.len() {
        let error = io::Error::from_raw_os_error(libc::EMSGSIZE);
        return Err(BufError { error, buf, done });
    }
    Ok(((done, datagram.from()), buf))
}

/// `IORING_OP_RECVMSG` with `RECV_MULTISHOT` and buffer selection, kernel 6.0: receives until it is
/// stopped, each time into a buffer of the core that is picked when the datagram is there.
struct ReceiveMany {
    fd: Fd<State>,
    datagrams: Rc<Datagrams>,
    parked: VecDeque<Datagram>,
}

const _: () = assert!(size_of::<ReceiveMany>() <= 88, "it lies in its slot");

/// What a multishot receive brings, or why it ended.
enum Ended {
    Datagram(Datagram),
    Error(io::Error),
    /// For no reason, or by our own cancel: it may be started again.
    Stopped,
    /// There are no buffers, or none is left and there cannot be more.
    Starved,
}

impl ReceiveMany {
    /// Keeps what an answer hands over: also failed receives may have picked a buffer.
    fn park(&mut self, cqe: &Cqe) {
        let lease = cqe.buffer().and_then(|bid| self.datagrams.lease(bid, cqe.result));
        self.parked.extend(lease);
    }
}

// SAFETY: I2: the request points at the shape that `datagrams` keeps (the kernel picks a buffer of the
// registered ring, which the core keeps), and `fd` keeps the descriptor open.
unsafe impl Op for ReceiveMany {
    type Output = Ended;

    fn prepare(&mut self) -> Sqe {
        let shape = self.datagrams.shape();
        opcode::RecvMsgMulti::new(types::Fd(self.fd.raw()), shape, GROUP).build()
    }

    fn more(&mut self, cqe: Cqe) -> bool {
        self.park(&cqe);
        self.parked.len() < PARKED_AT_MOST
    }

    fn again(&mut self, cqe: &Cqe) -> bool {
        match cqe.result().map_err(|error| error.raw_os_error()) {
            Err(Some(libc::EINTR)) => true,
            Err(Some(libc::ENOBUFS)) => self.datagrams.grow(),
            // It ended with a datagram and without an error: the queue of answers had overflowed, or
            // the datagram is empty, which the kernel takes for the end of a stream.
            Ok(_) if self.parked.len() < PARKED_AT_MOST => {
                self.park(cqe);
                true
            }
            _ => false,
        }
    }

    fn complete(mut self, cqe: Cqe) -> Ended {
        self.park(&cqe);
        match (self.parked.pop_front(), cqe.result()) {
            (Some(datagram), _) => Ended::Datagram(datagram),
            (None, Ok(_)) => Ended::Stopped,
            (None, Err(error)) => match error.raw_os_error() {
                Some(libc::ECANCELED) => Ended::Stopped,
                Some(libc::ENOBUFS) => Ended::Starved,
                _ => Ended::Error(error),
            },
        }
    }
}

impl Multishot for ReceiveMany {
    type Item = Datagram;

    #[inline]
    fn pop(&mut self) -> Option<Datagram> {
        self.parked.pop_front()
    }
}

/// `IORING_OP_RECVMSG`, kernel 5.3: one receive into heap memory.
struct ReceiveOne {
    reading: Reading,
    blank: Blank,
}

// SAFETY: I2: the request points into `blank`, whose pointers are made when this is in its place, and
// `reading` keeps the descriptor open.
unsafe impl Op for ReceiveOne {
    type Output = io::Result<Datagram>;

    fn prepare(&mut self) -> Sqe {
        let header = self.blank.header();
        opcode::RecvMsg::new(types::Fd(self.reading.0.raw()), header).build()
    }

    fn complete(self, cqe: Cqe) -> Self::Output {
        let received = cqe.result()?;
        Ok(self.blank.fill(received as usize))
    }

    fn abandon(self, cqe: Cqe) {
        let fd = self.reading.0.clone();
        if let Ok(received) = cqe.result() {
            let datagram = self.blank.fill(received as usize);
            fd.inbound.turns.with_rest(|unread| unread.push_back(datagram));
        }
    }
}
