//! Names of hosts: what is looked up, by whom, and what it says when there is no such name.

use std::io::ErrorKind;
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use quoit::net::{LookupError, TcpListener, TcpStream, lookup_host};
use quoit::runtime::{Builder, Runtime};
use quoit::sim::Sim;
use quoit::spawn_blocking;

use crate::loopback::{Flag, isolated, lap, ledger, poll_once, run};

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn a_name_of_this_machine_is_looked_up_off_the_core() {
    run(async {
        // Not written as the one that needs no lookup.
        let found: Vec<_> = lookup_host("LocalHost:80").await.unwrap().collect();
        assert!(!found.is_empty());
        assert!(found.iter().all(|found| found.ip().is_loopback() && found.port() == 80));
        let again: Vec<_> = lookup_host(("LocalHost".to_owned(), 80)).await.unwrap().collect();
        assert_eq!(found, again);
    });
}

#[test]
fn a_name_is_bound_and_connected() {
    run(async {
        let listener = TcpListener::bind("LocalHost:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = quoit::spawn(TcpStream::connect(("LocalHost", port)));
        listener.accept().await.unwrap();
        client.await.unwrap().unwrap();
    });
}

#[test]
fn an_address_needs_no_thread() {
    isolated(|| {
        run(async {
            let before = threads();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            drop(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
            drop(TcpStream::connect(("localhost", port)).await.unwrap());
            drop(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
            assert_eq!(threads(), before);
            drop(TcpStream::connect(("LocalHost", port)).await.unwrap());
            assert_eq!(threads(), before + 1);
        });
    });
}

#[test]
fn a_name_that_there_is_not_is_an_error_of_its_own_type() {
    run(async {
        // No server is asked for an empty label.
        let error = lookup_host("no..name:80").await.unwrap_err();
        let text = error.to_string();
        let inner = error.get_ref().unwrap().downcast_ref::<LookupError>().unwrap();
        assert_eq!(inner.host(), "no..name");
        assert!(inner.code() < 0 && !inner.is_temporary());
        assert!(text.contains("no..name") && text.contains("EAI_"), "{text}");
        let kind = if inner.is_not_found() { ErrorKind::NotFound } else { ErrorKind::Other };
        assert_eq!(error.kind(), kind);
    });
}

#[test]
fn what_can_be_no_name_is_refused_without_a_lookup() {
    isolated(|| {
        run(async {
            let before = threads();
            let long = "a".repeat(254) + ":80";
            let label = "a.".repeat(200) + ":80";
            for text in ["a\0b:80", "", ":80", "x", "a b:80", "1.2.3:80", "x:70000", &long, &label]
            {
                let error = lookup_host(text).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text:?}");
                let error = TcpStream::connect(text).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text:?}");
            }
            assert_eq!(threads(), before);
        });
    });
}

fn reads_the_systems_files() -> bool {
    let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let mut links = open.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    links.any(|to| to.starts_with("/etc"))
}

#[test]
fn a_dropped_lookup_is_not_begun_and_one_that_runs_ends_by_itself() {
    isolated(|| {
        ledger(async || {
            for laps in 0..4 {
                let mut lookup = Box::pin(lookup_host("LocalHost:80"));
                let _ = poll_once(lookup.as_mut(), &Arc::new(Flag::default()));
                for _ in 0..laps {
                    lap().await;
                }
                drop(lookup);
            }
            // One that had begun has the system's files open until it ends.
            quoit::time::sleep(Duration::from_millis(20)).await;
            crate::loopback::until(|| !reads_the_systems_files()).await;
        });
        let runtime = Builder::new().max_blocking_threads(1).build().unwrap();
        runtime.block_on(async {
            let (release, held) = mpsc::channel::<()>();
            let stuck = spawn_blocking(move || held.recv());
            let mut lookup = Box::pin(lookup_host("LocalHost:80"));
            assert!(poll_once(lookup.as_mut(), &Arc::new(Flag::default())).is_pending());
            drop(lookup);
            drop(release);
            let _ = stuck.await.unwrap();
        });
    });
}

#[test]
fn a_lookup_that_its_runtime_does_not_outlive_is_an_error_elsewhere() {
    let mut first = Builder::new().max_blocking_threads(1).build().unwrap();
    let (release, held) = mpsc::channel::<()>();
    let (begun, hears) = mpsc::channel();
    let mut lookup = Box::pin(lookup_host("LocalHost:80"));
    first.block_on(async {
        drop(spawn_blocking(move || {
            begun.send(()).unwrap();
            let _ = held.recv();
        }));
        hears.recv().unwrap();
        assert!(poll_once(lookup.as_mut(), &Arc::new(Flag::default())).is_pending());
    });
    first.shutdown(std::time::Duration::ZERO);
    drop(release);
    let error = Runtime::new().unwrap().block_on(lookup).unwrap_err();
    assert!(error.to_string().contains("aborted"), "{error}");
}

#[test]
fn a_simulated_network_knows_its_hosts_and_no_others() {
    let report = Sim::new(1)
        .host("server", async || {
            let listener = TcpListener::bind("server:7000").await.unwrap();
            loop {
                listener.accept().await.unwrap();
            }
        })
        .client("client", async || {
            let found: Vec<_> = lookup_host("server:7000").await?.collect();
            assert_eq!(found, ["10.0.0.1:7000".parse().unwrap()]);
            drop(TcpStream::connect("server:7000").await?);
            let error = TcpStream::connect("LocalHost:7000").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
            assert!(pin!(lookup_host("example.org:80")).await.is_err());
            std::io::Result::Ok(())
        })
        .run();
    report.unwrap();
}
