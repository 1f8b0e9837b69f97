//! Files: what is written is read again, and what is dropped leaves nothing behind.

use std::cell::Cell;
use std::ffi::CString;
use std::fs;
use std::future::{self, Future};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use quoit::buf::IoBuf;
use quoit::fs::{File, OpenOptions};
use quoit::runtime::{Builder, Runtime};
use quoit::task::yield_now;
use quoit::time::timeout;

use crate::loopback::{self, Flag, poll_once};
use crate::support::{
    Ledger, assert_settled, isolated, ledger, on_every_driver, patient, scaled, settle,
};

/// A directory that is removed with all that is in it.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        let mut number = 0;
        loop {
            let name = format!("quoit-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            match fs::create_dir(&path) {
                Ok(()) => return Scratch(path),
                Err(error) => assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{path:?}"),
            }
            number += 1;
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A file with these bytes in it.
    pub(crate) fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn fifo(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        let name = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: the name ends with a zero byte.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Polls a future once and drops it.
pub(crate) async fn start_and_drop<F: Future>(future: F) {
    let mut future = pin!(future);
    future::poll_fn(|context| {
        let _ = future.as_mut().poll(context);
        Poll::Ready(())
    })
    .await;
}

async fn read_write(path: impl AsRef<Path>) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).open(path).await
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + seed * 17) as u8).collect()
}

// ---- Reading and writing ----

#[test]
fn what_is_written_at_an_offset_is_read_there_again() {
    on_every_driver(async || {
        let scratch = Scratch::new();
        let file = read_write(scratch.path("file")).await.unwrap();
        let bytes = file.write_all_at(pattern(100_000, 1), 5).await.unwrap();
        assert_eq!(file.len().await.unwrap(), 100_005);
        let read = file.read_exact_at(vec![0xff; 100_000], 5).await.unwrap();
        assert!(read == bytes);
        let hole = file.read_exact_at([0xff; 5], 0).await.unwrap();
        assert_eq!(hole, [0; 5]);
        let (n, buf) = file.read_at(read, 100_000).await.unwrap();
        assert_eq!((n, &buf[..]), (5, &bytes[99_995..]));
    });
}

#[test]
fn a_slice_is_read_and_written_in_its_range_alone() {
    on_every_driver(async || {
        let scratch = Scratch::new();
        let file = read_write(scratch.path("file")).await.unwrap();
        let word = file.write_all_at(b"never mind".slice(6..), 0).await.unwrap();
        assert_eq!(word.into_inner(), b"never mind");
        let (n, part) = file.read_at(b"0123456789".to_vec().slice(2..5), 1).await.unwrap();
        assert_eq!((n, &*part), (3, &b"ind"[..]));
        assert_eq!(part.into_inner(), b"01ind56789");
    });
}

#[test]
fn several_buffers_are_written_one_after_the_other() {
    on_every_driver(async || {
        let scratch = Scratch::new();
        let path = scratch.path("file");
        let file = File::create(&path).await.unwrap();
        let (n, _) = file.write_vectored_at(("head", vec![b'-'; 3], [b'.'; 2]), 1).await.unwrap();
        assert_eq!(n, 9);
        assert_eq!(fs::read(&path).unwrap(), b"\0head---..");
        // More than the kernel takes at a time.
        let many: Vec<Vec<u8>> = (0..3000).map(|seed| pattern(7, seed)).collect();
        let many = file.write_all_vectored_at(many, 0).await.unwrap();
        assert!(fs::read(&path).unwrap() == many.concat());
        let empty = file.write_all_vectored_at(Vec::<Vec<u8>>::new(), 0).await.unwrap();
        assert!(empty.is_empty());
    });
}

