#!/usr/bin/env bash
# The examples against programs that others have written: curl, wrk, redis.
#
#   scripts/clients.sh            1 GiB each way; two minutes
#   scripts/clients.sh 32         MiB each way; ten seconds
#
# A file is fetched and sent through `proxy`, checksummed; fetched in ranges from `static_files`; given up
# in the middle, from either end; and a redis server, wrk and redis-benchmark are served through `proxy`.
# It needs curl and python3 (which takes what curl sends); wrk and redis are used where they are
# installed. CLIENTS_LIMIT_S ends everything if something hangs (600 seconds unless set).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

TARGET_DIR="${CARGO_TARGET_DIR:-target}"
MIB="${1:-1024}"

if [[ -z "${CLIENTS_INSIDE:-}" ]]; then
    cargo build --quiet --release --example proxy --example static_files --example http
    CLIENTS_INSIDE=1 exec timeout --kill-after=10 "${CLIENTS_LIMIT_S:-600}" "${BASH_SOURCE[0]}" "$@"
fi

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

passed() {
    echo "  ok  $*"
}

for needed in curl python3; do
    command -v "$needed" >/dev/null || fail "$needed is not installed"
done

scratch=$(mktemp -d)
children=()

# However the script ends, what it started ends too.
cleanup() {
    ((${#children[@]} == 0)) || kill -TERM "${children[@]}" 2>/dev/null || true
    wait
    rm -rf "$scratch"
}
trap cleanup EXIT
trap 'exit 143' TERM INT

# Runs the command $2.. as a server called $1, and waits for the first address that it prints: ADDRESS.
serve() {
    local out=$scratch/$1.out line=""
    "${@:2}" >"$out" 2>"$scratch/$1.err" &
    children+=($!)
    until [[ "$line" =~ 127\.0\.0\.1:[0-9]+ ]]; do
        kill -0 $! 2>/dev/null || fail "$1 ended at once: $(cat "$scratch/$1.err")"
        sleep 0.02
        line=$(head -n 1 "$out")
    done
    ADDRESS=${BASH_REMATCH[0]}
}

example() {
    serve "$1" "$TARGET_DIR/release/examples/$2" 127.0.0.1:0 "${@:3}"
}

fetch() {
    curl --silent --show-error --fail "$@"
}

# How many descriptors of the process $1 are sockets.
sockets() {
    find "/proc/$1/fd" -lname 'socket:*' 2>/dev/null | wc -l
}

head -c $((MIB * 1024 * 1024)) /dev/urandom >"$scratch/large"
sum=$(sha256sum <"$scratch/large")

example files static_files "$scratch"
files=$ADDRESS
example way proxy "$files"
way=$ADDRESS
proxy=${children[-1]}

# ---- curl: down, in ranges, up -------------------------------------------------------------------

[[ "$(fetch "http://$way/large" | sha256sum)" == "$sum" ]] || fail "the proxy passed something else on"
passed "curl gets $MIB MiB through the proxy"

size=$(stat -c %s "$scratch/large")
for part in 0 1 2 3; do
    from=$((size * part / 4)) to=$((size * (part + 1) / 4 - 1))
    fetch --range "$from-$to" "http://$files/large"
done >"$scratch/parts"
cmp "$scratch/large" "$scratch/parts" || fail "four ranges are not the file"
rm "$scratch/parts"
passed "curl gets them in four ranges"

cat >"$scratch/sink.py" <<'PYTHON'
import hashlib, http.server

class Sink(http.server.BaseHTTPRequestHandler):
    def do_PUT(self):
        left, digest = int(self.headers["Content-Length"]), hashlib.sha256()
        while left > 0:
            piece = self.rfile.read(min(left, 1 << 20))
            if not piece:
                return
            digest.update(piece)
            left -= len(piece)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(digest.hexdigest().encode() + b"  -\n")

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sink)
print("127.0.0.1:%d" % server.server_address[1], flush=True)
server.serve_forever()
PYTHON
serve sink python3 "$scratch/sink.py"
example up proxy "$ADDRESS"
[[ "$(fetch --upload-file "$scratch/large" "http://$ADDRESS/")" == "$sum" ]] ||
    fail "the proxy passed something else up"
passed "curl sends $MIB MiB through the proxy"

# ---- curl: given up in the middle ------------------------------------------------------------------

before=$(sockets "$proxy")
for number in 1 2 3 4; do
    if fetch --limit-rate 1M --max-time 0.5 --output /dev/null "http://$way/large" 2>/dev/null; then
        fail "curl was to give up"
    fi
done
for ((tries = 0; $(sockets "$proxy") > before; tries++)); do
    ((tries < 100)) || fail "the proxy keeps $(sockets "$proxy") sockets, and had $before"
    sleep 0.1
done
fetch --range 0-99 --output "$scratch/start" "http://$way/large"
cmp --bytes=100 "$scratch/large" "$scratch/start" || fail "the proxy does not serve as before"
passed "curl gives up four times, and the proxy keeps nothing of it"

# ---- wrk, redis ------------------------------------------------------------------------------------

if command -v wrk >/dev/null; then
    example web http
    example before-web proxy "$ADDRESS"
    answer=$(wrk -c 32 -t 1 -d 2 "http://$ADDRESS/")
    grep -q 'Requests/sec' <<<"$answer" || fail "wrk says: $answer"
    ! grep -q 'Socket errors\|Non-2xx' <<<"$answer" || fail "wrk says: $answer"
    passed "wrk:$(sed -n 's/^Requests.sec: */ requests a second through the proxy: /p' <<<"$answer")"
fi

if command -v redis-server >/dev/null && command -v redis-benchmark >/dev/null; then
    # Port 0 would mean none, so a free one is looked for.
    port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
    redis-server --bind 127.0.0.1 --port "$port" --save '' --dir "$scratch" >"$scratch/redis.out" 2>&1 &
    children+=($!)
    for ((tries = 0; tries < 100; tries++)); do
        redis-cli -p "$port" ping >/dev/null 2>&1 && break
        sleep 0.1
    done
    example before-redis proxy "127.0.0.1:$port"
    host=${ADDRESS%:*} port=${ADDRESS#*:}
    [[ "$(redis-cli -h "$host" -p "$port" set key value)" == OK ]] || fail "redis does not answer"
    [[ "$(redis-cli -h "$host" -p "$port" get key)" == value ]] || fail "redis answers something else"
    head -c 1000000 "$scratch/large" | base64 -w 0 >"$scratch/value"
    redis-cli -h "$host" -p "$port" -x set large <"$scratch/value" >/dev/null
    redis-cli -h "$host" -p "$port" get large | tr -d '\n' | cmp - "$scratch/value" ||
        fail "a value of a megabyte comes back otherwise"
    timeout 60 redis-benchmark -h "$host" -p "$port" -t set,get,lpush -n 20000 -P 16 -q >"$scratch/bench" ||
        fail "redis-benchmark: $(cat "$scratch/bench")"
    passed "redis: a session, a value of a megabyte, and redis-benchmark through the proxy"
fi
