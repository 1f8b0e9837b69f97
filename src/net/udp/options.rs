//! The options of a socket of datagrams.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::UdpSocket;
use crate::net::options;

/// The options of IPv4, which a socket of IPv6 has for its peers of IPv4, and those of IPv6.
impl UdpSocket {
    /// Whether datagrams may go to a broadcast address (`SO_BROADCAST`).
    ///
    /// # Errors
    /// What `getsockopt` answers.
    pub fn broadcast(&self) -> io::Result<bool> {
        Ok(self.get(libc::SOL_SOCKET, libc::SO_BROADCAST)? != 0)
    }

    /// Permits or forbids datagrams to a broadcast address.
    ///
    /// # Errors
    /// What `setsockopt` answers.
    pub fn set_broadcast(&self, on: bool) -> io::Result<()> {
        self.set(libc::SOL_SOCKET, libc::SO_BROADCAST, on.into())
    }

    /// Hops that packets may take (`IP_TTL`, `IPV6_UNICAST_HOPS`).
    ///
    /// # Errors
    /// What `getsockopt` answers.
    pub fn ttl(&self) -> io::Result<u32> {
        options::hops(self.fd.raw(), self.fd.is_ipv6)
    }

    /// Sets how many hops packets may take.
    ///
    /// # Errors
    /// `InvalidInput` beyond 1 to 255; what `setsockopt` answers.
    pub fn set_ttl(&self, hops: u32) -> io::Result<()> {
        options::set_hops(self.fd.raw(), self.fd.is_ipv6, hops)
    }

    /// Receives what is sent to a group, by the interface with this address, or by one that the kernel
    /// chooses if it is unspecified (`IP_ADD_MEMBERSHIP`).
    ///
    /// # Errors
    /// `InvalidInput` for what is no group; `AddrInUse` for one that was joined already; `ENODEV` for
    /// an interface that is not there; what `setsockopt` answers.
    pub fn join_multicast_v4(&self, group: Ipv4Addr, interface: Ipv4Addr) -> io::Result<()> {
        self.membership_v4(libc::IP_ADD_MEMBERSHIP, group, interface)
    }

    /// Ends what [`join_multicast_v4`](Self::join_multicast_v4) began.
    ///
    /// # Errors
    /// `AddrNotAvailable` if it was not joined; what `setsockopt` answers.
    pub fn leave_multicast_v4(&self, group: Ipv4Addr, interface: Ipv4Addr) -> io::Result<()> {
        self.membership_v4(libc::IP_DROP_MEMBERSHIP, group, interface)
    }

    fn membership_v4(&self, name: i32, group: Ipv4Addr, interface: Ipv4Addr) -> io::Result<()> {
        let value = [group.octets(), interface.octets()];
        self.set_bytes(libc::IPPROTO_IP, name, value.as_flattened())
    }

    /// Receives what is sent to a group, by the interface with this index, or by one that the kernel
    /// chooses if it is 0 (`IPV6_ADD_MEMBERSHIP`).
    ///
    /// # Errors
    /// `InvalidInput` for what is no group; `AddrInUse` for one that was joined already; `ENODEV` for
    /// an interface that is not there; `ENOPROTOOPT` of a socket of IPv4; what `setsockopt` answers.
    pub fn join_multicast_v6(&self, group: Ipv6Addr, interface: u32) -> io::Result<()> {
        self.membership_v6(libc::IPV6_ADD_MEMBERSHIP, group, interface)
    }

    /// Ends what [`join_multicast_v6`](Self::join_multicast_v6) began.
    ///
    /// # Errors
    /// `AddrNotAvailable` if it was not joined; what `setsockopt` answers.
    pub fn leave_multicast_v6(&self, group: Ipv6Addr, interface: u32) -> io::Result<()> {
        self.membership_v6(libc::IPV6_DROP_MEMBERSHIP, group, interface)
    }

    fn membership_v6(&self, name: i32, group: Ipv6Addr, interface: u32) -> io::Result<()> {
        let mut value = [0; 20];
        value[..16].copy_from_slice(&group.octets());
        value[16..].copy_from_slice(&interface.to_ne_bytes());
        self.set_bytes(libc::IPPROTO_IPV6, name, &value)
    }

    /// Sends to groups of IPv4 by the interface with this address (`IP_MULTICAST_IF`).
    ///
    /// # Errors
    /// `AddrNotAvailable` if no interface has it; what `setsockopt` answers.
    pub fn set_multicast_interface_v4(&self, interface: Ipv4Addr) -> io::Result<()> {
        self.set_bytes(libc::IPPROTO_IP, libc::IP_MULTICAST_IF, &interface.octets())
    }

    /// Sends to groups of IPv6 by the interface with this index (`IPV6_MULTICAST_IF`).
    ///
    /// # Errors
    /// `ENODEV` if there is none; `ENOPROTOOPT` of a socket of IPv4; what `setsockopt` answers.
    pub fn set_multicast_interface_v6(&self, interface: u32) -> io::Result<()> {
        self.set_bytes(libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF, &interface.to_ne_bytes())
    }

    /// Hops that packets to a group of the socket's family may take: 1 unless it was set
    /// (`IP_MULTICAST_TTL`, `IPV6_MULTICAST_HOPS`).
    ///
    /// # Errors
    /// What `getsockopt` answers.
    pub fn multicast_ttl(&self) -> io::Result<u32> {
        Ok(match self.fd.is_ipv6 {
            true => self.get(libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS)?,
            false => self.get(libc::IPPROTO_IP, libc::IP_MULTICAST_TTL)?,
        } as u32)
    }

