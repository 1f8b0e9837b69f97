//! One connection: it may be idle between two requests, but not dawdle in the middle of one.

use std::io;
use std::net::Shutdown;
use std::ops::Deref;
use std::time::Duration;

use quoit::net::TcpStream;
use quoit::time::{Instant, TimeoutExt, timeout_at};

use super::requests::Requests;

/// How long a request may take to arrive, an answer to be taken, and a client to hang up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// The most bytes that are read of a client which goes on sending after its last answer.
const LEFTOVERS_AT_MOST: usize = 256 * 1024;

/// Serves a client until it leaves, or is asked to. `date` gives the text of the header.
pub(crate) async fn serve<D>(stream: TcpStream, date: impl Fn() -> D) -> io::Result<()>
where
    D: Deref<Target = String>,
{
    let (mut requests, mut answers) = (Requests::default(), Vec::new());
    // Until when the request that has begun has to be here. One timer for all the reads of a request: a
    // byte now and then buys a client nothing.
    let mut deadline: Option<Instant> = None;
    loop {
        let received = match deadline {
            None => stream.recv().await?,
            Some(deadline) => match timeout_at(deadline, stream.recv()).await {
                Ok(received) => received?,
                Err(_) => {
                    requests.time_out(&date(), &mut answers);
                    stream.write_all(answers).timeout(PATIENCE).await?;
                    return hang_up(stream).await;
                }
            },
        };
        let Some(bytes) = received else { return Ok(()) };
        let goes_on = requests.answer(&bytes, &date(), &mut answers);
        // The buffer goes home to the pool before the client is waited for.
        drop(bytes);
        if !answers.is_empty() {
            answers = stream.write_all(answers).timeout(PATIENCE).await?;
            answers.clear();
            deadline = None;
        }
        if !goes_on {
            return hang_up(stream).await;
        }
        deadline = match requests.is_idle() {
            true => None,
            false => deadline.or_else(|| Some(Instant::now() + PATIENCE)),
        };
    }
}

/// Closes the connection so that the last answer arrives: closing it with bytes unread would reset it.
async fn hang_up(stream: TcpStream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    let rest = async {
        let mut left = LEFTOVERS_AT_MOST;
        while let Some(bytes) = stream.recv().await? {
            left = left.saturating_sub(bytes.len());
            if left == 0 {
                break;
            }
        }
        io::Result::Ok(())
    };
    // Whoever is still there by then is left, and reset.
    let _ = timeout_at(Instant::now() + PATIENCE, rest).await;
    stream.close().await
}
