//! A kernel that lies about what is in flight, and a program that has to survive it.
//!
//! Bytes become a stream of answers, true ones and lies, to the requests of a small program. What a
//! [`Driver`] promises cannot all be checked, so some lies are out of scope, and never told here: that
//! an operation has ended which the kernel still works on, that memory was filled which was not, that
//! a descriptor is open which is not, that a buffer was picked which is still on offer. All others
//! must end in a count, an error or a panic with a sentence, before any memory is touched wrongly:
//!
//! - An answer to nothing in flight (it has ended, was never begun, or is a deadline that is not
//!   armed) is counted as stray, exactly once, and is nothing else.
//! - More answers that are promised to an operation of one are a caught panic; it goes on to wait
//!   for its last.
//! - More bytes than were asked for are a panic of whoever awaits them.
//! - A buffer that is leased, was never on offer or does not exist is a panic, and no lease.
//! - An errno that there is not is an error.
//! - An address longer than its place, or of no family, is an error, or the address that fits.
//!
//! The kernel reads and writes the program's memory itself, in instrumented code: AddressSanitizer
//! sees each request that points where it must not. It needs nothing but the crate, so cargo-fuzz can
//! drive it: `#[path = "../../tests/fuzz/cqe.rs"] mod cqe;` in a target, and there
//! `fuzz_target!(|bytes: &[u8]| { cqe::survive(bytes); })`.

use std::collections::{BTreeSet, VecDeque};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::task::Poll;
use std::time::Duration;

use io_uring::opcode;
use quoit::driver::{Call, Counters, Cqe, Driver, Fields, Kick, Register, Sqe, Unparker, Wait};
use quoit::fs::File;
use quoit::net::{TcpListener, TcpStream};
use quoit::runtime::{Builder, Stats};
use quoit::task::yield_now;
use quoit::time::{interval, sleep, timeout};

/// What every byte is that this kernel says it received or read.
const PATTERN: u8 = 0x5A;

/// The words of the panics with which lies are refused; any other is a failure.
const REFUSALS: &[&str] = &[
    "bytes were moved of",
    "the kernel filled",
    "the kernel picked buffer",
    "index out of bounds",
    "promises more, but the operation is of one answer",
];

/// What one run came to.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Survey {
    /// Answers that were given.
    pub(crate) answers: u64,
    /// Lies among them.
    pub(crate) lies: u64,
    /// Panics with which lies were refused.
    pub(crate) refusals: u64,
}

/// Runs the program on a kernel that answers as `bytes` say, and panics unless it survives.
pub(crate) fn survive(bytes: &[u8]) -> Survey {
    watch_panics();
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    // A lap takes one byte at least, and after the last one everything ends.
    let mut patience = bytes.len() + 1000;
    let (bytes, kept) = (Arc::<[u8]>::from(bytes), Arc::clone(&ledger));
    let make = move |_| {
        let kernel = Kernel::new(Arc::clone(&bytes), Arc::clone(&kept));
        Ok::<Box<dyn Driver>, _>(Box::new(kernel))
    };
    let mut runtime = Builder::new().driver_with(make).build().expect("a kernel that opens");
    runtime.block_on(program());
    while !is_settled(&runtime.stats()) && patience > 0 {
        runtime.block_on(async {
            // Where the machine is slow, the sleep may be over without a lap.
            yield_now().await;
            sleep(Duration::from_millis(1)).await;
        });
        patience -= 1;
    }
    assert!(is_settled(&runtime.stats()), "something is left: {:#?}", runtime.stats());
    assert_eq!(runtime.shutdown(Duration::from_secs(3600)), 0);
    let stats = runtime.stats();
    let ledger = lock(&ledger);
    assert_eq!(stats.stray, ledger.strays, "strays that were counted, and that were given");
    assert_eq!(ledger.open, BTreeSet::new(), "descriptors that nobody closed");
    assert_eq!(ledger.closed_twice, 0, "closes of what was not open");
    // A panic takes the lock too, so it is not held here.
    let unplanned = std::mem::take(&mut *unplanned());
    assert!(unplanned.is_empty(), "panics that refuse no lie: {unplanned:#?}");
    Survey { refusals: REFUSED.swap(0, Ordering::Relaxed), ..ledger.survey }
}

