#!/usr/bin/env bash
# All of CI: what passes here passes there. It stops at the first step that fails.
#
#   scripts/ci.sh                         every step, in the order of the list
#   scripts/ci.sh fmt clippy              only these
#   scripts/ci.sh --without test-debug    every step but this one; may be repeated
#   scripts/ci.sh --list                  the steps, and what each is for
#
# CI_STEP_LIMIT_S ends a command that hangs (900 seconds unless set).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

STEPS=(
    "fmt           the formatting of every file"
    "clippy        lints of every target, with the default and with all features"
    "doc           the documentation builds and its links lead somewhere"
    "test-debug    unit, integration and documentation tests"
    "masks         the integration tests on what is left of io_uring under each mask"
    "test-release  the same with optimizations and all features"
    "examples      every example is run for real, and what it answers is checked"
    "asan          unit and integration tests under AddressSanitizer, leaks included"
    "tsan          what two threads touch, under ThreadSanitizer"
    "fuzz          answers that lie, from bytes, under AddressSanitizer"
    "refused       what must not compile, with the compiler's reasons"
    "loom          every interleaving of what another thread can reach"
    "canaries      the simulator finds each bug that is planted, and none without one"
    "peers         the benchmark programs of other runtimes still compile"
)

TARGET_DIR="${CARGO_TARGET_DIR:-target}"
HOST=x86_64-unknown-linux-gnu

step_fmt() {
    run cargo fmt --check --all
    if [[ -f benches/peers/Cargo.toml ]]; then
        run cargo fmt --check --all --manifest-path benches/peers/Cargo.toml
    fi
    run cargo fmt --check --manifest-path fuzz/Cargo.toml
}

step_clippy() {
    run cargo clippy --all-targets -- -D warnings
    run cargo clippy --all-targets --all-features -- -D warnings
}

step_doc() {
    run env RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --all-features
}

step_test-debug() {
    run cargo test
}

# A slice, of the oldest kernel, and of what a filter leaves the tests in which every operation is asked
# for; scripts/scorecard.sh runs all. The tests that run on every driver run under all masks anyway.
step_masks() {
    local mask
    for mask in ${QUOIT_MASKS:-5.10}; do
        run env QUOIT_CAPS="$mask" cargo test --test it
    done
    run env QUOIT_CAPS=restricted cargo test --test it -- \
        accept connect listener fs:: pipes:: poll_fd:: process:: receive send signals:: tcp:: time:: \
        udp:: unix zero_copy
}

# As optimised as what is shipped, but in parts, side by side: as one, the tests take minutes to build.
# What the frames of a panic need is in the debug build.
IN_PARTS=(env CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_LTO=off
    CARGO_PROFILE_RELEASE_DEBUG=0)

step_test-release() {
    run "${IN_PARTS[@]}" cargo test --release --all-features
}

step_examples() {
    run "${IN_PARTS[@]}" scripts/examples.sh
    if command -v curl >/dev/null && command -v python3 >/dev/null; then
        run "${IN_PARTS[@]}" scripts/clients.sh 32
    else
        echo "curl or python3 is not installed: scripts/clients.sh is left out"
    fi
}

# RUSTC_BOOTSTRAP lets the stable compiler take -Z. The explicit --target keeps build scripts and
# procedural macros uninstrumented.
step_asan() {
    run env RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address" \
        CARGO_TARGET_DIR="$TARGET_DIR/asan" ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=1}" \
        cargo test --target "$HOST" --lib --test it
}

# Unit tests of what another thread can reach, and the tests in which threads wake, send, drop, stop.
TSAN_LIB=(task:: driver::unpark time:: op:: sys:: runtime::)
TSAN_IT=(runtime:: task:: words:: foreign_loop:: scorecard_core::waker_ends scorecard_core::wakes
    scorecard_core::shutdown time::a_sleep_is_dropped_on_another time::a_callback_is_cancelled_from)

# std is not instrumented here, so its locks and counts are explained (scripts/tsan.c) rather than
# suppressed. What a forked child does is left out: the sanitizer may hang in one that goes on.
step_tsan() {
    local here=$PWD dir="$TARGET_DIR/tsan" std lock wait timed
    std=$(rustc --print sysroot)/lib/rustlib/$HOST/lib
    lock=$(std_symbol "$std" 'sync5mutex5futex.*Mutex14lock_contended$')
    wait=$(std_symbol "$std" 'sync7condvar5futex.*Condvar4wait$')
    timed=$(std_symbol "$std" 'sync7condvar5futex.*Condvar12wait_timeout$')
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd)
    run cc -O2 -c -DLOCK_CONTENDED="$lock" -DCONDVAR_WAIT="$wait" \
        -DCONDVAR_WAIT_TIMEOUT="$timed" -o "$dir/std.o" scripts/tsan.c
    local flags="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer -Clink-arg=$dir/std.o" name
    for name in __tsan_atomic64_fetch_sub "$lock" "$wait" "$timed"; do
        flags+=" -Clink-arg=-Wl,--wrap=$name"
    done
    # To print the frames of a panic, std hands its cache from thread to thread, unseen as well.
    local tsan=(env RUST_BACKTRACE=0 RUSTC_BOOTSTRAP=1 RUSTFLAGS="$flags" CARGO_TARGET_DIR="$dir"
        TSAN_OPTIONS="suppressions=$here/scripts/tsan.supp ${TSAN_OPTIONS:-}"
        cargo test --target "$HOST")
    # Captured output would be a Vec that std writes to under its own lock.
    run "${tsan[@]}" --lib -- --nocapture "${TSAN_LIB[@]}"
    run "${tsan[@]}" --test it -- --nocapture --skip fork "${TSAN_IT[@]}"
}