    /// Sets how many hops packets to a group may take; 0 keeps them on this machine.
    ///
    /// # Errors
    /// `InvalidInput` beyond 255; what `setsockopt` answers.
    pub fn set_multicast_ttl(&self, hops: u32) -> io::Result<()> {
        let hops = options::clamp(hops as usize);
        match self.fd.is_ipv6 {
            true => self.set(libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS, hops),
            false => self.set(libc::IPPROTO_IP, libc::IP_MULTICAST_TTL, hops),
        }
    }

    /// Whether this machine, too, gets what is sent to a group of the socket's family: it does unless
    /// that was switched off (`IP_MULTICAST_LOOP`, `IPV6_MULTICAST_LOOP`).
    ///
    /// # Errors
    /// What `getsockopt` answers.
    pub fn multicast_loop(&self) -> io::Result<bool> {
        Ok(match self.fd.is_ipv6 {
            true => self.get(libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP)?,
            false => self.get(libc::IPPROTO_IP, libc::IP_MULTICAST_LOOP)?,
        } != 0)
    }

    /// Says whether this machine, too, gets what is sent to a group.
    ///
    /// # Errors
    /// What `setsockopt` answers.
    pub fn set_multicast_loop(&self, on: bool) -> io::Result<()> {
        match self.fd.is_ipv6 {
            true => self.set(libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP, on.into()),
            false => self.set(libc::IPPROTO_IP, libc::IP_MULTICAST_LOOP, on.into()),
        }
    }

    /// Bytes of the socket's send buffer, the kernel's own records included (`SO_SNDBUF`).
    ///
    /// # Errors
    /// What `getsockopt` answers.
    pub fn send_buffer_size(&self) -> io::Result<usize> {
        Ok(self.get(libc::SOL_SOCKET, libc::SO_SNDBUF)? as usize)
    }

    /// Asks for so many bytes of send buffer (`SO_SNDBUF`; the kernel doubles it).
    ///
    /// # Errors
    /// What `setsockopt` answers.
    pub fn set_send_buffer_size(&self, bytes: usize) -> io::Result<()> {
        self.set(libc::SOL_SOCKET, libc::SO_SNDBUF, options::clamp(bytes))
    }

    /// Bytes of the socket's receive buffer, the kernel's own records included (`SO_RCVBUF`). What
    /// arrives when it is full is lost.
    ///
    /// # Errors
    /// What `getsockopt` answers.
    pub fn recv_buffer_size(&self) -> io::Result<usize> {
        Ok(self.get(libc::SOL_SOCKET, libc::SO_RCVBUF)? as usize)
    }

    /// Asks for so many bytes of receive buffer (`SO_RCVBUF`; the kernel doubles it, and gives no more
    /// than net.core.rmem_max).
    ///
    /// # Errors
    /// What `setsockopt` answers.
    pub fn set_recv_buffer_size(&self, bytes: usize) -> io::Result<()> {
        self.set(libc::SOL_SOCKET, libc::SO_RCVBUF, options::clamp(bytes))
    }

    /// Lets the kernel put datagrams of one sender together into one of up to 64 KiB
    /// (`UDP_GRO`, kernel 5.0): one answer for many, see
    /// [`segments`](crate::net::Datagram::segments). Calls that are given a buffer then get them glued
    /// together as well.
    ///
    /// # Errors
    /// `ENOPROTOOPT` where there is no such thing; what `setsockopt` answers.
    pub fn set_gro(&self, on: bool) -> io::Result<()> {
        self.set(libc::SOL_UDP, libc::UDP_GRO, on.into())
    }

    /// Has each datagram say where it was sent to, and by which interface it came
    /// (`IP_PKTINFO`, `IPV6_RECVPKTINFO`).
    ///
    /// # Errors
    /// What `setsockopt` answers.
    pub fn set_recv_packet_info(&self, on: bool) -> io::Result<()> {
        match self.fd.is_ipv6 {
            true => self.set(libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, on.into()),
            false => self.set(libc::IPPROTO_IP, libc::IP_PKTINFO, on.into()),
        }
    }

    /// Has each datagram say how it was marked (`IP_RECVTOS`, `IPV6_RECVTCLASS`).
    ///
    /// # Errors
    /// What `setsockopt` answers.
    pub fn set_recv_ecn(&self, on: bool) -> io::Result<()> {
        if self.fd.is_ipv6 {
            self.set(libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, on.into())?;
        }
        self.set(libc::IPPROTO_IP, libc::IP_RECVTOS, on.into())
    }

    /// Takes what went wrong since it was last asked (`SO_ERROR`).
    ///
    /// # Errors
    /// What `getsockopt` answers.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        let errno = self.get(libc::SOL_SOCKET, libc::SO_ERROR)?;
        Ok((errno != 0).then(|| io::Error::from_raw_os_error(errno)))
    }

    fn get(&self, level: i32, name: i32) -> io::Result<i32> {
        options::get(self.fd.raw(), level, name)
    }

    fn set(&self, level: i32, name: i32, value: i32) -> io::Result<()> {
        options::set(self.fd.raw(), level, name, value)
    }

    fn set_bytes(&self, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
        options::set_bytes(self.fd.raw(), level, name, value)
    }
}
