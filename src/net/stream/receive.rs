//! Receiving: the operations, and the state of a stream that makes losing bytes impossible.
//!
//! The receive belongs to the stream, not to the call that waits for it. One is in flight per
//! stream, because two would reorder bytes. What arrives for nobody goes to `unread`, which every
//! later read takes from first; readers take turns, first come first served.
//!
//! A receive that finds no buffer in the core's pool is no error: it goes on in heap memory, once. To
//! wait for a buffer to come home was measured, in line and for no longer than a lap, because whoever
//! has kept them all may be the one that waits: it cost as much, and the longest waits were longer.
//! While the pool is short, receives are started so that they ask for a buffer only when there are
//! bytes: a connection that has none is not starved.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use io_uring::{opcode, types};

use super::State;
use crate::buf::pool::{self, Account, GROUP, Pool, PooledBuf};
use crate::buf::{BufError, BufResult, Filling, IoBufMut, IoVectoredMut, Iovecs, scatter};
use crate::driver::sqe::flag;
use crate::driver::{Cqe, Fields, Sqe};
use crate::op::{Answers, Multishot, Next, Op, Submission};
use crate::sync::turn::Ticket;
use crate::sys::current;
use crate::sys::fd::Fd;
use crate::sys::overdue::{is_overdue, timed_out, unless_overdue};

/// Leases that may wait for a reader; then the receive is stopped until they were taken.
const PARKED_AT_MOST: usize = 64;

/// The receiving half of a stream's state.
#[derive(Default)]
pub(in crate::net) struct Inbound {
    /// The multishot receive, once `recv` has started it.
    armed: Cell<Option<Answers<ReceiveMany>>>,
}

/// What arrived for nobody, oldest first.
#[derive(Default)]
pub(super) struct Unread(VecDeque<PooledBuf>);

impl State {
    #[inline]
    pub(in crate::net) fn pop_unread(&self) -> Option<PooledBuf> {
        self.turns.if_any(|rare| rare.unread.0.pop_front())
    }

    pub(in crate::net) fn return_unread(&self, bytes: PooledBuf) {
        self.turns.with_rest(|rare| rare.unread.0.push_front(bytes));
    }

    fn push_unread(&self, bytes: PooledBuf) {
        self.turns.with_rest(|rare| rare.unread.0.push_back(bytes));
    }

    /// Keeps the account of a receive that has ended for the next one.
    fn keep_account(&self, account: Rc<Account>) {
        self.turns.with_rest(|rare| rare.account = Some(account));
    }

    fn take_account(&self) -> Option<Rc<Account>> {
        self.turns.if_any(|rare| rare.account.take())
    }

    /// How many bytes are unread.
    pub(in crate::net) fn unread_len(&self) -> usize {
        let sum = |Unread(unread): &Unread| unread.iter().map(|bytes| bytes.len()).sum();
        self.turns.if_any(|rare| Some(sum(&rare.unread))).unwrap_or(0)
    }

    /// Keeps bytes for the next read, before all that is unread.
    pub(in crate::net) fn give_back(&self, bytes: &[u8]) {
        for piece in bytes.rchunks(pool::SIZE) {
            self.return_unread(PooledBuf::copied(piece));
        }
    }
}

impl Inbound {
    /// Ends the receive that belongs to the stream, whose handle is gone.
    pub(in crate::net) fn disarm(&self) {
        drop(self.armed.take());
    }

    pub(in crate::net) fn is_armed(&self) -> bool {
        let answers = self.armed.take();
        let armed = answers.is_some();
        self.armed.set(answers);
        armed
    }

    /// Takes what the multishot receive has brought, or waits for it.
    #[inline]
    fn poll(&self, answers: Answers<ReceiveMany>, context: &mut Context<'_>) -> Poll<Ended> {
        match answers.poll_in(&self.armed, context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Next::Item(bytes)) => Poll::Ready(Ended::Bytes(bytes)),
            Poll::Ready(Next::End(ended)) => Poll::Ready(ended),
        }
    }

    /// As `poll`, of a receive that was started before.
    fn poll_armed(&self, context: &mut Context<'_>) -> Poll<Ended> {
        let answers = self.armed.take().expect("the multishot receive was started");
        self.poll(answers, context)
    }
}

