//! Signals on their way to the process of a host.

use super::world::{Event, World};

/// What a host's process is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Signal(i32),
    /// The time is over that it had to stop in.
    GraceIsOver,
}

impl World {
    /// Has the process of a host be told something at `time`.
    pub(crate) fn schedule_word(&mut self, host: usize, time: u64, word: Told) {
        self.at(time, Event::Word { host, word });
    }

    /// What processes were told since this was last asked: those who run them pass it on.
    pub(crate) fn take_words(&mut self) -> Vec<(usize, Told)> {
        std::mem::take(&mut self.words)
    }
}
