//! Locks and channels between the tasks of one core: what each of them promises.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use quoit::runtime::run;
use quoit::sync::{
    Barrier, Condvar, Event, Gate, Mutex, Notify, OnceCell, RwLock, RwLockReadGuard, Semaphore,
    SetError, broadcast, mpsc, oneshot, watch,
};
use quoit::task::yield_now;

use crate::support::{forget, isolated};
use crate::support_alloc::{allocations, live_bytes};

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// What `f` panics with.
fn panic_of<R>(f: impl FnOnce() -> R) -> String {
    let panic = catch_unwind(AssertUnwindSafe(|| drop(f()))).expect_err("it panics");
    panic
        .downcast_ref::<String>()
        .cloned()
        .unwrap_or_else(|| (*panic.downcast_ref::<&str>().expect("a panic has a text")).to_string())
}

/// A value whose drop and clone run what they are told to, as those of a user may.
struct Hooked(Rc<dyn Fn()>);

impl Clone for Hooked {
    fn clone(&self) -> Self {
        (self.0)();
        Hooked(self.0.clone())
    }
}

impl Drop for Hooked {
    fn drop(&mut self) {
        (self.0)();
    }
}

thread_local! {
    static ON_WAKE: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
}

/// A waker that runs code when it is woken, within the call that wakes it.
fn waker_that(f: impl FnOnce() + 'static) -> Waker {
    struct Runs;
    impl Wake for Runs {
        fn wake(self: Arc<Self>) {
            let f = ON_WAKE.with(|place| place.borrow_mut().take());
            f.into_iter().for_each(|f| f());
        }
    }
    ON_WAKE.with(|place| *place.borrow_mut() = Some(Box::new(f)));
    Waker::from(Arc::new(Runs))
}

// ---- Semaphore, Mutex, RwLock ----

#[test]
fn who_asks_for_one_does_not_overtake_who_waits_for_many() {
    let semaphore = Semaphore::new(3);
    let held = semaphore.try_acquire_many(2).unwrap();
    let mut many = pin!(semaphore.acquire_many(3));
    assert!(poll(many.as_mut()).is_pending());
    let mut one = pin!(semaphore.acquire());
    assert!(poll(one.as_mut()).is_pending(), "there is one, but somebody stands before");
    assert!(semaphore.try_acquire().is_err());
    drop(held);
    let Poll::Ready(all) = poll(many.as_mut()) else { panic!("there are three") };
    assert!(poll(one.as_mut()).is_pending());
    drop(all);
    assert!(poll(one.as_mut()).is_ready());
}

#[test]
fn who_gives_up_the_front_of_the_line_lets_those_behind_pass() {
    let semaphore = Semaphore::new(1);
    let mut many = Box::pin(semaphore.acquire_many(2));
    assert!(poll(many.as_mut()).is_pending());
    let mut one = pin!(semaphore.acquire());
    assert!(poll(one.as_mut()).is_pending());
    drop(many);
    assert!(poll(one.as_mut()).is_ready());
}

#[test]
fn permits_are_split_merged_forgotten_and_counted() {
    let semaphore = Rc::new(Semaphore::new(5));
    let mut permit = semaphore.try_acquire_many(4).unwrap();
    assert!(permit.split(5).is_none());
    let other = permit.split(3).unwrap();
    assert_eq!((permit.num_permits(), other.num_permits()), (1, 3));
    permit.merge(other);
    assert_eq!(permit.num_permits(), 4);
    permit.forget();
    assert_eq!(semaphore.available_permits(), 1);
    assert_eq!(semaphore.forget_permits(3), 1);
    semaphore.add_permits(2);
    let owned = semaphore.clone().try_acquire_many_owned(2).unwrap();
    assert!(semaphore.clone().try_acquire_owned().is_err());
    drop(owned);
    let stranger = Semaphore::new(1);
    let mut own = semaphore.try_acquire().unwrap();
    let text = panic_of(|| own.merge(stranger.try_acquire().unwrap()));
    assert!(text.contains("another semaphore"), "{text}");
    let text = panic_of(|| semaphore.add_permits(Semaphore::MAX_PERMITS));
    assert!(text.contains("MAX_PERMITS"), "{text}");
}

