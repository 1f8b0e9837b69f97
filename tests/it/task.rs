//! Tasks: their order, their ends, and what reaches them from elsewhere.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use quoit::runtime::{Runtime, run, stats};
use quoit::task::{JoinHandle, yield_now};
use quoit::time::{Instant, sleep};

use crate::support::{on_every_driver, scaled};

/// Counts its drops.
#[derive(Clone, Default)]
struct Drops(Rc<Cell<u32>>);

impl Drop for Drops {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

/// Panics when it is dropped, unless that is because of a panic.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !thread::panicking() {
            panic!("the bomb");
        }
    }
}

/// The waker of a task that waits for ever, and its handle.
async fn stuck_task() -> (Waker, JoinHandle<()>) {
    let place = Rc::new(RefCell::new(None));
    let waker = place.clone();
    let task = quoit::spawn(poll_fn(move |context| {
        *waker.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    }));
    yield_now().await;
    let waker = place.borrow_mut().take().expect("the task was polled");
    (waker, task)
}

#[test]
fn tasks_first_run_in_the_order_in_which_they_were_spawned() {
    on_every_driver(|| async {
        let order = Rc::new(RefCell::new(Vec::new()));
        let tasks: Vec<_> = (0..1_000)
            .map(|number| {
                let order = order.clone();
                quoit::spawn(async move { order.borrow_mut().push(number) })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert!(order.borrow().iter().copied().eq(0..1_000));
    });
}

#[test]
fn a_task_that_ended_long_ago_still_gives_its_output() {
    run(async {
        let task = quoit::spawn(async { String::from("kept") });
        while !task.is_finished() {
            yield_now().await;
        }
        for _ in 0..100 {
            quoit::spawn(async {}).await.unwrap();
        }
        assert_eq!(task.await.unwrap(), "kept");
    })
    .unwrap();
}

#[test]
fn a_task_aborted_before_its_first_poll_never_runs() {
    run(async {
        let (drops, ran) = (Drops::default(), Rc::new(Cell::new(false)));
        let (held, flag) = (drops.clone(), ran.clone());
        let task = quoit::spawn(async move {
            let _held = held;
            flag.set(true);
        });
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        assert!(!ran.get());
        assert_eq!(drops.0.get(), 1);
    })
    .unwrap();
}

#[test]
fn a_task_aborted_while_it_waits_drops_its_future_at_its_next_turn() {
    run(async {
        let drops = Drops::default();
        let held = drops.clone();
        let task = quoit::spawn(async move {
            let _held = held;
            pending::<()>().await;
        });
        yield_now().await;
        task.abort();
        assert_eq!(drops.0.get(), 0);
        yield_now().await;
        assert_eq!(drops.0.get(), 1);
        assert!(task.await.unwrap_err().is_cancelled());
    })
    .unwrap();
}

#[test]
fn an_abort_after_the_end_changes_nothing() {
    run(async {
        let task = quoit::spawn(async { 7 });
        yield_now().await;
        task.abort();
        yield_now().await;
        assert_eq!(task.await.unwrap(), 7);
    })
    .unwrap();
}

#[test]
fn a_task_that_aborts_itself_ends_at_its_next_wait() {
    run(async {
        let handle: Rc<RefCell<Option<JoinHandle<()>>>> = Rc::default();
        let (own, reached) = (handle.clone(), Rc::new(Cell::new(0)));
        let steps = reached.clone();
        let task = quoit::spawn(async move {
            own.borrow().as_ref().unwrap().abort();
            steps.set(1);
            yield_now().await;
            steps.set(2);
        });
        handle.replace(Some(task));
        while !handle.borrow().as_ref().unwrap().is_finished() {
            yield_now().await;
        }
        assert_eq!(reached.get(), 1);
        let task = handle.take().unwrap();
        assert!(task.await.unwrap_err().is_cancelled());
    })
    .unwrap();
}

#[test]
fn a_task_that_aborts_itself_and_ends_in_the_same_poll_keeps_its_output() {
    run(async {
        let handle: Rc<RefCell<Option<JoinHandle<u8>>>> = Rc::default();
        let own = handle.clone();
        let task = quoit::spawn(async move {
            own.borrow().as_ref().unwrap().abort();
            7
        });
        handle.replace(Some(task));
        yield_now().await;
        let task = handle.take().unwrap();
        assert_eq!(task.await.unwrap(), 7);
    })
    .unwrap();
}

#[test]
fn a_detached_task_runs_to_its_end_and_its_output_is_dropped() {
    run(async {
        let drops = Drops::default();
        let output = drops.clone();
        drop(quoit::spawn(async move {
            yield_now().await;
            output
        }));
        let before = stats().tasks;
        while stats().tasks == before {
            assert_eq!(drops.0.get(), 0);
            yield_now().await;
        }
        assert_eq!(drops.0.get(), 1);
        // One that has ended already is released at once.
        let output = drops.clone();
        let task = quoit::spawn(async move { output });
        yield_now().await;
        drop(task);
        assert_eq!(drops.0.get(), 2);
    })
    .unwrap();
}

#[test]
fn a_handle_dropped_on_another_thread_detaches_its_task() {
    on_every_driver(|| async {
        let ended = quoit::spawn(async { vec![1_u8; 1000] });
        let (waker, waiting) = stuck_task().await;
        let tasks = stats().tasks;
        thread::spawn(move || drop((ended, waiting))).join().unwrap();
        while stats().tasks >= tasks {
            sleep(Duration::from_millis(1)).await;
        }
        // The stuck one is still there, and still wakes.
        let polls = stats().polls;
        waker.wake();
        yield_now().await;
        assert!(stats().polls > polls);
    });
}

#[test]
fn an_abort_from_another_thread_ends_the_task() {
    on_every_driver(|| async {
        let (waker, task) = stuck_task().await;
        let task = thread::spawn(move || {
            task.abort();
            task
        });
        let task = task.join().unwrap();
        assert!(task.await.unwrap_err().is_cancelled());
        waker.wake();
    });
}

#[test]
fn a_panic_ends_its_task_and_nothing_else() {
    run(async {
        let other = quoit::spawn(async {
            yield_now().await;
            "unharmed"
        });
        let task = quoit::spawn(async {
            yield_now().await;
            panic!("{}", String::from("seven"));
        });
        let error = task.await.unwrap_err();
        assert!(error.is_panic() && !error.is_cancelled());
        assert_eq!(error.to_string(), "the task panicked: seven");
        let panic = error.try_into_panic().unwrap();
        assert_eq!(*panic.downcast::<String>().unwrap(), "seven");
        assert_eq!(other.await.unwrap(), "unharmed");
    })
    .unwrap();
}

#[test]
fn a_future_that_panics_when_it_is_dropped_gives_that_panic_and_drops_its_output() {
    run(async {
        let drops = Drops::default();
        // At its end; the output is lost.
        let (output, bomb) = (drops.clone(), Bomb);
        let mut output = Some(output);
        let task = quoit::spawn(poll_fn(move |_| {
            let _held = &bomb;
            Poll::Ready(output.take().unwrap())
        }));
        let Err(error) = task.await else { panic!("the bomb was to go off") };
        assert_eq!(error.to_string(), "the task panicked: the bomb");
        assert_eq!(drops.0.get(), 1);
        // At an abort.
        let bomb = Bomb;
        let task = quoit::spawn(async move {
            let _held = bomb;
            pending::<()>().await;
        });
        yield_now().await;
        task.abort();
        assert_eq!(task.await.unwrap_err().to_string(), "the task panicked: the bomb");
        // An output that nobody takes, and a panic in a poll with a bomb beside it.
        drop(quoit::spawn(async { Bomb }));
        let bomb = Bomb;
        let task = quoit::spawn(async move {
            let _held = bomb;
            panic!("first");
        });
        let error: quoit::task::JoinError = task.await.unwrap_err();
        assert_eq!(error.to_string(), "the task panicked: first");
        yield_now().await;
    })
    .unwrap();
}

#[test]
fn a_task_woken_during_its_own_poll_is_polled_again_and_once_only() {
    run(async {
        let polls = Rc::new(Cell::new(0));
        let count = polls.clone();
        let task = quoit::spawn(poll_fn(move |context: &mut Context<'_>| {
            count.set(count.get() + 1);
            if count.get() == 3 {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            let clone = context.waker().clone();
            clone.wake();
            context.waker().wake_by_ref();
            Poll::Pending
        }));
        yield_now().await;
        assert_eq!(polls.get(), 1);
        task.await.unwrap();
        assert_eq!(polls.get(), 3);
    })
    .unwrap();
}

#[test]
fn a_wake_after_the_end_does_nothing() {
    on_every_driver(|| async {
        let wakers = Rc::new(RefCell::new(Vec::new()));
        let kept = wakers.clone();
        let task = quoit::spawn(poll_fn(move |context| {
            kept.borrow_mut().extend([context.waker().clone(), context.waker().clone()]);
            // Ends while it is queued.
            context.waker().wake_by_ref();
            Poll::Ready(5)
        }));
        assert_eq!(task.await.unwrap(), 5);
        let polls = stats().polls;
        let mut own = wakers.take();
        let foreign = own.pop().unwrap();
        thread::spawn(move || foreign.wake()).join().unwrap();
        own.into_iter().for_each(Waker::wake);
        sleep(Duration::from_millis(2)).await;
        assert!(stats().polls <= polls + 2, "only this task ran");
    });
}

#[test]
fn a_waker_outlives_its_runtime() {
    let runtime = Runtime::new().unwrap();
    let (waker, task) = runtime.block_on(stuck_task());
    drop(runtime);
    waker.wake_by_ref();
    let clone = waker.clone();
    thread::spawn(move || clone.wake()).join().unwrap();
    drop((waker, task));
}

#[test]
fn a_wake_from_another_thread_ends_the_sleep_of_the_core() {
    on_every_driver(|| async {
        for _ in 0..scaled(200) {
            let (send, receive) = mpsc::channel::<Waker>();
            let waking = thread::spawn(move || receive.recv().unwrap().wake());
            let mut sent = false;
            poll_fn(|context| {
                if std::mem::replace(&mut sent, true) {
                    return Poll::Ready(());
                }
                send.send(context.waker().clone()).unwrap();
                Poll::Pending
            })
            .await;
            waking.join().unwrap();
        }
    });
}

#[test]
fn a_task_that_wakes_itself_for_ever_starves_neither_timers_nor_files() {
    on_every_driver(|| async {
        let busy = quoit::spawn(async {
            loop {
                yield_now().await;
            }
        });
        let start = Instant::now();
        sleep(Duration::from_millis(5)).await;
        let slept = start.elapsed();
        assert!(slept >= Duration::from_millis(5) && slept < Duration::from_secs(5));
        let file = quoit::fs::File::open("/proc/self/stat").await.unwrap();
        let (count, _) = file.read_at(Vec::with_capacity(64), 0).await.unwrap();
        assert!(count > 0);
        busy.abort();
        assert!(busy.await.unwrap_err().is_cancelled());
    });
}

#[test]
fn a_task_spawned_by_a_drop_at_shutdown_is_dropped_too() {
    /// Spawns, when it is dropped, a task that does the same, so many times.
    struct Respawn(u32, Drops);
    impl Drop for Respawn {
        fn drop(&mut self) {
            if self.0 > 0 {
                let next = Respawn(self.0 - 1, self.1.clone());
                drop(quoit::spawn(async move {
                    let _next = next;
                    pending::<()>().await;
                }));
            }
        }
    }
    let drops = Drops::default();
    let mut runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let respawn = Respawn(10, drops.clone());
        drop(quoit::spawn(async move {
            let _respawn = respawn;
            pending::<()>().await;
        }));
        yield_now().await;
    });
    runtime.shutdown(Duration::from_secs(5));
    // The first, and ten more.
    assert_eq!(drops.0.get(), 11);
    assert_eq!(runtime.stats().tasks, 0);
}

