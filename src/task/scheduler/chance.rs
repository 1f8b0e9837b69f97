//! What happens by chance: the order of branches in a `select!`, and what the simulator does to tasks.

use super::Scheduler;

impl Scheduler {
    /// An index below `count`, by chance: the same in each run in which the same is asked.
    #[inline]
    pub(in crate::task) fn choose(&self, count: usize) -> usize {
        let chance = self.chance.get();
        self.chance
            .set(chance.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F));
        (((chance >> 32) * count as u64) >> 32) as usize
    }

    /// Has `choose` choose otherwise: for the simulator, whose seeds are to differ in it.
    pub(crate) fn set_chance(&self, seed: u64) {
        self.chance.set(seed);
    }

    /// Puts the run queue into another order: for the simulator, between two laps. `choose` gives an
    /// index below what it is given.
    #[cold]
    pub(crate) fn reorder(&self, mut choose: impl FnMut(usize) -> usize) {
        let mut queue: Vec<_> = std::iter::from_fn(|| self.ready.pop()).collect();
        while !queue.is_empty() {
            let header = queue.swap_remove(choose(queue.len()));
            // SAFETY: as in `schedule`.
            unsafe { header.as_ref() }.next.set(None);
            self.ready.append(header);
        }
    }

    /// Wakes one of the tasks for nothing, as any waker may: for the simulator.
    #[cold]
    pub(crate) fn wake_for_nothing(&self, choose: impl FnOnce(usize) -> usize) {
        let count = self.len();
        if count == 0 {
            return;
        }
        // SAFETY: a look.
        let chosen = unsafe {
            self.table(|tasks| {
                let mut place = 0;
                for _ in 0..choose(count) {
                    place = tasks.next(place)?.0 + 1;
                }
                tasks.next(place)
            })
        };
        if let Some((_, header)) = chosen {
            self.schedule(header);
        }
    }
}