# The one symbol of the standard library in the directory $1 that matches $2.
std_symbol() {
    local found
    found=$(nm -D --defined-only "$1"/libstd-*.so | awk '{print $3}' | grep -E "$2" || true)
    if [[ -z "$found" || "$found" == *$'\n'* ]]; then
        echo "std has not one symbol like $2 but these: ${found:-none}; mend scripts/tsan.c" >&2
        return 1
    fi
    printf '%s\n' "$found"
}

# The harness is in tests/fuzz, where cargo-fuzz finds it too; here seeds make the bytes.
step_fuzz() {
    run env RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address" CARGO_TARGET_DIR="$TARGET_DIR/asan" \
        QUOIT_SEEDS="${QUOIT_SEEDS:-2500}" cargo test --target "$HOST" --test it fuzz_cqe
}

# Outside of a nightly compiler rustdoc looks at the codes of the errors only when it is told to. It
# alone is told: the dependencies would be built once more.
step_refused() {
    local rustdoc
    mkdir -p "$TARGET_DIR"
    rustdoc=$(cd "$TARGET_DIR" && pwd)/rustdoc-with-codes
    printf '#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec rustdoc "$@"\n' >"$rustdoc"
    chmod +x "$rustdoc"
    run env RUSTDOC="$rustdoc" cargo test --doc refused
}

# The bound on preemptions keeps the models finite in practice: nearly every known bug needs at most 2.
# The models need an optimizer, but not the release profile's slow last mile.
step_loom() {
    if ! grep -rqE 'fn loom_' src; then
        echo "src holds no model: nothing to check"
        return
    fi
    local loom=(env RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR="$TARGET_DIR/loom"
        CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
        LOOM_MAX_PREEMPTIONS="${LOOM_MAX_PREEMPTIONS:-3}" cargo test --release --lib loom_)
    local listed
    listed=$(run "${loom[@]}" -- --list)
    if ! grep -q ': test$' <<<"$listed"; then
        echo "src names models (fn loom_..), but none is compiled under --cfg loom" >&2
        return 1
    fi
    run "${loom[@]}"
}

# The one that hides best is found within a hundred seeds.
step_canaries() {
    run env CARGO_TARGET_DIR="$TARGET_DIR/canaries" \
        cargo clippy --manifest-path fuzz/Cargo.toml --all-targets -- -D warnings
    run scripts/canaries.sh 1000
}

step_peers() {
    if [[ ! -f benches/peers/Cargo.toml ]]; then
        echo "benches/peers has no manifest: nothing to check"
        return
    fi
    run env CARGO_TARGET_DIR="$TARGET_DIR/peers" \
        cargo clippy --manifest-path benches/peers/Cargo.toml --all-targets -- -D warnings
}

# Shows a command on stderr and runs it under the time limit. With a terminal the command stays in
# the foreground, so that Ctrl-C reaches it.
run() {
    local limit=(timeout --kill-after=10 "${CI_STEP_LIMIT_S:-900}")
    if [[ -t 0 ]]; then
        limit+=(--foreground)
    fi
    printf '+ %s\n' "$*" >&2
    "${limit[@]}" "$@"
}

names() {
    printf '%s\n' "${STEPS[@]%% *}"
}

# Ends the script unless $1 names a step.
known() {
    if ! names | grep -qxF -- "$1"; then
        printf 'no step is called "%s"; the steps are: %s\n' "$1" "$(names | paste -sd ' ')" >&2
        exit 2
    fi
}

wanted=()
without=()
while (($# > 0)); do
    case "$1" in
        --list)
            printf '%s\n' "${STEPS[@]}"
            exit 0
            ;;
        --without)
            known "${2:-}"
            without+=("$2")
            shift 2
            ;;
        *)
            known "$1"
            wanted+=("$1")
            shift
            ;;
    esac
done
if ((${#wanted[@]} == 0)); then
    mapfile -t wanted < <(names)
fi

times=()
current=""
passed=0

# Runs however the script ends: the step that was running is the one that failed.
summary() {
    local status=$? failed=0
    if [[ -n "$current" ]]; then
        failed=1
        times+=("$(printf '%-14s %5d s  FAILED' "$current" $((SECONDS - started)))")
    fi
    printf '\n'
    if ((status == 124)); then
        printf 'a command ran for more than %s s and was ended\n' "${CI_STEP_LIMIT_S:-900}"
    fi
    if ((${#times[@]} > 0)); then
        printf '%s\n' "${times[@]}"
    fi
    printf 'all together   %5d s\n' "$SECONDS"
    printf 'steps: %d passed, %d failed\n' "$passed" "$failed"
    exit "$status"
}
trap summary EXIT

for name in "${wanted[@]}"; do
    for skipped in ${without[@]+"${without[@]}"}; do
        if [[ "$name" == "$skipped" ]]; then
            continue 2
        fi
    done
    printf '\n== %s\n' "$name"
    current=$name
    started=$SECONDS
    "step_$name"
    times+=("$(printf '%-14s %5d s' "$name" $((SECONDS - started)))")
    current=""
    passed=$((passed + 1))
done
