//! Who listens on a port, from which port on everybody may, and how many connections may wait.
//!
//! Asked only when a bind has failed. Files are read below a root, which is `/` outside tests.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::facts::effective_capabilities;

/// Bytes of a table of sockets that are read at most: some 7,000 listeners.
const MOST_BYTES: u64 = 1 << 20;
/// Descriptors of other processes that are looked at before the search is given up, some 10 ms.
const MOST_LINKS: usize = 8_192;
/// Of one process: who listens does so early, and one with thousands of connections is no reason to
/// look at nobody else.
const MOST_OF_ONE: usize = 512;

/// A socket that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listener {
    pub(crate) address: SocketAddr,
    /// The user who made the socket.
    pub(crate) user: u32,
    /// Who has it; none if that may not be seen.
    pub(crate) process: Option<Process>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) id: u32,
    pub(crate) name: String,
    /// It is the one that asks.
    pub(crate) is_this: bool,
}

/// Which sockets have ports: those of each protocol their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// TCP sockets that listen.
    Listeners,
    /// UDP sockets that are bound.
    Datagrams,
}

/// The socket that has the place where `address` would be.
pub(crate) fn in_the_way_of(address: SocketAddr, kind: Kind, root: &Path) -> Option<Listener> {
    let tables = match kind {
        Kind::Listeners => ["proc/net/tcp", "proc/net/tcp6"],
        Kind::Datagrams => ["proc/net/udp", "proc/net/udp6"],
    };
    let (address, user, inode) =
        tables.iter().find_map(|table| find_socket(&root.join(table), kind, address))?;
    Some(Listener { address, user, process: find_process(inode, root) })
}

/// The first socket in `table` that takes the place of `wanted`: its address, user and inode.
fn find_socket(table: &Path, kind: Kind, wanted: SocketAddr) -> Option<(SocketAddr, u32, u64)> {
    let table = BufReader::new(File::open(table).ok()?.take(MOST_BYTES));
    // The first line is a heading. Listeners come before all other sockets.
    let lines = table.lines().skip(1).map_while(Result::ok);
    let mut sockets = lines.map_while(|line| parse(&line, kind));
    sockets.find(|(address, ..)| address.port() == wanted.port() && overlap(*address, wanted))
}

