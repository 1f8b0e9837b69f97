//! Five exercises of an asyncio event-loop tutorial, each solved in a file of its own.
//!
//! ```text
//! cargo run --example practice                 all of them, in order
//! cargo run --example practice -- callbacks    one
//! ```
//!
//! | exercise | solved in |
//! |---|---|
//! | run several tasks at the same time | `several_tasks.rs` |
//! | create tasks, and gather what they return | `gathering.rs` |
//! | schedule callbacks at different times | `callbacks.rs` |
//! | reach the loop from inside, from outside, from another thread | `contexts.rs` |
//! | make a loop for a platform | `platform.rs` |
//!
//! It takes a second. What it does not print, it asserts: an answer that is wrong ends it with a panic.

mod callbacks;
mod contexts;
mod gathering;
mod platform;
mod several_tasks;

use std::error::Error;
use std::process::ExitCode;

type Exercise = (&'static str, fn() -> Result<(), Box<dyn Error>>);

const EXERCISES: [Exercise; 5] = [
    ("several_tasks", several_tasks::main),
    ("gathering", gathering::main),
    ("callbacks", callbacks::main),
    ("contexts", contexts::main),
    ("platform", platform::main),
];

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let names = EXERCISES.map(|(name, _)| name);
    if let Some(stranger) = wanted.iter().find(|wanted| !names.contains(&wanted.as_str())) {
        eprintln!("no exercise is called {stranger:?}; they are: {}", names.join(", "));
        return ExitCode::from(2);
    }
    for (name, solve) in EXERCISES {
        if !wanted.is_empty() && !wanted.iter().any(|wanted| wanted == name) {
            continue;
        }
        println!("{name}");
        if let Err(error) = solve() {
            eprintln!("{name}: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
