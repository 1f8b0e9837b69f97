#!/usr/bin/env bash
# The standard program under every fault of the simulator, seed after seed, with optimizations.
#
#   scripts/simulate.sh            20,000 seeds
#   scripts/simulate.sh 1000
#   SIM_SEED=7 SIM_STEPS=311 SIM_FAULTS=resets scripts/simulate.sh     one run again, as it was printed
#
# It prints how many seeds a minute one core runs, and how often each fault struck. A failure is
# shrunk, and printed with the line that replays it; the exit status is then 1.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export QUOIT_SEEDS="${1:-20000}" RUST_BACKTRACE=0
exec timeout --kill-after=10 "${SIMULATE_LIMIT_S:-3600}" \
    cargo test --release --test it -- --exact sim::the_standard_program_survives_every_fault --nocapture
