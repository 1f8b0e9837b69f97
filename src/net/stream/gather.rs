//! Writes that wait are gathered: one request sends for several callers.
//!
//! A write that finds another in flight stands in line, and leaves its buffer there. Whoever is
//! called next takes along those right behind, as far as they are small, and sends for all of them
//! with one request.
//!
//! ```text
//!            1 stand                2 lead                  3 settle
//!   (turn) ───────────▶ in line ──────────────▶ in flight ──────────────▶ landed ─▶ its caller
//!                          ▲ │                      │
//!                          │ │ 2 alone              │ 3 settle: nothing of it was sent, or a part
//!                          │ ▼                      │
//!                          │ a send of its own      │
//!                          └────────────────────────┘
//! ```
//!
//! The bytes go out in the order of the line, and each caller gets what became of its own: where a
//! request ends within a buffer, those behind it stand in line again, in front of everybody else.
//! An error is that of the first write that was not sent; the others try by themselves. A write
//! that is dropped in line leaves no trace. One that is dropped in flight has the request cancelled,
//! as any other: it was sent in part, and those who shared the request go on behind that part.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use io_uring::{opcode, types};

use super::State;
use super::send::{Writing, empty_message, flags};
use crate::buf::{AnyBufs, BufError, BufResult, IoVectored, Iovecs};
use crate::driver::{Cqe, Sqe};
use crate::op::{Canceller, Op, Submission};
use crate::sync::turn::Number;
use crate::sys::fd::Fd;
use crate::sys::guard;
use crate::sys::overdue::{await_end, is_overdue, timed_out, unless_overdue};

/// One request gathers so many bytes at most; a write of more sends for itself. A larger one would
/// be copied by the kernel in pieces anyway.
pub(super) const MOST_BYTES: usize = 64 * 1024;

/// One request gathers so many writes at most.
const MOST_WRITES: usize = 64;

/// The writes of a stream that wait in line or share a request. There when somebody has waited.
#[derive(Default)]
pub(super) struct Gathering {
    /// In the order of the line. Who is not here sends for itself.
    parcels: VecDeque<Parcel>,
    /// Those who share a request: the one in flight, and those that have ended. In order as well.
    shares: VecDeque<Share>,
    /// The request, for whoever leads it and is there. Not in its future: every write would have room for it.
    send: Option<Submission<SendBatch>>,
    /// Ends the request in flight.
    flight: Option<Canceller>,
    /// Somebody has left it, so that it was cancelled.
    is_left: bool,
    /// What the last request was made of, for the next.
    spare: Option<Box<Batch>>,
}

/// What a write wants to have sent.
struct Parcel {
    number: Number,
    bufs: AnyBufs,
    len: usize,
    done: usize,
    all: bool,
    /// What it has come to, once that is known.
    outcome: Option<io::Result<()>>,
}

/// A write that has left the line with somebody else, or leads.
struct Share {
    number: Number,
    progress: Progress,
}

enum Progress {
    /// Whom to wake; nobody for the one that leads.
    Flying(Option<Waker>),
    /// Its caller has gone.
    Left,
    Landed(Parcel),
}

impl Gathering {
    fn share(&mut self, number: Number) -> Option<(usize, &mut Progress)> {
        let place = self.shares.binary_search_by_key(&number, |share| share.number).ok()?;
        Some((place, &mut self.shares[place].progress))
    }

    fn has_left(&mut self, number: Number) -> bool {
        matches!(self.share(number), Some((_, Progress::Left)))
    }

    /// What has landed for a write; or, if it is in flight, its waker is swapped.
    fn look(&mut self, number: Number, waker: &mut Option<Waker>) -> Look {
        match self.share(number) {
            None => Look::InLine,
            Some((_, Progress::Flying(place))) => {
                std::mem::swap(place, waker);
                Look::InFlight
            }
            Some((place, Progress::Landed(_))) => match self.shares.remove(place) {
                Some(Share { progress: Progress::Landed(parcel), .. }) => Look::Landed(parcel),
                _ => unreachable!("it was there"),
            },
            Some((_, Progress::Left)) => unreachable!("who has left does not look"),
        }
    }

