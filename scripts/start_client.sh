#!/bin/sh
# Starts the client. Builds the programs if needed, makes keys/client.pem if it is missing, and passes on all arguments:
#
#     scripts/start_client.sh list
#     scripts/start_client.sh get images --dir /data
#
# A key named by --key or GPB_KEY wins over keys/client.pem.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/scripts/programs.sh"

build_programs
if [ -z "${GPB_KEY:-}" ]; then
    GPB_KEY=$root/keys/client.pem
    make_key "$GPB_KEY"
fi
export GPB_KEY
exec "$bin/gpb-client" "$@"
