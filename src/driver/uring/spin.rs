//! For how long the queues are watched before a sleep: about as long as something usually takes.

use std::time::Duration;

/// How much the last wait counts: an eighth.
const WEIGHT: u64 = 8;

/// What is known of the waits so far.
#[derive(Debug)]
pub(super) struct Spin {
    /// The most that is allowed, in nanoseconds.
    most: u64,
    /// How long a wait usually takes.
    usual: u64,
}

impl Spin {
    /// For at most so long; `None` for none at all.
    pub(super) fn new(most: Duration) -> Option<Self> {
        let most = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX).min(1_000_000_000);
        // Nothing is watched before something has come fast.
        (most > 0).then_some(Spin { most, usual: 2 * most })
    }

    /// For how many nanoseconds to watch now; 0 where it would most likely be in vain.
    #[inline]
    pub(super) fn budget(&self) -> u64 {
        if self.usual > self.most { 0 } else { self.most.min(2 * self.usual) }
    }

    /// Takes note of how long a wait took, watched or slept.
    #[inline]
    pub(super) fn took(&mut self, ns: u64) {
        // A night without requests is forgotten within a few of them.
        let ns = ns.min(4 * self.most);
        self.usual = (self.usual * (WEIGHT - 1) + ns) / WEIGHT;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spin() -> Spin {
        Spin::new(Duration::from_micros(50)).unwrap()
    }

    #[test]
    fn nothing_is_watched_by_default_and_at_first() {
        assert!(Spin::new(Duration::ZERO).is_none());
        assert_eq!(spin().budget(), 0);
    }

    #[test]
    fn it_watches_for_twice_as_long_as_a_wait_usually_takes_and_no_longer_than_it_may() {
        let mut spin = spin();
        (0..100).for_each(|_| spin.took(10_000));
        assert!((20_000..=22_000).contains(&spin.budget()), "{}", spin.budget());
        (0..100).for_each(|_| spin.took(40_000));
        assert_eq!(spin.budget(), 50_000);
    }

    #[test]
    fn a_core_where_little_happens_does_not_watch() {
        let mut spin = spin();
        (0..100).for_each(|_| spin.took(10_000));
        (0..3).for_each(|_| spin.took(1_000_000_000));
        assert_eq!(spin.budget(), 0, "three long waits");
        (0..100).for_each(|_| spin.took(60_000));
        assert_eq!(spin.budget(), 0, "each wait is longer than it may watch");
        let back = (0..20).take_while(|_| {
            spin.took(5_000);
            spin.budget() == 0
        });
        assert!(back.count() < 12, "it takes long to begin again");
    }
}
