//! The requests of `examples/http`, from bytes that were made up, and clients that mean no good.

#[path = "../../examples/http/connection.rs"]
mod connection;
#[path = "../../examples/http/requests.rs"]
mod requests;

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use quoit::net::{TcpListener, TcpStream};
use quoit::sim::{Faults, Sim};
use quoit::time::{Instant, sleep, timeout};

use crate::loopback::Random;
use connection::PATIENCE;
use requests::{HEAD_AT_MOST, Requests};

const DATE: &str = "Thu, 01 Jan 1970 00:00:00 GMT";
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n";
const GREETING: &[u8] = b"Hello, world!";

/// The answers to `bytes`, cut into pieces of these lengths in turn, and whether the connection goes on.
fn answers_to(bytes: &[u8], mut cut: impl FnMut() -> usize) -> (Vec<u8>, bool) {
    let (mut requests, mut answers, mut rest) = (Requests::default(), Vec::new(), bytes);
    while !rest.is_empty() {
        let (piece, others) = rest.split_at(cut().clamp(1, rest.len()));
        let goes_on = requests.answer(piece, DATE, &mut answers);
        if !goes_on {
            return (answers, false);
        }
        assert!(requests.kept() <= HEAD_AT_MOST, "{} bytes are kept of a request", requests.kept());
        rest = others;
    }
    (answers, true)
}

fn status_of(bytes: &[u8]) -> String {
    let (answers, goes_on) = answers_to(bytes, || usize::MAX);
    let line = answers.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let status = String::from_utf8_lossy(line).trim_start_matches("HTTP/1.1 ").to_owned();
    let is_refused = !status.is_empty() && status != "200 OK";
    assert!(!(is_refused && goes_on), "it goes on after {status:?}");
    status
}

/// Requests that are right, mutated, and bytes that never were one.
fn made_up(random: &mut Random) -> Vec<u8> {
    const PARTS: [&[u8]; 14] = [
        GET,
        b"HEAD / HTTP/1.0\r\n\r\n",
        b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nbytes",
        b"GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"Content-Length: 18446744073709551615\r\n",
        b"Content-Length: -1\r\n",
        b"\r\n",
        b"\r\n\r\n",
        b"\n",
        b": \r\n",
        b"GET ",
        b"HTTP/1.1",
        b"\0\xff",
    ];
    let mut bytes = Vec::new();
    for _ in 0..random.size(7) {
        bytes.extend_from_slice(PARTS[random.below(PARTS.len())]);
    }
    for _ in 0..random.below(4) {
        let place = random.below(bytes.len().max(1));
        match random.below(3) {
            0 if place < bytes.len() => bytes[place] = (random.next() >> 32) as u8,
            1 if place < bytes.len() => drop(bytes.remove(place)),
            _ => bytes.insert(place, (random.next() >> 32) as u8),
        }
    }
    if random.below(16) == 0 {
        let place = random.below(bytes.len() + 1);
        let many = vec![b'a' + (random.next() % 20) as u8; random.size(3 * HEAD_AT_MOST)];
        bytes.splice(place..place, many);
    }
    bytes
}

#[test]
fn however_requests_are_cut_the_answers_are_the_same() {
    let (mut ended, mut greeted) = (0, 0);
    for seed in 0..20_000 {
        let mut random = Random::new(seed + 1);
        let bytes = made_up(&mut random);
        let whole = answers_to(&bytes, || usize::MAX);
        let most = random.size(40);
        let cut = answers_to(&bytes, || random.size(most));
        assert_eq!(cut, whole, "seed {seed}: {:?}", bytes.escape_ascii().to_string());
        ended += u32::from(!whole.1);
        greeted += u32::from(whole.0.windows(GREETING.len()).any(|it| it == GREETING));
    }
    assert!(ended > 2_000 && greeted > 2_000, "too much alike: {ended} ended, {greeted} greeted");
}

