//! quoit: one task per connection, written as its documentation teaches.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use peers::protocol::{Mode, Responder};
use peers::server::{Options, announce_ready};
use quoit::net::{TcpListener, TcpStream, UdpSocket};
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
        return datagrams(options).await;
    }
    let listener = TcpListener::bind(format!("127.0.0.1:{}", options.port)).await?;
    announce_ready()?;
    loop {
        let stream = listener.accept_stream().await?;
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

/// Several tasks share the socket, so that their sends are handed over together.
async fn datagrams(options: Options) -> io::Result<()> {
    let socket = Rc::new(UdpSocket::bind(format!("127.0.0.1:{}", options.port)).await?);
    announce_ready()?;
    let tasks = (0..16).map(async |_| -> io::Result<()> {
        loop {
            let datagram = socket.recv_datagram().await?;
            let from = datagram.from();
            socket.send_to(datagram, from).await?;
        }
    });
    quoit::try_gather(tasks).await.map(drop)
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
