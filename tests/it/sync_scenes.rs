//! Whoever waits may be dropped at any point, and nothing is lost: each primitive in every order of
//! polls, drops and events, against a model where it has one.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;

use quoit::sync::{
    Barrier, Condvar, Event, Gate, Mutex, Notify, OnceCell, OwnedSemaphorePermit, Pass, RwLock,
    Semaphore, broadcast, mpsc, watch,
};

use crate::sync_explore::{Scene, Waiting, explore, once, wander};

const WAITERS: usize = 3;
const STEPS: usize = 6;

// ---- Semaphore ----

/// One permit at first; waiters ask for 1, 2, 1; events give back and add.
struct Permits {
    semaphore: Rc<Semaphore>,
    held: Rc<RefCell<VecDeque<OwnedSemaphorePermit>>>,
    total: usize,
    // The model.
    line: VecDeque<usize>,
    granted: Vec<usize>,
    available: usize,
}

impl Permits {
    fn new() -> Self {
        Permits {
            semaphore: Rc::new(Semaphore::new(1)),
            held: Rc::default(),
            total: 1,
            line: VecDeque::new(),
            granted: Vec::new(),
            available: 1,
        }
    }

    fn wants(number: usize) -> usize {
        1 + number % 2
    }

    fn serve(&mut self) {
        while let Some(&first) = self.line.front()
            && Self::wants(first) <= self.available
        {
            self.available -= Self::wants(first);
            self.granted.extend(self.line.pop_front());
        }
    }

    fn give_back(&mut self) -> bool {
        let permit = self.held.borrow_mut().pop_front();
        let Some(permit) = permit else { return false };
        self.available += permit.num_permits();
        drop(permit);
        self.serve();
        true
    }
}

impl Scene for Permits {
    fn waiters(&self) -> usize {
        WAITERS
    }

    fn waiter(&mut self, number: usize) -> Waiting {
        let (semaphore, held) = (self.semaphore.clone(), self.held.clone());
        Box::pin(async move {
            let permit = semaphore.acquire_many_owned(Self::wants(number) as u32).await.unwrap();
            held.borrow_mut().push_back(permit);
        })
    }

    fn events(&self) -> usize {
        2
    }

    fn event(&mut self, kind: usize) {
        if kind == 0 {
            self.give_back();
        } else if self.total < 4 {
            self.total += 1;
            self.available += 1;
            self.semaphore.add_permits(1);
            self.serve();
        }
    }

    fn polled(&mut self, number: usize, is_ready: bool) {
        let granted = self.granted.iter().position(|other| *other == number);
        if let Some(at) = granted {
            assert!(is_ready, "{number} was granted its permits");
            self.granted.remove(at);
        } else if self.line.contains(&number) {
            assert!(!is_ready, "{number} is in line");
        } else {
            let fits = self.line.is_empty() && Self::wants(number) <= self.available;
            assert_eq!(is_ready, fits, "{number} comes");
            if fits {
                self.available -= Self::wants(number);
            } else {
                self.line.push_back(number);
            }
        }
        assert_eq!(self.semaphore.available_permits(), self.available);
    }

    fn dropped(&mut self, number: usize) {
        if let Some(at) = self.granted.iter().position(|other| *other == number) {
            self.granted.remove(at);
            self.available += Self::wants(number);
        }
        self.line.retain(|other| *other != number);
        self.serve();
        assert_eq!(self.semaphore.available_permits(), self.available);
    }

    fn settle(&mut self) -> bool {
        if self.total < 2 {
            self.event(1);
            return true;
        }
        self.give_back()
    }

    fn check(&mut self) {
        assert_eq!(self.semaphore.available_permits(), self.total);
    }
}

#[test]
fn a_semaphore_is_fair_and_loses_no_permit() {
    explore(STEPS, Permits::new);
    wander(Permits::new);
}

#[test]
fn a_closed_semaphore_refuses_all_who_wait_and_keeps_what_was_granted() {
    /// Every waiter ends, with a permit or an error, and the permits come back.
    struct Closing(Rc<Semaphore>);
    impl Scene for Closing {
        fn waiters(&self) -> usize {
            WAITERS
        }
        fn waiter(&mut self, _: usize) -> Waiting {
            let semaphore = self.0.clone();
            Box::pin(async move {
                let permit = semaphore.acquire().await;
                if permit.is_ok() {
                    once().await;
                }
            })
        }
        fn events(&self) -> usize {
            1
        }
        fn event(&mut self, _: usize) {
            self.0.close();
        }
        fn check(&mut self) {
            assert_eq!(self.0.available_permits(), 1);
        }
    }
    explore(STEPS, || Closing(Rc::new(Semaphore::new(1))));
    wander(|| Closing(Rc::new(Semaphore::new(1))));
}

