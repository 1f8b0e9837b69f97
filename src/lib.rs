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
//! | `asyncio.wait_for(f, t)` | [`time::timeout`] |
//! | `asyncio.sleep(t)` | [`time::sleep`] |
//! | `loop.call_soon(f)` | [`call_soon`] |
//! | `loop.call_later(t, f)`, `loop.call_at(t, f)` | [`call_later`], [`call_at`] |
//! | `loop.call_soon_threadsafe(f)` | [`runtime::Handle::call_soon`] |
//! | `loop.run_in_executor(f)` | [`spawn_blocking`] |

pub mod buf;
pub mod doctor;
pub mod driver;
pub mod fs;
pub mod io;
pub mod mesh;
pub mod net;
mod op;
pub mod runtime;
pub mod sim;
mod sync;
mod sys;
pub mod task;
pub mod time;

#[cfg(doctest)]
#[path = "../tests/refused/mod.rs"]
mod refused;

pub use sys::fork::Forked;
pub use task::{
    call_soon, gather, gather_limit, spawn, spawn_blocking, try_gather, try_gather_limit,
};
pub use time::{call_at, call_later};
