//! Why the machine refused to bind an address: what was found, and what mends it.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use crate::sys::listeners::{self, Kind};

/// What the system answered, with the cause that was found.
#[derive(Debug)]
struct BindError {
    text: String,
    answer: io::Error,
}

/// Says why `call` ("bind" or "listen") failed for `address`. The kind of the error stays; what the
/// system answered is its source.
///
/// It reads for some milliseconds at most, and only where that can tell anything.
pub(crate) fn explain(call: &str, kind: Kind, address: SocketAddr, answer: io::Error) -> io::Error {
    explain_below(Path::new("/"), call, kind, address, answer)
}

fn explain_below(
    root: &Path,
    call: &str,
    kind: Kind,
    address: SocketAddr,
    answer: io::Error,
) -> io::Error {
    let (name, cause) = match answer.raw_os_error() {
        Some(libc::EADDRINUSE) => ("EADDRINUSE", who_is_there(address, kind, root)),
        Some(libc::EACCES | libc::EPERM) => ("EACCES", who_may(address, root)),
        Some(libc::EADDRNOTAVAIL) => ("EADDRNOTAVAIL", nobody_has(address)),
        _ => return answer,
    };
    explained(format!("{call} {address} gave {name}: {cause}"), answer)
}

/// What the system answered, in the words of `text`.
pub(super) fn explained(text: String, answer: io::Error) -> io::Error {
    io::Error::new(answer.kind(), BindError { text, answer })
}

fn who_is_there(address: SocketAddr, kind: Kind, root: &Path) -> String {
    let (does, all, owner) = match kind {
        Kind::Listeners => ("listens on", "-tanp", "-ltnp"),
        Kind::Datagrams => ("has bound", "-uanp", "-uanp"),
    };
    if address.port() == 0 {
        return "all ports that the kernel may choose (net.ipv4.ip_local_port_range) are in use"
            .into();
    }
    let Some(found) = listeners::in_the_way_of(address, kind, root) else {
        let nobody = match kind {
            Kind::Listeners => "nobody listens there, so somebody has bound it without",
            Kind::Datagrams => "somebody has bound it, and is not to be seen",
        };
        return format!("{nobody}; `ss {all}` shows all that have, or choose another port");
    };
    let there = found.address;
    match found.process {
        Some(process) if process.is_this => format!("this process itself {does} {there}"),
        Some(process) => {
            let (id, name) = (process.id, process.name);
            format!("process {id} ({name}) {does} {there}; stop it, or choose another port")
        }
        None => format!(
            "a process of user {} {does} {there} (`sudo ss {owner}` names it); stop it, or choose \
             another port",
            found.user
        ),
    }
}

fn who_may(address: SocketAddr, root: &Path) -> String {
    let first = listeners::first_unprivileged_port(root).unwrap_or(1024);
    let may = listeners::may_bind_privileged_ports(root).unwrap_or(false);
    if may || address.port() >= first {
        return "a security module (SELinux, AppArmor) or a filter probably forbids it; look for a \
                denial in `journalctl -k`"
            .into();
    }
    format!(
        "ports below {first} (net.ipv4.ip_unprivileged_port_start) are for those with \
         CAP_NET_BIND_SERVICE; choose a higher port, or grant it: `sudo setcap \
         cap_net_bind_service=+ep PROGRAM`, AmbientCapabilities=CAP_NET_BIND_SERVICE of a systemd \
         unit, docker run --cap-add NET_BIND_SERVICE"
    )
}

