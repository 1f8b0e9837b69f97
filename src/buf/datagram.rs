//! Received datagrams: leases on a core's buffers for them, which are larger than any datagram.
//!
//! A stream may be cut anywhere, a datagram nowhere: what does not fit is lost. So these buffers
//! have room for the largest datagram that there is, and for what comes with it. Most datagrams are
//! small, and a page that is never touched is no memory: a buffer costs one page until a large
//! datagram comes.
//!
//! ```text
//!   four numbers │ the sender's address │ control messages │ the payload
//!   16 bytes     │ 32                   │ 208              │ up to 65,535
//! ```
//!
//! The layout is that of a multishot `IORING_OP_RECVMSG`, in the heap as well.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::rc::Rc;

use super::IoBuf;
use super::buffers::Buffers;
use super::place::{self, Home, Place};
use crate::driver::Register;
use crate::sys::addr::Address;
use crate::sys::control;

/// The group of these buffers.
pub(crate) const GROUP: u16 = 1;

const NUMBERS: usize = 16;
const NAME: usize = 32;
const CONTROL: usize = 208;
const FRONT: usize = NUMBERS + NAME + CONTROL;

/// The largest datagram, and the largest train of them that the kernel has put together.
pub(crate) const LARGEST: usize = 65_535;

/// Bytes in one buffer: 17 pages.
const SIZE: usize = 17 * 4096;
/// The most buffers that a core can have out and in: 68 MiB, of which only what is used is memory.
const MOST: u16 = 1024;
const PUBLISHED_AT_FIRST: u16 = 128;

// The rest is for steps that keep something at the buffer's end.
const _: () = assert!(FRONT + LARGEST + 128 <= SIZE);
const _: () = assert!(
    control::space(size_of::<libc::in6_pktinfo>())
        + control::space(size_of::<libc::in_pktinfo>())
        + 4 * control::space(4)
        <= CONTROL
);

/// One core's buffers for datagrams, made when the first socket receives.
pub(crate) struct Datagrams {
    buffers: Buffers<SIZE>,
    /// What requests point at: it says how much room there is for names and control messages.
    shape: libc::msghdr,
}

impl Datagrams {
    pub(super) fn new() -> io::Result<Self> {
        let buffers = Buffers::new(GROUP, MOST, PUBLISHED_AT_FIRST)?;
        let nothing = ptr::null_mut;
        let shape = libc::msghdr {
            msg_name: nothing(),
            msg_namelen: NAME as libc::socklen_t,
            msg_iov: ptr::null_mut(),
            msg_iovlen: 0,
            msg_control: nothing(),
            msg_controllen: CONTROL as _,
            msg_flags: 0,
        };
        Ok(Datagrams { buffers, shape })
    }

    /// What the kernel is told.
    pub(crate) fn registration(&self) -> Register {
        self.buffers.registration()
    }

    /// What the kernel is told in the end.
    pub(crate) fn removal(&self) -> Register {
        self.buffers.removal()
    }

    /// What a request points at, for as long as this lives.
    pub(crate) fn shape(&self) -> *const libc::msghdr {
        &raw const self.shape
    }

    pub(super) fn leases(&self) -> u32 {
        self.buffers.leases()
    }

    pub(super) fn published(&self) -> u16 {
        self.buffers.published()
    }

    pub(super) fn starved(&self) -> u64 {
        self.buffers.starved()
    }

    /// Publishes twice as many buffers as before. False when all are published already.
    pub(crate) fn grow(&self) -> bool {
        self.buffers.grow()
    }

