//! How the cores of a start share a listener's connections, and how many each takes.

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use quoit::net::{Accept, TcpListener, TcpStream};
use quoit::runtime::{self, Builder};
use quoit::sim::Sim;
use quoit::time::{sleep, timeout};

use crate::loopback::{Flag, descriptors, isolated, lap, ledger, poll_once, run, until, within};
use crate::support::{on_every_driver, patient};

const MODES: [Accept; 3] = [Accept::PerCore, Accept::Shared, Accept::Distributed];

/// What the cores of a test tell its clients, and each other.
#[derive(Default)]
struct Meeting {
    bound: AtomicUsize,
    address: Mutex<Option<SocketAddr>>,
    done: AtomicBool,
    accepted: [AtomicUsize; 4],
}

impl Meeting {
    fn accepted(&self) -> Vec<usize> {
        self.accepted.iter().map(|count| count.load(Ordering::SeqCst)).collect()
    }

    /// All cores listen; it returns when each does.
    async fn bind(&self, mode: Accept, cores: usize) -> TcpListener {
        let listener = TcpListener::bind_with((Ipv4Addr::LOCALHOST, 0), mode).await.unwrap();
        *self.address.lock().unwrap() = Some(listener.local_addr().unwrap());
        self.bound.fetch_add(1, Ordering::SeqCst);
        until(|| self.bound.load(Ordering::SeqCst) >= cores).await;
        listener
    }

    /// Blocks until all cores listen.
    fn address(&self, cores: usize) -> SocketAddr {
        while self.bound.load(Ordering::SeqCst) < cores {
            std::thread::sleep(Duration::from_micros(200));
        }
        self.address.lock().unwrap().unwrap()
    }

    /// Echoes one byte to each connection until the clients are done.
    async fn serve(&self, listener: &TcpListener) {
        while !self.done.load(Ordering::SeqCst) {
            let Ok(accepted) = timeout(Duration::from_millis(2), listener.accept()).await else {
                continue;
            };
            let (stream, _) = accepted.unwrap();
            self.accepted[runtime::core().index()].fetch_add(1, Ordering::SeqCst);
            drop(quoit::spawn(async move {
                let byte = stream.read_exact([0; 1]).await.unwrap();
                stream.write_all(byte).await.unwrap();
            }));
        }
    }
}

/// A connection, a byte, its echo.
fn exchange(address: SocketAddr) {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(patient(Duration::from_secs(10)))).unwrap();
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).expect("a connection was lost");
}

/// Runs `clients` against three cores that serve in a mode. Returns how many each has accepted.
fn with_three_cores(mode: Accept, clients: impl FnOnce(SocketAddr) + Send + 'static) -> Vec<usize> {
    let meeting = Arc::new(Meeting::default());
    let theirs = Arc::clone(&meeting);
    let clients = std::thread::spawn(move || {
        let address = theirs.address(3);
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| clients(address)));
        theirs.done.store(true, Ordering::SeqCst);
        ended.unwrap();
    });
    let serving = Arc::clone(&meeting);
    Builder::new()
        .cores(3)
        .shutdown_on([])
        .start_per_core(async move || {
            let listener = serving.bind(mode, 3).await;
            serving.serve(&listener).await;
        })
        .unwrap();
    clients.join().unwrap();
    meeting.accepted()
}

#[test]
fn every_connection_is_accepted_once_in_every_mode() {
    for mode in MODES {
        let accepted = with_three_cores(mode, |address| {
            let client = || std::thread::spawn(move || (0..15).for_each(|_| exchange(address)));
            let clients: Vec<_> = (0..4).map(|_| client()).collect();
            clients.into_iter().for_each(|client| client.join().unwrap());
        });
        assert_eq!(accepted.iter().sum::<usize>(), 60, "{mode:?}: {accepted:?}");
    }
}

#[test]
fn a_core_that_hands_out_gives_each_its_turn() {
    let accepted = with_three_cores(Accept::Distributed, |address| {
        (0..30).for_each(|_| exchange(address));
    });
    // One at a time, so that nobody's mail is longer than another's.
    assert_eq!(accepted, [10, 10, 10, 0]);
}

