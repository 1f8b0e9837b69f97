//! Signals as streams. Each test has a process of its own: signals are the process's.

use std::cell::Cell;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use quoit::net::{TcpListener, TcpStream};
use quoit::runtime::{Builder, Core, Runtime, Signal as Stop};
use quoit::signal::{ForbiddenSignal, Signal, SignalKind, ctrl_c, restore, signal};
use quoit::sim::{FailureKind, Faults, Sim};
use quoit::time::{Instant, sleep, timeout};

use crate::loopback::{Flag, poll_once, until, within};
use crate::support::{isolated, kill_self, ledger, on_every_driver, patient, refuse};

const LONG: Duration = Duration::from_secs(20);
/// Long enough for a signal that should not come.
const SHORT: Duration = Duration::from_millis(5);

async fn comes(stream: &mut Signal) {
    within(LONG, stream.recv()).await;
}

async fn does_not_come(stream: &mut Signal) {
    assert!(timeout(SHORT, stream.recv()).await.is_err(), "{stream:?} came");
}

/// The address of the handler, or what stands for none.
fn disposition(number: i32) -> usize {
    // SAFETY: the place is filled by the call, which changes nothing.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        assert_eq!(libc::sigaction(number, std::ptr::null(), &raw mut action), 0);
        action.sa_sigaction
    }
}

/// Threads of this process by their names.
fn threads(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(Result::unwrap);
    let names = tasks.map(|task| std::fs::read_to_string(task.path().join("comm")));
    names.filter(|it| it.as_ref().is_ok_and(|it| it.trim() == name)).count()
}

#[test]
fn a_signal_ends_the_wait_on_every_kernel_and_those_for_nobody_are_one() {
    isolated(|| {
        on_every_driver(async || {
            let mut stream = signal(SignalKind::user_defined1()).unwrap();
            let mut other = signal(SignalKind::user_defined2()).unwrap();
            kill_self(libc::SIGUSR1);
            comes(&mut stream).await;
            for _ in 0..3 {
                kill_self(libc::SIGUSR1);
            }
            // Another thread may be about to handle the last.
            sleep(SHORT).await;
            comes(&mut stream).await;
            does_not_come(&mut stream).await;
            // While it is awaited, too.
            drop(quoit::spawn(async {
                sleep(Duration::from_millis(1)).await;
                kill_self(libc::SIGUSR1);
            }));
            comes(&mut stream).await;
            does_not_come(&mut other).await;
        });
    });
}

#[test]
fn every_core_sees_each_signal() {
    isolated(|| {
        const ROUNDS: usize = 20;
        static SEEN: AtomicUsize = AtomicUsize::new(0);
        let ready = Arc::new(Barrier::new(3));
        Builder::new()
            .cores(3)
            .shutdown_on([])
            .start_per_core(async move |core: Core| -> io::Result<()> {
                let mut first = signal(SignalKind::user_defined1())?;
                let mut second = signal(SignalKind::user_defined1())?;
                ready.wait();
                for round in 0..ROUNDS {
                    if core.index() == 0 {
                        kill_self(libc::SIGUSR1);
                    }
                    comes(&mut first).await;
                    comes(&mut second).await;
                    SEEN.fetch_add(1, Ordering::Relaxed);
                    // Before the next one, or the two would be one.
                    while SEEN.load(Ordering::Relaxed) < 3 * (round + 1) {
                        sleep(Duration::from_micros(100)).await;
                    }
                }
                Ok(())
            })
            .unwrap();
        assert_eq!(SEEN.load(Ordering::Relaxed), 3 * ROUNDS);
    });
}

