//! Channels from core to core.

use std::cell::Cell;
use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::Poll;
use std::time::Duration;

use quoit::driver::DriverKind;
use quoit::mesh::{self, TryRecvError, TrySendError};
use quoit::runtime::{self, Builder, Runtime};
use quoit::sim::Faults;
use quoit::task::yield_now;
use quoit::time::sleep;

use crate::cores::{Bomb, on_cores, on_real_cores, simulated, stop, text_of};
use crate::loopback::{Flag, poll_once};
use crate::support::{Watch, isolated, on_every_driver, scaled};

// ---- Channels ----

/// Polls once, and says whether it was ready.
async fn is_ready<F: Future>(future: F) -> bool {
    let mut future = pin!(future);
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_ready())).await
}

#[test]
fn the_first_message_rings_at_once_if_nobody_else_is_ready_and_the_others_when_the_turn_is_over() {
    runtime::run(async {
        let (mut sender, mut receiver) = mesh::channel(8);
        // In a turn of its own, with nobody else, then with somebody.
        for (others, at_once) in [(0, &[true, false][..]), (1, &[false])] {
            sleep(Duration::from_millis(1)).await;
            (0..others).for_each(|_| drop(quoit::spawn(async {})));
            for &at_once in at_once {
                let flag = Arc::new(Flag::default());
                assert!(poll_once(pin!(receiver.recv()), &flag).is_pending());
                sender.try_send("message").unwrap();
                assert_eq!(flag.is_set(), at_once, "beside {others} others");
                if !at_once {
                    sleep(Duration::from_millis(1)).await;
                    assert!(flag.is_set());
                }
                assert_eq!(receiver.try_recv(), Ok("message"));
            }
        }
    })
    .unwrap();
}

#[test]
fn messages_arrive_once_and_in_order_with_backpressure() {
    on_cores(2, async || {
        for capacity in [1, 2, 3, 64] {
            let (mut sender, mut receiver) = mesh::channel::<Box<u32>>(capacity);
            let count = scaled(20_000) as u32 / 10;
            let received = runtime::core_at(1).unwrap().call(async move || {
                let mut next = 0;
                while let Some(message) = receiver.recv().await {
                    assert_eq!(*message, next, "a message is lost, or there twice");
                    next += 1;
                    if next % 97 == 0 {
                        yield_now().await;
                    }
                }
                next
            });
            for number in 0..count {
                sender.send(Box::new(number)).await.unwrap();
            }
            drop(sender);
            assert_eq!(received.await.unwrap(), count);
        }
    });
}

#[test]
fn a_full_channel_has_room_again_with_each_message_that_is_received() {
    on_every_driver(|| async {
        let (mut sender, mut receiver) = mesh::channel(4);
        assert_eq!(sender.capacity(), 4);
        (0..4).for_each(|number| sender.try_send(number).unwrap());
        assert_eq!(sender.try_send(4), Err(TrySendError::Full(4)));
        let sent = Rc::new(Cell::new(0));
        let count = Rc::clone(&sent);
        let go = quoit::spawn(async move {
            for number in 4..8 {
                sender.send(number).await.unwrap();
                count.set(count.get() + 1);
            }
        });
        for number in 0..4 {
            yield_now().await;
            assert_eq!(sent.get(), number, "one more than there is room for");
            assert_eq!(receiver.recv().await, Some(number));
            while sent.get() == number {
                yield_now().await;
            }
        }
        go.await.unwrap();
        assert!((4..8).all(|number| receiver.try_recv() == Ok(number)));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
        assert_eq!(receiver.recv().await, None);
    });
}

#[test]
fn a_message_for_nobody_is_given_back() {
    on_real_cores(2, async || {
        let (mut sender, receiver) = mesh::channel(2);
        let other = runtime::core_at(1).unwrap();
        // The receiver is a task's of a core that ends.
        let held = other.call(async move || {
            let mut receiver = receiver;
            drop(receiver.recv().await);
            drop(quoit::spawn(async move {
                let _receiver = receiver;
                pending::<()>().await;
            }));
        });
        sender.send(vec![1]).await.unwrap();
        held.await.unwrap();
        sender.send(vec![2]).await.unwrap();
        sender.send(vec![3]).await.unwrap();
        // It waits for room when the core ends.
        let waits = quoit::spawn(async move {
            let refused = sender.send(vec![4]).await.unwrap_err();
            assert!(sender.is_closed());
            assert_eq!(sender.try_send(vec![5]), Err(TrySendError::Closed(vec![5])));
            assert!(sender.ready().await.is_err() && sender.clone().is_closed());
            refused.0
        });
        yield_now().await;
        stop(&other).await;
        assert_eq!(waits.await.unwrap(), [4]);
    });
}

