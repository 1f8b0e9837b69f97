//! Reach the loop in different contexts: inside of it, outside, and from another thread.

use std::error::Error;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use quoit::runtime::{Handle, Runtime};
use quoit::time::sleep;
use quoit::{spawn, spawn_blocking};

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    // Outside, there is no loop: get_running_loop() would raise here.
    assert!(Handle::try_current().is_none());
    let mut event_loop = Runtime::new()?;

    // From outside: run_until_complete, as often as one likes. In between everything rests.
    let (background, inside) = event_loop.run_until_complete(async {
        // Inside, the running loop is at hand.
        let inside = Handle::current();
        let background = spawn(async {
            sleep(Duration::from_millis(20)).await;
            "was there all the time"
        });
        (background, inside)
    });
    println!("  outside: a task {}", event_loop.run_until_complete(background).expect("no panic"));

    // From another thread: call_soon_threadsafe, and run_coroutine_threadsafe. What is sent is a
    // function; the future that it makes stays on the loop's thread, and so needs no lock.
    let handle = inside.clone();
    let other = thread::spawn(move || {
        handle.call_soon(|| println!("  another thread: called")).expect("the loop is there");
        handle.spawn_on(async || {
            sleep(Duration::from_millis(10)).await;
            6 * 7
        })
    });
    let task = other.join().expect("the thread does not panic").expect("the loop is there");
    let answer = event_loop.run_until_complete(task).expect("no panic");
    println!("  another thread: its task answered {answer}");
    assert_eq!(answer, 42);

    // run_in_executor: a call that blocks has a thread of its own, and the loop goes on meanwhile. This
    // one blocks until a task of the loop lets it go.
    let (let_go, held) = mpsc::channel();
    let blocking = event_loop.run_until_complete(async {
        let worked = spawn_blocking(move || held.recv().expect("it is let go"));
        sleep(Duration::from_millis(5)).await;
        let_go.send("was let go by the loop").expect("it waits");
        worked.await
    });
    println!("  a thread that may block: it {}", blocking.expect("no panic"));

    // loop.close(). Whoever still has a handle is told.
    event_loop.shutdown(Duration::from_secs(1));
    let late = inside.call_soon(|| unreachable!("the loop has ended"));
    println!("  afterwards: {}", late.expect_err("it has ended"));
    Ok(())
}
