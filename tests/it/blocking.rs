//! `spawn_blocking`: where functions run, in what order, and what becomes of them at each end.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use quoit::runtime::{self, Builder, Handle, Runtime};
use quoit::spawn_blocking;
use quoit::time::sleep;

use crate::loopback::until;
use crate::support::{blocks, is_instrumented, isolated, ledger, on_every_driver, patient};

fn allowed() -> usize {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed:")).unwrap();
    line.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit.count_ones()).sum::<u32>()
        as usize
}

/// Threads of this process whose names end so.
fn threads(suffix: &str) -> usize {
    let names = std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim_end().ends_with(suffix)).count()
}

/// A job that ends when its sender is dropped, and says when it has begun.
fn stuck() -> (Sender<()>, Receiver<()>, impl FnOnce() + Send + 'static) {
    let (release, held) = mpsc::channel::<()>();
    let (begun, hears) = mpsc::channel();
    let job = move || {
        begun.send(()).unwrap();
        let _ = held.recv();
    };
    (release, hears, job)
}

struct SetOnDrop(Arc<AtomicUsize>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_function_that_blocks_gives_its_output() {
    on_every_driver(|| async {
        let jobs: Vec<_> = (0..20_u64).map(|n| spawn_blocking(move || n * n)).collect();
        for (n, job) in jobs.into_iter().enumerate() {
            assert_eq!(job.await.unwrap(), (n * n) as u64);
        }
    });
}

#[test]
fn a_panic_is_the_jobs_own_and_its_thread_goes_on() {
    on_every_driver(|| async {
        let failed = spawn_blocking(|| -> () { panic!("of the job") }).await.unwrap_err();
        assert!(failed.is_panic() && failed.to_string().contains("of the job"), "{failed}");
        assert_eq!(spawn_blocking(|| 1).await.unwrap(), 1);
    });
}

#[test]
fn dropping_the_handle_lets_the_job_run() {
    on_every_driver(|| async {
        let ran = Arc::new(AtomicUsize::new(0));
        let counts = Arc::clone(&ran);
        drop(spawn_blocking(move || counts.fetch_add(1, Ordering::SeqCst)));
        until(|| ran.load(Ordering::SeqCst) == 1).await;
    });
}

#[test]
fn an_aborted_job_that_has_not_begun_is_dropped_at_once() {
    let runtime = Builder::new().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let (release, begun, job) = stuck();
        let first = spawn_blocking(job);
        begun.recv().unwrap();
        let dropped = Arc::new(AtomicUsize::new(0));
        let flag = SetOnDrop(Arc::clone(&dropped));
        let second = spawn_blocking(move || drop(flag));
        second.abort();
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
        assert!(second.is_finished());
        assert!(second.await.unwrap_err().is_cancelled());
        // One that runs is not stopped.
        first.abort();
        assert!(!first.is_finished());
        drop(release);
        first.await.unwrap();
    });
}

#[test]
fn the_bound_holds_and_jobs_begin_in_their_order() {
    let runtime = Builder::new().max_blocking_threads(3).build().unwrap();
    runtime.block_on(async {
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let jobs: Vec<_> = (0..40)
            .map(|_| {
                let (running, most) = (Arc::clone(&running), Arc::clone(&most));
                spawn_blocking(move || {
                    let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(now, Ordering::SeqCst);
                    thread::sleep(Duration::from_millis(1));
                    running.fetch_sub(1, Ordering::SeqCst);
                })
            })
            .collect();
        for job in jobs {
            job.await.unwrap();
        }
        assert_eq!(most.load(Ordering::SeqCst), 3);
    });
    let runtime = Builder::new().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let order = Arc::new(Mutex::new(Vec::new()));
        for n in 0..100 {
            let order = Arc::clone(&order);
            drop(spawn_blocking(move || order.lock().unwrap().push(n)));
        }
        spawn_blocking(|| ()).await.unwrap();
        assert_eq!(*order.lock().unwrap(), (0..100).collect::<Vec<_>>());
    });
}

