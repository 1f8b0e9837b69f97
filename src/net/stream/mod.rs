//! A stream of bytes over a connected socket, whatever its family: its state, how it receives, and
//! how it sends.

mod connection;
mod gather;
mod io;
pub(super) mod receive;
pub(super) mod send;
mod send_file;
mod zero_copy;

pub use connection::Stream;

use self::gather::Gathering;
use self::receive::{Inbound, Unread};
use self::send::Outbound;
use self::zero_copy::ZeroCopy;
use crate::buf::pool::Account;
use crate::sync::turn::{Turn, Turns};
use std::rc::Rc;

/// What a stream keeps, for its handle and for the operations in flight.
#[derive(Default)]
pub(super) struct State {
    /// Whose turn it is to read and to write, and what few streams need.
    turns: Turns<2, Rare>,
    pub(super) inbound: Inbound,
    pub(super) outbound: Outbound,
}

/// What a stream has once it needs it.
#[derive(Default)]
struct Rare {
    unread: Unread,
    /// That of the last multishot receive, if it left leases when it ended.
    account: Option<Rc<Account>>,
    gathering: Option<Box<Gathering>>,
    zero_copy: Option<Rc<ZeroCopy>>,
}

// One for each idle connection.
const _: () = assert!(size_of::<State>() <= 40);

impl State {
    /// That of a stream that was another core's: what it has not read, and how much it has sent.
    pub(super) fn resumed(unread: &[u8], sent: u64) -> Self {
        let state = State::default();
        state.give_back(unread);
        state.outbound.resume(sent);
        state
    }

    #[inline]
    fn reading(&self) -> Turn<'_, 2, Rare> {
        self.turns.turn(0)
    }

    #[inline]
    fn writing(&self) -> Turn<'_, 2, Rare> {
        self.turns.turn(1)
    }
}
