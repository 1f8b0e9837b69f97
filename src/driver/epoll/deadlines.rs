//! TIMEOUT requests, the earliest first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::requests::Key;

/// When requests are due. An entry whose request is gone, or due at another time by now, is stale:
/// it is skipped at the top and swept out when it has too many of its kind.
#[derive(Default)]
pub(super) struct Deadlines {
    heap: BinaryHeap<Reverse<(u64, Key)>>,
    live: usize,
}

/// Stale entries that are never worth a sweep.
const FEW: usize = 64;

impl Deadlines {
    /// Adds a request that is due at `time`.
    pub(super) fn add(&mut self, time: u64, key: Key) {
        self.live += 1;
        self.heap.push(Reverse((time, key)));
    }

    /// A request that was added is not due any more. `due` says when each key is due now, if at all.
    pub(super) fn removed(&mut self, due: impl Fn(Key) -> Option<u64>) {
        self.live -= 1;
        if self.heap.len() > 2 * self.live + FEW {
            self.heap.retain(|Reverse((time, key))| due(*key) == Some(*time));
        }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// When the first is due, as `due` says it.
    #[inline]
    pub(super) fn first(&mut self, due: impl Fn(Key) -> Option<u64>) -> Option<(u64, Key)> {
        while let Some(&Reverse((time, key))) = self.heap.peek() {
            if due(key) == Some(time) {
                return Some((time, key));
            }
            self.heap.pop();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn the_earliest_that_still_holds_is_first() {
        let (mut deadlines, mut due) = (Deadlines::default(), HashMap::new());
        for (key, time) in [(1, 30), (2, 10), (3, 20)] {
            deadlines.add(time, key);
            due.insert(key, time);
        }
        assert_eq!(deadlines.first(|key| due.get(&key).copied()), Some((10, 2)));
        due.remove(&2);
        deadlines.removed(|key| due.get(&key).copied());
        assert_eq!(deadlines.first(|key| due.get(&key).copied()), Some((20, 3)));
        due.insert(3, 40);
        deadlines.removed(|key| due.get(&key).copied());
        deadlines.add(40, 3);
        assert_eq!(deadlines.first(|key| due.get(&key).copied()), Some((30, 1)));
    }

    #[test]
    fn what_is_moved_again_and_again_leaves_no_heap_behind() {
        let (mut deadlines, mut time) = (Deadlines::default(), 1_000_000);
        deadlines.add(time, 1);
        for _ in 0..10_000 {
            time -= 1;
            deadlines.removed(|_| Some(time));
            deadlines.add(time, 1);
        }
        assert!(deadlines.heap.len() < 2 * FEW, "{} entries", deadlines.heap.len());
        assert_eq!(deadlines.first(|_| Some(time)), Some((time, 1)));
    }
}
