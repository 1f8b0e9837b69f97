//! A completion-based, thread-per-core runtime: one io_uring per pinned core.
//!
//! Each pinned core runs an independent loop. It hands reads, writes and timeouts to the kernel as
//! io_uring requests, and resumes tasks from the answers. Nothing is shared between cores, so a
//! future need not be `Send`, and a task never moves.
//!
//! ```no_run
//! use quoit::net::{TcpListener, TcpStream};
//! use quoit::runtime;
//! use std::io;
//!
//! fn main() -> runtime::Result<()> {
//!     runtime::start_per_core(serve)
//! }
//!
//! async fn serve() -> io::Result<()> {
//!     let listener = TcpListener::bind("127.0.0.1:7000").await?; // one socket per core
//!     loop {
//!         let (stream, _peer) = listener.accept().await?;
//!         quoit::spawn(echo(stream));
//!     }
//! }
//!
//! async fn echo(stream: TcpStream) -> io::Result<()> {
//!     while let Some(chunk) = stream.recv().await? {
//!         stream.write_all(chunk).await?; // the buffer goes home when the send completes
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # Buffers are owned
//!
//! The kernel reads and writes memory after the call that asked for it has returned. So a method
//! takes its buffer by value and gives it back with the result, also with an error
//! ([`buf::BufError`]), and `?` works. [`net::TcpStream::recv`] needs no buffer at all: the kernel
//! picks one of the core's when bytes arrive.
//!
//! # Nothing is lost
//!
//! Any future may be dropped at any time: in a `select`, by a timeout, with its task. What the
//! kernel then still delivers is not lost. Received bytes go back to their stream, accepted
//! connections to their listener, buffers to their pool, and descriptors are closed. A dropped
//! write may have been sent in part, and never interleaves with the next.
//!
//! # For those who know asyncio
//!
//! | asyncio | quoit |
//! |---|---|
//! | `asyncio.run(main())` | [`runtime::run`], and [`runtime::start_per_core`] for every core |
//! | `loop.run_until_complete(f)` | [`runtime::Runtime::run_until_complete`] |
//! | `asyncio.get_running_loop()` | [`runtime::Handle::current`] |
//! | `asyncio.create_task(f)` | [`spawn`] |
//! | `asyncio.gather(..)` | [`join!`], [`try_join!`], [`gather`], [`try_gather`] |
//! | `asyncio.TaskGroup` | [`task::scope`], [`task::JoinSet`] |
//! | `asyncio.wait(.., FIRST_COMPLETED)` | [`select!`] |
//! | `task.cancel()` | [`task::JoinHandle::cancel`], [`sync::CancelToken`] |
//! | `asyncio.wait_for(f, t)` | [`time::timeout`] |
//! | `asyncio.sleep(t)` | [`time::sleep`] |
//! | `loop.call_soon(f)` | [`call_soon`] |
//! | `loop.call_later(t, f)`, `loop.call_at(t, f)` | [`call_later`], [`call_at`] |
//! | `loop.call_soon_threadsafe(f)` | [`runtime::Handle::call_soon`] |
//! | `loop.run_in_executor(f)` | [`spawn_blocking`] |
//! | `loop.add_reader(fd, f)`, `loop.add_writer(fd, f)` | [`io::PollFd`] |
//! | `asyncio.create_subprocess_exec(..)` | [`process::Command`] |
//! | `loop.add_signal_handler(s, f)` | [`signal::signal`], [`signal::ctrl_c`] |
//! | `Lock`, `Semaphore`, `Event`, `Condition`, `Barrier`, `Queue` | [`sync`] |
//! | `loop.set_debug(True)`, `slow_callback_duration` | [`runtime::Builder::stall_threshold`], [`runtime::dump`] |
//! | `loop.set_exception_handler(f)` | [`runtime::Builder::on_panic`] |
//!
//! [`guide`] has pages to read: from asyncio, from tokio, cancellation, spreading connections.

pub mod buf;
pub mod doctor;
pub mod driver;
pub mod fs;
pub mod guide;
pub mod io;
pub mod mesh;
pub mod net;
mod op;
pub mod process;
pub mod runtime;
pub mod signal;
pub mod sim;
pub mod sync;
mod sys;
pub mod task;
pub mod time;

#[cfg(doctest)]
#[path = "../tests/refused/mod.rs"]
mod refused;

/// Runs an async `main` on a runtime.
///
/// | attribute | the function runs |
/// |---|---|
/// | `#[quoit::main]` | on one core, on this thread ([`runtime::run`]) |
/// | `#[quoit::main(per_core)]` | once on every core, each pinned ([`runtime::start_per_core`]) |
/// | `#[quoit::main(cores = 4)]` | once on each of so many cores |
/// | `#[quoit::main(driver = "epoll")]` | on that kernel: `"auto"`, `"uring"`, `"epoll"`, `"sim"` |
///
/// They can be combined, with commas. On one core the result is what the function returns; if the core
/// cannot be started, the program panics with the reason. On several cores it is a
/// [`runtime::Result`], and the function may take a [`runtime::Core`]. Whatever else is to be chosen,
/// [`runtime::Builder`] chooses it, in a `main` that is not async.
///
/// ```
/// use std::io;
///
/// #[quoit::main]
/// async fn main() -> io::Result<()> {
///     let task = quoit::spawn(async { 6 * 7 });
///     println!("{}", task.await?);
///     Ok(())
/// }
/// ```
///
/// ```
/// use quoit::runtime::Core;
///
/// #[quoit::main(cores = 2)]
/// async fn main(core: Core) {
///     println!("core {} of {}", core.index(), core.count());
/// }
/// ```
pub use quoit_macros::main;

/// Makes a test of an async function, which runs on a runtime of its own.
///
/// | attribute | the test runs |
/// |---|---|
/// | `#[quoit::test]` | on one core, on this thread |
/// | `#[quoit::test(cores = 2)]` | once on each of so many cores |
/// | `#[quoit::test(driver = "epoll")]` | on that kernel: `"auto"`, `"uring"`, `"epoll"`, `"sim"` |
/// | `#[quoit::test(paused = true)]` | where sleeps take no time ([`runtime::Builder::paused`]) |
///
/// Other attributes, such as `#[should_panic]`, stand beside it as they do beside `#[test]`. What the
/// function returns is looked at: a test that returns an `Err` fails.
///
/// ```
/// use quoit::time::{Instant, sleep};
/// use std::time::Duration;
///
/// #[quoit::test(paused = true)]
/// async fn an_hour_takes_an_hour() {
///     let start = Instant::now();
///     sleep(Duration::from_secs(3600)).await;
///     assert_eq!(start.elapsed(), Duration::from_secs(3600));
/// }
/// ```
pub use quoit_macros::test;

pub use sys::fork::Forked;
pub use task::{
    call_soon, gather, gather_limit, spawn, spawn_blocking, try_gather, try_gather_limit,
};
pub use time::{call_at, call_later};
