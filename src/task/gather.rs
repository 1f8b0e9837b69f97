//! Many futures of one kind, awaited together.
//!
//! They run inside the task that awaits, on its core, and may borrow from it.

use std::fmt;
use std::future::Future;
use std::iter::Fuse;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::children::Children;

/// Awaits all `futures` together, and gives their outputs in the order of the futures.
///
/// It is asyncio's `gather`. The futures need not be `'static`: they run inside this task, and each is
/// polled only when it was woken itself. Dropping the gather drops them all. A panic in one of them is
/// a panic of this task. For tasks of their own, which run on when nobody awaits them, use
/// [`spawn`](super::spawn).
///
/// ```
/// # quoit::runtime::run(async {
/// let name = String::from("quoit");
/// let greet = async |n: usize| format!("{name} {n}");
/// assert_eq!(quoit::task::gather((1..3).map(greet)).await, ["quoit 1", "quoit 2"]);
/// # }).unwrap();
/// ```
pub fn gather<I>(futures: I) -> Gather<I::IntoIter>
where
    I: IntoIterator,
    I::Item: Future,
{
    Gather::new(usize::MAX, futures.into_iter())
}

/// Like [`gather`], with at most `limit` of the futures started and not ended at any time.
///
/// The next is taken from the iterator when there is room for it, so the iterator may be long.
///
/// # Panics
/// When `limit` is zero: nothing would ever be done.
///
/// ```
/// # quoit::runtime::run(async {
/// let squares = quoit::task::gather_limit(2, (0..5).map(async |n| n * n)).await;
/// assert_eq!(squares, [0, 1, 4, 9, 16]);
/// # }).unwrap();
/// ```
#[track_caller]
pub fn gather_limit<I>(limit: usize, futures: I) -> Gather<I::IntoIter>
where
    I: IntoIterator,
    I::Item: Future,
{
    assert!(limit > 0, "gather_limit needs room for at least one future, and was given 0");
    Gather::new(limit, futures.into_iter())
}

/// Awaits all `futures` together until one fails: gives their values in the order of the futures, or
/// the first error. In that case it drops the rest at once.
///
/// The first error is the one that comes first; among those that come in one poll, the one that was
/// woken first. What a dropped future had already done stays done.
///
/// ```
/// # quoit::runtime::run(async {
/// let parse = async |text: &str| text.parse::<u32>();
/// assert_eq!(quoit::task::try_gather(["1", "2"].map(parse)).await, Ok(vec![1, 2]));
/// assert!(quoit::task::try_gather(["1", "two"].map(parse)).await.is_err());
/// # }).unwrap();
/// ```
pub fn try_gather<I, T, E>(futures: I) -> TryGather<I::IntoIter, T>
where
    I: IntoIterator,
    I::Item: Future<Output = Result<T, E>>,
{
    TryGather::new(usize::MAX, futures.into_iter())
}

/// Like [`try_gather`], with at most `limit` of the futures started and not ended at any time.
///
/// After an error no more are taken from the iterator.
///
/// # Panics
/// When `limit` is zero: nothing would ever be done.
///
/// ```
/// use std::io;
///
/// # quoit::runtime::run(async {
/// let copy = async |chunk: u64| io::Result::Ok(chunk * 4096);
/// let copied: u64 = quoit::task::try_gather_limit(8, (0..100).map(copy)).await?.iter().sum();
/// # assert_eq!(copied, 4950 * 4096);
/// # io::Result::Ok(())
/// # }).unwrap().unwrap();
/// ```
#[track_caller]
pub fn try_gather_limit<I, T, E>(limit: usize, futures: I) -> TryGather<I::IntoIter, T>
where
    I: IntoIterator,
    I::Item: Future<Output = Result<T, E>>,
{
    assert!(limit > 0, "try_gather_limit needs room for at least one future, and was given 0");
    TryGather::new(limit, futures.into_iter())
}

/// The future of [`gather`] and [`gather_limit`].
#[must_use = "futures do nothing unless they are awaited"]
pub struct Gather<I: Iterator<Item: Future>> {
    running: Running<I>,
    outputs: Outputs<<I::Item as Future>::Output>,
}