fn is_settled(stats: &Stats) -> bool {
    [stats.live_ops, stats.orphans, stats.leases] == [0; 3] && stats.tasks + stats.timers == 0
}

// ---- The program ----

/// Everything once, with deadlines that drop operations in flight. Its tasks may end by a refusal.
async fn program() {
    let tasks = [
        quoit::spawn(serve()),
        quoit::spawn(call()),
        quoit::spawn(files()),
        quoit::spawn(naps()),
        quoit::spawn(call()),
    ];
    for task in tasks {
        let _ = task.await;
    }
}

async fn within<T>(millis: u64, future: impl Future<Output = T>) -> Option<T> {
    timeout(Duration::from_millis(millis), future).await.ok()
}

/// Starts an operation, and drops it before its answer is taken.
async fn start_and_drop(future: impl Future) {
    let mut future = pin!(future);
    poll_fn(|context| {
        let _ = future.as_mut().poll(context);
        Poll::Ready(())
    })
    .await;
}

async fn serve() {
    let Ok(listener) = TcpListener::bind("127.0.0.1:0").await else { return };
    let mut tasks = Vec::new();
    for round in 0..6 {
        match within(20, listener.accept()).await {
            Some(Ok((stream, _))) => tasks.push(quoit::spawn(echo(stream, round))),
            Some(Err(_)) => break,
            None => start_and_drop(listener.accept()).await,
        }
    }
    for task in tasks {
        let _ = task.await;
    }
    let _ = listener.close().await;
}

fn assert_true(bytes: &[u8]) {
    let wrong = bytes.iter().position(|byte| *byte != PATTERN);
    assert!(wrong.is_none(), "of {} bytes nobody has sent that at {wrong:?}", bytes.len());
}

async fn echo(stream: TcpStream, round: usize) {
    let mut kept = Vec::new();
    for turn in round..round + 8 {
        let read = match turn % 5 {
            0 | 1 => within(5, stream.recv()).await.map(|read| {
                read.map(|bytes| {
                    bytes.map_or(0, |bytes| {
                        assert_true(&bytes);
                        kept.push(bytes);
                        1
                    })
                })
            }),
            2 => within(5, stream.read(Vec::with_capacity(64))).await.map(|read| {
                let (count, bytes) = read?;
                assert_true(&bytes);
                Ok(count)
            }),
            3 => within(5, stream.read_vectored(([0; 3], Vec::with_capacity(40)))).await.map(
                |read| {
                    let (count, (head, tail)) = read?;
                    assert_true(&head[..count.min(3)]);
                    assert_true(&tail);
                    Ok(count)
                },
            ),
            _ => within(5, stream.read_exact([0; 24])).await.map(|read| {
                assert_true(&read?);
                Ok(24)
            }),
        };
        match read {
            Some(Ok(0) | Err(_)) => break,
            Some(Ok(_)) => {
                let Some(bytes) = kept.pop() else { continue };
                if within(5, stream.write_all(bytes)).await.is_some_and(|sent| sent.is_err()) {
                    break;
                }
            }
            None => start_and_drop(stream.recv()).await,
        }
    }
}

async fn call() {
    let Some(Ok(stream)) = within(50, TcpStream::connect("127.0.0.1:9")).await else { return };
    let lines = vec![vec![PATTERN; 7]; 20];
    let _ = within(20, stream.write(vec![PATTERN; 100])).await;
    let _ = within(20, stream.write_all(vec![PATTERN; 40_000])).await;
    let _ = within(20, stream.write_vectored(("head", vec![PATTERN; 9]))).await;
    let _ = within(20, stream.write_all_vectored(lines)).await;
    start_and_drop(stream.write_all(vec![PATTERN; 300])).await;
    if let Some(Ok(bytes)) = within(20, stream.read_exact(vec![0; 200])).await {
        assert_true(&bytes);
    }
    let _ = stream.close().await;
}

