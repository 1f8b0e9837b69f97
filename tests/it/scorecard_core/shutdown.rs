//! The end of a runtime in full swing, and in the presence of forked children.

use std::future::{Future, poll_fn};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Command;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use quoit::Forked;
use quoit::buf::{IoBuf, IoBufMut};
use quoit::fs::{File, OpenOptions};
use quoit::net::{TcpListener, TcpStream};
use quoit::runtime::{self, Builder, Runtime};
use quoit::task::yield_now;

use super::{assert_fruitful, silence_planted_panics};
use crate::loopback::{blackhole, lap, listen, own_address, pair, pair_of_ours, scaled};
use crate::quarantine::{PIECE, QuarantineBuf, violations};
use crate::support::{Ledger, Watch, isolated, kernel, patient, under};

/// How long a runtime may take to end, whatever is in flight. The aim is 500 ms, which is reported; a
/// machine that has other work takes longer.
const PROMPTLY: Duration = Duration::from_secs(5);

const BIG: usize = 32 << 20;
const IN_FILE: u8 = 0x5A;
const FRESH: u8 = 0x11;
const DEAD: u8 = 0xDD;

/// Memory for one large read, which is looked at after its end.
struct Memory(*mut u8);

impl Memory {
    fn new() -> Memory {
        Memory(vec![0_u8; BIG].leak().as_mut_ptr())
    }

    fn buf(&self) -> BigBuf {
        // SAFETY: the memory is leaked, and the buffer of the round before is gone.
        unsafe { self.0.write_bytes(FRESH, BIG) };
        BigBuf(self.0)
    }

    fn byte(&self, place: usize) -> u8 {
        // SAFETY: the memory is leaked; the read is volatile, for a kernel may be writing.
        unsafe { self.0.add(place).read_volatile() }
    }

    fn is_dead(&self) -> bool {
        // SAFETY: the memory is leaked, and nobody but a kernel that errs would write to it now.
        let words = unsafe { std::slice::from_raw_parts(self.0.cast::<u64>(), BIG / 8) };
        words.iter().all(|word| *word == u64::from_ne_bytes([DEAD; 8]))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: `new` took it from a vector of this size, and no buffer of it is left.
        drop(unsafe { Vec::from_raw_parts(self.0, BIG, BIG) });
    }
}

/// A buffer over all of a [`Memory`]; its drop fills that with a pattern.
struct BigBuf(*mut u8);

// SAFETY: the memory is leaked, and this is its only user.
unsafe impl IoBuf for BigBuf {
    fn buf_ptr(&self) -> *const u8 {
        self.0
    }

    fn buf_len(&self) -> usize {
        0
    }

    fn buf_capacity(&self) -> usize {
        BIG
    }
}

// SAFETY: as above; every byte may be written.
unsafe impl IoBufMut for BigBuf {
    fn buf_mut_ptr(&mut self) -> *mut u8 {
        self.0
    }

    unsafe fn set_buf_len(&mut self, _: usize) {}
}

impl Drop for BigBuf {
    fn drop(&mut self) {
        // SAFETY: the memory is leaked.
        unsafe { self.0.write_bytes(DEAD, BIG) };
    }
}

/// A file in memory, whose reads the kernel hands to a worker thread.
fn file_in_memory() -> (OwnedFd, PathBuf) {
    // SAFETY: the name is a string, and the number is nobody else's.
    let file = unsafe {
        let raw = libc::memfd_create(c"big".as_ptr(), libc::MFD_CLOEXEC);
        assert!(raw >= 0);
        OwnedFd::from_raw_fd(raw)
    };
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    std::fs::write(&path, vec![IN_FILE; BIG]).unwrap();
    (file, path)
}

/// What a round of the end in full swing has around it.
struct Scene {
    address: SocketAddr,
    hole: SocketAddr,
    path: PathBuf,
    /// The byte that the read brings.
    filling: u8,
    memory: Memory,
}

