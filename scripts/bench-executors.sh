#!/usr/bin/env bash
# Measures the executors of quoit, tokio, monoio, glommio and compio, and what goes with them: channels,
# timers, blocking work. Builds them, which takes minutes; then about two minutes.
#
#   scripts/bench-executors.sh                 all cells
#   scripts/bench-executors.sh spawn oneshot   these
#   ROUNDS=15 scripts/bench-executors.sh       how much is measured (7 rounds)
#
#   spawn        a task, and the wait for its end       batch       1,000 of them, then the waits
#   yield-1      a wake and a poll, of one task         yield-1000  of a thousand in turns
#   channel      a message there and one back, through channels for one message
#   oneshot      a channel for one value: made, sent, received
#   timer-churn  a sleep of an hour that is made, polled, and dropped
#   sleeps       200,000 sleeps of an hour, each in a task of its own
#   blocking     a call on another thread, and the wait for its result
#
# Every program runs on CPU 1, one after the other, round after round. The figure is the CPU time of the
# process for each step; the ratio is to the best peer of the same round, of which the median is given, with
# the least and the largest. For the sleeps the memory that the process has gained stands behind.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=${CARGO_TARGET_DIR:-target}
rounds=${ROUNDS:-7}
runtimes=(quoit tokio monoio glommio compio)
declare -A steps=([spawn]=1000000 [batch]=1000000 [yield-1]=3000000 [yield-1000]=3000000
    [channel]=1000000 [oneshot]=2000000 [timer-churn]=1000000 [sleeps]=200000 [blocking]=20000)
cells=("$@")
if ((${#cells[@]} == 0)); then
    cells=(spawn batch yield-1 yield-1000 channel oneshot timer-churn sleeps blocking)
fi
for cell in "${cells[@]}"; do
    [[ -n "${steps[$cell]:-}" ]] || { echo "no cell is called $cell" >&2; exit 2; }
done

build() {
    cargo build --quiet --release --manifest-path benches/peers/Cargo.toml --target-dir "$target" "$@"
}
build --bin quoit_executor --bin tokio_executor
# Each in a build of its own, so that what one asks of a shared dependency does not reach another.
for runtime in monoio glommio compio; do
    build --package "${runtime}_server" --bin "${runtime}_executor"
done

out=$(mktemp)
trap 'rm -f "$out"' EXIT
for cell in "${cells[@]}"; do
    for ((round = 0; round < rounds; round++)); do
        for runtime in "${runtimes[@]}"; do
            said=$(timeout 120 taskset -c 1 ${REALTIME:+chrt -f 40} \
                "$target/release/${runtime}_executor" "$cell" "${steps[$cell]}")
            # A runtime that cannot do it says nothing.
            if [[ -n "$said" ]]; then
                echo "$cell $round $runtime $said" >>"$out"
            fi
        done
    done
done

awk -v names="${runtimes[*]}" '
    function middle(list, count,    i, j, kept) {
        for (i = 2; i <= count; i++)
            for (j = i; j > 1 && list[j] < list[j - 1]; j--) {
                kept = list[j]; list[j] = list[j - 1]; list[j - 1] = kept
            }
        return list[int((count + 1) / 2)]
    }
    { if (!($1 in seen)) { seen[$1] = 1; order[++cells] = $1 }
      ns[$1, $2, $3] = $4; mb[$1, $2, $3] = $5; if ($2 >= rounds) rounds = $2 + 1 }
    END {
        count = split(names, name, " ")
        printf "%-12s", "ns of CPU"
        for (i = 1; i <= count; i++) printf " %10s", name[i]
        printf "   %s\n", "quoit / the best peer"
        for (c = 1; c <= cells; c++) {
            cell = order[c]
            printf "%-12s", cell
            for (i = 1; i <= count; i++) {
                if (!((cell, 0, name[i]) in ns)) { printf " %10s", "-"; continue }
                for (r = 0; r < rounds; r++) { list[r + 1] = ns[cell, r, name[i]]; size[r + 1] = mb[cell, r, name[i]] }
                printf " %10.1f", middle(list, rounds)
                memory[i] = middle(size, rounds)
            }
            for (r = 0; r < rounds; r++) {
                best = 0
                for (i = 2; i <= count; i++)
                    if ((cell, r, name[i]) in ns && (!best || ns[cell, r, name[i]] < best)) best = ns[cell, r, name[i]]
                list[r + 1] = ns[cell, r, name[1]] / best
            }
            half = middle(list, rounds)
            printf "   %.3f (%.3f to %.3f)\n", half, list[1], list[rounds]
            if (cell == "sleeps") {
                printf "%-12s", "  megabytes"
                for (i = 1; i <= count; i++) printf " %10d", memory[i]
                printf "\n"
            }
        }
    }' "$out"
