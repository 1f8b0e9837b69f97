//! The cells of the comparison: each one a workload that all servers are loaded with.

use std::time::Duration;

use crate::protocol::{HTTP_REQUEST, HTTP_RESPONSE, Mode};

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
    /// An open loop: requests come at this share of the capacity, in percent, whatever the replies
    /// do. `None` is a closed loop: the next request waits for the reply.
    pub open_percent: Option<u32>,
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
            Cell { depth: 16, ..Cell::echo("depth16-50", 64, 50) },
            Cell { depth: 16, ..Cell::echo("depth16-500", 64, 500) },
            Cell { mode: Mode::Http, ..Cell::echo("http-64", 0, 64) },
            Cell { mode: Mode::Http, ..Cell::echo("http-512", 0, 512) },
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
        Cell { name, mode, message_size, connections, depth, pace, open_percent: None }
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
            Mode::Echo => {
                let size = self.message_size * self.depth;
                let request: Vec<u8> = (0..size).map(|index| (index % 251) as u8).collect();
                let request = request.leak();
                Exchange { request, reply: request }
            }
            Mode::Http => Exchange {
                request: HTTP_REQUEST.repeat(self.depth).leak(),
                reply: HTTP_RESPONSE.repeat(self.depth).leak(),
            },
        }
    }
}
