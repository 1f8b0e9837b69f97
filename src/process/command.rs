//! How a child process is started.

use std::ffi::OsStr;
use std::future::Future;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, ExitStatus, Output, Stdio};

use super::child::Child;
use crate::op::{self, Ring};
use crate::sys::cpus;
use crate::sys::fork::{Forked, forked};
use crate::sys::signals::Inherited;
use crate::task::Scheduler;

/// A program that is to be started, with its arguments, environment and standard streams.
///
/// It is std's builder, with the same methods: what has none here is reached by
/// [`as_std_mut`](Self::as_std_mut). Without a word about them the standard streams are those of this
/// process; for [`output`](Self::output) they are pipes, and nothing to read.
///
/// ```
/// use quoit::process::{Command, Stdio};
///
/// # quoit::runtime::run(async {
/// let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
/// let stdin = child.stdin.take().unwrap();
/// stdin.write_all("meow").await?;
/// drop(stdin); // the end of its input
/// let output = child.wait_with_output().await?;
/// assert_eq!(output.stdout, b"meow");
/// # std::io::Result::Ok(()) }).unwrap().unwrap();
/// ```
#[derive(Debug)]
pub struct Command {
    std: process::Command,
    /// Of which of the standard streams somebody has said what they are.
    chosen: [bool; 3],
    kill_on_drop: bool,
    /// Whether the child lets through what is blocked only for this process's cores.
    unblocks: bool,
}

