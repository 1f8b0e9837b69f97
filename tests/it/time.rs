//! Sleeping, deadlines, intervals and callbacks.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn, ready};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use quoit::runtime::{self, Runtime, run};
use quoit::task::{call_soon, gather, yield_now};
use quoit::time::{
    Elapsed, Instant, Interval, MissedTickBehavior, Sleep, TimerHandle, call_at, call_later,
    interval, interval_at, sleep, sleep_until, timeout, timeout_at,
};

use crate::loopback::{lap, until};

const MS: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(3600);

/// Numbers that look random and are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// Counts the drops of its clones.
#[derive(Clone, Default)]
struct Drops(Rc<Cell<u32>>);

impl Drop for Drops {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

async fn polled_once<F: Future + Unpin>(mut future: F) -> Poll<F::Output> {
    poll_fn(|context| Poll::Ready(Pin::new(&mut future).poll(context))).await
}

/// A sleep of this runtime that was polled there.
fn asleep(runtime: &Runtime) -> Sleep {
    let mut nap = sleep(LONG);
    runtime.block_on(async { assert!(polled_once(&mut nap).await.is_pending()) });
    nap
}

/// Waits, and lets the callbacks run that are due by then: on a machine that has stalled a sleep may
/// be over without a lap.
async fn pass(time: Duration) {
    sleep(time).await;
    lap().await;
}

fn assert_send_sync<T: Send + Sync>() {}

// ---- Sleep ----

#[test]
fn no_sleep_ends_early() {
    run(async {
        let mut random = Random(7);
        let sleeps = (0..5_000).map(|_| {
            let (start, duration) =
                (Instant::now(), Duration::from_nanos(random.below(50_000_000)));
            let nap = sleep(duration);
            async move {
                nap.await;
                start.elapsed().checked_sub(duration)
            }
        });
        assert!(gather(sleeps).await.into_iter().all(|late| late.is_some()));
    })
    .unwrap();
}

#[test]
fn no_sleep_ends_early_by_the_clock_of_std() {
    run(async {
        for us in [0, 1, 10, 100, 900, 1100, 3000] {
            let (start, duration) = (std::time::Instant::now(), Duration::from_micros(us));
            sleep(duration).await;
            assert!(start.elapsed() >= duration, "{us} us");
        }
    })
    .unwrap();
}

#[test]
fn a_deadline_in_the_past_ends_at_the_first_poll() {
    run(async {
        let first = in_a_young_lap(async || polled_once(sleep_until(Instant::now())).await);
        assert!(first.await.is_ready());
        assert!(polled_once(sleep_until(Instant::now() - LONG)).await.is_ready());
        let first = in_a_young_lap(async || polled_once(sleep(Duration::ZERO)).await);
        assert!(first.await.is_ready());
        assert!(polled_once(sleep(LONG)).await.is_pending());
    })
    .unwrap();
}

/// A deadline is compared with the lap's clock first: what `poll` comes to in a lap that is young
/// from its beginning to its end, however slow the machine is.
async fn in_a_young_lap<T>(poll: impl AsyncFn() -> T) -> T {
    for _ in 0..1000 {
        let enters = runtime::stats().enters;
        let mut began = Instant::now();
        while runtime::stats().enters == enters {
            // The lap is no older than this, and no sleep is in between, which may be long.
            began = Instant::now();
            yield_now().await;
        }
        let result = poll().await;
        if began.elapsed() < 5 * MS {
            return result;
        }
    }
    panic!("no lap was young");
}

#[test]
fn the_first_lap_of_a_runtime_that_rested_is_young() {
    let runtime = Runtime::new().unwrap();
    thread::sleep(30 * MS);
    for _ in 0..2 {
        let began = std::time::Instant::now();
        let polled = runtime.block_on(async { polled_once(sleep_until(Instant::now())).await });
        // Where the machine has stalled in between, nothing can be said.
        assert!(polled.is_ready() || began.elapsed() > 5 * MS);
        thread::sleep(30 * MS);
    }
}

#[test]
fn a_deadline_that_passes_before_the_first_poll_ends_there() {
    run(async {
        let first = in_a_young_lap(async || {
            let nap = sleep(MS / 2);
            thread::sleep(MS);
            polled_once(nap).await
        });
        assert!(first.await.is_ready());
    })
    .unwrap();
}

#[test]
fn the_longest_duration_is_waited_for_for_ever() {
    run(async {
        let mut nap = sleep(Duration::MAX);
        assert!(polled_once(&mut nap).await.is_pending());
        assert!(timeout(MS, &mut nap).await.is_err());
        assert!(!nap.is_elapsed());
        assert_eq!(timeout(Duration::MAX, sleep(MS)).await, Ok(()));
        let mut ticks = interval(Duration::MAX);
        ticks.tick().await;
        assert!(timeout(MS, ticks.tick()).await.is_err());
        call_later(Duration::MAX, || panic!("for ever is over"));
        sleep(MS).await;
    })
    .unwrap();
}

#[test]
fn dropping_a_sleep_cancels_it() {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let mut naps: Vec<Sleep> = (0..100).map(|_| sleep(LONG)).collect();
        for nap in &mut naps {
            assert!(polled_once(nap).await.is_pending());
        }
    });
    assert_eq!(runtime.stats().timers, 0);
}

