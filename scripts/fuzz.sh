#!/usr/bin/env bash
# Fuzzes: fuzz.sh SECONDS [TARGET...]
#
# Runs each target (all without a name) for that many seconds with libFuzzer and the address sanitizer, two at a time, and
# ends with a table: runs, edges that were reached, size of the corpus, and what was found. Any finding is exit code 1;
# its input lies in fuzz/artifacts/TARGET, and `fuzz.sh 0 TARGET` runs these inputs and the seeds alone.
#
# Needs a nightly toolchain (`rustup toolchain install nightly --profile minimal`) and a C++ compiler; cargo-fuzz works
# here too, but is not needed. JOBS=N runs N targets at a time; CORPUS=DIR keeps what was found elsewhere.
set -uo pipefail
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
cd "$root/fuzz" || exit 1

if ! [[ ${1:-} =~ ^[0-9]+$ ]]; then
    sed -n '2,9s/^# \{0,1\}//p' "$root/scripts/fuzz.sh" >&2
    exit 2
fi
seconds=$1
shift
all=$(sed -n 's|^path = "fuzz_targets/\(.*\)\.rs"$|\1|p' Cargo.toml)
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
    mapfile -t targets <<< "$all"
fi
for target in "${targets[@]}"; do
    grep -qx -- "$target" <<< "$all" || { echo "fuzz.sh: no target $target; there are" $all >&2; exit 2; }
done
if ! cargo +nightly --version > /dev/null 2>&1; then
    echo 'fuzz.sh: no nightly toolchain; rustup toolchain install nightly --profile minimal' >&2
    exit 2
fi

# As cargo-fuzz sets them: coverage of edges and of comparisons for libFuzzer, and the address sanitizer.
coverage='-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters'
coverage+=' -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares'
coverage+=' -Cllvm-args=-simplifycfg-branch-fold-threshold=0 --cfg fuzzing'
host=$(rustc +nightly -vV | sed -n 's/^host: //p')
bins=()
for target in "${targets[@]}"; do
    bins+=(--bin "$target")
done
# A target triple keeps the flags away from build scripts and macros.
RUSTFLAGS="$coverage -Zsanitizer=address" cargo +nightly build --locked --release --target "$host" "${bins[@]}" || exit 1
programs=${CARGO_TARGET_DIR:-$PWD/target}/$host/release
corpora=${CORPUS:-$PWD/corpus}

logs=$(mktemp -d "${TMPDIR:-/tmp}/gpb-fuzz.XXXXXX")
end_all() {
    local running
    running=$(jobs -rp)
    # shellcheck disable=SC2086
    [ -z "$running" ] || kill $running 2> /dev/null
    wait
    rm -rf "$logs"
}
trap end_all EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# fuzz TARGET: runs one program, and keeps what it says and how it ends. Its own files go to a folder that is removed.
fuzz() {
    local target=$1 options=() inputs program profile=1
    # The compared values of a key exchange and of a simulated clock are new in each run: kept as progress, they fill the
    # corpus with copies and take nearly all of the time.
    [[ $target =~ ^(server_session|client_session|download|peer_table|config)$ ]] && profile=0
    mkdir -p "$corpora/$target" "artifacts/$target" "$logs/$target"
    [ -f "dictionaries/$target" ] && options+=("-dict=dictionaries/$target")
    if [ "$seconds" -eq 0 ]; then
        options+=(-runs=0)
        inputs=("seeds/$target" "artifacts/$target")
    else
        options+=("-max_total_time=$seconds")
        inputs=("$corpora/$target" "seeds/$target")
    fi
    TMPDIR="$logs/$target" "$programs/$target" "${options[@]}" -artifact_prefix="artifacts/$target/" -max_len=4096 \
        -len_control=20 -rss_limit_mb=2048 -malloc_limit_mb=512 -timeout=25 -print_final_stats=1 "-use_value_profile=$profile" \
        "${inputs[@]}" > "$logs/$target.log" 2>&1 &
    program=$!
    trap 'kill $program 2> /dev/null' TERM
    wait $program
    echo $? > "$logs/$target.rc"
}

for target in "${targets[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge "${JOBS:-2}" ]; do
        wait -n
    done
    echo "fuzzing $target"
    fuzz "$target" &
done
wait

failed=0
table=$(printf '%-16s %12s %8s %8s  %s' target runs edges corpus result)
for target in "${targets[@]}"; do
    result=ok
    if [ "$(cat "$logs/$target.rc" 2> /dev/null)" != 0 ]; then
        failed=1
        result="FOUND $(grep -o 'Test unit written to .*' "$logs/$target.log" | sed 's/.* //' | tail -n 1)"
        printf '\n== %s\n' "$target"
        grep -v '^#[0-9]' "$logs/$target.log" | tail -n 60
    fi
    last=$(grep -E '^#[0-9]+.* cov: ' "$logs/$target.log" | tail -n 1)
    runs=$(sed -n 's/^#\([0-9]*\).*/\1/p' <<< "$last")
    edges=$(sed -n 's/.* cov: \([0-9]*\).*/\1/p' <<< "$last")
    corpus=$(sed -n 's|.* corp: \([0-9]*\).*|\1|p' <<< "$last")
    table+=$(printf '\n%-16s %12s %8s %8s  %s' "$target" "${runs:-0}" "${edges:-0}" "${corpus:-0}" "$result")
done
printf '\n%s\n' "$table"
exit $failed
