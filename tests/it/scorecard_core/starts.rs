//! Starts that the system refuses, and many of them with next to no memory that may be locked.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use quoit::driver::DriverKind;
use quoit::runtime::{Builder, ErrorKind};

use crate::loopback::{resident, scaled};
use crate::support::{Ledger, Watch, become_nobody, is_root, isolated, refuse};

#[test]
fn s19_a_start_that_is_refused_names_the_cause_at_once() {
    isolated(|| {
        let setup = [libc::ENOSYS, libc::EPERM, libc::EINVAL, libc::ENOMEM, libc::EMFILE];
        let setup = setup.map(|errno| (libc::SYS_io_uring_setup, errno, "io_uring_setup"));
        let register = (libc::SYS_io_uring_register, libc::EPERM, "IORING_REGISTER_PROBE");
        let enter = (libc::SYS_io_uring_enter, libc::EPERM, "io_uring_enter");
        let ledger = Ledger::open();
        let mut slowest = Duration::ZERO;
        for (call, errno, step) in setup.into_iter().chain([register, enter]) {
            // A filter stays with its thread.
            let refused = thread::spawn(move || {
                refuse(call, errno);
                let builder = Builder::new().driver(DriverKind::Uring);
                let start = Instant::now();
                let one = builder.clone().run(async {}).unwrap_err();
                let slowest = start.elapsed();
                let start = Instant::now();
                let all = builder.cores(2).start_per_core(async || {}).unwrap_err();
                for error in [one, all] {
                    assert_eq!(error.kind(), ErrorKind::Start);
                    let text = error.to_string();
                    assert!(
                        text.contains(&format!("{step} gave E")) && text.contains("; "),
                        "{text}"
                    );
                }
                slowest.max(start.elapsed())
            });
            slowest = slowest.max(refused.join().expect("no panic"));
        }
        println!("\nS19 a refused start ended within {slowest:?} (wanted: 10 ms)");
        ledger.close();
    });
}

fn limit_locked_memory(soft: u64) {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: 8 << 20 };
    // SAFETY: the limit lives until the call returns.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) }, 0);
}

/// Starts sixteen runtimes, has each run, and drops them. Returns how many were refused; each
/// refusal names the limit.
fn sixteen_come_and_go(degraded: &Arc<AtomicUsize>) -> usize {
    let start = |_| {
        let count = Arc::clone(degraded);
        let hears = move |line: &str| {
            assert!(line.contains("receives use the heap"), "{line}");
            count.fetch_add(1, Ordering::Relaxed);
        };
        Builder::new().driver(DriverKind::Uring).log(hears).build()
    };
    let started: Vec<_> = (0..16).map(start).collect();
    let mut refused = 0;
    for runtime in started {
        match runtime {
            Ok(runtime) => runtime.block_on(quoit::time::sleep(Duration::from_micros(1))),
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains("ENOMEM") && text.contains("ulimit -l unlimited"), "{text}");
                refused += 1;
            }
        }
    }
    refused
}

#[test]
fn s20_sixteen_runtimes_come_and_go_where_little_memory_may_be_locked() {
    isolated(|| {
        if is_root() {
            // As high as it will be asked for: before Linux 5.16 the hard limit is lower.
            limit_locked_memory(8 << 20);
            become_nobody();
        }
        // What distributions grant, the least of old, and nothing.
        for (soft, rounds) in [(8 << 20, scaled(100, 10)), (64 << 10, scaled(10, 2)), (0, 2)] {
            let watch = Watch::over(format!("with {soft} bytes that may be locked"));
            limit_locked_memory(soft);
            let ledger = Ledger::open();
            let (start, before) = (Instant::now(), resident());
            let degraded = Arc::default();
            let refused: usize = (0..rounds).map(|_| sixteen_come_and_go(&degraded)).sum();
            let degraded = degraded.load(Ordering::Relaxed);
            let each = start.elapsed() / (rounds * 16) as u32;
            let grown = resident().saturating_sub(before) >> 10;
            println!(
                "\nS20 {soft} bytes: {rounds} x 16 runtimes, {refused} refused, {degraded} without \
                 provided buffers, {each:?} each, {grown} KiB more"
            );
            // Kernels that do not count rings refuse none. The others tear rings down in their own
            // time, which a busy machine prolongs.
            let most = if std::env::var_os("QUOIT_SCALE").is_some() { 0 } else { rounds };
            assert!(soft < 8 << 20 || refused <= most, "{refused} of {} were refused", rounds * 16);
            assert!(soft == 0 || refused < rounds * 16);
            ledger.close();
            watch.ends();
        }
    });
}
