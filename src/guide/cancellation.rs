//! Cancellation: to end something before it is done, and what becomes of it.
//!
//! # To drop is to cancel
//!
//! Any future may be dropped at any time: in a [`select!`](crate::select), by a
//! [`timeout`](crate::time::timeout), with its task. That is O(1), makes no system call and cannot fail.
//! What the kernel still does for it belongs to the runtime until the kernel's last answer:
//!
//! | dropped | what becomes of it |
//! |---|---|
//! | `read`, `recv` | bytes that come go to the next read of the stream |
//! | `accept` | the connection goes to the next `accept` |
//! | `write` | may have been sent in part, and never mixes with the next one |
//! | `open`, `connect` | what was opened is closed |
//! | a lock, a permit, a message | passes on to the next in line |
//!
//! So a race loses nothing, whoever wins it:
//!
//! ```
//! use quoit::net::{TcpListener, TcpStream};
//! use quoit::time::sleep;
//! use std::time::Duration;
//!
//! # quoit::runtime::run(async {
//! let listener = TcpListener::bind("127.0.0.1:0").await?;
//! let address = listener.local_addr()?;
//! let mut ticks = 0;
//! let late = quoit::spawn(async move {
//!     sleep(Duration::from_millis(5)).await;
//!     TcpStream::connect(address).await
//! });
//! let (_stream, _peer) = loop {
//!     quoit::select! {
//!         accepted = listener.accept() => break accepted?,
//!         // Each tick drops an accept that waits, and begins another.
//!         _ = sleep(Duration::from_millis(1)) => ticks += 1,
//!     }
//! };
//! assert!(ticks > 0);
//! late.await.unwrap()?;
//! # std::io::Result::Ok(()) }).unwrap().unwrap();
//! ```
//!
//! # To have the buffer back
//!
//! A dropped read has its buffer with it. If that is dear, do not drop the read: give it a limit.
//! [`TimeoutExt::timeout`](crate::time::TimeoutExt::timeout) cancels the operation and awaits its true
//! outcome, which may still be a success. It may come a little later than the limit says.
//!
//! ```
//! use quoit::net::{TcpListener, TcpStream};
//! use quoit::time::TimeoutExt;
//! use std::io::ErrorKind;
//! use std::time::Duration;
//!
//! # quoit::runtime::run(async {
//! # let listener = TcpListener::bind("127.0.0.1:0").await?;
//! # let silent = TcpStream::connect(listener.local_addr()?).await?;
//! let read = silent.read(Vec::with_capacity(1 << 20)).timeout(Duration::from_millis(2));
//! let failed = read.await.unwrap_err();
//! assert_eq!(failed.error.kind(), ErrorKind::TimedOut);
//! assert_eq!(failed.buf.capacity(), 1 << 20);
//! # std::io::Result::Ok(()) }).unwrap().unwrap();
//! ```
//!
//! [`time::deadline`](crate::time::deadline) is the same for all operations below it, however deep: `recv`,
//! `accept` and `connect` end with `TimedOut` too, and whoever awaits them goes on and cleans up.
//!
//! # To end tasks
//!
//! | to end | use |
//! |---|---|
//! | one, soon | [`JoinHandle::abort`](crate::task::JoinHandle::abort) |
//! | one, and know that the kernel holds nothing of it | [`JoinHandle::cancel`][cancel]`.await` |
//! | one, with its handle | [`AbortOnDrop`](crate::task::AbortOnDrop) |
//! | all of a set | [`JoinSet::shutdown`](crate::task::JoinSet::shutdown), or drop it |
//! | all of a scope, at the first error | [`task::scope`](crate::task::scope) |
//! | whoever listens, when they can | [`CancelToken`](crate::sync::CancelToken) |
//! | every core, with a period of grace | [`Core::shutdown`](crate::runtime::Core::shutdown) |
//!
//! [cancel]: crate::task::JoinHandle::cancel
//!
//! A token asks; the others tell. A task that has something to finish takes a token:
//!
//! ```
//! use quoit::sync::CancelToken;
//! use quoit::time::sleep;
//! use std::time::Duration;
//!
//! # quoit::runtime::run(async {
//! let stop = CancelToken::new();
//! let asked = stop.child();
//! let worker = quoit::spawn(async move {
//!     let mut rounds = 0;
//!     while asked.run_until(sleep(Duration::from_millis(1))).await.is_some() {
//!         rounds += 1;
//!     }
//!     // Here it finishes what it has begun.
//!     rounds
//! });
//! sleep(Duration::from_millis(10)).await;
//! stop.cancel();
//! assert!(worker.await.unwrap() > 0);
//! # }).unwrap();
//! ```
