//! How a core waits: for several answers, or watching before it sleeps.

use std::future::poll_fn;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use quoit::driver::Waiting;
use quoit::net::{TcpListener, TcpStream};
use quoit::runtime::{Builder, Runtime, Stats, stats};
use quoit::task::{gather, spawn};
use quoit::time::sleep;

use crate::support::{isolated, on_io_uring, patient, scaled};

const MS: Duration = Duration::from_millis(1);

/// A core whose every sleep waits for several answers.
fn that_waits() -> Builder {
    on_io_uring().waiting(Waiting::Always)
}

/// Whether this kernel can wait for several answers.
fn can_wait() -> bool {
    let caps = quoit::driver::caps().unwrap();
    caps.iter().any(|cap| cap.name == "min-wait" && cap.present)
}

/// A few connections over which messages go there and back.
async fn echo(connections: usize, rounds: usize) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = spawn(async move {
        for _ in 0..connections {
            let (stream, _) = listener.accept().await.unwrap();
            spawn(async move {
                while let Some(chunk) = stream.recv().await.unwrap() {
                    stream.write_all(chunk).await.unwrap();
                }
            });
        }
    });
    gather((0..connections).map(|_| async {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut buf = vec![7; 64];
        for _ in 0..rounds {
            buf = stream.write_all(buf).await.unwrap();
            assert_eq!(stream.recv().await.unwrap().unwrap().len(), 64);
        }
    }))
    .await;
    server.await.unwrap();
}

fn cpu_of_this_thread() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a place for the answer.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Has another thread call the core so often, each time after the last; how long the longest took.
fn called_in_turn(runtime: &Runtime, times: usize) -> Duration {
    let handle = runtime.handle();
    let (woken, wakes) = mpsc::channel::<Waker>();
    let caller = thread::spawn(move || {
        let waker = wakes.recv().unwrap();
        let mut longest = Duration::ZERO;
        for _ in 0..times {
            let (called, hears) = mpsc::channel();
            let start = Instant::now();
            handle.call_soon(move || called.send(()).unwrap()).unwrap();
            hears.recv_timeout(patient(Duration::from_secs(20))).expect("the call is lost");
            longest = longest.max(start.elapsed());
            // The core is to wait again; what it does while it is awake is no matter here.
            thread::sleep(Duration::from_micros(100));
        }
        waker.wake();
        longest
    });
    let mut polls = 0;
    runtime.block_on(poll_fn(|context| {
        polls += 1;
        if polls == 2 {
            return Poll::Ready(());
        }
        woken.send(context.waker().clone()).unwrap();
        Poll::Pending
    }));
    caller.join().unwrap()
}

// ---- Several answers ----

#[test]
fn an_idle_core_that_waits_for_several_answers_sleeps_through() {
    let runtime = that_waits().build().unwrap();
    runtime.block_on(async {
        sleep(MS).await;
        let before = stats();
        // Longer than any wait for several: were it not for the deadline far away, the kernel would
        // end the sleep after that, empty-handed.
        sleep(20 * MS).await;
        let after = stats();
        assert_eq!(after.fruitless_laps, 0);
        assert!(after.enters - before.enters <= 4, "{} laps", after.enters - before.enters);
    });
}

#[test]
fn a_timer_ends_a_sleep_that_waits_for_several_answers() {
    for builder in [that_waits(), that_waits().deadline_in_wait(true)] {
        let late = builder.run(async {
            let mut late = Vec::new();
            for us in (10..400).step_by(7).map(Duration::from_micros) {
                let start = Instant::now();
                sleep(us).await;
                late.push(start.elapsed().checked_sub(us).expect("a timer fired early"));
            }
            late.sort();
            late
        });
        // Half of them: what the scheduler adds to a single one has no bound.
        let late = late.unwrap();
        assert!(late[late.len() / 2] < patient(5 * MS), "{:?}", late[late.len() / 2]);
    }
}

#[test]
fn a_call_from_another_thread_is_served_by_a_core_that_waits_for_several_answers() {
    let runtime = that_waits().build().unwrap();
    let times = scaled(200);
    let before = runtime.stats();
    let longest = called_in_turn(&runtime, times);
    assert!(longest < patient(Duration::from_secs(1)), "{longest:?}");
    // Each call is one sleep's end and no more: a wait for several is one enter however it ends.
    let laps = runtime.stats().enters - before.enters;
    assert!(laps <= 3 * times as u64 + 10, "{laps} laps for {times} calls");
    assert_eq!(runtime.stats().fruitless_laps, 0);
}

#[test]
fn what_waits_for_several_answers_is_answered_and_counted() {
    let mut runtime = that_waits().build().unwrap();
    runtime.block_on(echo(8, scaled(50)));
    let counted = runtime.stats().coalesced_sleeps;
    assert_eq!(counted > 0, can_wait(), "{counted} sleeps waited");
    assert_eq!(runtime.shutdown(patient(Duration::from_secs(10))), 0);
}

