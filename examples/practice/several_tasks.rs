//! Run several tasks at the same time: three of them wait together, not one after the other, and each
//! is heard when it is done.

use std::error::Error;
use std::time::Duration;

use quoit::runtime;
use quoit::task::JoinSet;
use quoit::time::{Instant, sleep};

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    runtime::run(async {
        let start = Instant::now();
        // asyncio.create_task, three times: each runs from now on, whether or not it is awaited.
        let mut meals = JoinSet::new();
        meals.spawn(cook("rice", 120));
        meals.spawn(cook("beans", 80));
        meals.spawn(cook("toast", 40));
        // asyncio.as_completed: whoever is done first is served first.
        let mut served = Vec::new();
        while let Some(meal) = meals.join_next().await {
            let meal = meal.expect("no cook panics");
            println!("  {meal} after {} ms", start.elapsed().as_millis());
            served.push(meal);
        }
        assert_eq!(served, ["toast", "beans", "rice"]);
        // One after the other it would have been 240 ms.
        assert!(start.elapsed() >= Duration::from_millis(120));
    })?;
    Ok(())
}

async fn cook(meal: &'static str, ms: u64) -> &'static str {
    sleep(Duration::from_millis(ms)).await;
    meal
}
