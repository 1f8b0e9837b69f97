//! Datagrams: whole, in order, none lost that has arrived; their options, and what comes with them.

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use quoit::net::{Datagram, Ecn, Message, UdpSocket};
use quoit::runtime::{self, Builder};
use quoit::sim::{Faults, Sim};
use quoit::time::{sleep, timeout};

use crate::loopback::{Flag, Random, isolated, lap, ledger, own_address, poll_once, scaled};
use crate::quarantine::QuarantineBuf;
use crate::support::{Watch, on_every_driver};
use crate::support_alloc::allocations;

/// A socket on a port of its own, and its address.
async fn bound() -> (UdpSocket, SocketAddr) {
    bound_to(Ipv4Addr::LOCALHOST.into()).await
}

async fn bound_to(ip: IpAddr) -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind((ip, 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// A socket of IPv6, unless this machine has no such addresses.
async fn bound_to_ipv6() -> Option<(UdpSocket, SocketAddr)> {
    match UdpSocket::bind("[::1]:0").await {
        Ok(socket) => {
            let address = socket.local_addr().unwrap();
            Some((socket, address))
        }
        Err(error) => {
            println!("without IPv6, because a bind of [::1] gave: {error}");
            None
        }
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), future).await.expect("it does not come")
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

fn errno<T>(result: Result<T, impl Into<io::Error>>) -> Option<i32> {
    let Err(error) = result else { panic!("it succeeded") };
    error.into().raw_os_error()
}

#[test]
fn a_datagram_comes_back_to_who_sent_it() {
    on_every_driver(|| async {
        let ((one, from), (two, to)) = (bound().await, bound().await);
        let (sent, _) = one.send_to("hello", to).await.unwrap();
        assert_eq!(sent, 5);
        let datagram = soon(two.recv_datagram()).await.unwrap();
        assert_eq!((&*datagram, datagram.from()), (&b"hello"[..], from));
        two.send_to(datagram, from).await.unwrap();
        let ((count, peer), buf) = soon(one.recv_from(Vec::with_capacity(100))).await.unwrap();
        assert_eq!((count, peer, &buf[..]), (5, to, &b"hello"[..]));
    });
}

#[test]
fn datagrams_of_every_size_are_whole_and_in_order() {
    on_every_driver(|| async {
        let ((one, from), (two, to)) = (bound().await, bound().await);
        let sizes = [0, 1, 0, 0, 1472, 4096, 3, 65_507, 0, 9000];
        for (number, size) in sizes.into_iter().enumerate() {
            one.send_to(bytes(size), to).await.unwrap();
            if number % 4 == 3 {
                for size in &sizes[number - 3..=number] {
                    let datagram = soon(two.recv_datagram()).await.unwrap();
                    assert_eq!((datagram.len(), datagram.from()), (*size, from));
                    assert!(*datagram == bytes(*size) && !datagram.is_truncated());
                    assert_eq!(datagram.segments().count(), 1);
                }
            }
        }
        for size in [0, 9000] {
            let ((count, _), buf) = soon(two.recv_from(Vec::with_capacity(9000))).await.unwrap();
            assert!(count == size && buf == bytes(size));
        }
        assert_eq!(errno(one.send_to(bytes(65_508), to).await), Some(libc::EMSGSIZE));
    });
}

#[test]
fn the_largest_datagram_of_ipv6_is_received_whole() {
    on_every_driver(|| async {
        let Some((one, _)) = bound_to_ipv6().await else { return };
        let Some((two, to)) = bound_to_ipv6().await else { return };
        // The invented kernel has packets of IPv4 alone.
        let largest = if runtime::driver() == "simulator" { 65_507 } else { 65_527 };
        one.send_to(bytes(largest), to).await.unwrap();
        let datagram = soon(two.recv_datagram()).await.unwrap();
        assert!(*datagram == bytes(largest), "{datagram:?}");
    });
}

#[test]
fn a_datagram_that_does_not_fit_is_an_error_and_not_cut_in_silence() {
    on_every_driver(|| async {
        let ((one, _), (two, to)) = (bound().await, bound().await);
        for text in ["a long one", "short", ""] {
            one.send_to(text, to).await.unwrap();
        }
        let failed = soon(two.recv_from(Vec::with_capacity(6))).await.unwrap_err();
        assert_eq!((failed.done, &failed.buf[..]), (6, &b"a long"[..]));
        assert_eq!(failed.error.raw_os_error(), Some(libc::EMSGSIZE));
        let ((count, _), buf) = soon(two.recv_from(failed.buf)).await.unwrap();
        assert_eq!((count, &buf[..]), (5, &b"short"[..]));
        let ((count, _), buf) = soon(two.recv_from(Vec::new())).await.unwrap();
        assert_eq!((count, buf.len()), (0, 0), "an empty datagram fits everywhere");
    });
}

#[test]
fn a_peek_leaves_the_datagram_to_the_next_receive() {
    on_every_driver(|| async {
        let ((one, from), (two, to)) = (bound().await, bound().await);
        one.send_to("first", to).await.unwrap();
        one.send_to("second", to).await.unwrap();
        for _ in 0..2 {
            let ((count, peer), buf) = soon(two.peek_from(Vec::with_capacity(9))).await.unwrap();
            assert_eq!((count, peer, &buf[..]), (5, from, &b"first"[..]));
        }
        let failed = soon(two.peek_from(Vec::with_capacity(2))).await;
        assert_eq!(errno(failed), Some(libc::EMSGSIZE));
        assert_eq!(*soon(two.recv_datagram()).await.unwrap(), *b"first");
        assert_eq!(*soon(two.recv_datagram()).await.unwrap(), *b"second");
    });
}

/// One receive that may be dropped; whether it was done.
async fn receive_or_drop(socket: &UdpSocket, random: &mut Random) -> Option<Vec<u8>> {
    let flag = Arc::new(Flag::default());
    let laps = random.below(4);
    match random.below(3) {
        0 => {
            let mut receive = pin!(socket.recv_datagram());
            if let Poll::Ready(datagram) = poll_once(receive.as_mut(), &flag) {
                return Some(datagram.unwrap().to_vec());
            }
            for _ in 0..laps {
                lap().await;
            }
            None
        }
        1 => {
            let mut receive = pin!(socket.recv_from(QuarantineBuf::new(100)));
            if let Poll::Ready(received) = poll_once(receive.as_mut(), &flag) {
                return Some(received.unwrap().1.to_vec());
            }
            for _ in 0..laps {
                lap().await;
            }
            None
        }
        _ => Some(soon(socket.recv_datagram()).await.unwrap().to_vec()),
    }
}

#[test]
fn a_dropped_receive_loses_no_datagram_and_no_boundary() {
    let count = scaled(20_000, 300) as u32;
    on_every_driver(|| async {
        let ((one, _), (two, to)) = (bound().await, bound().await);
        let got = Rc::new(Cell::new(0_u32));
        let seen = Rc::clone(&got);
        let sender = quoit::spawn(async move {
            let mut random = Random::new(7);
            for number in 0..count {
                let len = 4 * (1 + random.below(20));
                let piece = number.to_le_bytes().repeat(len / 4);
                one.send_to(QuarantineBuf::of(&piece), to).await.unwrap();
                // The kernel drops what finds no room.
                while number + 1 - seen.get() > 40 {
                    sleep(Duration::from_micros(50)).await;
                }
            }
        });
        let mut random = Random::new(8);
        while got.get() < count {
            if let Some(piece) = receive_or_drop(&two, &mut random).await {
                let number = got.get().to_le_bytes();
                assert!(!piece.is_empty() && piece.chunks(4).all(|word| word == number));
                got.set(got.get() + 1);
            }
        }
        sender.await.unwrap();
    });
    assert_eq!(crate::quarantine::violations(), 0);
}

#[test]
fn receivers_take_turns() {
    on_every_driver(|| async {
        let ((one, _), (two, to)) = (bound().await, bound().await);
        let two = Rc::new(two);
        let mut receivers = Vec::new();
        for _ in 0..5 {
            let two = Rc::clone(&two);
            receivers.push(quoit::spawn(async move { two.recv_datagram().await.unwrap()[0] }));
        }
        // The one in the middle leaves.
        lap().await;
        receivers.remove(2).abort();
        for number in 0..4_u8 {
            one.send_to(vec![number], to).await.unwrap();
        }
        for (number, receiver) in receivers.into_iter().enumerate() {
            assert_eq!(usize::from(soon(receiver).await.unwrap()), number);
        }
    });
}

#[test]
fn a_connected_socket_hears_only_its_peer() {
    on_every_driver(|| async {
        let ((one, from), (two, to), (three, _)) = (bound().await, bound().await, bound().await);
        assert_eq!(errno(one.send("nobody").await), Some(libc::EDESTADDRREQ));
        assert_eq!(two.peer_addr().unwrap_err().kind(), ErrorKind::NotConnected);
        two.connect(from).await.unwrap();
        one.connect(to).await.unwrap();
        assert_eq!((one.peer_addr().unwrap(), two.peer_addr().unwrap()), (to, from));
        three.send_to("from a stranger", to).await.unwrap();
        one.send("from a friend").await.unwrap();
        let (count, buf) = soon(two.recv(vec![0; 100])).await.unwrap();
        assert_eq!(&buf[..count], b"from a friend");
        assert!(two.connect("nonsense").await.is_err());
    });
}

#[test]
fn a_peer_that_is_gone_is_an_error_and_not_the_end() {
    isolated(|| {
        on_every_driver(|| async {
            let ((one, from), (two, to)) = (bound().await, bound().await);
            one.connect(to).await.unwrap();
            two.close().await.unwrap();
            one.send("is anybody there?").await.unwrap();
            let error = soon(one.recv_datagram()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            // It may also meet a send, which then sent nothing.
            let mut refused = false;
            for _ in 0..100 {
                sleep(Duration::from_millis(1)).await;
                let sent = one.send("and now?").await;
                refused |= sent.is_err_and(|failed| failed.kind() == ErrorKind::ConnectionRefused);
                if refused {
                    break;
                }
            }
            assert!(refused);
            // Somebody comes, and all is well.
            let two = UdpSocket::bind(to).await.unwrap();
            let _ = one.take_error().unwrap();
            one.send("hello").await.unwrap();
            let datagram = soon(two.recv_datagram()).await.unwrap();
            assert_eq!((&*datagram, datagram.from()), (&b"hello"[..], from));
            two.send_to("at last", from).await.unwrap();
            loop {
                match soon(one.recv(vec![0; 100])).await {
                    Ok((count, buf)) => break assert_eq!(&buf[..count], b"at last"),
                    Err(failed) => assert_eq!(failed.kind(), ErrorKind::ConnectionRefused),
                }
            }
        });
    });
}

#[test]
fn one_send_becomes_many_datagrams() {
    on_every_driver(|| async {
        let ((one, from), (two, to)) = (bound().await, bound().await);
        let message = Message::to(to).segment_size(100);
        let (sent, _) = one.send_msg(bytes(1050), message).await.unwrap();
        assert_eq!(sent, 1050);
        for (number, piece) in bytes(1050).chunks(100).enumerate() {
            let datagram = soon(two.recv_datagram()).await.unwrap();
            assert_eq!((&*datagram, datagram.from()), (piece, from), "number {number}");
        }
        one.connect(to).await.unwrap();
        one.send_msg(bytes(150), Message::new().segment_size(100)).await.unwrap();
        one.send("the end").await.unwrap();
        let sizes = [soon(two.recv_datagram()).await, soon(two.recv_datagram()).await];
        assert_eq!(sizes.map(|datagram| datagram.unwrap().len()), [100, 50]);
        assert_eq!(*soon(two.recv_datagram()).await.unwrap(), *b"the end");
        // 65,507 bytes are the most altogether.
        let failed = one.send_msg(bytes(70_000), message).await;
        assert!(matches!(errno(failed), Some(libc::EMSGSIZE | libc::EINVAL)));
    });
}

/// In how many datagrams a socket without a runtime gets 41 segments that are sent as one: 5.10
/// takes them apart on the way, even where they could stay together.
fn datagrams_of_a_bare_socket() -> usize {
    let bind = || std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (one, two) = (bind(), bind());
    for (socket, option, value) in [(&one, libc::UDP_SEGMENT, 1000), (&two, libc::UDP_GRO, 1)] {
        let value: i32 = value;
        // SAFETY: the option's value is read from `value`, whose size it is told.
        let result = unsafe {
            let value = (&raw const value).cast();
            libc::setsockopt(socket.as_raw_fd(), libc::SOL_UDP, option, value, 4)
        };
        assert_eq!(result, 0);
    }
    one.send_to(&bytes(40_030), two.local_addr().unwrap()).unwrap();
    let (mut received, mut datagrams) = (0, 0);
    while received < 40_030 {
        received += two.recv(&mut [0; 65_536]).unwrap();
        datagrams += 1;
    }
    datagrams
}

#[test]
fn what_the_kernel_puts_together_is_taken_apart_again() {
    on_every_driver(|| async {
        let ((one, from), (two, to)) = (bound().await, bound().await);
        match two.set_gro(true) {
            Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => {
                assert_eq!(runtime::driver(), "simulator");
                return;
            }
            other => other.unwrap(),
        }
        one.send_msg(bytes(40_030), Message::to(to).segment_size(1000)).await.unwrap();
        let (mut segments, mut datagrams) = (Vec::new(), 0);
        while segments.iter().map(Vec::len).sum::<usize>() < 40_030 {
            let datagram = soon(two.recv_datagram()).await.unwrap();
            assert_eq!(datagram.from(), from);
            segments.extend(datagram.segments().map(<[u8]>::to_vec));
            datagrams += 1;
        }
        assert_eq!((segments.len(), segments.concat()), (41, bytes(40_030)));
        assert!(segments[..40].iter().all(|segment| segment.len() == 1000));
        assert!(datagrams < 41 || datagrams_of_a_bare_socket() == 41, "nothing was put together");
        one.send_to("", to).await.unwrap();
        let datagram = soon(two.recv_datagram()).await.unwrap();
        assert_eq!((datagram.segment_size(), datagram.segments().count()), (None, 1));
    });
}

#[test]
fn an_answer_goes_out_from_the_address_that_was_asked() {
    on_every_driver(|| async {
        let (server, at) = bound_to(Ipv4Addr::UNSPECIFIED.into()).await;
        server.set_recv_packet_info(true).unwrap();
        let (client, from) = bound().await;
        let asked: IpAddr = Ipv4Addr::new(127, 0, 0, 2).into();
        client.send_to("hello", (asked, at.port())).await.unwrap();
        let datagram = soon(server.recv_datagram()).await.unwrap();
        assert_eq!((datagram.to(), datagram.interface()), (Some(asked), Some(1)));
        let answer = Message::to(datagram.from()).from(asked).interface(1);
        server.send_msg(datagram, answer).await.unwrap();
        let datagram = soon(client.recv_datagram()).await.unwrap();
        assert_eq!(datagram.from(), SocketAddr::new(asked, at.port()));
        assert_eq!((datagram.to(), datagram.ecn(), datagram.segment_size()), (None, None, None));
        let elsewhere = Message::to(from).from(Ipv4Addr::new(192, 0, 2, 1).into());
        assert!(server.send_msg("lies", elsewhere).await.is_err());

        let Some((client, from)) = bound_to_ipv6().await else { return };
        let (server, at) = bound_to(Ipv6Addr::UNSPECIFIED.into()).await;
        server.set_recv_packet_info(true).unwrap();
        client.send_to("hello", (Ipv6Addr::LOCALHOST, at.port())).await.unwrap();
        let datagram = soon(server.recv_datagram()).await.unwrap();
        assert_eq!(datagram.to(), Some(Ipv6Addr::LOCALHOST.into()));
        let answer = Message::to(from).from(Ipv6Addr::LOCALHOST.into());
        server.send_msg(datagram, answer).await.unwrap();
        let datagram = soon(client.recv_datagram()).await.unwrap();
        assert_eq!(datagram.from(), (Ipv6Addr::LOCALHOST, at.port()).into());
    });
}

async fn marks_come_through(one: UdpSocket, two: UdpSocket, to: SocketAddr) {
    two.set_recv_ecn(true).unwrap();
    for ecn in [Ecn::Ce, Ecn::Ect0, Ecn::Ect1, Ecn::NotEct] {
        one.send_msg("marked", Message::to(to).ecn(ecn)).await.unwrap();
        assert_eq!(soon(two.recv_datagram()).await.unwrap().ecn(), Some(ecn));
    }
    one.send_to("unmarked", to).await.unwrap();
    assert_eq!(soon(two.recv_datagram()).await.unwrap().ecn(), Some(Ecn::NotEct));
    two.set_recv_ecn(false).unwrap();
    one.send_msg("unseen", Message::to(to).ecn(Ecn::Ce)).await.unwrap();
    assert_eq!(soon(two.recv_datagram()).await.unwrap().ecn(), None);
}

#[test]
fn congestion_marks_come_through() {
    on_every_driver(|| async {
        let ((one, _), (two, to)) = (bound().await, bound().await);
        marks_come_through(one, two, to).await;
        let Some((one, _)) = bound_to_ipv6().await else { return };
        let Some((two, to)) = bound_to_ipv6().await else { return };
        marks_come_through(one, two, to).await;
    });
}

#[test]
fn a_group_is_joined_and_left() {
    on_every_driver(|| async {
        let (group, here) = (Ipv4Addr::new(239, 77, 7, 7), Ipv4Addr::LOCALHOST);
        let (member, at) = bound_to(Ipv4Addr::UNSPECIFIED.into()).await;
        let (sender, _) = bound().await;
        let joined = member.join_multicast_v4(group, here);
        if runtime::driver() == "simulator" {
            return assert_eq!(errno(joined), Some(libc::ENOPROTOOPT));
        }
        if let Err(error) = joined.and_then(|()| sender.set_multicast_interface_v4(here)) {
            return println!("without groups, because this machine said: {error}");
        }
        assert_eq!(errno(member.join_multicast_v4(group, here)), Some(libc::EADDRINUSE));
        assert_eq!(errno(member.join_multicast_v4(here, here)), Some(libc::EINVAL));
        sender.set_multicast_loop(true).unwrap();
        sender.set_multicast_ttl(0).unwrap();
        if let Err(failed) = sender.send_to("to all", (group, at.port())).await {
            return println!("without groups, because a send said: {failed}");
        }
        assert_eq!(*soon(member.recv_datagram()).await.unwrap(), *b"to all");
        member.leave_multicast_v4(group, here).unwrap();
        assert_eq!(errno(member.leave_multicast_v4(group, here)), Some(libc::EADDRNOTAVAIL));
    });
}

#[test]
fn a_group_of_ipv6_is_joined_and_left() {
    on_every_driver(|| async {
        let Some((sender, _)) = bound_to_ipv6().await else { return };
        let (member, at) = bound_to(Ipv6Addr::UNSPECIFIED.into()).await;
        // Of this interface alone.
        let group: Ipv6Addr = "ff11::77".parse().unwrap();
        let joined = member.join_multicast_v6(group, 1);
        if runtime::driver() == "simulator" {
            return assert_eq!(errno(joined), Some(libc::ENOPROTOOPT));
        }
        if let Err(error) = joined.and_then(|()| sender.set_multicast_interface_v6(1)) {
            return println!("without groups of IPv6, because this machine said: {error}");
        }
        member.leave_multicast_v6(group, 1).unwrap();
        let again = member.leave_multicast_v6(group, 1);
        assert_eq!(errno(again), Some(libc::EADDRNOTAVAIL));
        member.join_multicast_v6(group, 1).unwrap();
        if let Err(failed) = sender.send_to("to all", (group, at.port())).await {
            return println!("without groups of IPv6, because a send said: {failed}");
        }
        assert_eq!(*soon(member.recv_datagram()).await.unwrap(), *b"to all");
    });
}

async fn options_are_kept(socket: &UdpSocket) {
    assert!(!socket.broadcast().unwrap());
    socket.set_broadcast(true).unwrap();
    assert!(socket.broadcast().unwrap());
    assert_eq!(socket.ttl().unwrap(), 64);
    socket.set_ttl(7).unwrap();
    assert_eq!(socket.ttl().unwrap(), 7);
    assert_eq!(errno(socket.set_ttl(0)), Some(libc::EINVAL));
    assert_eq!(errno(socket.set_ttl(256)), Some(libc::EINVAL));
    assert_eq!(socket.multicast_ttl().unwrap(), 1);
    socket.set_multicast_ttl(9).unwrap();
    assert_eq!(socket.multicast_ttl().unwrap(), 9);
    assert!(socket.multicast_loop().unwrap());
    socket.set_multicast_loop(false).unwrap();
    assert!(!socket.multicast_loop().unwrap());
    socket.set_send_buffer_size(20_000).unwrap();
    socket.set_recv_buffer_size(30_000).unwrap();
    assert_eq!(socket.send_buffer_size().unwrap(), 40_000);
    assert_eq!(socket.recv_buffer_size().unwrap(), 60_000);
    assert!(socket.take_error().unwrap().is_none());
}

#[test]
fn options_are_kept_by_the_socket() {
    on_every_driver(|| async {
        options_are_kept(&bound().await.0).await;
        let Some((socket, _)) = bound_to_ipv6().await else { return };
        options_are_kept(&socket).await;
    });
}

#[test]
fn a_broadcast_has_to_be_permitted() {
    on_every_driver(|| async {
        let (socket, _) = bound_to(Ipv4Addr::UNSPECIFIED.into()).await;
        let failed = socket.send_to("all", (Ipv4Addr::BROADCAST, 9)).await;
        // Without a route there is nothing to permit.
        assert!(matches!(errno(failed), Some(libc::EACCES | libc::ENETUNREACH)));
    });
}

#[test]
fn whoever_keeps_every_buffer_receives_into_the_heap() {
    on_every_driver(|| async {
        let ((one, from), (two, to)) = (bound().await, bound().await);
        let mut kept: Vec<Datagram> = Vec::new();
        // More than there are buffers.
        for number in 0..1030_u32 {
            one.send_to(number.to_le_bytes().to_vec(), to).await.unwrap();
            kept.push(soon(two.recv_datagram()).await.unwrap());
        }
        let on_the_heap = kept.iter().filter(|datagram| !datagram.is_lease()).count();
        assert!((6..1030).contains(&on_the_heap), "{on_the_heap} are on the heap");
        assert!(runtime::stats().starved > 0);
        for (number, datagram) in kept.iter().enumerate() {
            assert_eq!((&**datagram, datagram.from()), (&(number as u32).to_le_bytes()[..], from));
        }
        // A large one on the heap, with what comes along.
        two.set_recv_packet_info(true).unwrap();
        one.send_to(bytes(65_507), to).await.unwrap();
        let mut large = soon(two.recv_datagram()).await.unwrap();
        assert!(*large == bytes(65_507) && large.to() == Some(to.ip()) && !large.is_lease());
        large.advance(65_500);
        assert_eq!(*large, bytes(65_507)[65_500..]);
        // One that nobody awaits any more is the next one's.
        {
            let mut dropped = pin!(two.recv_datagram());
            assert!(poll_once(dropped.as_mut(), &Arc::new(Flag::default())).is_pending());
            lap().await;
            one.send_to("not lost", to).await.unwrap();
            lap().await;
        }
        assert_eq!(*soon(two.recv_datagram()).await.unwrap(), *b"not lost");
        drop(kept);
        one.send_to("a lease again", to).await.unwrap();
        assert_eq!(*soon(two.recv_datagram()).await.unwrap(), *b"a lease again");
    });
}

#[test]
fn sends_in_flight_together_all_arrive() {
    on_every_driver(|| async {
        let ((one, _), (two, to)) = (bound().await, bound().await);
        let one = Rc::new(one);
        let sends = (0..50_u8).map(|number| {
            let one = Rc::clone(&one);
            quoit::spawn(async move { one.send_to(vec![number; 10], to).await.unwrap().0 })
        });
        let sends: Vec<_> = sends.collect();
        let mut numbers = Vec::new();
        for _ in 0..50 {
            let datagram = soon(two.recv_datagram()).await.unwrap();
            assert!(datagram.len() == 10 && datagram.iter().all(|byte| *byte == datagram[0]));
            numbers.push(datagram[0]);
        }
        numbers.sort_unstable();
        assert_eq!(numbers, (0..50).collect::<Vec<u8>>());
        for send in sends {
            assert_eq!(send.await.unwrap(), 10);
        }
    });
}

#[test]
fn a_dropped_send_is_sent_whole_or_not_at_all() {
    let rounds = scaled(5000, 100);
    on_every_driver(|| async {
        let ((one, _), (two, to)) = (bound().await, bound().await);
        let mut random = Random::new(3);
        let mut lens = Vec::new();
        for round in 0..rounds as u32 {
            let words = 1 + random.below(800);
            lens.push(4 * words);
            let piece = round.to_le_bytes().repeat(words);
            {
                let mut send = pin!(one.send_to(QuarantineBuf::of(&piece), to));
                // Not every driver needs a lap for it.
                match poll_once(send.as_mut(), &Arc::new(Flag::default())) {
                    Poll::Ready(sent) => assert_eq!(sent.unwrap().0, 4 * words),
                    Poll::Pending if random.below(2) == 0 => lap().await,
                    Poll::Pending => {}
                }
            }
            one.send_to("mark", to).await.unwrap();
            // The dropped one may also come late, or not at all.
            loop {
                let datagram = soon(two.recv_datagram()).await.unwrap();
                if *datagram == *b"mark" {
                    break;
                }
                let round: [u8; 4] = datagram[..4].try_into().unwrap();
                assert_eq!(datagram.len(), lens[u32::from_le_bytes(round) as usize]);
                assert!(datagram.chunks(4).all(|word| word == round));
            }
        }
    });
    assert_eq!(crate::quarantine::violations(), 0);
}

#[test]
fn port_zero_is_a_port_that_nobody_shares() {
    on_every_driver(|| async {
        let mut ports = Vec::new();
        let mut sockets = Vec::new();
        for _ in 0..20 {
            let (socket, address) = bound().await;
            ports.push(address.port());
            sockets.push(socket);
        }
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 20);
        let again = UdpSocket::bind((Ipv4Addr::LOCALHOST, ports[0])).await.unwrap_err();
        assert_eq!(again.kind(), ErrorKind::AddrInUse);
    });
}

/// A port of UDP that is free.
fn free_port() -> SocketAddr {
    let socket = std::net::UdpSocket::bind((own_address(), 0)).unwrap();
    socket.local_addr().unwrap()
}

#[test]
fn an_address_has_one_socket_on_a_core_and_is_free_again_when_it_goes() {
    isolated(|| {
        on_every_driver(|| async {
            let address = match runtime::driver() {
                "simulator" => (Ipv4Addr::LOCALHOST, 7000).into(),
                _ => free_port(),
            };
            let socket = UdpSocket::bind(address).await.unwrap();
            let error = UdpSocket::bind(address).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AddrInUse);
            assert!(error.to_string().contains("share that socket"), "{error}");
            // Its receive is in flight when it goes.
            let waiting = poll_once(pin!(socket.recv_datagram()), &Arc::new(Flag::default()));
            assert!(waiting.is_pending());
            lap().await;
            drop(socket);
            let socket = UdpSocket::bind(address).await.unwrap();
            let (other, _) = bound().await;
            other.send_to("hello", address).await.unwrap();
            assert_eq!(*soon(socket.recv_datagram()).await.unwrap(), *b"hello");
            socket.close().await.unwrap();
            UdpSocket::bind(address).await.unwrap();
        });
    });
}

#[test]
fn a_port_that_somebody_else_has_is_refused() {
    isolated(|| {
        let theirs = std::net::UdpSocket::bind((own_address(), 0)).unwrap();
        let address = theirs.local_addr().unwrap();
        runtime::run(async move {
            let error = UdpSocket::bind(address).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AddrInUse);
            let text = error.to_string();
            assert!(text.contains("this process itself has bound"), "{text}");
            drop(theirs);
            let _ours = UdpSocket::bind(address).await.unwrap();
            // Whoever asks for the port as a second copy of this program would.
            let error = std::net::UdpSocket::bind(address).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AddrInUse);
        })
        .unwrap();
    });
}

