//! The scorecard's faults that concern sockets: one test each, named after its line there.
//!
//! Without `QUOIT_SCALE` a slice runs; `scripts/scorecard.sh` runs them in full, and only then are
//! times and shares of a core held against their bounds.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use quoit::buf::{IoBufMut, PooledBuf};
use quoit::fs::File;
use quoit::net::TcpStream;
use quoit::time::sleep;

use crate::fs::Scratch;
use crate::loopback::{
    Flag, Oracle, Random, anonymous, blackhole, isolated, join, lap, leave_descriptors, ledger,
    listen, pair, pair_of_ours, pattern, poll_once, scaled, set_descriptor_limit, until, within,
};
use crate::quarantine::QuarantineBuf;
use crate::support::{is_instrumented, on_every_driver_with};
use crate::support_alloc::allocations;

/// Prints a figure of the scorecard, and holds it against its bound in a full run.
fn figure(id: &str, what: &str, value: f64, most: f64) {
    println!("\n{id} {what}: {value:.3} (at most {most})");
    let full = std::env::var("QUOIT_SCALE").is_ok();
    assert!(!full || value <= most, "{id} {what}: {value:.3} is more than {most}");
}

fn seconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64()
}

/// Seconds of CPU that the process has used.
fn cpu_seconds() -> f64 {
    // SAFETY: zeros are a valid answer, and it is a place for one.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, &raw mut usage), 0);
        usage
    };
    let time = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// Makes every system call of this thread deadly while `f` runs, from Linux 5.11 on.
fn without_system_calls<R>(f: impl FnOnce() -> R) -> R {
    const SET_DISPATCH: i32 = 59;
    thread_local! {
        static SELECTOR: Cell<u8> = const { Cell::new(0) };
        static IS_ON: Cell<bool> = const { Cell::new(false) };
    }
    if !IS_ON.replace(true) {
        let selector = SELECTOR.with(Cell::as_ptr);
        // SAFETY: the kernel reads the byte for as long as the thread, and so the byte, lives.
        if unsafe { libc::prctl(SET_DISPATCH, 1, 0, 0, selector) } < 0 {
            let error = std::io::Error::last_os_error();
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
            println!(
                "skipped: this kernel cannot trap the calls of a thread, so none is looked for"
            );
        }
    }
    SELECTOR.set(1);
    let result = f();
    SELECTOR.set(0);
    result
}

/// Calls `f`, a drop, which may neither allocate nor make a system call.
fn quietly(f: impl FnOnce()) {
    // A sanitizer's allocator maps memory of its own when something is freed.
    let may_call = is_instrumented();
    let before = allocations();
    if may_call {
        f()
    } else {
        without_system_calls(f)
    }
    assert_eq!(allocations() - before, 0, "the drop allocated");
}

#[test]
fn a_system_call_in_a_quiet_place_is_deadly() {
    use std::os::unix::process::ExitStatusExt;
    const CHILD: &str = "QUOIT_MAKES_A_CALL";
    if std::env::var(CHILD).is_ok() {
        // SAFETY: the call takes no pointers.
        without_system_calls(|| unsafe { libc::getppid() });
        return;
    }
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["scorecard_net::a_system_call_in_a_quiet_place_is_deadly", "--exact"])
        .args(["--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    if let Some(line) = said.lines().find(|line| line.contains("skipped: ")) {
        println!("{line}");
        return;
    }
    assert_eq!(child.status.signal(), Some(libc::SIGSYS));
}

/// S1: streams whose operations are submitted and dropped before the kernel has seen them.
async fn submit_and_drop<B: IoBufMut>(count: usize, buf: impl Fn(usize) -> B) {
    let mut streams = Vec::new();
    for _ in 0..64 {
        streams.push(pair_of_ours().await);
    }
    let flag = Arc::new(Flag::default());
    for kind in 0..6 {
        for round in 0..count {
            let (stream, _) = &streams[round % streams.len()];
            match kind {
                0 => submit(stream.read(buf(512)), &flag),
                1 => submit(stream.read_exact(buf(512)), &flag),
                2 => submit(stream.recv(), &flag),
                3 => submit(stream.write(buf(1)), &flag),
                4 => {
                    stream.set_zero_copy(Some(4096));
                    submit(stream.write_all(buf(4096)), &flag);
                }
                _ => submit(stream.write_all_vectored([buf(1), buf(0)]), &flag),
            }
            // One operation of a stream is in flight at a time; so are those of all streams.
            if round % streams.len() == streams.len() - 1 {
                lap().await;
                for (_, peer) in &streams {
                    // What was sent after all must not fill the sockets.
                    drop(within_a_poll(peer.recv(), &flag));
                }
            }
        }
        lap().await;
        if kind == 2 {
            // Their receive goes on, and would take what the peers send from here on.
            streams.clear();
            for _ in 0..64 {
                streams.push(pair_of_ours().await);
            }
        }
    }
}

