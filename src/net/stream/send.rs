//! Sending: one send in flight per stream, in the order of the calls.
//!
//! Two sends could interleave as soon as the first fills the socket's buffer, so a call holds the
//! turn to write until it is done. Those that find it taken are gathered, see
//! [`gather`](super::gather). A send that nobody awaits any more is cancelled (a stuck peer
//! would block the next one for ever); what it had sent by then is counted, and the turn passes on
//! with its last answer.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use io_uring::{opcode, types};

use super::State;
use super::gather::{self, InLine, MOST_BYTES, Sending};
use super::zero_copy::{self, SendUncopied};
use crate::buf::{
    BufError, BufResult, IoBuf, IoVectored, Iovecs, PooledBuf, Single, map_buf, moved,
    rest_to_write, total_len,
};
use crate::driver::{Cqe, Sqe};
use crate::op::{Answers, Next, Op, Submission};
use crate::sync::turn::Ticket;
use crate::sys::fd::Fd;
use crate::sys::overdue::{await_end, is_overdue, timed_out};

/// The sending half of a stream's state.
#[derive(Default)]
pub(in crate::net) struct Outbound {
    /// Bytes that the kernel has taken, those of abandoned sends included.
    sent: Cell<u64>,
}

impl Outbound {
    pub(in crate::net) fn sent(&self) -> u64 {
        self.sent.get()
    }

    pub(super) fn resume(&self, sent: u64) {
        self.sent.set(sent);
    }
}

/// Waits until nothing is being sent any more: a write that was dropped may have been.
pub(in crate::net) async fn stop(fd: &Fd<State>) {
    fd.writing().take().await;
    drop(Writing(fd.clone()));
}

/// The turn to send.
pub(in crate::net) struct Writing(Fd<State>);

impl Writing {
    pub(in crate::net) async fn take(fd: &Fd<State>) -> Writing {
        fd.writing().take().await;
        Writing::new(fd)
    }

    /// For whoever has just got the turn.
    #[inline]
    pub(super) fn new(fd: &Fd<State>) -> Self {
        Writing(fd.clone())
    }

    pub(in crate::net) fn raw(&self) -> RawFd {
        self.0.raw()
    }

    pub(super) fn state(&self) -> &State {
        &self.0
    }

    /// Counts what an answer says was sent of `left` bytes.
    #[inline]
    pub(in crate::net) fn count(&self, cqe: &Cqe, left: usize) -> io::Result<usize> {
        let sent = moved(cqe, left)?;
        self.add(sent);
        Ok(sent)
    }

    /// So many bytes were sent.
    #[inline]
    pub(super) fn add(&self, sent: usize) {
        let outbound = &self.0.outbound;
        outbound.sent.set(outbound.sent.get() + sent as u64);
    }
}

impl Drop for Writing {
    #[inline]
    fn drop(&mut self) {
        self.0.writing().release();
    }
}

/// Sends from `buf`: as much as fits now, or, if `ALL`, everything.
///
/// It is written by hand because a server has one for each connection, and all of its bytes count.
pub(in crate::net) struct Write<'a, B: IoBuf, const ALL: bool>(Step<'a, B, ALL>);

const _: () = assert!(size_of::<Write<'_, PooledBuf, true>>() <= 40);

enum Step<'a, B: IoBuf, const ALL: bool> {
    /// In line for the turn to write.
    Turn {
        fd: &'a Fd<State>,
        ticket: Ticket,
        buf: B,
    },
    Sending(Submission<Send<B>>),
    /// A send without a copy, in flight.
    Uncopied(Cell<Option<Answers<SendUncopied<B>>>>),
    /// In line with others who want to write, and the buffer with it.
    InLine(InLine<'a, Single<B>>),
    Done,
}

pub(in crate::net) fn write<const ALL: bool, B: IoBuf>(
    fd: &Fd<State>,
    buf: B,
) -> Write<'_, B, ALL> {
    Write(Step::Turn { fd, ticket: None, buf })
}

// The buffer is moved into the operation's slot before anything points into it.
impl<B: IoBuf, const ALL: bool> Unpin for Write<'_, B, ALL> {}

