#!/bin/sh
# Shows GPB at work on this machine alone, network or not: three servers and a client that finds them by multicast,
# fetches one file from all three at once and another that only one of them has, and compares both with the originals.
#
# Everything stays on the loopback interface. Needs about 1.5 GB below ${TMPDIR:-/tmp} for a minute, and removes it at
# the end. Only the processes that were started here are stopped.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/scripts/programs.sh"

shared_len=268435456
single_len=16777216
network=demo-$$
names='alice bruno clara'

say() { printf '%s\n' "$*"; }
title() { printf '\n%s\n' "== $*"; }
fail() {
    printf '\n%s\n' "demo failed: $*" >&2
    for name in $names; do
        [ -s "$work/$name/log" ] || continue
        say "last lines of the log of $name:" >&2
        tail -n 5 "$work/$name/log" >&2
    done
    exit 1
}

build_programs

work=$(mktemp -d "${TMPDIR:-/tmp}/gpb-demo.XXXXXX")
pids=
clean_up() {
    trap '' INT TERM HUP
    # shellcheck disable=SC2086 # a list of numbers
    [ -z "$pids" ] || kill $pids 2> /dev/null || true
    # They say goodbye and end at once; one that does not within five seconds is ended.
    tries=0
    # shellcheck disable=SC2086
    while [ -n "$pids" ] && kill -0 $pids 2> /dev/null; do
        tries=$((tries + 1))
        [ "$tries" -lt 50 ] || kill -9 $pids 2> /dev/null || true
        sleep 0.1
    done
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# Settings of the user are for real work, not for this.
for variable in $(env | sed -n 's/^\(GPB_[A-Z_]*\)=.*/\1/p'); do
    unset "$variable"
done
export LC_ALL=C XDG_CONFIG_HOME="$work/config" XDG_STATE_HOME="$work/state"

free_kb=$(df -Pk "$work" | awk 'END { print $4 }')
[ "$free_kb" -gt 1600000 ] || fail "too little space in $work: $free_kb KiB free; set TMPDIR to a directory with 1.6 GB"

title 'Two files of random bytes'
mkdir "$work/originals" "$work/downloads"
head -c "$shared_len" /dev/urandom > "$work/originals/shared.bin"
head -c "$single_len" /dev/urandom > "$work/originals/single.bin"
say "shared.bin   256 MiB   will be with all three servers"
say "single.bin    16 MiB   will be with clara only"

title 'Three servers, each with its own key, state and directory, each sending at most 100 MB/s'
for name in $names; do
    mkdir -p "$work/$name/files"
    cp "$work/originals/shared.bin" "$work/$name/files/"
    [ "$name" != clara ] || cp "$work/originals/single.bin" "$work/$name/files/"
    "$bin/gpb-keygen" --out "$work/$name/key.pem" > /dev/null
    : > "$work/$name/out"
    "$bin/gpb-server" --dir "$work/$name/files" --state "$work/$name/state" --key "$work/$name/key.pem" \
        --network "$network" --bind 127.0.0.1 --port 0 --upload-limit 100MB > "$work/$name/out" 2> "$work/$name/log" &
    pids="$pids $!"
    eval "pid_$name=$!"
done
for name in $names; do
    eval "pid=\$pid_$name"
    tries=0
    until grep -q '^ready ' "$work/$name/out"; do
        kill -0 "$pid" 2> /dev/null || fail "the server $name ended"
        tries=$((tries + 1))
        [ "$tries" -lt 600 ] || fail "the server $name is not ready after a minute"
        sleep 0.1
    done
    sed -n 's/^listening peer=\([^ ]*\) addr=\([^ ]*\).*/\1 \2/p' "$work/$name/out" > "$work/$name/id"
    read -r id addr < "$work/$name/id" || fail "the server $name does not say who it is"
    printf '%-6s %s  %s\n' "$name" "$id" "$addr"
done

client() {
    "$bin/gpb-client" "$@" --network "$network" --bind 127.0.0.1 --state "$work/client"
}

title 'gpb-client peers: who is there? (found by multicast, no address was given)'
client peers 2> "$work/log" || { cat "$work/log" >&2; fail 'no peer was found'; }

title 'gpb-client list: what is there?'
client list 2> "$work/log" || { cat "$work/log" >&2; fail 'nothing could be listed'; }

# Fetches the file $1 and prints a line for each server that gave something.
fetch() {
    title "gpb-client get $1"
    client get "$1" --dir "$work/downloads" --json > "$work/json" 2> "$work/log" ||
        { cat "$work/json" "$work/log" >&2; fail "$1 could not be fetched"; }
    grep '"event":"done"' "$work/json" > "$work/done" || fail 'the client gave no report'
    seconds=$(sed 's/.*"seconds":\([0-9.eE+-]*\).*/\1/' "$work/done")
    tr '{' '\n' < "$work/done" | sed -n 's/.*"peer":"\([^"]*\)".*"bytes":\([0-9]*\).*/\1 \2/p' > "$work/peers"
    for name in $names; do
        read -r id addr < "$work/$name/id"
        awk -v id="$id" -v name="$name" '$1 == id { n += $2 } END { print name, n + 0 }' "$work/peers"
    done > "$work/shares"
    awk -v len="$2" -v seconds="$seconds" '
        {
            share = 100 * $2 / len
            bar = ""
            for (i = 0; i < share / 2; i++) bar = bar "#"
            printf "%-6s %9.1f MiB %6.1f %%  %s\n", $1, $2 / 1048576, share, bar
            sum += $2
        }
        END { printf "%-6s %9.1f MiB in %.2f s: %.0f MB/s\n", "all", sum / 1048576, seconds, sum / seconds / 1e6 }
    ' "$work/shares"
}

# Compares the file $1 with its original.
compare() {
    cmp "$work/originals/$1" "$work/downloads/$1" || fail "$1 differs from the original"
    say "$1 is equal to the original, byte for byte"
    if command -v sha256sum > /dev/null 2>&1; then
        (cd "$work" && sha256sum "originals/$1" "downloads/$1")
    fi
}

fetch shared.bin "$shared_len"
awk -v len="$shared_len" '$2 < 0.20 * len || $2 > 0.47 * len { print $1; bad = 1 } END { exit bad }' "$work/shares" \
    > "$work/uneven" || fail "an uneven load: $(tr '\n' ' ' < "$work/uneven")gave less than 20 % or more than 47 %"
compare shared.bin

fetch single.bin "$single_len"
awk -v len="$single_len" '$1 == "clara" && $2 != len { exit 1 }' "$work/shares" || fail 'single.bin did not come from clara'
compare single.bin

title 'Done'
say 'Every server gave its part of shared.bin, every chunk was verified on arrival, and all bytes are right.'
say 'On two machines: scripts/start_server.sh --dir DIR on one, scripts/start_client.sh list on the other.'
