//! Behaviour, from outside: one binary, a file per noun.

mod runtime;
mod start_errors;
mod support;
