//! `task::scope`: tasks end before their scope does, by whatever way it ends.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{Future, pending, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use quoit::runtime::run;
use quoit::select;
use quoit::task::{JoinError, Scope, scope, yield_now};
use quoit::time::{Instant, sleep, sleep_until, timeout};

use crate::loopback::{isolated, ledger, pair_of_ours};
use crate::quarantine::{QuarantineBuf, violations};
use crate::support::{Watch, on_every_driver, patient, scaled};
use crate::support_alloc::allocations;

/// Counts how many of its clones are there.
#[derive(Clone, Default)]
struct Alive(Rc<()>);

impl Alive {
    fn count(&self) -> usize {
        Rc::strong_count(&self.0) - 1
    }

    /// A task that never ends.
    fn stuck<T>(&self) -> impl Future<Output = T> + use<T> {
        let held = self.clone();
        async move {
            let _held = held;
            pending().await
        }
    }
}

#[test]
fn a_scope_ends_when_its_body_and_all_its_tasks_have() {
    on_every_driver(async || {
        let ended = Rc::new(RefCell::new(Vec::new()));
        let start = Instant::now();
        let value = scope(async |scope| {
            for number in [3, 1, 2] {
                let ended = ended.clone();
                scope.spawn(async move {
                    sleep_until(start + patient(Duration::from_millis(5)) * number).await;
                    ended.borrow_mut().push(number);
                    Ok::<(), Infallible>(())
                });
            }
            assert_eq!(scope.len(), 3);
            Ok("body")
        });
        assert_eq!(value.await, Ok("body"));
        assert_eq!(*ended.borrow(), [1, 2, 3]);
    });
}

#[test]
fn a_scope_without_tasks_is_its_body() {
    run(async {
        assert_eq!(scope(async |_| Ok::<_, ()>(1)).await, Ok(1));
        assert_eq!(scope(async |_| Err::<(), _>(2)).await, Err(2));
    })
    .unwrap();
}

#[test]
fn a_body_borrows_and_its_handles_give_values() {
    run(async {
        let text = String::from("ab");
        let outcome: Result<usize, JoinError> = scope(async |scope| {
            let one = scope.spawn(async { Ok(1) });
            let two = scope.spawn(async {
                yield_now().await;
                Ok(2)
            });
            Ok(one.await? + two.await? + text.len())
        })
        .await;
        assert_eq!(outcome.unwrap(), 5);
    })
    .unwrap();
}

#[test]
fn the_first_error_ends_the_rest_before_the_scope_returns() {
    on_every_driver(async || {
        let alive = Alive::default();
        let outcome = scope(async |scope| {
            for _ in 0..5 {
                scope.spawn(alive.stuck::<Result<(), &str>>());
            }
            scope.spawn(async {
                sleep(Duration::from_millis(1)).await;
                Err::<(), _>("first")
            });
            scope.spawn(async {
                sleep(Duration::from_millis(200)).await;
                Err::<(), _>("second")
            });
            alive.stuck::<Result<(), &str>>().await
        });
        assert_eq!(outcome.await, Err("first"));
        assert_eq!(alive.count(), 0);
    });
}

#[test]
fn an_error_of_the_body_ends_the_tasks() {
    run(async {
        let alive = Alive::default();
        let outcome = scope(async |scope| {
            scope.spawn(alive.stuck::<Result<(), u32>>());
            yield_now().await;
            assert_eq!(alive.count(), 1);
            Err::<(), _>(7)
        });
        assert_eq!((outcome.await, alive.count()), (Err(7), 0));
    })
    .unwrap();
}

#[test]
fn of_several_errors_the_one_that_comes_first_counts() {
    run(async {
        let outcome = scope(async |scope| {
            for number in 0..3 {
                scope.spawn(async move { Err::<(), u32>(number) });
            }
            Ok(())
        });
        assert_eq!(outcome.await, Err(0));
    })
    .unwrap();
}

#[test]
fn a_task_that_has_failed_is_polled_no_more_though_it_was_woken() {
    run(async {
        let polls = Rc::new(Cell::new(0));
        let count = Rc::clone(&polls);
        let outcome = scope(async |scope| {
            scope.spawn(poll_fn(move |context| {
                count.set(count.get() + 1);
                context.waker().wake_by_ref();
                Poll::Ready(Err::<(), _>("failed"))
            }));
            Ok(())
        });
        assert_eq!((outcome.await, polls.get()), (Err("failed"), 1));
    })
    .unwrap();
}

#[test]
fn a_panic_of_a_task_is_that_of_the_scope_and_ends_the_rest() {
    run(async {
        let alive = Alive::default();
        let task = quoit::spawn({
            let alive = alive.clone();
            async move {
                scope(async |scope| {
                    scope.spawn(alive.stuck::<Result<(), ()>>());
                    scope.spawn(async {
                        yield_now().await;
                        if true {
                            panic!("on purpose")
                        }
                        Ok(())
                    });
                    Ok(())
                })
                .await
            }
        });
        let error = task.await.unwrap_err();
        assert!(error.is_panic() && error.to_string().contains("on purpose"));
        assert_eq!(alive.count(), 0);
    })
    .unwrap();
}

