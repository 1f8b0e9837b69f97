//! Addresses of Unix sockets in the kernel's form: a path, a name without a file, or nothing.

use std::ffi::OsStr;
use std::io;
use std::mem::offset_of;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::SocketAddr;
use std::path::Path;

/// Where the path begins.
const START: usize = offset_of!(libc::sockaddr_un, sun_path);

/// An address of a Unix socket, where a request can point at it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UnixAddress {
    address: libc::sockaddr_un,
    len: libc::socklen_t,
}

impl UnixAddress {
    /// A place for an address that a kernel writes.
    pub(crate) fn empty() -> Self {
        // SAFETY: it is plain numbers, for which zeros are valid.
        let address = unsafe { std::mem::zeroed() };
        UnixAddress { address, len: 0 }
    }

    /// The path, or what stands for it: a name that begins with a zero has no file.
    fn named(name: &[u8]) -> Self {
        let mut address = UnixAddress::empty();
        address.address.sun_family = libc::AF_UNIX as libc::sa_family_t;
        for (place, byte) in address.address.sun_path.iter_mut().zip(name) {
            *place = *byte as libc::c_char;
        }
        address.len = (START + name.len()) as libc::socklen_t;
        address
    }

    pub(crate) fn as_ptr(&self) -> *const libc::sockaddr_un {
        &raw const self.address
    }

    /// Where a kernel may write, for [`capacity`](Self::capacity) bytes.
    pub(crate) fn as_mut_ptr(&mut self) -> *mut libc::sockaddr_un {
        &raw mut self.address
    }

    pub(crate) fn capacity() -> libc::socklen_t {
        size_of::<libc::sockaddr_un>() as libc::socklen_t
    }

    pub(crate) fn len(&self) -> libc::socklen_t {
        self.len
    }

    /// A kernel has written an address of `len` bytes, or would have, had there been room.
    pub(crate) fn set_len(&mut self, len: libc::socklen_t) {
        self.len = len.min(UnixAddress::capacity());
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        // SAFETY: all bytes of the address are initialised, and `len` is not more.
        unsafe { std::slice::from_raw_parts(self.as_ptr().cast(), self.len as usize) }
    }

    /// What an address in the kernel's form says, if it is one of this family.
    pub(crate) fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let (family, name) = bytes.split_at_checked(START)?;
        let is_unix = family == (libc::AF_UNIX as libc::sa_family_t).to_ne_bytes();
        let most = UnixAddress::capacity() as usize - START;
        is_unix.then(|| UnixAddress::named(&name[..name.len().min(most)]))
    }

    /// Lets `fill` write an address, and takes what it wrote.
    pub(crate) fn read(fill: impl FnOnce(&mut [u8]) -> io::Result<i32>) -> io::Result<Self> {
        // A path without a zero at its end is answered with one, beyond the size of the struct.
        let mut bytes = [0; size_of::<libc::sockaddr_un>() + 1];
        let len = usize::try_from(fill(&mut bytes)?).unwrap_or(0).min(bytes.len());
        UnixAddress::of_bytes(&bytes[..len]).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "the address is not of a Unix socket")
        })
    }

    /// The bytes of the name: of a path without the zero at its end, of an abstract one with the
    /// zero at its beginning. None is unnamed.
    pub(crate) fn name(&self) -> &[u8] {
        let name = self.as_bytes().get(START..).unwrap_or_default();
        match name {
            [0, ..] | [] => name,
            path => path.split(|byte| *byte == 0).next().unwrap_or_default(),
        }
    }

    /// The path, if it has one.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self.name() {
            [] | [0, ..] => None,
            path => Some(Path::new(OsStr::from_bytes(path))),
        }
    }

    /// The same as the standard library has it; a path that it cannot hold is shown as no name.
    pub(crate) fn to_std(self) -> SocketAddr {
        let named = match self.name() {
            [0, name @ ..] => SocketAddr::from_abstract_name(name),
            path => SocketAddr::from_pathname(OsStr::from_bytes(path)),
        };
        named.unwrap_or_else(|_| unnamed())
    }
}

fn unnamed() -> SocketAddr {
    SocketAddr::from_pathname("").expect("an empty path is no name")
}

impl AsRef<[u8]> for UnixAddress {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl From<&SocketAddr> for UnixAddress {
    fn from(address: &SocketAddr) -> Self {
        if let Some(path) = address.as_pathname() {
            // The zero at the end is what the kernel and others write too.
            let mut named = UnixAddress::named(path.as_os_str().as_bytes());
            named.len += 1;
            return named;
        }
        match address.as_abstract_name() {
            Some(name) => UnixAddress::named(&[&[0], name].concat()),
            None => UnixAddress::named(&[]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(address: &SocketAddr) -> SocketAddr {
        UnixAddress::of_bytes(UnixAddress::from(address).as_bytes()).unwrap().to_std()
    }

    #[test]
    fn an_address_is_the_same_after_the_kernels_form() {
        let longest = "p".repeat(107);
        for path in ["/run/a socket", "relative", &longest] {
            let address = SocketAddr::from_pathname(path).unwrap();
            assert_eq!(round(&address).as_pathname(), Some(Path::new(path)));
            assert_eq!(UnixAddress::from(&address).path(), Some(Path::new(path)));
        }
        for name in [&b""[..], b"name", b"with\0zeros\0", &[7; 107]] {
            let address = SocketAddr::from_abstract_name(name).unwrap();
            assert_eq!(round(&address).as_abstract_name(), Some(name));
            assert_eq!(UnixAddress::from(&address).path(), None);
        }
        assert!(round(&unnamed()).is_unnamed());
    }

    #[test]
    fn a_path_that_fills_the_place_has_no_zero_and_is_shown_as_no_name() {
        let whole = UnixAddress::named(&[b'p'; 108]);
        assert_eq!((whole.len() as usize, whole.name().len()), (START + 108, 108));
        assert!(whole.to_std().is_unnamed());
        let written = UnixAddress::read(|place| {
            place[..START].copy_from_slice(&(libc::AF_UNIX as u16).to_ne_bytes());
            place[START..START + 108].fill(b'p');
            Ok((START + 109) as i32)
        });
        assert_eq!(written.unwrap().name(), [b'p'; 108]);
    }

    #[test]
    fn an_address_of_another_family_is_none() {
        assert!(UnixAddress::of_bytes(&2_u16.to_ne_bytes()).is_none());
        assert!(UnixAddress::of_bytes(&[]).is_none());
    }
}
