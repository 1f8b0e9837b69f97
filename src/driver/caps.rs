//! What a kernel can do beyond the least that Quoit needs, by name, and masks that take some away.
//!
//! Every capability is found once, when a ring is opened, and each has a fallback within the
//! drivers: no operation asks. A mask is for tests. It names a kernel, and takes away what came
//! later, or single capabilities; it gives nothing that the kernel lacks.

use std::fmt;
use std::io;
use std::str::FromStr;

/// One capability of io_uring, for reports.
///
/// ```
/// for capability in quoit::driver::caps()? {
///     let mark = if capability.present { "yes" } else { "no" };
///     println!("{:<18} {mark:<4} kernel {}", capability.name, capability.since);
/// }
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capability {
    /// What it is called, here and in `QUOIT_CAPS`.
    pub name: &'static str,
    /// The first kernel that has it, unless a distribution has brought it to an older one.
    pub since: &'static str,
    /// Whether the kernel has it and no mask has taken it away.
    pub present: bool,
    /// What is done, or lost, without it.
    pub without: &'static str,
}

/// The capabilities, in the order of [`TABLE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Cap {
    ExtArg,
    TimeoutUpdate,
    MultishotPoll,
    IowqMax,
    CqeSkip,
    SubmitAll,
    RegisteredRingFd,
    MsgRing,
    CoopTaskrun,
    Pbuf,
    MultishotAccept,
    FixedFiles,
    CancelAny,
    SingleIssuer,
    MultishotRecv,
    SendZc,
    SyncCancel,
    DeferTaskrun,
    SendTo,
    SendCount,
    NoSqarray,
    ExtArgAbs,
    MinWait,
    NoIowait,
}

/// Name, first kernel, and what is done or lost without it; in the order of [`Cap`].
const TABLE: [(Cap, &str, &str, &str); 24] = [
    (Cap::ExtArg, "ext-arg", "5.11", "a wait's deadline is a TIMEOUT request"),
    (Cap::TimeoutUpdate, "timeout-update", "5.11", "a deadline is removed and made anew"),
    (Cap::MultishotPoll, "multishot-poll", "5.13", "each wake from another thread costs a read"),
    (Cap::IowqMax, "iowq-max", "5.15", "the kernel alone bounds its worker threads"),
    (Cap::CqeSkip, "cqe-skip", "5.17", "nothing: it is not used"),
    (Cap::SubmitAll, "submit-all", "5.18", "a request that is refused ends its batch"),
    (Cap::RegisteredRingFd, "ring-fd", "5.18", "each enter looks the ring's descriptor up"),
    (Cap::MsgRing, "msg-ring", "5.18", "nothing: it is not used"),
    (Cap::CoopTaskrun, "coop-taskrun", "5.19", "completions interrupt the thread"),
    (Cap::Pbuf, "pbuf", "5.19", "a receive polls first, then takes a buffer of the pool"),
    (Cap::MultishotAccept, "multishot-accept", "5.19", "each connection costs a request"),
    (Cap::FixedFiles, "fixed-files", "5.19", "each send counts its descriptor's file"),
    (Cap::CancelAny, "cancel-any", "5.19", "nothing: it is not used"),
    (Cap::SingleIssuer, "single-issuer", "6.0", "the kernel does not know the ring's one thread"),
    (Cap::MultishotRecv, "multishot-recv", "6.0", "each receive costs a request"),
    (Cap::SendZc, "send-zc", "6.0", "a send without a copy is one with a copy"),
    (Cap::SyncCancel, "sync-cancel", "6.0", "nothing: it is not used"),
    (Cap::DeferTaskrun, "defer-taskrun", "6.1", "completions run outside of the enter as well"),
    (Cap::SendTo, "send-to", "6.1", "a datagram to an address has a header, which is copied"),
    (Cap::SendCount, "send-count", "6.1", "a long send is a request for each piece that fits"),
    (Cap::NoSqarray, "no-sqarray", "6.6", "each request goes through an array of indices"),
    (Cap::ExtArgAbs, "ext-arg-abs", "6.12", "a wait's deadline is relative to a clock read before"),
    (Cap::MinWait, "min-wait", "6.12", "each sleep ends with the first answer"),
    (Cap::NoIowait, "no-iowait", "6.15", "an idle core is accounted as waiting for a disk"),
];

const _: () = {
    let mut index = 0;
    while index < TABLE.len() {
        assert!(TABLE[index].0 as usize == index, "the table is in the order of the enum");
        index += 1;
    }
};

/// The kernels that a mask can name, each with the last opcode that it knows.
const KERNELS: [(&str, u8); 7] =
    [("5.10", 33), ("5.15", 39), ("5.19", 46), ("6.0", 47), ("6.1", 48), ("6.6", 48), ("6.12", 57)];

/// A set of capabilities.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caps(u32);

impl Caps {
    pub(crate) const ALL: Caps = Caps((1 << TABLE.len()) - 1);

    #[inline]
    pub(crate) fn has(self, cap: Cap) -> bool {
        self.0 & 1 << cap as u32 != 0
    }

    pub(crate) fn set(&mut self, cap: Cap, present: bool) {
        self.0 &= !(1 << cap as u32);
        self.0 |= u32::from(present) << cap as u32;
    }

    pub(crate) fn and(self, other: Caps) -> Caps {
        Caps(self.0 & other.0)
    }

    /// The list that people read.
    pub(crate) fn list(self) -> Vec<Capability> {
        let row = |&(cap, name, since, without)| {
            let present = self.has(cap);
            Capability { name, since, present, without }
        };
        TABLE.iter().map(row).collect()
    }
}

