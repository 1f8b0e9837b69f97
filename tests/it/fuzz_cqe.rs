//! Answers that lie about what is in flight: see `tests/fuzz/cqe.rs` for what must happen.

use crate::cqe::{Survey, survive};
use crate::loopback::Random;
use crate::support::isolated;

/// How many seeds: `QUOIT_SEEDS`, or a slice that every run affords.
fn seeds() -> u64 {
    let count = std::env::var("QUOIT_SEEDS").ok();
    count.map_or(200, |text| text.parse().expect("QUOIT_SEEDS is a number"))
}

/// The bytes of one seed: up to 4 KiB.
fn bytes_of(seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed + 1);
    (0..random.size(4096)).map(|_| (random.next() >> 32) as u8).collect()
}

#[test]
fn no_stream_of_answers_makes_memory_be_touched_wrongly() {
    isolated(|| {
        let mut sum = Survey::default();
        for seed in 0..seeds() {
            let survey = std::panic::catch_unwind(|| survive(&bytes_of(seed)));
            let survey =
                survey.unwrap_or_else(|_| panic!("the kernel of seed {seed} was not survived"));
            sum.answers += survey.answers;
            sum.lies += survey.lies;
            sum.refusals += survey.refusals;
        }
        println!("\n{} answers, {} of them lies, {} refused", sum.answers, sum.lies, sum.refusals);
        assert!(sum.lies > 0 && sum.refusals > 0, "the kernel told no lie: {sum:?}");
    });
}

#[test]
fn a_kernel_that_says_nothing_but_the_end_is_survived() {
    isolated(|| assert_eq!(survive(&[]).lies, 0));
}
