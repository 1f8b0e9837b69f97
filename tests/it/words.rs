//! The words of an event loop: gathering, joining, and calling soon.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use quoit::runtime::{Runtime, run};
use quoit::task::{call_soon, gather, gather_limit, try_gather, try_gather_limit, yield_now};
use quoit::time::{sleep, timeout};
use quoit::{join, try_join};

/// Something to wait for: it counts its polls, and ends when it was opened.
#[derive(Clone, Default)]
struct Gate(Rc<GateState>);

#[derive(Default)]
struct GateState {
    open: Cell<bool>,
    polls: Cell<u32>,
    waker: RefCell<Option<Waker>>,
}

impl Gate {
    fn open(&self) {
        self.0.open.set(true);
        self.wake();
    }

    fn wake(&self) {
        let waker = self.0.waker.borrow_mut().take();
        waker.into_iter().for_each(Waker::wake);
    }

    fn polls(&self) -> u32 {
        self.0.polls.get()
    }
}

impl Future for Gate {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.polls.set(self.0.polls.get() + 1);
        if self.0.open.get() {
            return Poll::Ready(());
        }
        *self.0.waker.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    }
}

/// Counts its drops.
#[derive(Clone, Default)]
struct Drops(Rc<Cell<u32>>);

impl Drop for Drops {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

impl Drops {
    /// A future that never ends, and counts when it is dropped.
    fn stuck<T>(&self) -> impl Future<Output = T> + use<T> {
        let held = self.clone();
        async move {
            let _held = held;
            pending().await
        }
    }
}

/// A waker that counts.
#[derive(Default)]
struct Wakes(AtomicU32);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn poll_with<F: Future + Unpin>(waker: &Waker, future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

fn shuffled(count: usize) -> Vec<usize> {
    let (mut order, mut random): (Vec<usize>, _) = ((0..count).collect(), 0x9E37_79B9_u64);
    for last in (1..count).rev() {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        order.swap(last, (random % (last as u64 + 1)) as usize);
    }
    order
}

// ---- gather ----

#[test]
fn nothing_gathered_is_done_at_once() {
    run(async {
        assert_eq!(gather(Vec::<Gate>::new()).await, []);
        assert_eq!(gather_limit(1, Vec::<Gate>::new()).await, []);
        assert_eq!(try_gather(Vec::<std::future::Ready<Result<u8, ()>>>::new()).await, Ok(vec![]));
    })
    .unwrap();
}

#[test]
fn outputs_come_in_the_order_of_the_futures_whatever_the_order_of_their_ends() {
    run(async {
        let gates: Vec<Gate> = (0..5_000).map(|_| Gate::default()).collect();
        let wait = async |number: usize| {
            gates[number].clone().await;
            number
        };
        let open = async {
            for (count, at) in shuffled(gates.len()).into_iter().enumerate() {
                gates[at].open();
                if count % 7 == 0 {
                    yield_now().await;
                }
            }
        };
        let (numbers, ()) = join!(gather((0..gates.len()).map(wait)), open);
        assert!(numbers.into_iter().eq(0..gates.len()));
        assert!(gates.iter().all(|gate| gate.polls() <= 2), "polled only when woken");
    })
    .unwrap();
}

#[test]
fn waking_one_future_polls_only_that() {
    let gates: Vec<Gate> = (0..1_000).map(|_| Gate::default()).collect();
    let mut all = gather(gates.iter().cloned());
    let (wakes, mut polls) = (Arc::new(Wakes::default()), 0);
    let waker = Waker::from(wakes.clone());
    // More than are polled in one go, so it asks for another turn.
    while poll_with(&waker, &mut all).is_pending() && gates[999].polls() == 0 {
        polls += 1;
        assert_eq!(wakes.0.swap(0, Ordering::Relaxed), 1);
    }
    assert!(polls > 1, "a thousand futures leave others their turns");
    for _ in 0..3 {
        gates[7].wake();
        gates[7].wake();
        assert_eq!(wakes.0.swap(0, Ordering::Relaxed), 1);
        assert!(poll_with(&waker, &mut all).is_pending());
    }
    assert_eq!(gates[7].polls(), 4);
    assert_eq!(gates.iter().map(Gate::polls).sum::<u32>(), 1_003);
    // A poll that nobody asked for polls no child.
    assert!(poll_with(&waker, &mut all).is_pending());
    assert_eq!(gates.iter().map(Gate::polls).sum::<u32>(), 1_003);
}

#[test]
fn a_gather_wakes_whoever_polled_it_last() {
    let gate = Gate::default();
    let mut one = gather([gate.clone()]);
    let (first, second) = (Arc::new(Wakes::default()), Arc::new(Wakes::default()));
    assert!(poll_with(&first.clone().into(), &mut one).is_pending());
    assert!(poll_with(&second.clone().into(), &mut one).is_pending());
    gate.open();
    assert_eq!(first.0.load(Ordering::Relaxed), 0);
    assert_eq!(second.0.load(Ordering::Relaxed), 1);
    assert_eq!(Arc::strong_count(&first), 1, "the waker of the first poll was dropped");
    assert!(poll_with(Waker::noop(), &mut one).is_ready());
}

#[test]
fn gathered_futures_borrow_from_their_task() {
    run(async {
        let text = String::from("a b c");
        let lengths = gather(text.split(' ').map(async |word| word.len())).await;
        assert_eq!(lengths, [1, 1, 1]);
    })
    .unwrap();
}

#[test]
fn gathers_nest() {
    run(async {
        let row = |row: u64| {
            gather((0..30).map(move |column| async move {
                sleep(Duration::from_micros((row * 7 + column * 13) % 900)).await;
                row * 100 + column
            }))
        };
        let table = gather((0..30).map(row)).await;
        for (number, row) in table.into_iter().enumerate() {
            assert!(row.into_iter().eq((0..30).map(|column| number as u64 * 100 + column)));
        }
    })
    .unwrap();
}

#[test]
fn dropping_a_gather_drops_its_futures() {
    run(async {
        let drops = Drops::default();
        let all = gather((0..10).map(|_| drops.stuck::<()>()));
        assert!(timeout(Duration::ZERO, all).await.is_err());
        assert_eq!(drops.0.get(), 10);
    })
    .unwrap();
}

#[test]
fn a_waker_that_outlives_its_gather_wakes_nobody() {
    let gate = Gate::default();
    let wakes = Arc::new(Wakes::default());
    let mut all = gather([gate.clone(), gate.clone()]);
    assert!(poll_with(&wakes.clone().into(), &mut all).is_pending());
    drop(all);
    assert_eq!(Arc::strong_count(&wakes), 1);
    gate.open();
    assert_eq!(wakes.0.load(Ordering::Relaxed), 0);
}

#[test]
fn a_panic_of_one_future_is_the_panic_of_the_gather() {
    run(async {
        let drops = Drops::default();
        let held = drops.clone();
        let task = quoit::spawn(async move {
            let one = |number| {
                let stuck = held.stuck::<()>();
                async move {
                    yield_now().await;
                    assert!(number != 3, "three");
                    stuck.await
                }
            };
            gather((0..5).map(one)).await
        });
        let error = task.await.unwrap_err();
        assert!(error.is_panic() && error.to_string().contains("three"));
        // Five futures, and what they were made from.
        assert_eq!(drops.0.get(), 6);
    })
    .unwrap();
}

#[test]
fn a_gather_can_be_polled_after_a_panic_of_one_future() {
    let gates = [Gate::default(), Gate::default()];
    let panics = Cell::new(true);
    let one = |gate: Gate| {
        poll_fn({
            let (mut gate, panics) = (gate, &panics);
            move |context| {
                let outcome = Pin::new(&mut gate).poll(context);
                assert!(outcome.is_pending() || !panics.replace(false), "the first that ends");
                outcome
            }
        })
    };
    let mut all = gather(gates.iter().cloned().map(one));
    assert!(poll_with(Waker::noop(), &mut all).is_pending());
    gates[0].open();
    let panicked = catch_unwind(AssertUnwindSafe(|| poll_with(Waker::noop(), &mut all)));
    assert!(panicked.is_err());
    gates[1].open();
    // The one that panicked is not polled again, as nobody wakes it; the other one goes on.
    assert!(poll_with(Waker::noop(), &mut all).is_pending());
    assert_eq!((gates[0].polls(), gates[1].polls()), (2, 2));
}

#[test]
#[should_panic(expected = "a gather was polled after it had completed")]
fn a_gather_is_not_polled_again() {
    let mut none = gather(Vec::<Gate>::new());
    assert!(poll_with(Waker::noop(), &mut none).is_ready());
    let _ = poll_with(Waker::noop(), &mut none);
}

#[test]
fn gathered_futures_are_woken_from_other_threads() {
    run(async {
        let wakers: Arc<Mutex<Vec<Waker>>> = Arc::default();
        let count = 1_000;
        let waker_thread = thread::spawn({
            let (wakers, mut woken) = (wakers.clone(), 0);
            move || {
                while woken < count {
                    let batch = std::mem::take(&mut *wakers.lock().unwrap());
                    woken += batch.len();
                    batch.into_iter().for_each(Waker::wake);
                    thread::yield_now();
                }
            }
        });
        let once = |number: usize| {
            let (wakers, mut asked) = (&wakers, false);
            poll_fn(move |context| {
                if std::mem::replace(&mut asked, true) {
                    return Poll::Ready(number);
                }
                wakers.lock().unwrap().push(context.waker().clone());
                Poll::Pending
            })
        };
        assert!(gather((0..count).map(once)).await.into_iter().eq(0..count));
        waker_thread.join().unwrap();
    })
    .unwrap();
}

#[test]
fn a_future_that_is_always_ready_to_run_leaves_the_others_their_turns() {
    run(async {
        let stop = Cell::new(false);
        let busy = async || {
            while !stop.get() {
                yield_now().await;
            }
        };
        let patient = async {
            sleep(Duration::from_millis(2)).await;
            stop.set(true);
        };
        join!(gather((0..300).map(|_| busy())), patient);
    })
    .unwrap();
}

// ---- gather_limit ----

#[test]
fn a_limit_bounds_how_many_futures_are_started_and_not_ended() {
    run(async {
        let (live, most, made) = (Cell::new(0), Cell::new(0), Cell::new(0));
        let (live, most, made) = (&live, &most, &made);
        let jobs = (0..200_u32).map(|number| {
            made.set(made.get() + 1);
            live.set(live.get() + 1);
            assert!(live.get() <= 8, "a future is made when there is room for it");
            most.set(most.get().max(live.get()));
            async move {
                for _ in 0..number * 31 % 5 {
                    yield_now().await;
                }
                live.set(live.get() - 1);
                number
            }
        });
        assert!(gather_limit(8, jobs).await.into_iter().eq(0..200));
        assert_eq!((live.get(), most.get(), made.get()), (0, 8, 200));
    })
    .unwrap();
}

#[test]
fn a_limit_of_one_is_one_after_the_other() {
    run(async {
        let order = RefCell::new(Vec::new());
        let job = async |number: u32| {
            order.borrow_mut().push(number);
            yield_now().await;
            order.borrow_mut().push(number);
        };
        gather_limit(1, (0..4).map(job)).await;
        assert_eq!(*order.borrow(), [0, 0, 1, 1, 2, 2, 3, 3]);
    })
    .unwrap();
}

#[test]
#[should_panic(expected = "gather_limit needs room for at least one future")]
fn a_limit_of_zero_is_refused_in_words() {
    drop(gather_limit(0, [ready(1)]));
}

#[test]
fn a_late_wake_of_an_ended_future_does_not_disturb_its_successor() {
    run(async {
        let (first, second) = (Gate::default(), Gate::default());
        let late: RefCell<Option<Waker>> = RefCell::default();
        let jobs = [&first, &second].into_iter().map(async |gate| {
            poll_fn(|context| {
                late.borrow_mut().get_or_insert_with(|| context.waker().clone());
                Poll::Ready(())
            })
            .await;
            gate.clone().await;
        });
        let open = async {
            yield_now().await;
            first.open();
            yield_now().await;
            for _ in 0..3 {
                late.borrow().as_ref().unwrap().wake_by_ref();
                yield_now().await;
            }
            assert!(second.polls() > 0);
            second.open();
        };
        join!(gather_limit(1, jobs), open);
    })
    .unwrap();
}

// ---- try_gather ----

#[test]
fn the_first_error_drops_the_rest() {
    run(async {
        let drops = Drops::default();
        let job = |number: u32| {
            let stuck = drops.stuck::<Result<u32, u32>>();
            async move {
                match number {
                    0 | 1 => Ok(number),
                    5 => {
                        yield_now().await;
                        Err(number)
                    }
                    _ => stuck.await,
                }
            }
        };
        let mut all = try_gather((0..10).map(job));
        let outcome = (&mut all).await;
        assert_eq!(outcome, Err(5));
        assert_eq!(drops.0.get(), 10, "although the gather itself is still there");
        drop(all);
    })
    .unwrap();
}

#[test]
fn the_error_that_comes_first_counts_and_not_the_first_in_order() {
    run(async {
        let (slow, quick) = (Gate::default(), Gate::default());
        let fail = async |gate: &Gate, number: u32| {
            gate.clone().await;
            Err::<(), u32>(number)
        };
        let open = async {
            yield_now().await;
            quick.open();
            slow.open();
        };
        let all = try_gather([(&slow, 1), (&quick, 2)].map(|(gate, number)| fail(gate, number)));
        assert_eq!(join!(all, open).0, Err(2));
        assert_eq!(try_gather((1..9).map(async |number| Err::<(), _>(number))).await, Err(1));
    })
    .unwrap();
}

#[test]
fn after_an_error_no_more_futures_are_made() {
    run(async {
        let made = Cell::new(0);
        let jobs = (0..100_u32).map(|number| {
            made.set(made.get() + 1);
            ready(if number == 10 { Err("ten") } else { Ok(number) })
        });
        assert_eq!(try_gather_limit(4, jobs).await, Err("ten"));
        assert!(made.get() <= 14);
        let jobs = (0..100_u64).map(async |number| Ok::<u64, ()>(number));
        assert_eq!(try_gather_limit(4, jobs).await.map(|all| all.iter().sum()), Ok(4950_u64));
    })
    .unwrap();
}

// ---- join! and try_join! ----

#[test]
fn a_join_gives_its_outputs_in_order() {
    run(async {
        join!();
        assert_eq!(join!(ready(1)), (1,));
        assert_eq!(join!(ready(1), async { "two" }, sleep(Duration::ZERO),), (1, "two", ()));
        let many = join!(
            ready(1),
            ready(2),
            ready(3),
            ready(4),
            ready(5),
            ready(6),
            ready(7),
            ready(8),
            ready(9),
            ready(10),
            ready(11),
            ready(12)
        );
        assert_eq!((many.0, many.11), (1, 12));
    })
    .unwrap();
}

#[test]
fn a_joined_future_is_not_polled_or_kept_after_its_end() {
    run(async {
        let (first, second, drops) = (Gate::default(), Gate::default(), Drops::default());
        let held = drops.clone();
        let quick = async {
            let _held = held;
            first.clone().await;
        };
        let open = async {
            first.open();
            yield_now().await;
            yield_now().await;
            assert_eq!((first.polls(), drops.0.get()), (2, 1));
            second.open();
        };
        join!(quick, second.clone(), open);
        assert_eq!(first.polls(), 2);
    })
    .unwrap();
}

#[test]
fn a_join_borrows_and_keeps_what_is_written_in_it() {
    run(async {
        let mut count = 0;
        let text = String::from("abc");
        let (length, ()) = join!(
            async {
                yield_now().await;
                text.len()
            },
            async { count += 1 }
        );
        assert_eq!((length, count), (3, 1));
        async fn length_of(text: &str) -> usize {
            yield_now().await;
            text.len()
        }
        assert_eq!(join!(length_of(&String::from("ab")), length_of(&"c".repeat(3))), (2, 3));
    })
    .unwrap();
}

#[test]
fn joins_nest_and_use_question_marks() {
    async fn number(text: &str) -> Result<u32, std::num::ParseIntError> {
        let (number, ()) = join!(async { text.parse::<u32>() }, yield_now());
        number
    }
    async fn sum() -> Result<u32, std::num::ParseIntError> {
        let ((a, b), (c,)) = (try_join!(number("1"), number("2"))?, try_join!(number("3"))?);
        Ok(a + b + c)
    }
    assert_eq!(run(sum()).unwrap(), Ok(6));
}

#[test]
fn a_try_join_ends_with_the_first_error_and_drops_the_rest() {
    run(async {
        let drops = Drops::default();
        let outcome = try_join!(
            async { Ok::<_, &str>(1) },
            drops.stuck::<Result<(), &str>>(),
            async {
                yield_now().await;
                Err::<u8, _>("third")
            },
            drops.stuck::<Result<u8, &str>>(),
        );
        assert_eq!((outcome, drops.0.get()), (Err("third"), 2));
        let polls = Gate::default();
        let after = async {
            polls.clone().await;
            Ok::<(), u8>(())
        };
        assert_eq!(try_join!(ready(Err::<(), _>(1)), ready(Err::<(), _>(2)), after), Err(1));
        assert_eq!(polls.polls(), 0);
    })
    .unwrap();
}

// ---- call_soon ----

#[test]
fn callbacks_run_in_order_with_the_tasks() {
    run(async {
        let order = Rc::new(RefCell::new(Vec::new()));
        let push = |number: u32| {
            let order = order.clone();
            move || order.borrow_mut().push(number)
        };
        call_soon(push(1));
        let second = push(2);
        let task = quoit::spawn(async move { second() });
        call_soon(push(3));
        assert!(order.borrow().is_empty());
        task.await.unwrap();
        yield_now().await;
        assert_eq!(*order.borrow(), [1, 2, 3]);
    })
    .unwrap();
}

#[test]
fn a_callback_calls_soon_again_without_keeping_the_core() {
    fn again(count: Rc<Cell<u32>>) {
        count.set(count.get() + 1);
        call_soon(move || again(count));
    }
    run(async {
        let count = Rc::new(Cell::new(0));
        again(count.clone());
        sleep(Duration::from_millis(2)).await;
        assert!(count.get() > 2);
    })
    .unwrap();
}

#[test]
fn a_panic_in_a_callback_ends_nothing_else() {
    run(async {
        let called = Rc::new(Cell::new(false));
        let flag = called.clone();
        call_soon(|| panic!("on purpose"));
        call_soon(move || flag.set(true));
        yield_now().await;
        assert!(called.get());
    })
    .unwrap();
}

#[test]
fn a_callback_that_is_left_at_the_end_is_dropped_and_not_called() {
    fn again(held: Drops) {
        assert_eq!(held.0.get(), 0);
        call_soon(move || again(held));
    }
    let drops = Drops::default();
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async { again(drops.clone()) });
    assert_eq!(drops.0.get(), 0);
    drop(runtime);
    assert_eq!(drops.0.get(), 1);
}

#[test]
#[should_panic(expected = "outside of a runtime")]
fn a_callback_outside_of_a_runtime_is_refused_in_words() {
    call_soon(|| ());
}
