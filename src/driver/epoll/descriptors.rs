//! What is known of each descriptor, and who waits for it.

use std::os::fd::RawFd;

use super::requests::{Key, NONE, Requests};

/// What requests wait for on a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Read,
    Write,
    /// Any event: these are the polls, which take nothing from the descriptor.
    Any,
}

/// Facts about a descriptor, as bits.
pub(super) mod fact {
    /// It may be readable (not: the kernel has said that it is not, and no event came since).
    pub(in super::super) const READABLE: u16 = 1;
    /// It may be writable, likewise.
    pub(in super::super) const WRITABLE: u16 = 1 << 1;
    /// The epoll instance watches it.
    pub(in super::super) const WATCHED: u16 = 1 << 2;
    /// The epoll instance refuses to: what it would be asked for never waits for events.
    pub(in super::super) const UNWATCHABLE: u16 = 1 << 3;
    /// The peer has hung up, or sent something urgent: a short read does not mean that no more bytes
    /// are there, because no event may follow.
    pub(in super::super) const ENDING: u16 = 1 << 4;
    /// It is a TCP socket.
    pub(in super::super) const TCP: u16 = 1 << 5;
    /// It was switched to `O_NONBLOCK`.
    pub(in super::super) const NONBLOCKING: u16 = 1 << 6;
    /// It waits for another turn with the next lap.
    pub(in super::super) const HOT: u16 = 1 << 7;
    /// It is known whether this is a stream.
    pub(in super::super) const KNOWN: u16 = 1 << 8;
    /// Bytes have a place in it: a regular file, a block device, a directory.
    pub(in super::super) const FILE: u16 = 1 << 9;
    /// It has no offsets.
    pub(in super::super) const UNSEEKABLE: u16 = 1 << 10;
    /// Its reads cannot be told not to wait.
    pub(in super::super) const READS_WAIT: u16 = 1 << 11;
    /// Its writes cannot be told not to wait.
    pub(in super::super) const WRITES_WAIT: u16 = 1 << 12;
}

/// What is known of a descriptor, and who waits for it, in the order of arrival.
#[derive(Debug, Clone, Copy)]
pub(super) struct Descriptor {
    facts: u16,
    queues: [Queue; 3],
}

impl Descriptor {
    /// Nothing is known yet, so anything may be tried.
    const NEW: Descriptor =
        Descriptor { facts: fact::READABLE | fact::WRITABLE, queues: [Queue::EMPTY; 3] };

    #[inline]
    pub(super) fn is(&self, facts: u16) -> bool {
        self.facts & facts != 0
    }

    #[inline]
    pub(super) fn set(&mut self, facts: u16) {
        self.facts |= facts;
    }

    #[inline]
    pub(super) fn clear(&mut self, facts: u16) {
        self.facts &= !facts;
    }

    /// Whether a try on this side may succeed.
    #[inline]
    pub(super) fn may(&self, side: Side) -> bool {
        match side {
            Side::Read => self.is(fact::READABLE),
            Side::Write => self.is(fact::WRITABLE),
            Side::Any => true,
        }
    }

    /// Whether a request that comes now is tried: nobody is before it, and it may succeed.
    #[inline]
    pub(super) fn is_clear(&self, side: Side) -> bool {
        self.first(side).is_none() && self.may(side)
    }

    /// The kernel has said that a try on this side would have to wait.
    #[inline]
    pub(super) fn must_wait(&mut self, side: Side) {
        match side {
            Side::Read => self.clear(fact::READABLE),
            Side::Write => self.clear(fact::WRITABLE),
            Side::Any => {}
        }
    }

    #[inline]
    pub(super) fn queue(&mut self, side: Side) -> &mut Queue {
        &mut self.queues[side as usize]
    }

    #[inline]
    pub(super) fn first(&self, side: Side) -> Option<Key> {
        let first = self.queues[side as usize].first;
        (first != NONE).then_some(first)
    }
}

/// Requests that wait for the same, linked through the table of requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Queue {
    first: Key,
    last: Key,
}

