//! Polls that keep their core: who is named, where, and who is not.

use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use quoit::runtime::{Builder, core, run};
use quoit::task::{self, OnPanic};
use quoit::time::sleep;

use crate::support::{isolated, patient};

/// What the log was told.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn builder(&self, threshold: Duration) -> Builder {
        let lines = self.0.clone();
        let hook = move |line: &str| lines.lock().unwrap().push(line.to_owned());
        Builder::new().stall_threshold(threshold).log(hook)
    }

    /// The lines about polls that took too long.
    fn stalls(&self) -> Vec<String> {
        let lines = self.0.lock().unwrap();
        lines.iter().filter(|line| line.contains(" kept its core for ")).cloned().collect()
    }

    fn with(&self, text: &str) -> Vec<String> {
        let lines = self.0.lock().unwrap();
        lines.iter().filter(|line| line.contains(text)).cloned().collect()
    }
}

/// Far more than an ordinary poll takes, also on a busy machine.
const THRESHOLD: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_millis(220);

#[test]
fn a_poll_that_takes_too_long_is_told_with_its_task_and_where_that_was_spawned() {
    let log = Log::default();
    let line = line!() + 4;
    log.builder(THRESHOLD)
        .run(async {
            // Each on a line of its own.
            quoit::spawn(async { thread::sleep(LONG) }).await.unwrap();
            let rude = task::Builder::new().name("rude").spawn(async { thread::sleep(LONG) });
            rude.await.unwrap();
            quoit::spawn(async { sleep(Duration::from_millis(1)).await }).await.unwrap();
            assert_eq!(core().stats().stalls, 2);
        })
        .unwrap();
    let told = log.stalls();
    assert_eq!(told.len(), 2, "{told:?}");
    let nameless = format!("core 0: the task that was spawned at {}:{line}:", file!());
    let named = format!("core 0: the task \"rude\", spawned at {}:{}:", file!(), line + 1);
    assert!(told[0].starts_with(&nameless), "{told:?}");
    assert!(told[1].starts_with(&named), "{told:?}");
    let end = format!(", longer than {THRESHOLD:?}");
    for line in told {
        let took = line.split_once(" kept its core for ").unwrap().1.strip_suffix(&end).unwrap();
        assert!(took.ends_with("ms") || took.ends_with('s'), "{line}");
    }
}

#[test]
fn the_main_callbacks_and_what_threads_send_are_looked_at_too() {
    let log = Log::default();
    let runtime = log.builder(THRESHOLD).build().unwrap();
    runtime.handle().call_soon(|| thread::sleep(LONG)).unwrap();
    let line = line!() + 1;
    runtime.block_on(async {
        quoit::call_later(Duration::from_millis(1), || thread::sleep(LONG));
        sleep(Duration::from_millis(2)).await;
        thread::sleep(LONG);
    });
    let told = log.stalls();
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].starts_with("core 0: what another thread sent kept"), "{told:?}");
    assert!(told[1].starts_with("core 0: what was due at a time kept"), "{told:?}");
    let main = format!("core 0: the task that was spawned at {}:{line}:", file!());
    assert!(told[2].starts_with(&main), "{told:?}");
}

#[test]
fn a_poll_that_stalls_and_then_panics_is_told_once_and_as_that_task() {
    let log = Log::default();
    let line = line!() + 4;
    let runtime = log.builder(THRESHOLD).on_panic(OnPanic::Isolate).build().unwrap();
    runtime.block_on(async {
        // The poll that comes next must not be blamed.
        let rude = quoit::spawn(async { panic_after(LONG) });
        assert!(rude.await.is_err());
        quoit::spawn(async {}).await.unwrap();
    });
    let told = log.stalls();
    assert!(told.len() == 1 && told[0].contains(&format!(":{line}:")), "{told:?}");
}

fn panic_after(time: Duration) {
    thread::sleep(time);
    panic!("at the end");
}

#[test]
fn a_poll_that_does_not_return_is_told_of_while_it_runs() {
    // A process of its own: the watchdog is there for all cores of one.
    isolated(|| {
        let log = Log::default();
        let (release, held) = mpsc::channel::<()>();
        let seen = log.clone();
        let other = thread::spawn(move || {
            let start = Instant::now();
            while seen.with("does not come back").is_empty() {
                assert!(start.elapsed() < patient(Duration::from_secs(20)), "nobody told");
                thread::sleep(Duration::from_millis(1));
            }
            assert!(thread_names().contains(&"quoit-watchdog".to_owned()));
            release.send(()).unwrap();
        });
        log.builder(Duration::from_millis(5))
            .run(async {
                let stuck = task::Builder::new().name("stuck").spawn(async move { held.recv() });
                stuck.await.unwrap().unwrap();
            })
            .unwrap();
        other.join().unwrap();
        let told = log.with("does not come back");
        assert_eq!(told.len(), 1, "it was told twice, or not at all: {told:?}");
        assert!(told[0].starts_with("core 0: the task \"stuck\", spawned at "), "{told:?}");
        // It told again when it had ended. (A slow machine may stall others too.)
        let stalls = log.stalls();
        assert_eq!(
            stalls.iter().filter(|line| line.contains("\"stuck\"")).count(),
            1,
            "{stalls:?}"
        );
        // Nobody is left to watch.
        let start = Instant::now();
        while thread_names().contains(&"quoit-watchdog".to_owned()) {
            assert!(start.elapsed() < patient(Duration::from_secs(20)), "the watchdog stays");
            thread::sleep(Duration::from_millis(1));
        }
    });
}

fn thread_names() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let name = |path: std::path::PathBuf| std::fs::read_to_string(path.join("comm")).ok();
    let names = tasks.filter_map(|task| name(task.unwrap().path()));
    names.map(|name| name.trim().to_owned()).collect()
}

#[test]
fn a_core_without_a_threshold_tells_nothing() {
    let log = Log::default();
    let lines = log.0.clone();
    Builder::new()
        .log(move |line| lines.lock().unwrap().push(line.to_owned()))
        .run(async {
            thread::sleep(LONG);
            assert_eq!(core().stats().stalls, 0);
        })
        .unwrap();
    assert!(log.stalls().is_empty());
}

#[test]
#[should_panic(expected = "stall_threshold(0): every poll takes some time")]
fn a_threshold_of_zero_is_refused() {
    let _ = Builder::new().stall_threshold(Duration::ZERO);
}

#[test]
fn the_longest_threshold_is_none() {
    let log = Log::default();
    log.builder(Duration::MAX).run(async { quoit::spawn(async {}).await.unwrap() }).unwrap();
    assert!(log.stalls().is_empty());
    run(async {}).unwrap();
}
