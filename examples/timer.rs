//! Time: a sleep, an interval, a timeout.
//!
//! Run it with
//!
//! ```text
//! cargo run --example timer
//! ```
//!
//! It prints a tick every 100 ms, leaves out those that it missed, gives up on an answer that takes
//! too long, and ends after about a second.

use std::io;
use std::time::Duration;

use quoit::runtime;
use quoit::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

fn main() -> runtime::Result<()> {
    runtime::run(async {
        let start = Instant::now();
        let say = |what: &str| println!("{:4} ms  {what}", start.elapsed().as_millis());

        sleep(Duration::from_millis(50)).await;
        say("slept for 50 ms");

        // The first tick comes at once. The work after the third takes three periods: by default the
        // ticks that were missed would follow in a burst, here they are left out.
        let mut ticks = interval(Duration::from_millis(100));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        for number in 1..=5 {
            ticks.tick().await;
            say(&format!("tick {number}"));
            if number == 3 {
                sleep(Duration::from_millis(320)).await;
                say("long work is done");
            }
        }

        match answer(Duration::from_secs(60)).await {
            Ok(text) => say(&text),
            Err(error) => say(&format!("no answer: {error}")),
        }
        match answer(Duration::from_millis(20)).await {
            Ok(text) => say(&text),
            Err(error) => say(&format!("no answer: {error}")),
        }
    })
}

/// Takes so long to answer, and is given 100 ms.
async fn answer(takes: Duration) -> io::Result<String> {
    let work = async {
        sleep(takes).await;
        String::from("the answer is 42")
    };
    // `Elapsed` is the error of a timeout; `?` makes an `io::Error` of it, of the kind `TimedOut`.
    Ok(timeout(Duration::from_millis(100), work).await?)
}