#[test]
fn several_buffers_are_filled_one_after_the_other() {
    on_every_driver(async || {
        let scratch = Scratch::new();
        let file = File::open(scratch.file("file", pattern(5000, 0))).await.unwrap();
        let rooms = (Vec::with_capacity(10).slice(..10), [7; 5], Vec::with_capacity(9000));
        let (n, (first, second, third)) = file.read_vectored_at(rooms, 0).await.unwrap();
        assert_eq!(n, 5000);
        assert!([&first[..], &second[..], &third[..]].concat() == pattern(5000, 0));
        let many: Vec<[u8; 4]> = vec![[9; 4]; 3000];
        let (n, many) = file.read_vectored_at(many, 4).await.unwrap();
        assert_eq!(n, 4096);
        assert!(many.concat()[..n] == pattern(5000, 0)[4..4 + n]);
        let (n, after) = file.read_vectored_at([vec![1; 4], vec![2; 4]], 5000).await.unwrap();
        assert_eq!((n, after), (0, [vec![], vec![]]));
        let failed = file.read_vectored_at([vec![1; 4]], u64::MAX).await.unwrap_err();
        assert_eq!((failed.kind(), failed.buf), (ErrorKind::InvalidInput, [vec![1; 4]]));
        let failed = file.read_vectored_at([Vec::new()], 0).await.unwrap_err();
        assert_eq!((failed.kind(), failed.buf), (ErrorKind::InvalidInput, [vec![]]));
    });
}

#[test]
fn an_exact_read_past_the_end_says_how_much_came() {
    on_every_driver(async || {
        let scratch = Scratch::new();
        let file = File::open(scratch.file("file", "0123456789")).await.unwrap();
        let failed = file.read_exact_at(Vec::with_capacity(8), 5).await.unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::UnexpectedEof);
        assert_eq!((failed.done, &failed.buf[..]), (5, &b"56789"[..]));
        let failed = file.read_exact_at([7; 8], 10).await.unwrap_err();
        assert_eq!((failed.kind(), failed.done), (ErrorKind::UnexpectedEof, 0));
        let whole = file.read_exact_at([0; 10], 0).await.unwrap();
        assert_eq!(&whole, b"0123456789");
        let (n, buf) = file.read_at(Vec::with_capacity(8), 11).await.unwrap();
        assert_eq!((n, buf.len()), (0, 0));
    });
}

#[test]
fn offsets_beyond_four_gibibytes_are_exact() {
    on_every_driver(async || {
        let scratch = Scratch::new();
        let path = scratch.path("sparse");
        let file = read_write(&path).await.unwrap();
        for gibibytes in [4_u64, 5, 1 << 10] {
            let offset = (gibibytes << 30) + 123;
            file.write_all_at(pattern(10, 3), offset).await.unwrap();
            assert_eq!(file.len().await.unwrap(), offset + 10);
            assert_eq!(file.read_exact_at(vec![0; 10], offset).await.unwrap(), pattern(10, 3));
            // If only 32 bits arrived, the bytes would be here.
            let (n, low) = file.read_at(vec![1; 10], offset & 0xffff_ffff).await.unwrap();
            assert_eq!((n, low), (10, vec![0; 10]));
        }
    });
}

#[test]
fn an_appending_file_ignores_offsets() {
    on_every_driver(async || {
        let scratch = Scratch::new();
        let path = scratch.file("log", "one ");
        let file = OpenOptions::new().append(true).open(&path).await.unwrap();
        file.write_all_at("two ", 0).await.unwrap();
        file.write_all_at("three", 1).await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one two three");
    });
}

