//! The table of operations in flight: slots at fixed addresses, which the kernel may hold.
//!
//! ```text
//!             1 insert                2 complete                3 take
//!    Free ──────────────▶ Waiting ──────────────▶ Done ──────────────▶ Free
//!                            │ 4 orphan             │ 4 orphan           ▲
//!                            ▼                      ▼                    │
//!                         Orphaned              Unclaimed ───────────────┤
//!                            │                        6 abandon, a lap   │
//!                            └───────────────────────────────────────────┘
//!                                     5 complete (and abandon)
//! ```
//!
//! Nothing here calls user code: the functions hand out what was displaced (a waker, a payload),
//! and the caller drops or calls it when no borrow is left (I5). Every method takes `&self` and
//! touches cells for a moment, so the table itself is never borrowed.

use std::cell::{Cell, UnsafeCell};
use std::io;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ptr::{self, NonNull};
use std::task::Waker;

use super::Op;
use crate::driver::{Cqe, RESERVED, Sqe};
use crate::sys::current;

/// A slot, in bytes: two cache lines. One that straddles a third costs 1 % of an echoed message.
const SLOT: usize = 128;

/// Payloads up to this size live in their slot; larger ones are boxed, one allocation each. It is
/// enough for a receive or a send of a `Vec`, or of a slice of one.
const INLINE: usize = 88;

const NONE: u32 = u32::MAX;

/// One life of one slot: never a pointer, so that a late answer meets a generation, not an owner.
///
/// It is the number that the request carries: the generation above the slot's index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpId(u64);

impl OpId {
    #[inline]
    fn new(index: u32, generation: u32) -> Self {
        OpId(u64::from(generation) << 32 | u64::from(index))
    }

    #[inline]
    pub(crate) fn from_user_data(user_data: u64) -> Self {
        OpId(user_data)
    }

    #[inline]
    pub(crate) fn user_data(self) -> u64 {
        debug_assert!(self.0 < RESERVED);
        self.0
    }

    #[inline]
    pub(super) fn index(self) -> u32 {
        self.0 as u32
    }

    #[inline]
    fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    /// Zero, so that untouched memory is a table of free slots.
    Free = 0,
    Waiting,
    Orphaned,
    Done,
    /// Done, and nobody will take it: to be abandoned with the next lap.
    Unclaimed,
}

/// What a slot can do with the payload whose type it has forgotten.
pub(super) struct Vtable {
    pub(super) prepare: unsafe fn(*mut ()) -> Sqe,
    pub(super) more: unsafe fn(*mut (), Cqe) -> bool,
    pub(super) again: unsafe fn(*mut (), &Cqe) -> bool,
    /// Moves the payload out of the place, calls `free`, then abandons it.
    pub(super) abandon: unsafe fn(*mut (), Cqe, &dyn Fn()),
}

#[repr(C, align(64))]
pub(super) struct Slot {
    generation: Cell<u32>,
    state: Cell<State>,
    /// Asked to be cancelled: it is not submitted again.
    cancelled: Cell<bool>,
    /// In the list of chores, by `next`.
    linked: Cell<bool>,
    /// What was asked of the kernel.
    opcode: Cell<u8>,
    /// The next free slot, or the next chore; of a slot in neither list, its descriptor.
    next: Cell<u32>,
    /// The task whose poll submitted it, and then the one that gave it up.
    pub(super) task: Cell<u32>,
    note: UnsafeCell<Note>,
    vtable: Cell<Option<&'static Vtable>>,
    payload: UnsafeCell<MaybeUninit<[u64; INLINE / 8]>>,
}

/// What a lap does for a slot that somebody has left.
pub(super) enum Chore {
    /// Asks the kernel to end it.
    Cancel(OpId),
    /// Gives its answer back.
    Abandon(OpId),
}

/// Whom the answer is for, until it has come; then the answer. The slot's state says which.
union Note {
    waker: ManuallyDrop<Option<Waker>>,
    answer: (i32, u32),
}

const _: () = assert!(size_of::<Slot>() == SLOT);

impl Slot {
    pub(super) fn state(&self) -> State {
        self.state.get()
    }

    /// Whether the last answer is still to come.
    #[inline]
    pub(super) fn awaits_answers(&self) -> bool {
        matches!(self.state.get(), State::Waiting | State::Orphaned)
    }

