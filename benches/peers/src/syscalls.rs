//! Counts the system calls of a process by the kernel's tracepoint.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{FromRawFd, OwnedFd};

use crate::child::Server;

const EVENT_ID_FILES: [&str; 2] = [
    "/sys/kernel/tracing/events/raw_syscalls/sys_enter/id",
    "/sys/kernel/debug/tracing/events/raw_syscalls/sys_enter/id",
];
const PERF_TYPE_TRACEPOINT: u64 = 2;
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;

/// One open counter per thread of a server; the calls of threads started later are not seen.
pub struct SyscallCounter {
    threads: Vec<File>,
}

impl SyscallCounter {
    /// Fails where the tracepoint is missing or not permitted.
    pub fn attach(server: &Server) -> io::Result<SyscallCounter> {
        let id = event_id()?;
        let threads = server.threads()?;
        let threads =
            threads.into_iter().map(|thread| open(id, thread)).collect::<Result<_, _>>()?;
        Ok(SyscallCounter { threads })
    }

    /// System calls since the counter was attached.
    pub fn read(&mut self) -> io::Result<u64> {
        let mut total = 0;
        for thread in &mut self.threads {
            let mut count = [0; 8];
            thread.read_exact(&mut count)?;
            total += u64::from_ne_bytes(count);
        }
        Ok(total)
    }
}

fn event_id() -> io::Result<u64> {
    let text = EVENT_ID_FILES
        .iter()
        .find_map(|path| fs::read_to_string(path).ok())
        .ok_or(io::ErrorKind::NotFound)?;
    text.trim().parse().map_err(io::Error::other)
}

fn open(event_id: u64, thread: u32) -> io::Result<File> {
    // The first version of perf_event_attr: type and size, config, and options that stay zero.
    let mut attributes = [0u64; 8];
    attributes[0] = PERF_TYPE_TRACEPOINT | (size_of_val(&attributes) as u64) << 32;
    attributes[1] = event_id;
    let (any_cpu, no_group) = (-1, -1);
    // SAFETY: the attributes have the size that they state and outlive the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            attributes.as_ptr(),
            thread as libc::pid_t,
            any_cpu,
            no_group,
            PERF_FLAG_FD_CLOEXEC,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was opened above and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) }.into())
}