#[test]
fn what_stops_the_cores_is_seen_by_its_streams_too() {
    isolated(|| {
        static SEEN: AtomicUsize = AtomicUsize::new(0);
        Builder::new()
            .cores(2)
            .shutdown_on([Stop::TERM])
            .start_per_core(async |core: Core| -> io::Result<()> {
                let mut terminate = signal(SignalKind::terminate())?;
                SEEN.fetch_add(1, Ordering::Relaxed);
                while SEEN.load(Ordering::Relaxed) < 2 {
                    sleep(Duration::from_micros(100)).await;
                }
                if core.index() == 0 {
                    kill_self(libc::SIGTERM);
                }
                comes(&mut terminate).await;
                within(LONG, core.shutdown()).await;
                SEEN.fetch_add(1, Ordering::Relaxed);
                Ok(())
            })
            .unwrap();
        assert_eq!(SEEN.load(Ordering::Relaxed), 4);
    });
}

#[test]
fn a_wait_that_is_dropped_loses_no_signal() {
    isolated(|| {
        on_every_driver(async || {
            let mut stream = signal(SignalKind::hangup()).unwrap();
            for round in 0..4 {
                let flag = Arc::new(Flag::default());
                {
                    let mut waiting = pin!(stream.recv());
                    assert!(poll_once(waiting.as_mut(), &flag).is_pending());
                    if round % 2 == 0 {
                        kill_self(libc::SIGHUP);
                    }
                }
                if round % 2 == 1 {
                    kill_self(libc::SIGHUP);
                }
                comes(&mut stream).await;
            }
        });
    });
}

#[test]
fn signals_that_no_program_survives_are_a_typed_error() {
    let forbidden =
        [libc::SIGKILL, libc::SIGSTOP, libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL];
    for number in forbidden {
        let error = signal(SignalKind::from_raw(number)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<ForbiddenSignal>());
        assert_eq!(inner.expect("a ForbiddenSignal").kind().as_raw_value(), number);
    }
    for number in [0, -1, 65, i32::MAX, i32::MIN] {
        let error = signal(SignalKind::from_raw(number)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{number}");
        assert!(restore(SignalKind::from_raw(number)).is_err());
    }
}

#[test]
fn the_default_action_stays_away_until_it_is_brought_back() {
    isolated(|| {
        assert_eq!(disposition(libc::SIGUSR1), libc::SIG_DFL);
        let mut runtime = Runtime::new().unwrap();
        let stream = runtime.block_on(async { signal(SignalKind::user_defined1()) }).unwrap();
        assert_eq!(
            restore(SignalKind::user_defined1()).unwrap_err().kind(),
            io::ErrorKind::ResourceBusy
        );
        drop(stream);
        runtime.shutdown(patient(LONG));
        // It would end the process. Sent to this thread, it has been handled when the call returns.
        // SAFETY: the call takes no pointers.
        assert_eq!(unsafe { libc::raise(libc::SIGUSR1) }, 0);
        restore(SignalKind::user_defined1()).unwrap();
        assert_eq!(disposition(libc::SIGUSR1), libc::SIG_DFL);
        // What somebody has installed meanwhile is left alone.
        drop(signal(SignalKind::user_defined1()).unwrap());
        // SAFETY: to ignore it is no function of ours.
        unsafe { libc::signal(libc::SIGUSR1, libc::SIG_IGN) };
        restore(SignalKind::user_defined1()).unwrap();
        assert_eq!(disposition(libc::SIGUSR1), libc::SIG_IGN);
    });
}

#[test]
fn the_handler_that_was_there_before_is_still_called() {
    static PLAIN: AtomicUsize = AtomicUsize::new(0);
    static WITH_INFO: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn plain(number: i32) {
        PLAIN.fetch_add(number as usize, Ordering::Relaxed);
    }
    extern "C" fn with_info(number: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
        // SAFETY: the kernel fills it for a handler of this form.
        let info = unsafe { (*info).si_signo };
        WITH_INFO.fetch_add((number + info) as usize, Ordering::Relaxed);
    }
    isolated(|| {
        let form = with_info as extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);
        // SAFETY: the handlers only count, and the rest of the actions is zeros.
        unsafe {
            libc::signal(libc::SIGUSR1, plain as extern "C" fn(i32) as usize);
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = form as usize;
            action.sa_flags = libc::SA_SIGINFO;
            libc::sigaction(libc::SIGUSR2, &raw const action, std::ptr::null_mut());
        }
        quoit::runtime::run(async {
            let mut one = signal(SignalKind::user_defined1()).unwrap();
            let mut two = signal(SignalKind::user_defined2()).unwrap();
            // Handled by this thread, and so to the end when the call returns.
            // SAFETY: the calls take no pointers.
            assert_eq!(unsafe { libc::raise(libc::SIGUSR1) | libc::raise(libc::SIGUSR2) }, 0);
            comes(&mut one).await;
            comes(&mut two).await;
        })
        .unwrap();
        let sums = (PLAIN.load(Ordering::Relaxed), WITH_INFO.load(Ordering::Relaxed));
        assert_eq!(sums, (libc::SIGUSR1 as usize, 2 * libc::SIGUSR2 as usize));
        restore(SignalKind::user_defined1()).unwrap();
        assert_eq!(disposition(libc::SIGUSR1), plain as extern "C" fn(i32) as usize);
    });
}

