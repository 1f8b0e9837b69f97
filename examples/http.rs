//! An HTTP server on every core: it greets whoever asks.
//!
//! ```text
//! cargo run --release --example http [address]      127.0.0.1:8080 unless given
//! curl -i http://127.0.0.1:8080/                    Hello, world!
//! wrk -c 64 -d 5 http://127.0.0.1:8080/             how many times a second
//! ```
//!
//! Connections are kept alive, and requests may be pipelined: what one read brings is answered by
//! one write. Bodies are skipped. It shows the network, and is not a framework: every path gets the
//! same answer, chunked bodies are refused, and a connection may be idle for as long as it likes.

use std::cell::{Ref, RefCell};
use std::io;
use std::net::Shutdown;
use std::rc::Rc;
use std::time::SystemTime;

use quoit::net::{TcpListener, TcpStream};
use quoit::runtime;

/// The most bytes that a request's line and headers may have.
const HEAD_AT_MOST: usize = 8 * 1024;
/// The most bytes that are read of a client which goes on sending after its last answer.
const LEFTOVERS_AT_MOST: usize = 256 * 1024;

fn main() -> runtime::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    runtime::start_per_core(async move || serve(&address).await)
}

/// What every core does: it binds the same address, and the kernel spreads the connections.
async fn serve(address: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let core = runtime::core();
    if core.index() == 0 {
        println!("http://{}/ on {} cores", listener.local_addr()?, core.count());
    }
    let date = Rc::new(Date::default());
    loop {
        let (stream, _) = listener.accept().await?;
        let date = Rc::clone(&date);
        drop(quoit::spawn(async move {
            // A client that has gone away is no news.
            let _ = connection(stream, &date).await;
        }));
    }
}

async fn connection(stream: TcpStream, date: &Date) -> io::Result<()> {
    let mut requests = Requests::default();
    let mut answers = Vec::new();
    while let Some(bytes) = stream.recv().await? {
        let goes_on = requests.answer(&bytes, &date.text(), &mut answers);
        // The buffer goes home to the pool before the client is waited for.
        drop(bytes);
        if !answers.is_empty() {
            answers = stream.write_all(answers).await?;
            answers.clear();
        }
        if !goes_on {
            return hang_up(stream).await;
        }
    }
    Ok(())
}

/// Closes the connection so that the last answer arrives: closing it with bytes unread would reset it.
async fn hang_up(stream: TcpStream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    let mut left = LEFTOVERS_AT_MOST;
    while let Some(bytes) = stream.recv().await? {
        left = left.saturating_sub(bytes.len());
        if left == 0 {
            break;
        }
    }
    stream.close().await
}

/// The requests of a connection, however the reads cut them.
#[derive(Default)]
struct Requests {
    /// A head of which the end has not come yet.
    head: Vec<u8>,
    /// How many bytes of a body are still to be skipped.
    body: u64,
}

impl Requests {
    /// Answers the requests that end within `bytes`. `false` means that there will be no more.
    fn answer(&mut self, mut bytes: &[u8], date: &str, answers: &mut Vec<u8>) -> bool {
        loop {
            let skip = self.body.min(bytes.len() as u64);
            self.body -= skip;
            bytes = &bytes[skip as usize..];
            if self.head.is_empty() {
                // Empty lines before a request are allowed.
                let blank = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
                bytes = &bytes[blank..];
            }
            if bytes.is_empty() {
                return true;
            }
            let before = self.head.len();
            // Most heads come whole and are read where they are.
            let head = if before == 0 {
                bytes
            } else {
                self.head.extend_from_slice(bytes);
                &self.head
            };
            // The end of the head may have been cut in two.
            let request = match head_len(head, before.saturating_sub(3)) {
                Some(len) if len <= HEAD_AT_MOST => {
                    let request = Request::parse(&head[..len]);
                    bytes = &bytes[len - before..];
                    self.head.clear();
                    request
                }
                None if head.len() <= HEAD_AT_MOST => {
                    if before == 0 {
                        self.head.extend_from_slice(bytes);
                    }
                    return true;
                }
                _ => Err(TOO_LARGE),
            };
            match request {
                Ok(request) => {
                    request.greet(date, answers);
                    self.body = request.body;
                    if !request.keep_alive {
                        return false;
                    }
                }
                Err(refusal) => {
                    let head = format!("HTTP/1.1 {refusal}\r\nDate: {date}\r\n");
                    answers.extend_from_slice(head.as_bytes());
                    answers.extend_from_slice(b"Content-Length: 0\r\nConnection: close\r\n\r\n");
                    return false;
                }
            }
        }
    }
}

