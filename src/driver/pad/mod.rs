//! What fills the gaps of kernels that lack something: shared by all drivers.

#[allow(dead_code, reason = "the emulated kernels use it")]
pub(crate) mod provided;
