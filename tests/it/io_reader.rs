//! `BufReader` and `BufWriter`: what a slice would give, however the bytes arrive.

use std::io::ErrorKind;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use quoit::buf::PooledBuf;
use quoit::io::{BufReader, BufWriter, TooLong};

use crate::io_script::{Event, Script, drive, try_times};
use crate::loopback::{Flag, Random, lap, pair_of_ours, pattern, poll_once, until};
use crate::support::on_every_driver;

/// Bytes in which delimiters and ends of lines are frequent.
fn text(random: &mut Random) -> Vec<u8> {
    let len = random.size(9000);
    (0..len).map(|_| b"ab\r\n;c"[random.below(6)]).collect()
}

/// What `read_until` gives of `rest`: an error is `None`.
fn until_in(rest: &[u8], delimiter: u8, limit: usize) -> Option<&[u8]> {
    match rest.iter().position(|&byte| byte == delimiter) {
        Some(at) if at <= limit => Some(&rest[..=at]),
        None if rest.len() <= limit => Some(rest),
        _ => None,
    }
}

/// One call of a random kind, dropped after so many polls; how much it consumed of `rest`.
fn step(reader: &mut BufReader<&Script>, random: &mut Random, rest: &[u8]) -> usize {
    let times = 1 + random.below(4);
    let size = random.size(6000);
    match random.below(7) {
        0 => {
            let mut buf = vec![0; size];
            let Some(count) = try_times(times, reader.read(&mut buf)) else { return 0 };
            let count = count.unwrap();
            assert_eq!(count == 0, rest.is_empty());
            assert_eq!(buf[..count], rest[..count]);
            count
        }
        1 => {
            let mut buf = vec![0; size];
            match try_times(times, reader.read_exact(&mut buf)) {
                None => 0,
                Some(Ok(())) => {
                    assert_eq!(buf, rest[..size]);
                    size
                }
                Some(Err(error)) => {
                    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
                    assert!(rest.len() < size);
                    0
                }
            }
        }
        2 => {
            let delimiter = b";\n"[random.below(2)];
            let expected = until_in(rest, delimiter, size);
            match try_times(times, reader.read_until(delimiter, size)) {
                None => 0,
                Some(Ok(bytes)) => {
                    assert_eq!(Some(bytes), expected);
                    bytes.len()
                }
                Some(Err(error)) => {
                    assert_eq!((too_long(&error), expected), (Some(size), None));
                    0
                }
            }
        }
        3 => {
            let expected = until_in(rest, b'\n', size);
            match try_times(times, reader.read_line(size)) {
                None => 0,
                Some(Ok(None)) => {
                    assert!(rest.is_empty());
                    0
                }
                Some(Ok(Some(line))) => {
                    let whole = str::from_utf8(expected.unwrap()).unwrap();
                    let without = whole.strip_suffix('\n').unwrap_or(whole);
                    assert_eq!(line, without.strip_suffix('\r').unwrap_or(without));
                    whole.len()
                }
                Some(Err(error)) => {
                    assert_eq!((too_long(&error), expected), (Some(size), None));
                    0
                }
            }
        }
        4 => {
            let before = reader.consumed();
            if let Some(skipped) = try_times(times, reader.skip(size as u64)) {
                assert_eq!(skipped.unwrap(), size.min(rest.len()) as u64);
            }
            (reader.consumed() - before) as usize
        }
        5 => {
            let Some(bytes) = try_times(times, reader.peek(size)) else { return 0 };
            let bytes = bytes.unwrap();
            assert!(bytes.len() >= size.min(rest.len()) && *bytes == rest[..bytes.len()]);
            let count = random.below(bytes.len() + 1);
            reader.consume(count);
            count
        }
        _ => {
            let Some(bytes) = try_times(times, reader.fill_buf()) else { return 0 };
            let bytes = bytes.unwrap();
            assert!(bytes.is_empty() == rest.is_empty() && *bytes == rest[..bytes.len()]);
            let count = random.below(bytes.len() + 1);
            reader.consume(count);
            count
        }
    }
}

