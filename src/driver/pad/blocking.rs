//! Threads for calls that block: a few per core, started when there is work, ended when there is none.
//!
//! ```text
//!             submit                thread takes it            collect
//!   (nowhere) ─────▶ Waiting ───────────────────────▶ Running ─────────▶ Ended ─────▶ (nowhere)
//!                       │ take_back                      │ ▲
//!                       ▼                      interrupt └─┘ EINTR for another's sake: once more
//!                   (nowhere)
//! ```
//!
//! A job that waits can be taken back, and then never runs. One that runs is waited for: the memory
//! that it was lent may be written to until it has ended. `interrupt` only makes that happen sooner,
//! and has to be repeated until it does, because a signal that comes just before the call changes
//! nothing.

use std::collections::VecDeque;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::sys::atomic::Arc;
use crate::sys::fork;
use crate::sys::signals::{self, Interrupt};

/// Threads of one core. A disk is kept busy by fewer; the rest are for calls that wait for a partner,
/// as the opening of a FIFO does, and would otherwise keep every other job of the core waiting.
const MOST: usize = 16;

/// How long a thread waits for another job before it ends.
const PATIENCE: Duration = Duration::from_secs(5);

/// A job needs the stack of one system call, and a signal's frame.
const STACK: usize = 128 * 1024;

/// A call that blocks. It does not panic.
pub(crate) trait Job: Send + 'static {
    type Output: Send + 'static;

    fn run(&self) -> Self::Output;

    /// Whether a signal ended the call before it had done anything.
    fn was_interrupted(output: &Self::Output) -> bool;
}

/// The threads of one core, and their jobs. Jobs are told apart by keys of the owner's choice.
pub(crate) struct Blocking<J: Job> {
    shared: Arc<Shared<J>>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared<J: Job> {
    state: Mutex<State<J>>,
    work: Condvar,
    /// Tells the owner that jobs have ended. Called from the threads, outside of the lock.
    ended: Box<dyn Fn() + Send + Sync>,
}

struct State<J: Job> {
    waiting: VecDeque<(u64, J)>,
    running: Vec<Running>,
    ended: Vec<(u64, J::Output)>,
    threads: usize,
    /// Threads that wait for a job, those included that were told of one and have not yet taken it.
    idle: usize,
    closed: bool,
}

struct Running {
    key: u64,
    thread: libc::pid_t,
    /// Its owner wants it to end: it is not repeated when it was interrupted.
    unwanted: bool,
}

impl<J: Job> Blocking<J> {
    /// No thread is started yet. `ended` is called when there is something to collect.
    pub(crate) fn new(ended: impl Fn() + Send + Sync + 'static) -> Self {
        let state = State {
            waiting: VecDeque::new(),
            running: Vec::new(),
            ended: Vec::new(),
            threads: 0,
            idle: 0,
            closed: false,
        };
        let shared =
            Shared { state: Mutex::new(state), work: Condvar::new(), ended: Box::new(ended) };
        Blocking { shared: Arc::new(shared), threads: Vec::new() }
    }

    /// Has a thread run `job`.
    ///
    /// # Errors
    /// When there is no thread and none can be started; the job will not run.
    pub(crate) fn submit(&mut self, key: u64, job: J) -> io::Result<()> {
        let mut state = self.shared.lock();
        state.waiting.push_back((key, job));
        if state.waiting.len() <= state.idle || state.threads == MOST {
            drop(state);
            self.shared.work.notify_one();
            return Ok(());
        }
        state.threads += 1;
        drop(state);
        let Err(error) = self.start_thread() else { return Ok(()) };
        let mut state = self.shared.lock();
        state.threads -= 1;
        if state.threads > 0 {
            // It is a little slower with those that there are.
            return Ok(());
        }
        state.waiting.retain(|(other, _)| *other != key);
        Err(error)
    }

