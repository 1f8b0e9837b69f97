//! One socket for the cores that were started together: all accept from it, or one of them for all.
//!
//! ```text
//!   shared        each core has a number of its own for the socket, and accepts from it
//!
//!   distributed   the leader's task ──accept──▶ the mail of the core at which the fewest wait
//!                 each core's `accept` takes from its mail
//! ```
//!
//! The first core that calls `accept` becomes the leader. When its listener goes, what waits in its
//! mail is given to the others; when its task has gone, and the kernel is done with its accept, the
//! next of them that calls leads. Never two at a time: an accept that is cancelled may have been woken
//! for a connection, of which the other one would not hear.

use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::RawFd;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::listener::Claim;
use crate::driver::Call;
use crate::net::accept::{self, State};
use crate::net::fellows::{Fellow, Fellows};
use crate::net::options;
use crate::op::{self, Parcel};
use crate::sync::turn::Turns;
use crate::sys::atomic::Arc;
use crate::sys::current;
use crate::sys::fd::{Fd, OwnedFd};
use crate::sys::fork::forked;
use crate::sys::guard;
use crate::task::spawn;

/// Connections that may wait at a core until the leader stops handing them out.
const MAIL_AT_MOST: usize = 256;

/// As for the sockets of one core each (`ports`): the cores that were started together, an address as
/// the user wrote it, and for the how-manieth time a core asks for it.
type Wish = (u64, SocketAddr, u32);

/// Sockets that the process was born with are counted from here.
const INHERITED: u32 = 1 << 31;

static ALL: Mutex<BTreeMap<Wish, Arc<Common>>> = Mutex::new(BTreeMap::new());

fn all() -> MutexGuard<'static, BTreeMap<Wish, Arc<Common>>> {
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the cores know of their socket.
struct Common {
    /// What the wish has become.
    address: SocketAddr,
    distributed: bool,
    /// Those that accept by themselves.
    fellows: Arc<Fellows>,
    seats: Mutex<Seats>,
}