fn within_a_poll<F: Future>(operation: F, flag: &Arc<Flag>) -> Option<F::Output> {
    match poll_once(pin!(operation), flag) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// Polls once and drops quietly.
fn submit<F: Future>(operation: F, flag: &Arc<Flag>) {
    let mut operation = pin!(Some(operation));
    assert!(poll_once(operation.as_mut().as_pin_mut().unwrap(), flag).is_pending());
    quietly(|| operation.set(None));
}

#[test]
fn s01_operations_dropped_before_the_kernel_saw_them_leave_nothing() {
    isolated(|| {
        let start = Instant::now();
        let count = scaled(100_000, 2_000);
        // First without the quarantine, which is memory itself.
        ledger(async || {
            submit_and_drop(count / 100 + 1, |len| vec![0; len]).await;
            let before = anonymous();
            submit_and_drop(count, |len| vec![0; len]).await;
            accept_and_connect(count).await;
            let grown = anonymous().saturating_sub(before);
            figure("S1", "MiB grown", grown as f64 / f64::from(1 << 20), 8.0);
        });
        figure("S1", "seconds", seconds(start), 10.0);
        // The quarantine is work of the test's own.
        let filled = |len| QuarantineBuf::of(&[7; 4096][..len]);
        ledger(async || submit_and_drop(count, filled).await);
    });
}

/// S1: accepts, and connects to an address that does not answer.
async fn accept_and_connect(count: usize) {
    let flag = Arc::new(Flag::default());
    let (listener, _) = listen().await;
    for round in 0..count {
        submit(listener.accept(), &flag);
        if round % 64 == 0 {
            lap().await;
        }
    }
    for _ in 0..count / 20 {
        let (listener, _) = listen().await;
        submit(listener.accept(), &flag);
        drop(listener);
        lap().await;
    }
    let (_listener, _filling, address) = blackhole();
    for round in 0..count {
        submit(TcpStream::connect(address), &flag);
        if round % 64 == 0 {
            lap().await;
        }
    }
    lap().await;
}

#[test]
fn s02_receives_dropped_while_the_peer_sends_lose_nothing_and_corrupt_nothing() {
    isolated(|| {
        ledger(async || {
            let rounds = scaled(100_000, 6_000) / 64;
            let (mut tasks, mut peers) = (Vec::new(), Vec::new());
            let open = Rc::new(Cell::new(64));
            for number in 0..64 {
                let (stream, peer) = pair().await;
                peers.push(peer);
                let open = Rc::clone(&open);
                tasks.push(quoit::spawn(async move {
                    let mut oracle = Oracle::default();
                    drop_receives(&stream, number, rounds, &mut oracle).await;
                    // From here on nothing is dropped; the peer ends when all have come so far.
                    open.set(open.get() - 1);
                    while let Some(bytes) = stream.recv().await.unwrap() {
                        oracle.take(&bytes);
                    }
                    oracle.0
                }));
            }
            let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
            let stopped = Arc::clone(&stop);
            let sender = thread::spawn(move || send_to_all(&mut peers, &stopped));
            while open.get() > 0 {
                sleep(Duration::from_millis(5)).await;
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            let sent = join_later(sender);
            let mut received = Vec::new();
            for task in tasks {
                received.push(task.await.unwrap());
            }
            assert_eq!(sent.await, received);
        });
    });
}

async fn join_later<T>(thread: thread::JoinHandle<T>) -> T {
    join(thread).await
}

/// Sends pieces of the pattern to all peers in turn until told to stop; says how much each got.
fn send_to_all(peers: &mut [StdStream], stop: &std::sync::atomic::AtomicBool) -> Vec<u64> {
    let (mut random, mut sent) = (Random::new(2), vec![0; peers.len()]);
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        let index = random.below(peers.len());
        let bytes = pattern(sent[index], random.size(2000));
        peers[index].write_all(&bytes).unwrap();
        sent[index] += bytes.len() as u64;
    }
    peers.iter().for_each(|peer| peer.shutdown(std::net::Shutdown::Write).unwrap());
    sent
}

/// S2: begins reads, and drops most of them at some moment; those in flight quietly.
async fn drop_receives(stream: &TcpStream, seed: u64, rounds: usize, oracle: &mut Oracle) {
    let mut random = Random::new(seed);
    for _ in 0..rounds {
        let flag = Arc::new(Flag::default());
        let buf = QuarantineBuf::new(random.size(4096));
        let mut reading: Pin<Box<dyn Future<Output = Vec<u8>>>> = match random.below(3) {
            0 => Box::pin(async {
                stream.recv().await.unwrap().map_or(Vec::new(), |bytes| bytes.to_vec())
            }),
            1 => Box::pin(async { stream.read(buf).await.unwrap().1.to_vec() }),
            _ => Box::pin(async { stream.read_exact(buf).await.unwrap().to_vec() }),
        };
        let mut answer = poll_once(reading.as_mut(), &flag);
        for _ in 0..random.below(4) {
            if answer.is_ready() {
                break;
            }
            lap().await;
            if random.below(2) == 0 {
                answer = poll_once(reading.as_mut(), &flag);
            }
        }
        match answer {
            Poll::Ready(bytes) => oracle.take(&bytes),
            Poll::Pending => drop(reading),
        }
    }
}

#[test]
fn s02_a_drop_of_a_receive_in_flight_makes_no_system_call_and_allocates_nothing() {
    isolated(|| {
        ledger(async || {
            let (ours, theirs) = pair_of_ours().await;
            for round in 0..scaled(10_000, 500) {
                let flag = Arc::new(Flag::default());
                match round % 3 {
                    0 => drop_in_flight(ours.recv(), &flag).await,
                    1 => drop_in_flight(ours.read(QuarantineBuf::new(64)), &flag).await,
                    _ => drop_in_flight(ours.read_exact(QuarantineBuf::new(64)), &flag).await,
                }
                if round % 10 == 0 {
                    theirs.write_all(b"some bytes").await.unwrap();
                    ours.read_exact(QuarantineBuf::new(10)).await.unwrap();
                }
            }
        });
    });
}

async fn drop_in_flight<F: Future>(operation: F, flag: &Arc<Flag>) {
    let mut operation = pin!(Some(operation));
    assert!(poll_once(operation.as_mut().as_pin_mut().unwrap(), flag).is_pending());
    lap().await;
    assert!(poll_once(operation.as_mut().as_pin_mut().unwrap(), flag).is_pending());
    quietly(|| operation.set(None));
}

#[test]
fn s02_a_drop_of_a_receive_that_was_answered_is_as_quiet_and_loses_nothing() {
    isolated(|| {
        ledger(async || {
            let (ours, theirs) = pair_of_ours().await;
            for round in 0..scaled(10_000, 500) {
                let flag = Arc::new(Flag::default());
                match round % 2 {
                    0 => drop_answered(ours.read(QuarantineBuf::new(64)), &theirs, &flag).await,
                    _ => drop_answered(ours.read(QuarantineBuf::new(5)), &theirs, &flag).await,
                }
                let bytes = ours.read_exact(QuarantineBuf::new(10)).await.unwrap();
                assert_eq!(&bytes[..], b"some bytes");
            }
        });
    });
}

async fn drop_answered<F: Future>(operation: F, peer: &TcpStream, flag: &Arc<Flag>) {
    let mut operation = pin!(Some(operation));
    assert!(poll_once(operation.as_mut().as_pin_mut().unwrap(), flag).is_pending());
    peer.write_all(b"some bytes").await.unwrap();
    until(|| flag.is_set()).await;
    quietly(|| operation.set(None));
}

#[test]
fn s03_a_connection_that_comes_to_a_dropped_accept_is_accepted_next_or_ends() {
    isolated(|| {
        ledger(async || {
            let rounds = scaled(20_000, 1000);
            let mut random = Random::new(3);
            let (mut listener, mut address) = listen().await;
            let (mut peers, mut ends) = (Vec::new(), 0.0_f64);
            for round in 0..rounds {
                let flag = Arc::new(Flag::default());
                {
                    let mut accepting = pin!(listener.accept());
                    assert!(poll_once(accepting.as_mut(), &flag).is_pending());
                    for _ in 0..random.below(3) {
                        lap().await;
                    }
                    if random.below(2) == 0 {
                        peers.push(StdStream::connect(address).unwrap());
                        for _ in 0..random.below(3) {
                            lap().await;
                        }
                    }
                }
                // After the drop, and before the cancel of one that was dropped could be submitted.
                peers.push(StdStream::connect(address).unwrap());
                if round % 10 == 9 {
                    drop(std::mem::replace(&mut listener, listen().await.0));
                    address = listener.local_addr().unwrap();
                    lap().await;
                    let start = Instant::now();
                    for peer in &mut peers {
                        peer.set_nonblocking(true).unwrap();
                        until(|| ends_by_now(peer)).await;
                    }
                    peers.clear();
                    ends = ends.max(seconds(start));
                }
                for peer in peers.drain(..) {
                    let accepted = within(Duration::from_secs(2), listener.accept()).await;
                    let (stream, from) = accepted.unwrap();
                    assert_eq!(from, peer.local_addr().unwrap());
                    stream.set_reset_on_close(true).unwrap();
                }
            }
            figure("S3", "seconds until a client of a dropped listener knew", ends, 0.1);
        });
    });
}

#[test]
fn s04_connects_that_are_dropped_whether_or_not_they_succeed_close_one_socket_once() {
    isolated(|| {
        ledger(async || {
            let (listener, address) = listen().await;
            let mut random = Random::new(4);
            let mut sentinels = Vec::new();
            for round in 0..scaled(10_000, 1000) {
                let mut connecting = Box::pin(TcpStream::connect(address));
                let flag = Arc::new(Flag::default());
                assert!(poll_once(connecting.as_mut(), &flag).is_pending());
                for _ in 0..random.below(3) {
                    lap().await;
                }
                drop(connecting);
                lap().await;
                // It gets the number that was just free; a second close would close it.
                if round % 10 == 0 {
                    sentinels.push(std::fs::File::open("/dev/null").unwrap());
                }
                if sentinels.len() > 20 {
                    sentinels.drain(..).for_each(|file| assert!(file.metadata().is_ok()));
                }
                // Those that succeeded are in the backlog, which must not fill.
                while let Some(accepted) = within_a_poll(listener.accept(), &flag) {
                    accepted.unwrap().0.set_reset_on_close(true).unwrap();
                }
            }
            sentinels.drain(..).for_each(|file| assert!(file.metadata().is_ok()));
            lap().await;
            while within_a_poll(listener.accept(), &Arc::new(Flag::default())).is_some() {}
        });
    });
}

/// Whether the other end has closed or reset the connection.
fn ends_by_now(peer: &mut StdStream) -> bool {
    match peer.read(&mut [0; 1]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

/// `future`, or nothing after `patience`; the future is dropped then.
async fn timeout<T>(patience: Duration, future: impl Future<Output = T>) -> Option<T> {
    let (mut future, mut late) = (pin!(future), pin!(sleep(patience)));
    poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Some(output));
        }
        late.as_mut().poll(context).map(|()| None)
    })
    .await
}

