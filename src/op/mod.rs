//! Operations in flight: what the kernel was asked, and who owns what it was lent.
//!
//! ```text
//!  future ─poll─▶ Submission<T> ─▶ slot (owns T) ─prepare─▶ Sqe ─push─▶ Driver ─enter─▶ kernel
//!    ▲                                                                                     │
//!  Task ◀─run─ RunQueue ◀─wake─ Waker ◀───────── slot completes ◀───────── Cqe ◀───reap────┘
//! ```
//!
//! # Invariants
//!
//! Every `SAFETY` comment of this floor and of the operations above it cites one of these.
//!
//! - **I1 place.** A payload stays in its slot, unmoved and undropped, from push to its last Cqe.
//! - **I2 owner.** All that an Sqe points at, its descriptor included, is owned by its payload.
//! - **I3 answer.** Each operation's Sqe gets exactly one last Cqe, and only that frees the slot.
//!   Errors of enter, panics, cancels and shutdown never do.
//! - **I4 identity.** An [`OpId`] names one life of one slot: index and generation, never a pointer.
//! - **I5 quiet.** No user code (prepare, more, again, complete, abandon, wake, drop) runs while the
//!   driver is borrowed: collect, release, then call.
//! - **I6 end.** The ring closes only when nothing is in flight: cancel all, reap until the table is
//!   empty, close, free. Past a deadline it is leaked, never freed: closing a ring is no barrier.
//! - **I7 nothing is lost.** What arrives for an operation that nobody awaits any more is not lost:
//!   descriptors close, pool buffers go home, bytes and connections return to their stream or
//!   listener.
//!
//! A cancel's own answer says nothing (the target may still complete with all its bytes), so only
//! the target's answer counts.

mod answers;
mod event;
mod in_flight;
mod line;
mod parcel;
mod pending;
mod release;
mod ring;
mod submission;

use std::panic::Location;

use crate::driver::{Cqe, Sqe};

pub(crate) use answers::{Answers, Multishot, Next};
pub(crate) use event::event_of;
pub(crate) use parcel::Parcel;
pub(crate) use pending::Pending;
pub(crate) use release::Release;
pub(crate) use ring::{Drained, Limits, Ring, with};
pub(crate) use submission::{Canceller, Submission};

/// One kind of operation: how it asks, and what it makes of the answers.
///
/// # Safety
/// Every pointer in the Sqe that `prepare` returns leads to memory that `self` owns, or that lives
/// for ever, and that stays valid while `self` stays in place (I2). The descriptor in it is kept
/// open by `self`.
pub(crate) unsafe trait Op: 'static {
    /// What the operation comes to.
    type Output;

    /// Whether it waits for admission when too many operations are in flight. What starts new work
    /// (accepts, connects, file operations) does; what lets existing work end does not.
    const WAITS_FOR_ADMISSION: bool = false;

    /// Whether it may be done before it has a slot, where that takes no wait: then that is its end.
    const AT_ONCE: bool = false;

    /// Describes the request. `self` is already where it will stay (I1), or stays where it is while
    /// the request is done.
    fn prepare(&mut self) -> Sqe;

    /// Takes one answer of several; `false` asks to have the rest cancelled.
    fn more(&mut self, cqe: Cqe) -> bool {
        unreachable!("{cqe:?} promises more, but the operation is of one answer")
    }

    /// Whether to ask once more instead of completing with this last answer. Nobody has asked to have it
    /// cancelled.
    fn again(&mut self, cqe: &Cqe) -> bool {
        cqe.result().is_err_and(|error| error.raw_os_error().is_some_and(was_not_begun))
    }

    /// Makes owned values of the last answer; dropping them undoes what the kernel did.
    fn complete(self, cqe: Cqe) -> Self::Output;

    /// Takes the last answer when nobody awaits it any more (I7).
    fn abandon(self, cqe: Cqe)
    where
        Self: Sized,
    {
        drop(self.complete(cqe));
    }
}

/// Whether nothing was done yet, and asking again may help: a signal came, or the kernel could not start
/// the thread that was to do it, as in a process that is stopped just then (`ECANCELED`).
pub(crate) fn was_not_begun(errno: i32) -> bool {
    matches!(errno, libc::EINTR | libc::ECANCELED)
}

/// This kernel's clock; the machine's own outside of a runtime.
pub(crate) fn now() -> u64 {
    crate::sys::current::with(Ring::now).unwrap_or_else(crate::sys::clock::monotonic)
}

#[cold]
#[track_caller]
pub(crate) fn outside(what: &str) -> ! {
    panic!("{what} was used outside of a runtime; start one with `quoit::runtime::run`")
}

/// Fails outside of a runtime, for a future: whoever polls it there is not who made it.
pub(crate) fn assert_inside(what: &str, made_at: &Location<'_>) {
    assert!(
        crate::sys::current::id().is_some(),
        "{what}, called at {made_at}, was awaited outside of a runtime; start one with \
         `quoit::runtime::run`"
    );
}
