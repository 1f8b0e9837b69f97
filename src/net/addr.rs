//! What can be given where an address is wanted.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use crate::op::Ring;
use crate::sys::{current, names};

/// Addresses, or something that can be read as addresses, or the name of a host.
///
/// Whoever takes this looks names up, as [`lookup_host`](super::lookup_host) does.
///
/// ```
/// use quoit::net::ToAddresses;
/// use std::io;
/// use std::net::SocketAddr;
///
/// /// Where the replicas are; no name is among them, so there is no more to say.
/// struct Replicas([SocketAddr; 2]);
///
/// impl ToAddresses for Replicas {
///     fn to_addresses(&self) -> io::Result<Vec<SocketAddr>> {
///         Ok(self.0.to_vec())
///     }
/// }
/// assert_eq!("localhost:80".host(), None);
/// assert_eq!("example.org:80".host(), Some(("example.org", 80)));
/// ```
pub trait ToAddresses {
    /// The addresses, in the order in which they should be tried. Numbers and `localhost` are
    /// understood, and inside of a [simulation](crate::sim) the names of its hosts; it looks nothing
    /// up, for that would block.
    ///
    /// # Errors
    /// `InvalidInput` for a text that is not an address.
    fn to_addresses(&self) -> io::Result<Vec<SocketAddr>>;

    /// The name and the port, where only a lookup can tell the addresses. The default is that there
    /// is nothing to look up.
    fn host(&self) -> Option<(&str, u16)> {
        None
    }
}

impl ToAddresses for SocketAddr {
    fn to_addresses(&self) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![*self])
    }
}

impl ToAddresses for SocketAddrV4 {
    fn to_addresses(&self) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![(*self).into()])
    }
}

impl ToAddresses for SocketAddrV6 {
    fn to_addresses(&self) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![(*self).into()])
    }
}

impl ToAddresses for [SocketAddr] {
    fn to_addresses(&self) -> io::Result<Vec<SocketAddr>> {
        Ok(self.to_vec())
    }
}

impl ToAddresses for (IpAddr, u16) {
    fn to_addresses(&self) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![(*self).into()])
    }
}

impl ToAddresses for (Ipv4Addr, u16) {
    fn to_addresses(&self) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![(*self).into()])
    }
}

impl ToAddresses for (Ipv6Addr, u16) {
    fn to_addresses(&self) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![(*self).into()])
    }
}

impl ToAddresses for (&str, u16) {
    fn to_addresses(&self) -> io::Result<Vec<SocketAddr>> {
        let (host, port) = *self;
        if host == "localhost" {
            let (six, four) = (IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::LOCALHOST));
            return Ok(vec![SocketAddr::new(four, port), SocketAddr::new(six, port)]);
        }
        let address = match host.parse() {
            Ok(address) => address,
            // A simulated network has names.
            Err(_) => current::with(|ring: &Ring| ring.resolve(host))
                .flatten()
                .ok_or_else(|| not_an_address(host))?,
        };
        Ok(vec![SocketAddr::new(address, port)])
    }

    fn host(&self) -> Option<(&str, u16)> {
        let (host, port) = *self;
        let is_name = host != "localhost" && host.parse::<IpAddr>().is_err();
        (is_name && names::as_name(host).is_some()).then_some((host, port))
    }
}

impl ToAddresses for str {
    fn to_addresses(&self) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = self.parse::<SocketAddr>() {
            return Ok(vec![address]);
        }
        let (host, port) = self.rsplit_once(':').ok_or_else(|| not_an_address(self))?;
        let port = port.parse().map_err(|_| not_an_address(self))?;
        (host, port).to_addresses().map_err(|_| not_an_address(self))
    }

    fn host(&self) -> Option<(&str, u16)> {
        let (host, port) = self.rsplit_once(':')?;
        let port = port.parse().ok()?;
        (host, port).host().is_some().then_some((host, port))
    }
}

impl ToAddresses for (String, u16) {
    fn to_addresses(&self) -> io::Result<Vec<SocketAddr>> {
        (self.0.as_str(), self.1).to_addresses()
    }

    fn host(&self) -> Option<(&str, u16)> {
        (self.0.as_str(), self.1).host().is_some().then_some((&self.0, self.1))
    }
}

impl ToAddresses for String {
    fn to_addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.as_str().to_addresses()
    }

    fn host(&self) -> Option<(&str, u16)> {
        self.as_str().host()
    }
}

impl<T: ToAddresses + ?Sized> ToAddresses for &T {
    fn to_addresses(&self) -> io::Result<Vec<SocketAddr>> {
        (**self).to_addresses()
    }

    fn host(&self) -> Option<(&str, u16)> {
        (**self).host()
    }
}

pub(super) fn not_an_address(text: &str) -> io::Error {
    let text = format!(
        "{text:?} is not an address; write it like 127.0.0.1:7000, [::1]:7000, localhost:7000 or \
         example.org:7000"
    );
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_localhost_are_understood() {
        let one = |text: &str| text.to_addresses().unwrap();
        assert_eq!(one("127.0.0.1:80"), ["127.0.0.1:80".parse().unwrap()]);
        assert_eq!(one("[::1]:80"), ["[::1]:80".parse().unwrap()]);
        assert_eq!(one("localhost:80").len(), 2);
        assert_eq!(("::1", 80).to_addresses().unwrap(), ["[::1]:80".parse().unwrap()]);
    }

    #[test]
    fn only_names_are_looked_up() {
        assert_eq!("example.org:80".host(), Some(("example.org", 80)));
        assert_eq!(("example.org".to_owned(), 80).host(), Some(("example.org", 80)));
        let long = "a".repeat(300) + ":80";
        for text in ["127.0.0.1:80", "[::1]:80", "localhost:80", "1.2.3:80", "a:70000", "a", &long]
        {
            assert_eq!(text.host(), None, "{text}");
            assert_eq!(text.to_owned().host(), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_advice() {
        for text in ["", "80", "1.2.3:80", "127.0.0.1:70000", "example.org:80", "127.0.0.1:"] {
            let error = text.to_addresses().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains("127.0.0.1:7000"), "{error}");
        }
    }
}