#[test]
fn a_core_that_ends_leaves_what_it_sent_and_then_the_end() {
    on_real_cores(2, async || {
        let (mut sender, mut receiver) = mesh::channel(100);
        let other = runtime::core_at(1).unwrap();
        let sent = other.call(async move || {
            drop(quoit::spawn(async move {
                for number in 0..10 {
                    sender.send(number).await.unwrap();
                }
                pending::<()>().await;
            }));
        });
        sent.await.unwrap();
        stop(&other).await;
        for number in 0..10 {
            assert_eq!(receiver.recv().await, Some(number));
        }
        assert_eq!(receiver.recv().await, None);
        assert_eq!(receiver.recv().await, None);
    });
}

#[test]
fn dropped_futures_of_a_channel_lose_nothing() {
    on_every_driver(|| async {
        let (mut sender, mut receiver) = mesh::channel(1);
        assert!(!is_ready(receiver.recv()).await);
        sender.send(0).await.unwrap();
        assert!(!is_ready(sender.ready()).await);
        assert!(!is_ready(sender.send(99)).await);
        assert_eq!(receiver.recv().await, Some(0));
        // Room that was found stays.
        sender.ready().await.unwrap();
        sender.try_send(1).unwrap();
        assert_eq!(receiver.recv().await, Some(1));
        assert!(!is_ready(receiver.recv()).await);
        drop(sender);
        assert_eq!(receiver.recv().await, None);
    });
}

#[test]
fn each_clone_sends_in_its_own_order_and_none_is_left_out() {
    on_cores(3, async || {
        let (sender, mut receiver) = mesh::channel(8);
        let mut calls = Vec::new();
        for core in runtime::cores() {
            for half in 0..2 {
                let mut sender = sender.clone();
                calls.push(core.call(async move || {
                    let number = runtime::core().index() * 2 + half;
                    for step in 0..300 {
                        sender.send((number, step)).await.unwrap();
                    }
                }));
            }
        }
        drop(sender);
        let (mut next, mut messages) = ([0; 6], Vec::new());
        while receiver.recv_many(&mut messages, 50).await > 0 {
            assert!(messages.len() <= 50);
            for (number, step) in messages.drain(..) {
                assert_eq!(step, next[number]);
                next[number] += 1;
            }
        }
        assert_eq!(next, [300; 6]);
        for call in calls {
            call.await.unwrap();
        }
    });
}

#[test]
fn a_sender_that_never_pauses_leaves_the_others_their_turn() {
    on_every_driver(|| async {
        let (mut quiet, mut receiver) = mesh::channel(1 << 12);
        let mut busy = quiet.clone();
        (0..1 << 12).for_each(|_| busy.try_send("busy").unwrap());
        quiet.try_send("quiet").unwrap();
        let mut before = 0;
        while receiver.recv().await == Some("busy") {
            before += 1;
        }
        assert!(before <= 512, "{before} messages of the other sender came first");
    });
}

#[test]
fn a_sender_that_comes_later_has_its_turn_though_another_never_pauses() {
    let (mut busy, mut receiver) = mesh::channel(64);
    (0..64).for_each(|_| busy.try_send("busy").unwrap());
    assert_eq!(receiver.try_recv(), Ok("busy"));
    let mut late = busy.clone();
    late.try_send("late").unwrap();
    let mut before = 0;
    while receiver.try_recv() == Ok("busy") {
        // There is always another.
        busy.try_send("busy").unwrap();
        before += 1;
        assert!(before <= 512, "{before} messages of the other sender came first");
    }
}

#[test]
fn whoever_has_much_to_send_or_receive_pauses_for_others() {
    on_every_driver(|| async {
        let (mut sender, mut receiver) = mesh::channel(1 << 12);
        let count = Cell::new(0);
        let mut sends = pin!(async {
            while count.get() < 1 << 12 {
                sender.send(()).await.unwrap();
                count.set(count.get() + 1);
            }
        });
        assert!(!is_ready(sends.as_mut()).await);
        assert!((1..=512).contains(&count.get()), "{} at once", count.get());
        sends.await;
        let mut receives = pin!(async {
            while count.get() > 0 {
                receiver.recv().await.unwrap();
                count.set(count.get() - 1);
            }
        });
        assert!(!is_ready(receives.as_mut()).await);
        assert!(count.get() >= (1 << 12) - 512, "{} are left", count.get());
        receives.await;
    });
}

#[test]
fn a_receiver_that_waits_hears_that_the_last_sender_is_gone() {
    on_cores(2, async || {
        let (sender, mut receiver) = mesh::channel::<u8>(1);
        let heard = runtime::core_at(1).unwrap().call(async move || receiver.recv().await);
        let clone = sender.clone();
        sleep(Duration::from_millis(1)).await;
        drop(sender);
        sleep(Duration::from_millis(1)).await;
        drop(clone);
        assert_eq!(heard.await.unwrap(), None);
    });
}

