//! From asyncio: the same loop, and what is different about it.
//!
//! A runtime is an event loop. It has tasks, callbacks, timers, and a kernel that it asks for bytes. What
//! asyncio calls a coroutine is a future here: it does nothing until it is awaited or spawned. The table
//! of words is on the [first page](crate#for-those-who-know-asyncio).
//!
//! Five things that an event-loop tutorial asks for, one after the other.
//!
//! # Run several tasks at the same time
//!
//! [`spawn`](crate::spawn) is `create_task`. The runtime keeps the task, whether or not its handle is kept,
//! so none is lost because nobody referred to it.
//!
//! ```
//! use quoit::{runtime, spawn, time::sleep};
//! use std::time::Duration;
//!
//! async fn fetch(name: &'static str, ms: u64) -> String {
//!     sleep(Duration::from_millis(ms)).await;
//!     format!("{name} is here")
//! }
//!
//! runtime::run(async {
//!     let slow = spawn(fetch("slow", 20));
//!     let quick = spawn(fetch("quick", 10));
//!     // A task that panics ends alone; whoever awaits it is told.
//!     assert_eq!(slow.await?, "slow is here");
//!     assert_eq!(quick.await?, "quick is here");
//!     Ok::<(), quoit::task::JoinError>(())
//! })??;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Gather what they come to
//!
//! [`gather`](crate::gather) keeps the order of the calls, whatever the order of the ends.
//! [`try_gather`](crate::try_gather) ends with the first error and drops the rest, as a `TaskGroup` does;
//! [`task::scope`](crate::task::scope) does that for tasks, and [`task::JoinSet`](crate::task::JoinSet)
//! gives results as they come. For a fixed few of different types there are [`join!`](crate::join) and
//! [`try_join!`](crate::try_join).
//!
//! ```
//! use quoit::{gather, runtime, time::sleep};
//! use std::time::Duration;
//!
//! runtime::run(async {
//!     let squares = gather((1..=4).map(async |number: u64| {
//!         sleep(Duration::from_millis(5 - number)).await;
//!         number * number
//!     }));
//!     assert_eq!(squares.await, [1, 4, 9, 16]);
//! })?;
//! # quoit::runtime::Result::Ok(())
//! ```
//!
//! # Schedule callbacks
//!
//! [`call_soon`](crate::call_soon), [`call_later`](crate::call_later) and [`call_at`](crate::call_at) take
//! a function, and make no future. Callbacks run in order with the tasks.
//!
//! ```
//! use quoit::{call_later, call_soon, runtime, time::sleep};
//! use std::{cell::RefCell, rc::Rc, time::Duration};
//!
//! runtime::run(async {
//!     let said = Rc::new(RefCell::new(Vec::new()));
//!     let say = |word| {
//!         let said = said.clone();
//!         move || said.borrow_mut().push(word)
//!     };
//!     call_later(Duration::from_millis(2), say("third"));
//!     call_later(Duration::from_millis(1), say("second"));
//!     call_soon(say("first"));
//!     let never = call_later(Duration::from_millis(1), say("never"));
//!     never.cancel();
//!     sleep(Duration::from_millis(10)).await;
//!     assert_eq!(*said.borrow(), ["first", "second", "third"]);
//! })?;
//! # quoit::runtime::Result::Ok(())
//! ```
//!
//! # Reach the loop from inside, from outside, from another thread
//!
//! Inside, [`Handle::current`](crate::runtime::Handle::current) is `get_running_loop`. Outside there is a
//! [`Runtime`](crate::runtime::Runtime), whose tasks rest while it is not turned. Another thread has a
//! [`Handle`](crate::runtime::Handle), the one thing here that may be sent.
//!
//! ```
//! use quoit::runtime::{Handle, Runtime};
//!
//! let mut event_loop = Runtime::new()?;
//! // From outside.
//! let inside = event_loop.run_until_complete(async { Handle::current() });
//! // From another thread: `run_coroutine_threadsafe`. The closure travels, the future stays.
//! let task = std::thread::spawn(move || inside.spawn_on(async || 6 * 7).unwrap());
//! let answer = event_loop.run_until_complete(task.join().unwrap());
//! assert_eq!(answer.unwrap(), 42);
//! event_loop.shutdown(std::time::Duration::from_secs(1));
//! # quoit::runtime::Result::Ok(())
//! ```
//!
//! Work that blocks goes to [`spawn_blocking`](crate::spawn_blocking), which is `run_in_executor`.
//!
//! # A loop for a platform
//!
//! Where asyncio has `SelectorEventLoop` and `ProactorEventLoop`, there are
//! [drivers](crate::driver::DriverKind): io_uring, epoll, a simulated kernel, or
//! [one of your own](crate::driver::Driver). The program is the same.
//!
//! ```
//! use quoit::driver::DriverKind;
//! use quoit::runtime::{self, Builder};
//!
//! let name = Builder::new().driver(DriverKind::Epoll).run(async { runtime::driver() })?;
//! assert_eq!(name, "epoll");
//! # quoit::runtime::Result::Ok(())
//! ```
//!
//! Five exercises of such a tutorial are solved in `examples/practice` (`cargo run --example practice`).
//!
//! # What is different
//!
//! - Futures start when they are polled, tasks when they are spawned. Neither starts by being called.
//! - To drop a future is to cancel it, at any time, and it loses nothing ([`super::cancellation`]).
//! - There is a loop on every core ([`start_per_core`](crate::runtime::start_per_core)), and they share
//!   nothing ([`super::spreading`]). There is no lock that only one of them can hold.
//! - Buffers are passed by value and come back, because the kernel writes into them while you wait.
