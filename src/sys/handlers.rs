//! Signals that are heard: a handler that counts, and a sleep that it ends.
//!
//! The handler may run on any thread, in the middle of anything. So it only adds to two numbers, wakes
//! whoever sleeps on the second, and passes the signal on to the handler that was there before. It
//! needs no descriptor, no lock and no memory, and nothing of it reaches the parent of a forked child.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::atomic::plain::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

/// One more than the largest number of a signal.
const SIGNALS: usize = 65;

/// How often each signal has come since its handler was installed, modulo 2^32.
static HEARD: [AtomicU32; SIGNALS] = [const { AtomicU32::new(0) }; SIGNALS];

/// Changes with each of them, and whenever somebody rings: what a listener sleeps on.
static RUNG: AtomicU32 = AtomicU32::new(0);

/// The handlers that were there before, as the handler needs them.
static NEXT: [Next; SIGNALS] = [const { Next::none() }; SIGNALS];

/// The dispositions that were there before, as a whole.
static BEFORE: Mutex<[Option<libc::sigaction>; SIGNALS]> = Mutex::new([const { None }; SIGNALS]);

/// A handler to call after ours: its address, or what stands for none.
struct Next {
    function: AtomicUsize,
    takes_info: AtomicBool,
}

impl Next {
    const fn none() -> Self {
        Next { function: AtomicUsize::new(libc::SIG_DFL), takes_info: AtomicBool::new(false) }
    }
}

type WithInfo = unsafe extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);

/// How often a signal has come, modulo 2^32.
pub(crate) fn heard(signal: i32) -> u32 {
    HEARD[signal as usize].load(Ordering::Acquire)
}

/// A signal has come: to the handler, or to whoever has blocked it and read it from a descriptor.
pub(crate) fn note(signal: i32) {
    if let Some(heard) = HEARD.get(signal as usize) {
        heard.fetch_add(1, Ordering::Release);
        ring();
    }
}

/// Ends the sleep of the listener, who has something to look at.
pub(crate) fn ring() {
    RUNG.fetch_add(1, Ordering::Release);
    let wake = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the word is a static; a wake does not even read it.
    unsafe { libc::syscall(libc::SYS_futex, RUNG.as_ptr(), wake, 1) };
}

/// What [`sleep`] is to be told, read before the counts are looked at.
pub(crate) fn rung() -> u32 {
    RUNG.load(Ordering::Acquire)
}

/// Sleeps until somebody has rung since `rung`, or `timeout` is over. It may end sooner.
pub(crate) fn sleep(rung: u32, timeout: Option<Duration>) {
    let time = timeout.map(|timeout| libc::timespec {
        tv_sec: timeout.as_secs() as libc::time_t,
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let time = time.as_ref().map_or(ptr::null(), ptr::from_ref);
    let wait = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the word is a static, and the time lives until the call returns.
    unsafe { libc::syscall(libc::SYS_futex, RUNG.as_ptr(), wait, rung, time) };
}

/// Has the handler called for a signal from now on, if it is not yet.
///
/// Once is enough: a handler that somebody has installed since has found ours, and calls it, as ours
/// does with the one before it. To go before that one as well would close a circle.
///
/// # Errors
/// `EINVAL` for what is no signal, or one that cannot be handled.
pub(crate) fn install(signal: i32) -> io::Result<()> {
    let mut before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
    let place = usize::try_from(signal).ok().and_then(|signal| before.get_mut(signal));
    let place = place.ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
    let current = disposition(signal)?;
    let is_function = ![libc::SIG_DFL, libc::SIG_IGN].contains(&current.sa_sigaction);
    if is_ours(&current) || (place.is_some() && is_function) {
        return Ok(());
    }
    let next = &NEXT[signal as usize];
    // Whoever comes in between finds none, or one that takes what both forms take.
    next.function.store(libc::SIG_DFL, Ordering::Release);
    next.takes_info.store(current.sa_flags & libc::SA_SIGINFO != 0, Ordering::Release);
    next.function.store(current.sa_sigaction, Ordering::Release);
    // SAFETY: of all zeros are an empty mask, no flags and the default disposition.
    let mut ours: libc::sigaction = unsafe { std::mem::zeroed() };
    ours.sa_sigaction = hear as WithInfo as usize;
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
    set_disposition(signal, &ours)?;
    *place = Some(current);
    Ok(())
}

/// Restores what was there before [`install`], unless somebody has installed something else since:
/// that may still call ours.
///
/// # Errors
/// `EINVAL` for what is no signal.
pub(crate) fn restore(signal: i32) -> io::Result<()> {
    let mut before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
    let place = usize::try_from(signal).ok().and_then(|signal| before.get_mut(signal));
    let place = place.ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
    let current = disposition(signal)?;
    let Some(disposed) = place else { return Ok(()) };
    if is_ours(&current) {
        set_disposition(signal, disposed)?;
        *place = None;
    }
    Ok(())
}

/// Whether a signal does nothing to this process.
pub(crate) fn is_ignored(signal: i32) -> bool {
    disposition(signal).is_ok_and(|current| current.sa_sigaction == libc::SIG_IGN)
}

fn is_ours(disposition: &libc::sigaction) -> bool {
    disposition.sa_sigaction == hear as WithInfo as usize
}

fn disposition(signal: i32) -> io::Result<libc::sigaction> {
    let mut current = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: `current` is a place for the answer, and nothing is changed.
    if unsafe { libc::sigaction(signal, ptr::null(), current.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has filled it.
    Ok(unsafe { current.assume_init() })
}

fn set_disposition(signal: i32, disposition: &libc::sigaction) -> io::Result<()> {
    // SAFETY: our handler is safe to run at any time, and any other was in force before.
    match unsafe { libc::sigaction(signal, ptr::from_ref(disposition), ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The handler. It calls nothing that is not safe in one.
unsafe extern "C" fn hear(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the place is this thread's own. Whoever was interrupted may be about to read it.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let before = unsafe { *errno };
    note(signal);
    let next = &NEXT[signal as usize];
    let function = next.function.load(Ordering::Acquire);
    if function != libc::SIG_DFL && function != libc::SIG_IGN {
        if next.takes_info.load(Ordering::Acquire) {
            // SAFETY: it is the address of a handler of this form, which `sigaction` gave.
            let function = unsafe { std::mem::transmute::<usize, WithInfo>(function) };
            // SAFETY: it gets what the kernel gave to this handler.
            unsafe { function(signal, info, context) };
        } else {
            type Plain = unsafe extern "C" fn(i32);
            // SAFETY: as above, of the other form.
            let function = unsafe { std::mem::transmute::<usize, Plain>(function) };
            // SAFETY: as above.
            unsafe { function(signal) };
        }
    }
    // SAFETY: as above.
    unsafe { *errno = before };
}