    /// Notes what was asked of the kernel, and of which descriptor.
    #[inline]
    pub(super) fn asked(&self, opcode: u8, fd: i32) {
        self.opcode.set(opcode);
        self.next.set(fd.cast_unsigned());
    }

    pub(super) fn opcode(&self) -> u8 {
        self.opcode.get()
    }

    /// The descriptor, if the operation has one, and is not about to be cancelled.
    pub(super) fn fd(&self) -> Option<i32> {
        let fd = self.next.get().cast_signed();
        (!self.linked.get() && fd >= 0).then_some(fd)
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.get()
    }

    pub(super) fn vtable(&self) -> &'static Vtable {
        self.vtable.get().expect("a slot in use has a vtable")
    }

    pub(super) fn place(&self) -> *mut () {
        self.payload.get().cast()
    }

    /// The place of the waker, while no last answer has come.
    fn waker(&self) -> *mut Option<Waker> {
        let answered = matches!(self.state.get(), State::Done | State::Unclaimed);
        assert!(!answered, "a slot that is done keeps an answer, no waker");
        self.note.get().cast()
    }

    /// Stores a waker, and returns the one it displaces.
    pub(super) fn set_waker(&self, waker: Option<Waker>) -> Option<Waker> {
        // SAFETY: in this state the note is a waker, and nothing else runs on this thread meanwhile.
        unsafe { std::mem::replace(&mut *self.waker(), waker) }
    }

    /// Calls `f` with the waker left in place; `f` is not user code.
    pub(super) fn peek_waker<R>(&self, f: impl FnOnce(Option<&Waker>) -> R) -> R {
        // SAFETY: as above, and `f` cannot reach the note.
        f(unsafe { (*self.waker()).as_ref() })
    }

    fn answer(&self) -> Cqe {
        assert!(matches!(self.state.get(), State::Done | State::Unclaimed));
        // SAFETY: in these states the note is an answer.
        let (result, flags) = unsafe { (*self.note.get()).answer };
        Cqe { user_data: 0, result, flags }
    }

    /// 2 complete: keeps the last answer. Returns whom to wake.
    pub(super) fn done(&self, cqe: Cqe) -> Option<Waker> {
        assert_eq!(self.state.get(), State::Waiting);
        let waker = self.set_waker(None);
        self.state.set(State::Done);
        // SAFETY: the waker was taken out, so nothing is overwritten that has to be dropped.
        unsafe { self.note.get().write(Note { answer: (cqe.result, cqe.flags) }) };
        waker
    }
}

/// A payload's place, by type: in the slot, or behind a box in it.
#[inline(always)]
pub(super) fn locate<T>(place: *mut ()) -> *mut T {
    if fits::<T>() {
        place.cast()
    } else {
        // SAFETY: for such a T the place holds the pointer that `store` wrote.
        unsafe { place.cast::<*mut T>().read() }
    }
}

const fn fits<T>() -> bool {
    size_of::<T>() <= INLINE && align_of::<T>() <= 8
}

/// # Safety
/// `place` is a free payload place.
#[inline(always)]
unsafe fn store<T>(place: *mut (), payload: T) {
    if fits::<T>() {
        // SAFETY: the place is free, and large and aligned enough.
        unsafe { place.cast::<T>().write(payload) }
    } else {
        // SAFETY: a pointer fits every place.
        unsafe { place.cast::<*mut T>().write(Box::into_raw(Box::new(payload))) }
    }
}

/// # Safety
/// `place` holds a `T` that `store` put there, and is not read again.
pub(super) unsafe fn unload<T>(place: *mut ()) -> T {
    let payload = locate::<T>(place);
    if fits::<T>() {
        // SAFETY: the caller hands over the payload; this is its move.
        unsafe { payload.read() }
    } else {
        // SAFETY: `store` made the pointer of a box.
        *unsafe { Box::from_raw(payload) }
    }
}

struct Of<T>(T);

impl<T: Op> Of<T> {
    const VTABLE: Vtable = Vtable {
        // SAFETY: (all) the slot stored a T in the place, and nothing else refers to it now.
        prepare: |place| unsafe { (*locate::<T>(place)).prepare() },
        // SAFETY: as above.
        more: |place, cqe| unsafe { (*locate::<T>(place)).more(cqe) },
        // SAFETY: as above.
        again: |place, cqe| unsafe { (*locate::<T>(place)).again(cqe) },
        abandon: |place, cqe, free| {
            // SAFETY: as above; the slot is freed at once, so the payload is not read again.
            let op = unsafe { unload::<T>(place) };
            free();
            op.abandon(cqe);
        },
    };
}

