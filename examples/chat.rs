//! A chat server on one core: lines go to everybody, and whoever reads too slowly is dropped.
//!
//! ```text
//! cargo run --release --example chat [address]      127.0.0.1:7000 unless given
//! nc 127.0.0.1 7000                                 say something; `/nick NAME` changes who you are
//! ```
//!
//! Everything is on one core, so what the clients share needs no lock. Each has a queue of lines that
//! a task of its own writes out. The queue is bounded: nobody waits for a slow reader, whose
//! connection is ended when its queue is full, or when it takes no byte for ten seconds.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use quoit::net::{TcpListener, TcpStream};
use quoit::runtime;
use quoit::time::timeout;

/// Lines that may wait for one reader.
const MOST_LINES: usize = 1000;
/// Bytes of a line, without its end.
const LONGEST_LINE: usize = 1024;
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Room {
    clients: RefCell<BTreeMap<u64, Rc<Client>>>,
    arrivals: Cell<u64>,
}

/// Somebody in the room.
struct Client {
    stream: TcpStream,
    nick: RefCell<String>,
    /// One allocation for a line, however many read it.
    lines: RefCell<Vec<Rc<[u8]>>>,
    writer: Cell<Option<Waker>>,
    has_left: Cell<bool>,
}

fn main() -> runtime::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:7000".into());
    runtime::Builder::new().cores(1).start_per_core(async move || serve(&address).await)
}

async fn serve(address: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    println!("chat on {}", listener.local_addr()?);
    let room = Rc::new(Room::default());
    loop {
        let stream = listener.accept_stream().await?;
        let number = room.arrivals.replace(room.arrivals.get() + 1);
        let client = Rc::new(Client {
            stream,
            nick: RefCell::new(format!("guest{number}")),
            lines: RefCell::default(),
            writer: Cell::default(),
            has_left: Cell::new(false),
        });
        drop(quoit::spawn(visit(Rc::clone(&room), number, client)));
    }
}

/// A client's stay, from the welcome to the farewell.
async fn visit(room: Rc<Room>, number: u64, client: Rc<Client>) {
    room.clients.borrow_mut().insert(number, Rc::clone(&client));
    let nick = || client.nick.borrow().clone();
    room.say(&format!("* {} is here", nick()));
    let writer = quoit::spawn(write(Rc::clone(&client)));
    // A connection that breaks ends the stay as a farewell does.
    let _ = read(&room, &client).await;
    room.clients.borrow_mut().remove(&number);
    client.leave();
    drop(writer.await);
    room.say(&format!("* {} has left", nick()));
}

/// Takes the client's lines, as they may come: in pieces, or several at once.
async fn read(room: &Room, client: &Client) -> io::Result<()> {
    let mut line = Vec::new();
    while let Some(bytes) = client.stream.recv().await? {
        for &byte in bytes.iter() {
            match byte {
                b'\n' => room.hear(client, &String::from_utf8_lossy(&std::mem::take(&mut line))),
                _ if line.len() == LONGEST_LINE => return Err(io::ErrorKind::InvalidData.into()),
                byte => line.push(byte),
            }
        }
    }
    Ok(())
}

/// Writes the client's queue out until the client leaves.
async fn write(client: Rc<Client>) {
    while let Some(lines) = client.next_lines().await {
        let written = timeout(PATIENCE, client.stream.write_all_vectored(lines)).await;
        if !matches!(written, Ok(Ok(_))) {
            client.leave();
        }
    }
}

impl Room {
    fn hear(&self, client: &Client, line: &str) {
        let line = line.trim_end_matches('\r');
        let was = client.nick.borrow().clone();
        match line.strip_prefix("/nick ").map(str::trim) {
            Some("") => {}
            Some(nick) => {
                nick.clone_into(&mut client.nick.borrow_mut());
                self.say(&format!("* {was} is now {nick}"));
            }
            None => self.say(&format!("{was}: {line}")),
        }
    }

    /// Gives a line to everybody, and waits for nobody.
    fn say(&self, line: &str) {
        let line: Rc<[u8]> = format!("{line}\n").into_bytes().into();
        for client in self.clients.borrow().values() {
            client.give(Rc::clone(&line));
        }
    }
}

impl Client {
    fn give(&self, line: Rc<[u8]>) {
        let mut lines = self.lines.borrow_mut();
        if lines.len() == MOST_LINES {
            drop(lines);
            return self.leave();
        }
        lines.push(line);
        self.wake_writer();
    }

    /// All that is to be written by now; none once the client has left.
    async fn next_lines(&self) -> Option<Vec<Rc<[u8]>>> {
        poll_fn(|context| {
            self.writer.set(Some(context.waker().clone()));
            let lines = std::mem::take(&mut *self.lines.borrow_mut());
            match lines.is_empty() {
                _ if self.has_left.get() => Poll::Ready(None),
                true => Poll::Pending,
                false => Poll::Ready(Some(lines)),
            }
        })
        .await
    }

    /// Ends the connection: whoever reads from it, or waits to write to it, is told.
    fn leave(&self) {
        self.has_left.set(true);
        // It may be gone already.
        let _ = self.stream.shutdown(Shutdown::Both);
        self.wake_writer();
    }

    fn wake_writer(&self) {
        self.writer.take().into_iter().for_each(Waker::wake);
    }
}
