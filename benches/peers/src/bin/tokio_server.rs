//! tokio: one task per connection on the current-thread runtime.

use std::io;

use peers::protocol::{Mode, READ_SIZE, Responder};
use peers::server::{Options, announce_ready, listen};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn main() -> io::Result<()> {
    let options = Options::from_command_line();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(serve(options))
}

async fn serve(options: Options) -> io::Result<()> {
    let listener = listen(options.port)?;
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    announce_ready()?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            if let Err(error) = converse(stream, options.mode).await {
                eprintln!("tokio_server: {error}");
            }
        });
    }
}

async fn converse(mut stream: TcpStream, mode: Mode) -> io::Result<()> {
    let mut responder = Responder::new(mode);
    let mut input = vec![0; READ_SIZE];
    let mut output = Vec::new();
    loop {
        let length = stream.read(&mut input).await?;
        if length == 0 {
            return Ok(());
        }
        responder.respond(&input[..length], &mut output);
        stream.write_all(&output).await?;
        output.clear();
    }
}
