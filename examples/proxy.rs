//! A TCP proxy on every core: whoever connects is passed on to an upstream.
//!
//! ```text
//! cargo run --release --example http 127.0.0.1:8080
//! cargo run --release --example proxy 127.0.0.1:7000 127.0.0.1:8080     listen, upstream
//! curl -i http://127.0.0.1:7000/                                        Hello, world!
//! ```
//!
//! When one side has said all that it has to say, the other is told so, and may still answer. On
//! Ctrl-C every core says what it has passed on.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use quoit::io::copy_bidirectional;
use quoit::net::{TcpListener, TcpStream};
use quoit::{runtime, time};

/// How long an upstream may take to accept a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// What a core has passed on.
#[derive(Default)]
struct Counts {
    connections: Cell<u64>,
    failures: Cell<u64>,
    up: Cell<u64>,
    down: Cell<u64>,
}

impl Counts {
    fn add(count: &Cell<u64>, more: u64) {
        count.set(count.get() + more);
    }
}

/// A core's counts are said when the core is done with them.
impl Drop for Counts {
    fn drop(&mut self) {
        let Counts { connections, failures, up, down } = self;
        let (connections, failures) = (connections.get(), failures.get());
        let (up, down) = (up.get(), down.get());
        println!("{connections} connections, {failures} failed, {up} bytes up, {down} bytes down");
    }
}

fn main() -> runtime::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let listen = arguments.next().unwrap_or("127.0.0.1:7000".into());
    let upstream = arguments.next().unwrap_or("127.0.0.1:8080".into());
    runtime::start_per_core(async move || serve(&listen, &upstream).await)
}

async fn serve(listen: &str, upstream: &str) -> io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    if runtime::core().index() == 0 {
        println!("{} is passed on to {upstream}", listener.local_addr()?);
    }
    let (counts, upstream) = (Rc::new(Counts::default()), Rc::<str>::from(upstream));
    loop {
        let client = listener.accept_stream().await?;
        let (counts, upstream) = (Rc::clone(&counts), Rc::clone(&upstream));
        drop(quoit::spawn(async move {
            Counts::add(&counts.connections, 1);
            if pass_on(client, &upstream, &counts).await.is_err() {
                Counts::add(&counts.failures, 1);
            }
        }));
    }
}

/// Passes one connection on until both sides have ended, or one of them fails.
async fn pass_on(client: TcpStream, upstream: &str, counts: &Counts) -> io::Result<()> {
    let connecting = TcpStream::connect(upstream);
    let server = time::timeout(CONNECT_WITHIN, connecting).await??;
    let (passed, result) = match copy_bidirectional(&client, &server).await {
        Ok(passed) => (passed, Ok(())),
        Err(failed) => (failed.copied, Err(failed.into())),
    };
    Counts::add(&counts.up, passed.0);
    Counts::add(&counts.down, passed.1);
    result
}