#[test]
fn a_future_that_is_forgotten_keeps_its_place_and_harms_nobody_else() {
    let semaphore = Rc::new(Semaphore::new(0));
    let mut leaked = Box::pin(semaphore.clone().acquire_owned());
    assert!(poll(leaked.as_mut()).is_pending());
    forget(leaked);
    let mut next = pin!(semaphore.acquire());
    assert!(poll(next.as_mut()).is_pending());
    semaphore.add_permits(1);
    assert!(poll(next.as_mut()).is_pending(), "the first was given to the one that is forgotten");
    semaphore.add_permits(1);
    assert!(poll(next.as_mut()).is_ready());

    let mutex = Mutex::new(7);
    forget(mutex.try_lock().unwrap());
    assert!(mutex.try_lock().is_err());
    assert_eq!(mutex.into_inner(), 7);
}

#[test]
fn a_panic_of_the_holder_unlocks() {
    run(async {
        let mutex = Rc::new(Mutex::new(1));
        let other = mutex.clone();
        let task = quoit::spawn(async move {
            let mut guard = other.lock().await;
            *guard = 2;
            std::panic::resume_unwind(Box::new("the holder"));
        });
        assert!(task.await.unwrap_err().is_panic());
        assert_eq!(*mutex.lock().await, 2);
    })
    .unwrap();
}

#[test]
fn the_error_of_a_lock_and_its_debug_text_say_where_it_is_held() {
    let mutex = Mutex::new(7);
    assert_eq!(format!("{mutex:?}"), "Mutex { value: 7 }");
    let line = line!() + 1;
    let guard = mutex.try_lock().unwrap();
    let place = format!("tests/it/sync.rs:{line}:");
    let texts = [mutex.try_lock().unwrap_err().to_string(), format!("{mutex:?}")];
    for text in &texts {
        assert_eq!(text.contains(&place), cfg!(debug_assertions), "{text}");
    }
    drop(guard);
    let lock = RwLock::new(7);
    let mut reading = Box::pin(lock.read());
    let line = line!() - 1;
    let Poll::Ready(guard) = poll(reading.as_mut()) else { panic!("it is free") };
    let text = lock.try_write().unwrap_err().to_string();
    let place = format!("tests/it/sync.rs:{line}:");
    assert_eq!(text.contains(&place), cfg!(debug_assertions), "{text}");
    let guard = RwLockReadGuard::map(guard, |value| value);
    assert!(lock.try_read().is_ok() && lock.try_write().is_err());
    drop(guard);
    assert!(lock.try_write().is_ok());
}

#[test]
fn a_borrow_across_an_await_names_both_places() {
    run(async {
        let state = Rc::new(quoit::sync::RefCell::new(7));
        let other = state.clone();
        let line = line!() + 2;
        let holder = quoit::spawn(async move {
            let held = other.borrow();
            yield_now().await;
            *held
        });
        yield_now().await;
        let text = panic_of(|| drop(state.borrow_mut()));
        assert!(text.contains("must end before the next `await`"), "{text}");
        let held_at = format!("tests/it/sync.rs:{line}:");
        assert_eq!(text.contains(&held_at), cfg!(debug_assertions), "{text}");
        assert_eq!(holder.await.unwrap(), 7);
        *state.borrow_mut() = 8;
        assert_eq!(state.take(), 8);
    })
    .unwrap();
}

