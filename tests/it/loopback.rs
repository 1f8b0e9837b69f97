//! What the tests of sockets share: connections, polls by hand, and the ledger.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use quoit::net::{TcpListener, TcpStream};
use quoit::runtime::{Runtime, Stats};
use quoit::time::sleep;

pub(crate) use crate::numbers::{Oracle, Random, pattern};
use crate::quarantine;
pub(crate) use crate::support::isolated;
use crate::support::{limit, patient};

/// Runs `main` on a core of its own, and fails when it hangs.
pub(crate) fn run<T>(main: impl Future<Output = T>) -> T {
    quoit::runtime::run(within(limit(), main)).expect("a runtime starts")
}

/// Awaits `future`, and panics when it takes longer than `patience`, as [`patient`] stretches it.
pub(crate) async fn within<T>(patience: Duration, future: impl Future<Output = T>) -> T {
    let patience = patient(patience);
    let (mut future, mut late) = (pin!(future), pin!(sleep(patience)));
    poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(output);
        }
        assert!(late.as_mut().poll(context).is_pending(), "it hangs for {patience:?}");
        Poll::Pending
    })
    .await
}

/// `full` times `QUOIT_SCALE`; without the variable, the `slice` that runs everywhere.
pub(crate) fn scaled(full: usize, slice: usize) -> usize {
    match std::env::var("QUOIT_SCALE") {
        Ok(scale) => {
            let scale: f64 = scale.parse().expect("QUOIT_SCALE is a number, 1 is full size");
            ((full as f64 * scale) as usize).max(1)
        }
        Err(_) => slice,
    }
}

/// An address of this machine that no other test has, so that a port which is given back there is
/// free until it is bound again.
pub(crate) fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 0x80 | high & 0x3f, low, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A listener on a free port.
pub(crate) async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((own_address(), 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A stream of ours, and its peer of the standard library.
pub(crate) async fn pair() -> (TcpStream, std::net::TcpStream) {
    let (listener, address) = listen().await;
    // The kernel completes the connection without an accept.
    let peer = std::net::TcpStream::connect(address).unwrap();
    peer.set_nodelay(true).unwrap();
    (listener.accept().await.unwrap().0, peer)
}

/// Two streams of ours that are connected.
pub(crate) async fn pair_of_ours() -> (TcpStream, TcpStream) {
    let (listener, address) = listen().await;
    let client = quoit::spawn(TcpStream::connect(address));
    let (server, _) = listener.accept().await.unwrap();
    (server, client.await.unwrap().unwrap())
}

/// Takes the pattern to the end of a stream, and says how much it was.
pub(crate) async fn take_pattern(stream: impl Borrow<TcpStream>) -> u64 {
    let mut oracle = Oracle::default();
    while let Some(bytes) = stream.borrow().recv().await.unwrap() {
        oracle.take(&bytes);
    }
    oracle.0
}

/// A waker that remembers whether it was called.
#[derive(Default)]
pub(crate) struct Flag(AtomicBool);

impl Flag {
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Polls once with a waker that only remembers.
pub(crate) fn poll_once<F: Future + ?Sized>(
    future: Pin<&mut F>,
    flag: &Arc<Flag>,
) -> Poll<F::Output> {
    let waker = Waker::from(Arc::clone(flag));
    future.poll(&mut Context::from_waker(&waker))
}

/// Turns laps until `done`, without a sleep, and panics after some seconds.
pub(crate) async fn until(mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < patient(Duration::from_secs(20)), "it does not come");
        sleep(Duration::from_micros(50)).await;
    }
}

/// Has the loop turn one lap, in which it enters the kernel.
pub(crate) async fn lap() {
    let enters = quoit::runtime::stats().enters;
    // A sleep this short may be over before it begins.
    while quoit::runtime::stats().enters == enters {
        sleep(Duration::from_micros(1)).await;
    }
}

/// Waits for a thread without keeping the loop from turning.
pub(crate) async fn join<T>(thread: std::thread::JoinHandle<T>) -> T {
    while !thread.is_finished() {
        sleep(Duration::from_micros(200)).await;
    }
    match thread.join() {
        Ok(output) => output,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Everything that is open, by number.
pub(crate) fn descriptors() -> BTreeMap<i32, String> {
    let mut open = BTreeMap::new();
    for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
        let entry = entry.unwrap();
        let number = entry.file_name().to_str().unwrap().parse().unwrap();
        // The descriptor of the listing itself is gone by the time it is looked at.
        if let Ok(target) = std::fs::read_link(entry.path()) {
            open.insert(number, target.display().to_string());
        }
    }
    open.retain(|_, target| !target.starts_with("/proc/"));
    open
}

/// An address where a connect neither succeeds nor fails: the backlog is full.
pub(crate) fn blackhole() -> (std::net::TcpListener, Vec<std::net::TcpStream>, SocketAddr) {
    use std::os::fd::AsRawFd;
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    // SAFETY: the call takes no pointers.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let address = listener.local_addr().unwrap();
    let mut filling = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(50))
    {
        filling.push(stream);
    }
    (listener, filling, address)
}

/// Sets the limit so that so many descriptors can still be opened.
pub(crate) fn leave_descriptors(room: usize) {
    let open = descriptors();
    let mut free = (0..).filter(|number| !open.contains_key(number));
    set_descriptor_limit(free.nth(room).unwrap() as u64);
}

/// Sets how many descriptors the process may have open.
pub(crate) fn set_descriptor_limit(soft: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a place for the answer.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }, 0);
    limit.rlim_cur = soft;
    // SAFETY: `limit` was filled by the call above.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
}

/// Has memory become resident in pages of 4 KiB, as some systems do anyway, and none of 2 MiB.
pub(crate) fn without_huge_pages() {
    // SAFETY: the call takes no pointers.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) }, 0);
}

/// Resident memory of the process in bytes, counted page by page: the sums that are kept elsewhere
/// are off by some pages for each thread.
pub(crate) fn resident() -> usize {
    in_memory("Rss:")
}

/// As [`resident`], of the memory that no file stands for: the program's own pages come into memory
/// whenever code is run for the first time.
pub(crate) fn anonymous() -> usize {
    in_memory("Anonymous:")
}

fn in_memory(kind: &str) -> usize {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(kind)).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() << 10
}

/// Runs `main`, then holds the books against what was there before: nothing in flight, leased,
/// running or open is left within a second, and no kernel wrote into a buffer after its drop.
///
/// It counts the process's descriptors, so it is called in an [`isolated`] test.
pub(crate) fn ledger<T>(main: impl AsyncFnOnce() -> T) -> T {
    let runtime = Runtime::new().expect("a runtime starts");
    runtime.block_on(lap());
    let open = descriptors();
    let output = runtime.block_on(within(limit(), main()));
    let end = Instant::now();
    while !is_quiet(&runtime.stats()) && end.elapsed() < patient(Duration::from_secs(1)) {
        runtime.block_on(sleep(Duration::from_millis(1)));
    }
    let stats = runtime.stats();
    assert!(is_quiet(&stats), "something is left: {stats:#?}");
    assert_eq!(stats.stray, 0, "an answer named nobody");
    assert_eq!(stats.caught_panics, 0);
    assert_eq!(descriptors(), open, "descriptors were lost or left open");
    drop(runtime);
    assert_eq!(quarantine::violations(), 0, "a kernel wrote into memory that was free");
    output
}

fn is_quiet(stats: &Stats) -> bool {
    (stats.live_ops, stats.orphans, stats.leases, stats.tasks, stats.timers) == (0, 0, 0, 0, 0)
}