/// Brings a hundred receives, an accept, a connect and a large read into flight, and ends when the
/// read has begun to arrive.
async fn full_swing(scene: &Scene, peers: &mut Vec<std::net::TcpStream>) {
    let listener = TcpListener::bind(scene.address).await.unwrap();
    for number in 0..100 {
        peers.push(std::net::TcpStream::connect(scene.address).unwrap());
        let (stream, _) = listener.accept().await.unwrap();
        drop(quoit::spawn(async move {
            match number % 2 {
                0 => drop(stream.recv().await),
                _ => drop(stream.read(QuarantineBuf::new(PIECE)).await),
            }
        }));
    }
    drop(quoit::spawn(async move { drop(listener.accept().await) }));
    let hole = scene.hole;
    drop(quoit::spawn(async move { drop(TcpStream::connect(hole).await) }));
    let file = File::open(&scene.path).await.unwrap();
    let buf = scene.memory.buf();
    drop(quoit::spawn(async move { drop(file.read_at(buf, 0).await) }));
    while scene.memory.byte(0) != scene.filling {
        yield_now().await;
    }
    assert!(runtime::stats().live_ops >= 102, "{:#?}", runtime::stats());
}

#[test]
fn s05_a_runtime_that_ends_in_full_swing_leaves_nothing_behind() {
    isolated(|| {
        silence_planted_panics();
        let (file, path) = file_in_memory();
        let (path, filling) = match kernel() {
            // Here a file in memory is copied within the enter, and a device is left to a worker.
            (..6, _) | (6, ..5) => ("/dev/full".into(), 0),
            _ => (path, IN_FILE),
        };
        let (_listener, _filling, hole) = blackhole();
        let address =
            std::net::TcpListener::bind((own_address(), 0)).unwrap().local_addr().unwrap();
        let scene = Scene { address, hole, path, filling, memory: Memory::new() };
        let (mut in_the_middle, mut slowest) = (0, Duration::ZERO);
        let rounds = scaled(50, 6);
        for round in 0..rounds {
            let ledger = Ledger::open();
            let watch = Watch::over("at its end");
            let mut peers = Vec::new();
            let mut start = Instant::now();
            if round % 2 == 0 {
                let runtime = Runtime::new().unwrap();
                runtime.block_on(full_swing(&scene, &mut peers));
                in_the_middle += usize::from(scene.memory.byte(BIG - 1) == FRESH);
                assert_fruitful(&runtime.stats(), 2);
                start = Instant::now();
                drop(runtime);
            } else {
                let ended = catch_unwind(AssertUnwindSafe(|| {
                    Runtime::new().unwrap().block_on(async {
                        full_swing(&scene, &mut peers).await;
                        in_the_middle += usize::from(scene.memory.byte(BIG - 1) == FRESH);
                        start = Instant::now();
                        panic!("planted: out of block_on");
                    })
                }));
                assert!(ended.is_err());
            }
            let took = start.elapsed();
            slowest = slowest.max(took);
            assert!(took <= patient(PROMPTLY), "the end took {took:?}");
            // At once, and before the peers have gone.
            drop(std::net::TcpListener::bind(address).unwrap());
            for peer in &mut peers {
                // It may be refused; a kernel that still receives would write it into free memory.
                let _ = peer.write(&[7; PIECE]);
            }
            std::thread::sleep(Duration::from_millis(20));
            assert!(scene.memory.is_dead(), "a kernel wrote after the end of round {round}");
            drop(peers);
            ledger.close();
            watch.ends();
        }
        assert_eq!(violations(), 0, "a kernel wrote into memory that was free");
        assert!(in_the_middle > 0, "no read was under way at an end");
        println!("\nS5 {rounds} ends, {in_the_middle} amid a read, the slowest took {slowest:?}");
        drop(file);
    });
}

/// A named pipe that is open at both ends, so no opening waits.
async fn pipe(path: &Path) -> File {
    let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: the name is a string.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    OpenOptions::new().read(true).write(true).open(path).await.unwrap()
}

/// Forks; the child runs `life` and ends with what it returns. Returns the child's number.
fn fork(life: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child calls what this process's libraries allow after a fork, and `_exit`.
    match unsafe { libc::fork() } {
        0 => {
            let status = catch_unwind(AssertUnwindSafe(life)).unwrap_or(99);
            // SAFETY: ends the child without anything of the parent's.
            unsafe { libc::_exit(status) }
        }
        child => {
            assert!(child > 0, "{}", io::Error::last_os_error());
            child
        }
    }
}

/// The exit status of a child; those that were killed have none.
fn reap(child: i32) -> Option<i32> {
    let mut status = 0;
    // SAFETY: `status` is a place for the answer.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status))
}

/// Whether the process has a ring's descriptor, or that of the emulated kernel.
fn has_ring(process: i32) -> bool {
    let open = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let targets = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let is_ring = |target: &str| target.contains("io_uring") || target.contains("eventpoll");
    targets.into_iter().any(|target| is_ring(&target.to_string_lossy()))
}