#[test]
fn a_panic_of_the_body_ends_the_tasks() {
    run(async {
        let alive = Alive::default();
        let task = quoit::spawn({
            let alive = alive.clone();
            async move {
                scope(async |scope: Scope<()>| {
                    scope.spawn(alive.stuck::<Result<(), ()>>());
                    yield_now().await;
                    if true {
                        panic!("on purpose")
                    }
                    Ok(())
                })
                .await
            }
        });
        assert!(task.await.unwrap_err().is_panic());
        assert_eq!(alive.count(), 0);
    })
    .unwrap();
}

#[test]
fn dropping_a_scope_at_any_point_drops_its_tasks_at_once() {
    run(async {
        for polls in 0..6 {
            let alive = Alive::default();
            let held = alive.clone();
            let mut whole = Box::pin(scope(async move |scope| {
                let held = held;
                scope.spawn(held.stuck::<Result<(), ()>>());
                yield_now().await;
                scope.spawn(held.stuck::<Result<(), ()>>());
                yield_now().await;
                drop(held);
                Ok(())
            }));
            for _ in 0..polls {
                poll_fn(|context| Poll::Ready(whole.as_mut().poll(context).is_pending())).await;
                yield_now().await;
            }
            assert!(alive.count() > 0);
            drop(whole);
            assert_eq!(alive.count(), 0, "after {polls} polls");
        }
    })
    .unwrap();
}

#[test]
fn scopes_nest_and_what_ends_the_outer_one_ends_the_inner_one_first() {
    run(async {
        let alive = Alive::default();
        let nested = async |fails: bool| {
            scope(async |outer| {
                let held = alive.clone();
                outer.spawn(async move {
                    scope(async |inner| {
                        for _ in 0..3 {
                            let held = held.clone();
                            inner.spawn(async move {
                                scope(async |innermost| {
                                    innermost.spawn(held.stuck::<Result<(), u32>>());
                                    held.stuck::<Result<(), u32>>().await
                                })
                                .await
                            });
                        }
                        pending::<Result<(), u32>>().await
                    })
                    .await
                });
                for _ in 0..4 {
                    yield_now().await;
                }
                assert!(alive.count() >= 6);
                if fails { Err(1) } else { pending::<Result<(), u32>>().await }
            })
            .await
        };
        assert_eq!(nested(true).await, Err(1));
        assert_eq!(alive.count(), 0);
        let late =
            select! { _ = nested(false) => false, _ = sleep(Duration::from_millis(1)) => true };
        assert!(late && alive.count() == 0);
    })
    .unwrap();
}

#[test]
fn a_task_starts_others_in_its_scope() {
    fn grow(scope: &Scope<()>, depth: u32, count: Rc<Cell<u32>>) {
        let inner = scope.clone();
        scope.spawn(async move {
            count.set(count.get() + 1);
            if depth > 0 {
                yield_now().await;
                grow(&inner, depth - 1, count.clone());
                grow(&inner, depth - 1, count);
            }
            Ok(())
        });
    }
    run(async {
        let count = Rc::new(Cell::new(0));
        let outcome = scope(async |scope| {
            grow(&scope, 7, count.clone());
            Ok(())
        });
        assert_eq!((outcome.await, count.get()), (Ok(()), 255));
    })
    .unwrap();
}

#[test]
fn a_scope_that_has_ended_takes_no_tasks() {
    run(async {
        let kept = scope(async |scope| Ok::<_, ()>(scope)).await.unwrap();
        let spawned = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            drop(kept.spawn(async { Ok(()) }));
        }));
        assert!(spawned.is_err() && kept.is_empty());
    })
    .unwrap();
}

#[test]
fn a_scope_that_is_leaked_lets_its_tasks_run_on() {
    run(async {
        let count = Rc::new(Cell::new(0));
        let counted = count.clone();
        let mut whole = Box::pin(scope(async move |scope| {
            scope.spawn(async move {
                for _ in 0..5 {
                    counted.set(counted.get() + 1);
                    yield_now().await;
                }
                Err::<(), u32>(1)
            });
            pending::<Result<(), u32>>().await
        }));
        let polled = whole.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
        crate::support::forget(whole);
        for _ in 0..8 {
            yield_now().await;
        }
        assert_eq!(count.get(), 5);
    })
    .unwrap();
}

#[test]
fn one_task_of_a_scope_is_aborted_alone() {
    run(async {
        let outcome = scope(async |scope| {
            let one = scope.spawn(pending::<Result<(), u32>>());
            let two = scope.spawn(async {
                yield_now().await;
                Ok(2)
            });
            one.abort();
            assert!(one.await.unwrap_err().is_cancelled());
            Ok(two.await.unwrap())
        });
        assert_eq!(outcome.await, Ok(2));
    })
    .unwrap();
}

type Whole = Pin<Box<dyn Future<Output = Result<(), ()>>>>;