// ---- Locks ----

/// Each waiter writes, is pending once with the lock, and writes again.
struct Locked {
    mutex: Rc<Mutex<usize>>,
    polled: Rc<RefCell<Vec<usize>>>,
}

impl Locked {
    fn new() -> Self {
        Locked { mutex: Rc::new(Mutex::new(0)), polled: Rc::default() }
    }
}

impl Scene for Locked {
    fn waiters(&self) -> usize {
        WAITERS
    }

    fn waiter(&mut self, number: usize) -> Waiting {
        let (mutex, line) = (self.mutex.clone(), self.polled.clone());
        Box::pin(async move {
            struct Leaves(Rc<RefCell<Vec<usize>>>, usize);
            impl Drop for Leaves {
                fn drop(&mut self) {
                    self.0.borrow_mut().retain(|other| *other != self.1);
                }
            }
            line.borrow_mut().push(number);
            let _leaves = Leaves(line.clone(), number);
            let mut value = mutex.lock().await;
            assert_eq!(line.borrow()[0], number, "who came first has it");
            *value = number;
            once().await;
            assert_eq!(*value, number, "nobody else had it meanwhile");
        })
    }

    fn check(&mut self) {
        assert!(self.mutex.try_lock().is_ok());
    }
}

#[test]
fn a_mutex_has_one_holder_at_a_time_in_the_order_in_which_they_came() {
    explore(STEPS + 1, Locked::new);
    wander(Locked::new);
}

/// Readers and writers are pending once with the lock.
struct Shelf {
    lock: Rc<RwLock<()>>,
    readers: Rc<Cell<usize>>,
    writers: Rc<Cell<usize>>,
}

struct Counted(Rc<Cell<usize>>);

