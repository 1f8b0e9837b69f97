//! The protocol: requests out of bytes, however they are cut, and replies into bytes.

use std::borrow::Cow;
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

/// The strings of a request, where they have arrived. It has one at least.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    bytes: &'a [u8],
    strings: &'a [Range<usize>],
}

impl<'a> Request<'a> {
    pub(crate) fn len(&self) -> usize {
        self.strings.len()
    }

    /// # Panics
    /// If there are not so many.
    pub(crate) fn string(&self, index: usize) -> &'a [u8] {
        &self.bytes[self.strings[index].clone()]
    }

    pub(crate) fn strings(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let Request { bytes, strings } = *self;
        strings.iter().map(|string| &bytes[string.clone()])
    }
}

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
        self.forget_request();
        let read = std::mem::take(&mut self.start);
        if read > 0 {
            // Moving the rest is cheap: mostly there is none.
            self.bytes.drain(..read);
            (self.at, self.searched) = (self.at - read, self.searched.saturating_sub(read));
            for string in &mut self.strings {
                *string = string.start - read..string.end - read;
            }
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next request, if all of it is here.
    ///
    /// # Errors
    /// What is here is no request, or a longer one than is taken.
    pub(crate) fn next(&mut self) -> Result<Option<Request<'_>>, Malformed> {
        self.forget_request();
        loop {
            if self.at - self.start > MOST_BYTES {
                return Err(Malformed("too big a request"));
            }
            let goes_on = match self.left {
                None => self.read_head()?,
                Some(left) => self.read_string(left)?,
            };
            if !goes_on {
                return Ok(None);
            }
            match self.left {
                // Nothing was said.
                Some(0) if self.strings.is_empty() => self.forget_request(),
                Some(0) => break,
                _ => {}
            }
        }
        Ok(Some(Request { bytes: &self.bytes, strings: &self.strings }))
    }

    /// The request that was read last is not needed any more.
    fn forget_request(&mut self) {
        if self.left == Some(0) {
            self.start = self.at;
            self.left = None;
            self.strings.clear();
        }
    }

    /// Reads how many strings there are, or all of them. Whether it was here.
    fn read_head(&mut self) -> Result<bool, Malformed> {
        let Some(line) = self.line()? else { return Ok(false) };
        if self.bytes.get(line.start) == Some(&b'*') {
            let count = self.number(line.start + 1..line.end, MOST_STRINGS);
            self.left = Some(count.ok_or(Malformed("invalid multibulk length"))?);
            return Ok(true);
        }
        // A line of words, as somebody types it.
        let is_space = |place: &usize| self.bytes[*place].is_ascii_whitespace();
        let mut rest = line;
        while let Some(first) = rest.find(|place| !is_space(place)) {
            let end = rest.find(is_space).unwrap_or(rest.end);
            self.strings.push(first..end);
        }
        self.left = Some(0);
        Ok(true)
    }

    /// Reads the next string, of which so many are left. Whether it was here.
    fn read_string(&mut self, left: usize) -> Result<bool, Malformed> {
        let len = match self.len {
            Some(len) => len,
            None => {
                let Some(line) = self.line()? else { return Ok(false) };
                if self.bytes.get(line.start) != Some(&b'$') {
                    return Err(Malformed("expected '$'"));
                }
                let len = self.number(line.start + 1..line.end, LONGEST);
                *self.len.insert(len.ok_or(Malformed("invalid bulk length"))?)
            }
        };
        let end = self.at + len;
        let Some(after) = self.bytes.get(end..end + 2) else { return Ok(false) };
        if after != b"\r\n" {
            return Err(Malformed("a string does not end where it says"));
        }
        self.strings.push(self.at..end);
        (self.at, self.searched) = (end + 2, end + 2);
        (self.left, self.len) = (Some(left - 1), None);
        Ok(true)
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
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply<'a> {
    Simple(&'static str),
    Error(String),
    Integer(i64),
    /// `None` is nil.
    Bulk(Option<Cow<'a, [u8]>>),
}

impl Reply<'_> {
    pub(crate) fn into_owned(self) -> Reply<'static> {
        match self {
            Reply::Simple(text) => Reply::Simple(text),
            Reply::Error(text) => Reply::Error(text),
            Reply::Integer(number) => Reply::Integer(number),
            Reply::Bulk(bytes) => Reply::Bulk(bytes.map(|bytes| bytes.into_owned().into())),
        }
    }

    /// The number, of a reply that is one.
    pub(crate) fn integer(&self) -> i64 {
        match self {
            Reply::Integer(number) => *number,
            other => unreachable!("{other:?} is no number"),
        }
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Reply::Simple(text) => line(out, b'+', text.as_bytes()),
            Reply::Error(text) => line(out, b'-', text.as_bytes()),
            Reply::Integer(number) => integer(out, b':', *number),
            Reply::Bulk(None) => line(out, b'$', b"-1"),
            Reply::Bulk(Some(bytes)) => {
                integer(out, b'$', bytes.len() as i64);
                out.extend_from_slice(bytes);
                out.extend_from_slice(b"\r\n");
            }
        }
    }
}

/// Writes the head of an array; its parts are to follow.
pub(crate) fn array(out: &mut Vec<u8>, count: usize) {
    integer(out, b'*', count as i64);
}

fn line(out: &mut Vec<u8>, sort: u8, text: &[u8]) {
    out.push(sort);
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

/// `write!` would take as long as all the rest of a reply.
fn integer(out: &mut Vec<u8>, sort: u8, number: i64) {
    let (mut text, mut at, mut left) = ([0; 20], 20, number.unsigned_abs());
    loop {
        at -= 1;
        text[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    if number < 0 {
        at -= 1;
        text[at] = b'-';
    }
    line(out, sort, &text[at..]);
}