fn too_long(error: &std::io::Error) -> Option<usize> {
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    error.get_ref()?.downcast_ref().map(|error: &TooLong| error.limit)
}

#[test]
fn a_reader_gives_what_a_slice_gives_however_the_bytes_are_cut_and_calls_are_dropped() {
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let bytes = text(&mut random);
        let most =
            [if bytes.len() < 1000 { 1 } else { 30 }, 70, 300, PooledBuf::SIZE][random.below(4)];
        let script = Script::cut(&bytes, most, &mut random);
        let mut at = 0;
        let mut reader = BufReader::new(&script);
        for _ in 0..40 {
            let before = reader.consumed();
            let count = step(&mut reader, &mut random, &bytes[at..]);
            assert_eq!(reader.consumed() - before, count as u64, "seed {seed}");
            at += count;
            if random.below(10) == 0 {
                // What it has not consumed is the stream's again, in its order.
                drop(reader);
                assert!(script.rest() == bytes[at..], "seed {seed}, {at} consumed");
                reader = BufReader::new(&script);
            }
        }
        let script = reader.into_inner();
        assert!(script.rest() == bytes[at..], "seed {seed}, {at} consumed");
    }
}

#[test]
fn an_item_in_one_lease_is_handed_out_where_it_arrived() {
    let lease = PooledBuf::copied(b"first\nsecond\nthi");
    let start = lease.as_ptr();
    let script = Script::default();
    script.then(Event::Bytes(lease));
    script.then(Event::Bytes(PooledBuf::copied(b"rd\nfourth\n")));
    let mut reader = BufReader::new(&script);
    assert_eq!(drive(reader.read_line(99)).unwrap().unwrap().as_ptr(), start);
    assert_eq!(drive(reader.read_until(b'\n', 99)).unwrap().as_ptr(), start.wrapping_add(6));
    assert_eq!(drive(reader.read_line(99)).unwrap(), Some("third"));
    assert_eq!(drive(reader.read_line(99)).unwrap(), Some("fourth"));
    assert_eq!(drive(reader.read_line(99)).unwrap(), None);
}

#[test]
fn a_line_that_is_too_long_is_refused_as_soon_as_that_is_known_and_stays() {
    let script = Script::default();
    script.then(Event::Bytes(PooledBuf::copied(b"12345678")));
    script.then(Event::Wait);
    let mut reader = BufReader::new(&script);
    for _ in 0..2 {
        let error = try_times(1, reader.read_line(7)).unwrap().unwrap_err();
        assert_eq!(too_long(&error), Some(7));
        assert_eq!(error.to_string(), "a line or a frame is longer than 7 bytes");
    }
    // With eight it is known only when the end comes.
    assert!(try_times(1, reader.read_line(8)).is_none());
    assert_eq!(drive(reader.read_line(8)).unwrap(), Some("12345678"));
}