/// The slots. The mapping never moves, and memory is used from the first touch on.
pub(crate) struct InFlight {
    slots: NonNull<Slot>,
    capacity: u32,
    /// Slots below this index have been used.
    touched: Cell<u32>,
    free: Cell<u32>,
    live: Cell<u32>,
    orphans: Cell<u32>,
    /// What the next lap has to do, first come first served.
    chores: Cell<(u32, u32)>,
    leaked: Cell<bool>,
}

impl InFlight {
    pub(crate) fn new(capacity: u32) -> io::Result<Self> {
        let (size, flags) = (
            capacity as usize * size_of::<Slot>(),
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
        );
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new anonymous mapping touches no memory of others.
        let slots = unsafe { libc::mmap(ptr::null_mut(), size, access, flags, -1, 0) };
        if slots == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(InFlight {
            slots: NonNull::new(slots.cast()).expect("a mapping is never at address zero"),
            capacity,
            touched: Cell::new(0),
            free: Cell::new(NONE),
            live: Cell::new(0),
            orphans: Cell::new(0),
            chores: Cell::new((NONE, NONE)),
            leaked: Cell::new(false),
        })
    }

    pub(crate) fn live(&self) -> u32 {
        self.live.get()
    }

    pub(crate) fn orphans(&self) -> u32 {
        self.orphans.get()
    }

    #[inline]
    fn at(&self, index: u32) -> &Slot {
        assert!(index < self.touched.get(), "slot {index} was never used");
        // SAFETY: the mapping holds `capacity` slots, zeroed at first, which is a valid free slot.
        unsafe { self.slots.add(index as usize).as_ref() }
    }

    /// The slot of a life that has not ended.
    #[inline]
    pub(super) fn get(&self, id: OpId) -> Option<&Slot> {
        if id.index() >= self.touched.get() {
            return None;
        }
        let slot = self.at(id.index());
        (slot.generation.get() == id.generation() && slot.state.get() != State::Free)
            .then_some(slot)
    }

    /// 1 insert: moves `op` to the place where it will stay.
    ///
    /// # Errors
    /// Gives `op` back when every slot is in use.
    #[inline(always)]
    pub(super) fn insert<T: Op>(&self, op: T) -> Result<(OpId, &Slot), T> {
        let index = match self.free.get() {
            NONE if self.touched.get() == self.capacity => return Err(op),
            NONE => self.touched.replace(self.touched.get() + 1),
            index => {
                self.free.set(self.at(index).next.get());
                index
            }
        };
        let slot = self.at(index);
        assert_eq!(slot.state.get(), State::Free);
        // SAFETY: the slot was free, so its place holds nothing.
        unsafe { store(slot.place(), op) };
        slot.vtable.set(Some(&Of::<T>::VTABLE));
        // SAFETY: the note of a free slot holds nothing that has to be dropped.
        unsafe { slot.note.get().write(Note { waker: ManuallyDrop::new(None) }) };
        slot.state.set(State::Waiting);
        slot.cancelled.set(false);
        slot.task.set(current::core(|core| core.polled.get()).unwrap_or(u32::MAX));
        self.live.set(self.live.get() + 1);
        Ok((OpId::new(index, slot.generation.get()), slot))
    }

    /// 3 take: the payload and its last answer, once it is done.
    #[inline]
    pub(super) fn take<T: Op>(&self, id: OpId) -> Option<(T, Cqe)> {
        let slot = self.get(id).expect("a ticket's slot lives until it is taken");
        if slot.state.get() != State::Done {
            return None;
        }
        // SAFETY: I1, the last answer has come; the ticket's type is that of the payload.
        let op = unsafe { unload::<T>(slot.place()) };
        let cqe = slot.answer();
        self.free(id);
        Some((op, cqe))
    }