async fn files() {
    let Some(Ok(file)) = within(50, File::open("of no kernel")).await else { return };
    start_and_drop(file.read_at(Vec::with_capacity(50), 3)).await;
    if let Some(Ok((count, bytes))) = within(20, file.read_at(Vec::with_capacity(80), 0)).await {
        assert_eq!(count, bytes.len());
        assert_true(&bytes);
    }
    if let Some(Ok(bytes)) = within(20, file.read_exact_at([0; 30], 5)).await {
        assert_true(&bytes);
    }
    let room = ([0; 5], Vec::with_capacity(10));
    if let Some(Ok((_, (_, tail)))) = within(20, file.read_vectored_at(room, 0)).await {
        assert_true(&tail);
    }
    let _ = within(20, file.write_at(vec![PATTERN; 60], 0)).await;
    let _ = within(20, file.write_all_at(vec![PATTERN; 60], 0)).await;
    let lines = vec![vec![PATTERN; 3]; 12];
    let _ = within(20, file.write_all_vectored_at(lines, 0)).await;
    let _ = within(20, file.sync_all()).await;
    start_and_drop(File::open("of no kernel either")).await;
    let _ = file.len().await;
    let _ = file.close().await;
    if let Some(Ok(bytes)) = within(20, quoit::fs::read("a third")).await {
        assert_true(&bytes);
    }
}

async fn naps() {
    let mut ticks = interval(Duration::from_millis(3));
    for nap in 1..10 {
        sleep(Duration::from_millis(nap)).await;
        ticks.tick().await;
    }
}

// ---- Panics ----

static UNPLANNED: Mutex<Vec<String>> = Mutex::new(Vec::new());
static REFUSED: AtomicU64 = AtomicU64::new(0);

fn unplanned() -> MutexGuard<'static, Vec<String>> {
    UNPLANNED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps refusals silent, and notes every other panic.
fn watch_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let speak = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let text = panic.payload_as_str().unwrap_or("a panic without words");
            if REFUSALS.iter().any(|refusal| text.contains(refusal)) {
                REFUSED.fetch_add(1, Ordering::Relaxed);
                return;
            }
            unplanned().push(panic.to_string());
            speak(panic);
        }));
    });
}

// ---- The kernel ----

/// What the kernel did, as it knows itself.
#[derive(Default)]
struct Ledger {
    strays: u64,
    open: BTreeSet<i32>,
    closed_twice: u64,
    survey: Survey,
}

fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

/// No thread but the runtime's own wakes anybody here.
struct Nobody;

impl Kick for Nobody {
    fn kick(&self) {}
}

/// Descriptors that no slip can close: the process has no such numbers.
const FIRST_FD: i32 = 1 << 30;

const BUFFER: u32 = 1;
const MORE: u32 = 2;

/// `IOSQE_BUFFER_SELECT`
const SELECTS: u8 = 1 << 5;
/// `IORING_ACCEPT_MULTISHOT`
const ACCEPTS_MANY: u16 = 1;

/// An entry of a ring of provided buffers, as the kernel has it.
#[repr(C)]
struct Entry {
    start: u64,
    len: u32,
    bid: u16,
    /// In the first entry, the tail of the ring.
    tail: u16,
}

/// The ring of provided buffers.
struct Buffers {
    ring: *const Entry,
    entries: u16,
    head: u16,
    /// Which of them the program was given, and may have given back.
    out: BTreeSet<u16>,
}

impl Buffers {
    /// The buffer on offer that so many others are before.
    fn peek(&self, behind: u16) -> Option<Entry> {
        // SAFETY: the program keeps the ring until it is removed, and its first entry has the tail.
        let tail = unsafe { (&raw const (*self.ring).tail).read_volatile() };
        if tail.wrapping_sub(self.head) <= behind {
            return None;
        }
        let index = usize::from(self.head.wrapping_add(behind) % self.entries);
        // SAFETY: the index is within the ring.
        Some(unsafe { self.ring.add(index).read() })
    }

    /// A buffer that the program has now.
    fn leased(&mut self) -> Option<u16> {
        let offered: Vec<u16> = (0..).map_while(|behind| Some(self.peek(behind)?.bid)).collect();
        self.out.retain(|bid| !offered.contains(bid));
        self.out.first().copied()
    }
}

