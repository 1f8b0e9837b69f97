#!/usr/bin/env bash
# Measures the examples that are servers against those that a user would take instead: server CPU
# for each request, in turn, round after round.
#
#   scripts/bench-apps.sh                    all cells
#   scripts/bench-apps.sh static proxy       these
#   ROUNDS=9 SLICE_S=2 scripts/bench-apps.sh how much is measured (5 rounds of 1 second)
#
#   static   static_files, nginx (sendfile, open_file_cache)     files of 1 KiB, 100 KiB and 1 MiB
#   proxy    proxy, nginx (stream), haproxy (tcp)                answers of 1 KiB and 100 KiB
#   resp     resp, redis-server                                  GET and SET, one or 16 in flight
#
# It needs nginx with its stream module, haproxy, wrk, redis-server and redis-benchmark, as Debian has
# them; what is not installed is left out. Servers are pinned to CPU 0, clients (64 connections) and the
# upstream of the proxies to CPU 1. With QUOIT_WAITING=balanced ours may wait for several answers. The
# figure is the time that the server's threads were on a CPU (/proc/PID/task/*/schedstat), divided by the
# count of requests; the ratio is that of one round, of which the median is given, with the least and the
# largest. The table is followed by the same as TSV. What it starts, it ends.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

TARGET_DIR="${CARGO_TARGET_DIR:-target}"
ROUNDS=${ROUNDS:-5}
SLICE_S=${SLICE_S:-1}
CONNECTIONS=${CONNECTIONS:-64}
CELLS=("${@:-static proxy resp}")
read -r -a CELLS <<<"${CELLS[*]}"

# Under a time limit the script is its own child; cargo is outside of it.
if [[ -z "${BENCH_INSIDE:-}" ]]; then
    for cell in "${CELLS[@]}"; do
        [[ "$cell" =~ ^(static|proxy|resp)$ ]] || { echo "no cell is called $cell" >&2; exit 2; }
    done
    command -v wrk >/dev/null || { echo "wrk is not installed" >&2; exit 1; }
    cargo build --quiet --release --example static_files --example proxy --example resp
    BENCH_INSIDE=1 exec timeout --kill-after=10 "${BENCH_LIMIT_S:-900}" "${BASH_SOURCE[0]}" "$@"
fi

scratch=$(mktemp -d)
pids=()

# However the script ends, what it started ends too.
cleanup() {
    for pid in "${pids[@]}"; do
        kill -TERM "$pid" 2>/dev/null || true
    done
    for pid in "${pids[@]}"; do
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$scratch"
}
trap cleanup EXIT
trap 'exit 143' TERM INT

# A port that nobody listens on now, below those that the kernel gives to clients.
free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 12000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    echo "$port"
}

# Starts "$2..." on CPU $1; the process is its own child, and PID says which.
start() {
    local cpu=$1
    shift
    # Other work on the machine is not to come in between.
    taskset -c "$cpu" ${REALTIME:+chrt -f 40} "$@" >"$scratch/log.$#.$RANDOM" 2>&1 &
    PID=$!
    pids+=("$PID")
}