#[test]
fn a_sleep_can_be_reset_before_and_after_it_has_ended() {
    run(async {
        let mut nap = sleep(LONG);
        assert!(polled_once(&mut nap).await.is_pending());
        nap.reset(Instant::now() + MS);
        (&mut nap).await;
        assert!(nap.is_elapsed());
        nap.reset(Instant::now() + LONG);
        assert!(polled_once(&mut nap).await.is_pending());
        let again = Instant::now() + MS;
        nap.reset(again);
        assert_eq!(nap.deadline(), again);
        nap.await;
        assert!(Instant::now() >= again);
    })
    .unwrap();
}

#[test]
fn a_sleep_wakes_whoever_polled_it_last() {
    run(async {
        let mut nap = sleep(MS);
        let mut noop = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut nap).poll(&mut noop).is_pending());
        nap.await;
    })
    .unwrap();
}

#[test]
fn a_sleep_is_dropped_on_another_thread() {
    assert_send_sync::<Sleep>();
    let runtime = Runtime::new().unwrap();
    let nap = asleep(&runtime);
    assert_eq!(runtime.stats().timers, 1);
    thread::spawn(move || drop(nap)).join().unwrap();
    runtime.block_on(yield_now());
    assert_eq!(runtime.stats().timers, 0);
}

#[test]
fn a_sleep_outlives_its_runtime() {
    let runtime = Runtime::new().unwrap();
    let nap = asleep(&runtime);
    drop(runtime);
    drop(nap);
}

#[test]
#[should_panic(expected = "was polled on another")]
fn a_sleep_of_another_core_is_refused_in_words() {
    let runtime = Runtime::new().unwrap();
    run(asleep(&runtime)).unwrap();
}

#[test]
#[should_panic(expected = "start one with")]
fn a_sleep_outside_of_a_runtime_is_refused_in_words() {
    let _ = pin!(sleep(LONG)).poll(&mut Context::from_waker(Waker::noop()));
}

#[test]
fn a_hundred_thousand_sleeps_end_in_the_order_of_their_deadlines() {
    run(async {
        let start = Instant::now() + 100 * MS;
        let mut random = Random(3);
        let ended = Rc::new(RefCell::new(Vec::new()));
        for _ in 0..100_000 {
            let (at, ended) =
                (start + Duration::from_nanos(random.below(100_000_000)), ended.clone());
            call_at(at, move || ended.borrow_mut().push((at, Instant::now())));
        }
        while ended.borrow().len() < 100_000 {
            sleep(MS).await;
        }
        let ended = ended.borrow();
        assert!(ended.is_sorted_by_key(|(deadline, _)| *deadline));
        assert!(ended.iter().all(|(deadline, now)| now >= deadline));
    })
    .unwrap();
}

// ---- Timeouts ----

#[test]
fn a_result_that_is_ready_wins_over_a_deadline_that_has_passed() {
    run(async {
        assert_eq!(timeout(Duration::ZERO, ready(1)).await, Ok(1));
        assert_eq!(timeout_at(Instant::now() - LONG, ready(2)).await, Ok(2));
    })
    .unwrap();
}

