//! Addresses that cannot be bound, and what is said about them.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use quoit::net::TcpListener;
use quoit::runtime::{self, Builder};

use crate::support::{become_nobody, is_root, isolated};

/// Binds `address`, and reports how long the refusal took.
fn refusal(address: SocketAddr) -> io::Error {
    runtime::run(async move {
        let start = Instant::now();
        let error = TcpListener::bind(address).await.unwrap_err();
        println!("after {:?}: {error}", start.elapsed());
        error
    })
    .unwrap()
}

#[track_caller]
fn assert_says(error: &io::Error, kind: ErrorKind, errno: i32, needles: &[&str]) {
    assert_eq!(error.kind(), kind);
    let source = error.get_ref().and_then(|inner| inner.source()).expect("the system's answer");
    let answer = source.downcast_ref::<io::Error>().unwrap();
    assert_eq!(answer.raw_os_error(), Some(errno));
    for needle in needles {
        assert!(error.to_string().contains(needle), "`{needle}` is not in: {error}");
    }
}

#[test]
fn a_port_of_another_process_names_it() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut other = sleeper_with(listener.into());
    let error = refusal(address);
    other.kill().unwrap();
    other.wait().unwrap();
    let named = format!("process {} (sleep) listens on {address}", other.id());
    assert_says(&error, ErrorKind::AddrInUse, libc::EADDRINUSE, &[&named, "choose another port"]);
}

/// Another program, which has `fd`.
fn sleeper_with(fd: OwnedFd) -> Child {
    let number = fd.as_raw_fd();
    // Becomes the child's by not being closed there.
    let mut command = Command::new("sleep");
    // SAFETY: between fork and exec it only makes a system call.
    unsafe {
        std::os::unix::process::CommandExt::pre_exec(&mut command, move || {
            libc::fcntl(number, libc::F_SETFD, 0);
            Ok(())
        });
    }
    command.arg("60").spawn().unwrap()
}

#[test]
fn a_port_of_this_process_says_so() {
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], listener.local_addr().unwrap().port()));
    let error = refusal(address);
    let named = format!("this process itself listens on 0.0.0.0:{}", address.port());
    assert_says(&error, ErrorKind::AddrInUse, libc::EADDRINUSE, &[&named]);
}

#[test]
fn a_core_that_listens_there_already_is_told_to_share() {
    runtime::run(async {
        let first = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = first.local_addr().unwrap();
        let second = TcpListener::bind(address).await;
        assert_eq!(second.unwrap_err().kind(), ErrorKind::AddrInUse);
        let third = TcpListener::bind("127.0.0.1:0").await.unwrap();
        assert_ne!(third.local_addr().unwrap(), address);
    })
    .unwrap();
}

#[test]
fn a_port_for_the_privileged_names_the_setting_and_the_capability() {
    isolated(|| {
        let setting = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
        let first: u16 = std::fs::read_to_string(setting).unwrap().trim().parse().unwrap();
        if first <= 80 {
            println!("skipped: here everybody may bind port 80");
            return;
        }
        if is_root() {
            become_nobody();
        }
        let error = refusal("127.0.0.1:80".parse().unwrap());
        let below = format!("ports below {first}");
        let needles = [&below, "ip_unprivileged_port_start", "CAP_NET_BIND_SERVICE", "setcap"];
        assert_says(&error, ErrorKind::PermissionDenied, libc::EACCES, &needles);
    });
}

#[test]
fn an_address_of_another_machine_is_told_from_a_port_in_use() {
    let error = refusal("192.0.2.1:0".parse().unwrap());
    let needles = ["no interface of this machine", "0.0.0.0"];
    assert_says(&error, ErrorKind::AddrNotAvailable, libc::EADDRNOTAVAIL, &needles);
}

#[test]
fn a_backlog_that_the_machine_shortens_is_said_once_for_all_cores() {
    let longest = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let is_short = longest.trim().parse::<u64>().unwrap() < 4096;
    let lines = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&lines);
    let builder =
        Builder::new().cores(2).log(move |line| kept.lock().unwrap().push(line.to_owned()));
    builder.start_per_core(async || TcpListener::bind("127.0.0.1:0").await.map(drop)).unwrap();
    let lines = lines.lock().unwrap();
    let said = lines.iter().filter(|line| line.contains("somaxconn")).count();
    assert_eq!(said, usize::from(is_short), "{lines:?}");
}
