//! From tokio: what has the same name, and what has another shape.
//!
//! | tokio | here |
//! |---|---|
//! | `#[tokio::main]` | [`#[quoit::main]`](crate::main), on every core `#[quoit::main(per_core)]` |
//! | `tokio::spawn(f)`, `spawn_local(f)` | [`spawn`](crate::spawn): the future stays on its core |
//! | `select!`, `join!`, `try_join!` | the same, with the same grammar |
//! | `JoinSet`, `JoinHandle`, `AbortHandle` | the same, in [`task`](crate::task) |
//! | `task_local!` | [`task_local!`](crate::task_local) |
//! | `CancellationToken` | [`sync::CancelToken`](crate::sync::CancelToken) |
//! | `sync::{Mutex, Semaphore, mpsc, watch, ..}` | the same, in [`sync`](crate::sync), for one core |
//! | `mpsc` between threads | [`mesh::channel`](crate::mesh::channel) |
//! | `stream.read(&mut buf)` | `stream.read(buf)`, `stream.recv()`, or [`io::BufReader`](crate::io::BufReader) |
//! | `codec::{Framed, Decoder}` | [`io::{FramedRead, FramedWrite}`](crate::io::FramedRead) |
//! | `io::copy_bidirectional` | [`io::copy_bidirectional`](crate::io::copy_bidirectional) |
//! | `time::{sleep, timeout, interval}` | the same, in [`time`](crate::time) |
//! | `time::pause()`, `start_paused` | `#[quoit::test(paused = true)]` |
//! | `signal`, `process` | the same: [`signal`](crate::signal), [`process`](crate::process) |
//! | `AsyncFd` | [`io::PollFd`](crate::io::PollFd) |
//! | `runtime::Builder`, `Handle`, `block_on` | the same words, in [`runtime`](crate::runtime) |
//!
//! # Buffers are passed by value
//!
//! epoll says that bytes wait, and then you copy them into what you hold. io_uring writes while you
//! wait, so the kernel must have the memory for itself, also when you drop the future. A method takes the
//! buffer and gives it back, with an error as well; `?` works. [`io::BufReader`](crate::io::BufReader) takes a
//! `&mut [u8]`, and copies.
//!
//! ```
//! use quoit::net::{TcpListener, TcpStream};
//!
//! # quoit::runtime::run(async {
//! let listener = TcpListener::bind("127.0.0.1:0").await?;
//! let client = TcpStream::connect(listener.local_addr()?).await?;
//! let (server, _) = listener.accept().await?;
//!
//! client.write_all("hello").await?;
//! let (n, buf) = server.read(Vec::with_capacity(1024)).await?;
//! assert_eq!(&buf[..n], b"hello");
//! // Most servers read so: the buffer is the core's, and goes home when it is dropped.
//! client.write_all("again").await?;
//! assert_eq!(&*server.recv().await?.unwrap(), b"again");
//! # std::io::Result::Ok(()) }).unwrap().unwrap();
//! ```
//!
//! A stream is read and written through `&self`, so there is nothing to split.
//!
//! # Nothing moves between cores
//!
//! A task stays where it was spawned, so `Rc`, `Cell` and [`sync`](crate::sync) take the place of `Arc`,
//! atomics and locks. What has to be on another core is asked for there:
//!
//! ```
//! use quoit::runtime::{self, PerCore};
//! use std::cell::Cell;
//!
//! static VISITS: PerCore<Cell<u64>> = PerCore::new(|| Cell::new(0));
//!
//! # runtime::run(async {
//! let core = runtime::core_for("ada");
//! let visits = core.call(async || VISITS.with(|visits| visits.replace(visits.get() + 1) + 1)).await?;
//! assert_eq!(visits, 1);
//! # std::io::Result::Ok(()) }).unwrap().unwrap();
//! ```
//!
//! # What else is different
//!
//! - A dropped `read` has read nothing that is lost: the next one gets it. What a dropped write has written
//!   is written, as everywhere; each method says what it leaves.
//! - [`JoinSet`](crate::task::JoinSet) keeps outcomes until they are asked for, as tokio's does: a loop that
//!   accepts has a branch for `join_next`.
//! - The runtime waits for the kernel when it ends, before memory is freed.
