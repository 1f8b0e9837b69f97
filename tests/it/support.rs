//! What the tests share: every kernel, isolation in a process of its own, and the ledger.

use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use quoit::driver::{DriverKind, Waiting};
use quoit::runtime::{Builder, Runtime, Stats};
use quoit::sim::{self, Faults};

/// Tells a child process which test it is there for.
const ISOLATED: &str = "QUOIT_ISOLATED";
/// What a child prints when its test has run to the end.
const REACHED: &str = "[the isolated test has run to its end]";
/// A test that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// The environment's `QUOIT_SCALE` times `size`, at least 1: 1 is what every run affords.
pub(crate) fn scaled(size: usize) -> usize {
    ((size as f64 * scale()) as usize).max(1)
}

fn scale() -> f64 {
    let scale = std::env::var("QUOIT_SCALE").ok();
    scale.map_or(1.0, |text| text.parse().expect("QUOIT_SCALE is a number"))
}

/// How long anything here may take before it counts as hung.
pub(crate) fn limit() -> Duration {
    // Full sizes take minutes.
    let patience = if std::env::var_os("QUOIT_SCALE").is_some() { 20.0 } else { 1.0 };
    patient(LIMIT.mul_f64(scale().max(1.0) * patience))
}

/// `time`, stretched by the environment's `QUOIT_PATIENCE`: for all that ends a wait for something
/// that should have come long ago, and asserts no speed. An emulated machine is ten times slower.
pub(crate) fn patient(time: Duration) -> Duration {
    // Not a `OnceLock`: ThreadSanitizer does not see how the standard library's hands values over.
    static FACTOR: AtomicU64 = AtomicU64::new(0);
    let mut factor = f64::from_bits(FACTOR.load(Ordering::Relaxed));
    if factor == 0.0 {
        let text = std::env::var("QUOIT_PATIENCE").ok();
        factor = text.map_or(1.0, |text| text.parse().expect("QUOIT_PATIENCE is a number"));
        FACTOR.store(factor.to_bits(), Ordering::Relaxed);
    }
    time.mul_f64(factor)
}

/// What cannot run on the invented kernel, and why: tests, or whole files of tests (`fs::`).
const NOT_SIMULATED: &[(&str, &str)] = &[
    ("fs::", "the machine's own files"),
    ("signals::", "the machine's own signals"),
    ("poll_fd::", "the machine's own descriptors"),
    ("pipes::", "the machine's own descriptors"),
    ("process::", "the machine's own processes"),
    ("bad_input::a_port_that_the_standard_library_has_is_in_use", "a socket of std"),
    ("bad_input::a_read_without_room_is_an_error_and_no_end", "/dev/null"),
    ("bad_input::a_write_of_nothing_succeeds_without_a_request", "/dev/null"),
    ("bad_input::offsets_past_the_end_of_any_file_are_refused_and_give_the_buffer_back", "a file"),
    ("bad_input::polling_after_the_end_panics_and_breaks_nothing", "/dev/null"),
    ("close::a_cork_holds_small_writes_until_the_last_is_dropped", "segments are not modelled"),
    (
        "mesh::a_channel_through_which_messages_run_for_ever_starves_nobody",
        "time passes only while nothing is ready",
    ),
    ("unix_fds::", "the machine's own descriptors"),
    ("task::a_task_that_wakes_itself_for_ever_starves_neither_timers_nor_files", "/proc"),
];

fn is_simulated<F>() -> bool {
    let test = test_of(std::any::type_name::<F>());
    !NOT_SIMULATED.iter().any(|(name, _)| match name.strip_suffix("::") {
        Some(_) => test.starts_with(name),
        None => test == *name,
    })
}

/// The kernel that runs, `(6, 12)`.
pub(crate) fn kernel() -> (u32, u32) {
    version(&fs::read_to_string("/proc/sys/kernel/osrelease").unwrap())
}

/// `6.12.94-amd64` is `(6, 12)`.
pub(crate) fn version(text: &str) -> (u32, u32) {
    let mut numbers = text.split(|other: char| !other.is_ascii_digit());
    let mut next = || numbers.next().and_then(|digits| digits.parse().ok());
    (next().expect("a major number"), next().expect("a minor number"))
}

/// Runs `body` on every kernel, and in every manner in which one can be used.
///
/// The first failure names where it happened. What hangs ends the process.
pub(crate) fn on_every_driver<F: Future<Output = ()>, B: Fn() -> F>(body: B) {
    on_every_driver_with(|builder| builder, body);
}

