#!/bin/sh
# Measures GPB beside the programs that one would use instead (nginx and curl, rsync, aria2, libtorrent, tar, b3sum), on
# this machine alone, and prints tables in Markdown. Numbers of one machine say nothing about another.
#
#     scripts/bench.sh                    all scenarios, 5 runs of each program: a quarter of an hour
#     scripts/bench.sh --quick            tiny files, one run: only to see that all works
#     scripts/bench.sh --runs 3 S1 S3     some scenarios; --help says which there are
#     scripts/bench.sh scale              how costs grow, up to 1,000,000 files and a file of 1 TiB: some minutes
#
# Needs python3, and for the sizes above 5.5 GiB in /dev/shm (or --dir DIR). As root it also measures several servers and
# swarms with slow links, and everything runs in networks of its own. Everything is removed at the end.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/scripts/programs.sh"

command -v python3 > /dev/null 2>&1 || { echo 'python3 is not installed' >&2; exit 1; }
export PYTHONDONTWRITEBYTECODE=1
# What it can do is told without the programs.
for argument; do
    case $argument in
        -h | --help) exec python3 "$root/scripts/bench" --programs "$bin" --help ;;
    esac
done
build_programs
exec python3 "$root/scripts/bench" --programs "$bin" "$@"
