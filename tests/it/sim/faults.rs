//! Each fault by itself: it happens, and what should survive it does.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use quoit::fs::{self, File};
use quoit::net::{TcpListener, TcpStream};
use quoit::sim::{FailureKind, Faults, Sim, explore};
use quoit::time::{Instant, sleep, timeout};

use super::{echoes, exchange, serve, standard};

#[test]
fn every_fault_happens_by_itself_and_is_survived() {
    let none = Faults::none;
    let faults = [
        ("partial_submits", none().partial_submits(0.5)),
        ("refused_enters", none().refused_enters(0.3)),
        ("small_queues", none().small_queues(1.0)),
        ("ended_multishots", none().ended_multishots(0.5)),
        ("late_cancels", none().late_cancels(1.0)),
        ("interrupts", none().interrupts(0.3)),
        ("shuffle", none().shuffle(1.0)),
        ("spurious_wakes", none().spurious_wakes(1.0)),
        ("scribble", none().scribble(1.0)),
        ("delays", none().delays(0.5)),
        ("late_notices", none().late_notices(1.0)),
        ("sends_at_once", none().sends_at_once(0.5)),
        ("short_reads", none().short_reads(0.8)),
        ("short_writes", none().short_writes(0.8)),
        ("slow_network", none().slow_network(0.2)),
        ("partition", none().partition(0.02)),
        ("resets", none().resets(0.03)),
        ("vanishing_peers", none().vanishing_peers(0.03)),
        ("refused_connects", none().refused_connects(0.5)),
        ("no_buffers", none().no_buffers(0.5)),
        ("no_memory", none().no_memory(0.3)),
        ("no_descriptors", none().no_descriptors(0.5)),
        ("disk_errors", none().disk_errors(0.5)),
        ("full_disk", none().full_disk(0.5)),
        ("clock_jumps", none().clock_jumps(0.005)),
        ("crashes", none().crashes(0.005)),
    ];
    for (name, faults) in faults {
        let mut done = 0;
        let explored = explore(0..5, |seed| standard::program(seed, faults.clone(), 4).0);
        let explored = explored.unwrap_or_else(|failure| panic!("{name}: {failure}"));
        for (knob, times) in &explored.struck {
            assert_eq!(*knob, name, "only what was asked for happens");
            done += times;
        }
        assert!(done > 0, "{name} did not happen");
    }
}

#[test]
fn without_faults_every_exchange_succeeds_at_once() {
    let (sim, tally) = standard::program(3, Faults::none(), 20);
    let report = sim.run().unwrap();
    assert_eq!((tally.exchanges.get(), tally.failures.get()), (60, 0));
    assert!(report.struck.is_empty(), "{:?}", report.struck);
}

#[test]
fn what_the_runtime_deals_with_is_never_noticed() {
    let faults = Faults::default().no_buffers(0.3).short_reads(0.3).short_writes(0.3);
    for seed in 0..20 {
        let (sim, tally) = standard::program(seed, faults.clone(), 5);
        sim.run().unwrap();
        assert_eq!((tally.exchanges.get(), tally.failures.get()), (15, 0), "seed {seed}");
    }
}

#[test]
fn what_was_sent_into_a_partition_arrives_when_it_heals() {
    let lasting = Duration::from_secs(20);
    let report = echoes(5)
        .partition("server", "one", Duration::from_millis(5), lasting)
        .faults(Faults::none())
        .run()
        .unwrap();
    assert!(report.virtual_time > lasting, "{report}");
}

#[test]
fn a_connect_into_a_partition_succeeds_after_it() {
    let report = echoes(5)
        .partition("server", "two", Duration::ZERO, Duration::from_secs(20))
        .run()
        .unwrap();
    assert!(report.virtual_time > Duration::from_secs(20), "{report}");
}

