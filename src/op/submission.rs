//! The ticket of an operation with one answer.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::in_flight::OpId;
use super::{Op, Ring, outside};
use crate::driver::Cqe;
use crate::sys::{current, overdue};

/// A future that submits its operation at the first poll, and ends with its output.
///
/// Dropping it is O(1), makes no system call, allocates nothing and cannot fail: the operation
/// stays in its slot, is cancelled with the next lap, and its answer goes to [`Op::abandon`].
pub(crate) struct Submission<T: Op> {
    state: State<T>,
}

enum State<T> {
    Idle(T),
    /// In the line for admission. Boxed: it is rare, and its size would be that of all.
    Waiting(Box<Waiting<T>>),
    InFlight(Rc<Ring>, OpId),
    Done,
}

struct Waiting<T> {
    op: T,
    ring: Rc<Ring>,
    ticket: u64,
}

// The payload is moved into its slot before anything points at it: nothing here is pinned.
impl<T: Op> Unpin for Submission<T> {}

impl<T: Op> Submission<T> {
    pub(crate) fn new(op: T) -> Self {
        Submission { state: State::Idle(op) }
    }

    /// Submits `op` at once. That is for the kinds that never wait for admission.
    ///
    /// # Errors
    /// What the operation comes to if it does so at once, is late, or finds no room in the table.
    #[inline(always)]
    pub(crate) fn start(op: T, context: &mut Context<'_>) -> Result<Self, T::Output> {
        const { assert!(!T::WAITS_FOR_ADMISSION) };
        let ring = current::share::<Ring>().unwrap_or_else(|| outside("an operation"));
        let state = Submission::place(op, ring, context)?;
        Ok(Submission { state })
    }

    /// Moves the operation into its slot.
    ///
    /// # Errors
    /// What it comes to, if it does so at once.
    #[inline(always)]
    fn place(mut op: T, ring: Rc<Ring>, context: &mut Context<'_>) -> Result<State<T>, T::Output> {
        if overdue::is_overdue() {
            return Err(op.complete(Cqe::refusal(0, libc::ETIMEDOUT)));
        }
        if T::AT_ONCE
            && let Some(cqe) = ring.attempt(&mut op)
        {
            return Err(op.complete(cqe));
        }
        match ring.submit(op, context.waker().clone()) {
            Ok(id) => Ok(State::InFlight(ring, id)),
            Err((op, cqe)) => Err(op.complete(cqe)),
        }
    }

    /// What others may end it by, once it is in flight.
    pub(crate) fn canceller(&self) -> Option<Canceller> {
        match &self.state {
            State::InFlight(ring, id) => Some(Canceller(Rc::clone(ring), *id)),
            State::Idle(_) | State::Waiting(_) | State::Done => None,
        }
    }

    /// Submits the operation, unless it has to wait for admission.
    #[inline(never)]
    fn submit(&mut self, context: &mut Context<'_>) -> Poll<T::Output> {
        if T::WAITS_FOR_ADMISSION && !self.is_admitted(context) {
            return Poll::Pending;
        }
        let (op, ring) = match std::mem::replace(&mut self.state, State::Done) {
            State::Idle(op) => {
                (op, current::share::<Ring>().unwrap_or_else(|| outside("an operation")))
            }
            State::Waiting(waiting) => (waiting.op, waiting.ring),
            State::InFlight(..) | State::Done => unreachable!("it is submitted once"),
        };
        match Submission::place(op, ring, context) {
            Ok(state) => {
                // Nothing has to be dropped in its place, and to find that out costs a call.
                std::mem::forget(std::mem::replace(&mut self.state, state));
                Poll::Pending
            }
            Err(output) => {
                if T::WAITS_FOR_ADMISSION {
                    // It has not taken the room that it was given.
                    current::with(Ring::call_next);
                }
                Poll::Ready(output)
            }
        }
    }

    /// Takes a place in the line for admission if there is no room.
    fn is_admitted(&mut self, context: &Context<'_>) -> bool {
        let (op, ring, mut ticket) = match std::mem::replace(&mut self.state, State::Done) {
            State::Idle(op) => {
                (op, current::share::<Ring>().unwrap_or_else(|| outside("an operation")), None)
            }
            State::Waiting(waiting) => (waiting.op, waiting.ring, Some(waiting.ticket)),
            State::InFlight(..) | State::Done => unreachable!("it is submitted once"),
        };
        if overdue::is_overdue() {
            // It is refused instead of admitted, and leaves the line.
            ticket.take().into_iter().for_each(|ticket| ring.leave_line(ticket));
            self.state = State::Idle(op);
            return true;
        }
        let admitted = ring.admits(&mut ticket, context);
        self.state = match ticket {
            Some(ticket) if !admitted => State::Waiting(Box::new(Waiting { op, ring, ticket })),
            _ => State::Idle(op),
        };
        admitted
    }
}

/// Ends an operation that somebody else awaits.
pub(crate) struct Canceller(Rc<Ring>, OpId);

impl Canceller {
    /// Has it cancelled with the next lap. Its answer comes as ever, and says what it has come to.
    /// After its end this does nothing (I4).
    pub(crate) fn cancel(self) {
        self.0.cancel(self.1);
    }
}

impl<T: Op> Future for Submission<T> {
    type Output = T::Output;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T::Output> {
        match &self.state {
            State::Idle(_) | State::Waiting(_) => self.submit(context),
            State::InFlight(ring, id) => match ring.take::<T>(*id, context) {
                None => {
                    if overdue::is_overdue() {
                        ring.cancel(*id);
                        overdue::await_end();
                    }
                    Poll::Pending
                }
                Some((op, mut cqe)) => {
                    match std::mem::replace(&mut self.state, State::Done) {
                        // It can only be this one: no call of drop glue is needed.
                        State::InFlight(ring, _) => drop(ring),
                        other => drop(other),
                    }
                    if cqe.result == -libc::ECANCELED && overdue::is_overdue() {
                        cqe.result = -libc::ETIMEDOUT;
                    }
                    Poll::Ready(op.complete(cqe))
                }
            },
            State::Done => panic!("an operation was polled after it had completed"),
        }
    }
}

impl<T: Op> Drop for Submission<T> {
    fn drop(&mut self) {
        match &self.state {
            State::InFlight(ring, id) => ring.orphan(*id),
            State::Waiting(waiting) => waiting.ring.leave_line(waiting.ticket),
            State::Idle(_) | State::Done => {}
        }
    }
}
