//! Why the machine refused to bind a Unix socket: what was found, and what mends it.

use std::io;
use std::path::Path;

use super::bind_error::explained;
use crate::sys::unix_addr::UnixAddress;
use crate::sys::unix_file::{self, Found};

/// Says why the address could not be bound. The kind of the error stays; what the system answered
/// is its source.
pub(crate) fn explain(address: &UnixAddress, answer: io::Error) -> io::Error {
    explain_below(Path::new("/"), address, answer)
}

fn explain_below(root: &Path, address: &UnixAddress, answer: io::Error) -> io::Error {
    let (name, cause) = match (answer.raw_os_error(), address.path()) {
        (Some(libc::EADDRINUSE), Some(path)) => ("EADDRINUSE", what_is_there(address, path, root)),
        (Some(libc::EADDRINUSE), None) => ("EADDRINUSE", who_is_there(address, root)),
        (Some(libc::ENOENT), Some(path)) => ("ENOENT", no_directory(path)),
        (Some(libc::EACCES), Some(path)) => ("EACCES", no_access(path)),
        _ => return answer,
    };
    explained(format!("bind {} gave {name}: {cause}", shown(address)), answer)
}

fn shown(address: &UnixAddress) -> String {
    match (address.path(), address.name()) {
        (Some(path), _) => path.display().to_string(),
        (None, [0, name @ ..]) => format!("@{}", name.escape_ascii()),
        (None, _) => "a name of the kernel's choice".into(),
    }
}

fn what_is_there(address: &UnixAddress, path: &Path, root: &Path) -> String {
    match unix_file::look(path) {
        Ok(Found::Stale(_)) => {
            "nobody listens there: the file was left behind by a socket that is no more; remove it, \
             or bind with `UnixListener::options().replace_stale(true)`"
                .into()
        }
        Ok(Found::NoSocket) => "a file is there that is no socket; choose another path".into(),
        Ok(Found::Nothing) => "it was removed in the meantime; try again".into(),
        Ok(Found::Bound) | Err(_) => who_is_there(address, root),
    }
}

fn who_is_there(address: &UnixAddress, root: &Path) -> String {
    match unix_file::owner(address.name(), root) {
        Some(process) if process.is_this => "this process itself has it bound".into(),
        Some(process) => {
            let (id, name) = (process.id, process.name);
            format!("process {id} ({name}) has it bound; stop it, or choose another address")
        }
        None => "somebody has it bound (`sudo ss -xap` shows who); stop them, or choose another \
                 address"
            .into(),
    }
}

fn no_directory(path: &Path) -> String {
    let directory = path.parent().unwrap_or(Path::new("/"));
    format!("the directory {} does not exist; make it first", directory.display())
}

fn no_access(path: &Path) -> String {
    let directory = path.parent().unwrap_or(Path::new("/"));
    format!("this user may not make files in {}; choose another directory", directory.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fake_root::FakeRoot;
    use std::fs;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};

    fn text(root: &FakeRoot, address: &SocketAddr, errno: i32) -> String {
        let answer = io::Error::from_raw_os_error(errno);
        let kind = answer.kind();
        let error = explain_below(root, &address.into(), answer);
        assert_eq!(error.kind(), kind);
        error.to_string()
    }

    #[test]
    fn a_stale_file_is_told_from_a_socket_and_from_what_is_none() {
        let root = FakeRoot::new().with("text", "").with_link("proc/self", "10");
        let path = root.join("socket");
        let in_use = |path: &Path| {
            let address = SocketAddr::from_pathname(path).unwrap();
            let text = text(&root, &address, libc::EADDRINUSE);
            text.strip_prefix(&format!("bind {} gave EADDRINUSE: ", path.display()))
                .unwrap()
                .to_owned()
        };
        let listener = UnixListener::bind(&path).unwrap();
        assert!(in_use(&path).starts_with("somebody has it bound"), "{}", in_use(&path));
        let line = format!("0: 2 0 00010000 0001 01 7 {}\n", path.display());
        fs::create_dir_all(root.join("proc/net")).unwrap();
        fs::write(root.join("proc/net/unix"), line).unwrap();
        fs::create_dir_all(root.join("proc/10/fd")).unwrap();
        std::os::unix::fs::symlink("socket:[7]", root.join("proc/10/fd/3")).unwrap();
        assert_eq!(in_use(&path), "this process itself has it bound");
        drop(listener);
        assert!(in_use(&path).contains("replace_stale(true)"), "{}", in_use(&path));
        assert!(in_use(&root.join("text")).starts_with("a file is there that is no socket"));
    }

    #[test]
    fn the_process_that_has_an_abstract_name_is_named() {
        let root = FakeRoot::new()
            .with_link("proc/self", "10")
            .with("proc/20/comm", "server\n")
            .with_link("proc/20/fd/3", "socket:[7]")
            .with("proc/net/unix", "0: 2 0 00010000 0001 01 7 @name\n");
        let address = SocketAddr::from_abstract_name("name").unwrap();
        assert_eq!(
            text(&root, &address, libc::EADDRINUSE),
            "bind @name gave EADDRINUSE: process 20 (server) has it bound; stop it, or choose another \
             address"
        );
    }

    #[test]
    fn a_directory_that_is_missing_is_named() {
        let address = SocketAddr::from_pathname("/run/none/socket").unwrap();
        assert_eq!(
            text(&FakeRoot::new(), &address, libc::ENOENT),
            "bind /run/none/socket gave ENOENT: the directory /run/none does not exist; make it first"
        );
        assert!(text(&FakeRoot::new(), &address, libc::EACCES).contains("files in /run/none"));
        let error = explain(&(&address).into(), io::Error::from_raw_os_error(libc::EROFS));
        assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    }
}
