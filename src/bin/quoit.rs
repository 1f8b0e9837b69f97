//! `quoit doctor`: whether a runtime can start here, on what, and why.

use std::io::{self, Write};
use std::process::ExitCode;

use quoit::doctor::Report;

const USAGE: &str = "\
usage: quoit doctor [--json]

Says on which driver a runtime would start here and why, what io_uring offers, the limits, CPUs and
ports, and works for a second to see how fast that is. The exit code is 0 if a runtime can start.
QUOIT_DRIVER (auto, uring or epoll) chooses the driver, as for every program.
";

fn main() -> ExitCode {
    let words: Vec<String> =
        std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
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
    let report = Report::examine().with_self_test();
    let code = if report.can_start() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    say(&text(&report), code)
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