impl Command {
    /// A program by its path, or by its name, which is looked for in `PATH`.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Command::from(process::Command::new(program))
    }

    /// One more argument.
    pub fn arg(&mut self, arg: impl AsRef<OsStr>) -> &mut Self {
        self.std.arg(arg);
        self
    }

    /// Several more arguments.
    pub fn args(&mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> &mut Self {
        self.std.args(args);
        self
    }

    /// What the program is told to be called: its argument 0.
    pub fn arg0(&mut self, arg: impl AsRef<OsStr>) -> &mut Self {
        self.std.arg0(arg);
        self
    }

    /// A variable of its environment, which is otherwise this process's.
    pub fn env(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Self {
        self.std.env(name, value);
        self
    }

    /// Several variables.
    pub fn envs<N: AsRef<OsStr>, V: AsRef<OsStr>>(
        &mut self,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> &mut Self {
        self.std.envs(variables);
        self
    }

    /// Takes a variable out of its environment.
    pub fn env_remove(&mut self, name: impl AsRef<OsStr>) -> &mut Self {
        self.std.env_remove(name);
        self
    }

    /// Takes all variables out.
    pub fn env_clear(&mut self) -> &mut Self {
        self.std.env_clear();
        self
    }

    /// The directory that it begins in.
    pub fn current_dir(&mut self, directory: impl AsRef<Path>) -> &mut Self {
        self.std.current_dir(directory);
        self
    }

    /// What it reads.
    pub fn stdin(&mut self, stdio: impl Into<Stdio>) -> &mut Self {
        self.std.stdin(stdio);
        self.chosen[0] = true;
        self
    }

    /// Where it writes.
    pub fn stdout(&mut self, stdio: impl Into<Stdio>) -> &mut Self {
        self.std.stdout(stdio);
        self.chosen[1] = true;
        self
    }

    /// Where it complains.
    pub fn stderr(&mut self, stdio: impl Into<Stdio>) -> &mut Self {
        self.std.stderr(stdio);
        self.chosen[2] = true;
        self
    }

    /// Whether dropping the [`Child`] kills it (no). With the [`JoinHandle`](crate::task::JoinHandle)
    /// of a task that is aborted, or with the runtime, its child then ends too.
    pub fn kill_on_drop(&mut self, kill: bool) -> &mut Self {
        self.kill_on_drop = kill;
        self
    }

    /// The user that it becomes, which only root may choose.
    pub fn uid(&mut self, id: u32) -> &mut Self {
        self.std.uid(id);
        self
    }

    /// The group that it becomes, which only root may choose.
    pub fn gid(&mut self, id: u32) -> &mut Self {
        self.std.gid(id);
        self
    }

    /// The group of processes that it joins; 0 is a new one of its own, so that a signal from the
    /// terminal does not reach it.
    pub fn process_group(&mut self, group: i32) -> &mut Self {
        self.std.process_group(group);
        self
    }

    /// Calls `f` in the child before the program begins.
    ///
    /// # Safety
    /// As of std's `pre_exec`: `f` runs in a copy of this process that has one thread, where locks may
    /// be held for ever. It must not allocate, nor use anything of this crate.
    pub unsafe fn pre_exec(
        &mut self,
        f: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
    ) -> &mut Self {
        // SAFETY: the caller's promise is the one that std asks for.
        unsafe { self.std.pre_exec(f) };
        self
    }

    /// The builder of std behind it.
    pub fn as_std(&self) -> &process::Command {
        &self.std
    }

    /// The builder of std behind it, to be changed.
    pub fn as_std_mut(&mut self) -> &mut process::Command {
        &mut self.std
    }

    /// Starts the program.
    ///
    /// The core stands still until the new process has begun with it, some hundred microseconds: it
    /// shares this process's memory until then. With [`uid`](Self::uid), [`gid`](Self::gid) or
    /// [`pre_exec`](Self::pre_exec) it is a fork, which takes longer the more memory this process has;
    /// so it is on the cores of [`start_per_core`](crate::runtime::start_per_core) unless
    /// [`shutdown_on`](crate::runtime::Builder::shutdown_on) has no signals, because the child must
    /// not block those. A slow file system holds the core up, too.
    ///
    /// # Errors
    /// `NotFound` if there is no such program; `InvalidInput` for a zero byte in the name, an argument
    /// or a variable; `PermissionDenied`; when there is no descriptor or process left; `Unsupported`
    /// in the [simulator](crate::sim); [`Forked`](crate::Forked) in a forked child.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn spawn(&mut self) -> io::Result<Child> {
        if forked() {
            return Err(Forked.into());
        }
        if op::with("Command::spawn", Ring::is_simulated) {
            let text = "a simulated process starts no other";
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        self.unblock_signals();
        // A child inherits the CPUs of the thread that makes it.
        let cpus = Scheduler::cpus_of_process();
        let child = cpus::while_on(cpus.as_ref(), || self.std.spawn());
        Child::new(child?, self.kill_on_drop)
    }

    /// A child inherits what the thread blocks that makes it, and cores block what stops them.
    fn unblock_signals(&mut self) {
        if self.unblocks {
            return;
        }
        if let Some(blocked) = Inherited::of_this_thread() {
            // SAFETY: the function makes one system call, and allocates nothing.
            unsafe { self.std.pre_exec(move || blocked.unblock_here()) };
            self.unblocks = true;
        }
    }

    /// Starts the program now, and waits for its end. Otherwise as [`spawn`](Self::spawn); dropping
    /// the future is dropping the [`Child`].
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn), and [`Child::wait`].
    ///
    /// # Panics
    /// As [`spawn`](Self::spawn).
    ///
    /// ```
    /// # quoit::runtime::run(async {
    /// let status = quoit::process::Command::new("false").status().await?;
    /// assert_eq!(status.code(), Some(1));
    /// # std::io::Result::Ok(()) }).unwrap().unwrap();
    /// ```
    pub fn status(&mut self) -> impl Future<Output = io::Result<ExitStatus>> + use<> {
        let child = self.spawn();
        async move {
            let mut child = child?;
            // Nobody reads what it writes into pipes that were asked for.
            drop((child.stdout.take(), child.stderr.take()));
            child.wait().await
        }
    }

    /// Starts the program now, waits for its end, and gives what it has said meanwhile. It has nothing
    /// to read, unless [`stdin`](Self::stdin) says otherwise. Nothing bounds the memory that its words
    /// take.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn), and [`Child::wait_with_output`].
    ///
    /// # Panics
    /// As [`spawn`](Self::spawn).
    ///
    /// ```
    /// # quoit::runtime::run(async {
    /// let output = quoit::process::Command::new("ls").arg("/nowhere").output().await?;
    /// assert!(!output.status.success() && !output.stderr.is_empty());
    /// # std::io::Result::Ok(()) }).unwrap().unwrap();
    /// ```
    pub fn output(&mut self) -> impl Future<Output = io::Result<Output>> + use<> {
        let [stdin, stdout, stderr] = self.chosen;
        if !stdin {
            self.std.stdin(Stdio::null());
        }
        if !stdout {
            self.std.stdout(Stdio::piped());
        }
        if !stderr {
            self.std.stderr(Stdio::piped());
        }
        let child = self.spawn();
        // The next start is to find them as they were.
        if !stdin {
            self.std.stdin(Stdio::inherit());
        }
        if !stdout {
            self.std.stdout(Stdio::inherit());
        }
        if !stderr {
            self.std.stderr(Stdio::inherit());
        }
        async move { child?.wait_with_output().await }
    }
}

impl From<process::Command> for Command {
    /// Takes over a builder of std. [`output`](Command::output) does not know which of the standard
    /// streams it has chosen, and chooses them; afterwards they are this process's.
    fn from(std: process::Command) -> Self {
        Command { std, chosen: [false; 3], kill_on_drop: false, unblocks: false }
    }
}
