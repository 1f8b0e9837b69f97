//! monoio's executor, with the channels of local-sync, which are made for it.

use std::future::{Future, Ready};
use std::time::Duration;

use local_sync::{mpsc::bounded, oneshot};
use monoio::{IoUringDriver, RuntimeBuilder};
use peers::executor::{Executor, main as measure};
use peers::{oneshots, pass, sleeping};

struct Monoio;

impl Executor for Monoio {
    fn block_on(future: impl Future<Output = ()>) {
        let runtime = RuntimeBuilder::<IoUringDriver>::new().enable_timer().build();
        runtime.expect("a runtime starts").block_on(future);
    }

    fn spawn<T: Send + 'static>(
        future: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = T> {
        monoio::spawn(future)
    }

    fn sleep(time: Duration) -> impl Future<Output = ()> {
        monoio::time::sleep(time)
    }

    fn spawn_sleep(time: Duration) {
        drop(monoio::spawn(sleeping!(monoio::time::sleep(time))));
    }

    /// It has threads for that only if it is given some.
    fn block(_steps: u64) -> Option<impl Future<Output = ()>> {
        None::<Ready<()>>
    }

    fn pass(steps: u64) -> Option<impl Future<Output = ()>> {
        Some(pass!(bounded::channel(1), monoio::spawn, steps))
    }

    fn oneshots(steps: u64) -> Option<impl Future<Output = ()>> {
        Some(oneshots!(oneshot::channel(), steps))
    }
}

fn main() {
    measure::<Monoio>();
}
