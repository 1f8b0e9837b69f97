//! Every order in which a few futures that wait for each other can be polled and dropped, and long
//! random ones.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use crate::numbers::Random;
use crate::support::scaled;

pub(crate) type Waiting = Pin<Box<dyn Future<Output = ()>>>;

/// Something to wait for, those who wait, and what else can happen to it.
pub(crate) trait Scene {
    /// How many wait.
    fn waiters(&self) -> usize;
    /// Makes the future of one of them.
    fn waiter(&mut self, number: usize) -> Waiting;
    /// How many kinds of events there are.
    fn events(&self) -> usize {
        0
    }
    /// Has an event happen.
    fn event(&mut self, _kind: usize) {}
    /// A future was polled: a model says whether it had to be ready.
    fn polled(&mut self, _number: usize, _is_ready: bool) {}
    /// A future was dropped before it was ready.
    fn dropped(&mut self, _number: usize) {}
    /// When nobody is woken any more: does what lets somebody go on, and says whether it did something.
    fn settle(&mut self) -> bool {
        false
    }
    /// At the end of all.
    fn check(&mut self);
}

/// Wakes by a flag, and then panics if it is to.
struct Bell {
    rung: AtomicBool,
    panics: bool,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Relaxed);
        if self.panics {
            // This way it prints nothing.
            resume_unwind(Box::new(()));
        }
    }
}

struct Waiter {
    future: Option<Waiting>,
    /// That of the latest poll; the others may be rung for nothing.
    bell: Option<Arc<Bell>>,
}

struct Stage<S> {
    scene: S,
    waiters: Vec<Waiter>,
    /// Every how many wakers panic; 0 for none.
    panics: usize,
    polls: usize,
}

impl<S: Scene> Stage<S> {
    fn new(mut scene: S, panics: usize) -> Self {
        let waiters = (0..scene.waiters())
            .map(|number| Waiter { future: Some(scene.waiter(number)), bell: None })
            .collect();
        Stage { scene, waiters, panics, polls: 0 }
    }

    fn poll(&mut self, number: usize) {
        let waiter = &mut self.waiters[number];
        let Some(future) = &mut waiter.future else { return };
        self.polls += 1;
        // Half of the polls are with the waker of the poll before.
        if waiter.bell.is_none() || self.polls.is_multiple_of(2) {
            let panics = self.panics > 0 && self.polls.is_multiple_of(self.panics);
            waiter.bell = Some(Arc::new(Bell { rung: AtomicBool::new(false), panics }));
        }
        let bell = waiter.bell.as_ref().unwrap();
        bell.rung.store(false, Ordering::Relaxed);
        let waker = Waker::from(bell.clone());
        let is_ready = future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        if is_ready {
            waiter.future = None;
        }
        self.scene.polled(number, is_ready);
    }

    fn drop(&mut self, number: usize) {
        let future = self.waiters[number].future.take();
        if future.is_some() {
            drop(future);
            self.scene.dropped(number);
        }
    }

    fn is_woken(&self, number: usize) -> bool {
        let Waiter { future, bell } = &self.waiters[number];
        let rung = |bell: &Arc<Bell>| bell.rung.load(Ordering::Relaxed);
        future.is_some() && bell.as_ref().is_none_or(rung)
    }

    /// Polls only those that were woken, until all have ended.
    fn finish(mut self) {
        loop {
            let woken = (0..self.waiters.len()).find(|number| self.is_woken(*number));
            match woken {
                Some(number) => self.poll(number),
                None if self.scene.settle() => {}
                None => break,
            }
        }
        for (number, waiter) in self.waiters.iter().enumerate() {
            assert!(waiter.future.is_none(), "waiter {number} waits for ever");
        }
        self.scene.check();
    }
}

/// Plays every order of at most `steps` polls, drops and events, each followed by the end of the play.
pub(crate) fn explore<S: Scene>(steps: usize, make: impl Fn() -> S) {
    // The choices of this play, and how many there were of each.
    let mut path: Vec<(usize, usize)> = Vec::new();
    let mut plays = 0;
    loop {
        let mut stage = Stage::new(make(), 0);
        let mut events = vec![1; stage.scene.events()];
        for step in 0..steps {
            let living: Vec<usize> =
                (0..stage.waiters.len()).filter(|at| stage.waiters[*at].future.is_some()).collect();
            let left: Vec<usize> = (0..events.len()).filter(|kind| events[*kind] > 0).collect();
            let count = living.len() * 2 + left.len();
            if count == 0 {
                break;
            }
            if step == path.len() {
                path.push((0, count));
            }
            assert_eq!(path[step].1, count, "a play goes as it went before");
            match path[step].0 {
                choice if choice < living.len() => stage.poll(living[choice]),
                choice if choice < living.len() * 2 => stage.drop(living[choice - living.len()]),
                choice => {
                    let kind = left[choice - living.len() * 2];
                    events[kind] -= 1;
                    stage.scene.event(kind);
                }
            }
        }
        stage.finish();
        plays += 1;
        while path.last().is_some_and(|(choice, count)| choice + 1 == *count) {
            path.pop();
        }
        match path.last_mut() {
            Some((choice, _)) => *choice += 1,
            None => break,
        }
    }
    assert!(plays > 100, "only {plays} plays");
}

/// Plays long random orders, in which who has ended comes anew, and wakers panic.
pub(crate) fn wander<S: Scene>(make: impl Fn() -> S) {
    for seed in 0..scaled(60) as u64 {
        let mut random = Random::new(seed);
        let mut stage = Stage::new(make(), if seed % 2 == 0 { 0 } else { 3 });
        for _ in 0..300 {
            let number = random.below(stage.waiters.len());
            match random.below(10) {
                0..5 => stage.poll(number),
                5 => stage.drop(number),
                6..8 if stage.scene.events() > 0 => {
                    let kind = random.below(stage.scene.events());
                    stage.scene.event(kind);
                }
                _ if stage.waiters[number].future.is_none() => {
                    let future = Some(stage.scene.waiter(number));
                    stage.waiters[number] = Waiter { future, bell: None };
                }
                _ => {}
            }
        }
        stage.finish();
    }
}

/// Is pending once, and has itself polled again.
pub(crate) async fn once() {
    let mut polled = false;
    poll_fn(|context| {
        if std::mem::replace(&mut polled, true) {
            return Poll::Ready(());
        }
        // Not this task's matter if its waker panics.
        let _ = catch_unwind(AssertUnwindSafe(|| context.waker().wake_by_ref()));
        Poll::Pending
    })
    .await;
}
