//! Starting cores, running on them, stopping them.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::error::Error as StdError;
use std::future::{self, Future};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use quoit::net::TcpListener;
use quoit::runtime::{self, Builder, Core, ErrorKind, Handle, Runtime, Signal};
use quoit::time::sleep;

use crate::support::{
    Ledger, Watch, assert_settled, blocks, holds_in_a_fork, in_a_fork, isolated, kill_self, ledger,
    on_every_driver, refuse, scaled, settle, traits,
};

const LONG: Duration = Duration::from_secs(3600);

/// The text of the panic that `f` ends with.
fn panic_of(f: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(f)).unwrap_err();
    let text = panic.downcast_ref::<&str>().map(|text| text.to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap()
}

/// A builder of `count` cores, and the lines that it logs.
fn logged(count: usize) -> (Builder, Arc<Mutex<Vec<String>>>) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&lines);
    let hook = move |line: &str| kept.lock().unwrap().push(line.to_owned());
    (Builder::new().cores(count).log(hook), lines)
}

/// Waits until `total` mains have begun, of which this is one.
async fn all_begun(begun: &AtomicUsize, total: usize) {
    begun.fetch_add(1, Ordering::SeqCst);
    while begun.load(Ordering::SeqCst) < total {
        sleep(Duration::from_millis(1)).await;
    }
}

/// Counts how often one of its kind was dropped.
struct Mark(Arc<AtomicUsize>);

impl Drop for Mark {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn count() -> Arc<AtomicUsize> {
    Arc::default()
}

// ---- One core ----

#[test]
fn run_returns_what_the_future_returns() {
    assert_eq!(runtime::run(async { "done" }).unwrap(), "done");
}

#[test]
fn a_future_and_its_output_may_borrow_and_need_not_be_send() {
    let text = String::from("borrowed");
    let borrowed = Rc::new(Cell::new(0));
    let word = runtime::run(async {
        sleep(Duration::from_millis(1)).await;
        borrowed.set(7);
        text.as_str()
    });
    assert_eq!((word.unwrap(), borrowed.get()), ("borrowed", 7));
}

#[test]
fn sleeps_spawns_and_joins_work_on_every_driver() {
    on_every_driver(|| async {
        let tasks: Vec<_> = (0..scaled(50) as u64)
            .map(|number| {
                quoit::spawn(async move {
                    sleep(Duration::from_micros(number * 100)).await;
                    number
                })
            })
            .collect();
        for (number, task) in tasks.into_iter().enumerate() {
            assert_eq!(task.await.unwrap(), number as u64);
        }
    });
}

#[test]
fn a_runtime_can_be_entered_again_and_its_tasks_rest_in_between() {
    let runtime = Runtime::new().unwrap();
    let steps = Rc::new(Cell::new(0));
    let counter = Rc::clone(&steps);
    let endless = async move {
        loop {
            counter.set(counter.get() + 1);
            quoit::task::yield_now().await;
        }
    };
    let task = runtime.block_on(async { Some(quoit::spawn(endless)) }).unwrap();
    let before = steps.get();
    thread::sleep(Duration::from_millis(2));
    assert_eq!(steps.get(), before);
    runtime.block_on(async { quoit::task::yield_now().await });
    assert!(steps.get() > before);
    task.abort();
    assert!(runtime.run_until_complete(task).unwrap_err().is_cancelled());
}

#[test]
fn a_panic_in_block_on_comes_out_and_the_runtime_goes_on() {
    let runtime = Runtime::new().unwrap();
    assert_eq!(panic_of(|| runtime.block_on(async { panic!("boom") })), "boom");
    assert_eq!(runtime.block_on(async { 1 }), 1);
    settle(&runtime);
}

/// Wakes its own task, and is ready all the same.
async fn wake_and_end(output: Rc<u32>) -> Rc<u32> {
    future::poll_fn(|context| {
        context.waker().wake_by_ref();
        std::task::Poll::Ready(())
    })
    .await;
    output
}

#[test]
fn a_future_that_wakes_itself_and_ends_at_once_keeps_its_output() {
    let runtime = Runtime::new().unwrap();
    let output = Rc::new(7);
    for _ in 0..scaled(100) {
        assert_eq!(*runtime.block_on(wake_and_end(Rc::clone(&output))), 7);
        runtime.block_on(async {
            let kept = quoit::spawn(wake_and_end(Rc::clone(&output)));
            let late = quoit::spawn(wake_and_end(Rc::clone(&output)));
            drop(quoit::spawn(wake_and_end(Rc::clone(&output))));
            assert_eq!(*kept.await.unwrap(), 7);
            quoit::task::yield_now().await;
            assert_eq!(*late.await.unwrap(), 7);
        });
    }
    settle(&runtime);
    assert_eq!(Rc::strong_count(&output), 1);
}

#[test]
fn a_runtime_inside_a_runtime_panics_with_advice() {
    let say = |f: fn()| runtime::run(async move { panic_of(f) }).unwrap();
    let text = say(|| drop(runtime::run(async {})));
    assert!(text.starts_with("runtime::run was called inside a runtime"), "{text}");
    let text = say(|| drop(runtime::start_per_core(async || {})));
    assert!(text.starts_with("runtime::start_per_core was called inside"), "{text}");
    let text = say(|| Runtime::new().unwrap().block_on(async {}));
    assert!(text.starts_with("block_on was called inside a runtime; await the future"), "{text}");
}

#[test]
fn outside_of_a_runtime_the_panics_say_how_to_start_one() {
    for f in [
        || drop(runtime::core()),
        || assert_eq!(runtime::stats().stray, 0),
        || assert!(runtime::driver().is_empty()),
        || drop(Handle::current()),
    ] as [fn(); 4]
    {
        let text = panic_of(f);
        assert!(
            text.contains("outside of a runtime; start one with `quoit::runtime::run`"),
            "{text}"
        );
    }
    assert!(Handle::try_current().is_none());
}

#[test]
fn shutdown_may_be_called_twice_and_block_on_afterwards_says_so() {
    let mut runtime = Runtime::new().unwrap();
    runtime.block_on(async { quoit::spawn(sleep(LONG)).is_finished() });
    assert_eq!(runtime.shutdown(Duration::from_secs(5)), 0);
    assert_eq!(runtime.shutdown(Duration::ZERO), 0);
    assert_settled(&runtime.stats());
    let text = panic_of(|| runtime.block_on(async {}));
    assert!(text.contains("has been shut down; make a new one"), "{text}");
}

#[test]
fn a_shutdown_drops_the_tasks_and_their_own_descendants() {
    struct SpawnsMore(Arc<AtomicUsize>, u32);
    impl Drop for SpawnsMore {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
            if self.1 > 0 {
                let heir = SpawnsMore(Arc::clone(&self.0), self.1 - 1);
                drop(quoit::spawn(async move {
                    future::pending::<()>().await;
                    drop(heir)
                }));
            }
        }
    }
    let drops = count();
    let mut runtime = Runtime::new().unwrap();
    let first = SpawnsMore(Arc::clone(&drops), 3);
    runtime.block_on(async move {
        drop(quoit::spawn(async move {
            future::pending::<()>().await;
            drop(first)
        }));
    });
    assert_eq!(runtime.shutdown(Duration::from_secs(5)), 0);
    assert_eq!(drops.load(Ordering::SeqCst), 4);
}