/// The turn to receive. Whoever holds it may touch `armed` and submit a receive.
pub(in crate::net) struct Reading(Fd<State>);

impl Reading {
    pub(in crate::net) async fn take(fd: &Fd<State>) -> Reading {
        fd.reading().take().await;
        Reading(fd.clone())
    }

    pub(in crate::net) fn fd(&self) -> &Fd<State> {
        &self.0
    }

    fn inbound(&self) -> &Inbound {
        &self.0.inbound
    }
}

impl Drop for Reading {
    #[inline]
    fn drop(&mut self) {
        self.0.reading().release();
    }
}

/// The next bytes that arrive, as a lease; `None` is the end of the stream.
///
/// Dropping it loses nothing: the receive goes on, and what it brings is there for the next call.
///
/// It is written by hand because a server has one for each idle connection: 32 bytes.
pub(in crate::net) struct Receiving<'a> {
    fd: &'a Fd<State>,
    step: Step,
}

enum Step {
    /// In line for the turn to read.
    Turn(Ticket),
    /// Waiting for what the multishot receive brings.
    Reading(Reading),
    /// The pool has nothing: one receive into heap memory.
    Heap(Box<Submission<Receive<Vec<u8>>>>),
    Done,
}

const _: () = assert!(size_of::<Receiving<'_>>() <= 32);

pub(in crate::net) fn receive(fd: &Fd<State>) -> Receiving<'_> {
    Receiving { fd, step: Step::Turn(None) }
}

impl Future for Receiving<'_> {
    type Output = io::Result<Option<PooledBuf>>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut is_first = false;
        loop {
            let this = &mut *self;
            let result = match &mut this.step {
                Step::Turn(ticket) => match this.fd.reading().poll_take(ticket, context) {
                    Poll::Ready(()) => {
                        this.step = Step::Reading(Reading(this.fd.clone()));
                        is_first = true;
                        continue;
                    }
                    Poll::Pending if is_overdue() => {
                        this.fd.reading().leave(ticket);
                        Err(timed_out())
                    }
                    Poll::Pending => return Poll::Pending,
                },
                Step::Reading(reading) => match reading.poll_next(context) {
                    Poll::Pending if is_overdue() => Err(timed_out()),
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ended::Bytes(bytes)) => Ok(Some(bytes)),
                    Poll::Ready(Ended::Eof) => Ok(None),
                    Poll::Ready(Ended::Error(error)) => Err(error),
                    Poll::Ready(Ended::Stopped) => continue,
                    // An answer from before this call: buffers may have come home since. (On 6.1
                    // a receive that has taken the last one ends so, though nothing more has come.)
                    Poll::Ready(Ended::Starved) if std::mem::take(&mut is_first) => continue,
                    Poll::Ready(Ended::Starved) => {
                        this.turn_to_the_heap();
                        continue;
                    }
                },
                Step::Heap(receive) => {
                    let (_turn, memory, received) = ready!(Pin::new(receive).poll(context));
                    received.map(|count| (count > 0).then(|| to_the_heap(memory.finish())))
                }
                Step::Done => panic!("`recv` was polled after it had completed"),
            };
            match std::mem::replace(&mut self.step, Step::Done) {
                // It is nearly always this one, and then no call of drop glue is needed.
                Step::Reading(reading) => drop(reading),
                other => drop(other),
            }
            return Poll::Ready(result);
        }
    }
}

impl Receiving<'_> {
    /// Bytes have come, and there is no buffer for them.
    #[cold]
    fn turn_to_the_heap(&mut self) {
        let Step::Reading(reading) = std::mem::replace(&mut self.step, Step::Done) else {
            unreachable!("only a receive of the pool finds it empty")
        };
        let receive = Receive { reading, filling: Filling::new(pool::heap()) };
        self.step = Step::Heap(Box::new(Submission::new(receive)));
    }
}

