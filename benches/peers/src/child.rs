//! A server as a child process: started, watched and ended by the load generator.

use std::fs::{self, File};
use std::io::{self, Read};
use std::mem;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::server::check;

const READY_WITHIN: Duration = Duration::from_secs(5);
const IDLE_WITHIN: Duration = Duration::from_secs(2);

/// A running server, killed when dropped.
pub struct Server {
    child: Child,
    /// What it says on standard error.
    complaints: File,
    pub address: SocketAddr,
}

impl Server {
    /// Starts the command, a program and its arguments, with `more` arguments and pinned to `cpu`,
    /// and waits until it listens.
    pub fn start(command: &[String], more: &[String], cpu: usize) -> io::Result<Server> {
        let port = free_port()?;
        let (program, arguments) = command.split_first().expect("an empty command");
        let mut command = Command::new(program);
        command.args(arguments).args(["--port", &port.to_string()]).args(more);
        let complaints = memory_file()?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(complaints.try_clone()?);
        // SAFETY: both calls are plain system calls, allowed between fork and exec.
        unsafe {
            command.pre_exec(move || {
                pin(cpu)?;
                die_with_parent()
            });
        }
        let child = command
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?;
        let address = (Ipv4Addr::LOCALHOST, port).into();
        let mut server = Server { child, complaints, address };
        server.wait_until_ready().map_err(|error| server.explain(&error))?;
        Ok(server)
    }

    /// The error, with the last line of what the server itself has said.
    pub fn explain(&self, error: &io::Error) -> io::Error {
        let mut end = [0; 1024];
        let length = self.complaints.metadata().map_or(0, |metadata| metadata.len());
        let start = length.saturating_sub(end.len() as u64);
        let count = self.complaints.read_at(&mut end, start).unwrap_or(0);
        let said = String::from_utf8_lossy(&end[..count]);
        match said.trim_end().lines().next_back() {
            Some(last) => io::Error::new(error.kind(), format!("{error} ({last})")),
            None => io::Error::new(error.kind(), error.to_string()),
        }
    }

    fn wait_until_ready(&mut self) -> io::Result<()> {
        let stdout = self.child.stdout.as_mut().expect("stdout is a pipe");
        let deadline = Instant::now() + READY_WITHIN;
        let mut said = Vec::new();
        while !said.ends_with(b"ready\n") {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut poll =
                libc::pollfd { fd: stdout.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one pollfd, which outlives the call.
            if check(unsafe { libc::poll(&mut poll, 1, left.as_millis() as i32) })? == 0 {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "never said that it is ready"));
            }
            let mut bytes = [0; 64];
            let count = stdout.read(&mut bytes)?;
            if count == 0 {
                return Err(io::Error::other("ended before it was ready"));
            }
            said.extend_from_slice(&bytes[..count]);
        }
        Ok(())
    }

    /// The ids of the server's threads, those of io_uring's workers included.
    pub fn threads(&self) -> io::Result<Vec<u32>> {
        let mut threads = Vec::new();
        for entry in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            threads.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
        }
        Ok(threads)
    }

    /// The memory of the process that is in use, in bytes.
    pub fn resident_bytes(&self) -> io::Result<u64> {
        resident_bytes(self.child.id())
    }

    /// The times of all threads together, read when none of them runs: the kernel brings those
    /// of a running thread up to date only at ticks.
    pub fn times_when_idle(&self) -> io::Result<Times> {
        let deadline = Instant::now() + IDLE_WITHIN;
        loop {
            let mut total = Times::default();
            let mut idle = true;
            for thread in self.threads()? {
                let directory = format!("/proc/{}/task/{thread}", self.child.id());
                match state(&fs::read_to_string(format!("{directory}/stat"))?) {
                    'S' | 'D' | 'I' => {}
                    'Z' | 'X' => return Err(io::Error::other("the server has ended")),
                    _ => idle = false,
                }
                let times = Times::parse(&fs::read_to_string(format!("{directory}/schedstat"))?)?;
                total.running_ns += times.running_ns;
                total.waiting_ns += times.waiting_ns;
            }
            if idle {
                return Ok(total);
            }
            if Instant::now() > deadline {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the server never goes idle"));
            }
            thread::sleep(Duration::from_micros(50));
        }
    }
}

/// What the scheduler knows of a server since its start.
#[derive(Clone, Copy, Default)]
pub struct Times {
    pub running_ns: u64,
    /// Ready to run, while something else ran.
    pub waiting_ns: u64,
}

impl Times {
    /// The first two numbers of /proc/PID/schedstat.
    fn parse(schedstat: &str) -> io::Result<Times> {
        let mut numbers = schedstat.split_whitespace().map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(running_ns)), Some(Ok(waiting_ns))) => Ok(Times { running_ns, waiting_ns }),
            _ => Err(io::Error::other("this kernel has no schedstat")),
        }
    }
}

impl Server {
    /// Tells it to end, without waiting for that. One that spins keeps the others of its CPU from
    /// ending, so all are told before the first is waited for.
    pub fn kill(&mut self) {
        // Fails only for a child that has already ended.
        self.child.kill().ok();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        // As above.
        self.child.wait().ok();
    }
}

/// Pins the calling thread to one CPU.
pub fn pin(cpu: usize) -> io::Result<()> {
    // SAFETY: an all-zero cpu_set_t is the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the set is a local, and CPU_SET checks the index.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the set has the size given and outlives the call.
    check(unsafe { libc::sched_setaffinity(0, mem::size_of_val(&set), &set) })?;
    Ok(())
}

/// Gives the calling thread, and the servers that it starts, precedence over all ordinary work on
/// the machine.
pub fn become_realtime() -> io::Result<()> {
    let lowest = libc::sched_param { sched_priority: 1 };
    // SAFETY: the parameter outlives the call.
    check(unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &lowest) })?;
    Ok(())
}

/// So that no server survives a load generator that was killed.
fn die_with_parent() -> io::Result<()> {
    // SAFETY: the call takes no pointers.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
    Ok(())
}

/// A file that is in no directory.
fn memory_file() -> io::Result<File> {
    // SAFETY: the name is a string of C and outlives the call.
    let fd = check(unsafe { libc::memfd_create(c"stderr".as_ptr(), libc::MFD_CLOEXEC) })?;
    // SAFETY: the descriptor was opened above and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) }.into())
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// The state of a thread in /proc/PID/stat. It follows the name, which is in parentheses and may
/// itself contain some.
fn state(stat: &str) -> char {
    stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).unwrap_or('?')
}

/// Bytes of resident memory of the process that `/proc` calls `name`.
pub fn resident_bytes(name: impl std::fmt::Display) -> io::Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{name}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    Ok(kib.ok_or_else(|| io::Error::other("smaps_rollup has no Rss"))? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_a_thread_is_found_behind_any_name() {
        assert_eq!(state("12 (a) R (b) S 1 12"), 'S');
        assert_eq!(state("12 (a) S (b) R 1 12"), 'R');
    }
}
