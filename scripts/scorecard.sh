#!/usr/bin/env bash
# The scorecard: every test named after one of its lines (s01_.., s02_..), at full size, one after
# the other, with optimizations; then a table of what held and how long it took.
#
#   scripts/scorecard.sh              all of them
#   scripts/scorecard.sh s03 s11      only these
#   QUOIT_SCALE=0.1 scripts/scorecard.sh
#
# SCORECARD_LIMIT_S ends a test that hangs (400 seconds unless set). The exit status is 1 if any
# failed. Times and shares of a core are held against their bounds here and in no other run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

LIMIT=${SCORECARD_LIMIT_S:-400}
export QUOIT_SCALE="${QUOIT_SCALE:-1}" RUST_BACKTRACE=0

cargo test --release --test it --no-run
listed=$(cargo test --release --test it -- --list 2>/dev/null)
mapfile -t tests < <(sed -nE 's/^(.*::s[0-9]{2}_[a-z0-9_]*): test$/\1/p' <<<"$listed" | sort -t: -k3)
if ((${#tests[@]} == 0)); then
    echo "no test is named after a line of the scorecard" >&2
    exit 2
fi

said=$(mktemp)
trap 'rm -f "$said"' EXIT
rows=()
failed=0
for test in "${tests[@]}"; do
    name=${test##*::}
    id=${name%%_*}
    if (($# > 0)) && [[ " $* " != *" $id "* ]]; then
        continue
    fi
    printf '== %s\n' "$name"
    started=$EPOCHREALTIME
    verdict=pass
    if ! timeout --kill-after=10 "$LIMIT" \
        cargo test --release --test it -- "$test" --exact --nocapture >"$said" 2>&1; then
        verdict=FAIL
        failed=1
        tail -n 30 "$said"
    fi
    grep -E '^S[0-9]+ ' "$said" | sort -u || true
    took=$(awk -v from="$started" -v to="$EPOCHREALTIME" 'BEGIN { print to - from }')
    rows+=("$(printf '%-4s  %-4s  %7.1f s  %s' "${id^^}" "$verdict" "$took" "${name#*_}")")
done

# S21: everything else once more, on what is left of io_uring under each mask.
if (($# == 0)) || [[ " $* " == *" s21 "* ]]; then
    verdict=pass
    masks="5.10 5.15 5.19 6.0 6.1 6.6 6.12 restricted no-pbuf no-msg-ring no-defer-taskrun"
    started=$EPOCHREALTIME
    if ! env -u QUOIT_SCALE QUOIT_MASKS="$masks" bash scripts/ci.sh masks; then
        verdict=FAIL
        failed=1
    fi
    took=$(awk -v from="$started" -v to="$EPOCHREALTIME" 'BEGIN { print to - from }')
    rows+=("$(printf '%-4s  %-4s  %7.1f s  %s' S21 "$verdict" "$took" "every mask")")
fi

printf '\n'
printf '%s\n' "${rows[@]}"
exit "$failed"