#[test]
fn the_borrow_that_is_in_the_way_is_named_and_not_one_that_has_ended() {
    let cell = quoit::sync::RefCell::new((1, 2));
    let ended = cell.borrow();
    let line = line!() + 1;
    let held = cell.borrow();
    let part = quoit::sync::Ref::map(quoit::sync::Ref::clone(&held), |pair| &pair.0);
    drop((ended, held));
    let error = cell.try_borrow_mut().unwrap_err();
    assert_eq!(error.held_at().map(|place| place.line()), cfg!(debug_assertions).then_some(line));
    drop(part);
    assert_eq!(cell.replace((3, 4)), (1, 2));
}

// ---- Notify, Condvar, Barrier, OnceCell ----

#[test]
fn notifications_for_nobody_do_not_add_up() {
    let notify = Notify::new();
    notify.notify_one();
    notify.notify_one();
    assert!(poll(pin!(notify.notified())).is_ready());
    assert!(poll(pin!(notify.notified())).is_pending());
}

#[test]
fn notify_last_reaches_who_came_last_and_passes_on_to_the_last() {
    let notify = Notify::new();
    let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(notify.notified())).collect();
    for future in &mut waiting {
        assert!(poll(future.as_mut()).is_pending());
    }
    notify.notify_last();
    drop(waiting.pop());
    assert!(poll(waiting[0].as_mut()).is_pending());
    assert!(poll(waiting[1].as_mut()).is_ready());
}

#[test]
fn notify_waiters_reaches_who_was_made_before_and_nobody_who_comes_later() {
    let notify = Notify::new();
    let before = pin!(notify.notified());
    let mut enabled = pin!(notify.notified());
    assert!(!enabled.as_mut().enable());
    notify.notify_waiters();
    assert!(enabled.as_mut().enable());
    assert!(poll(before).is_ready() && poll(enabled).is_ready());
    assert!(poll(pin!(notify.notified())).is_pending());
}

#[test]
fn who_waits_anew_within_the_wake_is_not_notified_a_second_time() {
    let notify = Rc::new(Notify::new());
    let rounds = Rc::new(Cell::new(0));
    let (inner, count) = (notify.clone(), rounds.clone());
    let waker = waker_that(move || {
        count.set(count.get() + 1);
        let mut again = Box::pin(async move { inner.notified().await });
        assert!(poll(again.as_mut()).is_pending());
        forget(again);
    });
    let mut waiting = pin!(notify.notified());
    assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    notify.notify_waiters();
    assert_eq!(rounds.get(), 1);
}

#[test]
fn a_condvar_passes_on_what_it_gave_to_who_is_dropped_on_the_way_to_the_lock() {
    let (mutex, condvar) = (Mutex::new(()), Condvar::new());
    let wait = || Box::pin(async { drop(condvar.wait(mutex.lock().await).await) });
    let (mut first, mut second) = (wait(), wait());
    assert!(poll(first.as_mut()).is_pending() && poll(second.as_mut()).is_pending());
    let held = mutex.try_lock().unwrap();
    condvar.notify_one();
    assert!(poll(first.as_mut()).is_pending(), "it waits for the lock now");
    drop(first);
    drop(held);
    assert!(poll(second.as_mut()).is_ready());
}

#[test]
fn a_barrier_for_none_or_one_stops_nobody_and_one_of_each_round_leads() {
    run(async {
        assert!(Barrier::new(0).wait().await.is_leader());
        let barrier = Barrier::new(5);
        for _ in 0..3 {
            let all = quoit::gather((0..5).map(|_| barrier.wait())).await;
            let leaders: Vec<_> = all.iter().map(|one| one.is_leader()).collect();
            assert_eq!(leaders, [false, false, false, false, true], "the last to come");
        }
    })
    .unwrap();
}

#[test]
fn a_value_that_could_not_be_made_is_made_by_the_next() {
    run(async {
        let cell = OnceCell::new();
        let fails = cell.get_or_try_init(async || {
            yield_now().await;
            assert_eq!(cell.set(0), Err(SetError::InitializingError(0)));
            Err("no")
        });
        let makes = cell.get_or_try_init(async || Ok::<_, &str>(7));
        assert_eq!(quoit::join!(fails, makes), (Err("no"), Ok(&7)));
        assert_eq!(cell.set(8), Err(SetError::AlreadyInitializedError(8)));
        let mut cell = cell.clone();
        assert_eq!(cell.take(), Some(7));
        assert_eq!(*cell.get_or_init(async || 9).await, 9);
    })
    .unwrap();
}

