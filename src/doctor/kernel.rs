//! The kernel, and the troubles that were reported of its like.

use std::fmt;
use std::path::Path;

use super::json::Json;
use crate::sys::facts::Facts;

/// A range of kernels of which a trouble was reported.
#[derive(Debug, PartialEq)]
struct Trouble {
    /// The first kernel of the range, and the first after it; both as three numbers.
    from: [u32; 3],
    before: [u32; 3],
    what: &'static str,
    source: &'static str,
}

/// What was reported, with where. A distribution may have mended its own kernel long ago.
const TROUBLES: [Trouble; 7] = [
    Trouble {
        from: [0, 0, 0],
        before: [6, 6, 86],
        what: "io_uring_enter says ENOMEM under load (mended in 6.6.86); Quoit tries again, and \
               counts it",
        source: "https://github.com/scylladb/seastar/issues/2728",
    },
    Trouble {
        from: [6, 7, 0],
        before: [6, 12, 21],
        what: "io_uring_enter says ENOMEM under load (mended in 6.12.21); Quoit tries again, and \
               counts it",
        source: "https://github.com/scylladb/seastar/issues/2728",
    },
    Trouble {
        from: [6, 13, 0],
        before: [6, 14, 0],
        what: "io_uring_enter says ENOMEM under load (mended in 6.14); Quoit tries again, and \
               counts it",
        source: "https://github.com/scylladb/seastar/issues/2728",
    },
    Trouble {
        from: [5, 15, 70],
        before: [5, 16, 0],
        what: "processes hang (reported from 5.15.70 on)",
        source: "https://github.com/lxc/lxc/issues/4256",
    },
    Trouble {
        from: [6, 1, 115],
        before: [6, 1, 116],
        what: "processes hang in the kernel and cannot be killed (D state)",
        source: "https://github.com/axboe/liburing/issues/1289",
    },
    Trouble {
        from: [6, 4, 0],
        before: [6, 6, 5],
        what: "buffer rings that the kernel maps are used after they were freed (CVE-2024-0582, a \
               way to root); Quoit maps none, other programs may",
        source: "https://openwall.com/lists/oss-security/2024/04/24/3",
    },
    Trouble {
        from: [6, 6, 0],
        before: [6, 9, 0],
        what: "an accept names the wrong descriptor on a ring with DEFER_TASKRUN",
        source: "https://github.com/axboe/liburing/issues/1062",
    },
];

/// Which kernel it is.
#[derive(Debug)]
pub(super) struct Kernel {
    release: Option<String>,
    troubles: Vec<&'static Trouble>,
}

impl Kernel {
    pub(super) fn read(root: &Path) -> Self {
        let release = Facts::read(root).release;
        let troubles = release.as_deref().map_or(Vec::new(), troubles_of);
        Kernel { release, troubles }
    }

    pub(super) fn json(&self) -> Json {
        let trouble = |trouble: &&Trouble| {
            Json::Object(vec![
                ("what", Json::text(trouble.what)),
                ("source", Json::text(trouble.source)),
            ])
        };
        Json::Object(vec![
            ("release", Json::maybe(self.release.as_deref(), Json::text)),
            ("architecture", Json::text(std::env::consts::ARCH)),
            ("troubles", Json::list(&self.troubles, trouble)),
        ])
    }
}

/// What was reported of kernels with the number at the beginning of `release`.
fn troubles_of(release: &str) -> Vec<&'static Trouble> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|text| text.parse().ok());
    let (Some(Some(major)), Some(Some(minor))) = (numbers.next(), numbers.next()) else {
        return Vec::new();
    };
    let version = [major, minor, numbers.next().flatten().unwrap_or(0)];
    TROUBLES.iter().filter(|it| (it.from..it.before).contains(&version)).collect()
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let release = self.release.as_deref().unwrap_or("of an unknown release");
        writeln!(f, "kernel {release}, {}", std::env::consts::ARCH)?;
        for Trouble { what, source, .. } in &self.troubles {
            writeln!(f, "  reported of its like: {what}; {source}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(release: &str) -> Vec<&'static str> {
        let end = |it: &&Trouble| it.source.rsplit('/').next().unwrap();
        troubles_of(release).iter().map(end).collect()
    }

    #[test]
    fn a_release_is_looked_up_by_its_three_numbers() {
        assert_eq!(sources("6.18.44-fc-v769"), [""; 0]);
        assert_eq!(sources("6.6.86"), ["1062"]);
        assert_eq!(sources("6.6.4-arch1-1"), ["2728", "3", "1062"]);
        assert_eq!(sources("6.6.5"), ["2728", "1062"]);
        assert_eq!(sources("5.15.0-91-generic"), ["2728"]);
        assert_eq!(sources("5.15.70"), ["2728", "4256"]);
        assert_eq!(sources("6.1.115"), ["2728", "1289"]);
        assert_eq!(sources("6.12.20"), ["2728"]);
        assert_eq!(sources("6.12.21"), [""; 0]);
        assert_eq!(sources("6.13-rc1"), ["2728"]);
        assert_eq!(sources("6.14.0"), [""; 0]);
    }

    #[test]
    fn a_release_that_is_no_number_has_no_troubles() {
        for release in ["", "linux", "6", "6.x"] {
            assert_eq!(sources(release), [""; 0], "{release}");
        }
    }

    #[test]
    fn each_range_ends_after_it_begins() {
        assert!(TROUBLES.iter().all(|it| it.from < it.before));
    }
}
