//! The least that runs tasks: a `VecDeque` of `Rc` tasks with hand-made wakers.
//!
//! It has no kernel, no other thread, no timer, no abort and no panic to catch, and all its wakers
//! stay on one thread. So it is what a runtime's bookkeeping is measured against.

use std::cell::{Cell, RefCell, UnsafeCell};
use std::collections::VecDeque;
use std::future::Future;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

/// The ready queue.
#[derive(Clone, Copy)]
pub(crate) struct Loop(&'static RefCell<VecDeque<Rc<dyn Run>>>);

trait Run {
    fn run(self: Rc<Self>);
}

enum Stage<F: Future> {
    Running(F),
    Ended(F::Output),
    Taken,
}

struct Task<F: Future> {
    queue: Loop,
    queued: Cell<bool>,
    joiner: Cell<Option<Waker>>,
    stage: UnsafeCell<Stage<F>>,
}

/// Waits for a task.
pub(crate) struct Join<F: Future>(Rc<Task<F>>);

impl Loop {
    pub(crate) fn new() -> Loop {
        Loop(Box::leak(Box::default()))
    }

    #[inline]
    pub(crate) fn spawn<F: Future + 'static>(self, future: F) -> Join<F> {
        let task = Rc::new(Task {
            queue: self,
            queued: Cell::new(true),
            joiner: Cell::new(None),
            stage: UnsafeCell::new(Stage::Running(future)),
        });
        self.0.borrow_mut().push_back(task.clone());
        Join(task)
    }

    /// Runs until nothing is ready, and returns what `future` made.
    pub(crate) fn block_on<F: Future + 'static>(self, future: F) -> F::Output {
        let task = self.spawn(future).0;
        loop {
            let next = self.0.borrow_mut().pop_front();
            let Some(next) = next else { break };
            next.run();
        }
        task.take().expect("the queue runs dry when all has ended")
    }
}

impl<F: Future + 'static> Task<F> {
    const WAKER: RawWakerVTable =
        RawWakerVTable::new(Self::clone_raw, Self::wake, Self::wake_by_ref, Self::drop_raw);

    fn take(&self) -> Option<F::Output> {
        // SAFETY: nothing else uses the stage: the future is not being polled.
        let stage = unsafe { &mut *self.stage.get() };
        if !matches!(stage, Stage::Ended(_)) {
            return None;
        }
        match std::mem::replace(stage, Stage::Taken) {
            Stage::Ended(output) => Some(output),
            _ => None,
        }
    }

    unsafe fn clone_raw(data: *const ()) -> RawWaker {
        // SAFETY: `data` is an `Rc<Self>` that the waker keeps.
        unsafe { Rc::increment_strong_count(data.cast::<Self>()) };
        RawWaker::new(data, &Self::WAKER)
    }

    unsafe fn wake(data: *const ()) {
        // SAFETY: the waker's own `Rc`.
        let task = unsafe { Rc::from_raw(data.cast::<Self>()) };
        if !task.queued.replace(true) {
            let queue = task.queue;
            queue.0.borrow_mut().push_back(task);
        }
    }

    unsafe fn wake_by_ref(data: *const ()) {
        // SAFETY: the waker keeps it.
        let task = ManuallyDrop::new(unsafe { Rc::from_raw(data.cast::<Self>()) });
        if !task.queued.replace(true) {
            task.queue.0.borrow_mut().push_back(Rc::clone(&task) as Rc<dyn Run>);
        }
    }

    unsafe fn drop_raw(data: *const ()) {
        // SAFETY: the waker's own `Rc`.
        drop(unsafe { Rc::from_raw(data.cast::<Self>()) });
    }
}

impl<F: Future + 'static> Run for Task<F> {
    fn run(self: Rc<Self>) {
        self.queued.set(false);
        // SAFETY: the queue's entry keeps the task during the poll; no waker leaves the thread.
        let waker =
            unsafe { Waker::from_raw(RawWaker::new(Rc::as_ptr(&self).cast(), &Self::WAKER)) };
        let waker = ManuallyDrop::new(waker);
        // SAFETY: nothing else uses the stage during the poll.
        let stage = unsafe { &mut *self.stage.get() };
        let Stage::Running(future) = stage else { return };
        // SAFETY: the future stays in its `Rc` until it is dropped there.
        let future = unsafe { Pin::new_unchecked(future) };
        if let Poll::Ready(output) = future.poll(&mut Context::from_waker(&waker)) {
            *stage = Stage::Ended(output);
            if let Some(joiner) = self.joiner.take() {
                joiner.wake();
            }
        }
    }
}

impl<F: Future + 'static> Future for Join<F> {
    type Output = F::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        match self.0.take() {
            Some(output) => Poll::Ready(output),
            None => {
                self.0.joiner.set(Some(context.waker().clone()));
                Poll::Pending
            }
        }
    }
}
