//! compio: one task per connection, buffers that are lent to the kernel; tuned, a ring for one
//! thread and multishot receives into the runtime's buffers.

use std::io;
use std::num::NonZero;

use compio::BufResult;
use compio::driver::ProactorBuilder;
use compio::io::{AsyncRead, AsyncReadMulti, AsyncWriteExt};
use compio::net::{TcpListener, TcpStream, UdpSocket};
use compio::runtime::Runtime;
use futures_util::{StreamExt, pin_mut};
use peers::protocol::{Mode, READ_SIZE, Responder};
use peers::server::{Options, announce_ready, bind_datagram, listen};

/// As many as the hand-written loop has.
const POOL_SIZE: NonZero<u16> = NonZero::new(256).unwrap();

fn main() -> io::Result<()> {
    let options = Options::from_command_line();
    let mut builder = Runtime::builder();
    if options.tuned {
        let mut proactor = ProactorBuilder::new();
        proactor.single_issuer(true).defer_taskrun(true).taskrun_flag(true);
        proactor.buffer_pool_size(POOL_SIZE).buffer_pool_buffer_len(READ_SIZE);
        builder.with_proactor(proactor);
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
        let connection = async move {
            let result = match options.mode {
                Mode::Http if options.tuned => http_multishot(stream).await,
                Mode::Http => http(stream, options).await,
                Mode::Source => source(stream, options).await,
                _ if options.tuned => echo_multishot(stream).await,
                _ => echo(stream, options).await,
            };
            if let Err(error) = result {
                eprintln!("compio_server: {error}");
            }
        };
        compio::runtime::spawn(connection).detach();
    }
}

async fn echo(mut stream: TcpStream, options: Options) -> io::Result<()> {
    let mut buf = Vec::with_capacity(options.read_size);
    loop {
        let result;
        BufResult(result, buf) = stream.read(buf).await;
        if result? == 0 {
            return Ok(());
        }
        let result;
        BufResult(result, buf) = stream.write_all(buf).await;
        result?;
        buf.clear();
    }
}

async fn echo_multishot(stream: TcpStream) -> io::Result<()> {
    let mut reader = &stream;
    // The stream ends with the connection; after an error a new one goes on.
    loop {
        let chunks = reader.read_multi(0);
        pin_mut!(chunks);
        loop {
            match chunks.next().await {
                None => return Ok(()),
                Some(Ok(chunk)) => (&stream).write_all(chunk).await.0?,
                Some(Err(error)) if ran_out_of_buffers(&error) => break,
                Some(Err(error)) => return Err(error),
            }
        }
    }
}

async fn http(mut stream: TcpStream, options: Options) -> io::Result<()> {
    let mut responder = Responder::default();
    let mut input = Vec::with_capacity(options.read_size);
    let mut output = Vec::new();
    loop {
        let result;
        BufResult(result, input) = stream.read(input).await;
        if result? == 0 {
            return Ok(());
        }
        responder.respond(&input, &mut output);
        input.clear();
        let result;
        BufResult(result, output) = stream.write_all(output).await;
        result?;
        output.clear();
    }
}

async fn http_multishot(stream: TcpStream) -> io::Result<()> {
    let mut responder = Responder::default();
    let mut output = Vec::new();
    let mut reader = &stream;
    loop {
        let chunks = reader.read_multi(0);
        pin_mut!(chunks);
        loop {
            match chunks.next().await {
                None => return Ok(()),
                Some(Ok(chunk)) => responder.respond(&chunk, &mut output),
                Some(Err(error)) if ran_out_of_buffers(&error) => break,
                Some(Err(error)) => return Err(error),
            }
            let result;
            BufResult(result, output) = (&stream).write_all(output).await;
            result?;
            output.clear();
        }
    }
}

fn ran_out_of_buffers(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ResourceBusy
}

async fn source(mut stream: TcpStream, options: Options) -> io::Result<()> {
    let mut input = Vec::with_capacity(options.read_size);
    loop {
        let result;
        BufResult(result, input) = stream.read(input).await;
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
        BufResult(result, buf) = socket.recv_from(buf).await;
        let (_, peer) = result?;
        let result;
        BufResult(result, buf) = socket.send_to(buf, peer).await;
        result?;
        buf.clear();
    }
}
