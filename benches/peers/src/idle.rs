//! The memory of connections that do nothing.
//!
//! Each connection has one exchange, so that what it needs for that is there, and then waits. What
//! the kernel holds for it (the socket, a request that waits) is not counted. A server whose
//! connections have a buffer of their own is told to make that small, and then larger: by the
//! difference the buffer's share is known, and taken away.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::cell::Cell;
use crate::child::Server;
use crate::trial::{Contender, SERVER_CPU};

/// Connections before the first look, so that what a server makes once is there.
const BEFORE: usize = 1000;
const BUFFER_SIZES: [usize; 2] = [64, 1088];
const REPLY_WITHIN: Duration = Duration::from_secs(5);

pub const TSV_HEADER: &str = "cell\tserver\tbytes_per_connection";

/// What one server takes.
pub struct Usage {
    pub server: String,
    /// Without the application's own buffer; or why it is not known.
    pub bytes: Result<f64, String>,
}

/// Measures one server after the other: memory does not drift.
pub fn measure(cell: &Cell, contenders: &[Contender]) -> Vec<Usage> {
    let usage = |contender: &Contender| {
        let [small, large] = BUFFER_SIZES;
        let bytes = bytes_with(contender, cell, small).and_then(|at_small| {
            let share = (bytes_with(contender, cell, large)? - at_small) / (large - small) as f64;
            Ok(at_small - share * small as f64)
        });
        Usage { server: contender.name.clone(), bytes: bytes.map_err(|error| error.to_string()) }
    };
    contenders.iter().map(usage).collect()
}

/// The bytes for each connection when the server's buffers have this size.
fn bytes_with(contender: &Contender, cell: &Cell, buffer_size: usize) -> io::Result<f64> {
    let mut arguments = cell.arguments();
    arguments.extend(["--read-size".to_owned(), buffer_size.to_string()]);
    let server = Server::start(&contender.command, &arguments, SERVER_CPU)?;
    let exchange = cell.exchange();
    let mut connections = Vec::new();
    let mut add = |count: usize| -> io::Result<u64> {
        for _ in 0..count {
            let mut stream = TcpStream::connect(server.address)?;
            stream.set_read_timeout(Some(REPLY_WITHIN))?;
            stream.write_all(exchange.request)?;
            let mut reply = vec![0; exchange.reply.len()];
            stream.read_exact(&mut reply)?;
            if reply != exchange.reply {
                return Err(io::Error::other("sent a wrong reply"));
            }
            connections.push(stream);
        }
        server.times_when_idle()?;
        server.resident_bytes()
    };
    let before = add(BEFORE)?;
    let after = add(cell.connections)?;
    Ok((after as f64 - before as f64) / cell.connections as f64)
}

pub fn table(cell: &Cell, usages: &[Usage]) -> String {
    let mut table = format!("{:<18} bytes of memory for each idle connection\n", cell.name);
    for usage in usages {
        match &usage.bytes {
            Ok(bytes) => writeln!(table, "  {:<16} {bytes:>8.0}", usage.server),
            Err(reason) => writeln!(table, "  {:<16} none: {reason}", usage.server),
        }
        .expect("writing to a string");
    }
    table
}

pub fn tsv(cell: &Cell, usages: &[Usage]) -> String {
    let bytes = |usage: &Usage| usage.bytes.as_ref().map_or("-".to_owned(), |b| format!("{b:.0}"));
    usages
        .iter()
        .map(|usage| format!("{}\t{}\t{}\n", cell.name, usage.server, bytes(usage)))
        .collect()
}