    /// Takes over a buffer that the kernel has picked, and filled with `filled` bytes, those in front
    /// included. `None`, and the buffer is home again, if it has filled nothing.
    #[inline]
    pub(crate) fn lease(self: &Rc<Self>, bid: u16, filled: i32) -> Option<Datagram> {
        let len = usize::try_from(filled).ok().and_then(|filled| filled.checked_sub(FRONT));
        self.buffers.take(bid);
        let Some(len) = len else {
            self.buffers.give_back(bid);
            return None;
        };
        assert!(len <= SIZE - FRONT, "the kernel filled {filled} bytes of {SIZE}");
        let share = Rc::into_raw(Rc::clone(self)).cast_mut();
        let owner = NonNull::new(share.cast()).expect("an Rc is somewhere");
        Some(Datagram { owner, place: Place::new(FRONT, len, bid, Home::Pool) })
    }
}

/// A received datagram, whole, and what came with it: a lease on one of the core's buffers, or, when
/// those are short, heap memory.
///
/// It is read as a slice, and sent as it is. Dropping it gives the buffer back; while many are kept,
/// further receives use the heap. It is never cut: each buffer has room for the largest datagram.
///
/// ```
/// use quoit::net::UdpSocket;
///
/// # quoit::runtime::run(async {
/// let (one, two) = (UdpSocket::bind("127.0.0.1:0").await?, UdpSocket::bind("127.0.0.1:0").await?);
/// one.send_to("hello", two.local_addr()?).await?;
/// let datagram = two.recv_datagram().await?;
/// assert_eq!((&*datagram, datagram.from()), (&b"hello"[..], one.local_addr()?));
/// # std::io::Result::Ok(()) }).unwrap().unwrap();
/// ```
pub struct Datagram {
    /// The buffers, as `Rc::into_raw` gives them, or the memory itself, a box that ends where the payload
    /// does: `place`, of the payload, says which.
    owner: NonNull<()>,
    place: Place,
}

const _: () = assert!(size_of::<Option<Datagram>>() == 16 && FRONT + LARGEST <= place::MOST);
const _: () = assert!(SIZE <= place::MOST);

/// Explicit congestion notification: the two bits that a router sets instead of dropping a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Ecn {
    /// The sender takes no part.
    NotEct = 0,
    /// It does, and with the other of the two marks (RFC 9331: scalable congestion control).
    Ect1 = 1,
    /// It does.
    Ect0 = 2,
    /// A router was congested.
    Ce = 3,
}

impl Ecn {
    /// That of a packet whose type of service, or traffic class, is `byte`.
    fn of(byte: u8) -> Ecn {
        [Ecn::NotEct, Ecn::Ect1, Ecn::Ect0, Ecn::Ce][usize::from(byte & 3)]
    }
}

impl Datagram {
    /// The first byte of the buffer.
    #[inline]
    fn buffer(&self) -> NonNull<u8> {
        match self.place.home() {
            Home::Pool => {
                // SAFETY: the owner is the core's buffers, and this holds a share of them.
                let datagrams = unsafe { self.owner.cast::<Datagrams>().as_ref() };
                datagrams.buffers.buffer(self.place.bid())
            }
            Home::Heap => self.owner.cast(),
        }
    }

    #[inline]
    fn payload(&self) -> NonNull<u8> {
        // SAFETY: the start is within the buffer, or one past its end.
        unsafe { self.buffer().add(self.place.start()) }
    }

    /// What is in front of the payload.
    #[inline]
    fn front(&self) -> &[u8; FRONT] {
        // SAFETY: every buffer begins with so many bytes, which the kernel or `Blank` has written,
        // and the mapping's were zero before. Nobody writes to them while this lives.
        unsafe { self.buffer().cast().as_ref() }
    }

    fn number(&self, which: usize) -> u32 {
        let bytes = self.front()[4 * which..][..4].try_into().expect("four bytes");
        u32::from_ne_bytes(bytes)
    }

    /// Who sent it.
    #[must_use]
    pub fn from(&self) -> SocketAddr {
        let len = (self.number(0) as usize).min(NAME);
        let from = Address::of_bytes(&self.front()[NUMBERS..NUMBERS + len]);
        // A socket of the internet gets no datagram without a sender.
        from.unwrap_or_else(|_| (Ipv4Addr::UNSPECIFIED, 0).into())
    }