#[test]
fn a_channel_through_which_messages_run_for_ever_starves_nobody() {
    on_every_driver(|| async {
        let (mut sender, mut receiver) = mesh::channel(1 << 10);
        let sends = quoit::spawn(async move { while sender.send(()).await.is_ok() {} });
        let receives = quoit::spawn(async move { while receiver.recv().await.is_some() {} });
        for _ in 0..5 {
            sleep(Duration::from_millis(1)).await;
        }
        receives.abort();
        assert!(receives.await.is_err());
        sends.await.unwrap();
    });
}

#[test]
fn a_channel_of_no_room_is_refused() {
    let panic = catch_unwind(|| drop(mesh::channel::<u8>(0))).unwrap_err();
    assert!(text_of(&*panic).contains("without room"));
}

#[test]
fn a_thread_without_a_runtime_sends_and_receives_without_waiting() {
    on_every_driver(|| async {
        let (mut sender, mut echo) = (mesh::channel(4), mesh::channel(4));
        let (mut to, mut from) = (echo.0, sender.1);
        let thread = std::thread::spawn(move || {
            for number in 0..100 {
                while sender.0.try_send(number).is_err() {
                    std::thread::yield_now();
                }
                let answer = loop {
                    match echo.1.try_recv() {
                        Ok(answer) => break answer,
                        Err(error) => assert_eq!(error, TryRecvError::Empty),
                    }
                    std::thread::yield_now();
                };
                assert_eq!(answer, number);
            }
        });
        // In the simulator nothing else would keep the core awake, and so it is as well asleep.
        while let Some(number) = from.recv().await {
            to.send(number).await.unwrap();
        }
        thread.join().unwrap();
    });
}

// ---- Broadcast ----

#[test]
fn a_broadcast_reaches_every_core_and_waits_for_the_slowest() {
    on_cores(3, async || {
        let (mut news, receivers) = mesh::broadcast(2, 3);
        assert_eq!(news.receivers(), 3);
        let calls: Vec<_> = runtime::cores()
            .iter()
            .zip(receivers)
            .map(|(core, mut receiver)| {
                core.call(async move || {
                    let mut heard = Vec::new();
                    while let Some(word) = receiver.recv().await {
                        heard.push(word);
                        if runtime::core().index() == 2 {
                            sleep(Duration::from_micros(100)).await;
                        }
                    }
                    heard
                })
            })
            .collect();
        for number in 0..20 {
            assert_eq!(news.send(number.to_string()).await.unwrap(), 3);
        }
        drop(news);
        for call in calls {
            assert!(call.await.unwrap().into_iter().eq((0..20).map(|number| number.to_string())));
        }
    });
}

#[test]
fn a_broadcast_goes_on_without_those_that_are_gone() {
    on_every_driver(|| async {
        let (mut news, mut receivers) = mesh::broadcast(1, 3);
        assert_eq!(news.send("all").await, Ok(3));
        // Nobody has room: nothing is sent in part.
        assert!(!is_ready(news.send("lost")).await);
        for receiver in &mut receivers {
            assert_eq!(receiver.recv().await, Some("all"));
        }
        drop(receivers.remove(1));
        assert_eq!(news.send("two").await, Ok(2));
        for receiver in &mut receivers {
            assert_eq!(receiver.recv().await, Some("two"));
        }
        drop(receivers);
        assert_eq!(news.send("none").await.unwrap_err().0, "none");
        assert_eq!(news.receivers(), 0);
        let (mut nobody, _) = mesh::broadcast(1, 0);
        assert_eq!(nobody.send(1).await.unwrap_err().0, 1);
    });
}

// ---- Ends in every order ----

/// A message that is counted while it is there.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(there: &Arc<AtomicUsize>) -> Self {
        there.fetch_add(1, SeqCst);
        Counted(Arc::clone(there))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// Three cores, all of which send and call in all directions until a core does not answer any more, and
/// end in the order of `delays`. Every message comes, is given back, or is dropped, each once.
async fn traffic(there: Arc<AtomicUsize>, delays: [u64; 3]) {
    let index = runtime::core().index();
    for core in runtime::cores() {
        let there = Arc::clone(&there);
        quoit::spawn(async move {
            let (mut sender, mut receiver) = mesh::channel(3);
            let counted = Arc::clone(&there);
            let heard = core.call(async move || {
                drop(quoit::spawn(async move {
                    let _held = Counted::new(&counted);
                    while let Some(message) = receiver.recv().await {
                        drop(message);
                    }
                }));
            });
            if heard.await.is_err() {
                return;
            }
            loop {
                let answer = core.call(async move || runtime::core().index());
                if sender.send(Counted::new(&there)).await.is_err() || answer.await.is_err() {
                    return;
                }
            }
        });
    }
    sleep(Duration::from_micros(delays[index])).await;
}

