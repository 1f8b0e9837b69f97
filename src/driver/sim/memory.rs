//! The memory that requests point at: the one file that touches it.
//!
//! Every function takes addresses out of a request whose last answer has not been given, so I1 and
//! I2 of the operations hold: the memory is there, and nobody else uses it.

use std::net::SocketAddr;

use super::opcodes::SENDMSG;
use crate::driver::Fields;
use crate::driver::pad::message::Layout;
use crate::driver::pad::provided::Offer;
use crate::sys::addr::Address;
use crate::sys::control::Control;

/// A piece of a request's memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Region {
    start: u64,
    pub(super) len: usize,
}

/// How a request names its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// `addr` and `len`.
    Plain,
    /// `addr` is an array of `len` iovecs.
    Iovecs,
    /// `addr` is a `msghdr`.
    Message,
}

/// The memory of a request, piece by piece.
pub(super) fn regions(fields: &Fields, shape: Shape) -> Vec<Region> {
    let iovecs = |start: u64, count: usize| {
        let piece = |index| {
            // SAFETY: the request's payload owns an array of `count` iovecs there (I2).
            let iovec = unsafe { (start as *const libc::iovec).add(index).read() };
            Region { start: iovec.iov_base as u64, len: iovec.iov_len }
        };
        (0..count).map(piece).collect()
    };
    match shape {
        Shape::Plain => vec![Region { start: fields.addr, len: fields.len as usize }],
        Shape::Iovecs => iovecs(fields.addr, fields.len as usize),
        Shape::Message => {
            // SAFETY: the request's payload owns a message header there (I2).
            let message = unsafe { (fields.addr as *const libc::msghdr).read() };
            iovecs(message.msg_iov as u64, message.msg_iovlen)
        }
    }
}

pub(super) fn total(regions: &[Region]) -> usize {
    regions.iter().map(|region| region.len).sum()
}

/// The bytes from `skip` on, at most `most`.
pub(super) fn gather(regions: &[Region], mut skip: usize, most: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for region in regions {
        let skipped = skip.min(region.len);
        skip -= skipped;
        let len = (region.len - skipped).min(most - bytes.len());
        if len > 0 {
            // SAFETY: the region is readable for its length while the request is in flight.
            let piece = unsafe {
                std::slice::from_raw_parts((region.start as *const u8).add(skipped), len)
            };
            bytes.extend_from_slice(piece);
        }
    }
    bytes
}

/// Fills the regions, one after the other, with `bytes`, for which they have room.
pub(super) fn scatter(regions: &[Region], mut bytes: &[u8]) {
    for region in regions {
        let (piece, rest) = bytes.split_at(bytes.len().min(region.len));
        // SAFETY: the region is writable for its length while the request is in flight.
        unsafe { (region.start as *mut u8).copy_from_nonoverlapping(piece.as_ptr(), piece.len()) };
        bytes = rest;
    }
    assert!(bytes.is_empty(), "the regions have room");
}

/// Overwrites the regions, so that whoever looks too early sees rubbish.
pub(super) fn scribble(regions: &[Region]) {
    for region in regions {
        // SAFETY: the region is writable for its length while the request is in flight.
        unsafe { (region.start as *mut u8).write_bytes(0xee, region.len) };
    }
}

/// A region that is no request's: a provided buffer on offer.
pub(super) fn provided(start: std::ptr::NonNull<u8>, len: usize) -> Region {
    Region { start: start.as_ptr() as u64, len }
}

/// The path of a request.
pub(super) fn path(fields: &Fields) -> Vec<u8> {
    // SAFETY: the request's payload owns a string with a zero at its end (I2).
    unsafe { std::ffi::CStr::from_ptr(fields.addr as *const libc::c_char) }.to_bytes().to_vec()
}

