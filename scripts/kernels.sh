#!/usr/bin/env bash
# The integration tests on other kernels than this machine's: Debian's, each in a virtual machine
# (qemu), with the tests as a static binary in an initramfs; then a table of what held where.
#
#   scripts/kernels.sh                        5.10, 6.1, 6.12, and this machine's own (host)
#   scripts/kernels.sh 6.1 host               only these
#   scripts/kernels.sh --filter s06_ 6.12     only the tests whose names have a match
#   scripts/kernels.sh --install              first installs what it needs, as root
#
# It needs qemu-system-x86, busybox-static, libc6-dev and an apt that knows a mirror of Debian. The
# kernels are fetched once, with lists of their own, and kept like the logs in target/kernels; the
# machine's configuration stays as it is. The table goes to target/kernels/table.md, too.
#
# KERNELS_ACCEL     tcg, emulation, unless set; kvm where it works: ten times as fast
# KERNELS_LIMIT_S   ends a machine that hangs (2400 seconds unless set)
# KERNELS_TEST_S    ends a test that hangs (300 seconds unless set)
# KERNELS_LANES     how many tests run side by side in a machine (3 unless set)
# KERNELS_MIRROR    a mirror of Debian; the one of apt's own sources unless set
# QUOIT_PATIENCE    stretches the tests' own time limits (4 unless set; 1 on the host)
#
# The exit status is 1 if any test failed, hung, or was not reached.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

TARGET_DIR=$(realpath -m "${CARGO_TARGET_DIR:-target}")
OUT=$TARGET_DIR/kernels
TRIPLE=x86_64-unknown-linux-gnu
ACCEL=${KERNELS_ACCEL:-tcg}
LIMIT_S=${KERNELS_LIMIT_S:-2400}
TEST_S=${KERNELS_TEST_S:-300}
LANES=${KERNELS_LANES:-3}
PACKAGES=(qemu-system-x86 busybox-static libc6-dev)

# The releases of Debian that have the kernels.
declare -A RELEASES=([5.10]=bullseye [6.1]=bookworm [6.12]=trixie)

# Lines of the scorecard that have a row of their own.
ROWS=(
    "s02 a dropped receive loses nothing"
    "s03 a dropped accept loses no connection"
    "s05 a runtime ends in full swing"
    "s06 forks and executed programs"
    "s08 a small queue of answers"
)

# Tests that a virtual machine leaves out, each with the reason.
SKIPS=()

say() {
    printf '%s\n' "$*" >&2
}

die() {
    say "$*"
    exit 2
}

# --- what it needs ---------------------------------------------------------------------------------

