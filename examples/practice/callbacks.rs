//! Schedule callbacks at different times: at once, after a while, at a time, again and again, and never.

use std::cell::RefCell;
use std::error::Error;
use std::rc::Rc;
use std::time::Duration;

use quoit::time::{Instant, sleep};
use quoit::{call_at, call_later, call_soon, runtime};

/// What was said, and how many milliseconds after the start.
type Said = Rc<RefCell<Vec<(&'static str, u128)>>>;

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    runtime::run(async {
        let said = Said::default();
        let start = Instant::now();
        let say = |word: &'static str| {
            let said = Rc::clone(&said);
            move || said.borrow_mut().push((word, start.elapsed().as_millis()))
        };
        // The order of the calls is not that of the times. None of them needs a task or a future.
        call_later(Duration::from_millis(90), say("later"));
        call_at(start + Duration::from_millis(60), say("at its time"));
        let never = call_later(Duration::from_millis(30), say("never"));
        call_soon(say("soon"));
        call_soon(say("soon after"));
        again(Rc::clone(&said), start, 3);
        // TimerHandle.cancel() and TimerHandle.when()
        assert!(never.when() >= start + Duration::from_millis(30));
        never.cancel();

        sleep(Duration::from_millis(150)).await;
        let mut said = said.borrow_mut();
        for (word, ms) in said.iter() {
            println!("  {ms:3} ms  {word}");
        }
        // Callbacks are never early, and those of one time come in the order of the calls.
        assert_eq!((said[0].0, said[1].0), ("soon", "soon after"));
        said.sort_unstable();
        let least =
            [("again", 25), ("again", 50), ("again", 75), ("at its time", 60), ("later", 90)];
        for ((word, ms), (expected, least)) in said.iter().zip(least) {
            assert!(*word == expected && *ms >= least, "{word} after {ms} ms");
        }
        assert_eq!(said.len(), least.len() + 2);
    })?;
    Ok(())
}

/// A callback that schedules itself, as often as that: every 25 ms.
fn again(said: Said, start: Instant, times: u32) {
    if times > 0 {
        call_later(Duration::from_millis(25), move || {
            said.borrow_mut().push(("again", start.elapsed().as_millis()));
            again(said, start, times - 1);
        });
    }
}