#[test]
fn tasks_are_dropped_inside_of_the_runtime_and_before_its_end() {
    struct Asks(Rc<Cell<bool>>);
    impl Drop for Asks {
        fn drop(&mut self) {
            self.0.set(Handle::try_current().is_some() && runtime::driver() == traits().name);
        }
    }
    let was_inside = Rc::new(Cell::new(false));
    let asks = Asks(Rc::clone(&was_inside));
    runtime::run(async move {
        drop(quoit::spawn(async move {
            future::pending::<()>().await;
            drop(asks)
        }));
    })
    .unwrap();
    assert!(was_inside.get());
}

#[test]
fn handles_that_outlive_their_runtime_can_be_dropped() {
    let runtime = Runtime::new().unwrap();
    let (task, handle) = runtime.block_on(async { (quoit::spawn(sleep(LONG)), Handle::current()) });
    let mut nap = Box::pin(sleep(LONG));
    runtime.block_on(future::poll_fn(|context| {
        assert!(nap.as_mut().poll(context).is_pending());
        std::task::Poll::Ready(())
    }));
    drop(runtime);
    task.abort();
    drop((task, nap));
    assert!(handle.call_soon(|| ()).is_err());
    assert!(handle.spawn_on(async || ()).is_err());
}

#[test]
fn dropping_a_runtime_never_hangs_and_leaves_no_descriptor() {
    isolated(|| {
        let ledger = Ledger::open();
        for _ in 0..scaled(20) {
            let runtime = Runtime::new().unwrap();
            runtime.block_on(async {
                for _ in 0..100 {
                    drop(quoit::spawn(sleep(LONG)));
                }
                quoit::task::yield_now().await;
            });
            drop(runtime);
        }
        ledger.close();
    });
}

#[test]
fn a_runtime_leaves_nothing_behind() {
    isolated(|| {
        for builder in [Builder::new(), Builder::new().deadline_in_wait(true)] {
            let word = ledger(builder, async || {
                sleep(Duration::from_millis(1)).await;
                drop(quoit::spawn(sleep(Duration::from_millis(2))));
                "kept"
            });
            assert_eq!(word, "kept");
        }
    });
}