#[test]
fn s09_a_timeout_that_races_with_the_answer_loses_no_byte() {
    isolated(|| {
        ledger(async || {
            let (stream, mut peer) = pair().await;
            let echo = thread::spawn(move || {
                let (mut byte, mut sent) = ([0], 0);
                while peer.read(&mut byte).unwrap() > 0 {
                    peer.write_all(&pattern(sent, 1 + usize::from(byte[0]))).unwrap();
                    sent += 1 + u64::from(byte[0]);
                }
                sent
            });
            let (mut random, mut oracle) = (Random::new(9), Oracle::default());
            let (mut late, mut aim_ns, mut owed) = (0, 50_000_i64, 0);
            let rounds = scaled(100_000, 5_000);
            for round in 0..rounds {
                let more = random.below(256);
                stream.write_all([more as u8]).await.unwrap();
                owed += 1 + more as u64;
                let off = random.below(100_000) as i64 - 50_000;
                let patience = Duration::from_nanos((aim_ns + off).max(1) as u64);
                let buf = QuarantineBuf::new(256);
                let answer = match round % 3 {
                    0 => timeout(patience, stream.recv())
                        .await
                        .map(|bytes| bytes.unwrap().map_or(Vec::new(), |bytes| bytes.to_vec())),
                    1 => timeout(patience, stream.read(buf)).await.map(|it| it.unwrap().1.to_vec()),
                    _ => {
                        let read = timeout(patience, stream.read_exact(buf)).await;
                        read.map(|it| it.unwrap().to_vec())
                    }
                };
                let in_time = answer.map(|bytes| oracle.take(&bytes));
                // The aim follows the time that an answer takes, whatever the machine does.
                aim_ns += if in_time.is_none() { 1000 } else { -1000 };
                late += usize::from(in_time.is_none());
                // What is still to come would answer the next read at once, and end the race.
                while oracle.0 < owed {
                    oracle.take(&stream.recv().await.unwrap().unwrap());
                }
            }
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            while let Some(bytes) = stream.recv().await.unwrap() {
                oracle.take(&bytes);
            }
            assert_eq!(join(echo).await, oracle.0);
            let share = late as f64 / rounds as f64;
            println!("\nS9 share of timeouts: {share:.3} (0.2 to 0.8)");
            assert!((0.2..0.8).contains(&share), "the race was not close: {share}");
        });
    });
}

