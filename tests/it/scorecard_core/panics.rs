//! Panics in every place where a user's code runs.

use std::cell::Cell;
use std::future::Future;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Wake, Waker};
use std::time::Duration;

use quoit::net::{TcpListener, TcpStream};
use quoit::runtime::{self, Builder, Handle, Runtime};
use quoit::task::yield_now;
use quoit::time::{call_later, sleep};

use super::{assert_fruitful, silence_planted_panics};
use crate::loopback::{lap, listen, own_address, pair, scaled};
use crate::quarantine::{PIECE, QuarantineBuf, violations};
use crate::support::{Ledger, Watch, isolated, ledger, patient, settle};

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("planted: in a drop");
    }
}

/// A waker that panics when it is called.
struct Shouting;

impl Wake for Shouting {
    fn wake(self: Arc<Self>) {
        panic!("planted: in a waker");
    }
}

/// A waker that panics when its last clone is dropped.
struct Exploding(Bomb);

impl Wake for Exploding {
    fn wake(self: Arc<Self>) {}
}

/// Ten operations in flight: five receives of each kind.
async fn ten_receives(streams: &[(TcpStream, std::net::TcpStream)]) {
    let mut receives: Vec<_> = streams[..5].iter().map(|it| Box::pin(it.0.recv())).collect();
    let buf = || QuarantineBuf::new(PIECE);
    let mut reads: Vec<_> = streams[5..].iter().map(|it| Box::pin(it.0.read(buf()))).collect();
    std::future::poll_fn(|context| {
        for receive in &mut receives {
            assert!(receive.as_mut().poll(context).is_pending());
        }
        for read in &mut reads {
            assert!(read.as_mut().poll(context).is_pending());
        }
        Poll::Ready(())
    })
    .await;
    lap().await;
    panic!("planted: in a poll");
}

/// Whether all bytes come that are sent now, whatever became of the receives before.
async fn still_receive(streams: &mut [(TcpStream, std::net::TcpStream)]) {
    for (stream, peer) in streams {
        peer.write_all(b"after").unwrap();
        let buf = vec![0; 5].into_boxed_slice();
        assert_eq!(&*stream.read_exact(buf).await.unwrap(), b"after");
    }
}

/// Panics of a task itself: each ends that task, and nothing else.
async fn in_tasks(streams: Rc<Vec<(TcpStream, std::net::TcpStream)>>) {
    let (first, second) = (streams.clone(), streams);
    let poll = quoit::spawn(async move { ten_receives(&first).await });
    assert!(poll.await.unwrap_err().is_panic());
    let drops = quoit::spawn(async move {
        let _kept = (Bomb, second);
        yield_now().await;
    });
    assert!(drops.await.unwrap_err().is_panic());

    let aborted = quoit::spawn(async {
        let _bomb = Bomb;
        sleep(Duration::MAX).await;
    });
    yield_now().await;
    aborted.abort();
    assert!(aborted.await.unwrap_err().is_panic());

    let payload = quoit::spawn(async { panic_any(Bomb) });
    match payload.await.unwrap_err().try_into_panic() {
        Ok(payload) => std::mem::forget(payload),
        Err(error) => panic!("{error:?}"),
    }
    // The same, and nobody asks.
    drop(quoit::spawn(async { panic_any(Bomb) }));

    // An output that panics when it is dropped, and nobody takes: before and after its time.
    drop(quoit::spawn(async { Bomb }));
    let late = quoit::spawn(async { Bomb });
    yield_now().await;
    assert!(late.is_finished());
    drop(late);
    let remote = Handle::current().spawn_on(async || panic!("planted: in a closure")).unwrap();
    assert!(remote.await.unwrap_err().is_panic());
    yield_now().await;
}

/// Panics of functions that are called back. Returns how many are to be counted.
async fn in_callbacks() {
    let called = Rc::new(Cell::new(0));
    for _ in 0..2 {
        quoit::call_soon(|| panic!("planted: in call_soon"));
        let count = called.clone();
        quoit::call_soon(move || count.set(count.get() + 1));
        call_later(Duration::ZERO, || panic!("planted: in a timer"));
        let count = called.clone();
        call_later(Duration::ZERO, move || count.set(count.get() + 1));
        Handle::current().call_soon(|| panic!("planted: in a message")).unwrap();
    }
    let bomb = Bomb;
    call_later(Duration::from_secs(60), move || drop(bomb)).cancel_caught();
    // Cancelled by another thread, the function is dropped by the loop.
    let bomb = Bomb;
    let far = call_later(Duration::from_secs(60), move || drop(bomb));
    std::thread::spawn(move || far.cancel()).join().unwrap();
    sleep(Duration::from_millis(1)).await;
    assert_eq!(called.get(), 4);
}

trait CancelCaught {
    fn cancel_caught(&self);
}

impl CancelCaught for quoit::time::TimerHandle {
    /// The caller of `cancel` drops the function, so its panic is the caller's.
    fn cancel_caught(&self) {
        let _ = catch_unwind(AssertUnwindSafe(|| self.cancel()));
        assert!(!self.is_pending());
    }
}

