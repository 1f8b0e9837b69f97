//! Listeners for the process that takes this one's place.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command};

use crate::sys::{cpus, inherited};
use crate::task::Scheduler;

/// Leaves listening sockets to another process, so that a restart refuses no connection: the kernel
/// keeps them open, with all that wait in their backlogs, for as long as one of the two has them.
///
/// The successor finds them by name, with
/// [`TcpListener::inherited`](super::TcpListener::inherited) or whatever speaks systemd's protocol
/// (sd_listen_fds: `LISTEN_FDS`, `LISTEN_FDNAMES`, `LISTEN_PID`). A restart then goes so:
///
/// 1. Start the successor with the listeners, those of **all** cores: what waits at a socket that
///    nobody has any more is lost.
/// 2. Wait until it says that it serves. If it does not, go on: nothing has changed.
/// 3. [`TcpListener::finish`](super::TcpListener::finish), serve what that gives, and end.
///
/// ```no_run
/// use quoit::net::{HandOver, TcpListener};
/// use std::io;
/// use std::process::Command;
///
/// async fn listeners() -> io::Result<Vec<TcpListener>> {
///     match TcpListener::inherited("http") {
///         Err(error) if error.kind() == io::ErrorKind::NotFound => {
///             Ok(vec![TcpListener::bind("0.0.0.0:8080").await?])
///         }
///         inherited => inherited,
///     }
/// }
///
/// async fn restart(listeners: Vec<TcpListener>) -> io::Result<()> {
///     let mut hand_over = HandOver::new();
///     for listener in &listeners {
///         hand_over.add("http", listener)?;
///     }
///     let successor = hand_over.spawn(Command::new(std::env::current_exe()?))?;
///     // Here the successor says that it is ready: by a line on a pipe, a request that it answers.
///     for listener in listeners {
///         for (stream, _peer) in listener.finish().await? {
///             // Serve them as all others.
///         }
///     }
///     Ok(())
/// }
/// ```
#[derive(Default)]
pub struct HandOver {
    listeners: Vec<(String, OwnedFd)>,
}

impl HandOver {
    /// Nothing to hand over yet. It is `Send`: each core adds its own.
    #[must_use]
    pub fn new() -> Self {
        HandOver::default()
    }

    /// Adds a listener, which this process keeps as well. Several may have one name.
    ///
    /// # Errors
    /// `InvalidInput` for a name that is empty, longer than 255 bytes, not ASCII, or has a colon or a
    /// control character; what `fcntl` answers.
    pub fn add(&mut self, name: &str, listener: &impl AsFd) -> io::Result<()> {
        if !inherited::is_name(name) {
            let text = format!(
                "{name:?} cannot be the name of a listener: write 1 to 255 ASCII characters without \
                 a colon"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let fd = listener.as_fd().try_clone_to_owned()?;
        self.listeners.push((name.to_owned(), fd));
        Ok(())
    }

    /// Starts the successor. Its environment is this process's own, with the changes of `command`
    /// (`env_clear` is not one of them); all else is as `command` says. It may run on all CPUs of this
    /// process, and gets the signals that only this process's cores block, whichever thread calls.
    ///
    /// It blocks for the moment that a fork takes. The child is std's, because no core need be there:
    /// on a core, leave its `wait` to [`spawn_blocking`](crate::spawn_blocking).
    ///
    /// # Errors
    /// Those of [`Command::spawn`].
    pub fn spawn(self, command: Command) -> io::Result<Child> {
        let cpus = Scheduler::cpus_of_process();
        cpus::while_on(cpus.as_ref(), || inherited::spawn(command, &self.listeners))
    }
}

impl fmt::Debug for HandOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.listeners.iter().map(|(name, _)| name)).finish()
    }
}