#[test]
fn threads_may_run_on_every_cpu_and_block_every_signal() {
    isolated(|| {
        let here = allowed();
        Builder::new()
            .cores(2)
            .start_per_core(async move || {
                let pinned = allowed();
                assert!(pinned == 1 || here == 1, "a core runs on one CPU");
                let job =
                    spawn_blocking(|| (allowed(), blocks(libc::SIGINT), blocks(libc::SIGHUP)));
                assert_eq!(job.await.unwrap(), (here, true, true));
            })
            .unwrap();
    });
}

#[test]
fn cores_that_were_started_together_share_the_bound() {
    isolated(|| {
        let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (running, most) = (Arc::new(running), Arc::new(most));
        let seen = Arc::clone(&most);
        Builder::new()
            .cores(3)
            .max_blocking_threads(2)
            .start_per_core(async move || {
                for _ in 0..20 {
                    let (running, most) = (Arc::clone(&running), Arc::clone(&most));
                    let job = spawn_blocking(move || {
                        most.fetch_max(
                            running.fetch_add(1, Ordering::SeqCst) + 1,
                            Ordering::SeqCst,
                        );
                        thread::sleep(Duration::from_micros(200));
                        running.fetch_sub(1, Ordering::SeqCst);
                    });
                    job.await.unwrap();
                }
            })
            .unwrap();
        assert_eq!(seen.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn an_idle_thread_ends_after_its_time_and_takes_the_next_job_before() {
    isolated(|| {
        let builder = Builder::new().thread_name("t").thread_keep_alive(Duration::from_millis(30));
        builder
            .run(async {
                for _ in 0..50 {
                    spawn_blocking(|| ()).await.unwrap();
                }
                // The outcome is there a moment before its thread waits again.
                assert!((1..=50).contains(&threads("t-blocking")));
                until(|| threads("t-blocking") == 0).await;
                spawn_blocking(|| ()).await.unwrap();
            })
            .unwrap();
        assert_eq!(threads("t-blocking"), 0, "the runtime's end is that of its threads");
        let for_ever = Builder::new().thread_name("t").thread_keep_alive(Duration::MAX);
        for_ever
            .run(async {
                spawn_blocking(|| ()).await.unwrap();
                sleep(Duration::from_millis(50)).await;
                assert_eq!(threads("t-blocking"), 1);
            })
            .unwrap();
        assert_eq!(threads("t-blocking"), 0);
    });
}

#[test]
fn a_runtime_that_ends_waits_for_what_runs_and_drops_what_waits() {
    let mut runtime = Builder::new().max_blocking_threads(1).build().unwrap();
    let (dropped, ran) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let waiting = runtime.block_on(async {
        let (begun, hears) = mpsc::channel();
        let (counts, drops) = (Arc::clone(&ran), Arc::clone(&dropped));
        drop(spawn_blocking(move || {
            begun.send(()).unwrap();
            // The end has begun when what waits behind this is dropped.
            let start = Instant::now();
            while drops.load(Ordering::SeqCst) == 0 && start.elapsed() < Duration::from_secs(5) {
                thread::sleep(Duration::from_millis(1));
            }
            thread::sleep(Duration::from_millis(10));
            counts.fetch_add(1, Ordering::SeqCst);
        }));
        hears.recv().unwrap();
        let flag = SetOnDrop(Arc::clone(&dropped));
        Some(spawn_blocking(move || drop(flag)))
    });
    assert_eq!(runtime.shutdown(patient(Duration::from_secs(10))), 0);
    assert_eq!(ran.load(Ordering::SeqCst), 1, "what ran was not waited for");
    assert_eq!(dropped.load(Ordering::SeqCst), 1, "what waited was not dropped");
    // Whoever awaits it elsewhere learns of it.
    let error = runtime::run(waiting.unwrap()).unwrap().unwrap_err();
    assert!(error.is_cancelled());
    assert_eq!(std::io::Error::from(error).kind(), ErrorKind::Other);
}

#[test]
fn a_job_that_does_not_end_is_left_behind_at_the_deadline() {
    let (release, begun, job) = stuck();
    let mut runtime = Runtime::new().unwrap();
    let task = runtime.block_on(async {
        let task = spawn_blocking(job);
        begun.recv().unwrap();
        Some(task)
    });
    let start = Instant::now();
    assert_eq!(runtime.shutdown(Duration::from_millis(20)), 0);
    assert!(start.elapsed() >= Duration::from_millis(20));
    drop(runtime);
    drop(release);
    runtime::run(task.unwrap()).unwrap().unwrap();
}

#[test]
fn without_a_deadline_the_grace_period_ends_the_wait_for_a_job() {
    let (release, begun, job) = stuck();
    let start = Instant::now();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&lines);
    Builder::new()
        .grace(Duration::from_millis(20))
        .log(move |line| log.lock().unwrap().push(line.to_owned()))
        .run(async {
            drop(spawn_blocking(job));
            begun.recv().unwrap();
        })
        .unwrap();
    assert!(start.elapsed() < patient(Duration::from_secs(5)));
    let lines = lines.lock().unwrap();
    assert!(lines.iter().any(|line| line.contains("left 1 blocking jobs")), "{lines:?}");
    drop(release);
}

#[test]
fn an_outcome_is_awaited_on_any_core() {
    isolated(|| {
        let (hands, takes) = mpsc::channel();
        let takes = Arc::new(Mutex::new(takes));
        Builder::new()
            .cores(2)
            .start_per_core(async move || {
                if runtime::core().index() == 0 {
                    hands.send((spawn_blocking(|| 5), Handle::current())).unwrap();
                } else {
                    let takes = Arc::clone(&takes);
                    let job = spawn_blocking(move || takes.lock().unwrap().recv().unwrap());
                    let (task, _) = job.await.unwrap();
                    assert_eq!(task.await.unwrap(), 5);
                }
            })
            .unwrap();
    });
}

#[test]
fn a_job_of_a_forked_child_is_refused_and_nothing_hangs() {
    isolated(|| {
        if is_instrumented() {
            return;
        }
        runtime::run(async {
            let (release, begun, job) = stuck();
            let running = spawn_blocking(job);
            begun.recv().unwrap();
            // SAFETY: the child calls what a child of threads may call as far as this library goes.
            let child = unsafe { libc::fork() };
            if child == 0 {
                let mut failures = 0;
                let mut context = std::task::Context::from_waker(std::task::Waker::noop());
                for task in [spawn_blocking(|| ()), running] {
                    let outcome = std::pin::pin!(task).as_mut().poll(&mut context);
                    failures += match outcome {
                        std::task::Poll::Ready(Err(error)) => {
                            let error = std::io::Error::from(error);
                            let inner = error.get_ref();
                            i32::from(!inner.is_some_and(|inner| inner.is::<quoit::Forked>()))
                        }
                        _ => 10,
                    };
                }
                // SAFETY: it ends the child without its destructors.
                unsafe { libc::_exit(failures) };
            }
            let mut status = -1;
            // SAFETY: `status` is a place for the answer.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert_eq!(status, 0);
            drop(release);
            running.await.unwrap();
        })
        .unwrap();
    });
}

#[test]
fn jobs_leave_nothing_behind() {
    isolated(|| {
        ledger(Builder::new().max_blocking_threads(4), async || {
            for round in 0..200 {
                let job = spawn_blocking(move || vec![round; 10]);
                if round % 3 == 0 {
                    drop(job);
                } else if round % 5 == 0 {
                    job.abort();
                } else {
                    assert_eq!(job.await.unwrap().len(), 10);
                }
            }
        });
        assert_eq!(threads("quoit-blocking"), 0);
    });
}

#[test]
fn a_job_whose_output_panics_when_it_is_dropped_ends_no_thread() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("a bomb");
        }
    }
    let runtime = Builder::new().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let (release, begun, job) = stuck();
        drop(spawn_blocking(job));
        begun.recv().unwrap();
        drop(spawn_blocking(|| Bomb));
        drop(release);
        assert_eq!(spawn_blocking(|| 3).await.unwrap(), 3);
    });
}

#[test]
#[should_panic(expected = "max_blocking_threads(0)")]
fn a_bound_of_nothing_is_refused() {
    let _ = Builder::new().max_blocking_threads(0);
}
