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
}

const NOWHERE: u32 = u32::MAX;

/// Sixteen bytes, each field read as it was written: `slab` would need 24, or packed ones, whose
/// reads wait for two stores.
struct Entry {
    header: Option<NonNull<Header>>,
    life: u32,
    /// The next free place.
    next: u32,
}

const _: () = assert!(size_of::<Entry>() == 16);

/// Finds tasks by name. It owns none of them.
pub(super) struct Table {
    entries: Vec<Entry>,
    free: u32,
    len: usize,
}

impl Table {
    pub(super) const fn new() -> Self {
        Table { entries: Vec::new(), free: NOWHERE, len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Gives `header` a name.
    #[inline]
    pub(super) fn insert(&mut self, header: NonNull<Header>) -> TaskId {
        self.len += 1;
        let key = self.free;
        match self.entries.get_mut(key as usize) {
            Some(entry) => {
                self.free = entry.next;
                entry.header = Some(header);
                TaskId { key, life: entry.life }
            }
            None => self.grow(header),
        }
    }

    #[cold]
    fn grow(&mut self, header: NonNull<Header>) -> TaskId {
        let key = u32::try_from(self.entries.len()).ok().filter(|key| *key != NOWHERE);
        let key = key.expect("a core has fewer than 2^32 tasks");
        self.entries.push(Entry { header: Some(header), life: 0, next: NOWHERE });
        TaskId { key, life: 0 }
    }

    #[inline]
    pub(super) fn get(&self, id: TaskId) -> Option<NonNull<Header>> {
        self.entries.get(id.key as usize).filter(|entry| entry.life == id.life)?.header
    }

    /// The name of `header`, if it is what is at `key`.
    #[inline]
    pub(super) fn name(&self, key: u32, header: NonNull<Header>) -> Option<TaskId> {
        let entry = self.entries.get(key as usize)?;
        (entry.header == Some(header)).then_some(TaskId { key, life: entry.life })
    }

    /// Ends the life of a name.
    #[inline]
    pub(super) fn remove(&mut self, key: u32) {
        let entry = &mut self.entries[key as usize];
        assert!(entry.header.take().is_some(), "a task leaves the table once");
        // Wrapping is harmless: nobody keeps a handle for 2^32 lives of its place.
        entry.life = entry.life.wrapping_add(1);
        entry.next = self.free;
        self.free = key;
        self.len -= 1;
    }

    /// The first task at or behind the place `from`, and that place.
    pub(super) fn next(&self, from: usize) -> Option<(usize, NonNull<Header>)> {
        let behind = self.entries.iter().enumerate().skip(from);
        behind.filter_map(|(place, entry)| Some((place, entry.header?))).next()
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