#[test]
fn stats_count_what_happens() {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let nap = quoit::spawn(sleep(LONG));
        sleep(Duration::from_millis(1)).await;
        let stats = runtime::stats();
        assert_eq!((stats.tasks, stats.timers, stats.stray), (2, 1, 0));
        assert!(stats.enters > 0 && stats.polls >= 2 && stats.sqes > 0 && stats.cqes > 0);
        assert_eq!(stats, runtime::core().stats());
        nap.abort();
        assert!(nap.await.unwrap_err().is_cancelled());
    });
    settle(&runtime);
    assert_eq!(runtime.stats().fruitless_laps, 0);
}

#[test]
fn an_idle_core_sleeps_in_the_kernel() {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(sleep(Duration::from_millis(1)));
    let before = runtime.stats();
    runtime.block_on(sleep(Duration::from_millis(50)));
    let after = runtime.stats();
    assert!(after.enters - before.enters <= 4, "{before:#?} {after:#?}");
    assert_eq!(after.fruitless_laps, before.fruitless_laps);
}

#[test]
fn the_current_core_of_run_is_alone() {
    runtime::run(async {
        let core = runtime::core();
        assert_eq!((core.index(), core.count()), (0, 1));
        assert_eq!(core.id(), Handle::current().id());
        assert!(!core.is_stopping() && core.deadline().is_none());
        assert_eq!(runtime::driver(), traits().name);
    })
    .unwrap();
}

// ---- A kernel that does not answer ----

/// A builder whose kernel refuses every enter while `refuses`.
fn refusing(builder: Builder, refuses: &Arc<AtomicBool>) -> Builder {
    let refuses = Arc::clone(refuses);
    builder.enter_faults(move |_| {
        let refuses = Arc::clone(&refuses);
        Box::new(move |_| refuses.load(Ordering::SeqCst).then_some((libc::EAGAIN, 0)))
    })
}

/// Starts an accept that nobody will answer.
async fn accept_for_ever() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let accept = quoit::spawn(async move { listener.accept().await });
    sleep(Duration::from_millis(1)).await;
    assert!(!accept.is_finished() && runtime::stats().live_ops > 0);
    drop(accept);
}

/// Runs what leaks on purpose in a forked child, which leaves without a look at leaks. No ring may
/// be open yet, for only then the child may have a runtime of its own.
fn leaking(body: impl FnOnce()) {
    assert!(holds_in_a_fork(|| {
        body();
        true
    }));
}

#[test]
fn a_shutdown_that_is_not_answered_ends_at_its_deadline_and_says_what_it_left() {
    isolated(|| {
        leaking(|| {
            let refuses = Arc::new(AtomicBool::new(false));
            let (builder, lines) = logged(1);
            let mut runtime = refusing(builder, &refuses).build().unwrap();
            runtime.block_on(accept_for_ever());
            refuses.store(true, Ordering::SeqCst);
            assert_eq!(runtime.shutdown(Duration::from_millis(20)), 1);
            assert_eq!(runtime.shutdown(Duration::from_millis(20)), 0);
            let text = "shutdown left 1 operations behind; their memory is leaked";
            assert_eq!(*lines.lock().unwrap(), [text]);
        });
    });
}

#[test]
fn a_drop_waits_for_the_last_answer_and_says_so_each_second() {
    let refuses = Arc::new(AtomicBool::new(false));
    let (mends, lines) = (Arc::clone(&refuses), Arc::new(Mutex::new(Vec::new())));
    let kept = Arc::clone(&lines);
    let builder = Builder::new().log(move |line| {
        mends.store(false, Ordering::SeqCst);
        kept.lock().unwrap().push(line.to_owned());
    });
    let runtime = refusing(builder, &refuses).build().unwrap();
    runtime.block_on(accept_for_ever());
    refuses.store(true, Ordering::SeqCst);
    drop(runtime);
    assert_eq!(*lines.lock().unwrap(), ["shutdown waits for 1 operations since 1 s"]);
}

#[test]
fn a_drain_deadline_holds_for_a_drop_too() {
    isolated(|| {
        leaking(|| {
            let refuses = Arc::new(AtomicBool::new(false));
            let builder = Builder::new().drain_deadline(Duration::from_millis(20));
            let runtime = refusing(builder, &refuses).build().unwrap();
            runtime.block_on(accept_for_ever());
            refuses.store(true, Ordering::SeqCst);
            let start = Instant::now();
            drop(runtime);
            assert!(start.elapsed() >= Duration::from_millis(20));
        });
    });
}

