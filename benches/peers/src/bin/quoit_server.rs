//! quoit: one task per connection, written as its documentation teaches.

use std::io;
use std::time::Duration;

use peers::protocol::{Mode, Responder};
use peers::server::{Options, announce_ready, decline};
use quoit::net::{TcpListener, TcpStream};
use quoit::runtime::Builder;

fn main() -> io::Result<()> {
    let options = Options::from_command_line();
    let mut builder = Builder::new();
    // QUOIT_WAITING is the runtime's own; to spin has no variable but this one.
    if let Ok(text) = std::env::var("SPIN_US") {
        let most = text.parse().map_err(io::Error::other)?;
        builder = builder.spin(Duration::from_micros(most));
    }
    builder.run(serve(options)).map_err(io::Error::other)?
}

async fn serve(options: Options) -> io::Result<()> {
    if options.mode == Mode::Udp {
        decline("quoit has no datagrams yet");
    }
    let listener = TcpListener::bind(format!("127.0.0.1:{}", options.port)).await?;
    announce_ready()?;
    loop {
        let (stream, _) = listener.accept().await?;
        quoit::spawn(async move {
            let result = match options.mode {
                Mode::Http => http(stream).await,
                Mode::Source => source(stream, options).await,
                _ => echo(stream).await,
            };
            if let Err(error) = result {
                eprintln!("quoit_server: {error}");
            }
        });
    }
}

async fn echo(stream: TcpStream) -> io::Result<()> {
    while let Some(chunk) = stream.recv().await? {
        stream.write_all(chunk).await?;
    }
    Ok(())
}

async fn http(stream: TcpStream) -> io::Result<()> {
    let mut responder = Responder::default();
    let mut output = Vec::new();
    while let Some(chunk) = stream.recv().await? {
        responder.respond(&chunk, &mut output);
        output = stream.write_all(output).await?;
        output.clear();
    }
    Ok(())
}

async fn source(stream: TcpStream, options: Options) -> io::Result<()> {
    while let Some(asked) = stream.recv().await? {
        for _ in 0..asked.len() {
            stream.write_all(options.chunk).await?;
        }
    }
    Ok(())
}