check() {
    local missing=()
    command -v qemu-system-x86_64 >/dev/null || missing+=(qemu-system-x86)
    busybox_binary >/dev/null || missing+=(busybox-static)
    [[ -f $(cc -print-file-name=libc.a) ]] || missing+=(libc6-dev)
    if ((${#missing[@]} > 0)); then
        die "missing: ${missing[*]}; as root: $0 --install"
    fi
}

install_packages() {
    ((EUID == 0)) || die "--install needs root"
    apt-get update
    apt-get install --yes --no-install-recommends "${PACKAGES[@]}"
}

# Debian's other busybox is linked against libraries that the virtual machines do not have.
busybox_binary() {
    local binary
    binary=$(command -v busybox) && ! ldd "$binary" >/dev/null 2>&1 && realpath "$binary"
}

# --- the kernels -----------------------------------------------------------------------------------

mirror() {
    if [[ -n "${KERNELS_MIRROR:-}" ]]; then
        echo "$KERNELS_MIRROR"
        return
    fi
    # The suites of updates and security fixes have a hyphen, and may have another mirror.
    apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' 'Origin: Debian' |
        awk '$2 !~ /-/ { print $1; exit }'
}

# Puts the kernel $1 to $OUT/$1/vmlinuz, unless it is there.
fetch() {
    local dir=$OUT/$1 release=${RELEASES[$1]} source package apt
    if [[ -f $dir/vmlinuz ]]; then
        return
    fi
    source=$(mirror)
    [[ -n "$source" ]] || die "apt knows no mirror of Debian: set KERNELS_MIRROR, or run apt-get update"
    mkdir -p "$dir/apt/lists/partial" "$dir/apt/archives/partial"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $source $release main" \
        >"$dir/apt/sources.list"
    apt=(-o Dir::Etc::sourcelist="$dir/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o Dir::State="$dir/apt" -o Dir::Cache="$dir/apt" -o APT::Sandbox::User=root
        -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false)
    say "fetching the kernel of Debian's $release"
    timeout 300 apt-get -qq "${apt[@]}" update
    package=$(apt-cache "${apt[@]}" depends linux-image-amd64 |
        sed -nE 's/^ *Depends: (linux-image-[0-9].*)$/\1/p' | head -n 1)
    [[ "$package" == linux-image-$1.* ]] || die "Debian's $release has ${package:-no kernel}, not $1"
    (cd "$dir" && timeout 600 apt-get -qq "${apt[@]}" download "$package")
    dpkg-deb --fsys-tarfile "$dir"/linux-image-*.deb |
        tar -x -C "$dir" --strip-components=2 --wildcards './boot/vmlinuz-*'
    mv "$dir"/vmlinuz-* "$dir/vmlinuz"
    rm -rf "$dir/apt" "$dir"/*.deb
}

# --- the tests -------------------------------------------------------------------------------------

# Builds the tests so that they need no library, without the release profile's slow last mile.
build() {
    say "building the tests as a static binary"
    timeout 1800 env RUSTFLAGS="-C target-feature=+crt-static" CARGO_PROFILE_RELEASE_LTO=off \
        CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_DEBUG=0 \
        cargo test --release --test it --no-run --target "$TRIPLE" --message-format=json |
        sed -nE 's/.*"kind":\["(test|bin)"\].*"executable":"([^"]*)".*/\1 \2/p' >"$OUT/executables"
    binary=$(sed -n 's/^test //p' "$OUT/executables")
    # The tests call the package's programs where cargo has put them.
    mapfile -t programs < <(sed -n 's/^bin //p' "$OUT/executables")
    [[ -x "$binary" ]] || die "cargo names no binary of the tests"
}

# Packs what the kernel $1 starts with: the tests, and the few programs that they need.
pack() {
    local root=$OUT/$1/root busybox
    busybox=$(busybox_binary)
    rm -rf "$root"
    mkdir -p "$root/bin"
    cp "$busybox" "$root/bin/busybox"
    cp scripts/kernels/init scripts/kernels/suite.sh "$root/"
    cp --parents "$binary" ${programs[@]+"${programs[@]}"} "$root/"
    printf '%s\n' ${SKIPS[@]+"${SKIPS[@]}"} >"$root/skips"
    printf 'export QUOIT_PATIENCE=%q\nlimit_s=%q\nbinary=%q\nfilter=%q\nlanes=%q\n' \
        "${QUOIT_PATIENCE:-4}" "$TEST_S" "$binary" "$filter" "$LANES" >"$root/settings"
    (cd "$root" && find . | "$busybox" cpio -o -H newc 2>/dev/null) | gzip -1 >"$OUT/$1/initrd"
    rm -rf "$root"
}

# `max` has what the emulation can do, and with KVM what the processor can.
boot() {
    timeout --kill-after=10 "$LIMIT_S" qemu-system-x86_64 -accel "$ACCEL" -cpu max -smp 2 -m 2G \
        -display none -nodefaults -serial stdio -no-reboot \
        -kernel "$OUT/$1/vmlinuz" -initrd "$OUT/$1/initrd" \
        -append "console=ttyS0 quiet panic=-1 mitigations=off" </dev/null
}

# Runs the suite on the kernel $1, and keeps what was said in $OUT/$1.log.
run() {
    local log=$OUT/$1.log started=$SECONDS
    say "running the tests on $1: $log"
    if [[ $1 == host ]]; then
        : >"$OUT/skips"
        QUOIT_CAPS=none timeout --kill-after=10 "$LIMIT_S" \
            scripts/kernels/suite.sh "$binary" "$TEST_S" "$OUT/skips" "$filter" "$LANES" >"$log" ||
            true
    else
        fetch "$1"
        pack "$1"
        boot "$1" >"$log" || true
    fi
    echo "@ took $((SECONDS - started))" >>"$log"
    grep -E '^@ (failed|hung|kernel-log) ' "$log" >&2 || true
}

# --- the table -------------------------------------------------------------------------------------

# How many lines of the kernel $1 begin with the verdict $2 and name a test like $3.
count() {
    grep -cE "^@ $2 .*$3" "$OUT/$1.log" || true
}

# The cell of the kernel $1 for the tests whose names match $2.
verdicts() {
    local passed failed hung skipped text listed
    passed=$(count "$1" passed "$2")
    failed=$(count "$1" failed "$2")
    hung=$(count "$1" hung "$2")
    skipped=$(count "$1" skipped "$2")
    listed=$(grep -cE "$2" <<<"$tests" || true)
    text="$passed passed"
    ((failed == 0)) || text+=", **$failed failed**"
    ((hung == 0)) || text+=", **$hung hung**"
    ((skipped == 0)) || text+=", $skipped left out"
    ((passed + failed + hung + skipped == listed)) ||
        text+=", **$((listed - passed - failed - hung - skipped)) not reached**"
    echo "$text"
}

row() {
    local title=$1 kernel
    shift
    printf '| %s |' "$title"
    for kernel in "${kernels[@]}"; do
        printf ' %s |' "$("$@" "$kernel")"
    done
    printf '\n'
}

column() {
    local release
    release=$(sed -n 's/^@ kernel //p' "$OUT/$1.log" | head -n 1)
    echo "${release:-$1 did not start}$([[ $1 != host ]] || echo ' (host)')"
}

of_suite() {
    verdicts "$1" .
}

of_line() {
    verdicts "$2" "::$1_"
}

lacks() {
    sed -n 's/^@ lacks //p' "$OUT/$1.log" | head -n 1
}

warnings() {
    count "$1" kernel-log ""
}

minutes() {
    sed -n 's/^@ took //p' "$OUT/$1.log" | awk '{ printf "%.1f min\n", $1 / 60 }'
}

table() {
    local line
    row "" column
    row "---" printf -- '---%.0s'
    row "all of the suite" of_suite
    for line in "${ROWS[@]}"; do
        row "${line%% *}: ${line#* }" of_line "${line%% *}"
    done
    row "io_uring lacks" lacks
    row "warnings in the kernel's log" warnings
    row "took" minutes
}

# --- the run ---------------------------------------------------------------------------------------

kernels=()
filter=.
while (($# > 0)); do
    case "$1" in
        --install) install_packages ;;
        --filter)
            filter=${2:?--filter needs a pattern}
            shift
            ;;
        host) kernels+=(host) ;;
        *)
            [[ -n "${RELEASES[$1]:-}" ]] || die "no kernel is called $1; there are: ${!RELEASES[*]} host"
            kernels+=("$1")
            ;;
    esac
    shift
done
if ((${#kernels[@]} == 0)); then
    kernels=(5.10 6.1 6.12 host)
fi

check
mkdir -p "$OUT"
build
tests=$("$binary" --list 2>/dev/null | sed -n 's/: test$//p' | grep -E -e "$filter") ||
    die "no test has a name like $filter"
for kernel in "${kernels[@]}"; do
    run "$kernel"
done
table | tee "$OUT/table.md"
! grep -qE '\*\*' "$OUT/table.md"
