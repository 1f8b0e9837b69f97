//! Behaviour, from outside: one binary, a file per noun.

mod bad_input;
mod bind_errors;
mod caps;
mod close;
#[path = "../fuzz/cqe.rs"]
mod cqe;
mod doctor;
mod foreign_loop;
mod fs;
mod fuzz_cqe;
mod gather;
mod kernel_choice;
mod listener;
mod loopback;
mod lost;
mod numbers;
mod outside;
mod quarantine;
mod runtime;
mod scorecard_core;
mod scorecard_net;
mod sim;
mod start_errors;
mod support;
mod support_alloc;
mod task;
mod tcp;
mod threads;
mod time;
mod udp;
mod waiting;
mod words;
mod zero_copy;
