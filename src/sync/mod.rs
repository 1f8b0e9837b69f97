//! Waiting for each other: locks, semaphores and channels between the tasks of one core.
//!
//! Tasks of one core never run at the same time, so nothing here is atomic: to take a free lock or to
//! send a message is a few instructions. Neither guards nor ends of channels are `Send`, and nothing
//! here is `Sync`. What only has to stay whole between two `await`s needs none of this: see [`state`].
//!
//! | to | use |
//! |---|---|
//! | share state between tasks | [`Cell`](std::cell::Cell), [`RefCell`]; see [`state`] |
//! | have it to oneself across an `await` | [`Mutex`], [`RwLock`] |
//! | do so much at a time | [`Semaphore`] |
//! | make a value once, when it is needed first | [`OnceCell`] |
//! | send messages to a task | [`mpsc`] |
//! | send one answer | [`oneshot`] |
//! | send each message to many | [`broadcast`] |
//! | show the latest value | [`watch`] |
//! | tell that something has happened | [`Notify`], [`Event`] |
//! | wait for a change under a lock | [`Condvar`] |
//! | tell tasks to stop | [`CancelToken`] |
//! | wait for each other | [`Barrier`] |
//! | wait until all that runs has ended, and let nothing new in | [`Gate`] |
//!
//! Names are tokio's where tokio has the thing.
//!
//! # What holds for all of them
//!
//! - **First come, first served.** Nobody overtakes, and nobody starves. Your place in line is yours
//!   from the first poll of the future on.
//! - **Dropping a future that waits loses nothing**: no message, no place of anybody else, and a permit
//!   or notification that it was given goes to the next. A future that is leaked
//!   ([`std::mem::forget`]) keeps its place and what it was given; that can starve others, and is sound.
//! - **A waker that panics** harms nobody: the panic is caught and counted
//!   ([`Stats`](crate::runtime::Stats)), and all others are woken.
//! - **Waiting allocates nothing** once as many have waited together as ever will.

mod barrier;
pub mod broadcast;
mod cancel_token;
mod condvar;
mod event;
mod gate;
mod line;
pub mod mpsc;
mod mutex;
mod notify;
mod once_cell;
pub mod oneshot;
mod permits;
mod places;
mod ref_cell;
mod rwlock;
mod semaphore;
pub mod state;
pub(crate) mod turn;
mod waker_cell;
pub mod watch;

pub use barrier::{Barrier, BarrierWaitResult};
pub use cancel_token::{CancelToken, Cancelled, DropGuard};
pub use condvar::Condvar;
pub use event::Event;
pub use gate::{Gate, GateClosed, Pass};
pub use mutex::{MappedMutexGuard, Mutex, MutexGuard, TryLockError};
pub use notify::{Notified, Notify};
pub use once_cell::{OnceCell, SetError};
pub use ref_cell::{BorrowError, Ref, RefCell, RefMut};
pub use rwlock::{RwLock, RwLockMappedWriteGuard, RwLockReadGuard, RwLockWriteGuard};
pub use semaphore::{
    AcquireError, OwnedSemaphorePermit, Semaphore, SemaphorePermit, TryAcquireError,
};