// ---- Channels ----

#[test]
fn a_channel_without_room_is_refused_in_words() {
    let texts = [
        panic_of(|| mpsc::channel::<()>(0)),
        panic_of(|| broadcast::channel::<()>(0)),
        panic_of(|| broadcast::Sender::<()>::new(0)),
    ];
    for text in texts {
        assert!(text.contains("capacity 0") && text.contains("room for 1"), "{text}");
    }
    assert!(panic_of(|| mpsc::channel::<()>(usize::MAX)).contains("MAX_PERMITS"));
    assert!(panic_of(|| Semaphore::new(usize::MAX)).contains("MAX_PERMITS"));
}

#[test]
fn a_oneshot_tells_each_end_that_the_other_is_gone() {
    run(async {
        let (mut sender, receiver) = oneshot::channel::<String>();
        let asks = quoit::spawn(async move {
            sender.closed().await;
            sender.send("late".into())
        });
        yield_now().await;
        drop(receiver);
        assert_eq!(asks.await.unwrap(), Err("late".into()));

        let (sender, mut receiver) = oneshot::channel();
        sender.send(1).unwrap();
        receiver.close();
        assert!(!receiver.is_empty());
        assert_eq!(receiver.try_recv(), Ok(1));
        assert_eq!(receiver.try_recv(), Err(oneshot::TryRecvError::Closed));
        assert!(receiver.is_terminated());
        assert!(panic_of(|| poll(pin!(receiver))).contains("polled after its end"));
    })
    .unwrap();
}

#[test]
fn a_dropped_borrow_of_a_oneshot_loses_nothing() {
    run(async {
        let (sender, mut receiver) = oneshot::channel();
        assert!(poll(pin!(&mut receiver)).is_pending());
        sender.send(7).unwrap();
        assert_eq!(receiver.await, Ok(7));
    })
    .unwrap();
}

#[test]
fn a_receiver_gets_none_when_the_last_sender_is_gone_and_weak_ones_do_not_count() {
    run(async {
        let (sender, mut receiver) = mpsc::channel(2);
        let (weak, other) = (sender.downgrade(), sender.clone());
        assert_eq!((sender.strong_count(), sender.weak_count()), (2, 1));
        sender.send(1).await.unwrap();
        drop(sender);
        let receives = quoit::spawn(async move {
            let all = [receiver.recv().await, receiver.recv().await];
            (all, receiver)
        });
        yield_now().await;
        drop(weak.upgrade().unwrap());
        drop(other);
        let (all, mut receiver) = receives.await.unwrap();
        assert_eq!(all, [Some(1), None]);
        assert!(weak.upgrade().is_none());
        assert_eq!(receiver.try_recv(), Err(mpsc::TryRecvError::Disconnected));
    })
    .unwrap();
}

#[test]
fn senders_that_wait_are_refused_when_the_receiver_is_dropped() {
    run(async {
        let (sender, receiver) = mpsc::channel(1);
        let kept = sender.clone().reserve_owned().await.unwrap();
        let waits = quoit::spawn({
            let sender = sender.clone();
            async move { sender.send(2).await }
        });
        let hears = quoit::spawn({
            let sender = sender.clone();
            async move { sender.closed().await }
        });
        yield_now().await;
        drop(receiver);
        assert_eq!(waits.await.unwrap(), Err(mpsc::SendError(2)));
        hears.await.unwrap();
        assert!(sender.is_closed());
        // What had a place has nobody to go to.
        drop(kept.send(1));
        assert_eq!(sender.try_send(3), Err(mpsc::TrySendError::Closed(3)));
    })
    .unwrap();
}

