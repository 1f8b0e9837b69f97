//! `CancelToken`: who is told, and when.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use quoit::net::TcpStream;
use quoit::runtime::run;
use quoit::select;
use quoit::sync::CancelToken;
use quoit::task::{JoinSet, yield_now};
use quoit::time::sleep;

use crate::loopback::{Flag, listen, pair_of_ours, poll_once};
use crate::support::on_every_driver;
use crate::support_alloc::allocations;

#[test]
fn a_cancel_reaches_the_token_its_clones_and_all_below_it_and_nobody_above() {
    let root = CancelToken::new();
    let (left, right) = (root.child(), root.child());
    let (leaf, other) = (left.child(), left.clone());
    left.cancel();
    assert!(left.is_cancelled() && other.is_cancelled() && leaf.is_cancelled());
    assert!(!root.is_cancelled() && !right.is_cancelled());
    assert!(leaf.child().is_cancelled());
    // What is cancelled stays so, and the rest can still be.
    left.cancel();
    root.cancel();
    assert!(right.is_cancelled() && root.child().child().is_cancelled());
}

#[test]
fn a_cancel_reaches_those_below_a_token_that_nobody_has_any_more() {
    let root = CancelToken::new();
    let leaf = root.child().child().child();
    root.cancel();
    assert!(leaf.is_cancelled());
}

#[test]
fn dropping_tokens_cancels_nothing_and_leaves_no_memory() {
    let root = CancelToken::new();
    let leaf = {
        let middle = root.child();
        middle.child()
    };
    for _ in 0..100 {
        drop(root.child());
    }
    let before = allocations();
    for _ in 0..100 {
        drop(root.child());
    }
    // The token itself, and no place in the list of the parent.
    assert_eq!(allocations() - before, 100);
    drop(root);
    assert!(!leaf.is_cancelled());
}

#[test]
fn tokens_may_be_nested_as_deep_as_one_likes() {
    let root = CancelToken::new();
    let mut chain = vec![root.clone()];
    let mut last = root.clone();
    for _ in 0..200_000 {
        last = last.child();
    }
    chain.push(last.child());
    root.cancel();
    assert!(last.is_cancelled());
    let mut deep = CancelToken::new();
    for _ in 0..200_000 {
        deep = deep.child();
    }
    drop(deep);
}

#[test]
fn all_who_wait_are_woken_and_find_everything_cancelled() {
    run(async {
        let root = CancelToken::new();
        let seen = Rc::new(Cell::new(0));
        let mut tasks = JoinSet::new();
        for number in 0..100 {
            let token = if number % 2 == 0 { root.clone() } else { root.child().child() };
            let (root, seen) = (root.clone(), seen.clone());
            tasks.spawn(async move {
                token.cancelled().await;
                assert!(root.is_cancelled() && token.is_cancelled());
                seen.set(seen.get() + 1);
            });
        }
        yield_now().await;
        root.cancel();
        tasks.join_all().await;
        assert_eq!(seen.get(), 100);
        root.cancelled().await;
    })
    .unwrap();
}

#[test]
fn a_wait_that_is_dropped_is_forgotten() {
    let token = CancelToken::new();
    let (flag, other) = (Arc::new(Flag::default()), Arc::new(Flag::default()));
    let mut kept = Box::pin(token.cancelled());
    {
        let mut dropped = pin!(token.cancelled());
        assert!(poll_once(dropped.as_mut(), &flag).is_pending());
        assert!(poll_once(kept.as_mut(), &flag).is_pending());
    }
    // Its waker is that of the last poll.
    assert!(poll_once(kept.as_mut(), &other).is_pending());
    assert_eq!(Arc::strong_count(&flag), 1);
    token.cancel();
    assert!(other.is_set() && !flag.is_set());
    assert!(poll_once(kept.as_mut(), &other).is_ready());
    drop(kept);
}

/// A waker that cancels, asks and drops what it finds.
#[test]
fn a_waker_may_do_anything_to_the_tokens() {
    run(async {
        let root = CancelToken::new();
        let child = root.child();
        let place: Rc<RefCell<Option<CancelToken>>> = Rc::new(RefCell::new(Some(child.clone())));
        let first = quoit::spawn({
            let (root, place) = (root.clone(), place.clone());
            async move {
                root.cancelled().await;
                let child = place.borrow_mut().take().unwrap();
                child.cancel();
                assert!(child.is_cancelled() && root.child().is_cancelled());
            }
        });
        let second = quoit::spawn(async move { child.cancelled().await });
        yield_now().await;
        root.cancel();
        first.await.unwrap();
        second.await.unwrap();
    })
    .unwrap();
}

