//! Which kernel the cores talk to, and what is said when it is not the one that was wanted.

use std::io::{Read, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use quoit::driver::DriverKind;
use quoit::net::TcpStream;
use quoit::runtime::{self, Builder, ErrorKind};

use crate::support::{isolated, kill_at, refuse, scaled};

const CALLS: [libc::c_long; 3] =
    [libc::SYS_io_uring_setup, libc::SYS_io_uring_register, libc::SYS_io_uring_enter];

/// A builder, and the lines that it logs.
fn logged() -> (Builder, Arc<Mutex<Vec<String>>>) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&lines);
    // Whatever the environment says.
    let builder = Builder::new().driver(DriverKind::Auto);
    let builder = builder.log(move |line| kept.lock().unwrap().push(line.to_owned()));
    (builder, lines)
}

/// Whether this build has a driver that can take the place of io_uring.
fn has_epoll() -> bool {
    let error = DriverKind::Epoll.open().err();
    if let Some(error) = &error {
        println!("skipped: there is no epoll driver: {error}");
    }
    error.is_none()
}

/// Some work that needs a kernel: 4 KiB to a peer of this core alone, and back.
async fn echo() {
    // Quoit's own listeners would share a port among the cores.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (mut peer, _) = listener.accept().unwrap();
    let sent = stream.write_all(vec![7_u8; 4096]).await.unwrap();
    let mut got = vec![0; 4096];
    peer.read_exact(&mut got).unwrap();
    peer.write_all(&got).unwrap();
    drop(peer);
    let mut back = Vec::new();
    while let Some(chunk) = stream.recv().await.unwrap() {
        back.extend_from_slice(&chunk);
    }
    assert_eq!(back, sent);
}

/// Starts with `call` refused: on epoll, said once.
fn falls_back(call: libc::c_long, errno: i32, name: &str) {
    if !has_epoll() {
        return;
    }
    refuse(call, errno);
    let (builder, lines) = logged();
    let start = Instant::now();
    builder
        .clone()
        .cores(3)
        .start_per_core(async || {
            assert_eq!(runtime::driver(), "epoll");
            echo().await;
        })
        .unwrap();
    println!("three cores, one echo each, after {:?}", start.elapsed());
    let said = std::mem::take(&mut *lines.lock().unwrap());
    let said: Vec<_> = said.iter().filter(|line| line.contains("epoll")).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    for needle in ["epoll is used instead of io_uring", name, "seccomp", "Docker"] {
        assert!(said[0].contains(needle), "`{needle}` is not in: {}", said[0]);
    }
    builder.run(async { assert_eq!(runtime::driver(), "epoll") }).unwrap();
    assert_eq!(lines.lock().unwrap().len(), 1);
}

#[test]
fn a_filter_that_says_eperm_leads_to_epoll_and_is_named_once() {
    isolated(|| falls_back(libc::SYS_io_uring_setup, libc::EPERM, "io_uring_setup gave EPERM"));
}

#[test]
fn a_filter_that_says_enosys_leads_to_epoll_too() {
    isolated(|| falls_back(libc::SYS_io_uring_setup, libc::ENOSYS, "io_uring_setup gave ENOSYS"));
}

#[test]
fn a_ring_that_may_be_opened_but_not_asked_leads_to_epoll() {
    let what = "IORING_REGISTER_PROBE gave EPERM";
    isolated(move || falls_back(libc::SYS_io_uring_register, libc::EPERM, what));
}

#[test]
fn a_ring_that_may_be_opened_but_not_entered_leads_to_epoll() {
    isolated(|| falls_back(libc::SYS_io_uring_enter, libc::EPERM, "io_uring_enter gave EPERM"));
}

