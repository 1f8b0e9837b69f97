//! A UDP echo server on every core: each datagram goes back to who sent it.
//!
//! ```text
//! cargo run --release --example udp_echo [address [tasks]]   127.0.0.1:7000 and 16 unless given
//! nc -u 127.0.0.1 7000                                       type a line; Ctrl-C ends either side
//! ```
//!
//! A datagram arrives in a buffer of the core, whole, whatever its size. It goes to the send as it is,
//! without a copy, and the buffer goes home when the kernel has sent it. All datagrams of one sender
//! come to the same core.
//!
//! Several tasks share the socket of a core. While one waits for its send, the next receives, so that
//! the kernel is entered once for many datagrams when many come.

use std::io;
use std::rc::Rc;

use quoit::net::UdpSocket;
use quoit::runtime;

fn main() -> runtime::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or("127.0.0.1:7000".into());
    let tasks = arguments.next().map_or(16, |text| text.parse().expect("a number of tasks"));
    runtime::start_per_core(async move || serve(&address, tasks).await)
}

/// What every core does: it binds the same address, and the kernel spreads the senders. With port 0,
/// each core has another port.
async fn serve(address: &str, tasks: usize) -> io::Result<()> {
    let socket = Rc::new(UdpSocket::bind(address).await?);
    let core = runtime::core();
    if core.index() == 0 {
        println!("echo on {}, {} cores", socket.local_addr()?, core.count());
    }
    for _ in 1..tasks {
        drop(quoit::spawn(echo(Rc::clone(&socket))));
    }
    echo(socket).await
}

async fn echo(socket: Rc<UdpSocket>) -> io::Result<()> {
    loop {
        // An error is about one datagram, or about none: the socket is as good as before.
        match socket.recv_datagram().await {
            Ok(datagram) => {
                let from = datagram.from();
                if let Err(error) = socket.send_to(datagram, from).await {
                    eprintln!("to {from}: {error}");
                }
            }
            Err(error) => eprintln!("{error}"),
        }
    }
}
