//! Signals: blocked and read from a descriptor by the thread that supervises the cores, and one that
//! interrupts a call in which a thread is stuck.
//!
//! A blocked signal interrupts nobody. Threads inherit what is blocked when they are made, so the
//! signals have to be blocked before the threads are there, and are undone on the same thread.

use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// Signals that are blocked on this thread, and on those that it makes, until this is dropped.
pub(crate) struct Blocked {
    signals: Vec<i32>,
    previous: libc::sigset_t,
    fd: OwnedFd,
    /// The mask is the thread's, so it has to be restored there: `!Send`.
    thread: PhantomData<*const ()>,
}

impl Blocked {
    /// # Errors
    /// Those of `signalfd(2)`: there may be no descriptor left.
    pub(crate) fn new(signals: &[i32]) -> io::Result<Self> {
        let set = set_of(signals)?;
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        // SAFETY: `set` is a signal set; -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &raw const set, flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call above has just opened the number, and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let previous = set_mask(libc::SIG_BLOCK, &set)?;
        // SAFETY: the call above has filled the set.
        let is_new = |signal: &i32| unsafe { libc::sigismember(&raw const previous, *signal) } == 0;
        let signals: Vec<i32> = signals.iter().copied().filter(is_new).collect();
        OURS.lock().unwrap_or_else(PoisonError::into_inner).extend(&signals);
        Ok(Blocked { signals, previous, fd, thread: PhantomData })
    }

    /// Takes a signal that has come, if there is one.
    pub(crate) fn take(&self) -> Option<i32> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
        let size = size_of_val(&info);
        // SAFETY: `info` is writable for `size` bytes, and the descriptor is open.
        let read = unsafe { libc::read(self.fd.as_raw_fd(), info.as_mut_ptr().cast(), size) };
        // SAFETY: the kernel filled the whole of it.
        (read == size as isize).then(|| unsafe { info.assume_init() }.ssi_signo as i32)
    }
}

impl AsRawFd for Blocked {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        let mut ours = OURS.lock().unwrap_or_else(PoisonError::into_inner);
        for signal in &self.signals {
            let place = ours.iter().position(|other| other == signal);
            ours.swap_remove(place.expect("it was put there"));
        }
        drop(ours);
        let restored = set_mask(libc::SIG_SETMASK, &self.previous);
        assert!(restored.is_ok(), "a mask that was in force before is valid");
    }
}

/// What [`Blocked`] blocks, and nobody did before: each signal as often as there is one that does.
static OURS: Mutex<Vec<i32>> = Mutex::new(Vec::new());

/// Signals that are not to stay blocked in a process that this thread starts.
#[derive(Clone, Copy)]
pub(crate) struct Inherited(libc::sigset_t);

impl Inherited {
    /// `None` if the thread blocks none of its runtime's.
    pub(crate) fn of_this_thread() -> Option<Self> {
        let ours = OURS.lock().unwrap_or_else(PoisonError::into_inner);
        let current = set_mask(libc::SIG_BLOCK, &set_of(&[]).ok()?).ok()?;
        // SAFETY: the call above has filled the set.
        let is_blocked =
            |signal: &i32| unsafe { libc::sigismember(&raw const current, *signal) } == 1;
        if !ours.iter().any(is_blocked) {
            return None;
        }
        set_of(&ours).ok().map(Inherited)
    }

    /// Lets them through. It may be called between a fork and an exec.
    pub(crate) fn unblock_here(&self) -> io::Result<()> {
        set_mask(libc::SIG_UNBLOCK, &self.0).map(drop)
    }
}

/// Runs `f` while this thread blocks every signal, so that a thread that `f` makes blocks them too.
pub(crate) fn without_signals<R>(f: impl FnOnce() -> R) -> io::Result<R> {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `all` is a place for a signal set, which the call initializes.
    let result = unsafe { libc::sigfillset(all.as_mut_ptr()) };
    assert_eq!(result, 0, "filling a signal set cannot fail");
    // SAFETY: it has just been initialized.
    let previous = set_mask(libc::SIG_BLOCK, &unsafe { all.assume_init() })?;
    let result = f();
    set_mask(libc::SIG_SETMASK, &previous)?;
    Ok(result)
}