    /// A write ends a request's part of it. Returns the parcel if nobody wants it any more, and whom
    /// to wake.
    fn land(&mut self, parcel: Parcel) -> (Option<Parcel>, Option<Waker>) {
        let (place, progress) = self.share(parcel.number).expect("it shares the request");
        match std::mem::replace(progress, Progress::Left) {
            Progress::Flying(waker) => {
                *progress = Progress::Landed(parcel);
                (None, waker)
            }
            Progress::Left => {
                self.shares.remove(place);
                (Some(parcel), None)
            }
            Progress::Landed(_) => unreachable!("it lands once"),
        }
    }

    /// A write stands in line again. Returns its waker.
    fn return_parcel(&mut self, parcel: Parcel) -> Waker {
        let (place, _) = self.share(parcel.number).expect("it shares the request");
        let share = self.shares.remove(place).expect("it was there");
        self.parcels.push_front(parcel);
        match share.progress {
            Progress::Flying(waker) => waker.unwrap_or_else(|| Waker::noop().clone()),
            _ => unreachable!("who has left does not come back"),
        }
    }

    /// Ends the request that is in flight for one of those who share it; the others go on.
    fn stop(&mut self) {
        self.is_left = true;
        self.flight.take().into_iter().for_each(Canceller::cancel);
    }

    /// A caller goes. Returns what it leaves behind, and whether it stood in line.
    fn leave(&mut self, number: Number) -> (Option<Parcel>, Option<Waker>, bool) {
        match self.share(number) {
            Some((_, progress @ Progress::Flying(_))) => {
                let Progress::Flying(waker) = std::mem::replace(progress, Progress::Left) else {
                    unreachable!("it flies")
                };
                self.stop();
                (None, waker, false)
            }
            Some((place, Progress::Landed(_))) => match self.shares.remove(place) {
                Some(Share { progress: Progress::Landed(parcel), .. }) => {
                    (Some(parcel), None, false)
                }
                _ => unreachable!("it was there"),
            },
            Some((_, Progress::Left)) => unreachable!("a caller goes once"),
            None => {
                let place = self.parcels.binary_search_by_key(&number, |parcel| parcel.number);
                (self.parcels.remove(place.expect("it is in line")), None, true)
            }
        }
    }
}

/// Where a write is.
enum Look {
    InLine,
    InFlight,
    Landed(Parcel),
}

impl State {
    /// Calls `f` with the writes that wait. `f` runs nothing of a user.
    fn gathering<T>(&self, f: impl FnOnce(&mut Gathering) -> T) -> T {
        self.turns.with_rest(|rare| f(rare.gathering.get_or_insert_default()))
    }
}

/// What becomes of a write that wants its turn.
pub(super) enum Sending<V> {
    /// It is its turn: the buffers, and how much of them has been sent.
    Alone(Writing, V, usize),
    /// Another's request has sent it.
    Sent(BufResult<usize, V>),
}

/// Waits for the turn to write.
pub(super) async fn turn<V: IoVectored>(
    fd: &Fd<State>,
    bufs: V,
    len: usize,
    all: bool,
) -> Sending<V> {
    if len > MOST_BYTES {
        return match unless_overdue(Writing::take(fd)).await {
            Some(writing) => Sending::Alone(writing, bufs, 0),
            None => Sending::Sent(Err(BufError { error: timed_out(), buf: bufs, done: 0 })),
        };
    }
    let mut ticket = None;
    let polled = poll_fn(|context| Poll::Ready(fd.writing().poll_take(&mut ticket, context))).await;
    match (polled, ticket) {
        (Poll::Pending, Some(number)) => InLine::stand(fd, number, bufs, len, all).await,
        _ => Sending::Alone(Writing::new(fd), bufs, 0),
    }
}

/// A write in line, whose buffers lie in the stream's [`Gathering`].
pub(super) struct InLine<'a, V> {
    fd: &'a Fd<State>,
    /// Its place; `None` when it is over.
    number: Option<Number>,
    /// The request in the stream's [`Gathering`] is its own.
    leads: bool,
    bufs: PhantomData<fn() -> V>,
}

impl<'a, V: IoVectored> InLine<'a, V> {
    /// 1: Leaves the buffers in line, for whoever has just taken place `number` of it.
    pub(super) fn stand(fd: &'a Fd<State>, number: Number, bufs: V, len: usize, all: bool) -> Self {
        let bufs = AnyBufs::new(bufs);
        let parcel = Parcel { number, bufs, len, done: 0, all, outcome: None };
        fd.gathering(|gathering| gathering.parcels.push_back(parcel));
        InLine { fd, number: Some(number), leads: false, bufs: PhantomData }
    }

