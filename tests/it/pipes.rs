//! Pipes of the kernel's, terminals, and the standard streams.

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use quoit::driver::DriverKind;
use quoit::io::{BufReader, FdReader, FdWriter, stdin, stdout};
use quoit::process::pipe;
use quoit::runtime::Builder;
use quoit::time::timeout;

use crate::loopback::{Flag, lap, pattern, poll_once, until, within};
use crate::support::{Ledger, isolated, ledger, on_every_driver};

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(3);

fn flags(fd: impl AsFd) -> i32 {
    // SAFETY: the call takes no pointers.
    unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_GETFL) }
}

fn make_nonblocking(fd: impl AsFd) {
    // SAFETY: as above.
    let result = unsafe {
        libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_SETFL, flags(&fd) | libc::O_NONBLOCK)
    };
    assert_eq!(result, 0);
}

/// Two terminals' ends: ours, and that which a program would have.
fn terminal() -> (OwnedFd, OwnedFd) {
    let (mut ours, mut theirs) = (-1, -1);
    let none = std::ptr::null_mut();
    // SAFETY: the two places are filled; names and settings are not asked for.
    let result =
        unsafe { libc::openpty(&raw mut ours, &raw mut theirs, none, none.cast(), none.cast()) };
    assert_eq!(result, 0);
    // SAFETY: both were just opened.
    unsafe { (OwnedFd::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) }
}

/// Puts something in the place of standard input. Only in an isolated test.
fn become_stdin(fd: impl AsFd) {
    // SAFETY: the call takes no pointers.
    assert_eq!(unsafe { libc::dup2(fd.as_fd().as_raw_fd(), libc::STDIN_FILENO) }, 0);
}

async fn next(reader: &FdReader) -> Vec<u8> {
    within(LONG, reader.recv()).await.unwrap().expect("not the end").to_vec()
}

#[test]
fn what_is_written_comes_out_in_order_whatever_the_sizes() {
    on_every_driver(async || {
        let (reader, writer) = pipe().unwrap();
        let bytes = pattern(0, 300_000);
        let sent = bytes.clone();
        let writes = quoit::spawn(async move {
            let mut rest = &sent[..];
            for size in [1, 4_095, 70_000, 65_536, 3].into_iter().cycle() {
                let (now, later) = rest.split_at(size.min(rest.len()));
                if now.is_empty() {
                    break;
                }
                if size % 2 == 0 {
                    writer.write_all(now.to_vec()).await.unwrap();
                } else {
                    let (head, tail) = now.split_at(now.len() / 2);
                    writer.write_all_vectored((head.to_vec(), tail.to_vec())).await.unwrap();
                }
                rest = later;
            }
            assert_eq!(writer.bytes_written(), sent.len() as u64);
            within(LONG, writer.shutdown()).await.unwrap();
            let error = writer.write_all("more").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        });
        let mut received = next(&reader).await;
        let (count, buf) = within(LONG, reader.read(vec![0; 10_000])).await.unwrap();
        received.extend_from_slice(&buf[..count]);
        received = within(LONG, reader.read_to_end(received)).await.unwrap();
        assert!(received == bytes);
        assert!(within(LONG, reader.recv()).await.unwrap().is_none());
        within(LONG, writes).await.unwrap();
    });
}

#[test]
fn a_dropped_read_loses_no_byte() {
    on_every_driver(async || {
        let (reader, writer) = pipe().unwrap();
        for round in 0..40_u8 {
            let taken = Cell::new(0);
            let mut written = 3;
            {
                let mut reading: std::pin::Pin<Box<dyn Future<Output = ()>>> = match round % 3 {
                    0 => Box::pin(async {
                        taken.set(reader.recv().await.unwrap().expect("not the end").len());
                    }),
                    1 => Box::pin(async {
                        taken.set(reader.read(vec![0; 64]).await.unwrap().0);
                    }),
                    _ => Box::pin(async { drop(reader.read_to_end(Vec::new()).await) }),
                };
                let flag = Arc::new(Flag::default());
                assert!(poll_once(reading.as_mut(), &flag).is_pending());
                if round % 2 == 0 {
                    lap().await;
                    assert!(poll_once(reading.as_mut(), &flag).is_pending());
                }
                writer.write_all(vec![round; 3]).await.unwrap();
                if round % 4 == 0 {
                    lap().await;
                }
                if round % 5 == 0 {
                    let is_done = poll_once(reading.as_mut(), &flag).is_ready();
                    assert!(round % 3 != 2 || !is_done, "the end has not come");
                    writer.write_all(vec![round; 3]).await.unwrap();
                    written += 3;
                }
            }
            let mut received = Vec::new();
            while received.len() < written - taken.get() {
                received.extend(next(&reader).await);
            }
            assert_eq!(received, vec![round; written - taken.get()], "in round {round}");
            assert!(timeout(SHORT, reader.recv()).await.is_err(), "more than was written");
        }
    });
}

