//! Behaviour, from outside: one binary, a file per noun.

mod bad_input;
mod fs;
mod runtime;
mod start_errors;
mod support;