#[test]
fn a_task_that_drops_its_own_scope_ends_at_its_next_turn() {
    run(async {
        let alive = Alive::default();
        let place: Rc<RefCell<Option<Whole>>> = Rc::default();
        let (own, held) = (place.clone(), alive.clone());
        let whole = scope(async move |scope| {
            let other = held.clone();
            scope.spawn(async move {
                let _held = held;
                yield_now().await;
                drop(own.borrow_mut().take());
                pending::<Result<(), ()>>().await
            });
            scope.spawn(other.stuck::<Result<(), ()>>());
            Ok(())
        });
        *place.borrow_mut() = Some(Box::pin(whole));
        let polled = poll_fn(|context| {
            let mut whole = place.borrow_mut().take().unwrap();
            let polled = whole.as_mut().poll(context);
            *place.borrow_mut() = Some(whole);
            Poll::Ready(polled)
        });
        assert!(polled.await.is_pending());
        for _ in 0..4 {
            yield_now().await;
        }
        assert!(place.borrow().is_none() && alive.count() == 0);
    })
    .unwrap();
}

#[test]
fn a_destructor_that_uses_its_scope_while_that_ends_disturbs_nobody() {
    struct Respawns(Scope<u32>, Rc<Cell<u32>>);
    impl Drop for Respawns {
        fn drop(&mut self) {
            if self.1.get() > 0 {
                self.1.set(self.1.get() - 1);
                let next = Respawns(self.0.clone(), self.1.clone());
                drop(self.0.spawn(async move {
                    let _next = next;
                    pending::<Result<(), u32>>().await
                }));
            }
        }
    }
    run(async {
        let left = Rc::new(Cell::new(3));
        let outcome = scope(async |scope| {
            let first = Respawns(scope.clone(), left.clone());
            scope.spawn(async move {
                let _first = first;
                pending::<Result<(), u32>>().await
            });
            scope.spawn(async { Err::<(), u32>(4) });
            Ok(())
        });
        // The last one that is dropped was never polled, and nothing is left.
        assert_eq!((outcome.await, left.get()), (Err(4), 0));
        yield_now().await;
        assert_eq!(Rc::strong_count(&left), 1);
    })
    .unwrap();
}

#[test]
fn a_task_of_a_scope_costs_one_allocation() {
    run(async {
        let once = async || {
            let before = allocations();
            let outcome = scope(async |scope| {
                for _ in 0..64 {
                    scope.spawn(async { Ok::<(), ()>(()) });
                }
                Ok(())
            });
            outcome.await.unwrap();
            allocations() - before
        };
        once().await;
        // The scope itself has one, and its table grows from 4 to 64 places.
        let count = once().await;
        assert!(count <= 64 + 1 + 6, "{count} for 64 tasks");
    })
    .unwrap();
}

#[test]
fn what_a_scope_had_in_flight_is_given_back() {
    on_every_driver(async || {
        let (server, client) = pair_of_ours().await;
        let (server, client) = (Rc::new(server), Rc::new(client));
        let reads = scope(async |scope| {
            for _ in 0..3 {
                let server = server.clone();
                scope.spawn(async move {
                    server.read(QuarantineBuf::new(100)).await?;
                    io::Result::Ok(())
                });
            }
            sleep(Duration::from_millis(1)).await;
            Err::<(), io::Error>(io::ErrorKind::Other.into())
        });
        assert!(reads.await.is_err());
        client.write_all(b"here".as_slice()).await.unwrap();
        let (count, buf) = server.read(vec![0; 9]).await.unwrap();
        assert_eq!(&buf[..count], b"here");
    });
    assert_eq!(violations(), 0);
}

#[test]
fn a_scope_of_very_many_tasks_ends_as_fast_as_it_began() {
    // To look for each from the beginning would take minutes.
    let watch = Watch::over("at the end of a large scope");
    run(async {
        let alive = Alive::default();
        let whole = scope(async |scope: Scope<()>| {
            (0..scaled(200_000)).for_each(|_| drop(scope.spawn(alive.stuck::<Result<(), ()>>())));
            Err::<(), ()>(())
        });
        assert!(whole.await.is_err());
        assert_eq!(alive.count(), 0);
    })
    .unwrap();
    watch.ends();
}

#[test]
fn scopes_leave_the_books_in_order() {
    isolated(|| {
        ledger(async || {
            for round in 0..50 {
                let (server, client) = pair_of_ours().await;
                let work = scope(async |scope| {
                    let echo = scope.spawn(async move {
                        while let Some(bytes) = server.recv().await? {
                            server.write_all(bytes).await?;
                        }
                        io::Result::Ok(())
                    });
                    client.write_all(b"ping".as_slice()).await?;
                    let pong = client.read_exact([0; 4]).await?;
                    if round % 2 == 0 {
                        drop(client);
                        echo.await?;
                    }
                    if round % 3 == 0 { Err(io::ErrorKind::Other.into()) } else { Ok(pong) }
                });
                let work = pin!(work);
                let limit = Duration::from_millis(if round % 2 == 0 { 1000 } else { 1 });
                let _ = timeout(limit, work).await;
            }
        });
    });
}
