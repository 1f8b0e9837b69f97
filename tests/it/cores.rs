//! From core to core: finding them, calls, and values that each core has.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{pending, poll_fn};
use std::panic::catch_unwind;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use quoit::driver::DriverKind;
use quoit::runtime::{self, Builder, PerCore, Runtime};
use quoit::sim::{Faults, Sim};
use quoit::task::yield_now;
use quoit::time::sleep;

use crate::support::{Watch, on_every_driver, on_io_uring, scaled};

/// Tells a core that the first has done its part.
#[derive(Default)]
struct Stop {
    told: Cell<bool>,
    waits: RefCell<Option<Waker>>,
}

static STOP: PerCore<Stop> = PerCore::new(Stop::default);

async fn told_to_stop() {
    poll_fn(|context| {
        STOP.with(|stop| {
            *stop.waits.borrow_mut() = Some(context.waker().clone());
            if stop.told.get() { Poll::Ready(()) } else { Poll::Pending }
        })
    })
    .await;
}

pub(crate) async fn stop(core: &runtime::Handle) {
    // It may have ended by itself.
    let told = core.call(async || {
        let waker = STOP.with(|stop| {
            stop.told.set(true);
            stop.waits.take()
        });
        waker.into_iter().for_each(Waker::wake);
    });
    drop(told.await);
}

/// Runs `body` on the first of `count` cores while the others wait, on every kind of kernel.
pub(crate) fn on_cores<F>(count: usize, body: F)
where
    F: AsyncFn() + Clone + Send + Sync + 'static,
{
    on_real_cores(count, body.clone());
    for seed in 0..4 {
        simulated(seed, count, Faults::default(), first(body.clone())).unwrap();
    }
}

fn first<F>(body: F) -> impl AsyncFn() + Clone + Send + Sync + 'static
where
    F: AsyncFn() + Clone + Send + Sync + 'static,
{
    async move || {
        if runtime::core().index() > 0 {
            return told_to_stop().await;
        }
        body().await;
        for core in &runtime::cores()[1..] {
            stop(core).await;
        }
    }
}

/// The same but in the simulator: for cores that end before others, which simulated ones do not, and
/// for what no virtual time passes in.
pub(crate) fn on_real_cores<F>(count: usize, body: F)
where
    F: AsyncFn() + Clone + Send + Sync + 'static,
{
    let kinds = [
        ("io_uring", on_io_uring()),
        ("io_uring of 5.10", on_io_uring().caps("5.10")),
        ("io_uring that watches", on_io_uring().spin(Duration::from_micros(50))),
        ("epoll", Builder::new().driver(DriverKind::Epoll)),
    ];
    for (name, builder) in kinds {
        let watch = Watch::over(format!("on {name}"));
        builder.cores(count).shutdown_on([]).start_per_core(first(body.clone())).unwrap();
        watch.ends();
    }
}

/// Runs `main` on a host of so many cores, until it has ended on all of them.
pub(crate) fn simulated<F>(seed: u64, count: usize, faults: Faults, main: F) -> Result<(), String>
where
    F: AsyncFn() + Clone + 'static,
{
    let ended = Rc::new(Cell::new(0));
    let counts = Rc::clone(&ended);
    let sim = Sim::new(seed)
        .faults(faults)
        .host_with_cores("host", count, async move || {
            main().await;
            counts.set(counts.get() + 1);
        })
        .client("client", async move || {
            while ended.get() < count {
                sleep(Duration::from_millis(1)).await;
            }
        });
    sim.run().map(drop).map_err(|failure| failure.to_string())
}

pub(crate) fn text_of(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("something else")
}

// ---- Finding cores ----

#[test]
fn cores_of_a_start_find_each_other_by_index() {
    on_cores(3, async || {
        let cores = runtime::cores();
        assert_eq!(cores.iter().map(runtime::Handle::index).collect::<Vec<_>>(), [0, 1, 2]);
        for (index, core) in cores.iter().enumerate() {
            let there = core.call(async || (runtime::core().index(), runtime::core().id()));
            assert_eq!(there.await.unwrap(), (index, core.id()));
            assert_eq!(runtime::core_at(index).unwrap().id(), core.id());
        }
    });
}

#[test]
fn an_index_without_a_core_is_an_error_that_says_which_there_are() {
    on_cores(2, async || {
        let none = runtime::core_at(2).unwrap_err();
        assert_eq!((none.index(), none.count()), (2, 2));
        assert_eq!(none.to_string(), "there is no core 2: those of this start are 0 to 1");
        assert_eq!(std::io::Error::from(none).kind(), std::io::ErrorKind::InvalidInput);
        assert!(runtime::core_at(usize::MAX).is_err());
    });
}

