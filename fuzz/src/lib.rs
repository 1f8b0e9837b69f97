//! The programs of the simulator's tests, for those who drive them otherwise: many seeds, a fuzzer.

#[path = "../../tests/it/numbers.rs"]
mod numbers;
#[path = "../../tests/it/sim/standard.rs"]
mod standard;
#[path = "../../tests/it/sim/wild.rs"]
mod wild;

use quoit::sim::{Failure, Faults, Sim};

/// Runs what it makes of a seed.
pub type Program = fn(u64) -> Result<(), Failure>;

/// What is run with each seed, by name.
pub const PROGRAMS: [(&str, Program); 4] = [
    ("standard", |seed| run(standard::program(seed, Faults::all(), 4).0)),
    ("unnoticed", unnoticed),
    ("wild", |seed| run(wild::program(seed, Faults::all(), 30))),
    ("wild, without faults", |seed| run(wild::program(seed, Faults::default(), 30))),
];

fn run(sim: Sim) -> Result<(), Failure> {
    sim.run().map(drop)
}

/// The standard program under what the runtime has to deal with: nothing of it is noticed. No wake
/// comes by chance, which would make good for one that was lost.
fn unnoticed(seed: u64) -> Result<(), Failure> {
    let faults = Faults::default().no_buffers(0.1).short_reads(0.2).short_writes(0.2);
    let faults = faults.spurious_wakes(0.0);
    let (sim, tally) = standard::program(seed, faults, 4);
    let noticed = move || match tally.failures.get() {
        0 => Ok(()),
        count => Err(format!("{count} exchanges failed for no reason")),
    };
    run(sim.check_at_end(noticed))
}

/// Runs the program that bytes choose.
///
/// # Panics
/// If it fails.
pub fn survive(bytes: &[u8]) {
    if let Err(failure) = wild::of_bytes(bytes).run() {
        panic!("{failure}");
    }
}