await_port() {
    for _ in $(seq 100); do
        (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return
        sleep 0.05
    done
    echo "nobody listens on port $1" >&2
    cat "$scratch"/log.* >&2
    exit 1
}

# Nanoseconds that all threads of a process and of its children were on a CPU.
cpu_ns() {
    local pid sum=0 ns
    for pid in "$1" $(cat /proc/"$1"/task/*/children 2>/dev/null); do
        for ns in $(cat /proc/"$pid"/task/*/schedstat 2>/dev/null | cut -d' ' -f1); do
            sum=$((sum + ns))
        done
    done
    echo "$sum"
}

# One worker, in the foreground, with a directory of its own: $1 is the name, stdin what is served.
nginx_conf() {
    mkdir -p "$scratch/$1"
    {
        [[ -e /usr/lib/nginx/modules/ngx_stream_module.so ]] &&
            echo "load_module /usr/lib/nginx/modules/ngx_stream_module.so;"
        echo "daemon off; worker_processes 1; pid $scratch/$1/pid; error_log $scratch/$1/error;"
        # The worker is the user that wrote the files.
        [[ $(id -u) == 0 ]] && echo "user root;"
        echo "worker_rlimit_nofile 4096; events { worker_connections 2048; }"
        cat
    } >"$scratch/$1/conf"
}

mkdir "$scratch/files"
head -c 1024 /dev/urandom >"$scratch/files/1k"
head -c 102400 /dev/urandom >"$scratch/files/100k"
head -c 1048576 /dev/urandom >"$scratch/files/1m"

declare -A port_of pid_of

# Starts $1 on CPU $2.
start_nginx_static() {
    local port
    port=$(free_port)
    nginx_conf "$1" <<EOF
http {
    access_log off; sendfile on; tcp_nopush off; keepalive_requests 100000000;
    client_body_temp_path $scratch/$1/body; proxy_temp_path $scratch/$1/proxy;
    fastcgi_temp_path $scratch/$1/f; uwsgi_temp_path $scratch/$1/u; scgi_temp_path $scratch/$1/s;
    open_file_cache max=1000; open_file_cache_valid 60s;
    server { listen 127.0.0.1:$port; root $scratch/files; }
}
EOF
    start "$2" nginx -p "$scratch/$1" -c "$scratch/$1/conf"
    port_of[$1]=$port pid_of[$1]=$PID
    await_port "$port"
}

start_static() {
    if command -v nginx >/dev/null; then
        start_nginx_static nginx 0
        servers+=(nginx)
    fi
    port_of[quoit]=$(free_port)
    start 0 "$TARGET_DIR/release/examples/static_files" "127.0.0.1:${port_of[quoit]}" "$scratch/files"
    pid_of[quoit]=$PID
    servers+=(quoit)
    await_port "${port_of[quoit]}"
}

start_proxies() {
    start_nginx_static upstream 1
    local to=127.0.0.1:${port_of[upstream]}
    port_of[nginx-stream]=$(free_port)
    nginx_conf nginx-stream <<EOF
stream { server { listen 127.0.0.1:${port_of[nginx-stream]}; proxy_pass $to; } }
EOF
    start 0 nginx -p "$scratch/nginx-stream" -c "$scratch/nginx-stream/conf"
    pid_of[nginx-stream]=$PID
    servers+=(nginx-stream)
    await_port "${port_of[nginx-stream]}"
    if command -v haproxy >/dev/null; then
        port_of[haproxy]=$(free_port)
        cat >"$scratch/haproxy.conf" <<EOF
global
    nbthread 1
    maxconn 4000
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen l
    bind 127.0.0.1:${port_of[haproxy]}
    server s $to
EOF
        start 0 haproxy -db -f "$scratch/haproxy.conf"
        pid_of[haproxy]=$PID
        servers+=(haproxy)
        await_port "${port_of[haproxy]}"
    fi
    port_of[quoit]=$(free_port)
    start 0 "$TARGET_DIR/release/examples/proxy" "127.0.0.1:${port_of[quoit]}" "$to"
    pid_of[quoit]=$PID
    servers+=(quoit)
    await_port "${port_of[quoit]}"
}

start_stores() {
    if command -v redis-server >/dev/null; then
        port_of[redis]=$(free_port)
        start 0 redis-server --bind 127.0.0.1 --port "${port_of[redis]}" --save '' --dir "$scratch"
        pid_of[redis]=$PID
        servers+=(redis)
        await_port "${port_of[redis]}"
    fi
    port_of[quoit]=$(free_port)
    start 0 "$TARGET_DIR/release/examples/resp" "127.0.0.1:${port_of[quoit]}"
    pid_of[quoit]=$PID
    servers+=(quoit)
    await_port "${port_of[quoit]}"
}

# Has wrk ask $1 for file $2 for $3 seconds, and says how often it did.
ask() {
    taskset -c 1 ${REALTIME:+chrt -f 40} wrk -t 1 -c "$CONNECTIONS" -d "$3" \
        "http://127.0.0.1:${port_of[$1]}/$2" >"$scratch/wrk"
    if grep -q 'Non-2xx' "$scratch/wrk"; then
        cat "$scratch/wrk" >&2
        exit 1
    fi
    sed -n 's/^ *\([0-9]*\) requests in.*/\1/p' "$scratch/wrk"
}

# Has redis-benchmark ask $1 with $2 in flight for about $3 seconds, of a hundred thousand keys.
ask_store() {
    local depth=${2#depth} count
    count=$((40000 * $3 * (depth > 1 ? 8 : 1)))
    taskset -c 1 ${REALTIME:+chrt -f 40} redis-benchmark -p "${port_of[$1]}" -c "$CONNECTIONS" \
        -n "$count" -P "$depth" -r 100000 -t set,get -q >"$scratch/redis-benchmark" 2>&1 || {
        cat "$scratch/redis-benchmark" >&2
        exit 1
    }
    echo $((2 * count))
}

# Loads server $1 with $2 for some seconds: nanoseconds of its CPU for each request.
load() {
    local before after requests
    before=$(cpu_ns "${pid_of[$1]}")
    requests=$("$ask" "$@")
    # What is still under way belongs to it.
    sleep 0.1
    after=$(cpu_ns "${pid_of[$1]}")
    echo $(((after - before) / requests))
}

# Median, least and largest of the numbers on stdin.
spread() {
    sort -n | awk '{ all[NR] = $1 } END { printf "%s %s %s", all[int((NR + 1) / 2)], all[1], all[NR] }'
}

: >"$scratch/tsv"
measure() {
    local what round server ns base
    for what in "${@:2}"; do
        for server in "${servers[@]}"; do
            : >"$scratch/$server.ns"
            : >"$scratch/$server.ratio"
            load "$server" "$what" 1 >/dev/null
        done
        for ((round = 0; round < ROUNDS; round++)); do
            base=""
            for server in "${servers[@]}"; do
                ns=$(load "$server" "$what" "$SLICE_S")
                base=${base:-$ns}
                echo "$ns" >>"$scratch/$server.ns"
                awk "BEGIN { printf \"%.3f\\n\", $ns / $base }" >>"$scratch/$server.ratio"
            done
        done
        for server in "${servers[@]}"; do
            read -r -a ns < <(spread <"$scratch/$server.ns"; echo)
            read -r -a ratio < <(spread <"$scratch/$server.ratio"; echo)
            printf '%-8s %-8s %-14s %9s ns   %s x %s  (%s to %s)\n' "$1" "$what" "$server" "${ns[0]}" \
                "${ratio[0]}" "${servers[0]}" "${ratio[1]}" "${ratio[2]}"
            printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$1" "$what" "$server" "${ns[0]}" "${ratio[@]}" \
                >>"$scratch/tsv"
        done
    done
}

for cell in "${CELLS[@]}"; do
    servers=() ask=ask
    case $cell in
        static) start_static; measure "$cell" 1k 100k 1m ;;
        proxy) start_proxies; measure "$cell" 1k 100k ;;
        resp) ask=ask_store; start_stores; measure "$cell" depth1 depth16 ;;
    esac
done
printf '\ncell\tof\tserver\tns\tratio\tleast\tlargest\n'
cat "$scratch/tsv"