/// Writes two files, syncs one, and looks at both when it starts anew.
async fn keeps_a_log(starts: &Cell<u32>, lost: &Cell<u32>) -> io::Result<()> {
    starts.set(starts.get() + 1);
    if starts.get() == 1 {
        fs::write("synced", vec![1; 5_000]).await?;
        File::options().write(true).open("synced").await?.sync_all().await?;
        fs::write("unsynced", vec![2; 5_000]).await?;
        return Ok(());
    }
    assert_eq!(fs::read("synced").await?, vec![1; 5_000]);
    let left = fs::read("unsynced").await.unwrap_or_default();
    assert!(left.iter().all(|&byte| byte == 2));
    if left.len() < 5_000 {
        assert!(left.len().is_multiple_of(512), "a write is torn between sectors");
        lost.set(lost.get() + 1);
    }
    Ok(())
}

#[test]
fn a_crash_loses_what_was_not_synced_and_nothing_else() {
    let lost = Rc::new(Cell::new(0));
    for seed in 0..50 {
        let starts = Rc::new(Cell::new(0));
        let (count, losses) = (starts.clone(), lost.clone());
        Sim::new(seed)
            .host("server", async move || keeps_a_log(&count, &losses).await)
            .client("client", async || sleep(Duration::from_secs(3)).await)
            .crash("server", Duration::from_secs(1), Duration::from_millis(100))
            .run()
            .unwrap();
        assert_eq!(starts.get(), 2);
    }
    assert!((10..45).contains(&lost.get()), "{lost:?}");
}

#[test]
fn a_host_that_crashes_leaves_its_peers_half_open_until_they_write() {
    let run = |write: bool| {
        Sim::new(9)
            .host("server", async || serve().await)
            .client("client", async move || {
                let stream = TcpStream::connect("server:7000").await?;
                exchange("server:7000").await?;
                sleep(Duration::from_secs(2)).await;
                // The server has been down and is up again; it knows nothing of this connection.
                let waiting = timeout(Duration::from_secs(30), stream.recv()).await;
                assert!(waiting.is_err(), "nobody has told this end");
                if write {
                    stream.write_all("anybody?").await?;
                    let error = stream.recv().await.unwrap_err();
                    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
                    return exchange("server:7000").await;
                }
                stream.recv().await.map(drop)
            })
            .crash("server", Duration::from_secs(1), Duration::from_millis(100))
            .faults(Faults::none())
            .run()
    };
    run(true).unwrap();
    assert_eq!(run(false).unwrap_err().kind(), FailureKind::Stuck);
}

#[test]
fn a_connect_to_a_host_that_stays_down_times_out_and_one_that_comes_back_answers() {
    let run = |down| {
        Sim::new(4)
            .host("server", async || serve().await)
            .client("client", async || {
                sleep(Duration::from_secs(2)).await;
                let start = Instant::now();
                let connected = TcpStream::connect("server:7000").await;
                connected.map(drop).map_err(|error| format!("{error} after {:?}", start.elapsed()))
            })
            .crash("server", Duration::from_secs(1), down)
            .faults(Faults::none())
            .patience(Duration::from_secs(1_000))
            .run()
    };
    run(Duration::from_secs(10)).unwrap();
    let failure = run(Duration::from_secs(10_000)).unwrap_err();
    assert!(failure.text().contains("timed out"), "{failure}");
}

#[test]
fn a_listener_that_never_accepts_holds_a_limited_number_of_connections() {
    Sim::new(2)
        .host("server", async || {
            let _listener = TcpListener::bind("0.0.0.0:7000").await?;
            std::future::pending::<io::Result<()>>().await
        })
        .client("client", async || {
            let mut streams = Vec::new();
            let late = loop {
                let connect = TcpStream::connect("server:7000");
                match timeout(Duration::from_secs(5), connect).await {
                    Ok(stream) => streams.push(stream?),
                    Err(late) => break late,
                }
            };
            assert_eq!((streams.len(), late), (129, late));
            io::Result::Ok(())
        })
        .run()
        .unwrap();
}

#[test]
fn a_dropped_listener_resets_those_who_wait_in_its_line() {
    Sim::new(2)
        .host("server", async || {
            let listener = TcpListener::bind("0.0.0.0:7000").await?;
            sleep(Duration::from_secs(1)).await;
            listener.close().await
        })
        .client("client", async || {
            let stream = TcpStream::connect("server:7000").await?;
            let error = stream.recv().await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            let error = TcpStream::connect("server:7000").await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
            io::Result::Ok(())
        })
        .run()
        .unwrap();
}
