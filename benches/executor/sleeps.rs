//! A million sleeps outstanding, each in a task of its own: CPU time and memory.
//!
//! Memory is measured in a process of its own, where nothing was allocated before.

use std::cell::Cell;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use quoit::runtime::Runtime;
use quoit::time::{Instant, sleep_until};

use super::{Spread, cpu_ns};

/// The argument that tells a child what it is there for.
pub(crate) const CHILD: &str = "--sleeps";

const SLEEPS: u64 = 1_000_000;
const HOUR: Duration = Duration::from_secs(3600);
/// What the best of the peers needed: tokio-uring its CPU time, compio's beta its memory.
const BEST_NS: f64 = 1_469.0;
const BEST_MB: f64 = 181.0;

/// Measures in children, and prints what they found.
pub(crate) fn report(rounds: usize) {
    println!("\n1,000,000 sleeps outstanding, each in its own task");
    println!("{:<52} {:>18} {:>18}", "", "ns of CPU each", "MB for all");
    for what in ["fire", "drop"] {
        let (mut ns, mut mb) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let program = std::env::current_exe().expect("this program has a path");
            let child = Command::new(program).args([CHILD, what]).output().expect("a child runs");
            assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
            let text = String::from_utf8(child.stdout).expect("a child prints text");
            let mut numbers = text.split_whitespace().map(|number| number.parse::<f64>().unwrap());
            ns.push(numbers.next().unwrap());
            mb.push(numbers.next().unwrap());
        }
        let name = format!("made, polled, left to {what} (best peer {BEST_NS} ns, {BEST_MB} MB)");
        println!("{name:<52} {:>18} {:>18}", Spread::of(ns).show(0), Spread::of(mb).show(0));
    }
}

/// The child: prints the CPU time of each sleep, and the memory of all.
pub(crate) fn measure(what: Option<String>) {
    let fires = what.as_deref() == Some("fire");
    let runtime = Runtime::new().expect("a runtime starts");
    let before = resident_mb();
    let start = cpu_ns();
    let ended = Rc::new(Cell::new(0));
    let memory = runtime.block_on(async {
        let first = Instant::now() + Duration::from_secs(2);
        let mut random = 0x9E37_79B9_7F4A_7C15_u64;
        for _ in 0..SLEEPS {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let later = Duration::from_nanos(random % 1_000_000_000);
            let ended = ended.clone();
            let deadline = if fires { first + later } else { first + later + HOUR };
            drop(quoit::spawn(async move {
                sleep_until(deadline).await;
                ended.set(ended.get() + 1);
            }));
        }
        // One that runs after all of them has seen all of them wait.
        quoit::spawn(async {}).await.unwrap();
        assert_eq!(ended.get(), 0, "all are outstanding together");
        let memory = resident_mb() - before;
        if fires {
            sleep_until(first + Duration::from_millis(1_001)).await;
            while ended.get() < SLEEPS {
                quoit::task::yield_now().await;
            }
        }
        memory
    });
    drop(runtime);
    println!("{} {memory}", (cpu_ns() - start) as f64 / SLEEPS as f64);
}

fn resident_mb() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("/proc is mounted");
    let pages: f64 = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096.0 / 1e6
}
