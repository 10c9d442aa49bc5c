#!/usr/bin/env bash
# Runs every check of the project, the same here and in CI; ends by saying what was skipped, what failed and why.
#
# Installs what the tests need where it may (as root, with apt-get). Without root, the tests that make hosts of their own
# are skipped. With CI=true nothing may be skipped.
#
# Each step has a time limit of several times what it needs, and all together have TEST_MINUTES (80): a step that hangs is
# killed with all that it started, named in the summary with the tests that still ran, and the next ones run.
set -uo pipefail
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
cd "$root" || exit 1
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-auto}
if [ "${CI:-}" = true ]; then
    export TESTS_REQUIRE_ALL=1
fi

logs=$(mktemp -d "${TMPDIR:-/tmp}/gpb-test.XXXXXX")
running= watchdog= compiler=
trap '[ ! -e "$logs/policy" ] || rm -f /usr/sbin/policy-rc.d; rm -rf "$logs"; [ -z "$compiler" ] || kill "$compiler" 2> /dev/null' EXIT
trap 'kill_step; exit 130' INT
trap 'kill_step; exit 143' TERM

# Tests of programs and hosts wait more than they compute: twice as many run at once as there are processors.
waiting=$((2 * $(nproc)))

results=()
failed=0
deadline=$((${TEST_MINUTES:-80} * 60))

# Ends the step that runs, and all that it started.
kill_step() {
    [ -z "$running" ] || kill -KILL -- "-$running" "-$watchdog" 2> /dev/null
}

