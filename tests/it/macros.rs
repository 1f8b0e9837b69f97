//! The attributes: what they run, and where. What they refuse is in tests/refused.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use quoit::runtime::{self, Core};
use quoit::time::{Instant, sleep};

#[quoit::test]
async fn a_test_runs_on_a_core_of_its_own() {
    assert_eq!((runtime::core().index(), runtime::core().count()), (0, 1));
    assert_eq!(quoit::spawn(async { 6 * 7 }).await.unwrap(), 42);
}

/// With a comment and an attribute.
#[quoit::test]
#[should_panic(expected = "in a task of its own")]
async fn a_test_may_have_to_panic() {
    panic!("in a task of its own");
}

#[quoit::test(driver = "epoll")]
async fn a_test_asks_for_epoll() -> io::Result<()> {
    assert_eq!(runtime::driver(), "epoll");
    Ok(())
}

#[quoit::test(driver = "uring")]
async fn a_test_asks_for_io_uring() {
    assert_eq!(runtime::driver(), "io_uring");
}

#[quoit::test(driver = "sim")]
async fn a_test_asks_for_the_simulator() {
    assert_eq!(runtime::driver(), "simulator");
}

#[quoit::test(paused = true)]
async fn a_test_asks_for_a_clock_that_stands_still() {
    let start = Instant::now();
    sleep(Duration::from_secs(86_400)).await;
    assert_eq!(start.elapsed(), Duration::from_secs(86_400));
}

#[quoit::test(paused = false, crate = "::quoit")]
async fn a_test_asks_for_a_clock_that_does_not() {
    assert_ne!(runtime::driver(), "simulator");
}

static SEEN: AtomicU32 = AtomicU32::new(0);

#[quoit::test(cores = 2, driver = "epoll")]
async fn a_test_runs_on_each_of_several_cores() -> io::Result<()> {
    let core = runtime::core();
    assert_eq!((core.count(), runtime::driver()), (2, "epoll"));
    SEEN.fetch_or(1 << core.index(), Ordering::SeqCst);
    while SEEN.load(Ordering::SeqCst) != 0b11 {
        sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

mod mains {
    use super::*;

    #[quoit::main]
    pub(super) async fn one() -> u32 {
        let answer = async { 6 * 7 };
        answer.await
    }

    #[quoit::main(per_core)]
    pub(super) async fn every() {
        assert!(runtime::core().index() < runtime::core().count());
    }

    #[quoit::main(cores = 2)]
    pub(super) async fn two(core: Core) -> Result<(), String> {
        match core.index() {
            0 => core.shutdown().await,
            _ => return Err("not today".to_owned()),
        }
        Ok(())
    }
}

#[test]
fn a_main_gives_what_it_returns_and_one_on_several_cores_their_first_error() {
    assert_eq!(mains::one(), 42);
    let error = mains::two().unwrap_err();
    assert!(error.to_string().contains("not today"), "{error}");
    crate::support::isolated(|| mains::every().unwrap());
}
