//! Accepting: the operation, and the state of a listener that makes losing connections impossible.

use std::cell::{Cell, OnceCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use io_uring::{opcode, types};

use crate::driver::{Call, Cqe, Sqe};
use crate::net::fellows::Fellow;
use crate::net::options;
use crate::op::{Answers, Multishot, Next, Op};
use crate::sync::turn::Turns;
use crate::sys::fd::{Fd, Home, OwnedFd, Tally};
use crate::sys::guard;
use crate::time::{Instant, sleep_until};

/// Connections that may wait for `accept`; then the kernel's own backlog is used again.
const PARKED_AT_MOST: usize = 256;

/// When the process is out of descriptors, a try costs the kernel little and helps nobody. One that
/// this core closes ends the wait at once, one that others close is found within the longest wait.
const BACKOFF_FIRST: Duration = Duration::from_millis(10);
const BACKOFF_MOST: Duration = Duration::from_millis(40);

/// How often a listener that stops looks at its backlog. As long as connections come, each of them
/// wakes whoever else accepts.
const LAST_LOOKS: u32 = 16;

/// What a listener keeps, beside what its family asks for.
pub(super) struct State<S: 'static> {
    /// It goes when the socket does: once the kernel is done with it, not when the listener is dropped.
    pub(super) family: S,
    /// Which other cores accept from this socket, if they may.
    fellow: Option<Fellow>,
    turns: Turns<1>,
    /// The multishot accept, from the first `accept` on.
    armed: Cell<Option<Answers<AcceptMany<S>>>>,
    backoff: Cell<Duration>,
    limit: OnceCell<Limit>,
}

/// How many connections of a listener may be open.
struct Limit {
    most: Cell<usize>,
    open: Rc<Tally>,
    /// By which its connections name `open`.
    number: u16,
    /// Whoever waits until there are fewer.
    waiting: Rc<Cell<Option<Waker>>>,
}