#[test]
fn each_core_gets_a_socket_of_its_own_and_a_sender_always_the_same() {
    let watch = Watch::over("on two cores");
    let address = free_port();
    let bound_count = Arc::new(AtomicUsize::new(0));
    let heard = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let (count, ears, waits_for) = (Arc::clone(&bound_count), Arc::clone(&heard), bound_count);
    let sender = std::thread::spawn(move || {
        while waits_for.load(Ordering::SeqCst) < 2 {
            std::thread::sleep(Duration::from_millis(1));
        }
        for _ in 0..64 {
            let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let mut cores = [0; 2];
            for core in &mut cores {
                socket.send_to(b"who?", address).unwrap();
                let mut answer = [9; 1];
                socket.recv_from(&mut answer).unwrap();
                *core = answer[0];
            }
            assert_eq!(cores[0], cores[1], "a sender comes to one core");
        }
        for core in [0, 1] {
            // Ends the cores, wherever the kernel sends this: each until it has heard of it.
            while ears[core].load(Ordering::SeqCst) < usize::MAX / 2 {
                let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
                socket.send_to(b"", address).unwrap();
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    });
    let answered = Arc::clone(&heard);
    let ports = Arc::new(Mutex::new(Vec::new()));
    let chosen = Arc::clone(&ports);
    Builder::new()
        .cores(2)
        .start_per_core(async move || {
            let socket = UdpSocket::bind(address).await.unwrap();
            let (core, (_own, own)) = (runtime::core().index(), bound().await);
            chosen.lock().unwrap().push(own.port());
            count.fetch_add(1, Ordering::SeqCst);
            loop {
                let datagram = socket.recv_datagram().await.unwrap();
                if datagram.is_empty() {
                    heard[core].fetch_add(usize::MAX / 2, Ordering::SeqCst);
                    return;
                }
                heard[core].fetch_add(1, Ordering::SeqCst);
                socket.send_to(vec![core as u8], datagram.from()).await.unwrap();
            }
        })
        .unwrap();
    sender.join().unwrap();
    let answered = answered.each_ref().map(|count| count.load(Ordering::SeqCst) % (usize::MAX / 2));
    assert!(answered.iter().all(|count| *count > 0), "{answered:?}: one core hears everything");
    assert_eq!(answered.iter().sum::<usize>(), 128);
    let ports = ports.lock().unwrap();
    assert!(ports.len() == 2 && ports[0] != ports[1], "answers would come to the other core");
    watch.ends();
}

#[test]
fn a_socket_of_the_standard_library_is_taken_over() {
    runtime::run(async {
        let theirs = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let to = theirs.local_addr().unwrap();
        let socket = UdpSocket::from_std(theirs).unwrap();
        let (other, _) = bound().await;
        other.send_to("hello", to).await.unwrap();
        assert_eq!(*soon(socket.recv_datagram()).await.unwrap(), *b"hello");
        assert!(format!("{socket:?}").starts_with("UdpSocket"));
    })
    .unwrap();
}

#[test]
fn nothing_is_left_of_sockets_that_are_dropped_with_everything_in_flight() {
    isolated(|| {
        ledger(async || {
            for round in 0..20 {
                let ((one, _), (two, to)) = (bound().await, bound().await);
                let flag = Arc::new(Flag::default());
                assert!(poll_once(pin!(two.recv_datagram()), &flag).is_pending());
                for _ in 0..round {
                    one.send_to(QuarantineBuf::of(b"never received"), to).await.unwrap();
                }
                let _ = poll_once(pin!(one.send_to(QuarantineBuf::of(b"dropped"), to)), &flag);
                if round % 2 == 0 {
                    lap().await;
                }
                if round % 3 == 0 {
                    two.close().await.unwrap();
                }
            }
        });
    });
}

#[test]
fn in_a_steady_state_nothing_is_allocated() {
    runtime::run(async {
        let ((one, from), (two, to)) = (bound().await, bound().await);
        let (mut buf, mut before) = (Vec::with_capacity(100), 0);
        for number in 0..3000 {
            if number == 1000 {
                before = allocations();
            }
            buf.resize(64, 1);
            buf = one.send_to(buf, to).await.unwrap().1;
            let datagram = two.recv_datagram().await.unwrap();
            let answer = Message::to(datagram.from()).ecn(Ecn::Ect0);
            two.send_msg(datagram, answer).await.unwrap();
            let peer;
            ((_, peer), buf) = one.recv_from(buf).await.unwrap();
            assert_eq!((peer, buf.len()), (to, 64));
        }
        assert_eq!(allocations() - before, 0, "in 2,000 exchanges with {from}");
    })
    .unwrap();
}

/// A server that sends everything back, and a client that counts what comes: of so many that it sends,
/// one each millisecond, the numbers in the order in which they come back.
fn echo(seed: u64, faults: Faults, count: u32) -> (quoit::sim::Report, Vec<u32>) {
    let numbers = Rc::new(std::cell::RefCell::new(Vec::new()));
    let heard = Rc::clone(&numbers);
    let report = Sim::new(seed)
        .host("server", async || -> io::Result<()> {
            let socket = UdpSocket::bind("0.0.0.0:7000").await?;
            loop {
                let datagram = socket.recv_datagram().await?;
                let from = datagram.from();
                socket.send_to(datagram, from).await?;
            }
        })
        .client("client", async move || -> io::Result<()> {
            let socket = Rc::new(UdpSocket::bind("0.0.0.0:0").await?);
            // Nobody is there at first, and a refusal would end the receiver.
            sleep(Duration::from_millis(10)).await;
            socket.connect("server:7000").await?;
            let (receiver, heard) = (Rc::clone(&socket), Rc::clone(&heard));
            let receiver = quoit::spawn(async move {
                loop {
                    let datagram = receiver.recv_datagram().await.unwrap();
                    let number: [u8; 4] = datagram[..4].try_into().unwrap();
                    assert!(datagram.len() == 4 + u32::from_le_bytes(number) as usize % 100);
                    heard.borrow_mut().push(u32::from_le_bytes(number));
                }
            });
            for number in 0..count {
                let mut bytes = number.to_le_bytes().to_vec();
                bytes.resize(4 + number as usize % 100, 7);
                socket.send(bytes).await?;
                sleep(Duration::from_millis(1)).await;
            }
            sleep(Duration::from_secs(1)).await;
            receiver.abort();
            Ok(())
        })
        .faults(faults)
        .run()
        .unwrap();
    let numbers = numbers.take();
    (report, numbers)
}

#[test]
fn between_simulated_hosts_datagrams_are_lost_doubled_and_overtaken_only_by_faults() {
    let all: Vec<u32> = (0..200).collect();
    for seed in 0..10 {
        assert_eq!(echo(seed, Faults::none(), 200).1, all);

        let (report, heard) = echo(seed, Faults::none().lost_datagrams(0.2), 200);
        let lost = report.times("lost_datagrams");
        assert_eq!(heard.len() as u64 + lost, 200);
        assert!(lost > 0 && heard.is_sorted(), "{report}");

        let (report, heard) = echo(seed, Faults::none().duplicated_datagrams(0.2), 200);
        let doubled = report.times("duplicated_datagrams");
        // What is doubled on the way there comes back twice, and may be doubled again.
        assert!(doubled > 0 && heard.len() as u64 == 200 + doubled, "{report}: {}", heard.len());

        let (report, mut heard) = echo(seed, Faults::none().reordered_datagrams(0.2), 200);
        assert!(report.times("reordered_datagrams") > 0 && !heard.is_sorted(), "{report}");
        heard.sort_unstable();
        assert_eq!(heard, all);
    }
}

#[test]
fn a_simulated_run_with_datagrams_is_the_same_each_time() {
    for seed in 0..5 {
        let faults = || Faults::all().crashes(0.0);
        let (one, two) = (echo(seed, faults(), 100), echo(seed, faults(), 100));
        assert_eq!((one.0.trace, one.1), (two.0.trace, two.1));
    }
}

#[test]
fn a_full_simulated_socket_drops_what_comes() {
    let heard = Rc::new(Cell::new(0));
    let count = Rc::clone(&heard);
    Sim::new(1)
        .host("server", async move || -> io::Result<()> {
            let socket = UdpSocket::bind("0.0.0.0:7000").await?;
            socket.set_recv_buffer_size(10_000)?;
            sleep(Duration::from_secs(1)).await;
            loop {
                socket.recv_datagram().await?;
                count.set(count.get() + 1);
            }
        })
        .client("client", async || -> io::Result<()> {
            sleep(Duration::from_millis(10)).await;
            let socket = UdpSocket::bind("0.0.0.0:0").await?;
            let server = ("10.0.0.1", 7000);
            socket.connect(server).await?;
            for _ in 0..100 {
                socket.send(vec![0; 1000]).await?;
            }
            sleep(Duration::from_secs(5)).await;
            Ok(())
        })
        .faults(Faults::none())
        .run()
        .unwrap();
    // 20,000 bytes, of which each takes its own and a record.
    assert!((5..20).contains(&heard.get()), "{} have come", heard.get());
}