struct Kernel {
    bytes: Arc<[u8]>,
    at: usize,
    ledger: Arc<Mutex<Ledger>>,
    /// Requests that wait for their last answer, oldest first.
    live: Vec<Fields>,
    /// The names of requests that have ended, in earlier laps.
    past: VecDeque<u64>,
    /// Those that ended in this lap; `true` if the same request may be pushed once more.
    ended: Vec<(u64, bool)>,
    /// Answers that are due with the next lap.
    due: Vec<Cqe>,
    /// The name of the runtime's own timeout, and whether it is armed.
    timeout: Option<(u64, bool)>,
    buffers: Option<Buffers>,
    clock: u64,
    next_fd: i32,
    fruitless: u32,
    unparker: Unparker,
}

impl Kernel {
    fn new(bytes: Arc<[u8]>, ledger: Arc<Mutex<Ledger>>) -> Kernel {
        Kernel {
            bytes,
            at: 0,
            ledger,
            live: Vec::new(),
            past: VecDeque::new(),
            ended: Vec::new(),
            due: Vec::new(),
            timeout: None,
            buffers: None,
            clock: 1_000_000_000,
            next_fd: FIRST_FD,
            fruitless: 0,
            unparker: Unparker::new(Nobody),
        }
    }

    fn has_bytes(&self) -> bool {
        self.at < self.bytes.len()
    }

    /// The next byte; zeros after the end.
    fn byte(&mut self) -> u8 {
        let byte = self.bytes.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        byte
    }

    fn below(&mut self, end: usize) -> usize {
        let number = usize::from(self.byte()) << 8 | usize::from(self.byte());
        number % end
    }

    fn open(&mut self) -> i32 {
        self.next_fd += 1;
        lock(&self.ledger).open.insert(self.next_fd);
        self.next_fd
    }

    fn is_live(&self, user_data: u64) -> bool {
        self.live.iter().any(|request| request.user_data == user_data)
    }

    /// The last answer to the request at `index`.
    fn end(&mut self, index: usize, result: i32, flags: u32) -> Cqe {
        let request = self.live.remove(index);
        let was_not_begun = [-libc::EINTR, -libc::ECANCELED].contains(&result);
        let repeats = was_not_begun || is_of_many(&request);
        self.ended.push((request.user_data, repeats));
        Cqe { user_data: request.user_data, result, flags }
    }

    /// A true answer to the request at `index`; it keeps going if it may and `more` says so.
    fn answer(&mut self, index: usize, more: bool) -> Cqe {
        let request = self.live[index];
        let share = self.byte();
        let (result, flags) = match request.opcode {
            opcode::AcceptMulti::CODE | opcode::OpenAt::CODE => (self.open(), 0),
            opcode::Recv::CODE if request.flags & SELECTS != 0 => match self.pick(share) {
                Some((len, bid)) => (len, BUFFER | u32::from(bid) << 16),
                None => return self.end(index, -libc::ENOBUFS, 0),
            },
            opcode::Recv::CODE | opcode::Read::CODE => (fill(&[piece(&request)], share), 0),
            opcode::Readv::CODE => (fill(&pieces(request.addr, request.len), share), 0),
            opcode::Send::CODE | opcode::Write::CODE => (take(&[piece(&request)], share), 0),
            opcode::Writev::CODE => (take(&pieces(request.addr, request.len), share), 0),
            opcode::SendMsg::CODE => {
                // SAFETY: the request points at a message until its last answer.
                let message = unsafe { &*(request.addr as *const libc::msghdr) };
                (take(&pieces(message.msg_iov as u64, message.msg_iovlen as u32), share), 0)
            }
            opcode::Connect::CODE | opcode::Fsync::CODE => (0, 0),
            _ => (-libc::EOPNOTSUPP, 0),
        };
        if more && is_of_many(&request) && result > 0 {
            return Cqe { user_data: request.user_data, result, flags: flags | MORE };
        }
        self.end(index, result, flags)
    }

    /// Picks the next buffer on offer and fills it, in part.
    fn pick(&mut self, share: u8) -> Option<(i32, u16)> {
        let buffers = self.buffers.as_mut()?;
        let entry = buffers.peek(0)?;
        buffers.head = buffers.head.wrapping_add(1);
        buffers.out.insert(entry.bid);
        let len = fill(&[(entry.start, entry.len as usize)], share.max(1));
        Some((len, entry.bid))
    }

