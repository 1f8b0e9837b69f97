//! What a task has beside its future: a name, the place of its spawn, its values, its budget; and what
//! becomes of the others when it panics.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quoit::runtime::{Builder, Runtime, core, run};
use quoit::task::{self, LocalKey, OnPanic, consume_budget, yield_now};
use quoit::time::sleep;

use crate::support::{isolated, on_every_driver};

/// What was told of the panics of a runtime.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    fn push(&self, text: impl Into<String>) {
        self.0.lock().unwrap().push(text.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

#[test]
fn a_panic_tells_the_name_of_its_task_and_where_that_was_spawned() {
    let told = Told::default();
    let heard = told.clone();
    let builder = Builder::new().on_panic_with(move |panic| {
        let at = panic.spawned_at();
        assert!(at.file().ends_with("task_builder.rs"), "{at}");
        assert_eq!(panic.payload().downcast_ref(), Some(&"ouch"));
        heard.push(format!("{} {:?} {}", panic.core_index(), panic.name(), at.line()));
        heard.push(panic.to_string());
        OnPanic::Isolate
    });
    let line = line!() + 3;
    builder
        .run(async {
            let nameless = quoit::spawn(async { panic!("ouch") });
            let named = task::Builder::new().name("porter").spawn(async { panic!("ouch") });
            assert!(nameless.await.unwrap_err().is_panic());
            assert!(named.await.unwrap_err().is_panic());
            quoit::call_soon(|| panic!("ouch"));
            yield_now().await;
        })
        .unwrap();
    let place = |line: u32, column| format!("{}:{line}:{column}", file!());
    assert_eq!(
        told.take(),
        [
            format!("0 None {line}"),
            format!("core 0: the task that was spawned at {} panicked: ouch", place(line, 28)),
            format!("0 Some(\"porter\") {}", line + 1),
            format!(
                "core 0: the task \"porter\", spawned at {}, panicked: ouch",
                place(line + 1, 61)
            ),
            format!("0 None {}", line + 4),
            format!("core 0: the task that was spawned at {} panicked: ouch", place(line + 4, 13)),
        ]
    );
}

#[test]
fn a_task_that_another_thread_has_sent_was_spawned_where_it_was_sent() {
    let told = Told::default();
    let heard = told.clone();
    let runtime = Builder::new()
        .on_panic_with(move |panic| {
            heard.push(panic.spawned_at().to_string());
            OnPanic::Isolate
        })
        .build()
        .unwrap();
    let handle = runtime.handle();
    let task = std::thread::spawn(move || handle.spawn_on(async || panic!("sent"))).join();
    let task = task.unwrap().unwrap();
    assert!(runtime.block_on(task).map(|(): ()| ()).unwrap_err().is_panic());
    let told = told.take();
    assert!(told.len() == 1 && told[0].starts_with(&format!("{}:", file!())), "{told:?}");
}

#[test]
fn a_name_is_gone_with_its_task_whichever_way_that_ends() {
    on_every_driver(|| async {
        let name: Arc<str> = "counted".into();
        let named = || task::Builder::new().name(Arc::clone(&name));
        named().spawn(async {}).await.unwrap();
        drop(named().spawn(async {}));
        named().spawn(async { panic!("it ends by a panic") }).await.map(|(): ()| ()).unwrap_err();
        let aborted = named().spawn(pending::<()>());
        aborted.abort();
        assert!(aborted.await.unwrap_err().is_cancelled());
        let waker = Rc::new(RefCell::new(None));
        let kept = waker.clone();
        let outlived = named().spawn(std::future::poll_fn(move |context| {
            *kept.borrow_mut() = Some(context.waker().clone());
            std::task::Poll::Ready(())
        }));
        outlived.await.unwrap();
        yield_now().await;
        assert_eq!(Arc::strong_count(&name), 1, "a name outlived its task");
        drop(waker);
    });
}

#[test]
fn a_panic_in_a_task_ends_the_core_if_that_was_chosen() {
    let told = Told::default();
    let heard = told.clone();
    let runtime = Builder::new()
        .on_panic(OnPanic::ShutDown)
        .log(move |line| heard.push(line))
        .build()
        .unwrap();
    let task = runtime.spawn(async { panic!("the heart") });
    let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on(pending::<()>())));
    assert_eq!(ended.unwrap_err().downcast_ref(), Some(&"the heart"));
    let told = told.take();
    assert!(told.len() == 1 && told[0].ends_with("panicked: the heart; its core ends"), "{told:?}");
    // The loop was left in good order.
    assert!(runtime.block_on(task).map(|(): ()| ()).unwrap_err().is_cancelled());
    assert_eq!(runtime.block_on(async { 7 }), 7);
}

#[test]
fn the_panic_of_one_core_s_task_stops_all_cores_if_that_was_chosen() {
    static STARTED: AtomicBool = AtomicBool::new(false);
    static STOPPED: AtomicBool = AtomicBool::new(false);
    struct Flag;
    impl Drop for Flag {
        fn drop(&mut self) {
            STOPPED.store(true, Ordering::SeqCst);
        }
    }
    let error = Builder::new()
        .cores(2)
        .shutdown_on([])
        .on_panic(OnPanic::ShutDown)
        .start_per_core(async || {
            if core().index() == 0 {
                let _flag = Flag;
                STARTED.store(true, Ordering::SeqCst);
                pending::<()>().await;
            }
            while !STARTED.load(Ordering::SeqCst) {
                sleep(Duration::from_millis(1)).await;
            }
            quoit::spawn(async { panic!("on core 1") });
            pending::<()>().await;
        })
        .unwrap_err();
    assert!(error.to_string().contains("on core 1"), "{error}");
    assert!(STOPPED.load(Ordering::SeqCst), "core 0 was not stopped");
}

