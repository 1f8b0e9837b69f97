//! One core's pool of provided buffers: the kernel picks one when bytes arrive, not before.
//!
//! An idle connection therefore holds no buffer. Few buffers are published to begin with, because
//! few stay in the cache (2,048 cost 2 to 3 % against 256); when they run out, more follow. A
//! [`PooledBuf`] is a lease, and dropping it is the only way home.
//!
//! One connection is leased an eighth of them at most, and the last eighth is never leased. Beyond,
//! what arrives is copied to the heap and its buffer goes home at once: whoever keeps leases leaves
//! enough for others to go on receiving. To make it wait instead would hang whoever collects a whole
//! body before letting go of any of it.

use std::cell::{Cell, OnceCell};
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::rc::Rc;

use super::IoBuf;
use super::buffers::Buffers;
pub(crate) use super::buffers::LARGEST;
use super::datagram::Datagrams;
use super::place::{self, Home, Place};
use crate::driver::Register;
use crate::sys::current::Floor;

/// Bytes in one buffer. A received message larger than this takes several.
pub(crate) const SIZE: usize = 4096;
/// The most buffers that a core has unless it is told otherwise: 16 MiB, of which only what is used
/// is memory.
pub(crate) const MOST: u16 = 4096;
pub(crate) const PUBLISHED_AT_FIRST: u16 = 256;
/// The group of this pool; that for datagrams has another.
pub(crate) const GROUP: u16 = 0;

/// The buffers of one core.
pub(crate) struct Pool {
    buffers: Buffers<SIZE>,
    /// With so many leases, what arrives is copied.
    enough: u32,
    /// With so many of them, what arrives for a connection is copied.
    each: usize,
    copied: Cell<u64>,
    /// Those for datagrams, once a socket has asked for them; none if they could not be had then.
    datagrams: OnceCell<Option<Rc<Datagrams>>>,
}

// SAFETY: no other type of the crate has this number.
unsafe impl Floor for Pool {
    const INDEX: usize = 3;
}

impl Pool {
    /// A pool of at most `most` buffers.
    ///
    /// # Panics
    /// If that is 0 or more than [`LARGEST`].
    pub(crate) fn new(most: u16) -> io::Result<Self> {
        let eighth = (most / 8).max(1);
        Ok(Pool {
            buffers: Buffers::new(GROUP, most, PUBLISHED_AT_FIRST)?,
            enough: u32::from(most - eighth),
            each: usize::from(eighth),
            copied: Cell::new(0),
            datagrams: OnceCell::new(),
        })
    }

    /// What the kernel is told.
    pub(crate) fn registration(&self) -> Register {
        self.buffers.registration()
    }

    /// What the kernel is told in the end.
    pub(crate) fn removal(&self) -> Register {
        self.buffers.removal()
    }

    /// The buffers for datagrams, if they were made.
    pub(crate) fn datagrams(&self) -> Option<&Rc<Datagrams>> {
        self.datagrams.get()?.as_ref()
    }

    /// The buffers for datagrams. The first call makes them, and has `register` tell the kernel; if
    /// that fails, there are none, and `refused` is called.
    pub(crate) fn make_datagrams(
        &self,
        register: impl FnOnce(Register) -> io::Result<()>,
        refused: impl FnOnce(io::Error),
    ) -> Option<&Rc<Datagrams>> {
        let make = || {
            let made = Datagrams::new().map(Rc::new);
            made.and_then(|made| register(made.registration()).map(|()| made))
        };
        self.datagrams.get_or_init(|| make().map_err(refused).ok()).as_ref()
    }

    /// Leases that are out, those of datagrams included.
    pub(crate) fn leases(&self) -> u32 {
        self.buffers.leases() + self.datagrams().map_or(0, |datagrams| datagrams.leases())
    }

    /// Buffers that are with the kernel, or leased, those for datagrams included.
    pub(crate) fn published(&self) -> u16 {
        self.buffers.published() + self.datagrams().map_or(0, |datagrams| datagrams.published())
    }

    /// How often the kernel found no buffer.
    pub(crate) fn starved(&self) -> u64 {
        self.buffers.starved() + self.datagrams().map_or(0, |datagrams| datagrams.starved())
    }

    /// How many receives brought their bytes to the heap, because buffers were short.
    pub(crate) fn copied(&self) -> u64 {
        self.copied.get()
    }

    pub(crate) fn count_copied(&self) {
        self.copied.set(self.copied.get() + 1);
    }

    /// Whether so many are leased that what arrives is about to be copied.
    pub(crate) fn is_short(&self) -> bool {
        self.buffers.leases() >= self.enough
    }

