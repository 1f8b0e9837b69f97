//! One loop per core, each on its thread; this one stands by until the last has ended.
//!
//! ```text
//!   supervisor           core's thread
//!      │ ── makes ──────────▶ │ pins itself, opens its ring
//!      │ ◀─ Ready, Refused ── │
//!      │ ── go (to all) ────▶ │ runs its main       (no core runs it unless all are ready)
//!      │ ── stop, end ──────▶ │                     (a signal; the first error or panic)
//!      │ ◀─ Ended ─────────── │ drains
//!      │ ◀─ Gone ──────────── │
//! ```

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::mpsc::{self, Receiver, Sender};
use std::task::Poll;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use core_affinity::CoreId;

use super::builder::{Builder, Signal};
use super::core::Core;
use super::diagnose::{Failed, START_THREAD};
use super::entry::{Main, Seal};
use super::error::{BoxError, Error, Result};
use super::local::Local;
use super::roll::Roll;
use super::shard::Seat;
use crate::sys::atomic::Arc;
use crate::sys::signals::{self, Blocked};
use crate::sys::{clock, cpus, handlers};
use crate::task::Remote;

/// What a core's thread tells the supervisor.
enum Event {
    /// Its ring is open; it waits for `go`.
    Ready(Arc<Remote>),
    /// It could not be started.
    Refused(Error),
    /// Its main has ended; it drains.
    Ended(Result<()>),
    /// The thread is about to end.
    Gone,
}

/// Where a core's thread posts its events. Dropping it posts the last.
struct Post {
    index: usize,
    events: Sender<(usize, Event)>,
    bell: Arc<PipeWriter>,
}

impl Post {
    fn send(&self, event: Event) {
        // The supervisor outlives its threads, so both ends are there; a full pipe rings already.
        let _ = self.events.send((self.index, event));
        let _ = (&*self.bell).write(&[0]);
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        self.send(Event::Gone);
    }
}

/// Runs `main` once on every core, and returns when all have ended.
pub(super) fn start_per_core<Form, M: Main<Form> + Send + Sync>(
    mut builder: Builder,
    main: M,
) -> Result<()> {
    let failed = |step| move |error| Failed { core: None, step, error }.explain();
    let cpus = builder.choose_cpus()?;
    builder.settle_kernel()?;
    builder.settle_spin(cpus.len());
    builder.settle_blocking();
    // Before the threads are made: they inherit what is blocked.
    let numbers: Vec<i32> = builder.signals.iter().map(|signal| signal.number()).collect();
    let signals = match numbers.is_empty() {
        true => None,
        false => Some(Blocked::new(&numbers).map_err(failed("signalfd"))?),
    };
    let (bell_heard, bell) = io::pipe().map_err(failed("pipe"))?;
    let (events, posted) = mpsc::channel();
    let bell = Arc::new(bell);
    let mut supervisor = Supervisor {
        roll: Roll::new(cpus.len(), Some(Arc::clone(&bell))),
        builder: Arc::new(builder),
        signals,
        bell_heard,
        posted,
        threads: Vec::new(),
        remotes: Vec::new(),
        gone: 0,
        stop: StopState::Running,
        stopped_by_signal: false,
        first_error: None,
    };
    supervisor.launch(&cpus, Arc::new(main), &events, &bell)?;
    drop(events);
    supervisor.stand_by();
    supervisor.finish()
}

/// How far the stop of all cores has come.
#[derive(Debug, Clone, Copy, PartialEq)]
enum StopState {
    Running,
    /// The grace period ends at this time of the monotonic clock.
    Grace(u64),
    Over,
}

/// Stands by while the cores run.
struct Supervisor {
    builder: Arc<Builder>,
    roll: Arc<Roll>,
    signals: Option<Blocked>,
    bell_heard: PipeReader,
    posted: Receiver<(usize, Event)>,
    threads: Vec<JoinHandle<()>>,
    remotes: Vec<Arc<Remote>>,
    gone: usize,
    stop: StopState,
    stopped_by_signal: bool,
    first_error: Option<Error>,
}

