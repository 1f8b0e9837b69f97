//! What the kernel is found to be able to do.

use quoit::driver::{Capability, caps};

use crate::support::{is_masked, kernel, version};

#[test]
fn a_kernel_is_found_to_have_what_came_before_it() {
    if is_masked() {
        return;
    }
    let running = kernel();
    let caps = caps().unwrap();
    let name = |cap: &Capability| cap.name;
    let lacking: Vec<_> = caps.iter().filter(|cap| !cap.present).map(name).collect();
    // For scripts/kernels.sh.
    println!(
        "\n@ lacks {}",
        if lacking.is_empty() { "nothing".into() } else { lacking.join(", ") }
    );
    // Distributions bring capabilities to older kernels, but none takes one away.
    for cap in caps.iter().filter(|cap| version(cap.since) <= running) {
        assert!(cap.present, "{} is there since {}, but not in {running:?}", cap.name, cap.since);
    }
}