const CLIENT: &str = "QUOIT_CLIENTS_OF_S11";

/// S11: the clients, in a process that may open as many descriptors as it likes.
fn clients(address: SocketAddr, count: usize, hold: Duration) {
    set_descriptor_limit(4096);
    let streams: Vec<_> = (0..count).map(|_| StdStream::connect(address).unwrap()).collect();
    let threads: Vec<_> = streams
        .into_iter()
        .map(|mut stream| {
            thread::Builder::new().stack_size(64 << 10).spawn(move || {
                stream.set_read_timeout(Some(Duration::from_secs(100))).unwrap();
                stream.read_exact(&mut [0]).expect("everybody is served");
                thread::sleep(hold);
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.unwrap().join().unwrap());
}

/// How long each of the rounds took that a byte went there and back, one every 5 ms.
fn pings(peer: &mut StdStream, is_over: impl Fn(usize) -> bool) -> Vec<f64> {
    let mut times = Vec::new();
    while !is_over(times.len()) {
        thread::sleep(Duration::from_millis(5));
        let start = Instant::now();
        peer.write_all(b"?").unwrap();
        peer.read_exact(&mut [0]).unwrap();
        times.push(seconds(start));
    }
    times
}

fn p99(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() * 99 / 100]
}

#[test]
fn s11_without_descriptors_a_listener_waits_and_serves_everybody_in_the_end() {
    if let Ok(what) = std::env::var(CLIENT) {
        let mut words = what.split(' ');
        let mut next = || words.next().unwrap();
        let address = next().parse().unwrap();
        let count = next().parse().unwrap();
        return clients(address, count, Duration::from_millis(next().parse().unwrap()));
    }
    isolated(|| {
        ledger(async || {
            let (count, hold_ms) = (scaled(1000, 150), if scaled(1, 0) == 1 { 2000 } else { 200 });
            let (listener, address) = listen().await;
            let name = "s11_without_descriptors_a_listener_waits_and_serves_everybody_in_the_end";
            let mut child = std::process::Command::new(std::env::current_exe().unwrap())
                .args([&format!("scorecard_net::{name}"), "--exact", "--nocapture"])
                .env(CLIENT, format!("{address} {count} {hold_ms}"))
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap();
            let (stream, mut peer) = pair().await;
            drop(quoit::spawn(async move {
                while let Ok(Some(bytes)) = stream.recv().await {
                    stream.write_all(bytes).await.unwrap();
                }
            }));
            let before = scaled(400, 40);
            let (mut peer, before) = join(thread::spawn(move || {
                let times = pings(&mut peer, |count| count == before);
                (peer, times)
            }))
            .await;
            leave_descriptors(56);
            let is_over = Arc::new(AtomicBool::new(false));
            let meanwhile = thread::spawn({
                let is_over = Arc::clone(&is_over);
                move || pings(&mut peer, |_| is_over.load(Ordering::Relaxed))
            });
            let (start, cpu) = (Instant::now(), cpu_seconds());
            let freed = Rc::new(Cell::new(None::<Instant>));
            let mut longest = 0.0_f64;
            for served in 0..count {
                let (stream, _) = listener.accept().await.unwrap();
                if served > 60
                    && let Some(freed) = freed.take()
                {
                    longest = longest.max(seconds(freed));
                }
                let freed = Rc::clone(&freed);
                drop(quoit::spawn(async move {
                    stream.write_all("!").await.unwrap();
                    while stream.recv().await.is_ok_and(|bytes| bytes.is_some()) {}
                    drop(stream);
                    if freed.get().is_none() {
                        freed.set(Some(Instant::now()));
                    }
                }));
            }
            let share = (cpu_seconds() - cpu) / seconds(start) * 100.0;
            figure("S11", "percent of a core", share, 5.0);
            figure("S11", "seconds from a free descriptor to the next accept", longest, 0.05);
            is_over.store(true, Ordering::Relaxed);
            let ratio = p99(join(meanwhile).await) / p99(before);
            figure("S11", "× the p99 of a connection that was there before", ratio, 2.0);
            set_descriptor_limit(1024);
            until(|| child.try_wait().unwrap().is_some()).await;
            assert!(child.wait().unwrap().success());
        });
    });
}

#[test]
fn s12_a_peer_that_resets_gives_an_error_to_every_way_of_writing_and_no_signal() {
    isolated(|| {
        // SAFETY: the default action is no function of ours.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        ledger(async || {
            let rounds = scaled(1000, 60);
            let mut longest = 0.0_f64;
            let scratch = Scratch::new();
            let file = File::open(scratch.file("file", vec![7; 1 << 20])).await.unwrap();
            for way in 0..8 {
                for round in 0..rounds {
                    let (stream, peer) = pair_of_ours().await;
                    stream.set_send_buffer_size(4096).unwrap();
                    peer.set_recv_buffer_size(4096).unwrap();
                    peer.set_reset_on_close(true).unwrap();
                    let peer = RefCell::new(Some(peer));
                    // Before, or while the write waits for room.
                    let early = round % 2 == 0;
                    if early {
                        drop(peer.take());
                    }
                    let killer = async {
                        for _ in 0..round % 4 {
                            lap().await;
                        }
                        drop(peer.take());
                    };
                    let start = Instant::now();
                    let writing = write_until_it_fails(&stream, &file, way);
                    let (error, ()) = both(writing, killer).await;
                    let expected = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
                    assert!(expected.contains(&error.kind()), "{error}");
                    longest = longest.max(seconds(start));
                    // The reset is told once. From then on it is a pipe without a reader.
                    let error = write_until_it_fails(&stream, &file, way).await;
                    assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{way}");
                }
            }
            figure("S12", "seconds until the error", longest, 1.0);
        });
    });
}

