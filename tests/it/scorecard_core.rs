//! The scorecard of the core: its end, forks, kernels that refuse, wakers, panics, and idleness.
//!
//! Every figure that is a matter of speed is printed; counts and ledgers are asserted.

mod idle;
mod interrupts;
mod panics;
mod privileges;
mod refusals;
mod shutdown;
mod starts;
mod waker_ends;
mod wakes;

use std::sync::Once;
use std::time::Duration;

use quoit::runtime::Stats;

/// What panics that a test plants begin with.
const PLANTED: &str = "planted";

/// Keeps the words of planted panics from the log; others are printed as ever.
fn silence_planted_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let speak = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // A payload that is no text is planted too: assertions always have words.
            if panic.payload_as_str().is_some_and(|text| !text.starts_with(PLANTED)) {
                speak(panic);
            }
        }));
    });
}

/// Fails when sleeps ended for nothing more than `most` times: such a loop burns a core.
#[track_caller]
fn assert_fruitful(stats: &Stats, most: u64) {
    assert!(stats.fruitless_laps <= most, "sleeps that ended for nothing: {stats:#?}");
}

/// The value below which `percent` of `durations` lie.
fn percentile(durations: &mut [Duration], percent: usize) -> Duration {
    durations.sort_unstable();
    durations[(durations.len() * percent / 100).min(durations.len() - 1)]
}
