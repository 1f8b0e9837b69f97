//! Asking another core: the closure travels, the future stays there, the answer comes back.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::handle::Handle;
use super::remote_task::RemoteTask;
use super::roll::cores;
use crate::sys::atomic::Arc;
use crate::task::JoinError;

/// Waits for the answer of another core; [`Handle::call`] makes it.
///
/// It may be awaited on any core, and sent between threads. Dropping it lets what was asked for run
/// on; its answer is then dropped.
#[must_use = "futures do nothing unless they are awaited; what was asked for runs nevertheless"]
pub struct Call<T> {
    index: usize,
    /// None: the core had ended when it was asked.
    task: Option<RemoteTask<T>>,
}

impl Handle {
    /// Asks the core: it calls `f`, runs the future that this returns as a task, and sends back what
    /// comes of it.
    ///
    /// It is asked at once, not when the answer is first awaited, so several calls run at the same
    /// time. What one task asks of one core arrives there in the order in which it was asked, and is a
    /// task there like all others. The future need not be `Send`: it never leaves the core. To ask the
    /// core on which one is works as well, and takes the same way.
    ///
    /// What is asked within one turn of a core's tasks is handed over together at its end.
    ///
    /// # Errors
    /// The answer is [`Gone`] when there will be none: the core has ended, or ends before it answers, or
    /// `f` or its future panics.
    ///
    /// ```
    /// use quoit::runtime::{self, PerCore};
    /// use std::cell::Cell;
    ///
    /// static HITS: PerCore<Cell<u64>> = PerCore::new(|| Cell::new(0));
    ///
    /// runtime::start_per_core(async || {
    ///     let core = runtime::core_for("a key");
    ///     let before = core.call(async || HITS.with(|hits| hits.replace(hits.get() + 1))).await;
    ///     println!("{before:?}");
    ///     // The other's main may have ended: then it answers nothing.
    /// })?;
    /// # runtime::Result::Ok(())
    /// ```
    pub fn call<F, Fut>(&self, f: F) -> Call<Fut::Output>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future + 'static,
        Fut::Output: Send + 'static,
    {
        Call { index: self.index(), task: self.spawn_on(f).ok() }
    }
}

/// Has every core of this start call `f`, this one included, and gives their answers in the order of
/// the cores.
///
/// All are asked at once, when this is first polled. Dropping it lets what was asked for run on.
///
/// # Errors
/// [`Gone`] of the first core that does not answer, once those before it have. The others run on.
///
/// # Panics
/// Outside of a runtime.
///
/// ```
/// use quoit::runtime::{self, PerCore};
/// use std::cell::Cell;
///
/// static HITS: PerCore<Cell<u64>> = PerCore::new(|| Cell::new(0));
///
/// runtime::run(async {
///     HITS.with(|hits| hits.set(7));
///     let hits = runtime::map_cores(async || HITS.with(Cell::get)).await.unwrap();
///     assert_eq!(hits.into_iter().sum::<u64>(), 7);
/// })?;
/// # runtime::Result::Ok(())
/// ```
pub async fn map_cores<F, T>(f: F) -> Result<Vec<T>, Gone>
where
    F: AsyncFn() -> T + Send + Sync + 'static,
    T: Send + 'static,
{
    let f = Arc::new(f);
    let ask = |core: Handle| {
        let f = Arc::clone(&f);
        core.call(move || async move { (*f)().await })
    };
    let calls: Vec<_> = cores().into_iter().map(ask).collect();
    drop(f);
    let mut answers = Vec::with_capacity(calls.len());
    for call in calls {
        answers.push(call.await?);
    }
    Ok(answers)
}

impl<T> Future for Call<T> {
    type Output = Result<T, Gone>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let index = self.index;
        match &mut self.task {
            Some(task) => {
                let answer = Pin::new(task).poll(context);
                answer.map_err(|error| Gone { index, why: Some(error) })
            }
            None => Poll::Ready(Err(Gone { index, why: None })),
        }
    }
}

impl<T> fmt::Debug for Call<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("core", &self.index).finish_non_exhaustive()
    }
}

/// A core that was asked does not answer: it has ended, or what it was asked for panicked.
#[derive(Debug)]
pub struct Gone {
    index: usize,
    /// None: it had ended already.
    why: Option<JoinError>,
}

impl Gone {
    /// The index of the core.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Whether what it was asked for panicked. Otherwise the core has ended.
    #[must_use]
    pub fn is_panic(&self) -> bool {
        self.why.as_ref().is_some_and(JoinError::is_panic)
    }

    /// What it panicked with, for [`std::panic::resume_unwind`].
    ///
    /// # Errors
    /// Gives the error back if the core has ended.
    pub fn try_into_panic(self) -> Result<Box<dyn Any + Send>, Gone> {
        let Gone { index, why } = self;
        match why.map(JoinError::try_into_panic) {
            Some(Ok(panic)) => Ok(panic),
            Some(Err(why)) => Err(Gone { index, why: Some(why) }),
            None => Err(Gone { index, why: None }),
        }
    }
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.why {
            Some(why) if why.is_panic() => write!(f, "core {}: {why}", self.index),
            _ => write!(f, "core {} has ended, and does not answer", self.index),
        }
    }
}

impl StdError for Gone {}

impl From<Gone> for io::Error {
    fn from(gone: Gone) -> Self {
        let kind = if gone.is_panic() { io::ErrorKind::Other } else { io::ErrorKind::NotConnected };
        io::Error::new(kind, gone)
    }
}