#[test]
fn cores_that_end_in_any_order_while_others_send_lose_and_hang_nothing() {
    const ORDERS: [[u64; 3]; 6] = [
        [200, 900, 2_000],
        [900, 200, 2_000],
        [2_000, 900, 200],
        [200, 2_000, 900],
        [300, 300, 300],
        [0, 0, 1_000],
    ];
    for round in 0..scaled(10) {
        let delays = ORDERS[round % ORDERS.len()];
        for kind in [DriverKind::Uring, DriverKind::Epoll] {
            let there = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&there);
            let watch = Watch::over(format!("when cores end by {delays:?}"));
            let main = async move || traffic(Arc::clone(&counted), delays).await;
            Builder::new().driver(kind).cores(3).shutdown_on([]).start_per_core(main).unwrap();
            watch.ends();
            assert_eq!(there.load(SeqCst), 0, "messages are left, by {delays:?}");
        }
        for seed in 0..5 {
            let there = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&there);
            let main = async move || traffic(Arc::clone(&counted), delays).await;
            simulated(round as u64 * 5 + seed, 3, Faults::default(), main).unwrap();
            assert_eq!(there.load(SeqCst), 0, "messages are left, seed {seed}");
        }
    }
}

#[test]
fn a_message_whose_destructor_panics_ends_nobody() {
    on_cores(2, async || {
        let (mut sender, mut receiver) = mesh::channel(8);
        (0..3).for_each(|_| assert!(sender.try_send(Bomb).is_ok()));
        let taken = runtime::core_at(1).unwrap().call(async move || {
            let bomb = receiver.recv().await;
            drop(receiver);
            std::mem::forget(bomb);
        });
        taken.await.unwrap();
        let refused = sender.send(Bomb).await.unwrap_err();
        std::mem::forget(refused);
        let caught = runtime::core_at(1).unwrap().call(async || runtime::stats().caught_panics);
        assert_eq!(caught.await.unwrap(), 2);
    });
}

#[test]
fn a_forked_child_hangs_in_no_channel_and_no_call() {
    isolated(|| {
        let runtime = Runtime::new().unwrap();
        let handle = runtime.handle();
        let (mut sender, mut receiver) = mesh::channel(2);
        let task = handle.spawn_on(async || ()).unwrap();
        runtime.block_on(async { assert!(!is_ready(receiver.recv()).await) });
        // SAFETY: the child has one thread, and ends without going back to the harness.
        let child = unsafe { libc::fork() };
        assert!(child >= 0);
        if child == 0 {
            let well = catch_unwind(AssertUnwindSafe(|| {
                assert!(handle.call_soon(|| ()).is_err());
                assert!(task.wait().is_err());
                sender.try_send(1).unwrap();
                drop(sender.clone());
                assert_eq!(receiver.try_recv(), Ok(1));
                drop((sender, receiver));
            }));
            // SAFETY: it ends the child's one thread.
            unsafe { libc::_exit(i32::from(well.is_err())) };
        }
        let mut status = 0;
        // SAFETY: `status` is a place for the answer.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0);
        sender.try_send(7).unwrap();
        assert_eq!(runtime.block_on(receiver.recv()), Some(7));
        runtime.block_on(task).unwrap();
    });
}

// ---- The scorecard: wakes between cores ----

#[test]
fn s15_no_wake_between_cores_is_lost() {
    on_cores(2, async || {
        let rounds = scaled(50_000) / 25;
        let (mut there, mut arrives) = mesh::channel(1);
        let (mut back, mut returns) = mesh::channel(1);
        let echo = runtime::core_at(1).unwrap().call(async move || {
            let mut count = 0;
            while let Some(token) = arrives.recv().await {
                count += 1;
                back.send(token).await.unwrap();
            }
            count
        });
        for round in 0..rounds {
            there.send(round).await.unwrap();
            // Sometimes the other sleeps by then, and sometimes it is about to.
            for _ in 0..round % 7 {
                yield_now().await;
            }
            assert_eq!(returns.recv().await, Some(round));
        }
        drop(there);
        assert_eq!(echo.await.unwrap(), rounds);
    });
}

#[test]
fn s23_a_core_that_sends_for_ever_serves_its_other_tasks() {
    on_real_cores(2, async || {
        let (mut sender, mut receiver) = mesh::channel(1 << 14);
        let received = runtime::core_at(1).unwrap().call(
            async move || {
                while receiver.recv().await.is_some() {}
            },
        );
        let sends = quoit::spawn(async move { while sender.send(()).await.is_ok() {} });
        for _ in 0..5 {
            sleep(Duration::from_millis(1)).await;
        }
        sends.abort();
        assert!(sends.await.is_err());
        received.await.unwrap();
    });
}
