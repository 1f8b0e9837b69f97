#!/bin/sh
# Runs every test of a test binary in a process of its own, a few side by side, and says how each
# ended: what hangs or aborts costs one test. For bash, dash and busybox.
#
#   suite.sh BINARY LIMIT_S SKIPS [FILTER [LANES]]
#
# A test that takes longer than LIMIT_S seconds is ended. SKIPS is a file of names, each followed by
# the reason. So many LANES (3 unless said) run one test after the other: most tests wait. Each line
# that scripts/kernels.sh reads begins with "@ ".
binary=$1 limit_s=$2 skips=$3 filter=${4:-.} lanes=${5:-3}
work=$(mktemp -d "${TMPDIR:-/tmp}/kernels.XXXXXX")

# Hundredths of a second since the machine has started.
now() {
    cut -d ' ' -f 1 /proc/uptime | tr -d .
}

# Runs the test $1, and reports; what it says is kept in the file $2.
one() {
    if grep -q -e "^$1 " "$skips"; then
        echo "@ skipped 0.0 $1"
        return
    fi
    started=$(now)
    timeout -k 5 "$limit_s" "$binary" --exact "$1" --nocapture --test-threads=1 \
        >"$2" 2>&1 </dev/null
    case $? in
        0) verdict=passed ;;
        # As the kinds of timeout say it: by a number of their own, or as the signal that they sent.
        124 | 137 | 143) verdict=hung ;;
        *) verdict=failed ;;
    esac
    # What a test says that needs a program which is not there.
    if [ $verdict = passed ] && grep -qE '^(test .* )?skipped: ' "$2"; then
        verdict=skipped
    fi
    took=$(($(now) - started))
    grep '^@ ' "$2"
    echo "@ $verdict $((took / 100)).$((took % 100 / 10)) $1"
    if [ $verdict = failed ] || [ $verdict = hung ]; then
        head -n 80 "$2"
    fi
}

echo "@ kernel $(uname -r)"
"$binary" --list 2>/dev/null | sed -n 's/: test$//p' | grep -E -e "$filter" >"$work/tests"
lane=0
while [ $lane -lt "$lanes" ]; do
    awk "NR % $lanes == $lane" "$work/tests" | while read -r name; do
        # In one piece, so that no other lane's lines are in between.
        one "$name" "$work/said.$lane" >"$work/report.$lane"
        cat "$work/report.$lane"
    done &
    lane=$((lane + 1))
done
wait
rm -rf "$work"