async fn write_until_it_fails(stream: &TcpStream, file: &File, way: usize) -> std::io::Error {
    loop {
        let bytes = vec![7; 1 << 20];
        let written = match way {
            0 => stream.write(bytes).await.map(drop).map_err(Into::into),
            1 => stream.write_all(bytes).await.map(drop).map_err(Into::into),
            2 => stream.write_vectored((bytes, "x")).await.map(drop).map_err(Into::into),
            3 => stream.write_all_vectored((bytes, "x")).await.map(drop).map_err(Into::into),
            4 => {
                stream.set_zero_copy(Some(4096));
                stream.write_all(bytes).await.map(drop).map_err(Into::into)
            }
            5 => {
                stream.set_zero_copy(Some(4096));
                stream.write(bytes).await.map(drop).map_err(Into::into)
            }
            6 => stream.send_file(file, ..).await.map(drop),
            // Gathered: all but the first wait for it.
            _ => {
                let writes = (0..8).map(|_| stream.write_all(vec![7; 8000]));
                let mut results = quoit::gather(writes).await.into_iter();
                results.find_map(Result::err).map_or(Ok(()), |failed| Err(failed.into()))
            }
        };
        match written {
            Ok(()) => {}
            Err(error) => return error,
        }
    }
}

/// Awaits two futures at once.
async fn both<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>) -> (A, B) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut first, mut second) = (None, None);
    poll_fn(|context| {
        if first.is_none()
            && let Poll::Ready(output) = a.as_mut().poll(context)
        {
            first = Some(output);
        }
        if second.is_none()
            && let Poll::Ready(output) = b.as_mut().poll(context)
        {
            second = Some(output);
        }
        match (first.take(), second.take()) {
            (Some(a), Some(b)) => Poll::Ready((a, b)),
            (a, b) => {
                (first, second) = (a, b);
                Poll::Pending
            }
        }
    })
    .await
}

