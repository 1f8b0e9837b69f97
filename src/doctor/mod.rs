//! What a start would come to on this machine, and why: the report of `quoit doctor`.
//!
//! ```
//! let report = quoit::doctor::Report::examine();
//! println!("{report}");
//! assert!(report.can_start());
//! ```

mod choice;
mod json;
mod kernel;
mod machine;
mod offer;
mod report;
mod self_test;

pub use report::Report;
