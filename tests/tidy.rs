//! Style as a test: what a reviewer would otherwise have to look for.
//!
//! Every rule is a function from a source to findings; a finding names the place and the mend. Below
//! the rules, `mod samples` holds a bad sample for each, so that none is a test that cannot fail.
//! A rule that hurts is changed here, in the commit that it hurts.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

// ---- What the rules allow ----

/// The modules of the crate and the floor on which each stands. Imports point down.
const FLOORS: &[(&str, u32)] = &[
    ("sys", 0),
    ("sync", 0),
    ("driver", 1),
    ("buf", 1),
    ("op", 2),
    ("task", 2),
    ("time", 3),
    ("io", 3),
    ("mesh", 3),
    ("runtime", 4),
    ("net", 4),
    ("fs", 4),
    ("process", 4),
    ("signal", 4),
    ("compat", 5),
    ("http", 5),
    // Pages to read.
    ("guide", 5),
    // It looks at all of them.
    ("doctor", 5),
    ("sim", 5),
];

/// From this floor on, neighbours do not name each other.
const FIRST_FLOOR_WITHOUT_NEIGHBOURS: u32 = 4;

/// Neighbours on a lower floor that do not name each other either.
const STRANGERS: &[(&str, &str)] = &[("op", "task")];

/// Exceptions: (from, to). Each needs a sentence that says why.
const ALLOWED_IMPORTS: &[(&str, &str)] = &[
    // A stream sends files.
    ("net", "fs"),
];

/// Where `unsafe` may be written; elsewhere only `unsafe impl Op`. A directory ends in a slash.
const UNSAFE_FILES: &[&str] = &[
    "src/sys/",
    "src/buf/",
    "src/driver/",
    "src/op/",
    "src/task/",
    // Passes std's `pre_exec` on, whose promise is the caller's.
    "src/process/command.rs",
];

/// The one file that names std's or loom's atomics.
const ATOMICS: &str = "src/sys/atomic.rs";

/// The files that another thread can reach, and that therefore use `sys::atomic`.
const ATOMIC_FILES: &[&str] = &[
    // The ring's tail, which the kernel reads.
    "src/buf/buffers.rs",
    // That tail, for the kernels that are not the real one.
    "src/driver/pad/provided.rs",
    "src/driver/unpark.rs",
    // A job that blocks, between its thread and whoever awaits it.
    "src/task/blocking/job.rs",
    "src/task/blocking/pool.rs",
    // Which core a thread runs: a model has threads of its own.
    "src/sys/bell.rs",
    "src/sys/current.rs",
    "src/sys/lane.rs",
    // The number of a static, which no model needs: it is all there is to see.
    "src/runtime/per_core.rs",
    "src/sys/fork.rs",
    // What the handler of a signal counts, in whichever thread it interrupts.
    "src/sys/handlers.rs",
    "src/task/inbox.rs",
    "src/task/raw.rs",
];

/// Macros that stand for work not done, and those that print.
const UNDONE_MACROS: &[&str] = &["todo", "unimplemented", "dbg"];
const PRINTING_MACROS: &[&str] = &["println", "eprintln", "print", "eprint"];

/// Words that stand for work not done. In pieces, like every needle here: this file is searched too.
const FORBIDDEN_WORDS: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];

/// Paths and names of the machines on which somebody happened to work.
const FOREIGN_PATHS: &[&str] = &[concat!("/work", "/"), concat!("/root", "/")];
const FOREIGN_WORDS: &[&str] = &[concat!("farm", "-")];

const LONGEST_FILE: usize = 700;
const LONGEST_FUNCTION: usize = 110;
const LONGEST_LINE: usize = 120;

// ---- The tests ----

#[test]
fn imports_point_down_the_floors() {
    check(&crate_sources(), imports);
}

#[test]
fn unsafe_stays_in_the_files_that_may_hold_it() {
    check(&crate_sources(), unsafe_outside_its_files);
}

#[test]
fn every_unsafe_says_why_it_is_sound() {
    check(&crate_sources(), unsafe_without_a_reason);
}

#[test]
fn atomics_stay_where_another_thread_can_reach() {
    check(&crate_sources(), atomics);
}

#[test]
fn nothing_is_left_undone_or_printed() {
    check(&crate_sources(), forbidden_macros);
    check(&all_sources(), forbidden_words);
}

#[test]
fn no_test_is_ignored() {
    check(&all_sources(), ignored_tests);
}

#[test]
fn every_allowed_lint_has_a_reason() {
    check(&all_sources(), lints_without_a_reason);
}

#[test]
fn files_and_functions_stay_short() {
    check(&crate_sources(), long_files_and_functions);
}

#[test]
fn every_file_says_what_it_is() {
    check(&crate_sources(), files_without_a_first_line);
}

#[test]
fn lines_stay_short() {
    check(&all_sources(), long_lines);
}

#[test]
fn the_crate_has_one_thread_local() {
    report(thread_locals(&crate_sources()));
}

#[test]
fn no_file_names_a_foreign_place() {
    let files = repository_files();
    assert!(!files.is_empty(), "the repository has no file");
    let read = |path: &PathBuf| {
        // A file that is listed may be gone: git knows it until the removal is staged.
        let bytes = fs::read(root().join(path)).unwrap_or_default();
        foreign_places(&path.display().to_string(), &String::from_utf8_lossy(&bytes))
    };
    report(files.iter().flat_map(read).collect());
}

#[test]
fn every_file_is_understood_to_its_end() {
    check(&all_sources(), unbalanced_brackets);
}

fn check(sources: &[Source], rule: fn(&Source) -> Vec<Finding>) {
    report(sources.iter().flat_map(rule).collect());
}

fn report(findings: Vec<Finding>) {
    let mut lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
    lines.dedup();
    assert!(lines.is_empty(), "{} to mend:\n{}\n", lines.len(), lines.join("\n"));
}

// ---- (a) Floors ----

fn imports(source: &Source) -> Vec<Finding> {
    let Some(own) = source.module() else { return Vec::new() };
    let Some(own_floor) = floor(own) else {
        let mend =
            format!("`{own}` stands on no floor; give it one in FLOORS and in ARCHITECTURE.md");
        return vec![source.finding(1, mend)];
    };
    let mut findings = Vec::new();
    for path in source.paths() {
        let Some(absolute) = path.absolute() else { continue };
        let Some(first) = absolute.first() else {
            findings.push(source.finding(path.line, "names the whole crate; name a module"));
            continue;
        };
        if first == own || path.is_macro && absolute.len() == 1 {
            continue;
        }
        let what = match floor(first) {
            None => format!("`crate::{first}` hides where it lives; name it by its module"),
            Some(theirs) if may_import(own, own_floor, first, theirs) => continue,
            Some(theirs) => format!(
                "`{own}` (floor {own_floor}) names `{first}` (floor {theirs}); imports point down: move \
                 what both need to a lower floor, or let the caller pass it in"
            ),
        };
        findings.push(source.finding(path.line, what));
    }
    findings
}

