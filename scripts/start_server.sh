#!/bin/sh
# Starts a server. Builds the programs if needed, makes keys/server.pem if it is missing, and passes on all arguments:
#
#     scripts/start_server.sh --dir /data --trusted keys/trusted
#
# A key named by --key or GPB_KEY wins over keys/server.pem.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/scripts/programs.sh"

build_programs
if [ -z "${GPB_KEY:-}" ]; then
    GPB_KEY=$root/keys/server.pem
    make_key "$GPB_KEY"
fi
export GPB_KEY
exec "$bin/gpb-server" "$@"