impl Supervisor {
    /// Makes the threads, and has them run `main` when every ring is open.
    fn launch<Form, M: Main<Form> + Send + Sync>(
        &mut self,
        cpus: &[usize],
        main: Arc<M>,
        events: &Sender<(usize, Event)>,
        bell: &Arc<PipeWriter>,
    ) -> Result<()> {
        let mut gates = Vec::new();
        for (index, &cpu) in cpus.iter().enumerate() {
            let (gate, go) = mpsc::channel();
            let post = Post { index, events: events.clone(), bell: Arc::clone(bell) };
            let seat = Seat { index, roll: Arc::clone(&self.roll) };
            let (builder, main) = (Arc::clone(&self.builder), Arc::clone(&main));
            let name = format!("{}-{index}", builder.thread_name);
            let body = move || run_core(&builder, &*main, cpu, seat, &post, &go);
            match thread::Builder::new().name(name).spawn(body) {
                Ok(thread) => {
                    self.threads.push(thread);
                    gates.push(gate);
                }
                Err(error) => {
                    let failed = Failed { core: Some(index), step: START_THREAD, error };
                    self.first_error = Some(failed.explain());
                    break;
                }
            }
        }
        self.await_all_ready();
        if self.first_error.is_some() || self.gone > 0 {
            // Closed gates: nobody runs main.
            drop(gates);
            self.stand_by();
            return self.join();
        }
        for gate in gates {
            // The thread waits for it.
            let _ = gate.send(());
        }
        Ok(())
    }

    fn await_all_ready(&mut self) {
        while self.remotes.len() + self.gone < self.threads.len() {
            match self.posted.recv() {
                Ok((index, event)) => self.take(index, event),
                Err(_) => unreachable!("the supervisor keeps a sender while it launches"),
            }
        }
    }

    /// Until the last thread is gone.
    fn stand_by(&mut self) {
        while self.gone < self.threads.len() {
            self.sleep();
            while let Ok((index, event)) = self.posted.try_recv() {
                self.take(index, event);
            }
            if let Some(index) = self.roll.asked_to_stop() {
                self.request_stop(&format!("core {index} asks for it"));
            }
            while let Some(signal) = self.signals.as_ref().and_then(Blocked::take) {
                // It is blocked, so the handler of its streams does not hear it.
                handlers::note(signal);
                self.signalled(signal);
            }
            if let StopState::Grace(end) = self.stop
                && clock::monotonic() >= end
            {
                self.builder.log.line("the grace period is over");
                self.end();
            }
        }
    }

