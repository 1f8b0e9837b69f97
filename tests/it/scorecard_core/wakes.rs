//! Wakes from other threads.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use quoit::runtime::{self, Builder};

use super::{assert_fruitful, percentile};
use crate::loopback::{Random, scaled};
use crate::support::{Watch, isolated, ledger, patient};

/// A wake that has not been seen after this time is lost.
const LOST: Duration = Duration::from_secs(1);

/// Where other threads leave wakes for one task.
#[derive(Default)]
struct Place {
    waker: Mutex<Option<Waker>>,
    asked: AtomicU64,
    seen: AtomicU64,
}

/// What the tasks and the threads share.
struct Scene {
    places: Vec<Place>,
    over: AtomicBool,
    main: Mutex<Option<Waker>>,
    gone: AtomicU64,
}

impl Scene {
    fn new(places: usize) -> Arc<Scene> {
        Arc::new(Scene {
            places: (0..places).map(|_| Place::default()).collect(),
            over: AtomicBool::new(false),
            main: Mutex::new(None),
            gone: AtomicU64::new(0),
        })
    }

    /// A task that sleeps whenever it has seen all.
    async fn park(self: Arc<Self>, number: usize) {
        let place = &self.places[number];
        poll_fn(|context| {
            place.waker.lock().unwrap().get_or_insert_with(|| context.waker().clone());
            place.seen.store(place.asked.load(Ordering::Acquire), Ordering::Release);
            if self.over.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    fn wakers(&self) -> Vec<Waker> {
        self.places.iter().map(|place| place.waker.lock().unwrap().clone().unwrap()).collect()
    }

    /// Waits until the task has seen `ticket`, for no longer than until it counts as lost.
    fn is_seen(&self, number: usize, ticket: u64) -> bool {
        let start = Instant::now();
        while self.places[number].seen.load(Ordering::Acquire) < ticket {
            if start.elapsed() > patient(LOST) {
                return false;
            }
            thread::yield_now();
        }
        true
    }

    /// One wake of a random task, and how long the call took.
    fn wake(&self, number: usize, wakers: &[Waker]) -> (u64, Duration) {
        let ticket = self.places[number].asked.fetch_add(1, Ordering::AcqRel) + 1;
        let start = Instant::now();
        wakers[number].wake_by_ref();
        (ticket, start.elapsed())
    }

    /// The end of a thread: its last wake is main's, which no timer would rescue.
    fn leave(&self) {
        self.gone.fetch_add(1, Ordering::AcqRel);
        let main = self.main.lock().unwrap().clone();
        main.unwrap().wake();
    }

    async fn all_gone(&self, threads: u64) {
        poll_fn(|context| {
            *self.main.lock().unwrap() = Some(context.waker().clone());
            let gone = self.gone.load(Ordering::Acquire) == threads;
            if gone { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// Wakes tasks at random; each wake, or one of sixteen, is awaited before the next.
fn hammer(scene: &Scene, seed: usize, count: usize, each: bool) -> (usize, Vec<Duration>) {
    let wakers = scene.wakers();
    let mut random = Random::new(seed as u64);
    let (mut lost, mut times) = (0, Vec::with_capacity(count));
    for turn in 0..count {
        let number = random.below(wakers.len());
        let (ticket, took) = scene.wake(number, &wakers);
        times.push(took);
        if each || turn % 16 == 0 {
            lost += usize::from(!scene.is_seen(number, ticket));
        }
    }
    (lost, times)
}

/// Runs `hammer` on `threads` threads, and says how many wakes were lost and how long wakes took.
async fn hammered(scene: &Arc<Scene>, threads: usize, count: usize, each: bool) -> Vec<Duration> {
    *scene.main.lock().unwrap() = Some(poll_fn(|cx| Poll::Ready(cx.waker().clone())).await);
    let before = scene.gone.load(Ordering::Acquire);
    let hammers: Vec<_> = (0..threads)
        .map(|seed| {
            let scene = scene.clone();
            thread::spawn(move || {
                let result = hammer(&scene, seed, count, each);
                scene.leave();
                result
            })
        })
        .collect();
    scene.all_gone(before + threads as u64).await;
    let mut all = Vec::new();
    for hammer in hammers {
        let (lost, mut times) = hammer.join().unwrap();
        assert_eq!(lost, 0, "wakes were lost");
        all.append(&mut times);
    }
    all
}

#[test]
fn s15_no_wake_of_another_thread_is_lost() {
    isolated(|| {
        let watch = Watch::over("waiting for a wake");
        let stats = ledger(Builder::new(), async || {
            let scene = Scene::new(1000);
            let tasks: Vec<_> =
                (0..1000).map(|number| quoit::spawn(scene.clone().park(number))).collect();
            quoit::task::yield_now().await;
            let mut one = hammered(&scene, 1, scaled(200_000, 20_000), true).await;
            let count = one.len();
            println!("\nS15 {count} wakes of one thread: 99 % in {:?}", percentile(&mut one, 99));
            let mut eight = hammered(&scene, 8, scaled(1_000_000, 20_000), false).await;
            let count = eight.len();
            println!(
                "\nS15 {count} wakes of eight threads: 99 % in {:?}",
                percentile(&mut eight, 99)
            );
            // Everything was seen, also what nobody waited for.
            scene.over.store(true, Ordering::Release);
            scene.wakers().iter().for_each(Waker::wake_by_ref);
            for task in tasks {
                task.await.unwrap();
            }
            for place in &scene.places {
                let asked = place.asked.load(Ordering::Acquire);
                assert_eq!(place.seen.load(Ordering::Acquire), asked);
                drop(place.waker.lock().unwrap().take());
            }
            runtime::stats()
        });
        assert!(stats.remote_wakes > 0);
        assert_fruitful(&stats, stats.remote_wakes / 10);
        watch.ends();
    });
}

#[test]
fn s15_a_wake_does_not_wait_for_a_core_that_stalls() {
    isolated(|| {
        let watch = Watch::over("waiting for a wake");
        ledger(Builder::new(), async || {
            let scene = Scene::new(1000);
            let tasks: Vec<_> =
                (0..1000).map(|number| quoit::spawn(scene.clone().park(number))).collect();
            quoit::task::yield_now().await;
            let (shared, stalled) = (scene.clone(), Arc::new(AtomicBool::new(true)));
            let is_stalled = stalled.clone();
            let hammer = thread::spawn(move || {
                let wakers = shared.wakers();
                let mut random = Random::new(1);
                let mut wake = |_| shared.wake(random.below(wakers.len()), &wakers).1;
                let times: Vec<_> = (0..10_000).map(&mut wake).collect();
                (times, is_stalled.load(Ordering::Acquire))
            });
            thread::sleep(patient(Duration::from_millis(scaled(1000, 300) as u64)));
            stalled.store(false, Ordering::Release);
            let (mut times, still_stalled) = hammer.join().unwrap();
            assert!(still_stalled, "the wakes waited for the core");
            println!("\nS15 wakes of a stalled core: 99 % in {:?}", percentile(&mut times, 99));
            for (number, place) in scene.places.iter().enumerate() {
                let asked = place.asked.load(Ordering::Acquire);
                while place.seen.load(Ordering::Acquire) < asked {
                    quoit::task::yield_now().await;
                }
                assert_eq!(place.seen.load(Ordering::Acquire), asked, "task {number}");
            }
            scene.over.store(true, Ordering::Release);
            scene.wakers().iter().for_each(Waker::wake_by_ref);
            for task in tasks {
                task.await.unwrap();
            }
        });
        watch.ends();
    });
}
