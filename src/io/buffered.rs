//! Bytes that were received and not yet consumed.

use crate::buf::PooledBuf;
use crate::buf::pool;

/// Memory for gathered bytes that is kept when they are consumed.
const KEPT_AT_MOST: usize = 16 * 1024;

/// What has been gathered, and behind it what is left of the last lease.
///
/// An item that lies in the lease stays there. One that is spread over several leases is gathered:
/// each of its bytes is copied once, and the leases go home at once, so that a peer that sends one
/// byte at a time holds no more memory than it has sent.
#[derive(Debug, Default)]
pub(super) struct Buffered {
    gathered: Vec<u8>,
    /// Where in `gathered` the unconsumed bytes begin.
    start: usize,
    lease: Option<PooledBuf>,
    /// Bytes at the front that were handed out: they go with the next call.
    taken: usize,
    /// How many bytes at the front are known not to hold this one.
    searched: (u8, usize),
    consumed: u64,
}

impl Buffered {
    pub(super) fn len(&self) -> usize {
        self.gathered().len() + self.leased().len()
    }

    fn gathered(&self) -> &[u8] {
        &self.gathered[self.start..]
    }

    fn leased(&self) -> &[u8] {
        self.lease.as_deref().unwrap_or_default()
    }

    /// The bytes at the front that lie together; none only if there are none at all.
    pub(super) fn front(&self) -> &[u8] {
        if self.gathered().is_empty() { self.leased() } else { self.gathered() }
    }

    /// Bytes consumed so far, those included that were only handed out.
    pub(super) fn consumed(&self) -> u64 {
        self.consumed + self.taken as u64
    }

    /// Hands out the first `len` bytes, which lie together. [`settle`](Self::settle) consumes them.
    pub(super) fn take(&mut self, len: usize) -> &[u8] {
        self.gather(len);
        self.taken = len;
        &self.front()[..len]
    }

    /// Consumes what was handed out.
    pub(super) fn settle(&mut self) {
        let taken = std::mem::take(&mut self.taken);
        self.consume(taken);
    }

    /// Consumes bytes from the front.
    pub(super) fn consume(&mut self, count: usize) {
        assert!(count <= self.len(), "{count} bytes were consumed of {}", self.len());
        self.consumed += count as u64;
        self.searched.1 = self.searched.1.saturating_sub(count);
        let first = count.min(self.gathered().len());
        self.start += first;
        if self.start == self.gathered.len() {
            self.start = 0;
            self.gathered.clear();
            if self.gathered.capacity() > KEPT_AT_MOST {
                self.gathered = Vec::new();
            }
        }
        self.shorten_lease(count - first);
    }

    fn shorten_lease(&mut self, count: usize) {
        let Some(lease) = &mut self.lease else { return };
        lease.advance(count);
        if lease.is_empty() {
            self.lease = None;
        }
    }

    /// Copies from the front, without consuming, and says how much.
    pub(super) fn copy_to(&self, place: &mut [u8]) -> usize {
        let mut done = 0;
        for piece in [self.gathered(), self.leased()] {
            let count = piece.len().min(place.len() - done);
            place[done..done + count].copy_from_slice(&piece[..count]);
            done += count;
        }
        done
    }

    /// Makes the first `len` bytes lie together.
    pub(super) fn gather(&mut self, len: usize) {
        assert!(len <= self.len(), "{len} bytes were asked for of {}", self.len());
        let there = self.gathered().len();
        if there == 0 || there >= len {
            return;
        }
        self.append_of_lease(len - there);
    }

    /// Gathers all, so that the lease goes home.
    pub(super) fn gather_all(&mut self) {
        self.append_of_lease(self.leased().len());
    }

    fn append_of_lease(&mut self, count: usize) {
        if self.start > self.gathered.len() / 2 {
            // Worth it: more is left out than is moved.
            self.gathered.drain(..self.start);
            self.start = 0;
        }
        let Some(lease) = &self.lease else { return };
        self.gathered.extend_from_slice(&lease[..count]);
        self.shorten_lease(count);
    }

    /// Adds what was received behind the rest, which has been gathered.
    pub(super) fn push(&mut self, lease: PooledBuf) {
        assert!(self.lease.is_none(), "a lease is gathered before the next one comes");
        self.lease = (!lease.is_empty()).then_some(lease);
    }

    /// How many bytes there are up to the first `delimiter`, and with it. No byte is looked at twice.
    pub(super) fn find(&mut self, delimiter: u8) -> Option<usize> {
        let (known, searched) = self.searched;
        let from = if known == delimiter { searched } else { 0 };
        let gathered = self.gathered();
        let at = |bytes: &[u8]| bytes.iter().position(|&byte| byte == delimiter);
        let in_gathered = at(gathered.get(from..).unwrap_or_default()).map(|at| from + at);
        let found = in_gathered.or_else(|| {
            let skipped = from.saturating_sub(gathered.len());
            at(&self.leased()[skipped..]).map(|at| gathered.len() + skipped + at)
        });
        self.searched = (delimiter, found.unwrap_or(self.len()));
        found.map(|at| at + 1)
    }

    /// Puts bytes before all others. They count as not consumed.
    pub(super) fn put_back(&mut self, bytes: &[u8]) {
        self.gathered.splice(self.start..self.start, bytes.iter().copied());
        self.consumed -= bytes.len() as u64;
        self.searched = (0, 0);
    }

    /// Takes all out as pieces, the last one first.
    pub(super) fn drain(&mut self, mut each: impl FnMut(PooledBuf)) {
        self.settle();
        self.lease.take().into_iter().for_each(&mut each);
        let gathered = std::mem::take(&mut self.gathered);
        let start = std::mem::take(&mut self.start);
        gathered[start..].rchunks(pool::SIZE).map(PooledBuf::copied).for_each(each);
    }
}
