//! The simulator: the same seed gives the same world, and every fault is survived or reported.

mod bytes;
mod faults;
mod scorecard;
mod standard;
mod wild;

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use quoit::net::{TcpListener, TcpStream};
use quoit::runtime::{Core, Handle};
use quoit::sim::{FailureKind, Faults, Sim, explore};
use quoit::time::{Instant, sleep, timeout};

use crate::support::isolated;

/// How many seeds a test runs: `QUOIT_SEEDS`, or a slice that every run affords.
fn seeds(slice: u64) -> std::ops::Range<u64> {
    let count = std::env::var("QUOIT_SEEDS").ok();
    0..count.map_or(slice, |text| text.parse().expect("QUOIT_SEEDS is a number"))
}

async fn serve() -> io::Result<()> {
    let listener = TcpListener::bind("0.0.0.0:7000").await?;
    loop {
        let (stream, _) = listener.accept().await?;
        quoit::spawn(echo(stream));
    }
}

async fn echo(stream: TcpStream) -> io::Result<()> {
    while let Some(chunk) = stream.recv().await? {
        stream.write_all(chunk).await?;
    }
    Ok(())
}

async fn exchange(server: &str) -> io::Result<()> {
    let stream = TcpStream::connect(server).await?;
    for round in 0..20_u8 {
        let sent = vec![round; 1 + usize::from(round) * 100];
        let sent = stream.write_all(sent).await?;
        let got = stream.read_exact(vec![0; sent.len()]).await?;
        assert_eq!(got, sent);
    }
    Ok(())
}

/// A server of two cores, and two clients.
fn echoes(seed: u64) -> Sim {
    Sim::new(seed)
        .host_with_cores("server", 2, async || serve().await)
        .client("one", async || exchange("server:7000").await)
        .client("two", async || exchange("server:7000").await)
}

// ---- The seed ----

#[test]
fn the_same_seed_gives_the_same_world_and_another_seed_another() {
    let run = |seed| {
        let faults = Faults::default().partition(0.01).short_reads(0.1);
        echoes(seed).faults(faults).run().unwrap()
    };
    let mut traces: Vec<_> = (0..30)
        .map(|seed| {
            let report = run(seed);
            assert_eq!(report, run(seed));
            report.trace
        })
        .collect();
    traces.sort_unstable();
    traces.dedup();
    assert_eq!(traces.len(), 30);
}

#[test]
fn the_standard_program_gives_the_same_trace_twice() {
    for seed in seeds(10) {
        let run = || standard::program(seed, Faults::all(), 4).0.run().unwrap();
        assert_eq!(run(), run());
    }
}

#[test]
fn the_standard_program_survives_every_fault() {
    let start = std::time::Instant::now();
    let explored = explore(seeds(60), |seed| standard::program(seed, Faults::all(), 8).0);
    let explored = explored.unwrap_or_else(|failure| panic!("{failure}"));
    let rate = explored.seeds as f64 / start.elapsed().as_secs_f64() * 60.0;
    println!("{explored}\n{rate:.0} seeds a minute");
    // None of them is there for nothing.
    assert_eq!(explored.struck.len(), 26, "{explored}");
}

#[test]
fn a_program_without_sense_breaks_nothing() {
    for faults in [Faults::default(), Faults::all()] {
        let explored = explore(seeds(30), |seed| wild::program(seed, faults.clone(), 30));
        println!("{}", explored.unwrap_or_else(|failure| panic!("{failure}")));
    }
}

// ---- The world ----

#[test]
fn virtual_time_takes_no_time_and_hosts_have_names_and_addresses() {
    let report = Sim::new(1)
        .host("server", async || serve().await)
        .client("client", async || {
            let start = Instant::now();
            sleep(Duration::from_secs(30 * 86_400)).await;
            assert!(start.elapsed() >= Duration::from_secs(30 * 86_400));
            let stream = TcpStream::connect("server:7000").await?;
            assert_eq!(stream.peer_addr()?, "10.0.0.1:7000".parse().unwrap());
            assert_eq!(stream.local_addr()?.ip().to_string(), "10.0.0.2");
            let nobody = TcpStream::connect("nobody:7000").await.unwrap_err();
            assert_eq!(nobody.kind(), io::ErrorKind::NotFound);
            let refused = TcpStream::connect("server:7001").await.unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
            let away = TcpStream::connect("10.9.9.9:7000").await.unwrap_err();
            assert_eq!(away.kind(), io::ErrorKind::NetworkUnreachable);
            io::Result::Ok(())
        })
        .patience(Duration::from_secs(365 * 86_400))
        .run()
        .unwrap();
    assert!(report.virtual_time >= Duration::from_secs(30 * 86_400));
}

