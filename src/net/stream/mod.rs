//! A stream of bytes over a connected socket, whatever its family: its state, how it receives, and
//! how it sends.

pub(super) mod receive;
pub(super) mod send;

use self::receive::{Inbound, Unread};
use self::send::Outbound;
use crate::sync::turn::{Turn, Turns};

/// What a stream keeps, for its handle and for the operations in flight.
#[derive(Default)]
pub(super) struct State {
    /// Whose turn it is to read and to write, and, where both find room, what is unread.
    turns: Turns<2, Unread>,
    pub(super) inbound: Inbound,
    pub(super) outbound: Outbound,
}

// One for each idle connection.
const _: () = assert!(size_of::<State>() <= 40);

impl State {
    #[inline]
    fn reading(&self) -> Turn<'_, 2, Unread> {
        self.turns.turn(0)
    }

    #[inline]
    fn writing(&self) -> Turn<'_, 2, Unread> {
        self.turns.turn(1)
    }
}