fn kill(child: i32) {
    // SAFETY: the call takes no pointers.
    assert_eq!(unsafe { libc::kill(child, libc::SIGKILL) }, 0);
}

/// Where the kernel lets a child drive the ring, only the hook keeps it from that; and where it
/// completes outside of the enter, it would write into memory that is free.
const WITHOUT_A_GUARD: [&str; 2] = ["no-defer-taskrun,no-single-issuer", "5.10"];

#[test]
fn s06_a_forked_child_that_lives_on_keeps_no_operation_alive() {
    isolated(|| {
        for (name, builder) in under(&WITHOUT_A_GUARD) {
            forked_children_that_live_on(name, &builder);
        }
    });
}

fn forked_children_that_live_on(name: &str, builder: &Builder) {
    let path = std::env::temp_dir().join(format!("quoit-s06-{}", std::process::id()));
    for round in 0..scaled(100, 10) {
        let ledger = Ledger::open();
        let watch = Watch::over(format!("beside a forked child, with {name}"));
        let runtime = builder.clone().build().unwrap();
        let wait = || {
            // SAFETY: sleeps until it is killed.
            unsafe { libc::pause() }
        };
        let (mut peers, child) = runtime.block_on(async {
            let file = pipe(&path).await;
            drop(quoit::spawn(async move {
                drop(file.read_at(QuarantineBuf::new(PIECE), 0).await);
            }));
            let mut peers = Vec::new();
            for number in 0..8 {
                let (stream, peer) = pair().await;
                peers.push(peer);
                drop(quoit::spawn(async move {
                    match number {
                        0 => drop(stream.recv().await),
                        _ => drop(stream.read(QuarantineBuf::new(PIECE)).await),
                    }
                }));
            }
            lap().await;
            assert!(runtime::stats().live_ops >= 9);
            (peers, (round % 2 == 0).then(|| fork(wait)))
        });
        let child = child.unwrap_or_else(|| fork(wait));
        let start = Instant::now();
        while has_ring(child) {
            assert!(start.elapsed() < Duration::from_secs(5), "the child keeps the ring");
        }
        let mut writer = std::fs::OpenOptions::new().write(true).read(true).open(&path).unwrap();
        let start = Instant::now();
        drop(runtime);
        assert!(start.elapsed() <= patient(PROMPTLY), "the end took {:?}", start.elapsed());
        for peer in &mut peers {
            // The child holds the sockets, so the connections live, and this is delivered.
            peer.write_all(&[7; PIECE]).unwrap();
        }
        writer.write_all(&[7; PIECE]).unwrap();
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(violations(), 0, "a kernel wrote into memory that was free");
        kill(child);
        assert_eq!(reap(child), None);
        std::fs::remove_file(&path).unwrap();
        drop((peers, writer));
        ledger.close();
        watch.ends();
    }
}

fn is_forked(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Forked>())
}

/// Whether the call ends with `Forked` in a few polls, on a core whose loop does not turn.
fn is_refused<T>(call: impl Future<Output = io::Result<T>>) -> bool {
    let mut call = pin!(call);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..3 {
        if let Poll::Ready(result) = call.as_mut().poll(&mut context) {
            return result.is_err_and(|error| is_forked(&error));
        }
    }
    false
}

/// Calls everything in a child; the first that is not refused is the answer.
fn call_everything(idle: &TcpStream, busy: &TcpStream, listener: &TcpListener, file: &File) -> i32 {
    let address = listener.local_addr();
    let (first, second) = (address.is_err_and(|error| is_forked(&error)), "127.0.0.1:1");
    let calls = [
        first,
        is_refused(async { idle.recv().await }),
        is_refused(async { Ok(idle.read(vec![0; 8]).await?) }),
        is_refused(async { Ok(idle.write_all("child").await?) }),
        is_refused(async { Ok(idle.write_all_vectored(vec!["child"]).await?) }),
        is_refused(async { idle.shutdown(std::net::Shutdown::Both) }),
        is_refused(async { idle.peer_addr() }),
        is_refused(async { busy.recv().await }),
        is_refused(async { Ok(busy.read(vec![0; 8]).await?) }),
        is_refused(listener.accept()),
        is_refused(TcpListener::bind("127.0.0.1:0")),
        is_refused(TcpStream::connect(second)),
        is_refused(File::open("/")),
        is_refused(async { Ok(file.read_at(vec![0; 8], 0).await?) }),
        is_refused(async { Ok(file.write_at("child", 0).await?) }),
        is_refused(file.sync_all()),
        is_refused(file.len()),
    ];
    let passed = calls.iter().position(|refused| !refused);
    passed.map_or(0, |place| place as i32 + 1)
}

