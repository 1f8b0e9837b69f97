//! The tasks of one core by name: places that are used again, each life of one with its own number.

use std::ptr::NonNull;

use super::raw::Header;

/// Names one task: its place in the table, and a number that tells it from others in that place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TaskId {
    pub(super) key: u32,
    pub(super) life: u32,
}

impl TaskId {
    /// No task: a table has fewer places.
    pub(super) const NONE: TaskId = TaskId { key: NOWHERE, life: 0 };

    #[inline]
    pub(super) const fn bits(self) -> u64 {
        (self.life as u64) << 32 | self.key as u64
    }

    #[inline]
    pub(super) const fn of_bits(bits: u64) -> TaskId {
        TaskId { key: bits as u32, life: (bits >> 32) as u32 }
    }
}

const NOWHERE: u32 = u32::MAX;

/// Finds tasks by name. It owns none of them.
///
/// Twelve bytes a task: `slab` would need 24, or packed entries, whose reads wait for two stores.
pub(super) struct Table {
    headers: Vec<Option<NonNull<Header>>>,
    /// Of each place, which life it is in.
    lives: Vec<u32>,
    free: Vec<u32>,
}

impl Table {
    pub(super) const fn new() -> Self {
        Table { headers: Vec::new(), lives: Vec::new(), free: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.headers.len() - self.free.len()
    }

    /// Gives `header` a name.
    #[inline]
    pub(super) fn insert(&mut self, header: NonNull<Header>) -> TaskId {
        let Some(key) = self.free.pop() else { return self.grow(header) };
        let place = key as usize;
        self.headers[place] = Some(header);
        TaskId { key, life: self.lives[place] }
    }

    #[cold]
    fn grow(&mut self, header: NonNull<Header>) -> TaskId {
        let key = u32::try_from(self.headers.len()).ok().filter(|key| *key != NOWHERE);
        let key = key.expect("a core has fewer than 2^32 tasks");
        self.headers.push(Some(header));
        self.lives.push(0);
        TaskId { key, life: 0 }
    }

    #[inline]
    pub(super) fn get(&self, id: TaskId) -> Option<NonNull<Header>> {
        let place = id.key as usize;
        if *self.lives.get(place)? == id.life { self.headers[place] } else { None }
    }

    /// The name of `header`, if it is what is at `key`.
    #[inline]
    pub(super) fn name(&self, key: u32, header: NonNull<Header>) -> Option<TaskId> {
        let place = key as usize;
        let life = *self.lives.get(place)?;
        (self.headers[place] == Some(header)).then_some(TaskId { key, life })
    }

    /// Ends the life of a name.
    #[inline]
    pub(super) fn remove(&mut self, key: u32) {
        let place = key as usize;
        assert!(self.headers[place].take().is_some(), "a task leaves the table once");
        // Wrapping is harmless: nobody keeps a handle for 2^32 lives of its place.
        self.lives[place] = self.lives[place].wrapping_add(1);
        self.free.push(key);
    }

    /// The first task at or behind the place `from`, and that place.
    pub(super) fn next(&self, from: usize) -> Option<(usize, NonNull<Header>)> {
        let behind = self.headers.iter().enumerate().skip(from);
        behind.filter_map(|(place, header)| Some((place, (*header)?))).next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(number: usize) -> NonNull<Header> {
        NonNull::new(std::ptr::without_provenance_mut(number * 64)).unwrap()
    }

    #[test]
    fn a_name_outlives_no_task() {
        let mut table = Table::new();
        let first = table.insert(header(1));
        assert_eq!(table.get(first), Some(header(1)));
        table.remove(first.key);
        assert_eq!((table.get(first), table.len()), (None, 0));
        let second = table.insert(header(2));
        assert_eq!((second.key, table.get(first)), (first.key, None));
        assert_eq!(table.get(second), Some(header(2)));
        assert_eq!(table.get(TaskId::NONE), None);
    }

    #[test]
    fn a_task_is_found_again_by_its_place() {
        let mut table = Table::new();
        let (first, second) = (table.insert(header(1)), table.insert(header(2)));
        assert_eq!(table.name(second.key, header(2)), Some(second));
        assert_eq!(table.name(second.key, header(1)), None);
        table.remove(first.key);
        assert_eq!(table.name(first.key, header(1)), None);
        assert_eq!(table.next(0), Some((1, header(2))));
        assert_eq!(table.next(2), None);
    }
}
