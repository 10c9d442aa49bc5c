# Sourced by the other scripts, which set `root`: builds the programs and makes keys.

# Where the programs are. In the directory GPB_BIN they are used as they are.
bin=${GPB_BIN:-${CARGO_TARGET_DIR:-$root/target}/release}

# Builds what is missing or older than its source. Without cargo, programs that are there are used as they are.
build_programs() {
    if [ -n "${GPB_BIN:-}" ] || ! command -v cargo > /dev/null 2>&1; then
        [ -x "$bin/gpb-server" ] && [ -x "$bin/gpb-client" ] && [ -x "$bin/gpb-keygen" ] && return
        [ -z "${GPB_BIN:-}" ] || { echo "GPB_BIN: the programs are not in $bin" >&2; exit 1; }
        echo "cargo is not installed; get Rust from https://rustup.rs and start again" >&2
        exit 1
    fi
    quiet=--quiet
    if [ ! -x "$bin/gpb-server" ]; then
        quiet=
        echo "building the programs; the first time takes a few minutes" >&2
    fi
    # There, since Cargo looks for its settings from where it is called.
    (cd "$root" && cargo build $quiet --release --locked --bins >&2)
}

# Makes the key file $1 unless there is one.
make_key() {
    [ -e "$1" ] || "$bin/gpb-keygen" --out "$1" >&2
}
