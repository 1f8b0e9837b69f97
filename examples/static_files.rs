//! An HTTP server for the files below a directory, on every core.
//!
//! ```text
//! cargo run --release --example static_files 127.0.0.1:8080 /usr/share/doc      address, root
//! curl -i http://127.0.0.1:8080/README                                          a file
//! curl -r 0-99 http://127.0.0.1:8080/README                                     its first 100 bytes
//! ```
//!
//! GET and HEAD, kept-alive and pipelined connections, one range, `If-Modified-Since`. A path is
//! decoded once; one with `..`, an empty part or a zero byte in it is refused, and so nothing outside
//! of the root is named. **Symbolic links are followed**, out of the root as well: whoever may write
//! there may publish what the server may read. There are no directory listings; a directory gives its
//! `index.html`.
//!
//! Each core remembers a few files: small ones whole, because sending them from memory is as cheap as
//! `sendfile` (measured up to 100 KiB), large ones open, and those it sends by `send_file`. In another
//! second a file is looked up anew.

#[path = "http/date.rs"]
mod date;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::net::Shutdown;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use quoit::buf::IoBuf;
use quoit::fs::File;
use quoit::io::{BufReader, TooLong};
use quoit::net::{TcpListener, TcpStream};
use quoit::time::TimeoutExt;
use quoit::{runtime, time};

use date::{Date, format_date, second};

/// The most bytes of a line of a request's head, and how many lines there may be.
const LINE_AT_MOST: usize = 8 * 1024;
const LINES_AT_MOST: usize = 100;
/// The most bytes that are read of a client which goes on sending after its last answer.
const LEFTOVERS_AT_MOST: u64 = 256 * 1024;
/// A connection that is idle for so long, or sends its request more slowly, is closed.
const REQUEST_WITHIN: Duration = Duration::from_secs(60);
/// A client that does not take a piece of its answer within so long is hung up on: 17 KiB a second.
const TAKEN_WITHIN: Duration = Duration::from_secs(60);
/// Files of at most so many bytes are remembered whole.
const SMALL: u64 = 128 * 1024;
/// How many files a core remembers, which bounds its memory to 64 MiB.
const FILES_AT_MOST: usize = 512;
/// Small answers are sent in one piece, which costs a copy and spares a list of pieces.
const COPIED_AT_MOST: usize = 8 * 1024;
/// The pieces in which large files are sent.
const PIECE: u64 = 1024 * 1024;

fn main() -> runtime::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or("127.0.0.1:8080".into());
    let root = PathBuf::from(arguments.next().unwrap_or(".".into()));
    runtime::start_per_core(async move || serve(&address, &root).await)
}

async fn serve(address: &str, root: &Path) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    if runtime::core().index() == 0 {
        println!("http://{}/ serves {}", listener.local_addr()?, root.display());
    }
    let files = Rc::new(Files::below(root));
    loop {
        let stream = listener.accept_stream().await?;
        let files = Rc::clone(&files);
        drop(quoit::spawn(async move {
            // A client that has gone away is no news.
            let _ = connection(stream, &files).await;
        }));
    }
}

async fn connection(stream: TcpStream, files: &Files) -> io::Result<()> {
    let (mut reader, mut request) = (BufReader::new(&stream), Request::default());
    let mut head = Vec::new();
    loop {
        let answer = match time::timeout(REQUEST_WITHIN, request.read(&mut reader)).await? {
            Ok(false) => return Ok(()),
            Ok(true) => files.answer(&request).await.unwrap_or_else(Answer::refusal),
            Err(Stop::Gone(error)) => return Err(error),
            Err(Stop::Refused(status)) => {
                // Nobody knows where the next request would begin.
                request.keep_alive = false;
                Answer::refusal(status)
            }
        };
        head.clear();
        answer.write_head(&request, &files.date.text(), &mut head);
        head = answer.send(&stream, &request, head).await?;
        if !request.keep_alive {
            // Closing with bytes unread would reset the connection before the answer is read.
            stream.shutdown(Shutdown::Write)?;
            let leftovers = reader.skip(LEFTOVERS_AT_MOST);
            return time::timeout(Duration::from_secs(2), leftovers).await?.map(drop);
        }
    }
}

const BAD: &str = "400 Bad Request";
const NOT_FOUND: &str = "404 Not Found";
const NOT_MODIFIED: &str = "304 Not Modified";
const UNSATISFIABLE: &str = "416 Range Not Satisfiable";

