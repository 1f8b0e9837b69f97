//! quoit's executor.

use std::future::Future;
use std::time::Duration;

use peers::executor::{Executor, Joined, main as measure};
use peers::{oneshots, pass, sleeping};
use quoit::runtime::Runtime;
use quoit::sync::{mpsc, oneshot};

struct Quoit;

impl Executor for Quoit {
    fn block_on(future: impl Future<Output = ()>) {
        Runtime::new().expect("a runtime starts").block_on(future);
    }

    fn spawn<T: Send + 'static>(
        future: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = T> {
        Joined(quoit::spawn(future))
    }

    fn sleep(time: Duration) -> impl Future<Output = ()> {
        quoit::time::sleep(time)
    }

    fn spawn_sleep(time: Duration) {
        drop(quoit::spawn(sleeping!(quoit::time::sleep(time))));
    }

    fn block(steps: u64) -> Option<impl Future<Output = ()>> {
        Some(async move {
            for number in 0..steps {
                assert_eq!(quoit::spawn_blocking(move || number).await.unwrap(), number);
            }
        })
    }

    fn pass(steps: u64) -> Option<impl Future<Output = ()>> {
        Some(pass!(mpsc::channel(1), quoit::spawn, steps))
    }

    fn oneshots(steps: u64) -> Option<impl Future<Output = ()>> {
        Some(oneshots!(oneshot::channel(), steps))
    }
}

fn main() {
    measure::<Quoit>();
}