#[test]
fn a_key_belongs_to_one_core_whoever_asks_and_each_has_its_share() {
    on_cores(3, async || {
        let owners = async || (0..3_000).map(|key| runtime::core_for(&key).index()).collect();
        let all: Vec<Vec<usize>> = runtime::map_cores(owners).await.unwrap();
        assert!(all[0] == all[1] && all[1] == all[2]);
        for core in 0..3 {
            let share = all[0].iter().filter(|&&owner| owner == core).count();
            assert!((850..1_150).contains(&share), "{share} of 3,000 keys");
        }
    });
}

#[test]
fn outside_of_a_runtime_there_are_no_cores() {
    let asks: [fn(); 4] = [
        || drop(runtime::cores()),
        || drop(runtime::core_at(0)),
        || drop(runtime::core_for("key")),
        || STOP.with(|_| ()),
    ];
    for ask in asks {
        let panic = catch_unwind(ask).unwrap_err();
        assert!(text_of(&*panic).contains("outside of a runtime"), "{}", text_of(&*panic));
    }
}

// ---- Calls ----

#[test]
fn a_call_runs_what_is_not_send_and_brings_its_answer_back() {
    on_cores(2, async || {
        let (word, other) = (String::from("there"), runtime::core_at(1).unwrap());
        let answer = other.call(async move || {
            let here = Rc::new(runtime::core().index());
            yield_now().await;
            sleep(Duration::from_millis(1)).await;
            format!("{word} on {here}")
        });
        assert_eq!(answer.await.unwrap(), "there on 1");
    });
}

#[test]
fn a_core_may_call_itself_and_be_called_back_by_whom_it_calls() {
    on_cores(2, async || {
        let own = runtime::core_at(0).unwrap();
        assert_eq!(own.call(async || runtime::core().index()).await.unwrap(), 0);
        let path = runtime::core_at(1).unwrap().call(async || {
            let back = runtime::core_at(0).unwrap().call(async || {
                let again = runtime::core_at(1).unwrap().call(async || runtime::core().index());
                (runtime::core().index(), again.await.unwrap())
            });
            (runtime::core().index(), back.await.unwrap())
        });
        assert_eq!(path.await.unwrap(), (1, (0, 1)));
    });
}

static LIST: PerCore<RefCell<Vec<u32>>> = PerCore::new(RefCell::default);

#[test]
fn calls_of_one_task_begin_in_their_order_and_go_on_beside_each_other() {
    on_cores(2, async || {
        let other = runtime::core_at(1).unwrap();
        let calls: Vec<_> = (0..500)
            .map(|number| {
                other.call(async move || {
                    LIST.with(|list| list.borrow_mut().push(number));
                    // The first ends last: nobody waits for it.
                    for _ in number..500 {
                        yield_now().await;
                    }
                    number
                })
            })
            .collect();
        for (number, call) in (0..).zip(calls) {
            assert_eq!(call.await.unwrap(), number);
        }
        let list = other.call(async || LIST.with(RefCell::take)).await.unwrap();
        // The simulator shuffles what is ready: who comes first there, nobody may rely on.
        let shuffles = runtime::driver() == "simulator";
        assert!(shuffles && list.len() == 500 || list.into_iter().eq(0..500));
    });
}

#[test]
fn a_panic_there_is_a_typed_error_here_and_the_core_goes_on() {
    on_cores(2, async || {
        let other = runtime::core_at(1).unwrap();
        let before = other.call(|| -> std::future::Ready<()> { panic!("in the closure") });
        let within = other.call(async || {
            yield_now().await;
            panic!("in the future")
        });
        for (gone, text) in [
            (before.await.unwrap_err(), "in the closure"),
            (within.await.unwrap_err(), "in the future"),
        ] {
            assert!(gone.is_panic() && gone.index() == 1);
            assert_eq!(gone.to_string(), format!("core 1: the task panicked: {text}"));
            assert_eq!(text_of(&*gone.try_into_panic().unwrap()), text);
        }
        assert_eq!(other.call(async || 7).await.unwrap(), 7);
    });
}

/// Panics when it is dropped, unless that is for a panic.
pub(crate) struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("planted: a bomb");
        }
    }
}

