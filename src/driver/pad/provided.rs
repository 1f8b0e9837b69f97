//! A ring of provided buffers, read as the kernel reads it: for kernels that pick buffers themselves.

use std::ptr::NonNull;

use io_uring::types::BufRingEntry;

use crate::driver::Register;
use crate::sys::atomic::plain::{AtomicU16, Ordering};

/// The kernel's side of one ring of provided buffers.
#[derive(Debug)]
pub(crate) struct Provided {
    ring: NonNull<BufRingEntry>,
    entries: u16,
    group: u16,
    /// How many buffers have been picked so far, as the tail counts those that were offered.
    head: u16,
}

/// A buffer that is on offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) start: NonNull<u8>,
    pub(crate) len: u32,
    pub(crate) bid: u16,
}

impl Provided {
    /// Takes over what was registered; `None` if it registers no buffers.
    ///
    /// # Safety
    /// As [`Driver::register`](crate::driver::Driver::register): the memory stays valid until the
    /// ring is removed or the driver is gone.
    pub(crate) unsafe fn new(resource: Register) -> Option<Self> {
        match resource {
            Register::Buffers { ring, entries, group } if entries.is_power_of_two() => {
                Some(Provided { ring: NonNull::new(ring.cast())?, entries, group, head: 0 })
            }
            _ => None,
        }
    }

    pub(crate) fn group(&self) -> u16 {
        self.group
    }

    /// The buffers of a group, among those of all.
    #[inline]
    pub(crate) fn of_group(all: &mut [Provided], group: u16) -> Option<&mut Provided> {
        all.iter_mut().find(|provided| provided.group == group)
    }

    /// How many buffers are on offer.
    pub(crate) fn offered(&self) -> u16 {
        self.tail().wrapping_sub(self.head)
    }

    fn tail(&self) -> u16 {
        // SAFETY: the ring's tail lies in its first entry, where its owner writes it as an atomic.
        let tail = unsafe { &*BufRingEntry::tail(self.ring.as_ptr()).cast::<AtomicU16>() };
        // Acquire: the entries were written before the tail passed them.
        tail.load(Ordering::Acquire)
    }

    /// The next buffer on offer, which stays on offer until it is picked.
    pub(crate) fn peek(&self) -> Option<Offer> {
        self.peek_at(0)
    }

    /// The buffer on offer with so many before it.
    #[inline]
    pub(crate) fn peek_at(&self, before: u16) -> Option<Offer> {
        if self.offered() <= before {
            return None;
        }
        let index = self.head.wrapping_add(before) % self.entries;
        // SAFETY: the index is below the number of entries, and the owner does not write an entry
        // between the head and the tail.
        let entry = unsafe { self.ring.add(usize::from(index)).as_ref() };
        let start = NonNull::new(entry.addr() as *mut u8)?;
        Some(Offer { start, len: entry.len(), bid: entry.bid() })
    }

    /// Picks the buffer that `peek` showed last: it is no longer on offer.
    pub(crate) fn pick(&mut self) {
        self.head = self.head.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::pool::{MOST, Pool};
    use std::rc::Rc;

    #[test]
    fn buffers_are_picked_in_the_order_in_which_they_were_offered() {
        let pool = Rc::new(Pool::new(MOST).unwrap());
        // SAFETY: the pool lives to the end of the test.
        let mut provided = unsafe { Provided::new(pool.registration()) }.unwrap();
        let first = provided.peek().unwrap();
        assert_eq!((provided.peek(), first.bid), (Some(first), 0));
        let mut picked = 0;
        while let Some(offer) = provided.peek() {
            assert_eq!(u32::from(offer.bid), picked);
            provided.pick();
            picked += 1;
        }
        assert_eq!((picked, provided.offered()), (256, 0));
        drop(pool.account().lease(first.bid, 1));
        assert_eq!(provided.peek(), Some(first));
    }
}
