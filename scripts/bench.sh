#!/usr/bin/env bash
# Builds the servers and the load generator of benches/peers and measures all cells, or those
# named:
#
#   scripts/bench.sh                          all cells
#   scripts/bench.sh --quick                  all cells, in a quarter of the time, less certain
#   scripts/bench.sh echo64-50 http-64        these cells
#   scripts/bench.sh echo churn udp           all cells of these kinds; also depth, http, stream, idle
#   scripts/bench.sh --servers all            beside every runtime; builds them, which takes minutes
#   scripts/bench.sh --list                   names the cells; --help explains all options
#   scripts/bench.sh --servers raw,tokio      against the first of these servers
#   scripts/bench.sh --rounds 40 --repeats 4  how much is measured
#   scripts/bench.sh --realtime               when the machine has other work
#
# The servers run on CPU 0, the load generator on CPU 1. The tables, the same as TSV, a chart
# (chart.svg; target/release/chart DIRECTORY draws it again) and a description of the machine go to
# target/bench/DATE/.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
manifest=$root/benches/peers/Cargo.toml
target=${CARGO_TARGET_DIR:-$root/target}
load=$target/release/load

environment() {
    echo "date        $(date --iso-8601=seconds)"
    echo "commit      $(git -C "$root" describe --always --dirty 2>/dev/null || echo unknown)"
    echo "kernel      $(uname -srvm)"
    echo "cpu         $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | sort | uniq -c | xargs)"
    echo "virtual     $(systemd-detect-virt 2>/dev/null || echo unknown)"
    echo "governor    $(cat /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor 2>/dev/null || echo unknown)"
    echo "load        $(cat /proc/loadavg)"
    echo "rustc       $(rustc --version)"
    echo "arguments   $*"
    echo
    echo "crates:"
    cargo tree --quiet --manifest-path "$manifest" --workspace --prefix none --edges normal |
        sed 's/ (.*//; s/^/  /' | sort -u
    echo
    echo "mitigations:"
    grep -H . /sys/devices/system/cpu/vulnerabilities/* 2>/dev/null |
        sed "s|^/sys/devices/system/cpu/vulnerabilities/|  |"
}

for tool in cargo rustc; do
    command -v "$tool" >/dev/null || { echo "bench.sh: $tool is not installed" >&2; exit 1; }
done
if [ "$(nproc --all)" -lt 2 ]; then
    echo "bench.sh: two CPUs are needed" >&2
    exit 1
fi

# Each in a build of its own, so that what one asks of a shared dependency does not reach another.
build() {
    cargo build --quiet --release --manifest-path "$manifest" --target-dir "$target" "$@"
}

build
servers=
for ((i = 1; i < $#; i++)); do
    if [ "${!i}" = --servers ]; then
        next=$((i + 1))
        servers=${!next}
    fi
done
for directory in "$root"/benches/peers/runtimes/*/; do
    runtime=$(basename "$directory")
    case ,$servers, in
        ,all, | *,"$runtime",* | *,"$runtime"-tuned,*) build --package "${runtime}_server" ;;
    esac
done

for argument in "$@"; do
    case $argument in
        --list | --help) exec "$load" "$argument" ;;
    esac
done

out=$target/bench/$(date +%Y-%m-%d_%H-%M-%S)
mkdir -p "$out"
environment "$@" >"$out/environment.txt"
echo "results: $out"
# In place of this shell, so that ending the script ends the load generator, and with it the
# servers.
exec "$load" --out "$out" "$@"