    fn start_thread(&mut self) -> io::Result<()> {
        self.threads.retain(|thread| !thread.is_finished());
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new().name("quoit-blocking".into()).stack_size(STACK);
        // Handlers of the program are not to run on so small a stack.
        let thread = signals::without_signals(|| thread.spawn(move || shared.work()))??;
        self.threads.push(thread);
        Ok(())
    }

    /// Takes a job back that has not begun; false if it has, or is not there.
    pub(crate) fn take_back(&mut self, key: u64) -> bool {
        let mut state = self.shared.lock();
        let place = state.waiting.iter().position(|(other, _)| *other == key);
        place.and_then(|place| state.waiting.remove(place)).is_some()
    }

    /// Asks a job that runs to end; false if it does not run (any more). It may have no effect: ask
    /// again after a while.
    pub(crate) fn interrupt(&mut self, key: u64) -> bool {
        let mut state = self.shared.lock();
        let Some(running) = state.running.iter_mut().find(|running| running.key == key) else {
            return false;
        };
        running.unwanted = true;
        // Under the lock: the thread cannot have gone on to another job.
        if let Some(interrupt) = Interrupt::get() {
            interrupt.send(running.thread);
        }
        true
    }

    /// Takes what has ended, with the keys, in the place of what `ended` held.
    pub(crate) fn collect(&mut self, ended: &mut Vec<(u64, J::Output)>) {
        ended.clear();
        std::mem::swap(&mut self.shared.lock().ended, ended);
    }
}

impl<J: Job> Shared<J> {
    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of a thread.
    fn work(&self) {
        if let Some(interrupt) = Interrupt::get() {
            interrupt.unblock_here();
        }
        let thread = signals::thread_id();
        let mut state = self.lock();
        loop {
            if let Some((key, job)) = state.waiting.pop_front() {
                state.running.push(Running { key, thread, unwanted: false });
                drop(state);
                self.run(key, &job);
                state = self.lock();
                continue;
            }
            if state.closed {
                break;
            }
            state.idle += 1;
            let (again, timeout) =
                self.work.wait_timeout(state, PATIENCE).unwrap_or_else(PoisonError::into_inner);
            state = again;
            state.idle -= 1;
            if timeout.timed_out() && state.waiting.is_empty() {
                break;
            }
        }
        state.threads -= 1;
    }

