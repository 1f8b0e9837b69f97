//! Why a core did not start: what failed, the cause that was found, and what mends it.
//!
//! Causes are read, not guessed (`sys::facts`).

use std::io;
use std::path::Path;

use super::error::Error;
use crate::driver::uring::{Refused, is_about_io_uring};
use crate::sys::facts::Facts;

/// What has to be permitted.
const CALLS: &str = "io_uring_setup, io_uring_enter and io_uring_register";

/// What a start failed at.
#[derive(Debug)]
pub(super) struct Failed {
    /// Which core, if it was one; none when it was what supervises them.
    pub(super) core: Option<usize>,
    pub(super) step: &'static str,
    pub(super) error: io::Error,
}

impl Failed {
    pub(super) fn explain(self) -> Error {
        let text = self.text(&Facts::read(Path::new("/")));
        Error::start(self.core, text, self.error)
    }

    /// As `explain`, and why what was tried in its place would not do either.
    pub(super) fn explain_both(self, other: Refused) -> Error {
        let text = self.text(&Facts::read(Path::new("/")));
        let text = format!("{text}. Epoll cannot take its place: {}", why(other));
        Error::start(self.core, text, self.error)
    }

    fn text(&self, facts: &Facts) -> String {
        let who = match self.core {
            Some(core) => format!("core {core}"),
            None => "the runtime".to_owned(),
        };
        format!("{who} could not start: {}", self.what(facts))
    }

    /// What failed, and the cause that was found.
    fn what(&self, facts: &Facts) -> String {
        let what = match self.error.raw_os_error().and_then(errno) {
            Some((name, meaning)) => format!("{} gave {name} ({meaning})", self.step),
            None => format!("{}: {}", self.step, self.error),
        };
        match self.cause(facts) {
            Some(cause) => format!("{what}; {cause}"),
            None => what,
        }
    }

    fn cause(&self, facts: &Facts) -> Option<String> {
        let opens_the_ring = is_about_io_uring(self.step);
        let Some(errno) = self.error.raw_os_error() else {
            let lacks = opens_the_ring && self.error.kind() == io::ErrorKind::Unsupported;
            return lacks.then(|| facts.why_lacking());
        };
        match errno {
            libc::EPERM | libc::EACCES if opens_the_ring => Some(facts.why_forbidden()),
            libc::ENOSYS if opens_the_ring => Some(facts.why_absent()),
            libc::EINVAL if opens_the_ring => Some(facts.why_invalid()),
            libc::ENOMEM if opens_the_ring => Some(facts.why_no_memory()),
            libc::ENOMEM => Some(facts.narrow_space().unwrap_or_else(|| {
                "the system, or the cgroup of the process, is out of memory".into()
            })),
            libc::EMFILE => Some(facts.why_no_descriptor()),
            libc::ENFILE => Some(facts.why_no_file()),
            libc::EAGAIN if self.step == START_THREAD => Some(
                "no more threads are allowed; raise `ulimit -u`, or pids.max of the cgroup \
                 (docker run --pids-limit, TasksMax= of a systemd unit)"
                    .into(),
            ),
            _ => None,
        }
    }
}

/// Why a kernel refused, said where that is no error: another one takes its place.
pub(crate) fn why(refused: Refused) -> String {
    let Refused { step, error } = refused;
    Failed { core: None, step, error }.what(&Facts::read(Path::new("/")))
}

/// The step of making a core's thread.
pub(super) const START_THREAD: &str = "starting a thread";

/// The texts about what was found.
impl Facts {
    fn kernel(&self) -> String {
        self.release.as_ref().map_or("this kernel".into(), |release| format!("kernel {release}"))
    }

    fn filter(&self) -> String {
        format!(
            "a seccomp filter is in force, as in containers, and refuses io_uring. \
             Docker: run with --security-opt seccomp=unconfined, or with a profile that permits \
             {CALLS}. Kubernetes: set securityContext.seccompProfile likewise. systemd: add \
             them to SystemCallFilter= of the unit"
        )
    }