impl<B: IoBuf, const ALL: bool> Future for Write<'_, B, ALL> {
    type Output = BufResult<usize, B>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let this = &mut *self;
            let mut send = match &mut this.0 {
                Step::Turn { fd, ticket, buf } => {
                    if buf.buf_len() > 0 && fd.writing().poll_take(ticket, context).is_pending() {
                        if is_overdue() {
                            return Poll::Ready(this.0.give_up());
                        }
                        this.0.gather();
                        return Poll::Pending;
                    }
                    let (fd, buf) = this.0.leave_line();
                    if buf.buf_len() == 0 {
                        return Poll::Ready(Ok((0, buf)));
                    }
                    let writing = Writing::new(fd);
                    if buf.buf_len() >= zero_copy::LEAST
                        && let Some(zero_copy) = fd.uncopied(buf.buf_len())
                    {
                        let send = SendUncopied::new(writing, zero_copy, buf, ALL);
                        match this.0.start_uncopied(send, context) {
                            Some(result) => return Poll::Ready(result),
                            None => continue,
                        }
                    }
                    Send::new(writing, buf, 0, ALL)
                }
                Step::Sending(send) => {
                    let (send, sent) = ready!(Pin::new(send).poll(context));
                    this.0.become_step(Step::Done);
                    match send.judge(sent) {
                        Ok(send) => send,
                        Err(result) => return Poll::Ready(result),
                    }
                }
                Step::Uncopied(_) | Step::InLine(_) => match ready!(this.0.poll_rare(context)) {
                    Some(result) => return Poll::Ready(result),
                    None => continue,
                },
                Step::Done => panic!("a write was polled after it had completed"),
            };
            loop {
                match Submission::start(send, context) {
                    Ok(send) => {
                        this.0.become_step(Step::Sending(send));
                        return Poll::Pending;
                    }
                    // It has ended at once, perhaps with a part.
                    Err((ended, sent)) => match ended.judge(sent) {
                        Ok(rest) => send = rest,
                        Err(result) => return Poll::Ready(result),
                    },
                }
            }
        }
    }
}

impl<'a, B: IoBuf, const ALL: bool> Step<'a, B, ALL> {
    /// Goes on from `Done`, or from a submission that has ended. Neither has anything to drop, and to
    /// find that out costs a call each time.
    #[inline]
    fn become_step(&mut self, next: Self) {
        std::mem::forget(std::mem::replace(self, next));
    }

    /// The turn has come, or nobody has to wait for it.
    #[inline]
    fn leave_line(&mut self) -> (&'a Fd<State>, B) {
        match std::mem::replace(self, Step::Done) {
            Step::Turn { fd, buf, .. } => (fd, buf),
            _ => unreachable!("it waits for its turn"),
        }
    }

    /// The turn is another's. Leaves the buffer in line, unless it is to be sent by itself.
    #[cold]
    fn gather(&mut self) {
        let Step::Turn { fd, buf, .. } = self else { unreachable!("it waits for its turn") };
        let len = buf.buf_len();
        if len > MOST_BYTES || fd.uncopied(len).is_some() {
            return;
        }
        let Step::Turn { fd, ticket, buf } = std::mem::replace(self, Step::Done) else {
            unreachable!("it was just there")
        };
        let number = ticket.expect("whoever waits has a place");
        *self = Step::InLine(InLine::stand(fd, number, Single(buf), len, ALL));
    }

    /// It is late, and the turn is another's.
    #[cold]
    fn give_up(&mut self) -> BufResult<usize, B> {
        let Step::Turn { fd, mut ticket, buf } = std::mem::replace(self, Step::Done) else {
            unreachable!("it waits for its turn")
        };
        fd.writing().leave(&mut ticket);
        Err(BufError { error: timed_out(), buf, done: 0 })
    }

    /// Whichever of the rare steps it is. `None` if there is more to do.
    #[cold]
    fn poll_rare(&mut self, context: &mut Context<'_>) -> Poll<Option<BufResult<usize, B>>> {
        match self {
            Step::Uncopied(place) => {
                let send = place.take().expect("the ticket is only away during a poll");
                let polled = send.poll_in(place, context);
                if polled.is_pending() && is_overdue() {
                    await_end();
                    let send = place.take().expect("it has not ended");
                    send.cancel();
                    place.set(Some(send));
                }
                let Next::End(ended) = ready!(polled);
                Poll::Ready(self.end_uncopied(ended))
            }
            Step::InLine(line) => {
                let result = match ready!(Pin::new(line).poll(context)) {
                    Sending::Alone(writing, Single(buf), done) => {
                        *self = Step::Sending(Submission::new(Send::new(writing, buf, done, ALL)));
                        return Poll::Ready(None);
                    }
                    Sending::Sent(result) => map_buf(result, |Single(buf)| buf),
                };
                *self = Step::Done;
                Poll::Ready(Some(result))
            }
            Step::Turn { .. } | Step::Sending(_) | Step::Done => unreachable!("it is not rare"),
        }
    }

