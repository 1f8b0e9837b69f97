//! `select!`: which branch counts, what becomes of the others, and that races lose nothing.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn, ready};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use quoit::buf::IoBuf;
use quoit::net::{TcpListener, TcpStream, UdpSocket};
use quoit::runtime::run;
use quoit::task::yield_now;
use quoit::time::sleep;
use quoit::{join, select};

use crate::loopback::{Oracle, Random, isolated, ledger, listen, pair_of_ours, pattern, scaled};
use crate::quarantine::{QuarantineBuf, violations};
use crate::support::on_every_driver;
use crate::support_alloc::allocations;

/// Notes its name when it is dropped.
struct Noted<'a>(&'a RefCell<Vec<u32>>, u32);

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        self.0.borrow_mut().push(self.1);
    }
}

impl Noted<'_> {
    async fn stuck<T>(self) -> T {
        pending().await
    }

    async fn quick(self) -> u32 {
        self.1
    }
}

fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

// ---- The grammar ----

#[test]
fn the_branch_that_ends_first_runs_its_handler_and_gives_the_value() {
    run(async {
        let value = select! {
            _ = pending::<()>() => 1,
            number = ready(2) => number + 40,
        };
        assert_eq!(value, 42);
        // A block needs no comma, and the last branch none either.
        let value = select! {
            _ = pending::<()>() => { 1 }
            text = async { "two" } => { text.len() }
            else => 9
        };
        assert_eq!(value, 3);
        let value = select! { biased; a = ready(1) => a, b = ready(2) => b, else => 3, };
        assert_eq!(value, 1);
        assert_eq!(select! { else => 7 }, 7);
        assert_eq!(select! { biased; else => 7, }, 7);
    })
    .unwrap();
}

#[test]
fn a_pattern_that_does_not_match_disables_its_branch() {
    run(async {
        let mut none = 0;
        let value = select! {
            biased;
            Some(value) = ready(None::<u32>) => value,
            Ok::<u32, ()>(1 | 2) = ready(Ok(3)) => 1,
            number @ 5..=9 = async { none += 1; yield_now().await; 7 } => number,
        };
        assert_eq!((value, none), (7, 1));
        let value = select! {
            Some(()) = ready(None) => 1,
            [1, ..] = ready([2, 3]) => 2,
            "a" = ready("b") => 3,
            else => 4,
        };
        assert_eq!(value, 4);
    })
    .unwrap();
}

#[test]
fn patterns_bind_by_value_by_reference_and_to_be_changed() {
    run(async {
        let owned = String::from("a");
        let text = select! {
            Some(mut text) = ready(Some(owned)) => { text.push('b'); text }
            else => String::new(),
        };
        assert_eq!(text, "ab");
        let length =
            select! { (ref mut list, 1) = ready((vec![1], 1)) => { list.push(2); list.len() } };
        assert_eq!(length, 2);
        let value = select! { mut number = ready(1) => { number += 1; number } };
        assert_eq!(value, 2);
        let borrowed = String::from("xyz");
        let value = select! { Some(text) = ready(Some(&borrowed)) => text.len() };
        assert_eq!(value, 3);
        struct Point {
            x: Box<u32>,
        }
        let value = select! { Point { x } = ready(Point { x: Box::new(6) }) => x };
        assert_eq!(*value, 6);
    })
    .unwrap();
}

#[test]
fn a_condition_that_is_false_disables_its_branch_but_its_future_is_made() {
    run(async {
        let order = RefCell::new(Vec::new());
        let make = |number: u32| {
            order.borrow_mut().push(number);
            ready(number)
        };
        let ask = |number: u32, answer: bool| {
            order.borrow_mut().push(number);
            answer
        };
        let value = select! {
            biased;
            a = make(3), if ask(1, false) || order.borrow().is_empty() => a,
            b = make(4), if ask(2, true) => b,
        };
        assert_eq!((value, order.take()), (4, vec![1, 2, 3, 4]));
    })
    .unwrap();
}

#[test]
#[should_panic(expected = "all branches of a select! are disabled, and it has no `else`")]
fn without_an_else_it_panics_when_all_branches_are_disabled() {
    run(async {
        select! { Some(()) = ready(None) => {}, _ = pending::<()>(), if false => {} }
    })
    .unwrap();
}

