//! What every runtime's executor is asked to do, one cell for each run of a program.
//!
//!     tokio_executor yield-1 1000000      prints nanoseconds of CPU for each step, and megabytes
//!
//! It is the CPU time of the whole process, for blocking work runs on other threads. The memory is what
//! the process has gained, of which only that of the sleeps means anything.

use std::fmt::Debug;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::child::resident_bytes;

const BATCH: u64 = 1_000;
const HOUR: Duration = Duration::from_secs(3600);

/// A runtime, as far as its executor is concerned.
///
/// What it spawns is `Send`, so that a runtime that can do more than one thread is not held back.
pub trait Executor {
    fn block_on(future: impl Future<Output = ()>);
    fn spawn<T: Send + 'static>(
        future: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = T>;
    fn sleep(time: Duration) -> impl Future<Output = ()>;
    /// Spawns a [`sleeping!`] that nobody awaits.
    fn spawn_sleep(time: Duration);
    /// `None` if it has no such thing.
    fn block(steps: u64) -> Option<impl Future<Output = ()>>;
    /// Messages there and back, each through a channel of its own for one message.
    fn pass(steps: u64) -> Option<impl Future<Output = ()>>;
    /// Channels for one value, which is there before it is awaited.
    fn oneshots(steps: u64) -> Option<impl Future<Output = ()>>;
}

/// Awaits a task, and passes its panic on. An async block would move the handle once more.
pub struct Joined<F>(pub F);

impl<T, E: Debug, F: Future<Output = Result<T, E>> + Unpin> Future for Joined<F> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        Pin::new(&mut self.0).poll(context).map(Result::unwrap)
    }
}

/// Wakes itself once.
struct Yield(bool);

impl Future for Yield {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.0 {
            return Poll::Ready(());
        }
        self.0 = true;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Sleeps that have begun.
static POLLED: AtomicU64 = AtomicU64::new(0);

/// Called by the task of each sleep, see [`sleeping!`].
pub fn polled() {
    POLLED.fetch_add(1, Ordering::Relaxed);
}

/// Runs the cell that the command line names.
pub fn main<E: Executor>() {
    let mut arguments = std::env::args().skip(1);
    let cell = arguments.next().expect("the name of a cell");
    let steps = arguments.next().and_then(|text| text.parse().ok()).expect("a number of steps");
    E::block_on(async {
        // What is done once is not counted.
        run::<E>(&cell, BATCH).await;
        let (before, start) = (resident_mb(), cpu_ns());
        if run::<E>(&cell, steps).await {
            let each = (cpu_ns() - start) as f64 / steps as f64;
            println!("{each:.1} {:.0}", resident_mb() - before);
        }
    });
}

/// False if the runtime cannot do it.
async fn run<E: Executor>(cell: &str, steps: u64) -> bool {
    match cell {
        "spawn" => {
            for number in 0..steps {
                assert_eq!(E::spawn(async move { number }).await, number);
            }
        }
        "batch" => {
            let mut joins = Vec::with_capacity(BATCH as usize);
            for _ in 0..steps / BATCH {
                joins.extend((0..BATCH).map(|number| E::spawn(async move { number })));
                for join in joins.drain(..) {
                    join.await;
                }
            }
        }
        // In a task: that is what the future of `block_on` is with some; with others it goes before all tasks.
        "yield-1" => E::spawn(yields(steps)).await,
        "yield-1000" => {
            let tasks: Vec<_> = (0..BATCH).map(|_| E::spawn(yields(steps / BATCH))).collect();
            for task in tasks {
                task.await;
            }
        }
        "timer-churn" => {
            for _ in 0..steps {
                let mut sleep = pin!(E::sleep(HOUR));
                let polled = poll_fn(|context| Poll::Ready(sleep.as_mut().poll(context))).await;
                assert!(polled.is_pending());
            }
        }
        "sleeps" => sleeps::<E>(steps).await,
        "blocking" => return unless_none(E::block(steps)).await,
        "channel" => return unless_none(E::pass(steps)).await,
        "oneshot" => return unless_none(E::oneshots(steps)).await,
        other => panic!("no cell is called {other}"),
    }
    true
}

/// Goes on when each of them has begun. It sleeps until then: some runtimes poll only a few tasks
/// before a future that has yielded, or none.
async fn sleeps<E: Executor>(count: u64) {
    let due = POLLED.load(Ordering::Relaxed) + count;
    for number in 0..count {
        E::spawn_sleep(HOUR + Duration::from_micros(number));
    }
    while POLLED.load(Ordering::Relaxed) < due {
        E::sleep(Duration::from_millis(1)).await;
    }
}

async fn yields(count: u64) {
    for _ in 0..count {
        Yield(false).await;
    }
}

async fn unless_none(steps: Option<impl Future<Output = ()>>) -> bool {
    match steps {
        Some(steps) => steps.await,
        None => return false,
    }
    true
}

/// CPU time of the process in nanoseconds.
fn cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the answer.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn resident_mb() -> f64 {
    resident_bytes("self").expect("/proc is there") as f64 / f64::from(1 << 20)
}

/// There and back through two channels, which `$channel` makes, of room for one message.
#[macro_export]
macro_rules! pass {
    ($channel:expr, $spawn:expr, $steps:expr) => {
        #[allow(unused_mut, reason = "some receivers are used as they are")]
        async move {
            let ((there, mut arrives), (back, mut returns)) = ($channel, $channel);
            let other = $spawn(async move {
                while let Some(number) = arrives.recv().await {
                    assert!(back.send(number).await.is_ok());
                }
            });
            for number in 0..$steps {
                assert!(there.send(number).await.is_ok());
                assert!(returns.recv().await == Some(number));
            }
            drop(there);
            let _ = other.await;
        }
    };
}

/// A task that sleeps, and is counted when it begins. The sleep is made there: as an argument it would
/// lie in the task twice.
#[macro_export]
macro_rules! sleeping {
    ($sleep:expr) => {
        async move {
            $crate::executor::polled();
            $sleep.await;
        }
    };
}

/// Values that are sent, and then received.
#[macro_export]
macro_rules! oneshots {
    ($channel:expr, $steps:expr) => {
        async move {
            for number in 0..$steps {
                let (sender, receiver) = $channel;
                assert!(sender.send(std::hint::black_box(number)).is_ok());
                assert!(receiver.await.is_ok_and(|received| received == number));
            }
        }
    };
}
