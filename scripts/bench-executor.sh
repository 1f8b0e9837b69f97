#!/usr/bin/env bash
# Measures the executor against a bare ready queue, both in one process and in turns, and a
# million sleeps in processes of their own; about a minute.
#
#   scripts/bench-executor.sh             9 rounds
#   scripts/bench-executor.sh 21          more rounds, for a machine that has other work
#   scripts/bench-executor.sh 9 yield     only the cells whose names contain this word
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

echo "$(uname -sr), $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $(rustc --version)"
cargo bench --quiet --bench executor -- "$@"
