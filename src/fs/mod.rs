//! Files.
//!
//! Reads and writes name their offset and take `&self`, so any number of them run at the same time
//! on one [`File`]. Files are read by the kernel's page cache unless they are opened with
//! `O_DIRECT` ([`OpenOptions::custom_flags`]).
//!
//! ```
//! use quoit::fs::{self, File};
//!
//! # quoit::runtime::run(async {
//! # let path = std::env::temp_dir().join(format!("quoit-fs-{}", std::process::id()));
//! fs::write(&path, "hello, files").await?;
//! let file = File::open(&path).await?;
//! let word = file.read_exact_at(vec![0; 5], 7).await?;
//! assert_eq!(word, b"files");
//! file.close().await?;
//! # std::fs::remove_file(path)?;
//! # std::io::Result::Ok(()) }).unwrap().unwrap();
//! ```

mod file;
mod open;
mod read;
mod status;
mod sync;
mod whole;
mod write;

pub use file::File;
pub use open::OpenOptions;
pub use whole::{read, write};
