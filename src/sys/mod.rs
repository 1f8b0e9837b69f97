//! Floor 0: what lies under everything: descriptors, addresses, the clock, the current core.

pub(crate) mod addr;
pub(crate) mod atomic;
pub(crate) mod bell;
pub(crate) mod blocks;
pub(crate) mod children;
pub(crate) mod clock;
pub(crate) mod control;
pub(crate) mod cpus;
pub(crate) mod current;
pub(crate) mod envelope;
pub(crate) mod facts;
#[cfg(test)]
pub(crate) mod fake_root;
pub(crate) mod fd;
pub(crate) mod fork;
pub(crate) mod guard;
pub(crate) mod half;
pub(crate) mod handlers;
pub(crate) mod inherited;
pub(crate) mod lane;
pub(crate) mod limits;
pub(crate) mod listeners;
pub(crate) mod log;
pub(crate) mod names;
pub(crate) mod overdue;
pub(crate) mod rights;
pub(crate) mod sendfile;
pub(crate) mod signal_streams;
pub(crate) mod signals;
pub(crate) mod status;
pub(crate) mod terminal;
pub(crate) mod unix_addr;
pub(crate) mod unix_file;