/// How long the head is, with the empty line that ends it; the end is not before `from`.
fn head_len(bytes: &[u8], from: usize) -> Option<usize> {
    let end = bytes[from..].windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(from + end + 4)
}

const BAD: &str = "400 Bad Request";
const TOO_LARGE: &str = "431 Request Header Fields Too Large";
const NOT_IMPLEMENTED: &str = "501 Not Implemented";

/// What of a request matters here.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    is_head: bool,
    is_http_1_0: bool,
    keep_alive: bool,
    body: u64,
}

impl Request {
    /// Reads the line and the headers, and the empty line behind them.
    fn parse(head: &[u8]) -> Result<Request, &'static str> {
        let head = str::from_utf8(head).map_err(|_| BAD)?;
        let mut lines = head.trim_end_matches("\r\n").split("\r\n");
        let line: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
        let [method, target, version] = line[..] else { return Err(BAD) };
        if !is_token(method) || target.is_empty() || target.contains(|c: char| c.is_control()) {
            return Err(BAD);
        }
        let is_http_1_0 = match version {
            "HTTP/1.1" => false,
            "HTTP/1.0" => true,
            _ => return Err(BAD),
        };
        let (mut hosts, mut length, mut keep_alive) = (0, None, !is_http_1_0);
        for line in lines {
            let (name, value) = line.split_once(':').ok_or(BAD)?;
            let value = value.trim_matches([' ', '\t']);
            if !is_token(name) || value.contains(['\r', '\n', '\0']) {
                return Err(BAD);
            }
            if name.eq_ignore_ascii_case("host") {
                hosts += 1;
            } else if name.eq_ignore_ascii_case("content-length") {
                let is_number = !value.is_empty() && value.bytes().all(|c| c.is_ascii_digit());
                let number: u64 = value.parse().ok().filter(|_| is_number).ok_or(BAD)?;
                if length.is_some_and(|length| length != number) {
                    return Err(BAD);
                }
                length = Some(number);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                // Guessing where such a body ends is how requests are smuggled.
                return Err(NOT_IMPLEMENTED);
            } else if name.eq_ignore_ascii_case("connection") {
                for option in value.split(',').map(str::trim) {
                    keep_alive |= option.eq_ignore_ascii_case("keep-alive");
                    if option.eq_ignore_ascii_case("close") {
                        keep_alive = false;
                        break;
                    }
                }
            }
        }
        if hosts > 1 || hosts == 0 && !is_http_1_0 {
            return Err(BAD);
        }
        let (is_head, body) = (method == "HEAD", length.unwrap_or(0));
        Ok(Request { is_head, is_http_1_0, keep_alive, body })
    }

    fn greet(&self, date: &str, answers: &mut Vec<u8>) {
        answers.extend_from_slice(b"HTTP/1.1 200 OK\r\nDate: ");
        answers.extend_from_slice(date.as_bytes());
        answers.extend_from_slice(b"\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n");
        match (self.keep_alive, self.is_http_1_0) {
            (false, _) => answers.extend_from_slice(b"Connection: close\r\n"),
            (true, true) => answers.extend_from_slice(b"Connection: keep-alive\r\n"),
            (true, false) => {}
        }
        let rest = if self.is_head { "\r\n" } else { "\r\nHello, world!" };
        answers.extend_from_slice(rest.as_bytes());
    }
}

/// Whether `text` may be a method or the name of a header.
fn is_token(text: &str) -> bool {
    let in_token = |c: u8| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c);
    !text.is_empty() && text.bytes().all(in_token)
}

/// The core's `Date` header, written once a second.
#[derive(Default)]
struct Date(RefCell<(u64, String)>);

impl Date {
    fn text(&self) -> Ref<'_, String> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let second = now.map_or(0, |since| since.as_secs());
        if self.0.borrow().0 != second || self.0.borrow().1.is_empty() {
            *self.0.borrow_mut() = (second, format_date(second));
        }
        Ref::map(self.0.borrow(), |(_, text)| text)
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, of seconds since 1970.
fn format_date(second: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Jan", "Feb"];
    let (days, time) = (second / 86_400, second % 86_400);
    // Years that begin with March end with the leap day; eras of 400 of them are all alike.
    let since = days + 719_468;
    let (era, day_of_era) = (since / 146_097, since % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year_of_era + u64::from(month >= 10);
    let (weekday, month) = (DAYS[(days % 7) as usize], MONTHS[month as usize]);
    let (hour, minute, second) = (time / 3_600, time / 60 % 60, time % 60);
    format!("{weekday}, {day:02} {month} {year} {hour:02}:{minute:02}:{second:02} GMT")
}