    /// Publishes twice as many buffers as before. False when all are published already.
    pub(crate) fn grow(&self) -> bool {
        self.buffers.grow()
    }

    /// An account for one more connection.
    pub(crate) fn account(self: &Rc<Self>) -> Rc<Account> {
        Rc::new(Account { pool: Rc::clone(self) })
    }
}

/// What one connection is leased: each lease holds a share of it, so its count is theirs.
pub(crate) struct Account {
    pool: Rc<Pool>,
}

impl Account {
    /// How many leases the connection has, where this is the only other share.
    #[inline]
    pub(crate) fn leases(self: &Rc<Self>) -> usize {
        Rc::strong_count(self) - 1
    }

    /// Takes over a buffer that the kernel has picked and filled with `len` bytes.
    #[inline]
    pub(crate) fn lease(self: &Rc<Self>, bid: u16, len: usize) -> PooledBuf {
        assert!(len <= SIZE, "the kernel filled {len} bytes of {SIZE}");
        self.pool.buffers.take(bid);
        let share = Rc::into_raw(Rc::clone(self)).cast_mut();
        let owner = NonNull::new(share.cast()).expect("an Rc is somewhere");
        PooledBuf { owner, place: Place::new(0, len, bid, Home::Pool) }
    }

    /// As [`lease`](Self::lease); the bytes are copied if too few buffers would be left, or if the
    /// connection has as many as one may have.
    #[inline]
    pub(crate) fn take_over(self: &Rc<Self>, bid: u16, len: usize) -> PooledBuf {
        let is_enough = self.leases() >= self.pool.each || self.pool.is_short();
        if is_enough && len > 0 { self.copy(bid, len) } else { self.lease(bid, len) }
    }

    #[cold]
    fn copy(self: &Rc<Self>, bid: u16, len: usize) -> PooledBuf {
        self.pool.count_copied();
        PooledBuf::copied(&self.lease(bid, len))
    }
}

/// Received bytes: a lease on one of the core's buffers, or, when those are short, heap memory.
///
/// It can be written to a stream as it is, consumed from the front with
/// [`advance`](PooledBuf::advance), and read as a slice. Dropping it gives the buffer back. While a
/// connection's leases are an eighth of the core's buffers, what arrives for it is copied to the heap,
/// and so is all that arrives while most of the buffers are kept.
pub struct PooledBuf {
    /// The account, as `Rc::into_raw` gives it, or the memory itself, a box of `SIZE` bytes: `place` says which.
    owner: NonNull<()>,
    place: Place,
}

// A server's tasks have room for some of them each.
const _: () = assert!(size_of::<Option<PooledBuf>>() == 16 && SIZE <= place::MOST);

impl PooledBuf {
    /// The most bytes that one holds.
    pub const SIZE: usize = SIZE;

    /// A copy of `bytes` in heap memory: for a stream of one's own, and for bytes that are put back.
    ///
    /// # Panics
    /// If there are more than [`SIZE`](Self::SIZE).
    ///
    /// ```
    /// let bytes = quoit::buf::PooledBuf::copied(b"bytes");
    /// assert_eq!((&*bytes, bytes.is_lease()), (&b"bytes"[..], false));
    /// ```
    #[must_use]
    pub fn copied(bytes: &[u8]) -> PooledBuf {
        assert!(bytes.len() <= SIZE, "a buffer holds {SIZE} bytes, not {}", bytes.len());
        let mut memory = Vec::with_capacity(SIZE);
        memory.extend_from_slice(bytes);
        PooledBuf::from_heap(memory)
    }

    /// Takes over what was received into memory of [`heap`].
    pub(crate) fn from_heap(mut memory: Vec<u8>) -> PooledBuf {
        let len = memory.len();
        assert!(len <= SIZE, "a buffer holds {SIZE} bytes, not {len}");
        memory.resize(SIZE, 0);
        let owner = NonNull::from(Box::leak(memory.into_boxed_slice())).cast();
        PooledBuf { owner, place: Place::new(0, len, 0, Home::Heap) }
    }

    /// The first of the bytes.
    #[inline]
    fn first(&self) -> NonNull<u8> {
        let buffer = match self.place.home() {
            Home::Pool => {
                // SAFETY: the owner is an account, and this holds a share of it.
                let account = unsafe { self.owner.cast::<Account>().as_ref() };
                account.pool.buffers.buffer(self.place.bid())
            }
            Home::Heap => self.owner.cast(),
        };
        // SAFETY: `start` is within the buffer, or one past its end.
        unsafe { buffer.add(self.place.start()) }
    }

