//! Pipes between processes.

mod pipe;

pub use pipe::pipe;