#[test]
fn a_read_to_the_end_that_is_dropped_gives_back_all_that_it_had() {
    on_every_driver(async || {
        let (reader, writer) = pipe().unwrap();
        {
            let mut reading = pin!(reader.read_to_end(vec![9; 4]));
            let flag = Arc::new(Flag::default());
            for piece in ["first ", "second ", "third"] {
                let _ = poll_once(reading.as_mut(), &flag);
                writer.write_all(piece).await.unwrap();
                lap().await;
            }
            assert!(poll_once(reading.as_mut(), &flag).is_pending());
        }
        drop(writer);
        let whole = within(LONG, reader.read_to_end(Vec::new())).await.unwrap();
        assert_eq!(String::from_utf8(whole).unwrap(), "first second third");
    });
}

#[test]
fn lines_of_a_pipe_are_read_and_what_is_left_stays_with_it() {
    on_every_driver(async || {
        let (reader, writer) = pipe().unwrap();
        writer.write_all("one\ntwo\nrest").await.unwrap();
        let mut lines = BufReader::new(&reader);
        assert_eq!(within(LONG, lines.read_line(80)).await.unwrap(), Some("one"));
        drop(lines);
        assert_eq!(next(&reader).await, b"two\nrest");
    });
}

#[test]
fn a_write_that_waits_is_dropped_and_the_next_is_whole() {
    on_every_driver(async || {
        let (reader, writer) = pipe().unwrap();
        let flag = Arc::new(Flag::default());
        {
            let mut writing = pin!(writer.write_all(vec![1; 1 << 20]));
            assert!(poll_once(writing.as_mut(), &flag).is_pending());
            lap().await;
            assert!(poll_once(writing.as_mut(), &flag).is_pending());
        }
        let second = quoit::spawn(async move {
            writer.write_all(vec![2; 100]).await.unwrap();
            writer.bytes_written()
        });
        let mut received = Vec::new();
        while received.last() != Some(&2) || received.iter().filter(|&&it| it == 2).count() < 100 {
            received.extend(next(&reader).await);
        }
        let ones = received.iter().take_while(|&&byte| byte == 1).count();
        assert_eq!(received.len(), ones + 100);
        assert_eq!(within(LONG, second).await.unwrap(), received.len() as u64);
    });
}

#[test]
fn a_reader_that_has_gone_is_an_error_and_no_signal() {
    isolated(|| {
        // SAFETY: the default action is no function of ours.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        on_every_driver(async || {
            for way in 0..4 {
                let (reader, writer) = pipe().unwrap();
                if way < 2 {
                    drop(reader);
                } else {
                    drop(quoit::spawn(async move {
                        lap().await;
                        drop(reader);
                    }));
                }
                // More than fits, so that it waits.
                let bytes = vec![7; if way < 2 { 5 } else { 1 << 20 }];
                let error: std::io::Error = match way % 2 {
                    0 => within(LONG, writer.write_all(bytes)).await.unwrap_err().into(),
                    _ => {
                        let both = writer.write_all_vectored((bytes, "x"));
                        within(LONG, both).await.unwrap_err().into()
                    }
                };
                assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}");
            }
        });
    });
}

#[test]
fn a_pipe_that_somebody_has_made_nonblocking_is_waited_for_and_left_as_it_is() {
    on_every_driver(async || {
        let (reader, writer) = std::io::pipe().unwrap();
        let (readers, writers) = (reader.try_clone().unwrap(), writer.try_clone().unwrap());
        make_nonblocking(&reader);
        make_nonblocking(&writer);
        let before = (flags(&readers), flags(&writers));
        let reader = FdReader::from_owned(reader.into()).unwrap();
        let writer = FdWriter::from_owned(writer.into()).unwrap();
        let bytes = pattern(3, 200_000);
        let sent = bytes.clone();
        let writes = quoit::spawn(async move { writer.write_all(sent).await.map(drop) });
        drop(writers);
        let mut received = Vec::new();
        while received.len() < bytes.len() {
            received.extend(next(&reader).await);
        }
        assert!(received == bytes);
        within(LONG, writes).await.unwrap().unwrap();
        assert_eq!(before.0, flags(&readers));
        assert!(before.1 & libc::O_NONBLOCK != 0);
    });
}

