//! The event loop, told to somebody who knows asyncio. Its words are in the comments.
//!
//! Run it with
//!
//! ```text
//! cargo run --example event_loop
//! ```
//!
//! It prints the lines of five small programs, in about half a second, and ends.

use std::cell::RefCell;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use quoit::runtime::{self, Handle, Runtime};
use quoit::time::{Instant, sleep, timeout};
use quoit::{call_at, call_later, call_soon, gather, spawn, try_join};

fn main() -> runtime::Result<()> {
    // asyncio.run(hello()): a loop for one future. It is closed when that is done.
    runtime::run(hello())?;

    // loop = new_event_loop(): to be used more than once. The tasks rest in between.
    let mut event_loop = Runtime::new()?;
    // loop.run_until_complete(main()); `block_on` is its other name.
    event_loop.run_until_complete(tasks());
    event_loop.run_until_complete(callbacks());
    event_loop.run_until_complete(other_threads());
    event_loop.run_until_complete(deadlines());
    // loop.close(): cancels what is left, and waits for the kernel's last answers.
    event_loop.shutdown(Duration::from_secs(1));
    Ok(())
}

async fn hello() {
    // await asyncio.sleep(0.1)
    sleep(Duration::from_millis(100)).await;
    println!("hello");
}

async fn fetch(number: u64) -> Result<u64, String> {
    sleep(Duration::from_millis(50 - 10 * number)).await;
    println!("  fetched {number}");
    if number == 4 { Err("four is not there".into()) } else { Ok(number * number) }
}

async fn tasks() {
    // asyncio.create_task(fetch(1)): it runs by itself, also when nobody awaits it. A panic ends the
    // task and not the loop, so the handle gives a Result.
    let task = spawn(fetch(1));
    println!("task: {:?}", task.await.expect("it does not panic"));
    // asyncio.gather(*map(fetch, ..)): together, in this task; results in the order of the calls.
    println!("gather: {:?}", gather((1..4).map(fetch)).await);
    // The first error ends it and drops the rest, as a TaskGroup would.
    println!("try_join: {:?}", try_join!(fetch(1), fetch(4)));
}

async fn callbacks() {
    let said = Rc::new(RefCell::new(Vec::new()));
    let say = |word: &'static str| {
        let said = Rc::clone(&said);
        move || said.borrow_mut().push(word)
    };
    // loop.call_soon(f), loop.call_later(delay, f), loop.call_at(loop.time() + delay, f)
    let now = Instant::now();
    call_later(Duration::from_millis(30), say("third"));
    call_at(now + Duration::from_millis(20), say("second"));
    let never = call_at(now + Duration::from_millis(10), say("never"));
    call_soon(say("first"));
    // handle.cancel(). Dropping a handle cancels nothing.
    never.cancel();
    sleep(Duration::from_millis(50)).await;
    println!("callbacks: {:?}", said.borrow());
}

async fn other_threads() {
    // asyncio.get_running_loop(): what another thread needs to reach this loop.
    let handle = Handle::current();
    let here = spawn(sleep(Duration::MAX));
    let other = thread::spawn(move || {
        // loop.call_soon_threadsafe(f)
        handle.call_soon(|| println!("called from another thread")).expect("the loop runs");
        // task.cancel()
        here.abort();
        here
    });
    let task = other.join().expect("the thread does not panic");
    println!("aborted: {}", task.await.expect_err("it was aborted"));
}

async fn deadlines() {
    // asyncio.wait_for(f, 0.02), asyncio.timeout(0.02)
    let outcome = timeout(Duration::from_millis(20), sleep(Duration::MAX)).await;
    println!("timeout: {}", outcome.expect_err("for ever takes longer"));
}