#[test]
fn a_name_of_a_host_means_nothing_outside_of_a_simulation() {
    // No server of the real network is asked for an empty label.
    Sim::new(1).client("the..server", async || ()).run().unwrap();
    let error = quoit::runtime::run(async { TcpStream::connect("the..server:7000").await })
        .unwrap()
        .unwrap_err();
    assert!(error.get_ref().unwrap().is::<quoit::net::LookupError>(), "{error}");
}

#[test]
fn the_cores_of_a_host_share_its_connections_and_send_each_other_work() {
    let accepted = Rc::new(RefCell::new([0; 3]));
    let (counts, handles) = (accepted.clone(), Rc::new(RefCell::new(Vec::<Handle>::new())));
    for seed in 0..10 {
        let (counts, handles) = (counts.clone(), handles.clone());
        handles.borrow_mut().clear();
        Sim::new(seed)
            .host_with_cores("server", 3, async move |core: Core| {
                assert_eq!(core.count(), 3);
                handles.borrow_mut().push(core.handle());
                let listener = TcpListener::bind("0.0.0.0:7000").await?;
                loop {
                    let (stream, _) = listener.accept().await?;
                    counts.borrow_mut()[core.index()] += 1;
                    let all: Vec<Handle> = handles.borrow().clone();
                    for handle in all {
                        let index = handle.index();
                        let task = handle.spawn_on(async move || {
                            sleep(Duration::from_millis(1)).await;
                            quoit::runtime::core().index()
                        });
                        assert_eq!(task.unwrap().await.unwrap(), index);
                    }
                    quoit::spawn(echo(stream));
                }
                #[expect(unreachable_code, reason = "it says what the main returns")]
                io::Result::Ok(())
            })
            .client("client", async || {
                for _ in 0..4 {
                    exchange("server:7000").await?;
                }
                io::Result::Ok(())
            })
            .run()
            .unwrap();
    }
    assert!(accepted.borrow().iter().all(|&count| count > 0), "{accepted:?}");
}

#[test]
fn a_core_whose_main_has_ended_is_over_and_the_others_go_on() {
    /// Counts its drops.
    struct Held(Rc<Cell<u32>>);
    impl Drop for Held {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }
    let ended = Rc::new(Cell::new(0));
    for seed in 0..20 {
        let (handles, dropped) = (Rc::new(RefCell::new(Vec::new())), Rc::new(Cell::new(0)));
        let (theirs, drops) = (handles.clone(), dropped.clone());
        let (over, ends) = (dropped.clone(), ended.clone());
        Sim::new(seed)
            .host_with_cores("server", 2, async move |core: Core| {
                let listener = TcpListener::bind("0.0.0.0:7000").await?;
                if core.index() == 1 {
                    loop {
                        let (stream, _) = listener.accept().await?;
                        quoit::spawn(echo(stream));
                    }
                }
                theirs.borrow_mut().push(core.handle());
                // A timer and a receive are in flight when its main ends.
                let held = Held(drops.clone());
                quoit::spawn(async move {
                    sleep(Duration::from_secs(3600)).await;
                    drop(held);
                });
                let (stream, _) = listener.accept().await?;
                quoit::spawn(async move { drop(stream.recv().await) });
                io::Result::Ok(())
            })
            .client("client", async || {
                let mut refused = 0;
                for _ in 0..4 {
                    refused += u32::from(exchange("server:7000").await.is_err());
                }
                assert!(refused <= 1, "only what the first core had accepted ends with it");
                io::Result::Ok(())
            })
            .check_at_end(move || {
                ends.set(ends.get() + over.get());
                let handle: &Handle = &handles.borrow()[0];
                let refused = handle.spawn_on(async || ()).is_err();
                if refused == (over.get() == 1) { Ok(()) } else { Err(format!("{refused}")) }
            })
            .run()
            .unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(dropped.get(), 1, "what a core ran is dropped with it");
    }
    assert!(ended.get() > 0, "no core has ended before the rest");
}

// ---- Failures ----

#[test]
fn a_panic_of_a_client_is_a_failure_with_its_text_and_seed() {
    let failure = Sim::new(77).client("client", async || panic!("planted")).run().unwrap_err();
    assert_eq!((failure.kind(), failure.seed()), (FailureKind::Client, 77));
    assert_eq!(failure.text(), "client `client` panicked: planted");
    assert!(failure.to_string().contains("SIM_SEED=77 SIM_STEPS="), "{failure}");
}

#[test]
fn an_error_of_a_main_is_a_failure_and_a_panic_of_a_task_is_its_own() {
    let failure = Sim::new(1)
        .host("server", async || Err::<(), _>("no disk"))
        .client("client", async || sleep(Duration::from_secs(1)).await)
        .run()
        .unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Host);
    assert_eq!(failure.text(), "the main of host `server` failed: no disk");
    Sim::new(1)
        .host("server", async || drop(quoit::spawn(async { panic!("planted") })))
        .client("client", async || sleep(Duration::from_secs(1)).await)
        .run()
        .unwrap();
}