#[test]
fn a_lack_of_descriptors_or_memory_is_an_error_and_not_a_reason_to_fall_back() {
    isolated(|| {
        for (errno, name) in [(libc::EMFILE, "EMFILE"), (libc::ENOMEM, "ENOMEM")] {
            // A filter stays with its thread.
            let thread = std::thread::spawn(move || {
                refuse(libc::SYS_io_uring_setup, errno);
                let (builder, lines) = logged();
                let error = builder.start_per_core(async || {}).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Start);
                assert!(
                    error.to_string().contains(&format!("io_uring_setup gave {name}")),
                    "{error}"
                );
                assert!(lines.lock().unwrap().is_empty());
            });
            thread.join().unwrap();
        }
    });
}

#[test]
fn whoever_asks_for_io_uring_gets_the_refusal() {
    isolated(|| {
        refuse(libc::SYS_io_uring_setup, libc::EPERM);
        let (builder, lines) = logged();
        let builder = builder.driver(DriverKind::Uring);
        let start = Instant::now();
        let error = builder.clone().run(async {}).unwrap_err();
        println!("after {:?}: {error}", start.elapsed());
        for error in [error, builder.cores(2).start_per_core(async || {}).unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::Start);
            assert!(error.to_string().contains("io_uring_setup gave EPERM"), "{error}");
        }
        assert!(lines.lock().unwrap().iter().all(|line| line.starts_with("also: ")));
    });
}

#[test]
fn the_environment_forbids_the_fallback() {
    isolated(|| {
        // SAFETY: no other thread of this process reads the environment.
        unsafe { std::env::set_var("QUOIT_DRIVER", "uring") };
        runtime::run(async { assert_eq!(runtime::driver(), "io_uring") }).unwrap();
        refuse(libc::SYS_io_uring_setup, libc::ENOSYS);
        let text = runtime::run(async {}).unwrap_err().to_string();
        assert!(text.contains("io_uring_setup gave ENOSYS") && !text.contains("poll"), "{text}");
    });
}

#[test]
fn nonsense_in_the_environment_is_a_start_error_with_the_choices() {
    isolated(|| {
        // SAFETY: no other thread of this process reads the environment.
        unsafe { std::env::set_var("QUOIT_DRIVER", "io-uring") };
        for result in [runtime::run(async {}), runtime::start_per_core(async || {})] {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Start);
            let text = error.to_string();
            assert!(text.contains("reading QUOIT_DRIVER: `io-uring` is no driver"), "{text}");
            assert!(text.contains("choose auto, uring or epoll"), "{text}");
        }
        // Whoever has chosen does not ask it.
        Builder::new().driver(DriverKind::Uring).run(async {}).unwrap();
    });
}

#[test]
fn epoll_touches_no_call_of_io_uring_where_that_would_be_deadly() {
    isolated(|| {
        if !has_epoll() {
            return;
        }
        CALLS.into_iter().for_each(kill_at);
        let builder = Builder::new().driver(DriverKind::Epoll);
        builder.clone().run(echo()).unwrap();
        builder.cores(2).start_per_core(async || echo().await).unwrap();
    });
}

#[test]
fn every_core_of_a_start_has_the_same_kernel() {
    let kinds = Arc::new(Mutex::new(Vec::new()));
    for _ in 0..scaled(5) {
        let seen = Arc::clone(&kinds);
        Builder::new()
            .cores(4)
            .start_per_core(async move || seen.lock().unwrap().push(runtime::driver()))
            .unwrap();
    }
    let kinds = kinds.lock().unwrap();
    assert!(kinds.len() == scaled(5) * 4 && kinds.iter().all(|kind| *kind == kinds[0]));
}

#[test]
fn a_driver_of_ones_own_is_opened_once_on_each_core_and_asked_for_its_name() {
    let cores = Arc::new(Mutex::new(Vec::new()));
    let opened = Arc::clone(&cores);
    Builder::new()
        .cores(2)
        .driver_with(move |core| {
            opened.lock().unwrap().push(core);
            DriverKind::Auto.open()
        })
        .start_per_core(async || {
            quoit::time::sleep(Duration::from_millis(1)).await;
            assert!(["io_uring", "epoll"].contains(&runtime::driver()));
        })
        .unwrap();
    cores.lock().unwrap().sort_unstable();
    assert_eq!(*cores.lock().unwrap(), [0, 1]);
}