#[test]
fn a_receiver_of_a_closed_channel_ends_when_the_last_place_is_given_up() {
    for waits_in_line in [false, true] {
        let (sender, mut receiver) = mpsc::channel::<i32>(1);
        let place = sender.try_reserve().unwrap();
        let mut waiting = Box::pin(sender.reserve());
        assert!(poll(waiting.as_mut()).is_pending());
        let mut place = Some(place);
        if waits_in_line {
            // It goes to the one that waits, which has not come for it when the channel is closed.
            place = None;
        }
        receiver.close();
        let woken = Rc::new(Cell::new(false));
        let flag = woken.clone();
        let waker = waker_that(move || flag.set(true));
        let context = &mut Context::from_waker(&waker);
        assert!(receiver.poll_recv(context).is_pending());
        drop(place);
        drop(waiting);
        assert!(woken.get(), "in line: {waits_in_line}");
        assert_eq!(receiver.poll_recv(context), Poll::Ready(None));
    }
}

#[test]
fn recv_many_takes_what_is_there_and_makes_room_for_as_many() {
    run(async {
        let (sender, mut receiver) = mpsc::channel(4);
        for number in 0..4 {
            sender.try_send(number).unwrap();
        }
        let mut numbers = vec![9];
        assert_eq!(receiver.recv_many(&mut numbers, 3).await, 3);
        assert_eq!((numbers, sender.capacity(), receiver.len()), (vec![9, 0, 1, 2], 3, 1));
        assert_eq!(receiver.recv_many(&mut Vec::new(), 0).await, 0);
    })
    .unwrap();
}

#[test]
fn who_lags_in_a_broadcast_is_told_how_much_and_goes_on_with_the_oldest() {
    run(async {
        let (sender, mut slow) = broadcast::channel(3);
        let mut fast = sender.subscribe();
        for number in 0..10 {
            sender.send(number).unwrap();
            assert_eq!(fast.recv().await, Ok(number));
        }
        assert_eq!((slow.len(), fast.len(), sender.len()), (10, 0, 3));
        assert_eq!(slow.try_recv(), Err(broadcast::error::TryRecvError::Lagged(7)));
        assert_eq!([slow.try_recv(), slow.try_recv()], [Ok(7), Ok(8)]);
        let late = slow.resubscribe();
        drop(slow);
        assert!(sender.is_empty() && late.is_empty());
        drop((late, fast));
        assert_eq!(sender.send(0), Err(broadcast::SendError(0)));
        sender.closed().await;
    })
    .unwrap();
}

#[test]
fn a_broadcast_message_is_cloned_for_all_but_the_last_and_dropped_when_all_have_it() {
    let count = Rc::new(Cell::new(0));
    let (counted, inner) = (Hooked(Rc::new(|| ())), count.clone());
    drop(counted);
    let message = Hooked(Rc::new(move || inner.set(inner.get() + 1)));
    let (sender, mut first) = broadcast::channel(4);
    let mut second = sender.subscribe();
    assert!(sender.send(message).is_ok());
    forget(first.try_recv());
    assert_eq!(count.get(), 1, "one clone");
    forget(second.try_recv());
    assert_eq!(count.get(), 1, "the message itself");
    assert!(
        sender
            .send(Hooked(Rc::new({
                let count = count.clone();
                move || count.set(count.get() + 10)
            })))
            .is_ok()
    );
    drop((first, second));
    assert_eq!(count.get(), 11, "nobody will get it");
}