    fn sleep(&mut self) {
        let timeout = match self.stop {
            StopState::Grace(u64::MAX) | StopState::Running | StopState::Over => None,
            StopState::Grace(end) => {
                Some(Duration::from_nanos(end.saturating_sub(clock::monotonic())))
            }
        };
        let signals = self.signals.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        match signals::wait([self.bell_heard.as_raw_fd(), signals], timeout) {
            // The bytes mean nothing, and if some are left, the loop runs once more.
            Ok([true, _]) => drop(self.bell_heard.read(&mut [0; 64])),
            Ok(_) => {}
            // `poll` only lacks memory when it fails; then look again, but not in a busy loop.
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }

    fn take(&mut self, index: usize, event: Event) {
        match event {
            Event::Ready(remote) => self.remotes.push(remote),
            Event::Refused(error) => self.failed(error),
            Event::Ended(Ok(())) => {}
            Event::Ended(Err(error)) => {
                self.failed(error);
                self.request_stop(&format!("core {index} has failed"));
            }
            Event::Gone => self.gone += 1,
        }
    }

    /// The first error is returned, the others are only logged.
    fn failed(&mut self, error: Error) {
        match &self.first_error {
            None => self.first_error = Some(error),
            Some(_) => self.builder.log.line(&format!("also: {error}")),
        }
    }

    fn signalled(&mut self, signal: i32) {
        let name = Signal::name(signal);
        match self.stop {
            StopState::Running => self.request_stop(name),
            _ if self.stopped_by_signal => {
                self.builder.log.line(&format!("{name} again: the grace period is skipped"));
                self.end();
            }
            // The stop was for an error: this is the first signal, not an impatient second one.
            _ => {}
        }
        self.stopped_by_signal = true;
    }

    fn request_stop(&mut self, why: &str) {
        if self.stop != StopState::Running {
            return;
        }
        let grace = self.builder.grace;
        let end = self.builder.end_of_grace(clock::monotonic());
        self.stop = StopState::Grace(end);
        self.builder.log.line(&format!("{why}: the cores are asked to stop within {grace:?}"));
        self.tell_all(move |local| local.stop.request(end));
    }

    fn end(&mut self) {
        self.stop = StopState::Over;
        self.tell_all(|local| local.stop.end());
    }

    fn tell_all(&self, f: impl Fn(&Local) + Copy + Send + 'static) {
        for remote in &self.remotes {
            // A core that has ended needs to be told nothing.
            let _ = remote.send(move || {
                if let Some(local) = Local::current() {
                    f(&local);
                }
            });
        }
    }

    fn finish(mut self) -> Result<()> {
        let result = self.join();
        if self.stopped_by_signal {
            // Those that came later asked for what has been done; unblocked, they would kill.
            while self.signals.as_ref().and_then(Blocked::take).is_some() {}
        }
        result
    }

    fn join(&mut self) -> Result<()> {
        for (index, thread) in self.threads.drain(..).enumerate() {
            if let Err(panic) = thread.join()
                && self.first_error.is_none()
            {
                self.first_error = Some(Error::panic_outside(index, panic));
            }
        }
        self.first_error.take().map_or(Ok(()), Err)
    }
}

/// The life of one core's thread.
fn run_core<Form, M: Main<Form>>(
    builder: &Builder,
    main: &M,
    cpu: usize,
    seat: Seat,
    post: &Post,
    go: &Receiver<()>,
) {
    if builder.pin {
        pin(cpu, seat.index, builder);
    }
    let index = seat.index;
    let shard = match builder.open(seat) {
        Ok(shard) => shard,
        Err(error) => return post.send(Event::Refused(error)),
    };
    post.send(Event::Ready(Arc::clone(&shard.local().remote)));
    if go.recv().is_err() {
        return;
    }
    let core = Core::new(shard.local().clone());
    let ended = catch_unwind(AssertUnwindSafe(|| shard.block_on(until_stopped(main, core))));
    // Told before the core drains: a failure stops the others at once.
    post.send(Event::Ended(match ended {
        Ok(outcome) => outcome.map_err(|error| Error::main(index, error)),
        Err(panic) => Err(Error::panic(index, panic)),
    }));
}

/// Runs `main`, and drops it when it has to stop.
pub(super) async fn until_stopped<Form, M: Main<Form>>(
    main: &M,
    core: Core,
) -> std::result::Result<(), BoxError> {
    let mut stopped = pin!(if M::TAKES_CORE { core.over() } else { core.shutdown() });
    let mut main = pin!(main.call(core, Seal));
    std::future::poll_fn(|context| match stopped.as_mut().poll(context) {
        Poll::Ready(()) => Poll::Ready(Ok(())),
        Poll::Pending => main.as_mut().poll(context),
    })
    .await
}

/// Pins this thread, and looks whether that had an effect.
fn pin(cpu: usize, index: usize, builder: &Builder) {
    // `core_affinity` has room for as many numbers as the C library's mask.
    let pinned = cpu < libc::CPU_SETSIZE as usize
        && core_affinity::set_for_current(CoreId { id: cpu })
        && cpus::verify_pinned(cpu).unwrap_or(false);
    if !pinned {
        let line = format!("core {index} could not be pinned to CPU {cpu}; it runs unpinned");
        builder.log.line(&line);
    }
}