#[test]
fn handlers_are_code_of_the_function_around_them() {
    async fn first_even(numbers: &[u32]) -> Result<Option<u32>, String> {
        let mut numbers = numbers.iter();
        'all: loop {
            select! {
                next = async { numbers.next() } => match next {
                    Some(1) => continue,
                    Some(3) => continue 'all,
                    Some(7) => Err("seven")?,
                    Some(number) if number % 2 == 0 => {
                        yield_now().await;
                        return Ok(Some(*number));
                    }
                    Some(_) => {}
                    None => break,
                },
                _ = pending::<()>() => unreachable!(),
            }
        }
        Ok(None)
    }
    run(async {
        assert_eq!(first_even(&[1, 3, 5, 6]).await, Ok(Some(6)));
        assert_eq!(first_even(&[1, 7]).await, Err("seven".into()));
        assert_eq!(first_even(&[1]).await, Ok(None));
        let outer = select! { a = ready(1) => select! { b = ready(2) => a + b } };
        assert_eq!(outer, 3);
    })
    .unwrap();
}

#[test]
fn branches_borrow_and_their_handlers_have_it_back() {
    run(async {
        let (mut list, mut other) = (vec![1], vec![2]);
        async fn grows(list: &mut Vec<u32>) {
            list.push(0);
        }
        for _ in 0..4 {
            select! {
                () = grows(&mut list) => { list.push(5); other.push(5); }
                () = grows(&mut other) => { list.push(6); other.push(6); }
            }
        }
        // Both were polled whenever the second came first.
        assert!(list.len() >= 5 && other.len() >= 5);
        async fn length(text: &str) -> usize {
            yield_now().await;
            text.len()
        }
        // What is written in a branch lives as long as its future.
        let value =
            select! { n = length(&"ab".repeat(2)) => n, n = length(&String::from("x")) => n + 3 };
        assert_eq!(value, 4);
    })
    .unwrap();
}

#[test]
fn a_future_that_is_lent_goes_on_in_the_next_round() {
    run(async {
        let mut steps = 0;
        let mut long = pin!(async {
            for _ in 0..5 {
                yield_now().await;
            }
            "done"
        });
        let end = loop {
            select! {
                biased;
                end = &mut long => break end,
                _ = yield_now() => steps += 1,
            }
        };
        assert_eq!((end, steps), ("done", 2));
    })
    .unwrap();
}

#[test]
fn sixty_four_branches_are_each_their_own() {
    macro_rules! of_64 {
        ($open:ident: $($number:literal)+) => {
            select! { $(value = async { if $open == $number { $number } else { pending().await } } => value,)+ }
        };
    }
    run(async {
        for open in 0..64 {
            let value: u32 = of_64!(open:
                0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31
                32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59
                60 61 62 63);
            assert_eq!(value, open);
        }
    })
    .unwrap();
}

// ---- Which comes first ----