#[test]
fn a_busy_core_is_given_no_more_than_the_others() {
    let meeting = Arc::new(Meeting::default());
    let theirs = Arc::clone(&meeting);
    let clients = std::thread::spawn(move || {
        let address = theirs.address(2);
        let open: Vec<_> =
            (0..40).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        while theirs.accepted().iter().sum::<usize>() < 40 {
            std::thread::sleep(Duration::from_millis(1));
        }
        theirs.done.store(true, Ordering::SeqCst);
        drop(open);
    });
    let serving = Arc::clone(&meeting);
    Builder::new()
        .cores(2)
        .shutdown_on([])
        .start_per_core(async move || {
            let listener = serving.bind(Accept::Distributed, 2).await;
            let index = runtime::core().index();
            while !serving.done.load(Ordering::SeqCst) {
                // Core 1 takes nothing until the other one has taken all that it will get.
                let busy = serving.accepted[0].load(Ordering::SeqCst) < 20;
                if index == 1 && busy {
                    sleep(Duration::from_millis(1)).await;
                } else if let Ok(accepted) =
                    timeout(Duration::from_millis(2), listener.accept()).await
                {
                    drop(accepted.unwrap());
                    serving.accepted[index].fetch_add(1, Ordering::SeqCst);
                }
            }
        })
        .unwrap();
    clients.join().unwrap();
    assert!(meeting.accepted()[0] >= 20, "{:?}", meeting.accepted());
}

#[test]
fn when_the_core_that_accepts_goes_another_takes_its_place_and_no_connection_is_lost() {
    for _ in 0..5 {
        let meeting = Arc::new(Meeting::default());
        let left = Arc::new(AtomicUsize::new(0));
        let (theirs, gone) = (Arc::clone(&meeting), Arc::clone(&left));
        let clients = std::thread::spawn(move || {
            let address = theirs.address(3);
            let clients = [0; 3].map(|_| {
                let gone = Arc::clone(&gone);
                std::thread::spawn(move || {
                    while gone.load(Ordering::SeqCst) < 2 {
                        exchange(address);
                    }
                    (0..10).for_each(|_| exchange(address));
                })
            });
            let ended = clients.map(std::thread::JoinHandle::join);
            theirs.done.store(true, Ordering::SeqCst);
            ended.into_iter().for_each(|ended| ended.unwrap());
        });
        let serving = Arc::clone(&meeting);
        Builder::new()
            .cores(3)
            .shutdown_on([])
            .start_per_core(async move || {
                let listener = serving.bind(Accept::Distributed, 3).await;
                let index = runtime::core().index();
                if index < 2 {
                    // Two of three go, in the midst of it; one of them leads.
                    let serve = serving.serve(&listener);
                    let _ = timeout(Duration::from_millis(8 + 8 * index as u64), serve).await;
                    drop(listener);
                    left.fetch_add(1, Ordering::SeqCst);
                    // What it has accepted is still served.
                    until(|| serving.done.load(Ordering::SeqCst)).await;
                } else {
                    serving.serve(&listener).await;
                }
            })
            .unwrap();
        clients.join().unwrap();
    }
}

