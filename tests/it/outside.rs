//! What is used outside of a runtime: the panic names the line that did it.

use std::future::Future;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

use quoit::net::{TcpListener, TcpStream};
use quoit::runtime::{self, Handle};
use quoit::time::{Instant, call_at, call_later};

use crate::support::isolated;

/// Polls once, as any executor would.
fn poll(future: impl Future) {
    let _ = Box::pin(future).as_mut().poll(&mut Context::from_waker(Waker::noop()));
}

#[test]
fn a_call_outside_of_a_runtime_names_its_own_line() {
    isolated(|| {
        let calls: [(&str, fn()); 10] = [
            ("spawn was called outside", || drop(quoit::spawn(async {}))),
            ("spawn was called outside", || quoit::call_soon(|| {})),
            ("spawn_blocking was called outside", || drop(quoit::spawn_blocking(|| {}))),
            ("call_at was used outside", || call_later(Duration::ZERO, || {}).cancel()),
            ("call_at was used outside", || call_at(Instant::now(), || {}).cancel()),
            ("runtime::core was called outside", || drop(runtime::core())),
            ("runtime::stats was called outside", || assert_eq!(runtime::stats().stray, 0)),
            ("runtime::driver was called outside", || {
                assert_eq!(runtime::driver(), "");
            }),
            ("Handle::current was called outside", || drop(Handle::current())),
            ("runtime::run was called inside", || {
                runtime::run(async { drop(runtime::run(async {})) }).unwrap()
            }),
        ];
        for (text, call) in calls {
            let (place, said) = panic_of(call);
            assert_eq!(place, file!(), "{said}");
            assert!(said.starts_with(text), "{said}");
        }
    });
}

#[test]
fn a_future_that_is_awaited_outside_of_a_runtime_names_the_line_that_made_it() {
    isolated(|| {
        let calls: [(&str, fn()); 2] = [
            ("TcpListener::bind", || poll(TcpListener::bind("127.0.0.1:0"))),
            ("TcpStream::connect", || poll(TcpStream::connect("127.0.0.1:1"))),
        ];
        for (name, call) in calls {
            let (_, said) = panic_of(call);
            assert!(said.starts_with(&format!("{name}, called at {}:", file!())), "{said}");
            assert!(said.contains("outside of a runtime; start one with `quoit::runtime::run`"));
        }
    });
}

#[test]
fn a_future_may_be_made_outside_of_a_runtime_and_awaited_inside() {
    let listener = runtime::run(TcpListener::bind("127.0.0.1:0")).unwrap();
    assert!(listener.is_ok());
}

/// In which file `call` panics, and what it says.
fn panic_of(call: fn()) -> (String, String) {
    let place = Arc::new(Mutex::new(String::new()));
    let seen = Arc::clone(&place);
    let hook = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        *seen.lock().unwrap() = panic.location().unwrap().file().to_owned();
    }));
    let panic = panic::catch_unwind(AssertUnwindSafe(call)).unwrap_err();
    panic::set_hook(hook);
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    (place.lock().unwrap().clone(), text.unwrap())
}