#[test]
fn whoever_is_always_ready_does_not_starve_the_others() {
    run(async {
        let mut counts = [0; 3];
        for _ in 0..3000 {
            select! {
                _ = ready(()) => counts[0] += 1,
                _ = ready(()) => counts[1] += 1,
                _ = ready(()) => counts[2] += 1,
            }
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
        // Nor in step with another one.
        let (mut one, mut two) = ([0; 2], [0; 2]);
        for _ in 0..2000 {
            select! { _ = ready(()) => one[0] += 1, _ = ready(()) => one[1] += 1 }
            select! { _ = ready(()) => two[0] += 1, _ = ready(()) => two[1] += 1 }
        }
        assert!(one.iter().chain(&two).all(|count| (800..1200).contains(count)), "{one:?} {two:?}");
    })
    .unwrap();
}

#[test]
fn biased_polls_in_the_order_of_the_branches() {
    run(async {
        let order = RefCell::new(Vec::new());
        let note = |number: u32| poll_fn({
            let order = &order;
            move |_| {
                order.borrow_mut().push(number);
                if number == 3 { Poll::Ready(()) } else { Poll::Pending }
            }
        });
        for _ in 0..10 {
            select! { biased; _ = note(1) => {}, _ = note(2) => {}, _ = note(3) => {}, _ = note(4) => {} }
            assert_eq!(order.take(), [1, 2, 3]);
        }
    })
    .unwrap();
}

#[test]
fn what_is_up_to_chance_is_the_same_in_the_next_run() {
    let chances = || {
        run(async {
            let mut drawn = Vec::new();
            for _ in 0..100 {
                drawn.push(select! { n = ready(0) => n, n = ready(1) => n, n = ready(2) => n });
            }
            drawn
        })
        .unwrap()
    };
    assert_eq!(chances(), chances());
}

// ---- Drops and panics ----

#[test]
fn the_losers_are_dropped_before_the_handler_runs() {
    run(async {
        let drops = RefCell::new(Vec::new());
        let value = select! {
            _ = Noted(&drops, 1).stuck::<()>() => 0,
            number = Noted(&drops, 2).quick() => {
                let mut dropped = drops.borrow().clone();
                dropped.sort_unstable();
                assert_eq!(dropped, [1, 2, 3]);
                number
            }
            _ = Noted(&drops, 3).stuck::<()>(), if false => 0,
        };
        assert_eq!(value, 2);
    })
    .unwrap();
}

#[test]
fn dropping_a_select_drops_its_futures_at_every_point() {
    let drops = RefCell::new(Vec::new());
    for polls in 0..3 {
        let mut both = Box::pin(async {
            select! {
                _ = Noted(&drops, 1).stuck::<()>() => {}
                _ = async { yield_now().await; yield_now().await; Noted(&drops, 2).stuck::<()>().await } => {}
            }
        });
        for _ in 0..polls {
            assert!(poll_once(both.as_mut()).is_pending());
        }
        drop(both);
        let mut dropped = drops.take();
        dropped.sort_unstable();
        assert_eq!(dropped, [&[][..], &[1], &[1]][polls]);
    }
}

#[test]
fn a_panic_of_a_branch_drops_the_others_and_is_that_of_the_task() {
    run(async {
        let drops: &'static RefCell<Vec<u32>> = Box::leak(Box::default());
        crate::support::forget(drops);
        let task = quoit::spawn(async move {
            select! {
                biased;
                _ = Noted(drops, 1).stuck::<()>() => {}
                _ = async { yield_now().await; panic!("on purpose") } => {}
                _ = Noted(drops, 3).stuck::<()>() => {}
            }
        });
        let error = task.await.unwrap_err();
        assert!(error.is_panic() && error.to_string().contains("on purpose"));
        assert_eq!(drops.borrow().len(), 2);
        let task = quoit::spawn(async move {
            select! {
                _ = ready(()) => panic!("in the handler"),
                _ = Noted(drops, 4).stuck::<()>() => {}
            }
        });
        assert!(task.await.unwrap_err().to_string().contains("in the handler"));
        assert_eq!(drops.borrow().len(), 3);
    })
    .unwrap();
}

#[test]
fn a_branch_that_has_ended_without_a_match_is_not_polled_again() {
    run(async {
        let polls = Cell::new(0);
        let mut rounds = 0;
        let counted = poll_fn(|_| {
            polls.set(polls.get() + 1);
            Poll::Ready(None::<u32>)
        });
        let value = select! {
            biased;
            Some(value) = counted => value,
            _ = async { while rounds < 5 { rounds += 1; yield_now().await } } => 0,
        };
        assert_eq!((value, polls.get(), rounds), (0, 1, 5));
    })
    .unwrap();
}

#[test]
fn a_select_works_outside_of_a_runtime() {
    let mut both = pin!(async {
        select! { a = ready(1) => a, b = pending() => b }
    });
    assert_eq!(poll_once(both.as_mut()), Poll::Ready(1));
}

#[test]
fn select_and_join_allocate_nothing() {
    run(async {
        let rounds = async || {
            for _ in 0..1000 {
                let value = select! {
                    a = async { yield_now().await; 1 } => a,
                    Some(b) = ready(None) => b,
                    _ = pending::<()>(), if false => 3,
                    _ = sleep(Duration::from_secs(3600)) => 4,
                };
                assert_eq!(value, 1);
                let sum = join!(
                    async {
                        yield_now().await;
                        1
                    },
                    ready(2),
                    async { 3 }
                );
                assert_eq!(sum, (1, 2, 3));
                let both = quoit::try_join!(async { Ok::<_, ()>(1) }, ready(Ok::<_, ()>(2)));
                assert_eq!(both, Ok((1, 2)));
            }
        };
        rounds().await;
        let before = allocations();
        rounds().await;
        assert_eq!(allocations() - before, 0);
    })
    .unwrap();
}

// ---- Races lose nothing ----

/// Sends the pattern in pieces, with pauses.
async fn sends(stream: TcpStream, seed: u64, len: usize) {
    let (mut random, mut sent) = (Random::new(seed), 0);
    while sent < len {
        let piece = random.size(2000).min(len - sent);
        stream.write_all(pattern(sent as u64, piece)).await.unwrap();
        sent += piece;
        match random.below(4) {
            0 => sleep(Duration::from_micros(random.next() % 100)).await,
            1 => yield_now().await,
            _ => {}
        }
    }
}

/// Reads to the end, where each round races three ways to read against each other and a clock.
async fn reads(stream: &TcpStream, seed: u64) -> (u64, u32) {
    let (mut random, mut oracle, mut lost) = (Random::new(seed), Oracle::default(), 0);
    loop {
        let (room, nap) = (random.size(3000), Duration::from_micros(random.next() % 60));
        let before = oracle.0;
        let is_end = select! {
            bytes = stream.recv() => match bytes.unwrap() {
                Some(bytes) => { oracle.take(&bytes); false }
                None => true,
            },
            read = stream.read(QuarantineBuf::new(room)) => {
                let (count, buf) = read.unwrap();
                oracle.take(&buf);
                count == 0
            }
            read = stream.read_exact(Vec::with_capacity(room).slice(..room)) => match read {
                Ok(buf) => { oracle.take(&buf); false }
                Err(failed) => {
                    assert_eq!(failed.kind(), io::ErrorKind::UnexpectedEof);
                    oracle.take(&failed.buf[..failed.done]);
                    failed.done == 0
                }
            },
            _ = sleep(nap) => { lost += 1; false }
            _ = yield_now(), if random.below(3) == 0 => { lost += 1; false }
        };
        if is_end && oracle.0 == before {
            return (oracle.0, lost);
        }
    }
}

#[test]
fn reads_that_race_lose_no_byte_on_any_driver() {
    let len = scaled(4_000_000, 25_000);
    on_every_driver(async || {
        let (server, client) = pair_of_ours().await;
        let sender = quoit::spawn(sends(client, 5, len));
        let (got, lost) = reads(&server, 6).await;
        sender.await.unwrap();
        assert_eq!(got, len as u64);
        assert!(lost > 0, "no read has lost a race");
    });
    assert_eq!(violations(), 0);
}

#[test]
fn races_of_reads_leave_the_books_in_order() {
    isolated(|| {
        ledger(async || {
            let (server, client) = pair_of_ours().await;
            let len = scaled(20_000_000, 200_000);
            let sender = quoit::spawn(sends(client, 7, len));
            assert_eq!(reads(&server, 8).await.0, len as u64);
            sender.await.unwrap();
        });
    });
}

/// Connects, says who it is, and waits for the end.
async fn visits(address: std::net::SocketAddr, number: u8) {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(vec![number]).await.unwrap();
    let (count, _) = stream.read(vec![0; 8]).await.unwrap();
    assert_eq!(count, 0, "visitor {number} was refused");
}

/// Accepts all visitors, where each round races two accepts against a clock.
async fn receives_visitors(listener: &TcpListener, count: usize) -> u32 {
    let (mut random, mut lost) = (Random::new(3), 0);
    let mut seen = vec![false; count];
    while seen.contains(&false) {
        let nap = Duration::from_micros(random.next() % 50);
        let accepted = select! {
            one = listener.accept() => one.unwrap(),
            other = async { yield_now().await; listener.accept().await } => other.unwrap(),
            _ = sleep(nap) => { lost += 1; continue }
            _ = yield_now(), if random.below(2) == 0 => { lost += 1; continue }
        };
        let (stream, _) = accepted;
        let (read, buf) = stream.read(vec![0; 8]).await.unwrap();
        assert_eq!(read, 1);
        assert!(!std::mem::replace(&mut seen[buf[0] as usize], true));
    }
    lost
}

#[test]
fn accepts_that_race_lose_no_connection_on_any_driver() {
    let count = 20;
    on_every_driver(async || {
        let (listener, address) = listen().await;
        let visitors: Vec<_> =
            (0..count).map(|number| quoit::spawn(visits(address, number as u8))).collect();
        assert!(receives_visitors(&listener, count).await > 0, "no accept has lost a race");
        for visitor in visitors {
            visitor.await.unwrap();
        }
    });
}

#[test]
fn datagrams_that_race_are_all_received_on_any_driver() {
    on_every_driver(async || {
        let one = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let two = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = one.local_addr().unwrap();
        let mut random = Random::new(11);
        for number in 0..25_u8 {
            let mut sending = pin!(two.send_to(vec![number; 9], to));
            let mut is_sent = false;
            loop {
                select! {
                    sent = &mut sending, if !is_sent => { sent.unwrap(); is_sent = true; }
                    got = one.recv_from(vec![0; 64]) => {
                        let ((count, from), buf) = got.unwrap();
                        assert_eq!((&buf[..count], from), (&[number; 9][..], two.local_addr().unwrap()));
                        break;
                    }
                    _ = sleep(Duration::from_micros(random.next() % 40)) => {}
                    _ = yield_now(), if random.below(2) == 0 => {}
                }
            }
        }
    });
}
