//! A hierarchical timing wheel: every timer of one core, and which of them is due.
//!
//! A tick is 2^10 ns. A timer stands on the level of the highest six-bit digit in which the tick of
//! its deadline differs from the tick at which the wheel stands, in the slot which that digit names:
//!
//! ```text
//!   a slot is   64^8     ...      64^2           64         1 tick long
//!             ┌─────────┐         ┌──────┐      ┌──────┐      ┌───────┐
//!             │ level 8 │   ...   │  2   │      │  1   │      │   0   │  64 slots each,
//!             └─────────┘         └──┬───┘      └─▲─┬──┘      └─▲─┬───┘  a bitmap of those in use
//!                                    └── advance ─┘ └─ advance ─┘ │
//!                                                                 │ advance
//!            pop_due ◀── the least ◀── run (sorted), stragglers (a heap) ◀┘
//! ```
//!
//! A slot holds its timers in the order of insertion, and the least deadline among them. All that is
//! on a level is due before anything on the level above, and slots are due in the order of their
//! numbers. So the earliest deadline is found with two bit scans, and the wheel moves only when that
//! is due: it then jumps, however far, in one step. Everything passed is collected, and the one slot
//! that it lands in is spread over the levels below. A timer only ever goes down, so it moves at most
//! nine times, and a jump over years costs no more than one over a tick.
//!
//! Where a timer stands follows from its tick and the wheel's alone. Hence timers of one deadline are
//! always in one slot, in the order of their insertion, and no sequence number is kept.
//!
//! A slot is an array of entry numbers, in which a cancelled timer leaves a hole, and not a linked
//! list: with a million timers each step along a list waits for memory, whereas the entries that an
//! array names are fetched side by side.
//!
//! A tick is collected whole, and sorted by nanoseconds there. What comes due while an earlier
//! collection is still being popped goes to the heap of stragglers, not into the sorted run, which
//! would be quadratic.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

const TICK_BITS: u32 = 10;
const DIGIT_BITS: u32 = 6;
const SLOTS: usize = 1 << DIGIT_BITS;
const LEVELS: usize = (u64::BITS - TICK_BITS).div_ceil(DIGIT_BITS) as usize;

/// No entry: a hole in a slot, or the end of the vacant ones.
const NONE: u32 = u32::MAX;
/// The place of an entry that was collected, and is in no slot.
const COLLECTED: u16 = u16::MAX;
/// The place of an entry that is not in use.
const VACANT: u16 = u16::MAX - 1;
/// The generation of an entry that has used up its names and is never used again.
const RETIRED: u32 = u32::MAX;
/// What the collections may keep when they are empty; a burst gives the rest back.
const KEPT_CAPACITY: usize = 4096;
/// What an empty slot may keep.
const KEPT_IN_SLOT: usize = 64;

const _: () = {
    assert!(LEVELS * SLOTS < VACANT as usize);
    // With its number in a slot, which may have grown to twice what it needs.
    assert!(size_of::<Entry<[u64; 3]>>() + 2 * size_of::<u32>() <= 64);
};

/// Names one life of one entry; afterwards it names nothing, for ever.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Key {
    index: u32,
    generation: u32,
}

impl Key {
    /// Names no timer of any wheel.
    pub(crate) const NOTHING: Key = Key { index: NONE, generation: RETIRED };
}

/// Timers in the order of their deadlines, each with a value to deliver.
///
/// Times are nanoseconds of whatever clock the caller uses. Memory follows the most timers that were
/// ever outstanding together and is not given back before the wheel is dropped.
pub(crate) struct Wheel<T> {
    /// The tick at which the wheel stands. It never goes back, and lags while nothing is due.
    position: u64,
    /// Bit `l` is set when level `l` holds a timer.
    occupied_levels: u16,
    /// For each level, a bit for each slot that holds a timer.
    occupied_slots: [u64; LEVELS],
    slots: Box<[Slot]>,
    entries: Vec<Entry<T>>,
    /// The first vacant entry; they are chained through `position`.
    vacant: u32,
    len: usize,
    /// Collected timers, the earliest last.
    run: Vec<(u64, Key)>,
    /// Timers collected while others still were: by deadline, then by order of collection.
    stragglers: BinaryHeap<Reverse<(u64, u64, Key)>>,
    straggler_count: u64,
    /// How many of the collected were cancelled since.
    stale_count: usize,
}

