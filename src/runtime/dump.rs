//! What a core has to do, task by task: who waits, and for what.

use std::fmt;
use std::net::SocketAddr;
use std::panic::Location;
use std::time::Duration;

use super::local::Local;
use crate::driver::{Call, opcodes};
use crate::op::Pending;
use crate::sys::addr::Address;
use crate::sys::atomic::Arc;
use crate::task::{Called, Phase};
use crate::time::{Instant, Scheduled};

/// Every task of one core, and what each waits for; see [`runtime::dump`](super::dump).
///
/// It is a picture of one moment. `Display` writes it for people, in some lines for each task.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Dump {
    /// The core's position among those that were started together, from 0.
    pub core_index: usize,
    /// The core's number, which no other core of the process has, had or will have.
    pub core_id: u64,
    /// Which kernel it talks to.
    pub driver: &'static str,
    /// When the picture was taken.
    pub at: Instant,
    /// Its tasks.
    pub tasks: Vec<TaskDump>,
    /// Operations in flight that no task of the core awaits: a receive that waits for bytes while its
    /// stream is not read, one that is being cancelled.
    pub operations: Vec<OperationDump>,
    /// When functions of [`call_later`](crate::call_later) and [`call_at`](crate::call_at) are due.
    pub callbacks: Vec<Instant>,
    /// When timers are due whose task cannot be told: those below a `gather`.
    pub timers: Vec<Instant>,
}

/// One task.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TaskDump {
    /// A number that no other task of the core has now.
    pub id: u64,
    /// What [`task::Builder`](crate::task::Builder) called it.
    pub name: Option<Arc<str>>,
    /// Where it was spawned; of a main, where the runtime was started.
    pub spawned_at: &'static Location<'static>,
    /// How far it is.
    pub state: TaskState,
    /// When it was last polled. It is known where there is a
    /// [`stall_threshold`](super::Builder::stall_threshold): without one, no clock is read for it.
    pub polled_at: Option<Instant>,
    /// What may wake it, as far as the core knows: not what it awaits in a channel or a lock.
    pub waits_for: Vec<WaitsFor>,
}

/// How far a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TaskState {
    /// Its poll is running: it took the picture.
    Running,
    /// It will be polled in this lap or the next.
    Ready,
    /// It waits to be woken.
    Waiting,
    /// It has ended, and its output was not taken so far.
    Ended,
}

/// What a task waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitsFor {
    /// The kernel's answer.
    Operation(OperationDump),
    /// A point in time: of a sleep, a timeout, an interval.
    Timer(Instant),
    /// The end of the task with this `id`.
    Task(u64),
}

/// One operation in flight.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OperationDump {
    /// The kernel's name for it: `IORING_OP_RECV`.
    pub name: &'static str,
    /// The descriptor that it is about.
    pub fd: Option<i32>,
    /// The address of that socket.
    pub local: Option<SocketAddr>,
    /// The address at its other end.
    pub peer: Option<SocketAddr>,
    /// Nobody wants it any more: the kernel has been asked to end it, or is about to be.
    pub is_cancelled: bool,
}

impl Local {
    /// Takes the picture.
    pub(super) fn dump(&self) -> Dump {
        let mut dump = Dump {
            core_index: self.index,
            core_id: self.id,
            driver: self.ring.driver_name(),
            at: Instant::from_ns(self.ring.now()),
            tasks: Vec::new(),
            operations: Vec::new(),
            callbacks: Vec::new(),
            timers: Vec::new(),
        };
        // The place of each task in the list, by its key.
        let mut places = Vec::new();
        let mut joins = Vec::new();
        self.scheduler.each_task(|task| {
            let key = task.key as usize;
            places.resize(places.len().max(key + 1), None);
            places[key] = Some(dump.tasks.len());
            joins.extend(task.joined_by.map(|joiner| (joiner, task.id)));
            dump.tasks.push(TaskDump {
                id: task.id,
                name: task.name,
                spawned_at: task.at,
                state: match task.phase {
                    Phase::Running => TaskState::Running,
                    Phase::Ready => TaskState::Ready,
                    Phase::Waiting => TaskState::Waiting,
                    Phase::Ended => TaskState::Ended,
                },
                polled_at: task.polled_at.map(Instant::from_ns),
                waits_for: Vec::new(),
            });
        });
        let place = |key: u32| places.get(key as usize).copied().flatten();
        for (joiner, id) in joins {
            if let Some(place) = place(joiner) {
                dump.tasks[place].waits_for.push(WaitsFor::Task(id));
            }
        }
        self.timers.each(|deadline, scheduled| {
            let deadline = Instant::from_ns(deadline);
            let waker = match scheduled {
                Scheduled::Call => return dump.callbacks.push(deadline),
                Scheduled::Wake(waker) => waker,
            };
            match self.scheduler.key_of(waker).and_then(place) {
                Some(place) => dump.tasks[place].waits_for.push(WaitsFor::Timer(deadline)),
                None => dump.timers.push(deadline),
            }
        });
        let mut found = Vec::new();
        self.ring
            .each_pending(|pending| found.push((self.awaited_by(pending), described(pending))));
        for (key, mut operation) in found {
            self.look_up(&mut operation);
            match key.and_then(place) {
                Some(place) => dump.tasks[place].waits_for.push(WaitsFor::Operation(operation)),
                None => dump.operations.push(operation),
            }
        }
        dump
    }

