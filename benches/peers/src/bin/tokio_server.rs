//! tokio: one task per connection on the current-thread runtime.

use std::io;

use peers::protocol::{Mode, Responder};
use peers::server::{Options, announce_ready, bind_datagram, listen};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

fn main() -> io::Result<()> {
    let options = Options::from_command_line();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(serve(options))
}

async fn serve(options: Options) -> io::Result<()> {
    if options.mode == Mode::Udp {
        return datagrams(options).await;
    }
    let listener = listen(options.port)?;
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    announce_ready()?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            let result = match options.mode {
                Mode::Http => http(stream, options).await,
                Mode::Source => source(stream, options).await,
                _ => echo(stream, options).await,
            };
            if let Err(error) = result {
                eprintln!("tokio_server: {error}");
            }
        });
    }
}

async fn echo(mut stream: TcpStream, options: Options) -> io::Result<()> {
    let mut input = vec![0; options.read_size];
    loop {
        let length = stream.read(&mut input).await?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(&input[..length]).await?;
    }
}

async fn http(mut stream: TcpStream, options: Options) -> io::Result<()> {
    let mut responder = Responder::default();
    let mut input = vec![0; options.read_size];
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

async fn source(mut stream: TcpStream, options: Options) -> io::Result<()> {
    let mut input = vec![0; options.read_size];
    loop {
        let length = stream.read(&mut input).await?;
        if length == 0 {
            return Ok(());
        }
        for _ in 0..length {
            stream.write_all(options.chunk).await?;
        }
    }
}

async fn datagrams(options: Options) -> io::Result<()> {
    let socket = bind_datagram(options.port)?;
    socket.set_nonblocking(true)?;
    let socket = UdpSocket::from_std(socket)?;
    announce_ready()?;
    let mut input = vec![0; options.read_size];
    loop {
        let (length, peer) = socket.recv_from(&mut input).await?;
        socket.send_to(&input[..length], peer).await?;
    }
}