#[test]
fn a_message_may_send_when_it_is_cloned_and_when_it_is_dropped() {
    let (sender, mut receiver) = broadcast::channel::<Hooked>(1);
    let _second = sender.subscribe();
    let depth = Rc::new(Cell::new(0));
    let hook: Rc<dyn Fn()> = {
        let sender = sender.clone();
        Rc::new(move || {
            depth.set(depth.get() + 1);
            if depth.get() < 3 {
                // It takes the place of what is being cloned, or dropped.
                let _ = sender.send(Hooked(Rc::new(|| ())));
            }
        })
    };
    assert!(sender.send(Hooked(hook)).is_ok());
    assert!(receiver.try_recv().is_ok());
    // By the clone, and by the drop of the message when it was cloned.
    let lagged = receiver.try_recv().err();
    assert_eq!(lagged, Some(broadcast::error::TryRecvError::Lagged(1)));
    assert!(receiver.try_recv().is_ok());

    let (sender, receiver) = mpsc::unbounded_channel::<Hooked>();
    let (again, refused) = (sender.clone(), Rc::new(Cell::new(0)));
    let hook: Rc<dyn Fn()> = {
        let refused = refused.clone();
        Rc::new(move || {
            refused.set(refused.get() + usize::from(again.send(Hooked(Rc::new(|| ()))).is_err()));
        })
    };
    sender.send(Hooked(hook)).unwrap();
    drop(receiver);
    assert_eq!(refused.get(), 1);
}

#[test]
fn a_watcher_sees_the_latest_and_what_came_between_is_skipped() {
    run(async {
        let (sender, mut receiver) = watch::channel(0);
        assert_eq!(receiver.has_changed(), Ok(false));
        sender.send(1).unwrap();
        sender.send(2).unwrap();
        assert!(receiver.borrow().has_changed());
        receiver.changed().await.unwrap();
        assert_eq!(*receiver.borrow_and_update(), 2);
        assert!(poll(pin!(receiver.changed())).is_pending());
        let late = receiver.clone();
        assert!(!sender.send_if_modified(|_| false));
        assert_eq!(receiver.has_changed(), Ok(false));
        receiver.mark_changed();
        assert_eq!((receiver.has_changed(), late.has_changed()), (Ok(true), Ok(false)));
        receiver.mark_unchanged();
        assert_eq!(sender.send_replace(3), 2);
        let mut waiting = receiver.clone();
        let task =
            quoit::spawn(async move { waiting.wait_for(|value| *value > 4).await.map(|it| *it) });
        yield_now().await;
        sender.send_modify(|value| *value += 1);
        yield_now().await;
        sender.send_modify(|value| *value += 1);
        assert_eq!(task.await.unwrap(), Ok(5));
        drop(sender);
        assert_eq!(receiver.changed().await, Ok(()), "the last value was not seen yet");
        assert!(receiver.changed().await.is_err());
        assert!(receiver.wait_for(|value| *value == 9).await.is_err());
        assert_eq!(*receiver.wait_for(|value| *value == 5).await.unwrap(), 5);
    })
    .unwrap();
}

#[test]
fn a_value_that_is_looked_at_is_replaced_but_not_modified() {
    let (sender, receiver) = watch::channel(1);
    let line = line!() + 1;
    let look = receiver.borrow();
    sender.send(2).unwrap();
    assert_eq!((*look, *receiver.borrow()), (1, 2));
    sender.send_modify(|value| *value += 1); // nobody looks at the new one
    drop(look);
    let look = receiver.borrow();
    let text = panic_of(|| sender.send_replace(4));
    let place = format!("tests/it/sync.rs:{}:", line + 5);
    assert_eq!(text.contains(&place), cfg!(debug_assertions), "{text}");
    drop(look);
    assert_eq!(sender.send_replace(4), 3);
    // From within.
    let text = panic_of(|| sender.send_modify(|_| sender.send(5).unwrap()));
    assert!(text.contains("already borrowed"), "{text}");
    assert_eq!(*receiver.borrow(), 4);
}

#[test]
fn a_watch_without_receivers_keeps_what_replaces_and_refuses_what_is_sent() {
    let (sender, receiver) = watch::channel(1);
    drop(receiver);
    assert!(sender.is_closed());
    assert_eq!(sender.send(2), Err(watch::error::SendError(2)));
    assert_eq!((sender.send_replace(3), *sender.borrow()), (1, 3));
    assert_eq!(*sender.subscribe().borrow(), 3);
}

