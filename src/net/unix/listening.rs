//! Listening on a Unix socket, whatever is accepted there.

use std::future::poll_fn;
use std::io;
use std::os::fd::IntoRawFd;
use std::os::fd::OwnedFd as StdFd;
use std::os::unix::net::SocketAddr;
use std::task::Poll;
use std::time::Duration;

use super::share::{Removal, Share};
use super::socket;
use crate::driver::Call;
use crate::net::accept::{self, State};
use crate::net::options::ring;
use crate::op::{self, Ring};
use crate::sys::current;
use crate::sys::fd::{Fd, OwnedFd};
use crate::sys::fork::{self, Forked};
use crate::sys::overdue::or_timed_out;
use crate::sys::unix_addr::UnixAddress;
use crate::time::sleep;

/// How often, and how long each time, a bind waits for others that replace a file in the same
/// directory.
const TRIES: u32 = 1000;
const PAUSE: Duration = Duration::from_millis(1);

/// How to listen.
#[derive(Debug, Clone)]
pub(super) struct Choices {
    pub(super) backlog: i32,
    pub(super) replaces_stale: bool,
    pub(super) removes_on_drop: bool,
}

/// A listening socket.
pub(super) struct Listening {
    pub(super) fd: Fd<State<Option<Share>>>,
}

impl Listening {
    pub(super) async fn bind(
        kind: i32,
        address: &SocketAddr,
        choices: &Choices,
    ) -> io::Result<Self> {
        if fork::forked() {
            return Err(Forked.into());
        }
        if address.is_unnamed() {
            let text = "a listener needs a path or an abstract name";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let address = UnixAddress::from(address);
        let here = current::core(|core| (core.group, core.id));
        let (group, core) = here.unwrap_or_else(|| op::outside("a listener"));
        let wish = (group, kind, address.name().to_vec());
        for _ in 0..TRIES {
            predecessors_left(&wish, core).await;
            let bind = || bind(kind, &address, choices);
            match Share::listen(wish.clone(), core, duplicate, bind) {
                Ok((fd, fellow, share)) => {
                    let state = State::among(Some(fellow), Some(share));
                    return Ok(Listening { fd: Fd::new(fd, state) });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(PAUSE).await,
                Err(error) => return Err(error),
            }
        }
        let text = "somebody keeps the directory of the socket locked";
        Err(io::Error::new(io::ErrorKind::ResourceBusy, text))
    }

    /// Takes over a socket that listens already.
    pub(super) fn inherit(fd: StdFd) -> Self {
        let fd = ring("a listener", |ring| ring.adopt(fd.into_raw_fd()));
        Listening { fd: Fd::new(fd, State::new(None)) }
    }

    pub(super) async fn accept(&self) -> io::Result<(OwnedFd, SocketAddr)> {
        loop {
            let connection = or_timed_out(accept::accept(&self.fd)).await?;
            // The peer may be gone already; that is no fault of the listener.
            if let Ok(peer) = socket::peer_address(connection.raw()) {
                return Ok((connection, peer));
            }
        }
    }

    pub(super) async fn close(self) -> io::Result<()> {
        self.fd.disarm();
        let fd = self.fd.clone();
        drop(self);
        fd.alone().await.close()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Some(share) = &self.fd.family {
            share.retire(remove);
        }
        self.fd.disarm();
    }
}

/// Another descriptor of the socket that another core listens with.
fn duplicate(fd: i32) -> io::Result<OwnedFd> {
    ring("bind", |ring| Ok(ring.adopt(ring.call(Call::Duplicate { fd })?)))
}

fn bind(
    kind: i32,
    address: &UnixAddress,
    choices: &Choices,
) -> io::Result<(OwnedFd, Option<Removal>)> {
    let has_path = address.path().is_some();
    let bytes = address.as_bytes();
    if choices.replaces_stale && has_path {
        let call = Call::RemoveSocketFile { address: bytes, file: None };
        ring("bind", |ring| ring.call(call))?;
    }
    let fd = socket::open(kind)?;
    socket::bind(fd.raw(), address)?;
    let mut removal = None;
    if choices.removes_on_drop && has_path {
        let mut file = (0, 0);
        let call = Call::SocketFile { address: bytes, file: &mut file };
        ring("bind", |ring| ring.call(call))?;
        removal = Some((*address, file));
    }
    let call = Call::Listen { fd: fd.raw(), backlog: choices.backlog };
    if let Err(error) = ring("listen", |ring| ring.call(call)) {
        removal.into_iter().for_each(remove);
        return Err(error);
    }
    Ok((fd, removal))
}

fn remove((address, file): Removal) {
    let call = Call::RemoveSocketFile { address: address.as_bytes(), file: Some(file) };
    // Nobody is left to be told; outside of the runtime there is no kernel to ask.
    let _ = current::with(|ring: &Ring| ring.call(call));
}

/// Waits for the descriptor of a listener that was dropped here on the same address: it is closed
/// when its accept has been cancelled, a lap later.
async fn predecessors_left(wish: &(u64, i32, Vec<u8>), core: u64) {
    poll_fn(|context| {
        if !Share::is_leaving(wish, core) {
            return Poll::Ready(());
        }
        ring("bind", |ring| ring.wake_on_close(context.waker()));
        Poll::Pending
    })
    .await;
}
