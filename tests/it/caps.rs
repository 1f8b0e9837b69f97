//! What the kernel is found to be able to do.

use quoit::driver::{Capability, caps};

use crate::support::is_masked;

/// `6.12.94-amd64` is 6.12.
fn version(text: &str) -> (u32, u32) {
    let mut numbers = text.split(|other: char| !other.is_ascii_digit());
    let mut next = || numbers.next().and_then(|digits| digits.parse().ok());
    (next().expect("a major number"), next().expect("a minor number"))
}

#[test]
fn a_kernel_is_found_to_have_what_came_before_it() {
    if is_masked() {
        return;
    }
    let running = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let caps = caps().unwrap();
    let name = |cap: &Capability| cap.name;
    let lacking: Vec<_> = caps.iter().filter(|cap| !cap.present).map(name).collect();
    // For scripts/kernels.sh.
    println!(
        "\n@ lacks {}",
        if lacking.is_empty() { "nothing".into() } else { lacking.join(", ") }
    );
    // Distributions bring capabilities to older kernels, but none takes one away.
    for cap in caps.iter().filter(|cap| version(cap.since) <= version(&running)) {
        assert!(cap.present, "{} is there since {}, but not in {running}", cap.name, cap.since);
    }
}
