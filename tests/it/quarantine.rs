//! A buffer that tells when a kernel writes to it after it was dropped.
//!
//! Neither AddressSanitizer nor valgrind sees what a kernel writes. So the pieces of one arena are
//! never given back: a drop fills its piece with a pattern and parks it, and the oldest piece is
//! used again only after the pattern was looked at.

use std::collections::VecDeque;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use quoit::buf::{IoBuf, IoBufMut};

/// The most that one buffer holds.
pub(crate) const PIECE: usize = 4096;
const PIECES: usize = 16 * 1024;
const DEAD: u8 = 0xDD;

static ARENA: Mutex<Option<Arena>> = Mutex::new(None);

struct Arena {
    memory: &'static mut [[u8; PIECE]],
    touched: usize,
    /// Oldest first, with who freed it.
    parked: VecDeque<usize>,
    violations: u64,
}

impl Arena {
    fn new() -> Arena {
        // Zeroed memory of this size is a mapping that becomes real when it is touched.
        let memory = vec![[0; PIECE]; PIECES].leak();
        Arena { memory, touched: 0, parked: VecDeque::with_capacity(PIECES), violations: 0 }
    }

    fn take(&mut self) -> NonNull<u8> {
        let index = if self.touched < PIECES {
            self.touched += 1;
            self.touched - 1
        } else {
            let oldest = self.parked.pop_front().expect("every piece of the arena is in use");
            self.violations += u64::from(self.is_spoilt(oldest));
            oldest
        };
        NonNull::from(&mut self.memory[index]).cast()
    }

    fn park(&mut self, start: NonNull<u8>) {
        let offset = start.as_ptr().addr() - self.memory.as_ptr().addr();
        let index = offset / PIECE;
        self.memory[index].fill(DEAD);
        self.parked.push_back(index);
    }

    fn is_spoilt(&self, index: usize) -> bool {
        // A volatile read: the compiler knows of nobody who could have written since the fill.
        self.memory[index].chunks_exact(8).any(|word| {
            // SAFETY: the chunk is eight readable bytes; alignment is not asked for.
            let word = unsafe { word.as_ptr().cast::<[u8; 8]>().read_volatile() };
            word != [DEAD; 8]
        })
    }
}

fn arena() -> MutexGuard<'static, Option<Arena>> {
    ARENA.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks at everything that is parked, and says how often memory was written to after its drop.
pub(crate) fn violations() -> u64 {
    let mut arena = arena();
    let Some(arena) = &mut *arena else { return 0 };
    let parked = arena.parked.iter().filter(|index| arena.is_spoilt(**index)).count();
    arena.violations + parked as u64
}

/// A buffer of the arena.
#[derive(Debug)]
pub(crate) struct QuarantineBuf {
    start: NonNull<u8>,
    len: usize,
    capacity: usize,
}

impl QuarantineBuf {
    /// An empty buffer with room for `capacity` bytes.
    pub(crate) fn new(capacity: usize) -> QuarantineBuf {
        assert!(capacity <= PIECE, "a piece holds {PIECE} bytes");
        let start = arena().get_or_insert_with(Arena::new).take();
        QuarantineBuf { start, len: 0, capacity }
    }

    /// A buffer that holds `bytes`.
    pub(crate) fn of(bytes: &[u8]) -> QuarantineBuf {
        let mut buf = QuarantineBuf::new(bytes.len());
        // SAFETY: the piece has room for so many bytes, and nobody else refers to it.
        unsafe { buf.start.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        buf.len = bytes.len();
        buf
    }
}

impl Deref for QuarantineBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: so many bytes of the piece were filled, and only this value refers to them.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl Drop for QuarantineBuf {
    fn drop(&mut self) {
        arena().as_mut().expect("a piece comes from the arena").park(self.start);
    }
}

// SAFETY: the piece is this value's alone, and is never unmapped.
unsafe impl IoBuf for QuarantineBuf {
    fn buf_ptr(&self) -> *const u8 {
        self.start.as_ptr()
    }

    fn buf_len(&self) -> usize {
        self.len
    }

    fn buf_capacity(&self) -> usize {
        self.capacity
    }
}

// SAFETY: as above; every byte of the piece may be written.
unsafe impl IoBufMut for QuarantineBuf {
    fn buf_mut_ptr(&mut self) -> *mut u8 {
        self.start.as_ptr()
    }

    unsafe fn set_buf_len(&mut self, len: usize) {
        assert!(len <= self.capacity);
        self.len = len;
    }
}

#[test]
fn a_write_after_the_drop_is_counted() {
    crate::loopback::isolated(|| {
        let piece = QuarantineBuf::of(b"hello").start;
        assert_eq!(violations(), 0);
        // SAFETY: the arena is never unmapped, and nobody uses the piece: this plays the kernel.
        unsafe { piece.as_ptr().add(PIECE - 1).write_volatile(1) };
        assert_eq!(violations(), 1);
        // It is found as well when the piece is used again.
        let all: Vec<QuarantineBuf> = (0..PIECES).map(|_| QuarantineBuf::new(1)).collect();
        drop(all);
        assert_eq!(violations(), 1);
    });
}
