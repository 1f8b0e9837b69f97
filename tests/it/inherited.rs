//! Listeners that outlive a process: what a service manager gives, and what a successor gets.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use quoit::net::{Accept, HandOver, TcpListener, TcpStream};
use quoit::runtime::{self, Builder, Core};
use quoit::time::{sleep, timeout};

use crate::loopback::{isolated, lap, ledger, run, until, within};
use crate::support::patient;

/// Which of the servers of a test this process is.
const GENERATION: &str = "QUOIT_GENERATION";
/// A server that nobody stops ends by itself.
const LIFE: Duration = Duration::from_secs(60);

/// The test binary once more, for one test.
fn again(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]);
    command
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{line}").unwrap();
    out.flush().unwrap();
}

#[test]
fn a_listener_of_a_service_manager_is_found_by_its_name() {
    if std::env::var_os(GENERATION).is_some() {
        return run(async {
            assert_eq!(TcpListener::inherited("other").unwrap_err().kind(), ErrorKind::NotFound);
            let error = TcpListener::inherited("no socket").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            let mut listeners = TcpListener::inherited("http").unwrap();
            assert_eq!(listeners.len(), 2);
            let again = TcpListener::inherited("http").unwrap_err();
            assert_eq!(again.kind(), ErrorKind::AddrInUse);
            for listener in listeners.drain(..) {
                let (stream, _) = within(Duration::from_secs(10), listener.accept()).await.unwrap();
                stream.write_all("found").await.unwrap();
                listener.close().await.unwrap();
            }
            // What nobody has any more is gone.
            assert_eq!(TcpListener::inherited("http").unwrap_err().kind(), ErrorKind::NotFound);
        });
    }
    let listeners =
        [(); 2].map(|()| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    // As event loops leave it.
    listeners[1].set_nonblocking(true).unwrap();
    let mut hand_over = HandOver::new();
    hand_over.add("http", &listeners[0]).unwrap();
    hand_over.add("no socket", &std::fs::File::open("/dev/null").unwrap()).unwrap();
    hand_over.add("http", &listeners[1]).unwrap();
    let addresses = listeners.map(|listener| listener.local_addr().unwrap());
    // It waits in the backlog, before there is a child, and while this process has the socket no
    // longer.
    let client = |address| std::net::TcpStream::connect(address).unwrap();
    let first = client(addresses[0]);
    let mut command = again("inherited::a_listener_of_a_service_manager_is_found_by_its_name");
    command.env(GENERATION, "1").stdout(Stdio::null());
    let mut child = hand_over.spawn(command).unwrap();
    let is_served = |mut client: std::net::TcpStream| {
        let mut text = String::new();
        client.set_read_timeout(Some(patient(Duration::from_secs(20)))).unwrap();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "found");
    };
    is_served(first);
    // Most likely the child's next accept waits by now.
    thread::sleep(Duration::from_millis(20));
    is_served(client(addresses[1]));
    assert!(child.wait().unwrap().success());
}

