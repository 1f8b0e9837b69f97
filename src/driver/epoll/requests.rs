//! Requests that wait: for a descriptor, for a time, for a thread.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};

use slab::Slab;

use super::descriptors::Side;
use crate::driver::Fields;

/// Where a request is in the table.
pub(super) type Key = u32;

/// No request.
pub(super) const NONE: Key = Key::MAX;

/// What a request asks for: of its 64 bytes those that this kernel reads, by the same names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) user_data: u64,
    pub(super) addr: u64,
    pub(super) off: u64,
    pub(super) len: u32,
    pub(super) op_flags: u32,
    pub(super) fd: i32,
    pub(super) ioprio: u16,
    pub(super) buf_index: u16,
    pub(super) opcode: u8,
    pub(super) flags: u8,
}

impl Asked {
    #[inline]
    pub(super) fn of(fields: &Fields) -> Self {
        let Fields { opcode, flags, ioprio, fd, off, addr, len, op_flags, .. } = *fields;
        let Fields { user_data, buf_index, .. } = *fields;
        Asked { user_data, addr, off, len, op_flags, fd, ioprio, buf_index, opcode, flags }
    }
}

/// A request, and how far it has come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    pub(super) asked: Asked,
    /// Bytes that are done already; of a connect, whether it was begun.
    pub(super) done: usize,
    pub(super) place: Place,
    /// The next in the queue of its descriptor.
    pub(super) next: Key,
    /// The one before it with the same `user_data`.
    older: Key,
}

const _: () = assert!(size_of::<Request>() <= 72, "there is one for each idle connection");

/// What a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Nothing: it is just being tried.
    Nowhere,
    /// Its descriptor, in the queue of this side.
    Queue(Side),
    /// Its time, which stands in `off`: there a timeout has nothing else.
    Time,
    /// A thread that runs it, or will. Nobody may want it any more.
    Thread { cancelled: bool },
}

impl Request {
    #[inline]
    pub(super) fn new(asked: Asked) -> Self {
        Request { asked, done: 0, place: Place::Nowhere, next: NONE, older: NONE }
    }
}

/// The table of requests that wait, which finds them by their `user_data` too.
#[derive(Default)]
pub(super) struct Requests {
    slots: Slab<Request>,
    /// The youngest request of each `user_data`.
    by_user_data: HashMap<u64, Key, BuildHasherDefault<Mix>>,
}

impl Requests {
    pub(super) fn insert(&mut self, mut request: Request) -> Key {
        let key = Key::try_from(self.slots.vacant_key()).expect("fewer than 2^32 requests wait");
        request.older = self.by_user_data.insert(request.asked.user_data, key).unwrap_or(NONE);
        self.slots.insert(request);
        key
    }

    #[inline]
    pub(super) fn get(&mut self, key: Key) -> &mut Request {
        &mut self.slots[key as usize]
    }

    pub(super) fn due(&self, key: Key) -> Option<u64> {
        let request = self.slots.get(key as usize)?;
        (request.place == Place::Time).then_some(request.asked.off)
    }

    pub(super) fn remove(&mut self, key: Key) -> Request {
        let request = self.slots.remove(key as usize);
        let Entry::Occupied(mut youngest) = self.by_user_data.entry(request.asked.user_data) else {
            unreachable!("{request:?} was not found by its user_data");
        };
        if *youngest.get() != key {
            let mut other = *youngest.get();
            while self.slots[other as usize].older != key {
                other = self.slots[other as usize].older;
            }
            self.slots[other as usize].older = request.older;
        } else if request.older == NONE {
            youngest.remove();
        } else {
            youngest.insert(request.older);
        }
        request
    }

    /// A request that carries `user_data`, and that `fits`.
    pub(super) fn find(&self, user_data: u64, fits: impl Fn(&Request) -> bool) -> Option<Key> {
        let mut key = *self.by_user_data.get(&user_data)?;
        while key != NONE {
            let request = &self.slots[key as usize];
            if fits(request) {
                return Some(key);
            }
            key = request.older;
        }
        None
    }
}

/// Spreads a number's bits over the hash. What requests carry is the program's own choice, not an
/// attacker's.
#[derive(Default)]
pub(super) struct Mix(u64);

impl Hasher for Mix {
    fn write(&mut self, _: &[u8]) {
        unreachable!("only numbers are hashed");
    }

    fn write_u64(&mut self, number: u64) {
        let product = u128::from(number ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use io_uring::opcode;

    fn request(user_data: u64) -> Request {
        Request::new(Asked::of(&Fields::of(&opcode::Nop::new().build().user_data(user_data))))
    }

    #[test]
    fn requests_of_the_same_user_data_are_found_one_by_one() {
        let mut requests = Requests::default();
        let keys: Vec<Key> = (0..4).map(|_| requests.insert(request(7))).collect();
        let other = requests.insert(request(8));
        for key in [keys[1], keys[3], keys[0], keys[2]] {
            assert!(requests.find(7, |_| true).is_some());
            requests.remove(key);
        }
        assert_eq!(requests.find(7, |_| true), None);
        assert_eq!(requests.find(8, |request| request.done == 0), Some(other));
        assert_eq!(requests.find(8, |request| request.done == 1), None);
    }
}
