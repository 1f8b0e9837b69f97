//! monoio: one task per connection, buffers that are lent to the kernel.

use std::io;

use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::udp::UdpSocket;
use monoio::net::{TcpListener, TcpStream};
use monoio::{IoUringDriver, RuntimeBuilder};
use peers::protocol::{Mode, Responder};
use peers::server::{Options, announce_ready, bind_datagram, listen};

fn main() -> io::Result<()> {
    let options = Options::from_command_line();
    let mut builder = RuntimeBuilder::<IoUringDriver>::new();
    if options.tuned {
        let mut ring = io_uring::IoUring::builder();
        ring.setup_single_issuer().setup_defer_taskrun();
        builder = builder.uring_builder(ring);
    }
    builder.build()?.block_on(serve(options))
}

async fn serve(options: Options) -> io::Result<()> {
    if options.mode == Mode::Udp {
        return datagrams(options).await;
    }
    let listener = TcpListener::from_std(listen(options.port)?)?;
    announce_ready()?;
    loop {
        let (stream, _) = listener.accept().await?;
        monoio::spawn(async move {
            let result = match options.mode {
                Mode::Http => http(stream, options).await,
                Mode::Source => source(stream, options).await,
                _ => echo(stream, options).await,
            };
            if let Err(error) = result {
                eprintln!("monoio_server: {error}");
            }
        });
    }
}

async fn echo(mut stream: TcpStream, options: Options) -> io::Result<()> {
    let mut buf = Vec::with_capacity(options.read_size);
    loop {
        let result;
        (result, buf) = stream.read(buf).await;
        if result? == 0 {
            return Ok(());
        }
        let result;
        (result, buf) = stream.write_all(buf).await;
        result?;
        buf.clear();
    }
}

async fn http(mut stream: TcpStream, options: Options) -> io::Result<()> {
    let mut responder = Responder::default();
    let mut input = Vec::with_capacity(options.read_size);
    let mut output = Vec::new();
    loop {
        let result;
        (result, input) = stream.read(input).await;
        if result? == 0 {
            return Ok(());
        }
        responder.respond(&input, &mut output);
        input.clear();
        let result;
        (result, output) = stream.write_all(output).await;
        result?;
        output.clear();
    }
}

async fn source(mut stream: TcpStream, options: Options) -> io::Result<()> {
    let mut input = Vec::with_capacity(options.read_size);
    loop {
        let result;
        (result, input) = stream.read(input).await;
        let asked = result?;
        if asked == 0 {
            return Ok(());
        }
        input.clear();
        for _ in 0..asked {
            stream.write_all(options.chunk).await.0?;
        }
    }
}

async fn datagrams(options: Options) -> io::Result<()> {
    let socket = UdpSocket::from_std(bind_datagram(options.port)?)?;
    announce_ready()?;
    let mut buf = Vec::with_capacity(options.read_size);
    loop {
        let result;
        (result, buf) = socket.recv_from(buf).await;
        let (_, peer) = result?;
        let result;
        (result, buf) = socket.send_to(buf, peer).await;
        result?;
        buf.clear();
    }
}