    fn why_forbidden(&self) -> String {
        match self.disabled {
            Some(2) => "kernel.io_uring_disabled is 2, which forbids io_uring to everybody; run \
                        `sudo sysctl kernel.io_uring_disabled=0`"
                .into(),
            Some(1) => {
                let group = match self.group {
                    Some(group) if group >= 0 => format!(
                        "add the user to the group {group} (kernel.io_uring_group), or run \
                         `sudo sysctl kernel.io_uring_disabled=0`"
                    ),
                    _ => "run `sudo sysctl kernel.io_uring_disabled=0`, or set \
                          kernel.io_uring_group to a group of the user"
                        .into(),
                };
                format!(
                    "kernel.io_uring_disabled is 1, which forbids io_uring to the unprivileged; {group}"
                )
            }
            _ if self.filtered => self.filter(),
            _ => format!(
                "neither kernel.io_uring_disabled nor a seccomp filter forbids it, so a security \
                 module (SELinux, AppArmor) probably does; look for a denial in `journalctl -k` \
                 and permit {CALLS}"
            ),
        }
    }

    fn why_absent(&self) -> String {
        if self.filtered {
            return self.filter();
        }
        match self.version() {
            Some(version) if version < (5, 6) => format!(
                "{} is older than 5.6, the first with what Quoit needs (or a sandbox such as \
                 gVisor stands in for it); use a newer kernel",
                self.kernel()
            ),
            _ => format!(
                "{} was built without io_uring; use one with CONFIG_IO_URING=y",
                self.kernel()
            ),
        }
    }

    fn why_invalid(&self) -> String {
        match self.version() {
            Some(version) if version < (5, 6) => {
                format!("{} lacks what Quoit needs; use kernel 5.6 or newer", self.kernel())
            }
            _ => format!(
                "{} refuses even the plainest ring; if `Builder::sq_entries` or \
                 `Builder::cq_entries` was called, try without",
                self.kernel()
            ),
        }
    }

    fn why_lacking(&self) -> String {
        format!(
            "{} does not know it, or a sandbox such as gVisor stands in for the kernel; use a \
             newer one",
            self.kernel()
        )
    }

    fn why_no_memory(&self) -> String {
        if let Some(bytes) = self.locked_memory_for_rings() {
            return format!(
                "{} counts rings as locked memory, of which {} KiB are allowed to this user, for all \
                 processes together (a ring that was closed counts for some 30 ms more); raise it: \
                 `ulimit -l unlimited` (as root), LimitMEMLOCK=infinity of a systemd unit, docker run \
                 --ulimit memlock=-1; or ask for smaller rings with `Builder::cq_entries`",
                self.kernel(),
                bytes / 1024
            );
        }
        self.narrow_space().unwrap_or_else(|| {
            "the system, or the cgroup of the process, is out of memory (memory.max); give it more, \
             start fewer cores, or smaller rings with `Builder::sq_entries` and `Builder::cq_entries`"
                .into()
        })
    }

    /// A core reserves addresses for the most operations and buffers that it can have, most of which
    /// never become memory; a limit of addresses counts them all the same.
    fn narrow_space(&self) -> Option<String> {
        let limit = self.address_space.filter(|limit| limit.soft != libc::RLIM_INFINITY)?;
        Some(format!(
            "the process may map {} KiB of addresses, used or not, and a core reserves some dozens \
             of MiB; raise it (`ulimit -v unlimited`, LimitAS=infinity of a systemd unit), or lower \
             `Builder::max_live_ops`",
            limit.soft / 1024
        ))
    }

