//! A runtime inside a loop that is not its own.

use std::cell::Cell;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use quoit::net::TcpListener;
use quoit::runtime::{Runtime, Turn};

use crate::support::patient;

/// Longer than a lap takes on a slow machine, so that the loop has to sleep.
const PAUSE: Duration = Duration::from_millis(50);

/// Waits in a loop of the test's own, as a foreign one would, until `done`.
fn turn_until(runtime: &Runtime, done: impl Fn() -> bool) -> usize {
    let mut sleeps = 0;
    while !done() {
        if runtime.turn() == Turn::Idle && !done() {
            let fd = runtime.as_fd().as_raw_fd();
            let mut ours = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            let limit = patient(Duration::from_secs(5)).as_millis() as i32;
            // SAFETY: the array of one lives until the call returns.
            let ready = unsafe { libc::poll(&raw mut ours, 1, limit) };
            assert_eq!(ready, 1, "nothing came for a long time");
            sleeps += 1;
        }
    }
    sleeps
}

#[test]
fn a_foreign_loop_turns_a_runtime_and_sleeps_on_its_descriptor() {
    let runtime = Runtime::new().unwrap();
    let server = runtime.spawn(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let other = thread::spawn(move || {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            thread::sleep(PAUSE);
            stream.write_all(b"from outside").unwrap();
        });
        let (stream, _) = listener.accept().await.unwrap();
        let chunk = stream.recv().await.unwrap().unwrap();
        other.join().unwrap();
        assert_eq!(&*chunk, b"from outside");
        quoit::time::sleep(PAUSE).await;
    });
    let sleeps = turn_until(&runtime, || runtime.is_finished(&server));
    assert!((2..100).contains(&sleeps), "it slept {sleeps} times");
    runtime.block_on(server).unwrap();
}

#[test]
fn a_wake_from_another_thread_reaches_a_runtime_that_is_parked_in_a_foreign_loop() {
    let runtime = Runtime::new().unwrap();
    let (sender, hears) = mpsc::channel();
    let handle = runtime.handle();
    while runtime.turn() == Turn::More {}
    let other = thread::spawn(move || {
        thread::sleep(Duration::from_millis(10));
        handle.call_soon(move || sender.send(()).unwrap()).unwrap();
    });
    let heard = Cell::new(false);
    turn_until(&runtime, || {
        heard.set(heard.get() || hears.try_recv().is_ok());
        heard.get()
    });
    other.join().unwrap();
}