#[test]
fn many_reads_and_writes_of_one_file_are_in_flight_at_once() {
    const BLOCK: usize = 4096;
    on_every_driver(async || {
        let scratch = Scratch::new();
        let path = scratch.path("file");
        let count = scaled(500);
        let file = Rc::new(read_write(&path).await.unwrap());
        let writes: Vec<_> = (0..count)
            .map(|number| {
                let file = Rc::clone(&file);
                let offset = (number * BLOCK) as u64;
                quoit::spawn(async move { file.write_all_at(pattern(BLOCK, number), offset).await })
            })
            .collect();
        for write in writes {
            write.await.unwrap().unwrap();
        }
        let reads: Vec<_> = (0..count)
            .map(|number| {
                let file = Rc::clone(&file);
                let offset = (number * BLOCK) as u64;
                quoit::spawn(async move { file.read_exact_at(vec![0; BLOCK], offset).await })
            })
            .collect();
        for (number, read) in reads.into_iter().enumerate() {
            assert!(read.await.unwrap().unwrap() == pattern(BLOCK, number));
        }
    });
}

#[test]
fn file_operations_wait_for_admission_and_all_get_their_turn() {
    let runtime = Builder::new().max_live_ops(4).build().unwrap();
    let scratch = Scratch::new();
    let path = scratch.file("file", pattern(100, 0));
    runtime.block_on(async {
        let file = Rc::new(File::open(path).await.unwrap());
        let reads: Vec<_> = (0..100)
            .map(|at| {
                let file = Rc::clone(&file);
                quoit::spawn(async move { file.read_exact_at([0], at).await })
            })
            .collect();
        for (at, read) in reads.into_iter().enumerate() {
            assert_eq!(read.await.unwrap().unwrap(), pattern(100, 0)[at..=at]);
            assert!(quoit::runtime::stats().live_ops <= 4);
        }
    });
    settle(&runtime);
}

#[test]
fn one_that_waits_for_admission_gets_its_turn_among_those_that_never_pause() {
    for busy in [1, 3] {
        let runtime = Builder::new().max_live_ops(busy).build().unwrap();
        let scratch = Scratch::new();
        let path = scratch.file("file", pattern(100, 0));
        runtime.block_on(async {
            let file = Rc::new(File::open(path).await.unwrap());
            let stop = Rc::new(Cell::new(false));
            let readers: Vec<_> = (0..busy)
                .map(|_| {
                    let (file, stop) = (Rc::clone(&file), Rc::clone(&stop));
                    quoit::spawn(async move {
                        while !stop.get() {
                            file.read_exact_at([0], 0).await.unwrap();
                        }
                    })
                })
                .collect();
            for at in 0..100 {
                let read = timeout(patient(Duration::from_secs(20)), file.read_exact_at([0], at));
                let read = read.await.expect("it is starved").unwrap();
                assert_eq!(read, pattern(100, 0)[at as usize..=at as usize]);
            }
            stop.set(true);
            for reader in readers {
                reader.await.unwrap();
            }
        });
        settle(&runtime);
    }
}

#[test]
fn one_that_is_called_for_admission_and_does_not_come_keeps_nobody_from_it() {
    let runtime = Builder::new().max_live_ops(1).build().unwrap();
    let scratch = Scratch::new();
    let path = scratch.file("file", pattern(100, 0));
    runtime.block_on(async {
        let file = Rc::new(File::open(path).await.unwrap());
        let flag = Arc::new(Flag::default());
        let mut first = pin!(file.read_exact_at([0], 1));
        let mut kept = pin!(file.read_exact_at([0], 2));
        assert!(poll_once(first.as_mut(), &flag).is_pending());
        assert!(poll_once(kept.as_mut(), &flag).is_pending());
        let behind = Rc::clone(&file);
        let behind = quoit::spawn(async move { behind.read_exact_at([0], 3).await });
        yield_now().await;
        assert_eq!(first.await.unwrap(), pattern(100, 0)[1..2]);
        let behind = timeout(patient(Duration::from_secs(5)), behind).await;
        assert_eq!(behind.expect("it is locked out").unwrap().unwrap(), pattern(100, 0)[3..4]);
        // Nor one that comes anew.
        let anew = timeout(patient(Duration::from_secs(5)), file.read_exact_at([0], 4)).await;
        assert_eq!(anew.expect("it is locked out").unwrap(), pattern(100, 0)[4..5]);
        assert!(flag.is_set());
        assert_eq!(kept.await.unwrap(), pattern(100, 0)[2..3]);
    });
    settle(&runtime);
}