// Each future is in a box of its own, and nothing else is pinned.
impl<I: Iterator<Item: Future>> Unpin for Gather<I> {}

impl<I: Iterator<Item: Future>> Gather<I> {
    fn new(limit: usize, futures: I) -> Self {
        Gather { running: Running::new(limit, futures), outputs: Outputs(Vec::new()) }
    }
}

impl<I: Iterator<Item: Future>> Future for Gather<I> {
    type Output = Vec<<I::Item as Future>::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.running.begin("gather");
        while let Some((index, output)) = ready!(self.running.poll_next(context)) {
            self.outputs.put(index, output);
        }
        self.running.end();
        Poll::Ready(self.outputs.take())
    }
}

/// The future of [`try_gather`] and [`try_gather_limit`].
#[must_use = "futures do nothing unless they are awaited"]
pub struct TryGather<I: Iterator<Item: Future>, T> {
    running: Running<I>,
    outputs: Outputs<T>,
}

// As for `Gather`.
impl<I: Iterator<Item: Future>, T> Unpin for TryGather<I, T> {}

impl<I: Iterator<Item: Future>, T> TryGather<I, T> {
    fn new(limit: usize, futures: I) -> Self {
        TryGather { running: Running::new(limit, futures), outputs: Outputs(Vec::new()) }
    }
}

impl<I, T, E> Future for TryGather<I, T>
where
    I: Iterator<Item: Future<Output = Result<T, E>>>,
{
    type Output = Result<Vec<T>, E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.running.begin("try_gather");
        while let Some((index, output)) = ready!(self.running.poll_next(context)) {
            match output {
                Ok(value) => self.outputs.put(index, value),
                Err(error) => {
                    self.running.end();
                    self.outputs.0.clear();
                    return Poll::Ready(Err(error));
                }
            }
        }
        self.running.end();
        Poll::Ready(Ok(self.outputs.take()))
    }
}

/// The futures that have been started, and the iterator of those that have not.
struct Running<I: Iterator<Item: Future>> {
    futures: Option<Fuse<I>>,
    limit: usize,
    started: usize,
    children: Children<I::Item>,
}

impl<I: Iterator<Item: Future>> Running<I> {
    fn new(limit: usize, futures: I) -> Self {
        Running { futures: Some(futures.fuse()), limit, started: 0, children: Children::new() }
    }

    fn begin(&mut self, what: &str) {
        assert!(self.futures.is_some(), "a {what} was polled after it had completed");
        self.children.begin();
    }

    /// The next future that ends: its index and its output. `None` when all have ended.
    fn poll_next(
        &mut self,
        context: &Context<'_>,
    ) -> Poll<Option<(usize, <I::Item as Future>::Output)>> {
        while self.children.len() < self.limit {
            let Some(future) = self.futures.as_mut().and_then(Iterator::next) else { break };
            self.children.add(self.started, future);
            self.started += 1;
        }
        if self.children.len() == 0 {
            return Poll::Ready(None);
        }
        self.children.poll_next(context).map(Some)
    }

    /// Drops what has not ended or not been started.
    fn end(&mut self) {
        self.futures = None;
        self.children.clear();
    }
}

/// The outputs so far, each at the index of its future.
struct Outputs<T>(Vec<Option<T>>);

impl<T> Outputs<T> {
    fn put(&mut self, index: usize, output: T) {
        if self.0.len() <= index {
            self.0.resize_with(index + 1, || None);
        }
        self.0[index] = Some(output);
    }

    /// All of them, in order.
    fn take(&mut self) -> Vec<T> {
        let all = std::mem::take(&mut self.0);
        all.into_iter().map(|output| output.expect("every future has ended")).collect()
    }
}

impl<I: Iterator<Item: Future>> fmt::Debug for Gather<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gather").field("running", &self.running).finish()
    }
}

impl<I: Iterator<Item: Future>, T> fmt::Debug for TryGather<I, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TryGather").field("running", &self.running).finish()
    }
}

impl<I: Iterator<Item: Future>> fmt::Debug for Running<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ended = self.started - self.children.len();
        write!(f, "{} started, {ended} ended", self.started)
    }
}
