#!/bin/sh
# Measures GPB on this machine: hashing, and one file from one and from three servers over loopback, everything verified
# and encrypted. Numbers of one machine say nothing about another; compare runs of the same hour.
#
#     scripts/bench.sh [MIB [RUNS]]     (1024 MiB, 5 runs; the median is shown)
#
# Needs three times the size in memory (/dev/shm) or below ${TMPDIR:-/tmp}. Everything is removed at the end.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/scripts/programs.sh"
mib=${1:-1024}
runs=${2:-5}
build_programs

place=${TMPDIR:-/tmp}
[ ! -w /dev/shm ] || place=/dev/shm
work=$(mktemp -d "$place/gpb-bench.XXXXXX")
pids=
clean_up() {
    trap '' INT TERM HUP
    # shellcheck disable=SC2086 # a list of numbers
    [ -z "$pids" ] || kill $pids 2> /dev/null || true
    for pid in $pids; do
        wait "$pid" 2> /dev/null || true
    done
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
for variable in $(env | sed -n 's/^\(GPB_[A-Z_]*\)=.*/\1/p'); do
    unset "$variable"
done
export LC_ALL=C XDG_CONFIG_HOME="$work/config"

mkdir "$work/files" "$work/out"
head -c "$((mib * 1048576))" /dev/urandom > "$work/files/file.bin"

peers=
for name in 1 2 3; do
    : > "$work/server$name"
    started=$(date +%s.%N)
    "$bin/gpb-server" --dir "$work/files" --state "$work/state$name" --port 0 --no-multicast \
        > "$work/server$name" 2> "$work/log$name" &
    pids="$pids $!"
    tries=0
    until grep -q '^ready ' "$work/server$name"; do
        tries=$((tries + 1))
        kill -0 "$!" && [ "$tries" -lt 6000 ] || { cat "$work/log$name" >&2; exit 1; }
        sleep 0.05
    done
    ended=$(date +%s.%N)
    [ "$name" != 1 ] || awk -v a="$started" -v b="$ended" -v mib="$mib" 'BEGIN {
        printf "server ready, first start      %6.2f s %8.0f MB/s\n", b - a, mib * 1.048576 / (b - a) }'
    port=$(sed -n 's/^listening .*addr=.*:\([0-9]*\)$/\1/p' "$work/server$name")
    peers="$peers --peer 127.0.0.1:$port"
done

# Fetches with the options $2... and prints the median of all runs under the name $1.
measure() {
    label=$1
    shift
    n=0
    : > "$work/seconds"
    while [ "$n" -lt "$runs" ]; do
        rm -f "$work/out/file.bin"
        "$bin/gpb-client" get file.bin --dir "$work/out" --state "$work/client" --no-multicast --no-share --json -q "$@" \
            > "$work/json" || { cat "$work/json" >&2; exit 1; }
        sed -n 's/.*"event":"done".*"seconds":\([0-9.]*\).*/\1/p' "$work/json" >> "$work/seconds"
        cmp "$work/files/file.bin" "$work/out/file.bin" || exit 1
        n=$((n + 1))
    done
    sort -n "$work/seconds" | awk -v label="$label" -v mib="$mib" '{ s[NR] = $1 } END {
        m = s[int((NR + 1) / 2)]
        printf "%-30s %6.2f s %8.0f MB/s   (%.2f to %.2f s)\n", label, m, mib * 1.048576 / m, s[1], s[NR] }'
}

first=$(printf '%s' "$peers" | cut -d" " -f2,3)
# shellcheck disable=SC2086 # two words
measure "get from one server" $first
# shellcheck disable=SC2086 # several words
measure 'get from three servers' $peers