// ---- Opening ----

#[test]
fn opening_says_why_it_failed() {
    on_every_driver(async || {
        let scratch = Scratch::new();
        let path = scratch.file("file", "");
        let kind = async |options: &OpenOptions, path: &Path| {
            options.open(path).await.map(drop).map_err(|error| error.kind())
        };
        let mut options = OpenOptions::new();
        let missing = scratch.path("missing");
        assert_eq!(kind(options.read(true), &missing).await, Err(ErrorKind::NotFound));
        assert_eq!(kind(&options, &path.join("below")).await, Err(ErrorKind::NotADirectory));
        assert_eq!(kind(options.write(true), &scratch.0).await, Err(ErrorKind::IsADirectory));
        assert_eq!(kind(options.create_new(true), &path).await, Err(ErrorKind::AlreadyExists));
        let directory = File::open(&scratch.0).await.unwrap();
        let failed = directory.read_at([0; 8], 0).await.unwrap_err();
        assert_eq!((failed.kind(), failed.done), (ErrorKind::IsADirectory, 0));
        let failed = File::open(&path).await.unwrap().write_at("no", 0).await.unwrap_err();
        assert_eq!((failed.error.raw_os_error(), failed.buf), (Some(libc::EBADF), "no"));
    });
}

#[test]
fn options_do_what_they_say() {
    on_every_driver(async || {
        let scratch = Scratch::new();
        let path = scratch.path("file");
        let mut options = OpenOptions::new();
        let options = options.write(true).create_new(true).mode(0o640);
        options.open(&path).await.unwrap().write_all_at("0123", 0).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777 & !0o640, 0);
        // Without truncation what is there stays.
        let mut options = OpenOptions::new();
        options.write(true).create(true).open(&path).await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"0123");
        options.truncate(true).open(&path).await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
        let link = scratch.path("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let mut options = OpenOptions::new();
        // The access mode among the custom flags changes nothing.
        options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_WRONLY);
        let error = options.open(&link).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
        let file = options.open(&path).await.unwrap();
        assert_eq!(file.read_at([0; 4], 0).await.unwrap().0, 0);
    });
}

#[test]
fn descriptors_are_closed_on_exec() {
    on_every_driver(async || {
        let file = File::open("/dev/null").await.unwrap();
        // SAFETY: the call takes no pointers, and the descriptor is open.
        let flags = unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_GETFD) };
        assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    });
}

// ---- Whole files ----

#[test]
fn whole_files_are_written_and_read() {
    on_every_driver(async || {
        let scratch = Scratch::new();
        let path = scratch.path("file");
        for len in [0, 1, 511, 512, 513, 4096, 1_000_000] {
            let bytes = quoit::fs::write(&path, pattern(len, len)).await.unwrap();
            assert!(quoit::fs::read(&path).await.unwrap() == bytes, "{len} bytes");
        }
        let failed = quoit::fs::write(scratch.path("no/where"), "kept").await.unwrap_err();
        assert_eq!((failed.kind(), failed.buf, failed.done), (ErrorKind::NotFound, "kept", 0));
    });
}

#[test]
fn a_file_of_unknown_length_is_read_to_its_end() {
    on_every_driver(async || {
        let zones = quoit::fs::read("/proc/zoneinfo").await.unwrap();
        assert!(zones.len() > 512 && zones.ends_with(b"\n"));
        // A stream that brings more and more.
        let scratch = Scratch::new();
        let path = scratch.fifo("fifo");
        let writer = path.clone();
        let writer = std::thread::spawn(move || {
            let mut fifo = fs::OpenOptions::new().write(true).open(writer).unwrap();
            fifo.write_all(&pattern(300_000, 9)).unwrap();
        });
        assert!(quoit::fs::read(&path).await.unwrap() == pattern(300_000, 9));
        writer.join().unwrap();
    });
}

