//! glommio: one task per connection on an executor that is not bound to a CPU by itself.

use std::io;
use std::os::fd::{FromRawFd, IntoRawFd};

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::{TcpListener, TcpStream, UdpSocket};
use glommio::{LocalExecutorBuilder, Placement};
use peers::protocol::{Mode, Responder};
use peers::server::{Options, announce_ready, bind_datagram, listen};

fn main() -> io::Result<()> {
    let options = Options::from_command_line();
    let executor = LocalExecutorBuilder::new(Placement::Unbound).make()?;
    executor.run(serve(options))
}

async fn serve(options: Options) -> io::Result<()> {
    if options.mode == Mode::Udp {
        return datagrams(options).await;
    }
    let listener = listen(options.port)?;
    // SAFETY: the descriptor is a listener and has no other owner.
    let listener = unsafe { TcpListener::from_raw_fd(listener.into_raw_fd()) };
    announce_ready()?;
    loop {
        let stream = listener.accept().await?;
        let connection = async move {
            let result = match options.mode {
                Mode::Http => http(stream, options).await,
                Mode::Source => source(stream, options).await,
                _ => echo(stream, options).await,
            };
            if let Err(error) = result {
                eprintln!("glommio_server: {error}");
            }
        };
        glommio::spawn_local(connection).detach();
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
    // SAFETY: the descriptor is a datagram socket and has no other owner.
    let socket = unsafe { UdpSocket::from_raw_fd(socket.into_raw_fd()) };
    announce_ready()?;
    let mut input = vec![0; options.read_size];
    loop {
        let (length, peer) = socket.recv_from(&mut input).await?;
        socket.send_to(&input[..length], peer).await?;
    }
}