/// Why there is no request.
enum Stop {
    Gone(io::Error),
    Refused(&'static str),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        match error.get_ref() {
            Some(inner) if inner.is::<TooLong>() => {
                Stop::Refused("431 Request Header Fields Too Large")
            }
            Some(inner) if inner.is::<std::str::Utf8Error>() => Stop::Refused(BAD),
            _ => Stop::Gone(error),
        }
    }
}

/// What of a request matters here.
#[derive(Default)]
struct Request {
    method: String,
    target: String,
    range: String,
    since: String,
    is_http_1_0: bool,
    keep_alive: bool,
}

impl Request {
    /// Reads the next head; false if the client has hung up before one.
    async fn read(&mut self, reader: &mut BufReader<&TcpStream>) -> Result<bool, Stop> {
        loop {
            let Some(line) = reader.read_line(LINE_AT_MOST).await? else { return Ok(false) };
            // Empty lines before a request are allowed.
            if !line.is_empty() {
                self.start(line)?;
                break;
            }
        }
        let mut hosts = 0;
        for _ in 0..LINES_AT_MOST {
            let Some(line) = reader.read_line(LINE_AT_MOST).await? else {
                return Err(Stop::Refused(BAD));
            };
            if line.is_empty() {
                let is_fine = hosts == 1 || hosts == 0 && self.is_http_1_0;
                return if is_fine { Ok(true) } else { Err(Stop::Refused(BAD)) };
            }
            let (name, value) = line.split_once(':').ok_or(Stop::Refused(BAD))?;
            if name.is_empty() || name.contains([' ', '\t']) {
                return Err(Stop::Refused(BAD));
            }
            hosts += u32::from(name.eq_ignore_ascii_case("host"));
            self.header(name, value.trim_matches([' ', '\t']))?;
        }
        Err(Stop::Refused("431 Request Header Fields Too Large"))
    }

    fn start(&mut self, line: &str) -> Result<(), Stop> {
        let mut words = line.split(' ');
        let mut word = || words.next().ok_or(Stop::Refused(BAD));
        let (method, target, version) = (word()?, word()?, word()?);
        if words.next().is_some() || method.is_empty() {
            return Err(Stop::Refused(BAD));
        }
        self.is_http_1_0 = match version {
            "HTTP/1.1" => false,
            "HTTP/1.0" => true,
            _ => return Err(Stop::Refused(BAD)),
        };
        self.keep_alive = !self.is_http_1_0;
        method.clone_into(&mut self.method);
        target.clone_into(&mut self.target);
        self.range.clear();
        self.since.clear();
        Ok(())
    }

    fn header(&mut self, name: &str, value: &str) -> Result<(), Stop> {
        if name.eq_ignore_ascii_case("connection") {
            for option in value.split(',').map(str::trim) {
                self.keep_alive |= option.eq_ignore_ascii_case("keep-alive");
                self.keep_alive &= !option.eq_ignore_ascii_case("close");
            }
        } else if name.eq_ignore_ascii_case("range") {
            value.clone_into(&mut self.range);
        } else if name.eq_ignore_ascii_case("if-modified-since") {
            value.clone_into(&mut self.since);
        } else if name.eq_ignore_ascii_case("content-length") && value != "0"
            || name.eq_ignore_ascii_case("transfer-encoding")
        {
            return Err(Stop::Refused("413 Content Too Large"));
        }
        Ok(())
    }

    /// The range that is asked for, of a file of `len` bytes: `None` is all of it, and an error that
    /// there is no such range. Several ranges at once, or what is none, are answered with all of it.
    fn range_of(&self, len: u64) -> Result<Option<Range<u64>>, ()> {
        let Some((first, last)) =
            self.range.strip_prefix("bytes=").and_then(|range| range.split_once('-'))
        else {
            return Ok(None);
        };
        let range = match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(len),
            (Some(first), None) if last.is_empty() => first..len,
            (None, Some(count)) if first.is_empty() => len.saturating_sub(count)..len,
            _ => return Ok(None),
        };
        if range.is_empty() { Err(()) } else { Ok(Some(range)) }
    }
}

fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// What is sent: a status, and of a file, if there is one, a range.
struct Answer {
    status: &'static str,
    file: Option<Rc<Known>>,
    range: Range<u64>,
}

impl Answer {
    fn refusal(status: &'static str) -> Answer {
        Answer { status, file: None, range: 0..0 }
    }

