//! Buffers of one size, and the ring through which a kernel picks them.
//!
//! A buffer is with the kernel, or leased. Few are published to begin with, because few stay in the
//! cache; when they run out, more follow.

use std::cell::Cell;
use std::io;
use std::ptr::{self, NonNull};

use io_uring::types::BufRingEntry;

use crate::driver::Register;
use crate::sys::atomic::plain::{AtomicU16, Ordering};

/// Buffers of `SIZE` bytes, of which only those that were used are memory.
pub(super) struct Buffers<const SIZE: usize> {
    group: u16,
    ring: Mapping,
    /// How many entries the ring has, less one: they are a power of two.
    mask: u16,
    memory: Mapping,
    /// How many buffers there may be.
    most: u16,
    tail: Cell<u16>,
    /// Buffers with a number below this have been published at least once.
    published: Cell<u16>,
    leased: Box<[Cell<bool>]>,
    leases: Cell<u32>,
    starved: Cell<u64>,
}

/// Anonymous memory, page-aligned, that becomes real when it is touched.
struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

impl Mapping {
    fn new(len: usize) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new anonymous mapping touches no memory of others.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, access, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).expect("a mapping is never at address zero");
        Ok(Mapping { start, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and I6: the kernel is done with it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// A ring holds no more than this (`IORING_REGISTER_PBUF_RING`).
pub(crate) const LARGEST: u16 = 32_768;

impl<const SIZE: usize> Buffers<SIZE> {
    /// At most `most` buffers, of which so many are published at first.
    ///
    /// # Panics
    /// If `most` is 0 or more than [`LARGEST`].
    pub(super) fn new(group: u16, most: u16, published_at_first: u16) -> io::Result<Self> {
        assert!((1..=LARGEST).contains(&most), "a pool of {most} buffers");
        let entries = most.next_power_of_two();
        let ring = Mapping::new(usize::from(entries) * size_of::<BufRingEntry>())?;
        let memory = Mapping::new(usize::from(most) * SIZE)?;
        let buffers = Buffers {
            group,
            ring,
            mask: entries - 1,
            memory,
            most,
            tail: Cell::new(0),
            published: Cell::new(0),
            leased: (0..most).map(|_| Cell::new(true)).collect(),
            leases: Cell::new(0),
            starved: Cell::new(0),
        };
        buffers.publish(published_at_first.min(most));
        Ok(buffers)
    }

    /// What the kernel is told.
    pub(super) fn registration(&self) -> Register {
        let ring = self.ring.start.as_ptr().cast();
        Register::Buffers { ring, entries: self.mask + 1, group: self.group }
    }

    /// What the kernel is told in the end.
    pub(super) fn removal(&self) -> Register {
        Register::RemoveBuffers { group: self.group }
    }

    /// Leases that are out.
    pub(super) fn leases(&self) -> u32 {
        self.leases.get()
    }

    /// Buffers that are with the kernel, or leased.
    pub(super) fn published(&self) -> u16 {
        self.published.get()
    }

    /// How often the kernel found no buffer.
    pub(super) fn starved(&self) -> u64 {
        self.starved.get()
    }

    /// Publishes twice as many buffers as before. False when all are published already.
    pub(super) fn grow(&self) -> bool {
        self.starved.set(self.starved.get() + 1);
        let published = self.published.get();
        self.publish(published.min(self.most - published));
        self.published.get() > published
    }

    fn publish(&self, count: u16) {
        let first = self.published.get();
        for bid in first..first + count {
            self.leased[usize::from(bid)].set(false);
            self.put(bid);
        }
        self.published.set(first + count);
        self.announce();
    }

    /// Where a buffer begins.
    #[inline]
    pub(super) fn buffer(&self, bid: u16) -> NonNull<u8> {
        assert!(bid < self.most, "there is no buffer {bid}");
        // SAFETY: the mapping holds `most` buffers of SIZE bytes.
        unsafe { self.memory.start.add(usize::from(bid) * SIZE) }
    }

    /// Writes the entry that offers `bid`; the kernel sees it after `announce`.
    fn put(&self, bid: u16) {
        let index = usize::from(self.tail.get() & self.mask);
        // SAFETY: the index is below the number of entries in the mapping. The kernel reads an
        // entry only when the tail has passed it, and there are as many entries as buffers.
        let entry = unsafe { self.ring.start.cast::<BufRingEntry>().add(index).as_mut() };
        entry.set_addr(self.buffer(bid).as_ptr() as u64);
        entry.set_len(SIZE as u32);
        entry.set_bid(bid);
        self.tail.set(self.tail.get().wrapping_add(1));
    }

    fn announce(&self) {
        // SAFETY: the ring's tail lies in its first entry, where the kernel reads it as an atomic.
        let tail = unsafe {
            let tail = BufRingEntry::tail(self.ring.start.as_ptr().cast::<BufRingEntry>());
            &*tail.cast::<AtomicU16>()
        };
        tail.store(self.tail.get(), Ordering::Release);
    }

    /// Takes over a buffer that the kernel has picked.
    #[inline]
    pub(super) fn take(&self, bid: u16) {
        let taken = self.leased[usize::from(bid)].replace(true);
        assert!(
            !taken || cfg!(canary = "believed-buffer"),
            "the kernel picked buffer {bid}, which is leased"
        );
        self.leases.set(self.leases.get() + 1);
    }

    /// Offers a buffer anew.
    #[inline]
    pub(super) fn give_back(&self, bid: u16) {
        let leased = self.leased[usize::from(bid)].replace(false);
        assert!(leased, "buffer {bid} came home twice");
        self.leases.set(self.leases.get() - 1);
        self.put(bid);
        self.announce();
    }
}
