//! `JoinHandle::cancel`: it ends when the kernel holds nothing of the task any more.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use quoit::net::TcpStream;
use quoit::runtime::run;
use quoit::task::{JoinHandle, gather, yield_now};
use quoit::time::{sleep, timeout};
use quoit::{join, select};

use crate::loopback::{isolated, lap, ledger, listen, pair_of_ours, until};
use crate::quarantine::{QuarantineBuf, violations};
use crate::support::on_every_driver;

/// A stream that takes no more bytes, and its peer, which does not read.
async fn stuck_pair() -> (Rc<TcpStream>, TcpStream) {
    let (stream, peer) = pair_of_ours().await;
    stream.set_send_buffer_size(4096).unwrap();
    let patience = Duration::from_millis(10);
    while timeout(patience, stream.write(vec![9; 1 << 16])).await.is_ok() {}
    (Rc::new(stream), peer)
}

/// A task that writes from `bytes` and does not get far.
fn writes(stream: &Rc<TcpStream>, bytes: &Rc<[u8]>) -> JoinHandle<()> {
    let (stream, bytes) = (Rc::clone(stream), Rc::clone(bytes));
    quoit::spawn(async move { drop(stream.write_all(bytes).await) })
}

#[test]
fn the_memory_of_a_write_in_flight_is_free_when_the_cancel_returns() {
    on_every_driver(async || {
        let (stream, _peer) = stuck_pair().await;
        let bytes: Rc<[u8]> = vec![1; 1 << 20].into();
        let task = writes(&stream, &bytes);
        lap().await;
        assert_eq!(Rc::strong_count(&bytes), 2);
        assert!(task.cancel().await.unwrap_err().is_cancelled());
        assert_eq!(Rc::strong_count(&bytes), 1);
    });
}

#[test]
fn a_cancel_that_meets_its_write_between_two_tries_is_asked_again() {
    on_every_driver(async || {
        let bytes: Rc<[u8]> = vec![1; 8 << 20].into();
        for size in 0..16 {
            let (stream, _peer) = pair_of_ours().await;
            stream.set_send_buffer_size(4096 << (size % 8)).unwrap();
            // It is sent in part, and cancelled with the same call, while it waits to go on.
            let task = writes(&Rc::new(stream), &bytes);
            yield_now().await;
            assert!(task.cancel().await.unwrap_err().is_cancelled());
            assert_eq!(Rc::strong_count(&bytes), 1);
        }
    });
}

#[test]
fn a_read_in_flight_has_had_its_last_answer_when_the_cancel_returns() {
    on_every_driver(async || {
        let (server, client) = pair_of_ours().await;
        let server = Rc::new(server);
        let task = quoit::spawn({
            let server = Rc::clone(&server);
            async move { server.read(QuarantineBuf::new(512)).await.map(drop).unwrap() }
        });
        lap().await;
        assert!(task.cancel().await.unwrap_err().is_cancelled());
        assert_eq!(quoit::runtime::stats().orphans, 0);
        // What comes for nobody is there for the next.
        client.write_all(b"later".as_slice()).await.unwrap();
        let (count, buf) = server.read(vec![0; 9]).await.unwrap();
        assert_eq!(&buf[..count], b"later");
    });
    assert_eq!(violations(), 0);
}

#[test]
fn a_write_that_shares_its_request_with_others_is_awaited_as_well() {
    on_every_driver(async || {
        for gone in 0..3 {
            let (stream, peer) = stuck_pair().await;
            let all: Vec<Rc<[u8]>> = (0..3).map(|number| vec![number; 3000].into()).collect();
            let mut tasks: Vec<_> = all.iter().map(|bytes| writes(&stream, bytes)).collect();
            for _ in 0..5 {
                lap().await;
            }
            let _ = tasks.remove(gone).cancel().await;
            assert_eq!(Rc::strong_count(&all[gone]), 1, "of write {gone}");
            drop(gather(tasks.into_iter().map(JoinHandle::cancel)).await);
            assert!(all.iter().all(|bytes| Rc::strong_count(bytes) == 1));
            drop(peer);
        }
    });
}

#[test]
fn what_a_task_gave_up_before_is_awaited_too() {
    on_every_driver(async || {
        let (stream, _peer) = stuck_pair().await;
        let bytes: Rc<[u8]> = vec![1; 1 << 20].into();
        let task = quoit::spawn({
            let (stream, bytes) = (stream, Rc::clone(&bytes));
            async move {
                select! {
                    biased;
                    _ = stream.write_all(bytes) => unreachable!("the peer does not read"),
                    _ = yield_now() => {}
                }
            }
        });
        while !task.is_finished() {
            yield_now().await;
        }
        task.cancel().await.unwrap();
        assert_eq!(Rc::strong_count(&bytes), 1);
    });
}

#[test]
fn an_operation_that_another_task_had_begun_is_awaited_with_the_task_that_drops_it() {
    on_every_driver(async || {
        let (stream, _peer) = stuck_pair().await;
        let bytes: Rc<[u8]> = vec![1; 1 << 20].into();
        let held = Rc::clone(&bytes);
        let mut writing = Box::pin(async move { drop(stream.write_all(held).await) });
        // First it waits for the turn of the write before it, whose cancel is to be answered.
        for _ in 0..5 {
            poll_fn(|context| Poll::Ready(writing.as_mut().poll(context).is_pending())).await;
            lap().await;
        }
        let task = quoit::spawn(writing);
        lap().await;
        assert!(task.cancel().await.unwrap_err().is_cancelled());
        assert_eq!(Rc::strong_count(&bytes), 1);
    });
}

