//! Wakers that outlive what they wake.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use quoit::runtime::Runtime;
use quoit::task::yield_now;
use quoit::time::sleep;

use crate::loopback::scaled;
use crate::support::{Ledger, Watch, isolated};
use crate::support_alloc::live_bytes;

/// The wakers of one round, and whether their runtime and its thread are gone.
type Round = (Vec<Waker>, Arc<AtomicBool>);

/// Clones, wakes and drops until the thread of the runtime is gone, and once more.
#[expect(clippy::waker_clone_wake, reason = "a wake that uses its waker up is another one")]
fn hammer(rounds: &Receiver<Round>, ended: &Sender<()>) {
    for (wakers, gone) in rounds {
        loop {
            let last = gone.load(Ordering::Acquire);
            for waker in &wakers {
                let copy = waker.clone();
                copy.wake_by_ref();
                drop(copy);
                waker.clone().wake();
            }
            if last {
                break;
            }
        }
        wakers.into_iter().rev().for_each(Waker::wake);
        ended.send(()).unwrap();
    }
}

/// Takes the waker of the task that awaits it.
async fn waker() -> Waker {
    poll_fn(|context| Poll::Ready(context.waker().clone())).await
}

/// A runtime with tasks in every state at its end, whose wakers other threads have by then.
fn life(hammers: &[Sender<Round>], gone: &Arc<AtomicBool>) {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let wakers = Arc::new(Mutex::new(vec![waker().await]));
        let tasks: Vec<_> = (0..4)
            .map(|number| {
                let wakers = wakers.clone();
                quoit::spawn(async move {
                    let waker = waker().await;
                    wakers.lock().unwrap().push(waker);
                    match number {
                        0 => {}
                        1 => sleep(Duration::MAX).await,
                        2 => sleep(Duration::from_secs(60)).await,
                        _ => loop {
                            yield_now().await;
                        },
                    }
                })
            })
            .collect();
        yield_now().await;
        tasks[1].abort();
        let wakers = wakers.lock().unwrap().clone();
        for hammer in hammers {
            hammer.send((wakers.clone(), gone.clone())).unwrap();
        }
        yield_now().await;
    });
}

#[test]
fn s16_a_waker_outlives_its_task_its_runtime_and_its_thread() {
    isolated(|| {
        let watch = Watch::over("with wakers that outlive their runtime");
        let rounds = scaled(100_000, 400);
        let (ended, ends) = mpsc::channel();
        let (hammers, threads): (Vec<_>, Vec<_>) = (0..2)
            .map(|_| {
                let (sender, receiver) = mpsc::channel();
                let ended = ended.clone();
                (sender, thread::spawn(move || hammer(&receiver, &ended)))
            })
            .unzip();
        let hammers = Arc::new(hammers);
        let one_round = |hammers: &Arc<Vec<Sender<Round>>>| {
            let gone = Arc::new(AtomicBool::new(false));
            let (to, flag) = (hammers.clone(), gone.clone());
            thread::spawn(move || life(&to, &flag)).join().unwrap();
            gone.store(true, Ordering::Release);
            ends.recv().unwrap();
            ends.recv().unwrap();
        };
        (0..20).for_each(|_| one_round(&hammers));
        let ledger = Ledger::open();
        let before = live_bytes();
        (0..rounds).for_each(|_| one_round(&hammers));
        let grown = live_bytes() - before;
        println!("\nS16 {rounds} rounds, and {grown} bytes more than before");
        assert!(grown < 8192, "{grown} bytes were left by {rounds} rounds");
        ledger.close();
        drop(hammers);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        watch.ends();
    });
}

#[test]
fn s16_a_million_clones_of_a_waker_are_one_count() {
    isolated(|| {
        let watch = Watch::over("with a million clones");
        let before = live_bytes();
        let runtime = Runtime::new().unwrap();
        let (one, task) = runtime.block_on(async {
            let (sender, receiver) = mpsc::channel();
            let task = quoit::spawn(async move {
                // So large that it would be missed if the last clone did not free the task.
                let large = [0_u8; 1 << 16];
                sender.send(waker().await).unwrap();
                sleep(Duration::MAX).await;
                std::hint::black_box(large);
            });
            yield_now().await;
            (receiver.recv().unwrap(), task)
        });
        let mut clones = vec![one.clone(); 1_000_000];
        let half = clones.split_off(500_000);
        runtime.block_on(async {
            half.into_iter().for_each(Waker::wake);
            yield_now().await;
        });
        drop(task);
        drop(runtime);
        assert!(clones.iter().all(|clone| clone.will_wake(&one)));
        thread::spawn(move || {
            clones.iter().for_each(Waker::wake_by_ref);
            drop(clones);
        })
        .join()
        .unwrap();
        one.wake();
        let grown = live_bytes() - before;
        assert!(grown < 8192, "{grown} bytes were left");
        watch.ends();
    });
}