#[test]
fn a_handler_that_came_later_and_calls_ours_closes_no_circle() {
    static FOUND: AtomicUsize = AtomicUsize::new(0);
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    type Form = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);
    extern "C" fn later(number: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: it is the handler that `sigaction` gave, and of this form.
        let found: Form = unsafe { std::mem::transmute(FOUND.load(Ordering::Relaxed)) };
        found(number, info, context);
    }
    let raise = || {
        // SAFETY: the call takes no pointers.
        assert_eq!(unsafe { libc::raise(libc::SIGUSR1) }, 0);
    };
    isolated(|| {
        quoit::runtime::run(async {
            let mut first = signal(SignalKind::user_defined1()).unwrap();
            FOUND.store(disposition(libc::SIGUSR1), Ordering::Relaxed);
            // SAFETY: the handler counts and calls another; the rest of the action is zeros.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = later as Form as usize;
                action.sa_flags = libc::SA_SIGINFO;
                libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut());
            }
            let mut second = signal(SignalKind::user_defined1()).unwrap();
            raise();
            assert_eq!(CALLS.load(Ordering::Relaxed), 1);
            comes(&mut first).await;
            comes(&mut second).await;
            drop((first, second));
            // It is left alone, and still leads to ours.
            restore(SignalKind::user_defined1()).unwrap();
            let mut third = signal(SignalKind::user_defined1()).unwrap();
            raise();
            comes(&mut third).await;
            assert_eq!(CALLS.load(Ordering::Relaxed), 2);
            // What calls nobody is gone before.
            // SAFETY: to ignore it is no function of ours.
            unsafe { libc::signal(libc::SIGUSR1, libc::SIG_IGN) };
            let mut fourth = signal(SignalKind::user_defined1()).unwrap();
            raise();
            comes(&mut fourth).await;
            assert_eq!(CALLS.load(Ordering::Relaxed), 2);
        })
        .unwrap();
    });
}

