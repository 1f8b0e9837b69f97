//! A program and its faults, chosen by bytes: `cargo +nightly fuzz run program`, or, without a fuzzer,
//! every file that the arguments name once.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quoit_fuzz::survive(bytes));

#[cfg(not(fuzzing))]
fn main() -> std::io::Result<()> {
    for path in std::env::args_os().skip(1) {
        println!("{}", path.display());
        quoit_fuzz::survive(&std::fs::read(path)?);
    }
    Ok(())
}
