//! tokio-uring: one task per connection, buffers that are lent to the kernel.

use std::io;

use peers::protocol::{Mode, Responder};
use peers::server::{Options, announce_ready, bind_datagram, listen};
use tokio_uring::buf::BoundedBuf;
use tokio_uring::net::{TcpListener, TcpStream, UdpSocket};

fn main() -> io::Result<()> {
    tokio_uring::start(serve(Options::from_command_line()))
}

async fn serve(options: Options) -> io::Result<()> {
    if options.mode == Mode::Udp {
        return datagrams(options).await;
    }
    let listener = TcpListener::from_std(listen(options.port)?);
    announce_ready()?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio_uring::spawn(async move {
            let result = match options.mode {
                Mode::Http => http(stream, options).await,
                Mode::Source => source(stream, options).await,
                _ => echo(stream, options).await,
            };
            if let Err(error) = result {
                eprintln!("tokio-uring_server: {error}");
            }
        });
    }
}

async fn echo(stream: TcpStream, options: Options) -> io::Result<()> {
    let mut buf = vec![0; options.read_size];
    loop {
        let result;
        (result, buf) = stream.read(buf).await;
        let length = result?;
        if length == 0 {
            return Ok(());
        }
        let (result, slice) = stream.write_all(buf.slice(..length)).await;
        result?;
        buf = slice.into_inner();
    }
}

async fn http(stream: TcpStream, options: Options) -> io::Result<()> {
    let mut responder = Responder::default();
    let mut input = vec![0; options.read_size];
    let mut output = Vec::new();
    loop {
        let result;
        (result, input) = stream.read(input).await;
        let length = result?;
        if length == 0 {
            return Ok(());
        }
        responder.respond(&input[..length], &mut output);
        let result;
        (result, output) = stream.write_all(output).await;
        result?;
        output.clear();
    }
}

async fn source(stream: TcpStream, options: Options) -> io::Result<()> {
    let mut input = vec![0; options.read_size];
    loop {
        let result;
        (result, input) = stream.read(input).await;
        let asked = result?;
        if asked == 0 {
            return Ok(());
        }
        for _ in 0..asked {
            stream.write_all(options.chunk).await.0?;
        }
    }
}

async fn datagrams(options: Options) -> io::Result<()> {
    let socket = UdpSocket::from_std(bind_datagram(options.port)?);
    announce_ready()?;
    let mut buf = vec![0; options.read_size];
    loop {
        let result;
        (result, buf) = socket.recv_from(buf).await;
        let (length, peer) = result?;
        let (result, slice) = socket.send_to(buf.slice(..length), peer).await;
        result?;
        buf = slice.into_inner();
    }
}