#[test]
fn a_hundred_thousand_tasks_wait_and_end_together() {
    run(async {
        let count = scaled(100_000);
        let gate = Rc::new(RefCell::new(Vec::new()));
        let tasks: Vec<_> = (0..count)
            .map(|number| {
                let gate = gate.clone();
                quoit::spawn(async move {
                    let mut waited = false;
                    poll_fn(|context| {
                        if std::mem::replace(&mut waited, true) {
                            return Poll::Ready(());
                        }
                        gate.borrow_mut().push(context.waker().clone());
                        Poll::Pending
                    })
                    .await;
                    number
                })
            })
            .collect();
        while gate.borrow().len() < count {
            yield_now().await;
        }
        assert_eq!(stats().tasks, count + 1);
        gate.take().into_iter().for_each(Waker::wake);
        for (number, task) in tasks.into_iter().enumerate() {
            assert_eq!(task.await.unwrap(), number);
        }
        assert_eq!(stats().tasks, 1);
    })
    .unwrap();
}

#[test]
fn shutting_down_many_tasks_takes_no_longer_for_each_than_few() {
    let drops = Drops::default();
    let count = u32::try_from(scaled(300_000)).unwrap();
    let mut runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        for _ in 0..count {
            let held = drops.clone();
            drop(quoit::spawn(async move {
                let _held = held;
                pending::<()>().await;
            }));
        }
        yield_now().await;
    });
    // A search from the first for each of them would take minutes.
    runtime.shutdown(Duration::from_secs(5));
    assert_eq!(drops.0.get(), count);
}