    /// It is late, and stands in line.
    fn give_up(&mut self, number: Number) -> Sending<V> {
        let (parcel, waker, stood) = self.fd.gathering(|gathering| gathering.leave(number));
        assert!(stood, "it does not share a request");
        self.fd.writing().leave(&mut Some(number));
        guard::discard(waker);
        self.number = None;
        let Parcel { bufs, done, .. } = parcel.expect("who stands in line has its buffers there");
        Sending::Sent(Err(BufError { error: timed_out(), buf: bufs.into(), done }))
    }

    /// 2: It is its turn. Takes those along who are right behind, or goes alone.
    fn lead(&mut self, number: Number) -> Option<Sending<V>> {
        let writing = Writing::new(self.fd);
        let (first, spare) = self.fd.gathering(|gathering| {
            (gathering.parcels.pop_front().expect("its own"), gathering.spare.take())
        });
        assert_eq!(first.number, number, "whoever is called stands in front");
        let mut batch = spare.unwrap_or_default();
        let mut bytes = first.len - first.done;
        batch.parcels.push(first);
        self.fd.writing().take_along(|rare, number, waker| {
            let gathering = rare.gathering.as_mut().expect("it was there");
            let fits = |parcel: &Parcel| {
                bytes += parcel.len - parcel.done;
                parcel.number == number && bytes <= MOST_BYTES
            };
            if batch.parcels.len() == MOST_WRITES || !gathering.parcels.front().is_some_and(fits) {
                return false;
            }
            let waker = std::mem::replace(waker, Waker::noop().clone());
            let progress = Progress::Flying(Some(waker));
            gathering.shares.push_back(Share { number, progress });
            batch.parcels.extend(gathering.parcels.pop_front());
            true
        });
        if batch.parcels.len() == 1 {
            let Parcel { bufs, done, .. } = batch.parcels.remove(0);
            self.fd.gathering(|gathering| gathering.spare = Some(batch));
            self.number = None;
            return Some(Sending::Alone(writing, bufs.into(), done));
        }
        let share = Share { number, progress: Progress::Flying(None) };
        self.fd.gathering(|gathering| {
            // Those that landed before have smaller numbers, those that were taken along larger.
            let place = gathering.shares.partition_point(|other| other.number < share.number);
            gathering.shares.insert(place, share);
        });
        let send = Submission::new(SendBatch { writing, batch });
        self.fd.gathering(|gathering| gathering.send = Some(send));
        self.leads = true;
        None
    }
}

// The buffers are in the stream's memory, or in an operation's slot.
impl<V> Unpin for InLine<'_, V> {}

impl<V: IoVectored> Future for InLine<'_, V> {
    type Output = Sending<V>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Sending<V>> {
        let this = &mut *self;
        let number = this.number.expect("a write was polled after it had completed");
        loop {
            // Should the poll panic, the request is given up here, and another may lead.
            if std::mem::take(&mut this.leads) {
                let send = this.fd.gathering(|gathering| gathering.send.take());
                let mut send = send.expect("it is only away during a poll");
                if Pin::new(&mut send).poll(context).is_pending() {
                    this.fd.gathering(|gathering| {
                        gathering.flight = send.canceller();
                        gathering.send = Some(send);
                    });
                    this.leads = true;
                    return Poll::Pending;
                }
            }
            // Cloned here, and what it displaces dropped here: neither runs while the box is out.
            let mut waker = Some(context.waker().clone());
            let look = this.fd.gathering(|gathering| gathering.look(number, &mut waker));
            match look {
                Look::Landed(Parcel { bufs, done, outcome, .. }) => {
                    this.number = None;
                    let bufs = bufs.into();
                    return Poll::Ready(Sending::Sent(match outcome {
                        Some(Err(error)) => Err(BufError { error, buf: bufs, done }),
                        _ => Ok((done, bufs)),
                    }));
                }
                Look::InFlight => {
                    if is_overdue() {
                        await_end();
                        this.fd.gathering(Gathering::stop);
                    }
                    return Poll::Pending;
                }
                Look::InLine => {
                    let mut ticket = Some(number);
                    let turn = this.fd.writing().poll_take(&mut ticket, context);
                    if turn.is_pending() && is_overdue() {
                        return Poll::Ready(this.give_up(number));
                    }
                    ready!(turn);
                    if let Some(alone) = this.lead(number) {
                        return Poll::Ready(alone);
                    }
                }
            }
        }
    }
}

