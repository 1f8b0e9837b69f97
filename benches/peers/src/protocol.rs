//! The protocols: echo on streams and of datagrams, HTTP with one fixed answer, and a source of
//! bytes.

/// The size of the buffer that every server reads into, unless it is told another.
pub const READ_SIZE: usize = 4096;

/// The most that a chunk of a source can have.
pub const CHUNK_MAX: usize = 1 << 20;

/// What a chunk is full of.
pub const CHUNK_BYTE: u8 = b'q';

/// The request that the load generator sends in HTTP mode.
pub const HTTP_REQUEST: &[u8] =
    b"GET /plaintext HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/plain\r\n\r\n";

/// The answer to every HTTP request.
pub const HTTP_RESPONSE: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\nContent-Type: text/plain\r\n\r\nHello, world!";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Echo,
    Http,
    /// Each datagram goes back to its sender.
    Udp,
    /// Each byte that comes asks for one chunk.
    Source,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Mode::Echo => "echo",
            Mode::Http => "http",
            Mode::Udp => "udp",
            Mode::Source => "source",
        }
    }

    pub fn from_name(name: &str) -> Option<Mode> {
        let all = [Mode::Echo, Mode::Http, Mode::Udp, Mode::Source];
        all.into_iter().find(|mode| mode.name() == name)
    }
}

/// One connection's side of HTTP: turns what was read into what is to be written.
#[derive(Default)]
pub struct Responder {
    /// How many bytes of the `\r\n\r\n` that ends a request have been seen.
    matched: u8,
}

impl Responder {
    /// Appends the answers to all requests that end in `input`; a request may be split over
    /// any number of inputs.
    pub fn respond(&mut self, input: &[u8], output: &mut Vec<u8>) {
        for _ in 0..self.requests_ended_by(input) {
            output.extend_from_slice(HTTP_RESPONSE);
        }
    }

    fn requests_ended_by(&mut self, input: &[u8]) -> usize {
        let mut count = 0;
        for &byte in input {
            self.matched = match (self.matched, byte) {
                (0 | 2, b'\r') | (1, b'\n') => self.matched + 1,
                (3, b'\n') => {
                    count += 1;
                    0
                }
                (_, b'\r') => 1,
                _ => 0,
            };
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(inputs: &[&[u8]]) -> usize {
        let mut responder = Responder::default();
        let mut output = Vec::new();
        for input in inputs {
            responder.respond(input, &mut output);
        }
        assert_eq!(output.len() % HTTP_RESPONSE.len(), 0);
        output.len() / HTTP_RESPONSE.len()
    }

    #[test]
    fn pipelined_requests_are_all_answered() {
        assert_eq!(answers(&[&HTTP_REQUEST.repeat(3)]), 3);
    }

    #[test]
    fn a_request_may_be_split_anywhere() {
        for at in 0..=HTTP_REQUEST.len() {
            let (head, tail) = HTTP_REQUEST.split_at(at);
            assert_eq!(answers(&[head, tail]), 1, "split at {at}");
        }
    }

    #[test]
    fn a_stray_carriage_return_starts_the_match_again() {
        assert_eq!(answers(&[b"\r\r\n\r\n"]), 1);
        assert_eq!(answers(&[b"\r\n\r\r\n"]), 0);
        assert_eq!(answers(&[b"\r\nx\r\n"]), 0);
    }
}