impl<S: 'static> State<S> {
    pub(super) fn new(family: S) -> Self {
        State::among(None, family)
    }

    /// Accepts from a socket from which other cores accept as well.
    pub(super) fn among(fellow: Option<Fellow>, family: S) -> Self {
        State {
            family,
            fellow,
            turns: Turns::default(),
            armed: Cell::new(None),
            backoff: Cell::new(Duration::ZERO),
            limit: OnceCell::new(),
        }
    }

    /// Accepts no more while so many connections are open. `closed` hears of each that goes.
    pub(super) fn set_most(
        &self,
        home: &Home,
        most: usize,
        closed: impl Fn() + 'static,
    ) -> io::Result<()> {
        if let Some(limit) = self.limit.get() {
            limit.most.set(most);
            limit.waiting.take().into_iter().for_each(guard::wake);
            return Ok(());
        }
        let waiting = Rc::new(Cell::new(None));
        let wakes: Rc<Cell<Option<Waker>>> = Rc::clone(&waiting);
        let open = Tally::new(move || {
            wakes.take().into_iter().for_each(guard::wake);
            closed();
        });
        let number = home.register(&open)?;
        let limit = Limit { most: Cell::new(most), open, number, waiting };
        assert!(self.limit.set(limit).is_ok(), "there was none a moment ago");
        Ok(())
    }

    /// Connections that are open of those that were accepted since there is a limit.
    pub(super) fn open(&self) -> usize {
        self.limit.get().map_or(0, |limit| limit.open.open())
    }

    fn has_room_beside(&self, coming: usize) -> bool {
        self.limit.get().is_none_or(|limit| limit.open.open() + coming < limit.most.get())
    }

    /// Waits until there are fewer connections.
    fn poll_room(&self, context: &mut Context<'_>) -> Poll<()> {
        match self.limit.get() {
            Some(limit) if !self.has_room_beside(0) => {
                let waker = context.waker().clone();
                guard::discard(limit.waiting.replace(Some(waker)));
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    /// Counts a connection that goes on as a stream of this listener.
    pub(super) fn count(&self, connection: &OwnedFd) {
        if let Some(limit) = self.limit.get() {
            connection.count_for(limit.number);
        }
    }

    fn is_armed(&self) -> bool {
        let armed = self.armed.take();
        let is_armed = armed.is_some();
        self.armed.set(armed);
        is_armed
    }

    /// Has the accept end, after all that it brings. If it has been asked already, nothing changes.
    fn cancel(&self) {
        if let Some(answers) = self.armed.take() {
            answers.cancel();
            self.armed.set(Some(answers));
        }
    }

    /// Ends the accept, whose listener is gone; waiting connections are closed.
    pub(super) fn disarm(&self) {
        drop(self.armed.take());
    }
}

/// The next connection. Dropping it loses none: they wait in the listener.
pub(super) async fn accept<S: 'static>(fd: &Fd<State<S>>) -> io::Result<OwnedFd> {
    fd.turns.turn(0).take().await;
    let accepting = Accepting(fd);
    loop {
        match poll_fn(|context| accepting.poll(context)).await {
            Ended::Connection(connection) => {
                fd.backoff.set(Duration::ZERO);
                return Ok(connection);
            }
            Ended::Error(error) => match Fault::of(&error) {
                Fault::OfThePeer => {}
                Fault::Shortage => back_off(fd).await,
                Fault::OfTheListener => return Err(error),
            },
            Ended::Stopped => {}
        }
    }
}

/// Ends accepting, and gives out the connections that had been accepted and not taken. If it ends
/// well, no accept of another process waits beside a connection whose wake has come here.
pub(super) async fn stop<S: 'static>(fd: &Fd<State<S>>) -> Vec<OwnedFd> {
    fd.turns.turn(0).take().await;
    let accepting = Accepting(fd);
    let mut connections = Vec::new();
    for _ in 0..LAST_LOOKS {
        while fd.is_armed() {
            fd.cancel();
            match poll_fn(|context| accepting.poll_armed(context)).await {
                Ended::Connection(connection) => connections.push(connection),
                Ended::Error(_) | Ended::Stopped => {}
            }
        }
        let waits = Call::Backlog { fd: fd.raw() };
        if !matches!(options::ring("a listener", |ring| ring.call(waits)), Ok(1)) {
            break;
        }
        // It takes what waits, and is cancelled in the same lap.
        match poll_fn(|context| Poll::Ready(accepting.arm(context))).await {
            Some(Ended::Connection(connection)) => connections.push(connection),
            Some(Ended::Error(_)) => break,
            Some(Ended::Stopped) | None => {}
        }
    }
    connections
}

/// Whose fault it is that an accept failed.
enum Fault {
    /// That connection is gone; the next may be well.
    OfThePeer,
    /// The process or the machine is out of something; the connection waits in the backlog.
    Shortage,
    OfTheListener,
}

impl Fault {
    fn of(error: &io::Error) -> Fault {
        match error.raw_os_error() {
            Some(
                libc::ECONNABORTED
                | libc::EPROTO
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::ETIMEDOUT
                | libc::EPERM,
            ) => Fault::OfThePeer,
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => Fault::Shortage,
            _ => Fault::OfTheListener,
        }
    }
}

async fn back_off<S: 'static>(fd: &Fd<State<S>>) {
    let wait = (fd.backoff.get() * 2).clamp(BACKOFF_FIRST, BACKOFF_MOST);
    fd.backoff.set(wait);
    let mut later = pin!(sleep_until(Instant::now() + wait));
    let mut listening = false;
    poll_fn(|context| {
        // The second poll follows a wake: it is time, or this core has closed a descriptor.
        if later.as_mut().poll(context).is_ready() || listening {
            return Poll::Ready(());
        }
        listening = true;
        options::ring("accept", |ring| ring.wake_on_close(context.waker()));
        Poll::Pending
    })
    .await;
}