#[test]
fn s13_a_slow_reader_gets_every_byte_of_a_large_write() {
    isolated(|| {
        ledger(async || {
            let len = scaled(16 << 20, 48 << 10);
            let mut tasks = Vec::new();
            let mut readers = Vec::new();
            for number in 0..16 {
                let (stream, mut peer) = pair().await;
                stream.set_send_buffer_size(4096).unwrap();
                tasks.push(quoit::spawn(async move {
                    let bytes = stream.write_all(pattern(0, len)).await.unwrap();
                    assert_eq!((bytes.len(), stream.bytes_sent()), (len, len as u64));
                }));
                readers.push(thread::spawn(move || {
                    let (mut random, mut oracle) = (Random::new(number), Oracle::default());
                    let mut buf = vec![0; 16 << 10];
                    let start = Instant::now();
                    loop {
                        let room = random.size(buf.len());
                        let count = peer.read(&mut buf[..room]).unwrap();
                        if count == 0 {
                            return oracle.0;
                        }
                        oracle.take(&buf[..count]);
                        // 64 KiB a second.
                        let due = Duration::from_secs_f64(oracle.0 as f64 / f64::from(64 << 10));
                        thread::sleep(due.saturating_sub(start.elapsed()));
                    }
                }));
            }
            for task in tasks {
                task.await.unwrap();
            }
            for reader in readers {
                assert_eq!(join(reader).await, len as u64);
            }
        });
    });
}

#[test]
fn in_steady_state_a_message_allocates_nothing() {
    isolated(|| {
        for way in 0..2 {
            ledger(async || {
                let (stream, mut peer) = pair().await;
                let client = thread::spawn(move || {
                    let mut buf = [0; 100];
                    for number in 0..11_000_u32 {
                        buf[..4].copy_from_slice(&number.to_le_bytes());
                        peer.write_all(&buf).unwrap();
                        peer.read_exact(&mut buf).unwrap();
                        assert_eq!(buf[..4], number.to_le_bytes());
                    }
                });
                let mut buf = Vec::with_capacity(4096);
                let mut before = 0;
                for number in 0..11_000 {
                    if number == 1000 {
                        before = allocations();
                    }
                    if way == 0 {
                        let bytes = stream.recv().await.unwrap().unwrap();
                        stream.write_all(bytes).await.unwrap();
                    } else {
                        buf = stream.read(buf).await.unwrap().1;
                        buf = stream.write_all(buf).await.unwrap();
                    }
                }
                assert_eq!(allocations() - before, 0, "in 10,000 messages by way {way}");
                join(client).await;
            });
        }
    });
}

/// S10: clients on a core of their own, which send `len` bytes of the pattern on each connection.
fn senders(address: SocketAddr, count: usize, len: usize) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let all = (0..count).map(async |_| {
            let stream = TcpStream::connect(address).await.unwrap();
            for start in (0..len).step_by(1 << 16) {
                let piece = pattern(start as u64, (len - start).min(1 << 16));
                stream.write_all(piece).await.unwrap();
            }
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(stream.read(vec![0; 1]).await.unwrap().0, 0, "closed before the end");
        });
        quoit::runtime::run(async { drop(quoit::gather(all).await) }).unwrap();
    })
}

/// Whether the kernel has bytes for it.
fn has_bytes(stream: &TcpStream) -> bool {
    use std::os::fd::{AsFd, AsRawFd};
    let mut count = 0_i32;
    // SAFETY: `count` is a place for the answer.
    let answer = unsafe { libc::ioctl(stream.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut count) };
    assert_eq!(answer, 0);
    count > 0
}

#[test]
fn s10_with_four_buffers_every_connection_is_served_in_its_turn() {
    isolated(|| {
        set_descriptor_limit(4096);
        let (count, len) = (scaled(1000, 32), scaled(1 << 20, 96 << 10));
        let mut runtime = quoit::runtime::Builder::new().receive_buffers(4).build().unwrap();
        let (start, cpu) = (Instant::now(), cpu_seconds());
        let (longest, messages) = runtime.block_on(async {
            let (listener, address) = listen().await;
            let senders = senders(address, count, len);
            let served = Rc::new(Cell::new(0_u64));
            let mut tasks = Vec::new();
            for number in 0..count {
                let (stream, _) = listener.accept().await.unwrap();
                let served = Rc::clone(&served);
                tasks.push(quoit::spawn(async move {
                    let (mut random, mut oracle) = (Random::new(number as u64), Oracle::default());
                    let mut longest = 0;
                    loop {
                        // A wait for what has not been sent yet is nobody's fault.
                        let (is_there, before) = (has_bytes(&stream), served.get());
                        let Some(bytes) = stream.recv().await.unwrap() else { break };
                        if is_there {
                            longest = longest.max(served.get() - before);
                        }
                        served.set(served.get() + 1);
                        oracle.take(&bytes);
                        if random.below(4) == 0 {
                            sleep(Duration::from_micros(random.below(10_000) as u64)).await;
                        }
                        drop(bytes);
                    }
                    (oracle.0, longest)
                }));
            }
            let mut longest = 0;
            for task in tasks {
                let (received, waited) = task.await.unwrap();
                assert_eq!(received, len as u64);
                longest = longest.max(waited);
            }
            join(senders).await;
            (longest, served.get())
        });
        let stats = runtime.stats();
        println!(
            "\nS10 {messages} messages, {} starved, {} on the heap, {} requests, {} enters, {} \
             polls, {:.2} of {:.2} s",
            stats.starved,
            stats.heap_receives,
            stats.sqes,
            stats.enters,
            stats.polls,
            cpu_seconds() - cpu,
            seconds(start),
        );
        figure("S10", "messages of others during one wait", longest as f64, 5.0 * count as f64);
        assert!(stats.starved > 0, "four buffers were enough");
        // A receive that finds no buffer costs a few requests and polls, and no laps of its own.
        assert!(stats.sqes <= 4 * messages + 1000, "{stats:#?}");
        assert!(stats.enters <= 4 * messages + 1000, "{stats:#?}");
        assert_eq!((runtime.shutdown(Duration::from_secs(10)), stats.stray), (0, 0));
    });
}