    /// The control messages that came with it: level, kind and value.
    fn control(&self) -> impl Iterator<Item = (i32, i32, &[u8])> {
        let len = (self.number(1) as usize).min(CONTROL);
        control::messages(&self.front()[NUMBERS + NAME..][..len])
    }

    /// The address that it was sent to, and the index of the interface by which it came.
    fn arrival(&self) -> Option<(IpAddr, u32)> {
        self.control().find_map(|(level, kind, value)| match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                let to: [u8; 4] = value.get(8..12)?.try_into().ok()?;
                let interface = u32::from_ne_bytes(value.get(..4)?.try_into().ok()?);
                Some((Ipv4Addr::from(to).into(), interface))
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let to: [u8; 16] = value.get(..16)?.try_into().ok()?;
                let interface = u32::from_ne_bytes(value.get(16..20)?.try_into().ok()?);
                Some((Ipv6Addr::from(to).into(), interface))
            }
            _ => None,
        })
    }

    /// The address that it was sent to, if
    /// [`set_recv_packet_info`](crate::net::UdpSocket::set_recv_packet_info) is on: one of this
    /// machine's, a group, or a broadcast.
    #[must_use]
    pub fn to(&self) -> Option<IpAddr> {
        self.arrival().map(|(to, _)| to)
    }

    /// The index of the interface by which it came, if
    /// [`set_recv_packet_info`](crate::net::UdpSocket::set_recv_packet_info) is on.
    #[must_use]
    pub fn interface(&self) -> Option<u32> {
        self.arrival().map(|(_, interface)| interface)
    }

    /// Its congestion mark, if [`set_recv_ecn`](crate::net::UdpSocket::set_recv_ecn) is on.
    #[must_use]
    pub fn ecn(&self) -> Option<Ecn> {
        self.control().find_map(|(level, kind, value)| match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_TOS) => Some(Ecn::of(*value.first()?)),
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                Some(Ecn::of(i32::from_ne_bytes(value.get(..4)?.try_into().ok()?) as u8))
            }
            _ => None,
        })
    }

    /// The size of each of the datagrams that the kernel has put together into this one, the last of
    /// which may be smaller, if [`set_gro`](crate::net::UdpSocket::set_gro) is on. `None`: it is one.
    #[must_use]
    pub fn segment_size(&self) -> Option<usize> {
        self.control().find_map(|(level, kind, value)| match (level, kind) {
            (libc::SOL_UDP, libc::UDP_GRO) => {
                let size = u16::from_ne_bytes(value.get(..2)?.try_into().ok()?);
                (size > 0).then_some(usize::from(size))
            }
            _ => None,
        })
    }

    /// The datagrams that are in it: itself, or those that the kernel has put together.
    ///
    /// An empty datagram is one, too.
    pub fn segments(&self) -> impl Iterator<Item = &[u8]> {
        let size = self.segment_size().unwrap_or(usize::MAX);
        let mut rest = Some(&**self);
        std::iter::from_fn(move || {
            let (first, behind) = rest?.split_at(rest?.len().min(size));
            rest = (!behind.is_empty()).then_some(behind);
            Some(first)
        })
    }

    /// Whether the kernel had to cut it. No datagram that there is comes to that, see
    /// [`Datagram`]; if one ever did, it would not do so in silence.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.number(3) & libc::MSG_TRUNC.cast_unsigned() != 0
    }

    /// Consumes `count` bytes from the front.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn advance(&mut self, count: usize) {
        self.place.advance(count);
    }

    /// Whether it is in one of the core's buffers, not on the heap.
    #[must_use]
    pub fn is_lease(&self) -> bool {
        self.place.home() == Home::Pool
    }
}

impl Deref for Datagram {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the kernel filled these bytes, and only this lease refers to them.
        unsafe { std::slice::from_raw_parts(self.payload().as_ptr(), self.place.len()) }
    }
}