#[test]
fn descriptors_for_another_process_are_left_alone() {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    if std::env::var_os(GENERATION).is_some() {
        drop(listener);
        return run(async {
            assert_eq!(TcpListener::inherited("x").unwrap_err().kind(), ErrorKind::NotFound);
        });
    }
    // The number of the process is wrong, as for a child of the one that they were for.
    let mut command = again("inherited::descriptors_for_another_process_are_left_alone");
    command.envs([(GENERATION, "1"), ("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "x")]);
    command.env("LISTEN_PID", "1").stdout(Stdio::null());
    assert!(command.status().unwrap().success());
}

#[test]
fn names_and_programs_that_cannot_be_are_refused() {
    isolated(|| {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut hand_over = HandOver::new();
        let long = "a".repeat(256);
        for name in ["", "a:b", "a\0b", "a\nb", &long] {
            let error = hand_over.add(name, &listener).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name:?}");
        }
        hand_over.add("x", &listener).unwrap();
        let error = hand_over.spawn(Command::new("/nonexistent/program")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let mut hand_over = HandOver::new();
        hand_over.add("x", &listener).unwrap();
        assert!(hand_over.spawn(Command::new("a\0b")).is_err());
    });
}

#[test]
fn what_was_accepted_and_not_taken_is_given_out_at_the_end() {
    isolated(|| {
        ledger(async || {
            for mode in [Accept::PerCore, Accept::Shared, Accept::Distributed] {
                let listener =
                    TcpListener::bind_with((Ipv4Addr::LOCALHOST, 0), mode).await.unwrap();
                let address = listener.local_addr().unwrap();
                // The kernel keeps the socket: here for a descriptor that stands for a successor.
                let successor = {
                    use std::os::fd::AsFd;
                    let fd = listener.as_fd().try_clone_to_owned().unwrap();
                    std::net::TcpListener::from(fd)
                };
                let mut clients = vec![std::net::TcpStream::connect(address).unwrap()];
                let (first, _) = listener.accept().await.unwrap();
                for _ in 0..10 {
                    clients.push(std::net::TcpStream::connect(address).unwrap());
                }
                lap().await;
                let mut served = vec![first];
                let rest = listener.finish().await.unwrap();
                served.extend(rest.into_iter().map(|(stream, _)| stream));
                for stream in &served {
                    stream.write_all("x").await.unwrap();
                }
                successor.set_nonblocking(true).unwrap();
                let mut theirs = 0;
                while let Ok((mut stream, _)) = successor.accept() {
                    stream.write_all(b"x").unwrap();
                    theirs += 1;
                }
                assert_eq!(served.len() + theirs, 11, "{mode:?}");
                for mut client in clients {
                    assert_eq!(client.read(&mut [0; 1]).unwrap(), 1);
                }
                drop(served);
            }
        });
    });
}

/// Echoes one byte, and says which generation did.
async fn echo(stream: TcpStream, generation: u8) {
    if let Ok(byte) = stream.read_exact([0; 1]).await {
        let _ = stream.write_all([byte[0], generation]).await;
    }
}

/// A server of two cores that is replaced when its input says so.
fn serve(generation: u8) {
    let stop = Arc::new(AtomicBool::new(false));
    let (hand_over, added) = (Arc::new(Mutex::new(HandOver::new())), AtomicUsize::new(0));
    let (told, added) = (Arc::clone(&stop), Arc::new(added));
    let (theirs, count) = (Arc::clone(&hand_over), Arc::clone(&added));
    if generation == 1 {
        thread::spawn(move || {
            let mut lines = std::io::stdin().lines();
            assert_eq!(lines.next().unwrap().unwrap(), "restart");
            let mut command = again("inherited::a_restart_under_load_refuses_no_connection");
            command.env(GENERATION, "2").stdin(Stdio::null());
            while count.load(Ordering::SeqCst) < 2 {
                thread::sleep(Duration::from_millis(1));
            }
            let hand_over = std::mem::take(&mut *theirs.lock().unwrap());
            drop(hand_over.spawn(command).unwrap());
            // The successor's ready line goes to whoever reads ours, who then says so.
            assert_eq!(lines.next().unwrap().unwrap(), "finish");
            told.store(true, Ordering::SeqCst);
        });
    }
    let end = Instant::now() + LIFE;
    Builder::new()
        .cores(2)
        .start_per_core(async move || {
            let listeners = match TcpListener::inherited("echo") {
                Ok(listeners) => listeners,
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                    hand_over.lock().unwrap().add("echo", &listener).unwrap();
                    vec![listener]
                }
                Err(error) => panic!("{error}"),
            };
            let address = listeners[0].local_addr().unwrap();
            let tasks: Vec<_> = listeners
                .into_iter()
                .map(|listener| {
                    let stop = Arc::clone(&stop);
                    quoit::spawn(async move {
                        let mut last = Vec::new();
                        while !stop.load(Ordering::SeqCst) && Instant::now() < end {
                            let accepting = timeout(Duration::from_millis(5), listener.accept());
                            if let Ok(accepted) = accepting.await {
                                drop(quoit::spawn(echo(accepted.unwrap().0, generation)));
                            }
                        }
                        for (stream, _) in listener.finish().await.unwrap() {
                            last.push(quoit::spawn(echo(stream, generation)));
                        }
                        for task in last {
                            task.await.unwrap();
                        }
                    })
                })
                .collect();
            if added.fetch_add(1, Ordering::SeqCst) == 1 {
                say(&format!("ready {generation} {} {address}", std::process::id()));
            }
            for task in tasks {
                task.await.unwrap();
            }
            // Those that were accepted before are answered, too.
            sleep(Duration::from_millis(50)).await;
        })
        .unwrap();
}

#[test]
fn a_restart_under_load_refuses_no_connection() {
    if let Ok(generation) = std::env::var(GENERATION) {
        return serve(generation.parse().unwrap());
    }
    let mut command = again("inherited::a_restart_under_load_refuses_no_connection");
    command.env(GENERATION, "1").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut server = command.spawn().unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let mut input = server.stdin.take().unwrap();
    let mut ready = |generation: u8| {
        let wanted = format!("ready {generation} ");
        let line = lines.by_ref().map(Result::unwrap).find(|line| line.starts_with(&wanted));
        let line = line.expect("the server has ended before it was ready");
        let mut words = line.split(' ').skip(2);
        let pid: i32 = words.next().unwrap().parse().unwrap();
        let address: SocketAddr = words.next().unwrap().parse().unwrap();
        (pid, address)
    };
    let (_, address) = ready(1);
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                let mut answered = [0; 3];
                while !stop.load(Ordering::SeqCst) {
                    let mut stream =
                        std::net::TcpStream::connect(address).expect("a connection was refused");
                    stream.set_read_timeout(Some(patient(Duration::from_secs(20)))).unwrap();
                    stream.write_all(b"x").expect("a connection was reset");
                    let mut answer = [0; 2];
                    stream.read_exact(&mut answer).expect("a connection was lost");
                    answered[usize::from(answer[1])] += 1;
                }
                answered
            })
        })
        .collect();
    thread::sleep(Duration::from_millis(50));
    writeln!(input, "restart").unwrap();
    let (successor, again) = ready(2);
    assert_eq!(again, address);
    thread::sleep(Duration::from_millis(50));
    writeln!(input, "finish").unwrap();
    let ended = server.wait().unwrap();
    thread::sleep(Duration::from_millis(50));
    stop.store(true, Ordering::SeqCst);
    let answered: Vec<_> = clients.into_iter().map(thread::JoinHandle::join).collect();
    // SAFETY: the call takes no pointers; the process is the server's child, which was just asked.
    assert_eq!(unsafe { libc::kill(successor, libc::SIGTERM) }, 0);
    assert!(ended.success());
    for answered in answered {
        let answered = answered.expect("a client has failed");
        assert!(answered[1] > 0 && answered[2] > 0, "{answered:?}");
    }
}

