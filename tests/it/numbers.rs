//! Numbers and bytes that are the same each time: choices out of a seed, and a stream's pattern.

/// Random numbers, the same for the same seed (xorshift64*).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() >> 16) as usize % end
    }

    /// A number from 1 to `most`, small ones as likely as large ones.
    pub(crate) fn size(&mut self, most: usize) -> usize {
        let bits = self.below(most.ilog2() as usize + 1);
        1 + self.below((1 << (bits + 1)).min(most))
    }
}

/// The byte at `place` of a stream: neighbours differ, and so do places that are far apart.
pub(crate) fn byte_at(place: u64) -> u8 {
    let mixed = (place + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 56) as u8
}

/// `len` bytes of the pattern from `place` on.
pub(crate) fn pattern(place: u64, len: usize) -> Vec<u8> {
    (place..place + len as u64).map(byte_at).collect()
}

/// What was received so far of a stream of the pattern.
#[derive(Default)]
pub(crate) struct Oracle(pub(crate) u64);

impl Oracle {
    /// Takes the next bytes.
    #[track_caller]
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        for (index, byte) in bytes.iter().enumerate() {
            let place = self.0 + index as u64;
            assert_eq!(*byte, byte_at(place), "byte {place} of the stream is another");
        }
        self.0 += bytes.len() as u64;
    }
}