#[test]
fn a_terminal_is_read_line_by_line_and_its_flags_are_never_touched() {
    on_every_driver(async || {
        let (ours, theirs) = terminal();
        let before = flags(&theirs);
        let copy = theirs.try_clone().unwrap();
        let reader = FdReader::from_owned(copy).unwrap();
        let mut types = std::fs::File::from(ours);
        {
            let mut lines = BufReader::new(&reader);
            let flag = Arc::new(Flag::default());
            {
                let mut reading = pin!(lines.read_line(80));
                assert!(poll_once(reading.as_mut(), &flag).is_pending());
                lap().await;
            }
            types.write_all(b"first\n").unwrap();
            assert_eq!(within(LONG, lines.read_line(80)).await.unwrap(), Some("first"));
            types.write_all(b"sec").unwrap();
            assert!(timeout(SHORT, lines.read_line(80)).await.is_err());
            types.write_all(b"ond\n").unwrap();
            assert_eq!(within(LONG, lines.read_line(80)).await.unwrap(), Some("second"));
        }
        assert_eq!(flags(&theirs), before);
        assert_eq!(before & libc::O_NONBLOCK, 0);
        within(LONG, reader.close()).await.unwrap();
    });
}

#[test]
fn a_terminal_that_nobody_reads_holds_up_its_writer_and_not_the_core() {
    on_every_driver(async || {
        let (ours, theirs) = terminal();
        // Whose last writer has gone the kernel may call ended (EIO) before all of it was read.
        let held = theirs.try_clone().unwrap();
        let writer = FdWriter::from_owned(theirs).unwrap();
        let writes = quoit::spawn(async move {
            writer.write_all(vec![b'x'; 100_000]).await.unwrap();
            writer.write_all("\n").await.unwrap();
        });
        for _ in 0..20 {
            lap().await;
        }
        assert!(!writes.is_finished());
        let mut sees = std::fs::File::from(ours);
        let seen = std::thread::spawn(move || {
            let mut count = 0;
            let mut buf = [0; 4096];
            loop {
                let read = sees.read(&mut buf).unwrap();
                count += buf[..read].iter().filter(|&&byte| byte == b'x').count();
                if read == 0 || buf[..read].contains(&b'\n') {
                    return count;
                }
            }
        });
        within(LONG, writes).await.unwrap();
        assert_eq!(crate::loopback::join(seen).await, 100_000);
        drop(held);
    });
}

#[test]
fn standard_input_is_read_whatever_it_is() {
    isolated(|| {
        let path = std::env::temp_dir().join(format!("quoit-stdin-{}", std::process::id()));
        std::fs::write(&path, "from a file\nto its end").unwrap();
        on_every_driver(async || {
            become_stdin(std::fs::File::open(&path).unwrap());
            let mut lines = BufReader::new(stdin().unwrap());
            assert_eq!(within(LONG, lines.read_line(80)).await.unwrap(), Some("from a file"));
            // What a handle has not used, the next one reads.
            drop(lines);
            let rest = within(LONG, stdin().unwrap().read_to_end(Vec::new())).await.unwrap();
            assert_eq!(rest, b"to its end");

            let (reader, mut writer) = std::io::pipe().unwrap();
            become_stdin(&reader);
            let (one, two) = (stdin().unwrap(), stdin().unwrap());
            let mut reading = Box::pin(one.recv());
            assert!(poll_once(reading.as_mut(), &Arc::new(Flag::default())).is_pending());
            lap().await;
            writer.write_all(b"for whoever reads").unwrap();
            // The read has it, or will.
            drop(reading);
            drop(one);
            until(|| quoit::runtime::stats().live_ops == 0).await;
            assert_eq!(next(&two).await, b"for whoever reads");
            drop((writer, reader));

            let (ours, theirs) = terminal();
            let before = flags(&theirs);
            become_stdin(&theirs);
            std::fs::File::from(ours.try_clone().unwrap()).write_all(b"typed\n").unwrap();
            let mut lines = BufReader::new(stdin().unwrap());
            assert_eq!(within(LONG, lines.read_line(80)).await.unwrap(), Some("typed"));
            assert_eq!(flags(&theirs), before);
        });
        std::fs::remove_file(path).unwrap();
    });
}

