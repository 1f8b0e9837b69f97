//! Pages to read: how programs are written here, for those who come from somewhere else.
//!
//! | page | for whoever |
//! |---|---|
//! | [`from_asyncio`] | has written Python's event loop |
//! | [`from_tokio`] | has written tokio |
//! | [`crate::sync::state`] | has state that several tasks of a core use |
//! | [`cancellation`] | wants to end something before it is done |
//! | [`spreading`] | has connections, and cores that are unequally busy |
//!
//! Everything in them is a test of this crate.

pub mod cancellation;
pub mod from_asyncio;
pub mod from_tokio;
pub mod spreading;
