//! Floor 0: waiting for each other on one core, without atomics.

pub(crate) mod turn;