#[test]
fn an_enter_that_nobody_can_mend_is_logged_and_ends_the_process() {
    isolated(|| {
        let ends_how = |logs: bool| {
            in_a_fork(|| {
                let builder = Builder::new().log(move |line| {
                    if logs && line.contains("the process ends") {
                        // SAFETY: the forked child's one thread ends here.
                        unsafe { libc::_exit(7) };
                    }
                });
                let fault = |_| -> Box<dyn FnMut(u32) -> Option<(i32, u32)>> {
                    Box::new(|_| Some((libc::EFAULT, 0)))
                };
                drop(builder.enter_faults(fault).run(sleep(LONG)));
                true
            })
        };
        // No ring is open here yet, so a forked child may have a runtime of its own.
        let logged = ends_how(true);
        assert!(libc::WIFEXITED(logged) && libc::WEXITSTATUS(logged) == 7);
        let aborted = ends_how(false);
        assert!(libc::WIFSIGNALED(aborted) && libc::WTERMSIG(aborted) == libc::SIGABRT);
    });
}

// ---- From other threads ----

#[test]
fn a_handle_calls_back_in_order_from_another_thread() {
    let runtime = Runtime::new().unwrap();
    let handle = runtime.handle();
    let total = scaled(1000);
    let (sender, seen) = std::sync::mpsc::channel();
    let caller = thread::spawn(move || {
        for number in 0..total {
            let sender = sender.clone();
            handle.call_soon(move || sender.send(number).unwrap()).unwrap();
        }
        handle.spawn_on(async || ()).unwrap()
    });
    runtime.block_on(async {
        while !caller.is_finished() {
            sleep(Duration::from_millis(1)).await;
        }
        caller.join().unwrap().await.unwrap();
    });
    assert!(seen.into_iter().eq(0..total));
}

#[test]
fn a_call_from_another_thread_ends_a_sleep() {
    let watch = Watch::over("while it sleeps");
    runtime::run(async {
        let handle = Handle::current();
        let task = Arc::new(quoit::spawn(future::pending::<()>()));
        let (aborts, is_seen) = (Arc::clone(&task), Arc::new(AtomicBool::new(false)));
        let ends = Arc::clone(&is_seen);
        let caller = thread::spawn(move || {
            // Long enough for the core to have gone to sleep, unless something has kept it.
            while !ends.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(20));
                let aborts = Arc::clone(&aborts);
                handle.call_soon(move || aborts.abort()).unwrap();
            }
        });
        let mut polled = 0;
        while !task.is_finished() || runtime::core().stats().remote_wakes == 0 {
            polled += 1;
            assert!(polled < 1000);
            sleep(Duration::from_millis(100)).await;
        }
        is_seen.store(true, Ordering::Relaxed);
        caller.join().unwrap();
    })
    .unwrap();
    watch.ends();
}

#[test]
fn a_panic_of_a_callback_is_counted_and_logged_and_ends_nothing() {
    let (builder, lines) = logged(1);
    let runtime = builder.build().unwrap();
    runtime.handle().call_soon(|| panic!("from afar")).unwrap();
    runtime.block_on(async { quoit::task::yield_now().await });
    assert_eq!(runtime.stats().caught_panics, 1);
    assert_eq!(*lines.lock().unwrap(), ["core 0: a callback panicked: from afar"]);
}

#[test]
fn a_callback_that_panics_when_it_is_dropped_does_not_keep_a_core_from_ending() {
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            panic!("at the end");
        }
    }
    let (builder, lines) = logged(1);
    let mut runtime = builder.build().unwrap();
    let panics = Panics;
    runtime.handle().call_soon(move || drop(panics)).unwrap();
    assert_eq!(runtime.shutdown(Duration::from_secs(5)), 0);
    assert_eq!(*lines.lock().unwrap(), ["core 0: a callback panicked: at the end"]);
}

#[test]
fn a_log_hook_that_panics_stops_nothing() {
    let builder = Builder::new().cores(2).log(|_| panic!("no log today"));
    let error = builder.start_per_core(async |core: Core| -> Result<(), &'static str> {
        if core.index() == 0 {
            return Err("logged");
        }
        core.shutdown().await;
        Ok(())
    });
    assert_eq!(error.unwrap_err().to_string(), "the main of core 0 failed: logged");
}

#[test]
fn spawn_on_runs_what_is_not_send_and_gives_the_output_to_any_thread() {
    let runtime = Runtime::new().unwrap();
    let handle = runtime.handle();
    let caller = thread::spawn(move || {
        let good = handle.spawn_on(|| async {
            let local = Rc::new(5);
            sleep(Duration::from_millis(1)).await;
            *local + runtime::core().index()
        });
        let good = good.unwrap().wait().unwrap();
        let bad = handle.spawn_on(async || panic!("there")).unwrap().wait().unwrap_err();
        // The closure's own panic is the task's too.
        let worse = handle.spawn_on(|| -> future::Ready<()> { panic!("before") });
        let worse = worse.unwrap().wait().unwrap_err();
        (good, bad.to_string(), worse.to_string())
    });
    let outcome = runtime.block_on(async {
        while !caller.is_finished() {
            sleep(Duration::from_millis(1)).await;
        }
        caller.join().unwrap()
    });
    assert_eq!(outcome.0, 5);
    assert_eq!(outcome.1, "the task panicked: there");
    assert_eq!(outcome.2, "the task panicked: before");
    settle(&runtime);
}