#[test]
fn standard_output_may_be_a_file() {
    isolated(|| {
        let path = std::env::temp_dir().join(format!("quoit-stdout-{}", std::process::id()));
        for kind in [DriverKind::Uring, DriverKind::Epoll] {
            let file = std::fs::File::create(&path).unwrap();
            // SAFETY: the calls take no pointers, and every number is open.
            let kept: RawFd = unsafe { libc::dup(1) };
            // SAFETY: as above.
            unsafe { libc::dup2(file.as_raw_fd(), 1) };
            let written = Builder::new().driver(kind).run(async {
                let one = stdout()?;
                one.write_all("one ").await?;
                stdout()?.write_all_vectored(("two ", "three ")).await?;
                one.write_all(vec![b'x'; 600_000]).await?;
                std::io::Result::Ok(())
            });
            // SAFETY: as above.
            unsafe {
                libc::dup2(kept, 1);
                libc::close(kept);
            }
            written.unwrap().unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            assert_eq!(text.len(), 14 + 600_000);
            assert!(text.starts_with("one two three xxx"));
        }
        std::fs::remove_file(path).unwrap();
    });
}

#[test]
fn a_descriptor_is_closed_as_soon_as_it_is_nobodys_and_given_out_when_asked_for() {
    isolated(|| {
        ledger(Builder::new(), async || {
            for _ in 0..20 {
                let (reader, writer) = pipe().unwrap();
                let mut reading = Box::pin(reader.recv());
                assert!(poll_once(reading.as_mut(), &Arc::new(Flag::default())).is_pending());
                lap().await;
                drop(reading);
                let mut reader = std::io::PipeReader::from(reader.into_owned().await.unwrap());
                let mut writer = std::io::PipeWriter::from(writer.into_owned().await.unwrap());
                writer.write_all(b"x").unwrap();
                reader.read_exact(&mut [0]).unwrap();
            }
            // Bytes that were put back are not in the descriptor.
            let (reader, writer) = pipe().unwrap();
            writer.write_all("a\nb").await.unwrap();
            let mut lines = BufReader::new(reader);
            lines.read_line(80).await.unwrap();
            let error = lines.into_inner().into_owned().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData);
        });
    });
}

#[test]
fn a_runtime_that_ends_ends_reads_and_writes_that_wait() {
    isolated(|| {
        for kind in [DriverKind::Uring, DriverKind::Epoll] {
            let open = Ledger::open();
            let (ours, theirs) = terminal();
            let mut runtime = Builder::new().driver(kind).build().unwrap();
            runtime.block_on(async {
                for _ in 0..8 {
                    let (reader, writer) = pipe().unwrap();
                    let (_, full) = (pipe().unwrap(), pipe().unwrap());
                    drop(quoit::spawn(async move {
                        let _ = reader.recv().await;
                        drop(writer);
                    }));
                    drop(quoit::spawn(async move {
                        let _ = full.1.write_all(vec![0; 1 << 20]).await;
                        drop(full.0);
                    }));
                }
                let typed = FdReader::from_owned(theirs).unwrap();
                drop(quoit::spawn(async move { drop(typed.recv().await) }));
                lap().await;
                lap().await;
            });
            assert_eq!(runtime.shutdown(LONG), 0);
            drop((runtime, ours));
            open.close();
        }
    });
}

#[test]
fn a_simulated_core_has_no_pipes_of_the_kernels() {
    let driver = move |_| Ok(quoit::sim::driver(1, quoit::sim::Faults::default()));
    Builder::new()
        .driver_with(driver)
        .run(async {
            assert_eq!(pipe().unwrap_err().kind(), ErrorKind::Unsupported);
            assert_eq!(stdin().unwrap_err().kind(), ErrorKind::Unsupported);
            assert_eq!(stdout().unwrap_err().kind(), ErrorKind::Unsupported);
        })
        .unwrap();
}
