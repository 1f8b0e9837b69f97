//! The streams.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::hub;
use super::kind::SignalKind;
use crate::op::Ring;
use crate::sys::current;
use crate::sys::fork::{Forked, forked};

/// Hears a signal from now on, on this core and on every other that asks for it.
///
/// As with tokio, the signal no longer has its default action afterwards: see [`restore`].
///
/// # Errors
/// `InvalidInput` with a [`ForbiddenSignal`](crate::signal::ForbiddenSignal) inside, such as for
/// `SIGKILL`, or for what is no signal; `Unsupported` in the [simulator](crate::sim), whose processes
/// get none; [`Forked`] in a forked child; when no thread can be started.
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
    if current::with(Ring::is_simulated) == Some(true) {
        let text = "signals are the machine's, and a simulated process gets none";
        return Err(io::Error::new(io::ErrorKind::Unsupported, text));
    }
    Ok(Signal { key: hub::join(kind.as_raw_value())?, kind })
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
    hub::restore(kind.as_raw_value())
}

/// A stream of one signal; see [`signal`].
///
/// It belongs to no core: it may be sent to another, and be awaited outside of a runtime.
pub struct Signal {
    key: usize,
    kind: SignalKind,
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
        hub::poll(self.key, context)
    }

    /// Which signal it is.
    #[must_use]
    pub fn kind(&self) -> SignalKind {
        self.kind
    }
}

impl Drop for Signal {
    fn drop(&mut self) {
        hub::leave(self.key);
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