    fn run(&self, key: u64, job: &J) {
        let state = loop {
            let output = job.run();
            let mut state = self.lock();
            let place = state.running.iter().position(|running| running.key == key);
            let place = place.expect("only its own thread strikes a job off the list");
            // The signal may have been for the job before this one.
            if J::was_interrupted(&output) && !state.running[place].unwanted {
                continue;
            }
            state.running.swap_remove(place);
            state.ended.push((key, output));
            break state;
        };
        // If others have ended before it, the owner was told and has not come yet.
        let is_first = state.ended.len() == 1;
        drop(state);
        if is_first {
            (self.ended)();
        }
    }
}

impl<J: Job> Drop for Blocking<J> {
    fn drop(&mut self) {
        if fork::forked() {
            // The threads are not in this process, and one of them may have held the lock.
            std::mem::forget(std::mem::take(&mut self.threads));
            std::mem::forget(Arc::clone(&self.shared));
            return;
        }
        let mut state = self.shared.lock();
        state.closed = true;
        state.waiting.clear();
        let is_busy = !state.running.is_empty();
        drop(state);
        self.shared.work.notify_all();
        // Nobody drops a driver that has jobs in flight; if somebody did, the end would not hang.
        if !is_busy {
            for thread in self.threads.drain(..) {
                let ended = thread.join();
                assert!(ended.is_ok(), "a job panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{self, Receiver, Sender};

    /// Waits for a word and says what it heard.
    struct Listens(Mutex<Receiver<i32>>);

    impl Job for Listens {
        type Output = i32;

        fn run(&self) -> i32 {
            self.0.lock().unwrap().recv().unwrap_or(-1)
        }

        fn was_interrupted(_: &i32) -> bool {
            false
        }
    }

    fn listener() -> (Sender<i32>, Listens) {
        let (says, hears) = mpsc::channel();
        (says, Listens(Mutex::new(hears)))
    }

    fn pool<J: Job>() -> (Blocking<J>, Receiver<()>) {
        let (rings, hears) = mpsc::channel();
        // The receiver may be gone by the end of a test.
        (Blocking::new(move || rings.send(()).unwrap_or(())), hears)
    }

    #[test]
    fn what_ends_is_collected_with_its_key() {
        let (mut blocking, rings) = pool();
        let (says, job) = listener();
        blocking.submit(7, job).unwrap();
        says.send(42).unwrap();
        rings.recv().unwrap();
        let mut ended = vec![(0, 0)];
        blocking.collect(&mut ended);
        assert_eq!(ended, [(7, 42)]);
        blocking.collect(&mut ended);
        assert_eq!(ended, []);
    }

    #[test]
    fn a_job_that_waits_can_be_taken_back_and_one_that_runs_cannot() {
        let (mut blocking, rings) = pool();
        let mut says = Vec::new();
        for key in 0..MOST as u64 + 1 {
            let (say, job) = listener();
            blocking.submit(key, job).unwrap();
            says.push(say);
        }
        while blocking.shared.lock().running.len() < MOST {
            thread::yield_now();
        }
        assert!(blocking.take_back(MOST as u64));
        assert!(!blocking.take_back(MOST as u64));
        assert!(!blocking.take_back(0));
        assert_eq!(blocking.threads.len(), MOST);
        drop(says);
        let mut count = 0;
        while count < MOST {
            rings.recv().unwrap();
            let mut ended = Vec::new();
            blocking.collect(&mut ended);
            assert!(ended.iter().all(|&(_, output)| output == -1));
            count += ended.len();
        }
    }

    #[test]
    fn an_idle_thread_takes_the_next_job() {
        let (mut blocking, rings) = pool();
        for key in 0..20 {
            let (says, job) = listener();
            blocking.submit(key, job).unwrap();
            says.send(1).unwrap();
            rings.recv().unwrap();
            blocking.collect(&mut Vec::new());
            while blocking.shared.lock().idle == 0 {
                thread::yield_now();
            }
        }
        assert_eq!(blocking.threads.len(), 1);
    }

    /// Sleeps in the kernel until a signal comes.
    struct Sleeps;

    impl Job for Sleeps {
        type Output = i32;

        fn run(&self) -> i32 {
            // SAFETY: without descriptors there are no pointers to follow.
            let result = unsafe { libc::poll(std::ptr::null_mut(), 0, -1) };
            assert_eq!(result, -1);
            io::Error::last_os_error().raw_os_error().unwrap()
        }

        fn was_interrupted(output: &i32) -> bool {
            *output == libc::EINTR
        }
    }

    #[test]
    fn a_job_that_sleeps_is_interrupted_and_one_that_is_wanted_goes_on() {
        let (mut blocking, rings) = pool();
        blocking.submit(1, Sleeps).unwrap();
        blocking.submit(2, Sleeps).unwrap();
        while blocking.shared.lock().running.len() < 2 {
            thread::yield_now();
        }
        let thread = blocking.shared.lock().running.iter().find(|job| job.key == 2).unwrap().thread;
        Interrupt::get().unwrap().send(thread);
        let mut ended = Vec::new();
        while ended.is_empty() {
            blocking.interrupt(1);
            let _ = rings.recv_timeout(Duration::from_millis(1));
            blocking.collect(&mut ended);
        }
        assert_eq!(ended, [(1, libc::EINTR)]);
        assert_eq!(blocking.shared.lock().running.len(), 1);
        ended.clear();
        while ended.is_empty() {
            blocking.interrupt(2);
            let _ = rings.recv_timeout(Duration::from_millis(1));
            blocking.collect(&mut ended);
        }
        assert!(!blocking.interrupt(2));
    }
}
