//! Connections that go from one core to another: not a byte is lost, and none is left behind.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use quoit::net::{Detached, TcpListener, TcpStream};
use quoit::runtime::{self, Builder, Handle, Runtime};
use quoit::sim::Sim;
use quoit::time::sleep;

use crate::loopback::{
    Flag, Oracle, Random, isolated, join, lap, ledger, pair, pattern, poll_once, run, scaled,
};
use crate::support::{on_every_driver, patient};

const fn assert_send<T: Send>() {}
const _: () = assert_send::<Detached>();

/// Two streams that are connected, on any kernel.
async fn two() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let client = quoit::spawn(TcpStream::connect(listener.local_addr().unwrap()));
    let (server, _) = listener.accept().await.unwrap();
    (server, client.await.unwrap().unwrap())
}

/// Reads to the end; whether it came in time, be it in order or by a reset.
fn ends(peer: &mut std::net::TcpStream) -> bool {
    peer.set_read_timeout(Some(patient(Duration::from_secs(5)))).unwrap();
    match peer.read(&mut [0; 64]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

#[test]
fn a_connection_goes_on_where_it_was_left() {
    on_every_driver(|| async {
        let (server, client) = two().await;
        client.write_all("one two three").await.unwrap();
        // A receive is armed, and has brought what nobody has read.
        let first = server.recv().await.unwrap().unwrap();
        assert!(b"one two three".starts_with(&first));
        let read = first.len();
        drop(first);
        client.write_all(" four").await.unwrap();
        lap().await;
        server.write_all("hello").await.unwrap();
        let detached = server.detach().await.unwrap();
        let server = TcpStream::attach(detached).unwrap();
        assert_eq!(server.bytes_sent(), 5);
        let rest = server.read_exact(vec![0; 18 - read]).await.unwrap();
        assert_eq!(rest, &b"one two three four"[read..]);
        server.write_all(" world").await.unwrap();
        assert_eq!(client.read_exact(vec![0; 11]).await.unwrap(), b"hello world");
        drop(client);
        assert!(server.recv().await.unwrap().is_none());
    });
}

#[test]
fn bytes_that_arrive_around_a_detach_all_arrive_in_their_order() {
    isolated(|| {
        for seed in 0..scaled(40, 4) as u64 {
            ledger(async || {
                let (stream, mut peer) = pair().await;
                let len = 200_000;
                let writer = thread::spawn(move || {
                    let (mut random, mut sent) = (Random::new(seed), 0);
                    while sent < len {
                        let piece = random.size(3000).min(len - sent);
                        peer.write_all(&pattern(sent as u64, piece)).unwrap();
                        sent += piece;
                        if random.below(3) == 0 {
                            thread::sleep(Duration::from_micros(random.next() % 100));
                        }
                    }
                });
                let (mut random, mut oracle) = (Random::new(!seed), Oracle(0));
                let mut stream = Some(stream);
                let flag = Arc::new(Flag::default());
                while (oracle.0 as usize) < len {
                    let current = stream.take().unwrap();
                    match random.below(4) {
                        0 => oracle.take(&current.recv().await.unwrap().unwrap()),
                        1 => oracle.take(&current.read(vec![0; 700]).await.unwrap().1),
                        // A receive is armed, and nobody waits for it.
                        2 => match poll_once(pin!(current.recv()), &flag) {
                            Poll::Ready(bytes) => oracle.take(&bytes.unwrap().unwrap()),
                            Poll::Pending => {}
                        },
                        // A read is given up, at once or when the kernel has it.
                        _ => {
                            let mut read = Box::pin(current.read(vec![0; 900]));
                            match poll_once(read.as_mut(), &flag) {
                                Poll::Ready(read) => oracle.take(&read.unwrap().1),
                                Poll::Pending if random.below(2) == 0 => lap().await,
                                Poll::Pending => {}
                            }
                        }
                    }
                    let detached = current.detach().await.unwrap();
                    stream = Some(TcpStream::attach(detached).unwrap());
                }
                join(writer).await;
            });
        }
    });
}

#[test]
fn a_connection_visits_two_cores_in_turn_and_loses_nothing() {
    let len = scaled(400_000, 60_000);
    let runtimes = [(); 2].map(|()| {
        let (hands, takes) = mpsc::channel();
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            let runtime = Runtime::new().unwrap();
            hands.send(runtime.handle()).unwrap();
            runtime.block_on(async {
                while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
                    sleep(Duration::from_millis(1)).await;
                }
            });
        });
        (takes.recv().unwrap(), stop, thread)
    });
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let writer = thread::spawn(move || {
        for sent in (0..len).step_by(1000) {
            peer.write_all(&pattern(sent as u64, 1000)).unwrap();
        }
    });
    let (accepted, _) = listener.accept().unwrap();
    let first = runtimes[0]
        .0
        .spawn_on(async move || TcpStream::from_std(accepted).unwrap().detach().await.unwrap());
    let mut detached = first.unwrap().wait().unwrap();
    let mut oracle = Oracle(0);
    for visit in 0.. {
        let came_with = detached.unread();
        let visit = runtimes[visit % 2].0.spawn_on(async move || {
            let stream = TcpStream::attach(detached).unwrap();
            let bytes = stream.recv().await.unwrap().map_or(Vec::new(), |bytes| bytes.to_vec());
            (bytes, stream.detach().await.unwrap())
        });
        let (bytes, next) = visit.unwrap().wait().unwrap();
        assert!(came_with == 0 || !bytes.is_empty(), "unread bytes are read first");
        oracle.take(&bytes);
        detached = next;
        if bytes.is_empty() {
            break;
        }
    }
    assert_eq!(oracle.0 as usize, len);
    writer.join().unwrap();
    for (_, stop, thread) in runtimes {
        stop.send(()).unwrap();
        thread.join().unwrap();
    }
}

