//! A task, as a dump shows it.

use std::ptr::NonNull;
use std::task::Waker;

use super::origin::Site;
use super::raw::{self, DONE, Header, QUEUED};
use super::scheduler::Scheduler;
use super::table::TaskId;
use crate::sys::atomic::Arc;
use crate::sys::current;

/// How far a task is.
pub(crate) enum Phase {
    Running,
    Ready,
    Waiting,
    Ended,
}

/// What is known of one task.
pub(crate) struct View {
    /// Its place in the table.
    pub(crate) key: u32,
    pub(crate) id: u64,
    pub(crate) at: Site,
    pub(crate) name: Option<Arc<str>>,
    pub(crate) phase: Phase,
    /// The task that awaits its end, by its place.
    pub(crate) joined_by: Option<u32>,
    pub(crate) polled_at: Option<u64>,
}

impl Scheduler {
    /// Shows every task that has not been released. `show` is not user code.
    pub(crate) fn each_task(&self, mut show: impl FnMut(View)) {
        let polled = current::core(|core| core.polled.get());
        let mut place = 0;
        while let Some((at, id, header)) = self.next_task(place) {
            place = at + 1;
            show(self.view(id, header, polled));
        }
    }

    fn view(&self, id: TaskId, header: NonNull<Header>, polled: Option<u32>) -> View {
        // SAFETY: what is in the table is alive: the scheduler's reference.
        let task = unsafe { header.as_ref() };
        let phase = match task {
            _ if polled == Some(id.key()) => Phase::Running,
            _ if task.has(DONE) => Phase::Ended,
            _ if task.has(QUEUED) => Phase::Ready,
            _ => Phase::Waiting,
        };
        View {
            key: id.key(),
            id: id.bits(),
            at: task.origin.at(),
            name: task.origin.name(),
            phase,
            joined_by: task.joined_by(),
            polled_at: self.polled_at(id.key()),
        }
    }

    /// The place of the task that `waker` wakes, if it is one of this core that has not been released.
    pub(crate) fn key_of(&self, waker: &Waker) -> Option<u32> {
        let header = raw::task_of(waker, self.remote())?;
        // SAFETY: the waker keeps the header alive.
        let key = unsafe { header.as_ref() }.key.get();
        self.is_at(key, header).then_some(key)
    }
}
