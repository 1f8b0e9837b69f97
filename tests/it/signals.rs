//! Signals as streams. Each test has a process of its own: signals are the process's.

use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use quoit::runtime::{Builder, Core, Runtime, Signal as Stop};
use quoit::signal::{ForbiddenSignal, Signal, SignalKind, ctrl_c, restore, signal};
use quoit::time::{sleep, timeout};

use crate::loopback::{Flag, poll_once, until, within};
use crate::support::{isolated, kill_self, ledger, on_every_driver, patient};

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
fn a_simulated_core_gets_no_signals() {
    let driver = move |_| Ok(quoit::sim::driver(1, quoit::sim::Faults::default()));
    Builder::new()
        .driver_with(driver)
        .run(async {
            let error = signal(SignalKind::user_defined1()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::Unsupported);
            assert_eq!(ctrl_c().await.unwrap_err().kind(), io::ErrorKind::Unsupported);
        })
        .unwrap();
}