impl DerefMut for Datagram {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`.
        unsafe { std::slice::from_raw_parts_mut(self.payload().as_ptr(), self.place.len()) }
    }
}

impl AsRef<[u8]> for Datagram {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl std::fmt::Debug for Datagram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Datagram")
            .field("len", &self.len())
            .field("from", &self.from())
            .field("lease", &self.is_lease())
            .finish_non_exhaustive()
    }
}

// SAFETY: the bytes stay where they are until the lease is dropped, and it is the only one.
unsafe impl IoBuf for Datagram {
    #[inline]
    fn buf_ptr(&self) -> *const u8 {
        self.payload().as_ptr()
    }

    #[inline]
    fn buf_len(&self) -> usize {
        self.place.len()
    }
}

impl Drop for Datagram {
    #[inline]
    fn drop(&mut self) {
        match self.place.home() {
            Home::Pool => {
                // SAFETY: `lease` made the pointer of a share of the buffers, which ends here.
                let datagrams = unsafe { Rc::from_raw(self.owner.cast::<Datagrams>().as_ptr()) };
                datagrams.buffers.give_back(self.place.bid());
            }
            Home::Heap => {
                let len = self.place.start() + self.place.len();
                let memory = ptr::slice_from_raw_parts_mut(self.owner.cast().as_ptr(), len);
                // SAFETY: `fill` leaked a box that ends with the payload.
                drop(unsafe { Box::<[u8]>::from_raw(memory) });
            }
        }
    }
}

/// Memory for one datagram, when the core has no buffers.
pub(crate) struct Blank {
    memory: Vec<u8>,
    header: libc::msghdr,
    iovec: libc::iovec,
}

impl Blank {
    pub(crate) fn new() -> Self {
        let mut memory = Vec::with_capacity(FRONT + LARGEST);
        memory.resize(FRONT, 0);
        let (nothing, iovec) =
            (ptr::null_mut(), libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 });
        let header = libc::msghdr {
            msg_name: nothing,
            msg_namelen: 0,
            msg_iov: ptr::null_mut(),
            msg_iovlen: 0,
            msg_control: nothing,
            msg_controllen: 0,
            msg_flags: 0,
        };
        Blank { memory, header, iovec }
    }

    /// The header for a request, which holds while this stays in its place.
    pub(crate) fn header(&mut self) -> *mut libc::msghdr {
        let start = self.memory.as_mut_ptr();
        let place = |at: usize| start.wrapping_add(at).cast::<libc::c_void>();
        self.iovec = libc::iovec { iov_base: place(FRONT), iov_len: LARGEST };
        self.header = libc::msghdr {
            msg_name: place(NUMBERS),
            msg_namelen: NAME as libc::socklen_t,
            msg_iov: &raw mut self.iovec,
            msg_iovlen: 1,
            msg_control: place(NUMBERS + NAME),
            msg_controllen: CONTROL as _,
            msg_flags: 0,
        };
        &raw mut self.header
    }

    /// The datagram, whose payload of `received` bytes the kernel has filled.
    pub(crate) fn fill(mut self, received: usize) -> Datagram {
        assert!(received <= LARGEST, "the kernel filled {received} bytes of {LARGEST}");
        // SAFETY: there is room for so many, and the kernel has filled them: answers are truthful.
        unsafe { self.memory.set_len(FRONT + received) };
        let header = &self.header;
        let numbers = [
            header.msg_namelen,
            header.msg_controllen as u32,
            received as u32,
            header.msg_flags.cast_unsigned(),
        ];
        for (place, number) in self.memory.chunks_exact_mut(4).zip(numbers) {
            place.copy_from_slice(&number.to_ne_bytes());
        }
        let owner = NonNull::from(Box::leak(self.memory.into_boxed_slice())).cast();
        Datagram { owner, place: Place::new(FRONT, received, 0, Home::Heap) }
    }
}
