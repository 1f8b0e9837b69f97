//! State per core: how tasks of one core share what they know. A page to read.
//!
//! Nothing runs beside a task on its core until it awaits. Between two `await`s it has everything of its
//! core to itself: no lock, no atomic. One rule follows, and it is the only one:
//!
//! > **A borrow ends before the next `await`.**
//!
//! At an `await` other tasks run, and one of them will borrow the same. A borrow that is still held then
//! is no data race, for Rust checks it, but a panic of whoever comes second. [`RefCell`](super::RefCell)
//! is std's, and in debug builds that panic names both places:
//!
//! ```text
//! already borrowed, since it was borrowed at src/session.rs:41:30; a borrow must end before the next `await`
//! ```
//!
//! Clippy finds such borrows as well (`await_holding_refcell_ref`); for the cell of this crate, say so in
//! `clippy.toml`: `await-holding-invalid-types = ["quoit::sync::Ref", "quoit::sync::RefMut"]`.
//!
//! # Numbers and flags: a `Cell`
//!
//! Nothing is borrowed at all.
//!
//! ```
//! use std::cell::Cell;
//! use std::rc::Rc;
//!
//! # quoit::runtime::run(async {
//! let hits = Rc::new(Cell::new(0));
//! let tasks = (0..3).map(|_| {
//!     let hits = hits.clone();
//!     async move { hits.update(|hits| hits + 1) }
//! });
//! quoit::gather(tasks).await;
//! assert_eq!(hits.get(), 3);
//! # }).unwrap();
//! ```
//!
//! # Tables: a borrow within one statement
//!
//! A method that borrows, does its work and returns what was asked for cannot hold the borrow across an
//! `await`, because it is not async. So put the cell inside of the type, and the borrow inside of its
//! methods:
//!
//! ```
//! use std::collections::HashMap;
//! use quoit::sync::RefCell;
//! use quoit::task::yield_now;
//!
//! #[derive(Default)]
//! struct Sessions(RefCell<HashMap<u32, String>>);
//!
//! impl Sessions {
//!     fn name(&self, id: u32) -> Option<String> {
//!         self.0.borrow().get(&id).cloned()
//!     }
//!
//!     fn rename(&self, id: u32, name: &str) {
//!         self.0.borrow_mut().insert(id, name.into());
//!     }
//! }
//!
//! # quoit::runtime::run(async {
//! let sessions = Sessions::default();
//! sessions.rename(7, "Ada");
//! let name = sessions.name(7); // the borrow has ended
//! yield_now().await;
//! assert_eq!(name.as_deref(), Some("Ada"));
//! # }).unwrap();
//! ```
//!
//! Beware of `if let`, `match` and `while let`: what they look at lives to the end of their block. So
//! `match sessions.0.borrow().get(&7) { .. }` borrows in all of its arms. Give it a name first.
//!
//! # What an operation needs for a while: take it out, and put it back
//!
//! Buffers are handed over to an operation anyway. What is taken is not there for others meanwhile, and
//! they can tell:
//!
//! ```
//! use quoit::sync::RefCell;
//! use quoit::task::yield_now;
//!
//! # quoit::runtime::run(async {
//! let spare: RefCell<Vec<Vec<u8>>> = RefCell::default();
//! let mut buf = spare.borrow_mut().pop().unwrap_or_default();
//! buf.extend_from_slice(b"answer");
//! yield_now().await; // a write, which owns `buf`
//! buf.clear();
//! spare.borrow_mut().push(buf);
//! # }).unwrap();
//! ```
//!
//! # What has to stay whole across an `await`: a lock
//!
//! Two tasks that each write a header and a body to one stream must not mix them. That is what
//! [`Mutex`](super::Mutex) is for, and it costs a few instructions while nobody waits:
//!
//! ```
//! use quoit::sync::Mutex;
//! use quoit::task::yield_now;
//!
//! # quoit::runtime::run(async {
//! let stream = Mutex::new(Vec::new());
//! let message = async |name: u8| {
//!     let mut stream = stream.lock().await;
//!     stream.push((name, "header"));
//!     yield_now().await;
//!     stream.push((name, "body"));
//! };
//! quoit::join!(message(1), message(2));
//! assert_eq!(*stream.lock().await, [(1, "header"), (1, "body"), (2, "header"), (2, "body")]);
//! # }).unwrap();
//! ```
//!
//! # State with a life of its own: a task that owns it
//!
//! What needs many steps, each with an `await`, belongs to one task, and the others send to it. It has
//! its state as plain variables, and there is nothing to borrow:
//!
//! ```
//! use quoit::sync::{mpsc, oneshot};
//!
//! enum Order {
//!     Deposit(u64),
//!     Balance(oneshot::Sender<u64>),
//! }
//!
//! # quoit::runtime::run(async {
//! let (orders, mut inbox) = mpsc::channel(16);
//! quoit::spawn(async move {
//!     let mut balance = 0;
//!     while let Some(order) = inbox.recv().await {
//!         match order {
//!             Order::Deposit(amount) => balance += amount,
//!             Order::Balance(answer) => drop(answer.send(balance)),
//!         }
//!     }
//! });
//! orders.send(Order::Deposit(5)).await.unwrap();
//! let (answer, balance) = oneshot::channel();
//! orders.send(Order::Balance(answer)).await.unwrap();
//! assert_eq!(balance.await, Ok(5));
//! # }).unwrap();
//! ```
//!
//! # The other cores
//!
//! They have state of their own. Nothing here reaches them: what is made on a core stays there, and the
//! compiler sees to it. Send them what they need to know as messages, and keep what belongs to one
//! connection on the core that has the connection.
