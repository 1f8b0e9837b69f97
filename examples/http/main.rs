//! An HTTP server on every core: it greets whoever asks.
//!
//! ```text
//! cargo run --release --example http [address]      127.0.0.1:8080 unless given
//! curl -i http://127.0.0.1:8080/                    Hello, world!
//! wrk -c 64 -d 5 http://127.0.0.1:8080/             how many times a second
//! ```
//!
//! Connections are kept alive, and requests may be pipelined: what one read brings is answered by
//! one write. Bodies are skipped. It shows the network, and is not a framework: every path gets the
//! same answer, and chunked bodies are refused. A connection may be idle for as long as it likes, but a
//! request that has begun has to arrive within ten seconds, and its answer to be taken.

mod connection;
mod date;
mod requests;

use std::io;
use std::rc::Rc;

use quoit::net::TcpListener;
use quoit::runtime;

use date::Date;

fn main() -> runtime::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    runtime::start_per_core(async move || serve(&address).await)
}

/// What every core does: it binds the same address, and the kernel spreads the connections.
async fn serve(address: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let core = runtime::core();
    if core.index() == 0 {
        println!("http://{}/ on {} cores", listener.local_addr()?, core.count());
    }
    let date = Rc::new(Date::default());
    loop {
        let stream = listener.accept_stream().await?;
        let date = Rc::clone(&date);
        drop(quoit::spawn(async move {
            // A client that has gone away is no news.
            let _ = connection::serve(stream, || date.text()).await;
        }));
    }
}
