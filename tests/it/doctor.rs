//! `quoit doctor`, as its users see it.

use std::collections::BTreeMap;
use std::process::{Command, Output};

use quoit::driver::DriverKind;

use crate::support::{isolated, kill_at, refuse};

fn doctor(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quoit"));
    command.args(words).env_remove("QUOIT_DRIVER").env_remove("QUOIT_CAPS");
    command
}

/// The exit code, and what was printed.
fn said(output: Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

fn json_of(mut command: Command) -> (Option<i32>, Value) {
    let (code, text) = said(command.output().unwrap());
    (code, Value::parse(&text))
}

#[test]
fn a_report_for_people_has_a_paragraph_for_each_noun() {
    let (code, text) = said(doctor(&["doctor"]).output().unwrap());
    assert_eq!(code, Some(0), "{text}");
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let kernel = format!("kernel {}, {}", release.trim(), std::env::consts::ARCH);
    let driver = "driver io_uring (auto, as QUOIT_DRIVER is not set)";
    let cpus = "start_per_core starts";
    let limits = ["limits", "nofile", "memlock", "nproc", "somaxconn", "unprivileged ports from"];
    let works = ["operations that do nothing", "64 bytes there and back", "to a core and back"];
    let needles = [&kernel, driver, cpus, "IORING_OP_RECV", "submission queue"];
    for needle in needles.iter().chain(&limits).chain(&works) {
        assert!(text.contains(needle), "`{needle}` is not in:\n{text}");
    }
    assert!(!text.contains("failed"), "{text}");
}

#[test]
fn a_report_for_programs_is_json_with_the_same_facts() {
    let (code, report) = json_of(doctor(&["doctor", "--json"]));
    assert_eq!(code, Some(0));
    assert_eq!(report["version"], Value::Text(env!("CARGO_PKG_VERSION").into()));
    assert_eq!(report["can_start"], Value::Flag(true));
    assert_eq!(report["driver"]["chosen"], Value::Text("io_uring".into()));
    assert_eq!(report["driver"]["instead_of_io_uring"], Value::Null);
    assert!(matches!(&report["kernel"]["troubles"], Value::List(_)));
    let Value::List(chosen) = &report["cpus"]["chosen"] else { panic!("{report:?}") };
    let Value::List(allowed) = &report["cpus"]["allowed"] else { panic!("{report:?}") };
    assert!(!chosen.is_empty() && chosen.len() <= allowed.len());
    let somaxconn = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    assert_eq!(report["network"]["somaxconn"], Value::Number(somaxconn.trim().parse().unwrap()));
    assert_eq!(
        report["memory_of_one_core"]["completion_queue_bytes"],
        Value::Number(8192.0 * 16.0)
    );
    for name in ["nops_per_second", "echoes_per_second", "wakes_per_second"] {
        let Value::Number(rate) = report["self_test"][name]["rate"] else {
            panic!("{name}: {report:?}")
        };
        assert!(rate > 0.0);
    }
    let Value::List(operations) = &report["io_uring"]["operations"] else { panic!("{report:?}") };
    let recv = operations.iter().find(|it| it["name"] == Value::Text("IORING_OP_RECV".into()));
    let recv = recv.unwrap();
    assert_eq!(recv["present"], Value::Flag(true));
    assert_eq!(recv["since"], Value::Text("5.6".into()));
}

#[test]
fn anything_else_is_answered_with_the_usage() {
    for words in [&[][..], &["doctors"], &["doctor", "--yaml"], &["doctor", "--json", "more"]] {
        let output = doctor(words).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(output.stdout.is_empty());
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.starts_with("usage: quoit doctor [--json]"), "{text}");
    }
    let (code, text) = said(doctor(&["--help"]).output().unwrap());
    assert!(code == Some(0) && text.starts_with("usage: "), "{text}");
}

#[test]
fn nonsense_in_the_environment_is_said_in_a_sentence() {
    let mut command = doctor(&["doctor"]);
    let (code, text) = said(command.env("QUOIT_DRIVER", "kqueue").output().unwrap());
    assert_eq!(code, Some(1));
    let sentence = "driver none (QUOIT_DRIVER is kqueue): reading QUOIT_DRIVER: `kqueue` is no \
                    driver: choose auto, uring or epoll\n";
    assert!(text.contains(sentence) && !text.contains("self test"), "{text}");
    let mut command = doctor(&["doctor", "--json"]);
    command.env("QUOIT_DRIVER", "\"\n\\");
    let (code, report) = json_of(command);
    assert_eq!((code, &report["can_start"]), (Some(1), &Value::Flag(false)));
    assert_eq!(report["driver"]["wanted"], Value::Text("QUOIT_DRIVER is \"\n\\".into()));
    assert_eq!(report["self_test"], Value::Null);
}

