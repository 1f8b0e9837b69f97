//! `quoit doctor`: whether a runtime can start here, on what, and why.

use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode};

use quoit::doctor::Report;
use quoit::driver::DriverKind;

const USAGE: &str = "\
usage: quoit doctor [--json]

Says on which driver a runtime would start here and why, what io_uring offers, the limits, CPUs and
ports, and works for a second to see how fast that is. The exit code is 0 if a runtime can start.
QUOIT_DRIVER (auto, uring or epoll) chooses the driver, as for every program.
";

const TRIAL: &str = "--trial-of-io-uring";

const DEADLY: &str = "\
a seccomp filter ends every process that calls io_uring_setup, io_uring_register or io_uring_enter
(SIGSYS), so nothing can be asked of it here, and a runtime that tries io_uring first is ended too.
Have the filter permit them, or answer EPERM; or start programs with QUOIT_DRIVER=epoll, which calls
none of them.";

fn main() -> ExitCode {
    let words: Vec<String> =
        std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        // Asked of a child process, see below.
        ["doctor", TRIAL] => {
            drop(DriverKind::Uring.open());
            ExitCode::SUCCESS
        }
        ["doctor"] => doctor(Report::to_string),
        ["doctor", "--json"] => doctor(|report| report.to_json() + "\n"),
        ["help" | "--help" | "-h"] => say(USAGE, ExitCode::SUCCESS),
        _ => {
            eprint!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn doctor(text: impl Fn(&Report) -> String) -> ExitCode {
    if io_uring_is_deadly() {
        eprintln!("{DEADLY}");
        return ExitCode::FAILURE;
    }
    let report = Report::examine().with_self_test();
    let code = if report.can_start() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    say(&text(&report), code)
}

/// Whether the first call of io_uring would be the last of this process: tried by a child.
fn io_uring_is_deadly() -> bool {
    let Ok(program) = std::env::current_exe() else { return false };
    let status = Command::new(program).args(["doctor", TRIAL]).status();
    status.is_ok_and(|status| status.signal() == Some(libc::SIGSYS))
}

/// Prints `text`. Whoever reads may have seen enough: that is no error.
fn say(text: &str, code: ExitCode) -> ExitCode {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("quoit: {error}");
            ExitCode::FAILURE
        }
        _ => code,
    }
}
