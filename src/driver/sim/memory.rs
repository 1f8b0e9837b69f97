//! The memory that requests point at: the one file that touches it.
//!
//! Every function takes addresses out of a request whose last answer has not been given, so I1 and
//! I2 of the operations hold: the memory is there, and nobody else uses it.

use std::net::SocketAddr;

use crate::driver::Fields;
use crate::sys::addr::Address;

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
    let region = Region { start: fields.addr, len: fields.off as usize };
    parse(&gather(&[region], 0, region.len))
}

/// An address in the kernel's form.
pub(super) fn parse(bytes: &[u8]) -> Option<SocketAddr> {
    let fill = |place: &mut [u8]| {
        place[..bytes.len()].copy_from_slice(bytes);
        Ok(bytes.len() as i32)
    };
    Address::read(fill).ok()
}
