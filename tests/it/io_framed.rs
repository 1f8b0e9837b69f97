//! Frames: what goes in comes out, however it is cut, and what is wrong is said.

use std::io::{self, ErrorKind};

use quoit::buf::PooledBuf;
use quoit::io::codec::{Bytes, Decoder, Encoder, LengthDelimited, Lines};
use quoit::io::{FramedRead, FramedWrite, TooLong};

use crate::io_script::{Event, Script, drive, try_times};
use crate::loopback::{Random, pair_of_ours};
use crate::support::on_every_driver;

/// Frames of `codec` for random items, cut at random, with calls that are dropped.
fn come_out_as_they_went_in<C>(codec: C, random: &mut Random, item: fn(&mut Random) -> String)
where
    C: Decoder + Copy + for<'a> Encoder<&'a str>,
    for<'a> C::Frame<'a>: AsRef<[u8]>,
{
    let items: Vec<String> = (0..random.below(24)).map(|_| item(random)).collect();
    let (mut bytes, mut encoder) = (Vec::new(), codec);
    items.iter().for_each(|item| encoder.encode(item, &mut bytes).unwrap());
    let most = [if bytes.len() < 3000 { 1 } else { 40 }, 90, 700, PooledBuf::SIZE][random.below(4)];
    let script = Script::cut(&bytes, most, random);
    let mut frames = FramedRead::new(&script, codec);
    for item in &items {
        loop {
            if let Some(frame) = try_times(1 + random.below(3), frames.next()) {
                let frame = frame.unwrap().expect("there are as many frames as items");
                assert_eq!(frame.as_ref(), item.as_bytes());
                break;
            }
        }
        if random.below(9) == 0 {
            // Whatever is not handed out yet is the stream's again.
            frames = FramedRead::new(frames.into_reader().into_inner(), codec);
        }
    }
    assert!(drive(frames.next()).unwrap().is_none());
    assert!(drive(frames.next()).unwrap().is_none(), "the end stays the end");
}

fn any_text(random: &mut Random) -> String {
    // A frame of one byte's length has 255 bytes at most, and some of these letters are two.
    (0..random.size(128) - 1).map(|_| ['a', '\n', '\u{fc}', '\0'][random.below(4)]).collect()
}

fn line(random: &mut Random) -> String {
    (0..random.size(6000) - 1).map(|_| ['a', ' ', '\u{fc}'][random.below(3)]).collect()
}

#[test]
fn frames_come_out_as_they_went_in_however_they_are_cut() {
    for seed in 0..40 {
        let random = &mut Random::new(seed);
        come_out_as_they_went_in(LengthDelimited::u8(255), random, any_text);
        come_out_as_they_went_in(LengthDelimited::u16_be(20_000), random, any_text);
        come_out_as_they_went_in(LengthDelimited::u16_le(20_000), random, any_text);
        come_out_as_they_went_in(LengthDelimited::u32_be(20_000), random, any_text);
        come_out_as_they_went_in(LengthDelimited::u32_le(20_000), random, any_text);
    }
    for seed in 0..8 {
        come_out_as_they_went_in(Lines::new(20_000), &mut Random::new(seed), line);
    }
}

#[test]
fn headers_are_the_numbers_that_they_stand_for() {
    let encoded = |mut codec: LengthDelimited, len: usize| {
        let mut bytes = vec![9];
        codec.encode(vec![7; len], &mut bytes).unwrap();
        assert_eq!(bytes.len() - len, 1 + bytes[1..].iter().take_while(|&&b| b != 7).count());
        bytes.truncate(bytes.len() - len);
        bytes
    };
    assert_eq!(encoded(LengthDelimited::u8(255), 255), [9, 255]);
    assert_eq!(encoded(LengthDelimited::u16_be(999), 258), [9, 1, 2]);
    assert_eq!(encoded(LengthDelimited::u16_le(999), 258), [9, 2, 1]);
    assert_eq!(encoded(LengthDelimited::u32_be(1 << 20), 0x1_02_03), [9, 0, 1, 2, 3]);
    assert_eq!(encoded(LengthDelimited::u32_le(1 << 20), 0x1_02_03), [9, 3, 2, 1, 0]);
    // A limit that the number cannot say is no limit.
    assert_eq!(LengthDelimited::u8(1000).limit(), 256);
}

fn too_long(error: &io::Error) -> Option<usize> {
    error.get_ref()?.downcast_ref().map(|error: &TooLong| error.limit)
}

#[test]
fn a_frame_that_is_too_long_is_refused_before_it_comes() {
    for (codec, header, limit) in [
        (LengthDelimited::u32_be(1000), [0xff; 4], 1000),
        (LengthDelimited::u32_le(1000), [0xe9, 3, 0, 0], 1000),
    ] {
        let script = Script::default();
        script.then(Event::Bytes(PooledBuf::copied(&header[..3])));
        script.then(Event::Wait);
        script.then(Event::Bytes(PooledBuf::copied(&header[3..])));
        script.then(Event::Wait);
        let mut frames = FramedRead::new(&script, codec);
        for _ in 0..2 {
            let error = try_times(2, frames.next()).unwrap().unwrap_err();
            assert_eq!((error.kind(), too_long(&error)), (ErrorKind::InvalidData, Some(limit)));
        }
    }
    let script = Script::default();
    script.then(Event::Bytes(PooledBuf::copied(b"0123456789")));
    script.then(Event::Wait);
    let mut lines = FramedRead::new(&script, Lines::new(9));
    let error = try_times(1, lines.next()).unwrap().unwrap_err();
    assert_eq!(too_long(&error), Some(10));
    // The longest that may be, and one more behind it.
    let script = Script::default();
    script.then(Event::Bytes(PooledBuf::copied(b"123456789\n1234567890\n")));
    let mut lines = FramedRead::new(&script, Lines::new(9));
    assert_eq!(drive(lines.next()).unwrap(), Some("123456789"));
    assert_eq!(too_long(&drive(lines.next()).unwrap_err()), Some(10));
}

