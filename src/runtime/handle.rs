//! The way in to a core from other threads.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::io;
use std::panic::Location;

use super::dump::Dump;
use super::local::Local;
use super::remote_task::{self, RemoteTask};
use crate::sys::atomic::Arc;
use crate::task::{Remote, spawn_at};

/// Hands work to a core, from any thread.
///
/// It keeps nothing alive: when the core has ended, it refuses. What one thread sends to one core
/// is run in the order in which it was sent. Sending never blocks.
///
/// ```
/// use quoit::runtime::{self, Handle};
///
/// runtime::run(async {
///     let handle = Handle::current();
///     let other = std::thread::spawn(move || {
///         let task = handle.spawn_on(async || 6 * 7).unwrap();
///         task.wait().unwrap()
///     });
///     while !other.is_finished() {
///         quoit::task::yield_now().await;
///     }
///     assert_eq!(other.join().unwrap(), 42);
/// })
/// .unwrap();
/// ```
#[derive(Clone)]
pub struct Handle {
    index: usize,
    remote: Arc<Remote>,
}

impl Handle {
    pub(super) fn of(local: &Local) -> Self {
        Handle { index: local.index, remote: Arc::clone(&local.remote) }
    }

    /// That of the core on which it is called.
    ///
    /// # Panics
    /// Outside of a runtime.
    #[must_use]
    #[track_caller]
    pub fn current() -> Self {
        match Handle::try_current() {
            Some(handle) => handle,
            None => panic!(
                "Handle::current was called outside of a runtime; start one with \
                 `quoit::runtime::run`, and send its handle to where it is needed"
            ),
        }
    }

    /// That of the core on which it is called, or `None` outside of a runtime.
    #[must_use]
    pub fn try_current() -> Option<Self> {
        Local::current().map(|local| Handle::of(&local))
    }

    /// The core's position among those that were started together, from 0.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// A number that no other core of this process has, had or will have.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.remote.core
    }

    /// Has the core call `f` soon, between two polls of its tasks.
    ///
    /// A panic in `f` is caught, logged and counted ([`Stats`](super::Stats)). If the core ends
    /// before it has come to `f`, then `f` is dropped there without being called.
    ///
    /// # Errors
    /// When the core has ended.
    ///
    /// ```
    /// use quoit::runtime::Runtime;
    ///
    /// let runtime = Runtime::new()?;
    /// let handle = runtime.handle();
    /// std::thread::spawn(move || handle.call_soon(|| println!("on the core")).unwrap());
    /// runtime.block_on(async { /* ... */ });
    /// # quoit::runtime::Result::Ok(())
    /// ```
    pub fn call_soon<F>(&self, f: F) -> Result<(), CoreEnded>
    where
        F: FnOnce() + Send + 'static,
    {
        let callback = Callback(Some(f));
        self.remote.send_soon(|| callback.call()).map_err(|_| CoreEnded(()))
    }

    /// Asks the core for its tasks, and what they wait for; see [`runtime::dump`](super::dump).
    ///
    /// It answers between two polls. One that is stuck in a poll does not:
    /// [`Builder::stall_threshold`](super::Builder::stall_threshold) tells of that.
    ///
    /// # Errors
    /// When the core has ended.
    ///
    /// ```
    /// use quoit::runtime::{self, Handle};
    ///
    /// # runtime::run(async {
    /// let handle = Handle::current();
    /// let other = quoit::spawn_blocking(move || handle.dump().unwrap().wait().unwrap());
    /// assert_eq!(other.await.unwrap().core_index, 0);
    /// # }).unwrap();
    /// ```
    pub fn dump(&self) -> Result<RemoteTask<Dump>, CoreEnded> {
        let (promise, task) = remote_task::pair();
        let message = move || {
            if let Some(local) = Local::current() {
                promise.answer(local.dump());
            }
        };
        self.remote.send(message).map_err(|_| CoreEnded(()))?;
        Ok(task)
    }

    /// Has the core call `f` and run the future that it returns as a task.
    ///
    /// The closure travels, the future stays: it need not be `Send`, only its output. Dropping the
    /// [`RemoteTask`] lets the task run on.
    ///
    /// # Errors
    /// When the core has ended.
    #[track_caller]
    pub fn spawn_on<F, Fut>(&self, f: F) -> Result<RemoteTask<Fut::Output>, CoreEnded>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future + 'static,
        Fut::Output: Send + 'static,
    {
        let (promise, task) = remote_task::pair();
        let at = Location::caller();
        let message = move || {
            // The closure runs within the task, and so does its panic.
            drop(spawn_at(promise.keep(async move { f().await }), at));
        };
        self.remote.send_soon(message).map_err(|_| CoreEnded(()))?;
        Ok(task)
    }
}

/// A callback whose panic ends no loop, be it called, or dropped at the end of a core.
struct Callback<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Callback<F> {
    fn call(mut self) {
        if let Some(f) = self.0.take() {
            Local::call(f);
        }
    }
}

impl<F: FnOnce()> Drop for Callback<F> {
    fn drop(&mut self) {
        if let Some(f) = self.0.take() {
            Local::call(|| drop(f));
        }
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("index", &self.index).field("id", &self.id()).finish()
    }
}

/// The core has ended, and takes no more work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoreEnded(());

impl fmt::Display for CoreEnded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the core has ended, and takes no more work")
    }
}

impl StdError for CoreEnded {}

impl From<CoreEnded> for io::Error {
    fn from(ended: CoreEnded) -> Self {
        io::Error::new(io::ErrorKind::NotConnected, ended)
    }
}
