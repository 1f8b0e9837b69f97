//! `JoinSet`, `AbortHandle` and `AbortOnDrop`: outcomes as they come, and tasks that end with their owner.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use quoit::runtime::run;
use quoit::select;
use quoit::task::{AbortOnDrop, JoinSet, yield_now};
use quoit::time::{Instant, sleep, sleep_until};

use crate::loopback::{isolated, ledger, listen};
use crate::support::on_every_driver;
use crate::support_alloc::allocations;

/// Counts the drops of its clones.
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

#[test]
fn outcomes_come_in_the_order_of_the_ends() {
    on_every_driver(async || {
        let (mut set, start) = (JoinSet::new(), Instant::now());
        for number in [30_u64, 10, 20] {
            set.spawn(async move {
                sleep_until(start + Duration::from_millis(number)).await;
                number
            });
        }
        let mut outcomes = Vec::new();
        while let Some(outcome) = set.join_next().await {
            outcomes.push(outcome.unwrap());
        }
        assert_eq!(outcomes, [10, 20, 30]);
        assert!(set.is_empty() && set.join_next().await.is_none());
    });
}

#[test]
fn a_thousand_outcomes_are_each_taken_once_and_memory_is_used_again() {
    run(async {
        let mut set = JoinSet::new();
        let mut seen = vec![0; 1000];
        for number in 0..1000_usize {
            set.spawn(async move {
                for _ in 0..number * 7 % 5 {
                    yield_now().await;
                }
                number
            });
            // Some are taken at once, some later, some without a wait.
            if number % 3 == 0 {
                let outcome = set.join_next().await;
                seen[outcome.unwrap().unwrap()] += 1;
            } else if let Some(outcome) = set.try_join_next() {
                seen[outcome.unwrap()] += 1;
            }
        }
        for number in set.join_all().await {
            seen[number] += 1;
        }
        assert!(seen.iter().all(|count| *count == 1));
    })
    .unwrap();
}

#[test]
fn a_steady_set_allocates_once_a_spawn_and_nothing_else() {
    run(async {
        let mut set = JoinSet::new();
        let mut round = async || {
            for _ in 0..100 {
                for number in 0..8 {
                    set.spawn(async move { number });
                }
                while set.join_next().await.is_some() {}
            }
        };
        round().await;
        let before = allocations();
        round().await;
        assert!(allocations() - before <= 800, "{} in 800 spawns", allocations() - before);
    })
    .unwrap();
}

#[test]
fn a_join_next_that_loses_its_race_loses_no_outcome() {
    run(async {
        let mut set: JoinSet<u32> = (0..50)
            .map(|number| async move {
                sleep(Duration::from_micros(u64::from(number) * 40)).await;
                number
            })
            .collect();
        let (mut sum, mut lost) = (0, 0);
        while !set.is_empty() {
            select! {
                Some(outcome) = set.join_next() => sum += outcome.unwrap(),
                _ = yield_now() => lost += 1,
            }
        }
        assert_eq!(sum, (0..50).sum());
        assert!(lost > 0);
    })
    .unwrap();
}

#[test]
fn a_panic_is_the_outcome_of_its_task_alone() {
    run(async {
        let mut set = JoinSet::new();
        set.spawn(async { panic!("on purpose") });
        set.spawn(async {
            yield_now().await;
            1
        });
        assert!(set.join_next().await.unwrap().unwrap_err().is_panic());
        assert_eq!(set.join_next().await.unwrap().unwrap(), 1);
    })
    .unwrap();
}

#[test]
fn a_task_that_could_not_be_started_leaves_nothing_in_the_set() {
    let mut set = JoinSet::new();
    let refused = catch_unwind(AssertUnwindSafe(|| set.spawn(pending::<i32>())));
    assert!(refused.is_err(), "there is no runtime here");
    assert_eq!(set.len(), 0);
    run(async move {
        set.spawn(pending());
        set.spawn(async { 1 });
        yield_now().await;
        assert_eq!(set.try_join_next().expect("it has ended").unwrap(), 1);
        assert!(set.try_join_next().is_none());
    })
    .unwrap();
}

