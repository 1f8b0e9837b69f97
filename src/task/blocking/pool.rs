//! The threads that run jobs: started when there is work, ended when there has been none for a while.
//!
//! ```text
//!            submit              a thread takes it        ended, or panicked
//!   (nowhere) ────▶ in the queue ────────────────▶ running ────▶ (nowhere)
//!                     │ the pool closes
//!                     └─────────────▶ dropped, and whoever awaits it learns that it was cancelled
//! ```
//!
//! The cores that were started together share one pool, so that its bound is the program's and not a
//! core's. The drivers' own threads ([`crate::driver::pad`]) are others: a job here is the user's
//! code, takes as long as it likes, and may itself wait for a core that waits for a file.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::PoisonError;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::job::Owed;
use crate::sys::atomic::{Arc, Condvar, Mutex, MutexGuard};
use crate::sys::cpus::Mask;
use crate::sys::fork::forked;
use crate::sys::{guard, signals};

/// How many threads there may be, and for how long.
#[derive(Debug, Clone)]
pub(crate) struct Threads {
    pub(crate) most: usize,
    /// How long a thread waits for another job before it ends.
    pub(crate) keep_alive: Duration,
    pub(crate) name: String,
}

/// The threads of the cores that were started together, and the jobs that wait for one.
#[derive(Clone)]
pub(crate) struct Pool(Arc<Shared>);

struct Shared {
    settings: Threads,
    /// Where the process could run when the cores were started: they themselves are pinned.
    cpus: Option<Mask>,
    state: Mutex<State>,
    work: Condvar,
    ended: Condvar,
}

struct State {
    queue: VecDeque<Owed>,
    threads: usize,
    /// Threads that wait for a job, those included that were told of one and have not yet taken it.
    idle: usize,
    running: usize,
    /// The cores that may still submit.
    cores: usize,
    handles: Vec<JoinHandle<()>>,
    closed: bool,
}

impl Pool {
    /// No thread is started yet. It is made where the process's CPUs are those of the thread.
    pub(crate) fn new(settings: Threads) -> Self {
        Pool(Arc::new(Shared::new(settings, Mask::of_this_thread().ok())))
    }

    /// Where the process could run when the cores were started.
    pub(crate) fn cpus(&self) -> Option<Mask> {
        self.0.cpus.clone()
    }

    /// Counts one more core, which will [`leave`](Pool::leave).
    pub(crate) fn join(&self) {
        self.0.lock().cores += 1;
    }

    /// Has a thread run `job`, after all that were submitted before.
    pub(super) fn submit(&self, job: Owed) {
        if forked() {
            // The threads are not in this process, and one of them may have held the lock.
            return job.refuse(crate::sys::fork::Forked.into());
        }
        let mut state = self.0.lock();
        if state.closed {
            drop(state);
            return drop(job);
        }
        state.queue.push_back(job);
        if state.queue.len() <= state.idle || state.threads == self.0.settings.most {
            drop(state);
            self.0.work.notify_one();
            return;
        }
        state.threads += 1;
        drop(state);
        if let Err(error) = self.start_thread() {
            self.give_up(error);
        }
    }

    fn start_thread(&self) -> io::Result<()> {
        let shared = Arc::clone(&self.0);
        let thread = thread::Builder::new().name(self.0.settings.name.clone());
        // Signals are for the program's other threads, which expect them.
        let thread = signals::without_signals(|| {
            thread.spawn(move || {
                if let Some(cpus) = &shared.cpus {
                    // Some CPU may be gone by now; then it stays where the core is.
                    let _ = cpus.apply_here();
                }
                shared.work();
            })
        })??;
        let mut state = self.0.lock();
        state.handles.retain(|thread| !thread.is_finished());
        state.handles.push(thread);
        Ok(())
    }

    /// The system has refused a thread. Those that there are go on; without any, no job can be run.
    #[cold]
    fn give_up(&self, error: io::Error) {
        let mut state = self.0.lock();
        state.threads -= 1;
        let refused =
            if state.threads == 0 { std::mem::take(&mut state.queue) } else { VecDeque::new() };
        drop(state);
        for job in refused {
            job.refuse(io::Error::new(error.kind(), NoThread(error.to_string())));
        }
    }

    /// One core less. The last one drops what has not begun, and waits for what has, but no longer
    /// than `patience`; `warn` hears each second for how many jobs. Returns how many were left: their
    /// threads end with them.
    pub(crate) fn leave(&self, patience: Duration, mut warn: impl FnMut(usize, u64)) -> usize {
        if forked() {
            return 0;
        }
        let mut state = self.0.lock();
        state.cores -= 1;
        if state.cores > 0 {
            return 0;
        }
        state.closed = true;
        let queue = std::mem::take(&mut state.queue);
        drop(state);
        self.0.work.notify_all();
        drop(queue);
        let (start, mut warned) = (Instant::now(), 0);
        let mut state = self.0.lock();
        while state.threads > 0 {
            let waited = start.elapsed();
            let left = patience.saturating_sub(waited);
            if left.is_zero() {
                return state.running;
            }
            if waited.as_secs() > warned {
                warned = waited.as_secs();
                warn(state.running, warned);
            }
            let (again, _) = self
                .0
                .ended
                .wait_timeout(state, left.min(Duration::from_millis(250)))
                .unwrap_or_else(PoisonError::into_inner);
            state = again;
        }
        let handles = std::mem::take(&mut state.handles);
        drop(state);
        for thread in handles {
            let ended = thread.join();
            assert!(ended.is_ok(), "a job's panic ended its thread");
        }
        0
    }
}