/// Panics of wakers in everything that keeps one: what was waited for comes all the same.
async fn in_wakers(streams: &mut [(TcpStream, std::net::TcpStream)]) {
    for make in [|| Waker::from(Arc::new(Shouting)), || Waker::from(Arc::new(Exploding(Bomb)))] {
        let (stream, peer) = &mut streams[0];
        {
            let mut receive = pin!(stream.recv());
            poll_with(make(), receive.as_mut());
            peer.write_all(b"x").unwrap();
            assert_eq!(&*receive.await.unwrap().unwrap(), b"x");
        }
        let (stream, peer) = &mut streams[7];
        {
            let mut read = pin!(stream.read(Vec::with_capacity(8)));
            poll_with(make(), read.as_mut());
            peer.write_all(b"y").unwrap();
            lap().await;
            assert_eq!(read.await.unwrap().1, b"y");
        }
        let mut nap = pin!(sleep(patient(Duration::from_millis(5))));
        poll_with(make(), nap.as_mut());
        sleep(patient(Duration::from_millis(8))).await;
        nap.await;

        let mut task = quoit::spawn(async { yield_now().await });
        poll_with(make(), pin!(&mut task));
        yield_now().await;
        yield_now().await;
        task.await.unwrap();
        let mut task = quoit::spawn(async { yield_now().await });
        poll_with(make(), pin!(&mut task));
        task.await.unwrap();
        // Detached while the waker is there.
        let mut task = quoit::spawn(async { yield_now().await });
        poll_with(make(), pin!(&mut task));
        let _ = catch_unwind(AssertUnwindSafe(|| drop(task)));

        let mut naps = pin!(quoit::gather([sleep(patient(Duration::from_millis(5)))]));
        poll_with(make(), naps.as_mut());
        naps.await;

        in_lines(make, &mut streams[3]).await;

        let mut remote = Handle::current().spawn_on(async || 7).unwrap();
        poll_with(make(), pin!(&mut remote));
        std::future::poll_fn(|context| {
            // Its waker takes the place of the other.
            assert!(pin!(&mut remote).poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
        assert_eq!(remote.await.unwrap(), 7);
        let mut remote = Handle::current().spawn_on(async || 7).unwrap();
        poll_with(make(), pin!(&mut remote));
        sleep(Duration::from_micros(100)).await;
        assert_eq!(remote.await.unwrap(), 7);
    }
}

/// Panics of wakers in line: for the turn to read, and for an address to become free.
async fn in_lines(make: fn() -> Waker, pair: &mut (TcpStream, std::net::TcpStream)) {
    let (stream, peer) = pair;
    let mut first = pin!(stream.recv());
    std::future::poll_fn(|context| {
        assert!(first.as_mut().poll(context).is_pending());
        Poll::Ready(())
    })
    .await;
    let mut second = pin!(stream.recv());
    poll_with(make(), second.as_mut());
    peer.write_all(b"1").unwrap();
    // It passes the turn on, and must not fail with whoever gets it.
    assert_eq!(&*first.await.unwrap().unwrap(), b"1");
    peer.write_all(b"2").unwrap();
    assert_eq!(&*second.await.unwrap().unwrap(), b"2");

    let listener = TcpListener::bind((own_address(), 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    {
        let mut accept = pin!(listener.accept());
        poll_with(Waker::noop().clone(), accept.as_mut());
    }
    lap().await;
    drop(listener);
    let mut before = pin!(TcpListener::bind(address));
    poll_with(make(), before.as_mut());
    // It stands behind the other, and is called all the same.
    drop(TcpListener::bind(address).await.unwrap());
}

/// Polls `future` once; from then on it has the only clone of `waker`.
fn poll_with<F: Future>(waker: Waker, future: std::pin::Pin<&mut F>) {
    let mut future = future;
    assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    // If the future kept no clone, this is the last one, and its panic is ours.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(waker)));
}

/// A task that knows nothing of all this.
async fn healthy(number: usize, rounds: usize, streams: Option<(TcpStream, std::net::TcpStream)>) {
    let mut streams = streams;
    for _ in 0..rounds {
        match &mut streams {
            Some(pair) => still_receive(std::slice::from_mut(pair)).await,
            None if number.is_multiple_of(3) => sleep(Duration::from_micros(100)).await,
            None => yield_now().await,
        }
    }
}

/// A waker whose clones panic.
fn uncloneable() -> Waker {
    const VTABLE: RawWakerVTable =
        RawWakerVTable::new(|_| panic!("planted: in a clone"), |_| (), |_| (), |_| ());
    // SAFETY: the functions use no data.
    unsafe { Waker::from_raw(RawWaker::new(std::ptr::null(), &VTABLE)) }
}

/// Polls `future` once with a waker that it cannot keep.
fn poll_in_vain<F: Future>(future: std::pin::Pin<&mut F>) {
    let waker = uncloneable();
    let polled = catch_unwind(AssertUnwindSafe(|| {
        let _ = future.poll(&mut Context::from_waker(&waker));
    }));
    assert!(polled.is_err(), "the waker was not needed");
}

#[test]
fn s17_a_waker_that_cannot_be_cloned_loses_neither_bytes_nor_connections() {
    isolated(|| {
        silence_planted_panics();
        ledger(Builder::new(), async || {
            let (listener, address) = listen().await;
            for round in 0..100 {
                poll_in_vain(pin!(listener.accept()));
                poll_with(Waker::noop().clone(), pin!(listener.accept()));
                poll_in_vain(pin!(listener.accept()));
                let mut peer = std::net::TcpStream::connect(address).unwrap();
                let (stream, _) = listener.accept().await.unwrap();
                poll_in_vain(pin!(stream.recv()));
                poll_with(Waker::noop().clone(), pin!(stream.recv()));
                poll_in_vain(pin!(stream.recv()));
                if round % 2 == 0 {
                    poll_in_vain(pin!(stream.read(vec![0; 4])));
                }
                peer.write_all(b"all of it").unwrap();
                assert_eq!(stream.read_exact(vec![0; 9]).await.unwrap(), b"all of it");
            }
        });
    });
}

#[test]
fn s17_a_panic_ends_one_task_and_nothing_else() {
    isolated(|| {
        silence_planted_panics();
        crate::loopback::set_descriptor_limit(4000);
        let watch = Watch::over("after a panic");
        let rounds = scaled(1000, 25);
        let stats = ledger(Builder::new(), async || {
            let mut tasks = Vec::new();
            for number in 0..1000 {
                let streams = if number % 20 == 0 { Some(pair().await) } else { None };
                tasks.push(quoit::spawn(healthy(number, rounds, streams)));
            }
            for _ in 0..rounds {
                let mut streams = Vec::new();
                for _ in 0..10 {
                    streams.push(pair().await);
                }
                let streams = Rc::new(streams);
                in_tasks(streams.clone()).await;
                let mut streams = Rc::into_inner(streams).expect("the tasks are gone");
                still_receive(&mut streams).await;
                in_callbacks().await;
                in_wakers(&mut streams).await;
                still_receive(&mut streams).await;
            }
            for task in tasks {
                task.await.unwrap();
            }
            runtime::stats()
        });
        assert!(stats.caught_panics >= 8 * rounds as u64, "{stats:#?}");
        assert_fruitful(&stats, 3);
        assert_eq!(violations(), 0);
        watch.ends();
    });
}

#[test]
fn s17_panics_out_of_block_on_and_at_the_end_leave_nothing() {
    isolated(|| {
        silence_planted_panics();
        for _ in 0..scaled(1000, 50) {
            let ledger = Ledger::open();
            let runtime = Runtime::new().unwrap();
            let streams = runtime.block_on(async {
                let mut streams = Vec::new();
                for _ in 0..10 {
                    streams.push(pair().await);
                }
                streams
            });
            let main = || runtime.block_on(ten_receives(&streams));
            assert!(catch_unwind(AssertUnwindSafe(main)).is_err());
            runtime.block_on(async {
                let mut streams = streams;
                still_receive(&mut streams).await;
            });
            settle(&runtime);
            // Everything below is dropped with the runtime, and panics then.
            let finished = runtime.block_on(async {
                drop(quoit::spawn(async {
                    let _bombs = (Bomb, 1);
                    sleep(Duration::MAX).await;
                }));
                let bomb = Bomb;
                call_later(Duration::from_secs(60), move || drop(bomb));
                drop(quoit::spawn(async {
                    let _spawns = OnDrop(|| drop(quoit::spawn(async { drop(Bomb) })));
                    sleep(Duration::MAX).await;
                }));
                let (stream, peer) = pair().await;
                let mut late = Vec::new();
                for waker in [Waker::from(Arc::new(Shouting)), Exploding(Bomb).into_waker()] {
                    let mut nap = Box::pin(sleep(Duration::from_secs(60)));
                    poll_with(waker, nap.as_mut());
                    late.push(nap);
                }
                let waker = Exploding(Bomb).into_waker();
                drop(quoit::spawn(async move {
                    let mut receive = pin!(stream.recv());
                    poll_with(waker, receive.as_mut());
                    sleep(Duration::MAX).await;
                    drop(peer);
                }));
                let finished = quoit::spawn(async { Bomb });
                yield_now().await;
                (finished, late)
            });
            let bomb = Bomb;
            runtime.handle().call_soon(move || drop(bomb)).unwrap();
            let bomb = Bomb;
            drop(runtime.handle().spawn_on(move || async move { drop(bomb) }).unwrap());
            drop(runtime);
            drop(finished);
            ledger.close();
        }
        assert_eq!(violations(), 0);
    });
}

impl Exploding {
    fn into_waker(self) -> Waker {
        Waker::from(Arc::new(self))
    }
}

/// Calls a function when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        self.0();
    }
}