/// As [`on_every_driver`], with settings.
pub(crate) fn on_every_driver_with<F: Future<Output = ()>, B: Fn() -> F>(
    settings: impl Fn(Builder) -> Builder,
    body: B,
) {
    let mut drivers = drivers();
    if is_simulated::<B>() {
        for (seed, name) in ["a simulator", "another simulator"].into_iter().enumerate() {
            let driver = move |_| Ok(sim::driver(seed as u64, Faults::default()));
            drivers.push((name, Builder::new().driver_with(driver)));
        }
    }
    for (name, builder) in drivers {
        let watch = Watch::over(format!("on {name}"));
        let mut runtime = settings(builder).build().unwrap();
        runtime.block_on(body());
        assert_eq!(runtime.shutdown(patient(Duration::from_secs(10))), 0, "on {name}");
        assert_eq!((runtime.stats().stray, runtime.stats().leases), (0, 0), "on {name}");
        watch.ends();
    }
}

fn drivers() -> Vec<(&'static str, Builder)> {
    let faults = |_| {
        let mut enters = 0_u32;
        let fault: Box<dyn FnMut(u32) -> Option<(i32, u32)>> = Box::new(move |_| {
            enters += 1;
            match enters % 11 {
                3 => Some((libc::EINTR, 0)),
                5 => Some((libc::EAGAIN, 1)),
                8 => Some((libc::EBUSY, 2)),
                _ => None,
            }
        });
        fault
    };
    let epoll = || Builder::new().driver(DriverKind::Epoll);
    let mut drivers = vec![
        ("io_uring", on_io_uring()),
        ("io_uring with deadlines in the wait", on_io_uring().deadline_in_wait(true)),
        ("io_uring with small rings", on_io_uring().sq_entries(2).cq_entries(4)),
        ("io_uring that refuses", on_io_uring().enter_faults(faults)),
        ("io_uring that waits for several answers", on_io_uring().waiting(Waiting::Always)),
        ("io_uring that watches", on_io_uring().spin(Duration::from_millis(1))),
        ("epoll", epoll()),
        ("epoll with deadlines in the wait", epoll().deadline_in_wait(true)),
        ("epoll that refuses", epoll().enter_faults(faults)),
    ];
    drivers.extend(masks().iter().map(|mask| (*mask, on_io_uring().caps(mask))));
    drivers
}

/// For tests of what only io_uring has, whatever the environment's `QUOIT_DRIVER` says.
pub(crate) fn on_io_uring() -> Builder {
    Builder::new().driver(DriverKind::Uring)
}

/// What holds for one kernel and not for another, of the runtime that the environment asks for.
pub(crate) struct Traits {
    /// What `runtime::driver` calls it.
    pub(crate) name: &'static str,
    /// Bytes that an idle connection may cost beside those that it costs on io_uring. An emulated
    /// kernel keeps in the process what the real one keeps to itself: some 130 for a request and a
    /// descriptor.
    pub(crate) idle_bytes: usize,
}

pub(crate) fn traits() -> Traits {
    let driver = std::env::var("QUOIT_DRIVER").unwrap_or_else(|_| "auto".into());
    match driver.parse().unwrap() {
        DriverKind::Epoll => Traits { name: "epoll", idle_bytes: 150 },
        _ => Traits { name: "io_uring", idle_bytes: 0 },
    }
}

/// What tests take away from io_uring: what came after a kernel, and single capabilities.
const MASKS: [&str; 22] = [
    "5.10",
    "5.15",
    "5.19",
    "6.0",
    "6.1",
    "6.6",
    "6.12",
    "restricted",
    "5.10,restricted",
    "no-pbuf",
    "no-multishot-recv",
    "no-multishot-accept",
    "no-multishot-poll",
    "no-timeout-update",
    "no-ext-arg",
    "no-submit-all",
    "no-defer-taskrun",
    "no-single-issuer",
    "no-coop-taskrun,no-defer-taskrun",
    "no-msg-ring",
    "no-send-to",
    "no-send-count",
];

/// None where `QUOIT_CAPS` says under which one everything runs.
fn masks() -> &'static [&'static str] {
    if std::env::var_os("QUOIT_CAPS").is_some() { &[] } else { &MASKS }
}