#[test]
fn a_task_that_has_ended_gives_its_output_or_its_panic() {
    run(async {
        let done = quoit::spawn(async { 7 });
        let failed = quoit::spawn(async { panic!("on purpose") });
        yield_now().await;
        assert_eq!(done.cancel().await.unwrap(), 7);
        assert!(failed.cancel().await.unwrap_err().is_panic());
        // It had no turn yet.
        let late = quoit::spawn(async { 8 });
        assert!(late.cancel().await.unwrap_err().is_cancelled());
    })
    .unwrap();
}

#[test]
fn a_task_that_panics_with_an_operation_in_flight_is_awaited_whole() {
    on_every_driver(async || {
        let (stream, _peer) = stuck_pair().await;
        let bytes: Rc<[u8]> = vec![1; 1 << 20].into();
        let task = quoit::spawn({
            let (stream, bytes) = (stream, Rc::clone(&bytes));
            async move {
                let mut writing = pin!(stream.write_all(bytes));
                poll_fn(|context| Poll::Ready(writing.as_mut().poll(context).is_pending())).await;
                yield_now().await;
                panic!("on purpose")
            }
        });
        while !task.is_finished() {
            yield_now().await;
        }
        let outcome: Result<(), _> = task.cancel().await;
        assert!(outcome.unwrap_err().is_panic());
        assert_eq!(Rc::strong_count(&bytes), 1);
    });
}

#[test]
fn a_task_that_never_waits_for_anything_is_cancelled_at_its_next_turn() {
    run(async {
        let turns = Rc::new(Cell::new(0));
        let task = quoit::spawn({
            let turns = turns.clone();
            async move {
                loop {
                    turns.set(turns.get() + 1);
                    yield_now().await;
                }
            }
        });
        until(|| turns.get() > 0).await;
        let outcome: Result<(), _> = task.cancel().await;
        let count = turns.get();
        assert!(outcome.unwrap_err().is_cancelled() && count > 0);
        sleep(Duration::from_millis(1)).await;
        assert_eq!(turns.get(), count);
    })
    .unwrap();
}

#[test]
fn what_others_share_with_the_task_goes_on() {
    on_every_driver(async || {
        let (server, client) = pair_of_ours().await;
        let server = Rc::new(server);
        let task = quoit::spawn({
            let server = Rc::clone(&server);
            async move { server.recv().await.map(drop) }
        });
        lap().await;
        // The receive belongs to the stream, which is still there.
        assert!(task.cancel().await.unwrap_err().is_cancelled());
        client.write_all(b"mine".as_slice()).await.unwrap();
        assert_eq!(&server.recv().await.unwrap().unwrap()[..], b"mine");
    });
}

#[test]
fn a_task_that_cancels_itself_is_gone_at_its_next_turn() {
    run(async {
        let place: Rc<RefCell<Option<JoinHandle<()>>>> = Rc::default();
        let task = quoit::spawn({
            let place = place.clone();
            async move {
                let own = place.borrow_mut().take().unwrap();
                drop(own.cancel().await);
                unreachable!("it was dropped while it waited");
            }
        });
        *place.borrow_mut() = Some(task);
        for _ in 0..3 {
            yield_now().await;
        }
        assert_eq!(Rc::strong_count(&place), 1);
    })
    .unwrap();
}

#[test]
fn a_cancel_that_is_dropped_at_any_point_ends_the_task_all_the_same() {
    isolated(|| {
        ledger(async || {
            for polls in 0..4 {
                let (stream, _peer) = stuck_pair().await;
                let bytes: Rc<[u8]> = vec![1; 1 << 20].into();
                let task = writes(&stream, &bytes);
                lap().await;
                let mut cancel = Box::pin(task.cancel());
                for _ in 0..polls {
                    poll_fn(|context| Poll::Ready(cancel.as_mut().poll(context).is_pending()))
                        .await;
                    yield_now().await;
                }
                drop(cancel);
                sleep(Duration::from_millis(2)).await;
                assert_eq!(Rc::strong_count(&bytes), 1);
            }
        });
    });
}

#[test]
fn many_are_cancelled_at_once() {
    on_every_driver(async || {
        let (listener, address) = listen().await;
        let mut tasks = Vec::new();
        let mut streams = Vec::new();
        for _ in 0..20 {
            let client = TcpStream::connect(address).await.unwrap();
            let (server, _) = listener.accept().await.unwrap();
            tasks.push(quoit::spawn(async move {
                let (one, two) = join!(client.read(QuarantineBuf::new(64)), pending::<()>());
                drop((one, two));
            }));
            streams.push(server);
        }
        lap().await;
        let before = quoit::runtime::stats().live_ops;
        for outcome in gather(tasks.into_iter().map(JoinHandle::cancel)).await {
            assert!(outcome.unwrap_err().is_cancelled());
        }
        let stats = quoit::runtime::stats();
        assert!(stats.orphans == 0 && stats.live_ops + 20 <= before, "{stats:?}");
    });
    assert_eq!(violations(), 0);
}