#[test]
fn a_client_that_waits_for_ever_is_stuck_and_the_text_says_where() {
    let failure = Sim::new(1)
        .host("server", async || {
            let listener = TcpListener::bind("0.0.0.0:7000").await?;
            let (_silent, _) = listener.accept().await?;
            std::future::pending::<io::Result<()>>().await
        })
        .client("client", async || {
            let stream = TcpStream::connect("server:7000").await?;
            stream.recv().await.map(drop)
        })
        .run()
        .unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Stuck);
    let waits = "receive on 10.0.0.2:32768 -> 10.0.0.1:7000";
    assert!(failure.text().contains(waits), "{failure}");

    // One that is busy meanwhile is stuck too, when its time is over.
    let failure = Sim::new(1)
        .steps(100)
        .client("client", async || {
            loop {
                sleep(Duration::from_millis(100)).await;
            }
        })
        .run()
        .unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Stuck);
    assert!(failure.text().contains("60s after the last fault"), "{failure}");
}

#[test]
fn checks_are_made_in_every_step_and_at_the_end() {
    let made = Rc::new(Cell::new(0));
    let count = made.clone();
    let report = Sim::new(1)
        .client("client", async || sleep(Duration::from_secs(1)).await)
        .check(move || {
            count.set(count.get() + 1);
            Ok(())
        })
        .run()
        .unwrap();
    assert_eq!(made.get(), report.steps);
    let failure = Sim::new(1)
        .client("client", async || ())
        .check_at_end(|| Err("planted".to_owned()))
        .run()
        .unwrap_err();
    assert_eq!((failure.kind(), failure.text()), (FailureKind::Check, "planted"));
}

#[test]
fn what_a_program_keeps_open_beyond_its_end_is_reported() {
    let kept = Rc::new(RefCell::new(Vec::new()));
    let keep = kept.clone();
    let failure = Sim::new(1)
        .host("server", async || serve().await)
        .client("client", async move || {
            let stream = TcpStream::connect("server:7000").await?;
            keep.borrow_mut().push(stream);
            io::Result::Ok(())
        })
        .run()
        .unwrap_err();
    assert!(failure.text().contains("1 descriptors of client are open"), "{failure}");
    kept.borrow_mut().clear();
}

// ---- Shrinking ----

/// A client that takes a reset for the end of the world.
fn fragile(seed: u64) -> Sim {
    let faults = Faults::all().resets(0.05).vanishing_peers(0.0).crashes(0.0);
    let client = async || loop {
        match timeout(Duration::from_secs(20), exchange("server:7000")).await {
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => return Err(error),
            Ok(Err(_)) | Err(_) => sleep(Duration::from_millis(50)).await,
            Ok(Ok(())) => return Ok(()),
        }
    };
    let serve = async || loop {
        // The server tries again whatever happens.
        let _ = serve().await;
        sleep(Duration::from_millis(50)).await;
    };
    Sim::new(seed)
        .host::<_, _>("server", async move || serve().await)
        .client("client", client)
        .faults(faults)
}

#[test]
fn a_failure_shrinks_to_the_fault_that_causes_it_and_replays_exactly() {
    let failure = explore(0..100, fragile).unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Client);
    assert_eq!(failure.faults().to_string(), "resets=0.05", "{failure}");
    let replay =
        || fragile(failure.seed()).faults(failure.faults().clone()).steps(failure.steps()).run();
    assert_eq!(replay().unwrap_err(), failure);
    assert_eq!(replay().unwrap_err().trace(), failure.trace());
    // With half of the steps it does not fail: it is the smallest.
    let half = fragile(failure.seed()).faults(failure.faults().clone()).steps(failure.steps() / 2);
    assert!(half.run().is_ok_and(|report| report.times("resets") == 0));
}

#[test]
fn the_environment_replays_what_a_failure_prints() {
    isolated(|| {
        let failure = explore(0..100, fragile).unwrap_err();
        let (seed, steps) = (failure.seed().to_string(), failure.steps().to_string());
        for (name, value) in [("SIM_SEED", &*seed), ("SIM_STEPS", &steps), ("SIM_FAULTS", "resets")]
        {
            // SAFETY: this process has no other thread that reads the environment.
            unsafe { std::env::set_var(name, value) };
        }
        // Only that seed is run, and under the same limits.
        let replayed = explore(0..100, fragile).unwrap_err();
        assert_eq!(replayed.trace(), failure.trace());
        assert_eq!(replayed.text(), failure.text());
        assert_eq!(explore([], fragile).unwrap_err().seed(), failure.seed());
    });
}
