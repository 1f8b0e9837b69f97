#!/bin/sh
# Runs every test of a test binary in a process of its own, one after the other, and says how each
# ended: what hangs or aborts costs one test. For bash, dash and busybox.
#
#   suite.sh BINARY LIMIT_S SKIPS [FILTER]
#
# A test that takes longer than LIMIT_S seconds is ended. SKIPS is a file of names, each followed by
# the reason. Each line that scripts/kernels.sh reads begins with "@ ".
binary=$1 limit_s=$2 skips=$3 filter=${4:-.}
said=${TMPDIR:-/tmp}/kernels-said.$$

# Hundredths of a second since the machine has started.
now() {
    cut -d ' ' -f 1 /proc/uptime | tr -d .
}

echo "@ kernel $(uname -r)"
"$binary" --list 2>/dev/null | sed -n 's/: test$//p' | grep -E -e "$filter" | while read -r name; do
    if grep -q -e "^$name " "$skips"; then
        echo "@ skipped 0.0 $name"
        continue
    fi
    started=$(now)
    timeout -k 5 "$limit_s" "$binary" --exact "$name" --nocapture --test-threads=1 \
        >"$said" 2>&1 </dev/null
    case $? in
        0) verdict=passed ;;
        # As the kinds of timeout say it: by a number of their own, or as the signal that they sent.
        124 | 137 | 143) verdict=hung ;;
        *) verdict=failed ;;
    esac
    # What a test says that needs a program which is not there.
    if [ $verdict = passed ] && grep -qE '^(test .* )?skipped: ' "$said"; then
        verdict=skipped
    fi
    took=$(($(now) - started))
    grep '^@ ' "$said"
    echo "@ $verdict $((took / 100)).$((took % 100 / 10)) $name"
    if [ $verdict = failed ] || [ $verdict = hung ]; then
        head -n 80 "$said"
    fi
done
rm -f "$said"
