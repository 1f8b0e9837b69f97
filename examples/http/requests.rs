//! Requests out of bytes, however the reads cut them, and the answers to them.

/// The most bytes that a request's line and headers may have.
pub(crate) const HEAD_AT_MOST: usize = 8 * 1024;

/// The requests of a connection, however the reads cut them.
#[derive(Default)]
pub(crate) struct Requests {
    /// A head of which the end has not come yet.
    head: Vec<u8>,
    /// How many bytes of a body are still to be skipped.
    body: u64,
}

impl Requests {
    /// Answers the requests that end within `bytes`. `false` means that there will be no more.
    pub(crate) fn answer(&mut self, mut bytes: &[u8], date: &str, answers: &mut Vec<u8>) -> bool {
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
                    refuse(refusal, date, answers);
                    return false;
                }
            }
        }
    }

    /// Whether no request has begun that has not ended.
    pub(crate) fn is_idle(&self) -> bool {
        self.head.is_empty() && self.body == 0
    }

    /// The request that has begun takes too long. One whose body is late was answered with its head.
    pub(crate) fn time_out(&mut self, date: &str, answers: &mut Vec<u8>) {
        if self.body == 0 {
            refuse(TIMED_OUT, date, answers);
        }
    }

    /// How many bytes are kept of a request that has not ended.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        self.head.len()
    }
}

/// The last answer of a connection.
fn refuse(refusal: &str, date: &str, answers: &mut Vec<u8>) {
    let head = format!("HTTP/1.1 {refusal}\r\nDate: {date}\r\n");
    answers.extend_from_slice(head.as_bytes());
    answers.extend_from_slice(b"Content-Length: 0\r\nConnection: close\r\n\r\n");
}

/// How long the head is, with the empty line that ends it; the end is not before `from`.
fn head_len(bytes: &[u8], from: usize) -> Option<usize> {
    let end = bytes[from..].windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(from + end + 4)
}

const BAD: &str = "400 Bad Request";
const TIMED_OUT: &str = "408 Request Timeout";
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
