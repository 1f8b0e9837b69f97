//! What the servers and the load generator of the comparison share.
//!
//! Every server parses, answers and listens by the code here, so that two servers differ in
//! their runtime only. To add one, write `src/bin/NAME_server.rs` with [`server::Options`],
//! [`server::listen`], [`server::announce_ready`] and, for HTTP, one [`protocol::Responder`] for
//! each connection, and name it in the list that `load --servers` takes. The runtimes that are heavy to
//! build are packages of their own, in `runtimes/`.

pub mod cell;
pub mod chart;
pub mod child;
pub mod churn;
pub mod client;
pub mod executor;
pub mod histogram;
pub mod idle;
pub mod open_loop;
pub mod protocol;
pub mod report;
pub mod ring;
pub mod server;
pub mod stream;
pub mod syscalls;
pub mod trial;