    fn write_head(&self, request: &Request, date: &str, head: &mut Vec<u8>) {
        let mut put = |text: &str| head.extend_from_slice(text.as_bytes());
        ["HTTP/1.1 ", self.status, "\r\nDate: ", date].into_iter().for_each(&mut put);
        match (request.keep_alive, request.is_http_1_0) {
            (false, _) => put("\r\nConnection: close"),
            (true, true) => put("\r\nConnection: keep-alive"),
            (true, false) => {}
        }
        let Range { start, end } = self.range;
        match (&self.file, self.status) {
            // Of a whole file all is known beforehand.
            (Some(file), "200 OK") => put(&file.whole),
            (Some(file), UNSATISFIABLE) => {
                put(&format!("\r\nContent-Range: bytes */{}\r\nContent-Length: 0", file.len));
            }
            (Some(file), NOT_MODIFIED) => put(&format!("\r\nLast-Modified: {}", file.modified)),
            (Some(file), _) => {
                let (modified, last) = (&file.modified, end - 1);
                put(&format!("\r\nContent-Type: {}\r\nLast-Modified: {modified}", file.kind));
                put(&format!("\r\nContent-Range: bytes {start}-{last}/{}", file.len));
                put(&format!("\r\nContent-Length: {}", end - start));
            }
            (None, status) => {
                if status.starts_with("405") {
                    put("\r\nAllow: GET, HEAD");
                }
                put("\r\nContent-Length: 0");
            }
        }
        put("\r\n\r\n");
    }

    /// Sends the head, and what belongs behind it, and gives the head's memory back.
    async fn send(
        &self,
        stream: &TcpStream,
        request: &Request,
        mut head: Vec<u8>,
    ) -> io::Result<Vec<u8>> {
        let Range { start, end } = self.range;
        let file = self.file.as_ref().filter(|_| request.method == "GET" && start < end);
        match file.map(|file| &file.body) {
            None => Ok(stream.write_all(head).timeout(TAKEN_WITHIN).await?),
            Some(Body::Small(bytes)) => {
                let range = start as usize..end as usize;
                if range.len() <= COPIED_AT_MOST {
                    head.extend_from_slice(&bytes[range]);
                    return Ok(stream.write_all(head).timeout(TAKEN_WITHIN).await?);
                }
                let pieces = (head, Rc::clone(bytes).slice(range));
                Ok(stream.write_all_vectored(pieces).timeout(TAKEN_WITHIN).await?.0)
            }
            Some(Body::Large(file)) => {
                head = stream.write_all(head).timeout(TAKEN_WITHIN).await?;
                send_large(stream, file, self.range.clone()).await?;
                Ok(head)
            }
        }
    }
}

/// Sends a part of a file, in pieces because each has its time.
async fn send_large(stream: &TcpStream, file: &File, mut range: Range<u64>) -> io::Result<()> {
    while !range.is_empty() {
        let piece = range.start..range.end.min(range.start + PIECE);
        match time::timeout(TAKEN_WITHIN, stream.send_file(file, piece)).await?? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            sent => range.start += sent,
        }
    }
    Ok(())
}

/// The files below the root, as far as a core remembers them.
struct Files {
    root: PathBuf,
    /// By what clients call them.
    known: RefCell<HashMap<String, Rc<Known>>>,
    date: Date,
}

/// A file as it was when it was looked up.
struct Known {
    body: Body,
    len: u64,
    kind: &'static str,
    modified: String,
    /// The headers of an answer with the whole file.
    whole: String,
    /// The second in which it was looked up.
    at: Cell<u64>,
    /// What tells whether it is still the same: device, number, and time of the last change.
    identity: (u64, u64, i64, i64),
}

enum Body {
    Small(Rc<[u8]>),
    Large(File),
}

impl Files {
    fn below(root: &Path) -> Files {
        Files { root: root.to_owned(), known: RefCell::default(), date: Date::default() }
    }

