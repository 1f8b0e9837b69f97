//! Each seed with each of the simulator's programs, until the first failure.
//!
//!   seeds COUNT [FIRST]
//!
//! It says what it is about to run, so that the end of the output tells where a crash was. A failure
//! is printed, and the exit status is then 1.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use quoit_fuzz::PROGRAMS;

fn main() -> ExitCode {
    let number = |argument: String| argument.parse::<u64>().expect("arguments are numbers");
    let mut arguments = std::env::args().skip(1).map(number);
    let (count, first) = (arguments.next().unwrap_or(1_000), arguments.next().unwrap_or(0));
    for seed in first..first + count {
        for (name, program) in PROGRAMS {
            println!("seed {seed}, {name}");
            let failure = match catch_unwind(AssertUnwindSafe(|| program(seed))) {
                Ok(Ok(())) => continue,
                Ok(Err(failure)) => failure.to_string(),
                Err(_) => "the runtime panicked".to_owned(),
            };
            println!("FAILED seed {seed}, {name}: {failure}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
