//! Where the bytes of a lease are.

/// What memory it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Home {
    /// A buffer of the core, of whose owner the lease holds a share.
    Pool,
    /// A box of its own.
    Heap,
}

/// Where the bytes begin and how many there are, in which buffer, in one word: a lease is moved several
/// times on its way to its reader. Of two whole words each move is two loads; of smaller fields, with
/// the spare values of the smallest as the tags of what is around them, each load covered several stores
/// and waited for them: 1 % of an echoed message.
#[derive(Clone, Copy)]
pub(super) struct Place(u64);

/// How many bits a start or a length has.
const BITS: u32 = 20;
const MASK: u64 = (1 << BITS) - 1;

/// No buffer is larger.
pub(super) const MOST: usize = MASK as usize;

impl Place {
    /// # Panics
    /// In debug builds, if the bytes end behind [`MOST`].
    #[inline]
    pub(super) fn new(start: usize, len: usize, bid: u16, home: Home) -> Self {
        debug_assert!(start + len <= MOST, "a buffer of more than {MOST} bytes");
        let home = u64::from(home == Home::Heap);
        Place(start as u64 | (len as u64) << BITS | u64::from(bid) << (2 * BITS) | home << 63)
    }

    /// Where the bytes begin in the buffer.
    #[inline]
    pub(super) fn start(self) -> usize {
        (self.0 & MASK) as usize
    }

    #[inline]
    pub(super) fn len(self) -> usize {
        (self.0 >> BITS & MASK) as usize
    }

    #[inline]
    pub(super) fn bid(self) -> u16 {
        (self.0 >> (2 * BITS)) as u16
    }

    #[inline]
    pub(super) fn home(self) -> Home {
        if self.0 >> 63 == 0 { Home::Pool } else { Home::Heap }
    }

    /// Leaves out the first `count` bytes.
    ///
    /// # Panics
    /// If there are fewer.
    pub(super) fn advance(&mut self, count: usize) {
        assert!(count <= self.len(), "{count} bytes were consumed of {}", self.len());
        self.0 = self.0 + count as u64 - ((count as u64) << BITS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_comes_back_as_it_was() {
        for (start, len, bid) in [(0, 0, 0), (0, MOST, u16::MAX), (MOST, 0, 1), (7, 4096, 32_767)] {
            for home in [Home::Pool, Home::Heap] {
                let place = Place::new(start, len, bid, home);
                let back = (place.start(), place.len(), place.bid(), place.home());
                assert_eq!(back, (start, len, bid, home));
            }
        }
    }

    #[test]
    fn what_is_consumed_is_left_out_and_nothing_else_changes() {
        let mut place = Place::new(3, 100, 9, Home::Heap);
        place.advance(60);
        place.advance(0);
        assert_eq!((place.start(), place.len()), (63, 40));
        assert_eq!((place.bid(), place.home()), (9, Home::Heap));
    }

    #[test]
    #[should_panic(expected = "41 bytes were consumed of 40")]
    fn more_than_there_is_is_not_consumed() {
        Place::new(63, 40, 9, Home::Pool).advance(41);
    }
}