#[test]
fn run_until_gives_what_comes_first() {
    run(async {
        let token = CancelToken::new();
        assert_eq!(token.run_until(async { 1 }).await, Some(1));
        let waiting = token.run_until(pending::<u32>());
        let stop = async {
            yield_now().await;
            token.cancel();
        };
        assert_eq!(quoit::join!(waiting, stop).0, None);
        // An output that is there wins.
        assert_eq!(token.run_until(async { 2 }).await, Some(2));
        assert_eq!(token.run_until(sleep(Duration::MAX)).await, None);
    })
    .unwrap();
}

#[test]
fn a_guard_cancels_on_every_way_out() {
    run(async {
        let token = CancelToken::new();
        let task = quoit::spawn({
            let guard = token.child().drop_guard();
            let child = token.child();
            async move {
                let _child = child.clone().drop_guard();
                let _guard = guard;
                if true {
                    panic!("on purpose")
                }
            }
        });
        assert!(task.await.unwrap_err().is_panic());
        assert!(!token.is_cancelled());
        let kept = token.clone().drop_guard().disarm();
        assert!(!kept.is_cancelled());
        drop(kept.drop_guard());
        assert!(token.is_cancelled());
    })
    .unwrap();
}

#[test]
fn a_task_that_does_not_look_goes_on() {
    run(async {
        let token = CancelToken::new();
        let steps = Rc::new(Cell::new(0));
        let task = quoit::spawn({
            let (_token, steps) = (token.child(), steps.clone());
            async move {
                for _ in 0..5 {
                    steps.set(steps.get() + 1);
                    yield_now().await;
                }
            }
        });
        token.cancel();
        task.await.unwrap();
        assert_eq!(steps.get(), 5);
    })
    .unwrap();
}

#[test]
fn waiting_again_and_again_allocates_nothing() {
    run(async {
        let token = CancelToken::new().child();
        let rounds = async || {
            for _ in 0..100 {
                select! { _ = token.cancelled() => unreachable!(), _ = yield_now() => {} }
            }
        };
        rounds().await;
        let before = allocations();
        rounds().await;
        assert_eq!(allocations() - before, 0);
    })
    .unwrap();
}

#[test]
fn a_server_stops_by_its_token_and_loses_no_connection() {
    on_every_driver(async || {
        let (listener, address) = listen().await;
        let stop = CancelToken::new();
        let mut connections = JoinSet::new();
        let serve = async {
            let mut count = 0;
            loop {
                select! {
                    accepted = listener.accept() => {
                        let (stream, _) = accepted.unwrap();
                        let stop = stop.child();
                        count += 1;
                        connections.spawn(async move { stop.run_until(stream.recv()).await });
                    }
                    _ = stop.cancelled() => break count,
                }
            }
        };
        let clients = async {
            let mut clients = Vec::new();
            for _ in 0..10 {
                clients.push(TcpStream::connect(address).await.unwrap());
            }
            stop.cancel();
            clients
        };
        let (mut served, clients) = quoit::join!(serve, clients);
        // Those that were not taken wait in the listener.
        while served < 10 {
            drop(listener.accept().await.unwrap());
            served += 1;
        }
        for outcome in connections.join_all().await {
            assert!(outcome.is_none());
        }
        drop(clients);
    });
}

#[test]
fn a_token_is_cancelled_from_another_thread_by_an_abort() {
    run(async {
        let token = CancelToken::new();
        let guard = token.clone().drop_guard();
        let holder = quoit::spawn(async move {
            let _guard = guard;
            pending::<()>().await
        });
        let cancel = holder.abort_handle();
        drop(holder);
        yield_now().await;
        let other = std::thread::spawn(move || cancel.abort());
        token.cancelled().await;
        other.join().unwrap();
    })
    .unwrap();
}

#[test]
fn a_read_that_is_cut_short_loses_no_byte() {
    on_every_driver(async || {
        let (server, client) = pair_of_ours().await;
        let token = CancelToken::new();
        let cut = token.run_until(server.read(vec![0; 100]));
        let stop = async {
            yield_now().await;
            token.cancel();
            client.write_all(b"abc".as_slice()).await.unwrap();
        };
        let (first, _) = quoit::join!(cut, stop);
        let mut got = first.map_or(Vec::new(), |read| {
            let (count, buf) = read.unwrap();
            buf[..count].to_vec()
        });
        while got.len() < 3 {
            let (count, buf) = server.read(vec![0; 100]).await.unwrap();
            got.extend_from_slice(&buf[..count]);
        }
        assert_eq!(got, b"abc");
    });
}

#[test]
fn a_cancelled_future_may_be_polled_after_its_end() {
    let token = CancelToken::new();
    token.cancel();
    let mut cancelled = token.cancelled();
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..2 {
        assert_eq!(Pin::new(&mut cancelled).poll(&mut context), Poll::Ready(()));
    }
}