    #[cold]
    fn start_uncopied(
        &mut self,
        send: SendUncopied<B>,
        context: &mut Context<'_>,
    ) -> Option<BufResult<usize, B>> {
        match Answers::start(send, context) {
            Ok(ticket) => {
                *self = Step::Uncopied(Cell::new(Some(ticket)));
                None
            }
            Err(refused) => self.end_uncopied(refused),
        }
    }

    /// A send without a copy is over; what is left, if anything, is sent with one.
    fn end_uncopied(
        &mut self,
        ended: Result<Send<B>, BufResult<usize, B>>,
    ) -> Option<BufResult<usize, B>> {
        match ended {
            Ok(rest) => {
                *self = Step::Sending(Submission::new(rest));
                None
            }
            Err(result) => {
                *self = Step::Done;
                Some(result)
            }
        }
    }
}

impl<B: IoBuf, const ALL: bool> Drop for Write<'_, B, ALL> {
    fn drop(&mut self) {
        if let Step::Turn { fd, ticket, .. } = &mut self.0 {
            fd.writing().leave(ticket);
        }
    }
}

/// [`Write`] of everything, whose count would say nothing.
pub(in crate::net) struct WriteAll<'a, B: IoBuf>(Write<'a, B, true>);

pub(in crate::net) fn write_all<B: IoBuf>(fd: &Fd<State>, buf: B) -> WriteAll<'_, B> {
    WriteAll(write(fd, buf))
}

impl<B: IoBuf> Future for WriteAll<'_, B> {
    type Output = Result<B, BufError<B>>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|result| result.map(|(_, buf)| buf))
    }
}

/// Sends all of `buf` in a turn that is had already, and gives both back.
pub(super) async fn send_all<B: IoBuf>(writing: Writing, buf: B) -> io::Result<(Writing, B)> {
    let mut send = Send::new(writing, buf, 0, true);
    loop {
        let sent;
        (send, sent) = Submission::new(send).await;
        if send.is_over(sent)? {
            return Ok((send.writing, send.buf));
        }
    }
}

/// Sends from several buffers, one after the other, as [`write`] does from one.
pub(in crate::net) async fn write_vectored<V: IoVectored>(
    fd: &Fd<State>,
    bufs: V,
    all: bool,
) -> BufResult<usize, V> {
    let total = total_len(&bufs);
    if total == 0 {
        return Ok((0, bufs));
    }
    let (mut writing, mut bufs, mut done) = match gather::turn(fd, bufs, total, all).await {
        Sending::Alone(writing, bufs, done) => (writing, bufs, done),
        Sending::Sent(result) => return result,
    };
    loop {
        let sent;
        (writing, bufs, sent) = Submission::new(SendMessage::new(writing, bufs, done, all)).await;
        match sent {
            Ok(0) => {
                let error = io::ErrorKind::WriteZero.into();
                return Err(BufError { error, buf: bufs, done });
            }
            Ok(sent) => done += sent,
            Err(error) => return Err(BufError { error, buf: bufs, done }),
        }
        if !all || done >= total {
            return Ok((done, bufs));
        }
    }
}

/// From so many bytes on the kernel is asked to go on by itself when a send is short. It costs 1 %
/// of a small message, which is hardly ever sent short; `write` goes on by itself in any case.
const WORTH_WAITING: usize = 16 * 1024;

/// Without MSG_NOSIGNAL a dead peer could end the process; MSG_WAITALL goes on until all is sent.
pub(super) fn flags(all: bool, left: usize) -> i32 {
    let wait = all && left >= WORTH_WAITING;
    libc::MSG_NOSIGNAL | if wait { libc::MSG_WAITALL } else { 0 }
}

/// `IORING_OP_SEND`, kernel 5.6.
pub(super) struct Send<B> {
    writing: Writing,
    buf: B,
    progress: Progress,
}