/// Runs `f`, which writes, so that a `SIGPIPE` that this brings upon this thread is gone afterwards.
pub(crate) fn without_sigpipe<R>(f: impl FnOnce() -> R) -> R {
    let pipe = set_of(&[libc::SIGPIPE]).expect("it is a signal");
    let previous = set_mask(libc::SIG_BLOCK, &pipe).expect("a set of one signal is valid");
    // One that waits already is somebody else's.
    let was_pending = is_pending(libc::SIGPIPE);
    let result = f();
    if !was_pending && is_pending(libc::SIGPIPE) {
        let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the set and the time live until the call returns, and nothing else is asked for.
        unsafe { libc::sigtimedwait(&raw const pipe, ptr::null_mut(), &raw const at_once) };
    }
    let restored = set_mask(libc::SIG_SETMASK, &previous);
    assert!(restored.is_ok(), "a mask that was in force before is valid");
    result
}

fn is_pending(signal: i32) -> bool {
    let mut pending = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `pending` is a place for a signal set.
    let failed = unsafe { libc::sigpending(pending.as_mut_ptr()) } != 0;
    // SAFETY: the call succeeded, so it has filled it.
    !failed && unsafe { libc::sigismember(pending.as_ptr(), signal) } == 1
}

/// The signal that interrupts a blocking call of another thread: its handler does nothing, and the
/// call is not restarted, so it ends with `EINTR`.
///
/// It is the last real-time signal that had its default disposition when the first thread asked.
/// `None` if all were taken: then nothing can be interrupted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Interrupt(i32);

static CHOSEN: OnceLock<Option<i32>> = OnceLock::new();

impl Interrupt {
    pub(crate) fn get() -> Option<Self> {
        CHOSEN.get_or_init(Interrupt::choose).map(Interrupt)
    }

    /// Whether it is this signal. Where none was chosen yet, one that has a handler never will be.
    pub(crate) fn is_chosen(signal: i32) -> bool {
        CHOSEN.get() == Some(&Some(signal))
    }

    fn choose() -> Option<i32> {
        (libc::SIGRTMIN()..=libc::SIGRTMAX()).rev().find(|&signal| Interrupt::take(signal))
    }

    /// Installs the handler, if nobody has one for this signal.
    fn take(signal: i32) -> bool {
        extern "C" fn nothing(_: i32) {}
        // SAFETY: of all zeros are an empty mask, no flags and the default disposition.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: `action` is a place for the answer, and nothing is changed.
        if unsafe { libc::sigaction(signal, ptr::null(), &raw mut action) } != 0
            || action.sa_sigaction != libc::SIG_DFL
        {
            return false;
        }
        action.sa_flags = 0;
        action.sa_sigaction = nothing as extern "C" fn(i32) as usize;
        // SAFETY: the handler does nothing, which is safe at any time.
        unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) == 0 }
    }

    /// Lets the signal through on this thread.
    pub(crate) fn unblock_here(self) {
        let set = set_of(&[self.0]).expect("the signal was chosen among those that exist");
        let unblocked = set_mask(libc::SIG_UNBLOCK, &set);
        assert!(unblocked.is_ok(), "a set of one signal is valid");
    }

    /// Interrupts what the thread is doing, if it has let the signal through.
    pub(crate) fn send(self, thread: libc::pid_t) {
        // SAFETY: the call takes no pointers; a thread that is gone is an error and nothing else.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, self.0) };
    }
}

/// The number by which the kernel knows this thread.
pub(crate) fn thread_id() -> libc::pid_t {
    // SAFETY: the call takes no pointers, and cannot fail.
    unsafe { libc::syscall(libc::SYS_gettid) as libc::pid_t }
}

