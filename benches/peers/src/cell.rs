//! The cells of the comparison: each one a workload that all servers are loaded with.

use std::time::Duration;

use crate::protocol::{CHUNK_BYTE, HTTP_REQUEST, HTTP_RESPONSE, Mode};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// The busy work of a paced client for each reply.
const PACE: Duration = Duration::from_micros(3);

#[derive(Clone, Debug)]
pub struct Cell {
    pub name: &'static str,
    pub mode: Mode,
    /// The size of one echo message; without meaning for HTTP.
    message_size: usize,
    pub connections: usize,
    /// How many messages are sent in one write, and awaited before the next.
    pub depth: usize,
    /// Busy work of the client for each reply; zero saturates the server.
    pub pace: Duration,
    pub traffic: Traffic,
    /// An open loop: requests come at this share of the capacity, in percent, whatever the replies
    /// do. `None` is a closed loop: the next request waits for the reply.
    pub open_percent: Option<u32>,
}

/// How a client uses its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// One exchange after the other on connections that stay.
    Exchange,
    /// Each exchange on a connection of its own, which the client then closes.
    Churn,
    /// The server sends chunks of this size, each for a byte of the request. A message is a MiB, and
    /// two of them are asked for before the first has come, so that the server never runs out.
    Stream { chunk: usize },
    /// One exchange each, then nothing: the memory of the connections is measured.
    Idle,
}

/// What a client writes at once, and what it then waits for.
#[derive(Clone, Copy)]
pub struct Exchange {
    pub request: &'static [u8],
    pub reply: &'static [u8],
}

impl Cell {
    pub fn all() -> Vec<Cell> {
        vec![
            Cell::echo("echo64-1", 64, 1),
            Cell::echo("echo64-50", 64, 50),
            Cell::echo("echo64-500", 64, 500),
            Cell::echo("echo64-1-paced", 64, 1).paced(),
            Cell::echo("echo64-50-paced", 64, 50).paced(),
            Cell::echo("echo64-500-paced", 64, 500).paced(),
            Cell::echo("echo1k-1", 1024, 1),
            Cell::echo("echo1k-50", 1024, 50),
            Cell::echo("echo1k-500", 1024, 500),
            Cell::echo("echo1k-1-paced", 1024, 1).paced(),
            Cell::echo("echo1k-50-paced", 1024, 50).paced(),
            Cell::echo("echo1k-500-paced", 1024, 500).paced(),
            Cell::echo("echo64-2000", 64, 2000),
            Cell::echo("echo64-2000-paced", 64, 2000).paced(),
            Cell::echo("echo1k-2000", 1024, 2000),
            Cell::echo("echo1k-2000-paced", 1024, 2000).paced(),
            Cell { depth: 16, ..Cell::echo("depth16-50", 64, 50) },
            Cell { depth: 16, ..Cell::echo("depth16-500", 64, 500) },
            Cell { mode: Mode::Http, ..Cell::echo("http-64", 0, 64) },
            Cell { mode: Mode::Http, ..Cell::echo("http-512", 0, 512) },
            Cell { traffic: Traffic::Churn, ..Cell::echo("churn-1", 64, 1) },
            Cell { traffic: Traffic::Churn, ..Cell::echo("churn-50", 64, 50) },
            Cell { mode: Mode::Udp, ..Cell::echo("udp64-1", 64, 1) },
            Cell { mode: Mode::Udp, ..Cell::echo("udp64-50", 64, 50) },
            Cell { mode: Mode::Udp, ..Cell::echo("udp64-50-paced", 64, 50).paced() },
            Cell::stream("stream64k-1", 64 * KIB, 1),
            Cell::stream("stream64k-16", 64 * KIB, 16),
            Cell::stream("stream1m-1", MIB, 1),
            Cell::stream("stream1m-16", MIB, 16),
            Cell { traffic: Traffic::Idle, ..Cell::echo("idle-10000", 64, 10_000) },
            Cell::echo("echo64-1-open30", 64, 1).open(30),
            Cell::echo("echo64-1-open60", 64, 1).open(60),
            Cell::echo("echo64-50-open30", 64, 50).open(30),
            Cell::echo("echo64-50-open60", 64, 50).open(60),
            Cell::echo("echo64-50-open90", 64, 50).open(90),
            Cell::echo("echo64-500-open30", 64, 500).open(30),
            Cell::echo("echo64-500-open60", 64, 500).open(60),
            Cell::echo("echo64-500-open90", 64, 500).open(90),
        ]
    }

    fn echo(name: &'static str, message_size: usize, connections: usize) -> Cell {
        let (mode, depth, pace) = (Mode::Echo, 1, Duration::ZERO);
        let traffic = Traffic::Exchange;
        Cell { name, mode, message_size, connections, depth, pace, traffic, open_percent: None }
    }

    fn stream(name: &'static str, chunk: usize, connections: usize) -> Cell {
        let traffic = Traffic::Stream { chunk };
        Cell { mode: Mode::Source, traffic, ..Cell::echo(name, 0, connections) }
    }

    /// What the cells of one kind have in common: the letters that their names begin with.
    pub fn group(&self) -> &'static str {
        let is_letter = |c: char| c.is_ascii_alphabetic();
        &self.name[..self.name.find(|c| !is_letter(c)).unwrap_or(self.name.len())]
    }

    /// What the server is told besides its port.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["--mode".to_owned(), self.mode.name().to_owned()];
        if let Traffic::Stream { chunk } = self.traffic {
            arguments.extend(["--chunk".to_owned(), chunk.to_string()]);
        }
        arguments
    }

    fn paced(self) -> Cell {
        Cell { pace: PACE, ..self }
    }

    fn open(self, percent: u32) -> Cell {
        Cell { open_percent: Some(percent), ..self }
    }

    /// The bytes of one exchange. They are never freed, so that a send whose completion was
    /// not awaited after an error can do no harm.
    pub fn exchange(&self) -> Exchange {
        match self.mode {
            Mode::Echo | Mode::Udp => {
                let size = self.message_size * self.depth;
                let request: Vec<u8> = (0..size).map(|index| (index % 251) as u8).collect();
                let request = request.leak();
                Exchange { request, reply: request }
            }
            Mode::Http => Exchange {
                request: HTTP_REQUEST.repeat(self.depth).leak(),
                reply: HTTP_RESPONSE.repeat(self.depth).leak(),
            },
            Mode::Source => {
                let Traffic::Stream { chunk } = self.traffic else {
                    unreachable!("a source in the traffic {:?}", self.traffic);
                };
                let size = self.depth * MIB;
                let (asked, chunk) = (vec![0; size / chunk], vec![CHUNK_BYTE; size]);
                Exchange { request: asked.leak(), reply: chunk.leak() }
            }
        }
    }
}