#[test]
fn a_remote_task_whose_core_ends_is_cancelled() {
    let runtime = Runtime::new().unwrap();
    let accepted = runtime.handle().spawn_on(async || ()).unwrap();
    let running = runtime.handle().spawn_on(future::pending::<()>).unwrap();
    runtime.block_on(async { quoit::task::yield_now().await });
    let in_the_inbox = runtime.handle().spawn_on(async || ()).unwrap();
    drop(runtime);
    assert!(accepted.wait().is_ok());
    assert!(running.wait().unwrap_err().is_cancelled());
    assert!(in_the_inbox.wait().unwrap_err().is_cancelled());
}

#[test]
fn a_remote_task_may_be_awaited_on_another_core() {
    let (sender, handles) = std::sync::mpsc::channel();
    let handles = Mutex::new(Some(handles));
    let sums = count();
    let sum = Arc::clone(&sums);
    Builder::new()
        .cores(2)
        .start_per_core(async move || {
            if runtime::core().index() == 0 {
                sender.send(Handle::current()).unwrap();
                while sum.load(Ordering::SeqCst) == 0 {
                    sleep(Duration::from_millis(1)).await;
                }
            } else {
                let other = handles.lock().unwrap().take().unwrap().recv().unwrap();
                let index = other.spawn_on(async || runtime::core().index() + 10).unwrap();
                sum.store(index.await.unwrap(), Ordering::SeqCst);
            }
        })
        .unwrap();
    assert_eq!(sums.load(Ordering::SeqCst), 10);
}

// ---- A core on every CPU ----

async fn returns_nothing() {}

async fn returns_ok() -> io::Result<()> {
    Ok(())
}

async fn takes_a_core(core: Core) -> Result<(), Box<dyn StdError>> {
    assert!(core.index() < core.count());
    Ok(())
}

async fn never_returns() -> ! {
    loop {
        future::pending::<()>().await;
    }
}

#[test]
fn every_form_of_main_is_run() {
    let two = || Builder::new().cores(2);
    runtime::start_per_core(returns_nothing).unwrap();
    two().start_per_core(returns_ok).unwrap();
    two().start_per_core(takes_a_core).unwrap();
    two().start_per_core(async || {}).unwrap();
    two().start_per_core(async |_: Core| io::Result::Ok(())).unwrap();
    let name = String::from("captured");
    let closure = move || {
        let name = name.clone();
        async move { assert_eq!(*Rc::new(name), "captured") }
    };
    two().start_per_core(closure).unwrap();
    // Both are stopped by the error of one.
    let error = two()
        .start_per_core(async || -> Result<std::convert::Infallible, String> {
            match runtime::core().index() {
                0 => Err("first".into()),
                _ => never_returns().await,
            }
        })
        .unwrap_err();
    assert_eq!(error.to_string(), "the main of core 0 failed: first");
}

#[test]
fn each_core_has_its_index_and_its_own_number() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let seats = Arc::clone(&seen);
    Builder::new()
        .cores(4)
        .thread_name("seat")
        .start_per_core(async move |core: Core| {
            let name = thread::current().name().unwrap().to_owned();
            seats.lock().unwrap().push((core.index(), core.count(), core.id(), name));
        })
        .unwrap();
    let mut seen = seen.lock().unwrap().clone();
    seen.sort();
    for (index, seat) in seen.iter().enumerate() {
        assert_eq!((seat.0, seat.1, seat.3.as_str()), (index, 4, format!("seat-{index}").as_str()));
    }
    assert_eq!(seen.iter().map(|seat| seat.2).collect::<BTreeSet<_>>().len(), 4);
}

fn allowed_cpus() -> Vec<usize> {
    // SAFETY: the set is a place for the answer.
    unsafe {
        let mut set = std::mem::zeroed::<libc::cpu_set_t>();
        let size = size_of_val(&set);
        assert_eq!(libc::sched_getaffinity(0, size, &raw mut set), 0);
        (0..libc::CPU_SETSIZE as usize).filter(|&cpu| libc::CPU_ISSET(cpu, &set)).collect()
    }
}