#[test]
fn a_result_that_comes_with_the_deadline_wins() {
    run(async {
        // Not so near that a slow machine finds the one ahead, and then the other passed.
        let deadline = Instant::now() + 50 * MS;
        assert_eq!(timeout_at(deadline, sleep_until(deadline)).await, Ok(()));
    })
    .unwrap();
}

#[test]
fn a_timeout_of_zero_polls_once() {
    run(async {
        let first = in_a_young_lap(async || {
            let mut polls = 0;
            let never = poll_fn(|_| {
                polls += 1;
                Poll::<()>::Pending
            });
            let is_over = polled_once(timeout(Duration::ZERO, never)).await.is_ready();
            (is_over, polls)
        });
        assert_eq!(first.await, (true, 1));
    })
    .unwrap();
}

#[test]
fn a_timeout_counts_from_its_call_and_not_from_its_first_poll() {
    run(async {
        let first = in_a_young_lap(async || {
            let late = timeout(MS / 2, pending::<()>());
            thread::sleep(MS);
            polled_once(late).await
        });
        assert_eq!(first.await.map(|result| result.is_err()), Poll::Ready(true));
    })
    .unwrap();
}

#[test]
fn a_timeout_drops_its_future_and_its_timer() {
    let runtime = Runtime::new().unwrap();
    let drops = Drops::default();
    runtime.block_on(async {
        let held = drops.clone();
        let stuck = async move {
            pending::<()>().await;
            drop(held);
        };
        assert!(timeout(MS, stuck).await.is_err());
        assert_eq!(drops.0.get(), 1);
        let _ = timeout(LONG, yield_now()).await;
    });
    assert_eq!(runtime.stats().timers, 0);
}

#[test]
fn a_future_that_is_always_ready_to_run_does_not_outrun_its_timeout() {
    run(async {
        let busy = async {
            loop {
                yield_now().await;
            }
        };
        assert!(timeout(2 * MS, busy).await.is_err());
    })
    .unwrap();
}

#[test]
fn a_future_that_timed_out_can_go_on() {
    run(async {
        let open = Cell::new(false);
        let mut work = Box::pin(async {
            while !open.get() {
                yield_now().await;
            }
            7
        });
        assert!(timeout(MS, &mut work).await.is_err());
        open.set(true);
        assert_eq!(work.await, 7);
    })
    .unwrap();
}

#[test]
fn the_error_of_a_timeout_is_an_io_error_of_its_kind() {
    let elapsed: Elapsed = run(timeout(Duration::ZERO, pending::<()>())).unwrap().unwrap_err();
    assert_eq!(elapsed.to_string(), "the deadline has passed");
    let error = io::Error::from(elapsed);
    assert_eq!((error.kind(), error.to_string()), (io::ErrorKind::TimedOut, elapsed.to_string()));
}

#[test]
fn the_shortest_of_nested_timeouts_counts() {
    run(async {
        let inner = timeout(LONG, timeout(MS, timeout(LONG, pending::<()>())));
        assert!(matches!(inner.await, Ok(Err(_))));
    })
    .unwrap();
}

// ---- Intervals ----

#[test]
fn an_interval_ticks_at_once_and_then_at_every_period() {
    run(async {
        let start = Instant::now();
        let mut ticks = interval_at(start, 2 * MS);
        for tick in 0..5 {
            let due = ticks.tick().await;
            assert_eq!(due, start + 2 * tick * MS);
            assert!(Instant::now() >= due);
        }
        let first = in_a_young_lap(async || polled_once(pin!(interval(LONG).tick())).await);
        assert!(first.await.is_ready());
    })
    .unwrap();
}

#[test]
#[should_panic(expected = "an interval needs a period longer than zero")]
fn a_period_of_zero_is_refused_in_words() {
    interval(Duration::ZERO);
}

/// An interval of 10 ms whose second tick is taken 35 ms after the first, and when that was.
async fn missed(behavior: MissedTickBehavior) -> (Interval, Instant) {
    let start = Instant::now();
    let mut ticks = interval_at(start, 10 * MS);
    assert_eq!(ticks.tick().await, start);
    ticks.set_missed_tick_behavior(behavior);
    sleep_until(start + 35 * MS).await;
    assert_eq!(ticks.tick().await, start + 10 * MS);
    (ticks, start)
}

#[test]
fn missed_ticks_come_in_a_burst() {
    run(async {
        let (mut ticks, start) = missed(MissedTickBehavior::Burst).await;
        for tick in 2..6 {
            assert_eq!(ticks.tick().await, start + tick * 10 * MS);
        }
    })
    .unwrap();
}

