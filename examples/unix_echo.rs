//! An echo server on a Unix socket, on every core: what it receives, it sends back, descriptors too.
//!
//! ```text
//! cargo run --release --example unix_echo [path]     /tmp/quoit-echo.socket unless given
//! socat - UNIX-CONNECT:/tmp/quoit-echo.socket        type a line; Ctrl-C ends either side
//! ```
//!
//! All cores accept from one socket: the first that binds the path makes it, the others share it. A
//! file that a dead server has left there is replaced, one where somebody listens is not, and the
//! last core that ends removes it.

use std::io;
use std::os::fd::AsFd;

use quoit::net::{UnixListener, UnixStream};
use quoit::runtime;

fn main() -> runtime::Result<()> {
    let path = std::env::args().nth(1).unwrap_or("/tmp/quoit-echo.socket".into());
    runtime::start_per_core(async move || serve(&path).await)
}

async fn serve(path: &str) -> io::Result<()> {
    let options = UnixListener::options().replace_stale(true).remove_on_drop(true);
    let listener = options.bind(path).await?;
    let core = runtime::core();
    if core.index() == 0 {
        println!("echo on {path}, {} cores", core.count());
    }
    loop {
        let (stream, _) = listener.accept().await?;
        let peer = stream.peer_cred()?;
        // The task stays on this core. Without its handle, it runs until it ends by itself.
        drop(quoit::spawn(async move {
            if let Err(error) = echo(stream).await {
                eprintln!("process {:?} of user {}: {error}", peer.pid(), peer.uid());
            }
        }));
    }
}

/// Unlike `recv`, this takes the descriptors that come with the bytes; they go back with them.
async fn echo(stream: UnixStream) -> io::Result<()> {
    let mut buf = Vec::with_capacity(64 * 1024);
    loop {
        let (count, fds);
        (count, buf, fds) = stream.recv_with_fds(buf).await?;
        if count == 0 {
            return Ok(());
        }
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        buf = stream.send_with_fds(buf, &borrowed).await?;
    }
}