#[test]
fn under_a_filter_it_says_what_takes_the_place_of_io_uring_and_why() {
    isolated(|| {
        refuse(libc::SYS_io_uring_setup, libc::EPERM);
        let why = "io_uring_setup gave EPERM (not permitted); a seccomp filter is in force";
        let (code, text) = said(doctor(&["doctor"]).output().unwrap());
        assert!(text.contains(&format!("io_uring cannot be asked: {why}")), "{text}");
        let (json_code, report) = json_of(doctor(&["doctor", "--json"]));
        assert_eq!(code, json_code);
        if DriverKind::Epoll.open().is_ok() {
            assert_eq!(code, Some(0));
            assert!(text.contains("driver epoll (auto"), "{text}");
            assert!(text.contains(&format!("it is used instead of io_uring: {why}")), "{text}");
            assert_eq!(report["driver"]["chosen"], Value::Text("epoll".into()));
        } else {
            assert_eq!(code, Some(1));
            assert!(
                text.contains(&format!("driver none (auto, as QUOIT_DRIVER is not set): {why}"))
            );
            assert!(text.contains("Epoll cannot take its place"), "{text}");
            assert_eq!(report["driver"]["chosen"], Value::Null);
        }
        let mut command = doctor(&["doctor"]);
        let (code, text) = said(command.env("QUOIT_DRIVER", "uring").output().unwrap());
        assert!(code == Some(1) && !text.contains("instead of io_uring"), "{text}");
    });
}

#[test]
fn a_filter_that_kills_is_found_by_a_child_and_told() {
    isolated(|| {
        kill_at(libc::SYS_io_uring_setup);
        let output = doctor(&["doctor"]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains("SIGSYS") && text.contains("QUOIT_DRIVER=epoll"), "{text}");
    });
}

#[test]
fn every_answer_of_io_uring_setup_is_told_by_its_name() {
    let strace = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).status();
    if !strace.is_ok_and(|status| status.success()) {
        println!("skipped: strace is not there, or may not trace");
        return;
    }
    for name in ["EINVAL", "ENOSYS", "EPERM", "ENOMEM", "EMFILE", "ENFILE"] {
        let mut command = Command::new("strace");
        command.args([
            "-f",
            "-o",
            "/dev/null",
            "-e",
            &format!("inject=io_uring_setup:error={name}"),
        ]);
        command
            .args([env!("CARGO_BIN_EXE_quoit"), "doctor", "--json"])
            .env("QUOIT_DRIVER", "uring");
        let (code, report) = json_of(command);
        assert_eq!(code, Some(1));
        let Value::Text(error) = &report["driver"]["error"] else { panic!("{report:?}") };
        assert!(error.starts_with(&format!("io_uring_setup gave {name} (")), "{error}");
        assert!(error.contains("; "), "no cause: {error}");
        println!("{error}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = doctor(&["doctor", "--json"]);
    assert_eq!(command.stdout(writer).status().unwrap().code(), Some(0));
}

// ---- A reader of JSON, which takes nothing that is not ----

#[derive(Debug, PartialEq)]
enum Value {
    Null,
    Flag(bool),
    Number(f64),
    Text(String),
    List(Vec<Value>),
    Object(BTreeMap<String, Value>),
}

impl std::ops::Index<&str> for Value {
    type Output = Value;

    fn index(&self, name: &str) -> &Value {
        match self {
            Value::Object(fields) => &fields[name],
            other => panic!("no object with `{name}`: {other:?}"),
        }
    }
}

impl Value {
    fn parse(text: &str) -> Value {
        let mut rest = text;
        let value = Value::take(&mut rest);
        assert_eq!(rest.trim(), "", "after the end: {rest}");
        value
    }

    fn take(rest: &mut &str) -> Value {
        let first = rest.chars().next().expect("a value");
        let word = |rest: &mut &str, word: &str, value| {
            *rest = rest.strip_prefix(word).unwrap_or_else(|| panic!("no value: {rest}"));
            value
        };
        match first {
            'n' => word(rest, "null", Value::Null),
            't' => word(rest, "true", Value::Flag(true)),
            'f' => word(rest, "false", Value::Flag(false)),
            '"' => Value::Text(take_text(rest)),
            '[' => {
                let mut items = Vec::new();
                take_all(rest, ']', |rest| items.push(Value::take(rest)));
                Value::List(items)
            }
            '{' => {
                let mut fields = BTreeMap::new();
                take_all(rest, '}', |rest| {
                    let name = take_text(rest);
                    *rest = rest.strip_prefix(':').expect("a colon");
                    let twice = fields.insert(name, Value::take(rest));
                    assert_eq!(twice, None);
                });
                Value::Object(fields)
            }
            _ => {
                let end = rest.find([',', ']', '}']).unwrap_or(rest.len());
                let number = rest[..end].parse().unwrap_or_else(|_| panic!("no number: {rest}"));
                *rest = &rest[end..];
                Value::Number(number)
            }
        }
    }
}

fn take_all(rest: &mut &str, end: char, mut take: impl FnMut(&mut &str)) {
    *rest = &rest[1..];
    while !rest.starts_with(end) {
        take(rest);
        match rest.strip_prefix(',') {
            Some(more) => *rest = more,
            None => assert!(rest.starts_with(end), "neither a comma nor the end: {rest}"),
        }
    }
    *rest = &rest[1..];
}

fn take_text(rest: &mut &str) -> String {
    let mut text = String::new();
    let mut chars = rest.strip_prefix('"').expect("a text").char_indices();
    loop {
        let (_, c) = chars.next().expect("the end of a text");
        match c {
            '"' => break,
            '\\' => text.push(match chars.next().expect("an escape").1 {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                'u' => {
                    let digits: String = chars.by_ref().take(4).map(|(_, c)| c).collect();
                    char::from_u32(u32::from_str_radix(&digits, 16).unwrap()).unwrap()
                }
                other => other,
            }),
            c => {
                assert!(c >= ' ', "a control character stands for itself");
                text.push(c);
            }
        }
    }
    *rest = chars.as_str();
    text
}
