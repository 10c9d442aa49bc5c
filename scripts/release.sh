#!/usr/bin/env bash
# Makes a release for one target: release.sh [TARGET] [FOLDER]
#
# Leaves in FOLDER (default: target/dist) an archive with the programs, the documents and the licences of all that is
# linked in, the bill of materials (CycloneDX), and SHA256SUMS of both. `sha256sum -c SHA256SUMS` checks them. The archive has no
# time and no path of this machine: SOURCE_DATE_EPOCH is that of the last commit unless it is set. Where `cargo auditable`
# is installed, the programs carry the list of their crates as well.
set -euo pipefail
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
cd "$root"
target=${1:-$(rustc -vV | sed -n 's/^host: //p')}
folder=${2:-${CARGO_TARGET_DIR:-target}/dist}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
name=gpb-$version-$target
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}

build=(cargo build)
if cargo auditable --version > /dev/null 2>&1; then
    build=(cargo auditable build)
else
    echo 'release.sh: without cargo-auditable, the programs do not carry the list of their crates' >&2
fi
home=${CARGO_HOME:-$HOME/.cargo}
RUSTFLAGS="${RUSTFLAGS:-} --remap-path-prefix=$root=/gpb --remap-path-prefix=$home=/cargo" \
    "${build[@]}" --locked --release --bins --target "$target"

mkdir -p "$folder"
folder=$(CDPATH='' cd -- "$folder" && pwd)
staging=$(mktemp -d "${TMPDIR:-/tmp}/gpb-release.XXXXXX")
trap 'rm -rf "$staging"' EXIT
mkdir "$staging/$name"
programs=${CARGO_TARGET_DIR:-target}/$target/release
install -m 755 "$programs"/gpb-{keygen,server,client} "$staging/$name"
install -m 644 README.md README.pt-BR.md CHANGELOG.md SECURITY.md LICENSE-MIT LICENSE-APACHE "$staging/$name"
scripts/supply_chain.py licences "$target" > "$staging/$name/THIRD-PARTY-LICENCES.txt"
scripts/supply_chain.py sbom "$target" > "$folder/$name.cdx.json"
tar -C "$staging" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner -cf - "$name" |
    gzip -9n > "$folder/$name.tar.gz"
cd "$folder"
sha256sum "$name.tar.gz" "$name.cdx.json" > SHA256SUMS
cat SHA256SUMS
