//! The streams.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::hub;
use super::kind::SignalKind;
use crate::sys::atomic::Arc;
use crate::sys::current;
use crate::sys::fork::{Forked, forked};
use crate::sys::signal_streams::Invented;

/// Hears a signal from now on, on this core and on every other that asks for it.
///
/// As with tokio, the signal no longer has its default action afterwards: see [`restore`].
///
/// # Errors
/// `InvalidInput` with a [`ForbiddenSignal`](crate::signal::ForbiddenSignal) inside, such as for
/// `SIGKILL`, or for what is no signal; [`Forked`] in a forked child; when no thread can be started.
///
/// In the [simulator](crate::sim) it hears those that [`Sim::signal`](crate::sim::Sim::signal) sends.
///
/// ```
/// use quoit::signal::{SignalKind, signal};
///
/// # quoit::runtime::run(async {
/// let mut alarms = signal(SignalKind::alarm())?;
/// # // SAFETY: the call takes no pointers.
/// # unsafe { libc::raise(libc::SIGALRM) };
/// alarms.recv().await;
/// # std::io::Result::Ok(()) }).unwrap().unwrap();
/// ```
pub fn signal(kind: SignalKind) -> io::Result<Signal> {
    kind.check()?;
    if forked() {
        return Err(Forked.into());
    }
    let number = kind.as_raw_value();
    let process = simulated();
    let key = match &process {
        Some(process) => process.join(number),
        None => hub::join(number),
    }?;
    Ok(Signal { key, kind, process })
}

/// Ends when the process gets `SIGINT`, which Ctrl-C sends. It listens from the call on.
///
/// In a `select` of a loop it is made anew for each turn: a Ctrl-C that comes between two of them is
/// missed. Where that matters, keep one [`signal`] for the whole loop.
///
/// # Errors
/// As [`signal`].
///
/// ```
/// # quoit::runtime::run(async {
/// let stop = quoit::signal::ctrl_c();
/// # // SAFETY: the call takes no pointers.
/// # unsafe { libc::raise(libc::SIGINT) };
/// stop.await?;
/// # std::io::Result::Ok(()) }).unwrap().unwrap();
/// ```
pub fn ctrl_c() -> CtrlC {
    CtrlC(signal(SignalKind::interrupt()).map_err(Some))
}

/// Has a signal do again what it did before its first stream.
///
/// # Errors
/// `ResourceBusy` while there are streams of it; `InvalidInput` for what is no signal.
///
/// ```
/// use quoit::signal::{SignalKind, restore, signal};
///
/// let stream = signal(SignalKind::user_defined2())?;
/// assert!(restore(SignalKind::user_defined2()).is_err());
/// drop(stream);
/// restore(SignalKind::user_defined2())?; // from now on it ends the process again
/// # std::io::Result::Ok(())
/// ```
pub fn restore(kind: SignalKind) -> io::Result<()> {
    if forked() {
        return Err(Forked.into());
    }
    match simulated() {
        Some(process) => process.restore(kind.as_raw_value()),
        None => hub::restore(kind.as_raw_value()),
    }
}

/// The simulated process whose core this is, if it is one.
fn simulated() -> Option<Arc<Invented>> {
    current::core(|core| core.signals.clone()).flatten()
}

/// A stream of one signal; see [`signal`].
///
/// It belongs to no core: it may be sent to another, and be awaited outside of a runtime.
pub struct Signal {
    key: usize,
    kind: SignalKind,
    /// Whose signals these are, if not this process's.
    process: Option<Arc<Invented>>,
}

impl Signal {
    /// Waits until the signal has come since the last call, or since the stream was made: once or
    /// several times. It never ends without one. Dropping the future loses nothing.
    pub async fn recv(&mut self) {
        poll_fn(|context| self.poll_recv(context)).await;
    }

    /// As [`recv`](Self::recv), for a future that is written by hand. The waker of the last call is
    /// the one that is woken.
    pub fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<()> {
        // Cloned before a lock is held.
        let waker = context.waker().clone();
        let hears = match &self.process {
            Some(process) => process.poll(self.key, waker),
            None => hub::poll(self.key, waker),
        };
        if hears { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Which signal it is.
    #[must_use]
    pub fn kind(&self) -> SignalKind {
        self.kind
    }
}

impl Drop for Signal {
    fn drop(&mut self) {
        match &self.process {
            Some(process) => process.leave(self.key),
            None => hub::leave(self.key),
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Signal").field(&self.kind).finish()
    }
}

/// The future of [`ctrl_c`].
#[must_use = "futures do nothing unless they are awaited"]
#[derive(Debug)]
pub struct CtrlC(Result<Signal, Option<io::Error>>);

impl Future for CtrlC {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Ok(signal) => {
                ready!(signal.poll_recv(context));
                Poll::Ready(Ok(()))
            }
            Err(error) => Poll::Ready(Err(error.take().expect("`ctrl_c` is awaited once"))),
        }
    }
}