#[test]
fn s10_while_every_buffer_is_kept_connections_are_served_and_nothing_spins() {
    isolated(|| {
        let builder = quoit::runtime::Builder::new().receive_buffers(4);
        let mut runtime = builder.build().unwrap();
        runtime.block_on(async {
            let mut pairs = Vec::new();
            for _ in 0..8 {
                pairs.push(pair_of_ours().await);
            }
            // Each connection keeps what it gets; the last eighth is never given away.
            let mut kept = Vec::new();
            for (ours, theirs) in &pairs {
                theirs.write_all("kept").await.unwrap();
                kept.push(ours.recv().await.unwrap().unwrap());
            }
            assert_eq!(kept.iter().filter(|bytes| bytes.is_lease()).count(), 3);
            // All wait, and nobody sends.
            let mut waiting: Vec<_> = pairs.iter().map(|(ours, _)| Box::pin(ours.recv())).collect();
            for receive in &mut waiting {
                let flag = Arc::new(Flag::default());
                assert!(poll_once(receive.as_mut(), &flag).is_pending());
            }
            let before = quoit::runtime::stats();
            sleep(Duration::from_millis(50)).await;
            let after = quoit::runtime::stats();
            assert!(after.enters - before.enters <= 10, "{before:#?} {after:#?}");
            assert_eq!(after.heap_receives, before.heap_receives);
            // And are served all the same.
            for ((_, theirs), receive) in pairs.iter().zip(waiting) {
                theirs.write_all("more").await.unwrap();
                assert_eq!(&*receive.await.unwrap().unwrap(), b"more");
            }
            drop(kept);
            let (ours, theirs) = &pairs[0];
            theirs.write_all("again").await.unwrap();
            assert!(ours.recv().await.unwrap().unwrap().is_lease());
        });
        assert_eq!(runtime.shutdown(Duration::from_secs(10)), 0);
        assert_eq!((runtime.stats().stray, runtime.stats().leases), (0, 0));
    });
}

/// Receives so many bytes and keeps what they come in; says how many of them are leases.
async fn keep(stream: &TcpStream, len: usize, kept: &mut Vec<PooledBuf>) -> usize {
    let (first, mut received) = (kept.len(), 0);
    while received < len {
        let bytes = stream.recv().await.unwrap().expect("there is more");
        received += bytes.len();
        kept.push(bytes);
    }
    kept[first..].iter().filter(|bytes| bytes.is_lease()).count()
}

#[test]
fn s10_a_connection_that_keeps_its_leases_takes_none_from_the_others() {
    const ALL: u16 = 128;
    const SHARE: usize = ALL as usize / 8;
    // More than all buffers hold, whatever the size of the pieces in which it comes.
    const LEN: usize = ALL as usize * PooledBuf::SIZE;
    on_every_driver_with(
        |builder| builder.receive_buffers(ALL),
        || async {
            let (hoarder, feeder) = pair_of_ours().await;
            let mut others = Vec::new();
            for _ in 0..50 {
                others.push(pair_of_ours().await);
            }
            let feeder = Rc::new(feeder);
            let feed = |start| {
                let feeder = Rc::clone(&feeder);
                quoit::spawn(async move { feeder.write_all(pattern(start, LEN)).await.unwrap() })
            };
            let mut kept = Vec::new();
            let fed = feed(0);
            assert_eq!(keep(&hoarder, LEN, &mut kept).await, SHARE);
            fed.await.unwrap();
            for round in 0..3_u8 {
                let (mut theirs, mut leased) = (Vec::new(), 0);
                for (ours, peer) in &others {
                    peer.write_all(vec![round; 100]).await.unwrap();
                    leased += keep(ours, 100, &mut theirs).await;
                }
                assert_eq!(leased, theirs.len());
                assert!(theirs.iter().all(|bytes| bytes.iter().all(|byte| *byte == round)));
                assert_eq!(quoit::runtime::stats().leases as usize, SHARE + theirs.len());
            }
            // It pauses, so that its receive ends; the next one has no share of its own.
            let fed = feed(LEN as u64);
            for _ in 0..20 {
                lap().await;
            }
            assert_eq!(keep(&hoarder, LEN, &mut kept).await, 0);
            fed.await.unwrap();
            let mut oracle = Oracle::default();
            kept.iter().for_each(|bytes| oracle.take(bytes));
            assert_eq!(oracle.0, 2 * LEN as u64);
            drop(kept);
            feeder.write_all("again").await.unwrap();
            assert!(hoarder.recv().await.unwrap().unwrap().is_lease());
        },
    );
}