#[test]
fn missed_ticks_delay_those_that_follow() {
    run(async {
        let (mut ticks, start) = missed(MissedTickBehavior::Delay).await;
        let next = ticks.tick().await;
        assert!(next >= start + 45 * MS);
        assert!(ticks.tick().await >= next + 10 * MS);
    })
    .unwrap();
}

#[test]
fn missed_ticks_are_skipped() {
    run(async {
        let (mut ticks, start) = missed(MissedTickBehavior::Skip).await;
        let next = ticks.tick().await;
        let since = next.duration_since(start).as_nanos();
        assert!(since >= (40 * MS).as_nanos(), "{since}");
        assert_eq!(since % (10 * MS).as_nanos(), 0);
    })
    .unwrap();
}

#[test]
fn a_tick_that_is_dropped_is_not_lost() {
    run(async {
        let start = Instant::now() + 50 * MS;
        let mut ticks = interval_at(start, 2 * MS);
        assert!(timeout(Duration::ZERO, ticks.tick()).await.is_err());
        assert_eq!(ticks.tick().await, start);
    })
    .unwrap();
}

#[test]
fn an_interval_starts_anew_when_it_is_reset() {
    run(async {
        let mut ticks = interval_at(Instant::now() + LONG, 2 * MS);
        let before = Instant::now();
        ticks.reset();
        let first = ticks.tick().await;
        assert!(first >= before + 2 * MS && first < before + LONG);
        assert_eq!(ticks.tick().await, first + 2 * MS);
        let later = Instant::now() + 5 * MS;
        ticks.reset_at(later);
        assert_eq!(ticks.tick().await, later);
        assert_eq!(ticks.period(), 2 * MS);
    })
    .unwrap();
}

// ---- Callbacks ----

#[test]
fn callbacks_are_called_by_time_and_equals_as_they_were_made() {
    run(async {
        let called = Rc::new(RefCell::new(Vec::new()));
        let start = Instant::now() + 2 * MS;
        for (number, us) in [900, 30, 30, 2000, 900, 30, 0].into_iter().enumerate() {
            let called = called.clone();
            let at = start + Duration::from_micros(us);
            assert_eq!(call_at(at, move || called.borrow_mut().push(number)).when(), at);
        }
        sleep_until(start + 3 * MS).await;
        assert_eq!(*called.borrow(), [6, 1, 2, 5, 0, 4, 3]);
    })
    .unwrap();
}

#[test]
fn callbacks_of_the_past_are_called_by_time_too() {
    run(async {
        let called = Rc::new(RefCell::new(Vec::new()));
        let now = Instant::now();
        for (number, seconds) in [1, 3, 2, 3].into_iter().enumerate() {
            let called = called.clone();
            call_at(now - Duration::from_secs(seconds), move || called.borrow_mut().push(number));
        }
        pass(MS).await;
        assert_eq!(*called.borrow(), [1, 3, 2, 0]);
    })
    .unwrap();
}

#[test]
fn a_callback_can_be_cancelled_until_it_is_called() {
    run(async {
        let drops = Drops::default();
        let held = drops.clone();
        let call = call_later(LONG, move || panic!("called with {}", held.0.get()));
        assert!(call.is_pending());
        call.cancel();
        assert_eq!((call.is_pending(), drops.0.get()), (false, 1));
        call.cancel();

        let count = Rc::new(Cell::new(0));
        let counter = count.clone();
        let call = call_later(Duration::ZERO, move || counter.set(counter.get() + 1));
        until(|| !call.is_pending()).await;
        assert_eq!(count.get(), 1);
        // Its place in the table belongs to another by now.
        let other = call_later(LONG, || ());
        call.cancel();
        assert!(other.is_pending());
    })
    .unwrap();
}

#[test]
fn a_callback_cancels_another_that_is_due_with_it() {
    run(async {
        let at = Instant::now() + MS;
        let second: Rc<RefCell<Option<TimerHandle>>> = Rc::default();
        let handle = second.clone();
        call_at(at, move || handle.borrow().as_ref().unwrap().cancel());
        *second.borrow_mut() = Some(call_at(at, || panic!("was cancelled")));
        pass(2 * MS).await;
        assert!(!second.borrow().as_ref().unwrap().is_pending());
        assert_eq!(quoit::runtime::stats().caught_panics, 0);
    })
    .unwrap();
}

