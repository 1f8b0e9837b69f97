//! Create tasks, and gather what they return: results come in the order of the calls, and an error can
//! end the rest or stand beside them.

use std::cell::Cell;
use std::error::Error;
use std::rc::Rc;
use std::time::Duration;

use quoit::time::sleep;
use quoit::{gather, runtime, spawn, try_gather, try_gather_limit};

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    runtime::run(async {
        // asyncio.gather(*tasks): the last to end is not the last in the list.
        let tasks: Vec<_> = [30, 20, 10].map(|ms| spawn(measure(ms))).into();
        let all: Vec<u64> =
            gather(tasks).await.into_iter().map(|end| end.expect("no panic")).collect();
        println!("  in the order of the calls: {all:?}");
        assert_eq!(all, [30, 20, 10]);

        // return_exceptions=True is what it does anyway: a result is a value.
        let mixed = gather([10, 0, 20].map(check)).await;
        println!("  errors beside results: {mixed:?}");
        assert_eq!(mixed, [Ok(10), Err("nothing to measure"), Ok(20)]);

        // Without it: the first error is the answer, and what has not ended is dropped.
        let first_error = try_gather([1000, 0, 1000].map(check)).await;
        println!("  the first error ends the rest: {first_error:?}");
        assert_eq!(first_error, Err("nothing to measure"));

        // What takes a semaphore there: never more than two at a time.
        let (running, most) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let counted = (0..6).map(|_| {
            let (running, most) = (Rc::clone(&running), Rc::clone(&most));
            async move {
                running.set(running.get() + 1);
                most.set(most.get().max(running.get()));
                let measured = check(5).await;
                running.set(running.get() - 1);
                measured
            }
        });
        let sum: u64 = try_gather_limit(2, counted).await.expect("none fails").into_iter().sum();
        println!("  {sum} ms were measured, at most {} at a time", most.get());
        assert_eq!((sum, most.get(), running.get()), (30, 2, 0));
    })?;
    Ok(())
}

async fn measure(ms: u64) -> u64 {
    sleep(Duration::from_millis(ms)).await;
    ms
}

async fn check(ms: u64) -> Result<u64, &'static str> {
    if ms == 0 { Err("nothing to measure") } else { Ok(measure(ms).await) }
}
