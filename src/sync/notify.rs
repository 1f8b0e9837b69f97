//! Telling a task that something has happened.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::line::{Left, Line, Place, Waiters};
use crate::sys::guard;

/// Wakes one task, or all that wait, and carries no value.
///
/// [`notify_one`](Notify::notify_one) wakes who has waited longest. If nobody waits, it leaves one
/// notification for the next who comes; several do not add up. Dropping a [`Notified`] that was notified
/// that way and not polled since passes the notification on.
///
/// ```
/// use std::rc::Rc;
/// use quoit::sync::Notify;
///
/// # quoit::runtime::run(async {
/// let notify = Rc::new(Notify::new());
/// let other = notify.clone();
/// let task = quoit::spawn(async move { other.notified().await });
/// notify.notify_one();
/// task.await.unwrap();
/// # }).unwrap();
/// ```
pub struct Notify {
    waiters: Waiters<State, Ask>,
    /// Whether a notification for nobody is kept for the next.
    keeps: bool,
}

struct State {
    is_kept: bool,
    /// How often all were notified: who is older than the last of those was notified by it.
    rounds: u64,
}

/// How a waiter was called, once it was.
#[derive(Clone, Copy)]
enum Ask {
    Nothing,
    /// By `notify_one` and `notify_last`: to be passed on.
    First,
    Last,
    /// By `notify_waiters`.
    All,
}

impl Notify {
    /// With no notification in it.
    #[must_use]
    pub const fn new() -> Self {
        let state = State { is_kept: false, rounds: 0 };
        Notify { waiters: Waiters::new(state), keeps: true }
    }

    /// As `new`, but what is notified while nobody waits is lost.
    pub(super) const fn forgetful() -> Self {
        let state = State { is_kept: false, rounds: 0 };
        Notify { waiters: Waiters::new(state), keeps: false }
    }

    /// Waits for a notification.
    ///
    /// A future that was made before a [`notify_waiters`](Notify::notify_waiters) is notified by it, even
    /// if it was never polled. It has a place in the line from its first poll on, or from
    /// [`enable`](Notified::enable).
    pub fn notified(&self) -> Notified<'_> {
        let rounds = self.waiters.with(|state, _| state.rounds);
        Notified { notify: self, rounds, step: Step::Start }
    }

    /// Notifies who has waited longest, or else the next who comes.
    pub fn notify_one(&self) {
        self.notify(Ask::First, Line::first, Line::call_first);
    }

    /// As [`notify_one`](Notify::notify_one), for who has come last: the one whose memory is warm.
    pub fn notify_last(&self) {
        self.notify(Ask::Last, Line::last, Line::call_last);
    }

    fn notify(
        &self,
        how: Ask,
        find: fn(&mut Line<Ask>) -> Option<&mut Ask>,
        call: fn(&mut Line<Ask>),
    ) {
        let called = self.waiters.with(|state, line| {
            let Some(ask) = find(line) else {
                state.is_kept |= self.keeps;
                return false;
            };
            *ask = how;
            call(line);
            true
        });
        if called {
            self.waiters.wake_called();
        }
    }

    /// Notifies all who wait now, and nobody who comes later.
    pub fn notify_waiters(&self) {
        let called = self.waiters.with(|state, line| {
            state.rounds += 1;
            let called = !line.is_empty();
            while let Some(ask) = line.first() {
                *ask = Ask::All;
                line.call_first();
            }
            called
        });
        if called {
            self.waiters.wake_called();
        }
    }
}

/// Waits for a notification; made by [`Notify::notified`].
///
/// ```
/// use std::pin::pin;
/// use quoit::sync::{Notified, Notify};
///
/// # quoit::runtime::run(async {
/// let notify = Notify::new();
/// let mut first: std::pin::Pin<&mut Notified<'_>> = pin!(notify.notified());
/// first.as_mut().enable(); // from here on it stands in the line
/// notify.notify_one();
/// first.await;
/// # }).unwrap();
/// ```
#[must_use = "futures do nothing unless awaited"]
pub struct Notified<'a> {
    notify: &'a Notify,
    rounds: u64,
    step: Step,
}

enum Step {
    Start,
    Waiting(Place),
    Notified(Ask),
}

impl Notified<'_> {
    /// Takes its place in the line now, and says whether it is notified already.
    pub fn enable(mut self: Pin<&mut Self>) -> bool {
        if let Step::Waiting(place) = &self.step
            && self.notify.waiters.with(|_, line| line.was_called(place))
        {
            self.step = Step::Notified(self.leave());
        }
        match self.step {
            // The first poll brings the waker.
            Step::Start => self.stand(&Context::from_waker(Waker::noop())).is_ready(),
            Step::Waiting(_) => false,
            Step::Notified(_) => true,
        }
    }

    /// Whether it was notified alone, and not with all others.
    pub(super) fn was_single(&self) -> bool {
        matches!(self.step, Step::Notified(Ask::First | Ask::Last))
    }

    fn stand(&mut self, context: &Context<'_>) -> Poll<()> {
        if self.take() {
            return Poll::Ready(());
        }
        let waker = context.waker().clone();
        // The clone ran code of a user, so this looks once more before it stands in line.
        if self.take() {
            guard::discard(Some(waker));
            return Poll::Ready(());
        }
        let place = self.notify.waiters.with(|_, line| line.stand(Ask::Nothing, waker));
        self.step = Step::Waiting(place);
        Poll::Pending
    }

    /// Takes a notification that came before it stood in line.
    fn take(&mut self) -> bool {
        let rounds = self.rounds;
        let taken = self.notify.waiters.with(|state, _| {
            state.rounds != rounds || std::mem::replace(&mut state.is_kept, false)
        });
        if taken {
            self.step = Step::Notified(Ask::All);
        }
        taken
    }

    fn poll_place(&mut self, waker: &Waker) -> Poll<()> {
        let Step::Waiting(place) = &self.step else { unreachable!("it stands in line") };
        if !self.notify.waiters.poll_called(place, waker) {
            return Poll::Pending;
        }
        self.step = Step::Notified(self.leave());
        Poll::Ready(())
    }

    /// Leaves the line, and says how it was called.
    fn leave(&mut self) -> Ask {
        let Step::Waiting(place) = std::mem::replace(&mut self.step, Step::Start) else {
            return Ask::Nothing;
        };
        let Left { ask, waker, .. } = self.notify.waiters.with(|_, line| line.leave(place));
        guard::discard(waker);
        ask
    }
}

impl Future for Notified<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        match self.step {
            Step::Start => self.stand(context),
            Step::Waiting(_) => self.poll_place(context.waker()),
            Step::Notified(_) => Poll::Ready(()),
        }
    }
}

impl Drop for Notified<'_> {
    fn drop(&mut self) {
        match self.leave() {
            Ask::Nothing | Ask::All => {}
            Ask::First => self.notify.notify_one(),
            Ask::Last => self.notify.notify_last(),
        }
    }
}

impl Default for Notify {
    fn default() -> Self {
        Notify::new()
    }
}

impl fmt::Debug for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_kept = self.waiters.with(|state, _| state.is_kept);
        f.debug_struct("Notify").field("is_notified", &is_kept).finish_non_exhaustive()
    }
}

impl fmt::Debug for Notified<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_notified = matches!(self.step, Step::Notified(_));
        f.debug_struct("Notified").field("is_notified", &is_notified).finish_non_exhaustive()
    }
}
