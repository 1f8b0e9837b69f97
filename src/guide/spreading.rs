//! Spreading connections over cores: who accepts, and what to do when one core has too many.
//!
//! A connection lives on the core that accepted it, with all that serves it. So the question is who
//! accepts, and [`Accept`](crate::net::Accept) is the answer, an argument of
//! [`TcpListener::bind_with`](crate::net::TcpListener::bind_with):
//!
//! | | spreads | costs | for |
//! |---|---|---|---|
//! | `PerCore`, the default | by a hash of the addresses | nothing | many connections |
//! | `Shared` | whichever core is free | one accept for each connection | few at a time, unequal work |
//! | `Distributed` | evenly, to the last one | a wake of another core for each | few that live long |
//!
//! ```
//! use quoit::net::{Accept, TcpListener};
//! use quoit::runtime::{self, Core};
//! use std::io;
//!
//! # fn main() -> runtime::Result<()> {
//! runtime::Builder::new().cores(2).start_per_core(async |_core: Core| {
//!     let listener = TcpListener::bind_with("127.0.0.1:0", Accept::Distributed).await?;
//!     # drop(listener);
//!     // accept and spawn, as always
//!     io::Result::Ok(())
//! })
//! # }
//! ```
//!
//! # When one core has too much all the same
//!
//! A connection can go on elsewhere: [`detach`](crate::net::TcpStream::detach) ends what is in flight and
//! gives out the descriptor with the bytes that nobody has read, and that can be sent.
//!
//! ```
//! use quoit::net::{TcpListener, TcpStream};
//! use quoit::runtime;
//!
//! # runtime::run(async {
//! # let listener = TcpListener::bind("127.0.0.1:0").await?;
//! # let client = TcpStream::connect(listener.local_addr()?).await?;
//! # let (stream, _) = listener.accept().await?;
//! # client.write_all("hello").await?;
//! let connection = stream.detach().await?;
//! let other = runtime::cores().into_iter().next_back().unwrap();
//! let first = other.call(async move || {
//!     let stream = TcpStream::attach(connection)?;
//!     Ok::<_, std::io::Error>(stream.recv().await?.unwrap().to_vec())
//! });
//! assert_eq!(first.await??, b"hello");
//! # std::io::Result::Ok(()) }).unwrap().unwrap();
//! ```
//!
//! # When the data is what is spread
//!
//! Then the connection stays, and asks the core that has the key:
//! [`core_for`](crate::runtime::core_for) says which, [`Handle::call`](crate::runtime::Handle::call) asks it,
//! [`map_cores`](crate::runtime::map_cores) asks all. Several questions at once to the same core are sent
//! together. A server that keeps its keys so needs no lock:
//!
//! ```
//! use quoit::runtime::{self, PerCore};
//! use std::cell::RefCell;
//! use std::collections::HashMap;
//!
//! static STORE: PerCore<RefCell<HashMap<String, String>>> = PerCore::new(Default::default);
//!
//! async fn set(key: String, value: String) -> Result<(), runtime::Gone> {
//!     let core = runtime::core_for(&key);
//!     core.call(async move || {
//!         STORE.with(|store| store.borrow_mut().insert(key, value));
//!     })
//!     .await
//! }
//!
//! async fn get(key: String) -> Result<Option<String>, runtime::Gone> {
//!     let core = runtime::core_for(&key);
//!     core.call(async move || STORE.with(|store| store.borrow().get(&key).cloned())).await
//! }
//!
//! # runtime::run(async {
//! set("colour".into(), "green".into()).await?;
//! assert_eq!(get("colour".into()).await?.as_deref(), Some("green"));
//! # std::io::Result::Ok(()) }).unwrap().unwrap();
//! ```