#[test]
fn what_is_sent_often_goes_on_elsewhere() {
    // The driver has registered the descriptor by then, under the number that it loses.
    on_every_driver(|| async {
        let (mut server, client) = two().await;
        for _ in 0..3 {
            for _ in 0..40 {
                server.write_all("x").await.unwrap();
            }
            assert_eq!(client.read_exact(vec![0; 40]).await.unwrap(), [b'x'; 40]);
            server = TcpStream::attach(server.detach().await.unwrap()).unwrap();
        }
        drop(server.detach().await.unwrap());
        assert!(client.recv().await.unwrap().is_none(), "the number was closed, and not the file");
    });
}

#[test]
fn a_detached_connection_that_is_dropped_is_closed_wherever_that_is() {
    isolated(|| {
        ledger(async || {
            let (stream, mut peer) = pair().await;
            drop(stream.detach().await.unwrap());
            assert!(ends(&mut peer));
            let (stream, mut peer) = pair().await;
            let detached = stream.detach().await.unwrap();
            join(thread::spawn(move || drop(detached))).await;
            assert!(ends(&mut peer));
            let (stream, mut peer) = pair().await;
            let detached = stream.detach().await.unwrap();
            let elsewhere = thread::spawn(move || {
                runtime::run(async { drop(TcpStream::attach(detached).unwrap()) }).unwrap();
            });
            join(elsewhere).await;
            assert!(ends(&mut peer));
        });
    });
}

#[test]
fn a_detach_that_is_dropped_closes_the_connection_at_any_time() {
    isolated(|| {
        ledger(async || {
            for round in 0..30 {
                let (stream, mut peer) = pair().await;
                let flag = Arc::new(Flag::default());
                if round % 3 > 0 {
                    assert!(poll_once(pin!(stream.recv()), &flag).is_pending());
                }
                if round % 3 > 1 {
                    lap().await;
                    peer.write_all(b"unread").unwrap();
                }
                let mut detaching = Box::pin(stream.detach());
                let mut detached = poll_once(detaching.as_mut(), &flag);
                for _ in 0..round % 4 {
                    lap().await;
                    if detached.is_pending() {
                        detached = poll_once(detaching.as_mut(), &flag);
                    }
                }
                drop(detaching);
                drop(detached);
                for _ in 0..3 {
                    lap().await;
                }
                assert!(ends(&mut peer), "round {round}");
            }
        });
    });
}

