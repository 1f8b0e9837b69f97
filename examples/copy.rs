//! Copies a file, eight chunks at a time.
//!
//! ```text
//! cargo run --release --example copy SOURCE TARGET
//! cmp SOURCE TARGET && echo the same
//! ```
//!
//! Each chunk is a future that reads at an offset and writes there. Eight of them are in flight on
//! one thread, which sleeps while the kernel works. TARGET must not exist. If the copy fails, what
//! was written of it stays.

use std::io;
use std::time::Instant;

use quoit::buf::IoBuf;
use quoit::fs::{File, OpenOptions};
use quoit::runtime;

const CHUNK: u64 = 256 * 1024;
const IN_FLIGHT: usize = 8;

fn main() -> runtime::Result<()> {
    let paths: Vec<_> = std::env::args_os().skip(1).collect();
    let [source, target] = &paths[..] else {
        eprintln!("usage: copy SOURCE TARGET");
        std::process::exit(2);
    };
    runtime::run(async {
        let start = Instant::now();
        let from = File::open(source).await?;
        let to = OpenOptions::new().write(true).create_new(true).open(target).await?;
        let copied = copy(&from, &to).await?;
        // Only closing says whether a network file system took everything.
        to.close().await?;
        println!("{copied} bytes in {:.1?}", start.elapsed());
        io::Result::Ok(())
    })??;
    Ok(())
}

/// Copies all of `from`, and says how many bytes that were.
async fn copy(from: &File, to: &File) -> io::Result<u64> {
    let len = from.len().await?;
    let jobs = (0..len).step_by(CHUNK as usize).map(async |offset| -> io::Result<u64> {
        let want = CHUNK.min(len - offset) as usize;
        // The slice says how much to read: a Vec may have more capacity than it was asked for.
        let room = Vec::with_capacity(want).slice(..want);
        let chunk = from.read_exact_at(room, offset).await?;
        to.write_all_at(chunk, offset).await?;
        Ok(want as u64)
    });
    // The first error ends the rest.
    Ok(quoit::try_gather_limit(IN_FLIGHT, jobs).await?.iter().sum())
}