impl fmt::Debug for Caps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let present = TABLE.iter().filter(|row| self.has(row.0));
        f.debug_set().entries(present.map(|row| row.1)).finish()
    }
}

/// The first kernel that has `cap`.
pub(crate) fn since(cap: Cap) -> &'static str {
    TABLE[cap as usize].2
}

/// What is left of a kernel, for tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mask {
    pub(crate) allowed: Caps,
    /// Requests with higher numbers are unknown.
    pub(crate) last_opcode: u8,
    /// The ring permits only what Quoit uses, and the kernel refuses everything else.
    pub(crate) restricted: bool,
}

impl Default for Mask {
    fn default() -> Self {
        Mask { allowed: Caps::ALL, last_opcode: u8::MAX, restricted: false }
    }
}

impl Mask {
    /// What `QUOIT_CAPS` says; nothing is taken away if it says nothing.
    pub(crate) fn of_the_environment() -> Result<Mask, UnknownCaps> {
        match std::env::var_os("QUOIT_CAPS") {
            Some(text) => text.to_string_lossy().parse(),
            None => Ok(Mask::default()),
        }
    }

    fn kernel(&mut self, kernel: &str, last_opcode: u8) {
        for &(cap, _, since, _) in &TABLE {
            if version(since) > version(kernel) {
                self.allowed.set(cap, false);
            }
        }
        self.last_opcode = self.last_opcode.min(last_opcode);
    }
}

impl FromStr for Mask {
    type Err = UnknownCaps;

    fn from_str(text: &str) -> Result<Self, UnknownCaps> {
        let mut mask = Mask::default();
        for word in text.split(',').map(str::trim) {
            let capability = |&&(_, name, ..): &&(Cap, &str, &str, &str)| {
                word.strip_prefix("no-").is_some_and(|rest| rest == name)
            };
            if let Some(&(kernel, last_opcode)) = KERNELS.iter().find(|(name, _)| *name == word) {
                mask.kernel(kernel, last_opcode);
            } else if let Some(row) = TABLE.iter().find(capability) {
                mask.allowed.set(row.0, false);
            } else if word == "restricted" {
                mask.restricted = true;
            } else if word != "none" {
                return Err(UnknownCaps(word.to_owned()));
            }
        }
        Ok(mask)
    }
}

/// `6.12` is later than `6.6`.
fn version(text: &str) -> (u32, u32) {
    let number = |text: &str| text.parse().expect("a kernel's name has two numbers");
    let (major, minor) = text.split_once('.').expect("a kernel's name has two numbers");
    (number(major), number(minor))
}

/// A word of a mask that names neither a kernel nor a capability.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownCaps(String);

impl fmt::Display for UnknownCaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` takes no capability away: choose none, restricted", self.0)?;
        KERNELS.iter().try_for_each(|(name, _)| write!(f, ", {name}"))?;
        TABLE.iter().try_for_each(|(_, name, ..)| write!(f, ", no-{name}"))
    }
}

impl std::error::Error for UnknownCaps {}

impl From<UnknownCaps> for io::Error {
    fn from(unknown: UnknownCaps) -> Self {
        io::Error::new(io::ErrorKind::InvalidInput, unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(text: &str) -> Mask {
        text.parse().unwrap()
    }

    #[test]
    fn a_kernel_takes_away_what_came_after_it() {
        let old = mask("5.10");
        assert_eq!((old.allowed, old.last_opcode), (Caps(0), 33));
        let allowed = mask("5.19").allowed;
        assert!(allowed.has(Cap::Pbuf) && allowed.has(Cap::ExtArg));
        assert!(!allowed.has(Cap::MultishotRecv) && !allowed.has(Cap::NoIowait));
        let allowed = mask("6.12").allowed;
        assert!(allowed.has(Cap::ExtArgAbs) && !allowed.has(Cap::NoIowait), "{allowed:?}");
        assert!(!mask("6.6").allowed.has(Cap::ExtArgAbs), "6.12 is later than 6.6");
        assert_eq!(mask("none"), Mask::default());
    }

    #[test]
    fn words_add_up_and_only_take_away() {
        let mask = mask("6.1, no-pbuf,no-no-sqarray,restricted,none");
        assert!(mask.restricted && mask.allowed.has(Cap::MultishotRecv));
        assert!(!mask.allowed.has(Cap::Pbuf) && !mask.allowed.has(Cap::NoSqarray));
        assert_eq!(mask.last_opcode, 48);
        let mut kernel = Caps::ALL;
        kernel.set(Cap::MultishotRecv, false);
        assert!(!kernel.and(mask.allowed).has(Cap::MultishotRecv), "a mask gives nothing");
    }

    #[test]
    fn each_capability_can_be_taken_away_alone() {
        for capability in Caps::ALL.list() {
            let left = mask(&format!("no-{}", capability.name)).allowed.list();
            let gone: Vec<_> = left.iter().filter(|other| !other.present).collect();
            assert_eq!(gone.len(), 1);
            assert_eq!(gone[0].name, capability.name);
        }
    }

    #[test]
    fn an_unknown_word_is_answered_with_the_known_ones() {
        for text in ["5.9", "no-wifi", "pbuf", "", "6.1,,none", "6.18"] {
            let unknown = text.parse::<Mask>().unwrap_err().to_string();
            for known in ["none", "restricted", "5.10", "6.12", "no-pbuf", "no-msg-ring"] {
                assert!(unknown.contains(known), "{unknown}");
            }
        }
    }
}
