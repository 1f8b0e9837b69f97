//! What it costs to reach another core, beside what it costs with bare means.
//!
//!     cargo bench --bench mesh
//!
//! It wants two CPUs for itself. "asleep": both sides sleep in the kernel between two messages, as
//! the two threads of the eventfd pair do. "looking": both sides look at memory again and again. These
//! are wall-clock times; what matters is the channel's beside the bare one's of the same run.

use std::hint::{black_box, spin_loop};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use quoit::mesh::{self, Receiver, Sender, TryRecvError};
use quoit::runtime::{self, Builder, Handle, PerCore};

/// Times `body` on the first of two pinned cores; it is given the way to the second.
fn on_two_cores<F>(builder: Builder, body: F) -> Duration
where
    F: AsyncFn(Handle) -> Duration + Send + Sync + 'static,
{
    /// The second core ends when this does.
    static HELD: PerCore<std::cell::RefCell<Option<Receiver<()>>>> = PerCore::new(Default::default);
    let took = Arc::new(AtomicU64::new(0));
    let out = Arc::clone(&took);
    let ends = Mutex::new(Some(mesh::channel::<()>(1)));
    let main = async move || {
        if runtime::core().index() == 0 {
            let other = runtime::core_at(1).expect("there are two");
            let (mut stop, stopped) = ends.lock().unwrap().take().expect("there is one first core");
            let given =
                other.call(async move || HELD.with(|held| *held.borrow_mut() = Some(stopped)));
            given.await.unwrap();
            out.store(body(other).await.as_nanos() as u64, Ordering::Relaxed);
            stop.send(()).await.unwrap();
            return;
        }
        let mut stopped = loop {
            match HELD.with(std::cell::RefCell::take) {
                Some(stopped) => break stopped,
                None => quoit::task::yield_now().await,
            }
        };
        stopped.recv().await;
    };
    builder.cores(2).shutdown_on([]).start_per_core(main).expect("two cores start");
    Duration::from_nanos(took.load(Ordering::Relaxed))
}

/// Has the second core send back whatever comes, and gives the ends to the first.
async fn echo(other: &Handle) -> (Sender<u64>, Receiver<u64>) {
    let (there, mut arrives) = mesh::channel(64);
    let (mut back, returns) = mesh::channel(64);
    let begun = other.call(async move || {
        drop(quoit::spawn(async move {
            while let Some(token) = arrives.recv().await {
                if back.send(token).await.is_err() {
                    return;
                }
            }
        }));
    });
    begun.await.unwrap();
    (there, returns)
}

async fn asleep(other: Handle, steps: u64) -> Duration {
    let (mut there, mut returns) = echo(&other).await;
    let start = Instant::now();
    for step in 0..steps {
        there.send(step).await.unwrap();
        black_box(returns.recv().await);
    }
    start.elapsed()
}

/// Both sides look for the next message, and do nothing else.
async fn looking(other: Handle, steps: u64) -> Duration {
    let (mut there, mut arrives) = mesh::channel(64);
    let (mut back, mut returns) = mesh::channel(64);
    let echo = other.call(async move || {
        loop {
            match arrives.try_recv() {
                Ok(token) => back.try_send(token).unwrap(),
                Err(TryRecvError::Empty) => spin_loop(),
                Err(TryRecvError::Disconnected) => return,
            }
        }
    });
    // What is sent in a turn of the tasks goes at its end: the call has to be on its way.
    quoit::time::sleep(Duration::from_millis(1)).await;
    let start = Instant::now();
    for step in 0..steps {
        there.try_send(step).unwrap();
        while returns.try_recv().is_err() {
            spin_loop();
        }
    }
    let took = start.elapsed();
    drop(there);
    echo.await.unwrap();
    took
}

async fn one_way(other: Handle, steps: u64) -> Duration {
    let (mut sender, mut receiver) = mesh::channel(4_096);
    let sum = other.call(async move || {
        let mut sum = 0_u64;
        while let Some(number) = receiver.recv().await {
            sum = sum.wrapping_add(number);
        }
        sum
    });
    let start = Instant::now();
    for step in 0..steps {
        sender.send(step).await.unwrap();
    }
    drop(sender);
    black_box(sum.await.unwrap());
    start.elapsed()
}

