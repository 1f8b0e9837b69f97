//! Which CPUs a runtime may use: the thread's mask, the quota of its cgroups, one per core first.
//!
//! Nothing here pins a thread. Files are read below a root, which is `/` outside tests.

use std::ffi::c_ulong;
use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};

/// The CPUs for the loops of a runtime, one entry per loop, in the order in which they are to be used.
///
/// With `wanted` there are that many entries, whatever the quota says; past the last allowed CPU
/// they begin again at the first, so that a test can start more loops than the machine has CPUs.
/// Without it there are as many as CPUs are allowed, but no more than the quota rounded up, and at
/// least one. Call it before the thread is pinned: afterwards one CPU is all that is allowed.
///
/// # Errors
/// Those of [`allowed`].
///
/// # Panics
/// If `wanted` is `Some(0)`.
pub(crate) fn choose(wanted: Option<usize>) -> io::Result<Vec<usize>> {
    Ok(choose_among(&allowed()?, wanted, Path::new("/")))
}

fn choose_among(allowed: &[usize], wanted: Option<usize>, root: &Path) -> Vec<usize> {
    assert!(!allowed.is_empty(), "the kernel runs no thread on an empty mask");
    assert!(wanted != Some(0), "a runtime needs at least one core; ask for 1 or more");
    let count = wanted.unwrap_or_else(|| match quota(root) {
        // A quota far above the number of CPUs saturates, and `min` cuts it.
        Some(quota) => allowed.len().min(quota.ceil() as usize).max(1),
        None => allowed.len(),
    });
    order(allowed, root).into_iter().cycle().take(count).collect()
}

/// The CPUs on which the calling thread may run, in ascending order.
///
/// # Errors
/// Those of `sched_getaffinity(2)`.
pub(crate) fn allowed() -> io::Result<Vec<usize>> {
    Ok(set_bits(&Mask::of_this_thread()?.0))
}

/// CPUs on which a thread may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mask(Vec<c_ulong>);

impl Mask {
    /// # Errors
    /// Those of `sched_getaffinity(2)`.
    pub(crate) fn of_this_thread() -> io::Result<Mask> {
        read_mask().map(Mask)
    }

