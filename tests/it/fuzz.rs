//! The fuzz targets over their seeds, on any toolchain. `scripts/fuzz.sh` runs them with inputs of libFuzzer.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

#[path = "fuzz/targets.rs"]
mod targets;

use targets::TARGETS;

/// Bytes of all seeds of one target, at most: they are examples of the form and no corpus.
const SEEDS_LEN_MAX: usize = 8 << 10;

fn fuzz_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The seeds of a target by name, sorted.
fn seeds(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = fuzz_dir().join("seeds").join(name);
    let files = fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut seeds: Vec<_> =
        files.map(|f| f.unwrap().path()).map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    seeds.sort();
    seeds
}

/// Runs the seeds of a target, and altered ones: each cut short, and each with some bytes replaced.
fn run(name: &str) {
    let seeds = seeds(name);
    assert!(!seeds.is_empty(), "{name} has no seeds");
    for (path, bytes) in &seeds {
        println!("{}", path.display());
        targets::run(name, bytes);
        alter(name, bytes);
    }
}

fn alter(name: &str, bytes: &[u8]) {
    let step = (bytes.len() / 8).max(1);
    for at in (0..bytes.len()).step_by(step) {
        targets::run(name, &bytes[..at]);
        for value in [0, 0x7f, 0x80, 0xff, bytes[at] ^ 1] {
            let mut altered = bytes.to_vec();
            altered[at] = value;
            targets::run(name, &altered);
        }
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            run(stringify!($name));
        })*

        #[test]
        fn each_target_has_a_program_seeds_and_a_test() {
            let tested = BTreeSet::from([$(stringify!($name)),*]);
            let known: BTreeSet<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(tested, known);
            let names = |dir: &str, end: &str| -> BTreeSet<String> {
                let files = fs::read_dir(fuzz_dir().join(dir)).unwrap();
                let names = files.map(|f| f.unwrap().file_name().into_string().unwrap());
                names.map(|name| name.strip_suffix(end).unwrap_or_else(|| panic!("{dir}/{name}")).to_string()).collect()
            };
            let expected: BTreeSet<String> = known.iter().map(|name| name.to_string()).collect();
            assert_eq!(names("seeds", ""), expected);
            assert_eq!(names("fuzz_targets", ".rs"), expected);
            let manifest = fs::read_to_string(fuzz_dir().join("Cargo.toml")).unwrap();
            for name in known {
                assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
                let len: usize = seeds(name).iter().map(|(_, bytes)| bytes.len()).sum();
                assert!(len <= SEEDS_LEN_MAX, "the seeds of {name} have {len} bytes");
            }
        }
    };
}

targets! {
    announces answers client_session config download frames index journal key_file names pages patterns peer_file
    peer_table remembered requests server_session trusted
}