#[test]
fn a_file_that_has_grown_since_it_was_measured_is_read_to_its_end() {
    on_every_driver(async || {
        let scratch = Scratch::new();
        let path = scratch.file("file", pattern(1000, 0));
        let mut reading = pin!(quoit::fs::read(&path));
        let grown = fs::OpenOptions::new().write(true).open(&path).unwrap();
        // Opened, measured, and a part of it read: the file grows between any two of them.
        let mut len = 1000;
        let bytes = future::poll_fn(|context| {
            let poll = reading.as_mut().poll(context);
            if poll.is_pending() && len < 10_000 {
                grown.write_all_at(&pattern(len + 1000, 0)[len..], len as u64).unwrap();
                len += 1000;
            }
            poll
        })
        .await
        .unwrap();
        // What was added after the end had been read is not in it; on most kernels nothing is.
        assert!(bytes.len() > 1000, "{} bytes", bytes.len());
        assert!(bytes == pattern(bytes.len(), 0), "{} bytes", bytes.len());
    });
}

// ---- Making it last, and closing ----

#[test]
fn what_was_written_is_synced() {
    on_every_driver(async || {
        let scratch = Scratch::new();
        let file = File::create(scratch.path("file")).await.unwrap();
        file.write_all_at(pattern(10_000, 0), 0).await.unwrap();
        file.sync_data().await.unwrap();
        file.sync_all().await.unwrap();
        file.close().await.unwrap();
        let null = File::open("/dev/null").await.unwrap();
        let error = null.sync_all().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn close_says_what_the_kernel_said() {
    isolated(|| {
        let runtime = Runtime::new().unwrap();
        runtime.block_on(async {
            let file = File::open("/dev/null").await.unwrap();
            let raw = file.as_fd().as_raw_fd();
            // SAFETY: the call takes no pointers. The number is stolen from the file, which only
            // happens to programs with a bug; nobody opens another in this process meanwhile.
            assert_eq!(unsafe { libc::close(raw) }, 0);
            let error = file.close().await.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EBADF));
        });
    });
}

#[test]
fn close_waits_for_a_dropped_read_and_then_frees_the_number() {
    isolated(|| {
        ledger(Builder::new(), async || {
            let scratch = Scratch::new();
            let path = scratch.fifo("fifo");
            for _ in 0..scaled(50) {
                // Open to both ends, so that it opens at once, and its reads wait for ever.
                let file = OpenOptions::new().read(true).write(true).open(&path).await.unwrap();
                let raw = file.as_fd().as_raw_fd();
                start_and_drop(file.read_at(vec![0; 100], 0)).await;
                assert!(quoit::runtime::stats().live_ops > 0);
                file.close().await.unwrap();
                // SAFETY: the call takes no pointers.
                assert_eq!(unsafe { libc::fcntl(raw, libc::F_GETFD) }, -1, "{raw} is still open");
            }
        });
    });
}

// ---- Dropping ----

#[test]
fn dropped_operations_leave_nothing_behind() {
    isolated(|| {
        ledger(Builder::new(), async || {
            let scratch = Scratch::new();
            let path = scratch.file("file", pattern(100_000, 0));
            for round in 0..scaled(300) {
                start_and_drop(File::open(&path)).await;
                start_and_drop(quoit::fs::read(&path)).await;
                start_and_drop(File::create(scratch.path("new"))).await;
                let file = read_write(&path).await.unwrap();
                start_and_drop(file.read_at(vec![0; 100_000], 0)).await;
                start_and_drop(file.read_exact_at([0; 64], 5)).await;
                start_and_drop(file.write_at(pattern(50_000, 0), 0)).await;
                start_and_drop(file.write_all_vectored_at((pattern(9, 0), "?"), 100_000)).await;
                start_and_drop(file.sync_all()).await;
                start_and_drop(file.len()).await;
                match round % 3 {
                    0 => file.close().await.unwrap(),
                    1 => start_and_drop(file.close()).await,
                    _ => drop(file),
                }
            }
        });
    });
}

#[test]
fn a_dropped_write_writes_nothing_else() {
    on_every_driver(async || {
        let scratch = Scratch::new();
        let path = scratch.file("file", vec![b'-'; 100_000]);
        let file = read_write(&path).await.unwrap();
        start_and_drop(file.write_all_at(vec![b'x'; 50_000], 10_000)).await;
        file.close().await.unwrap();
        // The kernel may have written any of it; around it nothing has changed.
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 100_000);
        let is_around = |at: usize| !(10_000..60_000).contains(&at);
        let strange = |(at, byte): (usize, &u8)| is_around(at) && *byte != b'-';
        assert!(!bytes.iter().enumerate().any(strange));
    });
}

