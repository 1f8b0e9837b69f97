//! The power of a host: it fails, and comes back.

use super::world::{Event, World};

impl World {
    /// Has the power of a host fail at `time`, for so long.
    pub(crate) fn schedule_crash(&mut self, host: usize, time: u64, down_ns: u64) {
        self.at(time, Event::Crash { host, down_ns });
    }

    /// Keeps two hosts apart from `time` on, for so long.
    pub(crate) fn schedule_partition(
        &mut self,
        one: usize,
        two: usize,
        time: u64,
        lasting_ns: u64,
    ) {
        self.at(time, Event::Partition { pair: (one, two), lasting_ns });
    }

    /// The power of a host fails: its memory is gone at once, and says nothing to anybody. Its
    /// cores, which the driver cannot end, get an answer to everything and change nothing any more.
    pub(super) fn crash(&mut self, host: usize, down_ns: u64) {
        if !self.hosts[host].up {
            return;
        }
        self.hosts[host].up = false;
        self.forget_sockets(host);
        let open = std::mem::take(&mut self.hosts[host].fds);
        for object in open.into_iter().flatten() {
            self.files.remove(&object);
        }
        let mut random = self.random.fork(self.serial);
        self.hosts[host].disk.crash(&mut random);
        for core in 0..self.cores.len() {
            if self.cores[core].host == host {
                self.cores[core].dead = true;
                let pending: Vec<u64> = self.cores[core].pending.keys().copied().collect();
                for serial in pending {
                    self.answer(core, serial, -libc::ECANCELED, 0);
                }
            }
        }
        self.crashed.push(host);
        self.at(self.now.saturating_add(down_ns), Event::Restart { host });
    }

    /// The hosts whose power has failed: their runtimes have to be dropped.
    pub(crate) fn take_crashed(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.crashed)
    }

    /// The hosts that start anew, with new cores.
    pub(crate) fn take_restarted(&mut self) -> Vec<usize> {
        let restarted = std::mem::take(&mut self.restarted);
        restarted.iter().for_each(|&host| self.hosts[host].up = true);
        restarted
    }
}
