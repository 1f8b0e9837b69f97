#!/usr/bin/env bash
# Runs every example for real, end to end, and checks what it answers.
#
#   scripts/examples.sh             all of them
#   scripts/examples.sh http copy   only these
#
# It needs bash and coreutils; curl and wrk are used where they are installed. The servers listen on
# ports that the kernel chooses. EXAMPLES_LIMIT_S ends everything if something hangs (120 seconds
# unless set; building is not counted).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

TARGET_DIR="${CARGO_TARGET_DIR:-target}"
EXAMPLES=(http echo echo_owned udp_echo unix_echo chat resp copy event_loop practice timer own_driver
    foreign_loop simulate proxy static_files)

# Under the time limit the script is its own child; cargo is outside of it.
if [[ -z "${EXAMPLES_INSIDE:-}" ]]; then
    for name in "${@:-${EXAMPLES[@]}}"; do
        if ! printf '%s\n' "${EXAMPLES[@]}" | grep -qxF -- "$name"; then
            echo "no example is called \"$name\"; they are: ${EXAMPLES[*]}" >&2
            exit 2
        fi
        cargo build --quiet --release --example "$name"
    done
    EXAMPLES_INSIDE=1 exec timeout --kill-after=10 "${EXAMPLES_LIMIT_S:-120}" \
        "${BASH_SOURCE[0]}" "$@"
fi

scratch=$(mktemp -d)
server=""

# However the script ends, its one child ends too.
cleanup() {
    stop
    rm -rf "$scratch"
}
trap cleanup EXIT
trap 'exit 143' TERM INT

stop() {
    if [[ -n "$server" ]]; then
        kill -TERM "$server" 2>/dev/null || true
        wait "$server" || { server=""; fail "the server did not end well on SIGTERM"; }
        server=""
    fi
}

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

passed() {
    echo "  ok  $*"
}