// ---- What they cost ----

/// Both ends of each run as tasks; after a warm-up nothing is allocated.
#[test]
fn nothing_is_allocated_in_a_steady_state() {
    async fn measured<F: Future<Output = ()>>(what: &str, step: impl Fn() -> F) {
        let mut before = 0;
        for round in 0..600 {
            if round == 100 {
                before = allocations();
            }
            step().await;
        }
        assert_eq!(allocations() - before, 0, "{what}");
    }
    run(async {
        // Debug builds note places in a list; its memory stays as well.
        let (mutex, lock, semaphore) = (Mutex::new(0), RwLock::new(0), Semaphore::new(1));
        measured("Mutex", async || {
            let hold = async || {
                let mut guard = mutex.lock().await;
                yield_now().await;
                *guard += 1;
            };
            quoit::join!(hold(), hold(), hold());
        })
        .await;
        measured("RwLock", async || {
            let read = async || {
                let _guard = lock.read().await;
                yield_now().await;
            };
            let write = async || {
                *lock.write().await += 1;
                yield_now().await;
            };
            quoit::join!(read(), write(), read());
        })
        .await;
        measured("Semaphore", async || {
            let hold = async || {
                let _permit = semaphore.acquire().await.unwrap();
                yield_now().await;
            };
            quoit::join!(hold(), hold());
        })
        .await;
        let (notify, event, barrier) = (Notify::new(), Event::new(), Barrier::new(2));
        measured("Notify, Event, Barrier", async || {
            event.clear();
            let tell = async || {
                yield_now().await;
                notify.notify_one();
                event.set();
            };
            quoit::join!(notify.notified(), event.wait(), tell());
            quoit::join!(barrier.wait(), barrier.wait());
        })
        .await;
        let (bounded, unbounded) = (mpsc::channel(2), mpsc::unbounded_channel());
        let (bounded, unbounded) =
            ((bounded.0, RefCell::new(bounded.1)), (unbounded.0, RefCell::new(unbounded.1)));
        measured("mpsc", async || {
            let send = async || {
                for number in 0..8 {
                    bounded.0.send(number).await.unwrap();
                    unbounded.0.send(number).unwrap();
                }
            };
            let receive = async || {
                for number in 0..8 {
                    let next = poll_fn(|context| bounded.1.borrow_mut().poll_recv(context)).await;
                    assert_eq!(next, Some(number));
                    let next = poll_fn(|context| unbounded.1.borrow_mut().poll_recv(context)).await;
                    assert_eq!(next, Some(number));
                }
            };
            quoit::join!(receive(), send());
        })
        .await;
        let (news, latest) = (broadcast::channel(2), watch::channel(0));
        let mut second = news.0.subscribe();
        let (mut first, mut watcher) = (news.1, latest.1);
        for round in 0..600 {
            let before = allocations();
            news.0.send(round).unwrap();
            latest.0.send(round).unwrap();
            watcher.changed().await.unwrap();
            let received = (first.recv().await, second.recv().await, *watcher.borrow());
            assert_eq!(received, (Ok(round), Ok(round), round));
            assert!(round < 100 || allocations() == before, "broadcast and watch");
        }
        let gate = Gate::new();
        measured("Gate", async || drop(gate.enter().unwrap())).await;
    })
    .unwrap();
}

#[test]
fn an_unbounded_channel_gives_back_what_a_burst_needed() {
    // In a process of its own: the bytes of all threads are counted.
    isolated(|| {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let before = live_bytes();
        for number in 0..100_000_u64 {
            sender.send(number).unwrap();
        }
        assert!(live_bytes() - before >= 800_000);
        for number in 0..100_000 {
            assert_eq!(receiver.try_recv(), Ok(number));
        }
        let kept = live_bytes() - before;
        assert!(kept < 100_000, "{kept} bytes");
    });
}