#[test]
fn a_callback_can_cancel_itself_and_make_others() {
    run(async {
        let itself: Rc<RefCell<Option<TimerHandle>>> = Rc::default();
        let (handle, called) = (itself.clone(), Rc::new(Cell::new(0)));
        let count = called.clone();
        *itself.borrow_mut() = Some(call_later(MS, move || {
            handle.borrow().as_ref().unwrap().cancel();
            let (later, soon, task) = (count.clone(), count.clone(), count.clone());
            call_later(Duration::ZERO, move || later.set(later.get() + 1));
            call_soon(move || soon.set(soon.get() + 10));
            drop(quoit::spawn(async move { task.set(task.get() + 100) }));
        }));
        while called.get() < 111 {
            sleep(MS).await;
        }
    })
    .unwrap();
}

#[test]
fn dropping_the_handle_cancels_nothing() {
    run(async {
        let called = Rc::new(Cell::new(false));
        let flag = called.clone();
        {
            let _handle = call_later(MS, move || flag.set(true));
        }
        pass(3 * MS).await;
        assert!(called.get());
    })
    .unwrap();
}

#[test]
fn a_callback_that_renews_itself_in_the_past_does_not_stop_the_rest() {
    fn again(left: Rc<Cell<u32>>) {
        left.set(left.get() + 1);
        call_at(Instant::now() - LONG, move || again(left));
    }
    run(async {
        let calls = Rc::new(Cell::new(0));
        again(calls.clone());
        pass(2 * MS).await;
        yield_now().await;
        assert!(calls.get() > 1);
    })
    .unwrap();
}

#[test]
fn a_panic_in_a_callback_disturbs_no_other() {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let (at, called) = (Instant::now() + MS, Rc::new(Cell::new(false)));
        let flag = called.clone();
        call_at(at, || panic!("on purpose"));
        call_at(at, move || flag.set(true));
        pass(2 * MS).await;
        assert!(called.get());
    });
    assert_eq!(runtime.stats().caught_panics, 1);
}

#[test]
fn callbacks_that_are_left_are_dropped_and_not_called() {
    let drops = Drops::default();
    run(async {
        let held = (drops.clone(), drops.clone());
        call_later(LONG, move || drop(held));
        let held = drops.clone();
        call_at(Instant::now() - LONG, move || drop(held));
    })
    .unwrap();
    assert_eq!(drops.0.get(), 3);
}

#[test]
fn a_callback_that_is_made_while_others_are_dropped_is_dropped_too() {
    struct Last(Drops);
    impl Drop for Last {
        fn drop(&mut self) {
            let held = self.0.clone();
            call_later(LONG, move || drop(held));
        }
    }
    let drops = Drops::default();
    let last = Last(drops.clone());
    run(async { call_later(LONG, move || drop(last)) }).unwrap();
    assert_eq!(drops.0.get(), 2);
}

#[test]
fn a_callback_is_cancelled_from_another_thread() {
    assert_send_sync::<TimerHandle>();
    let (runtime, drops) = (Runtime::new().unwrap(), Drops::default());
    let held = drops.clone();
    let call = runtime.block_on(async { call_later(LONG, move || drop(held)) });
    thread::spawn(move || call.cancel()).join().unwrap();
    assert_eq!(drops.0.get(), 0, "it is dropped on its own core");
    runtime.block_on(yield_now());
    assert_eq!(drops.0.get(), 1);
}

#[test]
fn a_handle_outlives_its_runtime() {
    let call = run(async { call_later(LONG, || ()) }).unwrap();
    call.cancel();
    assert!(!call.is_pending());
    run(async { call.cancel() }).unwrap();
}

#[test]
#[should_panic(expected = "ask on the core that made the call")]
fn a_handle_of_another_core_is_not_asked() {
    let runtime = Runtime::new().unwrap();
    let call = runtime.block_on(async { call_later(LONG, || ()) });
    let _ = call.is_pending();
}

#[test]
#[should_panic(expected = "start one with")]
fn a_callback_outside_of_a_runtime_is_refused_in_words() {
    call_later(MS, || ());
}
