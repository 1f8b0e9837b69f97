//! Child processes.

use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quoit::driver::DriverKind;
use quoit::io::BufReader;
use quoit::process::{Child, Command, Stdio, pipe};
use quoit::runtime::{Builder, Core};
use quoit::time::{sleep, timeout};

use crate::loopback::{Flag, lap, poll_once, within};
use crate::support::{
    Ledger, holds_in_a_fork, isolated, kernel, ledger, on_every_driver, patient, scaled,
};

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(3);

/// The children of this process, those included that have ended and were not reaped.
fn children() -> Vec<u32> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(Result::unwrap);
    let lists = tasks.map(|task| std::fs::read_to_string(task.path().join("children")));
    let lists = lists.filter_map(Result::ok).collect::<Vec<_>>().join(" ");
    lists.split_whitespace().map(|number| number.parse().unwrap()).collect()
}

/// Waits, on this thread, until there is no child.
fn until_reaped() {
    let start = Instant::now();
    while !children().is_empty() {
        assert!(start.elapsed() < patient(LONG), "these are left: {:?}", children());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The thread that reaps ends with the last child, and takes its descriptors along.
fn until_the_reaper_has_ended() {
    let start = Instant::now();
    let is_its = |entry: std::io::Result<std::fs::DirEntry>| {
        let target = std::fs::read_link(entry.unwrap().path()).unwrap_or_default();
        let target = target.to_string_lossy();
        target.contains("pidfd") || target.contains("eventpoll")
    };
    while std::fs::read_dir("/proc/self/fd").unwrap().any(is_its) {
        assert!(start.elapsed() < patient(LONG), "the reaper goes on");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

fn sleeper() -> Command {
    let mut command = Command::new("sleep");
    command.arg("1000");
    command
}

#[test]
fn a_child_is_waited_for_and_says_how_it_ended_as_often_as_it_is_asked() {
    on_every_driver(async || {
        let mut child = shell("exit 7").spawn().unwrap();
        assert!(child.id().is_some());
        assert_eq!(within(LONG, child.wait()).await.unwrap().code(), Some(7));
        assert_eq!(within(LONG, child.wait()).await.unwrap().code(), Some(7));
        assert_eq!(child.try_wait().unwrap().unwrap().code(), Some(7));
        assert_eq!(child.id(), None);
        // It is nobody's any more: this must not reach somebody else.
        child.start_kill().unwrap();
    });
}

#[test]
fn a_wait_that_is_dropped_loses_nothing_and_a_kill_ends_the_child() {
    on_every_driver(async || {
        let mut child = sleeper().spawn().unwrap();
        for round in 0..5 {
            let mut waiting = pin!(child.wait());
            assert!(poll_once(waiting.as_mut(), &Arc::new(Flag::default())).is_pending());
            if round % 2 == 0 {
                lap().await;
            }
        }
        assert!(child.try_wait().unwrap().is_none());
        within(LONG, child.kill()).await.unwrap();
        assert_eq!(child.wait().await.unwrap().signal(), Some(libc::SIGKILL));
    });
}

#[test]
fn a_child_is_spoken_to_and_answers() {
    on_every_driver(async || {
        let mut cat = Command::new("cat");
        let mut child = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut lines = BufReader::new(stdout);
        for word in ["one", "two", "three"] {
            stdin.write_all(format!("{word}\n")).await.unwrap();
            assert_eq!(within(LONG, lines.read_line(80)).await.unwrap(), Some(word));
        }
        drop(stdin);
        assert_eq!(within(LONG, lines.read_line(80)).await.unwrap(), None);
        assert!(within(LONG, child.wait()).await.unwrap().success());
    });
}

#[test]
fn output_has_both_streams_and_the_status() {
    on_every_driver(async || {
        let output = shell("read x; echo out$x; echo err >&2; exit 3").output();
        let output = within(LONG, output).await.unwrap();
        assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
        assert_eq!(output.status.code(), Some(3));
        assert!(within(LONG, shell("exit 0").status()).await.unwrap().success());
    });
}

#[test]
fn a_child_that_floods_both_its_outputs_is_read_to_the_end() {
    on_every_driver(async || {
        // Far more than the pipes hold, alternating, so that a reader of one alone would wait for ever.
        let script = "i=0; while [ $i -lt 30 ]; do head -c 10000 /dev/zero; \
                      head -c 10000 /dev/zero >&2; i=$((i+1)); done";
        let output = within(LONG, shell(script).output()).await.unwrap();
        assert_eq!((output.stdout.len(), output.stderr.len()), (300_000, 300_000));
        assert!(output.status.success());
    });
}

#[test]
fn waiting_closes_the_input_first() {
    on_every_driver(async || {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        assert!(within(LONG, child.wait()).await.unwrap().success());
        assert!(child.stdin.is_none());
    });
}

#[test]
fn writing_to_a_child_that_has_gone_is_an_error_and_no_signal() {
    isolated(|| {
        // SAFETY: the default action is no function of ours.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        on_every_driver(async || {
            let mut child = shell("exit 0").stdin(Stdio::piped()).spawn().unwrap();
            let stdin = child.stdin.take().unwrap();
            within(LONG, child.wait()).await.unwrap();
            let error = within(LONG, stdin.write_all("is anybody there?")).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        });
    });
}

#[test]
fn bad_input_is_refused_and_leaves_nothing() {
    isolated(|| {
        ledger(Builder::new(), async || {
            let kind = |command: &mut Command| command.spawn().unwrap_err().kind();
            assert_eq!(kind(&mut Command::new("/no/such/program")), ErrorKind::NotFound);
            assert_eq!(kind(&mut Command::new("no-such-program-anywhere")), ErrorKind::NotFound);
            assert_eq!(kind(&mut Command::new("")), ErrorKind::NotFound);
            assert_eq!(kind(&mut Command::new("a\0b")), ErrorKind::InvalidInput);
            assert_eq!(kind(Command::new("true").arg("a\0b")), ErrorKind::InvalidInput);
            assert_eq!(kind(Command::new("true").env("a", "b\0c")), ErrorKind::InvalidInput);
            assert_eq!(kind(Command::new("true").current_dir("/no/such")), ErrorKind::NotFound);
            assert_eq!(kind(&mut Command::new("/")), ErrorKind::PermissionDenied);
            let output = Command::new("/no/such/program").output().await.unwrap_err();
            assert_eq!(output.kind(), ErrorKind::NotFound);
            let status = Command::new("/no/such/program").status().await.unwrap_err();
            assert_eq!(status.kind(), ErrorKind::NotFound);
        });
        assert!(children().is_empty());
    });
}

#[test]
fn a_child_that_is_dropped_goes_on_and_leaves_no_zombie() {
    isolated(|| {
        for kind in [DriverKind::Uring, DriverKind::Epoll] {
            let open = Ledger::open();
            let mut runtime = Builder::new().driver(kind).build().unwrap();
            runtime.block_on(async {
                let (reader, writer) = pipe().unwrap();
                let writer = writer.into_owned().await.unwrap();
                // They end when they are told to, after their handles have gone.
                let (hears, says) = std::io::pipe().unwrap();
                for _ in 0..20 {
                    let mut command = shell("read x; echo done");
                    command.stdin(Stdio::from(hears.try_clone().unwrap()));
                    command.stdout(Stdio::from(writer.try_clone().unwrap()));
                    let child = command.spawn().unwrap();
                    drop(child);
                }
                assert_eq!(children().len(), 20);
                drop((writer, hears, says));
                let said = within(LONG, reader.read_to_end(Vec::new())).await.unwrap();
                assert_eq!(said.len(), 20 * 5);
                until_reaped();
            });
            assert_eq!(runtime.shutdown(LONG), 0);
            drop(runtime);
            until_the_reaper_has_ended();
            open.close();
        }
    });
}

#[test]
fn a_child_may_be_killed_with_its_handle() {
    on_every_driver(async || {
        let mut child = sleeper().kill_on_drop(true).spawn().unwrap();
        let number = child.id().unwrap();
        assert!(timeout(SHORT, child.wait()).await.is_err());
        drop(child);
        // SAFETY: the call takes no pointers, and signal 0 does nothing.
        let is_there = || unsafe { libc::kill(number as i32, 0) } == 0;
        within(LONG, async {
            while is_there() {
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    });
}

#[test]
fn a_forked_child_does_not_kill_what_its_parent_has_started() {
    isolated(|| {
        quoit::runtime::run(async {
            let mut child = Some(sleeper().kill_on_drop(true).spawn().unwrap());
            assert!(holds_in_a_fork(|| {
                drop(child.take());
                true
            }));
            let child = child.as_mut().unwrap();
            assert!(timeout(SHORT, child.wait()).await.is_err());
            child.kill().await.unwrap();
            assert_eq!(child.wait().await.unwrap().signal(), Some(libc::SIGKILL));
        })
        .unwrap();
    });
}

#[test]
fn what_is_read_once_is_not_piped_to_nobody_the_next_time() {
    on_every_driver(async || {
        let mut command = shell("sleep 0.1; echo said >&2; echo said");
        assert_eq!(within(LONG, command.output()).await.unwrap().stdout, b"said\n");
        // It would die of SIGPIPE.
        assert!(within(LONG, command.status()).await.unwrap().success());
        command.stdout(Stdio::null());
        let output = within(LONG, command.output()).await.unwrap();
        assert_eq!((&output.stdout[..], &output.stderr[..]), (&b""[..], &b"said\n"[..]));
    });
}

#[test]
fn a_runtime_that_ends_leaves_its_children_to_be_reaped() {
    isolated(|| {
        for kind in [DriverKind::Uring, DriverKind::Epoll] {
            let open = Ledger::open();
            let mut runtime = Builder::new().driver(kind).build().unwrap();
            let number = runtime.block_on(async {
                let mut stays = sleeper().spawn().unwrap();
                let number = stays.id().unwrap();
                let mut goes = sleeper().kill_on_drop(true).stdin(Stdio::piped()).spawn().unwrap();
                drop(quoit::spawn(async move { drop(stays.wait().await) }));
                drop(quoit::spawn(async move { drop(goes.wait().await) }));
                lap().await;
                number
            });
            assert_eq!(runtime.shutdown(LONG), 0);
            drop(runtime);
            while children() != [number] {
                std::thread::sleep(Duration::from_millis(1));
            }
            // SAFETY: the call takes no pointers; the child was not reaped, so the number is its.
            assert_eq!(unsafe { libc::kill(number as i32, libc::SIGTERM) }, 0);
            until_reaped();
            until_the_reaper_has_ended();
            open.close();
        }
    });
}

#[test]
fn two_hundred_children_at_once_are_bounded_and_all_accounted_for() {
    isolated(|| {
        let count = scaled(200).min(200);
        ledger(Builder::new(), async || {
            let outputs = (0..count).map(async |index| {
                let output = Command::new("echo").arg(index.to_string()).output().await?;
                let text = String::from_utf8(output.stdout).expect("a number");
                assert_eq!(text.trim(), index.to_string());
                std::io::Result::Ok(output.status.success())
            });
            let all = within(patient(LONG), quoit::try_gather_limit(64, outputs)).await.unwrap();
            assert_eq!(all.iter().filter(|&&success| success).count(), count);
            assert!(children().is_empty());

            let mut sleepers: Vec<Child> = (0..count).map(|_| sleeper().spawn().unwrap()).collect();
            assert_eq!(children().len(), count);
            for child in &mut sleepers {
                child.start_kill().unwrap();
            }
            for child in &mut sleepers {
                within(LONG, child.wait()).await.unwrap();
            }
            assert!(children().is_empty());
        });
    });
}

#[test]
fn a_child_gets_the_processes_cpus_and_no_blocked_signal_and_no_descriptor() {
    isolated(|| {
        // Whoever has started this process may have left it some for its children, too.
        let open = std::process::Command::new("ls").arg("/proc/self/fd").output().unwrap().stdout;
        let cpus = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).expect("a line");
            line.split_once(':').unwrap().1.trim().to_owned()
        };
        let allowed = line(&cpus, "Cpus_allowed");
        Builder::new()
            .cores(2)
            .start_per_core(async move |_: Core| -> std::io::Result<()> {
                let own = std::fs::read_to_string("/proc/thread-self/status")?;
                let child = Command::new("cat").arg("/proc/self/status").output().await?;
                let child = String::from_utf8(child.stdout).expect("text");
                assert_eq!(line(&child, "Cpus_allowed"), allowed);
                assert_eq!(line(&child, "SigBlk"), "0".repeat(16));
                let ignored = u64::from_str_radix(&line(&child, "SigIgn"), 16).expect("a mask");
                assert_eq!(ignored & 1 << (libc::SIGPIPE - 1), 0);
                // And this core is where it was.
                let after = std::fs::read_to_string("/proc/thread-self/status")?;
                assert_eq!(line(&after, "Cpus_allowed"), line(&own, "Cpus_allowed"));
                let listed = Command::new("ls").arg("/proc/self/fd").output().await?;
                assert_eq!(listed.stdout, open);
                Ok(())
            })
            .unwrap();
    });
}

#[test]
fn the_builder_says_all_that_stds_does() {
    on_every_driver(async || {
        let mut command = shell("echo $A $B $C; pwd; echo $$; cut -d' ' -f5 /proc/$$/stat");
        command.env_clear().env("A", "a").envs([("B", "b"), ("C", "c")]).env_remove("C");
        command.env("PATH", "/usr/bin:/bin").current_dir("/").process_group(0);
        let output = within(LONG, command.output()).await.unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..2], ["a b", "/"]);
        assert_eq!(lines[2], lines[3], "it leads a group of its own");

        let mut command = shell("exit 0");
        // SAFETY: it makes one system call, and allocates nothing.
        unsafe {
            command.pre_exec(|| {
                libc::alarm(0);
                Err(std::io::Error::from_raw_os_error(libc::ENOTTY))
            });
        }
        assert_eq!(command.spawn().unwrap_err().raw_os_error(), Some(libc::ENOTTY));
    });
}

#[test]
fn without_a_descriptor_of_the_child_it_is_looked_after_all_the_same() {
    isolated(|| {
        crate::support::refuse(libc::SYS_pidfd_open, libc::ENOSYS);
        quoit::runtime::run(async {
            let mut child = shell("exit 5").spawn().unwrap();
            assert_eq!(within(LONG, child.wait()).await.unwrap().code(), Some(5));
            let dropped = shell("sleep 0.05").spawn().unwrap();
            drop(dropped);
        })
        .unwrap();
        until_reaped();
    });
}

#[test]
fn a_child_of_a_core_that_forks_is_one_of_a_forked_process() {
    assert!(kernel() >= (5, 3), "this kernel has pidfds");
    isolated(|| {
        // A fork while a ring is open: the child of it refuses to start others.
        quoit::runtime::run(async {
            // SAFETY: the child only tries and exits.
            let forked = unsafe { libc::fork() };
            if forked == 0 {
                let refused = Command::new("true").spawn().is_err_and(|error| {
                    error.get_ref().is_some_and(|inner| inner.is::<quoit::Forked>())
                });
                // SAFETY: nothing of the parent's is to run here.
                unsafe { libc::_exit(if refused { 0 } else { 1 }) };
            }
            let mut status = 0;
            // SAFETY: `status` is a place for the answer.
            assert_eq!(unsafe { libc::waitpid(forked, &raw mut status, 0) }, forked);
            assert_eq!(status, 0);
        })
        .unwrap();
    });
}

#[test]
fn a_simulated_process_starts_no_other() {
    let driver = move |_| Ok(quoit::sim::driver(1, quoit::sim::Faults::default()));
    Builder::new()
        .driver_with(driver)
        .run(async {
            let error = Command::new("true").spawn().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
        })
        .unwrap();
}

#[test]
#[should_panic(expected = "outside of a runtime")]
fn outside_of_a_runtime_it_says_how_to_start_one() {
    let _ = Command::new("true").spawn();
}
