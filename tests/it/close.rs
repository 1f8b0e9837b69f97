//! How connections end, and how small writes are held together.

use std::io::ErrorKind;
use std::net::Shutdown;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use quoit::net::TcpStream;
use quoit::time::{sleep, timeout};

use crate::loopback::{Flag, pair_of_ours, pattern, poll_once};
use crate::support::on_every_driver;

/// Everything up to the end, or the error that came instead.
async fn rest(stream: &TcpStream) -> Result<Vec<u8>, ErrorKind> {
    let mut all = Vec::new();
    loop {
        match stream.recv().await {
            Ok(Some(bytes)) => all.extend_from_slice(&bytes),
            Ok(None) => return Ok(all),
            Err(error) => return Err(error.kind()),
        }
    }
}

#[test]
fn a_close_sends_what_was_written_and_then_the_end() {
    on_every_driver(async || {
        let (stream, peer) = pair_of_ours().await;
        // A simulated socket may have room for little more, and nobody reads yet.
        stream.write_all(pattern(0, 500)).await.unwrap();
        stream.close().await.unwrap();
        assert_eq!(rest(&peer).await.unwrap(), pattern(0, 500));
    });
}

#[test]
fn a_reset_is_what_the_peer_sees_and_nothing_else() {
    on_every_driver(async || {
        let (stream, peer) = pair_of_ours().await;
        peer.write_all("in").await.unwrap();
        // An operation in flight is cancelled, and does not keep it open.
        let mut buf = stream.read(vec![0; 2]).await.unwrap().1;
        for _ in 0..2 {
            let mut reading = pin!(stream.read(buf));
            assert!(poll_once(reading.as_mut(), &Arc::new(Flag::default())).is_pending());
            buf = vec![0; 2];
        }
        stream.reset().await.unwrap();
        assert_eq!(rest(&peer).await.unwrap_err(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn half_a_close_leaves_the_other_direction_open() {
    on_every_driver(async || {
        let (stream, peer) = pair_of_ours().await;
        stream.write_all("request").await.unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(&peer).await.unwrap(), b"request");
        assert_eq!(stream.write_all("x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        peer.write_all("answer").await.unwrap();
        peer.close().await.unwrap();
        assert_eq!(rest(&stream).await.unwrap(), b"answer");
    });
}

#[test]
fn whoever_lingers_does_not_cut_the_peer_off_while_it_sends() {
    on_every_driver(async || {
        let (stream, peer) = pair_of_ours().await;
        stream.write_all("answer").await.unwrap();
        let lingering = quoit::spawn(stream.linger(Duration::from_secs(20)));
        // The request is still on its way; a plain close would have reset the connection.
        for _ in 0..5 {
            peer.write_all(pattern(0, 2000)).await.unwrap();
            sleep(Duration::from_micros(200)).await;
        }
        assert_eq!(rest(&peer).await.unwrap(), b"answer");
        peer.close().await.unwrap();
        assert!(lingering.await.unwrap().unwrap(), "the peer has ended in time");
    });
}

#[test]
fn whoever_lingers_does_so_no_longer_than_it_has_patience() {
    on_every_driver(async || {
        let (stream, peer) = pair_of_ours().await;
        let lingering = stream.linger(Duration::from_millis(2));
        let ended = timeout(Duration::from_secs(20), lingering).await.expect("it ends by itself");
        assert!(!ended.unwrap(), "the peer has not ended");
        assert_eq!(rest(&peer).await.unwrap(), b"");
        // And a reset of the peer ends it with what happened.
        let (stream, peer) = pair_of_ours().await;
        peer.reset().await.unwrap();
        let error = loop {
            match poll_once(pin!(stream.recv()), &Arc::new(Flag::default())) {
                Poll::Ready(received) => break received.unwrap_err(),
                Poll::Pending => sleep(Duration::from_micros(50)).await,
            }
        };
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert!(stream.linger(Duration::from_secs(20)).await.is_err());
    });
}

#[test]
fn a_cork_holds_small_writes_until_the_last_is_dropped() {
    on_every_driver(async || {
        let (stream, peer) = pair_of_ours().await;
        assert!(stream.nodelay().unwrap(), "small writes are sent at once unless they are held");
        let outer = stream.cork().unwrap();
        stream.write_all("one ").await.unwrap();
        let inner = stream.cork().unwrap();
        stream.write_all("two ").await.unwrap();
        drop(inner);
        stream.write_all("three").await.unwrap();
        let mut receiving = pin!(peer.recv());
        let early = timeout(Duration::from_millis(10), receiving.as_mut()).await;
        assert!(early.is_err(), "something was sent through the cork");
        drop(outer);
        assert_eq!(&*receiving.await.unwrap().unwrap(), b"one two three");
        stream.write_all("open").await.unwrap();
        assert_eq!(&*peer.recv().await.unwrap().unwrap(), b"open");
    });
}
