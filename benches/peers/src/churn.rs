//! The client of short connections: each is opened, has one exchange, and is closed.
//!
//! A whole life is one chain of requests to the kernel, so that the client is not what is measured.
//! The client closes first, so that no port of the server waits for its second life.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use io_uring::opcode;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::{DestinationSlot, Fixed};

use crate::cell::{Cell, Exchange};
use crate::client::{Blame, Client, DIRECT_MAX, DRAIN_WITHIN, Slice, WAIT, error_of};
use crate::histogram::Histogram;

/// What a life consists of, in the order of its requests.
const STEPS: [&str; 5] = ["socket", "connect", "send", "receive", "close"];
const RECEIVE: u64 = 3;
const CLOSE: u64 = 4;

/// Where all connections of a lane lead.
pub struct Destination {
    name: String,
    /// Never freed: a connect whose completion was not awaited after an error reads it.
    address: &'static libc::sockaddr_in,
}

impl Destination {
    pub fn new(name: &str, address: SocketAddr) -> Destination {
        let SocketAddr::V4(v4) = address else {
            unreachable!("servers listen on IPv4, not on {address}");
        };
        let address = libc::sockaddr_in {
            sin_family: libc::AF_INET as libc::sa_family_t,
            sin_port: v4.port().to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
            sin_zero: [0; 8],
        };
        Destination { name: name.to_owned(), address: Box::leak(Box::new(address)) }
    }
}

impl Client<'_> {
    /// Keeps as many connections open as the cell says for `length`, one after the other in each
    /// place, then waits for the end of the last ones.
    pub fn run_churn(
        &mut self,
        to: &Destination,
        cell: &Cell,
        exchange: Exchange,
        length: Duration,
        latency: &mut Histogram,
    ) -> io::Result<Slice> {
        let places = cell.connections;
        assert!(places <= DIRECT_MAX, "{places} are more than there are descriptors for");
        self.prepare_scratch(places, exchange.reply.len());
        let start = Instant::now();
        let (end, mut now) = (start + length, start);
        let (mut in_flight, mut exchanges) = (places, 0);
        let mut born = vec![start; places];
        for place in 0..places {
            self.begin_life(place, to, exchange)?;
        }
        while in_flight > 0 {
            self.ring.turn_within(WAIT)?;
            now = Instant::now();
            if now > end + DRAIN_WITHIN {
                return Err(Blame::error(&to.name, &format!("{in_flight} lives do not end")));
            }
            while let Some(completion) = self.ring.next_completion() {
                let (step, place) = (completion.user_data() >> 32, completion.user_data() as u32);
                let (place, result) = (place as usize, completion.result());
                if result < 0 {
                    let message = format!("{}: {}", STEPS[step as usize], error_of(result));
                    return Err(Blame::error(&to.name, &message));
                }
                match step {
                    RECEIVE if self.scratch[place][..result as usize] == *exchange.reply => {
                        exchanges += 1;
                        latency.record((now - born[place]).as_nanos() as u64);
                    }
                    RECEIVE => return Err(Blame::error(&to.name, "sent a wrong reply")),
                    CLOSE if now < end => {
                        born[place] = now;
                        self.begin_life(place, to, exchange)?;
                    }
                    CLOSE => in_flight -= 1,
                    // One that succeeded in spite of its flag.
                    _ => {}
                }
            }
        }
        Ok(Slice { messages: exchanges, elapsed: now - start, stalled: Duration::ZERO })
    }

    fn begin_life(&mut self, place: usize, to: &Destination, exchange: Exchange) -> io::Result<()> {
        let fd = Fixed(place as u32);
        let slot = DestinationSlot::try_from_slot_target(place as u32)
            .map_err(|slot| io::Error::other(format!("there is no descriptor {slot}")))?;
        let (request, reply) = (exchange.request, &mut self.scratch[place]);
        let address_size = size_of_val(to.address) as libc::socklen_t;
        let steps: [Entry; STEPS.len()] = [
            opcode::Socket::new(libc::AF_INET, libc::SOCK_STREAM, 0)
                .file_index(Some(slot))
                .build()
                .flags(Flags::IO_LINK | Flags::SKIP_SUCCESS),
            opcode::Connect::new(fd, std::ptr::from_ref(to.address).cast(), address_size)
                .build()
                .flags(Flags::IO_LINK | Flags::SKIP_SUCCESS),
            opcode::Send::new(fd, request.as_ptr(), request.len() as u32)
                .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
                .build()
                .flags(Flags::IO_LINK | Flags::SKIP_SUCCESS),
            opcode::Recv::new(fd, reply.as_mut_ptr(), exchange.reply.len() as u32)
                .flags(libc::MSG_WAITALL)
                .build()
                .flags(Flags::IO_LINK),
            opcode::Close::new(fd).build(),
        ];
        for (step, entry) in steps.into_iter().enumerate() {
            let entry = entry.user_data((step as u64) << 32 | place as u64);
            // SAFETY: request and address are never freed, the buffer lives as long as the client,
            // and the chains of all places fit into the queue, so that none is cut.
            unsafe { self.ring.push(&entry)? };
        }
        Ok(())
    }
}
