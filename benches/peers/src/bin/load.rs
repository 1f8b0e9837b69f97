//! The load generator: measures servers against each other, cell by cell.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use peers::cell::{Cell, Traffic};
use peers::chart;
use peers::child::{become_realtime, pin};
use peers::client::Client;
use peers::idle;
use peers::report::{self, CellReport};
use peers::ring::{self, Ring};
use peers::trial::{self, CLIENT_CPU, Contender, Effort};

const USAGE: &str = "\
usage: load [options] [CELL ...]      all cells when none is named
                      echo, depth, http, churn, udp, stream and idle stand for all of a kind
                      a cell `..-open60` is an open loop: requests come at 60 % of the capacity of
                      the slowest server, and latency runs from when they were to be sent
  --list              names the cells and ends
  --servers A,B,...   NAME for the program NAME_server beside this one, NAME=COMMAND, or quoit-epoll
                      for quoit's server on its epoll driver, quoit-balanced and quoit-throughput for
                      its server that may wait for several answers, quoit-spin for one that spins
                      50 µs, monoio-tuned, compio-tuned, or `all` the runtimes; the first is the base
                      and runs twice
  --rounds N          rounds for each set of processes
  --repeats K         how often the processes are started afresh
  --slice-ms N        how long a server is loaded in a round
  --quick             fewer rounds
  --realtime          takes precedence over other work on the machine
  --out DIRECTORY     also writes the tables, one row of TSV for each cell and server, and a
                      chart";

const SERVERS: &str = "raw,quoit,epoll,quoit-epoll,tokio";
/// What `all` stands for.
const ALL_SERVERS: &str = "raw,quoit,quoit-epoll,epoll,tokio,monoio,monoio-tuned,compio,\
    compio-tuned,tokio-uring,kimojio,glommio";
/// A server with what its runtime's builder allows, beyond its defaults.
const TUNED: &str = "-tuned";
/// The same server in another way, by the environment.
const QUOITS: [(&str, &str); 4] = [
    ("quoit-epoll", "QUOIT_DRIVER=epoll"),
    ("quoit-balanced", "QUOIT_WAITING=balanced"),
    ("quoit-throughput", "QUOIT_WAITING=throughput"),
    ("quoit-spin", "SPIN_US=50"),
];

/// For 2,000 connections to each of a dozen servers.
const DESCRIPTORS: u64 = 65_536;

/// Besides the connections.
const SPARE_DESCRIPTORS: usize = 200;

const SQ_ENTRIES: u32 = 1024;
const CQ_ENTRIES: u32 = 8192;

const THOROUGH: Effort = Effort { rounds: 40, repeats: 4, slice: Duration::from_millis(50) };
const QUICK: Effort = Effort { rounds: 14, repeats: 2, slice: Duration::from_millis(50) };

fn main() -> ExitCode {
    let plan = match Plan::from_arguments(std::env::args().skip(1)) {
        Ok(Request::Measure(plan)) => plan,
        Ok(Request::List) => {
            Cell::all().iter().for_each(|cell| println!("{}", cell.name));
            return ExitCode::SUCCESS;
        }
        Ok(Request::Help) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("load: {message}; --help explains");
            return ExitCode::from(2);
        }
    };
    match plan.carry_out() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

enum Request {
    Help,
    List,
    Measure(Plan),
}

struct Plan {
    cells: Vec<Cell>,
    contenders: Vec<Contender>,
    effort: Effort,
    realtime: bool,
    out: Option<PathBuf>,
}

impl Plan {
    fn from_arguments(mut arguments: impl Iterator<Item = String>) -> Result<Request, String> {
        let all = Cell::all();
        let mut cells = Vec::new();
        let mut servers = SERVERS.to_owned();
        let mut effort = THOROUGH;
        let (mut rounds, mut repeats, mut slice_ms) = (None, None, None);
        let (mut realtime, mut out) = (false, None);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--help" => return Ok(Request::Help),
                "--list" => return Ok(Request::List),
                "--quick" => effort = QUICK,
                "--servers" => servers = value()?,
                "--rounds" => rounds = Some(number(&value()?, 100_000)?),
                "--repeats" => repeats = Some(number(&value()?, 1_000)?),
                "--slice-ms" => slice_ms = Some(number(&value()?, 60_000)?),
                "--realtime" => realtime = true,
                "--out" => out = Some(PathBuf::from(value()?)),
                option if option.starts_with('-') => {
                    return Err(format!("unknown option {option}"));
                }
                name => {
                    let named = |cell: &&Cell| cell.name == name || cell.group() == name;
                    let before = cells.len();
                    cells.extend(all.iter().filter(named).cloned());
                    if cells.len() == before {
                        return Err(format!("no cell is called {name}"));
                    }
                }
            }
        }
        effort.rounds = rounds.unwrap_or(effort.rounds);
        effort.repeats = repeats.unwrap_or(effort.repeats);
        effort.slice = slice_ms.map_or(effort.slice, |ms| Duration::from_millis(ms as u64));
        let cells = if cells.is_empty() { all } else { cells };
        let servers = if servers == "all" { ALL_SERVERS } else { &servers };
        let contenders = contenders(servers)?;
        Ok(Request::Measure(Plan { cells, contenders, effort, realtime, out }))
    }

    /// Measures every cell; false when some could not be measured.
    fn carry_out(&self) -> io::Result<bool> {
        pin(CLIENT_CPU)?;
        if self.realtime {
            become_realtime()?;
        }
        let descriptors = raise_descriptor_limit()?;
        let mut uring = ring::open(SQ_ENTRIES, CQ_ENTRIES)?;
        let mut client = Client::new(Ring::new(&mut uring)?)?;
        let mut output = Output::create(self.out.as_deref())?;
        let names: Vec<String> = self.contenders.iter().map(|one| one.name.clone()).collect();
        let estimate = trial::estimate(self.effort, names.len()) * self.cells.len() as u32;
        println!("{} cells, about {:.1} min\n", self.cells.len(), estimate.as_secs_f64() / 60.0);

        let (mut reports, mut measured) = (Vec::new(), 0);
        for cell in &self.cells {
            if cell.traffic == Traffic::Idle {
                let usages = idle::measure(cell, &self.contenders);
                output.print(&idle::table(cell, &usages))?;
                output.add_memory(&idle::tsv(cell, &usages))?;
                measured += 1;
                continue;
            }
            let needed = cell.connections * names.len() + SPARE_DESCRIPTORS;
            if needed as u64 > descriptors {
                let name = cell.name;
                eprintln!(
                    "load: {name}: needs {needed} descriptors of {descriptors}: fewer servers?"
                );
                continue;
            }
            match trial::measure(cell, &self.contenders, self.effort, &mut client) {
                Ok(outcomes) => {
                    let report = CellReport::new(cell.name, &names, &outcomes);
                    output.print(&report.table())?;
                    output.add_rows(&report.tsv())?;
                    reports.push(report);
                    measured += 1;
                }
                Err(error) => eprintln!("load: {}: {error}\n", cell.name),
            }
        }
        output.print(&report::summary(&reports, &names))?;
        if let Some(directory) = &self.out {
            chart::draw(directory, &directory.join("chart.svg"))?;
        }
        Ok(measured == self.cells.len())
    }
}

