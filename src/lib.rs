//! Quoit.

pub mod buf;
mod driver;
pub mod net;
mod op;
pub mod runtime;
mod sync;
mod sys;
pub mod task;
pub mod time;

pub use task::spawn;
