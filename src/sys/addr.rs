//! Socket addresses in the kernel's form. `socket2` knows the layouts; this file only hands them on.

use std::io;
use std::net::SocketAddr;

use socket2::{SockAddr, SockAddrStorage};

/// An address in the kernel's form, where a request can point at it.
#[derive(Debug, Clone)]
pub(crate) struct Address(SockAddr);

impl Address {
    pub(crate) fn as_ptr(&self) -> *const libc::sockaddr {
        self.0.as_ptr().cast()
    }

    pub(crate) fn len(&self) -> libc::socklen_t {
        self.0.len()
    }

    /// Lets `fill` write an address, and takes what it wrote.
    pub(crate) fn read(
        fill: impl FnOnce(*mut libc::sockaddr, &mut libc::socklen_t) -> io::Result<i32>,
    ) -> io::Result<SocketAddr> {
        let mut storage = SockAddrStorage::zeroed();
        let mut len = storage.size_of();
        fill((&raw mut storage).cast(), &mut len)?;
        // SAFETY: the kernel wrote `len` bytes of an address; the rest is zero, which is valid too.
        let address = unsafe { SockAddr::new(storage, len) };
        address.as_socket().ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "the address is not an internet address")
        })
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Address(address.into())
    }
}