/// Whether the environment takes capabilities away.
pub(crate) fn is_masked() -> bool {
    std::env::var_os("QUOIT_CAPS").is_some_and(|mask| mask != "none")
}

/// A builder for each mask, and one for all that is there.
pub(crate) fn under(masks: &[&'static str]) -> Vec<(&'static str, Builder)> {
    let mut builders = vec![("everything", Builder::new())];
    if std::env::var_os("QUOIT_CAPS").is_none() {
        builders.extend(masks.iter().map(|mask| (*mask, on_io_uring().caps(mask))));
    }
    builders
}

/// A figure that a test asserts, and that is another where the kernel lacks something. All else
/// that tests assert holds under every mask.
pub(crate) struct Figure {
    lacking: &'static [&'static str],
    /// Whether it is another as well where `QUOIT_WAITING` lets a sleep wait for several answers.
    or_coalescing: bool,
    with: usize,
    without: usize,
}

/// Most bytes of resident memory that one more idle connection may cost; 400 is the aim, and a page
/// more or less is the allocator's. A slot is 128, an entry of the table of tasks 12, the stream's
/// state 80 and the task of `echo` 176 with what the allocator adds. A receive that is asked in steps
/// is noted a second time.
pub(crate) const IDLE_CONNECTION_BYTES: Figure =
    Figure { lacking: &["pbuf", "multishot-recv"], or_coalescing: false, with: 410, without: 520 };

/// Leases of a paused reader: where completions run outside of the enter, and where the kernel goes
/// on with one receive while bytes come (6.1 does, 6.12 does not), and where a sleep waits for several
/// answers, a receive may fill all the buffers that are published before its cancel is handed over.
pub(crate) const PAUSED_READER_LEASES: Figure = Figure {
    lacking: &["defer-taskrun", "ext-arg-abs"],
    or_coalescing: true,
    with: 128,
    without: 256,
};

impl Figure {
    /// The figure for this kernel under the environment's mask.
    pub(crate) fn get(&self) -> usize {
        let caps = quoit::driver::caps().unwrap();
        let lacks = |name: &&str| caps.iter().any(|cap| cap.name == *name && !cap.present);
        let waiting = std::env::var("QUOIT_WAITING").unwrap_or_default();
        let coalesces = self.or_coalescing && !["", "latency"].contains(&waiting.as_str());
        if coalesces || self.lacking.iter().any(lacks) { self.without } else { self.with }
    }
}

/// Whether a sanitizer is at work: its shadow takes terabytes of addresses, and is resident too.
pub(crate) fn is_instrumented() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let sizes = fs::read_to_string("/proc/self/statm").unwrap();
        sizes.split(' ').next().unwrap().parse::<usize>().unwrap() > 1 << 28
    })
}

/// Ends the process with a sentence when a test hangs: a thread that is stuck cannot be ended.
pub(crate) struct Watch {
    test: Arc<Watched>,
    what: String,
}

/// What the thread that watches waits for. No channel: those of std give handles of threads back out
/// of a sanitizer's sight.
#[derive(Default)]
struct Watched {
    has_ended: AtomicBool,
    sleep: Mutex<()>,
    end: Condvar,
}

impl Watched {
    fn end(&self) {
        self.has_ended.store(true, Ordering::Release);
        // Whoever has looked before is asleep by now.
        drop(self.sleep.lock());
        self.end.notify_one();
    }

    /// Whether it ends in time.
    fn ends(&self) -> bool {
        let goes_on = |_: &mut ()| !self.has_ended.load(Ordering::Acquire);
        let awake = self.sleep.lock().unwrap();
        let (_awake, slept) = self.end.wait_timeout_while(awake, limit(), goes_on).unwrap();
        !slept.timed_out()
    }
}

impl Watch {
    pub(crate) fn over(what: impl Into<String>) -> Self {
        let what = what.into();
        let name = thread::current().name().unwrap_or("a test").to_owned();
        let text = format!("{name} hangs {what}");
        let test = Arc::<Watched>::default();
        let watched = Arc::clone(&test);
        thread::spawn(move || {
            if !watched.ends() {
                eprintln!("{text}; ending the process");
                std::process::abort();
            }
        });
        Watch { test, what }
    }

    pub(crate) fn ends(self) {}
}

impl Drop for Watch {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("this was {}", self.what);
        }
        self.test.end();
    }
}