    /// Lets the calling thread run there, whatever it has inherited.
    ///
    /// # Errors
    /// Those of `sched_setaffinity(2)`: none of the CPUs may be left.
    pub(crate) fn apply_here(&self) -> io::Result<()> {
        let bytes = size_of_val(self.0.as_slice());
        // SAFETY: the mask is `bytes` long, and the call only reads it.
        match unsafe { libc::sched_setaffinity(0, bytes, self.0.as_ptr().cast()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Calls `f` while this thread may run on `mask`, if there is one: what it starts inherits that.
pub(crate) fn while_on<R>(mask: Option<&Mask>, f: impl FnOnce() -> R) -> R {
    // Where a mask cannot be had, `f` runs with the one that there is.
    let changed = mask.and_then(|mask| {
        let own = Mask::of_this_thread().ok().filter(|own| own != mask)?;
        mask.apply_here().is_ok().then_some(own)
    });
    let result = f();
    if let Some(own) = changed {
        // It fails only if none of its CPUs is left, and then nothing better is known.
        let _ = own.apply_here();
    }
    result
}

fn read_mask() -> io::Result<Vec<c_ulong>> {
    // The kernel answers EINVAL while the mask is shorter than its own, whose length it tells nobody.
    const LONGEST: usize = (1 << 20) / c_ulong::BITS as usize;
    let mut mask: Vec<c_ulong> = vec![0; 1024 / c_ulong::BITS as usize];
    loop {
        let bytes = size_of_val(mask.as_slice());
        // SAFETY: `mask` is `bytes` long, aligned like a cpu_set_t (an array of c_ulong), and
        // nobody else sees it during the call.
        let failed = unsafe { libc::sched_getaffinity(0, bytes, mask.as_mut_ptr().cast()) } != 0;
        if !failed {
            return Ok(mask);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINVAL) || mask.len() >= LONGEST {
            return Err(error);
        }
        mask = vec![0; mask.len() * 2];
    }
}

/// Whether the calling thread runs on `cpu` and nowhere else.
///
/// # Errors
/// Those of [`allowed`].
pub(crate) fn verify_pinned(cpu: usize) -> io::Result<bool> {
    Ok(allowed()? == [cpu])
}

fn set_bits(mask: &[c_ulong]) -> Vec<usize> {
    let bits = c_ulong::BITS as usize;
    (0..mask.len() * bits).filter(|bit| mask[bit / bits] >> (bit % bits) & 1 == 1).collect()
}

/// How many CPUs' worth of time the cgroups of this process allow, or `None` if they set no limit.
///
/// Looks at `cpu.max` (cgroup v2) and `cpu.cfs_quota_us` (v1) of the process's group and of every
/// group above it as far as they are mounted; the smallest counts. What cannot be read sets no limit.
pub(crate) fn quota(root: &Path) -> Option<f64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let mounts = fs::read_to_string(root.join("proc/self/mountinfo")).ok()?;
    let mut smallest = None;
    for mount in mounts.lines().filter_map(Mount::parse) {
        let limits =
            mount.directories(&groups, root).into_iter().filter_map(|dir| match mount.version {
                Version::One => limit_v1(&dir),
                Version::Two => limit_v2(&dir),
            });
        smallest = limits.chain(smallest).reduce(f64::min);
    }
    smallest
}

#[derive(Clone, Copy, PartialEq)]
enum Version {
    One,
    Two,
}

/// A mounted cgroup hierarchy that can limit CPU time.
struct Mount<'a> {
    version: Version,
    /// The group that shows up at `point`: `/`, unless a container sees only its own part.
    group: &'a Path,
    point: &'a Path,
}

impl<'a> Mount<'a> {
    /// Reads a line of mountinfo, see proc_pid_mountinfo(5):
    /// `32 31 0:29 GROUP POINT rw,relatime - TYPE SOURCE OPTIONS`.
    fn parse(line: &'a str) -> Option<Self> {
        let (place, kind) = line.split_once(" - ")?;
        let mut kind = kind.split(' ');
        let version = match (kind.next()?, kind.nth(1)?) {
            ("cgroup2", _) => Version::Two,
            ("cgroup", options) if options.split(',').any(|option| option == "cpu") => Version::One,
            _ => return None,
        };
        let mut place = place.split(' ').skip(3);
        Some(Mount { version, group: Path::new(place.next()?), point: Path::new(place.next()?) })
    }

    /// The directory of the process's group and those of the groups above it, innermost first; no
    /// directory if the group lies outside what is mounted.
    fn directories(&self, groups: &str, root: &Path) -> Vec<PathBuf> {
        let below = groups
            .lines()
            .filter_map(|line| self.own_group(line))
            .find_map(|group| group.strip_prefix(self.group).ok())
            // A process that left its namespace's root has a group like `/../other`.
            .filter(|below| below.components().all(|part| matches!(part, Component::Normal(_))));
        let Some(below) = below else { return Vec::new() };
        let point = root.join(self.point.strip_prefix("/").unwrap_or(self.point));
        below.ancestors().map(|group| point.join(group)).collect()
    }

    /// The process's group, if `line` of /proc/self/cgroup (`4:cpu,cpuacct:/group`, `0::/group` in
    /// v2) speaks of this hierarchy.
    fn own_group<'g>(&self, line: &'g str) -> Option<&'g Path> {
        let (id, rest) = line.split_once(':')?;
        let (controllers, group) = rest.split_once(':')?;
        let ours = match self.version {
            Version::One => controllers.split(',').any(|controller| controller == "cpu"),
            Version::Two => id == "0" && controllers.is_empty(),
        };
        ours.then_some(Path::new(group))
    }
}

/// `cpu.max` holds `QUOTA PERIOD`, where QUOTA may be `max`.
fn limit_v2(dir: &Path) -> Option<f64> {
    let text = fs::read_to_string(dir.join("cpu.max")).ok()?;
    let (quota_us, period_us) = text.trim().split_once(' ')?;
    ratio(quota_us, period_us)
}

/// `cpu.cfs_quota_us` is -1 where there is no limit.
fn limit_v1(dir: &Path) -> Option<f64> {
    let quota_us = fs::read_to_string(dir.join("cpu.cfs_quota_us")).ok()?;
    let period_us = fs::read_to_string(dir.join("cpu.cfs_period_us")).ok()?;
    ratio(quota_us.trim(), period_us.trim())
}

fn ratio(quota_us: &str, period_us: &str) -> Option<f64> {
    let quota_us: u64 = quota_us.parse().ok().filter(|&us| us > 0)?;
    let period_us: u64 = period_us.parse().ok().filter(|&us| us > 0)?;
    Some(quota_us as f64 / period_us as f64)
}

/// `cpus`, the first thread of every physical core before the second of any, otherwise as given.
///
/// A CPU whose topology cannot be read counts as a core of its own.
pub(crate) fn order(cpus: &[usize], root: &Path) -> Vec<usize> {
    let mut ranked = ranked(cpus, root);
    ranked.sort_by_key(|&(rank, _)| rank);
    ranked.into_iter().map(|(_, cpu)| cpu).collect()
}

/// How many physical cores `cpus` are threads of.
pub(crate) fn physical(cpus: &[usize], root: &Path) -> usize {
    ranked(cpus, root).iter().filter(|&&(rank, _)| rank == 0).count()
}