    /// Consumes `count` bytes from the front.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn advance(&mut self, count: usize) {
        self.place.advance(count);
    }

    /// Whether the bytes are in one of the core's buffers, not on the heap.
    #[must_use]
    pub fn is_lease(&self) -> bool {
        self.place.home() == Home::Pool
    }
}

impl Deref for PooledBuf {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the kernel filled these bytes, and only this lease refers to them.
        unsafe { std::slice::from_raw_parts(self.first().as_ptr(), self.place.len()) }
    }
}

impl DerefMut for PooledBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`.
        unsafe { std::slice::from_raw_parts_mut(self.first().as_ptr(), self.place.len()) }
    }
}

impl AsRef<[u8]> for PooledBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl std::fmt::Debug for PooledBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PooledBuf")
            .field("len", &self.len())
            .field("lease", &self.is_lease())
            .finish_non_exhaustive()
    }
}

// SAFETY: the bytes stay where they are until the lease is dropped, and it is the only one.
unsafe impl IoBuf for PooledBuf {
    #[inline]
    fn buf_ptr(&self) -> *const u8 {
        self.first().as_ptr()
    }

    #[inline]
    fn buf_len(&self) -> usize {
        self.place.len()
    }
}

impl Drop for PooledBuf {
    #[inline]
    fn drop(&mut self) {
        match self.place.home() {
            Home::Pool => {
                // SAFETY: `lease` made the pointer of a share of the account, which ends here.
                let account = unsafe { Rc::from_raw(self.owner.cast::<Account>().as_ptr()) };
                account.pool.buffers.give_back(self.place.bid());
            }
            Home::Heap => {
                let memory = ptr::slice_from_raw_parts_mut(self.owner.cast().as_ptr(), SIZE);
                // SAFETY: `from_heap` leaked a box of so many bytes.
                drop(unsafe { Box::<[u8]>::from_raw(memory) });
            }
        }
    }
}

/// Memory for one receive when the pool has none.
pub(crate) fn heap() -> Vec<u8> {
    Vec::with_capacity(SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_goes_home_when_it_is_dropped() {
        let pool = Rc::new(Pool::new(MOST).unwrap());
        let account = pool.account();
        let mut lease = account.lease(3, 10);
        lease.advance(4);
        assert_eq!((lease.len(), pool.leases(), account.leases()), (6, 1, 1));
        drop(lease);
        assert_eq!((pool.leases(), account.leases()), (0, 0));
        drop(account.lease(3, 1));
    }

    #[test]
    #[should_panic(expected = "which is leased")]
    fn a_buffer_that_is_leased_cannot_be_picked() {
        let pool = Rc::new(Pool::new(MOST).unwrap());
        let _first = pool.account().lease(3, 10);
        let _second = pool.account().lease(3, 10);
    }

    #[test]
    fn the_pool_grows_to_its_end_and_no_further() {
        let pool = Pool::new(MOST).unwrap();
        let grown = (0..10).filter(|_| pool.grow()).count();
        assert_eq!((grown, pool.published()), (4, MOST));
    }

    #[test]
    fn the_last_eighth_is_never_leased() {
        let pool = Rc::new(Pool::new(16).unwrap());
        let kept: Vec<_> = (0..16).map(|bid| pool.account().take_over(bid, 5)).collect();
        assert_eq!(kept.iter().filter(|buf| buf.is_lease()).count(), 14);
        assert_eq!((pool.leases(), pool.copied()), (14, 2));
        let smallest = Rc::new(Pool::new(1).unwrap());
        assert!(!smallest.account().take_over(0, 5).is_lease());
    }

    #[test]
    fn a_connection_is_leased_an_eighth_until_it_gives_some_back() {
        let pool = Rc::new(Pool::new(16).unwrap());
        let (hoarder, other) = (pool.account(), pool.account());
        let mut kept: Vec<_> = (0..8).map(|bid| hoarder.take_over(bid, 5)).collect();
        assert_eq!(kept.iter().filter(|buf| buf.is_lease()).count(), 2);
        assert_eq!((pool.leases(), pool.copied()), (2, 6));
        assert!(other.take_over(8, 5).is_lease());
        drop(kept.remove(0));
        assert!(hoarder.take_over(9, 5).is_lease());
    }

    #[test]
    fn heap_bytes_can_be_consumed_from_the_front() {
        let mut bytes = PooledBuf::copied(b"hello");
        bytes.advance(2);
        assert_eq!((&*bytes, bytes.is_lease()), (&b"llo"[..], false));
        bytes.advance(3);
        assert!(bytes.is_empty());
    }
}