/// Runs `body` in a process of its own: for what is process-wide, such as signals, limits, forks
/// and the count of descriptors; and for what binds an address again that it has given back, since
/// between fork and exec whatever process another test starts has a copy of each socket.
///
/// The test binary is started again for this one test, whose name is found in the closure's type;
/// call it as the only thing that the test does. `SIGINT` and `SIGTERM` are blocked there on every
/// thread but the test's own, as if the test's thread were the program's `main`.
pub(crate) fn isolated<F: FnOnce()>(body: F) {
    let test = test_of(std::any::type_name::<F>());
    if std::env::var(ISOLATED).is_ok_and(|name| name == test) {
        set_stop_signals(libc::SIG_UNBLOCK);
        body();
        println!("{REACHED}");
        return;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([&test, "--exact", "--nocapture", "--test-threads=1"]).env(ISOLATED, &test);
    let (success, output) = run(command);
    assert!(
        success && output.contains(REACHED),
        "{test} failed in its own process; this is what it said:\n{output}"
    );
    print!("{output}");
}

/// `it::runtime::a_test::{{closure}}` is the closure in `runtime::a_test`.
fn test_of(closure: &str) -> String {
    let path = closure.split("::{{closure}}").next().unwrap();
    path.split_once("::").expect("a path within the crate").1.to_owned()
}

/// Blocks or unblocks the signals that stop a runtime, on this thread.
pub(crate) fn set_stop_signals(how: i32) {
    // SAFETY: the set is initialized by `sigemptyset` before it is used.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGINT);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        assert_eq!(libc::pthread_sigmask(how, &raw const set, std::ptr::null_mut()), 0);
    }
}

/// Whether this thread blocks `signal`.
pub(crate) fn blocks(signal: i32) -> bool {
    // SAFETY: the set is a place for the answer, which is read after the call has filled it.
    unsafe {
        let mut set = std::mem::zeroed();
        assert_eq!(libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut set), 0);
        libc::sigismember(&raw const set, signal) == 1
    }
}

/// Sends a signal to the whole process, as `kill` and a terminal do.
pub(crate) fn kill_self(signal: i32) {
    // SAFETY: the call takes no pointers.
    assert_eq!(unsafe { libc::kill(libc::getpid(), signal) }, 0);
}

/// Refuses `call` to this thread with `errno`, by a seccomp filter as containers have it.
pub(crate) fn refuse(call: libc::c_long, errno: i32) {
    filter(call, libc::SECCOMP_RET_ERRNO | errno as u32);
}

/// Has `call` end the process, as strict sandboxes do.
pub(crate) fn kill_at(call: libc::c_long) {
    filter(call, libc::SECCOMP_RET_KILL_PROCESS);
}

fn filter(call: libc::c_long, action: u32) {
    let statement = |code, k| libc::sock_filter { code, jt: 0, jf: 0, k };
    let load_number = statement((libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, 0);
    let is_call = libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        jt: 0,
        jf: 1,
        k: call as u32,
    };
    let refusal = statement(libc::BPF_RET as u16, action);
    let permit = statement(libc::BPF_RET as u16, libc::SECCOMP_RET_ALLOW);
    let mut filter = [load_number, is_call, refusal, permit];
    let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    // SAFETY: the program lives until the call that reads it returns.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program), 0);
    }
}

/// Whether this process may do everything.
pub(crate) fn is_root() -> bool {
    // SAFETY: the call takes no pointers.
    unsafe { libc::geteuid() == 0 }
}

/// Gives up all privileges for good. Only in an [`isolated`] test.
pub(crate) fn become_nobody() {
    const NOBODY: u32 = 65_534;
    // SAFETY: no call takes a pointer but for the groups, of which there are none.
    unsafe {
        assert_eq!(libc::setgroups(0, std::ptr::null()), 0);
        assert_eq!(libc::setresgid(NOBODY, NOBODY, NOBODY), 0);
        assert_eq!(libc::setresuid(NOBODY, NOBODY, NOBODY), 0);
        // Otherwise the process may not look into its own /proc any more.
        assert_eq!(libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0), 0);
    }
}

