//! TCP listeners: ports, their order, and what becomes of connections when a listener goes.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use quoit::net::{Accept, TcpListener, TcpStream};
use quoit::time::sleep;

use crate::loopback::{
    Flag, isolated, join, lap, leave_descriptors, ledger, listen, poll_once, run,
    set_descriptor_limit, until, within,
};
use crate::support::on_every_driver;

/// Where something is to happen at all.
const LONG: Duration = Duration::from_secs(10);

/// Has the listener's accept start, and gives it up.
async fn arm(listener: &TcpListener) {
    assert!(poll_once(pin!(listener.accept()), &Arc::new(Flag::default())).is_pending());
    lap().await;
}

/// Whether the other end closes or resets the connection within 100 ms.
fn ends_soon(peer: &mut std::net::TcpStream) -> bool {
    peer.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    match peer.read(&mut [0; 16]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

#[test]
fn port_zero_becomes_a_port_of_its_own_each_time() {
    run(async {
        let mut listeners = Vec::new();
        for _ in 0..20 {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let address = listener.local_addr().unwrap();
            listeners.push((listener, address));
        }
        let ports: BTreeSet<u16> = listeners.iter().map(|(_, address)| address.port()).collect();
        assert_eq!(ports.len(), 20);
        assert!(!ports.contains(&0));
        for (listener, address) in &listeners {
            let peer = std::net::TcpStream::connect(address).unwrap();
            let (_, from) = listener.accept().await.unwrap();
            assert_eq!(from, peer.local_addr().unwrap());
        }
    });
}

#[test]
fn an_address_that_somebody_else_has_is_refused() {
    run(async {
        let theirs = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let error = TcpListener::bind(theirs.local_addr().unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        let (_ours, address) = listen().await;
        let error = std::net::TcpListener::bind(address).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
    });
}

#[test]
fn a_second_copy_of_the_server_is_refused() {
    const ADDRESS: &str = "QUOIT_ADDRESS_OF_THE_FIRST_COPY";
    fn bind_in_a_second_process() {
        let address: SocketAddr = std::env::var(ADDRESS).unwrap().parse().unwrap();
        let bound = run(TcpListener::bind(address));
        assert_eq!(bound.unwrap_err().kind(), ErrorKind::AddrInUse);
    }
    if std::env::var(ADDRESS).is_ok() {
        return bind_in_a_second_process();
    }
    run(async {
        let (listener, address) = listen().await;
        let second = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["listener::a_second_copy_of_the_server_is_refused", "--exact"])
            .env(ADDRESS, address.to_string())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&second.stdout);
        assert!(second.status.success() && text.contains("1 passed"), "{text}");
        drop(listener);
    });
}

#[test]
fn one_core_listens_on_an_address_once() {
    isolated(|| {
        run(async {
            let (first, address) = listen().await;
            let error = TcpListener::bind(address).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AddrInUse);
            first.close().await.unwrap();
            let again = TcpListener::bind(address).await.unwrap();
            let error = TcpListener::bind(address).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AddrInUse);
            drop(again);
        });
    });
}

#[test]
fn two_runtimes_of_a_process_do_not_share_an_address_in_silence() {
    run(async {
        let (_first, address) = listen().await;
        let other = thread::spawn(move || run(TcpListener::bind(address)).unwrap_err().kind());
        assert_eq!(join(other).await, ErrorKind::AddrInUse);
    });
}

#[test]
fn an_address_can_be_bound_again_right_after_the_listener_was_dropped() {
    isolated(|| {
        run(async {
            for armed in [false, true] {
                let (listener, address) = listen().await;
                if armed {
                    arm(&listener).await;
                }
                drop(listener);
                for _ in 0..10 {
                    let listener = TcpListener::bind(address).await.unwrap();
                    drop(listener_serves(listener, address).await);
                }
            }
        });
    });
}

/// Connects ten times, and expects the listener to get each connection.
async fn listener_serves(listener: TcpListener, address: SocketAddr) -> TcpListener {
    for _ in 0..10 {
        let mut peer = std::net::TcpStream::connect(address).unwrap();
        peer.write_all(b"x").unwrap();
        let accepted = within(Duration::from_secs(2), listener.accept()).await;
        assert_eq!(accepted.unwrap().0.read([0]).await.unwrap().0, 1);
    }
    listener
}

