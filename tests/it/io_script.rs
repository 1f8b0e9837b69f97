//! A stream that is written down beforehand: what comes, in which pieces, and where it lets wait.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use quoit::buf::{BufResult, IoBufMut, PooledBuf};
use quoit::io::AsyncRead;

use crate::numbers::Random;

/// What the next call gets.
#[derive(Debug)]
pub(crate) enum Event {
    Bytes(PooledBuf),
    /// One poll gets nothing.
    Wait,
    Error(io::ErrorKind),
}

/// Behind the last event is the end.
#[derive(Debug, Default)]
pub(crate) struct Script(pub(crate) RefCell<VecDeque<Event>>);

impl Script {
    /// `bytes` in pieces of at most `most`, and sometimes a wait.
    pub(crate) fn cut(bytes: &[u8], most: usize, random: &mut Random) -> Script {
        let script = Script::default();
        let mut rest = bytes;
        while !rest.is_empty() {
            if random.below(3) == 0 {
                script.then(Event::Wait);
            }
            let (piece, later) = rest.split_at(random.size(most).min(rest.len()));
            script.then(Event::Bytes(PooledBuf::copied(piece)));
            rest = later;
        }
        script
    }

    pub(crate) fn then(&self, event: Event) {
        self.0.borrow_mut().push_back(event);
    }

    /// All bytes that have not been read.
    pub(crate) fn rest(&self) -> Vec<u8> {
        let events = self.0.borrow();
        let bytes = events.iter().map(|event| match event {
            Event::Bytes(bytes) => &bytes[..],
            _ => &[],
        });
        bytes.collect::<Vec<_>>().concat()
    }
}

impl AsyncRead for Script {
    fn recv(&self) -> impl Future<Output = io::Result<Option<PooledBuf>>> {
        poll_fn(|_| match self.0.borrow_mut().pop_front() {
            Some(Event::Bytes(bytes)) => Poll::Ready(Ok(Some(bytes))),
            Some(Event::Wait) => Poll::Pending,
            Some(Event::Error(kind)) => Poll::Ready(Err(kind.into())),
            None => Poll::Ready(Ok(None)),
        })
    }

    async fn read<B: IoBufMut>(&self, _: B) -> BufResult<usize, B> {
        unreachable!("what is tested here receives")
    }

    fn unread(&self, bytes: PooledBuf) {
        self.0.borrow_mut().push_front(Event::Bytes(bytes));
    }
}

/// Polls `future` until it is done.
pub(crate) fn drive<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        if let Some(output) = poll_noop(future.as_mut()) {
            return output;
        }
    }
}

/// Polls `future` so often at most, and drops it.
pub(crate) fn try_times<F: Future>(times: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    (0..times).find_map(|_| poll_noop(future.as_mut()))
}

fn poll_noop<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}