    /// One more answer, true or not, as the bytes say.
    fn step(&mut self, answers: &mut Vec<Cqe>) {
        let kind = self.byte() % 20;
        let lie = match kind {
            0..=9 if self.live.is_empty() => None,
            0..=7 => {
                let index = self.below(self.live.len());
                answers.push(self.answer(index, kind < 6));
                return;
            }
            8 | 9 => {
                const ERRORS: [i32; 8] = [
                    libc::EINTR,
                    libc::ECONNRESET,
                    libc::EIO,
                    libc::EMFILE,
                    libc::ECANCELED,
                    libc::ENOBUFS,
                    libc::EAGAIN,
                    libc::ECONNABORTED,
                ];
                let (index, error) = (self.below(self.live.len()), self.below(ERRORS.len()));
                answers.push(self.end(index, -ERRORS[error], 0));
                return;
            }
            10 | 11 => {
                self.ring(answers);
                return;
            }
            12 => self.stale(),
            13 => self.unheard_of(),
            14 => self.repeated(answers),
            15 => self.untimely(),
            _ if self.live.is_empty() => None,
            16 => Some(self.promises_more()),
            17 => self.too_much(),
            18 => Some(self.wrong_buffer()),
            _ => Some(self.no_errno()),
        };
        if let Some(lie) = lie {
            lock(&self.ledger).survey.lies += 1;
            answers.push(lie);
        }
    }

    /// The answer to the runtime's own timeout.
    fn ring(&mut self, answers: &mut Vec<Cqe>) {
        if let Some((user_data, true)) = self.timeout {
            self.timeout = Some((user_data, false));
            answers.push(Cqe::refusal(user_data, libc::ETIME));
        }
    }

    fn stray(&mut self, user_data: u64) -> Option<Cqe> {
        lock(&self.ledger).strays += 1;
        let results = [0, 1, 24, 5000, FIRST_FD + 77, -libc::EIO, -libc::EINTR, i32::MAX];
        let result = results[self.below(results.len())];
        let flags = u32::from(self.byte()) << 16 | u32::from(self.byte() & 7);
        Some(Cqe { user_data, result, flags })
    }

    /// An answer to what has ended in an earlier lap.
    fn stale(&mut self) -> Option<Cqe> {
        let end = self.past.len();
        let index = if end == 0 { return None } else { self.below(end) };
        let user_data = self.past[index];
        if self.is_live(user_data) { None } else { self.stray(user_data) }
    }

    /// An answer to what never was.
    fn unheard_of(&mut self) -> Option<Cqe> {
        let (generation, index) = (u64::from(self.byte()), self.below(1 << 16) as u64);
        let index = if generation & 1 == 0 { index } else { index & 7 };
        let user_data = generation << 33 | index << (generation & 16);
        let known = self.is_live(user_data) || self.ended.iter().any(|it| it.0 == user_data);
        if known { None } else { self.stray(user_data) }
    }

    /// An answer once more, in the same lap.
    fn repeated(&mut self, answers: &[Cqe]) -> Option<Cqe> {
        let end = self.ended.len();
        let index = if end == 0 { return None } else { self.below(end) };
        let (user_data, repeats) = self.ended[index];
        if repeats {
            return None;
        }
        lock(&self.ledger).strays += 1;
        answers.iter().rev().find(|cqe| cqe.user_data == user_data).copied()
    }

    /// The end of a timeout that is not armed.
    fn untimely(&mut self) -> Option<Cqe> {
        match self.timeout {
            Some((user_data, false)) => self.stray(user_data),
            _ => None,
        }
    }

    /// More answers are promised to an operation of one answer; or an empty one of many.
    fn promises_more(&mut self) -> Cqe {
        let index = self.below(self.live.len());
        let request = self.live[index];
        let results = [0, 1, 999_999, -libc::EIO, -libc::EINTR, i32::MAX];
        let result = results[self.below(results.len())];
        let result = if request.opcode == opcode::AcceptMulti::CODE { -libc::EIO } else { result };
        Cqe { user_data: request.user_data, result, flags: MORE }
    }