impl<V> Drop for InLine<'_, V> {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let (parcel, waker, stood) = self.fd.gathering(|gathering| gathering.leave(number));
        if stood {
            self.fd.writing().leave(&mut Some(number));
        }
        guard::discard(waker);
        guard::discard(parcel);
        if self.leads {
            // Out of the box before it is dropped.
            drop(self.fd.gathering(|gathering| gathering.send.take()));
        }
    }
}

/// `IORING_OP_SENDMSG`, kernel 5.3: what several callers want to have sent.
struct SendBatch {
    writing: Writing,
    batch: Box<Batch>,
}

struct Batch {
    parcels: Vec<Parcel>,
    /// How much the request that is in flight may send.
    left: usize,
    iovecs: Iovecs,
    message: libc::msghdr,
}

impl Default for Batch {
    fn default() -> Self {
        let (parcels, iovecs) = (Vec::new(), Iovecs::new());
        Batch { parcels, left: 0, iovecs, message: empty_message() }
    }
}

// SAFETY: I2: the request points at `message`, that at `iovecs`, and those into the parcels; all are
// in the batch, whose box is here, and nobody touches it. `writing` keeps the descriptor open.
unsafe impl Op for SendBatch {
    type Output = ();

    fn prepare(&mut self) -> Sqe {
        let batch = &mut *self.batch;
        let lists = batch.parcels.iter().map(|parcel| (&parcel.bufs, parcel.done));
        batch.left = batch.iovecs.fill_each(lists);
        batch.message.msg_iov = batch.iovecs.as_mut_ptr();
        batch.message.msg_iovlen = batch.iovecs.count();
        let all = batch.parcels.iter().all(|parcel| parcel.all);
        opcode::SendMsg::new(types::Fd(self.writing.raw()), &raw const batch.message)
            .flags(flags(all, batch.left) as u32)
            .build()
    }

    fn complete(self, cqe: Cqe) {
        self.settle(&cqe);
    }
}

impl SendBatch {
    /// 3: Says to each write what has become of it. The turn passes on: to the first that has to go
    /// on, if there is one.
    fn settle(self, cqe: &Cqe) {
        let SendBatch { writing, mut batch } = self;
        let state = writing.state();
        let answer = writing.count(cqe, batch.left);
        let was_left = state.gathering(|gathering| {
            gathering.flight = None;
            std::mem::take(&mut gathering.is_left)
        });
        let (mut sent, mut error) = match answer {
            Ok(0) => (0, Some(io::ErrorKind::WriteZero.into())),
            Ok(sent) => (sent, None),
            // The end that somebody who left has brought about is no error of those who stay.
            Err(error) if was_left && error.raw_os_error() == Some(libc::ECANCELED) => (0, None),
            Err(error) => (0, Some(error)),
        };
        for parcel in &mut batch.parcels {
            let now = sent.min(parcel.len - parcel.done);
            sent -= now;
            parcel.done += now;
            let is_over = parcel.done == parcel.len || now > 0 && !parcel.all;
            if is_over || state.gathering(|gathering| gathering.has_left(parcel.number)) {
                parcel.outcome = Some(Ok(()));
            } else {
                parcel.outcome = error.take().map(Err);
            }
        }
        for place in (0..batch.parcels.len()).rev() {
            if batch.parcels[place].outcome.is_none() {
                let parcel = batch.parcels.remove(place);
                let number = parcel.number;
                let waker = state.gathering(|gathering| gathering.return_parcel(parcel));
                state.writing().stand_in_front(number, waker);
            }
        }
        for parcel in batch.parcels.drain(..) {
            let (unwanted, waker) = state.gathering(|gathering| gathering.land(parcel));
            guard::discard(unwanted);
            waker.into_iter().for_each(guard::wake);
        }
        state.gathering(|gathering| gathering.spare = Some(batch));
    }
}