/// Own storage and not a `slab::Slab`: the generation must outlive the value, and there it would die
/// with the entry; a tag beside it would cost 8 bytes more for each timer.
struct Entry<T> {
    /// T's default while the entry is vacant: that saves an `Option`, which would cost 8 bytes.
    value: T,
    deadline: u64,
    /// Where in the slot.
    position: u32,
    generation: u32,
    /// Which slot.
    place: u16,
}

/// Timers in the order of their insertion, with holes where some were cancelled.
#[derive(Clone)]
struct Slot {
    indices: Vec<u32>,
    live: u32,
    /// The least deadline that the slot held since it was last empty.
    earliest: u64,
}

const EMPTY: Slot = Slot { indices: Vec::new(), live: 0, earliest: u64::MAX };

impl<T: Default> Wheel<T> {
    pub(crate) fn new(now: u64) -> Self {
        Self {
            position: now >> TICK_BITS,
            occupied_levels: 0,
            occupied_slots: [0; LEVELS],
            slots: vec![EMPTY; LEVELS * SLOTS].into_boxed_slice(),
            entries: Vec::new(),
            vacant: NONE,
            len: 0,
            run: Vec::new(),
            stragglers: BinaryHeap::new(),
            straggler_count: 0,
            stale_count: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Adds a timer in O(1). A deadline in the past is due at the next `pop_due`.
    #[inline]
    pub(crate) fn insert(&mut self, deadline: u64, value: T) -> Key {
        let index = self.vacant;
        let key = if let Some(entry) = self.entries.get_mut(index as usize) {
            self.vacant = entry.position;
            entry.value = value;
            entry.deadline = deadline;
            Key { index, generation: entry.generation }
        } else {
            self.grow(deadline, value)
        };
        self.len += 1;
        self.link(key.index, deadline);
        key
    }

    /// The value of a timer that was neither delivered nor cancelled.
    #[inline]
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let entry = self.entries.get_mut(key.index as usize)?;
        (entry.generation == key.generation).then_some(&mut entry.value)
    }

    /// Whether a timer was neither delivered nor cancelled.
    #[inline]
    pub(crate) fn contains(&self, key: Key) -> bool {
        self.deadline(key).is_some()
    }

    #[inline]
    pub(crate) fn deadline(&self, key: Key) -> Option<u64> {
        let entry = self.entries.get(key.index as usize)?;
        (entry.generation == key.generation).then_some(entry.deadline)
    }

    /// Removes a timer in O(1). The value is returned so that its drop, which may run code of the
    /// user, happens when the caller no longer borrows the wheel.
    #[inline]
    pub(crate) fn cancel(&mut self, key: Key) -> Option<T> {
        let entry = self.entries.get(key.index as usize)?;
        if entry.generation != key.generation {
            return None;
        }
        if entry.place == COLLECTED {
            self.stale_count += 1;
        } else {
            self.unlink(key.index);
        }
        Some(self.release(key.index))
    }

    /// The earliest deadline, in O(1). It is never later than the true one. It is earlier only after
    /// a cancel, and then only until `pop_due` is called at that time: once `pop_due(now)` has
    /// answered `None`, this is later than `now`.
    #[inline]
    pub(crate) fn next(&self) -> Option<u64> {
        if self.len == 0 {
            return None;
        }
        let mut earliest = self.first_in_slots().unwrap_or(u64::MAX);
        if let Some(&(deadline, _)) = self.run.last() {
            earliest = earliest.min(deadline);
        }
        if let Some(&Reverse((deadline, ..))) = self.stragglers.peek() {
            earliest = earliest.min(deadline);
        }
        Some(earliest)
    }

    /// Removes and returns the earliest timer whose deadline is not after `now`; among equals the one
    /// inserted first. To be called until it answers `None`. What is inserted between two calls and is
    /// already due is delivered in the same pass, so a timer that renews itself in the past has no
    /// last call.
    #[inline]
    pub(crate) fn pop_due(&mut self, now: u64) -> Option<(Key, T)> {
        if self.first_in_slots().is_some_and(|earliest| earliest <= now) {
            self.advance(now >> TICK_BITS);
        }
        loop {
            let (deadline, key, in_run) = self.first_collected()?;
            let live = self.deadline(key).is_some();
            if live && deadline > now {
                return None;
            }
            if in_run {
                self.run.pop();
            } else {
                self.stragglers.pop();
            }
            if self.run.is_empty() && self.stragglers.is_empty() {
                self.shrink_collected();
            }
            if live {
                return Some((key, self.release(key.index)));
            }
            self.stale_count -= 1;
        }
    }

    /// Every timer, in no order.
    pub(crate) fn each(&self) -> impl Iterator<Item = (u64, &T)> {
        let used = self.entries.iter().filter(|entry| entry.place != VACANT);
        used.map(|entry| (entry.deadline, &entry.value))
    }

    /// Removes every timer, in no order, for the caller to drop.
    pub(crate) fn drain(&mut self) -> Vec<T> {
        let mut values = Vec::with_capacity(self.len);
        for index in 0..self.entries.len() {
            if self.entries[index].place != VACANT {
                values.push(self.release(index as u32));
            }
        }
        assert!(self.len == 0, "{} timers were counted and not found", self.len);
        self.occupied_levels = 0;
        self.occupied_slots.fill(0);
        self.slots.fill(EMPTY);
        self.run.clear();
        self.stragglers.clear();
        self.stale_count = 0;
        self.shrink_collected();
        values
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, deadline: u64, value: T) -> Key {
        let index = self.entries.len();
        assert!(index < NONE as usize, "a wheel holds at most {NONE} timers");
        let index = index as u32;
        self.entries.push(Entry {
            value,
            deadline,
            position: NONE,
            generation: 0,
            place: COLLECTED,
        });
        Key { index, generation: 0 }
    }

    /// Makes an entry that is in no slot vacant, and its key stale.
    #[inline]
    fn release(&mut self, index: u32) -> T {
        let entry = &mut self.entries[index as usize];
        assert!(entry.place != VACANT, "an entry is released once");
        entry.place = VACANT;
        let value = std::mem::take(&mut entry.value);
        entry.generation += 1;
        // A generation that wrapped would bring stale keys back to life. An entry is worn out after
        // 2^32 - 1 lives and costs its few bytes then.
        if entry.generation != RETIRED {
            entry.position = self.vacant;
            self.vacant = index;
        }
        self.len -= 1;
        value
    }

    /// Appends an entry to the slot in which its deadline belongs.
    #[inline]
    fn link(&mut self, index: u32, deadline: u64) {
        // What is overdue belongs to the tick at which the wheel stands, and stands with it.
        let tick = (deadline >> TICK_BITS).max(self.position);
        let level = level_of(tick ^ self.position);
        let digit = digit_of(tick, level);
        let place = level * SLOTS + digit;
        self.occupied_levels |= 1 << level;
        self.occupied_slots[level] |= 1 << digit;

        let slot = &mut self.slots[place];
        if slot.indices.len() == slot.indices.capacity() {
            slot.make_room(&mut self.entries);
        }
        let entry = &mut self.entries[index as usize];
        entry.place = place as u16;
        entry.position = slot.indices.len() as u32;
        slot.indices.push(index);
        slot.live += 1;
        slot.earliest = slot.earliest.min(deadline);
    }

    /// Takes an entry out of its slot.
    #[inline]
    fn unlink(&mut self, index: u32) {
        let Entry { position, place, .. } = self.entries[index as usize];
        let slot = &mut self.slots[place as usize];
        let position = position as usize;
        assert!(slot.indices[position] == index, "slot {place} lost entry {index}");
        slot.live -= 1;
        if slot.live == 0 {
            let slot = self.vacate(place as usize);
            slot.indices.clear();
            slot.shrink();
        } else if position + 1 == slot.indices.len() {
            slot.indices.pop();
        } else {
            slot.indices[position] = NONE;
        }
    }

    /// Marks a slot as empty; its caller disposes of the indices.
    #[inline]
    fn vacate(&mut self, place: usize) -> &mut Slot {
        let (level, digit) = (place / SLOTS, place % SLOTS);
        self.occupied_slots[level] &= !(1 << digit);
        if self.occupied_slots[level] == 0 {
            self.occupied_levels &= !(1 << level);
        }
        let slot = &mut self.slots[place];
        slot.live = 0;
        slot.earliest = u64::MAX;
        slot
    }

    /// The earliest deadline in a slot.
    #[inline]
    fn first_in_slots(&self) -> Option<u64> {
        if self.occupied_levels == 0 {
            return None;
        }
        let level = self.occupied_levels.trailing_zeros() as usize;
        let digit = self.occupied_slots[level].trailing_zeros() as usize;
        Some(self.slots[level * SLOTS + digit].earliest)
    }

    /// The collected timer to deliver first, and whether it is in the run. In a tie it is: a tick is
    /// collected whole, so a straggler of the same deadline was inserted later.
    #[inline]
    fn first_collected(&self) -> Option<(u64, Key, bool)> {
        match (self.run.last(), self.stragglers.peek()) {
            (None, None) => None,
            (Some(&(deadline, key)), None) => Some((deadline, key, true)),
            (Some(&(deadline, key)), Some(Reverse(straggler))) if deadline <= straggler.0 => {
                Some((deadline, key, true))
            }
            (_, Some(&Reverse((deadline, _, key)))) => Some((deadline, key, false)),
        }
    }

    /// Moves the wheel to `tick`, or leaves it where it is if that has passed; collects every timer
    /// up to there.
    #[inline(never)]
    fn advance(&mut self, tick: u64) {
        let from = self.position;
        self.position = from.max(tick);
        self.discard_stale();

        // Below the highest digit that changed, all is passed. On its level all is passed before the
        // new digit, and the slot of the new digit holds what is passed and what goes down.
        let top = level_of(self.position ^ from);
        let top_digit = digit_of(self.position, top);
        let into_run = self.run.is_empty() && self.stragglers.is_empty();
        for level in 0..=top {
            let passed = if level == top { u64::MAX >> (SLOTS - 1 - top_digit) } else { u64::MAX };
            let mut digits = self.occupied_slots[level] & passed;
            while digits != 0 {
                let digit = digits.trailing_zeros() as usize;
                digits &= digits - 1;
                self.spread(level * SLOTS + digit, into_run);
            }
        }
        // Popped from the end, equals leave in the order in which they came.
        if into_run {
            self.run.reverse();
        }
    }

    /// Empties a slot: collects what the wheel has reached, and places the rest anew, one level or
    /// more below.
    fn spread(&mut self, place: usize, into_run: bool) {
        let mut indices = std::mem::take(&mut self.vacate(place).indices);
        assert!(!indices.is_empty(), "slot {place} is marked as occupied and is empty");
        let run_start = self.run.len();
        for &index in indices.iter().filter(|&&index| index != NONE) {
            let entry = &mut self.entries[index as usize];
            let Entry { deadline, generation, .. } = *entry;
            if deadline >> TICK_BITS > self.position {
                self.link(index, deadline);
                continue;
            }
            entry.place = COLLECTED;
            let key = Key { index, generation };
            if into_run {
                self.run.push((deadline, key));
            } else {
                self.straggler_count += 1;
                self.stragglers.push(Reverse((deadline, self.straggler_count, key)));
            }
        }
        // Slots come in the order of their ticks, so sorting each sorts the run.
        self.run[run_start..].sort_by_key(|&(deadline, _)| deadline);
        // Nothing was placed here meanwhile: what was not collected went to a lower level.
        let slot = &mut self.slots[place];
        assert!(slot.indices.is_empty(), "slot {place} was filled while it was emptied");
        indices.clear();
        slot.indices = indices;
        slot.shrink();
    }

    /// Bounds what cancelled timers leave behind in the collections: at most half stays.
    fn discard_stale(&mut self) {
        if self.stale_count * 2 <= self.run.len() + self.stragglers.len() {
            return;
        }
        let entries = &self.entries;
        let live = |key: Key| entries[key.index as usize].generation == key.generation;
        self.run.retain(|&(_, key)| live(key));
        self.stragglers.retain(|&Reverse((.., key))| live(key));
        self.stale_count = 0;
    }

    #[inline]
    fn shrink_collected(&mut self) {
        if self.run.capacity() > KEPT_CAPACITY {
            self.run.shrink_to(KEPT_CAPACITY);
        }
        if self.stragglers.capacity() > KEPT_CAPACITY {
            self.stragglers.shrink_to(KEPT_CAPACITY);
        }
    }
}

impl Slot {
    /// Gives memory back, if an empty slot has much.
    #[inline]
    fn shrink(&mut self) {
        if self.indices.capacity() > KEPT_IN_SLOT {
            self.indices = Vec::new();
        }
    }