/// Each of `cpus` with how many threads of its physical core come before it.
fn ranked(cpus: &[usize], root: &Path) -> Vec<(usize, usize)> {
    let rank = |(index, &cpu): (usize, &usize)| {
        let siblings = siblings(cpu, root);
        (cpus[..index].iter().filter(|earlier| contains(&siblings, **earlier)).count(), cpu)
    };
    cpus.iter().enumerate().map(rank).collect()
}

fn siblings(cpu: usize, root: &Path) -> Vec<RangeInclusive<usize>> {
    let list = format!("sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
    fs::read_to_string(root.join(list)).ok().and_then(|text| parse_list(&text)).unwrap_or_default()
}

/// Reads a list of CPUs as the kernel writes it: `0-3,8`.
fn parse_list(text: &str) -> Option<Vec<RangeInclusive<usize>>> {
    let parse_range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    text.trim().split(',').map(parse_range).collect()
}

fn contains(list: &[RangeInclusive<usize>], cpu: usize) -> bool {
    list.iter().any(|range| range.contains(&cpu))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fake_root::FakeRoot;
    use std::thread;

    /// The files of a machine's CPUs and cgroups.
    struct Root(FakeRoot);

    impl Root {
        fn new() -> Self {
            Root(FakeRoot::new())
        }

        fn with(self, path: &str, text: &str) -> Self {
            Root(self.0.with(path, text))
        }

        fn siblings(self, cpu: usize, list: &str) -> Self {
            let path = format!("sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
            self.with(&path, &format!("{list}\n"))
        }

        fn v2(self, group: &str) -> Self {
            self.with("proc/self/cgroup", &format!("0::{group}\n")).with(
                "proc/self/mountinfo",
                "22 1 8:1 / / rw - ext4 /dev/root rw\n\
                 31 22 0:28 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
            )
        }

        fn v1(self, group: &str, mounted: &str) -> Self {
            let groups = format!("9:name=systemd:/\n3:cpuset:/set\n4:cpuacct,cpu:{group}\n0::/\n");
            let mounts = format!(
                "33 31 0:30 {mounted} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                 34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
            );
            self.with("proc/self/cgroup", &groups).with("proc/self/mountinfo", &mounts)
        }

        fn v1_limit(self, group: &str, quota_us: &str) -> Self {
            let dir = format!("sys/fs/cgroup/cpu,cpuacct{group}");
            self.with(&format!("{dir}/cpu.cfs_quota_us"), &format!("{quota_us}\n"))
                .with(&format!("{dir}/cpu.cfs_period_us"), "100000\n")
        }
    }

    #[test]
    fn without_cgroups_there_is_no_quota() {
        assert_eq!(quota(&Root::new().0), None);
    }

    #[test]
    fn the_smallest_quota_between_the_group_and_the_root_counts() {
        let root = Root::new()
            .v2("/a/b")
            .with("sys/fs/cgroup/a/b/cpu.max", "max 100000\n")
            .with("sys/fs/cgroup/a/cpu.max", "150000 100000\n")
            .with("sys/fs/cgroup/cpu.max", "800000 100000\n")
            .with("sys/fs/cgroup/other/cpu.max", "1000 100000\n");
        assert_eq!(quota(&root.0), Some(1.5));
    }

    #[test]
    fn max_is_no_quota() {
        let root = Root::new().v2("/a").with("sys/fs/cgroup/a/cpu.max", "max 100000\n");
        assert_eq!(quota(&root.0), None);
    }

    #[test]
    fn a_group_outside_of_the_namespace_sets_no_quota() {
        let root = Root::new().v2("/../b").with("sys/fs/b/cpu.max", "50000 100000\n");
        assert_eq!(quota(&root.0), None);
    }

    #[test]
    fn nonsense_in_cpu_max_is_no_quota() {
        for text in ["", "\n", "x y", "-1 100000", "100000", "100000 0", "0 100000"] {
            let root = Root::new().v2("/").with("sys/fs/cgroup/cpu.max", text);
            assert_eq!(quota(&root.0), None, "{text:?}");
        }
    }

    #[test]
    fn the_quota_of_cgroup_v1_counts() {
        let root = Root::new().v1("/a/b", "/").v1_limit("/a/b", "-1").v1_limit("/a", "250000");
        assert_eq!(quota(&root.0), Some(2.5));
    }

    #[test]
    fn a_container_that_sees_only_its_own_group_finds_its_quota() {
        let root = Root::new().v1("/docker/1f", "/docker/1f").v1_limit("", "50000");
        assert_eq!(quota(&root.0), Some(0.5));
    }

    #[test]
    fn a_mount_of_somebody_elses_group_sets_no_quota() {
        let root = Root::new().v1("/docker/1f", "/docker/2e").v1_limit("", "50000");
        assert_eq!(quota(&root.0), None);
    }

    #[test]
    fn each_core_comes_before_its_second_thread() {
        let mut root = Root::new();
        for core in 0..3 {
            let list = format!("{core},{}", core + 3);
            root = root.siblings(core, &list).siblings(core + 3, &list);
        }
        assert_eq!(order(&[0, 1, 2, 3, 4, 5], &root.0), [0, 1, 2, 3, 4, 5]);
        assert_eq!(order(&[0, 3, 1, 4], &root.0), [0, 1, 3, 4]);
        assert_eq!((physical(&[0, 3, 1, 4], &root.0), physical(&[3, 4, 5], &root.0)), (2, 3));
        assert_eq!(order(&[3, 4, 5], &root.0), [3, 4, 5]);
    }

    #[test]
    fn neighbours_of_one_core_are_pulled_apart() {
        let root =
            Root::new().siblings(0, "0-1").siblings(1, "0-1").siblings(2, "2-3").siblings(3, "2-3");
        assert_eq!(order(&[0, 1, 2, 3], &root.0), [0, 2, 1, 3]);
    }

    #[test]
    fn four_threads_of_one_core_are_used_in_turn() {
        let mut root = Root::new();
        for cpu in 0..8 {
            root = root.siblings(cpu, if cpu < 4 { "0-3" } else { "4-7" });
        }
        assert_eq!(order(&[0, 1, 2, 3, 4, 5, 6, 7], &root.0), [0, 4, 1, 5, 2, 6, 3, 7]);
    }

    #[test]
    fn an_unknown_topology_keeps_the_order() {
        let root = Root::new().siblings(7, "what");
        assert_eq!(order(&[7, 2, 5], &root.0), [7, 2, 5]);
    }

    #[test]
    fn a_list_has_ranges_and_single_numbers() {
        assert_eq!(parse_list("0-3,8\n"), Some(vec![0..=3, 8..=8]));
        assert_eq!(parse_list("5"), Some(vec![5..=5]));
        assert_eq!(parse_list(""), None);
        assert_eq!(parse_list("1-"), None);
    }

    #[test]
    fn a_quota_is_rounded_up_and_never_exceeds_the_mask() {
        for (cpu_max, count) in
            [("1000", 1), ("100000", 1), ("100001", 2), ("9999999", 4), ("max", 4)]
        {
            let text = format!("{cpu_max} 100000\n");
            let root = Root::new().v2("/").with("sys/fs/cgroup/cpu.max", &text);
            assert_eq!(choose_among(&[0, 1, 2, 3], None, &root.0).len(), count, "{cpu_max}");
        }
    }

    #[test]
    fn whoever_asks_for_a_number_of_cores_gets_it() {
        let root = Root::new().v2("/").with("sys/fs/cgroup/cpu.max", "100000 100000\n");
        assert_eq!(choose_among(&[4, 6], Some(2), &root.0), [4, 6]);
        assert_eq!(choose_among(&[4, 6], Some(5), &root.0), [4, 6, 4, 6, 4]);
    }

    #[test]
    #[should_panic(expected = "ask for 1 or more")]
    fn no_core_at_all_is_a_mistake() {
        choose_among(&[0], Some(0), Path::new("/"));
    }

    #[test]
    fn bits_of_every_word_of_the_mask_count() {
        let mut mask: [c_ulong; 3] = [1, 0, 0];
        mask[2] = 1 << 5;
        assert_eq!(set_bits(&mask), [0, 2 * c_ulong::BITS as usize + 5]);
    }

    #[test]
    fn a_thread_that_narrows_its_mask_is_pinned() {
        // A thread of its own: the mask of a thread that runs other tests stays as it is.
        let pinned = thread::spawn(|| {
            let cpu = *allowed().unwrap().last().unwrap();
            let mut mask: Vec<c_ulong> = vec![0; cpu / c_ulong::BITS as usize + 1];
            mask[cpu / c_ulong::BITS as usize] = 1 << (cpu % c_ulong::BITS as usize);
            let bytes = size_of_val(mask.as_slice());
            // SAFETY: `mask` is `bytes` long and outlives the call, which only reads it.
            let failed = unsafe { libc::sched_setaffinity(0, bytes, mask.as_ptr().cast()) } != 0;
            assert!(!failed, "{}", io::Error::last_os_error());
            (verify_pinned(cpu).unwrap(), verify_pinned(cpu + 1).unwrap(), choose(None).unwrap())
        });
        let (here, elsewhere, chosen) = pinned.join().unwrap();
        assert!(here && !elsewhere);
        assert_eq!(chosen.len(), 1);
    }

    #[test]
    fn this_machine_offers_at_least_one_cpu() {
        let chosen = choose(None).unwrap();
        assert!(!chosen.is_empty());
        assert!(chosen.iter().all(|cpu| allowed().unwrap().contains(cpu)));
    }
}
