//! Queues with shares: who is in which, and how the core's time is divided.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use quoit::runtime::{Builder, Runtime, run};
use quoit::sim::{self, Faults};
use quoit::task::{self, OnPanic, Queue, yield_now};
use quoit::time::{Instant, advance, sleep};

use crate::loopback::until;
use crate::support::on_every_driver;

/// A task of `queue` that is always ready, and how often it was polled.
fn busy(queue: &Queue) -> Rc<Cell<u64>> {
    let polls = Rc::new(Cell::new(0));
    let count = polls.clone();
    queue.spawn(async move {
        loop {
            count.set(count.get() + 1);
            yield_now().await;
        }
    });
    polls
}

fn in_queue(name: &str) -> bool {
    &*Queue::current().name() == name
}

/// In a simulation polls take no time, so they are what is divided, exactly.
#[test]
fn polls_are_divided_by_shares() {
    let driver = |_| Ok(sim::driver(1, Faults::default()));
    let runtime = Builder::new().driver_with(driver).build().unwrap();
    runtime.block_on(async {
        let (much, little) = (Queue::new("much", 300), Queue::new("little", 100));
        let (much_polls, little_polls) = (busy(&much), busy(&little));
        let default_polls = busy(&Queue::current());
        sleep(Duration::from_millis(20)).await;
        let polls = [default_polls.get(), much_polls.get(), little_polls.get()];
        let all: u64 = polls.iter().sum();
        assert!(all > 10_000, "{polls:?}");
        for (polls, shares) in polls.into_iter().zip([1000, 300, 100]) {
            let fair = all * shares / 1400;
            assert!(polls.abs_diff(fair) <= 300, "{polls} polls for {shares} shares of {all}");
        }
        little.set_shares(1000);
        let before = (default_polls.get(), little_polls.get());
        sleep(Duration::from_millis(20)).await;
        let (one, other) = (default_polls.get() - before.0, little_polls.get() - before.1);
        assert!(one.abs_diff(other) <= 300, "{one} and {other} polls for as many shares");
    });
}

/// A poll that takes so long, on a clock that is paused.
fn burn(time: Duration) {
    let mut advance = pin!(advance(time));
    assert!(advance.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
}

#[test]
fn time_is_divided_by_shares_whatever_a_poll_takes() {
    let runtime = Builder::new().paused().build().unwrap();
    runtime.block_on(async {
        let (much, little) = (Queue::new("much", 400), Queue::new("little", 100));
        for (queue, each) in [(&much, 10), (&little, 200)] {
            queue.spawn(async move {
                loop {
                    burn(Duration::from_micros(each));
                    yield_now().await;
                }
            });
        }
        sleep(Duration::from_millis(100)).await;
        let (much, little) = (much.run_time().as_secs_f64(), little.run_time().as_secs_f64());
        assert!((0.099..0.102).contains(&(much + little)), "{much} and {little} seconds");
        assert!((3.9..4.1).contains(&(much / little)), "{much} and {little} seconds");
    });
}

#[test]
fn a_queue_that_slept_does_not_make_up_for_it() {
    let driver = |_| Ok(sim::driver(1, Faults::default()));
    Builder::new()
        .driver_with(driver)
        .run(async {
            let (awake, sleeper) = (Queue::new("awake", 500), Queue::new("sleeper", 500));
            let awake_polls = busy(&awake);
            sleep(Duration::from_millis(10)).await;
            let sleeper_polls = busy(&sleeper);
            let before = awake_polls.get();
            assert!(before > 1_000);
            sleep(Duration::from_millis(2)).await;
            let (awake, sleeper) = (awake_polls.get() - before, sleeper_polls.get());
            assert!(awake > 100 && awake.abs_diff(sleeper) <= 300, "{awake} and {sleeper} polls");
        })
        .unwrap();
}

#[test]
fn children_are_in_the_queue_of_their_parent_and_others_in_their_own() {
    on_every_driver(|| async {
        let queue = Queue::new("background", 10);
        let seen = Rc::new(RefCell::new(Vec::new()));
        let note = seen.clone();
        let foreground = quoit::spawn(async {
            for _ in 0..10 {
                assert!(in_queue("default"));
                yield_now().await;
            }
        });
        let task = queue.spawn(async move {
            assert!(in_queue("background"));
            let child =
                quoit::spawn(async { quoit::spawn(async { in_queue("background") }).await });
            let named = task::Builder::new().name("child").spawn(async { in_queue("background") });
            assert!(child.await.unwrap().unwrap() && named.await.unwrap());
            let called = note.clone();
            quoit::call_soon(move || called.borrow_mut().push(in_queue("background")));
            let later = note.clone();
            quoit::call_later(Duration::ZERO, move || {
                quoit::spawn(async move { later.borrow_mut().push(in_queue("default")) });
            });
            // It is woken in the background, and runs in the foreground.
            foreground.await.unwrap();
            sleep(Duration::from_millis(1)).await;
            assert!(in_queue("background"));
        });
        task.await.unwrap();
        assert!(in_queue("default"));
        let back = queue.spawn(async {
            let chosen = task::Builder::new().queue(&Queue::new("chosen", 7));
            let task = chosen.spawn(async { (in_queue("chosen"), Queue::current().shares()) });
            task.await.unwrap()
        });
        assert_eq!(back.await.unwrap(), (true, 7));
        sleep(Duration::from_millis(1)).await;
        assert_eq!(*seen.borrow(), [true, true]);
    });
}

#[test]
fn what_other_threads_send_is_in_the_default_queue() {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let queue = Queue::new("background", 10);
        let _polls = busy(&queue);
        let handle = quoit::runtime::Handle::current();
        let sent = quoit::spawn_blocking(move || handle.spawn_on(async || in_queue("default")));
        let task = sent.await.unwrap().unwrap();
        assert!(task.await.unwrap());
    });
}

