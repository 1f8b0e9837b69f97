//! Programs and faults that bytes choose: what a fuzzer would drive, over a corpus out of seeds.

use std::panic::{AssertUnwindSafe, catch_unwind};

use quoit::sim::{Report, Sim};

use super::wild;
use crate::loopback::{Random, scaled};

/// Bytes that have once shown something, and shapes that random ones hardly have.
const KEPT: &[&[u8]] = &[
    &[],
    &[0; 400],
    &[255; 400],
    // Every knob at its usual rate; the first choices are accepts that are given up.
    b"accepted\x8f\x8f\x8f\x8f\x8f\x8f\x8f\x8f\x8f\x8f\x8f\x8f\x8f\x8f\x8f\x8f\x8f\x8f\x8f\x8f\x8f\x8f\x8f\x8f\x8f\x1d\
      \x00\x00\x05\x00\x00\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x00\x03\x03\x03\x03\x03\x03\x03\x03",
];

fn random_bytes(random: &mut Random) -> Vec<u8> {
    (0..40 + random.size(2_000)).map(|_| (random.next() >> 32) as u8).collect()
}

/// Runs the program of `bytes`; a failure names them, so that they can be kept.
fn survives(bytes: &[u8]) -> Report {
    let run = || -> Result<Report, quoit::sim::Failure> { Sim::run(wild::of_bytes(bytes)) };
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(report)) => report,
        Ok(Err(failure)) => panic!("{failure}\n  the bytes are {}", bytes.escape_ascii()),
        Err(_) => panic!("the runtime panicked; the bytes are {}", bytes.escape_ascii()),
    }
}

#[test]
fn no_bytes_choose_a_program_that_breaks_the_runtime() {
    let mut traces = Vec::new();
    for seed in 0..scaled(20_000, 60) as u64 {
        let report = survives(&random_bytes(&mut Random::new(seed)));
        assert!(report.steps > 0);
        traces.push(report.trace);
    }
    // The bytes matter: each string is a run of its own.
    let count = traces.len();
    traces.sort_unstable();
    traces.dedup();
    assert_eq!(traces.len(), count);
}

#[test]
fn prefixes_and_mutations_of_kept_bytes_choose_none_either() {
    let mut random = Random::new(1);
    let mutations = scaled(2_000, 10);
    for kept in KEPT {
        // Every length, or as many as this run affords.
        let step = kept.len().div_ceil(scaled(1 << 20, 12)).max(1);
        (0..=kept.len()).step_by(step).for_each(|len| drop(survives(&kept[..len])));
        for _ in 0..mutations {
            let mut bytes = kept.to_vec();
            for _ in 0..random.size(8) {
                if let Some(len) = bytes.len().checked_sub(1) {
                    let place = random.below(len + 1);
                    match random.below(3) {
                        0 => bytes[place] = random.below(256) as u8,
                        1 => drop(bytes.remove(place)),
                        _ => bytes.insert(place, random.below(256) as u8),
                    }
                } else {
                    bytes.push(random.below(256) as u8);
                }
            }
            survives(&bytes);
        }
    }
}

#[test]
fn the_same_bytes_choose_the_same_run() {
    for seed in 0..10 {
        let bytes = random_bytes(&mut Random::new(seed));
        assert_eq!(survives(&bytes), survives(&bytes));
    }
}
