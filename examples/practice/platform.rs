//! A loop for a platform: asyncio has a selector loop and a proactor loop, and a policy that chooses.
//! Here the same program runs on io_uring where that is permitted, and on epoll where it is not.

use std::error::Error;
use std::io;

use quoit::driver::DriverKind;
use quoit::net::{TcpListener, TcpStream};
use quoit::runtime::{self, Builder};
use quoit::try_join;

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    // ProactorEventLoop: the kernel is asked to do it, and answers when it is done.
    match Builder::new().driver(DriverKind::Uring).run(greet()) {
        Ok(greeted) => println!("  on {}", greeted?),
        // The text says what refuses it, and how to mend that; `quoit doctor` says more.
        Err(error) => println!("  not on io_uring: {error}"),
    }
    // SelectorEventLoop: the kernel says what can be done without waiting.
    let greeted = Builder::new().driver(DriverKind::Epoll).run(greet())?;
    println!("  on {}", greeted?);
    // The policy: the best that there is. `QUOIT_DRIVER=epoll` in the environment overrules it.
    let chosen = Builder::new().driver(DriverKind::Auto).run(async { runtime::driver() })?;
    println!("  this machine's choice: {chosen}");
    Ok(())
}

/// A greeting over TCP, and what carried it. Nothing in it depends on the driver.
async fn greet() -> io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let serve = async {
        let (stream, _) = listener.accept().await?;
        let name = stream.recv().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        stream.write_all([b"hello, ".as_slice(), &name].concat()).await?;
        Ok::<_, io::Error>(())
    };
    let ask = async {
        let stream = TcpStream::connect(address).await?;
        stream.write_all("proactor").await?;
        let greeting = stream.read_exact(vec![0; 15]).await?;
        Ok(String::from_utf8(greeting).expect("it is ASCII"))
    };
    let ((), greeting) = try_join!(serve, ask)?;
    Ok(format!("{}: {greeting}", runtime::driver()))
}
