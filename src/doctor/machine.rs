//! Limits, CPUs, ports and memory: what a start has to do with.

use std::fmt;
use std::path::Path;

use io_uring::types::BufRingEntry;

use super::json::Json;
use crate::buf::pool;
use crate::driver::uring::Sizes;
use crate::sys::facts::Facts;
use crate::sys::limits::{self, Limit};
use crate::sys::{cpus, listeners};

/// The limits of the process.
#[derive(Debug)]
pub(super) struct Limits {
    descriptors: Option<Limit>,
    locked_memory: Option<Limit>,
    processes: Option<Limit>,
}

impl Limits {
    pub(super) fn read() -> Self {
        Limits {
            descriptors: limits::descriptors(),
            locked_memory: limits::locked_memory(),
            processes: limits::processes(),
        }
    }

    fn all(&self) -> [(&'static str, Option<Limit>); 3] {
        [("nofile", self.descriptors), ("memlock", self.locked_memory), ("nproc", self.processes)]
    }

    pub(super) fn json(&self) -> Json {
        let number = |limit| match limit {
            libc::RLIM_INFINITY => Json::Null,
            limit => Json::Count(limit),
        };
        let limit = |Limit { soft, hard }| {
            Json::Object(vec![("soft", number(soft)), ("hard", number(hard))])
        };
        Json::Object(self.all().map(|(name, value)| (name, Json::maybe(value, limit))).into())
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |limit| match limit {
            libc::RLIM_INFINITY => "unlimited".to_owned(),
            limit => limit.to_string(),
        };
        writeln!(f, "limits")?;
        for (name, limit) in self.all() {
            match limit {
                Some(Limit { soft, hard }) => {
                    writeln!(f, "  {name:<24} {} (hard {})", number(soft), number(hard))?;
                }
                None => writeln!(f, "  {name:<24} unknown")?,
            }
        }
        Ok(())
    }
}

/// The CPUs, and which of them `start_per_core` takes.
#[derive(Debug)]
pub(super) struct Cpus {
    allowed: Vec<usize>,
    physical: usize,
    quota: Option<f64>,
    chosen: Vec<usize>,
}

impl Cpus {
    pub(super) fn read(root: &Path) -> Self {
        // Without a mask nothing starts, and the report says so by its absence.
        let allowed = cpus::allowed().unwrap_or_default();
        let chosen = cpus::choose(None).unwrap_or_default();
        let physical = cpus::physical(&allowed, root);
        Cpus { physical, allowed, quota: cpus::quota(root), chosen }
    }

    pub(super) fn json(&self) -> Json {
        let number = |cpu: &usize| Json::Count(*cpu as u64);
        Json::Object(vec![
            ("allowed", Json::list(&self.allowed, number)),
            ("physical_cores", Json::Count(self.physical as u64)),
            ("quota", Json::maybe(self.quota, Json::Number)),
            ("chosen", Json::list(&self.chosen, number)),
        ])
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quota = self.quota.map_or("none".to_owned(), |quota| format!("{quota} CPUs"));
        writeln!(f, "CPUs")?;
        writeln!(f, "  {:<24} {}", "allowed", ranges(&self.allowed))?;
        writeln!(f, "  {:<24} {}", "physical cores", self.physical)?;
        writeln!(f, "  {:<24} {quota}", "quota")?;
        let cores = format!("{}, on CPUs {}", self.chosen.len(), numbers(&self.chosen));
        writeln!(f, "  {:<24} {cores}", "start_per_core starts")
    }
}

fn numbers(cpus: &[usize]) -> String {
    let numbers: Vec<String> = cpus.iter().map(usize::to_string).collect();
    numbers.join(", ")
}

/// Ascending numbers as the kernel writes them: `0-3,8`.
fn ranges(cpus: &[usize]) -> String {
    let runs = cpus.chunk_by(|one, next| one + 1 == *next);
    let runs: Vec<String> = runs
        .map(|run| match run {
            [first, .., last] => format!("{first}-{last}"),
            _ => numbers(run),
        })
        .collect();
    runs.join(",")
}

/// What the machine lets listeners have.
#[derive(Debug)]
pub(super) struct Ports {
    longest_backlog: Option<u64>,
    first_unprivileged: Option<u16>,
}

impl Ports {
    pub(super) fn read(root: &Path) -> Self {
        Ports {
            longest_backlog: listeners::longest_backlog(root),
            first_unprivileged: listeners::first_unprivileged_port(root),
        }
    }