#[test]
fn when_a_core_goes_the_wakes_of_its_accept_do_not_go_with_it() {
    for mode in [Accept::Shared, Accept::Distributed] {
        for finishes in [false, true] {
            let meeting = Arc::new(Meeting::default());
            let serving = Arc::clone(&meeting);
            let start = Builder::new().cores(2).shutdown_on([]).start_per_core(async move || {
                let index = runtime::core().index();
                let listener = serving.bind(mode, 2).await;
                if index == 1 {
                    // Behind the other one in the kernel's line.
                    until(|| serving.accepted[2].load(Ordering::SeqCst) == 1).await;
                }
                let mut accepting = Box::pin(listener.accept());
                if index == 1 {
                    serving.accepted[3].store(1, Ordering::SeqCst);
                    within(Duration::from_secs(5), accepting).await.unwrap();
                    serving.done.store(true, Ordering::SeqCst);
                    return;
                }
                assert!(poll_once(accepting.as_mut(), &Arc::new(Flag::default())).is_pending());
                sleep(Duration::from_millis(2)).await;
                serving.accepted[2].store(1, Ordering::SeqCst);
                until(|| serving.accepted[3].load(Ordering::SeqCst) == 1).await;
                sleep(Duration::from_millis(2)).await;
                // Its core does not turn meanwhile, and then cancels before it hears of this.
                let address = serving.address.lock().unwrap().unwrap();
                let mut client = std::net::TcpStream::connect(address).unwrap();
                client.set_nonblocking(true).unwrap();
                drop(accepting);
                let mut given_out = Vec::new();
                if finishes {
                    given_out = listener.finish().await.unwrap();
                } else {
                    drop(listener);
                }
                let mut has_ended = || match client.read(&mut [0]) {
                    Ok(count) => count == 0,
                    Err(error) => error.kind() == ErrorKind::ConnectionReset,
                };
                // A kernel that interrupts has accepted it already. Then the other one gets another.
                until(|| {
                    let is_taken = !given_out.is_empty() || has_ended();
                    is_taken || serving.done.load(Ordering::SeqCst)
                })
                .await;
                // Refused if the other one has what it waited for, and is gone.
                drop(std::net::TcpStream::connect(address));
                until(|| serving.done.load(Ordering::SeqCst)).await;
            });
            start.unwrap();
        }
    }
}

#[test]
fn a_listener_that_finishes_leaves_no_connection_of_which_nobody_hears() {
    on_every_driver(|| async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut accepting = Box::pin(listener.accept());
        assert!(poll_once(accepting.as_mut(), &Arc::new(Flag::default())).is_pending());
        lap().await;
        let clients = quoit::spawn(async move {
            let mut clients = Vec::new();
            for _ in 0..3 {
                clients.push(TcpStream::connect(address).await.unwrap());
            }
            clients
        });
        let clients = clients.await.unwrap();
        drop(accepting);
        let given_out = listener.finish().await.unwrap();
        assert_eq!(given_out.len(), clients.len());
    });
}

#[test]
fn no_connection_of_a_shared_socket_waits_for_a_busy_core() {
    let meeting = Arc::new(Meeting::default());
    let serving = Arc::clone(&meeting);
    let start = Builder::new().cores(2).shutdown_on([]).start_per_core(async move || {
        let listener = serving.bind(Accept::Shared, 2).await;
        if runtime::core().index() == 1 {
            // Behind the other one in the kernel's line.
            until(|| serving.accepted[2].load(Ordering::SeqCst) == 1).await;
            return serving.serve(&listener).await;
        }
        // It asks for one, and is busy from then on.
        let mut accepting = Box::pin(listener.accept());
        assert!(poll_once(accepting.as_mut(), &Arc::new(Flag::default())).is_pending());
        sleep(Duration::from_millis(2)).await;
        serving.accepted[2].store(1, Ordering::SeqCst);
        sleep(Duration::from_millis(10)).await;
        let address = serving.address.lock().unwrap().unwrap();
        let clients: Vec<_> =
            (0..20).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        let begun = std::time::Instant::now();
        // One of them has come here.
        while serving.accepted[1].load(Ordering::SeqCst) < 19 {
            assert!(begun.elapsed() < patient(Duration::from_secs(10)), "{:?}", serving.accepted());
            std::thread::sleep(Duration::from_millis(1));
        }
        serving.done.store(true, Ordering::SeqCst);
        drop(clients);
    });
    start.unwrap();
}

