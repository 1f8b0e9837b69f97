//! Child processes, and the pipes between them.
//!
//! ```
//! use quoit::process::Command;
//!
//! # quoit::runtime::run(async {
//! let output = Command::new("echo").arg("hello").output().await?;
//! assert!(output.status.success());
//! assert_eq!(output.stdout, b"hello\n");
//! # std::io::Result::Ok(()) }).unwrap().unwrap();
//! ```
//!
//! The end of a child is waited for through a descriptor of it (`pidfd_open`, kernel 5.3, and
//! `IORING_OP_POLL_ADD`): no `SIGCHLD` is handled, and no child is reaped that is not this module's.
//! Where there is no such descriptor, a child is looked after every 1 to 100 ms.
//!
//! A [`Child`] that is dropped while it runs goes on, unless [`Command::kill_on_drop`] says otherwise,
//! and leaves no zombie when it ends: a thread waits for it, also when the runtime has ended.
//!
//! A core is bound to its CPU, its children are not: they may run on every CPU on which the process
//! may. They block no signal that the runtime blocks for itself, `SIGPIPE` is in force, as std has it, and
//! they inherit no descriptor but their standard streams.

mod child;
mod command;
mod pipe;

pub use child::{Child, ChildStderr, ChildStdin, ChildStdout};
pub use command::Command;
pub use pipe::pipe;
pub use std::process::{ExitStatus, Output, Stdio};