    /// More bytes than were asked for.
    fn too_much(&mut self) -> Option<Cqe> {
        let index = self.below(self.live.len());
        let request = self.live[index];
        let more = [1, 2, 4096, 1 << 20][self.below(4)];
        let asked = match request.opcode {
            opcode::Recv::CODE if request.flags & SELECTS != 0 => {
                let (_, bid) = self.pick(255)?;
                let result = 4096 + more;
                // The program knows nothing of this buffer: it is lost.
                self.buffers.as_mut()?.out.remove(&bid);
                return Some(self.end(index, result, BUFFER | u32::from(bid) << 16));
            }
            opcode::Recv::CODE | opcode::Read::CODE => piece(&request).1,
            opcode::Send::CODE | opcode::Write::CODE => piece(&request).1,
            opcode::Readv::CODE | opcode::Writev::CODE => {
                pieces(request.addr, request.len).iter().map(|piece| piece.1).sum()
            }
            _ => return None,
        };
        Some(self.end(index, asked as i32 + more, 0))
    }

    /// A buffer that is not on offer.
    fn wrong_buffer(&mut self) -> Cqe {
        let index = self.below(self.live.len());
        let request = self.live[index];
        // An end that comes before it in this lap may still bring leases home.
        let quiet = self.ended.is_empty();
        let leased = self.buffers.as_mut().filter(|_| quiet).and_then(Buffers::leased);
        let wild = 4096 + self.below(60_000) as u16;
        let result = [1, 24, 4096, -libc::EIO][self.below(4)];
        let user_data = request.user_data;
        if request.flags & SELECTS == 0 {
            return self.end(index, -libc::EIO, BUFFER | u32::from(wild) << 16);
        }
        // A last answer is looked at later, when what was leased may be on offer.
        match (self.byte() & 3, leased) {
            (0, _) => self.end(index, result, BUFFER | u32::from(wild) << 16),
            (1 | 2, Some(bid)) => {
                Cqe { user_data, result, flags: MORE | BUFFER | u32::from(bid) << 16 }
            }
            _ => Cqe { user_data, result, flags: MORE | BUFFER | u32::from(wild) << 16 },
        }
    }

    /// An error that there is not.
    fn no_errno(&mut self) -> Cqe {
        let index = self.below(self.live.len());
        let results = [i32::MIN, i32::MIN + 1, -4096, -100_000];
        let result = results[self.below(results.len())];
        self.end(index, result, 0)
    }

    /// After the last byte: everything ends, and time runs.
    fn end_all(&mut self, answers: &mut Vec<Cqe>) {
        while !self.live.is_empty() {
            answers.push(self.end(0, -libc::ECANCELED, 0));
        }
        self.ring(answers);
        self.clock += 60_000_000_000;
    }

    fn address(&mut self, place: &mut [u8]) -> i32 {
        let port = 1 + self.below(60_000) as u16;
        let family = if self.byte() % 16 == 15 { 77 } else { libc::AF_INET as u16 };
        place[..2].copy_from_slice(&family.to_ne_bytes());
        place[2..4].copy_from_slice(&port.to_be_bytes());
        place[4..8].copy_from_slice(&[127, 0, 0, 1]);
        [16, 16, 16, 16, 16, 16, 0, 1 << 20, -5][self.below(9)]
    }
}

/// Whether the request may have more than one answer.
fn is_of_many(request: &Fields) -> bool {
    let accepts = request.opcode == opcode::AcceptMulti::CODE && request.ioprio & ACCEPTS_MANY != 0;
    accepts || request.opcode == opcode::Recv::CODE && request.flags & SELECTS != 0
}

fn piece(request: &Fields) -> (u64, usize) {
    (request.addr, request.len as usize)
}

/// Where several buffers are, and how long.
fn pieces(start: u64, count: u32) -> Vec<(u64, usize)> {
    // SAFETY: the request points at so many iovecs until its last answer.
    let iovecs = unsafe { std::slice::from_raw_parts(start as *const libc::iovec, count as usize) };
    iovecs.iter().map(|iovec| (iovec.iov_base as u64, iovec.iov_len)).collect()
}

/// So many of 255 parts of all pieces.
fn part(pieces: &[(u64, usize)], share: u8) -> usize {
    let all: usize = pieces.iter().map(|piece| piece.1).sum();
    (all * usize::from(share)).div_ceil(255).min(all)
}