fn set_of(signals: &[i32]) -> io::Result<libc::sigset_t> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `set` is a place for a signal set, which the call initializes.
    let result = unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    assert_eq!(result, 0, "emptying a signal set cannot fail");
    // SAFETY: it has just been initialized.
    let mut set = unsafe { set.assume_init() };
    for &signal in signals {
        // SAFETY: `set` is a signal set; a number that is no signal is refused.
        if unsafe { libc::sigaddset(&raw mut set, signal) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(set)
}

fn set_mask(how: i32, set: &libc::sigset_t) -> io::Result<libc::sigset_t> {
    let mut previous = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `set` is a signal set, `previous` a place for one.
    let errno = unsafe { libc::pthread_sigmask(how, ptr::from_ref(set), previous.as_mut_ptr()) };
    if errno != 0 {
        return Err(io::Error::from_raw_os_error(errno));
    }
    // SAFETY: the call succeeded, so it has filled it.
    Ok(unsafe { previous.assume_init() })
}

/// Sleeps until one of the descriptors can be read or has hung up, or `timeout` is over; says which
/// of them it was. It may end sooner, with none. A negative number stands for no descriptor.
///
/// # Errors
/// Those of `poll(2)`, except that an interrupted sleep is simply over.
pub(crate) fn wait<const N: usize>(
    descriptors: [RawFd; N],
    timeout: Option<Duration>,
) -> io::Result<[bool; N]> {
    // Rounded up, or the last millisecond would be spent in a busy loop.
    let timeout_ms = timeout.map_or(-1, |timeout| {
        i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
    });
    let mut polls = descriptors.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    // SAFETY: `polls` is an array of N entries.
    let result = unsafe { libc::poll(polls.as_mut_ptr(), N as libc::nfds_t, timeout_ms) };
    if result < 0 {
        let error = io::Error::last_os_error();
        let interrupted = error.kind() == io::ErrorKind::Interrupted;
        return if interrupted { Ok([false; N]) } else { Err(error) };
    }
    Ok(polls.map(|poll| poll.revents != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_blocked(signal: i32) -> bool {
        let now = set_mask(libc::SIG_BLOCK, &set_of(&[]).unwrap()).unwrap();
        // SAFETY: `now` is a signal set.
        unsafe { libc::sigismember(&raw const now, signal) == 1 }
    }

    /// Sends a signal to this thread alone: other tests run on others.
    fn raise(signal: i32) {
        // SAFETY: the thread that calls is alive.
        let errno = unsafe { libc::pthread_kill(libc::pthread_self(), signal) };
        assert_eq!(errno, 0);
    }

    #[test]
    fn a_blocked_signal_is_read_and_the_mask_restored() {
        assert!(!is_blocked(libc::SIGUSR2));
        let blocked = Blocked::new(&[libc::SIGUSR2]).unwrap();
        assert!(is_blocked(libc::SIGUSR2));
        assert_eq!(blocked.take(), None);
        raise(libc::SIGUSR2);
        assert_eq!(wait([blocked.as_raw_fd()], None).unwrap(), [true]);
        assert_eq!(blocked.take(), Some(libc::SIGUSR2));
        assert_eq!(blocked.take(), None);
        drop(blocked);
        assert!(!is_blocked(libc::SIGUSR2));
    }

    #[test]
    fn a_mask_is_restored_to_what_it_was_not_to_nothing() {
        let outer = Blocked::new(&[libc::SIGUSR1]).unwrap();
        drop(Blocked::new(&[libc::SIGUSR1, libc::SIGUSR2]).unwrap());
        assert!(is_blocked(libc::SIGUSR1) && !is_blocked(libc::SIGUSR2));
        drop(outer);
    }

    #[test]
    fn what_is_no_signal_is_refused() {
        assert_eq!(Blocked::new(&[12345]).err().unwrap().raw_os_error(), Some(libc::EINVAL));
    }

    #[test]
    fn a_wait_ends_with_its_time() {
        assert_eq!(wait([-1], Some(Duration::from_micros(10))).unwrap(), [false]);
    }
}