#[test]
fn a_limit_is_exact_and_one_that_is_freed_lets_the_next_in() {
    on_every_driver(|| async {
        for mode in [Accept::PerCore, Accept::Shared, Accept::Distributed] {
            let listener = TcpListener::bind_with((Ipv4Addr::LOCALHOST, 0), mode).await.unwrap();
            listener.set_max_connections(3).unwrap();
            let address = listener.local_addr().unwrap();
            let clients = quoit::spawn(async move {
                let mut clients = Vec::new();
                for _ in 0..8 {
                    clients.push(TcpStream::connect(address).await.unwrap());
                }
                clients
            });
            let mut open = Vec::new();
            for _ in 0..3 {
                open.push(listener.accept().await.unwrap().0);
            }
            assert_eq!(listener.connections(), 3);
            for _ in 0..5 {
                let waits = timeout(Duration::from_millis(3), listener.accept()).await;
                assert!(waits.is_err(), "{mode:?}: one too many");
                assert_eq!(listener.connections(), 3);
                drop(open.remove(0));
                let next = within(Duration::from_secs(10), listener.accept()).await;
                open.push(next.unwrap().0);
            }
            drop(open);
            drop(clients.await.unwrap());
        }
    });
}

#[test]
fn a_limit_leaves_the_others_in_the_backlog_and_takes_no_descriptor() {
    isolated(|| {
        ledger(async || {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            listener.set_max_connections(2).unwrap();
            let address = listener.local_addr().unwrap();
            let clients: Vec<_> =
                (0..20).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
            let before = descriptors().len();
            let first = listener.accept().await.unwrap();
            for _ in 0..5 {
                lap().await;
            }
            // The second was accepted when the first was taken, and waits in the listener.
            assert_eq!(descriptors().len(), before + 2);
            // A larger one is heard of at once.
            let second = listener.accept().await.unwrap();
            let mut third = Box::pin(listener.accept());
            assert!(poll_once(third.as_mut(), &Arc::new(Flag::default())).is_pending());
            listener.set_max_connections(4).unwrap();
            let third = within(Duration::from_secs(5), third).await.unwrap();
            drop((first, second, third, clients));
        });
    });
}

#[test]
#[should_panic(expected = "set_max_connections(0)")]
fn a_limit_of_nothing_is_refused() {
    run(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let _ = listener.set_max_connections(0);
    });
}

#[test]
fn an_address_is_bound_once_by_a_core_and_in_one_mode_by_all() {
    run(async {
        for mode in [Accept::Shared, Accept::Distributed] {
            let listener = TcpListener::bind_with((Ipv4Addr::LOCALHOST, 0), mode).await.unwrap();
            let address = listener.local_addr().unwrap();
            // Port 0 is another wish than the port that it has become.
            let error = TcpListener::bind_with(address, mode).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AddrInUse);
            assert!(poll_once(pin!(listener.accept()), &Arc::new(Flag::default())).is_pending());
            lap().await;
            drop(listener);
        }
    });
    let (hands, takes) = mpsc::channel::<SocketAddr>();
    let takes = Mutex::new(takes);
    let done = Arc::new(AtomicUsize::new(0));
    Builder::new()
        .cores(2)
        .shutdown_on([])
        .start_per_core(async move || {
            // Some free port, as a number: both cores wish for the same.
            if runtime::core().index() == 0 {
                let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
                let address = free.local_addr().unwrap();
                drop(free);
                let listener = TcpListener::bind_with(address, Accept::Shared).await.unwrap();
                let again = TcpListener::bind_with(address, Accept::Shared).await.unwrap_err();
                assert_eq!(again.kind(), ErrorKind::AddrInUse);
                hands.send(address).unwrap();
                until(|| done.load(Ordering::SeqCst) == 1).await;
                drop(listener);
            } else {
                let address = takes.lock().unwrap().recv().unwrap();
                let other = TcpListener::bind_with(address, Accept::Distributed).await;
                assert_eq!(other.unwrap_err().kind(), ErrorKind::InvalidInput);
                drop(TcpListener::bind_with(address, Accept::Shared).await.unwrap());
                done.store(1, Ordering::SeqCst);
            }
        })
        .unwrap();
}

#[test]
fn every_mode_leaves_nothing_behind_and_its_address_free() {
    isolated(|| {
        ledger(async || {
            for mode in MODES {
                let mut address: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
                for round in 0..6 {
                    let listener = TcpListener::bind_with(address, mode).await.unwrap();
                    address = listener.local_addr().unwrap();
                    let clients: Vec<_> =
                        (0..4).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
                    for _ in 0..round % 4 {
                        listener.accept().await.unwrap();
                    }
                    if round % 2 == 0 {
                        drop(listener);
                    } else {
                        listener.close().await.unwrap();
                    }
                    // The next bind waits until the kernel is done with the socket.
                    drop(clients);
                }
            }
        });
    });
}

