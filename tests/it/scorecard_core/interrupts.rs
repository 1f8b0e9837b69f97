//! Storms of signals, and stops of the whole process.

use std::process::Command;
use std::time::{Duration, Instant};

use quoit::fs::File;
use quoit::runtime::{self, Builder};
use quoit::time::sleep;

use super::refusals::load;
use super::{assert_fruitful, percentile};
use crate::loopback::scaled;
use crate::support::{Watch, isolated, ledger, patient};

extern "C" fn ignore(_: i32) {}

/// Handles `signal` by a function that does nothing, and lets it interrupt system calls.
fn interrupt_by(signal: i32) {
    // SAFETY: the action is filled before it is used, and its handler does nothing.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = ignore as extern "C" fn(i32) as usize;
        libc::sigemptyset(&raw mut action.sa_mask);
        assert_eq!(libc::sigaction(signal, &raw const action, std::ptr::null_mut()), 0);
    }
}

/// Sends a signal to this thread a thousand times a second, until it is dropped.
struct Storm(libc::timer_t);

impl Storm {
    fn new(clock: libc::clockid_t, signal: i32) -> Storm {
        let every = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        let setting = libc::itimerspec { it_interval: every, it_value: every };
        // SAFETY: all that the calls read is filled before, and lives until they return.
        unsafe {
            let mut event: libc::sigevent = std::mem::zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = signal;
            event.sigev_notify_thread_id = libc::gettid();
            let mut timer = std::mem::zeroed();
            assert_eq!(libc::timer_create(clock, &raw mut event, &raw mut timer), 0);
            assert_eq!(libc::timer_settime(timer, 0, &raw const setting, std::ptr::null_mut()), 0);
            Storm(timer)
        }
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        // SAFETY: the timer is this value's.
        unsafe { libc::timer_delete(self.0) };
    }
}

/// Sleeps over and over, and counts those that ended early.
async fn sleeper(end: Instant, pause: Duration) -> usize {
    let mut early = 0;
    while Instant::now() < end {
        let start = Instant::now();
        sleep(pause).await;
        early += usize::from(start.elapsed() < pause);
    }
    early
}

/// Reads a file over and over.
async fn reader(end: Instant) {
    let file = File::open("/proc/self/exe").await.unwrap();
    while Instant::now() < end {
        file.read_at(vec![0; 4096], 0).await.unwrap();
        sleep(Duration::from_micros(300)).await;
    }
}

/// Echo, timers and files at once. Returns the 99th percentile of the echo.
async fn work(duration: Duration) -> Duration {
    let end = Instant::now() + duration;
    let sleepers: Vec<_> = [100, 777, 1000, 2500]
        .map(|us| quoit::spawn(sleeper(end, Duration::from_micros(us))))
        .into_iter()
        .collect();
    let reader = quoit::spawn(reader(end));
    let mut load = load(64, duration).await;
    reader.await.unwrap();
    for sleeper in sleepers {
        assert_eq!(sleeper.await.unwrap(), 0, "timers fired early");
    }
    percentile(&mut load.slowest, 99)
}

#[test]
fn s14_a_storm_of_signals_is_not_seen_and_fires_no_timer_early() {
    isolated(|| {
        let duration = patient(Duration::from_millis(scaled(15_000, 700) as u64));
        interrupt_by(libc::SIGALRM);
        interrupt_by(libc::SIGPROF);
        for deadline_in_wait in [false, true] {
            let watch = Watch::over("under signals");
            let builder = Builder::new().deadline_in_wait(deadline_in_wait);
            let (calm, stormy, stats) = ledger(builder, async || {
                let calm = work(duration).await;
                // The process's own timers would mostly hit the harness's thread.
                let by_time = Storm::new(libc::CLOCK_MONOTONIC, libc::SIGALRM);
                let by_work = Storm::new(libc::CLOCK_THREAD_CPUTIME_ID, libc::SIGPROF);
                let stormy = work(duration).await;
                // Mostly asleep, so that it is sleeps that are interrupted.
                assert_eq!(sleeper(Instant::now() + duration, Duration::from_millis(20)).await, 0);
                drop((by_time, by_work));
                (calm, stormy, runtime::stats())
            });
            assert!(stats.interrupted > 100, "the storm did not come: {stats:#?}");
            // A sleep that also handed something over does not say that a signal ended it.
            assert_fruitful(&stats, stats.interrupted / 5);
            println!("\nS14 99 % of echoes within {calm:?}, in the storm {stormy:?}");
            watch.ends();
        }
    });
}

#[test]
fn s14_a_process_that_is_stopped_and_continued_notices_nothing() {
    isolated(|| {
        let watch = Watch::over("stopped and continued");
        let script = format!(
            "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do \
             kill -STOP {0}; sleep 0.005; kill -CONT {0}; sleep 0.01; done",
            std::process::id()
        );
        let stats = ledger(Builder::new(), async || {
            let mut shell = Command::new("sh").args(["-c", &script]).spawn().unwrap();
            work(Duration::from_millis(400)).await;
            while shell.try_wait().unwrap().is_none() {
                sleep(Duration::from_millis(3)).await;
            }
            runtime::stats()
        });
        assert_fruitful(&stats, 3);
        watch.ends();
    });
}