    async fn answer(&self, request: &Request) -> Result<Answer, &'static str> {
        if !matches!(&request.method[..], "GET" | "HEAD") {
            return Err("405 Method Not Allowed");
        }
        let file = self.find(&request.target).await?;
        let mut answer = Answer { status: "200 OK", range: 0..file.len, file: None };
        if request.since == file.modified {
            (answer.status, answer.range) = (NOT_MODIFIED, 0..0);
        } else if !request.range.is_empty() && request.method == "GET" {
            match request.range_of(file.len) {
                Ok(None) => {}
                Ok(Some(range)) => (answer.status, answer.range) = ("206 Partial Content", range),
                Err(()) => (answer.status, answer.range) = (UNSATISFIABLE, 0..0),
            }
        }
        answer.file = Some(file);
        Ok(answer)
    }

    async fn find(&self, target: &str) -> Result<Rc<Known>, &'static str> {
        let known = self.known.borrow().get(target).cloned();
        if let Some(file) = &known {
            let now = second();
            // One looks it up anew; whoever asks meanwhile gets what there was.
            if file.at.replace(now) == now {
                return Ok(Rc::clone(file));
            }
        }
        let path = self.root.join(path_of(target)?);
        let file = match look_up(&path, known).await {
            Ok(file) => Rc::new(file),
            Err(error) => return Err(status_of(&error)),
        };
        let mut known = self.known.borrow_mut();
        if known.len() >= FILES_AT_MOST {
            known.clear();
        }
        known.insert(target.to_owned(), Rc::clone(&file));
        Ok(file)
    }
}

fn status_of(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => NOT_FOUND,
        io::ErrorKind::InvalidFilename => NOT_FOUND,
        io::ErrorKind::PermissionDenied => "403 Forbidden",
        _ => "500 Internal Server Error",
    }
}

/// The path below the root that a target names: decoded once, and of plain parts only.
fn path_of(target: &str) -> Result<PathBuf, &'static str> {
    let target = target.split(['?', '#']).next().unwrap_or_default();
    let mut rest = target.strip_prefix('/').ok_or(BAD)?.bytes();
    let mut path = Vec::new();
    while let Some(byte) = rest.next() {
        path.push(match byte {
            b'%' => {
                let mut digit = || (rest.next()? as char).to_digit(16);
                let (high, low) = (digit().ok_or(BAD)?, digit().ok_or(BAD)?);
                (high << 4 | low) as u8
            }
            byte => byte,
        });
    }
    if path.is_empty() || path.ends_with(b"/") {
        path.extend_from_slice(b"index.html");
    }
    let is_plain = |part: &[u8]| !matches!(part, b"" | b"." | b"..") && !part.contains(&0);
    if !path.split(|&byte| byte == b'/').all(is_plain) {
        return Err(BAD);
    }
    Ok(PathBuf::from(OsStr::from_bytes(&path)))
}

/// Opens a file and learns what there is to know of it. Of one that is as it `was`, nothing is read.
async fn look_up(path: &Path, was: Option<Rc<Known>>) -> io::Result<Known> {
    let mut options = File::options();
    // Whoever opens a FIFO waits for its other end.
    options.read(true).custom_flags(libc::O_NONBLOCK);
    let file = options.open(path).await?;
    // The descriptor is answered for at once, whatever the file: a copy of it asks std.
    let facts = std::fs::File::from(file.as_fd().try_clone_to_owned()?).metadata()?;
    if !facts.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let (at, len) = (Cell::new(second()), facts.len());
    let identity = (facts.dev(), facts.ino(), facts.ctime(), facts.ctime_nsec());
    let same = was.filter(|was| was.identity == identity && was.len == len);
    let body = match same.as_ref().map(|same| &same.body) {
        Some(Body::Small(bytes)) => Body::Small(Rc::clone(bytes)),
        _ if len == 0 => Body::Small(Rc::default()),
        _ if len <= SMALL => {
            let room = Vec::with_capacity(len as usize).slice(..len as usize);
            Body::Small(file.read_exact_at(room, 0).await?.into_inner().into())
        }
        _ => Body::Large(file),
    };
    let kind = kind_of(path);
    let modified = format_date(u64::try_from(facts.mtime()).unwrap_or(0));
    let whole = format!(
        "\r\nContent-Type: {kind}\r\nLast-Modified: {modified}\r\nAccept-Ranges: bytes\r\n\
         Content-Length: {len}"
    );
    Ok(Known { body, len, kind, modified, whole, at, identity })
}

fn kind_of(path: &Path) -> &'static str {
    match path.extension().and_then(OsStr::to_str) {
        Some("html" | "htm") => "text/html",
        Some("txt" | "md") => "text/plain",
        Some("css") => "text/css",
        Some("js") => "text/javascript",
        Some("json") => "application/json",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}