# step MINUTES NAME COMMAND...: runs the command for so long at most, keeps its output, and remembers how it ended.
step() {
    local limit=$(($1 * 60)) name=$2 log=$logs/${#results[@]}.log started=$SECONDS result=ok
    shift 2
    printf '\n== %s\n' "$name"
    [ "$limit" -le $((deadline - SECONDS)) ] || limit=$((deadline - SECONDS))
    [ "$limit" -gt 0 ] || limit=1
    # A process group of its own, which can be ended as a whole.
    set -m
    { "$@" < /dev/null 2>&1 | tee "$log"; } &
    running=$!
    { sleep "$limit" && touch "$log.late" && kill -KILL -- "-$running"; } > /dev/null 2>&1 &
    watchdog=$!
    set +m
    wait "$running" 2> /dev/null || result=FAILED
    running=
    kill -- "-$watchdog" 2> /dev/null
    wait "$watchdog" 2> /dev/null
    if [ -e "$log.late" ]; then
        result=HANGS
        printf '\n%s: killed after %d s\n' "$name" "$limit" | tee -a "$log"
    fi
    [ "$result" = ok ] || failed=1
    results+=("$(printf '%-6s %5d s  %s' "$result" $((SECONDS - started)) "$name")")
}

# What the output of a step that did not end well says of it: tests that did not end, then what tests that failed wrote, or
# the last lines.
why() {
    local log=$1 test
    sed -n 's/^test \(.*\) has been running for over 60 seconds$/\1/p' "$log" | while read -r test; do
        grep -qF "test $test ... " "$log" || echo "still ran: $test"
    done
    if grep -q '^failures:$' "$log"; then
        awk '/^failures:$/ { on = 1 } /^test result:/ { on = 0 } on' "$log" | head -n 100
    else
        tail -n 12 "$log"
    fi | cut -c 1-1000
}

# Whether this Python can serve as an oracle.
has_libtorrent() {
    local python
    for python in python3 /usr/bin/python3; do
        "$python" -c 'import libtorrent' > /dev/null 2>&1 && return
    done
    return 1
}

install_tools() {
    local packages=()
    has_libtorrent || packages+=(python3-libtorrent)
    command -v openssl > /dev/null || packages+=(openssl)
    { command -v ip && command -v tc && command -v bridge; } > /dev/null || packages+=(iproute2)
    { command -v unshare && command -v nsenter && command -v setpriv; } > /dev/null || packages+=(util-linux)
    command -v nft > /dev/null || packages+=(nftables)
    # Disks that fill up, break and vanish.
    { command -v mkfs.ext4 && command -v e2fsck; } > /dev/null || packages+=(e2fsprogs)
    { command -v mkfs.xfs && command -v xfs_io; } > /dev/null || packages+=(xfsprogs)
    command -v fuse2fs > /dev/null || packages+=(fuse2fs)
    # A disk that takes names which differ in case for one.
    { command -v mount.exfat-fuse && command -v mkfs.exfat; } > /dev/null || packages+=(exfat-fuse exfatprogs)
    # Other implementations of DNS-SD, and a reflector.
    { command -v avahi-daemon && command -v avahi-browse; } > /dev/null || packages+=(avahi-daemon avahi-utils)
    command -v dbus-daemon > /dev/null || packages+=(dbus)
    { python3 -c 'import zeroconf' || /usr/bin/python3 -c 'import zeroconf'; } > /dev/null 2>&1 || packages+=(python3-zeroconf)
    # The oracle of what a fetched directory is besides its contents.
    command -v rsync > /dev/null || packages+=(rsync)
    if [ ${#packages[@]} -gt 0 ]; then
        if [ "$(id -u)" -eq 0 ] && command -v apt-get > /dev/null; then
            echo "installing ${packages[*]}"
            export DEBIAN_FRONTEND=noninteractive
            # No service of these packages is to run on this host, only in the tests. The end of this script takes that back.
            if [ ! -e /usr/sbin/policy-rc.d ]; then
                touch "$logs/policy"
                printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d
            fi
            { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${packages[@]}"; } > "$logs/apt" 2>&1 ||
                { tail -n 5 "$logs/apt"; echo "could not install ${packages[*]}; tests that need them will be skipped"; }
        else
            echo "not installed: ${packages[*]}; tests that need them will be skipped"
        fi
    fi
    if ! python3 -c 'import huggingface_hub' > /dev/null 2>&1; then
        python3 -m pip install --quiet --user --break-system-packages huggingface_hub > "$logs/pip" 2>&1 ||
            python3 -m pip install --quiet huggingface_hub > "$logs/pip" 2>&1 ||
            echo 'could not install huggingface_hub; the test that needs it will be skipped'
    fi
    if command -v rustup > /dev/null && ! { cargo fmt --version && cargo clippy --version; } > /dev/null 2>&1; then
        rustup component add rustfmt clippy || echo 'could not add rustfmt and clippy'
    fi
    echo done
}

check_scripts() {
    local script status=0
    for script in scripts/*.sh .ci/run; do
        bash -n "$script" || status=1
    done
    return $status
}

# The library and the programs are blocking; nothing below them may bring an executor along. deny.toml has the same names.
check_no_async_runtime() {
    local tree
    tree=$(cargo tree --locked --all-features --edges normal --prefix none --format '{p}') || return 1
    tree=$(awk '{ print $1 }' <<< "$tree" | sort -u)
    if grep -Ex 'tokio|async-std|smol|async-executor|async-global-executor|futures-executor|glommio|monoio|compio' <<< "$tree"; then
        echo 'is an async runtime'
        return 1
    fi
    echo "$(wc -l <<< "$tree") crates, none is an async runtime"
}

# What deny.toml says of licences, duplicates and sources. Advisories need the network and change without the project: they
# are checked before a release (CONTRIBUTING.md) and by a job of their own in CI.
check_dependencies() {
    if cargo deny --version > /dev/null 2>&1; then
        cargo deny --locked check --hide-inclusion-graph bans licenses sources
    else
        echo 'cargo-deny is not installed here; run it before a release'
    fi
}

# What users read, and what maintainers read.
check_docs() {
    RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps &&
        RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --all-features --document-private-items
}

# The demo, where possible on a host that has nothing but loopback.
run_demo() {
    if [ "$(id -u)" -eq 0 ] && unshare -n ip link set lo up 2> /dev/null; then
        unshare -n sh -c 'ip link set lo up && exec scripts/demo.sh'
    else
        scripts/demo.sh
    fi
}

step 10 'tools' install_tools
step 1 'scripts are well formed' check_scripts
step 2 'cargo fmt' cargo fmt --all --check
step 25 'cargo clippy' cargo clippy --locked --all-targets --all-features -- -D warnings
step 15 'cargo clippy, default features' cargo clippy --locked --lib --bins -- -D warnings
step 15 'cargo clippy, library alone' cargo clippy --locked --lib --no-default-features -- -D warnings
step 15 'cargo clippy, library with testing' cargo clippy --locked --lib --no-default-features --features testing -- -D warnings
step 2 'no async runtime' check_no_async_runtime
step 3 'cargo deny' check_dependencies
step 35 'cargo test, building' cargo test --locked --no-run
step 15 'cargo test, library and programs' cargo test --locked --no-fail-fast --lib --bins -- --show-output
# Compiles what the tests below leave of the processors. Its step waits until it has ended, and tells how.
nice -n 19 cargo build --locked --release --bins > /dev/null 2>&1 &
compiler=$!
step 30 'cargo test, it' cargo test --locked --test it -- --show-output --test-threads="$waiting"
step 30 'cargo test, lan' cargo test --locked --test lan -- --show-output --test-threads="$waiting"
step 30 'cargo build --release' cargo build --locked --release --bins
step 15 'cargo test, documentation' cargo test --locked --doc
step 25 'cargo test, watch of other systems' cargo test --locked --lib --features portable-watch share::
step 20 'cargo doc' check_docs
step 5 'scripts/demo.sh' run_demo

printf '\n== summary\n'
printf '%s\n' "${results[@]}"
skipped=$(cat "$logs"/*.log | sed -n -e 's/^skipped: //p' -e 's/^test \(.*\) \.\.\. ignored, /\1: /p' | sort -u)
if [ -n "$skipped" ]; then
    printf '\nskipped:\n'
    sed 's/^/  /' <<< "$skipped"
else
    printf '\nnothing was skipped\n'
fi
# Last, where the end of a long log is read first.
for n in "${!results[@]}"; do
    case ${results[n]} in
        ok*) ;;
        *) printf '\n== %s\n' "${results[n]}" && why "$logs/$n.log" ;;
    esac
done
exit $failed