    fn why_no_descriptor(&self) -> String {
        match self.descriptors {
            Some(limit) if limit.soft < limit.hard => format!(
                "the process may have {} descriptors open, and has; raise it: `ulimit -n {}`, or \
                 LimitNOFILE= of a systemd unit",
                limit.soft, limit.hard
            ),
            Some(limit) => format!(
                "the process may have {} descriptors open, and has; raise the hard limit: \
                 LimitNOFILE= of a systemd unit, docker run --ulimit nofile=, or \
                 /etc/security/limits.conf",
                limit.soft
            ),
            None => "the process has too many descriptors open; raise `ulimit -n`".into(),
        }
    }

    fn why_no_file(&self) -> String {
        let count = self.files.map_or(String::new(), |(open, most)| format!(" ({open} of {most})"));
        format!(
            "the machine has too many files open{count}; raise it: `sudo sysctl fs.file-max=..`"
        )
    }
}

/// The name of an error number, and what it means.
fn errno(number: i32) -> Option<(&'static str, &'static str)> {
    Some(match number {
        libc::EPERM => ("EPERM", "not permitted"),
        libc::EACCES => ("EACCES", "access denied"),
        libc::ENOSYS => ("ENOSYS", "no such system call"),
        libc::EINVAL => ("EINVAL", "invalid argument"),
        libc::ENOMEM => ("ENOMEM", "out of memory"),
        libc::EMFILE => ("EMFILE", "too many descriptors in this process"),
        libc::ENFILE => ("ENFILE", "too many open files in the system"),
        libc::EAGAIN => ("EAGAIN", "not available now"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fake_root::FakeRoot;
    use crate::sys::limits::Limit;

    /// The files that tell why io_uring is refused.
    struct Root(FakeRoot);

    impl Root {
        fn new() -> Self {
            Root(FakeRoot::new())
        }

        fn with(self, path: &str, text: &str) -> Self {
            Root(self.0.with(path, text))
        }

        fn kernel(self, release: &str) -> Self {
            self.with("proc/sys/kernel/osrelease", &format!("{release}\n"))
        }

        fn disabled(self, value: u32) -> Self {
            self.with("proc/sys/kernel/io_uring_disabled", &format!("{value}\n"))
        }

        fn filtered(self) -> Self {
            self.with(
                "proc/thread-self/status",
                "Name:\tx\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n",
            )
        }

        fn text(&self, errno: i32) -> String {
            let error = io::Error::from_raw_os_error(errno);
            Failed { core: Some(3), step: "io_uring_setup", error }.text(&Facts::read(&self.0))
        }

        #[track_caller]
        fn says(&self, errno: i32, needles: &[&str]) {
            let text = self.text(errno);
            assert!(text.starts_with("core 3 could not start: io_uring_setup gave E"), "{text}");
            assert!(!text.contains("  "), "{text}");
            for needle in needles {
                assert!(text.contains(needle), "`{needle}` is not in: {text}");
            }
        }
    }

    #[test]
    fn io_uring_that_is_disabled_for_all_is_told_from_a_filter() {
        let root = Root::new().disabled(2).filtered();
        root.says(
            libc::EPERM,
            &[
                "EPERM (not permitted)",
                "io_uring_disabled is 2",
                "sysctl kernel.io_uring_disabled=0",
            ],
        );
    }

    #[test]
    fn io_uring_that_is_disabled_for_the_unprivileged_names_the_group() {
        let root = Root::new().disabled(1).with("proc/sys/kernel/io_uring_group", "990\n");
        root.says(libc::EPERM, &["io_uring_disabled is 1", "the group 990"]);
    }

    #[test]
    fn without_a_group_the_setting_itself_is_named() {
        let root = Root::new().disabled(1).with("proc/sys/kernel/io_uring_group", "-1\n");
        root.says(libc::EPERM, &["io_uring_disabled is 1", "set kernel.io_uring_group"]);
    }

    #[test]
    fn a_filter_is_found_whether_it_says_eperm_or_enosys() {
        let root = Root::new().disabled(0).filtered().kernel("6.8.0");
        for errno in [libc::EPERM, libc::EACCES, libc::ENOSYS] {
            root.says(errno, &["seccomp", "Docker", "Kubernetes", "systemd", "io_uring_register"]);
        }
    }

    #[test]
    fn a_refusal_without_setting_or_filter_points_at_the_security_modules() {
        Root::new().disabled(0).says(libc::EPERM, &["SELinux", "journalctl -k"]);
        Root::new().says(libc::EACCES, &["EACCES", "SELinux"]);
    }

    #[test]
    fn an_old_kernel_is_told_from_one_that_was_built_without() {
        Root::new()
            .kernel("4.19.0-27-amd64")
            .says(libc::ENOSYS, &["kernel 4.19.0-27-amd64 is older"]);
        Root::new().kernel("6.1.0").says(libc::ENOSYS, &["kernel 6.1.0", "CONFIG_IO_URING=y"]);
        Root::new().kernel("5.4.0").says(libc::EINVAL, &["use kernel 5.6 or newer"]);
        Root::new().kernel("6.1.0").says(libc::EINVAL, &["Builder::sq_entries"]);
        Root::new().says(libc::ENOSYS, &["this kernel was built without"]);
    }

    #[test]
    fn locked_memory_is_blamed_only_where_rings_count_as_such() {
        let failed = |kernel: &str, soft| {
            let limit = Limit { soft, hard: soft };
            let release = Some(kernel.to_owned());
            let facts = Facts { release, locked_memory: Some(limit), ..Facts::default() };
            let error = io::Error::from_raw_os_error(libc::ENOMEM);
            Failed { core: Some(0), step: "io_uring_setup", error }.text(&facts)
        };
        for release in ["5.10.0", "6.14.6", "6.18.0"] {
            let text = failed(release, 65536);
            assert!(text.contains("64 KiB") && text.contains("ulimit -l unlimited"), "{text}");
        }
        for other in [failed("5.10.0", libc::RLIM_INFINITY), failed("6.1.0", 65536)] {
            assert!(other.contains("memory.max") && !other.contains("ulimit"), "{other}");
        }
    }

    #[test]
    fn a_limit_of_addresses_is_named_where_there_is_one() {
        let failed = |step, soft| {
            let limit = Limit { soft, hard: libc::RLIM_INFINITY };
            let facts = Facts { address_space: Some(limit), ..Facts::default() };
            let error = io::Error::from_raw_os_error(libc::ENOMEM);
            Failed { core: Some(0), step, error }.text(&facts)
        };
        for step in ["io_uring_setup", "mapping the table of operations"] {
            let text = failed(step, 64 << 20);
            assert!(text.contains("65536 KiB") && text.contains("ulimit -v unlimited"), "{text}");
            assert!(!failed(step, libc::RLIM_INFINITY).contains("ulimit"));
        }
    }

    #[test]
    fn a_kernel_that_lacks_an_operation_is_named() {
        let text = "IORING_OP_RECV is missing, which kernels have from 5.6 on";
        let error = io::Error::new(io::ErrorKind::Unsupported, text);
        let facts = Facts { release: Some("5.4.0".into()), ..Facts::default() };
        assert_eq!(
            Failed { core: Some(0), step: "IORING_REGISTER_PROBE", error }.text(&facts),
            "core 0 could not start: IORING_REGISTER_PROBE: IORING_OP_RECV is missing, which kernels \
             have from 5.6 on; kernel 5.4.0 does not know it, or a sandbox such as gVisor stands in \
             for the kernel; use a newer one"
        );
    }

    #[test]
    fn the_limit_of_descriptors_says_how_far_it_can_be_raised() {
        let failed = |soft, hard| {
            let facts = Facts { descriptors: Some(Limit { soft, hard }), ..Facts::default() };
            let error = io::Error::from_raw_os_error(libc::EMFILE);
            Failed { core: None, step: "signalfd", error }.text(&facts)
        };
        let text = failed(1024, 4096);
        assert!(text.starts_with("the runtime could not start: signalfd gave EMFILE"), "{text}");
        assert!(text.contains("may have 1024") && text.contains("`ulimit -n 4096`"), "{text}");
        assert!(failed(1024, 1024).contains("raise the hard limit"));
    }

    #[test]
    fn too_many_files_in_the_machine_are_counted() {
        let root = Root::new().with("proc/sys/fs/file-nr", "1000\t0\t1024\n");
        root.says(libc::ENFILE, &["(1000 of 1024)", "fs.file-max"]);
    }

    #[test]
    fn other_steps_and_errors_keep_their_own_words() {
        let failed = |step, error| Failed { core: None, step, error }.text(&Facts::default());
        let text = failed(START_THREAD, io::Error::from_raw_os_error(libc::EAGAIN));
        assert!(text.contains("ulimit -u") && text.contains("pids.max"), "{text}");
        let text = failed("listing the ring", io::Error::other("too many rings"));
        assert_eq!(text, "the runtime could not start: listing the ring: too many rings");
    }

    /// One line a text, as users read it.
    #[test]
    fn each_text_reads_well_as_a_whole() {
        let plain = || Root::new().kernel("6.8.0").disabled(0);
        let calls = "io_uring_setup, io_uring_enter and io_uring_register";
        let filter = format!(
            "a seccomp filter is in force, as in containers, and refuses io_uring. Docker: run with \
             --security-opt seccomp=unconfined, or with a profile that permits {calls}. Kubernetes: \
             set securityContext.seccompProfile likewise. systemd: add them to SystemCallFilter= of \
             the unit"
        );
        let module = format!(
            "neither kernel.io_uring_disabled nor a seccomp filter forbids it, so a security module \
             (SELinux, AppArmor) probably does; look for a denial in `journalctl -k` and permit {calls}"
        );
        let texts = [
            (
                plain().disabled(2),
                libc::EPERM,
                "kernel.io_uring_disabled is 2, which forbids io_uring to everybody; run `sudo sysctl \
                 kernel.io_uring_disabled=0`",
            ),
            (
                plain().disabled(1).with("proc/sys/kernel/io_uring_group", "990\n"),
                libc::EPERM,
                "kernel.io_uring_disabled is 1, which forbids io_uring to the unprivileged; add the \
                 user to the group 990 (kernel.io_uring_group), or run `sudo sysctl \
                 kernel.io_uring_disabled=0`",
            ),
            (plain().filtered(), libc::EPERM, &*filter),
            (plain().filtered(), libc::ENOSYS, &*filter),
            (plain(), libc::EACCES, &*module),
            (
                plain(),
                libc::ENOSYS,
                "kernel 6.8.0 was built without io_uring; use one with CONFIG_IO_URING=y",
            ),
            (
                Root::new().kernel("5.4.0"),
                libc::ENOSYS,
                "kernel 5.4.0 is older than 5.6, the first with what Quoit needs (or a sandbox such as \
                 gVisor stands in for it); use a newer kernel",
            ),
            (
                Root::new().kernel("5.4.0"),
                libc::EINVAL,
                "kernel 5.4.0 lacks what Quoit needs; use kernel 5.6 or newer",
            ),
            (
                plain(),
                libc::EINVAL,
                "kernel 6.8.0 refuses even the plainest ring; if `Builder::sq_entries` or \
                 `Builder::cq_entries` was called, try without",
            ),
            (
                plain().with("proc/sys/fs/file-nr", "1000\t0\t1024\n"),
                libc::ENFILE,
                "the machine has too many files open (1000 of 1024); raise it: `sudo sysctl \
                 fs.file-max=..`",
            ),
        ];
        for (root, number, cause) in texts {
            let (name, meaning) = errno(number).unwrap();
            let text =
                format!("core 3 could not start: io_uring_setup gave {name} ({meaning}); {cause}");
            assert_eq!(root.text(number), text);
        }
    }
}
