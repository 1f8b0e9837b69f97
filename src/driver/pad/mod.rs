//! What fills the gaps of kernels that lack something: shared by all drivers.

pub(crate) mod blocking;
pub(crate) mod provided;
pub(crate) mod steps;
