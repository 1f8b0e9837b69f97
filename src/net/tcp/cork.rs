//! Holding small writes together until a segment is full.

use std::fmt;
use std::io;

use super::TcpStream;
use crate::driver::Call;
use crate::op::Ring;
use crate::sys::current;

/// While it lives, the connection sends only full segments; dropping it sends what is left. See
/// [`TcpStream::cork`].
#[must_use = "the cork is pulled when this is dropped"]
pub struct Cork<'a> {
    stream: &'a TcpStream,
    /// Within another cork this is none of its own.
    holds: bool,
}

impl TcpStream {
    /// Holds small writes together (`TCP_CORK`): until the answer is dropped, only full segments are
    /// sent, whatever [`nodelay`](Self::nodelay) says. So a head, and a body that is written in
    /// pieces, travel in as few segments as they can.
    ///
    /// Dropping it sends what is left at once. Nothing is held for longer than 200 ms, also by a cork
    /// that is forgotten. Corks nest: the outermost counts. It costs
    /// three system calls, so one `write_all_vectored` is better where everything is there already.
    ///
    /// # Errors
    /// What `setsockopt` answers.
    ///
    /// ```
    /// # use quoit::net::{TcpListener, TcpStream};
    /// # quoit::runtime::run(async {
    /// # let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// # let stream = TcpStream::connect(listener.local_addr()?).await?;
    /// let cork = stream.cork()?;
    /// stream.write_all("HTTP/1.1 200 OK\r\n").await?;
    /// stream.write_all("Content-Length: 2\r\n\r\n").await?;
    /// stream.write_all("ok").await?;
    /// drop(cork);
    /// # std::io::Result::Ok(()) }).unwrap().unwrap();
    /// ```
    pub fn cork(&self) -> io::Result<Cork<'_>> {
        let holds = self.get(libc::IPPROTO_TCP, libc::TCP_CORK)? == 0;
        if holds {
            self.set(libc::IPPROTO_TCP, libc::TCP_CORK, 1)?;
        }
        Ok(Cork { stream: self, holds })
    }
}

impl Drop for Cork<'_> {
    fn drop(&mut self) {
        // On another core, or after the end of the runtime, there is nobody to ask; the kernel has
        // its own limit.
        let home = self.stream.fd.home().core;
        if self.holds && current::id() == Some(home) {
            let (level, name) = (libc::IPPROTO_TCP, libc::TCP_CORK);
            let call = Call::SetOption { fd: self.stream.fd.raw(), level, name, value: &[0; 4] };
            // A connection that is gone has nothing left to send.
            let _ = current::with(|ring: &Ring| ring.call(call));
        }
    }
}

impl fmt::Debug for Cork<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cork").field("holds", &self.holds).finish_non_exhaustive()
    }
}