# Starts the example $1 on a free port, with what else it is told, and waits for the line that says
# which: HOST and PORT.
start() {
    local line=""
    : >"$scratch/out"
    "$TARGET_DIR/release/examples/$1" 127.0.0.1:0 "${@:2}" >"$scratch/out" 2>"$scratch/err" &
    server=$!
    until [[ "$line" =~ 127\.0\.0\.1:[0-9]+ ]]; do
        kill -0 "$server" 2>/dev/null || fail "$1 ended at once: $(cat "$scratch/err")"
        sleep 0.02
        read -r line <"$scratch/out" || true
    done
    HOST=127.0.0.1
    PORT=${BASH_REMATCH[0]#*:}
}

# Sends stdin to the server and prints all that it answers until it hangs up.
exchange() {
    exec 3<>"/dev/tcp/$HOST/$PORT"
    cat >&3
    timeout 10 cat <&3 || fail "no end of the answer within 10 s"
    exec 3>&-
}

# Checks that $1 is found $2 times in $3. A body has no line of its own: what follows comes behind.
expect() {
    local count
    count=$({ grep -o -- "$1" <<<"$3" || true; } | wc -l)
    ((count == $2)) || fail "\"$1\" is there $count times instead of $2: $3"
}

run_http() {
    start http
    local get='GET / HTTP/1.1\r\nHost: here\r\n\r\n'
    local last='GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n'
    local answer status

    answer=$(printf "$get$get$get$last" | exchange)
    expect 'HTTP/1.1 200 OK' 4 "$answer"
    expect 'Hello, world!' 4 "$answer"
    expect '^Connection: close' 1 "$answer"
    passed "http: four pipelined requests"

    # Each write is a segment of its own: the requests arrive cut in pieces.
    answer=$(
        exec 3<>"/dev/tcp/$HOST/$PORT"
        for piece in 'GET / HT' 'TP/1.1\r\nHost: he' 're\r\n\r' '\nGET / HTTP/1.1\r\nHost: here\r' \
            '\nConnection: close\r\n\r\n'; do
            printf "$piece" >&3
            sleep 0.03
        done
        timeout 10 cat <&3
    )
    expect 'HTTP/1.1 200 OK' 2 "$answer"
    passed "http: requests in pieces"

    answer=$(printf "POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 7\r\n\r\n1234567$last" | exchange)
    expect 'HTTP/1.1 200 OK' 2 "$answer"
    passed "http: a body is skipped"

    answer=$(printf 'GET / HTTP/1.0\r\n\r\n' | exchange)
    expect '^Connection: close' 1 "$answer"
    answer=$(printf "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n$last" | exchange)
    expect '^Connection: keep-alive' 1 "$answer"
    expect 'HTTP/1.1 200 OK' 2 "$answer"
    passed "http: HTTP/1.0 with and without keep-alive"

    answer=$(printf "HEAD / HTTP/1.1\r\nHost: here\r\n\r\n$last" | exchange)
    expect '^Content-Length: 13' 2 "$answer"
    expect 'Hello, world!' 1 "$answer"
    passed "http: HEAD has no body"

    for bad in 'nonsense\r\n\r\n' 'GET / HTTP/2.0\r\n\r\n' 'GET / HTTP/1.1\r\n\r\n' \
        'GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n' 'GET / HTTP/1.1\r\nHost : a\r\n\r\n' \
        'GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n' \
        'GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n'; do
        answer=$(printf "$bad$get" | exchange)
        expect 'HTTP/1.1 400 ' 1 "$answer"
        expect 'HTTP/1.1 200 ' 0 "$answer"
    done
    passed "http: bad requests are refused, and the connection ends"

    answer=$(printf 'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n' | exchange)
    expect 'HTTP/1.1 501 ' 1 "$answer"
    answer=$({ printf 'GET / HTTP/1.1\r\nX: ' && head -c 20000 /dev/zero | tr '\0' x; } | exchange)
    expect 'HTTP/1.1 431 ' 1 "$answer"
    passed "http: chunked bodies and endless headers are refused"

    answer=$(printf "$last" | exchange | sed -n 's/^Date: \(.*\)\r$/\1/p')
    local apart=$(($(date +%s) - $(date -d "$answer" +%s)))
    ((apart >= 0 && apart <= 2)) || fail "the date is $apart s off: $answer"
    [[ "$answer" == "$(LC_ALL=C date -u -d "$answer" '+%a, %d %b %Y %H:%M:%S GMT')" ]] ||
        fail "the date is not in the form of HTTP: $answer"
    passed "http: $answer"

    if command -v curl >/dev/null; then
        status=$(curl --silent --show-error --max-time 10 --output "$scratch/body" \
            --write-out '%{http_code} %{num_connects}\n' \
            "http://$HOST:$PORT/1" --next --silent --output "$scratch/body" \
            --write-out '%{http_code} %{num_connects}\n' "http://$HOST:$PORT/2")
        [[ "$status" == $'200 1\n200 0' ]] || fail "curl says: $status"
        [[ "$(cat "$scratch/body")" == "Hello, world!" ]] || fail "curl got another body"
        head -c 3000000 /dev/zero >"$scratch/upload"
        status=$(curl --silent --show-error --max-time 10 --output /dev/null --data-binary \
            "@$scratch/upload" --write-out '%{http_code}' "http://$HOST:$PORT/")
        [[ "$status" == 200 ]] || fail "curl says of an upload: $status"
        passed "http: curl keeps its connection, and uploads"
    fi
    if command -v wrk >/dev/null; then
        answer=$(wrk -c 16 -t 1 -d 1 "http://$HOST:$PORT/")
        expect 'Non-2xx\|Socket errors' 0 "$answer"
        passed "http: wrk,$(sed -n 's/^Requests.sec: */ requests a second: /p' <<<"$answer")"
    fi
    stop
}

run_echo() {
    start "${1:-echo}"
    head -c 1000000 /dev/urandom >"$scratch/sent"
    local connections=() number
    # The sockets' buffers are smaller than what is sent: reading and writing go on together.
    for number in 1 2 3 4 5 6 7 8; do
        (
            exec 3<>"/dev/tcp/$HOST/$PORT"
            cat "$scratch/sent" >&3 &
            timeout 20 head -c 1000000 <&3 >"$scratch/got$number"
            wait
            cmp "$scratch/sent" "$scratch/got$number"
        ) &
        connections+=($!)
    done
    for number in "${connections[@]}"; do
        wait "$number" || fail "${1:-echo} answered something else"
    done
    passed "${1:-echo}: eight connections, 1 MB each, come back as they were"
    stop
}

# These two tell their story and end.
run_event_loop() {
    timeout 20 "$TARGET_DIR/release/examples/event_loop" >"$scratch/out" || fail "event_loop failed"
    [[ -s "$scratch/out" ]] || fail "event_loop printed nothing"
    passed "event_loop: the tutorial runs to its end"
}

run_practice() {
    timeout 20 "$TARGET_DIR/release/examples/practice" >"$scratch/out" || fail "practice failed"
    local said
    said=$(cat "$scratch/out")
    expect 'toast after' 1 "$said"
    expect 'at most 2 at a time' 1 "$said"
    expect 'ms  at its time' 1 "$said"
    expect 'its task answered 42' 1 "$said"
    expect 'on epoll: hello, proactor' 1 "$said"
    passed "practice: the five exercises"
}

run_timer() {
    timeout 20 "$TARGET_DIR/release/examples/timer" >"$scratch/out" || fail "timer failed"
    [[ -s "$scratch/out" ]] || fail "timer printed nothing"
    passed "timer: runs to its end"
}

run_simulate() {
    timeout 60 "$TARGET_DIR/release/examples/simulate" >"$scratch/out" || fail "simulate failed"
    local said
    said=$(cat "$scratch/out")
    expect 'increments were acknowledged, and' 1 "$said"
    expect 'to replay: SIM_SEED=' 1 "$said"
    expect 'is the same' 1 "$said"
    expect 'no failure in 2000 seeds' 1 "$said"
    passed "simulate: finds the planted bug, replays it, and passes the fixed service"
}

run_echo_owned() {
    run_echo echo_owned
}

# Datagrams of several sizes, an empty one among them, come back as they were. Bash sends what one write
# holds as a datagram; a descriptor of it is read by what reads one at a time.
run_udp_echo() {
    start udp_echo
    local size
    exec 3<>"/dev/udp/$HOST/$PORT"
    for size in 1 64 1400 9000 65000; do
        head -c "$size" /dev/urandom >"$scratch/sent"
        dd if="$scratch/sent" bs=65536 count=1 status=none >&3
        timeout 10 dd bs=65536 count=1 status=none <&3 >"$scratch/got" ||
            fail "a datagram of $size bytes does not come back within 10 s"
        cmp "$scratch/sent" "$scratch/got" || fail "a datagram of $size bytes came back otherwise"
    done
    exec 3>&-
    passed "udp_echo: datagrams of 1 to 65,000 bytes come back as they were"
    stop
}

# The loop around the runtime serves as a server of its own does, and its timer ticks meanwhile.
run_foreign_loop() {
    run_echo foreign_loop
    start foreign_loop
    sleep 1.2
    grep -q '^1 s, 1 tasks' "$scratch/out" || fail "the foreign timer did not tick: $(cat "$scratch/out")"
    passed "foreign_loop: its own timer ticks"
    stop
}

# Bash has no Unix sockets, so python3 talks to it where it is installed; the file has to come and go.
run_unix_echo() {
    local path="$scratch/echo.socket" count
    for count in 1 2; do
        : >"$scratch/out"
        "$TARGET_DIR/release/examples/unix_echo" "$path" >"$scratch/out" 2>"$scratch/err" &
        server=$!
        until grep -q '^echo on' "$scratch/out"; do
            kill -0 "$server" 2>/dev/null || fail "unix_echo ended at once: $(cat "$scratch/err")"
            sleep 0.02
        done
        [[ -S "$path" ]] || fail "unix_echo made no socket"
        if "$TARGET_DIR/release/examples/unix_echo" "$path" 2>"$scratch/err"; then
            fail "a second unix_echo took the path of the first"
        fi
        grep -q 'has it bound' "$scratch/err" || fail "it does not say who is there: $(cat "$scratch/err")"
        if command -v python3 >/dev/null; then
            timeout 20 python3 - "$path" <<'PYTHON' || fail "unix_echo answered something else"
import os, socket, sys
ends = [socket.socket(socket.AF_UNIX) for _ in range(8)]
for end in ends:
    end.connect(sys.argv[1])
    read, write = os.pipe()
    socket.send_fds(end, [b"a pipe"], [write])
    os.close(write)
    data, fds, _, _ = socket.recv_fds(end, 64, 4)
    assert (data, len(fds)) == (b"a pipe", 1), (data, fds)
    os.write(fds[0], b"through")
    os.close(fds[0])
    assert os.read(read, 64) == b"through"
    sent = os.urandom(100000)
    end.sendall(sent)
    got = b""
    while len(got) < len(sent):
        got += end.recv(65536)
    assert got == sent
PYTHON
        fi
        # The first is killed, and leaves its file for the second to replace.
        if ((count == 1)); then
            kill -KILL "$server"
            wait "$server" 2>/dev/null || true
            server=""
            [[ -S "$path" ]] || fail "a killed server removed its file"
            # The kernel takes a dead process's ring apart in the background; until then the socket
            # is bound.
            while grep -qF -- "$path" /proc/net/unix; do
                sleep 0.02
            done
        fi
    done
    stop
    [[ ! -e "$path" ]] || fail "the last core left the file behind"
    passed "unix_echo: bytes and descriptors come back, and its file comes and goes"
}

run_chat() {
    start chat
    exec 4<>"/dev/tcp/$HOST/$PORT" 5<>"/dev/tcp/$HOST/$PORT"
    local said
    # Who is not in the room yet does not hear what is said there.
    read -r -t 10 said <&5 || fail "the chat does not welcome"
    expect 'guest1 is here' 1 "$said"
    printf '/nick ann\nhel' >&4
    sleep 0.1
    printf 'lo\nbye\n' >&4
    said=$(timeout 10 head -n 3 <&5)
    expect 'guest0 is now ann' 1 "$said"
    expect '^ann: hello$' 1 "$said"
    exec 4>&-
    said=$(timeout 10 head -n 1 <&5)
    expect 'ann has left' 1 "$said"
    # One that never reads is dropped, and all others go on.
    exec 6<>"/dev/tcp/$HOST/$PORT" 7<>"/dev/tcp/$HOST/$PORT"
    timeout 20 grep -m 1 -q 'guest2 has left' <&5 &
    local listener=$!
    { head -c 40000000 /dev/zero | tr '\0' x | fold -w 1000; echo; } >&7 &
    local talker=$!
    cat <&7 >/dev/null &
    local reader=$!
    wait "$listener" || fail "a client that does not read is not dropped"
    kill "$talker" "$reader" 2>/dev/null || true
    wait "$talker" "$reader" 2>/dev/null || true
    exec 5>&- 6>&- 7>&-
    passed "chat: lines go to everybody, and who does not read is dropped"
    stop
}

run_resp() {
    start resp
    exec 4<>"/dev/tcp/$HOST/$PORT"
    local said
    # Sent together, answered in order, whichever core has the key.
    printf 'SET a 1\r\nINCR a\r\nMSET b 2 c 3\r\nMGET a b c d\r\nDEL a b d\r\nGET a\r\n' >&4
    said=$(timeout 10 head -n 13 <&4 | tr -d '\r' | tr '\n' ' ')
    expect '^+OK :2 +OK \*4 \$1 2 \$1 2 \$1 3 \$-1 :2 \$-1 $' 1 "$said"
    printf '*1\r\n$x\r\n' >&4
    said=$(timeout 10 cat <&4)
    expect 'Protocol error: invalid bulk length' 1 "$said"
    exec 4>&-
    if command -v redis-cli >/dev/null; then
        said=$(timeout 20 redis-cli -h "$HOST" -p "$PORT" set key value ex 100)
        expect '^OK$' 1 "$said"
        said=$(timeout 20 redis-cli -h "$HOST" -p "$PORT" ttl key)
        expect '^\(100\|99\)$' 1 "$said"
        said=$(timeout 20 redis-cli -h "$HOST" -p "$PORT" info)
        expect '^keys:2' 1 "$said"
        timeout 60 redis-benchmark -h "$HOST" -p "$PORT" -t set,get,incr,mset -n 20000 -P 16 -q \
            >/dev/null 2>&1 || fail "redis-benchmark is not served"
    fi
    passed "resp: requests of a redis client, in order, over all cores"
    stop
}

run_own_driver() {
    local said
    said=$(timeout 20 "$TARGET_DIR/release/examples/own_driver" 100)
    expect 'too late: ' 1 "$said"
    expect 'after all: 9 bytes' 1 "$said"
    said=$(timeout 20 "$TARGET_DIR/release/examples/own_driver" 1)
    expect 'in time: 9 bytes' 1 "$said"
    expect 'running on the driver `late`' 1 "$said"
    expect '[1-9] receives' 1 "$said"
    passed "own_driver: what is held back is late, and not lost"
}

run_copy() {
    local copy=$TARGET_DIR/release/examples/copy
    # Not a whole number of chunks.
    head -c $((64 * 1024 * 1024 + 4711)) /dev/urandom >"$scratch/source"
    "$copy" "$scratch/source" "$scratch/target" >"$scratch/out"
    cmp "$scratch/source" "$scratch/target" || fail "the copy differs"
    passed "copy: $(cat "$scratch/out")"
    : >"$scratch/empty"
    "$copy" "$scratch/empty" "$scratch/nothing" >/dev/null
    [[ -e "$scratch/nothing" && ! -s "$scratch/nothing" ]] || fail "the copy of nothing is not empty"
    if "$copy" "$scratch/source" "$scratch/target" 2>"$scratch/err"; then
        fail "a file that exists was written over"
    fi
    grep -q 'File exists' "$scratch/err" || fail "it does not say why: $(cat "$scratch/err")"
    passed "copy: an empty file is copied, and one that exists is kept"
}

run_static_files() {
    local root=$scratch/root answer name range
    mkdir -p "$root/below"
    printf '0123456789' >"$root/ten.txt"
    printf 'of the directory' >"$root/below/index.html"
    printf 'not for clients' >"$scratch/secret"
    : >"$root/empty"
    mkfifo "$root/fifo"
    head -c 20000 /dev/urandom >"$root/20k"
    head -c 100000 /dev/urandom >"$root/with a space"
    # Not a whole number of pieces.
    head -c 3000001 /dev/urandom >"$root/3m"
    start static_files "$root"
    local last='Host: here\r\nConnection: close\r\n\r\n'

    local host='HTTP/1.1\r\nHost: here\r\n\r\n'
    answer=$(printf "GET /ten.txt ${host}HEAD /3m ${host}GET /none HTTP/1.1\r\n$last" | exchange)
    expect 'HTTP/1.1 200 OK' 2 "$answer"
    expect 'Content-Type: text/plain' 1 "$answer"
    expect '0123456789' 1 "$answer"
    expect 'Content-Length: 3000001' 1 "$answer"
    expect 'HTTP/1.1 404 ' 1 "$answer"
    passed "static_files: pipelined GET and HEAD, and what there is not"

    for name in ../secret %2e%2e/secret below/../../secret .%2e/secret ten.txt%00 %zz %2 //ten.txt \
        ./ten.txt below%2f..%2ften.txt; do
        answer=$(printf "GET /$(sed 's/%/%%/g' <<<"$name") HTTP/1.1\r\n$last" | exchange)
        expect 'HTTP/1.1 400 ' 1 "$answer"
        expect 'not for clients\|0123456789' 0 "$answer"
    done
    answer=$(printf "GET /fifo HTTP/1.1\r\n$last" | exchange)
    expect 'HTTP/1.1 404 ' 1 "$answer"
    passed "static_files: nothing outside of the root, and no FIFO, is opened"

    answer=$(printf "DELETE /ten.txt HTTP/1.1\r\n$last" | exchange)
    expect 'HTTP/1.1 405 ' 1 "$answer"
    expect 'Allow: GET, HEAD' 1 "$answer"
    answer=$(printf "POST / HTTP/1.1\r\nContent-Length: 5\r\n${last}12345" | exchange)
    expect 'HTTP/1.1 413 ' 1 "$answer"
    for bad in 'nonsense\r\n\r\n' 'GET /ten.txt HTTP/2.0\r\n\r\n' 'GET /ten.txt HTTP/1.1\r\n\r\n' \
        'GET ten.txt HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n' 'GET /ten.txt HTTP/1.1\r\nno colon\r\n\r\n'; do
        answer=$(printf "$bad" | exchange)
        expect 'HTTP/1.1 400 ' 1 "$answer"
    done
    answer=$({ printf 'GET / HTTP/1.1\r\nX: ' && head -c 20000 /dev/zero | tr '\0' x; } | exchange)
    expect 'HTTP/1.1 431 ' 1 "$answer"
    passed "static_files: what is no request, or not one for files, is refused"

    for range in 0-3=0123 7-=789 -2=89 4-4=4 8-99=89 -99=0123456789 3-1=0123456789 0-1,4-5=0123456789; do
        answer=$(printf "GET /ten.txt HTTP/1.1\r\nRange: bytes=${range%%=*}\r\n$last" | exchange)
        expect "^${range#*=}\$" 1 "$answer"
    done
    answer=$(printf "GET /ten.txt HTTP/1.1\r\nRange: bytes=10-\r\n$last" | exchange)
    expect 'HTTP/1.1 416 ' 1 "$answer"
    expect 'Content-Range: bytes \*/10' 1 "$answer"
    passed "static_files: ranges"

    local since
    since=$(printf "HEAD /ten.txt HTTP/1.1\r\n$last" | exchange | sed -n 's/^Last-Modified: \(.*\)\r$/\1/p')
    answer=$(printf "GET /ten.txt HTTP/1.1\r\nIf-Modified-Since: $since\r\n$last" | exchange)
    expect 'HTTP/1.1 304 ' 1 "$answer"
    sleep 1.1
    printf 'another' >"$root/ten.txt"
    touch -d '2001-01-01' "$root/ten.txt"
    sleep 1.1
    answer=$(printf "GET /ten.txt HTTP/1.1\r\nIf-Modified-Since: $since\r\n$last" | exchange)
    expect 'another' 1 "$answer"
    passed "static_files: a file that has changed is looked up anew"

    if command -v curl >/dev/null; then
        for name in 20k with%20a%20space 3m empty below/; do
            curl --silent --show-error --fail --max-time 10 --output "$scratch/got" \
                "http://$HOST:$PORT/$name?query" || fail "curl fails on $name"
            local there=$root/${name//%20/ }
            [[ -d "$there" ]] && there=$there/index.html
            cmp "$scratch/got" "$there" || fail "$name is another"
        done
        curl --silent --max-time 10 --range 131071-2000000 --output "$scratch/got" \
            "http://$HOST:$PORT/3m"
        cmp "$scratch/got" <(tail -c +131072 "$root/3m" | head -c 1868930) || fail "the range differs"
        passed "static_files: curl gets every file as it is"
    fi
    stop
}

run_proxy() {
    head -c 3000001 /dev/urandom >"$scratch/3m"
    start static_files "$scratch"
    local upstream=$server address=$HOST:$PORT
    server=""
    start proxy "$address"
    if command -v curl >/dev/null; then
        local number clients=()
        for number in 1 2 3 4 5 6 7 8; do
            (
                curl --silent --show-error --fail --max-time 10 --output "$scratch/got$number" \
                    "http://$HOST:$PORT/3m" && cmp "$scratch/3m" "$scratch/got$number"
            ) &
            clients+=($!)
        done
        for number in "${clients[@]}"; do
            wait "$number" || fail "the proxy passed something else on"
        done
        passed "proxy: curl gets 3 MB through it, eight times at once"
    fi
    # The client ends what it says, and is still answered.
    expect 'HTTP/1.1 200 OK' 1 "$(printf 'HEAD /3m HTTP/1.0\r\n\r\n' | exchange)"
    stop
    grep -q '[1-9][0-9]* connections, 0 failed' "$scratch/out" || fail "it counts: $(cat "$scratch/out")"
    passed "proxy: $(grep -m1 'connections' "$scratch/out")"
    server=$upstream
    stop
}

for name in "${@:-${EXAMPLES[@]}}"; do
    "run_$name"
done
