//! A process that was started.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{self, ExitStatus, Output};
use std::time::Duration;

use crate::io::{FdReader, FdWriter, PollFd};
use crate::sys::children;
use crate::sys::fork::forked;
use crate::time::sleep;

/// What a child reads: this process writes it.
pub type ChildStdin = FdWriter;
/// What a child writes: this process reads it.
pub type ChildStdout = FdReader;
/// What a child complains: this process reads it.
pub type ChildStderr = FdReader;

/// A process that [`Command::spawn`](super::Command::spawn) has started.
///
/// Dropping it lets the process run, and sees to it that no zombie is left when it ends.
///
/// ```
/// use quoit::process::Command;
///
/// # quoit::runtime::run(async {
/// let mut child = Command::new("sleep").arg("1000").spawn()?;
/// assert!(child.try_wait()?.is_none());
/// child.kill().await?;
/// assert!(!child.wait().await?.success());
/// # std::io::Result::Ok(()) }).unwrap().unwrap();
/// ```
#[derive(Debug)]
pub struct Child {
    /// What it reads, if it was to be a pipe.
    pub stdin: Option<ChildStdin>,
    /// What it writes, if it was to be a pipe.
    pub stdout: Option<ChildStdout>,
    /// What it complains, if it was to be a pipe.
    pub stderr: Option<ChildStderr>,
    /// Taken by `drop`.
    process: Option<process::Child>,
    /// Readable when it has ended. The system may have none.
    pidfd: Option<PollFd<OwnedFd>>,
    status: Option<ExitStatus>,
    kill_on_drop: bool,
}

impl Child {
    pub(super) fn new(mut process: process::Child, kill_on_drop: bool) -> io::Result<Self> {
        let pidfd = children::pidfd(&process).and_then(PollFd::new).ok();
        let stdin = process.stdin.take();
        let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
        // From here on the process is waited for, whatever fails.
        let mut child = Child {
            stdin: None,
            stdout: None,
            stderr: None,
            process: Some(process),
            pidfd,
            status: None,
            kill_on_drop,
        };
        child.stdin = stdin.map(|pipe| FdWriter::from_owned(pipe.into())).transpose()?;
        child.stdout = stdout.map(|pipe| FdReader::from_owned(pipe.into())).transpose()?;
        child.stderr = stderr.map(|pipe| FdReader::from_owned(pipe.into())).transpose()?;
        Ok(child)
    }

    fn process(&mut self) -> &mut process::Child {
        self.process.as_mut().expect("only `drop` takes it")
    }

    /// Its number, which means nothing any more, and is `None`, once its end was seen.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        let process = self.process.as_ref().filter(|_| self.status.is_none());
        process.map(process::Child::id)
    }

    /// Waits for its end, and says how it ended; as often as it is asked.
    ///
    /// It closes [`stdin`](Self::stdin) first, if that is still here: a child that reads to the end
    /// would wait for this process, and this for it. Dropping the future loses nothing.
    ///
    /// `IORING_OP_POLL_ADD` of a pidfd, kernel 5.3.
    ///
    /// # Errors
    /// `ECHILD` if somebody else has waited for all children of the process, or it ignores `SIGCHLD`.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        const LONGEST: Duration = Duration::from_millis(100);
        drop(self.stdin.take());
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            match &self.pidfd {
                Some(pidfd) => drop(pidfd.readable().await?),
                None => {
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST);
                }
            }
        }
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.process().try_wait()?;
        }
        Ok(self.status)
    }

    /// Sends it `SIGKILL`. After its end this does nothing.
    ///
    /// # Errors
    /// What `kill` answers: it may belong to another user by now.
    pub fn start_kill(&mut self) -> io::Result<()> {
        // std knows whether it was reaped, and that its number may be another's by then.
        self.process().kill()
    }

    /// Kills it, and waits for its end.
    ///
    /// # Errors
    /// As [`start_kill`](Self::start_kill) and [`wait`](Self::wait).
    pub async fn kill(&mut self) -> io::Result<()> {
        self.start_kill()?;
        self.wait().await.map(drop)
    }

    /// Reads all that it says, and waits for its end.
    ///
    /// What it says ends when nobody has its end of the pipes any more: its own children may keep them
    /// for longer. Dropping the future is dropping the child.
    ///
    /// # Errors
    /// As [`wait`](Self::wait); what reading its pipes answers.
    pub async fn wait_with_output(mut self) -> io::Result<Output> {
        let (stdout, stderr) = (self.stdout.take(), self.stderr.take());
        let (status, stdout, stderr) =
            crate::try_join!(self.wait(), all_of(stdout), all_of(stderr))?;
        Ok(Output { status, stdout, stderr })
    }
}

async fn all_of(pipe: Option<FdReader>) -> io::Result<Vec<u8>> {
    match pipe {
        Some(pipe) => Ok(pipe.read_to_end(Vec::new()).await?),
        None => Ok(Vec::new()),
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take()
            && self.status.is_none()
        {
            // In a forked child it is the parent's.
            if self.kill_on_drop && !forked() {
                // It fails only if it has ended.
                let _ = process.kill();
            }
            children::reap(process);
        }
    }
}
