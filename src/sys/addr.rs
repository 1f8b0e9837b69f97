//! Socket addresses in the kernel's form. `socket2` knows the layouts; this file only hands them on.

use std::io;
use std::net::SocketAddr;

use socket2::{SockAddr, SockAddrStorage};

/// An address in the kernel's form, where a request can point at it.
#[derive(Debug, Clone)]
pub(crate) struct Address(SockAddr);

impl Address {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        // SAFETY: a `SockAddr` has `len` initialised bytes.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() as usize) }
    }

    /// What an address in the kernel's form says.
    pub(crate) fn of_bytes(bytes: &[u8]) -> io::Result<SocketAddr> {
        Address::read(|place| {
            let len = bytes.len().min(place.len());
            place[..len].copy_from_slice(&bytes[..len]);
            Ok(len as i32)
        })
    }

    /// Lets `fill` write an address, and takes what it wrote.
    pub(crate) fn read(fill: impl FnOnce(&mut [u8]) -> io::Result<i32>) -> io::Result<SocketAddr> {
        let mut storage = SockAddrStorage::zeroed();
        let size = storage.size_of() as usize;
        // SAFETY: the storage is plain bytes, zeroed, of this size.
        let bytes = unsafe { std::slice::from_raw_parts_mut((&raw mut storage).cast(), size) };
        // A kernel says how long the address is, also when there was room for less.
        let len = usize::try_from(fill(bytes)?).unwrap_or(0).min(size) as libc::socklen_t;
        // SAFETY: `len` bytes of an address were written; the rest is zero, which is valid too.
        let address = unsafe { SockAddr::new(storage, len) };
        address.as_socket().ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "the address is not an internet address")
        })
    }
}

impl AsRef<[u8]> for Address {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Address(address.into())
    }
}
