//! kimojio: one task per connection, functions that take a descriptor and a borrowed buffer.

use std::io;
use std::os::fd::OwnedFd;

use kimojio::{Errno, operations};
use peers::protocol::{Mode, Responder};
use peers::server::{Options, announce_ready, decline, listen};

fn main() -> io::Result<()> {
    let options = Options::from_command_line();
    if options.mode == Mode::Udp {
        decline("kimojio has no datagram socket");
    }
    let listener = OwnedFd::from(listen(options.port)?);
    announce_ready()?;
    match kimojio::run(0, serve(listener, options)) {
        Some(Ok(result)) => Ok(result?),
        _ => Err(io::Error::other("the server has ended")),
    }
}

async fn serve(listener: OwnedFd, options: Options) -> Result<(), Errno> {
    loop {
        let socket = operations::accept(&listener).await?;
        operations::spawn_task(async move {
            let result = match options.mode {
                Mode::Http => http(&socket, options).await,
                Mode::Source => source(&socket, options).await,
                _ => echo(&socket, options).await,
            };
            let closed = operations::close(socket).await;
            if let Err(error) = result.and(closed) {
                eprintln!("kimojio_server: {error}");
            }
        });
    }
}

async fn echo(socket: &OwnedFd, options: Options) -> Result<(), Errno> {
    let mut input = vec![0; options.read_size];
    loop {
        let length = operations::read(socket, &mut input).await?;
        if length == 0 {
            return Ok(());
        }
        write_all(socket, &input[..length]).await?;
    }
}

async fn http(socket: &OwnedFd, options: Options) -> Result<(), Errno> {
    let mut responder = Responder::default();
    let mut input = vec![0; options.read_size];
    let mut output = Vec::new();
    loop {
        let length = operations::read(socket, &mut input).await?;
        if length == 0 {
            return Ok(());
        }
        responder.respond(&input[..length], &mut output);
        write_all(socket, &output).await?;
        output.clear();
    }
}

async fn source(socket: &OwnedFd, options: Options) -> Result<(), Errno> {
    let mut input = vec![0; options.read_size];
    loop {
        let length = operations::read(socket, &mut input).await?;
        if length == 0 {
            return Ok(());
        }
        for _ in 0..length {
            write_all(socket, options.chunk).await?;
        }
    }
}

async fn write_all(socket: &OwnedFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let count = operations::write(socket, bytes).await?;
        bytes = &bytes[count..];
    }
    Ok(())
}