    /// 4 orphan: from now on nobody awaits it. Returns what was displaced.
    pub(super) fn orphan(&self, id: OpId) -> Option<Waker> {
        let slot = self.get(id).expect("a ticket's slot lives until it is orphaned");
        self.orphans.set(self.orphans.get() + 1);
        slot.task.set(current::core(|core| core.polled.get()).unwrap_or(u32::MAX));
        if slot.state.get() == State::Done {
            slot.state.set(State::Unclaimed);
            self.link(id.index(), slot);
            return None;
        }
        assert_eq!(slot.state.get(), State::Waiting);
        slot.state.set(State::Orphaned);
        self.cancel(id);
        slot.set_waker(None)
    }

    /// The last answer of a slot that nobody will take, for one that will abandon it.
    pub(super) fn unclaimed(&self, id: OpId) -> Cqe {
        let slot = self.get(id).expect("the slot is done");
        assert_eq!(slot.state.get(), State::Unclaimed);
        slot.answer()
    }

    /// Frees a slot whose payload has been moved out.
    pub(super) fn free(&self, id: OpId) {
        let slot = self.get(id).expect("a slot is freed once");
        if matches!(slot.state.get(), State::Orphaned | State::Unclaimed) {
            self.orphans.set(self.orphans.get() - 1);
        }
        slot.state.set(State::Free);
        // Wrapping is harmless: a slot's 2^32 lives are not all in flight at once.
        #[cfg(not(canary = "no-generation"))]
        let generation = slot.generation.get().wrapping_add(1);
        #[cfg(not(canary = "no-generation"))]
        slot.generation.set(if generation == u32::MAX { 0 } else { generation });
        self.live.set(self.live.get() - 1);
        if !slot.linked.get() {
            self.release(id.index(), slot);
        }
    }

    fn release(&self, index: u32, slot: &Slot) {
        slot.next.set(self.free.replace(index));
    }

    /// Has an operation cancelled with the next lap.
    pub(super) fn cancel(&self, id: OpId) {
        let slot = self.get(id).expect("only what is in flight is cancelled");
        if !slot.cancelled.replace(true) {
            self.link(id.index(), slot);
        }
    }

    /// Has the operation in a slot cancelled once more, if one is there that still is to be.
    pub(super) fn cancel_again(&self, index: u32) {
        if index >= self.touched.get() {
            return;
        }
        let slot = self.at(index);
        if slot.awaits_answers() && slot.cancelled.get() {
            self.link(index, slot);
        }
    }

    /// Links what the next lap has to do through the slot itself, so that nothing can be lost.
    fn link(&self, index: u32, slot: &Slot) {
        if slot.linked.replace(true) {
            return;
        }
        slot.next.set(NONE);
        match self.chores.get() {
            (NONE, _) => self.chores.set((index, index)),
            (first, last) => {
                self.at(last).next.set(index);
                self.chores.set((first, index));
            }
        }
    }

    pub(super) fn has_chores(&self) -> bool {
        self.chores.get().0 != NONE
    }

    /// The next thing to do; what has ended meanwhile is passed over.
    pub(super) fn pop_chore(&self) -> Option<Chore> {
        loop {
            let (first, last) = self.chores.get();
            if first == NONE {
                return None;
            }
            let slot = self.at(first);
            self.chores.set(if first == last { (NONE, NONE) } else { (slot.next.get(), last) });
            slot.linked.set(false);
            let id = OpId::new(first, slot.generation.get());
            match slot.state.get() {
                State::Free => self.release(first, slot),
                State::Done => {}
                State::Unclaimed => return Some(Chore::Abandon(id)),
                State::Waiting | State::Orphaned => return Some(Chore::Cancel(id)),
            }
        }
    }

    /// Everything in flight, for the shutdown and for `dump`.
    pub(super) fn all(&self) -> impl Iterator<Item = (OpId, &Slot)> {
        (0..self.touched.get()).filter_map(|index| {
            let slot = self.at(index);
            let id = OpId::new(index, slot.generation.get());
            (slot.state.get() != State::Free).then_some((id, slot))
        })
    }

    /// I6: the kernel may still write into the payloads, so the memory stays for ever.
    pub(super) fn leak(&self) {
        self.leaked.set(true);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.leaked.get() {
            return;
        }
        assert_eq!(self.live.get(), 0, "the table is dropped with operations in flight");
        let size = self.capacity as usize * size_of::<Slot>();
        // SAFETY: the mapping is ours, and I6: nothing in flight refers to it.
        unsafe { libc::munmap(self.slots.as_ptr().cast(), size) };
    }
}