#[test]
fn s06_a_forked_child_is_told_so_by_every_call_and_disturbs_nobody() {
    isolated(|| {
        for (name, builder) in under(&WITHOUT_A_GUARD) {
            forked_children_that_call(name, builder);
        }
    });
}

fn forked_children_that_call(name: &str, builder: Builder) {
    let ledger = Ledger::open();
    let runtime = builder.build().unwrap();
    for _ in 0..scaled(100, 10) {
        let watch = Watch::over(format!("with a child that calls, with {name}"));
        runtime.block_on(async {
            let (idle, mut idle_peer) = pair().await;
            let (busy, mut busy_peer) = pair().await;
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let file = File::open("/dev/null").await.unwrap();
            // In flight when the child is forked: a receive and an accept.
            let (mut receive, mut accept) = (pin!(busy.recv()), pin!(listener.accept()));
            let (other, mut other_peer) = pair().await;
            let mut read = pin!(other.read(QuarantineBuf::new(8)));
            poll_fn(|context| {
                assert!(receive.as_mut().poll(context).is_pending());
                assert!(accept.as_mut().poll(context).is_pending());
                assert!(read.as_mut().poll(context).is_pending());
                Poll::Ready(())
            })
            .await;
            lap().await;
            let child = fork(|| {
                let awaited = is_refused(receive.as_mut())
                    && is_refused(accept.as_mut())
                    && is_refused(async { Ok(read.as_mut().await?) });
                match awaited {
                    true => call_everything(&idle, &busy, &listener, &file),
                    false => 98,
                }
            });
            assert_eq!(reap(child), Some(0), "the call of this number was not refused");
            // The parent goes on as if nothing had been.
            let _client = std::net::TcpStream::connect(address).unwrap();
            accept.await.unwrap();
            busy_peer.write_all(b"parent").unwrap();
            assert_eq!(&*receive.await.unwrap().unwrap(), b"parent");
            other_peer.write_all(b"parent").unwrap();
            assert_eq!(&*read.await.unwrap().1, b"parent");
            idle_peer.write_all(b"parent").unwrap();
            assert_eq!(idle.read(Vec::with_capacity(9)).await.unwrap().1, b"parent");
        });
        // Outside of `block_on`, with something in flight.
        runtime.block_on(async { drop(quoit::spawn(quoit::time::sleep(Duration::MAX))) });
        let child = fork(|| {
            std::panic::set_hook(Box::new(|_| ()));
            let panic = catch_unwind(AssertUnwindSafe(|| runtime.block_on(lap())));
            let text = panic.unwrap_err().downcast::<String>().unwrap_or_default();
            assert!(text.contains("forked"), "{text}");
            let handle = runtime.handle();
            assert!(handle.call_soon(|| ()).is_err() && handle.spawn_on(async || ()).is_err());
            assert!(Runtime::new().unwrap_err().to_string().contains("forked"));
            0
        });
        assert_eq!(reap(child), Some(0));
        watch.ends();
    }
    let child = fork(move || {
        drop(runtime);
        0
    });
    assert_eq!(reap(child), Some(0), "the child ends the runtime that it has a copy of");
    drop(ledger);
}

#[test]
fn s06_a_program_that_is_executed_inherits_nothing() {
    isolated(|| {
        let runtime = Runtime::new().unwrap();
        runtime.block_on(async {
            let (_listener, _) = listen().await;
            let (stream, _peer) = pair_of_ours().await;
            drop(quoit::spawn(async move { drop(stream.recv().await) }));
            let _file = File::open("/dev/null").await.unwrap();
            lap().await;
            for by_fork in [false, true] {
                let mut list = Command::new("ls");
                list.args(["-l", "/proc/self/fd"]);
                if by_fork {
                    // SAFETY: it does nothing; with it, the library forks instead of spawning.
                    unsafe { list.pre_exec(|| Ok(())) };
                }
                let listed = list.output().unwrap();
                let text = String::from_utf8(listed.stdout).unwrap();
                assert!(text.contains("pipe:"), "{text}");
                for ours in ["io_uring", "eventpoll", "socket:", "eventfd"] {
                    assert!(!text.contains(ours), "{ours} was inherited:\n{text}");
                }
            }
        });
    });
}
