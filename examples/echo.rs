//! An echo server on every core: what it receives, it sends back.
//!
//! ```text
//! cargo run --release --example echo [address]      127.0.0.1:7000 unless given
//! nc 127.0.0.1 7000                                 type a line; Ctrl-C ends either side
//! ```
//!
//! Bytes arrive in buffers of the core's pool, so a connection that is idle holds none. The buffer
//! goes to the send as it is, without a copy, and home to the pool when the kernel has sent it.

use std::io;

use quoit::net::{TcpListener, TcpStream};
use quoit::runtime;

fn main() -> runtime::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:7000".into());
    runtime::start_per_core(async move || serve(&address).await)
}

/// What every core does: it binds the same address, and the kernel spreads the connections.
async fn serve(address: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let core = runtime::core();
    if core.index() == 0 {
        println!("echo on {}, {} cores", listener.local_addr()?, core.count());
    }
    loop {
        let (stream, peer) = listener.accept().await?;
        // The task stays on this core. Without its handle, it runs until it ends by itself.
        drop(quoit::spawn(async move {
            if let Err(error) = echo(stream).await {
                eprintln!("{peer}: {error}");
            }
        }));
    }
}

async fn echo(stream: TcpStream) -> io::Result<()> {
    while let Some(chunk) = stream.recv().await? {
        stream.write_all(chunk).await?;
    }
    Ok(())
}
