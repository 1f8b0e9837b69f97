//! The protocol: requests out of bytes, however they are cut, and replies into bytes.

use std::io::Write;
use std::ops::Range;

/// The longest string of a request.
pub(crate) const LONGEST: usize = 512 << 10;
/// The most strings of a request.
const MOST_STRINGS: usize = 16 << 10;
/// The longest request, and the longest line.
const MOST_BYTES: usize = 4 << 20;
const LONGEST_LINE: usize = 64 << 10;

/// What no client says; the connection ends after the answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// Finds the requests in what has arrived. It goes on where it was, so that bytes which come one by
/// one are looked at once.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    bytes: Vec<u8>,
    /// Where the request begins that is being read, and up to where it was read.
    start: usize,
    at: usize,
    /// Where the search for the end of a line goes on.
    searched: usize,
    /// Strings that are still to come; `None` before their number is known.
    left: Option<usize>,
    /// The length of the string that is being read.
    len: Option<usize>,
    strings: Vec<Range<usize>>,
}

impl Parser {
    /// Adds what has arrived.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        // What was read is not needed any more, and moving the rest is cheap: mostly there is none.
        if self.start > 0 && self.strings.is_empty() && self.left.is_none() {
            self.bytes.drain(..self.start);
            (self.at, self.searched) = (self.at - self.start, 0);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The strings of the next request, if all of it is here.
    ///
    /// # Errors
    /// What is here is no request, or a longer one than is taken.
    pub(crate) fn next(&mut self) -> Result<Option<Vec<Vec<u8>>>, Malformed> {
        loop {
            if self.at - self.start > MOST_BYTES {
                return Err(Malformed("too big a request"));
            }
            let left = match self.left {
                Some(left) => left,
                None => {
                    let Some(line) = self.line()? else { return Ok(None) };
                    if self.bytes.get(line.start) != Some(&b'*') {
                        // A line of words, as somebody types it.
                        let words = self.bytes[line].split(u8::is_ascii_whitespace);
                        let words = words.filter(|word| !word.is_empty()).map(<[u8]>::to_vec);
                        let words: Vec<_> = words.collect();
                        self.end();
                        if words.is_empty() {
                            continue;
                        }
                        return Ok(Some(words));
                    }
                    let count = self.number(line.start + 1..line.end, MOST_STRINGS);
                    let count = count.ok_or(Malformed("invalid multibulk length"))?;
                    self.left = Some(count);
                    count
                }
            };
            if left == 0 {
                let strings = self.strings.drain(..);
                let strings: Vec<_> = strings.map(|range| self.bytes[range].to_vec()).collect();
                self.end();
                if strings.is_empty() {
                    continue;
                }
                return Ok(Some(strings));
            }
            let len = match self.len {
                Some(len) => len,
                None => {
                    let Some(line) = self.line()? else { return Ok(None) };
                    if self.bytes.get(line.start) != Some(&b'$') {
                        return Err(Malformed("expected '$'"));
                    }
                    let len = self.number(line.start + 1..line.end, LONGEST);
                    let len = len.ok_or(Malformed("invalid bulk length"))?;
                    self.len = Some(len);
                    len
                }
            };
            let end = self.at + len;
            if self.bytes.len() < end + 2 {
                return Ok(None);
            }
            if self.bytes[end..end + 2] != *b"\r\n" {
                return Err(Malformed("a string does not end where it says"));
            }
            self.strings.push(self.at..end);
            (self.at, self.searched) = (end + 2, end + 2);
            (self.left, self.len) = (Some(left - 1), None);
        }
    }

    /// The next line, without its end.
    fn line(&mut self) -> Result<Option<Range<usize>>, Malformed> {
        let from = self.searched.max(self.at);
        let Some(found) = self.bytes[from..].iter().position(|byte| *byte == b'\n') else {
            self.searched = self.bytes.len();
            if self.searched - self.at > LONGEST_LINE {
                return Err(Malformed("too big a line"));
            }
            return Ok(None);
        };
        let end = from + found;
        let line = match self.bytes[self.at..end] {
            [.., b'\r'] => self.at..end - 1,
            _ => self.at..end,
        };
        (self.at, self.searched) = (end + 1, end + 1);
        Ok(Some(line))
    }

    fn number(&self, digits: Range<usize>, most: usize) -> Option<usize> {
        let digits = self.bytes.get(digits).filter(|digits| !digits.is_empty())?;
        digits.iter().try_fold(0_usize, |number, digit| {
            let digit = usize::from(digit.checked_sub(b'0').filter(|digit| *digit <= 9)?);
            Some(number * 10 + digit).filter(|number| *number <= most)
        })
    }

    /// The request has been read.
    fn end(&mut self) {
        self.start = self.at;
        (self.left, self.len) = (None, None);
    }
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    Simple(&'static str),
    Error(String),
    Integer(i64),
    /// `None` is nil.
    Bulk(Option<Vec<u8>>),
    Array(Vec<Reply>),
}

impl Reply {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let written = match self {
            Reply::Simple(text) => write!(out, "+{text}\r\n"),
            Reply::Error(text) => write!(out, "-{text}\r\n"),
            Reply::Integer(number) => write!(out, ":{number}\r\n"),
            Reply::Bulk(None) => out.write_all(b"$-1\r\n"),
            Reply::Bulk(Some(bytes)) => write!(out, "${}\r\n", bytes.len()).map(|()| {
                out.extend_from_slice(bytes);
                out.extend_from_slice(b"\r\n");
            }),
            Reply::Array(replies) => write!(out, "*{}\r\n", replies.len())
                .map(|()| replies.iter().for_each(|reply| reply.write(out))),
        };
        written.expect("a Vec takes everything");
    }
}