impl Shared {
    fn new(settings: Threads, cpus: Option<Mask>) -> Self {
        let state = State {
            queue: VecDeque::new(),
            threads: 0,
            idle: 0,
            running: 0,
            cores: 0,
            handles: Vec::new(),
            closed: false,
        };
        let (work, ended) = (Condvar::new(), Condvar::new());
        Shared { settings, cpus, state: Mutex::new(state), work, ended }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of a thread.
    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.queue.pop_front() {
                state.running += 1;
                drop(state);
                // Dropping the job may drop its output, if nobody wants that.
                guard::call(move || job.run());
                state = self.lock();
                state.running -= 1;
                continue;
            }
            if state.closed {
                break;
            }
            state.idle += 1;
            let (again, timeout) = self
                .work
                .wait_timeout(state, self.settings.keep_alive)
                .unwrap_or_else(PoisonError::into_inner);
            state = again;
            state.idle -= 1;
            if timeout.timed_out() && state.queue.is_empty() {
                break;
            }
        }
        state.threads -= 1;
        drop(state);
        self.ended.notify_all();
    }
}

/// Why a job could not be run.
#[derive(Debug)]
struct NoThread(String);

impl fmt::Display for NoThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no thread could be started for a blocking job: {}; raise the limit of processes \
             (`ulimit -u`, or TasksMax= of a systemd unit)",
            self.0
        )
    }
}

impl std::error::Error for NoThread {}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::sys::atomic::model;
    use crate::task::blocking::job;
    use loom::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Wake, Waker};

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.fetch_add(1, Ordering::Release);
        }
    }

    /// A pool with one thread, which the model runs.
    fn pool() -> (Pool, loom::thread::JoinHandle<()>) {
        let settings = Threads { most: 1, keep_alive: Duration::MAX, name: String::new() };
        let pool = Pool(Arc::new(Shared::new(settings, None)));
        pool.0.lock().threads = 1;
        pool.join();
        let shared = Arc::clone(&pool.0);
        (pool, loom::thread::spawn(move || shared.work()))
    }

    fn waker() -> (std::sync::Arc<Count>, Waker) {
        let count = std::sync::Arc::new(Count(AtomicUsize::new(0)));
        (std::sync::Arc::clone(&count), Waker::from(count))
    }

    #[test]
    fn loom_whoever_awaits_a_job_is_woken_or_finds_the_outcome() {
        model(|| {
            let (pool, thread) = pool();
            let (owed, outcome) = job::new(|| 7);
            pool.submit(owed);
            let (count, waker) = waker();
            let early = outcome.poll(&mut Context::from_waker(&waker));
            // The pool closes: what runs is waited for, what waits is cancelled.
            assert_eq!(pool.leave(Duration::MAX, |_, _| ()), 0);
            thread.join().unwrap();
            match early {
                Poll::Ready(outcome) => assert_eq!(outcome.unwrap(), 7),
                Poll::Pending => {
                    assert_eq!(count.0.load(Ordering::Acquire), 1, "nobody was woken");
                    match outcome.poll(&mut Context::from_waker(&waker)) {
                        Poll::Ready(Ok(output)) => assert_eq!(output, 7),
                        Poll::Ready(Err(error)) => assert!(error.is_cancelled()),
                        Poll::Pending => panic!("a closed pool owes an outcome"),
                    }
                }
            }
        });
    }

    #[test]
    fn loom_an_aborted_job_runs_or_is_dropped_and_never_both() {
        model(|| {
            let (pool, thread) = pool();
            let ran = Arc::new(AtomicUsize::new(0));
            let (owed, outcome) = job::new({
                let ran = Arc::clone(&ran);
                move || ran.fetch_add(1, Ordering::Relaxed)
            });
            pool.submit(owed);
            outcome.abort();
            pool.leave(Duration::MAX, |_, _| ());
            thread.join().unwrap();
            let (_, waker) = waker();
            let Poll::Ready(outcome) = outcome.poll(&mut Context::from_waker(&waker)) else {
                panic!("a closed pool owes an outcome")
            };
            assert_eq!(outcome.is_ok(), ran.load(Ordering::Relaxed) == 1);
            assert_eq!(Arc::strong_count(&ran), 1, "the function was not dropped");
        });
    }
}
