//! What cannot be done is said, at once and in words, and nothing is lost by having tried.

use std::future::{self, Future};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use quoit::buf::IoBuf;
use quoit::fs::{File, OpenOptions};
use quoit::net::{TcpListener, TcpStream};
use quoit::runtime::{self, Runtime};

use crate::fs::Scratch;
use crate::loopback::{listen, own_address};
use crate::support::{Ledger, assert_settled, isolated, on_every_driver, settle};

/// The text of the panic that `f` ends with.
#[track_caller]
fn panic_of(f: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(f)).expect_err("it did not panic");
    let text = panic.downcast_ref::<&str>().map(|text| text.to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).expect("a panic with a text")
}

/// Polls a future once, with nobody to wake.
fn poll_once<F: Future>(future: F) {
    let _ = pin!(future).poll(&mut Context::from_waker(Waker::noop()));
}

/// Both ends of a connection.
async fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (client, listener.accept().await.unwrap().0)
}

async fn null() -> File {
    OpenOptions::new().read(true).write(true).open("/dev/null").await.unwrap()
}

// ---- Addresses ----

#[test]
fn a_port_that_this_core_has_is_in_use() {
    isolated(|| {
        on_every_driver(async || {
            let (listener, address) = listen().await;
            let error = TcpListener::bind(address).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AddrInUse);
            listener.close().await.unwrap();
            TcpListener::bind(address).await.unwrap();
        });
    });
}

#[test]
fn a_port_that_the_standard_library_has_is_in_use() {
    isolated(|| {
        on_every_driver(async || {
            let other = std::net::TcpListener::bind((own_address(), 0)).unwrap();
            let address = other.local_addr().unwrap();
            let error = TcpListener::bind(address).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AddrInUse);
            drop(other);
            let listener = TcpListener::bind(address).await.unwrap();
            let error = std::net::TcpListener::bind(listener.local_addr().unwrap()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AddrInUse);
        });
    });
}

