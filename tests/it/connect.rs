//! Connecting: several addresses at once, a limit, an address of one's own, and what errors say.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quoit::net::{TcpListener, TcpSocket, TcpStream};
use quoit::time::Instant;

use crate::loopback::{
    Flag, Random, blackhole, isolated, lap, ledger, listen, poll_once, run, within,
};
use crate::support::{on_every_driver, patient};

/// An address at which nobody listens: the tests beside this one listen on others.
fn nobody() -> SocketAddr {
    (Ipv4Addr::new(127, 9, 9, 9), 9).into()
}

#[test]
fn the_first_address_that_answers_is_connected() {
    on_every_driver(|| async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let nobody = nobody();
        let stream = TcpStream::connect(&[nobody, nobody, address, nobody][..]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), address);
        let (_, peer) = listener.accept().await.unwrap();
        assert_eq!(peer, stream.local_addr().unwrap());
    });
}

#[test]
fn an_address_that_is_silent_is_passed_after_a_quarter_of_a_second() {
    isolated(|| {
        let (_full, _filling, silent) = blackhole();
        ledger(async || {
            let (listener, address) = listen().await;
            let start = Instant::now();
            // Between the two there are some that fail: no time is lost on them.
            let mut addresses = vec![silent];
            addresses.extend((0..8).map(|_| nobody()));
            addresses.push(address);
            let stream = within(Duration::from_secs(20), TcpStream::connect(&addresses[..])).await;
            assert_eq!(stream.unwrap().peer_addr().unwrap(), address);
            let took = start.elapsed();
            assert!(took >= Duration::from_millis(250), "{took:?}");
            assert!(took < patient(Duration::from_millis(1500)), "many delays: {took:?}");
            listener.accept().await.unwrap();
        });
    });
}

#[test]
fn a_limit_ends_an_attempt_and_closes_its_socket() {
    isolated(|| {
        let (_full, _filling, silent) = blackhole();
        ledger(async || {
            for limit in [Duration::ZERO, Duration::from_millis(20)] {
                let error = TcpStream::connect_timeout(silent, limit).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::TimedOut);
                assert!(error.to_string().contains(&silent.to_string()), "{error}");
            }
        });
    });
    run(async {
        let (listener, address) = listen().await;
        let connected = TcpStream::connect_timeout(address, Duration::MAX).await;
        assert_eq!(connected.unwrap().peer_addr().unwrap(), address);
        listener.accept().await.unwrap();
        let error = TcpStream::connect_timeout(&[][..], Duration::MAX).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn an_error_names_the_address() {
    on_every_driver(|| async {
        let nobody = nobody();
        let socket = TcpSocket::new_v4().unwrap();
        let errors = [
            TcpStream::connect(nobody).await.unwrap_err(),
            TcpStream::connect(&[nobody, nobody][..]).await.unwrap_err(),
            socket.connect(nobody).await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            assert!(error.to_string().contains(&nobody.to_string()), "{error}");
        }
    });
}

#[test]
fn a_race_may_be_dropped_at_any_time() {
    isolated(|| {
        let (_full, _filling, silent) = blackhole();
        ledger(async || {
            let (listener, address) = listen().await;
            let mut random = Random::new(7);
            for _ in 0..60 {
                let mut addresses = [address, nobody(), address, silent];
                addresses.rotate_left(random.below(4));
                let mut racing = Box::pin(TcpStream::connect(&addresses[..]));
                let flag = Arc::new(Flag::default());
                for _ in 0..random.below(4) {
                    if poll_once(racing.as_mut(), &flag).is_ready() {
                        break;
                    }
                    lap().await;
                }
            }
            drop(listener);
        });
    });
}

#[test]
fn a_socket_connects_from_the_address_that_it_was_given() {
    run(async {
        let (listener, address) = listen().await;
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind((Ipv4Addr::new(127, 0, 0, 7), 0).into()).unwrap();
        let own = socket.local_addr().unwrap();
        let stream = socket.connect(address).await.unwrap();
        assert_eq!(stream.local_addr().unwrap(), own);
        assert_eq!(listener.accept().await.unwrap().1, own);
    });
}

#[test]
fn a_sockets_options_are_those_of_its_connections() {
    run(async {
        let socket = TcpSocket::new_v4().unwrap();
        assert!(socket.nodelay().unwrap() && !socket.reuseport().unwrap());
        socket.set_reuseport(true).unwrap();
        socket.set_reuseaddr(true).unwrap();
        assert!(socket.reuseport().unwrap() && socket.reuseaddr().unwrap());
        socket.set_keepalive(Some(Duration::MAX)).unwrap_err();
        socket.set_keepalive(Some(Duration::from_secs(60))).unwrap();
        socket.set_send_buffer_size(64 << 10).unwrap();
        socket.set_recv_buffer_size(64 << 10).unwrap();
        assert_eq!(socket.send_buffer_size().unwrap(), 128 << 10);
        assert_eq!(socket.recv_buffer_size().unwrap(), 128 << 10);
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let listener = socket.listen(16).unwrap();
        let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, from) = listener.accept().await.unwrap();
        assert_eq!(from, peer.local_addr().unwrap());
        assert!(stream.nodelay().unwrap());
        listener.close().await.unwrap();
    });
}

#[test]
fn a_socket_that_listens_accepts_on_every_kernel() {
    on_every_driver(|| async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let listener = socket.listen(u32::MAX).unwrap();
        let client = quoit::spawn(TcpStream::connect(listener.local_addr().unwrap()));
        let (server, _) = listener.accept().await.unwrap();
        client.await.unwrap().unwrap().write_all("x").await.unwrap();
        assert_eq!(server.read_exact([0]).await.unwrap(), *b"x");
    });
}

#[test]
fn a_socket_that_is_dropped_is_closed() {
    isolated(|| {
        ledger(async || {
            let (_listener, address) = listen().await;
            drop(TcpSocket::new_v6().unwrap());
            drop(TcpSocket::new_v4().unwrap().connect(address));
            let mut connecting = Box::pin(TcpSocket::new_v4().unwrap().connect(address));
            let _ = poll_once(connecting.as_mut(), &Arc::new(Flag::default()));
        });
    });
}