#[test]
fn what_panics_when_it_is_dropped_hangs_no_caller_and_ends_no_core() {
    on_cores(2, async || {
        let other = runtime::core_at(1).unwrap();
        // The future is dropped with its captures when it has ended.
        let held = other.call(|| {
            let bomb = Bomb;
            async move {
                let _bomb = bomb;
                7
            }
        });
        assert!(held.await.unwrap_err().is_panic());
        // Nobody waits for this answer, so it is dropped there, or here.
        drop(other.call(async || Bomb));
        assert_eq!(other.call(async || 7).await.unwrap(), 7);
    });
}

#[test]
fn a_core_that_has_ended_answers_with_an_error() {
    on_real_cores(3, async || {
        let other = runtime::core_at(1).unwrap();
        stop(&other).await;
        // It may still be about to end: then the error is that it did not come to it.
        let gone = other.call(pending::<()>).await.unwrap_err();
        assert!(!gone.is_panic() && gone.index() == 1);
        assert_eq!(gone.to_string(), "core 1 has ended, and does not answer");
        let kind = std::io::Error::from(gone).kind();
        assert_eq!(kind, std::io::ErrorKind::NotConnected);
        assert!(other.call(async || 1).await.unwrap_err().try_into_panic().is_err());
        let gone = runtime::map_cores(async || 1).await.unwrap_err();
        assert_eq!(gone.index(), 1);
        assert_eq!(runtime::core_at(2).unwrap().call(async || 2).await.unwrap(), 2);
    });
}

#[test]
fn calls_that_a_core_has_begun_and_not_ended_are_answered_when_it_ends() {
    on_real_cores(2, async || {
        let other = runtime::core_at(1).unwrap();
        let begun: Vec<_> = (0..50).map(|_| other.call(pending::<()>)).collect();
        yield_now().await;
        stop(&other).await;
        for call in begun {
            assert!(!call.await.unwrap_err().is_panic());
        }
    });
}

#[test]
fn a_message_of_a_core_that_ends_in_the_same_turn_is_handed_over() {
    for kind in [DriverKind::Uring, DriverKind::Epoll] {
        let came = Arc::new(AtomicBool::new(false));
        let set = Arc::clone(&came);
        let main = async move || {
            if runtime::core().index() == 0 {
                let set = Arc::clone(&set);
                let other = runtime::core_at(1).unwrap();
                return other.call_soon(move || set.store(true, SeqCst)).unwrap();
            }
            while !set.load(SeqCst) {
                sleep(Duration::from_millis(1)).await;
            }
        };
        let watch = Watch::over("a message");
        Builder::new().driver(kind).cores(2).shutdown_on([]).start_per_core(main).unwrap();
        watch.ends();
        assert!(came.load(SeqCst));
    }
}

#[test]
fn map_cores_answers_in_the_order_of_the_cores() {
    on_cores(3, async || {
        let answers = runtime::map_cores(async || {
            let index = runtime::core().index();
            // The first answers last.
            sleep(Duration::from_millis(3 - index as u64)).await;
            index * 10
        });
        assert_eq!(answers.await.unwrap(), [0, 10, 20]);
        let gone = runtime::map_cores(async || assert!(runtime::core().index() < 2)).await;
        let gone = gone.unwrap_err();
        assert!(gone.is_panic() && gone.index() == 2);
    });
}

// ---- Values that each core has ----

static HITS: PerCore<Cell<u64>> = PerCore::new(|| Cell::new(0));

#[test]
fn each_core_has_a_value_of_its_own() {
    on_cores(3, async || {
        for _ in 0..2 {
            let count = async || {
                HITS.with(|hits| hits.set(hits.get() + 1 + runtime::core().index() as u64))
            };
            runtime::map_cores(count).await.unwrap();
        }
        let hits = runtime::map_cores(async || HITS.with(Cell::get)).await.unwrap();
        assert_eq!(hits, [2, 4, 6]);
    });
}

type Drops = Arc<Mutex<Vec<(u64, usize)>>>;

/// Notes where it was dropped, and how many tasks there were then.
struct Witness(Cell<Option<Drops>>);

impl Drop for Witness {
    fn drop(&mut self) {
        if let Some(list) = self.0.take() {
            let tasks = runtime::stats().tasks;
            list.lock().unwrap().push((runtime::core().id(), tasks));
        }
    }
}

static WITNESS: PerCore<Witness> = PerCore::new(|| Witness(Cell::new(None)));