fn floor(module: &str) -> Option<u32> {
    FLOORS.iter().find(|(name, _)| *name == module).map(|&(_, floor)| floor)
}

fn may_import(own: &str, own_floor: u32, other: &str, other_floor: u32) -> bool {
    let strangers = |&(a, b): &(&str, &str)| (a, b) == (own, other) || (b, a) == (own, other);
    let neighbours = own_floor == other_floor
        && own_floor < FIRST_FLOOR_WITHOUT_NEIGHBOURS
        && !STRANGERS.iter().any(strangers);
    other_floor < own_floor || neighbours || ALLOWED_IMPORTS.contains(&(own, other))
}

// ---- (b), (c) Unsafe ----

fn unsafe_outside_its_files(source: &Source) -> Vec<Finding> {
    if UNSAFE_FILES.iter().any(|place| within(&source.path, place)) {
        return Vec::new();
    }
    let offends = |&at: &usize| source.is(at, "unsafe") && !source.implements_a_contract(at);
    let offences = (0..source.tokens.len()).filter(offends);
    let what = "`unsafe` other than `unsafe impl Op` or `Floor`; move it to sys, buf, driver, op or task behind a \
                safe function, or argue for this file in UNSAFE_FILES";
    offences.map(|at| source.finding(source.tokens[at].line, what)).collect()
}

fn unsafe_without_a_reason(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for at in (0..source.tokens.len()).filter(|&at| source.is(at, "unsafe")) {
        let line = source.tokens[at].line;
        let needs_comment = source.is(at + 1, "{") || source.is(at + 1, "impl");
        if needs_comment && !source.comments_above(at).contains("SAFETY:") {
            let what =
                "no `// SAFETY:` comment right above; name the invariant that makes it sound";
            findings.push(source.finding(line, what));
        }
        let is_fn = source.is(at + 1, "fn") || source.is(at + 1, "extern");
        let needs_docs = source.is(at + 1, "trait") || is_fn && source.is_public(at);
        if needs_docs && !source.comments_above(at).contains("# Safety") {
            let what =
                "no `# Safety` in its documentation; say what the caller or implementor promises";
            findings.push(source.finding(line, what));
        }
    }
    findings
}

// ---- (d) Atomics ----

/// Test code may count with std's atomics and drive loom: what is model-checked is what ships.
fn atomics(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    if source.path == ATOMICS {
        return findings;
    }
    let listed = ATOMIC_FILES.contains(&source.path.as_str());
    let unlisted = "atomics in a file that ATOMIC_FILES does not list; use a Cell, or list the file and \
                    model-check it with loom";
    for path in source.paths().iter().filter(|path| !source.in_tests(path.line)) {
        let names: Vec<&str> = path.segments.iter().map(String::as_str).collect();
        if matches!(names[..], ["std" | "core", "sync", "atomic", ..] | ["loom", ..]) {
            let what =
                format!("names `{}`; take atomics from `crate::sys::atomic`", names.join("::"));
            findings.push(source.finding(path.line, what));
        } else if !listed && source.module().is_some() && path.names_an_atomic() {
            findings.push(source.finding(path.line, unlisted));
        }
    }
    // The types by name: they may come in through a re-export.
    let is_type = |token: &&Token| {
        let kind = token.text.strip_prefix("Atomic").unwrap_or_default();
        let width = kind.strip_prefix(['U', 'I']).unwrap_or_default();
        matches!(kind, "Bool" | "Ptr") || matches!(width, "8" | "16" | "32" | "64" | "size")
    };
    if !listed {
        let tokens =
            source.tokens.iter().filter(is_type).filter(|token| !source.in_tests(token.line));
        findings.extend(tokens.map(|token| source.finding(token.line, unlisted)));
    }
    findings
}

// ---- (e) Leftovers ----

/// Programs print, and so do tests: a failing seed. The one program of the package is `quoit`: what it
/// prints (`doctor::Report`) the library only writes as a value.
fn forbidden_macros(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let is_program = source.path.starts_with("src/bin/");
    for (at, token) in source.tokens.iter().enumerate() {
        let name = token.text.as_str();
        let may_print = is_program || source.in_tests(token.line);
        let forbidden =
            UNDONE_MACROS.contains(&name) || PRINTING_MACROS.contains(&name) && !may_print;
        if forbidden && source.is(at + 1, "!") && !source.is(at + 2, "=") {
            let what = format!("`{name}!` in the library; return a value, or use the log hook");
            findings.push(source.finding(token.line, what));
        }
    }
    findings
}

fn forbidden_words(source: &Source) -> Vec<Finding> {
    let text = if source.is_rust() { &source.comments } else { &source.text };
    let mut findings = Vec::new();
    for (line, text) in numbered(text) {
        let words: Vec<&str> = text.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        for word in FORBIDDEN_WORDS.iter().filter(|word| words.contains(word)) {
            let what = format!("`{word}`; do it now, or say in prose what is not guaranteed");
            findings.push(source.finding(line, what));
        }
    }
    findings
}

fn ignored_tests(source: &Source) -> Vec<Finding> {
    let offends = |&at: &usize| source.matches(at, &["#", "[", "ignore"]);
    let what = "an ignored test; scale it with QUOIT_SCALE, or remove it";
    let offences = (0..source.tokens.len()).filter(offends);
    offences.map(|at| source.finding(source.tokens[at].line, what)).collect()
}

fn lints_without_a_reason(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for at in 0..source.tokens.len() {
        let allows = source.is(at, "allow") || source.is(at, "expect");
        let in_attribute = at > 0 && source.in_attribute(at - 1);
        if !allows || !in_attribute || !source.is(at + 1, "(") {
            continue;
        }
        let end = source.closing(at + 1);
        if !(at..end).any(|at| source.matches(at, &["reason", "="])) {
            let what = format!("`{}(..)` without `reason = \"..\"`", source.tokens[at].text);
            findings.push(source.finding(source.tokens[at].line, what));
        }
    }
    findings
}

// ---- (f), (g) Sizes ----

