//! What quoit's executor costs beside a bare ready queue, in one process and in turns.
//!
//!     scripts/bench-executor.sh [rounds]
//!
//! Every figure is CPU time of the thread (`CLOCK_THREAD_CPUTIME_ID`). A round measures each cell
//! with both loops, one right after the other, so that the drift of the machine's speed meets both;
//! the order alternates. The ratio is the median of the rounds' ratios.

mod bare;
mod sleeps;

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use quoit::runtime::Runtime;

const TASKS: u64 = 1_000_000;
const BATCH: u64 = 1_000;

/// CPU time of this thread in nanoseconds.
fn cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the answer.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The CPU time of each of `count` steps that `body` does.
async fn each<T>(count: u64, body: impl Future<Output = T>) -> f64 {
    let start = cpu_ns();
    body.await;
    (cpu_ns() - start) as f64 / count as f64
}

/// The same yield for both loops.
struct Yield(bool);

impl Future for Yield {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.0 {
            return Poll::Ready(());
        }
        self.0 = true;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

async fn yields(count: u64) {
    for _ in 0..count {
        Yield(false).await;
    }
}

/// One thing to measure.
struct Cell {
    name: &'static str,
    bare: fn(bare::Loop) -> f64,
    quoit: fn(&Runtime) -> f64,
    target: f64,
}

const CELLS: &[Cell] = &[
    Cell {
        name: "spawn, then await its join",
        bare: |queue| {
            queue.block_on(each(TASKS, async move {
                for number in 0..TASKS {
                    assert_eq!(queue.spawn(async move { number }).await, number);
                }
            }))
        },
        quoit: |runtime| {
            runtime.block_on(each(TASKS, async {
                for number in 0..TASKS {
                    assert_eq!(quoit::spawn(async move { number }).await.unwrap(), number);
                }
            }))
        },
        target: 0.9,
    },
    Cell {
        name: "1,000 spawned, then joined",
        bare: |queue| {
            queue.block_on(each(TASKS, async move {
                let mut joins = Vec::with_capacity(BATCH as usize);
                for _ in 0..TASKS / BATCH {
                    joins.extend((0..BATCH).map(|number| queue.spawn(async move { number })));
                    for join in joins.drain(..) {
                        join.await;
                    }
                }
            }))
        },
        quoit: |runtime| {
            runtime.block_on(each(TASKS, async {
                let mut joins = Vec::with_capacity(BATCH as usize);
                for _ in 0..TASKS / BATCH {
                    joins.extend((0..BATCH).map(|number| quoit::spawn(async move { number })));
                    for join in joins.drain(..) {
                        join.await.unwrap();
                    }
                }
            }))
        },
        target: 0.8,
    },
    Cell {
        name: "yield, 1 task",
        bare: |queue| queue.block_on(each(TASKS, yields(TASKS))),
        quoit: |runtime| runtime.block_on(each(TASKS, yields(TASKS))),
        target: 0.5,
    },
    Cell {
        name: "yield, 1,000 tasks",
        bare: |queue| {
            queue.block_on(each(TASKS, async move {
                let tasks: Vec<_> =
                    (0..BATCH).map(|_| queue.spawn(yields(TASKS / BATCH))).collect();
                for task in tasks {
                    task.await;
                }
            }))
        },
        quoit: |runtime| {
            runtime.block_on(each(TASKS, async {
                let tasks: Vec<_> =
                    (0..BATCH).map(|_| quoit::spawn(yields(TASKS / BATCH))).collect();
                for task in tasks {
                    task.await.unwrap();
                }
            }))
        },
        target: 0.5,
    },
    Cell {
        name: "sleep made, polled, dropped (bare: spawn and join)",
        bare: |queue| (CELLS[0].bare)(queue),
        quoit: |runtime| {
            runtime.block_on(each(TASKS, async {
                for number in 0..TASKS {
                    let sleep = quoit::time::sleep(Duration::from_millis(10 + number % 1000));
                    poll_once(sleep).await;
                }
            }))
        },
        target: 0.8,
    },
    Cell {
        name: "sleep_until made, polled, dropped (bare: as above)",
        bare: |queue| (CELLS[0].bare)(queue),
        quoit: |runtime| {
            runtime.block_on(each(TASKS, async {
                let start = quoit::time::Instant::now() + Duration::from_secs(10);
                for number in 0..TASKS {
                    let deadline = start + Duration::from_millis(number % 1000);
                    poll_once(quoit::time::sleep_until(deadline)).await;
                }
            }))
        },
        target: 0.8,
    },
];

/// Polls `future` once, and drops it.
async fn poll_once(future: impl Future<Output = ()>) {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|context| {
        assert!(future.as_mut().poll(context).is_pending());
        Poll::Ready(())
    })
    .await;
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let rounds = match arguments.next() {
        Some(word) if word == sleeps::CHILD => return sleeps::measure(arguments.next()),
        Some(rounds) => rounds.parse().expect("the argument is a number of rounds"),
        None => 9,
    };
    let only = arguments.next().unwrap_or_default();
    let (queue, runtime) = (bare::Loop::new(), Rc::new(Runtime::new().expect("a runtime starts")));
    if let Ok(side) = std::env::var("PROFILE") {
        return profile(&side, &only, rounds, queue, &runtime);
    }
    let cells: Vec<&Cell> = CELLS.iter().filter(|cell| cell.name.contains(&only)).collect();
    let mut measured: Vec<Vec<(f64, f64)>> = vec![Vec::new(); cells.len()];
    // The first round only warms up.
    for round in 0..=rounds {
        for (cell, measured) in cells.iter().zip(&mut measured) {
            let quoit_first = (round % 2 == 1).then(|| (cell.quoit)(&runtime));
            let bare = (cell.bare)(queue);
            let quoit = quoit_first.unwrap_or_else(|| (cell.quoit)(&runtime));
            if round > 0 {
                measured.push((bare, quoit));
            }
        }
    }
    println!(
        "{:<52} {:>18} {:>18} {:>20} {:>7}",
        "ns of CPU each (least to most)", "bare", "quoit", "quoit / bare", "target"
    );
    for (cell, rounds) in cells.iter().zip(measured) {
        let column = |of: fn(&(f64, f64)) -> f64| Spread::of(rounds.iter().map(of).collect());
        let (bare, quoit) = (column(|round| round.0), column(|round| round.1));
        let ratio = column(|round| round.1 / round.0);
        println!(
            "{:<52} {:>18} {:>18} {:>20} {:>7}",
            cell.name,
            bare.show(1),
            quoit.show(1),
            ratio.show(2),
            cell.target
        );
    }
    if only.is_empty() {
        sleeps::report(rounds.min(3));
    }
}

/// Runs one cell on one side alone, for a profiler.
fn profile(side: &str, only: &str, rounds: usize, queue: bare::Loop, runtime: &Runtime) {
    let cell = CELLS.iter().find(|cell| cell.name.contains(only)).expect("a cell has this name");
    for _ in 0..rounds {
        let each = if side == "bare" { (cell.bare)(queue) } else { (cell.quoit)(runtime) };
        println!("{each:.1} ns on {side}: {}", cell.name);
    }
}

/// The median of the rounds, and their extremes.
struct Spread(Vec<f64>);

impl Spread {
    fn of(mut values: Vec<f64>) -> Spread {
        values.sort_by(f64::total_cmp);
        Spread(values)
    }

    fn show(&self, digits: usize) -> String {
        let Spread(values) = self;
        let (least, most) = (values[0], values[values.len() - 1]);
        format!("{:.digits$} ({least:.digits$}-{most:.digits$})", values[values.len() / 2])
    }
}
