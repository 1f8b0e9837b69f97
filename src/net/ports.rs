//! One socket per core on the same address, and nobody else's beside them.
//!
//! Cores that were started together share an address by `SO_REUSEPORT`. The same flag would let a
//! second copy of the server take half of the connections in silence. So the first bind of an
//! address in the process is tried without the flag, which finds whoever has it already. Port 0 is
//! chosen once for all cores.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use super::options;
use crate::op;
use crate::sys::current;
use crate::sys::fork::forked;

/// Whose ports: each protocol has its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Protocol {
    Tcp,
    Udp,
}

/// The protocol, the cores that were started together, and an address as the user wrote it. Port 0
/// may be asked for again and again: the number says for the how-manieth time this core does.
type Wish = (Protocol, u64, SocketAddr, u32);

/// What was chosen for a wish, and the cores that have a socket of it.
struct Choice {
    address: SocketAddr,
    holders: Vec<Holder>,
}

struct Holder {
    core: u64,
    /// The handle is in use; a socket may live on a little after its handle is gone.
    in_use: bool,
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
    /// Lets this core bind `wanted`. `bind` gets the address, and whether this process has it
    /// already, and says what the address became.
    pub(super) fn bind<T>(
        protocol: Protocol,
        wanted: SocketAddr,
        bind: impl FnOnce(SocketAddr, bool) -> io::Result<(T, SocketAddr)>,
    ) -> io::Result<(T, Share)> {
        let here = current::core(|core| (core.group, core.id));
        let (group, core) = here.unwrap_or_else(|| op::outside("a bind"));
        // Held while binding: the cores come one after the other, and the first one probes.
        let mut chosen = chosen();
        let mut wish = (protocol, group, wanted, 0);
        let is_taken = |choice: &Choice| {
            choice.holders.iter().any(|holder| holder.core == core && holder.in_use)
        };
        while wanted.port() == 0 && chosen.get(&wish).is_some_and(is_taken) {
            wish.3 += 1;
        }
        let holder = Holder { core, in_use: true };
        let socket = match chosen.get_mut(&wish) {
            // This very core has it: the kernel would let it share with itself.
            Some(choice) if is_taken(choice) => {
                let text = match protocol {
                    Protocol::Tcp => {
                        format!("this core listens on {wanted} already; share that listener")
                    }
                    Protocol::Udp => {
                        format!("this core has bound {wanted} already; share that socket")
                    }
                };
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

    /// Waits for the sockets of handles that were dropped here on the same address: each is closed
    /// when what it had in flight has been cancelled, a lap later. Until then the kernel would give
    /// them connections and datagrams.
    pub(super) async fn predecessors_left(protocol: Protocol, wanted: SocketAddr) {
        poll_fn(|context| {
            let core = current::id().unwrap_or_else(|| op::outside("a bind"));
            if !Share::is_leaving(protocol, core, wanted) {
                return Poll::Ready(());
            }
            options::ring("bind", |ring| ring.wake_on_close(context.waker()));
            Poll::Pending
        })
        .await;
    }

    /// Whether a socket whose handle `core` has dropped is still open there.
    fn is_leaving(protocol: Protocol, core: u64, wanted: SocketAddr) -> bool {
        let same = |wish: &Wish, choice: &Choice| {
            let is_same_port = wanted.port() != 0 && choice.address.port() == wanted.port();
            wish.0 == protocol && (wish.2 == wanted || is_same_port)
        };
        let leaves = |holder: &Holder| holder.core == core && !holder.in_use;
        let chosen = chosen();
        let mut choices = chosen.iter().filter(|(wish, choice)| same(wish, choice));
        choices.any(|(_, choice)| choice.holders.iter().any(leaves))
    }

    /// The handle is gone; its socket follows when the kernel is done with it.
    pub(super) fn retire(&self) {
        if forked() {
            // A thread of the parent may have held the lock.
            return;
        }
        let mut chosen = chosen();
        let choice = chosen.get_mut(&self.wish).expect("a share keeps its choice");
        let mut mine = choice.holders.iter_mut().filter(|it| it.core == self.core);
        if let Some(holder) = mine.find(|it| it.in_use) {
            holder.in_use = false;
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
        let mine = |it: &Holder, in_use| it.core == self.core && it.in_use == in_use;
        let place = holders.iter().position(|it| mine(it, false));
        let place = place.or_else(|| holders.iter().position(|it| mine(it, true)));
        holders.swap_remove(place.expect("a share is counted"));
        if holders.is_empty() {
            chosen.remove(&self.wish);
        }
    }
}
