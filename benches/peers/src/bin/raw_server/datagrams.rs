//! Datagrams: one multishot receive, and each answer is sent from the buffer of its question.

use std::io;
use std::mem;
use std::os::fd::AsRawFd;

use io_uring::types::{Fixed, RecvMsgOut};
use io_uring::{IoUring, cqueue, opcode};
use peers::protocol::READ_SIZE;
use peers::ring::{BufferRing, Ring};
use peers::server::{Options, announce_ready, bind_datagram};

use crate::{BUFFER_COUNT, BUFFER_GROUP, Tag, failure, from_user_data, user_data};

const SOCKET: Fixed = Fixed(0);

pub fn serve(uring: &mut IoUring, options: Options) -> io::Result<()> {
    let ring = Ring::new(uring)?;
    let buffers = BufferRing::new(ring.submitter(), BUFFER_GROUP, BUFFER_COUNT, READ_SIZE)?;
    let socket = bind_datagram(options.port)?;
    ring.submitter().register_files(&[socket.as_raw_fd()])?;
    // SAFETY: all-zero bytes are a valid msghdr.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    let mut server = Server { ring, buffers, header: Box::leak(Box::new(header)) };
    announce_ready()?;
    server.serve()
}

struct Server<'a> {
    ring: Ring<'a>,
    buffers: BufferRing,
    /// How long the addresses are that a receive writes before each payload.
    header: &'static libc::msghdr,
}

impl Server<'_> {
    fn serve(&mut self) -> io::Result<()> {
        self.arm_receive()?;
        loop {
            self.buffers.publish();
            self.ring.turn()?;
            while let Some(completion) = self.ring.next_completion() {
                match from_user_data(completion.user_data()) {
                    (Tag::Send, id) => {
                        if completion.result() < 0 {
                            eprintln!("raw_server: send: {}", failure(completion.result()));
                        }
                        self.buffers.recycle(id as u16);
                    }
                    _ => self.received(&completion)?,
                }
            }
        }
    }

    #[inline]
    fn received(&mut self, completion: &cqueue::Entry) -> io::Result<()> {
        let result = completion.result();
        if let Some(id) = cqueue::buffer_select(completion.flags()) {
            self.answer(id, result.max(0) as usize)?;
        }
        if cqueue::more(completion.flags()) {
            return Ok(());
        }
        if result < 0 && result != -libc::ENOBUFS {
            return Err(failure(result));
        }
        self.arm_receive()
    }

    #[inline]
    fn answer(&mut self, id: u16, filled: usize) -> io::Result<()> {
        let Ok(message) = RecvMsgOut::parse(self.buffers.bytes(id, filled), self.header) else {
            unreachable!("a datagram of {filled} bytes without a header");
        };
        let (payload, name) = (message.payload_data(), message.name_data());
        let entry = opcode::Send::new(SOCKET, payload.as_ptr(), payload.len() as u32)
            .dest_addr(name.as_ptr().cast())
            .dest_addr_len(name.len() as libc::socklen_t)
            .flags(libc::MSG_NOSIGNAL)
            .build()
            .user_data(user_data(Tag::Send, usize::from(id)));
        // SAFETY: payload and address are in the buffer, which is not recycled before the send has
        // ended.
        unsafe { self.ring.push(&entry) }
    }

    fn arm_receive(&mut self) -> io::Result<()> {
        let entry = opcode::RecvMsgMulti::new(SOCKET, self.header, BUFFER_GROUP)
            .build()
            .user_data(user_data(Tag::Receive, 0));
        // SAFETY: the header is never freed; the buffers live as long as the server.
        unsafe { self.ring.push(&entry) }
    }
}
