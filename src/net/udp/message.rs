//! What goes along with a datagram that is sent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::net::Ecn;
use crate::sys::control::Control;

/// Where a datagram goes, and what goes along with it, for
/// [`send_msg`](super::UdpSocket::send_msg).
///
/// ```
/// use quoit::net::{Ecn, Message, UdpSocket};
///
/// # quoit::runtime::run(async {
/// let (one, two) = (UdpSocket::bind("127.0.0.1:0").await?, UdpSocket::bind("127.0.0.1:0").await?);
/// two.set_recv_ecn(true)?;
/// let message = Message::to(two.local_addr()?).ecn(Ecn::Ect0);
/// one.send_msg("hello", message).await?;
/// assert_eq!(two.recv_datagram().await?.ecn(), Some(Ecn::Ect0));
/// # std::io::Result::Ok(()) }).unwrap().unwrap();
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Message {
    to: Option<SocketAddr>,
    from: Option<IpAddr>,
    interface: Option<u32>,
    ecn: Option<Ecn>,
    segment_size: Option<u16>,
}

impl Message {
    /// A message to the peer of a connected socket.
    #[must_use]
    pub fn new() -> Self {
        Message::default()
    }

    /// A message to this address.
    #[must_use]
    pub fn to(address: impl Into<SocketAddr>) -> Self {
        Message { to: Some(address.into()), ..Message::default() }
    }

    /// Sends it from this address of the machine (`IP_PKTINFO`, `IPV6_PKTINFO`): a server that is
    /// bound to all of them answers from the one that was [asked](crate::net::Datagram::to).
    #[must_use]
    pub fn from(self, address: IpAddr) -> Self {
        Message { from: Some(address), ..self }
    }

    /// Sends it by the interface with this index.
    #[must_use]
    pub fn interface(self, index: u32) -> Self {
        Message { interface: Some(index), ..self }
    }

    /// Marks it (`IP_TOS`, `IPV6_TCLASS`). The rest of the packet's type of service is 0.
    #[must_use]
    pub fn ecn(self, ecn: Ecn) -> Self {
        Message { ecn: Some(ecn), ..self }
    }

    /// Has the kernel cut the buffer into datagrams of so many bytes, the last of which may be smaller
    /// (GSO, `UDP_SEGMENT`, kernel 4.18): one call, and mostly one pass through the network's layers,
    /// for up to 64 of them, of 65,507 bytes altogether.
    #[must_use]
    pub fn segment_size(self, bytes: u16) -> Self {
        Message { segment_size: Some(bytes), ..self }
    }

    pub(super) fn destination(&self) -> Option<SocketAddr> {
        self.to
    }

    /// Whether it is nothing but an address.
    pub(super) fn is_plain(&self) -> bool {
        *self == Message { to: self.to, ..Message::default() }
    }

    /// Puts the control messages together that a socket of this family needs for it.
    pub(super) fn write(&self, is_ipv6: bool, control: &mut Control) {
        control.clear();
        if self.from.is_some() || self.interface.is_some() {
            self.write_source(is_ipv6, control);
        }
        if let Some(ecn) = self.ecn {
            // A socket of IPv6 sends to addresses of IPv4 as well, and each takes its own.
            let value = &i32::from(ecn as u8).to_ne_bytes();
            control.push(libc::IPPROTO_IP, libc::IP_TOS, value);
            if is_ipv6 {
                control.push(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, value);
            }
        }
        if let Some(size) = self.segment_size {
            control.push(libc::SOL_UDP, libc::UDP_SEGMENT, &size.to_ne_bytes());
        }
    }

    fn write_source(&self, is_ipv6: bool, control: &mut Control) {
        let interface = self.interface.unwrap_or(0).to_ne_bytes();
        let to_ipv4 = self.to.is_some_and(|to| to.ip().to_canonical().is_ipv4());
        match self.from {
            Some(IpAddr::V6(from)) => write_ipv6(from, interface, control),
            Some(IpAddr::V4(from)) if is_ipv6 => {
                write_ipv6(from.to_ipv6_mapped(), interface, control);
            }
            None if is_ipv6 && !to_ipv4 => write_ipv6(Ipv6Addr::UNSPECIFIED, interface, control),
            from => {
                let from =
                    if let Some(IpAddr::V4(from)) = from { from } else { Ipv4Addr::UNSPECIFIED };
                let value = [interface, from.octets(), [0; 4]];
                control.push(libc::IPPROTO_IP, libc::IP_PKTINFO, value.as_flattened());
            }
        }
    }
}

fn write_ipv6(from: Ipv6Addr, interface: [u8; 4], control: &mut Control) {
    let mut value = [0; 20];
    value[..16].copy_from_slice(&from.octets());
    value[16..].copy_from_slice(&interface);
    control.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &value);
}