#[test]
fn a_successor_gets_the_processes_cpus_and_no_blocked_signal() {
    isolated(|| {
        let line = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).expect("a line");
            line.split_once(':').unwrap().1.trim().to_owned()
        };
        let own = || std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let allowed = line(&own(), "Cpus_allowed");
        Builder::new()
            .cores(2)
            .start_per_core(async move |_: Core| {
                let before = own();
                // The core is not as its successor is to be.
                assert_ne!(line(&before, "SigBlk"), "0".repeat(16));
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                let mut hand_over = HandOver::new();
                hand_over.add("x", &listener).unwrap();
                let mut command = Command::new("cat");
                command.arg("/proc/self/status").stdout(Stdio::piped());
                let child = hand_over.spawn(command).unwrap();
                let output = quoit::spawn_blocking(|| child.wait_with_output()).await.unwrap();
                let status = String::from_utf8(output.unwrap().stdout).unwrap();
                assert_eq!(line(&status, "Cpus_allowed"), allowed);
                assert_eq!(line(&status, "SigBlk"), "0".repeat(16));
                for name in ["Cpus_allowed", "SigBlk"] {
                    assert_eq!(line(&own(), name), line(&before, name), "the core is as it was");
                }
            })
            .unwrap();
    });
}

#[test]
fn cores_share_what_was_inherited() {
    if std::env::var_os(GENERATION).is_some() {
        let accepted = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        let bound = Arc::new(AtomicUsize::new(0));
        return Builder::new()
            .cores(2)
            .start_per_core(async move || {
                let listener = TcpListener::inherited("x").unwrap().remove(0);
                bound.fetch_add(1, Ordering::SeqCst);
                until(|| bound.load(Ordering::SeqCst) == 2).await;
                let all = || accepted.iter().map(|one| one.load(Ordering::SeqCst)).sum::<usize>();
                while all() < 20 {
                    let accepting = timeout(Duration::from_millis(2), listener.accept());
                    if let Ok(accepted_one) = accepting.await {
                        accepted[runtime::core().index()].fetch_add(1, Ordering::SeqCst);
                        accepted_one.unwrap().0.write_all("y").await.unwrap();
                    }
                }
            })
            .unwrap();
    }
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let mut hand_over = HandOver::new();
    hand_over.add("x", &listener).unwrap();
    drop(listener);
    let mut command = again("inherited::cores_share_what_was_inherited");
    command.env(GENERATION, "1").stdout(Stdio::null());
    let mut child = hand_over.spawn(command).unwrap();
    for _ in 0..20 {
        let mut client = std::net::TcpStream::connect(address).unwrap();
        client.set_read_timeout(Some(patient(Duration::from_secs(20)))).unwrap();
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 1);
    }
    assert!(child.wait().unwrap().success());
}
