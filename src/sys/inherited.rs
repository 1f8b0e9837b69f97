//! Listening sockets that a process is born with, and those that it leaves to its successor.
//!
//! The protocol is systemd's, sd_listen_fds(3): descriptors from 3 on, `LISTEN_FDS` says how many,
//! `LISTEN_FDNAMES` their names with colons between, and `LISTEN_PID` whom they are for.

use std::collections::BTreeMap;
use std::ffi::{CString, OsString, c_char};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::ptr;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::signals;

/// The first of the descriptors.
const START: RawFd = 3;
/// More than anybody leaves; a number beyond it is a slip.
const MOST: usize = 1 << 16;

const PID: &str = "LISTEN_PID";
const COUNT: &str = "LISTEN_FDS";
const NAMES: &str = "LISTEN_FDNAMES";

/// One of the descriptors, until somebody takes it.
pub(crate) struct Inherited {
    pub(crate) name: String,
    pub(crate) fd: Option<OwnedFd>,
}

/// All that this process was born with, in the order in which they were given.
///
/// # Errors
/// `InvalidData` when the environment names a descriptor that is not open.
pub(crate) fn all() -> io::Result<MutexGuard<'static, Vec<Inherited>>> {
    static ALL: OnceLock<Result<Mutex<Vec<Inherited>>, String>> = OnceLock::new();
    let all = ALL.get_or_init(|| read().map(Mutex::new));
    match all {
        Ok(all) => Ok(all.lock().unwrap_or_else(PoisonError::into_inner)),
        Err(text) => Err(io::Error::new(io::ErrorKind::InvalidData, text.as_str())),
    }
}

fn read() -> Result<Vec<Inherited>, String> {
    let variable = |name| std::env::var(name).unwrap_or_default();
    if variable(PID).parse() != Ok(std::process::id()) {
        // They are for another process, whose environment this one has inherited.
        return Ok(Vec::new());
    }
    let names = names(&variable(COUNT), &variable(NAMES))?;
    let mut all = Vec::with_capacity(names.len());
    for (fd, name) in (START..).zip(names) {
        // SAFETY: the call takes no pointers.
        if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
            return Err(format!("{COUNT} promises descriptor {fd}, which is not open"));
        }
        // SAFETY: the protocol gives the number to this process, and this runs once.
        all.push(Inherited { name, fd: Some(unsafe { OwnedFd::from_raw_fd(fd) }) });
    }
    Ok(all)
}

/// The name of each descriptor; those that have none are `unknown`, as for systemd.
fn names(count: &str, names: &str) -> Result<Vec<String>, String> {
    let count: usize = count
        .parse()
        .ok()
        .filter(|&count| count <= MOST)
        .ok_or_else(|| format!("{COUNT} is {count:?}, and not a number of descriptors"))?;
    let given = names.split(':').filter(|_| !names.is_empty()).map(str::to_owned);
    let mut names: Vec<String> = given.collect();
    if names.len() > count {
        return Err(format!("{NAMES} has {} names for {count} descriptors", names.len()));
    }
    names.resize(count, "unknown".into());
    Ok(names)
}

