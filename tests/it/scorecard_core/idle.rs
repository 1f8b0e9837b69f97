//! What idle connections cost.

use std::io::{BufRead, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use quoit::fs::File;
use quoit::net::TcpStream;
use quoit::runtime::{self, Builder};
use quoit::time::sleep;

use super::assert_fruitful;
use crate::loopback::{anonymous, listen, scaled, set_descriptor_limit, without_huge_pages};
use crate::support::{IDLE_CONNECTION_BYTES, Watch, is_instrumented, isolated, ledger, traits};
use crate::support_alloc::live_bytes;

/// Tells a process that it plays the clients, and of whom.
const CLIENTS_OF: &str = "QUOIT_IDLE_CLIENTS_OF";
const NAME: &str = "scorecard_core::idle::s18_idle_connections_cost_next_to_nothing";

/// Connects as often as it is told, and holds the connections until it is told to end.
fn clients(address: &str) {
    set_descriptor_limit(20_000);
    let mut all = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let count: usize = line.unwrap().parse().unwrap();
        for _ in 0..count {
            all.push(std::net::TcpStream::connect(address).unwrap());
        }
    }
}

fn start_clients(address: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([NAME, "--exact", "--nocapture", "--test-threads=1"])
        .env(CLIENTS_OF, address)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

async fn echo(stream: TcpStream) -> std::io::Result<()> {
    while let Some(chunk) = stream.recv().await? {
        stream.write_all(chunk).await?;
    }
    Ok(())
}

/// The CPU time of this thread.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a place for the answer.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Goes once round both queues, whose memory is a core's and not a connection's.
async fn warm_up() {
    let file = File::open("/dev/null").await.unwrap();
    for _ in 0..10_000 {
        file.read_at([0; 1], 0).await.unwrap();
    }
}

#[test]
fn s18_idle_connections_cost_next_to_nothing() {
    if let Ok(address) = std::env::var(CLIENTS_OF) {
        return clients(&address);
    }
    isolated(|| {
        set_descriptor_limit(20_000);
        // The first page of a mapping with room for thousands would be 500 bytes a connection.
        without_huge_pages();
        let watch = Watch::over("with idle connections");
        let (count, pause) = (scaled(10_000, 4_000), scaled(10, 3) as u32);
        ledger(Builder::new(), async || {
            let (listener, address) = listen().await;
            let mut clients = start_clients(&address.to_string());
            let mut orders = clients.stdin.take().unwrap();
            warm_up().await;
            let mut served = 0;
            let (mut before, mut heap) = (0, 0);
            for wanted in [64, count] {
                (before, heap) = (anonymous(), live_bytes());
                // Few at a time: what waits to be accepted or handed over is kept in memory meanwhile.
                let mut left = wanted;
                while left > 0 {
                    let some = left.min(64);
                    writeln!(orders, "{some}").unwrap();
                    for _ in 0..some {
                        let (stream, _) = listener.accept().await.unwrap();
                        drop(quoit::spawn(echo(stream)));
                        served += 1;
                    }
                    left -= some;
                }
                sleep(Duration::from_millis(50)).await;
            }
            let each = (anonymous() - before) as f64 / count as f64;
            let heap = (live_bytes() - heap) / count as i64;
            println!(
                "\nS18 {each:.0} bytes for each of {count} idle connections, {heap} of the heap"
            );

            let (cpu, start, stats) = (cpu_time(), Instant::now(), runtime::stats());
            for _ in 0..pause {
                sleep(Duration::from_secs(1)).await;
            }
            let share = (cpu_time() - cpu).as_secs_f64() / start.elapsed().as_secs_f64();
            let now = runtime::stats();
            let enters = (now.enters - stats.enters) as f64 / start.elapsed().as_secs_f64();
            println!("\nS18 idle: {:.4} % of a core, {enters:.2} enters a second", share * 100.0);
            assert_eq!(now.live_ops as usize, served + 1, "one receive each, and the accept");
            assert!(share < 0.01, "{:.2} % of a core", share * 100.0);
            assert!(enters <= 3.0, "{enters} enters a second");
            // Tables that double weigh more in a slice.
            let slack = if count < 10_000 { 10 } else { 0 };
            let most = IDLE_CONNECTION_BYTES.get() + traits().idle_bytes + slack;
            let is_small = is_instrumented() || each <= most as f64;
            assert!(is_small, "{each} bytes for an idle connection");
            assert_fruitful(&now, 1);

            drop(orders);
            drop(listener);
            assert!(clients.wait().unwrap().success());
        });
        watch.ends();
    });
}
