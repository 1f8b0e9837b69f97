//! An echo server with buffers of its own: each connection reads into one that it keeps.
//!
//! ```text
//! cargo run --release --example echo_owned [address]      127.0.0.1:7000 unless given
//! nc 127.0.0.1 7000                                       type a line; Ctrl-C ends either side
//! ```
//!
//! A call that reads or writes takes the buffer, because the kernel may use it until the answer
//! comes, and gives it back with the answer. With an error it comes back too, in the `BufError`;
//! `?` drops it there, which is what most programs want. The other server, `echo`, uses the buffers
//! of the core's pool instead, and needs less memory when most connections are idle.

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
        drop(quoit::spawn(async move {
            if let Err(error) = echo(stream).await {
                eprintln!("{peer}: {error}");
            }
        }));
    }
}

async fn echo(stream: TcpStream) -> io::Result<()> {
    let mut buf = Vec::with_capacity(4096);
    loop {
        let n;
        (n, buf) = stream.read(buf).await?;
        if n == 0 {
            return Ok(());
        }
        // The read has set the length to n, so this writes what came, and no more.
        buf = stream.write_all(buf).await?;
    }
}