impl Queue {
    const EMPTY: Queue = Queue { first: NONE, last: NONE };

    pub(super) fn push(&mut self, key: Key, requests: &mut Requests) {
        requests.get(key).next = NONE;
        match self.last {
            NONE => self.first = key,
            last => requests.get(last).next = key,
        }
        self.last = key;
    }

    pub(super) fn remove(&mut self, key: Key, requests: &mut Requests) {
        let next = requests.get(key).next;
        if self.first == key {
            self.first = next;
            if next == NONE {
                self.last = NONE;
            }
            return;
        }
        let mut before = self.first;
        while requests.get(before).next != key {
            before = requests.get(before).next;
        }
        requests.get(before).next = next;
        if next == NONE {
            self.last = before;
        }
    }
}

/// The table of descriptors, by their numbers, which the kernel keeps small and dense.
#[derive(Default)]
pub(super) struct Descriptors(Vec<Descriptor>);

impl Descriptors {
    /// The entry of a descriptor; `None` if it is not open, so that no wild number makes a big table.
    #[inline]
    pub(super) fn entry(&mut self, fd: RawFd) -> Option<&mut Descriptor> {
        if fd as usize >= self.0.len() {
            self.grow(fd)?;
        }
        self.0.get_mut(fd as usize)
    }

    #[cold]
    fn grow(&mut self, fd: RawFd) -> Option<()> {
        // SAFETY: the call takes no pointers.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
            return None;
        }
        let len = (fd as usize + 1).next_power_of_two().max(64);
        self.0.resize(len, Descriptor::NEW);
        Some(())
    }

    /// The entry of a descriptor that a request waits for, or that the epoll instance watches.
    #[inline]
    pub(super) fn known(&mut self, fd: RawFd) -> &mut Descriptor {
        &mut self.0[fd as usize]
    }

    /// Whether a request waits for the descriptor.
    pub(super) fn is_awaited(&self, fd: RawFd) -> bool {
        let sides = [Side::Read, Side::Write, Side::Any];
        let descriptor = usize::try_from(fd).ok().and_then(|fd| self.0.get(fd));
        descriptor.is_some_and(|known| sides.iter().any(|&side| known.first(side).is_some()))
    }

    /// The number is about to be free, or has just been given out anew: nothing is known of it.
    pub(super) fn forget(&mut self, fd: RawFd) -> Option<Descriptor> {
        let place = self.0.get_mut(fd as usize)?;
        Some(std::mem::replace(place, Descriptor::NEW))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::Fields;
    use crate::driver::epoll::requests::{Asked, Request};
    use io_uring::opcode;

    fn keys(queue: &Queue, requests: &mut Requests) -> Vec<Key> {
        let mut keys = Vec::new();
        let mut key = queue.first;
        while key != NONE {
            keys.push(key);
            key = requests.get(key).next;
        }
        assert_eq!(keys.last().copied().unwrap_or(NONE), queue.last);
        keys
    }

    #[test]
    fn whoever_leaves_a_queue_leaves_the_others_in_order() {
        let (mut requests, mut queue) = (Requests::default(), Queue::EMPTY);
        let request = Request::new(Asked::of(&Fields::of(&opcode::Nop::new().build())));
        for _ in 0..5 {
            let key = requests.insert(request);
            queue.push(key, &mut requests);
        }
        for (leaves, stay) in
            [(2, vec![0, 1, 3, 4]), (4, vec![0, 1, 3]), (0, vec![1, 3]), (3, vec![1]), (1, vec![])]
        {
            queue.remove(leaves, &mut requests);
            assert_eq!(keys(&queue, &mut requests), stay);
        }
    }

    #[test]
    fn a_number_that_is_not_open_makes_no_table() {
        let mut descriptors = Descriptors::default();
        assert!(descriptors.entry(i32::MAX - 1).is_none());
        assert!(descriptors.entry(-1).is_none());
        assert!(descriptors.0.is_empty());
        assert!(descriptors.entry(0).is_some());
    }
}