fn long_files_and_functions(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let lines = numbered(&source.text).filter(|&(line, _)| !source.in_tests(line)).count();
    if lines > LONGEST_FILE {
        let what =
            format!("{lines} lines without tests, limit {LONGEST_FILE}; it is two nouns, split it");
        findings.push(source.finding(1, what));
    }
    for at in (0..source.tokens.len()).filter(|&at| source.is(at, "fn") && source.is_word(at + 1)) {
        let Some(open) = source.body(at + 2) else { continue };
        let first = source.tokens[at].line;
        let last = source.tokens.get(source.closing(open)).map_or(first, |token| token.line);
        let lines = last - first + 1;
        if lines > LONGEST_FUNCTION {
            let name = &source.tokens[at + 1].text;
            let what = format!(
                "`{name}` has {lines} lines, limit {LONGEST_FUNCTION}; it is two verbs, split it"
            );
            findings.push(source.finding(first, what));
        }
    }
    findings
}

fn files_without_a_first_line(source: &Source) -> Vec<Finding> {
    if source.text.starts_with("//!") {
        return Vec::new();
    }
    vec![source.finding(1, "does not open with `//!`; say in one line which noun this file is")]
}

fn long_lines(source: &Source) -> Vec<Finding> {
    let lines = numbered(&source.text).map(|(line, text)| (line, text.chars().count()));
    let long = lines.filter(|&(_, chars)| chars > LONGEST_LINE);
    long.map(|(line, chars)| {
        source.finding(line, format!("{chars} characters, limit {LONGEST_LINE}; break it"))
    })
    .collect()
}

// ---- (h) One thread-local ----

fn thread_locals(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut count = 0;
    for source in sources {
        for at in (0..source.tokens.len()).filter(|&at| source.matches(at, &["thread_local", "!"]))
        {
            count += 1;
            if count > 1 || !within(&source.path, "src/sys/") {
                let what =
                    "a `thread_local!` besides the current core's in src/sys; hang it on the core";
                findings.push(source.finding(source.tokens[at].line, what));
            }
        }
    }
    if count == 0 {
        let what = "no `thread_local!` in src/sys; the current core belongs there".into();
        findings.push(Finding { path: "src/sys".into(), line: 1, what });
    }
    findings
}

// ---- (i) Foreign places ----

fn foreign_places(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, text) in numbered(text) {
        let named = FOREIGN_PATHS.iter().filter(|place| begins_a_path(text, place));
        for needle in named.chain(FOREIGN_WORDS.iter().filter(|word| text.contains(**word))) {
            let what = format!("`{needle}` belongs to somebody's machine; say it without");
            findings.push(Finding { path: path.into(), line, what });
        }
    }
    findings
}

/// Whether `place` occurs in `text` other than in the middle of a longer path.
fn begins_a_path(text: &str, place: &str) -> bool {
    let middle = |c: char| c.is_alphanumeric() || "_-.}~*".contains(c);
    text.match_indices(place).any(|(at, _)| !text[..at].ends_with(middle))
}

// ---- The lexer itself ----

/// A literal or comment that the lexer gets wrong swallows code, and the rules would pass unseen.
fn unbalanced_brackets(source: &Source) -> Vec<Finding> {
    let mut open = Vec::new();
    for token in &source.tokens {
        let closes = match token.text.as_str() {
            "(" | "[" | "{" => {
                open.push(token);
                continue;
            }
            ")" => "(",
            "]" => "[",
            "}" => "{",
            _ => continue,
        };
        if open.pop().is_none_or(|token| token.text != closes) {
            return vec![
                source.finding(token.line, "a bracket closes that did not open; mend the lexer"),
            ];
        }
    }
    let unclosed =
        |token: &&Token| source.finding(token.line, "a bracket that never closes; mend the lexer");
    open.last().map(unclosed).into_iter().collect()
}

// ---- What the rules look at ----

struct Finding {
    path: String,
    line: usize,
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The library: src/**/*.rs.
fn crate_sources() -> Vec<Source> {
    let sources = sources_in("src");
    assert!(!sources.is_empty(), "src holds no source");
    sources
}

/// The library and its macros, their tests, benchmarks, examples and scripts.
fn all_sources() -> Vec<Source> {
    let mut sources = crate_sources();
    for dir in ["macros/src", "tests", "benches", "examples", "scripts"] {
        sources.extend(sources_in(dir));
    }
    sources
}

fn sources_in(dir: &str) -> Vec<Source> {
    let mut files = Vec::new();
    walk(Path::new(dir), &mut files);
    let is_source = |file: &PathBuf| file.extension().is_some_and(|end| end == "rs" || end == "sh");
    files.retain(is_source);
    let read = |file: &PathBuf| {
        fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{file:?}: {e}"))
    };
    files.iter().map(|file| Source::new(&file.display().to_string(), &read(file))).collect()
}

/// The files below `dir`, sorted; `dir` and the results are relative to the root.
fn walk(dir: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(root().join(dir)) else { return };
    let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
    names.sort();
    for name in names.into_iter().filter(|name| name != "target" && name != ".git") {
        let path = dir.join(name);
        let kind = fs::symlink_metadata(root().join(&path)).expect("an entry's kind");
        if kind.is_dir() {
            walk(&path, files);
        } else if kind.is_file() {
            files.push(path);
        }
    }
}

/// What git holds or would take; without git (in a package) every file but those of the build.
fn repository_files() -> Vec<PathBuf> {
    let listing = ["ls-files", "--cached", "--others", "--exclude-standard", "-z"];
    let listed = Command::new("git").args(listing).current_dir(root()).output();
    let mut files = Vec::new();
    match listed {
        Ok(output) if output.status.success() && root().join(".git").exists() => {
            let names = String::from_utf8_lossy(&output.stdout).into_owned();
            files.extend(names.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from));
        }
        _ => walk(Path::new(""), &mut files),
    }
    files
}

/// Whether the file `path` is `place`, or lies in it if `place` ends in a slash.
fn within(path: &str, place: &str) -> bool {
    match place.strip_suffix('/') {
        Some(module) => path.starts_with(place) || path.strip_suffix(".rs") == Some(module),
        None => path == place,
    }
}

/// The lines of `text`, numbered from 1.
fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

/// A file, read once and looked at in three ways.
struct Source {
    path: String,
    text: String,
    /// The text with comments and the contents of literals blanked; lines and columns stay.
    code: String,
    /// The comments alone, everything else blanked.
    comments: String,
    tokens: Vec<Token>,
    /// The lines of each module under a `#[cfg(..)]` that names `test` or `loom`.
    tests: Vec<(usize, usize)>,
}

/// A word, a number or a punctuation mark of the code (`::` and `->` count as one mark).
struct Token {
    text: String,
    line: usize,
    /// The modules written around it in this file, outermost first.
    modules: Vec<String>,
}

/// A path as it is written, groups taken apart: `use a::{b, c::d}` is `a::b` and `a::c::d`.
struct WrittenPath {
    line: usize,
    segments: Vec<String>,
    /// The module in which it stands, from the root of the crate.
    from: Vec<String>,
    is_macro: bool,
}