/// Runs a child process under the time limit; whether it succeeded, and what it said.
fn run(mut command: Command) -> (bool, String) {
    let (mut reader, writer) = std::io::pipe().unwrap();
    command.stdin(Stdio::null()).stdout(writer.try_clone().unwrap()).stderr(writer);
    // SAFETY: between fork and exec it only makes system calls.
    unsafe {
        command.pre_exec(|| {
            set_stop_signals(libc::SIG_BLOCK);
            Ok(())
        });
    }
    let mut child = command.spawn().unwrap();
    // It holds the writing end, so that reading would not end.
    drop(command);
    let output = thread::spawn(move || {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut reader, &mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let start = Instant::now();
    while start.elapsed() < limit() {
        if let Some(status) = child.try_wait().unwrap() {
            return (status.success(), format!("{}({status})", output.join().unwrap()));
        }
        thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    (false, format!("{}(ended after {:?})", output.join().unwrap(), limit()))
}

/// The descriptors that are open, with what they lead to.
pub(crate) struct Ledger(BTreeMap<i32, String>);

impl Ledger {
    /// Notes what is open now. Only in an [`isolated`] test: others open descriptors too.
    pub(crate) fn open() -> Self {
        assert!(std::env::var_os(ISOLATED).is_some(), "a ledger needs a process of its own");
        Ledger(descriptors())
    }

    /// Fails unless the same descriptors are open as at the beginning.
    pub(crate) fn close(self) {
        assert_eq!(descriptors(), self.0, "descriptors were leaked (left) or lost (right)");
    }
}

fn descriptors() -> BTreeMap<i32, String> {
    let entries: Vec<_> = fs::read_dir("/proc/self/fd").unwrap().map(Result::unwrap).collect();
    // The directory's own descriptor is closed by now, so its link leads nowhere.
    let target = |entry: fs::DirEntry| {
        let target = fs::read_link(entry.path()).ok()?;
        Some((entry.file_name().to_str()?.parse().ok()?, target.to_string_lossy().into_owned()))
    };
    entries.into_iter().filter_map(target).collect()
}

/// Runs `body` on a runtime, and fails if it leaves anything behind: operations, orphans, leases,
/// tasks or timers on the core, or descriptors in the process. Only in an [`isolated`] test.
pub(crate) fn ledger<T>(builder: Builder, body: impl AsyncFnOnce() -> T) -> T {
    let ledger = Ledger::open();
    let mut runtime = builder.build().unwrap();
    let output = runtime.block_on(body());
    settle(&runtime);
    assert_eq!(runtime.shutdown(patient(Duration::from_secs(10))), 0);
    assert_settled(&runtime.stats());
    drop(runtime);
    ledger.close();
    output
}

/// Forgets `value`, as [`std::mem::forget`] does. LeakSanitizer finds it here, and calls it no leak.
pub(crate) fn forget<T>(value: T) {
    static FORGOTTEN: Mutex<Vec<usize>> = Mutex::new(Vec::new());
    let place = Box::into_raw(Box::new(value));
    FORGOTTEN.lock().unwrap().push(place.expose_provenance());
}

/// Lets a runtime run until nothing is left on it, and fails if something stays.
pub(crate) fn settle(runtime: &Runtime) {
    let start = Instant::now();
    while !is_settled(&runtime.stats()) && start.elapsed() < patient(Duration::from_secs(5)) {
        runtime.block_on(quoit::time::sleep(Duration::from_millis(1)));
    }
    assert_settled(&runtime.stats());
}

fn is_settled(stats: &Stats) -> bool {
    let levels = [stats.live_ops, stats.orphans, stats.leases];
    levels == [0; 3] && stats.tasks == 0 && stats.timers == 0
}

#[track_caller]
pub(crate) fn assert_settled(stats: &Stats) {
    assert!(is_settled(stats), "something is left on the core: {stats:#?}");
    assert_eq!(stats.stray, 0, "an answer named no operation");
}

// ---- Forks ----

/// Whether `child`, run in a forked child, returns true.
pub(crate) fn holds_in_a_fork(child: impl FnOnce() -> bool) -> bool {
    let status = in_a_fork(child);
    libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
}

/// Runs `child` in a forked child, which exits with 0 if it returns true, and returns its status.
pub(crate) fn in_a_fork(child: impl FnOnce() -> bool) -> i32 {
    // SAFETY: the child only runs `child`, and leaves by `_exit`.
    unsafe {
        let pid = libc::fork();
        if pid == 0 {
            let good =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(false);
            libc::_exit(if good { 0 } else { 1 });
        }
        assert!(pid > 0);
        let mut status = 0;
        assert_eq!(libc::waitpid(pid, &raw mut status, 0), pid);
        status
    }
}
