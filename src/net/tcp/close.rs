//! How a connection ends: in order, by force, in one direction, or with patience.
//!
//! | | what was written | what the peer sees |
//! |---|---|---|
//! | `close`, or dropping the stream | is still sent | the end; a reset if something had arrived that nobody had read |
//! | `reset` | is thrown away where it has not arrived | `ConnectionReset` |
//! | `shutdown(Write)` | is still sent | the end; it can still send |
//! | `shutdown(Read)` | is not concerned | nothing |
//! | `linger` | is still sent | the end, and no reset while it goes on sending |

use std::io;
use std::net::Shutdown;
use std::time::Duration;

use super::TcpStream;
use crate::time::{Instant, timeout_at};

impl TcpStream {
    /// Closes the connection by force: the peer sees `ConnectionReset`, and what was written and has
    /// not arrived is thrown away. Nothing of the connection stays behind (no `TIME_WAIT`).
    ///
    /// # Errors
    /// What `setsockopt` and `close` answer; the descriptor is closed all the same.
    ///
    /// ```
    /// # use quoit::net::{TcpListener, TcpStream};
    /// # quoit::runtime::run(async {
    /// # let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// # let stream = TcpStream::connect(listener.local_addr()?).await?;
    /// # let (peer, _) = listener.accept().await?;
    /// stream.reset().await?;
    /// assert_eq!(peer.recv().await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    /// # std::io::Result::Ok(()) }).unwrap().unwrap();
    /// ```
    pub async fn reset(self) -> io::Result<()> {
        let asked = self.set_reset_on_close(true);
        self.close().await.and(asked)
    }

    /// Closes the connection in order although the peer may still be sending: ends this direction,
    /// throws away what arrives until the peer ends its own, and closes. True if it did so within
    /// `patience`; then it has read everything or given up.
    ///
    /// A server that answers before it has read all of a request needs this: a plain
    /// [`close`](Self::close) would reset the connection, and the peer could lose the answer.
    ///
    /// Dropping the future closes the connection at once.
    ///
    /// # Errors
    /// What the connection ended with, such as `ConnectionReset`; it is closed all the same.
    ///
    /// ```
    /// # use quoit::net::{TcpListener, TcpStream};
    /// # use std::time::Duration;
    /// # quoit::runtime::run(async {
    /// # let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// # let client = TcpStream::connect(listener.local_addr()?).await?;
    /// # let (stream, _) = listener.accept().await?;
    /// # client.write_all("a request that nobody reads").await?;
    /// # client.shutdown(std::net::Shutdown::Write)?;
    /// stream.write_all("no").await?;
    /// assert!(stream.linger(Duration::from_secs(5)).await?);
    /// # assert_eq!(client.read_exact(vec![0; 2]).await?, b"no");
    /// # std::io::Result::Ok(()) }).unwrap().unwrap();
    /// ```
    pub async fn linger(self, patience: Duration) -> io::Result<bool> {
        self.shutdown(Shutdown::Write)?;
        let deadline = Instant::now() + patience;
        let ended = loop {
            match timeout_at(deadline, self.recv()).await {
                Ok(Ok(Some(_))) => {}
                Ok(Ok(None)) => break true,
                Ok(Err(error)) => return Err(error),
                Err(_) => break false,
            }
        };
        self.close().await.map(|()| ended)
    }
}