    pub(super) fn json(&self) -> Json {
        Json::Object(vec![
            ("somaxconn", Json::maybe(self.longest_backlog, Json::Count)),
            (
                "ip_unprivileged_port_start",
                Json::maybe(self.first_unprivileged, |port| Json::Count(port.into())),
            ),
        ])
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let backlog = self.longest_backlog.map_or("unknown".to_owned(), |it| it.to_string());
        let first = self.first_unprivileged.map_or("unknown".to_owned(), |it| it.to_string());
        writeln!(f, "network")?;
        writeln!(f, "  {:<24} {backlog}", "somaxconn")?;
        writeln!(f, "  {:<24} {first}", "unprivileged ports from")
    }
}

/// Bytes that one core has, with the default sizes.
#[derive(Debug)]
pub(super) struct Memory {
    requests: u64,
    answers: u64,
    /// Buffers that are published at first, and the most that there can be.
    buffers: u64,
    most_buffers: u64,
    /// How many cores of this user may have rings at a time, where these are locked memory.
    most_cores: Option<u64>,
}

impl Memory {
    pub(super) fn of_the_defaults(facts: &Facts) -> Self {
        const SQE: u64 = 64;
        const CQE: u64 = 16;
        const PAGE: u64 = 4096;
        let Sizes { submissions, completions, .. } = Sizes::default();
        let buffers = |count: u16| u64::from(count) * pool::SIZE as u64;
        let requests = u64::from(submissions.next_power_of_two()) * SQE;
        let answers = u64::from(completions.next_power_of_two()) * CQE;
        // Whole pages: the requests, the answers behind a head of their own, the ring of buffers.
        let ring_of_buffers = u64::from(pool::MOST) * size_of::<BufRingEntry>() as u64;
        let pages = requests.div_ceil(PAGE) + (answers + 1).div_ceil(PAGE) + ring_of_buffers / PAGE;
        Memory {
            requests,
            answers,
            most_cores: facts.locked_memory_for_rings().map(|bytes| bytes / (pages * PAGE)),
            buffers: buffers(pool::PUBLISHED_AT_FIRST),
            most_buffers: buffers(pool::MOST),
        }
    }

    pub(super) fn json(&self) -> Json {
        Json::Object(vec![
            ("submission_queue_bytes", Json::Count(self.requests)),
            ("completion_queue_bytes", Json::Count(self.answers)),
            ("buffer_bytes", Json::Count(self.buffers)),
            ("most_buffer_bytes", Json::Count(self.most_buffers)),
            ("most_cores_of_this_user", Json::maybe(self.most_cores, Json::Count)),
        ])
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Memory { requests, answers, buffers, most_buffers, most_cores } = self;
        writeln!(f, "memory of one core, in bytes")?;
        writeln!(f, "  {:<24} {requests}", "submission queue")?;
        writeln!(f, "  {:<24} {answers}", "completion queue")?;
        let room = format!("{buffers} at first, {most_buffers} at most; only what is used is real");
        writeln!(f, "  {:<24} {room}", "provided buffers")?;
        match most_cores {
            Some(cores) => {
                let why = "rings are locked memory here; more get smaller rings, or none";
                writeln!(f, "  {:<24} {cores} of this user; {why}", "room for cores")
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fake_root::FakeRoot;

    #[test]
    fn neighbours_are_written_as_ranges() {
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
        assert_eq!(ranges(&[]), "");
    }

    #[test]
    fn what_has_no_limit_is_null() {
        let infinite = Limit { soft: 64, hard: libc::RLIM_INFINITY };
        let limits = Limits { descriptors: Some(infinite), locked_memory: None, processes: None };
        let json = r#"{"nofile":{"soft":64,"hard":null},"memlock":null,"nproc":null}"#;
        assert_eq!(limits.json().to_string(), json);
        assert!(limits.to_string().contains("64 (hard unlimited)"));
    }

    #[test]
    fn what_cannot_be_read_is_unknown() {
        let ports = Ports::read(&FakeRoot::new());
        let json = r#"{"somaxconn":null,"ip_unprivileged_port_start":null}"#;
        assert_eq!(ports.json().to_string(), json);
        assert_eq!(ports.to_string().matches("unknown").count(), 2);
    }

    #[test]
    fn the_memory_is_that_of_the_default_sizes() {
        let locked_memory = Some(Limit { soft: 8 << 20, hard: 8 << 20 });
        let release = |release: &str| Some(release.to_owned());
        let facts = Facts { locked_memory, release: release("6.1.0"), ..Facts::default() };
        let memory = Memory::of_the_defaults(&facts);
        assert!(memory.most_cores.is_none() && !memory.to_string().contains("room for cores"));
        assert_eq!((memory.requests, memory.answers), (512 * 64, 8192 * 16));
        assert_eq!((memory.buffers, memory.most_buffers), (1 << 20, 16 << 20));
        // 8, 33 and 16 pages: 228 KiB of 8 MiB.
        let facts = Facts { release: release("6.18.0"), ..facts };
        assert_eq!(Memory::of_the_defaults(&facts).most_cores, Some(35));
        let root = Facts { may_lock: true, ..facts };
        assert_eq!(Memory::of_the_defaults(&root).most_cores, None);
    }
}