#[test]
fn cores_are_pinned_to_distinct_cpus() {
    let before = allowed_cpus();
    let pins = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&pins);
    let (builder, lines) = logged(1);
    builder
        .cores(before.len())
        .start_per_core(async move || seen.lock().unwrap().push(allowed_cpus()))
        .unwrap();
    let pins = pins.lock().unwrap().clone();
    assert!(pins.iter().all(|mask| mask.len() == 1), "{pins:?}");
    assert_eq!(
        pins.into_iter().flatten().collect::<BTreeSet<_>>(),
        before.iter().copied().collect()
    );
    assert_eq!(allowed_cpus(), before, "the calling thread stays as it was");
    assert!(lines.lock().unwrap().is_empty());
}

#[test]
fn cores_run_where_they_are_told_or_unpinned() {
    let last = *allowed_cpus().last().unwrap();
    let told = async move || assert_eq!(allowed_cpus(), [last]);
    Builder::new().cpus([last]).start_per_core(told).unwrap();
    let all = allowed_cpus();
    let unpinned = async move || assert_eq!(allowed_cpus(), all);
    Builder::new().cores(1).pin(false).start_per_core(unpinned).unwrap();
}

#[test]
fn a_pin_that_fails_is_a_line_in_the_log() {
    isolated(|| {
        refuse(libc::SYS_sched_setaffinity, libc::EPERM);
        let (builder, lines) = logged(1);
        let all = allowed_cpus();
        let unpinned = async move || assert_eq!(allowed_cpus(), all);
        builder.start_per_core(unpinned).unwrap();
        let lines = lines.lock().unwrap();
        assert!(lines[0].starts_with("core 0 could not be pinned to CPU "), "{lines:?}");
    });
}

#[test]
fn the_first_error_stops_the_others_and_names_its_core() {
    let (stopped, drops) = (count(), count());
    let (told, marks) = (Arc::clone(&stopped), Arc::clone(&drops));
    let error = Builder::new()
        .cores(4)
        .start_per_core(async move |core: Core| -> io::Result<()> {
            let _mark = Mark(Arc::clone(&marks));
            if core.index() == 2 {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, "no port left"));
            }
            core.shutdown().await;
            assert!(core.is_stopping() && core.deadline().unwrap() > quoit::time::Instant::now());
            // On every clone, and any number of times.
            core.clone().shutdown().await;
            core.shutdown().await;
            told.fetch_add(1, Ordering::SeqCst);
            Ok(())
        })
        .unwrap_err();
    assert_eq!((error.kind(), error.core()), (ErrorKind::Main, Some(2)));
    assert_eq!(error.to_string(), "the main of core 2 failed: no port left");
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::AddrInUse);
    assert_eq!((stopped.load(Ordering::SeqCst), drops.load(Ordering::SeqCst)), (3, 4));
}

#[test]
fn an_error_drops_mains_that_take_no_core_at_once() {
    let drops = count();
    let (marks, begun) = (Arc::clone(&drops), count());
    let start = Instant::now();
    let error = Builder::new()
        .cores(3)
        .grace(LONG)
        .start_per_core(async move || -> Result<(), Box<dyn StdError + Send + Sync>> {
            let _mark = Mark(Arc::clone(&marks));
            all_begun(&begun, 3).await;
            match runtime::core().index() {
                1 => Err("enough")?,
                _ => sleep(LONG).await,
            }
            Ok(())
        })
        .unwrap_err();
    assert_eq!(error.to_string(), "the main of core 1 failed: enough");
    assert_eq!(drops.load(Ordering::SeqCst), 3);
    assert!(start.elapsed() < LONG / 60);
}

#[test]
fn a_panic_of_main_is_returned_with_its_core_and_its_payload() {
    let error = Builder::new()
        .cores(3)
        .start_per_core(async |core: Core| {
            if core.index() == 1 {
                panic!("core {} is unhappy", core.index());
            }
            core.shutdown().await;
        })
        .unwrap_err();
    assert_eq!((error.kind(), error.core()), (ErrorKind::Panic, Some(1)));
    assert_eq!(error.to_string(), "the main of core 1 panicked: core 1 is unhappy");
    let panic = error.try_into_panic().unwrap();
    assert_eq!(panic.downcast_ref::<String>().unwrap(), "core 1 is unhappy");
}

#[test]
fn a_panic_before_the_first_await_is_a_panic_of_main() {
    let main = |core: Core| -> future::Ready<()> {
        panic!("core {} never began", core.index());
    };
    let error = Builder::new().cores(1).start_per_core(main).unwrap_err();
    assert_eq!(error.to_string(), "the main of core 0 panicked: core 0 never began");
}

#[test]
fn a_panic_in_a_task_is_not_a_panic_of_main() {
    Builder::new()
        .cores(2)
        .start_per_core(async || {
            let task = quoit::spawn(async { panic!("only the task") });
            assert!(task.await.unwrap_err().is_panic());
        })
        .unwrap();
}