#[test]
fn nobody_is_lost_when_the_queues_take_turns() {
    on_every_driver(|| async {
        let queues = [Queue::new("one", 1), Queue::new("two", 1000), Queue::current()];
        // Each wakes the next, across all queues, many times.
        let wakers: Vec<_> = (0..30).map(|_| Rc::new(RefCell::new(None))).collect();
        let turns = Rc::new(Cell::new(0));
        let tasks: Vec<_> = (0..30)
            .map(|number| {
                let (mine, next) = (wakers[number].clone(), wakers[(number + 1) % 30].clone());
                let turns = turns.clone();
                queues[number % 3].spawn(std::future::poll_fn(move |context| {
                    *mine.borrow_mut() = Some(context.waker().clone());
                    turns.set(turns.get() + 1);
                    let woken: Option<Waker> = next.borrow_mut().take();
                    woken.into_iter().for_each(Waker::wake);
                    if turns.get() < 3_000 {
                        return Poll::Pending;
                    }
                    Poll::Ready(())
                }))
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        wakers.iter().for_each(|waker| drop(waker.borrow_mut().take()));
    });
}

#[test]
fn a_panic_in_a_queue_leaves_the_others_as_they_were() {
    for then in [OnPanic::Isolate, OnPanic::ShutDown] {
        let runtime = Builder::new().on_panic(then).build().unwrap();
        let order = Rc::new(RefCell::new(Vec::new()));
        let (first, second) = (order.clone(), order.clone());
        let ended = catch_unwind(AssertUnwindSafe(|| {
            runtime.block_on(async {
                let queue = Queue::new("background", 1000);
                queue.spawn(async move {
                    quoit::spawn(async move { first.borrow_mut().push("child") });
                    panic!("after a spawn")
                });
                quoit::spawn(async move {
                    yield_now().await;
                    second.borrow_mut().push("other");
                });
                sleep(Duration::from_millis(5)).await;
            });
        }));
        assert_eq!(ended.is_err(), then == OnPanic::ShutDown);
        runtime.block_on(until(|| order.borrow().len() == 2));
        let mut order = order.take();
        order.sort_unstable();
        assert_eq!(order, ["child", "other"]);
        assert_eq!(runtime.stats().tasks, 0);
    }
}

#[test]
fn the_end_of_a_core_ends_what_its_queues_have() {
    struct Drops(Rc<Cell<u32>>);
    impl Drop for Drops {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }
    let dropped = Rc::new(Cell::new(0));
    let mut runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let queue = Queue::new("background", 1);
        for number in 0..10 {
            let drops = Drops(dropped.clone());
            let task = queue.spawn(async move {
                let _drops = drops;
                match number % 2 {
                    0 => pending::<()>().await,
                    _ => loop {
                        yield_now().await;
                    },
                }
            });
            // Some are aborted, and end while they are queued.
            if number % 3 == 0 {
                task.abort();
            }
        }
        yield_now().await;
    });
    assert_eq!(runtime.shutdown(Duration::from_secs(10)), 0);
    assert_eq!((dropped.get(), runtime.stats().tasks), (10, 0));
}

#[test]
fn a_core_sleeps_when_all_its_queues_are_empty() {
    run(async {
        let queue = Queue::new("background", 1);
        queue.spawn(async {}).await.unwrap();
        let before = quoit::runtime::stats().polls;
        let start = Instant::now();
        sleep(Duration::from_millis(20)).await;
        assert!(start.elapsed() >= Duration::from_millis(20));
        assert!(quoit::runtime::stats().polls - before < 10, "the core did not sleep");
    })
    .unwrap();
}

// ---- Bad input ----

fn text_of(f: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(f)).unwrap_err();
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(other) => (*other.downcast::<&str>().unwrap()).to_owned(),
    }
}

#[test]
fn shares_that_are_none_or_too_many_are_refused() {
    run(async {
        for shares in [0, 1001] {
            let text = text_of(|| drop(Queue::new("wrong", shares)));
            assert!(text.contains(&format!("from 1 to 1000 shares, not {shares}")), "{text}");
        }
        let queue = Queue::new("right", 1000);
        assert!(text_of(|| queue.set_shares(0)).contains("not 0"));
        assert_eq!(queue.shares(), 1000);
    })
    .unwrap();
}

#[test]
fn a_queue_is_of_one_core() {
    assert!(text_of(|| drop(Queue::new("nowhere", 1))).contains("outside of a runtime"));
    let queue = run(async { Queue::new("first", 1) }).unwrap();
    run(async move {
        let text = text_of(|| drop(queue.spawn(async {})));
        assert!(text.contains("was used elsewhere"), "{text}");
    })
    .unwrap();
    assert_eq!(
        format!("{:?}", run(async { Queue::current() == Queue::current() }).unwrap()),
        "true"
    );
}

#[test]
fn a_core_has_at_most_255_queues() {
    run(async {
        let queues: Vec<_> = (1..=255).map(|shares| Queue::new("one of many", shares)).collect();
        let last = queues.last().unwrap();
        assert!(last.spawn(async { in_queue("one of many") }).await.unwrap());
        assert!(text_of(|| drop(Queue::new("too many", 1))).contains("at most 255 queues"));
    })
    .unwrap();
}