#[test]
fn a_stream_that_cannot_be_leaves_the_default_action() {
    isolated(|| {
        quoit::runtime::run(async {
            refuse(libc::SYS_clone3, libc::EAGAIN);
            let error = signal(SignalKind::user_defined1()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            assert_eq!(disposition(libc::SIGUSR1), libc::SIG_DFL);
        })
        .unwrap();
    });
}

#[test]
fn streams_come_and_go_by_the_thousand_with_one_thread_and_no_descriptor() {
    isolated(|| {
        ledger(Builder::new(), async || {
            for _ in 0..5_000 {
                let flag = Arc::new(Flag::default());
                assert!(poll_once(pin!(ctrl_c()), &flag).is_pending());
            }
            let mut streams: Vec<Signal> =
                (0..1_000).map(|_| signal(SignalKind::user_defined1()).unwrap()).collect();
            // It has its name from the moment at which it runs.
            until(|| threads("quoit-signals") == 1).await;
            kill_self(libc::SIGUSR1);
            for stream in &mut streams {
                comes(stream).await;
            }
        });
    });
}

#[test]
fn ctrl_c_ends_with_an_interrupt() {
    isolated(|| {
        quoit::runtime::run(async {
            let stop = ctrl_c();
            kill_self(libc::SIGINT);
            within(LONG, stop).await.unwrap();
        })
        .unwrap();
    });
}

#[test]
fn a_storm_of_signals_from_other_threads_loses_the_last_of_none() {
    isolated(|| {
        quoit::runtime::run(async {
            let mut stream = signal(SignalKind::user_defined1()).unwrap();
            let storm = std::thread::spawn(|| (0..5_000).for_each(|_| kill_self(libc::SIGUSR1)));
            let mut came = 0;
            while !storm.is_finished() {
                came += usize::from(timeout(SHORT, stream.recv()).await.is_ok());
                quoit::task::yield_now().await;
            }
            storm.join().unwrap();
            // What is left comes, then there is silence, and then the next is seen.
            while timeout(SHORT, stream.recv()).await.is_ok() {
                came += 1;
            }
            assert!((1..=5_000).contains(&came), "{came} of 5,000");
            kill_self(libc::SIGUSR1);
            comes(&mut stream).await;
        })
        .unwrap();
    });
}

#[test]
fn a_core_stops_all_as_a_signal_does() {
    isolated(|| {
        let ended = Arc::new(Mutex::new(Vec::new()));
        let (lines, place) = (Arc::new(Mutex::new(Vec::new())), Arc::clone(&ended));
        let log = Arc::clone(&lines);
        Builder::new()
            .cores(2)
            .log(move |line| log.lock().unwrap().push(line.to_owned()))
            .start_per_core(async move |core: Core| {
                assert!(!core.is_stopping() && core.deadline().is_none());
                if core.index() == 1 {
                    // From another thread, and more than once.
                    let handle = core.handle();
                    std::thread::spawn(move || {
                        for _ in 0..3 {
                            handle.call_soon(|| quoit::runtime::core().stop()).unwrap();
                        }
                    });
                }
                core.shutdown().await;
                assert!(core.is_stopping() && core.deadline().is_some());
                place.lock().unwrap().push(core.index());
            })
            .unwrap();
        ended.lock().unwrap().sort_unstable();
        assert_eq!(*ended.lock().unwrap(), [0, 1]);
        let lines = lines.lock().unwrap();
        let asked: Vec<_> = lines.iter().filter(|line| line.contains("asked to stop")).collect();
        assert_eq!(asked, ["core 1 asks for it: the cores are asked to stop within 10s"]);
        // A main that is not told is dropped, and its grace is not waited for.
        Builder::new()
            .cores(2)
            .start_per_core(async || {
                if quoit::runtime::core().index() == 0 {
                    quoit::runtime::core().stop();
                }
                std::future::pending::<()>().await;
            })
            .unwrap();
        // Nobody stands by: it does nothing.
        quoit::runtime::run(async {
            quoit::runtime::core().stop();
            quoit::task::yield_now().await;
            assert!(!quoit::runtime::core().is_stopping());
        })
        .unwrap();
    });
}

// ---- Simulated processes ----

const HANGUP: SignalKind = SignalKind::hangup();
const TERMINATE: SignalKind = SignalKind::terminate();
const MS: Duration = Duration::from_millis(1);

fn wild() -> Faults {
    Faults::default().spurious_wakes(0.2).shuffle(0.5).partial_submits(0.2).refused_enters(0.1)
}

#[test]
fn a_simulated_process_hears_on_every_core_what_its_simulation_sends_and_no_other_does() {
    for seed in 0..20 {
        let heard = Rc::new(Cell::new(0));
        let sum = Arc::new(AtomicUsize::new(0));
        let (here, counted) = (Arc::clone(&sum), Rc::clone(&heard));
        let run = || {
            let (here, heard) = (Arc::clone(&here), Rc::clone(&heard));
            Sim::new(seed)
                .host_with_cores("daemon", 3, async move || {
                    let mut stream = signal(HANGUP)?;
                    for _ in 0..2 {
                        stream.recv().await;
                        here.fetch_add(1, Ordering::Relaxed);
                    }
                    stream.recv().await;
                    io::Result::Ok(())
                })
                .client("client", async move || {
                    let mut stream = signal(HANGUP)?;
                    assert!(timeout(50 * MS, stream.recv()).await.is_err(), "it is another's");
                    heard.set(heard.get() + 1);
                    io::Result::Ok(())
                })
                .faults(wild())
                .signal("daemon", HANGUP, 10 * MS)
                .signal("daemon", HANGUP, 20 * MS)
                .run()
                .unwrap()
        };
        let (one, two) = (run(), run());
        assert_eq!(one.trace, two.trace, "seed {seed}");
        assert_eq!((sum.load(Ordering::Relaxed), counted.get()), (12, 2), "seed {seed}");
    }
}

/// When, in virtual milliseconds, a host's main, which is told, has ended, and whether to its end.
fn stopped(grace: Duration, tidies_up: Duration, signals: &[u32]) -> (u64, bool) {
    let ended = Arc::new(Mutex::new(None));
    let place = Arc::clone(&ended);
    let main = async move |core: Core| {
        let mut end = End { place: Arc::clone(&place), start: Instant::now(), is_tidy: false };
        core.shutdown().await;
        sleep(tidies_up).await;
        end.is_tidy = true;
        io::Result::Ok(())
    };
    let mut sim = Sim::new(7)
        .builder(Builder::new().grace(grace))
        .host("daemon", main)
        .client("client", async || sleep(1_000 * MS).await);
    for &at in signals {
        sim = sim.signal("daemon", TERMINATE, at * MS);
    }
    sim.run().unwrap();
    let ended = ended.lock().unwrap().take();
    ended.expect("the main has ended")
}

/// Says when it was dropped.
struct End {
    place: Arc<Mutex<Option<(u64, bool)>>>,
    start: Instant,
    is_tidy: bool,
}

impl Drop for End {
    fn drop(&mut self) {
        // It started a moment after its world.
        let time = (self.start.elapsed() + MS / 2).as_millis() as u64;
        self.place.lock().unwrap().get_or_insert((time, self.is_tidy));
    }
}

#[test]
fn a_simulated_process_is_asked_to_stop_and_has_its_grace_period() {
    assert_eq!(stopped(200 * MS, 50 * MS, &[100]), (150, true));
    assert_eq!(stopped(200 * MS, 500 * MS, &[100]), (300, false), "the grace period is over");
    assert_eq!(stopped(200 * MS, 500 * MS, &[100, 150]), (150, false), "a second one skips it");
    let (time, _) = stopped(200 * MS, 500 * MS, &[]);
    assert!(time >= 999, "nobody asked it to stop, and it ended after {time} ms");
}

#[test]
fn a_simulated_core_stops_all_of_its_process_and_no_other() {
    for (tidies_up, is_tidy) in [(5 * MS, true), (500 * MS, false)] {
        let ends = Arc::new(Mutex::new(Vec::new()));
        let place = Arc::clone(&ends);
        let run = Sim::new(3)
            .builder(Builder::new().grace(100 * MS))
            .host_with_cores("daemon", 2, async move |core: Core| {
                if core.index() == 1 {
                    sleep(20 * MS).await;
                    core.stop();
                }
                let start = Instant::now();
                let place = Arc::clone(&place);
                core.shutdown().await;
                let tidy = timeout(50 * MS, sleep(tidies_up)).await.is_ok();
                place.lock().unwrap().push((start.elapsed() < 200 * MS, tidy));
                io::Result::Ok(())
            })
            .host("other", async || {
                sleep(500 * MS).await;
                assert!(!quoit::runtime::core().is_stopping());
                io::Result::Ok(())
            })
            .client("client", async || sleep(1_000 * MS).await)
            .run();
        run.unwrap();
        assert_eq!(*ends.lock().unwrap(), [(true, is_tidy); 2]);
    }
}

#[test]
fn a_simulated_main_that_is_not_told_is_dropped_where_it_stands() {
    let ended = Arc::new(Mutex::new(None));
    let place = Arc::clone(&ended);
    let main = async move || {
        let _end = End { place: Arc::clone(&place), start: Instant::now(), is_tidy: false };
        std::future::pending::<io::Result<()>>().await
    };
    let client = async || {
        sleep(50 * MS).await;
        let mut stream = signal(SignalKind::interrupt())?;
        stream.recv().await;
        io::Result::Ok(())
    };
    Sim::new(1)
        .host("daemon", main)
        .client("client", client)
        .signal("daemon", TERMINATE, 10 * MS)
        .signal("daemon", TERMINATE, 20 * MS)
        .signal("client", SignalKind::interrupt(), 60 * MS)
        .run()
        .unwrap();
    assert_eq!(*ended.lock().unwrap(), Some((10, false)));
}

/// Echoes, to every connection.
async fn serve() -> io::Result<()> {
    let listener = TcpListener::bind("0.0.0.0:7000").await?;
    loop {
        let (stream, _) = listener.accept().await?;
        quoit::spawn(async move {
            while let Some(chunk) = stream.recv().await? {
                stream.write_all(chunk).await?;
            }
            io::Result::Ok(())
        });
    }
}

#[test]
fn a_signal_that_nobody_hears_ends_a_simulated_process_and_its_peers_learn_of_it() {
    for seed in 0..50 {
        let client = async || {
            let stream = TcpStream::connect("server:7000").await?;
            stream.write_all("hello").await?;
            assert_eq!(stream.read_exact(vec![0; 5]).await?, b"hello");
            let end = stream.recv().await;
            assert!(!matches!(end, Ok(Some(_))), "{end:?}");
            let refused = TcpStream::connect("server:7000").await.unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
            io::Result::Ok(())
        };
        Sim::new(seed)
            .host("server", async || serve().await)
            .client("client", client)
            .faults(Faults::default().spurious_wakes(0.1).shuffle(0.2))
            // The one that does nothing, the one that is heard by nobody, and one to nobody.
            .signal("server", SignalKind::window_change(), 500 * MS)
            .signal("server", SignalKind::user_defined1(), 1_000 * MS)
            .signal("server", TERMINATE, 2_000 * MS)
            .run()
            .unwrap_or_else(|failure| panic!("{failure}"));
    }
}

#[test]
fn a_client_that_a_signal_ends_is_a_failure_and_streams_keep_the_default_away() {
    let run = |restores: bool| {
        Sim::new(1)
            .client("client", async move || {
                drop(signal(HANGUP)?);
                if restores {
                    let stream = signal(HANGUP)?;
                    assert_eq!(restore(HANGUP).unwrap_err().kind(), io::ErrorKind::ResourceBusy);
                    drop(stream);
                    restore(HANGUP)?;
                }
                sleep(20 * MS).await;
                io::Result::Ok(())
            })
            .signal("client", HANGUP, 10 * MS)
            .run()
    };
    run(false).unwrap();
    let failure = run(true).unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Client);
    let text = failure.to_string();
    assert!(
        text.contains("client `client` was ended by SIGHUP, which it does not handle"),
        "{text}"
    );
}

#[test]
fn a_simulated_core_refuses_the_signals_that_others_do() {
    let driver = move |_| Ok(quoit::sim::driver(1, Faults::default()));
    Builder::new()
        .driver_with(driver)
        .run(async {
            for number in [0, -1, 32, 33, 65, 9, 19] {
                let error = signal(SignalKind::from_raw(number)).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{number}");
            }
            assert!(timeout(SHORT, ctrl_c()).await.is_err(), "nobody sends it any");
        })
        .unwrap();
}

#[test]
#[should_panic(expected = "Sim::signal(SIGSTOP): that is not simulated")]
fn what_stops_processes_is_not_simulated() {
    let _ = Sim::new(1).signal("client", SignalKind::from_raw(libc::SIGSTOP), MS);
}