impl Counted {
    fn new(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Counted(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Shelf {
    fn new() -> Self {
        Shelf { lock: Rc::new(RwLock::new(())), readers: Rc::default(), writers: Rc::default() }
    }
}

impl Scene for Shelf {
    fn waiters(&self) -> usize {
        WAITERS + 1
    }

    fn waiter(&mut self, number: usize) -> Waiting {
        let (lock, readers, writers) =
            (self.lock.clone(), self.readers.clone(), self.writers.clone());
        Box::pin(async move {
            if number.is_multiple_of(2) {
                let _read = lock.read().await;
                let _count = Counted::new(&readers);
                once().await;
                assert_eq!(writers.get(), 0);
            } else {
                let write = lock.write().await;
                let count = Counted::new(&writers);
                once().await;
                assert_eq!((readers.get(), writers.get()), (0, 1));
                drop(count);
                let _count = Counted::new(&readers);
                let _read = write.downgrade();
                once().await;
                assert_eq!(writers.get(), 0);
            }
        })
    }

    fn check(&mut self) {
        assert!(self.lock.try_write().is_ok());
    }
}

#[test]
fn a_rwlock_has_many_readers_or_one_writer() {
    explore(STEPS - 1, Shelf::new);
    wander(Shelf::new);
}

// ---- Notify, Condvar, Event ----

/// What tells and what waits: `Notify` keeps one notification, `Condvar` none.
enum Bells {
    Notify(Notify),
    Condvar(Condvar, Mutex<()>),
}

struct Notified {
    bells: Rc<Bells>,
    // The model.
    line: VecDeque<usize>,
    by_one: Vec<usize>,
    by_all: Vec<usize>,
    is_kept: bool,
}

impl Notified {
    fn new(bells: Bells) -> Self {
        let (line, by_one, by_all) = Default::default();
        Notified { bells: Rc::new(bells), line, by_one, by_all, is_kept: false }
    }

    fn notify() -> Self {
        Notified::new(Bells::Notify(Notify::new()))
    }

    fn condvar() -> Self {
        Notified::new(Bells::Condvar(Condvar::new(), Mutex::new(())))
    }

    fn give_one(&mut self) {
        match self.line.pop_front() {
            Some(first) => self.by_one.push(first),
            None => self.is_kept = matches!(*self.bells, Bells::Notify(_)),
        }
    }
}

impl Scene for Notified {
    fn waiters(&self) -> usize {
        WAITERS
    }

    fn waiter(&mut self, _: usize) -> Waiting {
        let bells = self.bells.clone();
        Box::pin(async move {
            match &*bells {
                Bells::Notify(notify) => notify.notified().await,
                Bells::Condvar(condvar, mutex) => {
                    drop(condvar.wait(mutex.lock().await).await);
                }
            }
        })
    }

    fn events(&self) -> usize {
        2
    }

    fn event(&mut self, kind: usize) {
        match (&*self.bells, kind) {
            (Bells::Notify(notify), 0) => notify.notify_one(),
            (Bells::Notify(notify), _) => notify.notify_waiters(),
            (Bells::Condvar(condvar, _), 0) => condvar.notify_one(),
            (Bells::Condvar(condvar, _), _) => condvar.notify_all(),
        }
        if kind == 0 {
            self.give_one();
        } else {
            self.by_all.extend(self.line.drain(..));
        }
    }

    fn polled(&mut self, number: usize, is_ready: bool) {
        let (one, all) = (self.by_one.contains(&number), self.by_all.contains(&number));
        if one || all {
            assert!(is_ready, "{number} was notified");
            self.by_one.retain(|other| *other != number);
            self.by_all.retain(|other| *other != number);
        } else if self.line.contains(&number) {
            assert!(!is_ready, "{number} is in line");
        } else {
            assert_eq!(is_ready, std::mem::take(&mut self.is_kept), "{number} comes");
            if !is_ready {
                self.line.push_back(number);
            }
        }
    }

    fn dropped(&mut self, number: usize) {
        let had_one = self.by_one.contains(&number);
        self.by_one.retain(|other| *other != number);
        self.by_all.retain(|other| *other != number);
        self.line.retain(|other| *other != number);
        if had_one {
            self.give_one();
        }
    }

    fn settle(&mut self) -> bool {
        let waits = !self.line.is_empty();
        if waits {
            self.event(0);
        }
        waits
    }

    fn check(&mut self) {
        assert!(self.line.is_empty());
    }
}

#[test]
fn a_notification_goes_to_the_next_when_its_receiver_is_dropped() {
    explore(STEPS, Notified::notify);
    wander(Notified::notify);
}

#[test]
fn a_condvar_keeps_no_notification_and_passes_on_what_it_gave() {
    explore(STEPS, Notified::condvar);
    wander(Notified::condvar);
}

#[test]
fn all_who_wait_for_an_event_go_on_when_it_is_set() {
    struct Flag(Rc<Event>);
    impl Scene for Flag {
        fn waiters(&self) -> usize {
            WAITERS
        }
        fn waiter(&mut self, _: usize) -> Waiting {
            let event = self.0.clone();
            Box::pin(async move { event.wait().await })
        }
        fn events(&self) -> usize {
            2
        }
        fn event(&mut self, kind: usize) {
            if kind == 0 { self.0.set() } else { self.0.clear() }
        }
        fn settle(&mut self) -> bool {
            !self.0.is_set() && {
                self.0.set();
                true
            }
        }
        fn check(&mut self) {}
    }
    explore(STEPS, || Flag(Rc::default()));
    wander(|| Flag(Rc::default()));
}

// ---- Barrier, Gate, OnceCell ----

/// A barrier for two.
struct Meeting {
    barrier: Rc<Barrier>,
    leaders: Rc<Cell<usize>>,
    // The model.
    arrived: Vec<usize>,
    released: Vec<usize>,
    rounds: usize,
}

impl Meeting {
    fn new() -> Self {
        let (arrived, released, leaders) = Default::default();
        Meeting { barrier: Rc::new(Barrier::new(2)), leaders, arrived, released, rounds: 0 }
    }
}

impl Scene for Meeting {
    fn waiters(&self) -> usize {
        4
    }

    fn waiter(&mut self, _: usize) -> Waiting {
        let (barrier, leaders) = (self.barrier.clone(), self.leaders.clone());
        Box::pin(async move {
            if barrier.wait().await.is_leader() {
                leaders.set(leaders.get() + 1);
            }
        })
    }

    fn polled(&mut self, number: usize, is_ready: bool) {
        if let Some(at) = self.released.iter().position(|other| *other == number) {
            self.released.remove(at);
            assert!(is_ready, "the barrier has opened for {number}");
        } else if self.arrived.contains(&number) {
            assert!(!is_ready);
        } else if self.arrived.is_empty() {
            self.arrived.push(number);
            assert!(!is_ready);
        } else {
            self.released.append(&mut self.arrived);
            self.rounds += 1;
            assert!(is_ready, "{number} is the leader");
        }
        assert_eq!(self.leaders.get(), self.rounds, "one leader a round");
    }

    fn dropped(&mut self, number: usize) {
        self.arrived.retain(|other| *other != number);
        self.released.retain(|other| *other != number);
    }

    fn settle(&mut self) -> bool {
        // One who waits alone is joined from outside.
        let is_alone = !self.arrived.is_empty();
        if is_alone {
            let mut other = self.waiter(9);
            let waker = std::task::Waker::noop();
            let polled = other.as_mut().poll(&mut std::task::Context::from_waker(waker));
            self.polled(9, polled.is_ready());
        }
        is_alone
    }

    fn check(&mut self) {}
}

#[test]
fn a_barrier_does_not_count_who_was_dropped() {
    explore(STEPS, Meeting::new);
    wander(Meeting::new);
}

#[test]
fn a_gate_is_closed_when_all_have_left() {
    struct Inside(Gate, Rc<RefCell<Vec<Pass>>>);
    impl Inside {
        fn new() -> Self {
            let gate = Gate::new();
            let passes = vec![gate.enter().unwrap(), gate.enter().unwrap()];
            Inside(gate, Rc::new(RefCell::new(passes)))
        }
    }
    impl Scene for Inside {
        fn waiters(&self) -> usize {
            WAITERS
        }
        fn waiter(&mut self, _: usize) -> Waiting {
            let (gate, passes) = (self.0.clone(), self.1.clone());
            Box::pin(async move {
                gate.close().await;
                assert!(passes.borrow().is_empty() && gate.count() == 0);
            })
        }
        fn events(&self) -> usize {
            2
        }
        fn event(&mut self, _: usize) {
            self.1.borrow_mut().pop();
        }
        fn settle(&mut self) -> bool {
            let pass = self.1.borrow_mut().pop();
            pass.is_some()
        }
        fn check(&mut self) {
            assert_eq!(self.0.count(), 0);
        }
    }
    explore(STEPS, Inside::new);
    wander(Inside::new);
}

#[test]
fn a_value_is_made_once_however_many_of_its_makers_are_dropped() {
    #[derive(Default)]
    struct Making {
        cell: Rc<OnceCell<usize>>,
        made: Rc<Cell<usize>>,
        ended: bool,
    }
    impl Scene for Making {
        fn waiters(&self) -> usize {
            WAITERS
        }
        fn waiter(&mut self, number: usize) -> Waiting {
            let (cell, made) = (self.cell.clone(), self.made.clone());
            Box::pin(async move {
                let make = async || {
                    once().await;
                    made.set(made.get() + 1);
                    number
                };
                let value = *cell.get_or_init(make).await;
                assert_eq!(cell.get(), Some(&value));
            })
        }
        fn polled(&mut self, _: usize, is_ready: bool) {
            self.ended |= is_ready;
        }
        fn check(&mut self) {
            assert!(self.made.get() <= 1, "made {} times", self.made.get());
            assert_eq!(self.cell.initialized(), self.made.get() == 1);
            assert!(self.cell.initialized() || !self.ended);
        }
    }
    explore(STEPS + 1, Making::default);
    wander(Making::default);
}

// ---- Channels ----

/// Three senders and a receiver of a channel for one message; each message is a number.
struct Letters {
    sender: Option<mpsc::Sender<usize>>,
    receiver: Rc<RefCell<mpsc::Receiver<usize>>>,
    sent: Rc<RefCell<Vec<usize>>>,
    received: Rc<RefCell<Vec<usize>>>,
    next: usize,
    closes: bool,
}

impl Letters {
    fn new(closes: bool) -> Self {
        let (sender, receiver) = mpsc::channel(1);
        let (sent, received) = Default::default();
        let (sender, receiver) = (Some(sender), Rc::new(RefCell::new(receiver)));
        Letters { sender, receiver, sent, received, next: 0, closes }
    }
}

impl Scene for Letters {
    fn waiters(&self) -> usize {
        WAITERS + 1
    }

    fn waiter(&mut self, number: usize) -> Waiting {
        let (receiver, sent, received) =
            (self.receiver.clone(), self.sent.clone(), self.received.clone());
        if number == WAITERS {
            return Box::pin(async move {
                let letter = poll_fn(|context| receiver.borrow_mut().poll_recv(context)).await;
                received.borrow_mut().extend(letter);
            });
        }
        self.next += 1;
        let letter = self.next;
        let Some(sender) = self.sender.clone() else { return Box::pin(async {}) };
        Box::pin(async move {
            if number == 0 {
                // With a place in hand, it is pending once.
                let Ok(place) = sender.reserve().await else { return };
                once().await;
                sent.borrow_mut().push(letter);
                place.send(letter);
            } else if sender.send(letter).await.is_ok() {
                sent.borrow_mut().push(letter);
            }
        })
    }

    fn events(&self) -> usize {
        if self.closes { 2 } else { 1 }
    }

    fn event(&mut self, kind: usize) {
        if kind == 1 {
            self.receiver.borrow_mut().close();
        } else if let Ok(letter) = self.receiver.borrow_mut().try_recv() {
            self.received.borrow_mut().push(letter);
        }
    }

    fn settle(&mut self) -> bool {
        let had_sender = self.sender.take().is_some();
        let before = self.received.borrow().len();
        self.event(0);
        had_sender || self.received.borrow().len() > before
    }

    fn check(&mut self) {
        assert_eq!(*self.received.borrow(), *self.sent.borrow());
        let ended = self.receiver.borrow_mut().try_recv();
        assert_eq!(ended, Err(mpsc::TryRecvError::Disconnected));
    }
}

#[test]
fn a_bounded_channel_delivers_what_was_sent_in_order() {
    explore(STEPS - 1, || Letters::new(false));
    wander(|| Letters::new(false));
}

#[test]
fn a_closed_channel_delivers_what_had_a_place_and_then_ends() {
    explore(STEPS - 1, || Letters::new(true));
    wander(|| Letters::new(true));
}

/// Two receivers of all, and a watcher of the latest.
struct News {
    sender: broadcast::Sender<usize>,
    receivers: Vec<Rc<RefCell<broadcast::Receiver<usize>>>>,
    received: [Rc<RefCell<Vec<usize>>>; 2],
    latest: watch::Sender<usize>,
    watcher: Rc<RefCell<watch::Receiver<usize>>>,
    sent: usize,
}

impl News {
    fn new() -> Self {
        let sender = broadcast::Sender::new(1_000);
        let receivers = (0..2).map(|_| Rc::new(RefCell::new(sender.subscribe()))).collect();
        let (latest, watcher) = watch::channel(0);
        let (received, watcher) = (Default::default(), Rc::new(RefCell::new(watcher)));
        News { sender, receivers, received, latest, watcher, sent: 0 }
    }
}

impl Scene for News {
    fn waiters(&self) -> usize {
        3
    }

    #[expect(clippy::await_holding_refcell_ref, reason = "there is one future of each at a time")]
    fn waiter(&mut self, number: usize) -> Waiting {
        if number == 2 {
            let watcher = self.watcher.clone();
            return Box::pin(async move { watcher.borrow_mut().changed().await.unwrap() });
        }
        let (receiver, received) = (self.receivers[number].clone(), self.received[number].clone());
        Box::pin(async move {
            let news = receiver.borrow_mut().recv().await.unwrap();
            received.borrow_mut().push(news);
        })
    }

    fn events(&self) -> usize {
        2
    }

    fn event(&mut self, _: usize) {
        self.sent += 1;
        assert_eq!(self.sender.send(self.sent), Ok(2));
        self.latest.send(self.sent).unwrap();
    }

    fn settle(&mut self) -> bool {
        // All have ended when each got one more.
        self.sent < 3 && {
            self.event(0);
            true
        }
    }

    fn check(&mut self) {
        for (receiver, received) in self.receivers.iter().zip(&self.received) {
            while let Ok(news) = receiver.borrow_mut().try_recv() {
                received.borrow_mut().push(news);
            }
            assert!(received.borrow().iter().copied().eq(1..=self.sent));
        }
        assert!(self.sender.is_empty());
        assert_eq!(*self.watcher.borrow().borrow(), self.sent);
    }
}

#[test]
fn every_receiver_gets_everything_and_a_watcher_the_latest() {
    explore(STEPS, News::new);
}