    /// The task that awaits an operation. Under a `gather` it is the one that submitted it.
    fn awaited_by(&self, pending: &Pending<'_>) -> Option<u32> {
        let waker = pending.waker?;
        Some(self.scheduler.key_of(waker).unwrap_or(pending.task))
    }

    /// Asks the kernel for the addresses of a socket.
    fn look_up(&self, operation: &mut OperationDump) {
        let Some(fd) = operation.fd else { return };
        let ask = |call: fn(i32, &mut [u8]) -> Call<'_>| {
            Address::read(|address| self.ring.call(call(fd, address))).ok()
        };
        operation.local = ask(|fd, address| Call::LocalAddress { fd, address });
        operation.peer = ask(|fd, address| Call::PeerAddress { fd, address });
    }
}

fn described(pending: &Pending<'_>) -> OperationDump {
    OperationDump {
        name: opcodes::name(pending.opcode),
        fd: pending.fd,
        local: None,
        peer: None,
        is_cancelled: pending.is_cancelled,
    }
}

impl fmt::Display for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Dump { core_index, core_id, driver, tasks, .. } = self;
        let count = tasks.len();
        writeln!(f, "core {core_index} (number {core_id}, {driver}): {count} tasks")?;
        for task in tasks {
            write!(f, "  {task}")?;
            if let Some(time) = task.polled_at {
                write!(f, ", since {:?}", self.at.duration_since(time))?;
            }
            writeln!(f)?;
            for cause in &task.waits_for {
                match cause {
                    WaitsFor::Operation(operation) => writeln!(f, "    for {operation}")?,
                    WaitsFor::Timer(at) => writeln!(f, "    for a timer, {}", self.due(*at))?,
                    WaitsFor::Task(id) => writeln!(f, "    for task {id}")?,
                }
            }
        }
        for operation in &self.operations {
            writeln!(f, "  awaited by no task: {operation}")?;
        }
        for at in &self.callbacks {
            writeln!(f, "  a function to be called, {}", self.due(*at))?;
        }
        for at in &self.timers {
            writeln!(f, "  a timer, {}", self.due(*at))?;
        }
        Ok(())
    }
}

impl Dump {
    fn due(&self, at: Instant) -> String {
        match at.duration_since(self.at) {
            Duration::ZERO => "due now".to_owned(),
            left => format!("due in {left:?}"),
        }
    }
}

/// `task 3 "reader", spawned at src/main.rs:7:9, waits`
impl fmt::Display for TaskDump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            TaskState::Running => "runs",
            TaskState::Ready => "is ready",
            TaskState::Waiting => "waits",
            TaskState::Ended => "has ended, and its output was not taken",
        };
        let called = Called(self.name.as_deref(), self.spawned_at);
        write!(f, "{}: {called} {state}", self.id)
    }
}

/// `IORING_OP_RECV of descriptor 9 (127.0.0.1:7000, peer 127.0.0.1:50312)`
impl fmt::Display for OperationDump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        if let Some(fd) = self.fd {
            write!(f, " of descriptor {fd}")?;
        }
        match (self.local, self.peer) {
            (Some(local), Some(peer)) => write!(f, " ({local}, peer {peer})")?,
            (Some(local), None) => write!(f, " ({local})")?,
            _ => {}
        }
        f.write_str(if self.is_cancelled { ", being cancelled" } else { "" })
    }
}