#[test]
fn a_detached_connection_counts_no_more_for_its_listener() {
    run(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        listener.set_max_connections(1).unwrap();
        let address = listener.local_addr().unwrap();
        let _peers = [(); 2].map(|()| std::net::TcpStream::connect(address).unwrap());
        let (first, _) = listener.accept().await.unwrap();
        assert_eq!(listener.connections(), 1);
        let first = first.detach().await.unwrap();
        let (second, _) = listener.accept().await.unwrap();
        let first = TcpStream::attach(first).unwrap();
        drop((first, second));
        assert_eq!(listener.connections(), 0);
    });
}

#[test]
fn attaching_outside_of_a_runtime_is_refused_in_words_and_closes() {
    isolated(|| {
        let (mut peer, detached) = run(async {
            let (stream, peer) = pair().await;
            (peer, stream.detach().await.unwrap())
        });
        let panic = thread::spawn(move || drop(TcpStream::attach(detached))).join().unwrap_err();
        let text = panic.downcast_ref::<String>().unwrap();
        assert!(text.starts_with("TcpStream::attach was used outside of a runtime"), "{text}");
        assert!(ends(&mut peer));
    });
}

#[test]
fn cores_of_a_start_hand_connections_to_each_other() {
    let (hands, takes) = mpsc::channel::<Handle>();
    let (hands, takes) = (Mutex::new(hands), Mutex::new(takes));
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    Builder::new()
        .cores(2)
        .shutdown_on([])
        .start_per_core(async move || {
            use std::sync::atomic::Ordering;
            if runtime::core().index() == 1 {
                hands.lock().unwrap().send(Handle::current()).unwrap();
                while !done.load(Ordering::SeqCst) {
                    sleep(Duration::from_millis(1)).await;
                }
                return;
            }
            let other = takes.lock().unwrap().recv().unwrap();
            for n in 0..20_u8 {
                let (server, client) = two().await;
                client.write_all(vec![n]).await.unwrap();
                let detached = server.detach().await.unwrap();
                let served = other.spawn_on(async move || {
                    let stream = TcpStream::attach(detached).unwrap();
                    let byte = stream.read_exact([0]).await.unwrap();
                    stream.write_all(byte).await.unwrap();
                });
                assert_eq!(client.read_exact([0]).await.unwrap(), [n]);
                served.unwrap().await.unwrap();
            }
            done.store(true, Ordering::SeqCst);
        })
        .unwrap();
}

#[test]
fn simulated_cores_hand_connections_to_each_other() {
    for seed in 0..10 {
        let handles = Rc::new(RefCell::new(Vec::<Handle>::new()));
        Sim::new(seed)
            .host_with_cores("server", 2, async move || {
                handles.borrow_mut().push(Handle::current());
                let listener = TcpListener::bind("0.0.0.0:7000").await.unwrap();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let first = stream.read_exact([0; 1]).await.unwrap();
                    let detached = stream.detach().await.unwrap();
                    let here = runtime::core().id();
                    let all = handles.borrow().clone();
                    let other = all.into_iter().find(|handle| handle.id() != here).unwrap();
                    let served = other.spawn_on(async move || {
                        let stream = TcpStream::attach(detached).unwrap();
                        let rest = stream.read_exact([0; 3]).await.unwrap();
                        stream.write_all(first).await.unwrap();
                        stream.write_all(rest).await.unwrap();
                    });
                    served.unwrap().await.unwrap();
                }
            })
            .client("client", async || {
                sleep(Duration::from_secs(1)).await;
                for n in 0..5_u8 {
                    let stream = TcpStream::connect("server:7000").await?;
                    stream.write_all(vec![n, n + 1, n + 2, n + 3]).await?;
                    assert_eq!(stream.read_exact([0; 4]).await?, [n, n + 1, n + 2, n + 3]);
                }
                std::io::Result::Ok(())
            })
            .run()
            .unwrap();
    }
}
