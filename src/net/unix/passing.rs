//! Descriptors that travel with the bytes of a stream.

use std::cell::{Cell, OnceCell};
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::rc::Rc;

use super::message::{
    ReceiveMessage, Received, Receiver, SendMessage, Sender, Shelf, descriptors_lost,
};
use crate::buf::{BufError, Filling, IoBuf, IoBufMut};
use crate::driver::Cqe;
use crate::net::stream::State;
use crate::net::stream::receive::{Reading, no_capacity};
use crate::net::stream::send::Writing;
use crate::op::{Submission, event_of};
use crate::sys::fd::Fd;
use crate::sys::overdue::{timed_out, unless_overdue};

/// What a stream keeps for those that pass descriptors; most never do.
#[derive(Default)]
pub(super) struct Passing(OnceCell<Rc<Kept>>);

#[derive(Default)]
struct Kept {
    shelf: Shelf,
    fds: Cell<Option<Descriptors>>,
}

/// Descriptors that came with bytes for nobody.
struct Descriptors {
    fds: Vec<OwnedFd>,
    are_cut: bool,
    /// How many bytes were unread when they came: if there are fewer, those that they came with have
    /// been read by somebody who did not ask for descriptors.
    unread: usize,
}

impl Passing {
    fn kept(&self) -> Rc<Kept> {
        Rc::clone(self.0.get_or_init(Rc::default))
    }
}

/// The turn to receive from a stream, with its descriptors.
struct Receiving {
    reading: Reading,
    kept: Rc<Kept>,
}

impl Receiver for Receiving {
    const FLAGS: i32 = 0;

    fn raw(&self) -> RawFd {
        self.reading.fd().raw()
    }

    fn shelf(&self) -> &Shelf {
        &self.kept.shelf
    }

    fn keep(&self, bytes: &[u8], received: Received) {
        let stream = self.reading.fd();
        stream.give_back(bytes);
        let (fds, are_cut) = (received.enclosed.fds, received.enclosed.is_cut);
        if !fds.is_empty() || are_cut {
            let unread = stream.unread_len();
            self.kept.fds.set(Some(Descriptors { fds, are_cut, unread }));
        }
    }
}

impl Receiving {
    /// Takes what a dropped receive has left, if it has.
    fn take_kept<B: IoBufMut>(&self, filling: &mut Filling<B>) -> Option<Descriptors> {
        let stream = self.reading.fd();
        let unread = stream.unread_len();
        let kept = self.kept.fds.take().filter(|kept| kept.unread <= unread);
        let mut bytes = stream.pop_unread()?;
        let copied = filling.copy(&bytes);
        bytes.advance(copied);
        if !bytes.is_empty() {
            stream.return_unread(bytes);
        }
        Some(kept.unwrap_or(Descriptors { fds: Vec::new(), are_cut: false, unread: 0 }))
    }
}

/// Receives bytes, and the descriptors that came with them.
pub(super) async fn receive<B: IoBufMut>(
    fd: &Fd<State>,
    passing: &Passing,
    buf: B,
) -> Result<(usize, B, Vec<OwnedFd>), BufError<B>> {
    if buf.buf_capacity() == 0 {
        return Err(BufError { error: no_capacity(), buf, done: 0 });
    }
    let Some(reading) = unless_overdue(Reading::take(fd)).await else {
        return Err(BufError { error: timed_out(), buf, done: 0 });
    };
    let receiving = Receiving { reading, kept: passing.kept() };
    let mut filling = Filling::new(buf);
    let (fds, are_cut) = if let Some(kept) = receiving.take_kept(&mut filling) {
        (kept.fds, kept.are_cut)
    } else if fd.inbound.is_armed() {
        return Err(BufError { error: is_armed(), buf: filling.give_up(), done: 0 });
    } else {
        let receive = ReceiveMessage::new(receiving, filling, true);
        let received;
        (_, filling, received) = Submission::new(receive).await;
        match received {
            Ok(received) => (received.enclosed.fds, received.enclosed.is_cut),
            Err(error) => return Err(BufError { error, buf: filling.give_up(), done: 0 }),
        }
    };
    let done = filling.done();
    let buf = filling.finish();
    if are_cut {
        return Err(BufError { error: descriptors_lost(), buf, done });
    }
    Ok((done, buf, fds))
}

fn is_armed() -> io::Error {
    let text = "`recv` or `read_vectored` was called on this stream before, and the receive that they \
                started goes on: descriptors would be lost to it; use `read` beside `recv_with_fds`";
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// The turn to send to a stream, with descriptors.
struct Sending {
    writing: Writing,
    kept: Rc<Kept>,
}

impl Sender for Sending {
    fn raw(&self) -> RawFd {
        self.writing.raw()
    }

    fn shelf(&self) -> &Shelf {
        &self.kept.shelf
    }

    fn count(&self, cqe: &Cqe, left: usize) -> io::Result<usize> {
        self.writing.count(cqe, left)
    }
}

/// Sends all of `buf`, and `fds` with its first byte.
pub(super) async fn send<B: IoBuf>(
    fd: &Fd<State>,
    passing: &Passing,
    buf: B,
    fds: io::Result<Vec<OwnedFd>>,
) -> Result<B, BufError<B>> {
    let fds = match fds {
        Ok(fds) => fds,
        Err(error) => return Err(BufError { error, buf, done: 0 }),
    };
    if buf.buf_len() == 0 {
        let text = "descriptors travel with bytes: one byte at least has to go along";
        let error = io::Error::new(io::ErrorKind::InvalidInput, text);
        return Err(BufError { error, buf, done: 0 });
    }
    let Some(writing) = unless_overdue(Writing::take(fd)).await else {
        return Err(BufError { error: timed_out(), buf, done: 0 });
    };
    let sending = Sending { writing, kept: passing.kept() };
    let mut send = SendMessage::new(sending, buf, None, fds);
    let result = loop {
        let sent;
        (send, sent) = Submission::new(send).await;
        match sent {
            Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
            Ok(_) if send.is_done() => break Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if let Err(error) = event_of(fd, libc::POLLOUT).await {
                    break Err(error);
                }
            }
            Err(error) => break Err(error),
        }
    };
    let done = send.done();
    let (_, buf) = send.finish();
    match result {
        Ok(()) => Ok(buf),
        Err(error) => Err(BufError { error, buf, done }),
    }
}