#[test]
fn a_flood_at_one_listener_does_not_starve_the_other() {
    run(async {
        let (flooded, quiet) = (crate::loopback::listen().await, crate::loopback::listen().await);
        let clients: Vec<_> =
            (0..1000).map(|_| std::net::TcpStream::connect(flooded.1).unwrap()).collect();
        let count = Rc::new(RefCell::new(0));
        let counts = Rc::clone(&count);
        let flood = quoit::spawn(async move {
            for _ in 0..1000 {
                flooded.0.accept().await.unwrap();
                *counts.borrow_mut() += 1;
            }
        });
        let other = std::net::TcpStream::connect(quiet.1).unwrap();
        quiet.0.accept().await.unwrap();
        let before = *count.borrow();
        assert!(before <= 600, "{before} connections came first");
        flood.await.unwrap();
        drop((clients, other));
    });
}

#[test]
fn simulated_cores_share_a_listener_in_every_mode() {
    for mode in MODES {
        for seed in 0..6 {
            let accepted = Rc::new(RefCell::new([0; 3]));
            let counts = Rc::clone(&accepted);
            let sim = Sim::new(seed)
                .host_with_cores("server", 3, async move || {
                    let listener = TcpListener::bind_with("0.0.0.0:7000", mode).await.unwrap();
                    loop {
                        let (stream, _) = listener.accept().await.unwrap();
                        counts.borrow_mut()[runtime::core().index()] += 1;
                        let byte = stream.read_exact([0; 1]).await.unwrap();
                        stream.write_all(byte).await.unwrap();
                    }
                })
                .client("client", async || {
                    // All cores listen by then.
                    sleep(Duration::from_secs(1)).await;
                    for n in 0..12_u8 {
                        let stream = TcpStream::connect("server:7000").await?;
                        stream.write_all(vec![n]).await?;
                        assert_eq!(stream.read_exact([0]).await?, [n]);
                    }
                    std::io::Result::Ok(())
                });
            sim.run().unwrap();
            let accepted = *accepted.borrow();
            assert_eq!(accepted.iter().sum::<i32>(), 12, "{mode:?}, seed {seed}: {accepted:?}");
            if mode == Accept::Distributed {
                assert_eq!(accepted, [4; 3], "seed {seed}");
            }
        }
    }
}

#[test]
fn no_seed_has_a_connection_wait_for_a_core_that_has_gone() {
    async fn answer(stream: TcpStream) {
        let byte = stream.read_exact([0; 1]).await.unwrap();
        stream.write_all(byte).await.unwrap();
    }
    for seed in 0..400 {
        // About when the client's connection arrives.
        let leaves = Duration::from_secs(1) + Duration::from_micros(seed * 10);
        let sim = Sim::new(seed)
            .host_with_cores("server", 2, async move || {
                let mode = Accept::Shared;
                let listener = TcpListener::bind_with("0.0.0.0:7000", mode).await.unwrap();
                let serve = async {
                    loop {
                        quoit::spawn(answer(listener.accept().await.unwrap().0));
                    }
                };
                match runtime::core().index() {
                    0 => {
                        let _ = timeout(leaves, serve).await;
                        for (stream, _) in listener.finish().await.unwrap() {
                            quoit::spawn(answer(stream));
                        }
                        // What it has accepted it serves to the end.
                        sleep(Duration::from_secs(60)).await;
                    }
                    _ => serve.await,
                }
            })
            .client("client", async || {
                sleep(Duration::from_secs(1)).await;
                let stream = TcpStream::connect("server:7000").await?;
                stream.write_all([7]).await?;
                assert_eq!(stream.read_exact([0]).await?, [7]);
                std::io::Result::Ok(())
            });
        sim.run().unwrap();
    }
}