#[test]
fn futures_of_every_size_and_alignment_keep_their_bytes() {
    #[repr(align(128))]
    struct Aligned([u8; 300]);

    async fn keeps<const N: usize>(byte: u8) -> [u8; N] {
        let bytes = [byte; N];
        yield_now().await;
        bytes
    }
    run(async {
        assert_eq!(quoit::spawn(keeps::<0>(1)).await.unwrap(), [1; 0]);
        assert_eq!(quoit::spawn(keeps::<1>(2)).await.unwrap(), [2; 1]);
        assert_eq!(quoit::spawn(keeps::<100>(3)).await.unwrap(), [3; 100]);
        assert_eq!(quoit::spawn(keeps::<10_000>(4)).await.unwrap(), [4; 10_000]);
        let task = quoit::spawn(async {
            let value = Aligned([5; 300]);
            yield_now().await;
            assert_eq!((&raw const value).addr() % 128, 0);
            value
        });
        assert_eq!(task.await.unwrap().0, [5; 300]);
        // An aligned future with a small output, and one that panics.
        let task = quoit::spawn(async {
            let value = Aligned([6; 300]);
            yield_now().await;
            assert_eq!(value.0[0], 6);
            6_u8
        });
        assert_eq!(task.await.unwrap(), 6);
        let task = quoit::spawn(async {
            let value = Aligned([7; 300]);
            yield_now().await;
            panic!("{}", value.0[299]);
        });
        assert_eq!(task.await.unwrap_err().to_string(), "the task panicked: 7");
    })
    .unwrap();
}

#[test]
fn a_handle_can_be_asked_by_several_tasks_and_wakes_the_last() {
    run(async {
        let (waker, task) = stuck_task().await;
        let mut task = pin!(task);
        // First by a waker that does nothing, then by this task.
        assert!(task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        drop(waker);
    })
    .unwrap();
}

#[test]
fn a_handle_polled_after_its_end_panics_with_a_sentence() {
    run(async {
        let mut task = quoit::spawn(async {});
        (&mut task).await.unwrap();
        let again = poll_fn(|context| {
            let poll = || pin!(&mut task).poll(context).map(drop);
            Poll::Ready(catch_unwind(AssertUnwindSafe(poll)).is_err())
        });
        assert!(again.await);
    })
    .unwrap();
}
