//! compio's executor. It has no channels of its own.

use std::future::{Future, Ready};
use std::time::Duration;

use peers::executor::{Executor, Joined, main as measure};
use peers::sleeping;

struct Compio;

impl Executor for Compio {
    fn block_on(future: impl Future<Output = ()>) {
        compio::runtime::Runtime::new().expect("a runtime starts").block_on(future);
    }

    fn spawn<T: Send + 'static>(
        future: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = T> {
        Joined(compio::runtime::spawn(future))
    }

    fn sleep(time: Duration) -> impl Future<Output = ()> {
        compio::time::sleep(time)
    }

    fn spawn_sleep(time: Duration) {
        compio::runtime::spawn(sleeping!(compio::time::sleep(time))).detach();
    }

    fn block(steps: u64) -> Option<impl Future<Output = ()>> {
        Some(async move {
            for number in 0..steps {
                let task = compio::runtime::spawn_blocking(move || number);
                assert_eq!(task.await.unwrap(), number);
            }
        })
    }

    fn pass(_steps: u64) -> Option<impl Future<Output = ()>> {
        None::<Ready<()>>
    }

    fn oneshots(_steps: u64) -> Option<impl Future<Output = ()>> {
        None::<Ready<()>>
    }
}

fn main() {
    measure::<Compio>();
}
