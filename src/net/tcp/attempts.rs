//! Connecting to one of several addresses: happy eyeballs, RFC 8305.
//!
//! ```text
//!   0 ms   ├─ the first address ───────────────────────▶ (silence)
//! 250 ms   │        ├─ the second, of the other family ─✗ refused: the next at once
//!          │        │          ├─ the third ───────────▶ connected: the others are cancelled
//! ```

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::connect::{self, Connect};
use crate::net::options;
use crate::op::Submission;
use crate::sys::fd::OwnedFd;
use crate::time::{Sleep, sleep};

/// How long an attempt is given before the next one begins beside it.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// A socket that is connected to the first of `addresses` that answers.
pub(super) async fn connect_any(addresses: Vec<SocketAddr>) -> io::Result<OwnedFd> {
    match addresses[..] {
        [] => Err(io::Error::new(io::ErrorKind::InvalidInput, "there is no address")),
        // No timer, and no table of attempts.
        [address] => {
            let connected = connect::begin(address)?.await.map(options::only);
            connected.map_err(|error| explain(address, error))
        }
        _ => Race::new(interleaved(addresses)).await,
    }
}

/// The families in turn, each in its own order, the first one's first.
fn interleaved(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let count = addresses.len();
    let first_is_ipv4 = addresses.first().is_some_and(SocketAddr::is_ipv4);
    let (one, other): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv4() == first_is_ipv4);
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut turns = Vec::with_capacity(count);
    while turns.len() < count {
        turns.extend(one.next());
        turns.extend(other.next());
    }
    turns
}

/// Attempts that are under way, and addresses that are left. Dropping it cancels all of them.
struct Race {
    left: std::vec::IntoIter<SocketAddr>,
    attempts: Vec<(SocketAddr, Submission<Connect>)>,
    /// When the next attempt begins, if the last one has not ended by then.
    delay: Option<Sleep>,
    /// The most telling error so far.
    error: Option<io::Error>,
}

impl Race {
    fn new(addresses: Vec<SocketAddr>) -> Self {
        Race { left: addresses.into_iter(), attempts: Vec::new(), delay: None, error: None }
    }

    /// Polls the attempts. One that fails makes room for the next.
    fn poll_attempts(&mut self, context: &mut Context<'_>) -> Option<OwnedFd> {
        let mut index = 0;
        while let Some((address, attempt)) = self.attempts.get_mut(index) {
            match Pin::new(attempt).poll(context) {
                Poll::Pending => index += 1,
                Poll::Ready(Ok(fd)) => return Some(options::only(fd)),
                Poll::Ready(Err(error)) => {
                    let error = explain(*address, error);
                    self.attempts.remove(index);
                    self.note(error);
                    self.delay = None;
                }
            }
        }
        None
    }

    /// Whether the next attempt is due: at once when there is no other, or the last has failed.
    fn is_due(&mut self, context: &mut Context<'_>) -> bool {
        match &mut self.delay {
            Some(delay) if !self.attempts.is_empty() => Pin::new(delay).poll(context).is_ready(),
            _ => true,
        }
    }

    /// Keeps the last of the most telling errors.
    fn note(&mut self, error: io::Error) {
        if self.error.as_ref().is_none_or(|kept| telling(kept) <= telling(&error)) {
            self.error = Some(error);
        }
    }
}

impl Future for Race {
    type Output = io::Result<OwnedFd>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            if let Some(fd) = this.poll_attempts(context) {
                // The losers are cancelled, and one that has connected in the meantime is closed.
                this.attempts.clear();
                return Poll::Ready(Ok(fd));
            }
            if this.left.len() == 0 {
                let error = if this.attempts.is_empty() { this.error.take() } else { None };
                return error.map_or(Poll::Pending, |error| Poll::Ready(Err(error)));
            }
            if !this.is_due(context) {
                return Poll::Pending;
            }
            let address = this.left.next().expect("it was counted");
            match connect::begin(address) {
                Ok(attempt) => {
                    this.attempts.push((address, attempt));
                    this.delay = Some(sleep(ATTEMPT_DELAY));
                }
                Err(error) => this.note(error),
            }
        }
    }
}

/// How much an error says about the other end: that there is no way to it is said of the family that
/// the machine does not have, while the other end answers by another.
fn telling(error: &io::Error) -> u32 {
    match error.kind() {
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported => 0,
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => 1,
        _ => 2,
    }
}

/// Says of what address an error of the kernel is.
pub(super) fn explain(address: SocketAddr, error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(_) => io::Error::new(error.kind(), NotConnected { address, error }),
        None => error,
    }
}

#[derive(Debug)]
struct NotConnected {
    address: SocketAddr,
    error: io::Error,
}

impl fmt::Display for NotConnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connecting to {}: {}", self.address, self.error)
    }
}

impl std::error::Error for NotConnected {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns_and_keep_their_own_order() {
        let given = addresses(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"]);
        let wanted = addresses(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"]);
        assert_eq!(interleaved(given), wanted);
        let alone = addresses(&["1.1.1.1:1", "2.2.2.2:1"]);
        assert_eq!(interleaved(alone.clone()), alone);
        let four_first = addresses(&["1.1.1.1:1", "[::1]:1"]);
        assert_eq!(interleaved(four_first.clone()), four_first);
    }

    #[test]
    fn the_most_telling_error_is_kept_and_of_equals_the_last() {
        let mut race = Race::new(Vec::new());
        let error = |errno| io::Error::from_raw_os_error(errno);
        race.note(error(libc::ENETUNREACH));
        race.note(error(libc::ECONNREFUSED));
        race.note(error(libc::ETIMEDOUT));
        race.note(error(libc::EADDRNOTAVAIL));
        race.note(error(libc::EHOSTUNREACH));
        assert_eq!(race.error.unwrap().raw_os_error(), Some(libc::ETIMEDOUT));
    }

    #[test]
    fn an_error_of_the_kernel_names_the_address_and_keeps_its_kind() {
        let address = "127.0.0.1:9".parse().unwrap();
        let error = explain(address, io::Error::from_raw_os_error(libc::ECONNREFUSED));
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(error.to_string().starts_with("connecting to 127.0.0.1:9: "), "{error}");
        let source = std::error::Error::source(error.get_ref().unwrap()).unwrap();
        let source = source.downcast_ref::<io::Error>().unwrap();
        assert_eq!(source.raw_os_error(), Some(libc::ECONNREFUSED));
    }
}
