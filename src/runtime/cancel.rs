//! Ending a task, and waiting until nothing of it is left.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crate::op::Release;
use crate::task::{JoinError, JoinHandle};

impl<T> JoinHandle<T> {
    /// Ends the task, as [`abort`](JoinHandle::abort) does at once, and waits until the kernel holds
    /// nothing of it any more: its future is dropped, each operation that it had in flight has had its
    /// last answer, and their buffers are free.
    ///
    /// If the task had ended by itself, the future gives its output, or its panic; otherwise a
    /// [`JoinError`] that [`is_cancelled`](JoinError::is_cancelled). It gives them as late in both cases.
    ///
    /// What arrives for the operations is not lost: see the [crate's page](crate). One that the kernel
    /// cannot cancel, such as the read of a disk, is awaited to its end. Operations of streams and
    /// listeners that others still have are theirs, and go on.
    ///
    /// Dropping the future detaches the task, which ends all the same.
    ///
    /// # Panics
    /// On another core than the task's own, when it is polled.
    ///
    /// ```
    /// use quoit::net::{TcpListener, TcpStream};
    ///
    /// # quoit::runtime::run(async {
    /// let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// let client = TcpStream::connect(listener.local_addr()?).await?;
    /// let reader = quoit::spawn(async move { client.read(vec![0; 4096]).await.map(|(n, _)| n) });
    /// quoit::task::yield_now().await;
    ///
    /// let outcome = reader.cancel().await;
    /// assert!(outcome.is_err_and(|error| error.is_cancelled()));
    /// assert_eq!(quoit::runtime::stats().orphans, 0);
    ///
    /// let done = quoit::spawn(async { 7 });
    /// quoit::task::yield_now().await;
    /// assert_eq!(done.cancel().await.unwrap(), 7);
    /// # std::io::Result::Ok(()) }).unwrap().unwrap();
    /// ```
    pub fn cancel(self) -> Cancel<T> {
        self.abort();
        Cancel { task: self, release: None }
    }
}

/// The future of [`JoinHandle::cancel`].
#[must_use = "the task ends in any case, and this says when nothing of it is left"]
pub struct Cancel<T> {
    task: JoinHandle<T>,
    /// Once the task has ended.
    release: Option<Release>,
}

impl<T> Future for Cancel<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.release.is_none() {
            ready!(this.task.poll_finished(context));
        }
        // The task keeps its key until its outcome is taken.
        let release = this.release.get_or_insert_with(|| Release::of(this.task.key()));
        ready!(Pin::new(release).poll(context));
        Pin::new(&mut this.task).poll(context)
    }
}

impl<T> fmt::Debug for Cancel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cancel").field(&self.task).finish()
    }
}