#[test]
fn a_value_is_dropped_on_its_core_when_its_tasks_are_gone() {
    let list = Drops::default();
    let inner = Arc::clone(&list);
    let core = std::thread::spawn(move || {
        let mut runtime = Runtime::new().unwrap();
        drop(runtime.spawn(pending::<()>()));
        runtime.block_on(async move { WITNESS.with(|witness| witness.0.set(Some(inner))) });
        runtime.shutdown(Duration::from_secs(5));
        runtime.handle().id()
    });
    let core = core.join().unwrap();
    assert_eq!(*list.lock().unwrap(), [(core, 0)]);
}

/// At the end, asks for another value.
struct Asks(&'static PerCore<Asked>, Cell<Option<Arc<AtomicUsize>>>);
struct Asked;

static ASKED_FIRST: PerCore<Asked> = PerCore::new(|| Asked);
static ASKED_NEVER: PerCore<Asked> = PerCore::new(|| Asked);
static ASKS_FIRST: PerCore<Asks> = PerCore::new(|| Asks(&ASKED_FIRST, Cell::new(None)));
static ASKS_NEVER: PerCore<Asks> = PerCore::new(|| Asks(&ASKED_NEVER, Cell::new(None)));

impl Drop for Asks {
    fn drop(&mut self) {
        if let Some(count) = self.1.take() {
            self.0.with(|_| ());
            count.fetch_add(1, SeqCst);
        }
    }
}

#[test]
fn a_destructor_may_ask_for_values_that_are_there_and_makes_none_anew() {
    let answered = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    let mut runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        // The first to be asked for is the last to go.
        ASKED_FIRST.with(|_| ());
        ASKS_FIRST.with(|asks| asks.1.set(Some(Arc::clone(&answered[0]))));
        ASKS_NEVER.with(|asks| asks.1.set(Some(Arc::clone(&answered[1]))));
    });
    runtime.shutdown(Duration::from_secs(5));
    assert_eq!(answered.map(|count| count.load(SeqCst)), [1, 0]);
    assert_eq!(runtime.stats().caught_panics, 1);
}

static FRAGILE: PerCore<u32> = PerCore::new(|| {
    TRIES.with(|tries| tries.set(tries.get() + 1));
    assert!(TRIES.with(Cell::get) > 1, "planted: the first try");
    7
});
static TRIES: PerCore<Cell<u32>> = PerCore::new(|| Cell::new(0));
static CIRCULAR: PerCore<u32> = PerCore::new(|| CIRCULAR.with(|number| *number));

#[test]
fn a_value_whose_making_fails_is_made_at_the_next_use() {
    on_every_driver(|| async {
        let value = || catch_unwind(|| FRAGILE.with(|number| *number));
        assert!(value().is_err());
        assert_eq!(value().unwrap(), 7);
        assert_eq!(value().unwrap(), 7);
        let panic = catch_unwind(|| CIRCULAR.with(|number| *number)).unwrap_err();
        assert!(text_of(&*panic).contains("while it was being made"));
    });
}

// ---- All together ----

/// A store of which each core has a part, and a program that uses it, under all faults.
#[test]
fn a_store_in_parts_keeps_its_promises_in_the_simulator() {
    static PART: PerCore<RefCell<BTreeMap<u64, u64>>> = PerCore::new(RefCell::default);
    for seed in 0..scaled(40) as u64 {
        let main = async || {
            let own = runtime::core().index() as u64;
            let add = async |key: u64| {
                let core = runtime::core_for(&key);
                let sum = core.call(async move || {
                    PART.with(|part| {
                        let mut part = part.borrow_mut();
                        let sum = part.entry(key).or_insert(0);
                        *sum += 1;
                        *sum
                    })
                });
                sum.await.unwrap()
            };
            for step in 0..50 {
                assert!(add((step * 7 + own) % 13).await >= 1);
                if step % 5 == 0 {
                    sleep(Duration::from_micros(step)).await;
                }
            }
            // Nobody ends before all have added.
            let (mut waited, mut sum) = (0, 0);
            while sum < 150 {
                let sums = async || PART.with(|part| part.borrow().values().sum::<u64>());
                sum = runtime::map_cores(sums).await.map_or(150, |sums| sums.iter().sum());
                sleep(Duration::from_millis(1)).await;
                waited += 1;
                assert!(waited < 10_000, "{sum} of 150");
            }
            assert_eq!(sum, 150);
            sleep(Duration::from_secs(1)).await;
        };
        simulated(seed, 3, Faults::default().short_reads(0.1), main).unwrap();
    }
}
