//! Time under test: it stands still while a task runs, and goes where it is told to.

use std::cell::RefCell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use quoit::net::{TcpListener, TcpStream};
use quoit::runtime::{Builder, Runtime, run};
use quoit::sim::{self, Faults};
use quoit::task::yield_now;
use quoit::time::{self, Instant, interval, sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);

fn paused() -> Runtime {
    Builder::new().paused().build().unwrap()
}

#[test]
fn sleeps_take_no_time_and_end_exactly_when_they_are_due() {
    let wall = std::time::Instant::now();
    paused().block_on(async {
        let start = Instant::now();
        for _ in 0..100 {
            yield_now().await;
            quoit::spawn(async {}).await.unwrap();
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        sleep(1000 * SECOND).await;
        assert_eq!(start.elapsed(), 1000 * SECOND);
        let mut ticks = interval(60 * SECOND);
        for tick in 0..10 {
            ticks.tick().await;
            assert_eq!(start.elapsed(), (1000 + 60 * tick) * SECOND);
        }
        assert!(timeout(3600 * SECOND, std::future::pending::<()>()).await.is_err());
        assert_eq!(start.elapsed(), (1540 + 3600) * SECOND);
    });
    assert!(wall.elapsed() < 60 * SECOND);
}

#[test]
fn an_advance_fires_what_is_due_in_its_order_and_nothing_else() {
    paused().block_on(async {
        let start = Instant::now();
        let order = Rc::new(RefCell::new(Vec::new()));
        let note = |what: &'static str, after: u32| {
            let order = order.clone();
            quoit::spawn(async move {
                sleep(after * SECOND).await;
                order.borrow_mut().push((what, start.elapsed()));
            })
        };
        let tasks = [note("third", 3), note("second", 2), note("sixth", 6)];
        let called = order.clone();
        quoit::call_later(4 * SECOND, move || called.borrow_mut().push(("call", start.elapsed())));
        yield_now().await;
        time::advance(5 * SECOND).await;
        assert_eq!(start.elapsed(), 5 * SECOND);
        let now = 5 * SECOND;
        // The callback is called, and the tasks are woken, in the order of their times.
        assert_eq!(*order.borrow(), [("call", now), ("second", now), ("third", now)]);
        assert!(tasks[0].is_finished() && tasks[1].is_finished() && !tasks[2].is_finished());
        time::advance(SECOND).await;
        assert_eq!(order.borrow().last(), Some(&("sixth", 6 * SECOND)));
    });
}

#[test]
fn an_advance_by_nothing_moves_nothing_and_one_that_is_dropped_does_not_either() {
    paused().block_on(async {
        let start = Instant::now();
        time::advance(Duration::ZERO).await;
        drop(time::advance(SECOND));
        assert_eq!(start.elapsed(), Duration::ZERO);
        time::advance(Duration::from_nanos(1)).await;
        assert_eq!(start.elapsed(), Duration::from_nanos(1));
    });
}

#[test]
fn connections_work_while_the_clock_is_paused() {
    paused().block_on(async {
        let start = Instant::now();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = quoit::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            // It keeps its client waiting for longer than that waits.
            sleep(10 * SECOND).await;
            stream.write_all("late").await.unwrap();
        });
        let client = TcpStream::connect(address).await.unwrap();
        assert!(timeout(5 * SECOND, client.recv()).await.is_err());
        assert!((5 * SECOND..6 * SECOND).contains(&start.elapsed()), "{:?}", start.elapsed());
        assert_eq!(&*client.recv().await.unwrap().unwrap(), b"late");
        server.await.unwrap();
    });
}

#[test]
fn the_clock_of_a_simulation_can_be_moved_as_well() {
    let driver = |_| Ok(sim::driver(7, Faults::default()));
    Builder::new()
        .driver_with(driver)
        .run(async {
            let start = Instant::now();
            time::advance(60 * SECOND).await;
            assert!((60 * SECOND..61 * SECOND).contains(&start.elapsed()));
        })
        .unwrap();
}

#[test]
fn the_machine_s_clock_cannot_be_moved() {
    run(async {
        let moved = quoit::spawn(time::advance(SECOND)).await.unwrap_err();
        let text = moved.to_string();
        assert!(text.contains("tests/it/paused.rs") && text.contains("Builder::paused"), "{text}");
    })
    .unwrap();
}

#[test]
fn time_is_not_moved_outside_of_a_runtime() {
    let outside = catch_unwind(AssertUnwindSafe(|| {
        let mut future = std::pin::pin!(time::advance(SECOND));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let _ = future.as_mut().poll(&mut context);
    }));
    let text = outside.unwrap_err().downcast::<String>().unwrap();
    assert!(text.contains("outside of a runtime"), "{text}");
}
