//! The tasks of one core by name: places that are used again, each life of one with its own number.

use std::ptr::NonNull;

use super::raw::Header;

/// Names one task: its place in the table, and a number that tells it from others in that place.
///
/// They are one number, so that a handle that is moved as soon as it is made is read as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TaskId(u64);

impl TaskId {
    /// No task: a table has fewer places.
    pub(super) const NONE: TaskId = TaskId(NOWHERE as u64);

    #[inline]
    const fn new(key: u32, life: u32) -> TaskId {
        TaskId((life as u64) << 32 | key as u64)
    }

    /// The place.
    #[inline]
    pub(super) const fn key(self) -> u32 {
        self.0 as u32
    }

    #[inline]
    const fn life(self) -> u32 {
        (self.0 >> 32) as u32
    }

    #[inline]
    pub(super) const fn bits(self) -> u64 {
        self.0
    }

    #[inline]
    pub(super) const fn of_bits(bits: u64) -> TaskId {
        TaskId(bits)
    }
}

const NOWHERE: u32 = u32::MAX;

/// Finds tasks by name. It owns none of them.
///
/// Twelve bytes a task, in two arrays, since an idle connection has a place as well: `slab` would need 24.
pub(super) struct Table {
    links: Vec<Link>,
    /// Of each place, which life it is in.
    lives: Vec<u32>,
    /// The first place that is vacant.
    vacant: u32,
    len: usize,
}

/// What is at a place: a task, or, as an odd number, which is no address of one, the next place that is
/// vacant.
#[derive(Clone, Copy)]
struct Link(NonNull<Header>);

impl Link {
    #[inline]
    fn to_vacant(next: u32) -> Link {
        let odd = (next as usize) << 1 | 1;
        Link(NonNull::without_provenance(odd.try_into().expect("an odd number is not zero")))
    }

    /// The next place that is vacant, if this one is.
    #[inline]
    fn next(self) -> Option<u32> {
        let link = self.0.addr().get();
        (link & 1 == 1).then_some((link >> 1) as u32)
    }

    #[inline]
    fn header(self) -> Option<NonNull<Header>> {
        if self.next().is_some() { None } else { Some(self.0) }
    }
}

impl Table {
    pub(super) const fn new() -> Self {
        Table { links: Vec::new(), lives: Vec::new(), vacant: NOWHERE, len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Gives `header` a name.
    #[inline]
    pub(super) fn insert(&mut self, header: NonNull<Header>) -> TaskId {
        self.len += 1;
        let key = self.vacant;
        let Some(link) = self.links.get_mut(key as usize) else { return self.grow(header) };
        self.vacant = link.next().expect("what is chained is vacant");
        *link = Link(header);
        TaskId::new(key, self.lives[key as usize])
    }

    #[cold]
    fn grow(&mut self, header: NonNull<Header>) -> TaskId {
        let key = u32::try_from(self.links.len()).ok().filter(|key| *key != NOWHERE);
        let key = key.expect("a core has fewer than 2^32 tasks");
        self.links.push(Link(header));
        self.lives.push(0);
        TaskId::new(key, 0)
    }

    #[inline]
    pub(super) fn get(&self, id: TaskId) -> Option<NonNull<Header>> {
        let place = id.key() as usize;
        if *self.lives.get(place)? == id.life() { self.links[place].header() } else { None }
    }

    /// The name of `header`, if it is what is at `key`.
    #[inline]
    pub(super) fn name(&self, key: u32, header: NonNull<Header>) -> Option<TaskId> {
        let place = key as usize;
        let life = *self.lives.get(place)?;
        (self.links[place].0 == header).then_some(TaskId::new(key, life))
    }

    /// Ends the life of a name.
    #[inline]
    pub(super) fn remove(&mut self, key: u32) {
        let place = key as usize;
        assert!(self.links[place].next().is_none(), "a task leaves the table once");
        self.links[place] = Link::to_vacant(self.vacant);
        // Wrapping is harmless: nobody keeps a handle for 2^32 lives of its place.
        self.lives[place] = self.lives[place].wrapping_add(1);
        self.vacant = key;
        self.len -= 1;
    }

    /// The first task at or behind the place `from`, and that place.
    pub(super) fn next(&self, from: usize) -> Option<(usize, NonNull<Header>)> {
        let behind = self.links.iter().enumerate().skip(from);
        behind.filter_map(|(place, link)| Some((place, link.header()?))).next()
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
        table.remove(first.key());
        assert_eq!((table.get(first), table.len()), (None, 0));
        // Who has kept a name until the lives began anew finds no task where there is none.
        assert_eq!(table.get(TaskId::new(first.key(), first.life() + 1)), None);
        let second = table.insert(header(2));
        assert_eq!((second.key(), table.get(first)), (first.key(), None));
        assert_eq!(table.get(second), Some(header(2)));
        assert_eq!(table.get(TaskId::NONE), None);
    }

    #[test]
    fn a_task_is_found_again_by_its_place() {
        let mut table = Table::new();
        let (first, second) = (table.insert(header(1)), table.insert(header(2)));
        assert_eq!(table.name(second.key(), header(2)), Some(second));
        assert_eq!(table.name(second.key(), header(1)), None);
        table.remove(first.key());
        assert_eq!(table.name(first.key(), header(1)), None);
        assert_eq!(table.next(0), Some((1, header(2))));
        assert_eq!(table.next(2), None);
    }
}
