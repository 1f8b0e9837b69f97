//! A queue with room for so many values, from one thread to another.
//!
//! Each end has a counter of its own, on cache lines of its own, and looks at the other's only when
//! what it last saw there is used up. Neither end ever waits: that is left to whoever has it.
//!
//! ```text
//!          head (consumer)      tail (producer)
//!            ▼                    ▼
//!   ─ free ─ ██████ values ██████ ─ free ─      head <= tail <= head + bound; they wrap around
//! ```

use std::mem::MaybeUninit;

use super::atomic::{AtomicU8, AtomicUsize, Ordering, Shared, UnsafeCell};
use super::guard;

/// What an end leaves when it is dropped.
const NO_PRODUCER: u8 = 1;
const NO_CONSUMER: u8 = 2;

/// Alone on its cache lines: a core fetches them in pairs.
#[repr(align(128))]
struct Padded<T>(T);

struct Lane<T> {
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
    bound: usize,
    head: Padded<AtomicUsize>,
    tail: Padded<AtomicUsize>,
    gone: Padded<AtomicU8>,
}

// SAFETY: a slot is used by one end at a time: by the producer from `head + bound` to `tail`, by the
// consumer from `head` to `tail`. Values move from thread to thread, and are never shared.
unsafe impl<T: Send> Sync for Lane<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Lane<T> {}

/// The end that puts in.
pub(crate) struct Producer<T> {
    lane: Shared<Lane<T>>,
    tail: usize,
    /// Where the head was when it was last looked at.
    head: usize,
}

/// The end that takes out.
pub(crate) struct Consumer<T> {
    lane: Shared<Lane<T>>,
    head: usize,
    /// Where the tail was when it was last looked at.
    tail: usize,
}

/// A lane with room for `bound` values, at least one.
pub(crate) fn lane<T>(bound: usize) -> (Producer<T>, Consumer<T>) {
    let count = bound.checked_next_power_of_two().expect("a lane of that many values");
    let slots = (0..count).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect();
    let lane = Shared::new(Lane {
        slots,
        bound,
        head: Padded(AtomicUsize::new(0)),
        tail: Padded(AtomicUsize::new(0)),
        gone: Padded(AtomicU8::new(0)),
    });
    let producer = Producer { lane: Shared::clone(&lane), tail: 0, head: 0 };
    (producer, Consumer { lane, head: 0, tail: 0 })
}

impl<T> Lane<T> {
    fn slot(&self, at: usize) -> &UnsafeCell<MaybeUninit<T>> {
        &self.slots[at & (self.slots.len() - 1)]
    }

    /// Takes the value at `at` out of its slot.
    ///
    /// # Safety
    /// There is one, and the caller alone uses the slot.
    unsafe fn take(&self, at: usize) -> T {
        // SAFETY: the caller's promise.
        self.slot(at).with_mut(|slot| unsafe { (*slot).assume_init_read() })
    }

    fn lacks(&self, end: u8) -> bool {
        // Acquire: what the end did before it went is seen.
        self.gone.0.load(Ordering::Acquire) & end != 0
    }
}

impl<T> Producer<T> {
    /// Whether the next value finds room.
    #[inline]
    pub(crate) fn has_room(&mut self) -> bool {
        if self.tail.wrapping_sub(self.head) < self.lane.bound {
            return true;
        }
        // Acquire: the consumer has taken out what was in the slots.
        self.head = self.lane.head.0.load(Ordering::Acquire);
        self.tail.wrapping_sub(self.head) < self.lane.bound
    }

    /// Whether nobody takes anything out any more.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.lane.lacks(NO_CONSUMER)
    }

    /// Puts `value` in, or gives it back when there is no room.
    #[inline]
    pub(crate) fn push(&mut self, value: T) -> Result<(), T> {
        if !self.has_room() {
            return Err(value);
        }
        let slot = self.lane.slot(self.tail);
        // SAFETY: the slot is free, see above, and this is the only producer.
        slot.with_mut(|slot| unsafe { (*slot).write(value) });
        self.tail = self.tail.wrapping_add(1);
        // Release: the value is there when the tail says so.
        self.lane.tail.0.store(self.tail, Ordering::Release);
        Ok(())
    }
}

impl<T> Consumer<T> {
    /// Takes the oldest value out.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<T> {
        if self.head == self.tail {
            // Acquire: the values are there, see `push`.
            self.tail = self.lane.tail.0.load(Ordering::Acquire);
            if self.head == self.tail {
                return None;
            }
        }
        // SAFETY: there is a value, see above, and this is the only consumer.
        let value = unsafe { self.lane.take(self.head) };
        self.head = self.head.wrapping_add(1);
        // Release: the slot is free when the head says so.
        self.lane.head.0.store(self.head, Ordering::Release);
        Some(value)
    }

    /// Whether nothing more will come.
    pub(crate) fn is_ended(&mut self) -> bool {
        // The end first: what was put in before it is then seen.
        let ended = self.lane.lacks(NO_PRODUCER);
        if self.head == self.tail {
            self.tail = self.lane.tail.0.load(Ordering::Acquire);
        }
        ended && self.head == self.tail
    }
}

