//! Starting loops and talking to them.

mod log;
mod shard;
mod stats;

pub use stats::Stats;
use crate::op::Limits;
use crate::driver::uring::{Uring, Sizes};

#[doc(hidden)]
pub struct Runtime { shard: shard::Shard }
impl Runtime {
    pub fn new() -> std::io::Result<Self> {
        let driver = Uring::new(Sizes { submissions: 512, completions: 8192 }, None).map_err(|r| r.error)?;
        let n = shard::next_number();
        Ok(Runtime { shard: shard::Shard::new(Box::new(driver), shard::Seat { index: 0, count: 1, group: n }, shard::Settings { limits: Limits { live: 65536, deadline_in_wait: false }, drain: None, log: log::Log::default() })? })
    }
    pub fn block_on<F: Future>(&self, future: F) -> F::Output { self.shard.block_on(future) }
    pub fn stats(&self) -> Stats { self.shard.stats() }
}
/// run
pub fn run<F: Future>(future: F) -> std::io::Result<F::Output> { Ok(Runtime::new()?.block_on(future)) }
