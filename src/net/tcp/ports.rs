//! One socket per core on the same address, and nobody else's beside them.
//!
//! Cores that were started together share an address by `SO_REUSEPORT`. The same flag would let a
//! second copy of the server take half of the connections in silence. So the first bind of an
//! address in the process is tried without the flag, which finds whoever has it already. Port 0 is
//! chosen once for all cores.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::sys::fork::forked;

/// The cores that were started together, and an address as the user wrote it. Port 0 may be asked
/// for again and again: the number says for the how-manieth time this core does.
type Wish = (u64, SocketAddr, u32);

/// What was chosen for a wish, and the cores that have a socket of it.
struct Choice {
    address: SocketAddr,
    holders: Vec<Holder>,
}

struct Holder {
    core: u64,
    /// The listener is in use; a socket may live on a little after its listener is gone.
    listening: bool,
}

static CHOSEN: Mutex<BTreeMap<Wish, Choice>> = Mutex::new(BTreeMap::new());

fn chosen() -> MutexGuard<'static, BTreeMap<Wish, Choice>> {
    CHOSEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A core's share of an address, for as long as its socket is open.
pub(super) struct Share {
    wish: Wish,
    core: u64,
}

impl Share {
    /// Lets `core` of `group` bind `wanted`. `bind` gets the address, and whether this process has
    /// it already, and says what the address became.
    pub(super) fn bind<T>(
        group: u64,
        core: u64,
        wanted: SocketAddr,
        bind: impl FnOnce(SocketAddr, bool) -> io::Result<(T, SocketAddr)>,
    ) -> io::Result<(T, Share)> {
        // Held while binding: the cores come one after the other, and the first one probes.
        let mut chosen = chosen();
        let mut wish = (group, wanted, 0);
        let is_taken = |choice: &Choice| {
            choice.holders.iter().any(|holder| holder.core == core && holder.listening)
        };
        while wanted.port() == 0 && chosen.get(&wish).is_some_and(is_taken) {
            wish.2 += 1;
        }
        let holder = Holder { core, listening: true };
        let socket = match chosen.get_mut(&wish) {
            // This very core listens there: the kernel would let it share with itself.
            Some(choice) if is_taken(choice) => {
                let text = format!("this core listens on {wanted} already; share that listener");
                return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
            }
            Some(choice) => {
                let (socket, _) = bind(choice.address, true)?;
                choice.holders.push(holder);
                socket
            }
            None => {
                let (socket, address) = bind(wanted, false)?;
                chosen.insert(wish, Choice { address, holders: vec![holder] });
                socket
            }
        };
        Ok((socket, Share { wish, core }))
    }

    /// Whether a socket of a listener that `core` has dropped is still open there. Connections
    /// would still go to it.
    pub(super) fn is_leaving(core: u64, wanted: SocketAddr) -> bool {
        let same = |wish: &Wish, choice: &Choice| {
            wish.1 == wanted || (wanted.port() != 0 && choice.address.port() == wanted.port())
        };
        let leaves = |holder: &Holder| holder.core == core && !holder.listening;
        let chosen = chosen();
        let mut choices = chosen.iter().filter(|(wish, choice)| same(wish, choice));
        choices.any(|(_, choice)| choice.holders.iter().any(leaves))
    }

    /// The listener is gone; its socket follows when the kernel is done with it.
    pub(super) fn retire(&self) {
        if forked() {
            // A thread of the parent may have held the lock.
            return;
        }
        let mut chosen = chosen();
        let choice = chosen.get_mut(&self.wish).expect("a share keeps its choice");
        let mut mine = choice.holders.iter_mut().filter(|it| it.core == self.core);
        if let Some(holder) = mine.find(|it| it.listening) {
            holder.listening = false;
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if forked() {
            return;
        }
        let mut chosen = chosen();
        let choice = chosen.get_mut(&self.wish).expect("a share keeps its choice");
        let holders = &mut choice.holders;
        let mine = |it: &Holder, listening| it.core == self.core && it.listening == listening;
        let place = holders.iter().position(|it| mine(it, false));
        let place = place.or_else(|| holders.iter().position(|it| mine(it, true)));
        holders.swap_remove(place.expect("a share is counted"));
        if holders.is_empty() {
            chosen.remove(&self.wish);
        }
    }
}
