//! What the example `resp` reads and writes: requests however they are cut, and bytes that are none.

use crate::loopback::Random;

#[path = "../../examples/resp/wire.rs"]
mod wire;

use wire::{LONGEST, Malformed, Parser, Reply, array};

/// The requests in `bytes`, fed in pieces as `cut` says, and what ended them.
fn requests(
    bytes: &[u8],
    mut cut: impl FnMut() -> usize,
) -> (Vec<Vec<Vec<u8>>>, Result<(), Malformed>) {
    let (mut parser, mut all, mut rest) = (Parser::default(), Vec::new(), bytes);
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(cut().clamp(1, rest.len()));
        rest = after;
        parser.feed(piece);
        loop {
            match parser.next() {
                Ok(Some(request)) => {
                    let strings: Vec<_> = request.strings().map(<[u8]>::to_vec).collect();
                    assert_eq!((request.len(), request.string(0)), (strings.len(), &*strings[0]));
                    all.push(strings);
                }
                Ok(None) => break,
                Err(why) => return (all, Err(why)),
            }
        }
    }
    (all, Ok(()))
}

fn encoded(request: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    array(&mut bytes, request.len());
    for string in request {
        Reply::Bulk(Some((*string).into())).write(&mut bytes);
    }
    bytes
}

#[test]
fn requests_come_out_as_they_went_in_however_they_are_cut() {
    let mut random = Random::new(7);
    for _ in 0..200 {
        let mut bytes = Vec::new();
        let mut sent: Vec<Vec<Vec<u8>>> = Vec::new();
        for _ in 0..random.size(6) {
            let strings: Vec<Vec<u8>> = (0..=random.size(4))
                .map(|_| (0..random.size(40)).map(|_| random.next() as u8).collect())
                .collect();
            bytes.extend(encoded(&strings.iter().map(Vec::as_slice).collect::<Vec<_>>()));
            sent.push(strings);
        }
        bytes.extend_from_slice(b"\r\nPING  \"x\"\r\n");
        sent.push(vec![b"PING".to_vec(), b"\"x\"".to_vec()]);
        let most = random.size(30);
        let (received, end) = requests(&bytes, || random.size(most + 1));
        assert_eq!((received, end), (sent, Ok(())));
    }
}

#[test]
fn a_client_that_never_pauses_between_requests_costs_no_memory() {
    let request = encoded(&[b"SET", b"key", &[b'x'; 100]]);
    let (first, second) = request.split_at(request.len() / 2);
    let (mut parser, mut count) = (Parser::default(), 0);
    parser.feed(first);
    for _ in 0..1000 {
        // In each piece a request ends and another begins.
        parser.feed(&[second, first].concat());
        while let Some(request) = parser.next().unwrap() {
            assert_eq!(request.string(2), [b'x'; 100]);
            count += 1;
        }
    }
    assert_eq!(count, 1000);
    let held = format!("{parser:?}").len();
    assert!(held < 16 * request.len(), "{held} characters");
}

#[test]
fn bytes_that_are_no_request_are_refused_in_words_and_never_panic() {
    let refused = |bytes: &[u8]| requests(bytes, || usize::MAX).1.unwrap_err().0;
    assert_eq!(refused(b"*x\r\n"), "invalid multibulk length");
    assert_eq!(refused(b"*-1\r\n"), "invalid multibulk length");
    assert_eq!(refused(b"*99999999999999999999\r\n"), "invalid multibulk length");
    assert_eq!(refused(b"*1\r\n+OK\r\n"), "expected '$'");
    assert_eq!(refused(b"*1\r\n$-1\r\n"), "invalid bulk length");
    assert_eq!(refused(format!("*1\r\n${}\r\n", LONGEST + 1).as_bytes()), "invalid bulk length");
    assert_eq!(refused(b"*1\r\n$2\r\nabc\r\n"), "a string does not end where it says");
    assert_eq!(refused(&vec![b'x'; 1 << 20]), "too big a line");
    let long = vec![b'x'; LONGEST];
    assert_eq!(refused(&encoded(&[long.as_slice(); 9])), "too big a request");
    let mut random = Random::new(11);
    let words: &[&[u8]] =
        &[b"*", b"$", b"\r\n", b"3", b"-1", b"*2\r\n", b"$3\r\nabc\r\n", b"\n", b"GET"];
    for _ in 0..2000 {
        let bytes: Vec<u8> = (0..random.size(30))
            .flat_map(|_| match random.size(words.len() + 1) {
                place if place < words.len() => words[place].to_vec(),
                _ => vec![random.next() as u8],
            })
            .collect();
        // Whole or in pieces, it is the same to it.
        let whole = requests(&bytes, || usize::MAX);
        assert_eq!(requests(&bytes, || 1), whole, "{:?}", String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn replies_are_written_as_clients_read_them() {
    let replies = [
        Reply::Simple("OK"),
        Reply::Error("ERR no".into()),
        Reply::Integer(-7),
        Reply::Integer(i64::MIN),
        Reply::Bulk(None),
        Reply::Bulk(Some(b"a\r\n".into())),
    ];
    let mut bytes = Vec::new();
    array(&mut bytes, replies.len());
    for reply in &replies {
        reply.clone().into_owned().write(&mut bytes);
    }
    let expected =
        b"*6\r\n+OK\r\n-ERR no\r\n:-7\r\n:-9223372036854775808\r\n$-1\r\n$3\r\na\r\n\r\n";
    assert_eq!(bytes, expected);
    assert_eq!(replies[2].integer(), -7);
}
