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

/// `len` bytes of the pattern of a stream from `place` on: neighbours differ, and so do places that are
/// far apart. Tests make gigabytes of it, without optimizations.
pub(crate) fn pattern(place: u64, len: usize) -> Vec<u8> {
    /// The first byte of each multiple is a byte of the pattern.
    const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
    let (mut bytes, mut mixed) = (vec![0; len], (place + 1).wrapping_mul(STEP));
    for byte in &mut bytes {
        *byte = (mixed >> 56) as u8;
        mixed = mixed.wrapping_add(STEP);
    }
    bytes
}

/// What was received so far of a stream of the pattern.
#[derive(Default)]
pub(crate) struct Oracle(pub(crate) u64);

impl Oracle {
    /// Takes the next bytes.
    #[track_caller]
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        let expected = pattern(self.0, bytes.len());
        if bytes != expected {
            let index = bytes.iter().zip(&expected).position(|(came, expected)| came != expected);
            let place = self.0 + index.expect("one of them is another") as u64;
            panic!("byte {place} of the stream is another");
        }
        self.0 += bytes.len() as u64;
    }
}
