//! What locks and channels between the tasks of one core cost.
//!
//!     cargo bench --bench sync
//!
//! These are wall-clock times. `cargo bench --bench sync -- --steps 'channel/bounded' 10000000` does so
//! many steps of one of them and prints its CPU time: for `perf stat -e instructions:u`.

use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::time::{Duration, Instant};

use criterion::Criterion;
use quoit::runtime::Runtime;
use quoit::sync::{Mutex, Notify, RwLock, Semaphore, broadcast, mpsc, oneshot, watch};
use quoit::task::yield_now;

type Steps = Pin<Box<dyn Future<Output = ()>>>;

/// Does as many steps as it is told.
type Cell = fn(u64) -> Steps;

const CELLS: &[(&str, Cell)] = &[
    // A message there and one back, between two tasks: two wakes, two switches.
    ("channel/bounded, there and back", |steps| Box::pin(bounded(steps))),
    ("channel/unbounded, there and back", |steps| Box::pin(unbounded(steps))),
    ("channel/bounded, a message of a batch of 64", |steps| Box::pin(batches(steps))),
    ("oneshot/made, sent, received", |steps| Box::pin(oneshots(steps))),
    ("oneshot/awaited, then sent by another task", |steps| Box::pin(answers(steps))),
    ("mutex/free", |steps| Box::pin(free_mutex(steps))),
    ("mutex/of two tasks in turns", |steps| Box::pin(mutex_in_turns(steps))),
    ("rwlock/read, free", |steps| Box::pin(free_rwlock(steps))),
    ("semaphore/free", |steps| Box::pin(free_semaphore(steps))),
    ("notify/there and back", |steps| Box::pin(notify(steps))),
    ("broadcast/to two, received", |steps| Box::pin(news(steps))),
    ("watch/sent, seen", |steps| Box::pin(latest(steps))),
];

async fn bounded(steps: u64) {
    let (there, mut arrives) = mpsc::channel(1);
    let (back, mut returns) = mpsc::channel(1);
    let other = quoit::spawn(async move {
        while let Some(number) = arrives.recv().await {
            back.send(number).await.unwrap();
        }
    });
    for number in 0..steps {
        there.send(number).await.unwrap();
        assert_eq!(returns.recv().await, Some(number));
    }
    drop(there);
    other.await.unwrap();
}

async fn unbounded(steps: u64) {
    let (there, mut arrives) = mpsc::unbounded_channel();
    let (back, mut returns) = mpsc::unbounded_channel();
    let other = quoit::spawn(async move {
        while let Some(number) = arrives.recv().await {
            back.send(number).unwrap();
        }
    });
    for number in 0..steps {
        there.send(number).unwrap();
        assert_eq!(returns.recv().await, Some(number));
    }
    drop(there);
    other.await.unwrap();
}

async fn batches(steps: u64) {
    let (sender, mut receiver) = mpsc::channel(64);
    let other = quoit::spawn(async move {
        for number in 0..steps {
            sender.send(number).await.unwrap();
        }
    });
    for number in 0..steps {
        assert_eq!(receiver.recv().await, Some(number));
    }
    other.await.unwrap();
}

async fn oneshots(steps: u64) {
    for number in 0..steps {
        let (sender, receiver) = oneshot::channel();
        sender.send(black_box(number)).unwrap();
        assert_eq!(receiver.await, Ok(number));
    }
}

async fn answers(steps: u64) {
    let (asks, mut asked) = mpsc::channel::<oneshot::Sender<u64>>(1);
    let other = quoit::spawn(async move {
        while let Some(answer) = asked.recv().await {
            answer.send(7).unwrap();
        }
    });
    for _ in 0..steps {
        let (sender, receiver) = oneshot::channel();
        asks.send(sender).await.unwrap();
        assert_eq!(receiver.await, Ok(7));
    }
    drop(asks);
    other.await.unwrap();
}

async fn free_mutex(steps: u64) {
    let mutex = Mutex::new(0);
    for _ in 0..steps {
        *black_box(&mutex).lock().await += 1;
    }
    assert_eq!(mutex.into_inner(), steps);
}

async fn mutex_in_turns(steps: u64) {
    let mutex = Mutex::new(());
    let hold = async || {
        for _ in 0..steps.div_ceil(2) {
            let _guard = mutex.lock().await;
            yield_now().await;
        }
    };
    quoit::join!(hold(), hold());
}

async fn free_rwlock(steps: u64) {
    let lock = RwLock::new(7);
    for _ in 0..steps {
        assert_eq!(*black_box(&lock).read().await, 7);
    }
}

async fn free_semaphore(steps: u64) {
    let semaphore = Semaphore::new(1);
    for _ in 0..steps {
        drop(black_box(&semaphore).acquire().await.unwrap());
    }
}

async fn notify(steps: u64) {
    let (there, back) = (Notify::new(), Notify::new());
    let one = async {
        for _ in 0..steps {
            there.notify_one();
            back.notified().await;
        }
    };
    let other = async {
        for _ in 0..steps {
            there.notified().await;
            back.notify_one();
        }
    };
    quoit::join!(one, other);
}

async fn news(steps: u64) {
    let (sender, mut first) = broadcast::channel(16);
    let mut second = sender.subscribe();
    for number in 0..steps {
        sender.send(number).unwrap();
        assert_eq!((first.recv().await, second.recv().await), (Ok(number), Ok(number)));
    }
}

async fn latest(steps: u64) {
    let (sender, mut receiver) = watch::channel(u64::MAX);
    for number in 0..steps {
        sender.send(number).unwrap();
        receiver.changed().await.unwrap();
        assert_eq!(*receiver.borrow(), number);
    }
}

fn main() {
    let runtime = Runtime::new().expect("a runtime starts");
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--steps") {
        let steps = arguments[at + 2].parse().expect("a number of steps");
        for (name, cell) in CELLS.iter().filter(|(name, _)| name.contains(&arguments[at + 1])) {
            let before = cpu_ns();
            runtime.block_on(cell(steps));
            println!("{name}: {:.1} ns", (cpu_ns() - before) as f64 / steps as f64);
        }
        return;
    }
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20)
        .without_plots()
        .configure_from_args();
    for (name, cell) in CELLS {
        criterion.bench_function(name, |bencher| {
            bencher.iter_custom(|steps| {
                let start = Instant::now();
                runtime.block_on(cell(steps));
                start.elapsed()
            });
        });
    }
    criterion.final_summary();
}

/// CPU time of this thread in nanoseconds.
fn cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the answer.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