fn nobody_has(address: SocketAddr) -> String {
    let all = if address.is_ipv4() { "0.0.0.0" } else { "[::]" };
    format!("no interface of this machine has it (`ip address` lists them); {all} stands for all")
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for BindError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fake_root::FakeRoot;

    fn text(root: &FakeRoot, address: &str, errno: i32) -> String {
        let answer = io::Error::from_raw_os_error(errno);
        let kind = answer.kind();
        let error = explain_below(root, "bind", Kind::Listeners, address.parse().unwrap(), answer);
        assert_eq!(error.kind(), kind);
        let source = error.get_ref().unwrap().source().unwrap();
        assert_eq!(source.downcast_ref::<io::Error>().unwrap().raw_os_error(), Some(errno));
        error.to_string()
    }

    /// Somebody with the socket 7 listens on port 80 of all addresses.
    fn occupied() -> FakeRoot {
        FakeRoot::new().with_link("proc/self", "10").with(
            "proc/net/tcp",
            "  sl  local_address\n   0: 00000000:0050 00000000:0000 0A 0:0 0:0 0 33 0 7 1\n",
        )
    }

    #[test]
    fn the_process_that_has_the_port_is_named() {
        let root = occupied().with("proc/20/comm", "nginx\n");
        let root = root.with_link("proc/20/fd/3", "socket:[7]");
        assert_eq!(
            text(&root, "127.0.0.1:80", libc::EADDRINUSE),
            "bind 127.0.0.1:80 gave EADDRINUSE: process 20 (nginx) listens on 0.0.0.0:80; stop it, or \
             choose another port"
        );
    }

    #[test]
    fn this_process_is_not_told_to_stop_itself() {
        let root = occupied().with_link("proc/10/fd/3", "socket:[7]");
        assert_eq!(
            text(&root, "127.0.0.1:80", libc::EADDRINUSE),
            "bind 127.0.0.1:80 gave EADDRINUSE: this process itself listens on 0.0.0.0:80"
        );
    }

    #[test]
    fn the_user_is_named_where_the_process_may_not_be_seen() {
        assert_eq!(
            text(&occupied(), "127.0.0.1:80", libc::EADDRINUSE),
            "bind 127.0.0.1:80 gave EADDRINUSE: a process of user 33 listens on 0.0.0.0:80 (`sudo ss \
             -ltnp` names it); stop it, or choose another port"
        );
    }

    #[test]
    fn a_port_that_is_bound_without_a_listener_says_how_to_find_it() {
        assert_eq!(
            text(&FakeRoot::new(), "[::1]:80", libc::EADDRINUSE),
            "bind [::1]:80 gave EADDRINUSE: nobody listens there, so somebody has bound it without; \
             `ss -tanp` shows all that have, or choose another port"
        );
    }

    #[test]
    fn a_machine_without_a_free_port_names_the_range() {
        assert_eq!(
            text(&occupied(), "127.0.0.1:0", libc::EADDRINUSE),
            "bind 127.0.0.1:0 gave EADDRINUSE: all ports that the kernel may choose \
             (net.ipv4.ip_local_port_range) are in use"
        );
    }

    #[test]
    fn a_privileged_port_names_the_setting_and_the_capability() {
        let root = FakeRoot::new()
            .with("proc/sys/net/ipv4/ip_unprivileged_port_start", "500\n")
            .with("proc/thread-self/status", "CapEff:\t0000000000000000\n");
        assert_eq!(
            text(&root, "0.0.0.0:443", libc::EACCES),
            "bind 0.0.0.0:443 gave EACCES: ports below 500 (net.ipv4.ip_unprivileged_port_start) are \
             for those with CAP_NET_BIND_SERVICE; choose a higher port, or grant it: `sudo setcap \
             cap_net_bind_service=+ep PROGRAM`, AmbientCapabilities=CAP_NET_BIND_SERVICE of a \
             systemd unit, docker run --cap-add NET_BIND_SERVICE"
        );
        let other = "a security module (SELinux, AppArmor) or a filter probably forbids it; look for \
                     a denial in `journalctl -k`";
        assert!(text(&root, "0.0.0.0:500", libc::EACCES).ends_with(other));
        let root = FakeRoot::new().with("proc/thread-self/status", "CapEff:\t0000000000000400\n");
        assert!(text(&root, "0.0.0.0:80", libc::EACCES).ends_with(other));
    }

    #[test]
    fn an_address_of_nobody_names_the_one_of_everybody() {
        assert_eq!(
            text(&FakeRoot::new(), "192.0.2.1:80", libc::EADDRNOTAVAIL),
            "bind 192.0.2.1:80 gave EADDRNOTAVAIL: no interface of this machine has it (`ip address` \
             lists them); 0.0.0.0 stands for all"
        );
    }

    #[test]
    fn other_answers_are_left_as_they_are() {
        let answer = io::Error::from_raw_os_error(libc::EBADF);
        let error = explain("bind", Kind::Listeners, "127.0.0.1:1".parse().unwrap(), answer);
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    }
}