struct Seats {
    seats: Vec<Seat>,
    next_number: u64,
    /// Who accepts for all, until the kernel is done with that.
    leader: Option<Leader>,
    /// The leader's task, which hears when it is to end, and, if it waits for that, when there is
    /// room.
    pump: Option<Waker>,
    full: bool,
    /// Where the search for the shortest queue begins.
    turn: usize,
    /// The listener is useless.
    failed: Option<(io::ErrorKind, String)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Leader {
    number: u64,
    core: u64,
}

struct Seat {
    number: u64,
    core: u64,
    /// The core's number for the socket, open as long as the seat is here.
    fd: RawFd,
    /// The listener is in use; its socket may live on a little.
    listening: bool,
    mail: VecDeque<Parcel>,
    waker: Option<Waker>,
    /// It will not lead (again).
    finishing: bool,
    most: usize,
    /// Counted only under a limit.
    open: usize,
    is_limited: bool,
}

impl Seat {
    fn has_room(&self) -> bool {
        self.mail.len() < MAIL_AT_MOST && self.mail.len() + self.open < self.most
    }
}

impl Common {
    fn lock(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seats {
    fn seat(&mut self, number: u64) -> Option<&mut Seat> {
        self.seats.iter_mut().find(|seat| seat.number == number)
    }

    fn is_led_by(&self, number: u64) -> bool {
        self.leader.is_some_and(|leader| leader.number == number)
    }

    /// Whether no number for the socket is left.
    fn is_deserted(&self) -> bool {
        self.seats.is_empty() && self.leader.is_none()
    }

    /// The leader's task, if it waits for room.
    fn made_room(&mut self) -> Option<Waker> {
        if std::mem::take(&mut self.full) { self.pump.take() } else { None }
    }

    /// Puts a connection into the shortest mail, of those with room if there are any. Gives it back
    /// when nobody listens any more, and otherwise says whom to wake.
    fn hand(&mut self, parcel: Parcel) -> Result<Option<Waker>, Parcel> {
        let count = self.seats.len();
        let from = self.turn;
        let in_turn = (0..count).map(|step| (from + step) % count);
        let listening = in_turn.filter(|&place| self.seats[place].listening);
        let shortest = listening.min_by_key(|&place| {
            let seat = &self.seats[place];
            (!seat.has_room(), seat.mail.len())
        });
        let Some(place) = shortest else { return Err(parcel) };
        self.turn = (place + 1) % count;
        let seat = &mut self.seats[place];
        seat.mail.push_back(parcel);
        Ok(seat.waker.take())
    }
}

/// A core's seat, for as long as its socket is open.
pub(super) struct Member {
    wish: Wish,
    common: Arc<Common>,
    number: u64,
    turns: Turns<1>,
}

impl Member {
    /// Joins the cores that have the socket, or binds it as the first.
    pub(super) fn join(
        wanted: SocketAddr,
        distributed: bool,
        bind: impl FnOnce() -> io::Result<(OwnedFd, SocketAddr)>,
    ) -> io::Result<(OwnedFd, Member)> {
        Member::join_as((wanted, 0), distributed, bind)
    }

    /// It among those that accept by themselves, if they do.
    pub(super) fn fellow(&self) -> Option<Fellow> {
        (!self.is_distributed()).then(|| Fellow::join(&self.common.fellows, self.number))
    }

    /// Joins the cores that have a socket that the process was born with, or takes it as the first;
    /// `None` if it has gone.
    pub(super) fn join_inherited(
        index: usize,
        place: &mut Option<std::os::fd::OwnedFd>,
    ) -> io::Result<Option<(OwnedFd, Member)>> {
        // No address that anybody could bind, so that it is nobody else's wish.
        let wanted = (Ipv4Addr::UNSPECIFIED, 1).into();
        let number = INHERITED + u32::try_from(index).expect("there are few");
        let mut is_gone = false;
        let joined = Member::join_as((wanted, number), false, || match place.take() {
            Some(fd) => Ok((adopt(fd)?, wanted)),
            None => {
                is_gone = true;
                Err(io::ErrorKind::NotFound.into())
            }
        });
        match joined {
            Err(_) if is_gone => Ok(None),
            joined => joined.map(Some),
        }
    }

    fn join_as(
        (wanted, number): (SocketAddr, u32),
        distributed: bool,
        bind: impl FnOnce() -> io::Result<(OwnedFd, SocketAddr)>,
    ) -> io::Result<(OwnedFd, Member)> {
        let here = current::core(|core| (core.group, core.id));
        let (group, core) = here.unwrap_or_else(|| op::outside("TcpListener::bind_with"));
        // Held while binding: the cores come one after the other.
        let mut all = all();
        let mut wish = (group, wanted, number);
        let is_taken = |common: &Arc<Common>| {
            let seats = common.lock();
            seats.seats.iter().any(|seat| seat.core == core && seat.listening)
        };
        while wanted.port() == 0 && all.get(&wish).is_some_and(is_taken) {
            wish.2 += 1;
        }
        let (common, fd) = match all.get(&wish) {
            Some(common) if is_taken(common) => {
                let text = format!("this core listens on {wanted} already; share that listener");
                return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
            }
            Some(common) if common.distributed != distributed => {
                let text = format!("another core has bound {wanted} in another mode of accepting");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
            Some(common) if common.lock().seats.is_empty() => {
                let text = format!("the last listener on {wanted} is being closed; try again");
                return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
            }
            Some(common) => {
                // Its core closes it after the seat is gone, for which it needs the lock.
                let theirs = common.lock().seats[0].fd;
                (Arc::clone(common), duplicate(theirs)?)
            }
            None => {
                let seats = Seats {
                    seats: Vec::new(),
                    next_number: 0,
                    leader: None,
                    pump: None,
                    full: false,
                    turn: 0,
                    failed: None,
                };
                let (fd, address) = bind()?;
                let (fellows, seats) = (Arc::default(), Mutex::new(seats));
                (Arc::new(Common { address, distributed, fellows, seats }), fd)
            }
        };
        let mut seats = common.lock();
        let number = seats.next_number;
        seats.next_number += 1;
        seats.seats.push(Seat {
            number,
            core,
            fd: fd.raw(),
            listening: true,
            mail: VecDeque::new(),
            waker: None,
            finishing: false,
            most: usize::MAX,
            open: 0,
            is_limited: false,
        });
        drop(seats);
        all.insert(wish, Arc::clone(&common));
        Ok((fd, Member { wish, common, number, turns: Turns::default() }))
    }

    /// Stops taking part, and gives out the connections that were for this core. If it leads, those
    /// that its task has accepted are handed out first, to itself as well.
    pub(super) async fn finish(&self) -> Vec<OwnedFd> {
        self.turns.turn(0).take().await;
        let turn = Taking(self);
        poll_fn(|context| {
            let waker = context.waker().clone();
            let mut seats = self.common.lock();
            let goes_on = seats.is_led_by(self.number);
            let leader = if goes_on { seats.pump.take() } else { None };
            let seat = seats.seat(self.number).expect("a listener has its seat");
            seat.finishing = true;
            let displaced = if goes_on { seat.waker.replace(waker) } else { Some(waker) };
            drop(seats);
            guard::discard(displaced);
            leader.into_iter().for_each(guard::wake);
            if goes_on { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
        let mut seats = self.common.lock();
        let seat = seats.seat(self.number).expect("a listener has its seat");
        seat.listening = false;
        let mail = std::mem::take(&mut seat.mail);
        drop(seats);
        drop(turn);
        mail.into_iter().filter_map(|parcel| parcel.open().ok()).collect()
    }

    /// Whether a socket of a listener that `core` has dropped is still open there.
    pub(super) fn is_leaving(core: u64, wanted: SocketAddr) -> bool {
        let all = all();
        let same = |wish: &Wish, common: &Common| {
            wish.1 == wanted || (wanted.port() != 0 && common.address.port() == wanted.port())
        };
        let mut all_same = all.iter().filter(|(wish, common)| same(wish, common));
        all_same.any(|(_, common)| {
            let seats = common.lock();
            let lingers = seats.seats.iter().any(|seat| seat.core == core);
            // Where another core listens, the address is shared with it and not bound anew.
            seats.seats.iter().all(|seat| !seat.listening)
                && (lingers || seats.leader.is_some_and(|leader| leader.core == core))
        })
    }

    pub(super) fn is_distributed(&self) -> bool {
        self.common.distributed
    }

    /// Lets no more than `most` connections be open here. What it returns is called for each that is
    /// closed.
    pub(super) fn limit(&self, most: usize) -> impl Fn() + 'static {
        let mut seats = self.common.lock();
        if let Some(seat) = seats.seat(self.number) {
            (seat.most, seat.is_limited) = (most, true);
        }
        let pump = seats.made_room();
        drop(seats);
        pump.into_iter().for_each(guard::wake);
        let (common, number) = (Arc::clone(&self.common), self.number);
        move || {
            if forked() {
                return;
            }
            let mut seats = common.lock();
            if let Some(seat) = seats.seat(number) {
                seat.open = seat.open.saturating_sub(1);
            }
            let pump = seats.made_room();
            drop(seats);
            pump.into_iter().for_each(guard::wake);
        }
    }

    /// The next connection that was handed to this core. Dropping it loses none.
    pub(super) async fn next(&self, fd: &Fd<State<Claim>>) -> io::Result<OwnedFd> {
        self.turns.turn(0).take().await;
        let taking = Taking(self);
        let parcel = poll_fn(|context| taking.poll(fd, context)).await?;
        let connection = parcel.open().unwrap_or_else(|_| op::outside("TcpListener::accept"));
        fd.count(&connection);
        Ok(connection)
    }

    /// Begins to accept for all.
    fn lead(&self, fd: &Fd<State<Claim>>) -> io::Result<()> {
        let common = Arc::clone(&self.common);
        let leading = Leading { wish: self.wish, common, number: self.number };
        // A number of its own: it goes on accepting for the others until it has noticed the end.
        let own = duplicate(fd.raw())?;
        let pump = Pump { fd: Fd::new(own, State::new(Claim::Leading(leading))) };
        drop(spawn(pump.run(Arc::clone(&self.common), self.number)));
        Ok(())
    }

    /// The listener is gone; its socket follows when the kernel is done with it.
    pub(super) fn retire(&self) {
        if forked() {
            // A thread of the parent may have held the lock.
            return;
        }
        let mut seats = self.common.lock();
        let Some(seat) = seats.seat(self.number) else { return };
        seat.listening = false;
        let (mail, mine) = (std::mem::take(&mut seat.mail), seat.waker.take());
        let mut wakers = Vec::new();
        if seats.is_led_by(self.number) {
            wakers.extend(seats.pump.take());
        }
        let mut nobodys = Vec::new();
        for parcel in mail {
            match seats.hand(parcel) {
                Ok(waker) => wakers.extend(waker),
                Err(parcel) => nobodys.push(parcel),
            }
        }
        drop(seats);
        guard::discard(mine);
        wakers.into_iter().for_each(guard::wake);
        drop(nobodys);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if forked() {
            return;
        }
        self.retire();
        let mut all = all();
        let mut seats = self.common.lock();
        seats.seats.retain(|seat| seat.number != self.number);
        if seats.is_deserted() {
            all.remove(&self.wish);
        }
    }
}

/// A socket that the process was born with, if it is one that listens for TCP.
fn adopt(fd: std::os::fd::OwnedFd) -> io::Result<OwnedFd> {
    use std::os::fd::IntoRawFd;
    // Before anything else: from here on it is closed like all others.
    let raw = fd.into_raw_fd();
    let (fd, is_uring) = options::ring("TcpListener::inherited", |ring| {
        (ring.adopt(raw), ring.driver_name() == "io_uring")
    });
    let option = |name| options::get(fd.raw(), libc::SOL_SOCKET, name);
    let is_inet = matches!(option(libc::SO_DOMAIN), Ok(libc::AF_INET | libc::AF_INET6));
    let is_stream = matches!(option(libc::SO_TYPE), Ok(libc::SOCK_STREAM));
    if is_inet && is_stream && matches!(option(libc::SO_ACCEPTCONN), Ok(1)) {
        if is_uring {
            // Otherwise an accept that has to wait may fail instead. The emulated kernel wants it so,
            // and for it nothing is changed while a predecessor accepts in the same way.
            crate::sys::inherited::make_blocking(raw)?;
        }
        return Ok(fd);
    }
    let text = "an inherited descriptor is not a TCP socket that listens";
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
}

fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    options::ring("a listener", |ring| Ok(ring.adopt(ring.call(Call::Duplicate { fd })?)))
}

/// The turn to take from a core's mail.
struct Taking<'a>(&'a Member);

impl Taking<'_> {
    fn poll(&self, fd: &Fd<State<Claim>>, context: &mut Context<'_>) -> Poll<io::Result<Parcel>> {
        // No driver knows the number in the mail, so here the core has to be looked at.
        let _ = fd.raw();
        // Clone before, and drop after, the lock is held: a waker may do anything.
        let mut waker = Some(context.waker().clone());
        let mut seats = self.0.common.lock();
        if seats.leader.is_none() && seats.failed.is_none() {
            seats.leader = Some(Leader { number: self.0.number, core: fd.home().core });
            drop(seats);
            self.0.lead(fd)?;
            seats = self.0.common.lock();
        }
        let failed = seats.failed.clone();
        let seat = seats.seat(self.0.number).expect("a listener has its seat");
        let answer = match seat.mail.pop_front() {
            Some(parcel) => {
                seat.open += usize::from(seat.is_limited);
                let pump = seats.made_room();
                drop(seats);
                pump.into_iter().for_each(guard::wake);
                return Poll::Ready(Ok(parcel));
            }
            None => match failed {
                Some((kind, text)) => Poll::Ready(Err(io::Error::new(kind, text))),
                None => {
                    std::mem::swap(&mut seat.waker, &mut waker);
                    Poll::Pending
                }
            },
        };
        drop(seats);
        guard::discard(waker);
        answer
    }
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        self.0.turns.turn(0).release();
    }
}

/// What the leader's task waits for.
enum Event {
    Accepted(io::Result<OwnedFd>),
    /// Its listener goes.
    Over,
}

/// The leader's accept.
struct Pump {
    fd: Fd<State<Claim>>,
}

impl Pump {
    /// The leader's task: accepts for all while somebody has room.
    async fn run(self, common: Arc<Common>, number: u64) {
        let fd = &self.fd;
        let hand = |connection| {
            let handed = common.lock().hand(Parcel::pack(connection));
            // Nobody's is closed here, outside of the lock.
            handed.ok().flatten().into_iter().for_each(guard::wake);
        };
        loop {
            let mut accepting = pin!(accept::accept(fd));
            let event = poll_fn(|context| match look(&common, number, context) {
                Look::Over => Poll::Ready(Event::Over),
                Look::Full => Poll::Pending,
                Look::Room => accepting.as_mut().poll(context).map(Event::Accepted),
            })
            .await;
            match event {
                Event::Accepted(Ok(connection)) => hand(connection),
                Event::Accepted(Err(error)) => return fail(&common, &error),
                Event::Over => break,
            }
        }
        accept::stop(fd).await.into_iter().for_each(hand);
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.fd.disarm();
    }
}

/// Somebody leads until this is dropped, which is when the kernel is done with its accept.
pub(super) struct Leading {
    wish: Wish,
    common: Arc<Common>,
    number: u64,
}

impl Drop for Leading {
    fn drop(&mut self) {
        if forked() {
            return;
        }
        let mut all = all();
        let mut seats = self.common.lock();
        debug_assert!(seats.is_led_by(self.number), "one leads at a time");
        seats.leader = None;
        if seats.is_deserted() {
            all.remove(&self.wish);
        }
        // The first that looks leads; or it waits for this.
        let wakers: Vec<_> = seats.seats.iter_mut().filter_map(|seat| seat.waker.take()).collect();
        drop((seats, all));
        wakers.into_iter().for_each(guard::wake);
    }
}

enum Look {
    Room,
    Full,
    Over,
}

fn look(common: &Common, number: u64, context: &Context<'_>) -> Look {
    let waker = context.waker().clone();
    let mut seats = common.lock();
    let goes_on = seats.seat(number).is_some_and(|seat| seat.listening && !seat.finishing);
    let look = if goes_on {
        let has_room = |seat: &Seat| seat.listening && seat.has_room();
        seats.full = !seats.seats.iter().any(has_room);
        if seats.full { Look::Full } else { Look::Room }
    } else {
        Look::Over
    };
    let displaced = match look {
        Look::Over => Some(waker),
        _ => seats.pump.replace(waker),
    };
    drop(seats);
    guard::discard(displaced);
    look
}

fn fail(common: &Common, error: &io::Error) {
    let mut seats = common.lock();
    seats.failed = Some((error.kind(), error.to_string()));
    let wakers: Vec<_> = seats.seats.iter_mut().filter_map(|seat| seat.waker.take()).collect();
    drop(seats);
    wakers.into_iter().for_each(guard::wake);
}