#[test]
fn no_connection_goes_to_a_listener_that_was_dropped_before() {
    isolated(|| {
        run(async {
            for _ in 0..30 {
                let (listener, address) = listen().await;
                arm(&listener).await;
                drop(listener);
                // Not one lap later: the kernel would spread connections over both sockets.
                let listener = TcpListener::bind(address).await.unwrap();
                let peers: Vec<_> =
                    (0..4).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
                for _ in &peers {
                    within(Duration::from_secs(2), listener.accept()).await.unwrap();
                }
            }
        });
    });
}

#[test]
fn after_close_everybody_may_bind_the_address() {
    isolated(|| {
        run(async {
            for _ in 0..20 {
                let (listener, address) = listen().await;
                arm(&listener).await;
                listener.close().await.unwrap();
                drop(std::net::TcpListener::bind(address).unwrap());
                let again = TcpListener::bind(address).await.unwrap();
                drop(listener_serves(again, address).await);
            }
        });
    });
}

#[test]
fn connections_are_accepted_in_the_order_in_which_they_came() {
    run(async {
        let (listener, address) = listen().await;
        for batch in [1, 2, 30, 300] {
            let peers: Vec<_> =
                (0..batch).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
            for peer in &peers {
                let (stream, from) = listener.accept().await.unwrap();
                assert_eq!(from, peer.local_addr().unwrap());
                assert_eq!(stream.local_addr().unwrap(), address);
            }
        }
    });
}