/// Has calls on the file wait (no `O_NONBLOCK`), for all who have it open.
///
/// # Errors
/// Those of `fcntl(2)`.
pub(crate) fn make_blocking(fd: RawFd) -> io::Result<()> {
    // SAFETY: the call takes no pointers.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    // SAFETY: as above.
    if flags < 0 || unsafe { libc::fcntl(fd, libc::F_SETFL, flags & !libc::O_NONBLOCK) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Whether a descriptor may be called so: what systemd allows.
pub(crate) fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii() && !c.is_ascii_control() && c != ':';
    (1..=255).contains(&name.len()) && name.chars().all(fits)
}

/// Starts `command` with the descriptors, by the protocol.
///
/// The child's environment is this process's with the changes of `command`. It lets through what
/// only this process's cores block.
///
/// # Errors
/// Those of [`Command::spawn`]; `InvalidInput` for a zero byte in an argument.
pub(crate) fn spawn(mut command: Command, listeners: &[(String, OwnedFd)]) -> io::Result<Child> {
    let count = RawFd::try_from(listeners.len()).map_err(io::Error::other)?;
    let first_free = START + count;
    // Above those that the child is to have, so that none is overwritten before it is copied. The
    // numbers below are occupied until the child is there: so the pipe by which the standard library
    // hears of a failed exec gets none of them.
    let (mut occupied, mut sources) = (Vec::new(), Vec::new());
    for (_, fd) in listeners {
        loop {
            let copy = duplicate(fd, START)?;
            let is_high = copy.as_raw_fd() >= first_free;
            if is_high {
                sources.push(copy);
                break;
            }
            occupied.push(copy);
        }
    }
    let names: Vec<&str> = listeners.iter().map(|(name, _)| name.as_str()).collect();
    let mut image = Image::of(&command, count, &names.join(":"))?;
    let numbers: Vec<RawFd> = sources.iter().map(AsRawFd::as_raw_fd).collect();
    let blocked = signals::Inherited::of_this_thread();
    let start = move || {
        if let Some(blocked) = &blocked {
            blocked.unblock_here()?;
        }
        for (&from, to) in numbers.iter().zip(START..) {
            // SAFETY: the call takes no pointers; the copy stays open in what is executed.
            if unsafe { libc::dup2(from, to) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Err(image.execute())
    };
    // SAFETY: between fork and exec it makes system calls and writes to memory that it owns; it takes
    // no lock and allocates nothing.
    unsafe { command.pre_exec(start) };
    let child = command.spawn();
    drop((occupied, sources));
    child
}

fn duplicate(fd: &OwnedFd, at_least: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the call takes no pointers.
    let copy = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, at_least) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above has just opened the number, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Digits of a process's number, and the zero byte that ends them.
const DIGITS: usize = 11;

/// What `execve` is given. It is made before the fork, because the child must not allocate; only the
/// child's own number is written there.
struct Image {
    arguments: Vec<CString>,
    environment: Vec<CString>,
    /// `LISTEN_PID=`, and room.
    pid: Vec<u8>,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
}

// SAFETY: the pointers lead into the vectors beside them, which nobody changes, and are used by one
// thread: the child's.
unsafe impl Send for Image {}
// SAFETY: as above; through a shared reference there is nothing to do.
unsafe impl Sync for Image {}

impl Image {
    fn of(command: &Command, count: RawFd, names: &str) -> io::Result<Self> {
        let mut variables: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => variables.insert(name.to_owned(), value.to_owned()),
                None => variables.remove(name),
            };
        }
        variables.insert(COUNT.into(), count.to_string().into());
        variables.insert(NAMES.into(), names.into());
        variables.remove(std::ffi::OsStr::new(PID));
        let mut environment = Vec::new();
        for (name, value) in variables {
            let line = [name.into_vec(), value.into_vec()].join(&b'=');
            environment.push(CString::new(line)?);
        }
        let mut arguments = vec![CString::new(command.get_program().as_bytes())?];
        for argument in command.get_args() {
            arguments.push(CString::new(argument.as_bytes())?);
        }
        let mut pid = format!("{PID}=").into_bytes();
        pid.resize(pid.len() + DIGITS, 0);
        let pointers = |texts: &[CString]| texts.iter().map(|text| text.as_ptr()).collect();
        let mut argv: Vec<_> = pointers(&arguments);
        argv.push(ptr::null());
        let mut envp: Vec<_> = pointers(&environment);
        envp.extend([pid.as_ptr().cast(), ptr::null()]);
        Ok(Image { arguments, environment, pid, argv, envp })
    }

    /// Becomes the program; returns only if that is refused.
    fn execute(&mut self) -> io::Error {
        let mut left = std::process::id();
        let mut digits = [0; DIGITS - 1];
        let mut from = digits.len();
        while left > 0 {
            from -= 1;
            digits[from] = b'0' + (left % 10) as u8;
            left /= 10;
        }
        let digits = &digits[from..];
        let at = self.pid.len() - DIGITS;
        self.pid[at..at + digits.len()].copy_from_slice(digits);
        debug_assert!(self.environment.len() + 2 == self.envp.len());
        let program = self.arguments[0].as_ptr();
        // SAFETY: both arrays end with a null pointer, and their texts are there and end with zeros.
        unsafe { libc::execvpe(program, self.argv.as_ptr(), self.envp.as_ptr()) };
        io::Error::last_os_error()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_descriptor_has_a_name() {
        assert_eq!(names("2", "http:admin").unwrap(), ["http", "admin"]);
        assert_eq!(names("2", "http").unwrap(), ["http", "unknown"]);
        assert_eq!(names("1", "").unwrap(), ["unknown"]);
        assert!(names("0", "").unwrap().is_empty());
        for (count, text) in [("", ""), ("-1", ""), ("x", ""), ("99999999", ""), ("1", "a:b")] {
            assert!(names(count, text).is_err(), "{count:?} {text:?}");
        }
    }

    #[test]
    fn what_systemd_would_not_take_is_no_name() {
        assert!(is_name("http") && is_name("a b.socket"));
        for name in ["", "a:b", "a\0", "a\n", "ä", &"a".repeat(256)] {
            assert!(!is_name(name), "{name:?}");
        }
    }

    #[test]
    fn a_process_that_was_given_nothing_has_nothing() {
        assert!(all().unwrap().is_empty());
    }
}
