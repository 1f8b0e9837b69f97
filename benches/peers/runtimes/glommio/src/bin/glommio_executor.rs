//! glommio's executor.

use std::future::{Future, Ready};
use std::time::Duration;

use glommio::channels::local_channel;
use glommio::{LocalExecutorBuilder, Placement};
use peers::executor::{Executor, main as measure};
use peers::{pass, sleeping};

struct Glommio;

impl Executor for Glommio {
    fn block_on(future: impl Future<Output = ()>) {
        let executor = LocalExecutorBuilder::new(Placement::Unbound).make();
        executor.expect("an executor starts").run(future);
    }

    fn spawn<T: Send + 'static>(
        future: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = T> {
        glommio::spawn_local(future)
    }

    fn sleep(time: Duration) -> impl Future<Output = ()> {
        glommio::timer::sleep(time)
    }

    fn spawn_sleep(time: Duration) {
        glommio::spawn_local(sleeping!(glommio::timer::sleep(time))).detach();
    }

    fn block(steps: u64) -> Option<impl Future<Output = ()>> {
        Some(async move {
            for number in 0..steps {
                assert_eq!(glommio::executor().spawn_blocking(move || number).await, number);
            }
        })
    }

    fn pass(steps: u64) -> Option<impl Future<Output = ()>> {
        Some(pass!(local_channel::new_bounded(1), glommio::spawn_local, steps))
    }

    /// It has no channel for one value.
    fn oneshots(_steps: u64) -> Option<impl Future<Output = ()>> {
        None::<Ready<()>>
    }
}

fn main() {
    measure::<Glommio>();
}