#[test]
fn s04_an_open_that_ends_after_it_was_dropped_closes_its_file() {
    isolated(|| {
        ledger(Builder::new(), async || {
            let scratch = Scratch::new();
            let path = scratch.fifo("fifo");
            for _ in 0..loopback::scaled(10_000, 50) {
                let mut opening = Box::pin(File::open(&path));
                let still_open = future::poll_fn(|context| {
                    Poll::Ready(opening.as_mut().poll(context).is_pending())
                })
                .await;
                assert!(still_open);
                // A writer that does not wait gets in as soon as the reader is waiting.
                let mut options = fs::OpenOptions::new();
                options.write(true).custom_flags(libc::O_NONBLOCK);
                let writer = loop {
                    match options.open(&path) {
                        Ok(writer) => break writer,
                        Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ENXIO)),
                    }
                    yield_now().await;
                };
                // By now the kernel has opened the reader or is about to.
                drop(opening);
                drop(writer);
            }
        });
    });
}

#[test]
fn s04_an_open_that_never_ends_can_be_dropped() {
    isolated(|| {
        ledger(Builder::new(), async || {
            let scratch = Scratch::new();
            let path = scratch.fifo("fifo");
            for round in 0..loopback::scaled(10_000, 30) {
                let mut opening = pin!(File::open(&path));
                future::poll_fn(|context| {
                    assert!(opening.as_mut().poll(context).is_pending());
                    Poll::Ready(())
                })
                .await;
                for _ in 0..round % 30 {
                    yield_now().await;
                }
            }
        });
    });
}

#[test]
fn a_runtime_ends_while_files_are_being_read() {
    isolated(|| {
        let open = Ledger::open();
        let scratch = Scratch::new();
        let path = scratch.fifo("fifo");
        let mut runtime = Runtime::new().unwrap();
        runtime.block_on(async {
            let file = OpenOptions::new().read(true).write(true).open(&path).await.unwrap();
            drop(quoit::spawn(async move { file.read_exact_at(vec![0; 64], 0).await }));
            let other = scratch.fifo("other");
            drop(quoit::spawn(async move { File::open(other).await.map(drop) }));
            yield_now().await;
            yield_now().await;
        });
        assert!(runtime.stats().live_ops >= 2);
        assert_eq!(runtime.shutdown(Duration::from_secs(10)), 0);
        assert_settled(&runtime.stats());
        drop(runtime);
        open.close();
    });
}

#[test]
fn bytes_of_a_fifo_arrive_in_order() {
    on_every_driver(async || {
        let scratch = Scratch::new();
        let path = scratch.fifo("fifo");
        let file = OpenOptions::new().read(true).write(true).open(&path).await.unwrap();
        let mut other = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        other.write_all(b"from outside").unwrap();
        assert_eq!(file.read_exact_at([0; 12], 0).await.unwrap(), *b"from outside");
        file.write_all_at("from inside", 7).await.unwrap();
        let mut bytes = [0; 11];
        other.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"from inside");
    });
}