async fn calls(other: Handle, steps: u64) -> Duration {
    let start = Instant::now();
    for step in 0..steps {
        black_box(other.call(async move || step).await.unwrap());
    }
    start.elapsed()
}

/// Calls of which many are under way at the same time.
async fn many_calls(other: Handle, steps: u64) -> Duration {
    let start = Instant::now();
    let mut left = steps;
    while left > 0 {
        let batch = left.min(256);
        let calls: Vec<_> = (0..batch).map(|step| other.call(async move || step)).collect();
        for call in calls {
            black_box(call.await.unwrap());
        }
        left -= batch;
    }
    start.elapsed()
}

fn eventfd() -> Arc<OwnedFd> {
    // SAFETY: the call takes no pointers.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    assert!(fd >= 0);
    // SAFETY: the number was just opened.
    Arc::new(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn pin(cpu: usize) {
    core_affinity::set_for_current(core_affinity::CoreId { id: cpu });
}

/// Two threads that block in `read` of an eventfd each.
fn bare_eventfds(steps: u64) -> Duration {
    let (there, back) = (eventfd(), eventfd());
    let (theirs, ours) = (Arc::clone(&there), Arc::clone(&back));
    let wait = |fd: &OwnedFd| {
        let mut count = [0_u8; 8];
        // SAFETY: eight writable bytes.
        let read = unsafe { libc::read(fd.as_raw_fd(), count.as_mut_ptr().cast(), 8) };
        assert_eq!(read, 8);
    };
    let ring = |fd: &OwnedFd| {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: eight readable bytes.
        assert_eq!(unsafe { libc::write(fd.as_raw_fd(), one.as_ptr().cast(), 8) }, 8);
    };
    let other = thread::spawn(move || {
        pin(1);
        for _ in 0..steps {
            wait(&theirs);
            ring(&ours);
        }
    });
    let took = thread::spawn(move || {
        pin(0);
        let start = Instant::now();
        for _ in 0..steps {
            ring(&there);
            wait(&back);
        }
        start.elapsed()
    });
    other.join().unwrap();
    took.join().unwrap()
}

/// Two threads that look at a number each.
fn bare_numbers(steps: u64) -> Duration {
    #[repr(align(128))]
    #[derive(Default)]
    struct Alone(AtomicU64);
    let numbers: Arc<[Alone; 2]> = Arc::default();
    let theirs = Arc::clone(&numbers);
    let other = thread::spawn(move || {
        pin(1);
        for step in 1..=steps {
            while theirs[0].0.load(Ordering::Acquire) != step {
                spin_loop();
            }
            theirs[1].0.store(step, Ordering::Release);
        }
    });
    let took = thread::spawn(move || {
        pin(0);
        let start = Instant::now();
        for step in 1..=steps {
            numbers[0].0.store(step, Ordering::Release);
            while numbers[1].0.load(Ordering::Acquire) != step {
                spin_loop();
            }
        }
        start.elapsed()
    });
    other.join().unwrap();
    took.join().unwrap()
}

fn on_cores<F>(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, spin: Duration, body: F)
where
    F: AsyncFn(Handle, u64) -> Duration + Clone + Send + Sync + 'static,
{
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|steps| {
            let body = body.clone();
            on_two_cores(Builder::new().spin(spin), async move |other| body(other, steps).await)
        });
    });
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .sample_size(20)
        .without_plots()
        .configure_from_args();
    let mut group = criterion.benchmark_group("mesh");
    group.bench_function("round trip/asleep, bare eventfds", |bencher| {
        bencher.iter_custom(bare_eventfds);
    });
    on_cores(&mut group, "round trip/asleep", Duration::ZERO, asleep);
    on_cores(&mut group, "round trip/cores that spin", Duration::from_micros(50), asleep);
    on_cores(&mut group, "round trip/call", Duration::ZERO, calls);
    group.bench_function("round trip/looking, bare numbers", |bencher| {
        bencher.iter_custom(bare_numbers);
    });
    on_cores(&mut group, "round trip/looking", Duration::ZERO, looking);
    group.throughput(Throughput::Elements(1));
    on_cores(&mut group, "saturated/messages", Duration::ZERO, one_way);
    on_cores(&mut group, "saturated/calls", Duration::ZERO, many_calls);
    group.finish();
    criterion.final_summary();
}