impl WrittenPath {
    /// The path from the root of the crate, or None if it does not begin with crate, super or self.
    fn absolute(&self) -> Option<Vec<String>> {
        let mut absolute = match self.segments[0].as_str() {
            "crate" => Vec::new(),
            "super" | "self" => self.from.clone(),
            _ => return None,
        };
        for segment in &self.segments {
            match segment.as_str() {
                "crate" | "self" => {}
                "super" => drop(absolute.pop()),
                name => absolute.push(name.into()),
            }
        }
        Some(absolute)
    }

    /// Whether it leads into `sys::atomic`, and not to `Arc`, which lies there for loom's sake.
    fn names_an_atomic(&self) -> bool {
        let absolute = self.absolute().unwrap_or_default();
        absolute.starts_with(&["sys".into(), "atomic".into()])
            && absolute.get(2).is_none_or(|name| name != "Arc")
    }
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        let (mut code, mut comments) = (String::new(), String::new());
        if path.ends_with(".rs") {
            (code, comments) = split(text);
        }
        let tokens = tokenize(&code);
        let mut source =
            Source { path: path.into(), text: text.into(), code, comments, tokens, tests: vec![] };
        source.find_modules();
        source
    }

    fn finding(&self, line: usize, what: impl Into<String>) -> Finding {
        Finding { path: self.path.clone(), line, what: what.into() }
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// The crate's module to which this file belongs; None for lib.rs, binaries and what is not in src.
    fn module(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/").filter(|inside| !inside.starts_with("bin/"))?;
        let first = inside.split('/').next()?.trim_end_matches(".rs");
        (first != "lib" && first != "main").then_some(first)
    }

    /// The path of this file's own module, from the root of the crate.
    fn module_path(&self) -> Vec<String> {
        let inside = self.path.strip_prefix("src/").unwrap_or_default().trim_end_matches(".rs");
        let mut modules: Vec<String> = inside.split('/').map(String::from).collect();
        if matches!(modules.last().map(String::as_str), Some("mod" | "lib" | "main" | "")) {
            modules.pop();
        }
        modules
    }

    /// Notes around each token the modules that are written there, and which of them are tests.
    fn find_modules(&mut self) {
        let whole_file = self.path.ends_with("/tests.rs") && self.module().is_some();
        if whole_file {
            self.tests.push((1, usize::MAX));
        }
        for at in 0..self.tokens.len() {
            if !(self.is(at, "mod") && self.is_word(at + 1) && self.is(at + 2, "{")) {
                continue;
            }
            let name = self.tokens[at + 1].text.clone();
            let end = self.closing(at + 2);
            if self.is_test_only(at) {
                let last = self.tokens.get(end).map_or(usize::MAX, |token| token.line);
                self.tests.push((self.tokens[at].line, last));
            }
            for token in &mut self.tokens[at + 3..end] {
                token.modules.push(name.clone());
            }
        }
    }

    /// Whether the item whose keyword is at `at` stands under an attribute `#[cfg(..test or loom..)]`.
    fn is_test_only(&self, at: usize) -> bool {
        let asks = |open| {
            self.matches(open, &["[", "cfg"]) && self.asks_for_tests(open, self.closing(open))
        };
        (self.item_start(at)..at).any(asks)
    }

    /// Where the item or block whose keyword is at `at` begins: with its attributes and visibility.
    fn item_start(&self, mut at: usize) -> usize {
        while at > 0 && (self.is(at - 1, "const") || self.is(at - 1, "async")) {
            at -= 1;
        }
        if at > 0
            && self.is(at - 1, ")")
            && self.opening(at - 1) > 0
            && self.is(self.opening(at - 1) - 1, "pub")
        {
            at = self.opening(at - 1);
        }
        if at > 0 && self.is(at - 1, "pub") {
            at -= 1;
        }
        while at > 0 && self.is(at - 1, "]") {
            let open = self.opening(at - 1);
            if open == 0 || !self.is(open - 1, "#") {
                break;
            }
            at = open - 1;
        }
        at
    }

    /// Whether the attribute from `open` to `end` names `test` or `loom` outside of a `not(..)`.
    fn asks_for_tests(&self, open: usize, end: usize) -> bool {
        let mut at = open;
        while at < end {
            if self.is(at, "test") || self.is(at, "loom") {
                return true;
            }
            at = if self.matches(at, &["not", "("]) { self.closing(at + 1) } else { at + 1 };
        }
        false
    }

    fn in_tests(&self, line: usize) -> bool {
        self.tests.iter().any(|&(first, last)| (first..=last).contains(&line))
    }

    fn is(&self, at: usize, text: &str) -> bool {
        self.tokens.get(at).is_some_and(|token| token.text == text)
    }

    fn is_word(&self, at: usize) -> bool {
        self.tokens.get(at).is_some_and(|token| token.text.starts_with(is_word_char))
    }

    fn matches(&self, at: usize, texts: &[&str]) -> bool {
        texts.iter().enumerate().all(|(offset, text)| self.is(at + offset, text))
    }

    /// Where the bracket that opens at `open` closes; the end of the file if it does not.
    fn closing(&self, open: usize) -> usize {
        let mut depth = 0;
        for (at, token) in self.tokens.iter().enumerate().skip(open) {
            match token.text.as_str() {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return at;
            }
        }
        self.tokens.len()
    }

    /// Where the bracket that closes at `close` opens.
    fn opening(&self, close: usize) -> usize {
        let mut depth = 0;
        for at in (0..=close).rev() {
            match self.tokens[at].text.as_str() {
                ")" | "]" | "}" => depth += 1,
                "(" | "[" | "{" => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return at;
            }
        }
        0
    }

    /// The `{` that opens the body of the function whose parameters begin at or after `at`.
    fn body(&self, mut at: usize) -> Option<usize> {
        while at < self.tokens.len() {
            match self.tokens[at].text.as_str() {
                "{" => return Some(at),
                ";" | "}" => return None,
                "(" | "[" => at = self.closing(at) + 1,
                _ => at += 1,
            }
        }
        None
    }

    /// Whether the token at `at` lies directly in `#[..]`, `#![..]` or the list of a `cfg_attr`.
    fn in_attribute(&self, at: usize) -> bool {
        let mut depth = 0;
        for at in (0..=at).rev() {
            match self.tokens[at].text.as_str() {
                ")" | "]" | "}" => depth += 1,
                "(" | "{" if depth > 0 => depth -= 1,
                "[" if depth > 0 => depth -= 1,
                "[" if at == 0 => return false,
                "[" => return self.is(at - 1, "#") || at > 1 && self.matches(at - 2, &["#", "!"]),
                "(" if at > 0 && self.is(at - 1, "cfg_attr") => {}
                "(" | "{" | ";" => return false,
                _ => {}
            }
        }
        false
    }

    /// Whether the item whose keyword is at `at` has a visibility.
    fn is_public(&self, at: usize) -> bool {
        (self.item_start(at)..at).any(|at| self.is(at, "pub"))
    }

    /// Whether the `unsafe` at `at` begins `unsafe impl .. Op for`.
    fn implements_a_contract(&self, at: usize) -> bool {
        if !self.is(at + 1, "impl") {
            return false;
        }
        let mut at = at + 2;
        if self.is(at, "<") {
            let mut depth = 0;
            while at < self.tokens.len() {
                depth += i32::from(self.is(at, "<")) - i32::from(self.is(at, ">"));
                at += 1;
                if depth == 0 {
                    break;
                }
            }
        }
        while self.is_word(at) && self.is(at + 1, "::") {
            at += 2;
        }
        self.matches(at, &["Op", "for"]) || self.matches(at, &["Floor", "for"])
    }

    /// The comments on the line of the token at `at`, on the lines of its item or statement before
    /// it, and right above those.
    fn comments_above(&self, at: usize) -> String {
        let code: Vec<&str> = self.code.lines().collect();
        let comments: Vec<&str> = self.comments.lines().collect();
        let first = self.tokens[self.item_start(at)].line;
        let mut found = comments[first - 1..self.tokens[at].line].join("\n");
        for index in (0..first - 1).rev() {
            let above = code[index].trim();
            let is_blank = above.is_empty() && comments[index].trim().is_empty();
            if is_blank || above.ends_with([';', '{', '}', ',']) {
                break;
            }
            found = format!("{}\n{found}", comments[index]);
        }
        found
    }

    /// Every path in the code that has at least two segments.
    fn paths(&self) -> Vec<WrittenPath> {
        let mut paths = Vec::new();
        let mut at = 0;
        while at < self.tokens.len() {
            if self.is_word(at) && (self.is(at + 1, "::") || self.matches(at, &["crate", "as"])) {
                at = self.collect_paths(at, &mut Vec::new(), &mut paths);
            } else {
                at += 1;
            }
        }
        paths
    }

    /// Takes apart the path or group at `at`, which follows `prefix`; returns where it ends.
    fn collect_paths(
        &self,
        mut at: usize,
        prefix: &mut Vec<String>,
        paths: &mut Vec<WrittenPath>,
    ) -> usize {
        let before = prefix.len();
        let line = self.tokens.get(at).map_or(0, |token| token.line);
        let mut from = self.module_path();
        from.extend(
            self.tokens.get(at).map_or(&Vec::new(), |token| &token.modules).iter().cloned(),
        );
        loop {
            if self.is(at, "{") {
                let end = self.closing(at);
                at += 1;
                while at < end {
                    at = self.collect_paths(at, prefix, paths).max(at + 1);
                    while at < end && !self.is(at - 1, ",") {
                        at += 1;
                    }
                }
                prefix.truncate(before);
                return end + 1;
            }
            if !self.is_word(at) && !self.is(at, "*") {
                break; // `::<`, or nothing after the last comma of a group
            }
            prefix.push(self.tokens[at].text.clone());
            at += 1;
            if !self.is(at, "::") {
                break;
            }
            at += 1;
        }
        if prefix.len() > before {
            let is_macro = self.is(at, "!") && !self.is(at + 1, "=");
            paths.push(WrittenPath { line, segments: prefix.clone(), from, is_macro });
        }
        prefix.truncate(before);
        at
    }
}

fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn tokenize(code: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    for (line, text) in numbered(code) {
        let mut rest = text.trim_start();
        while let Some(first) = rest.chars().next() {
            let length = if is_word_char(first) {
                rest.find(|c| !is_word_char(c)).unwrap_or(rest.len())
            } else if rest.starts_with("::") || rest.starts_with("->") || rest.starts_with("=>") {
                2
            } else {
                first.len_utf8()
            };
            tokens.push(Token { text: rest[..length].into(), line, modules: Vec::new() });
            rest = rest[length..].trim_start();
        }
    }
    tokens
}

// ---- The lexer ----

/// Splits Rust source into its code and its comments, both of the shape of the whole: what belongs
/// to the other is blank. Of a literal two quotes are left in the code, whatever its kind.
fn split(text: &str) -> (String, String) {
    let chars: Vec<char> = text.chars().collect();
    let (mut code, mut comments) = (String::new(), String::new());
    let blank = |c: char| if c == '\n' { '\n' } else { ' ' };
    let mut at = 0;
    while at < chars.len() {
        let piece = piece(&chars, at);
        let end = piece.end();
        for (index, &c) in chars.iter().enumerate().take(end).skip(at) {
            let (in_code, in_comments) = match piece {
                Piece::Code(_) => (c, blank(c)),
                Piece::Comment(_) => (blank(c), c),
                Piece::Literal(_) if index == at || index == end - 1 => ('"', ' '),
                Piece::Literal(_) => (blank(c), blank(c)),
            };
            code.push(in_code);
            comments.push(in_comments);
        }
        at = end;
    }
    (code, comments)
}

/// A stretch of source of one kind, with its end.
enum Piece {
    Code(usize),
    Comment(usize),
    Literal(usize),
}

impl Piece {
    fn end(&self) -> usize {
        match *self {
            Piece::Code(end) | Piece::Comment(end) | Piece::Literal(end) => end,
        }
    }
}

fn piece(chars: &[char], at: usize) -> Piece {
    let peek = |offset: usize| chars.get(at + offset).copied().unwrap_or('\0');
    match chars[at] {
        '/' if peek(1) == '/' => Piece::Comment(find(chars, at, |c| c == '\n')),
        '/' if peek(1) == '*' => Piece::Comment(block_comment_end(chars, at)),
        '"' => Piece::Literal(string_end(chars, at)),
        'r' => raw_string(chars, at, 1).unwrap_or_else(|| word(chars, at)),
        'b' | 'c' if peek(1) == 'r' => raw_string(chars, at, 2).unwrap_or_else(|| word(chars, at)),
        '\'' if peek(1) == '\\' => Piece::Literal(char_end(chars, at)),
        '\'' if peek(2) == '\'' && peek(1) != '\'' => Piece::Literal(at + 3),
        c if is_word_char(c) => word(chars, at),
        _ => Piece::Code(at + 1),
    }
}

/// A word or number as a whole, so that the prefixes of literals are looked for at its start only.
fn word(chars: &[char], at: usize) -> Piece {
    Piece::Code(find(chars, at, |c| !is_word_char(c)))
}

