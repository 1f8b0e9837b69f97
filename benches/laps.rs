//! What single steps of a core cost: laps, tasks, wakes, timers, joins.
//!
//!     cargo bench --bench laps
//!
//! These are wall-clock times, to compare a change with what was before it. What the executor costs
//! beside a bare ready queue, `scripts/bench-executor.sh` says.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::hint::black_box;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use quoit::fs::File;
use quoit::runtime::Runtime;
use quoit::task::yield_now;

/// Times `body`, which does as many steps as it is told, inside the runtime.
fn bench<B, F>(criterion: &mut Criterion, runtime: &Runtime, name: &str, body: B)
where
    B: Fn(u64) -> F,
    F: Future<Output = ()>,
{
    criterion.bench_function(name, |bencher| {
        bencher.iter_custom(|steps| {
            runtime.block_on(async {
                let start = Instant::now();
                body(steps).await;
                start.elapsed()
            })
        });
    });
}

fn laps(criterion: &mut Criterion, runtime: &Runtime) {
    // One task that yields: a lap has 128 polls, and a system call only when there is a reason.
    bench(criterion, runtime, "lap/128 yields", async |steps| {
        for _ in 0..steps * 128 {
            yield_now().await;
        }
    });
    criterion.bench_function("lap/block_on and back", |bencher| {
        bencher.iter(|| runtime.block_on(async { black_box(0) }));
    });
    // The cheapest trip through the ring: a request, a lap, an answer, a wake.
    bench(criterion, runtime, "op/read 1 byte, cached", async |steps| {
        let file = File::open("/proc/self/exe").await.expect("the program is a file");
        let mut buf = Vec::with_capacity(1);
        for _ in 0..steps {
            (_, buf) = file.read_at(buf, 0).await.expect("it can be read");
        }
    });
}

fn tasks(criterion: &mut Criterion, runtime: &Runtime) {
    bench(criterion, runtime, "task/spawn and join", async |steps| {
        for step in 0..steps {
            black_box(quoit::spawn(async move { step }).await.unwrap());
        }
    });
    bench(criterion, runtime, "task/spawn 1,000, then join", async |steps| {
        for _ in 0..steps {
            let tasks: Vec<_> =
                (0..1_000).map(|number| quoit::spawn(async move { number })).collect();
            for task in tasks {
                black_box(task.await.unwrap());
            }
        }
    });
    bench(criterion, runtime, "task/yield", async |steps| {
        for _ in 0..steps {
            yield_now().await;
        }
    });
    let mut group = criterion.benchmark_group("task/gather");
    for count in [2_u64, 100, 10_000] {
        group.throughput(Throughput::Elements(count));
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| {
                let futures = (0..count).map(async |number| number);
                runtime.block_on(quoit::gather(futures))
            });
        });
    }
    group.finish();
    bench(criterion, runtime, "task/join! of two", async |steps| {
        for step in 0..steps {
            black_box(quoit::join!(async { step }, async { yield_now().await }));
        }
    });
}

fn wakes(criterion: &mut Criterion, runtime: &Runtime) {
    // Two tasks that wake each other in turn.
    bench(criterion, runtime, "wake/same core", async |steps| {
        let turn = Rc::new(Cell::new(0));
        let wakers: Rc<[Cell<Option<Waker>>; 2]> = Rc::default();
        let player = |side: usize| {
            let (turn, wakers) = (turn.clone(), wakers.clone());
            poll_fn(move |context| {
                while turn.get() % 2 == side as u64 || turn.get() >= steps {
                    if turn.get() >= steps {
                        wakers[1 - side].take().into_iter().for_each(Waker::wake);
                        return Poll::Ready(());
                    }
                    turn.set(turn.get() + 1);
                    wakers[1 - side].take().into_iter().for_each(Waker::wake);
                }
                wakers[side].set(Some(context.waker().clone()));
                Poll::Pending
            })
        };
        let (one, other) = (quoit::spawn(player(0)), quoit::spawn(player(1)));
        one.await.unwrap();
        other.await.unwrap();
    });
    // A thread that sends a message to the core and waits for it to be run there.
    criterion.bench_function("wake/another thread, there and back", |bencher| {
        bencher.iter_custom(|steps| {
            let handle = runtime.handle();
            let asking = std::thread::spawn(move || {
                let start = Instant::now();
                for _ in 0..steps {
                    handle.spawn_on(async || ()).unwrap().wait().unwrap();
                }
                start.elapsed()
            });
            runtime.block_on(async {
                while !asking.is_finished() {
                    quoit::time::sleep(Duration::from_micros(500)).await;
                }
            });
            asking.join().unwrap()
        });
    });
}

fn timers(criterion: &mut Criterion, runtime: &Runtime) {
    bench(criterion, runtime, "timer/made, polled, dropped", async |steps| {
        for step in 0..steps {
            let mut nap = pin!(quoit::time::sleep(Duration::from_millis(10 + step % 1_000)));
            poll_fn(|context| Poll::Ready(nap.as_mut().poll(context).is_pending())).await;
        }
    });
    bench(criterion, runtime, "timer/timeout of what is ready", async |steps| {
        for step in 0..steps {
            let ready = quoit::time::timeout(Duration::from_secs(1), async { step });
            black_box(ready.await.unwrap());
        }
    });
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20)
        .without_plots()
        .configure_from_args();
    let runtime = Runtime::new().expect("a runtime starts");
    laps(&mut criterion, &runtime);
    tasks(&mut criterion, &runtime);
    wakes(&mut criterion, &runtime);
    timers(&mut criterion, &runtime);
    criterion.final_summary();
}