/// Takes over what came without a buffer, and counts that.
#[cold]
fn to_the_heap(memory: Vec<u8>) -> PooledBuf {
    if let Some(pool) = current::share::<Pool>() {
        pool.count_copied();
    }
    PooledBuf::from_heap(memory)
}

impl Drop for Receiving<'_> {
    fn drop(&mut self) {
        if let Step::Turn(ticket) = &mut self.step {
            self.fd.reading().leave(ticket);
        }
    }
}

impl Reading {
    /// Takes what has arrived, or starts the receive that belongs to the stream and waits for it.
    #[inline]
    fn poll_next(&self, context: &mut Context<'_>) -> Poll<Ended> {
        if let Some(bytes) = self.0.pop_unread() {
            return Poll::Ready(Ended::Bytes(bytes));
        }
        let inbound = self.inbound();
        let answers = match inbound.armed.take() {
            Some(answers) => answers,
            None => match self.start(context) {
                Ok(answers) => answers,
                Err(ended) => return Poll::Ready(ended),
            },
        };
        inbound.poll(answers, context)
    }

    /// Starts the multishot receive.
    #[cold]
    fn start(&self, context: &mut Context<'_>) -> Result<Answers<ReceiveMany>, Ended> {
        let pool = current::share::<Pool>().ok_or(Ended::Starved)?;
        let account = self.0.take_account();
        let receive = ReceiveMany { fd: self.0.clone(), pool, account, first: None, more: None };
        Answers::start(receive, context)
    }
}

/// Keeps bytes that a caller puts back for the next read, before all others.
pub(in crate::net) fn unread(fd: &Fd<State>, bytes: PooledBuf) {
    // An empty one would look like bytes to whoever reads.
    if !bytes.is_empty() {
        fd.return_unread(bytes);
    }
}

/// Ends receiving, and gives out what has arrived and was not read.
///
/// # Errors
/// What the last receive answered: the connection is broken.
pub(in crate::net) async fn stop(fd: &Fd<State>) -> io::Result<Vec<u8>> {
    // A read that was dropped has the turn until it has given back what it got.
    let reading = Reading::take(fd).await;
    let inbound = reading.inbound();
    let mut outcome = Ok(());
    while let Some(answers) = inbound.armed.take() {
        // It may have been asked already: then this changes nothing.
        answers.cancel();
        inbound.armed.set(Some(answers));
        match poll_fn(|context| inbound.poll_armed(context)).await {
            Ended::Bytes(bytes) => fd.push_unread(bytes),
            Ended::Error(error) => outcome = Err(error),
            // The end of the stream is there to be read once more.
            Ended::Eof | Ended::Stopped | Ended::Starved => {}
        }
    }
    let unread = std::iter::from_fn(|| fd.pop_unread());
    let bytes = unread.fold(Vec::new(), |mut bytes, piece| {
        bytes.extend_from_slice(&piece);
        bytes
    });
    outcome.map(|()| bytes)
}

/// Reads into `buf`: what has arrived, or, if `all`, until it is full.
///
/// Dropping it loses nothing either: what was read for it goes back to the stream.
pub(in crate::net) async fn read<B: IoBufMut>(
    fd: &Fd<State>,
    buf: B,
    all: bool,
) -> BufResult<usize, B> {
    if buf.buf_capacity() == 0 {
        return Err(BufError { error: no_capacity(), buf, done: 0 });
    }
    let Some(reading) = unless_overdue(Reading::take(fd)).await else {
        return Err(BufError { error: timed_out(), buf, done: 0 });
    };
    let mut partial = Partial { reading: Some(reading), filling: Some(Filling::new(buf)) };
    let result = loop {
        match partial.step().await {
            Ok(0) if all => break Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(0) => break Ok(0),
            Ok(_) if !all || partial.filling().is_full() => break Ok(partial.filling().done()),
            Ok(_) => {}
            Err(error) => break Err(error),
        }
    };
    let filling = partial.filling.take().expect("it is only away during a receive");
    let done = filling.done();
    match result {
        Ok(count) => Ok((count, filling.finish())),
        Err(error) => Err(BufError { error, buf: filling.give_up(), done }),
    }
}