#[test]
fn a_stream_that_ends_within_a_frame_is_an_error_and_within_a_line_is_not() {
    for cut in 1..6 {
        let script = Script::default();
        script.then(Event::Bytes(PooledBuf::copied(&b"\0\0\0\x04ab"[..cut])));
        let mut frames = FramedRead::new(&script, LengthDelimited::u32_be(9));
        assert_eq!(drive(frames.next()).unwrap_err().kind(), ErrorKind::UnexpectedEof, "{cut}");
    }
    let script = Script::default();
    script.then(Event::Bytes(PooledBuf::copied(b"\xff\n")));
    script.then(Event::Bytes(PooledBuf::copied(b"last")));
    let mut lines = FramedRead::new(&script, Lines::new(9));
    let error = drive(lines.next()).unwrap_err();
    assert!(error.get_ref().unwrap().is::<std::str::Utf8Error>());
    assert_eq!(drive(lines.next()).unwrap(), Some("last"));
    assert_eq!(drive(lines.next()).unwrap(), None);
}

#[test]
fn a_frame_in_one_lease_is_handed_out_where_it_arrived() {
    let lease = PooledBuf::copied(b"\x03abc\x04de");
    let start = lease.as_ptr();
    let script = Script::default();
    script.then(Event::Bytes(lease));
    let next = PooledBuf::copied(b"fg\x02hi");
    let in_next = next.as_ptr().wrapping_add(3);
    script.then(Event::Bytes(next));
    let mut frames = FramedRead::new(&script, LengthDelimited::u8(9));
    assert_eq!(drive(frames.next()).unwrap().unwrap().as_ptr(), start.wrapping_add(1));
    assert_eq!(drive(frames.next()).unwrap(), Some(&b"defg"[..]));
    // What lies behind a frame that was gathered is not gathered with it.
    assert_eq!(drive(frames.next()).unwrap().unwrap().as_ptr(), in_next);
}

/// Counts what it is shown.
struct Counting(Lines, usize);

impl Decoder for Counting {
    type Frame<'a> = usize;

    fn frame_len(&mut self, bytes: &[u8], seen: usize) -> io::Result<Option<usize>> {
        self.1 += bytes.len() - seen;
        self.0.frame_len(bytes, seen)
    }

    fn decode(&mut self, frame: &[u8]) -> io::Result<usize> {
        Ok(frame.len())
    }

    fn limit(&self) -> usize {
        self.0.limit()
    }
}

#[test]
fn a_peer_that_sends_byte_by_byte_has_each_looked_at_once() {
    let script = Script::default();
    for _ in 0..5000 {
        script.then(Event::Bytes(PooledBuf::copied(b"x")));
        script.then(Event::Wait);
    }
    script.then(Event::Bytes(PooledBuf::copied(b"\n")));
    let mut frames = FramedRead::new(&script, Counting(Lines::new(5000), 0));
    let mut frame = None;
    while frame.is_none() {
        frame = try_times(1, frames.next()).map(Result::unwrap);
    }
    assert_eq!(frame, Some(Some(5001)));
    assert_eq!(frames.decoder_mut().1, 5001);
}

#[test]
fn an_item_that_cannot_be_sent_is_left_out_and_the_others_are_sent() {
    on_every_driver(|| async {
        let (stream, peer) = pair_of_ours().await;
        let mut lines = FramedWrite::new(&stream, Lines::new(5));
        lines.feed("one").await.unwrap();
        let error = lines.send("t\nwo").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let error = lines.send("three3").await.unwrap_err();
        assert_eq!((error.kind(), too_long(&error)), (ErrorKind::InvalidInput, Some(5)));
        lines.send("four").await.unwrap();
        drop(lines);
        FramedWrite::new(&stream, LengthDelimited::u16_le(99)).send([1, 2, 3]).await.unwrap();
        FramedWrite::new(&stream, Bytes).send("raw").await.unwrap();
        drop(stream);
        // One stream, three codecs: each reader gives back what it has not handed out.
        let mut lines = FramedRead::new(&peer, Lines::new(5));
        assert_eq!(lines.next().await.unwrap(), Some("one"));
        assert_eq!(lines.next().await.unwrap(), Some("four"));
        drop(lines);
        let mut numbers = FramedRead::new(&peer, LengthDelimited::u16_le(99));
        assert_eq!(numbers.next().await.unwrap(), Some(&[1, 2, 3][..]));
        drop(numbers);
        let mut bytes = FramedRead::new(&peer, Bytes);
        let mut all = Vec::new();
        while let Some(piece) = bytes.next().await.unwrap() {
            all.extend_from_slice(piece);
        }
        assert_eq!(all, b"raw");
    });
}

#[test]
fn many_small_frames_are_sent_together() {
    on_every_driver(|| async {
        let (stream, peer) = pair_of_ours().await;
        let mut frames = FramedWrite::new(&stream, LengthDelimited::u8(255));
        let before = quoit::runtime::stats().sqes;
        for number in 0..100_u8 {
            frames.feed([number; 10]).await.unwrap();
        }
        assert_eq!(quoit::runtime::stats().sqes, before, "feeding sends nothing yet");
        // A socket may take less than all of them before somebody reads.
        let reading = async {
            let mut frames = FramedRead::new(&peer, LengthDelimited::u8(255));
            for number in 0..100_u8 {
                assert_eq!(frames.next().await.unwrap(), Some(&[number; 10][..]));
            }
        };
        quoit::join!(frames.flush(), reading).0.unwrap();
    });
}
