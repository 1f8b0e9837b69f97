//! Waiting for descriptors that are somebody else's.

use std::cell::Cell;
use std::io::{ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use quoit::driver::DriverKind;
use quoit::io::{Interest, PollFd};
use quoit::runtime::Builder;

use crate::loopback::{Flag, lap, poll_once, within};
use crate::support::{Ledger, isolated, on_every_driver};

const LONG: Duration = Duration::from_secs(20);

fn pipe() -> (PollFd<PipeReader>, PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    (PollFd::new(reader).unwrap(), writer)
}

fn pair() -> (UnixStream, UnixStream) {
    let (here, there) = UnixStream::pair().unwrap();
    here.set_nonblocking(true).unwrap();
    there.set_nonblocking(true).unwrap();
    (here, there)
}

#[test]
fn a_wait_ends_when_there_is_something_to_read_and_for_as_long_as_there_is() {
    on_every_driver(async || {
        let (reader, mut writer) = pipe();
        let reader = Rc::new(reader);
        for round in 0..3 {
            let waits = Rc::clone(&reader);
            let task = quoit::spawn(async move { waits.readable().await.unwrap() });
            if round % 2 == 0 {
                lap().await;
            }
            assert!(!task.is_finished());
            writer.write_all(b"ab").unwrap();
            assert!(within(LONG, task).await.unwrap().is_readable());
            // One byte is still there: it is ready at once.
            reader.get_ref().read_exact(&mut [0]).unwrap();
            assert!(within(LONG, reader.readable()).await.unwrap().is_readable());
            reader.get_ref().read_exact(&mut [0]).unwrap();
        }
        drop(writer);
        let ready = within(LONG, reader.readable()).await.unwrap();
        assert!(ready.is_closed() && ready.is_readable());
    });
}

#[test]
fn a_wait_for_room_ends_when_there_is_some() {
    on_every_driver(async || {
        let (here, mut there) = pair();
        let here = PollFd::new(here).unwrap();
        assert!(within(LONG, here.writable()).await.unwrap().is_writable());
        let mut sent = 0;
        while let Ok(count) = here.get_ref().write(&[7; 4096]) {
            sent += count;
        }
        let flag = Arc::new(Flag::default());
        let mut waiting = pin!(here.writable());
        assert!(poll_once(waiting.as_mut(), &flag).is_pending());
        lap().await;
        assert!(!flag.is_set());
        let mut buf = vec![0; sent];
        let mut received = 0;
        while received < sent {
            received += there.read(&mut buf).unwrap();
        }
        assert!(within(LONG, waiting).await.unwrap().is_writable());
    });
}

#[test]
fn both_directions_and_any_number_of_tasks_wait_at_once() {
    on_every_driver(async || {
        let (here, mut there) = pair();
        let here = Rc::new(PollFd::new(here).unwrap());
        let done = Rc::new(Cell::new(0));
        for _ in 0..10 {
            let (here, done) = (Rc::clone(&here), Rc::clone(&done));
            drop(quoit::spawn(async move {
                here.readable().await.unwrap();
                done.set(done.get() + 1);
            }));
        }
        let both = Interest::READABLE | Interest::WRITABLE;
        let ready = within(LONG, here.poll_fd(both)).await.unwrap();
        assert!(ready.is_writable() && !ready.is_readable() && !ready.is_error());
        assert_eq!(done.get(), 0);
        there.write_all(b"x").unwrap();
        within(LONG, async {
            while done.get() < 10 {
                lap().await;
            }
        })
        .await;
    });
}

#[test]
fn async_io_calls_until_it_does_not_have_to_wait() {
    on_every_driver(async || {
        let (here, mut there) = pair();
        let here = PollFd::new(here).unwrap();
        let task = quoit::spawn(async move {
            let mut buf = [0; 16];
            let count = here.async_io(Interest::READABLE, |mut it| it.read(&mut buf)).await;
            (count.unwrap(), buf[0])
        });
        lap().await;
        there.write_all(b"abc").unwrap();
        assert_eq!(within(LONG, task).await.unwrap(), (3, b'a'));
    });
}

#[test]
fn a_dropped_wait_takes_nothing_and_the_descriptor_closes_with_the_last() {
    on_every_driver(async || {
        let (reader, mut writer) = pipe();
        for _ in 0..10 {
            let mut waiting = Box::pin(reader.readable());
            assert!(poll_once(waiting.as_mut(), &Arc::new(Flag::default())).is_pending());
        }
        writer.write_all(b"x").unwrap();
        within(LONG, reader.readable()).await.unwrap();
        reader.get_ref().read_exact(&mut [0]).unwrap();

        let mut waiting = Box::pin(reader.readable());
        assert!(poll_once(waiting.as_mut(), &Arc::new(Flag::default())).is_pending());
        drop((reader, waiting));
        let closed = async {
            // std's programs ignore SIGPIPE.
            while writer.write_all(b"x").is_ok() {
                lap().await;
            }
        };
        within(LONG, closed).await;
    });
}

#[test]
fn a_number_that_is_given_out_anew_is_waited_for_anew() {
    on_every_driver(async || {
        let mut numbers = Vec::new();
        for _ in 0..20 {
            let (reader, mut writer) = pipe();
            numbers.push(reader.get_ref().as_raw_fd());
            let mut waiting = pin!(reader.readable());
            assert!(poll_once(waiting.as_mut(), &Arc::new(Flag::default())).is_pending());
            lap().await;
            writer.write_all(b"x").unwrap();
            within(LONG, waiting).await.unwrap();
            drop(reader);
            // Closed by now: the lowest free number is the next pipe's, unless another test has it.
        }
        assert_eq!(numbers.len(), 20);
    });
}

#[test]
fn one_descriptor_may_be_waited_for_by_two_and_outlives_either() {
    on_every_driver(async || {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let reader = Rc::new(OwnedFd::from(reader));
        for first_goes in [true, false] {
            let one = PollFd::new(Rc::clone(&reader)).unwrap();
            let two = PollFd::new(Rc::clone(&reader)).unwrap();
            let wait_two = two.readable();
            let mut wait_two = Box::pin(wait_two);
            let mut wait_one = Box::pin(one.readable());
            assert!(poll_once(wait_two.as_mut(), &Arc::new(Flag::default())).is_pending());
            assert!(poll_once(wait_one.as_mut(), &Arc::new(Flag::default())).is_pending());
            lap().await;
            if first_goes {
                drop((wait_one, one));
                lap().await;
            }
            writer.write_all(b"x").unwrap();
            assert!(within(LONG, wait_two).await.unwrap().is_readable());
            let mut byte = [0];
            let copy = reader.try_clone().unwrap();
            PipeReader::from(copy).read_exact(&mut byte).unwrap();
        }
    });
}

#[test]
fn a_regular_file_is_always_ready() {
    on_every_driver(async || {
        let file = PollFd::new(std::fs::File::open("/proc/self/exe").unwrap()).unwrap();
        assert!(within(LONG, file.readable()).await.unwrap().is_readable());
        assert!(within(LONG, file.writable()).await.unwrap().is_writable());
    });
}

#[test]
fn a_number_that_is_not_open_is_an_error() {
    on_every_driver(async || {
        // SAFETY: nothing is read or written through it, and nothing has so high a number.
        let wild = unsafe { BorrowedFd::borrow_raw(1_000_000) };
        let wild = PollFd::new(wild).unwrap();
        let error = within(LONG, wild.readable()).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    });
}

#[test]
fn whoever_takes_the_descriptor_back_waits_until_no_request_names_it() {
    on_every_driver(async || {
        let (reader, mut writer) = pipe();
        let number = reader.get_ref().as_raw_fd();
        let mut waiting = Box::pin(reader.readable());
        assert!(poll_once(waiting.as_mut(), &Arc::new(Flag::default())).is_pending());
        // One that is awaited still, and is then dropped.
        let mut taking = Box::pin(reader.into_inner());
        assert!(poll_once(taking.as_mut(), &Arc::new(Flag::default())).is_pending());
        lap().await;
        assert!(poll_once(taking.as_mut(), &Arc::new(Flag::default())).is_pending());
        drop(waiting);
        let mut reader = within(LONG, taking).await;
        assert_eq!(reader.as_fd().as_raw_fd(), number);
        writer.write_all(b"x").unwrap();
        reader.read_exact(&mut [0]).unwrap();
    });
}

#[test]
fn a_runtime_that_ends_ends_the_waits_and_leaves_nothing() {
    isolated(|| {
        for kind in [DriverKind::Uring, DriverKind::Epoll] {
            let open = Ledger::open();
            let mut runtime = Builder::new().driver(kind).build().unwrap();
            runtime.block_on(async {
                for _ in 0..50 {
                    let (reader, writer) = pipe();
                    drop(quoit::spawn(async move {
                        let _ = reader.readable().await;
                        drop(writer);
                        unreachable!("nothing is written");
                    }));
                }
                lap().await;
            });
            assert_eq!(runtime.shutdown(LONG), 0);
            drop(runtime);
            open.close();
        }
    });
}

#[test]
fn a_simulated_core_has_no_foreign_descriptors() {
    let driver = move |_| Ok(quoit::sim::driver(1, quoit::sim::Faults::default()));
    Builder::new()
        .driver_with(driver)
        .run(async {
            let (reader, _writer) = std::io::pipe().unwrap();
            assert_eq!(PollFd::new(reader).unwrap_err().kind(), ErrorKind::Unsupported);
        })
        .unwrap();
}

#[test]
#[should_panic(expected = "outside of a runtime")]
fn outside_of_a_runtime_it_says_how_to_start_one() {
    let (reader, _writer) = std::io::pipe().unwrap();
    let _ = PollFd::new(reader);
}