#[test]
fn a_connection_is_accepted_without_its_address_and_has_it_still() {
    on_every_driver(async || {
        for mode in [Accept::PerCore, Accept::Shared, Accept::Distributed] {
            let listener = TcpListener::bind_with((Ipv4Addr::LOCALHOST, 0), mode).await.unwrap();
            let address = listener.local_addr().unwrap();
            let client = TcpStream::connect(address).await.unwrap();
            // One that gives it up and one that goes on lose nothing to each other.
            assert!(poll_once(pin!(listener.accept()), &Arc::new(Flag::default())).is_pending());
            let server = within(LONG, listener.accept_stream()).await.unwrap();
            assert_eq!(server.peer_addr().unwrap(), client.local_addr().unwrap());
            assert!(server.nodelay().unwrap());
            server.write_all("hello").await.unwrap();
            assert_eq!(&client.read_exact([0; 5]).await.unwrap(), b"hello");
            drop((server, client));
            // Whoever has given it up is told by the stream, and by `accept` not at all.
            for _ in 0..2 {
                let gone = TcpStream::connect(address).await.unwrap();
                gone.reset().await.unwrap();
            }
            let first = within(LONG, listener.accept_stream()).await.unwrap();
            assert_eq!(first.recv().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
            let alive = TcpStream::connect(address).await.unwrap();
            let (_, peer) = within(LONG, listener.accept()).await.unwrap();
            assert_eq!(peer, alive.local_addr().unwrap());
        }
    });
}

#[test]
fn tasks_that_accept_are_served_in_the_order_of_their_calls() {
    run(async {
        let (listener, address) = listen().await;
        let listener = Rc::new(listener);
        let tasks: Vec<_> = (0..5)
            .map(|_| {
                let listener = Rc::clone(&listener);
                quoit::spawn(async move { listener.accept().await.unwrap().1 })
            })
            .collect();
        lap().await;
        let peers: Vec<_> =
            (0..5).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        for (task, peer) in tasks.into_iter().zip(&peers) {
            assert_eq!(task.await.unwrap(), peer.local_addr().unwrap());
        }
    });
}

#[test]
fn a_burst_of_connections_is_served_completely() {
    isolated(|| {
        ledger(async || {
            let (listener, address) = listen().await;
            let count = 1500;
            let clients: Vec<_> = (0..count)
                .map(|number: u32| {
                    quoit::spawn(async move {
                        let stream = TcpStream::connect(address).await?;
                        stream.write_all(number.to_le_bytes().to_vec()).await?;
                        let back = stream.read_exact([0; 4]).await?;
                        assert_eq!(u32::from_le_bytes(back), number);
                        std::io::Result::Ok(())
                    })
                })
                .collect();
            for _ in 0..count {
                let (stream, _) = listener.accept().await.unwrap();
                drop(quoit::spawn(async move {
                    let number = stream.read_exact([0; 4]).await.unwrap();
                    stream.write_all(number).await.unwrap();
                }));
            }
            for client in clients {
                client.await.unwrap().unwrap();
            }
        });
    });
}

#[test]
fn when_a_listener_goes_waiting_connections_end_and_accepted_ones_go_on() {
    isolated(|| {
        ledger(async || {
            for closes in [false, true] {
                let (listener, address) = listen().await;
                let mut first = std::net::TcpStream::connect(address).unwrap();
                let (stream, _) = listener.accept().await.unwrap();
                // Some wait in the kernel's backlog, some as answers of the accept.
                let early: Vec<_> =
                    (0..20).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
                lap().await;
                let late = (0..20).map(|_| std::net::TcpStream::connect(address).unwrap());
                let waiting: Vec<_> = early.into_iter().chain(late).collect();
                if closes {
                    listener.close().await.unwrap();
                } else {
                    drop(listener);
                    lap().await;
                    lap().await;
                }
                for mut peer in waiting {
                    assert!(ends_soon(&mut peer), "a client waits for nobody");
                }
                assert!(std::net::TcpStream::connect(address).is_err());
                first.write_all(b"on").unwrap();
                assert_eq!(stream.read_exact([0; 2]).await.unwrap(), *b"on");
            }
        });
    });
}

#[test]
fn a_listener_without_descriptors_waits_without_spinning_and_goes_on() {
    if let Ok(address) = std::env::var(CLIENTS) {
        return forty_clients(address.parse().unwrap());
    }
    isolated(|| {
        ledger(async || {
            let (listener, address) = listen().await;
            let mut clients = std::process::Command::new(std::env::current_exe().unwrap())
                .arg("listener::a_listener_without_descriptors_waits_without_spinning_and_goes_on")
                .args(["--exact", "--nocapture"])
                .env(CLIENTS, address.to_string())
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap();
            leave_descriptors(12);
            let accepted = Rc::new(RefCell::new(Vec::new()));
            let accepting = quoit::spawn({
                let accepted = Rc::clone(&accepted);
                async move {
                    for _ in 0..40 {
                        let (stream, _) = listener.accept().await.unwrap();
                        accepted.borrow_mut().push(stream);
                    }
                }
            });
            until(|| accepted.borrow().len() == 12).await;
            let before = quoit::runtime::stats().enters;
            sleep(Duration::from_millis(500)).await;
            let laps = quoit::runtime::stats().enters - before;
            assert!(laps < 200, "{laps} laps at the limit");
            assert_eq!(accepted.borrow().len(), 12, "so many descriptors were left");
            // One goes, and the next comes.
            while !accepting.is_finished() {
                let freed = accepted.borrow_mut().pop();
                assert!(freed.is_some());
                drop(freed);
                until(|| accepted.borrow().len() == 12 || accepting.is_finished()).await;
            }
            accepting.await.unwrap();
            set_descriptor_limit(1024);
            drop(accepted);
            // It closes the pipe that the clients wait for.
            assert!(clients.wait().unwrap().success());
        });
    });
}

const CLIENTS: &str = "QUOIT_FORTY_CLIENTS_OF";

/// Clients whose descriptors are not of the listener's process; they stay until it ends their input.
fn forty_clients(address: SocketAddr) {
    let clients: Vec<_> = (0..40).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
    assert_eq!(std::io::stdin().read(&mut [0]).unwrap(), 0);
    drop(clients);
}

#[test]
fn many_waits_for_a_descriptor_keep_no_memory() {
    isolated(|| {
        ledger(async || {
            let (listener, address) = listen().await;
            let peers: Vec<_> =
                (0..2).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
            leave_descriptors(0);
            let mut wakes = 0;
            {
                // Nothing closes a descriptor here, so each wait lasts its full time.
                let mut accepting = pin!(listener.accept());
                let flag = Arc::new(Flag::default());
                assert!(poll_once(accepting.as_mut(), &flag).is_pending());
                for _ in 0..20 {
                    sleep(Duration::from_millis(15)).await;
                    assert!(poll_once(accepting.as_mut(), &flag).is_pending());
                    wakes = Arc::strong_count(&flag);
                }
            }
            assert!(wakes < 8, "{wakes} wakers are kept for one wait");
            set_descriptor_limit(1024);
            drop(peers);
            until(|| true).await;
        });
    });
}
