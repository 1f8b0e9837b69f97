//! One listening socket for all cores: an address can be bound once only, so the first core binds
//! it, and the others get descriptors of the same socket.
//!
//! ```text
//!   core 0  bind ─▶ socket ◀─ descriptor 7, its accept
//!   core 1  bind ─────┴────── descriptor 9, its accept
//! ```
//!
//! Each core has an accept of its own in flight on it, and the kernel wakes one of those that wait
//! (`fellows`).

use std::collections::BTreeMap;
use std::io;
use std::os::fd::RawFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::net::fellows::{Fellow, Fellows};
use crate::sys::atomic::Arc;
use crate::sys::fd::OwnedFd;
use crate::sys::fork::forked;
use crate::sys::unix_addr::UnixAddress;
use crate::sys::unix_file::FileId;

/// The cores that were started together, what kind of socket they want, and its name.
type Wish = (u64, i32, Vec<u8>);

/// The file of a socket, to be removed when nobody listens any more.
pub(super) type Removal = (UnixAddress, FileId);

struct Listeners {
    chosen: BTreeMap<Wish, Choice>,
    /// The number of the next holder.
    next: u64,
}

/// A socket, and the cores that have a descriptor of it.
#[derive(Default)]
struct Choice {
    holders: Vec<Holder>,
    fellows: Arc<Fellows>,
    removal: Option<Removal>,
}

struct Holder {
    number: u64,
    core: u64,
    raw: RawFd,
    /// The listener is in use; a descriptor may stay open a little after its listener is gone.
    listening: bool,
}

static LISTENERS: Mutex<Listeners> = Mutex::new(Listeners { chosen: BTreeMap::new(), next: 0 });

fn listeners() -> MutexGuard<'static, Listeners> {
    LISTENERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A core's share of a listening socket, for as long as its descriptor is open.
pub(super) struct Share {
    wish: Wish,
    number: u64,
}

impl Share {
    /// Lets `core` listen: by `duplicate`, which gets a descriptor of a core that does already, or by
    /// `bind`.
    pub(super) fn listen(
        wish: Wish,
        core: u64,
        duplicate: impl FnOnce(RawFd) -> io::Result<OwnedFd>,
        bind: impl FnOnce() -> io::Result<(OwnedFd, Option<Removal>)>,
    ) -> io::Result<(OwnedFd, Fellow, Share)> {
        // Held meanwhile: the cores come one after the other, and no descriptor is closed.
        let mut listeners = listeners();
        let number = listeners.next;
        listeners.next += 1;
        let choice = listeners.chosen.get_mut(&wish);
        let in_use = choice.filter(|choice| choice.holders.iter().any(|it| it.listening));
        let (fd, fellows) = match in_use {
            Some(choice) => {
                let mut holders = choice.holders.iter().filter(|it| it.listening);
                if holders.clone().any(|it| it.core == core) {
                    let text = "this core listens there already; share that listener";
                    return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
                }
                let there = holders.next().expect("somebody listens").raw;
                let fd = duplicate(there)?;
                choice.holders.push(Holder { number, core, raw: fd.raw(), listening: true });
                (fd, Arc::clone(&choice.fellows))
            }
            None => {
                let (fd, removal) = bind()?;
                let holders = vec![Holder { number, core, raw: fd.raw(), listening: true }];
                // Whoever held what was there before finds out by the number.
                let fellows = Arc::default();
                let choice = Choice { holders, fellows: Arc::clone(&fellows), removal };
                listeners.chosen.insert(wish.clone(), choice);
                (fd, fellows)
            }
        };
        drop(listeners);
        Ok((fd, Fellow::join(&fellows, number), Share { wish, number }))
    }

    /// Whether a descriptor of a listener that `core` has dropped is still open there.
    pub(super) fn is_leaving(wish: &Wish, core: u64) -> bool {
        let listeners = listeners();
        let mut holders = listeners.chosen.get(wish).into_iter().flat_map(|it| &it.holders);
        holders.any(|holder| holder.core == core && !holder.listening)
    }

    /// The listener is gone. `remove` gets the file if this was the last, before anybody else can
    /// bind there.
    pub(super) fn retire(&self, remove: impl FnOnce(Removal)) {
        if forked() {
            // A thread of the parent may have held the lock.
            return;
        }
        let mut listeners = listeners();
        let Some(choice) = listeners.chosen.get_mut(&self.wish) else { return };
        let mine = choice.holders.iter_mut().find(|it| it.number == self.number);
        mine.into_iter().for_each(|it| it.listening = false);
        if !choice.holders.iter().any(|it| it.listening)
            && let Some(removal) = choice.removal.take()
        {
            remove(removal);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if forked() {
            return;
        }
        let mut listeners = listeners();
        let Some(choice) = listeners.chosen.get_mut(&self.wish) else { return };
        choice.holders.retain(|it| it.number != self.number);
        if choice.holders.is_empty() {
            listeners.chosen.remove(&self.wish);
        }
    }
}
