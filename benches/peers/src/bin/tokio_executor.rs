//! tokio's executor, the current-thread runtime.

use std::future::Future;
use std::time::Duration;

use peers::executor::{Executor, Joined, main as measure};
use peers::{oneshots, pass, sleeping};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};

struct Tokio;

impl Executor for Tokio {
    fn block_on(future: impl Future<Output = ()>) {
        let runtime = Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime starts").block_on(future);
    }

    fn spawn<T: Send + 'static>(
        future: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = T> {
        Joined(tokio::spawn(future))
    }

    fn sleep(time: Duration) -> impl Future<Output = ()> {
        tokio::time::sleep(time)
    }

    fn spawn_sleep(time: Duration) {
        drop(tokio::spawn(sleeping!(tokio::time::sleep(time))));
    }

    fn block(steps: u64) -> Option<impl Future<Output = ()>> {
        Some(async move {
            for number in 0..steps {
                assert_eq!(tokio::task::spawn_blocking(move || number).await.unwrap(), number);
            }
        })
    }

    fn pass(steps: u64) -> Option<impl Future<Output = ()>> {
        Some(pass!(mpsc::channel(1), tokio::spawn, steps))
    }

    fn oneshots(steps: u64) -> Option<impl Future<Output = ()>> {
        Some(oneshots!(oneshot::channel(), steps))
    }
}

fn main() {
    measure::<Tokio>();
}
