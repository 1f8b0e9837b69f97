//! A second of work on the chosen driver: operations, messages, and wakes from core to core.

use std::fmt;
use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use io_uring::opcode;

use super::json::Json;
use crate::driver::{Cqe, Sqe};
use crate::net::{TcpListener, TcpStream};
use crate::op::{Op, Submission};
use crate::runtime::{self, Handle, Runtime};
use crate::time::{Instant, timeout};

/// How long each part runs, and when it is given up.
const PART: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(3);
/// Nops in flight at a time.
const NOPS: usize = 32;

/// How many a second, or why it failed.
type Rate = Result<f64, String>;

/// What the work came to.
#[derive(Debug)]
pub(super) struct SelfTest {
    nops: Rate,
    echoes: Rate,
    wakes: Rate,
}

impl SelfTest {
    /// Works for a second. It fails with a text, and does not panic.
    pub(super) fn run() -> Self {
        SelfTest { nops: nops(), echoes: echoes(), wakes: wakes() }
    }

    pub(super) fn all(&self) -> [(&'static str, &'static str, &Rate); 3] {
        [
            ("nops_per_second", "operations that do nothing", &self.nops),
            ("echoes_per_second", "64 bytes there and back", &self.echoes),
            ("wakes_per_second", "to a core and back", &self.wakes),
        ]
    }

    pub(super) fn json(&self) -> Json {
        let rate = |rate: &Rate| match rate {
            Ok(rate) => Json::Object(vec![("rate", Json::Number(rate.round()))]),
            Err(error) => Json::Object(vec![("error", Json::text(&**error))]),
        };
        Json::Object(self.all().map(|(name, _, value)| (name, rate(value))).into())
    }
}

impl fmt::Display for SelfTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "self test, each {} ms on one thread or two", PART.as_millis())?;
        for (_, what, rate) in self.all() {
            match rate {
                Ok(rate) => {
                    let microseconds = 1e6 / rate;
                    writeln!(f, "  {what:<26} {rate:>9.0} a second, {microseconds:.2} µs each")?;
                }
                Err(error) => writeln!(f, "  {what:<26} failed: {error}")?,
            }
        }
        Ok(())
    }
}

/// `IORING_OP_NOP`, kernel 5.1.
struct Nop;

// SAFETY: the request points at nothing.
unsafe impl Op for Nop {
    type Output = io::Result<u32>;

    fn prepare(&mut self) -> Sqe {
        opcode::Nop::new().build()
    }

    fn complete(self, cqe: Cqe) -> Self::Output {
        cqe.result()
    }
}

fn nops() -> Rate {
    measured(async || {
        repeat(async || {
            for result in crate::task::gather((0..NOPS).map(|_| Submission::new(Nop))).await {
                result?;
            }
            Ok(NOPS)
        })
        .await
    })
}

fn echoes() -> Rate {
    measured(async || {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let client = TcpStream::connect(listener.local_addr()?).await?;
        let (server, _) = listener.accept().await?;
        let echo = crate::task::spawn(async move {
            while let Some(chunk) = server.recv().await? {
                server.write_all(chunk).await?;
            }
            io::Result::Ok(())
        });
        let rate = repeat(async || {
            client.write_all(&[7_u8; 64][..]).await?;
            let mut left = 64;
            while left > 0 {
                let chunk = client.recv().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
                left -= chunk.len().min(left);
            }
            Ok(1)
        })
        .await?;
        drop(client);
        echo.await.map_err(io::Error::other)??;
        Ok(rate)
    })
}

fn wakes() -> Rate {
    // The scope waits for the other core, which ends with this one.
    thread::scope(|scope| {
        measured(async || {
            let (sender, started) = mpsc::channel();
            let here = Handle::current();
            let other = thread::Builder::new().name("quoit-doctor".into());
            other.spawn_scoped(scope, move || other_core(here, &sender))?;
            let handle = started.recv().map_err(io::Error::other)??;
            repeat(async || {
                handle.spawn_on(async || ())?.await.map_err(io::Error::other)?;
                Ok(1)
            })
            .await
        })
    })
}

/// Runs `work` on a core of its own.
fn measured(work: impl AsyncFnOnce() -> io::Result<f64>) -> Rate {
    match runtime::run(timeout(PATIENCE, work())) {
        Ok(Ok(Ok(rate))) => Ok(rate),
        Ok(Ok(Err(error))) => Err(error.to_string()),
        Ok(Err(_)) => Err(format!("no end after {PATIENCE:?}")),
        Err(error) => Err(error.to_string()),
    }
}

/// Repeats `work`, which says how much it did, and returns how much that is a second.
async fn repeat(work: impl AsyncFn() -> io::Result<usize>) -> io::Result<f64> {
    let (start, mut done) = (Instant::now(), 0);
    while start.elapsed() < PART {
        done += work().await?;
    }
    Ok(done as f64 / start.elapsed().as_secs_f64())
}

/// The life of the other core: it says how it can be reached, and ends with `first`.
fn other_core(first: Handle, sender: &mpsc::Sender<io::Result<Handle>>) {
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        // Whoever waits for it has gone, if it cannot be sent; and so below.
        Err(error) => return drop(sender.send(Err(error.into()))),
    };
    drop(sender.send(Ok(runtime.handle())));
    runtime.block_on(async {
        // Never kept: it is broken when the first core ends.
        if let Ok(task) = first.spawn_on(std::future::pending::<()>) {
            drop(task.await);
        }
    });
}
