//! Names of hosts: looked up by the C library, on a thread that may block.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::panic::Location;

use super::addr::{ToAddresses, not_an_address};
use crate::op::{self, Ring};
use crate::sys::current;
use crate::sys::names::{self, Unresolved};
use crate::sys::overdue::or_timed_out;
use crate::task::{BlockingTask, JoinError, spawn_blocking};

/// The addresses of a host, in the order in which they should be tried.
///
/// A name is looked up by the system's own resolver (`getaddrinfo`: `/etc/hosts`, then DNS, as
/// `nsswitch.conf` says) on a thread of [`spawn_blocking`], so the core goes on. Numbers, `localhost`
/// and the hosts of a [simulation](crate::sim) need no thread. Nothing is cached.
///
/// Dropping the future loses nothing: a lookup that has begun ends by itself.
///
/// # Errors
/// One with a [`LookupError`] inside, of the kind `NotFound` if the name has no address;
/// `InvalidInput` for what is neither an address nor a name.
///
/// # Panics
/// Outside of a runtime, when it is first polled.
///
/// ```
/// use quoit::net::{LookupError, lookup_host};
///
/// # quoit::runtime::run(async {
/// let addresses: Vec<_> = lookup_host("localhost:80").await?.collect();
/// assert!(addresses.contains(&"127.0.0.1:80".parse().unwrap()));
///
/// let error = lookup_host("no..name:80").await.unwrap_err();
/// let error = error.get_ref().unwrap().downcast_ref::<LookupError>().unwrap();
/// assert!(!error.is_temporary());
/// # std::io::Result::Ok(()) }).unwrap().unwrap();
/// ```
#[track_caller]
pub fn lookup_host(
    host: impl ToAddresses,
) -> impl Future<Output = io::Result<std::vec::IntoIter<SocketAddr>>> {
    let caller = Location::caller();
    async move {
        op::assert_inside("lookup_host", caller);
        Ok(resolve(&host).await?.into_iter())
    }
}

/// The addresses that a user's argument stands for. Without a name in it, it is ready at once.
pub(super) async fn resolve(given: &(impl ToAddresses + ?Sized)) -> io::Result<Vec<SocketAddr>> {
    match given.host() {
        None => given.to_addresses(),
        Some((host, port)) => or_timed_out(look_up(host, port)).await,
    }
}

async fn look_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let Some(name) = names::as_name(host) else { return Err(not_an_address(host)) };
    let failed = |why| failed(host, why);
    let simulated = |ring: &Ring| ring.is_simulated().then(|| ring.resolve(host));
    if let Some(found) = current::with(simulated).flatten() {
        let found = found.ok_or_else(names::unknown).map_err(failed)?;
        return Ok(vec![SocketAddr::new(found, port)]);
    }
    let lookup = Lookup(spawn_blocking(move || names::look_up(&name)));
    let mut found = lookup.found().await?.map_err(failed)?;
    found.iter_mut().for_each(|address| address.set_port(port));
    Ok(found)
}

/// A lookup that is not begun when nobody waits for it any more.
struct Lookup(BlockingTask<Result<Vec<SocketAddr>, Unresolved>>);

impl Lookup {
    async fn found(mut self) -> Result<Result<Vec<SocketAddr>, Unresolved>, JoinError> {
        (&mut self.0).await
    }
}

impl Drop for Lookup {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn failed(host: &str, why: Unresolved) -> io::Error {
    let (code, text) = match why {
        Unresolved::System(error) => return error,
        Unresolved::Code(code, text) => (code, text),
    };
    let error = LookupError { host: host.to_owned(), code, text };
    let kind = match code {
        _ if error.is_not_found() => io::ErrorKind::NotFound,
        libc::EAI_MEMORY => io::ErrorKind::OutOfMemory,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

/// Why a name has no addresses: the inner error of what [`lookup_host`] and all that takes a name
/// return.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookupError {
    host: String,
    code: i32,
    text: String,
}

impl LookupError {
    /// The name, as it was asked for.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// There is no such name, or it has no address (`EAI_NONAME`, `EAI_NODATA`).
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self.code, libc::EAI_NONAME | libc::EAI_NODATA | EAI_ADDRFAMILY)
    }

    /// No server has answered, or it could not say (`EAI_AGAIN`): another try may succeed.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        self.code == libc::EAI_AGAIN
    }

    /// The code of `getaddrinfo` (`EAI_*`).
    #[must_use]
    pub fn code(&self) -> i32 {
        self.code
    }
}

/// As in `netdb.h`.
const EAI_ADDRFAMILY: i32 = -9;

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LookupError { host, code, text } = self;
        let name = match *code {
            libc::EAI_AGAIN => "EAI_AGAIN",
            libc::EAI_FAIL => "EAI_FAIL",
            libc::EAI_FAMILY => "EAI_FAMILY",
            libc::EAI_MEMORY => "EAI_MEMORY",
            libc::EAI_NODATA => "EAI_NODATA",
            libc::EAI_NONAME => "EAI_NONAME",
            EAI_ADDRFAMILY => "EAI_ADDRFAMILY",
            code => return write!(f, "{host:?} could not be looked up: {text} ({code})"),
        };
        let what = if self.is_not_found() { "was not found" } else { "could not be looked up" };
        write!(f, "{host:?} {what}: {text} ({name})")
    }
}

impl std::error::Error for LookupError {}