#[test]
fn s10_a_shortage_that_is_over_sends_nothing_to_the_heap() {
    isolated(|| {
        let builder = quoit::runtime::Builder::new().receive_buffers(4);
        let mut runtime = builder.build().unwrap();
        runtime.block_on(async {
            let mut kept = Vec::new();
            for _ in 0..3 {
                let (ours, mut peer) = pair().await;
                peer.write_all(b"kept").unwrap();
                kept.push((ours.recv().await.unwrap().unwrap(), ours, peer));
            }
            assert!(kept.iter().all(|(bytes, ..)| bytes.is_lease()));
            let mut pairs = [pair().await, pair().await];
            for (ours, _) in &pairs {
                let flag = Arc::new(Flag::default());
                assert!(poll_once(pin!(ours.recv()), &flag).is_pending());
            }
            lap().await;
            // Both at once, and there is one buffer: one of the receives ends without one.
            for (_, peer) in &mut pairs {
                peer.write_all(b"more").unwrap();
            }
            let counts = || {
                let stats = quoit::runtime::stats();
                (stats.starved, stats.heap_receives)
            };
            let before = counts();
            while counts().0 == before.0 || counts().1 == before.1 {
                lap().await;
            }
            drop(kept);
            let mut leases = 0;
            for (ours, _) in &pairs {
                let bytes = ours.recv().await.unwrap().unwrap();
                assert_eq!(&*bytes, b"more");
                leases += usize::from(bytes.is_lease());
            }
            // The other was received during the shortage, and copied then.
            assert_eq!((leases, counts().1), (1, before.1 + 1));
        });
        assert_eq!(runtime.shutdown(Duration::from_secs(10)), 0);
        assert_eq!((runtime.stats().stray, runtime.stats().leases), (0, 0));
    });
}

#[test]
fn s22_clients_that_never_read_or_drip_one_byte_cost_little_and_hold_nobody_up() {
    isolated(|| {
        ledger(async || {
            let (bad, normal) = (scaled(2000, 64), scaled(200, 8));
            set_descriptor_limit(8192);
            let (listener, address) = listen().await;
            let before = anonymous();
            // Each is served the same bytes for ever, and what it sends is thrown away.
            let bytes: Rc<[u8]> = Rc::from(vec![7; 64 << 10]);
            let mut clients = Vec::new();
            let mut tasks = Vec::new();
            for _ in 0..bad {
                clients.push(StdStream::connect(address).unwrap());
                let (stream, _) = listener.accept().await.unwrap();
                let bytes = Rc::clone(&bytes);
                tasks.push(quoit::spawn(async move {
                    let sends = async {
                        let mut bytes = bytes;
                        while let Ok(back) = stream.write_all(bytes).await {
                            bytes = back;
                        }
                    };
                    let receives = async {
                        while let Ok(Some(bytes)) = stream.recv().await {
                            drop(bytes);
                        }
                    };
                    both(sends, receives).await;
                }));
            }
            let asks = thread::spawn(move || {
                let mut streams: Vec<_> =
                    (0..normal).map(|_| StdStream::connect(address).unwrap()).collect();
                for _ in 0..50 {
                    for stream in &mut streams {
                        stream.write_all(&[1; 100]).unwrap();
                    }
                    for stream in &mut streams {
                        stream.read_exact(&mut [0; 100]).unwrap();
                    }
                }
            });
            for _ in 0..normal {
                let (stream, _) = listener.accept().await.unwrap();
                drop(quoit::spawn(async move {
                    while let Some(bytes) = stream.recv().await.unwrap() {
                        stream.write_all(bytes).await.unwrap();
                    }
                }));
            }
            let (mut most_ops, mut laps) = (0, 0_usize);
            while !asks.is_finished() {
                let drips = laps % clients.len();
                if drips % 2 == 0 {
                    clients[drips].write_all(b"x").unwrap();
                }
                most_ops = most_ops.max(quoit::runtime::stats().live_ops as usize);
                laps += 1;
                sleep(Duration::from_micros(100)).await;
            }
            asks.join().unwrap();
            // A send and a receive each, and no more however long they wait.
            assert!(most_ops <= 2 * (bad + normal) + 10, "{most_ops} operations in flight");
            let grown = anonymous().saturating_sub(before);
            figure("S22", "MiB grown", grown as f64 / f64::from(1 << 20), 200.0);
            assert!(is_instrumented() || grown < (4 << 20) + bad * 20_000, "{grown} bytes");
            // When all wait, nothing turns.
            let (start, idle) = (quoit::runtime::stats(), cpu_seconds());
            sleep(Duration::from_millis(100)).await;
            let end = quoit::runtime::stats();
            assert!(end.enters - start.enters < 20, "{start:#?} {end:#?}");
            figure("S22", "seconds of CPU in 100 ms of waiting", cpu_seconds() - idle, 0.01);
            drop(clients);
            for task in tasks {
                task.await.unwrap();
            }
        });
    });
}