#[test]
fn a_line_that_is_no_text_is_an_error_and_the_next_one_is_read() {
    let script = Script::default();
    script.then(Event::Bytes(PooledBuf::copied(b"\xff\xfe\nnext")));
    script.then(Event::Error(ErrorKind::ConnectionReset));
    let mut reader = BufReader::new(&script);
    let error = drive(reader.read_line(99)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert!(error.get_ref().unwrap().is::<std::str::Utf8Error>());
    // An error of the stream takes nothing away.
    assert_eq!(drive(reader.read_line(99)).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(drive(reader.read_line(99)).unwrap(), Some("next"));
}

#[test]
fn a_line_that_comes_byte_by_byte_is_searched_once() {
    // Searched anew with each byte, this would take two hundred million looks.
    const LEN: usize = 20_000;
    let script = Script::default();
    for _ in 0..LEN {
        script.then(Event::Bytes(PooledBuf::copied(b"x")));
        script.then(Event::Wait);
    }
    script.then(Event::Bytes(PooledBuf::copied(b"\n")));
    let mut reader = BufReader::new(&script);
    // Each call is dropped at its first wait.
    let mut line = None;
    while line.is_none() {
        line = try_times(1, reader.read_line(LEN)).map(|line| line.unwrap().unwrap().len());
    }
    assert_eq!(line, Some(LEN));
}

#[test]
#[should_panic(expected = "3 bytes were consumed of 2")]
fn more_than_there_is_cannot_be_consumed() {
    let script = Script::default();
    script.then(Event::Bytes(PooledBuf::copied(b"ab")));
    let mut reader = BufReader::new(&script);
    drive(reader.fill_buf()).unwrap();
    reader.consume(3);
}

#[test]
fn a_reader_that_waits_holds_no_lease_and_gives_back_what_it_has() {
    on_every_driver(|| async {
        let (stream, peer) = pair_of_ours().await;
        peer.write_all("half a li").await.unwrap();
        let mut reader = BufReader::new(&stream);
        reader.peek(9).await.unwrap();
        {
            let mut line = pin!(reader.read_line(100));
            assert!(poll_once(line.as_mut(), &Arc::new(Flag::default())).is_pending());
            assert_eq!(quoit::runtime::stats().leases, 0);
            lap().await;
        }
        drop(reader);
        assert_eq!(stream.read_exact([0; 4]).await.unwrap(), *b"half");
        peer.write_all("ne\nrest").await.unwrap();
        let mut reader = BufReader::new(stream);
        assert_eq!(reader.read_line(100).await.unwrap(), Some(" a line"));
        let stream = reader.into_inner();
        assert_eq!(stream.read_exact([0; 4]).await.unwrap(), *b"rest");
        // Of several pieces each comes to its place again.
        let (reading, writing) = (Rc::new(stream), peer.write_all(pattern(0, 6000)));
        let half_read = async {
            let mut reader = BufReader::new(Rc::clone(&reading));
            reader.peek(4500).await.unwrap();
            reader.consume(1);
        };
        quoit::join!(writing, half_read).0.unwrap();
        let whole = reading.read_exact(vec![0; 5999]).await.unwrap();
        assert!(whole == pattern(1, 5999));
    });
}

#[test]
fn a_stream_is_read_and_written_at_once_through_both_buffers() {
    on_every_driver(|| async {
        let (ours, theirs) = pair_of_ours().await;
        let echo = quoit::spawn(async move {
            let (mut reader, mut writer) = (BufReader::new(&ours), BufWriter::new(&ours));
            loop {
                let bytes = reader.fill_buf().await.unwrap();
                if bytes.is_empty() {
                    break;
                }
                let count = bytes.len();
                writer.write_all(bytes).await.unwrap();
                reader.consume(count);
                writer.flush().await.unwrap();
            }
        });
        let mut reader = BufReader::new(&theirs);
        let mut writer = BufWriter::with_capacity(1000, &theirs);
        let mut answer = vec![0; 3000];
        for round in 0..5 {
            let question = pattern(round, 3000);
            writer.write_all(&question).await.unwrap();
            assert_eq!(writer.held().len(), 1000, "it sends only when there is no room left");
            writer.flush().await.unwrap();
            reader.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, question);
        }
        let (_, held) = writer.into_inner();
        assert!(held.is_empty());
        drop(reader);
        drop(theirs);
        echo.await.unwrap();
    });
}

#[test]
fn a_flush_that_was_dropped_while_it_sent_ends_the_writer() {
    on_every_driver(|| async {
        let (stream, peer) = pair_of_ours().await;
        stream.set_send_buffer_size(8192).unwrap();
        peer.set_recv_buffer_size(8192).unwrap();
        let mut writer = BufWriter::with_capacity(64 << 20, &stream);
        writer.write_all(b"small").await.unwrap();
        drop(writer.flush());
        assert_eq!(writer.held(), b"small", "it was not polled");
        writer.write_all(&vec![0; 3_000_000]).await.unwrap();
        {
            let mut flush = pin!(writer.flush());
            assert!(poll_once(flush.as_mut(), &Arc::new(Flag::default())).is_pending());
            lap().await;
        }
        assert_eq!(writer.flush().await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        drop(peer);
        until(|| quoit::runtime::stats().orphans == 0).await;
    });
}