/// Reads a line of proc_net(5): `0: ADDRESS:PORT REMOTE STATE .. UID .. INODE ..`; none if it is that
/// of a TCP socket that does not listen.
fn parse(line: &str, kind: Kind) -> Option<(SocketAddr, u32, u64)> {
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [_, local, _, state, _, _, _, user, _, inode, ..] = fields[..] else { return None };
    let (ip, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let address = SocketAddr::new(parse_ip(ip)?, port);
    (state == LISTEN || kind == Kind::Datagrams).then_some((
        address,
        user.parse().ok()?,
        inode.parse().ok()?,
    ))
}

/// Each word of an address is written as a number of this machine, though its bytes are the network's.
fn parse_ip(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let bytes: [u8; 16] = words.as_flattened().try_into().ok()?;
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

/// Whether one of two addresses stands for the other too.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let (one, other) = (one.ip().to_canonical(), other.ip().to_canonical());
    let covers = |all: IpAddr, ip: IpAddr| {
        all == Ipv6Addr::UNSPECIFIED || all == Ipv4Addr::UNSPECIFIED && ip.is_ipv4()
    };
    one == other || covers(one, other) || covers(other, one)
}

/// The process that has the socket `inode`: this one, or else the first that is found.
pub(super) fn find_process(inode: u64, root: &Path) -> Option<Process> {
    let link = format!("socket:[{inode}]");
    let mut links_left = MOST_LINKS;
    let proc = root.join("proc");
    let this = fs::read_link(proc.join("self")).ok();
    let this: Option<u32> = this.and_then(|link| link.to_str()?.parse().ok());
    let others = fs::read_dir(&proc).ok()?.filter_map(|entry| {
        let id: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        (Some(id) != this).then_some(id)
    });
    let id = this.into_iter().chain(others).find(|id| {
        let directory = fs::read_dir(proc.join(id.to_string()).join("fd"));
        directory.into_iter().flatten().flatten().take(MOST_OF_ONE).any(|entry| {
            links_left = links_left.saturating_sub(1);
            links_left > 0 && fs::read_link(entry.path()).is_ok_and(|to| to.as_os_str() == &*link)
        })
    })?;
    let name = fs::read_to_string(proc.join(id.to_string()).join("comm")).unwrap_or_default();
    Some(Process { id, name: name.trim().to_owned(), is_this: Some(id) == this })
}

/// The first port that everybody may bind; below it the privileged may.
pub(crate) fn first_unprivileged_port(root: &Path) -> Option<u16> {
    number(root, "proc/sys/net/ipv4/ip_unprivileged_port_start")?.try_into().ok()
}

/// Whether this thread may bind the ports below that.
pub(crate) fn may_bind_privileged_ports(root: &Path) -> Option<bool> {
    const CAP_NET_BIND_SERVICE: u64 = 1 << 10;
    let status = fs::read_to_string(root.join("proc/thread-self/status")).ok()?;
    Some(effective_capabilities(&status)? & CAP_NET_BIND_SERVICE != 0)
}

/// How many connections may wait for an accept; the kernel takes no more, whatever is asked for.
pub(crate) fn longest_backlog(root: &Path) -> Option<u64> {
    number(root, "proc/sys/net/core/somaxconn")
}

fn number(root: &Path, path: &str) -> Option<u64> {
    fs::read_to_string(root.join(path)).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fake_root::FakeRoot;

    const HEADING: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when\n";

    fn line(local: &str, state: &str, user: u32, inode: u64) -> String {
        format!(
            "   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000  {user}  \
             0 {inode} 1 0000000000000000 100 0 0 10 0\n"
        )
    }

    /// Processes 10 (this one), 20 and 30, of which the last shows nobody its descriptors.
    fn root(table: &str) -> FakeRoot {
        FakeRoot::new()
            .with("proc/net/tcp", &format!("{HEADING}{table}"))
            .with_link("proc/self", "10")
            .with("proc/10/comm", "me\n")
            .with_link("proc/10/fd/3", "socket:[1003]")
            .with("proc/20/comm", "nginx\n")
            .with_link("proc/20/fd/0", "/dev/null")
            .with_link("proc/20/fd/9", "socket:[2009]")
            .with("proc/30/comm", "secret\n")
            .with("proc/sys/kernel/osrelease", "6.1.0\n")
    }

    fn in_the_way(root: &FakeRoot, address: &str) -> Option<Listener> {
        in_the_way_of(address.parse().unwrap(), Kind::Listeners, root)
    }

    #[test]
    fn sockets_of_datagrams_have_ports_of_their_own() {
        let root = root("").with(
            "proc/net/udp",
            &(HEADING.to_owned()
                + &line("00000000:0051", "01", 0, 1)
                + &line("00000000:0050", "07", 33, 2009)),
        );
        assert_eq!(in_the_way(&root, "0.0.0.0:80"), None);
        let address = "127.0.0.1:80".parse().unwrap();
        let found = in_the_way_of(address, Kind::Datagrams, &root).unwrap();
        assert_eq!((found.user, found.process.unwrap().id), (33, 20));
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn the_process_that_listens_is_found_by_its_socket() {
        let root = root(&line("0100007F:1F90", "0A", 33, 2009));
        let found = in_the_way(&root, "127.0.0.1:8080").unwrap();
        assert_eq!((found.address, found.user), ("127.0.0.1:8080".parse().unwrap(), 33));
        let process = Process { id: 20, name: "nginx".into(), is_this: false };
        assert_eq!(found.process, Some(process));
        assert_eq!(in_the_way(&root, "127.0.0.1:8081"), None);
        assert_eq!(in_the_way(&root, "127.0.0.2:8080"), None);
    }

    #[test]
    fn a_listener_on_all_addresses_is_in_the_way_of_each() {
        let root = root(&line("00000000:0050", "0A", 0, 1003));
        for address in ["127.0.0.1:80", "0.0.0.0:80", "10.1.2.3:80", "[::]:80"] {
            assert!(in_the_way(&root, address).unwrap().process.unwrap().is_this, "{address}");
        }
        assert_eq!(in_the_way(&root, "[::1]:80"), None);
    }

    #[test]
    fn a_listener_on_ipv6_is_found_in_the_other_table() {
        let all = "0".repeat(32);
        let table = format!("{HEADING}{}", line(&format!("{all}:0050"), "0A", 0, 2009));
        let root = root("").with("proc/net/tcp6", &table);
        for address in ["[::1]:80", "127.0.0.1:80"] {
            assert_eq!(in_the_way(&root, address).unwrap().process.unwrap().id, 20, "{address}");
        }
    }

    #[test]
    fn a_process_that_may_not_be_looked_into_leaves_its_user() {
        let root = root(&line("00000000:0050", "0A", 33, 77));
        let found = in_the_way(&root, "0.0.0.0:80").unwrap();
        assert_eq!((found.user, found.process), (33, None));
    }

    #[test]
    fn connections_are_no_listeners_and_end_the_search() {
        let table = line("00000000:0050", "01", 0, 1) + &line("00000000:0050", "0A", 0, 2009);
        assert_eq!(in_the_way(&root(&table), "0.0.0.0:80"), None);
    }

    #[test]
    fn nonsense_is_no_listener() {
        for table in ["", "x\n", "0: zz:0050 0 0A\n", &line("0:0050", "0A", 0, 0)] {
            assert_eq!(in_the_way(&root(table), "0.0.0.0:80"), None, "{table:?}");
        }
        assert_eq!(in_the_way(&FakeRoot::new(), "0.0.0.0:80"), None);
    }

    #[test]
    fn settings_are_read_as_numbers() {
        let root = FakeRoot::new()
            .with("proc/sys/net/ipv4/ip_unprivileged_port_start", "1024\n")
            .with("proc/sys/net/core/somaxconn", "128\n")
            .with("proc/thread-self/status", "Name:\tx\nCapEff:\t0000000000000400\n");
        assert_eq!(first_unprivileged_port(&root), Some(1024));
        assert_eq!(longest_backlog(&root), Some(128));
        assert_eq!(may_bind_privileged_ports(&root), Some(true));
        let root = FakeRoot::new().with("proc/thread-self/status", "CapEff:\t00000000000003ff\n");
        assert_eq!(may_bind_privileged_ports(&root), Some(false));
        assert_eq!((first_unprivileged_port(&root), longest_backlog(&root)), (None, None));
    }
}
