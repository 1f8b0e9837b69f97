//! Moving the clock, in a test.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use super::{Instant, sleep_until};
use crate::op::{self, Ring};
use crate::sys::current;

/// Moves the clock of a simulated kernel ahead by `duration`, in one jump, and ends when what was due
/// by then has been woken.
///
/// Sleeps need no help to end: when nothing is left to do, the clock goes to the next timer by itself.
/// This is for what happens meanwhile: time that passes while a task is at work. All timers that are
/// due fire after the jump, in the order of their deadlines, and see the time to which it went; to have
/// each fire at its own time, [`sleep`](super::sleep) instead. Dropping it before it was polled moves
/// nothing, and after that changes nothing.
///
/// # Panics
/// Outside of a runtime, and on a kernel whose clock is the machine's: it is for
/// [`Builder::paused`](crate::runtime::Builder::paused), `#[quoit::test(paused = true)]`, and the
/// [simulator](crate::sim).
///
/// ```
/// use quoit::runtime::Builder;
/// use quoit::time::{self, Instant, sleep};
/// use std::time::Duration;
///
/// Builder::new().paused().run(async {
///     let start = Instant::now();
///     let hour = quoit::spawn(sleep(Duration::from_secs(3600)));
///     time::advance(Duration::from_secs(3599)).await;
///     assert!(!hour.is_finished());
///     time::advance(Duration::from_secs(1)).await;
///     assert!(hour.is_finished());
///     assert_eq!(start.elapsed(), Duration::from_secs(3600));
/// })?;
/// # quoit::runtime::Result::Ok(())
/// ```
#[track_caller]
pub fn advance(duration: Duration) -> impl Future<Output = ()> {
    let at = std::panic::Location::caller();
    async move {
        let target = Instant::now() + duration;
        // The timer is set before the clock moves: it stands in line with those that are due.
        let mut sleep = pin!(sleep_until(target));
        let passed = poll_fn(|context| Poll::Ready(sleep.as_mut().poll(context).is_ready())).await;
        match current::with(|ring: &Ring| ring.advance(target.ns())) {
            Some(true) => {}
            Some(false) => panic!(
                "time::advance, called at {at}: the clock is the machine's; make the runtime with \
                 `Builder::paused`, or the test with `#[quoit::test(paused = true)]`"
            ),
            None => op::outside("time::advance"),
        }
        if !passed {
            sleep.await;
        }
        // Those that were woken before this have their turn.
        crate::task::yield_now().await;
    }
}