    /// Makes room for one more: closes the holes if they are the half of it, or else grows. Either
    /// is paid for by as many cancels or inserts.
    #[cold]
    #[inline(never)]
    fn make_room<T>(&mut self, entries: &mut [Entry<T>]) {
        let len = self.indices.len();
        if self.live as usize * 2 > len || len == 0 {
            self.indices.reserve(1);
            return;
        }
        self.earliest = u64::MAX;
        self.indices.retain(|&index| index != NONE);
        for (position, &index) in self.indices.iter().enumerate() {
            let entry = &mut entries[index as usize];
            entry.position = position as u32;
            self.earliest = self.earliest.min(entry.deadline);
        }
        assert!(self.indices.len() == self.live as usize, "a slot lost count of its timers");
    }
}

/// The level of the highest digit that is set in `difference`; 0 if none is.
#[inline]
fn level_of(difference: u64) -> usize {
    ((difference | 1).ilog2() / DIGIT_BITS) as usize
}

#[inline]
fn digit_of(tick: u64, level: usize) -> usize {
    (tick >> (level as u32 * DIGIT_BITS)) as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const TICK: u64 = 1 << TICK_BITS;
    const YEAR: u64 = 365 * 24 * 3600 * 1_000_000_000;

    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 1) % bound
        }

        /// Of any magnitude, each as likely as the other.
        fn distance(&mut self) -> u64 {
            let magnitude = self.below(64);
            self.below(u64::MAX) >> magnitude
        }
    }

    /// A wheel beside a map that does the same in the obvious way.
    struct Model {
        wheel: Wheel<u64>,
        expected: BTreeMap<(u64, u64), Key>,
        gone: Vec<Key>,
        count: u64,
        cancelled: bool,
        now: u64,
    }

    impl Model {
        fn new(now: u64) -> Self {
            Self {
                wheel: Wheel::new(now),
                expected: BTreeMap::new(),
                gone: Vec::new(),
                count: 0,
                cancelled: false,
                now,
            }
        }

        fn insert(&mut self, deadline: u64) {
            self.count += 1;
            let key = self.wheel.insert(deadline, self.count);
            assert!(self.expected.insert((deadline, self.count), key).is_none());
        }

        fn cancel(&mut self, nth: u64) {
            let Some((&(deadline, id), &key)) = self.expected.iter().nth(nth as usize) else {
                return;
            };
            self.cancelled = true;
            self.expected.remove(&(deadline, id));
            assert_eq!(self.wheel.deadline(key), Some(deadline));
            assert_eq!(self.wheel.get_mut(key), Some(&mut { id }));
            assert_eq!(self.wheel.cancel(key), Some(id));
            self.gone.push(key);
        }

        fn pop(&mut self) -> bool {
            let popped = self.wheel.pop_due(self.now);
            let due = self.expected.first_key_value().filter(|((at, _), _)| *at <= self.now);
            let due = due.map(|(&(deadline, id), &key)| (deadline, id, key));
            assert_eq!(popped, due.map(|(_, id, key)| (key, id)));
            if let Some((deadline, id, key)) = due {
                self.expected.remove(&(deadline, id));
                self.gone.push(key);
            } else {
                assert!(self.wheel.next().is_none_or(|next| next > self.now));
            }
            self.check();
            popped.is_some()
        }

        fn check(&mut self) {
            assert_eq!(self.wheel.len(), self.expected.len());
            let earliest = self.expected.first_key_value().map(|((deadline, _), _)| *deadline);
            let next = self.wheel.next();
            assert_eq!(next.is_some(), earliest.is_some());
            assert!(next <= earliest, "next {next:?} is later than {earliest:?}");
            assert!(self.cancelled || next == earliest, "next {next:?} is not {earliest:?}");
            if let Some(&key) = self.gone.last() {
                assert_eq!(self.wheel.deadline(key), None);
                assert_eq!(self.wheel.get_mut(key), None);
                assert_eq!(self.wheel.cancel(key), None);
            }
        }
    }

    fn deadline_near(random: &mut Random, now: u64) -> u64 {
        match random.below(8) {
            0 => now,
            1 => now.saturating_add(random.below(4)),
            2 => now.saturating_add(random.below(3 * TICK)),
            3 => now.saturating_add(random.below(1000) * TICK),
            4 => now.saturating_sub(random.distance()),
            5 => [0, u64::MAX, u64::MAX - 1, u64::MAX - TICK][random.below(4) as usize],
            _ => now.saturating_add(random.distance()),
        }
    }

    fn run_program(seed: u64) {
        let mut random = Random(seed);
        for _ in 0..8 {
            random.below(1);
        }
        let start = [0, 1, 123_456_789, YEAR, u64::MAX][random.below(5) as usize];
        let mut model = Model::new(start);
        let cancels = random.below(3) != 0;
        let backwards = random.below(4) == 0;
        let mut usual = start;
        for _ in 0..random.below(300) {
            match random.below(10) {
                0..=3 => {
                    // Now and then the same deadline again: ties.
                    if random.below(3) != 0 {
                        usual = deadline_near(&mut random, model.now);
                    }
                    model.insert(usual);
                }
                4 | 5 if cancels => {
                    let nth = random.below(1 + model.expected.len() as u64);
                    model.cancel(nth);
                }
                6 => model.now = model.now.saturating_add(random.below(2 * TICK)),
                7 => model.now = model.now.saturating_add(random.distance()),
                8 if backwards => model.now -= random.distance().min(model.now),
                8 => model.now = model.wheel.next().unwrap_or(0).max(model.now),
                _ => {
                    // A pass, complete or broken off, in which timers come and go.
                    for _ in 0..random.below(20) {
                        if !model.pop() {
                            break;
                        }
                        if random.below(4) == 0 {
                            let deadline = deadline_near(&mut random, model.now);
                            model.insert(deadline);
                        }
                        if cancels && random.below(4) == 0 {
                            let nth = random.below(3);
                            model.cancel(nth);
                        }
                    }
                }
            }
            model.check();
        }
        model.now = u64::MAX;
        while model.pop() {}
        assert_eq!(model.wheel.len(), 0);
    }

    #[test]
    fn a_wheel_does_what_a_sorted_map_does() {
        let programs = if cfg!(miri) { 20 } else { 5_000 };
        for seed in 1..=programs {
            let outcome = std::panic::catch_unwind(|| run_program(seed * 0x9E37_79B9));
            if let Err(panic) = outcome {
                eprintln!("the failing seed is {seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }

    #[test]
    fn a_timer_never_fires_early() {
        for deadline in [1, TICK - 1, TICK, TICK + 1, 64 * TICK + 7, YEAR, u64::MAX] {
            let mut wheel = Wheel::new(0);
            let key = wheel.insert(deadline, ());
            assert_eq!(wheel.pop_due(deadline - 1), None);
            assert_eq!(wheel.next(), Some(deadline));
            assert_eq!(wheel.pop_due(deadline), Some((key, ())));
        }
    }

    #[test]
    fn timers_fire_by_deadline_and_equals_as_they_were_inserted() {
        let mut wheel = Wheel::new(0);
        for (id, deadline) in [900, 30, 30, YEAR, 900, 30, 5, YEAR].into_iter().enumerate() {
            wheel.insert(deadline, id);
        }
        let mut fired = Vec::new();
        while let Some((_, id)) = wheel.pop_due(u64::MAX) {
            fired.push(id);
        }
        assert_eq!(fired, [6, 1, 2, 5, 0, 4, 3, 7]);
    }

    #[test]
    fn a_jump_of_years_fires_all_that_it_passes_and_nothing_else() {
        let mut wheel = Wheel::new(17);
        for year in (0..500).rev() {
            wheel.insert(year * YEAR + year, year);
        }
        for year in 0..250 {
            assert_eq!(wheel.pop_due(250 * YEAR).map(|(_, id)| id), Some(year));
        }
        assert_eq!(wheel.pop_due(250 * YEAR), None);
        assert_eq!(wheel.next(), Some(250 * YEAR + 250));
        assert_eq!(wheel.len(), 250);
    }

    #[test]
    fn the_ends_of_time_are_ordinary_deadlines() {
        let mut wheel = Wheel::new(0);
        let last = wheel.insert(u64::MAX, "last");
        let first = wheel.insert(0, "first");
        assert_eq!(wheel.pop_due(0), Some((first, "first")));
        assert_eq!(wheel.pop_due(u64::MAX - 1), None);
        assert_eq!(wheel.pop_due(u64::MAX), Some((last, "last")));

        let mut wheel = Wheel::new(u64::MAX);
        wheel.insert(u64::MAX, "last");
        wheel.insert(0, "first");
        assert_eq!(wheel.next(), Some(0));
        assert_eq!(wheel.pop_due(0).map(|(_, value)| value), Some("first"));
        assert_eq!(wheel.pop_due(0), None);
        assert_eq!(wheel.pop_due(u64::MAX).map(|(_, value)| value), Some("last"));
    }

    #[test]
    fn a_clock_that_goes_back_delays_nothing_for_good() {
        let mut wheel = Wheel::new(0);
        wheel.insert(YEAR, 1);
        assert!(wheel.pop_due(YEAR).is_some());
        wheel.insert(2000, 2);
        wheel.insert(1000, 3);
        assert_eq!(wheel.next(), Some(1000));
        assert_eq!(wheel.pop_due(999), None);
        assert_eq!(wheel.pop_due(1000).map(|(_, id)| id), Some(3));
        assert_eq!(wheel.pop_due(1999), None);
        assert_eq!(wheel.pop_due(2000).map(|(_, id)| id), Some(2));
    }

    #[test]
    fn a_timer_inserted_as_due_while_others_fire_fires_in_the_same_pass() {
        let mut wheel = Wheel::new(0);
        wheel.insert(5000, "a");
        wheel.insert(9000, "d");
        assert_eq!(wheel.pop_due(9000).map(|(_, value)| value), Some("a"));
        wheel.insert(6000, "c");
        wheel.insert(10, "b");
        let rest: Vec<_> = std::iter::from_fn(|| wheel.pop_due(9000)).map(|(_, v)| v).collect();
        assert_eq!(rest, ["b", "c", "d"]);
    }

    #[test]
    fn a_timer_that_is_due_can_still_be_cancelled() {
        let mut wheel = Wheel::new(0);
        let keys: Vec<_> = (0..4).map(|id| wheel.insert(100 + id, id)).collect();
        assert_eq!(wheel.pop_due(200), Some((keys[0], 0)));
        assert_eq!(wheel.deadline(keys[1]), Some(101));
        assert_eq!(wheel.cancel(keys[1]), Some(1));
        assert_eq!(wheel.pop_due(200), Some((keys[2], 2)));
        assert_eq!(wheel.cancel(keys[3]), Some(3));
        assert_eq!(wheel.next(), None);
        assert_eq!(wheel.pop_due(200), None);
    }

    #[test]
    fn a_stale_key_does_nothing_to_the_timer_that_took_its_place() {
        let mut wheel = Wheel::new(0);
        let stale = wheel.insert(100, 1);
        assert_eq!(wheel.cancel(stale), Some(1));
        let live = wheel.insert(100, 2);
        assert_eq!((live.index, wheel.cancel(stale)), (stale.index, None));
        assert_eq!(wheel.get_mut(stale), None);
        assert_eq!(wheel.deadline(stale), None);
        assert_eq!(wheel.get_mut(live), Some(&mut 2));
    }

    #[test]
    fn an_entry_that_has_used_up_its_generations_is_not_used_again() {
        let mut wheel = Wheel::new(0);
        let first = wheel.insert(100, 1);
        assert_eq!(wheel.cancel(first), Some(1));
        wheel.entries[0].generation = RETIRED - 1;
        let last = wheel.insert(100, 2);
        assert_eq!((last.index, wheel.cancel(last)), (0, Some(2)));
        let other = wheel.insert(100, 3);
        assert_eq!(other.index, 1);
        assert_eq!((wheel.cancel(first), wheel.cancel(last)), (None, None));
        assert_eq!(wheel.cancel(other), Some(3));
    }

    #[test]
    fn a_drained_wheel_is_as_good_as_new() {
        let mut wheel = Wheel::new(0);
        let mut keys: Vec<_> = (0..200).map(|id| wheel.insert(id * 7000, id)).collect();
        assert!(wheel.pop_due(14_000).is_some());
        wheel.cancel(keys.swap_remove(150));
        let mut values = wheel.drain();
        values.sort_unstable();
        assert_eq!(values.len(), 198);
        assert_eq!((wheel.len(), wheel.next(), wheel.pop_due(u64::MAX)), (0, None, None));
        assert!(keys.iter().all(|&key| wheel.cancel(key).is_none()));
        let key = wheel.insert(5, 5);
        assert_eq!(wheel.pop_due(5), Some((key, 5)));
    }

    #[test]
    fn next_is_later_again_once_pop_due_has_found_the_earliest_cancelled() {
        let mut wheel = Wheel::new(0);
        let earliest = wheel.insert(5_000_000_001, 1);
        wheel.insert(5_000_000_900, 2);
        wheel.cancel(earliest);
        assert!(wheel.next() <= Some(5_000_000_900));
        assert_eq!(wheel.pop_due(5_000_000_001), None);
        assert_eq!(wheel.next(), Some(5_000_000_900));
    }

    /// Quadratic work anywhere would take hours here.
    #[test]
    fn a_million_nearly_equal_deadlines_take_bounded_work() {
        let count: u64 = if cfg!(miri) { 1000 } else { 1_000_000 };
        let base = 7_000_000 * TICK;
        let mut wheel = Wheel::new(0);
        let keys: Vec<_> = (0..count).map(|id| wheel.insert(base + id * 7919 % TICK, id)).collect();
        // Cancelled from the front, half.
        for &key in &keys[..keys.len() / 2] {
            assert!(wheel.cancel(key).is_some());
        }
        // The rest fires nanosecond by nanosecond, and each that fires leaves a straggler.
        let (mut fired, mut previous) = (0, (0, 0));
        while let Some(now) = wheel.next() {
            while let Some((_, id)) = wheel.pop_due(now) {
                fired += 1;
                if id < count {
                    let this = (base + id * 7919 % TICK, id);
                    assert!(previous < this && this.0 <= now);
                    previous = this;
                    wheel.insert(now, id + count);
                }
            }
        }
        assert_eq!(fired, count);
    }

    #[test]
    fn timers_that_come_and_go_leave_no_memory_behind() {
        let mut wheel = Wheel::new(0);
        wheel.insert(YEAR, 0);
        let mut previous = wheel.insert(YEAR, 0);
        for id in 0..100_000 {
            let next = wheel.insert(YEAR, id);
            wheel.cancel(previous);
            previous = next;
            // Time stands still within a tick: due at once, and due soon and cancelled.
            wheel.insert(0, id);
            let soon = wheel.insert(1, id);
            assert!(wheel.pop_due(0).is_some());
            wheel.cancel(soon);
        }
        assert!(wheel.entries.len() <= 8);
        assert!(wheel.slots.iter().map(|slot| slot.indices.capacity()).sum::<usize>() <= 64);
        assert!(wheel.run.capacity() + wheel.stragglers.capacity() <= 64);
    }

    #[test]
    fn a_timer_costs_at_most_64_bytes() {
        assert!(size_of::<Entry<[u64; 3]>>() + 2 * size_of::<u32>() <= 64);
        assert_eq!(size_of::<Entry<std::task::Waker>>(), 40);
    }
}