#[test]
fn errors_after_the_first_are_logged() {
    let (builder, lines) = logged(2);
    let error = builder
        .start_per_core(async |core: Core| -> Result<(), String> {
            if core.index() == 1 {
                core.shutdown().await;
            }
            Err(format!("error {}", core.index()))
        })
        .unwrap_err();
    assert_eq!(error.core(), Some(0));
    let lines = lines.lock().unwrap();
    assert_eq!(lines[0], "core 0 has failed: the cores are asked to stop within 10s");
    assert_eq!(lines[1], "also: the main of core 1 failed: error 1");
}

#[test]
fn ok_ends_only_its_own_core() {
    let drops = count();
    let marks = Arc::clone(&drops);
    let (ended, others) = (Arc::new(AtomicBool::new(false)), count());
    let seen = Arc::clone(&others);
    Builder::new()
        .cores(3)
        .start_per_core(async move |core: Core| {
            if core.index() == 0 {
                let mark = Mark(Arc::clone(&marks));
                drop(quoit::spawn(async move {
                    sleep(LONG).await;
                    drop(mark)
                }));
                ended.store(true, Ordering::SeqCst);
                return;
            }
            while !ended.load(Ordering::SeqCst) || marks.load(Ordering::SeqCst) == 0 {
                sleep(Duration::from_millis(1)).await;
            }
            sleep(Duration::from_millis(10)).await;
            assert!(!core.is_stopping());
            seen.fetch_add(1, Ordering::SeqCst);
        })
        .unwrap();
    assert_eq!((others.load(Ordering::SeqCst), drops.load(Ordering::SeqCst)), (2, 1));
}

#[test]
fn a_main_that_ignores_the_stop_is_dropped_after_the_grace_period() {
    let drops = count();
    let (marks, begun) = (Arc::clone(&drops), count());
    let error = Builder::new()
        .cores(2)
        .grace(Duration::from_millis(20))
        .start_per_core(async move |core: Core| -> Result<(), &'static str> {
            let _mark = (core.index() == 1).then(|| Mark(Arc::clone(&marks)));
            all_begun(&begun, 2).await;
            if core.index() == 0 {
                return Err("stop");
            }
            sleep(LONG).await;
            Ok(())
        })
        .unwrap_err();
    assert_eq!((error.core(), drops.load(Ordering::SeqCst)), (Some(0), 1));
}

#[test]
fn the_thread_that_starts_gets_its_signal_mask_back() {
    isolated(|| {
        Builder::new().cores(1).start_per_core(async || assert!(blocks(libc::SIGTERM))).unwrap();
        assert!(!blocks(libc::SIGTERM) && !blocks(libc::SIGINT));
        let only = Builder::new().cores(1).shutdown_on([Signal::INT]);
        only.start_per_core(async || assert!(blocks(libc::SIGINT) && !blocks(libc::SIGTERM)))
            .unwrap();
        let none = Builder::new().cores(1).shutdown_on([]);
        none.start_per_core(async || assert!(!blocks(libc::SIGINT) && !blocks(libc::SIGTERM)))
            .unwrap();
    });
}

#[test]
fn a_signal_drops_mains_that_take_no_core_at_once() {
    isolated(|| {
        for signal in [libc::SIGINT, libc::SIGTERM] {
            let ledger = Ledger::open();
            let drops = count();
            let (marks, begun) = (Arc::clone(&drops), count());
            let builder = Builder::new().cores(2).grace(LONG);
            builder
                .start_per_core(async move || -> io::Result<()> {
                    let _mark = Mark(Arc::clone(&marks));
                    all_begun(&begun, 2).await;
                    if runtime::core().index() == 0 {
                        kill_self(signal);
                    }
                    sleep(LONG).await;
                    Err(io::Error::other("it was not stopped"))
                })
                .unwrap();
            assert_eq!(drops.load(Ordering::SeqCst), 2);
            ledger.close();
        }
    });
}

#[test]
fn a_signal_gives_mains_that_take_a_core_the_grace_period() {
    isolated(|| {
        let ended = count();
        let ends = Arc::clone(&ended);
        let (builder, lines) = logged(2);
        builder
            .grace(LONG)
            .start_per_core(async move |core: Core| -> io::Result<()> {
                let worker = quoit::spawn({
                    let core = core.clone();
                    async move { core.shutdown().await }
                });
                if core.index() == 1 {
                    kill_self(libc::SIGTERM);
                }
                core.shutdown().await;
                worker.await.unwrap();
                // What takes a while is let finish.
                sleep(Duration::from_millis(20)).await;
                ends.fetch_add(1, Ordering::SeqCst);
                Ok(())
            })
            .unwrap();
        assert_eq!(ended.load(Ordering::SeqCst), 2);
        assert_eq!(lines.lock().unwrap()[0], "SIGTERM: the cores are asked to stop within 3600s");
    });
}