impl<T> Producer<T> {
    /// Says that this end is gone, as its drop does.
    pub(crate) fn end(&self) {
        self.lane.gone.0.fetch_or(NO_PRODUCER, Ordering::Release);
    }
}

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        self.end();
    }
}

impl<T> Consumer<T> {
    /// Says that this end is gone, as its drop does.
    pub(crate) fn end(&self) {
        self.lane.gone.0.fetch_or(NO_CONSUMER, Ordering::Release);
    }
}

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
        self.end();
        // What comes in between is dropped with the lane.
        while let Some(value) = self.pop() {
            guard::discard(Some(value));
        }
    }
}

impl<T> Drop for Lane<T> {
    fn drop(&mut self) {
        let (mut head, tail) =
            (self.head.0.load(Ordering::Relaxed), self.tail.0.load(Ordering::Relaxed));
        while head != tail {
            // SAFETY: both ends are gone, and between head and tail there are values.
            guard::discard(Some(unsafe { self.take(head) }));
            head = head.wrapping_add(1);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::rc::Rc;

    #[test]
    fn a_lane_holds_as_many_as_it_was_made_for_and_keeps_their_order() {
        for bound in [1, 2, 3, 5, 8] {
            let (mut producer, mut consumer) = lane(bound);
            let (mut put, mut taken) = (0, 0);
            for round in 0..50 {
                while producer.push(put).is_ok() {
                    put += 1;
                }
                assert_eq!(put - taken, bound);
                for _ in 0..=round % bound {
                    assert_eq!(consumer.pop(), Some(taken));
                    taken += 1;
                }
            }
        }
    }

    #[test]
    fn counters_that_wrap_around_change_nothing() {
        let (mut producer, mut consumer) = lane(3);
        let near = usize::MAX - 4;
        (producer.tail, producer.head, consumer.head, consumer.tail) = (near, near, near, near);
        producer.lane.head.0.store(near, Ordering::Relaxed);
        producer.lane.tail.0.store(near, Ordering::Relaxed);
        for number in 0..20 {
            (0..3).for_each(|_| producer.push(number).unwrap());
            assert!(producer.push(number).is_err());
            (0..3).for_each(|_| assert_eq!(consumer.pop(), Some(number)));
            assert_eq!(consumer.pop(), None);
        }
    }

    #[test]
    fn a_lane_whose_producer_is_gone_ends_after_its_last_value() {
        let (mut producer, mut consumer) = lane(2);
        producer.push(7).unwrap();
        assert!(!consumer.is_ended());
        drop(producer);
        assert!(!consumer.is_ended());
        assert_eq!(consumer.pop(), Some(7));
        assert!(consumer.is_ended());
    }

    #[test]
    fn what_nobody_takes_is_dropped_once() {
        let value = Rc::new(());
        let (mut producer, mut consumer) = lane(4);
        (0..3).for_each(|_| producer.push(Rc::clone(&value)).unwrap());
        drop(consumer.pop());
        assert_eq!(Rc::strong_count(&value), 3);
        drop(consumer);
        assert_eq!(Rc::strong_count(&value), 1);
        assert!(producer.is_closed());
        producer.push(Rc::clone(&value)).unwrap();
        drop(producer);
        assert_eq!(Rc::strong_count(&value), 1);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::sys::atomic::model;
    use loom::thread;

    #[test]
    fn loom_values_arrive_once_in_order_and_slots_are_never_shared() {
        model(|| {
            let (mut producer, mut consumer) = lane(2);
            let other = thread::spawn(move || {
                let mut put = 0;
                for number in 0..3 {
                    if producer.push(Box::new(number)).is_err() {
                        break;
                    }
                    put += 1;
                }
                put
            });
            let mut taken = 0;
            for _ in 0..2 {
                if let Some(number) = consumer.pop() {
                    assert_eq!(*number, taken);
                    taken += 1;
                }
            }
            let put = other.join().unwrap();
            while let Some(number) = consumer.pop() {
                assert_eq!(*number, taken);
                taken += 1;
            }
            assert_eq!(put, taken);
            assert!(consumer.is_ended());
        });
    }

    #[test]
    fn loom_an_end_that_is_seen_comes_after_all_that_was_put_in() {
        model(|| {
            let (mut producer, mut consumer) = lane(2);
            let other = thread::spawn(move || producer.push(Box::new(7)).unwrap());
            if consumer.is_ended() {
                panic!("a value waits, and is taken for none");
            }
            other.join().unwrap();
            assert_eq!(consumer.pop().as_deref(), Some(&7));
            assert!(consumer.is_ended());
        });
    }

    #[test]
    fn loom_a_value_that_meets_the_end_of_its_consumer_is_dropped_once() {
        model(|| {
            let (mut producer, consumer) = lane(2);
            let value = std::sync::Arc::new(());
            let put = std::sync::Arc::clone(&value);
            let other = thread::spawn(move || {
                let _ = producer.push(put);
            });
            drop(consumer);
            other.join().unwrap();
            assert_eq!(std::sync::Arc::strong_count(&value), 1);
        });
    }
}
