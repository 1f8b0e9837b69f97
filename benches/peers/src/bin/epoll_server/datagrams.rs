//! Datagrams: as many as there are with one recvmmsg, all answers with one sendmmsg.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;

use peers::server::{Options, announce_ready, bind_datagram, check};

use crate::{Epoll, unless_blocked};

const BATCH: usize = 64;

pub fn serve(options: Options) -> io::Result<()> {
    let socket = bind_datagram(options.port)?;
    socket.set_nonblocking(true)?;
    let epoll = Epoll::new()?;
    epoll.add(socket.as_raw_fd(), libc::EPOLLIN | libc::EPOLLOUT)?;
    announce_ready()?;
    let mut batch = Batch::new(options.read_size);
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; 1];
    loop {
        epoll.wait(&mut events)?;
        while batch.exchange(socket.as_raw_fd())? {}
    }
}

/// The memory of the datagrams of one call. The headers point to the rest, which never moves.
struct Batch {
    headers: Vec<libc::mmsghdr>,
    names: Vec<libc::sockaddr_in>,
    buffers: Vec<Vec<u8>>,
    vectors: Vec<libc::iovec>,
    /// Those that were received and are still to be sent.
    pending: std::ops::Range<usize>,
}

impl Batch {
    fn new(size: usize) -> Batch {
        // SAFETY: all-zero bytes are a valid address.
        let name: libc::sockaddr_in = unsafe { mem::zeroed() };
        let mut names = vec![name; BATCH];
        let mut buffers = vec![vec![0; size]; BATCH];
        let mut vectors: Vec<libc::iovec> = buffers
            .iter_mut()
            .map(|buffer| libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: size })
            .collect();
        let headers = names.iter_mut().zip(&mut vectors).map(|(name, vector)| {
            // SAFETY: all-zero bytes are a valid header.
            let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
            header.msg_hdr.msg_name = ptr::from_mut(name).cast();
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header
        });
        let headers = headers.collect();
        Batch { headers, names, buffers, vectors, pending: 0..0 }
    }

    /// Sends what is pending, receives a batch and sends it; false when the socket is drained, or
    /// has no room.
    fn exchange(&mut self, socket: RawFd) -> io::Result<bool> {
        if !self.send(socket)? {
            return Ok(false);
        }
        let Some(count) = self.receive(socket)? else {
            return Ok(false);
        };
        self.pending = 0..count;
        Ok(self.send(socket)? && count == BATCH)
    }

    fn receive(&mut self, socket: RawFd) -> io::Result<Option<usize>> {
        let name_size = size_of_val(&self.names[0]) as libc::socklen_t;
        for ((header, vector), buffer) in
            self.headers.iter_mut().zip(&mut self.vectors).zip(&self.buffers)
        {
            header.msg_hdr.msg_namelen = name_size;
            vector.iov_len = buffer.len();
        }
        let (start, no_timeout) = (self.headers.as_mut_ptr(), ptr::null_mut());
        // SAFETY: there are BATCH headers, and what they point to lives as long as they do.
        let result = check(unsafe { libc::recvmmsg(socket, start, BATCH as u32, 0, no_timeout) });
        let count = unless_blocked(result)?.map(|count| count as usize);
        for index in 0..count.unwrap_or(0) {
            self.vectors[index].iov_len = self.headers[index].msg_len as usize;
        }
        Ok(count)
    }

    /// False when some had no room; the next edge sends them.
    fn send(&mut self, socket: RawFd) -> io::Result<bool> {
        while !self.pending.is_empty() {
            let headers = &mut self.headers[self.pending.clone()];
            let (start, count) = (headers.as_mut_ptr(), headers.len() as u32);
            // SAFETY: there are count headers, and what they point to lives as long as they do.
            let result = check(unsafe { libc::sendmmsg(socket, start, count, 0) });
            match unless_blocked(result)? {
                Some(sent) => self.pending.start += sent as usize,
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}