struct Accepting<'a, S: 'static>(&'a Fd<State<S>>);

impl<S: 'static> Accepting<'_, S> {
    fn poll(&self, context: &mut Context<'_>) -> Poll<Ended> {
        if !self.0.is_armed() {
            ready!(self.0.poll_room(context));
            if let Some(ended) = self.arm(context) {
                return Poll::Ready(ended);
            }
        }
        if self.0.fellow.as_ref().is_some_and(|fellow| fellow.looks_again(context)) {
            self.0.cancel();
        }
        self.poll_armed(context)
    }

    /// Begins to accept; `Some` if that fails.
    fn arm(&self, context: &mut Context<'_>) -> Option<Ended> {
        let accept = AcceptMany { fd: self.0.clone(), has_fellows: false, parked: VecDeque::new() };
        match Answers::start(accept, context) {
            Ok(answers) => {
                self.0.armed.set(Some(answers));
                None
            }
            Err(ended) => Some(ended),
        }
    }

    /// Takes what the accept has brought, or its end.
    fn poll_armed(&self, context: &mut Context<'_>) -> Poll<Ended> {
        let armed = &self.0.armed;
        let answers = armed.take().expect("the accept was started");
        match answers.poll_in(armed, context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Next::Item(connection)) => Poll::Ready(Ended::Connection(connection)),
            Poll::Ready(Next::End(ended)) => Poll::Ready(ended),
        }
    }
}

impl<S: 'static> Drop for Accepting<'_, S> {
    fn drop(&mut self) {
        self.0.turns.turn(0).release();
    }
}

/// `IORING_OP_ACCEPT` with `ACCEPT_MULTISHOT`, kernel 5.19. It does not ask for the peer's address:
/// there is one place for it, and the next connection would overwrite it.
///
/// It accepts one after the other, kernel 5.5, with a limit: a multishot one would go on until its
/// cancel, and the limit is exact. And beside other cores: a multishot one that waits gets the wakes
/// of all connections, however busy its core is.
struct AcceptMany<S: 'static> {
    fd: Fd<State<S>>,
    /// Other cores accept as well: each takes a connection only when it is asked to.
    has_fellows: bool,
    parked: VecDeque<OwnedFd>,
}

/// What a multishot accept brings, or why it ended.
enum Ended {
    Connection(OwnedFd),
    Error(io::Error),
    Stopped,
}

impl<S: 'static> AcceptMany<S> {
    fn park(&mut self, cqe: Cqe) {
        if cqe.result >= 0 {
            let connection = self.connection(cqe.result);
            self.parked.push_back(connection);
        }
    }

    fn connection(&self, raw: i32) -> OwnedFd {
        let connection = OwnedFd::new(raw, self.fd.home().clone());
        self.fd.count(&connection);
        connection
    }

    /// Whether one more may be accepted beside those that are there and `coming`.
    fn goes_on(&self, coming: usize) -> bool {
        !self.has_fellows
            && self.parked.len() + coming < PARKED_AT_MOST
            && self.fd.has_room_beside(coming)
    }
}

// SAFETY: I2: the request points at nothing, and `fd` keeps the descriptor open.
unsafe impl<S: 'static> Op for AcceptMany<S> {
    type Output = Ended;

    fn prepare(&mut self) -> Sqe {
        let fd = types::Fd(self.fd.raw());
        self.has_fellows = self.fd.fellow.as_ref().is_some_and(|fellow| !fellow.is_alone());
        if self.has_fellows || self.fd.limit.get().is_some() {
            let (address, len) = (std::ptr::null_mut(), std::ptr::null_mut());
            return opcode::Accept::new(fd, address, len).flags(libc::SOCK_CLOEXEC).build();
        }
        opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC).build()
    }

    fn more(&mut self, cqe: Cqe) -> bool {
        self.park(cqe);
        self.goes_on(0)
    }

    fn again(&mut self, cqe: &Cqe) -> bool {
        // It ended with a connection and without an error, or was interrupted.
        let goes_on = cqe.result == -libc::EINTR || (cqe.result >= 0 && self.goes_on(1));
        if goes_on {
            self.park(*cqe);
        }
        goes_on
    }

    fn complete(self, cqe: Cqe) -> Ended {
        match cqe.result() {
            Ok(raw) => Ended::Connection(self.connection(raw as i32)),
            Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => Ended::Stopped,
            Err(error) => Ended::Error(error),
        }
    }

    #[cfg(canary = "drop-cancelled-descriptor")]
    fn abandon(self, cqe: Cqe) {
        std::mem::forget(self.complete(cqe));
    }
}

impl<S: 'static> Multishot for AcceptMany<S> {
    type Item = OwnedFd;

    fn pop(&mut self) -> Option<OwnedFd> {
        self.parked.pop_front()
    }
}
