//! Functions in the ready queue.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Calls `f` on this core soon: after all that is ready now, and before the core sleeps.
///
/// It is asyncio's `call_soon`: one entry of the ready queue, in order with the tasks there. A panic
/// in it is caught, and disturbs nothing else. If the runtime ends before, `f` is dropped and not
/// called.
///
/// # Panics
/// Outside of a runtime.
///
/// ```
/// use std::cell::Cell;
/// use std::rc::Rc;
///
/// # quoit::runtime::run(async {
/// let called = Rc::new(Cell::new(false));
/// let flag = called.clone();
/// quoit::task::call_soon(move || flag.set(true));
/// assert!(!called.get());
/// quoit::task::yield_now().await;
/// assert!(called.get());
/// # }).unwrap();
/// ```
#[track_caller]
pub fn call_soon<F: FnOnce() + 'static>(f: F) {
    drop(super::spawn(Soon(Some(f))));
}

/// The entry of the ready queue: a task that ends with its first poll.
struct Soon<F>(Option<F>);

// The function is moved out when it is called, never pinned.
impl<F> Unpin for Soon<F> {}

impl<F: FnOnce()> Future for Soon<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<()> {
        let f = self.0.take().expect("a callback is called once");
        f();
        Poll::Ready(())
    }
}