/// How many bytes have been sent, and whether all have to be: in one word, because a move of it is then
/// one load, which does not wait for two stores.
#[derive(Clone, Copy)]
struct Progress(usize);

impl Progress {
    #[inline]
    fn new(done: usize, all: bool) -> Self {
        // No buffer is larger than isize::MAX, so the shift loses nothing.
        Progress(done << 1 | usize::from(all))
    }

    #[inline]
    fn done(self) -> usize {
        self.0 >> 1
    }

    #[inline]
    fn all(self) -> bool {
        self.0 & 1 == 1
    }

    #[inline]
    fn advance(&mut self, sent: usize) {
        self.0 += sent << 1;
    }
}

impl<B: IoBuf> Send<B> {
    /// Sends what is left behind the first `done` bytes.
    #[inline]
    pub(super) fn new(writing: Writing, buf: B, done: usize, all: bool) -> Self {
        Send { writing, buf, progress: Progress::new(done, all) }
    }

    /// Counts what was sent, and says whether there is nothing more to do.
    #[inline(always)]
    fn is_over(&mut self, sent: io::Result<usize>) -> io::Result<bool> {
        match sent? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            sent => {
                self.progress.advance(sent);
                Ok(!self.progress.all() || self.progress.done() >= self.buf.buf_len())
            }
        }
    }

    /// What a send has come to: `Ok` if there is more to do, `Err` with the result if not.
    #[inline(always)]
    fn judge(mut self, sent: io::Result<usize>) -> Result<Self, BufResult<usize, B>> {
        match self.is_over(sent) {
            Ok(false) => Ok(self),
            Ok(true) => Err(Ok((self.progress.done(), self.buf))),
            Err(error) => Err(Err(BufError { error, buf: self.buf, done: self.progress.done() })),
        }
    }
}

// SAFETY: I2: the request points into `buf`, and `writing` keeps the descriptor open.
unsafe impl<B: IoBuf> Op for Send<B> {
    type Output = (Self, io::Result<usize>);

    const AT_ONCE: bool = true;

    #[inline(always)]
    fn prepare(&mut self) -> Sqe {
        let (start, len) = rest_to_write(&self.buf, self.progress.done());
        opcode::Send::new(types::Fd(self.writing.0.raw()), start, len)
            .flags(flags(self.progress.all(), len as usize))
            .build()
    }

    #[inline(always)]
    fn complete(self, cqe: Cqe) -> Self::Output {
        let left = self.buf.buf_len() - self.progress.done();
        let sent = self.writing.count(&cqe, left);
        (self, sent)
    }
}

/// `IORING_OP_SENDMSG`, kernel 5.3: several buffers in one request.
struct SendMessage<V> {
    writing: Writing,
    bufs: V,
    done: usize,
    all: bool,
    /// How much the request that is in flight may send.
    left: usize,
    iovecs: Iovecs,
    message: libc::msghdr,
}

impl<V: IoVectored> SendMessage<V> {
    fn new(writing: Writing, bufs: V, done: usize, all: bool) -> Self {
        let message = empty_message();
        SendMessage { writing, bufs, done, all, left: 0, iovecs: Iovecs::new(), message }
    }
}

pub(super) fn empty_message() -> libc::msghdr {
    libc::msghdr {
        msg_name: std::ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: std::ptr::null_mut(),
        msg_iovlen: 0,
        msg_control: std::ptr::null_mut(),
        msg_controllen: 0,
        msg_flags: 0,
    }
}

// SAFETY: I2: the request points at `message`, that at `iovecs`, and those into `bufs`; all are
// here, and the pointers are made when this is in its place. `writing` keeps the descriptor open.
unsafe impl<V: IoVectored> Op for SendMessage<V> {
    type Output = (Writing, V, io::Result<usize>);

    fn prepare(&mut self) -> Sqe {
        self.left = self.iovecs.fill(&self.bufs, self.done);
        self.message.msg_iov = self.iovecs.as_mut_ptr();
        self.message.msg_iovlen = self.iovecs.count();
        opcode::SendMsg::new(types::Fd(self.writing.0.raw()), &raw const self.message)
            .flags(flags(self.all, self.left) as u32)
            .build()
    }

    fn complete(self, cqe: Cqe) -> Self::Output {
        let sent = self.writing.count(&cqe, self.left);
        (self.writing, self.bufs, sent)
    }
}
