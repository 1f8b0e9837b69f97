//! The client of a source: asks for chunks and takes them in as large pieces as come.

use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use io_uring::types::Fd;
use io_uring::{cqueue, opcode};

use crate::cell::Exchange;
use crate::client::{Client, DRAIN_WITHIN, SEND_TAG, Slice, WAIT, error_of};
use crate::histogram::Histogram;
use crate::protocol::CHUNK_BYTE;

/// A receive takes at most so much: what fits into the cache.
const PIECE_SIZE: usize = 256 << 10;
/// Replies that are asked for and have not come.
const AHEAD: usize = 2;

impl Client<'_> {
    /// Keeps replies of the source on their way on each of the connections for `length`, then waits
    /// for what is still missing. The latency is the time between two replies of a connection.
    pub fn run_stream(
        &mut self,
        connections: Range<usize>,
        exchange: Exchange,
        length: Duration,
        latency: &mut Histogram,
    ) -> io::Result<Slice> {
        let first = connections.start;
        self.prepare_scratch(connections.len(), PIECE_SIZE);
        let start = Instant::now();
        let (end, mut now, mut messages) = (start + length, start, 0);
        let mut missing = vec![AHEAD * exchange.reply.len(); connections.len()];
        let mut in_flight = connections.len();
        for index in connections {
            for _ in 0..AHEAD {
                self.request(index, exchange, start)?;
            }
            self.receive_piece(index, index - first)?;
        }
        while in_flight > 0 {
            self.ring.turn_within(WAIT)?;
            now = Instant::now();
            if now > end + DRAIN_WITHIN {
                return Err(self.failure(first, &format!("{in_flight} replies never came")));
            }
            while let Some(completion) = self.ring.next_completion() {
                let index = (completion.user_data() & !SEND_TAG) as usize;
                let missing = &mut missing[index - first];
                let count = self.take_piece(&completion, index, index - first)?;
                if count > *missing {
                    return Err(self.failure(index, "sent more than was asked for"));
                }
                let replies = |missing: usize| missing.div_ceil(exchange.reply.len());
                let before = replies(*missing);
                *missing -= count;
                for _ in replies(*missing)..before {
                    messages += 1;
                    let connection = &mut self.connections[index];
                    latency.record((now - connection.sent_at).as_nanos() as u64);
                    connection.sent_at = now;
                    if now < end {
                        self.request(index, exchange, now)?;
                        *missing += exchange.reply.len();
                    }
                }
                if *missing == 0 {
                    in_flight -= 1;
                } else {
                    self.receive_piece(index, index - first)?;
                }
            }
        }
        Ok(Slice { messages, elapsed: now - start, stalled: Duration::ZERO })
    }

    /// The length of a piece. Its first and its last byte are looked at: to look at all would take
    /// the client longer than the copy out of the kernel.
    fn take_piece(
        &mut self,
        completion: &cqueue::Entry,
        index: usize,
        buffer: usize,
    ) -> io::Result<usize> {
        if completion.user_data() & SEND_TAG != 0 {
            return Err(self.failure(index, &format!("send: {}", error_of(completion.result()))));
        }
        self.connections[index].receive_armed = false;
        let count = match completion.result() {
            0 => return Err(self.failure(index, "closed a connection")),
            count if count > 0 => count as usize,
            error => return Err(self.failure(index, &format!("receive: {}", error_of(error)))),
        };
        let piece = &self.scratch[buffer][..count];
        if piece[0] != CHUNK_BYTE || piece[count - 1] != CHUNK_BYTE {
            return Err(self.failure(index, "sent a wrong reply"));
        }
        Ok(count)
    }

    fn receive_piece(&mut self, index: usize, buffer: usize) -> io::Result<()> {
        let connection = &mut self.connections[index];
        connection.receive_armed = true;
        let fd = Fd(connection.socket.as_raw_fd());
        let buffer = &mut self.scratch[buffer];
        let entry = opcode::Recv::new(fd, buffer.as_mut_ptr(), buffer.len() as u32)
            .build()
            .user_data(index as u64);
        // SAFETY: the buffer lives as long as the client, which ends after all receives, and nobody
        // looks at it before the completion.
        unsafe { self.ring.push(&entry) }
    }
}