#[test]
fn dropping_a_set_aborts_its_tasks() {
    run(async {
        let drops = Drops::default();
        let mut set = JoinSet::new();
        for _ in 0..5 {
            set.spawn(drops.stuck::<()>());
        }
        yield_now().await;
        drop(set);
        yield_now().await;
        assert_eq!(drops.0.get(), 5);
    })
    .unwrap();
}

#[test]
fn a_shutdown_waits_until_all_futures_are_gone() {
    run(async {
        let drops = Drops::default();
        let mut set = JoinSet::new();
        for _ in 0..5 {
            set.spawn(drops.stuck::<()>());
        }
        set.spawn(async {});
        set.shutdown().await;
        assert_eq!((drops.0.get(), set.len()), (5, 0));
        // It may be used again.
        set.spawn(async {});
        assert!(set.join_next().await.unwrap().is_ok());
    })
    .unwrap();
}

#[test]
fn detached_tasks_run_on_and_disturb_nobody_who_comes_after_them() {
    run(async {
        let ended = Rc::new(Cell::new(0));
        let mut set = JoinSet::new();
        for _ in 0..3 {
            let ended = ended.clone();
            set.spawn(async move {
                yield_now().await;
                ended.set(ended.get() + 1);
            });
        }
        set.detach_all();
        assert_eq!(set.len(), 0);
        set.spawn(async {
            for _ in 0..5 {
                yield_now().await;
            }
        });
        assert!(set.join_next().await.unwrap().is_ok());
        assert!(ended.get() == 3 && set.is_empty());
        // Nor do their names stand in the way of others.
        set.spawn(async { yield_now().await });
        set.detach_all();
        set.spawn(pending());
        set.spawn(async {});
        yield_now().await;
        yield_now().await;
        assert!(set.try_join_next().is_some_and(|outcome| outcome.is_ok()));
    })
    .unwrap();
}

#[test]
fn the_end_of_a_detached_task_is_not_taken_for_that_of_whoever_has_its_place() {
    run(async {
        let mut set = JoinSet::new();
        set.spawn(async {});
        set.detach_all();
        set.spawn(pending());
        set.spawn(async {});
        yield_now().await;
        assert!(set.try_join_next().is_some_and(|outcome| outcome.is_ok()));
        assert_eq!(set.len(), 1);
    })
    .unwrap();
}

thread_local! {
    static ASKED: RefCell<Option<JoinSet<u32>>> = const { RefCell::new(None) };
    static ANSWERS: Cell<(u32, u32)> = const { Cell::new((0, 0)) };
}

/// Asks the set at once when it is woken, and counts the outcomes that are there, and not.
struct Asks;

impl Wake for Asks {
    fn wake(self: Arc<Self>) {
        let outcome = ASKED.with_borrow_mut(|set| set.as_mut().unwrap().try_join_next());
        let (some, none) = ANSWERS.get();
        ANSWERS.set(if outcome.is_some() { (some + 1, none) } else { (some, none + 1) });
    }
}

#[test]
fn an_outcome_that_is_asked_for_before_the_task_has_quite_ended_comes_later() {
    run(async {
        let mut set = JoinSet::new();
        set.spawn(async { 7 });
        let waker = Waker::from(Arc::new(Asks));
        assert!(set.poll_join_next(&mut Context::from_waker(&waker)).is_pending());
        ASKED.set(Some(set));
        yield_now().await;
        assert_eq!(ANSWERS.get(), (0, 1));
        let mut set = ASKED.take().unwrap();
        assert_eq!(set.try_join_next().unwrap().unwrap(), 7);
        assert!(set.is_empty());
    })
    .unwrap();
}

#[test]
fn a_task_that_aborts_itself_or_another_is_cancelled() {
    run(async {
        let mut set = JoinSet::new();
        let first = set.spawn(pending::<u32>());
        let own = Rc::new(RefCell::new(None));
        let handle = set.spawn({
            let own = own.clone();
            async move {
                let abort: quoit::task::AbortHandle = own.borrow_mut().take().unwrap();
                abort.abort();
                abort.abort();
                assert!(!abort.is_finished());
                first.abort();
                yield_now().await;
                unreachable!("it was aborted")
            }
        });
        *own.borrow_mut() = Some(handle.clone());
        for _ in 0..2 {
            assert!(set.join_next().await.unwrap().unwrap_err().is_cancelled());
        }
        assert!(handle.is_finished());
        // Nobody is harmed by an abort that comes late.
        handle.abort();
    })
    .unwrap();
}

