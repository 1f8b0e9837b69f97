//! The world's books: what is open, owed and picked, and what was found to be wrong.

use super::core::Bell;
use super::opcodes;
use super::world::World;
use crate::driver::pad::provided::Provided;
use crate::driver::{Counters, Unparker};
use crate::sys::atomic::Arc;

impl World {
    pub(super) fn bell(&self, core: usize) -> Arc<Bell> {
        Arc::clone(&self.cores[core].bell)
    }

    pub(super) fn unparker(&self, core: usize) -> Unparker {
        self.cores[core].unparker.clone()
    }

    pub(super) fn counters(&self, core: usize) -> Counters {
        self.cores[core].counters
    }

    pub(super) fn provide(&mut self, core: usize, provided: Provided) {
        self.cores[core].provided.push(provided);
    }

    pub(super) fn withdraw(&mut self, core: usize, group: u16) {
        self.cores[core].provided.retain(|provided| provided.group() != group);
    }

    /// The driver of a core is dropped: nothing may be in flight (I6).
    pub(super) fn retire(&mut self, core: usize) {
        let owed = self.cores[core].owed();
        let live = self.cores[core].live();
        if live > 0 {
            self.violation(format!("I6: a core ended with {owed} requests in flight"));
        }
        let core = &mut self.cores[core];
        core.dead = true;
        core.provided.clear();
        core.queue.clear();
        core.pending.clear();
        core.answers.clear();
        core.overflow.clear();
    }

    /// Whether an enter of this core would bring or take something.
    pub(crate) fn has_work(&self, core: usize) -> bool {
        self.cores[core].has_work()
    }

    /// Holds the books of a core against each other, and against what its runtime says: operations
    /// in flight, and provided buffers that are leased and published.
    pub(crate) fn audit(
        &mut self,
        core: usize,
        live_ops: u32,
        leases: u32,
        published: Option<u16>,
    ) {
        let books = &self.cores[core];
        let (ledger, owed, live) = (books.ledger, books.owed(), books.live());
        if ledger.pushed != ledger.ended + owed {
            self.violation(format!("I3: {ledger:?}, and {owed} requests are in flight"));
        }
        if live > live_ops as usize {
            self.violation(format!(
                "I3: {live} operations are in flight, the table has {live_ops}"
            ));
        }
        let books = &self.cores[core];
        if let (Some(published), false) = (published, books.provided.is_empty()) {
            let offered = books.provided.iter().map(|provided| u32::from(provided.offered()));
            let (offered, picked) = (offered.sum::<u32>(), books.picked);
            if offered + picked + leases != u32::from(published) {
                self.violation(format!(
                    "I7: {published} buffers are published, but {offered} on offer, {picked} \
                     picked and {leases} leased"
                ));
            }
        }
    }

    /// What was found to be wrong since the last time this was asked.
    pub(crate) fn take_violation(&mut self) -> Option<String> {
        if self.violations.is_empty() { None } else { Some(self.violations.remove(0)) }
    }

    /// The descriptors that are open, by host: after the end there are none.
    pub(crate) fn open_descriptors(&self) -> Vec<(String, usize)> {
        let open = |host: &super::world::Host| host.fds.iter().flatten().count();
        let all = self.hosts.iter().map(|host| (host.name.clone(), open(host)));
        all.filter(|&(_, count)| count > 0).collect()
    }

    /// What the requests of a core wait for, in words.
    pub(crate) fn waits_of(&self, core: usize) -> Vec<String> {
        let requests = self.cores[core].pending.values().filter(|request| request.is_operation());
        let describe = |request: &super::core::Request| {
            let name = opcodes::name(request.fields.opcode).unwrap_or("request");
            let socket = request.object.and_then(|object| self.sockets.get(&object));
            let local = socket.and_then(|socket| socket.local);
            let peer = socket.and_then(|socket| socket.peer);
            match (local, peer) {
                (Some(local), Some(peer)) => format!("{name} on {local} -> {peer}"),
                (Some(local), None) => format!("{name} on {local}"),
                _ => name.to_owned(),
            }
        };
        requests.map(describe).collect()
    }

    /// How often each knob has struck.
    pub(crate) fn struck(&self) -> Vec<(&'static str, u64)> {
        self.chaos.struck().filter(|&(_, count)| count > 0).collect()
    }

    pub(crate) fn trace(&self) -> u64 {
        self.trace.value()
    }
}