fn find(chars: &[char], from: usize, stop: impl Fn(char) -> bool) -> usize {
    (from..chars.len()).find(|&at| stop(chars[at])).unwrap_or(chars.len())
}

/// Block comments nest.
fn block_comment_end(chars: &[char], mut at: usize) -> usize {
    let mut depth = 0;
    while at < chars.len() {
        match chars[at..] {
            ['/', '*', ..] => depth += 1,
            ['*', '/', ..] => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            break;
        }
    }
    at.min(chars.len())
}

/// The end of the string whose quote is at `at`.
fn string_end(chars: &[char], at: usize) -> usize {
    let mut at = at + 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

/// The end of the character literal that begins with a quote and a backslash at `at`.
fn char_end(chars: &[char], at: usize) -> usize {
    (find(chars, at + 3, |c| c == '\'') + 1).min(chars.len())
}

/// `r".."`, `r#".."#`, with `prefix` letters before; None if it is a word or a raw identifier.
fn raw_string(chars: &[char], at: usize, prefix: usize) -> Option<Piece> {
    let quote = find(chars, at + prefix, |c| c != '#');
    if chars.get(quote) != Some(&'"') {
        return None;
    }
    let hashes = quote - at - prefix;
    let closes = |end: &usize| {
        let after = &chars[end + 1..];
        chars[*end] == '"' && after.len() >= hashes && after[..hashes].iter().all(|&c| c == '#')
    };
    let end = (quote + 1..chars.len()).find(closes).map_or(chars.len(), |end| end + 1 + hashes);
    Some(Piece::Literal(end))
}

// ---- Bad samples: each rule can fail ----

mod samples {
    use super::*;

    /// The lines at which `rule` finds something in `text`, as if it were the file `path`.
    fn lines(rule: fn(&Source) -> Vec<Finding>, path: &str, text: &str) -> Vec<usize> {
        rule(&Source::new(path, text)).iter().map(|finding| finding.line).collect()
    }

    fn code(text: &str) -> String {
        split(text).0
    }

    fn comments(text: &str) -> String {
        split(text).1
    }

    #[test]
    fn comments_are_not_code() {
        assert_eq!(code("a // b\nc"), "a     \nc");
        assert_eq!(comments("a // b\nc"), "  // b\n ");
        assert_eq!(code("a /* b /* c */ d */ e"), "a                   e");
        assert_eq!(code("a /* b\n*/ c"), "a     \n   c");
        assert_eq!(code("a /* never closed"), "a                ");
        assert_eq!(code("a / b * c"), "a / b * c");
    }

    #[test]
    fn strings_are_not_code() {
        assert_eq!(code(r#"f("unsafe", x)"#), r#"f("      ", x)"#);
        assert_eq!(code(r#"f("a\"b", x)"#), r#"f("    ", x)"#);
        assert_eq!(code(r#"f("\\", x)"#), r#"f("  ", x)"#);
        assert_eq!(code(r#"f(b"ab", c"ab")"#), r#"f(b"  ", c"  ")"#);
        assert_eq!(code("\"two\nlines\" a"), "\"   \n     \" a");
        assert_eq!(code("\"// no comment\" a"), "\"             \" a");
        assert_eq!(code("// \"no string\na"), "             \na");
    }

    #[test]
    fn raw_strings_end_where_their_hashes_do() {
        assert_eq!(code("f(r\"a\\\", b)"), "f(\"   \", b)");
        assert_eq!(code("f(r#\"a\"b\"#, c)"), "f(\"      \", c)");
        assert_eq!(code("f(br##\"a\"# \"##, c)"), "f(\"          \", c)");
        assert_eq!(code("let r#fn = r + br;"), "let r#fn = r + br;");
    }

    #[test]
    fn characters_are_not_lifetimes() {
        assert_eq!(code("f('a', b'\"', 'c')"), "f(\" \", b\" \", \" \")");
        assert_eq!(code(r"f('\'', '\\', '\u{1F}', x)"), r#"f("  ", "  ", "      ", x)"#);
        assert_eq!(
            code("fn f<'a>(x: &'a str, y: &'static u8) {}"),
            "fn f<'a>(x: &'a str, y: &'static u8) {}"
        );
        assert_eq!(code("'a: loop { break 'a }"), "'a: loop { break 'a }");
        assert_eq!(code("f('é', '/', \"ü\")"), "f(\" \", \" \", \" \")");
    }

    #[test]
    fn a_bracket_without_its_match_is_found() {
        assert_eq!(lines(unbalanced_brackets, "src/a.rs", "f(\n)\n]"), [3]);
        assert_eq!(lines(unbalanced_brackets, "src/a.rs", "f(\n[)"), [2]);
        assert_eq!(lines(unbalanced_brackets, "src/a.rs", "\nf { g()"), [2]);
        assert_eq!(lines(unbalanced_brackets, "src/a.rs", "f { g([')', \"(\"]) } // ]"), [0; 0]);
    }

    #[test]
    fn paths_are_taken_apart() {
        let text = "use crate::{op::{self, Op as O}, task::*,};\nlet x = a::b::<c::d>(e::f!());\nuse {g::h, i};";
        let source = Source::new("src/net/tcp.rs", text);
        let paths: Vec<String> =
            source.paths().iter().map(|path| path.segments.join(" ")).collect();
        assert_eq!(
            paths,
            ["crate op self", "crate op Op", "crate task *", "a b", "c d", "e f", "g h"],
            "groups, aliases, globs, generics"
        );
    }

    #[test]
    fn an_import_that_points_up_is_found() {
        for bad in [
            "use crate::runtime::Handle;",
            "use crate::{sys::Fd, runtime::Handle};",
            "use crate::{sys::{Fd, addr}, net};",
            "pub use super::super::runtime;",
            "use super::{super::runtime::Handle};",
            "fn f() { crate::runtime::spawn() }",
            "fn f() { match x { crate::net::A { .. } => {} } }",
            "use self::super::super::fs;",
            "mod tests { use super::super::super::fs::File; }",
            "macro_rules! m { () => { $crate::net::f() } }",
            "use crate::task::Task;",
            "use crate::spawn;",
            "use crate::*;",
            "use crate as quoit;",
            "use crate::{self};",
        ] {
            assert_eq!(lines(imports, "src/op/ring.rs", bad), [1], "{bad}");
        }
        assert_eq!(
            lines(imports, "src/op/ring.rs", "use crate::{\n    sys::Fd,\n    net::Tcp,\n};"),
            [3]
        );
        assert_eq!(lines(imports, "src/op/mod.rs", "use super::task;"), [1]);
        assert_eq!(lines(imports, "src/op.rs", "use super::task;"), [1]);
        assert_eq!(lines(imports, "src/task/raw.rs", "use crate::op;"), [1]);
        assert_eq!(lines(imports, "src/net/tcp.rs", "use crate::runtime;"), [1]);
        assert_eq!(lines(imports, "src/runtime/start.rs", "use crate::net;"), [1]);
        assert_eq!(lines(imports, "src/http/mod.rs", "use crate::compat;"), [1]);
        assert_eq!(lines(imports, "src/unheard_of.rs", "//! A module."), [1]);
    }

    #[test]
    fn an_import_that_points_down_is_fine() {
        for good in [
            "use crate::{sys::{Fd, atomic}, driver::Sqe};\nuse std::task::Waker;",
            "use crate::op::slot;\nuse super::slot::Slot;\nuse super::*;",
            "pub(crate) fn f() {}\npub(in crate::op) fn g() {}\npub(super) fn h() {}",
            "// crate::net\n/// [`crate::runtime`]\nconst S: &str = \"crate::fs\";",
            "mod tests { use super::super::slot; }",
            "crate::join!(a, b);",
            "use libc::net; task::poll(); self::runtime::f(); self.net;",
        ] {
            assert_eq!(lines(imports, "src/op/ring.rs", good), [0; 0], "{good}");
        }
        assert_eq!(lines(imports, "src/sys/fd.rs", "use crate::sync::Notify;"), [0; 0]);
        assert_eq!(lines(imports, "src/time/mod.rs", "use crate::io::copy;"), [0; 0]);
        assert_eq!(lines(imports, "src/lib.rs", "pub use crate::runtime::spawn;"), [0; 0]);
        assert_eq!(lines(imports, "src/http/mod.rs", "use crate::{net, runtime, time};"), [0; 0]);
    }

    #[test]
    fn unsafe_in_the_wrong_file_is_found() {
        let rule = unsafe_outside_its_files;
        for bad in [
            "unsafe { f() }",
            "unsafe fn f() {}",
            "unsafe impl Send for Op {}",
            "unsafe impl<T: Fn() -> Op> Sync for T {}",
            "unsafe impl Opera for X {}",
            "#[unsafe(no_mangle)] fn f() {}",
        ] {
            assert_eq!(lines(rule, "src/net/tcp.rs", bad), [1], "{bad}");
            assert_eq!(lines(rule, "src/operator.rs", bad), [1], "{bad}");
            assert_eq!(lines(rule, "src/op/ring.rs", bad), [0; 0], "{bad}");
        }
        for good in [
            "unsafe impl Op for Recv {}",
            "unsafe impl<B: IoBuf> Op for Read<B> {}",
            "unsafe impl<F: Fn() -> T, T> crate::op::Op for Call<F> {}",
            "#![forbid(unsafe_code)] // unsafe",
        ] {
            assert_eq!(lines(rule, "src/net/tcp.rs", good), [0; 0], "{good}");
        }
    }

    #[test]
    fn unsafe_without_a_comment_is_found() {
        for bad in [
            "unsafe { f() }",
            "// SAFETY: for another.\n\nunsafe { f() }",
            "// SAFETY: for another.\ng();\nunsafe { f() }",
            "// safe\nunsafe impl Send for X {}",
            "unsafe impl Op for X {}",
            "let x = \"// SAFETY: none\"; unsafe { f() }",
            "unsafe {\n    // SAFETY: too late.\n    f()\n}",
            "/// Does it.\npub unsafe fn f() {}",
            "pub(crate) const unsafe fn f() {}",
            "pub unsafe extern \"C\" fn f() {}",
            "/// A trait.\nunsafe trait T {}",
            "/// # Safety\n/// For another.\nfn f();\n#[note(\n    a,\n)]\npub unsafe trait T {}",
        ] {
            assert_eq!(lines(unsafe_without_a_reason, "src/op/ring.rs", bad).len(), 1, "{bad}");
        }
        for good in [
            "// SAFETY: I1.\nunsafe { f() }",
            "unsafe { f() } // SAFETY: I1.",
            "// SAFETY: I1, and\n// I2.\nlet x =\n    unsafe { f() };",
            "// SAFETY: I2.\n#[rustfmt::skip]\nunsafe impl Send for X {}",
            "/// # Safety\n/// Once.\n#[inline]\npub unsafe fn f() {}",
            "/// # Safety\n/// Once.\n#[note(\n    a = \"b\",\n    c = \"d\"\n)]\npub(crate) unsafe trait T {}",
            "let x = 1;\n// SAFETY: I1.\nlet y: [u8; 2] =\n    unsafe { f() };",
            "/// # Safety\n/// Truth.\npub unsafe trait T {\n    unsafe fn f();\n}",
            "type F = unsafe fn(*const ());",
            "struct S {\n    pub poll: unsafe fn(*const ()),\n}",
        ] {
            assert_eq!(lines(unsafe_without_a_reason, "src/op/ring.rs", good), [0; 0], "{good}");
        }
    }

    #[test]
    fn atomics_in_the_wrong_file_are_found() {
        for bad in [
            "use std::sync::atomic::AtomicBool as Flag;",
            "use std::sync::{Arc, atomic::Ordering};",
            "use core::{mem, sync::atomic};",
            "use loom::thread;",
            "#[cfg(not(test))]\nmod m { use loom::thread; }",
        ] {
            assert!(!lines(atomics, "src/net/tcp.rs", bad).is_empty(), "{bad}");
            assert!(!lines(atomics, "src/task/raw.rs", bad).is_empty(), "{bad}");
            assert_eq!(lines(atomics, "src/sys/atomic.rs", bad), [0; 0], "{bad}");
        }
        for bad in [
            "use crate::sys::atomic::Ordering;",
            "use crate::sys::{Fd, atomic};",
            "struct S { x: AtomicPtr<u8> }",
            "struct S { x: AtomicUsize }",
        ] {
            assert_eq!(lines(atomics, "src/net/tcp.rs", bad), [1], "{bad}");
            assert_eq!(lines(atomics, "src/task/raw.rs", bad), [0; 0], "{bad}");
        }
        assert_eq!(lines(atomics, "src/sys/fd.rs", "use super::atomic::fence;"), [1]);
        assert_eq!(lines(atomics, "src/sys/fd.rs", "use super::atomic::Arc;"), [0; 0]);
        for good in [
            "#[cfg(test)]\nmod tests {\n    use std::sync::atomic::AtomicU8;\n    use loom::model;\n}",
            "#[cfg(all(test, not(loom)))]\npub(crate) mod tests {\n    use std::sync::atomic::AtomicU8;\n}",
            "#[cfg(all(loom, test))]\n#[rustfmt::skip]\nmod models { use loom::thread; }",
            "#[cfg(loom)] // std::sync::atomic\nuse std::sync::Arc; struct AtomicInbox;",
        ] {
            assert_eq!(lines(atomics, "src/net/tcp.rs", good), [0; 0], "{good}");
        }
    }

    #[test]
    fn leftovers_are_found() {
        let rule = forbidden_macros;
        for (names, where_allowed) in [(UNDONE_MACROS, [2].as_slice()), (PRINTING_MACROS, &[])] {
            for name in names {
                let bad = format!("fn f() {{\n    {name}!(\"x\");\n}}");
                assert_eq!(lines(rule, "src/net/tcp.rs", &bad), [2], "{bad}");
                assert_eq!(lines(rule, "src/bin/tool.rs", &bad), where_allowed, "{bad}");
                let test = format!("#[cfg(test)] mod tests {{\n    {name}!(\"x\");\n}}");
                assert_eq!(lines(rule, "src/net/tcp.rs", &test), where_allowed, "{test}");
            }
        }
        let good = "/// println!(\"x\")\nfn print() { if print != dbg {} }";
        assert_eq!(lines(forbidden_macros, "src/net/tcp.rs", good), [0; 0]);
        for word in FORBIDDEN_WORDS {
            assert_eq!(
                lines(forbidden_words, "src/net/tcp.rs", &format!("f();\ng(); // {word}: h")),
                [2]
            );
            assert_eq!(lines(forbidden_words, "scripts/ci.sh", &format!("# {word}")), [1]);
            let good = format!("// my{word}s\nlet {word} = \"{word}\";");
            assert_eq!(lines(forbidden_words, "src/net/tcp.rs", &good), [0; 0]);
        }
    }

    #[test]
    fn an_ignored_test_is_found() {
        assert_eq!(lines(ignored_tests, "tests/it/tcp.rs", "#[test]\n#[ignore]\nfn f() {}"), [2]);
        assert_eq!(lines(ignored_tests, "tests/it/tcp.rs", "#[ignore = \"slow\"]\nfn f() {}"), [1]);
        assert_eq!(lines(ignored_tests, "tests/it/tcp.rs", "// #[ignore]\nfn ignore() {}"), [0; 0]);
    }

    #[test]
    fn a_lint_allowed_without_a_reason_is_found() {
        for bad in [
            "#[allow(dead_code)]",
            "#![allow(dead_code)]",
            "#[expect(dead_code)]",
            "#[cfg_attr(loom, allow(dead_code))]",
            "#[allow(dead_code)] // reason = \"in a comment\"",
        ] {
            assert_eq!(lines(lints_without_a_reason, "src/net/tcp.rs", bad), [1], "{bad}");
        }
        for good in [
            "#[allow(dead_code, reason = \"used by one kernel\")]",
            "#![expect(\n    dead_code,\n    reason = \"used by one kernel\",\n)]",
            "vec![a.expect(\"a\"), b[1].allow(c)]; #[warn(dead_code)] fn allow() {}",
        ] {
            assert_eq!(lines(lints_without_a_reason, "src/net/tcp.rs", good), [0; 0], "{good}");
        }
    }

    #[test]
    fn a_long_file_is_found_whatever_its_tests() {
        let body = "// x\n".repeat(LONGEST_FILE);
        assert_eq!(lines(long_files_and_functions, "src/a.rs", &format!("{body}// x\n")), [1]);
        let tests = "#[cfg(test)]\nmod tests {\n    // x\n}\n";
        let with_tests = format!("{}{tests}", &body["// x\n".len()..]);
        assert_eq!(lines(long_files_and_functions, "src/a.rs", &with_tests), [0; 0]);
        assert_eq!(lines(long_files_and_functions, "src/a/tests.rs", &body.repeat(2)), [0; 0]);
    }

    #[test]
    fn a_long_function_is_found() {
        let function = |lines: usize| {
            let body = "    g(\"}\", [0; 1]);\n".repeat(lines - 2);
            format!("\nfn f<T>(x: [u8; 4]) -> T {{\n{body}}}\nfn g();\n")
        };
        assert_eq!(
            lines(long_files_and_functions, "src/a.rs", &function(LONGEST_FUNCTION + 1)),
            [2]
        );
        assert_eq!(
            lines(long_files_and_functions, "src/a.rs", &function(LONGEST_FUNCTION)),
            [0; 0]
        );
    }

    #[test]
    fn a_file_without_a_first_line_is_found() {
        assert_eq!(lines(files_without_a_first_line, "src/a.rs", "use std::io;"), [1]);
        assert_eq!(lines(files_without_a_first_line, "src/a.rs", "//! A noun.\n"), [0; 0]);
    }

    #[test]
    fn a_long_line_is_found() {
        let line = "é".repeat(LONGEST_LINE);
        assert_eq!(lines(long_lines, "src/a.rs", &format!("{line}\n{line}é\n")), [2]);
    }

    #[test]
    fn a_second_thread_local_is_found() {
        let count = |files: &[(&str, &str)]| {
            let sources: Vec<Source> =
                files.iter().map(|(path, text)| Source::new(path, text)).collect();
            thread_locals(&sources).len()
        };
        let one = "thread_local! { static X: u8 = 0; }";
        assert_eq!(count(&[("src/sys/current.rs", one)]), 0);
        assert_eq!(count(&[("src/sys/current.rs", one), ("src/op/mod.rs", one)]), 1);
        assert_eq!(count(&[("src/op/mod.rs", one)]), 1);
        assert_eq!(count(&[("src/op/mod.rs", "// thread_local!")]), 1);
    }

    #[test]
    fn a_foreign_place_is_found() {
        for place in FOREIGN_PATHS {
            for bad in [
                format!("cd {place}x"),
                place.to_string(),
                format!("\"{place}\""),
                format!("file://{place}"),
            ] {
                assert_eq!(foreign_places("README.md", &format!("fine\n{bad}")).len(), 1, "{bad}");
            }
            for good in [format!("src{place}x"), place.trim_end_matches('/').to_string()] {
                assert_eq!(foreign_places("README.md", &good).len(), 0, "{good}");
            }
        }
        for word in FOREIGN_WORDS {
            assert_eq!(foreign_places("README.md", &format!("a {word}b")).len(), 1);
        }
    }

    #[test]
    fn a_finding_names_the_place_and_the_mend() {
        let source = Source::new("src/op/ring.rs", "\nuse crate::net::TcpStream;");
        let text = imports(&source)[0].to_string();
        assert!(
            text.starts_with("src/op/ring.rs:2: `op` (floor 2) names `net` (floor 4); "),
            "{text}"
        );
        assert!(text.contains("move what both need to a lower floor"), "{text}");
    }
}