#[test]
fn an_abort_handle_works_from_another_thread() {
    run(async {
        let task = quoit::spawn(pending::<()>());
        let abort = task.abort_handle();
        let other = thread::spawn(move || abort.abort());
        assert!(task.await.unwrap_err().is_cancelled());
        other.join().unwrap();
    })
    .unwrap();
}

#[test]
#[should_panic(expected = "a task of a JoinSet has no output: the task was aborted")]
fn join_all_panics_when_a_task_has_no_output() {
    run(async {
        let mut set = JoinSet::new();
        set.spawn(pending::<()>());
        set.abort_all();
        set.join_all().await
    })
    .unwrap();
}

#[test]
fn a_deadline_aborts_what_has_not_ended_by_then() {
    on_every_driver(async || {
        let drops = Drops::default();
        let fill = || {
            let mut set = JoinSet::new();
            set.spawn(async { Some(1) });
            set.spawn(drops.stuck::<Option<u32>>());
            set
        };
        // Soon, in the past, and now.
        let now = Instant::now();
        let deadlines = [now + Duration::from_millis(3), now - Duration::from_secs(1), now];
        for (round, deadline) in deadlines.into_iter().enumerate() {
            let outcomes = fill().join_all_by(deadline).await;
            assert_eq!(drops.0.get(), round as u32 + 1);
            assert_eq!(outcomes.len(), 2);
            let cancelled = outcomes.iter().filter(|outcome| outcome.is_err()).count();
            assert!((1..=2).contains(&cancelled));
        }
        for never in [None, Some(now + Duration::MAX)] {
            let mut set = JoinSet::new();
            set.spawn(sleep(Duration::from_millis(2)));
            assert!(set.join_all_by(never).await[0].is_ok());
        }
    });
}

#[test]
fn dropping_a_join_all_aborts_the_tasks_that_are_left() {
    run(async {
        let drops = Drops::default();
        let mut set = JoinSet::new();
        set.spawn(drops.stuck::<()>());
        let all = set.join_all_by(None);
        assert!(pin!(quoit::time::timeout(Duration::ZERO, all)).await.is_err());
        yield_now().await;
        assert_eq!(drops.0.get(), 1);
    })
    .unwrap();
}

#[test]
fn an_outcome_wakes_whoever_polled_last() {
    run(async {
        let mut set = JoinSet::new();
        set.spawn(async { yield_now().await });
        assert!(set.poll_join_next(&mut Context::from_waker(Waker::noop())).is_pending());
        assert!(poll_fn(|context| set.poll_join_next(context)).await.unwrap().is_ok());
    })
    .unwrap();
}

#[test]
fn a_task_ends_with_its_abort_on_drop() {
    run(async {
        let drops = Drops::default();
        drop(AbortOnDrop::new(quoit::spawn(drops.stuck::<()>())));
        yield_now().await;
        assert_eq!(drops.0.get(), 1);
        assert_eq!(AbortOnDrop::from(quoit::spawn(async { 5 })).await.unwrap(), 5);
        let kept = AbortOnDrop::new(quoit::spawn(async {
            yield_now().await;
            6
        }));
        assert_eq!(kept.detach().await.unwrap(), 6);
        let ended = AbortOnDrop::new(quoit::spawn(drops.stuck::<()>()));
        ended.abort();
        assert!(!ended.is_finished());
        assert!(ended.await.unwrap_err().is_cancelled());
    })
    .unwrap();
}

#[test]
fn a_set_of_connections_that_is_dropped_leaves_nothing() {
    isolated(|| {
        ledger(async || {
            let (listener, address) = listen().await;
            let mut set = JoinSet::new();
            for _ in 0..20 {
                let client = quoit::net::TcpStream::connect(address).await.unwrap();
                let (server, _) = listener.accept().await.unwrap();
                set.spawn(async move { server.recv().await.map(drop) });
                set.spawn(
                    async move { client.read(vec![0; 100]).await.map(drop).map_err(Into::into) },
                );
            }
            yield_now().await;
            let poll = poll_fn(|context| Poll::Ready(set.poll_join_next(context))).await;
            assert!(poll.is_pending());
            drop(set);
        });
    });
}