fn fill(pieces: &[(u64, usize)], share: u8) -> i32 {
    let all = part(pieces, share);
    let mut left = all;
    for &(start, len) in pieces {
        let count = left.min(len);
        // SAFETY: the request points at so many writable bytes until its last answer.
        unsafe { std::ptr::write_bytes(start as *mut u8, PATTERN, count) };
        left -= count;
    }
    all as i32
}

/// Reads what is to be written: all of it, as a kernel may.
fn take(pieces: &[(u64, usize)], share: u8) -> i32 {
    for &(start, len) in pieces {
        // SAFETY: the request points at so many readable bytes until its last answer.
        let bytes = unsafe { std::slice::from_raw_parts(start as *const u8, len) };
        std::hint::black_box(bytes.iter().fold(0_u8, |sum, byte| sum ^ byte));
    }
    part(pieces, share) as i32
}

// SAFETY: it touches a request's memory only before its last answer. It lies about what is in flight,
// and never about descriptors, about bytes within what was asked for, or about ends.
unsafe impl Driver for Kernel {
    unsafe fn push(&mut self, sqe: Sqe) {
        let request = Fields::of(&sqe);
        match request.opcode {
            opcode::AsyncCancel::CODE => {
                self.due.push(Cqe::refusal(request.user_data, libc::ENOENT))
            }
            opcode::TimeoutUpdate::CODE => {
                self.due.push(Cqe::refusal(request.user_data, libc::ENOENT));
            }
            opcode::Timeout::CODE => self.timeout = Some((request.user_data, true)),
            _ => {
                assert!(!self.is_live(request.user_data), "two requests of one name: {request:?}");
                // The same one once more.
                self.ended.retain(|(user_data, _)| *user_data != request.user_data);
                self.live.push(request);
            }
        }
    }

    fn enter(&mut self, wait: Wait, answers: &mut Vec<Cqe>) -> io::Result<()> {
        let before = answers.len();
        self.past.extend(self.ended.drain(..).map(|(user_data, _)| user_data));
        while self.past.len() > 64 {
            self.past.pop_front();
        }
        self.clock += 1_000_000;
        if let Wait::Until(time) = wait {
            self.clock = self.clock.max(time);
        }
        answers.append(&mut self.due);
        for _ in 0..self.byte() % 4 {
            self.step(answers);
        }
        while wait != Wait::Poll && answers.len() == before && self.has_bytes() {
            self.step(answers);
        }
        if !self.has_bytes() {
            self.end_all(answers);
        }
        let given = answers.len() - before;
        lock(&self.ledger).survey.answers += given as u64;
        // Once there is nothing to answer, and time has run, somebody waits who was forgotten.
        let stuck = wait != Wait::Poll && given == 0 && !self.has_bytes();
        self.fruitless = if stuck { self.fruitless + 1 } else { 0 };
        if self.fruitless > 1000 {
            eprintln!("the program waits for ever");
            std::process::abort();
        }
        Ok(())
    }

    fn call(&mut self, call: Call<'_>) -> io::Result<i32> {
        match call {
            Call::Socket { .. } if self.byte() % 16 == 15 => {
                Err(io::Error::from_raw_os_error(libc::EMFILE))
            }
            Call::Socket { .. } => Ok(self.open()),
            Call::LocalAddress { address, .. } | Call::PeerAddress { address, .. } => {
                Ok(self.address(address))
            }
            Call::Close { fd } => {
                let mut ledger = lock(&self.ledger);
                let was_open = ledger.open.remove(&fd);
                ledger.closed_twice += u64::from(!was_open);
                Ok(0)
            }
            _ => Ok(0),
        }
    }

    unsafe fn register(&mut self, resource: Register) -> io::Result<()> {
        if let Register::Buffers { ring, entries, .. } = resource {
            let (ring, out) = (ring.cast_const().cast(), BTreeSet::new());
            self.buffers = Some(Buffers { ring, entries, head: 0, out });
        }
        Ok(())
    }

    fn supports(&self, _: u8) -> bool {
        true
    }

    fn unparker(&self) -> Unparker {
        self.unparker.clone()
    }

    fn now(&self) -> u64 {
        self.clock
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }

    fn name(&self) -> &'static str {
        "hostile"
    }
}