#[test]
fn an_error_within_the_grace_period_is_returned() {
    isolated(|| {
        let main = async |core: Core| -> Result<(), &'static str> {
            kill_self(libc::SIGINT);
            core.shutdown().await;
            Err("could not save")
        };
        let error = Builder::new().cores(1).start_per_core(main).unwrap_err();
        assert_eq!(error.to_string(), "the main of core 0 failed: could not save");
    });
}

#[test]
fn the_grace_period_ends_for_mains_that_do_not() {
    isolated(|| {
        let (builder, lines) = logged(2);
        builder
            .grace(Duration::from_millis(20))
            .start_per_core(async |core: Core| {
                if core.index() == 0 {
                    kill_self(libc::SIGTERM);
                }
                core.shutdown().await;
                sleep(LONG).await;
            })
            .unwrap();
        assert!(lines.lock().unwrap().contains(&"the grace period is over".to_owned()));
    });
}

#[test]
fn a_second_signal_skips_the_grace_period() {
    isolated(|| {
        let (builder, lines) = logged(2);
        let start = Instant::now();
        builder
            .grace(LONG)
            .start_per_core(async |core: Core| {
                if core.index() == 0 {
                    kill_self(libc::SIGINT);
                }
                core.shutdown().await;
                if core.index() == 1 {
                    kill_self(libc::SIGINT);
                }
                sleep(LONG).await;
            })
            .unwrap();
        assert!(start.elapsed() < LONG / 60);
        let skipped = "SIGINT again: the grace period is skipped".to_owned();
        assert!(lines.lock().unwrap().contains(&skipped));
    });
}

#[test]
fn signals_that_come_while_the_cores_stop_do_not_kill_afterwards() {
    isolated(|| {
        Builder::new()
            .cores(1)
            .start_per_core(async |core: Core| {
                kill_self(libc::SIGTERM);
                core.shutdown().await;
                kill_self(libc::SIGINT);
                kill_self(libc::SIGTERM);
            })
            .unwrap();
        assert!(!blocks(libc::SIGTERM));
    });
}

#[test]
fn cores_leave_no_descriptor_however_they_end() {
    isolated(|| {
        let ledger = Ledger::open();
        for round in 0..scaled(10) {
            let outcome = Builder::new().cores(3).start_per_core(async move |core: Core| {
                drop(quoit::spawn(sleep(LONG)));
                quoit::task::yield_now().await;
                match (round % 3, core.index()) {
                    (0, 1) => Err("an end by error"),
                    (1, 2) => panic!("an end by panic"),
                    (2, _) => Ok(()),
                    _ => {
                        core.shutdown().await;
                        Ok(())
                    }
                }
            });
            assert_eq!(outcome.is_ok(), round % 3 == 2);
        }
        ledger.close();
    });
}

// ---- Forks ----

#[test]
fn a_forked_child_is_told_that_the_runtime_stayed_with_the_parent() {
    isolated(|| {
        let runtime = Runtime::new().unwrap();
        runtime.block_on(sleep(Duration::from_millis(1)));
        assert!(holds_in_a_fork(|| {
            let text = panic_of(|| runtime.block_on(sleep(LONG)));
            text.starts_with("block_on was called in a forked child")
        }));
        assert!(holds_in_a_fork(|| {
            let error = runtime::run(async {}).unwrap_err();
            error.kind() == ErrorKind::Start && error.to_string().contains("forked")
        }));
        assert!(holds_in_a_fork(|| {
            let error = Builder::new().cores(2).start_per_core(async || {}).unwrap_err();
            error.to_string().contains("the runtime stayed there")
        }));
        // The parent's goes on as if nothing had happened.
        runtime.block_on(sleep(Duration::from_millis(1)));
    });
}

#[test]
fn a_child_that_was_forked_inside_of_a_runtime_cannot_go_on_there() {
    isolated(|| {
        let runtime = Runtime::new().unwrap();
        let is_child = Cell::new(false);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            runtime.block_on(async {
                sleep(Duration::from_millis(1)).await;
                // SAFETY: the child goes on here, and leaves by `_exit` below.
                let pid = unsafe { libc::fork() };
                is_child.set(pid == 0);
                sleep(Duration::from_millis(10)).await;
                pid
            })
        }));
        if is_child.get() {
            // SAFETY: the child's one thread ends here.
            unsafe { libc::_exit(if outcome.is_err() { 0 } else { 1 }) };
        }
        let mut status = 0;
        // SAFETY: `status` is a place for the answer.
        unsafe { libc::waitpid(outcome.unwrap(), &raw mut status, 0) };
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0);
    });
}
