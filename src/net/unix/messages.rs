//! A socket that keeps the boundaries of messages: what datagrams and packets have in common.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::io;
use std::net::Shutdown;
use std::os::fd::{OwnedFd, RawFd};
use std::time::Duration;

use super::message::{
    ReceiveMessage, Received, Receiver, SendMessage, Sender, Shelf, descriptors_lost,
};
use crate::buf::{BufError, Filling, IoBuf, IoBufMut, moved};
use crate::driver::Cqe;
use crate::net::options;
use crate::op::{Submission, event_of};
use crate::sync::turn::Turns;
use crate::sys::envelope::Enclosed;
use crate::sys::fd::{self, Fd};
use crate::sys::overdue::{timed_out, unless_overdue};
use crate::sys::unix_addr::UnixAddress;
use crate::time::sleep;

/// No kernel tells when the queue of somebody has room to whom a socket is not connected.
const FIRST_PAUSE: Duration = Duration::from_micros(500);
const LONGEST_PAUSE: Duration = Duration::from_millis(16);

const READING: usize = 0;
const WRITING: usize = 1;

/// The inner error of a receive whose buffer was too small: the rest of the message is lost.
///
/// Its kind is `InvalidData`, and the first bytes of the message are in the buffer that comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageTruncated {
    /// Bytes that the whole message had.
    pub len: usize,
}

impl fmt::Display for MessageTruncated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let len = self.len;
        write!(f, "a message of {len} bytes was cut to the buffer; receive into one of that size")
    }
}

impl Error for MessageTruncated {}

/// What the socket keeps, for its handle and for the operations in flight.
#[derive(Default)]
pub(super) struct State {
    turns: Turns<2, Unread>,
    shelf: Shelf,
}

/// Messages that arrived for nobody, oldest first.
#[derive(Default)]
struct Unread(VecDeque<(Vec<u8>, Received)>);

/// A socket that keeps the boundaries of messages.
pub(super) struct Messages {
    pub(super) fd: Fd<State>,
}

/// What was received beside the bytes.
pub(super) struct Beside {
    pub(super) from: UnixAddress,
    pub(super) fds: Vec<OwnedFd>,
}

impl Messages {
    pub(super) fn new(fd: fd::OwnedFd) -> Self {
        Messages { fd: Fd::new(fd, State::default()) }
    }

    /// The next message, with its descriptors if they are asked for.
    pub(super) async fn receive<B: IoBufMut>(
        &self,
        buf: B,
        fds: bool,
    ) -> Result<(usize, B, Beside), BufError<B>> {
        if buf.buf_capacity() == 0 {
            let text = "a message that is received into a buffer without capacity would be lost";
            let error = io::Error::new(io::ErrorKind::InvalidInput, text);
            return Err(BufError { error, buf, done: 0 });
        }
        if unless_overdue(self.fd.turns.turn(READING).take()).await.is_none() {
            return Err(BufError { error: timed_out(), buf, done: 0 });
        }
        let reading = Reading(self.fd.clone());
        let mut filling = Filling::new(buf);
        let unread = self.fd.turns.if_any(|Unread(unread)| unread.pop_front());
        let received = match unread {
            Some((bytes, received)) => {
                filling.copy(&bytes);
                received
            }
            None => {
                let received;
                let receive = ReceiveMessage::new(reading, filling, fds);
                (_, filling, received) = Submission::new(receive).await;
                match received {
                    Ok(received) => received,
                    Err(error) => return Err(BufError { error, buf: filling.give_up(), done: 0 }),
                }
            }
        };
        let done = filling.done();
        let buf = filling.finish();
        let Received { len, enclosed: Enclosed { from, fds: enclosed, is_cut } } = received;
        if len > done {
            let truncated = MessageTruncated { len };
            let error = io::Error::new(io::ErrorKind::InvalidData, truncated);
            return Err(BufError { error, buf, done });
        }
        if fds && is_cut {
            return Err(BufError { error: descriptors_lost(), buf, done });
        }
        Ok((done, buf, Beside { from, fds: if fds { enclosed } else { Vec::new() } }))
    }

    /// Sends a message. To whom this is connected, in the order of the calls; to an address, without
    /// a turn, because one whose queue is full would keep all others waiting.
    pub(super) async fn send<B: IoBuf>(
        &self,
        buf: B,
        to: Option<UnixAddress>,
        fds: io::Result<Vec<OwnedFd>>,
    ) -> Result<B, BufError<B>> {
        let fds = match fds {
            Ok(fds) => fds,
            Err(error) => return Err(BufError { error, buf, done: 0 }),
        };
        if to.is_none() && unless_overdue(self.fd.turns.turn(WRITING).take()).await.is_none() {
            return Err(BufError { error: timed_out(), buf, done: 0 });
        }
        let sending = Sending { fd: self.fd.clone(), in_turn: to.is_none() };
        let whole = buf.buf_len();
        let mut send = SendMessage::new(sending, buf, to, fds);
        let mut pause = FIRST_PAUSE;
        let result = loop {
            let sent;
            (send, sent) = Submission::new(send).await;
            match sent {
                Ok(sent) if sent == whole => break Ok(()),
                // The kernel takes a message whole or not at all.
                Ok(_) => break Err(io::ErrorKind::WriteZero.into()),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => break Err(error),
                Err(_) if to.is_none() => {
                    if let Err(error) = event_of(&self.fd, libc::POLLOUT).await {
                        break Err(error);
                    }
                }
                Err(_) => {
                    if unless_overdue(sleep(pause)).await.is_none() {
                        break Err(timed_out());
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        };
        let done = send.done();
        let (_, buf) = send.finish();
        match result {
            Ok(()) => Ok(buf),
            Err(error) => Err(BufError { error, buf, done }),
        }
    }

    pub(super) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        options::shutdown(&self.fd, how)
    }

    pub(super) async fn close(self) -> io::Result<()> {
        self.fd.alone().await.close()
    }
}

/// The turn to receive.
struct Reading(Fd<State>);

impl Receiver for Reading {
    /// Tells how long a message was that found too little room.
    const FLAGS: i32 = libc::MSG_TRUNC;

    fn raw(&self) -> RawFd {
        self.0.raw()
    }

    fn shelf(&self) -> &Shelf {
        &self.0.shelf
    }

    fn keep(&self, bytes: &[u8], received: Received) {
        let message = (bytes.to_vec(), received);
        self.0.turns.with_rest(|Unread(unread)| unread.push_back(message));
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.turns.turn(READING).release();
    }
}

/// A send, with its turn if it has one.
struct Sending {
    fd: Fd<State>,
    in_turn: bool,
}

impl Sender for Sending {
    fn raw(&self) -> RawFd {
        self.fd.raw()
    }

    fn shelf(&self) -> &Shelf {
        &self.fd.shelf
    }

    fn count(&self, cqe: &Cqe, left: usize) -> io::Result<usize> {
        moved(cqe, left)
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if self.in_turn {
            self.fd.turns.turn(WRITING).release();
        }
    }
}