#[test]
fn what_is_wrong_is_refused_by_its_name() {
    let many = "x: y\r\n".repeat(HEAD_AT_MOST);
    let cases = [
        ("GET / HTTP/1.1\r\nHost: h\r\n\r\n", "200 OK"),
        ("\r\n\r\nGET / HTTP/1.0\r\n\r\n", "200 OK"),
        ("GET /", ""),
        ("GET / HTTP/1.1\r\n\r\n", "400 Bad Request"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400 Bad Request"),
        ("GET  / HTTP/1.1\r\nHost: h\r\n\r\n", "400 Bad Request"),
        ("GET / HTTP/2.0\r\nHost: h\r\n\r\n", "400 Bad Request"),
        ("GET / HTTP/1.1\r\nHost : h\r\n\r\n", "400 Bad Request"),
        ("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: +1\r\n\r\n", "400 Bad Request"),
        (
            "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "400 Bad Request",
        ),
        ("GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", "501 Not Implemented"),
    ];
    for (bytes, status) in cases {
        assert_eq!(status_of(bytes.as_bytes()), status, "{bytes:?}");
    }
    let large = format!("GET / HTTP/1.1\r\n{many}");
    assert_eq!(status_of(large.as_bytes()), "431 Request Header Fields Too Large");
}

async fn server() -> io::Result<()> {
    let listener = TcpListener::bind("0.0.0.0:80").await?;
    loop {
        let (stream, _) = listener.accept().await?;
        quoit::spawn(async move {
            let _ = connection::serve(stream, || Box::new(DATE.to_owned())).await;
        });
    }
}

/// All that the server says until it hangs up.
async fn rest_of(stream: &TcpStream) -> io::Result<Vec<u8>> {
    let mut said = Vec::new();
    while let Some(bytes) = stream.recv().await? {
        said.extend_from_slice(&bytes);
    }
    Ok(said)
}

#[test]
fn a_client_that_dawdles_is_hung_up_on_and_the_others_are_served() {
    let sim = Sim::new(7)
        .host("server", async || server().await.unwrap())
        .client("dawdler", async || {
            sleep(Duration::from_secs(1)).await;
            let stream = TcpStream::connect("server:80").await?;
            let begun = Instant::now();
            // A byte every second is progress, but no request.
            for byte in GET {
                if stream.write_all([*byte]).await.is_err() || begun.elapsed() > PATIENCE {
                    break;
                }
                sleep(Duration::from_secs(1)).await;
            }
            let said = rest_of(&stream).await?;
            assert!(said.starts_with(b"HTTP/1.1 408 "), "{:?}", said.escape_ascii().to_string());
            let took = begun.elapsed();
            assert!(took >= PATIENCE && took < PATIENCE * 2, "{took:?}");
            Ok::<_, io::Error>(())
        })
        .client("holder", async || {
            sleep(Duration::from_secs(1)).await;
            let stream = TcpStream::connect("server:80").await?;
            stream.write_all(GET).await?;
            stream.read_exact(vec![0; 100]).await?;
            // Between two requests a client may be silent for as long as it likes.
            sleep(PATIENCE * 20).await;
            stream.write_all(GET).await?;
            stream.read_exact(vec![0; 100]).await?;
            // It promises a body, and sends none.
            let begun = Instant::now();
            stream.write_all("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n").await?;
            let said = rest_of(&stream).await?;
            assert!(said.ends_with(GREETING), "{:?}", said.escape_ascii().to_string());
            assert!(begun.elapsed() >= PATIENCE && begun.elapsed() < PATIENCE * 2);
            Ok::<_, io::Error>(())
        })
        .client("deaf", async || {
            sleep(Duration::from_secs(1)).await;
            let stream = TcpStream::connect("server:80").await?;
            // It asks and asks, and takes no answer: in the end nobody listens to it any more.
            let asks = async { while stream.write_all(GET.repeat(100)).await.is_ok() {} };
            timeout(PATIENCE * 20, asks).await.expect("it is hung up on");
            Ok::<_, io::Error>(())
        });
    sim.run().unwrap();
}

#[test]
fn a_peer_that_resets_at_any_point_leaves_nothing_behind() {
    let answered = Rc::new(Cell::new(0));
    for seed in 0..100 {
        let answered = Rc::clone(&answered);
        let sim = Sim::new(seed)
            .faults(Faults::default().resets(0.05).vanishing_peers(0.02))
            .host("server", async || server().await.unwrap())
            .client("client", async move || {
                sleep(Duration::from_secs(1)).await;
                for _ in 0..10 {
                    let exchange = async {
                        let stream = TcpStream::connect("server:80").await?;
                        for half in GET.chunks(GET.len() / 2) {
                            stream.write_all(half).await?;
                        }
                        stream.read_exact(vec![0; 100]).await?;
                        io::Result::Ok(())
                    };
                    if let Ok(Ok(())) = timeout(Duration::from_secs(30), exchange).await {
                        answered.set(answered.get() + 1);
                    }
                }
                Ok::<_, io::Error>(())
            });
        sim.run().unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
    }
    let answered = answered.get();
    assert!((100..1000).contains(&answered), "{answered} of 1000 requests were answered");
}