pub(in crate::net) fn no_capacity() -> io::Error {
    let text = "a read into a buffer without capacity would look like the end of the stream";
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// Reads what has arrived into several buffers, one after the other.
///
/// It takes a lease and copies, so that a dropped one loses nothing here either.
pub(in crate::net) async fn read_vectored<V: IoVectoredMut>(
    fd: &Fd<State>,
    mut bufs: V,
) -> BufResult<usize, V> {
    if Iovecs::new().fill_mut(&mut bufs, 0) == 0 {
        return Err(BufError { error: no_capacity(), buf: bufs, done: 0 });
    }
    match receive(fd).await {
        Ok(Some(mut bytes)) => {
            // Nobody else has run since they were taken, so the rest is still the next to be read.
            let copied = scatter(&mut bufs, &bytes);
            bytes.advance(copied);
            if !bytes.is_empty() {
                fd.return_unread(bytes);
            }
            Ok((copied, bufs))
        }
        Ok(None) => {
            scatter(&mut bufs, &[]);
            Ok((0, bufs))
        }
        Err(error) => Err(BufError { error, buf: bufs, done: 0 }),
    }
}

/// A read that has come so far; what it has is given back if it goes no further.
struct Partial<B: IoBufMut> {
    reading: Option<Reading>,
    filling: Option<Filling<B>>,
}

impl<B: IoBufMut> Partial<B> {
    fn filling(&mut self) -> &mut Filling<B> {
        self.filling.as_mut().expect("it is only away during a receive")
    }

    /// Takes what is there, or waits for some. Zero is the end of the stream.
    async fn step(&mut self) -> io::Result<usize> {
        loop {
            let reading = self.reading.take().expect("it is only away during a receive");
            if let Some(mut bytes) = reading.0.pop_unread() {
                let copied = self.filling().copy(&bytes);
                bytes.advance(copied);
                if !bytes.is_empty() {
                    reading.0.return_unread(bytes);
                }
                self.reading = Some(reading);
                return Ok(copied);
            }
            if !reading.inbound().is_armed() {
                let filling = self.filling.take().expect("it is only away during a receive");
                let (reading, filling, received) = once(reading, filling).await;
                (self.reading, self.filling) = (Some(reading), Some(filling));
                return received;
            }
            // `recv` has started a receive for the stream; what it brings is for whoever reads.
            let reading = self.reading.insert(reading);
            let armed = poll_fn(|context| reading.inbound().poll_armed(context));
            match unless_overdue(armed).await {
                Some(Ended::Bytes(bytes)) => reading.0.push_unread(bytes),
                Some(Ended::Eof) => return Ok(0),
                Some(Ended::Error(error)) => return Err(error),
                Some(Ended::Stopped | Ended::Starved) => {}
                None => return Err(timed_out()),
            }
        }
    }
}

impl<B: IoBufMut> Drop for Partial<B> {
    fn drop(&mut self) {
        // While a receive is in flight, both are in its slot, and `abandon` does this.
        if let (Some(reading), Some(filling)) = (&self.reading, &mut self.filling) {
            reading.0.give_back(filling.filled());
        }
    }
}

/// One receive into memory that the caller gave.
async fn once<B: IoBufMut>(
    reading: Reading,
    filling: Filling<B>,
) -> (Reading, Filling<B>, io::Result<usize>) {
    Submission::new(Receive { reading, filling }).await
}

/// `IORING_OP_RECV`, kernel 5.6: one receive into the caller's buffer.
struct Receive<B> {
    reading: Reading,
    filling: Filling<B>,
}

// SAFETY: I2: the request points into `filling`, and `reading` keeps the descriptor open.
unsafe impl<B: IoBufMut> Op for Receive<B> {
    type Output = (Reading, Filling<B>, io::Result<usize>);

    fn prepare(&mut self) -> Sqe {
        let (start, len) = self.filling.rest();
        opcode::Recv::new(types::Fd(self.reading.0.raw()), start, len).build()
    }

    fn complete(mut self, cqe: Cqe) -> Self::Output {
        let received = self.filling.advance(&cqe);
        (self.reading, self.filling, received)
    }

    fn abandon(mut self, cqe: Cqe) {
        // A failed receive still owes what a `read_exact` had before. The turn goes on afterwards.
        let _ = self.filling.advance(&cqe);
        #[cfg(not(canary = "lost-bytes"))]
        self.reading.0.give_back(self.filling.filled());
    }
}

/// `IORING_OP_RECV` with `RECV_MULTISHOT` and buffer selection, kernel 6.0: receives until it is
/// stopped, each time into a buffer of the pool that is picked when the bytes are there.
struct ReceiveMany {
    fd: Fd<State>,
    pool: Rc<Pool>,
    /// Made with the first lease: an idle connection has none.
    account: Option<Rc<Account>>,
    first: Option<PooledBuf>,
    #[expect(clippy::box_collection, reason = "the payload stays small, and more are rare")]
    more: Option<Box<VecDeque<PooledBuf>>>,
}

const _: () = assert!(size_of::<ReceiveMany>() <= 72);

/// What a multishot receive brings, or why it ended.
enum Ended {
    Bytes(PooledBuf),
    Eof,
    Error(io::Error),
    /// For no reason, or by our own cancel: it may be started again.
    Stopped,
    /// There is no pool, or it has no buffer left and cannot grow.
    Starved,
}

impl ReceiveMany {
    fn park(&mut self, bytes: PooledBuf) {
        if self.first.is_none() {
            self.first = Some(bytes);
        } else {
            self.more.get_or_insert_default().push_back(bytes);
        }
    }

    fn parked(&self) -> usize {
        usize::from(self.first.is_some()) + self.more.as_ref().map_or(0, |more| more.len())
    }

    /// The lease that an answer hands over: also failed receives may have picked a buffer.
    fn lease(&mut self, cqe: &Cqe) -> Option<PooledBuf> {
        let len = usize::try_from(cqe.result).unwrap_or(0);
        let bytes = cqe.buffer().map(|bid| {
            let account = self.account.get_or_insert_with(|| self.pool.account());
            account.take_over(bid, len)
        });
        bytes.filter(|bytes| !bytes.is_empty())
    }
}

// SAFETY: I2: the request points at nothing (the kernel picks a buffer of the registered ring,
// which the core keeps), and `fd` keeps the descriptor open.
unsafe impl Op for ReceiveMany {
    type Output = Ended;

    fn prepare(&mut self) -> Sqe {
        let mut sqe = opcode::RecvMulti::new(types::Fd(self.fd.raw()), GROUP).build();
        if self.pool.is_short() {
            // Without a buffer it would end at once, though there may be nothing to receive.
            Fields::of_mut(&mut sqe).ioprio |= flag::POLL_FIRST;
        }
        sqe
    }

    fn more(&mut self, cqe: Cqe) -> bool {
        if let Some(bytes) = self.lease(&cqe) {
            self.park(bytes);
        }
        self.parked() < PARKED_AT_MOST
    }

    fn again(&mut self, cqe: &Cqe) -> bool {
        match cqe.result().map_err(|error| error.raw_os_error()) {
            Err(Some(libc::EINTR)) => true,
            Err(Some(libc::ENOBUFS)) => self.pool.grow(),
            // It ended with bytes and without an error (the queue of answers had overflowed).
            Ok(count) if count > 0 && self.parked() < PARKED_AT_MOST => {
                if let Some(bytes) = self.lease(cqe) {
                    self.park(bytes);
                }
                true
            }
            _ => false,
        }
    }

    fn complete(mut self, cqe: Cqe) -> Ended {
        let bytes = self.lease(&cqe);
        if let Some(account) = self.account.take_if(|account| account.leases() > 0) {
            self.fd.keep_account(account);
        }
        match (bytes, cqe.result()) {
            (Some(bytes), _) => Ended::Bytes(bytes),
            (None, Ok(0)) => Ended::Eof,
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
    type Item = PooledBuf;

    #[inline]
    fn pop(&mut self) -> Option<PooledBuf> {
        let next = self.more.as_mut().and_then(|more| more.pop_front());
        std::mem::replace(&mut self.first, next)
    }
}