#[test]
fn a_panic_in_a_task_aborts_the_process_if_that_was_chosen() {
    isolated(|| {
        // SAFETY: the child runs on one thread, and ends by `abort` or `_exit`.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let builder = Builder::new().on_panic(OnPanic::Abort);
            let _ = builder.run(async {
                quoit::spawn(async { panic!("too much") });
                sleep(Duration::from_secs(5)).await;
            });
            // SAFETY: the child ends here.
            unsafe { libc::_exit(7) };
        }
        let mut status = 0;
        // SAFETY: the status is a place for the answer.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGABRT, "{status}");
    });
}

#[test]
fn the_panic_of_block_on_is_its_callers_whatever_was_chosen() {
    let runtime = Builder::new()
        .on_panic_with(|panic| unreachable!("{panic} is not a task's"))
        .build()
        .unwrap();
    let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on(async { panic!("mine") })));
    assert_eq!(ended.unwrap_err().downcast_ref(), Some(&"mine"));
    assert_eq!(runtime.stats().caught_panics, 0);
}

#[test]
fn whoever_panics_over_a_panic_has_chosen_nothing() {
    let runtime = Builder::new().on_panic_with(|_| panic!("also")).build().unwrap();
    let task = runtime.spawn(async { panic!("first") });
    let error = runtime.block_on(task).map(|(): ()| ()).unwrap_err();
    assert_eq!(error.to_string(), "the task panicked: first");
    assert_eq!(runtime.stats().caught_panics, 1);
}

// ---- Values of a task ----

quoit::task_local! {
    static USER: &'static str;
    static DEPTH: Cell<u32>;
}
static OWNED: LocalKey<Rc<Cell<u32>>> = LocalKey::new();

#[test]
fn a_value_is_found_below_its_scope_and_nowhere_else() {
    on_every_driver(|| async {
        assert!(USER.try_with(|_| ()).is_err());
        let inner = USER.scope("inner", async {
            yield_now().await;
            USER.get()
        });
        let outer = USER.scope("outer", async {
            let task = quoit::spawn(async { USER.try_with(|_| ()).is_err() });
            assert_eq!((USER.get(), inner.await, USER.get()), ("outer", "inner", "outer"));
            assert!(task.await.unwrap(), "a task has the values of the one that spawned it");
            sleep(Duration::from_millis(1)).await;
            USER.get()
        });
        let other = quoit::spawn(USER.scope("other", async {
            for _ in 0..10 {
                assert_eq!(USER.get(), "other");
                yield_now().await;
            }
        }));
        assert_eq!(outer.await, "outer");
        other.await.unwrap();
        assert!(USER.try_with(|_| ()).is_err());
    });
}

#[test]
fn a_scope_ends_also_by_a_panic_and_is_there_for_destructors() {
    struct Reads;
    impl Drop for Reads {
        fn drop(&mut self) {
            DEPTH.with(|depth| depth.set(depth.get() + 1));
        }
    }
    run(async {
        let value = Rc::new(Cell::new(0));
        let scoped = OWNED.scope(value.clone(), async {
            OWNED.with(|it| it.set(1));
            panic!("in the scope")
        });
        assert!(quoit::spawn(scoped).await.map(|(): ()| ()).unwrap_err().is_panic());
        assert_eq!((value.get(), Rc::strong_count(&value)), (1, 1));
        let reads = Reads;
        let scoped = DEPTH.scope(Cell::new(0), async move {
            let _reads = reads;
            pending::<()>().await;
        });
        let task = quoit::spawn(scoped);
        yield_now().await;
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled(), "the destructor found no value");
        let depth = DEPTH.sync_scope(Cell::new(4), || {
            drop(Reads);
            DEPTH.with(Cell::get)
        });
        assert_eq!(depth, 5);
        assert!(DEPTH.try_with(|_| ()).is_err());
    })
    .unwrap();
}

// ---- The budget ----

#[test]
fn a_loop_that_is_always_ready_lets_others_run_when_its_budget_is_spent() {
    on_every_driver(|| async {
        let steps = Rc::new(Cell::new(0));
        let seen = steps.clone();
        let other = quoit::spawn(async move { seen.get() });
        while !other.is_finished() {
            steps.set(steps.get() + 1);
            consume_budget().await;
        }
        assert_eq!(other.await.unwrap(), 129, "steps until the other task had its turn");
        // A poll later there is a whole budget again.
        yield_now().await;
        let other = quoit::spawn(async {});
        for _ in 0..128 {
            consume_budget().await;
        }
        assert!(!other.is_finished(), "a budget was spent before its end");
        consume_budget().await;
        assert!(other.is_finished());
    });
}

#[test]
fn tasks_with_a_name_and_without_run_in_one_order() {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let order = Rc::new(RefCell::new(Vec::new()));
        for number in 0..6 {
            let seen = order.clone();
            let future = async move { seen.borrow_mut().push(number) };
            match number % 2 {
                0 => drop(quoit::spawn(future)),
                _ => drop(task::Builder::new().name(format!("number {number}")).spawn(future)),
            }
        }
        yield_now().await;
        assert_eq!(*order.borrow(), [0, 1, 2, 3, 4, 5]);
    });
}