/// The nanoseconds that a TIMEOUT (`addr`) or its update (`off`) points at.
pub(super) fn deadline(address: u64) -> u64 {
    // SAFETY: the ring keeps the timespec until it is dropped; the kernel's is two 64-bit numbers.
    let [sec, nsec] = unsafe { (address as *const [i64; 2]).read() };
    assert!(sec >= 0 && (0..1_000_000_000).contains(&nsec), "a timespec of {sec} s {nsec} ns");
    sec.cast_unsigned() * 1_000_000_000 + nsec.cast_unsigned()
}

/// The address that a connect points at.
pub(super) fn address(fields: &Fields) -> Option<SocketAddr> {
    parse(&address_bytes(fields))
}

/// The address that a connect points at, in the kernel's form.
pub(super) fn address_bytes(fields: &Fields) -> Vec<u8> {
    let region = Region { start: fields.addr, len: fields.off as usize };
    gather(&[region], 0, region.len)
}

/// An address in the kernel's form.
pub(super) fn parse(bytes: &[u8]) -> Option<SocketAddr> {
    let fill = |place: &mut [u8]| {
        place[..bytes.len()].copy_from_slice(bytes);
        Ok(bytes.len() as i32)
    };
    Address::read(fill).ok()
}

/// A message that goes to a program: who sent it, in the kernel's form, what comes with it, and its
/// bytes.
pub(super) struct Received {
    pub(super) name: Vec<u8>,
    pub(super) control: Control,
    pub(super) payload: Vec<u8>,
}

/// The header that a request for a message, or with one, points at.
fn header(fields: &Fields) -> *mut libc::msghdr {
    fields.addr as *mut libc::msghdr
}

/// The name and the control messages that a send has along.
pub(super) fn envelope(fields: &Fields) -> (Option<Vec<u8>>, Vec<u8>) {
    if fields.opcode != SENDMSG {
        return (None, Vec::new());
    }
    // SAFETY: the request's payload owns a message header there (I2).
    let header = unsafe { header(fields).read() };
    let bytes = |start: *mut libc::c_void, len: usize| {
        gather(&[Region { start: start as u64, len }], 0, len)
    };
    let name = bytes(header.msg_name, header.msg_namelen as usize);
    let control = bytes(header.msg_control, header.msg_controllen);
    ((!name.is_empty()).then_some(name), control)
}

/// Lays a message out in a provided buffer. Returns the result; `None` if it has no room for what is
/// in front.
pub(super) fn fill_offer(fields: &Fields, offer: Offer, received: &Received) -> Option<i32> {
    let layout = Layout::of(fields.addr)?;
    let mut iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
    let start = offer.start.as_ptr();
    let mut header = layout.header(start, offer.len as usize, &raw mut iovec)?;
    let count = fill(&mut header, received);
    Some(layout.complete(start, &header, count))
}

/// Fills the memory of a request for one message. Returns the result.
pub(super) fn fill_message(fields: &Fields, received: &Received) -> i32 {
    // SAFETY: the request's payload owns a message header there (I2).
    let count = fill(unsafe { &mut *header(fields) }, received);
    let tells_all = fields.op_flags & libc::MSG_TRUNC.cast_unsigned() != 0;
    if tells_all { received.payload.len() as i32 } else { count as i32 }
}

/// Fills what a header leads to, as far as there is room, and says so in the header.
fn fill(header: &mut libc::msghdr, received: &Received) -> usize {
    let fill_part = |start: *mut libc::c_void, len: usize, bytes: &[u8]| {
        let count = bytes.len().min(len);
        scatter(&[Region { start: start as u64, len: count }], &bytes[..count]);
        count
    };
    let name = &received.name;
    fill_part(header.msg_name, header.msg_namelen as usize, name);
    header.msg_namelen = name.len() as libc::socklen_t;
    let control = received.control.as_bytes();
    let there = fill_part(header.msg_control, header.msg_controllen, control);
    header.msg_controllen = there as _;
    // SAFETY: the header has one iovec, which is the request's payload's, or a buffer on offer.
    let payload = unsafe { header.msg_iov.read() };
    let count = fill_part(payload.iov_base, payload.iov_len, &received.payload);
    header.msg_flags = if count < received.payload.len() { libc::MSG_TRUNC } else { 0 };
    count
}
