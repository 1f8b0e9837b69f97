//! Signals of the operating system, as streams on any number of cores.
//!
//! ```
//! use quoit::signal::{SignalKind, signal};
//!
//! # quoit::runtime::run(async {
//! let mut hangup = signal(SignalKind::hangup())?;
//! # // SAFETY: the call takes no pointers.
//! # unsafe { libc::raise(libc::SIGHUP) };
//! hangup.recv().await; // read the configuration again
//! # std::io::Result::Ok(()) }).unwrap().unwrap();
//! ```
//!
//! Every stream of a signal sees it, on every core and in every runtime of the process. Signals that
//! come faster than a stream is read are one: so has the system it, too.
//!
//! **The default action of a signal ends with its first stream**, and stays away when the stream is
//! dropped and when the runtime has ended: between two calls of [`ctrl_c`] in a loop, Ctrl-C must not
//! end the process. [`restore`] brings it back. A handler that was there before is still called. One
//! that is installed later has to call the one that it finds, or the streams hear nothing more.
//!
//! The signals of [`Builder::shutdown_on`](crate::runtime::Builder::shutdown_on) stop the cores as
//! ever, and their streams see them too. To handle one alone, leave it out there.
//!
//! A signal that all threads of the process block is not delivered, and so not seen.
//!
//! In a simulation each process has signals of its own, those that
//! [`Sim::signal`](crate::sim::Sim::signal) sends it.

mod hub;
mod kind;
mod stream;

pub use kind::{ForbiddenSignal, SignalKind};
pub use stream::{CtrlC, Signal, ctrl_c, restore, signal};
