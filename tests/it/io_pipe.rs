//! The pipe in memory: a stream like any other.

use std::io::ErrorKind;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use quoit::io::{AsyncRead, AsyncWrite, BufReader, copy, pipe};

use crate::loopback::{Flag, Oracle, Random, pattern, poll_once};
use crate::support::on_every_driver;

#[test]
fn what_goes_in_comes_out_however_little_the_pipe_holds() {
    on_every_driver(|| async {
        for capacity in [1, 10, 5000, 1 << 20] {
            let (reader, into) = pipe(capacity);
            let (from, writer) = pipe(capacity + 3);
            let len = capacity.min(2000) * 20;
            let writing = async {
                let (mut random, mut sent) = (Random::new(1), 0);
                while sent < len {
                    let piece = random.size(9000).min(len - sent);
                    let bytes = pattern(sent as u64, piece);
                    if random.below(2) == 0 {
                        writer.write_all(bytes).await.unwrap();
                    } else {
                        let (first, second) = bytes.split_at(piece / 3);
                        let both = (first.to_vec(), second.to_vec());
                        writer.write_all_vectored(both).await.unwrap();
                    }
                    sent += piece;
                }
                writer.shutdown().await.unwrap();
                assert_eq!(writer.write_all("x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
            };
            let reading = async {
                let (mut random, mut oracle) = (Random::new(2), Oracle::default());
                loop {
                    let before = oracle.0;
                    if random.below(2) == 0 {
                        reader.recv().await.unwrap().iter().for_each(|bytes| oracle.take(bytes));
                    } else {
                        let room = Vec::with_capacity(random.size(6000));
                        let (count, bytes) = reader.read(room).await.unwrap();
                        assert_eq!(count, bytes.len());
                        oracle.take(&bytes);
                    }
                    if oracle.0 == before {
                        return oracle.0;
                    }
                }
            };
            let passing = async move {
                let copied = copy(&from, &into).await.unwrap();
                drop(into);
                copied
            };
            let ((), copied, came) = quoit::join!(writing, passing, reading);
            assert_eq!((copied, came), (len as u64, len as u64), "{capacity}");
        }
    });
}

#[test]
fn the_pipe_holds_no_more_than_it_may_and_says_how_much_was_written_when_it_breaks() {
    let flag = Arc::new(Flag::default());
    let (reader, writer) = pipe(10);
    let mut writing = pin!(writer.write_all(pattern(0, 25)));
    assert!(poll_once(writing.as_mut(), &flag).is_pending());
    let read = poll_once(pin!(reader.recv()), &flag);
    let Poll::Ready(Ok(Some(bytes))) = read else { panic!("there are bytes") };
    assert_eq!(*bytes, pattern(0, 10));
    assert!(flag.is_set(), "whoever writes is woken");
    assert!(poll_once(writing.as_mut(), &flag).is_pending());
    drop(reader);
    let Poll::Ready(Err(failed)) = poll_once(writing, &flag) else {
        panic!("nobody reads any more")
    };
    assert_eq!((failed.error.kind(), failed.done), (ErrorKind::BrokenPipe, 20));
    assert_eq!(failed.buf, pattern(0, 25));
}

#[test]
fn dropped_calls_lose_nothing_that_was_written_and_keep_no_turn() {
    on_every_driver(|| async {
        let (reader, writer) = pipe(6);
        let flag = Arc::new(Flag::default());
        assert!(poll_once(pin!(reader.recv()), &flag).is_pending());
        assert!(poll_once(pin!(reader.read(vec![0; 9])), &flag).is_pending());
        // A part of a write that is dropped has been written.
        assert!(poll_once(pin!(writer.write_all("line\nlost")), &flag).is_pending());
        assert!(flag.is_set(), "whoever reads is woken");
        let mut lines = BufReader::new(&reader);
        assert_eq!(lines.read_line(9).await.unwrap(), Some("line"));
        drop(lines);
        let writer = Rc::new(writer);
        let tasks: Vec<_> = ["first ", "second "]
            .map(|text| {
                let writer = Rc::clone(&writer);
                quoit::spawn(async move { writer.write_all(text).await.unwrap() })
            })
            .into();
        drop(writer);
        let mut all = Vec::new();
        while let Some(bytes) = reader.recv().await.unwrap() {
            all.extend_from_slice(&bytes);
        }
        assert_eq!(all, b"lfirst second ");
        for task in tasks {
            task.await.unwrap();
        }
    });
}