#[test]
fn a_port_that_another_runtime_has_is_in_use_and_keeps_its_connections() {
    let first = Runtime::new().unwrap();
    let listener = first.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = first.block_on(async { listener.local_addr() }).unwrap();
    let other = std::thread::spawn(move || {
        runtime::run(async { TcpListener::bind(address).await.map(drop) }).unwrap()
    });
    assert_eq!(other.join().unwrap().unwrap_err().kind(), ErrorKind::AddrInUse);
    let second = Runtime::new().unwrap();
    let error = second.block_on(TcpListener::bind(address)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    let clients: Vec<_> = (0..8).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
    first.block_on(async {
        for client in &clients {
            let (_, peer) = listener.accept().await.unwrap();
            assert!(clients.iter().any(|it| it.local_addr().unwrap() == peer), "{client:?}");
        }
    });
}

#[test]
fn what_is_no_address_is_refused_with_advice() {
    on_every_driver(async || {
        for text in ["", "7000", "localhost", "127.0.0.1:port", "127.0.0.1:99999", "[::1:80"] {
            for error in [
                TcpListener::bind(text).await.unwrap_err(),
                TcpStream::connect(text).await.unwrap_err(),
            ] {
                assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text:?}: {error}");
                assert!(error.to_string().contains("127.0.0.1:7000"), "{error}");
            }
        }
        let none: &[SocketAddr] = &[];
        let error = TcpListener::bind(none).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let error = TcpStream::connect(none).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn an_address_of_another_machine_cannot_be_bound() {
    on_every_driver(async || {
        let error = TcpListener::bind("192.0.2.1:0").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
    });
}

#[test]
fn nobody_at_an_address_is_an_error_and_leaves_no_socket() {
    on_every_driver(async || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = TcpStream::connect(address).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    });
}

// ---- Buffers ----

#[test]
fn a_read_without_room_is_an_error_and_no_end() {
    on_every_driver(async || {
        let (stream, _peer) = connection().await;
        let file = null().await;
        for result in [
            stream.read(Vec::new()).await.map(drop),
            stream.append(Vec::new()).await.map(drop),
            stream.read_exact(Vec::new()).await.map(drop),
            file.read_at(Vec::new(), 0).await.map(drop),
            file.read_exact_at(Vec::new(), 0).await.map(drop),
        ] {
            let failed = result.unwrap_err();
            assert_eq!((failed.kind(), failed.done), (ErrorKind::InvalidInput, 0));
            assert!(failed.to_string().contains("without capacity"), "{failed}");
        }
        let full = vec![1, 2, 3].into_boxed_slice().into_vec();
        let failed = stream.append(full).await.unwrap_err();
        assert_eq!((failed.kind(), failed.buf), (ErrorKind::InvalidInput, vec![1, 2, 3]));
        let nothing = vec![1, 2, 3].slice(1..1);
        let failed = file.read_at(nothing, 0).await.unwrap_err();
        assert_eq!(
            (failed.kind(), failed.buf.into_inner()),
            (ErrorKind::InvalidInput, vec![1, 2, 3])
        );
    });
}

#[test]
fn a_write_of_nothing_succeeds_without_a_request() {
    on_every_driver(async || {
        let (stream, _peer) = connection().await;
        let file = null().await;
        // Requests of what came before are handed over by now.
        quoit::task::yield_now().await;
        let live = runtime::stats().live_ops;
        let sqes = runtime::stats().sqes;
        assert_eq!(stream.write("").await.unwrap(), (0, ""));
        assert_eq!(stream.write_all(Vec::new()).await.unwrap(), []);
        assert_eq!(stream.write_vectored(("", "")).await.unwrap().0, 0);
        assert_eq!(stream.write_all_vectored(Vec::<&str>::new()).await.unwrap(), [""; 0]);
        assert_eq!(file.write_at("", 0).await.unwrap(), (0, ""));
        assert_eq!(file.write_all_at([0; 0], 0).await.unwrap(), []);
        assert_eq!(file.write_vectored_at(("", ""), 0).await.unwrap().0, 0);
        assert_eq!(file.write_all_vectored_at(Vec::<&str>::new(), 0).await.unwrap(), [""; 0]);
        assert_eq!(runtime::stats().live_ops, live);
        assert_eq!(runtime::stats().sqes, sqes);
    });
}

#[test]
fn offsets_past_the_end_of_any_file_are_refused_and_give_the_buffer_back() {
    on_every_driver(async || {
        let scratch = Scratch::new();
        let path = scratch.file("file", "0123456789");
        let file = OpenOptions::new().read(true).write(true).open(&path).await.unwrap();
        for offset in [u64::MAX, u64::MAX - 1, 1 << 63] {
            let full = || b"abc".to_vec();
            for failed in [
                file.read_at(full(), offset).await.unwrap_err(),
                file.read_exact_at(full(), offset).await.unwrap_err(),
                file.write_at(full(), offset).await.unwrap_err(),
                file.write_all_at(full(), offset).await.unwrap_err(),
            ] {
                assert_eq!((failed.kind(), failed.done), (ErrorKind::InvalidInput, 0));
                assert!(failed.to_string().contains("past the end of any file"), "{failed}");
                assert_eq!(failed.buf, b"abc");
            }
            let failed = file.write_vectored_at((full(), "d"), offset).await.unwrap_err();
            assert_eq!((failed.kind(), failed.buf), (ErrorKind::InvalidInput, (full(), "d")));
            let failed = file.write_all_vectored_at([full()], offset).await.unwrap_err();
            assert_eq!((failed.kind(), failed.buf), (ErrorKind::InvalidInput, [full()]));
        }
        // The last offset is one that the file system refuses, or there is nothing.
        let last = i64::MAX as u64;
        assert!(
            file.read_at([0; 4], last).await.is_err_and(|failed| failed.done == 0)
                || file.read_at([0; 4], last).await.unwrap().0 == 0
        );
        assert!(file.write_at("abc", last).await.is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"0123456789");
    });
}

/// More than 32 bits can say, and more than the kernel moves at a time.
#[cfg(target_pointer_width = "64")]
const HUGE: usize = 5 << 30;
/// What the kernel moves at most (`MAX_RW_COUNT`).
const MOST: usize = 0x7fff_f000;

#[test]
fn lengths_past_two_gibibytes_are_cut_and_never_wrap() {
    runtime::run(async {
        // Memory that is asked for and never touched.
        let zeros = vec![0_u8; HUGE];
        let file = null().await;
        let (n, zeros) = file.write_at(zeros, 0).await.unwrap();
        assert_eq!(n, MOST);
        let zeros = file.write_all_at(zeros, 0).await.unwrap();
        assert_eq!(zeros.len(), HUGE);
        // 4 GiB are 0 in 32 bits.
        let four = zeros.slice(..4 << 30);
        let (n, four) = file.write_at(four, 0).await.unwrap();
        assert_eq!(n, MOST);
        let (n, _) = file.write_vectored_at((four, "more"), 0).await.unwrap();
        assert_eq!(n, MOST);

        let scratch = Scratch::new();
        let file = File::open(scratch.file("file", "0123456789")).await.unwrap();
        let (n, room) = file.read_at(Vec::with_capacity(HUGE), 0).await.unwrap();
        assert_eq!((n, &room[..]), (10, &b"0123456789"[..]));
        let failed = file.read_exact_at(room.slice(..4 << 30), 0).await.unwrap_err();
        assert_eq!((failed.kind(), failed.done), (ErrorKind::UnexpectedEof, 10));

        let (stream, peer) = connection().await;
        peer.write_all("0123456789").await.unwrap();
        let room = failed.buf.into_inner();
        let (n, room) = stream.read(room).await.unwrap();
        assert_eq!((n, &room[..]), (10, &b"0123456789"[..]));
        peer.write_all("0123456789").await.unwrap();
        let (n, _) = stream.append(room).await.unwrap();
        assert_eq!(n, 10);
        let (n, _) = stream.write(vec![0; HUGE]).await.unwrap();
        assert!(n > 0 && n <= MOST);
    })
    .unwrap();
}

#[test]
fn paths_with_a_zero_byte_and_options_without_sense_are_refused() {
    on_every_driver(async || {
        let scratch = Scratch::new();
        let zero = scratch.path("a\0b");
        let mut errors = vec![
            File::open(&zero).await.unwrap_err(),
            File::create(&zero).await.unwrap_err(),
            quoit::fs::read(&zero).await.unwrap_err(),
            quoit::fs::write(&zero, "").await.unwrap_err().error,
        ];
        let path = scratch.path("file");
        let mut options = OpenOptions::new();
        errors.push(options.open(&path).await.unwrap_err());
        errors.push(options.read(true).create(true).open(&path).await.unwrap_err());
        errors.push(options.append(true).truncate(true).open(&path).await.unwrap_err());
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        }
        assert!(!path.exists());
    });
}

// ---- Where there is no runtime, or another ----

#[test]
fn what_needs_a_runtime_says_so_where_there_is_none() {
    type Entry = (&'static str, Box<dyn FnOnce()>);
    let stream = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| std::net::TcpStream::connect(listener.local_addr()?))
        .unwrap();
    let address = "127.0.0.1:0";
    let soon = Duration::ZERO;
    let entries: Vec<Entry> = vec![
        ("spawn", Box::new(|| drop(quoit::spawn(async {})))),
        ("TcpListener::bind", Box::new(move || poll_once(TcpListener::bind(address)))),
        ("", Box::new(move || poll_once(TcpStream::connect(address)))),
        ("TcpStream::from_std", Box::new(|| drop(TcpStream::from_std(stream)))),
        ("File::open", Box::new(|| poll_once(File::open("/dev/null")))),
        ("File::create", Box::new(|| poll_once(File::create("/dev/null")))),
        (
            "OpenOptions::open",
            Box::new(|| poll_once(OpenOptions::new().read(true).open("/dev/null"))),
        ),
        ("fs::read", Box::new(|| poll_once(quoit::fs::read("/dev/null")))),
        ("fs::write", Box::new(|| poll_once(quoit::fs::write("/dev/null", "")))),
        ("runtime::core", Box::new(|| drop(runtime::core()))),
        ("runtime::stats", Box::new(|| drop(Box::new(runtime::stats())))),
        ("runtime::driver", Box::new(|| drop(runtime::driver().to_owned()))),
        ("Handle::current", Box::new(|| drop(runtime::Handle::current()))),
        ("", Box::new(move || poll_once(quoit::time::sleep(soon)))),
    ];
    for (name, call) in entries {
        let text = panic_of(call);
        assert!(text.starts_with(name), "{name}: {text}");
        assert!(text.contains("outside of a runtime"), "{name}: {text}");
        assert!(text.contains("start one with `quoit::runtime::run`"), "{name}: {text}");
    }
}

#[test]
fn block_on_inside_a_runtime_says_what_to_do() {
    on_every_driver(async || {
        let text = panic_of(|| drop(runtime::run(async {})));
        assert!(text.contains("inside a runtime") && text.contains("await"), "{text}");
        let text = panic_of(|| drop(runtime::start_per_core(async || ())));
        assert!(text.contains("inside a runtime") && text.contains("await"), "{text}");
    });
    let (outer, inner) = (Runtime::new().unwrap(), Runtime::new().unwrap());
    let text = panic_of(|| outer.block_on(async { inner.block_on(async {}) }));
    assert!(text.contains("inside a runtime") && text.contains("await"), "{text}");
    assert_eq!(outer.block_on(async { 1 }) + inner.block_on(async { 1 }), 2);
}

/// Polls `future` within `runtime`, and returns the text of the panic that this ends with.
fn panic_in<F: Future>(runtime: &Runtime, future: F) -> String {
    panic_of(|| {
        runtime.block_on(async { poll_once(future) });
    })
}

#[test]
fn a_handle_in_another_runtime_says_so_and_loses_nothing() {
    isolated(|| {
        let open = Ledger::open();
        let scratch = Scratch::new();
        let path = scratch.file("file", "0123456789");
        let (mut home, mut other) = (Runtime::new().unwrap(), Runtime::new().unwrap());
        let (stream, peer) = home.block_on(connection());
        let listener = home.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let mut options = OpenOptions::new();
        let file = home.block_on(options.read(true).write(true).open(&path)).unwrap();
        home.block_on(async { peer.write_all("kept").await.map(drop) }).unwrap();

        let texts = [
            panic_in(&other, stream.recv()),
            panic_in(&other, stream.read(vec![0; 8])),
            panic_in(&other, stream.read_exact([0; 8])),
            panic_in(&other, stream.write("lost")),
            panic_in(&other, stream.write_all_vectored(("lo", "st"))),
            panic_in(&other, async { stream.local_addr() }),
            panic_in(&other, listener.accept()),
            panic_in(&other, file.read_at([0; 8], 0)),
            panic_in(&other, file.read_exact_at(vec![0; 8], 0)),
            panic_in(&other, file.write_at("lost", 0)),
            panic_in(&other, file.write_all_vectored_at(("lo", "st"), 0)),
            panic_in(&other, file.sync_all()),
            panic_in(&other, file.len()),
        ];
        for text in texts {
            assert!(text.starts_with("a handle of core "), "{text}");
            assert!(text.contains("stay on the core that opened them"), "{text}");
        }
        settle(&other);

        // At home everything is as it was.
        home.block_on(async {
            let chunk = stream.recv().await.unwrap().unwrap();
            assert_eq!(&chunk[..], b"kept");
            drop(chunk);
            peer.write_all("more").await.unwrap();
            assert_eq!(stream.read_exact([0; 4]).await.unwrap(), *b"more");
            stream.write_all("back").await.unwrap();
            assert_eq!(peer.read_exact([0; 4]).await.unwrap(), *b"back");
            let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            drop((client, listener.accept().await.unwrap()));
            assert_eq!(file.read_exact_at([0; 10], 0).await.unwrap(), *b"0123456789");
        });
        drop((stream, peer, listener, file));
        for runtime in [&mut home, &mut other] {
            settle(runtime);
            assert_eq!(runtime.shutdown(Duration::from_secs(10)), 0);
            assert_settled(&runtime.stats());
        }
        drop((home, other));
        drop(scratch);
        open.close();
    });
}

#[test]
fn a_handle_outside_of_its_runtime_says_so_and_loses_nothing() {
    isolated(|| {
        let open = Ledger::open();
        let home = Runtime::new().unwrap();
        let (stream, peer) = home.block_on(connection());
        let file = home.block_on(null());
        for call in [
            &(|| poll_once(stream.recv())) as &dyn Fn(),
            &|| poll_once(stream.read([0; 8])),
            &|| poll_once(stream.write("lost")),
            &|| drop(stream.peer_addr()),
            &|| poll_once(file.read_at([0; 8], 0)),
            &|| poll_once(file.write_at("lost", 0)),
            &|| poll_once(file.sync_data()),
            &|| poll_once(file.len()),
        ] {
            let text = panic_of(call);
            assert!(text.contains("outside of "), "{text}");
            assert!(text.contains("quoit::runtime") || text.contains("block_on"), "{text}");
        }
        home.block_on(async {
            peer.write_all("kept").await.unwrap();
            assert_eq!(stream.read_exact([0; 4]).await.unwrap(), *b"kept");
        });
        drop((stream, peer, file));
        settle(&home);
        drop(home);
        open.close();
    });
}

#[test]
fn handles_that_outlive_their_runtime_close_what_they_have() {
    isolated(|| {
        let open = Ledger::open();
        let home = Runtime::new().unwrap();
        let (stream, peer) = home.block_on(connection());
        let file = home.block_on(null());
        drop(home);
        let other = Runtime::new().unwrap();
        let text = panic_in(&other, file.read_at([0; 8], 0));
        assert!(text.starts_with("a handle of core "), "{text}");
        drop((stream, peer));
        other.block_on(file.close()).unwrap();
        drop(other);
        open.close();
    });
}

// ---- Polling once more ----

/// Polls `future` to its end, and then once more; the text of the panic.
async fn panic_after_the_end<F: Future>(future: F) -> String {
    let mut future = Box::pin(future);
    drop(future.as_mut().await);
    future::poll_fn(|context: &mut Context<'_>| {
        let again: Pin<&mut F> = future.as_mut();
        Poll::Ready(panic_of(|| drop(again.poll(context))))
    })
    .await
}

#[test]
fn polling_after_the_end_panics_and_breaks_nothing() {
    on_every_driver(async || {
        let (stream, peer) = connection().await;
        let file = null().await;
        let texts = [
            panic_after_the_end(stream.write_all("once")).await,
            panic_after_the_end(peer.read([0; 4])).await,
            panic_after_the_end(file.read_at([0; 4], 0)).await,
            panic_after_the_end(file.write_all_at("once", 0)).await,
            panic_after_the_end(file.sync_all()).await,
            panic_after_the_end(File::open("/dev/null")).await,
            panic_after_the_end(TcpListener::bind("127.0.0.1:0")).await,
            panic_after_the_end(quoit::spawn(async {})).await,
        ];
        for text in texts {
            assert!(!text.is_empty());
        }
        stream.write_all("more").await.unwrap();
        assert_eq!(peer.read_exact([0; 4]).await.unwrap(), *b"more");
    });
}
