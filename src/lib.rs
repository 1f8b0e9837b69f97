//! Quoit.

pub mod buf;
mod driver;
mod op;
pub mod runtime;
mod sys;
pub mod task;
pub mod time;

pub use task::spawn;