/// Standard output, and the files of `--out`.
struct Output {
    files: Option<Files>,
}

struct Files {
    tables: File,
    rows: File,
    memory: File,
}

impl Output {
    fn create(directory: Option<&Path>) -> io::Result<Output> {
        let Some(directory) = directory else {
            return Ok(Output { files: None });
        };
        fs::create_dir_all(directory)?;
        let tables = File::create(directory.join("tables.txt"))?;
        let mut rows = File::create(directory.join("results.tsv"))?;
        writeln!(rows, "{}", report::TSV_HEADER)?;
        let mut memory = File::create(directory.join("memory.tsv"))?;
        writeln!(memory, "{}", idle::TSV_HEADER)?;
        Ok(Output { files: Some(Files { tables, rows, memory }) })
    }

    fn print(&mut self, table: &str) -> io::Result<()> {
        println!("{table}");
        self.files.as_mut().map_or(Ok(()), |files| writeln!(files.tables, "{table}"))
    }

    fn add_rows(&mut self, tsv: &str) -> io::Result<()> {
        self.files.as_mut().map_or(Ok(()), |files| files.rows.write_all(tsv.as_bytes()))
    }

    fn add_memory(&mut self, tsv: &str) -> io::Result<()> {
        self.files.as_mut().map_or(Ok(()), |files| files.memory.write_all(tsv.as_bytes()))
    }
}

/// The servers of the list, with the first once more as the control.
fn contenders(list: &str) -> Result<Vec<Contender>, String> {
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let directory = this.parent().unwrap_or(Path::new("."));
    let mut contenders = list
        .split(',')
        .map(|item| contender(item, directory))
        .collect::<Result<Vec<Contender>, String>>()?;
    let base = &contenders[0];
    let control = Contender { name: format!("{} again", base.name), command: base.command.clone() };
    contenders.insert(1, control);
    Ok(contenders)
}

fn contender(item: &str, directory: &Path) -> Result<Contender, String> {
    if let Some(plain) = item.strip_suffix(TUNED) {
        let Contender { mut command, .. } = contender(plain, directory)?;
        command.extend(["--tuned", "yes"].map(str::to_owned));
        return Ok(Contender { name: item.to_owned(), command });
    }
    if let Some((_, variable)) = QUOITS.iter().find(|(name, _)| *name == item) {
        // `env` becomes the program.
        let server = contender("quoit", directory)?;
        let environment = ["env", variable].map(str::to_owned);
        let command = environment.into_iter().chain(server.command).collect();
        return Ok(Contender { name: item.to_owned(), command });
    }
    let (name, command) = match item.split_once('=') {
        Some((name, command)) => (name, command.split_whitespace().map(str::to_owned).collect()),
        None => {
            let program = directory.join(format!("{item}_server"));
            if !program.is_file() {
                return Err(format!("there is no {}", program.display()));
            }
            (item, vec![program.to_string_lossy().into_owned()])
        }
    };
    if name.is_empty() || command.is_empty() {
        return Err(format!("not a server: {item:?}"));
    }
    Ok(Contender { name: name.to_owned(), command })
}

fn number(text: &str, highest: usize) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (1..=highest).contains(&number) => Ok(number),
        _ => Err(format!("not a number from 1 to {highest}: {text}")),
    }
}

/// The limit from now on. The soft one would not hold the connections of one cell to all servers.
fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit outlives both calls.
    peers::server::check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    let wanted = limit.rlim_max.max(DESCRIPTORS);
    // SAFETY: as above.
    let raise = |limit: libc::rlimit| unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
    // Raising the hard limit takes a capability that root may lack.
    if raise(libc::rlimit { rlim_cur: wanted, rlim_max: wanted }) == 0 {
        return Ok(wanted);
    }
    limit.rlim_cur = limit.rlim_max;
    peers::server::check(raise(limit))?;
    Ok(limit.rlim_cur)
}
