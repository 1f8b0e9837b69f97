#!/usr/bin/env bash
# Proof that the simulator sees: bugs that are known are planted in the runtime, one in each build, and
# each has to be found. The plants stand behind `#[cfg(canary = "..")]` at the places where such bugs
# would be; first the same seeds have to pass without one. Bugs that believe what a kernel says are for
# the kernel that lies (`tests/it/fuzz_cqe.rs`), which the simulator does not.
#
#   scripts/canaries.sh            up to 10,000 seeds for each; without a bug, 1,000
#   scripts/canaries.sh 200        up to 200 seeds
#   scripts/canaries.sh 200 no-generation lost-bytes
#   scripts/canaries.sh 200 believed-count
#
# It prints at which seed each was found, and with which words. The exit status is 1 if one was not.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

SEEDS="${1:-10000}"
SOUND=$((SEEDS < 1000 ? SEEDS : 1000))
NAMES=("${@:2}")
# The names that the manifest knows.
mapfile -t ALL < <(grep -oP 'cfg\(canary, values\(\K[^)]*' Cargo.toml | grep -oP '"\K[^",]+(?=")')
mapfile -t LIES < <(printf '%s\n' "${ALL[@]}" | grep -E '^believed-')
if ((${#NAMES[@]} == 0)); then
    NAMES=("${ALL[@]}")
fi

# Whether $1 is among the others.
among() {
    printf '%s\n' "${@:2}" | grep -qxF -- "$1"
}

TARGET="${CARGO_TARGET_DIR:-target}/canaries"
LOG=$(mktemp)
trap 'rm -f "$LOG"' EXIT

# Builds the programs with the flags $2 in the directory $1, and leaves the path of `seeds` in $bin.
build() {
    local dir="$TARGET/$1"
    RUSTFLAGS="$2" cargo build --quiet --release --manifest-path fuzz/Cargo.toml --bin seeds \
        --target-dir "$dir"
    bin="$dir/release/seeds"
}

# Runs the kernel that lies against the flags $2 in the directory $1.
lie() {
    RUSTFLAGS="$2" RUST_BACKTRACE=0 timeout 1800 cargo test --quiet --test it \
        --target-dir "$TARGET/lies-$1" fuzz_cqe >"$LOG" 2>&1
}

build sound ""
printf '%-28s ' "without a bug"
if ! RUST_BACKTRACE=0 timeout 1800 "$bin" "$SOUND" >"$LOG" 2>&1; then
    printf 'FAILED\n'
    tail -n 20 "$LOG"
    exit 1
fi
printf '%d seeds pass\n' "$SOUND"
if ! lie sound ""; then
    printf 'the kernel that lies was not survived\n'
    tail -n 20 "$LOG"
    exit 1
fi

missed=0
for name in "${NAMES[@]}"; do
    if among "$name" "${LIES[@]}"; then
        printf '%-28s ' "$name (lies)"
        if lie "$name" "--cfg canary=\"$name\""; then
            printf 'NOT FOUND\n'
            missed=$((missed + 1))
        else
            grep -m 1 -A 1 'panicked at\|signal' "$LOG" | tail -n 1
        fi
        continue
    fi
    build "$name" "--cfg canary=\"$name\""
    printf '%-28s ' "$name"
    status=0
    RUST_BACKTRACE=0 timeout 1800 "$bin" "$SEEDS" >"$LOG" 2>&1 || status=$?
    if ((status == 0 || status == 124)); then
        printf 'NOT FOUND\n'
        missed=$((missed + 1))
        continue
    fi
    if grep -q '^FAILED' "$LOG"; then
        sed -n '/^FAILED/,$p' "$LOG" | sed -e 's/^FAILED //' -e '2,$s/^/                             /' |
            head -n 2
    else
        # It died: the last line of its own says of what.
        printf '%s: exit status %d\n' "$(grep '^seed ' "$LOG" | tail -n 1)" "$status"
        grep -v '^seed ' "$LOG" | head -n 4 | sed 's/^/                             /'
    fi
done
if ((missed > 0)); then
    printf '%d of %d bugs were not found\n' "$missed" "${#NAMES[@]}"
    exit 1
fi
printf 'all %d bugs were found\n' "${#NAMES[@]}"