#[test]
fn a_kernel_that_cannot_wait_for_several_answers_does_as_always() {
    for waiting in [Waiting::Balanced, Waiting::Throughput, Waiting::Always] {
        let runtime = on_io_uring().caps("no-min-wait").waiting(waiting).build().unwrap();
        runtime.block_on(echo(8, scaled(50)));
        let Stats { coalesced_sleeps, windows_on, windows_off, .. } = runtime.stats();
        assert_eq!([coalesced_sleeps, windows_on, windows_off], [0; 3], "{waiting:?}");
    }
}

#[test]
fn a_core_that_may_wait_for_several_answers_tells_its_windows() {
    if !can_wait() {
        return;
    }
    let runtime = on_io_uring().waiting(Waiting::Throughput).build().unwrap();
    let start = Instant::now();
    while runtime.stats().windows_off == 0 {
        runtime.block_on(echo(8, scaled(200)));
        assert!(start.elapsed() < patient(Duration::from_secs(20)), "{:#?}", runtime.stats());
    }
    let latency = on_io_uring().waiting(Waiting::Latency).build().unwrap();
    latency.block_on(echo(8, scaled(50)));
    let Stats { coalesced_sleeps, windows_on, windows_off, .. } = latency.stats();
    assert_eq!([coalesced_sleeps, windows_on, windows_off], [0; 3]);
}

#[test]
fn the_environment_says_how_to_wait_unless_the_program_does() {
    isolated(|| {
        // SAFETY: this process has no other thread yet that reads the environment.
        unsafe { std::env::set_var("QUOIT_WAITING", "always") };
        let coalesced = |builder: Builder| {
            let runtime = builder.build().unwrap();
            runtime.block_on(echo(2, 20));
            runtime.stats().coalesced_sleeps > 0
        };
        assert_eq!(coalesced(on_io_uring()), can_wait());
        assert!(!coalesced(on_io_uring().waiting(Waiting::Latency)));
        // SAFETY: as above.
        unsafe { std::env::set_var("QUOIT_WAITING", "for-godot") };
        let error = on_io_uring().build().map(drop).unwrap_err().to_string();
        assert!(error.contains("reading QUOIT_WAITING: `for-godot` is no way"), "{error}");
    });
}

// ---- Watching ----

/// A core that watches for as long as it may.
fn that_spins() -> Runtime {
    on_io_uring().spin(Duration::from_secs(1)).build().unwrap()
}

#[test]
fn a_core_that_watches_is_reached_without_a_sleep() {
    let runtime = that_spins();
    let longest = called_in_turn(&runtime, scaled(200));
    let Stats { spins, spins_won, fruitless_laps, .. } = runtime.stats();
    assert!(longest < patient(Duration::from_secs(5)), "{longest:?}");
    assert!(spins > 50 && spins_won > spins / 2, "{spins_won} of {spins}");
    assert_eq!(fruitless_laps, 0);
}

#[test]
fn an_idle_core_that_may_watch_sleeps() {
    let runtime = on_io_uring().spin(MS).build().unwrap();
    // A moment in which all comes at once, so that it watches.
    runtime.block_on(echo(4, 200));
    runtime.block_on(async {
        // Twice the longest watching, in which it finds out.
        for _ in 0..20 {
            sleep(10 * MS).await;
        }
        let (cpu, before) = (cpu_of_this_thread(), stats().spins);
        for _ in 0..10 {
            sleep(10 * MS).await;
        }
        let (cpu, spins) = (cpu_of_this_thread() - cpu, stats().spins - before);
        assert_eq!(spins, 0, "it watches for what comes every 10 ms");
        assert!(cpu < 10 * MS, "{cpu:?} of CPU time in 100 ms of sleep");
    });
}

#[test]
fn a_timer_ends_the_watching() {
    for builder in [on_io_uring(), on_io_uring().deadline_in_wait(true)] {
        let runtime = builder.spin(Duration::from_secs(1)).build().unwrap();
        runtime.block_on(async {
            // On a slow machine many are over before anything could be watched.
            let mut naps = 0;
            while naps < 200 || stats().spins <= 100 {
                sleep(Duration::from_micros(50)).await;
                naps += 1;
                assert!(naps < 100_000, "nothing is watched");
            }
            let start = Instant::now();
            sleep(5 * MS).await;
            assert!(start.elapsed() >= 5 * MS && start.elapsed() < patient(900 * MS));
        });
        assert_eq!(runtime.stats().fruitless_laps, 0);
    }
}

#[test]
fn cores_that_share_a_cpu_do_not_watch() {
    let cpus = thread::available_parallelism().unwrap().get();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&lines);
    let log = move |line: &str| kept.lock().unwrap().push(line.to_owned());
    let builder = on_io_uring().spin(Duration::from_secs(1)).cores(cpus + 1).log(log);
    let main = async || {
        for _ in 0..100 {
            sleep(Duration::from_micros(50)).await;
        }
        assert_eq!(stats().spins, 0);
    };
    builder.start_per_core(main).unwrap();
    let lines = lines.lock().unwrap();
    assert!(lines.iter().any(|line| line.contains("none of them spins")), "{lines:?}");
}
